"""The list of a set's scenes, and what of a scene's files it vouches for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scenegen.files import tree_digest, write_atomic
from scenegen.schema import MANIFEST_FILE, PREVIEW_FILE, ManifestLine

SCENES = "scenes"

UNCOUNTED = frozenset({PREVIEW_FILE})
"""Files of a scene that its digest leaves out: pictures differ from driver to driver."""


def scene_digest(folder: Path) -> str:
    """SHA-256 over the files of the scene in `folder`."""
    return tree_digest(folder, UNCOUNTED)


def write_manifest(folder: Path, lines: Iterable[ManifestLine]) -> None:
    """Write `scene_set.jsonl` of the set in `folder`."""
    write_atomic(folder / MANIFEST_FILE, "".join(line.model_dump_json() + "\n" for line in lines).encode())
