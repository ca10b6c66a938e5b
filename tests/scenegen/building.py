"""One small scene, built as the pipeline does."""

from __future__ import annotations

from pathlib import Path

from scenegen.build import SceneSpec, build_scene
from scenegen.designer.rules import design_scene
from scenegen.loader import Scene, load_scene
from scenegen.options import AssetOptions


def built(folder: Path, task: str, seed: int, xy_range: float, poses: int, distractors: tuple[int, int], tries: int = 4) -> Scene:
    """The first attempt at `task` that passes, in `folder`, which is made."""
    spec = SceneSpec("scene", task, seed, "basic", distractors, xy_range, poses, "rules", "procedural")
    reasons = []
    for attempt in range(tries):
        place = folder.with_name(f"{folder.name}-{attempt}")
        place.mkdir(parents=True)
        graph = design_scene(task, spec.attempt_seed(attempt), distractors)
        outcome = build_scene(spec, graph, attempt, AssetOptions().engine(), place)
        if outcome.ok:
            place.rename(folder)
            return load_scene(folder)
        reasons.append(outcome.reasons)
    raise AssertionError(f"no attempt at {task!r} passed: {reasons}")
