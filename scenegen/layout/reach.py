"""What the WidowX can reach with its hand pointing down: inverse kinematics from its rest pose, many points at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from genvla.robots import kinematics, rotations, wx250s

Array = NDArray[np.float64]
BLOCKS, ITERATIONS = 6, 10
MAX_DISTANCE = 0.01
MAX_LEAN = np.radians(15.0)
"""How far [m, rad] the hand may be from a pose that counts as reached; a grasp from above forgives as much."""


@dataclass(frozen=True)
class Reach:
    """How near the hand comes to each pose: distance [m] and angle [rad], both [k]."""

    distance_m: Array
    angle_rad: Array

    @property
    def reached(self) -> NDArray[np.bool_]:
        return (self.distance_m <= MAX_DISTANCE) & (self.angle_rad <= MAX_LEAN)


def reach_down(points: Array, yaws: Array) -> Reach:
    """For points [k, 3] of the base frame between the finger pads and yaws [k] of the hand (its turn about z from where it points
    at rest, as in proprioception; nan for any).

    A parallel gripper fits both ways round: the better one counts. For any yaw the hand keeps in line with the arm."""
    points = np.asarray(points, float)
    yaws = np.where(np.isnan(yaws), np.arctan2(points[:, 1], points[:, 0]), yaws)
    both = np.concatenate([yaws, yaws + np.pi])
    zero = np.zeros_like(both)
    turn = rotations.euler_to_matrix(torch.from_numpy(np.stack([zero, zero, both], axis=1)))
    rotation = turn @ torch.tensor(kinematics.TOP_DOWN, dtype=torch.float64)
    position = torch.from_numpy(np.concatenate([points, points]))
    q = _starts(points, both)
    with torch.inference_mode():
        for _ in range(BLOCKS):
            q = kinematics.inverse(q, position, rotation, iterations=ITERATIONS)
            at, pointing = kinematics.forward(q)
            distance = (at - position).norm(dim=1).numpy()
            angle = rotations.matrix_to_rotvec(pointing @ rotation.mT).norm(dim=1).numpy()
            if ((distance < 1e-3) & (angle < 1e-2)).reshape(2, -1).any(axis=0).all():
                break
    distance, angle = distance.reshape(2, -1), angle.reshape(2, -1)
    better = np.argmin(np.maximum(distance / MAX_DISTANCE, angle / MAX_LEAN), axis=0)
    rows = np.arange(len(points))
    return Reach(distance[better, rows], angle[better, rows])


def _starts(points: Array, yaws: Array) -> torch.Tensor:
    """The rest pose with the waist turned to each point and the wrist back to the yaw, so that the search begins nearby."""
    bearing = np.tile(np.arctan2(points[:, 1], points[:, 0]), 2)
    start = wx250s.REST_QPOS[:6].repeat(len(yaws), 1)
    start[:, 0] = torch.from_numpy(bearing)
    start[:, 5] = torch.from_numpy((bearing - yaws + np.pi) % (2 * np.pi) - np.pi)
    return start
