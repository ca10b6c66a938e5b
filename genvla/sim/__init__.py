"""The simulated world: generated scenes with the WidowX, many at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genvla.errors import UserError
from genvla.seeding import generator
from genvla.sim.config import Camera, DomainRandomization, Gains, SimConfig
from genvla.sim.expert import Demonstration
from genvla.sim.simpler import is_simpler, require_assets, tasks_of
from genvla.sim.vector import Schedule, VectorEnv, make_vector_env

if TYPE_CHECKING:
    from scenegen.loader import SceneSet

RECIPES = Path("configs/scenes")
"""How the scene sets that the configurations name are built: `scenes/NAME` by `NAME.yaml`."""


def scenes_of(scenes: Path, split: str) -> list[str]:
    """Scene ids of split "train", "heldout" or "all", in the manifest's order; for `simpler` its tasks."""
    if is_simpler(scenes):
        return tasks_of(split)
    return _scene_set(scenes).ids(split)


def split_scenes(scenes: Path, split: str, split_seed: int | None = None) -> list[str]:
    """Scene ids of a split: the set's own, or one half of its training scenes.

    With a seed, the set's training scenes are put into an order drawn from it; the first half (of an odd number, the larger one)
    is "train", the rest "heldout", and "all" are both. So the first N of "train" lie within its first N + 1, as in the paper's
    study (arXiv 2603.18532: three random halves of 100 scenes), and what the set itself holds out is in none of them.

    Raises:
        UserError: there is no such split, or fewer than two scenes to divide.
    """
    if split_seed is None:
        return scenes_of(scenes, split)
    found = scenes_of(scenes, "train")
    if len(found) < 2:
        raise UserError(f"{scenes}: {len(found)} training scenes, split_seed wants at least 2 to divide")
    order = torch.randperm(len(found), generator=generator("cpu", split_seed, "split")).tolist()
    middle = (len(found) + 1) // 2
    parts = {"train": order[:middle], "heldout": order[middle:], "all": order}
    if split not in parts:
        raise UserError(f"split: found {split!r}; wanted train, heldout or all")
    return [found[i] for i in parts[split]]


def check_scenes(scenes: Path, ids: Iterable[str]) -> None:
    """Reads the scenes with these ids, so that a broken one is found before anything is made of the others.

    Raises:
        scenegen's UserError: a file of one is missing or wrong; it names file and field.
        UserError: the tasks of `simpler` are meant, and ManiSkill's download of them is not there.
    """
    if is_simpler(scenes):
        return require_assets()
    scene_set = _scene_set(scenes)
    for scene_id in ids:
        scene_set.load(scene_id)


def _scene_set(scenes: Path) -> SceneSet:
    from scenegen.loader import MANIFEST_FILE, load_scene_set

    recipe = RECIPES / f"{Path(scenes).name}.yaml"
    if recipe.is_file() and not (Path(scenes) / MANIFEST_FILE).is_file():
        raise UserError(f"{scenes}: no scene set found, want the one of `scenegen build --config {recipe} --output {scenes}`")
    return load_scene_set(scenes)


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
    "split_scenes",
]
