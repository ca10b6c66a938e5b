"""Turns and poses, between EmbodiedGen's conventions and ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from scenegen.schema import Pose

Array = NDArray[np.float64]

UPRIGHT = Rotation.from_matrix([[1, 0, 0], [0, 0, -1], [0, 1, 0]])
"""A quarter turn about x: stands a y-up mesh on a z-up floor."""


def from_xyzw(q: Sequence[float]) -> Rotation:
    return Rotation.from_quat(q)


def to_xyzw(turn: Rotation) -> tuple[float, float, float, float]:
    """With w >= 0, so that equal turns give equal numbers."""
    x, y, z, w = turn.as_quat(canonical=True)
    return float(x), float(y), float(z), float(w)


def from_wxyz(q: Sequence[float]) -> Rotation:
    w, x, y, z = q
    return Rotation.from_quat((x, y, z, w))


def to_wxyz(turn: Rotation) -> tuple[float, float, float, float]:
    x, y, z, w = to_xyzw(turn)
    return w, x, y, z


def about_z(yaw: float) -> Rotation:
    return Rotation.from_rotvec([0.0, 0.0, yaw])


def yaw_of(turn: Rotation) -> float:
    """The angle about z of a turn: where it takes the x axis, seen from above [rad, -pi..pi]."""
    x, y, _ = turn.apply([1.0, 0, 0])
    return float(np.arctan2(y, x))


def tilt_deg(turn: Rotation) -> float:
    """The angle between the z axes before and after a turn."""
    return float(np.degrees(np.arccos(np.clip(turn.apply([0.0, 0, 1])[2], -1, 1))))


class Frame:
    """A rigid pose as a thing that moves others: `a * b` is b in the frame that a places. p is in metres."""

    def __init__(self, p: Sequence[float] | Array = (0.0, 0.0, 0.0), turn: Rotation | None = None) -> None:
        self.p: Array = np.asarray(p, float)
        self.turn = turn if turn is not None else Rotation.identity()

    def __mul__(self, other: Frame) -> Frame:
        return Frame(self.p + self.turn.apply(other.p), self.turn * other.turn)

    def inverse(self) -> Frame:
        back = self.turn.inv()
        return Frame(-back.apply(self.p), back)

    def row(self) -> Array:
        """x, y, z, qw, qx, qy, qz, as banks of placements hold it."""
        return np.array([*self.p, *to_wxyz(self.turn)])

    @classmethod
    def of_row(cls, row: Sequence[float] | Array) -> Frame:
        return cls(row[:3], from_wxyz([float(v) for v in row[3:7]]))


def to_pose(frame: Frame) -> Pose:
    """As files hold it: to the micrometre."""
    x, y, z = (round(float(value), 6) + 0.0 for value in frame.p)
    return Pose(p=(x, y, z), q_wxyz=to_wxyz(frame.turn))


def of_pose(pose: Pose) -> Frame:
    return Frame(pose.p, from_wxyz(pose.q_wxyz))
