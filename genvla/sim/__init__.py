"""The simulated world: generated scenes with the WidowX, many at once."""

from __future__ import annotations

from pathlib import Path

from genvla.sim.config import Camera, DomainRandomization, Gains, SimConfig
from genvla.sim.expert import Demonstration
from genvla.sim.vector import Schedule, VectorEnv, make_vector_env


def scenes_of(scenes: Path, split: str) -> list[str]:
    """Scene ids of split "train", "heldout" or "all", in the manifest's order."""
    from scenegen.loader import load_scene_set

    return load_scene_set(scenes).ids(split)


__all__ = [
    "Camera",
    "Demonstration",
    "DomainRandomization",
    "Gains",
    "Schedule",
    "SimConfig",
    "VectorEnv",
    "make_vector_env",
    "scenes_of",
]
