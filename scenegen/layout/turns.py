"""Rotations about the vertical, and of points. Quaternions are wxyz."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def turned(yaw: Array, q: Array) -> Array:
    """Quaternions of yaw [k, n] about the world's z after q [n, 4]: [k, n, 4]."""
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], axis=-1)


def planar(yaw: float) -> Array:
    """The matrix [2, 2] of a yaw."""
    return np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])


def rotated(q: Array, points: Array) -> Array:
    """Points [m, 3] turned by a unit quaternion."""
    w, v = q[0], q[1:]
    return points + 2 * np.cross(v, np.cross(v, points) + w * points)
