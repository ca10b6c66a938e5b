"""The simulated world: generated scenes with the WidowX, many at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from genvla.sim.config import Camera, DomainRandomization, Gains, SimConfig
from genvla.sim.expert import Demonstration
from genvla.sim.simpler import is_simpler, require_assets, tasks_of
from genvla.sim.vector import Schedule, VectorEnv, make_vector_env


def scenes_of(scenes: Path, split: str) -> list[str]:
    """Scene ids of split "train", "heldout" or "all", in the manifest's order; for `simpler` its tasks."""
    if is_simpler(scenes):
        return tasks_of(split)
    from scenegen.loader import load_scene_set

    return load_scene_set(scenes).ids(split)


def check_scenes(scenes: Path, ids: Iterable[str]) -> None:
    """Reads the scenes with these ids, so that a broken one is found before anything is made of the others.

    Raises:
        scenegen's UserError: a file of one is missing or wrong; it names file and field.
        UserError: the tasks of `simpler` are meant, and ManiSkill's download of them is not there.
    """
    if is_simpler(scenes):
        return require_assets()
    from scenegen.loader import load_scene_set

    scene_set = load_scene_set(scenes)
    for scene_id in ids:
        scene_set.load(scene_id)


__all__ = [
    "Camera",
    "Demonstration",
    "DomainRandomization",
    "Gains",
    "Schedule",
    "SimConfig",
    "VectorEnv",
    "check_scenes",
    "make_vector_env",
    "scenes_of",
]
