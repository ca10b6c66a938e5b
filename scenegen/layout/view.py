"""What the policy's camera sees of a table top."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EYE, LOOK_AT = (0.0, -0.16, 0.36), (0.332, 0.023, 0.0)
FOV_DEG = 42.1
"""The over-the-shoulder camera of the Bridge set-up in the robot's base frame, its vertical field of view (SIMPLER,
arXiv 2405.05941)."""

ASPECT = 4 / 3
MARGIN = 0.05
"""Fraction of half the picture that stays free at every border."""


def visible_edges() -> tuple[Array, Array]:
    """The part of the table top (z = 0) inside the picture, margin taken off, as half-planes: normals [4, 2] of unit length and
    offsets [4] with normal . xy >= offset inside. Base frame, metres."""
    eye, forward = np.array(EYE), np.array(LOOK_AT) - EYE
    forward /= np.linalg.norm(forward)
    left = np.cross([0.0, 0, 1], forward)
    left /= np.linalg.norm(left)
    up = np.cross(forward, left)
    half_height = np.tan(np.radians(FOV_DEG) / 2) * (1 - MARGIN)
    half_width = half_height * ASPECT
    # A point is inside when it lies on the inner side of the four planes through the eye and the borders of the picture.
    planes = np.array(
        [half_width * forward - left, half_width * forward + left, half_height * forward - up, half_height * forward + up]
    )
    scale = np.linalg.norm(planes[:, :2], axis=1)
    return planes[:, :2] / scale[:, None], (planes @ eye) / scale


def visible(points: Array) -> NDArray[np.bool_]:
    """Whether all of the points [k, m, 2] of each outline on the table are in the picture: [k]."""
    normals, offsets = visible_edges()
    return np.all(points @ normals.T >= offsets, axis=(-2, -1))


def sight_lines(points: Array, height: float, above: float) -> Array:
    """Seen from above, the way [k, 2, 2] on which the line from each point [k, 2] at `height` to the eye runs below the
    height `above`."""
    rise = max(above - height, 0.0) / (EYE[2] - height)
    return np.stack([points, points + rise * (np.array(EYE[:2]) - points)], axis=1)
