"""Draws what changes from episode to episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genvla.errors import UserError
from genvla.sim.config import DomainRandomization


@dataclass(frozen=True)
class EpisodeDraw:
    """One episode's start: which settled placement, and the offsets of robot, camera and light."""

    placement: int
    joint_offset: np.ndarray
    base_height_offset: float
    camera_offset: np.ndarray
    ambient_light: np.ndarray
    directional_light: float


def usable_placements(offsets: np.ndarray, reach: float, scene_id: str) -> np.ndarray:
    """Indices of the settled placements [k, objects, 2] whose every object lies within `reach` of its nominal place.

    `reach` is per axis, in metres.
    """
    usable = np.flatnonzero(np.abs(offsets).max(axis=(1, 2)) <= reach + 1e-6)
    if not len(usable):
        nearest = np.abs(offsets).max(axis=(1, 2)).min()
        raise UserError(
            f"scene {scene_id}: no placement within sim.randomization.object_xy = {reach:g} m; "
            f"the nearest needs {nearest:.3f} m. Raise object_xy or build the scenes with a smaller --xy_range"
        )
    return usable


def draw_episode(config: DomainRandomization, placements: np.ndarray, seed: int) -> EpisodeDraw:
    """The start of the episode with this seed.

    Every number is drawn whatever the ranges, so that changing one range leaves the rest.
    """
    rng = np.random.default_rng(seed)
    return EpisodeDraw(
        placement=int(rng.choice(placements)),
        joint_offset=config.robot_joints * rng.uniform(-1, 1, 6),
        base_height_offset=config.robot_height * rng.uniform(-1, 1),
        camera_offset=config.camera_position * rng.uniform(-1, 1, 3),
        ambient_light=rng.uniform(*config.ambient_light, 3),
        directional_light=rng.uniform(*config.directional_light),
    )
