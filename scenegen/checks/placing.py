"""Points and directions in and out of the frames of poses: x, y, z, qw, qx, qy, qz. Leading axes broadcast."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenegen.schema import Pose

Array = NDArray[np.float64]


def rotated(q: Array, vectors: Array) -> Array:
    """vectors [..., 3] turned by quaternions wxyz [..., 4]."""
    w, u = q[..., :1], q[..., 1:]
    return vectors + 2 * np.cross(u, np.cross(u, vectors) + w * vectors)


def out_of(poses: Array, points: Array) -> Array:
    """points [..., 3] of the frames of poses [..., 7], in the world."""
    return rotated(poses[..., 3:], points) + poses[..., :3]


def into(poses: Array, points: Array) -> Array:
    """points [..., 3] of the world in the frames of poses [..., 7]."""
    return rotated(poses[..., 3:] * [1, -1, -1, -1], points - poses[..., :3])


def as_row(pose: Pose) -> Array:
    return np.array([*pose.p, *pose.q_wxyz])


def turned(q: Array, yaw: Array) -> Array:
    """Quaternions q [..., 4] turned by yaw [...] about the world's z."""
    c, s = np.cos(np.asarray(yaw) / 2), np.sin(np.asarray(yaw) / 2)
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], axis=-1)
