"""A scene set for tests that need a folder with a digest and nothing in it."""

from __future__ import annotations

import json
from pathlib import Path


def write_scene_set(folder: Path, content: str = "{}") -> Path:
    """A set of one scene, whose file is `content` and cannot be loaded."""
    (folder / "empty").mkdir(parents=True, exist_ok=True)
    (folder / "empty" / "scene.json").write_text(content)
    line = {"id": "empty", "path": "empty", "split": "heldout", "task": "put it", "digest": "0" * 64}
    (folder / "scene_set.jsonl").write_text(json.dumps(line))
    return folder
