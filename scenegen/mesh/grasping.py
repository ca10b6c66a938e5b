"""How a parallel gripper from above holds a set of convex pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from genvla.robots.wx250s import HAND, PALM
from scenegen.mesh.hulls import Hull

Array = NDArray[np.float64]

OPENING = 0.056
"""Clear width between the open fingers [m]."""

CLEARANCE = 0.003
MIN_WIDTH = 0.012
PAD_HALF_WIDTH, PAD_HALF_HEIGHT = 0.012, 0.005
HEIGHTS = (0.015, 0.045)
HEADROOM = PALM - 0.002
"""How far above where it is held an object may stand up between the fingers [m]."""

MAX_SLANT_DEG = 30.0
"""Steepest surface, against the closing direction, that the fingers do not slip off."""

ROUND = 0.003
"""Widths that differ by less than this [m] all around make an object symmetric."""


@dataclass(frozen=True)
class Grasp:
    """How a parallel gripper from above holds it; see AssetRecord."""

    width: float
    height: float
    yaw: float = 0.0
    symmetric: bool = False


def best_grasp(hulls: Sequence[Hull]) -> Grasp | None:
    """The narrowest grasp around the object's origin: the open fingers pass it on either side with 3 mm to spare, all the way
    down, what they then close on is no steeper than 30 degrees, and the hand above them stays clear. Heights are tried from the
    middle of the object, within 15 .. 45 mm when it is that high. None when nothing fits."""
    planes = _planes(hulls)
    top = _top(hulls)
    middle = min(max(top / 2, min(HEIGHTS[0], top / 2)), HEIGHTS[1])
    yaws = np.radians(np.arange(0, 180, 3))
    lowest = np.array([_under_hand(planes, yaw) for yaw in yaws]) - HEADROOM
    for share in (1.0, 0.8, 1.2, 0.6):
        heights = np.maximum(min(max(share * middle, min(HEIGHTS[0], top / 2)), HEIGHTS[1]), lowest)
        widths = np.array([_width(planes, yaw, height, top) for yaw, height in zip(yaws, heights, strict=True)])
        if np.isinf(widths).all() or widths.min() < MIN_WIDTH:
            continue
        if np.isfinite(widths).all() and np.ptp(widths) <= ROUND:
            return Grasp(float(widths.max()), float(heights.max()), 0.0, True)
        height = float(heights[widths.argmin()])
        yaw = _refined(planes, yaws, widths, height, top)
        return Grasp(_width(planes, yaw, height, top), height, yaw)
    return None


def clear_of_hand(grasp: Grasp, hulls: Sequence[Hull]) -> Grasp:
    """The grasp, as high as the hand over the fingers needs it and as wide as the object is there, however steep; unchanged where
    it is that high."""
    planes = _planes(hulls)
    yaws = grasp.yaw + (np.arange(6) * np.pi / 6 if grasp.symmetric else np.zeros(1))
    height = max(_under_hand(planes, yaw) for yaw in yaws) - HEADROOM
    if height <= grasp.height:
        return grasp
    widths = [_width(planes, yaw, height, _top(hulls), any_slant=True) for yaw in yaws]
    return replace(grasp, height=height, width=float(np.mean(widths)))


def grasp_width(hulls: Sequence[Hull], yaw: float, height: float) -> float:
    """What the fingers span when they close along `yaw` at `height`; infinite where the grasp is impossible."""
    return _width(_planes(hulls), yaw, height, _top(hulls))


def _planes(hulls: Sequence[Hull]) -> list[Array]:
    return [ConvexHull(hull.vertices).equations for hull in hulls]


def _top(hulls: Sequence[Hull]) -> float:
    return max(float(hull.vertices[:, 2].max()) for hull in hulls)


def _under_hand(planes: Sequence[Array], yaw: float) -> float:
    """How high the object is under a hand whose fingers close along `yaw` around its origin [m]."""
    grids = [np.meshgrid(np.linspace(-a, a, 15), np.linspace(-c, c, 21)) for a, c in HAND]
    a, c = (np.concatenate([grid[i].reshape(-1) for grid in grids]) for i in (0, 1))
    starts = np.c_[c * np.cos(yaw) - a * np.sin(yaw), c * np.sin(yaw) + a * np.cos(yaw), np.zeros(len(a))]
    tops = np.stack([_cut(piece, starts, np.array([0.0, 0.0, 1.0]))[1] for piece in planes])
    return float(tops.max())


def _refined(planes: Sequence[Array], yaws: Array, widths: Array, height: float, top: float) -> float:
    """The yaw of the least width, to half a degree; the middle of them where several are as good."""
    best = yaws[widths.argmin()]
    near = best + np.radians(np.arange(-3, 3.5, 0.5))
    finer = np.array([_width(planes, yaw, height, top) for yaw in near])
    return float(near[np.isclose(finer, finer.min(), atol=1e-5)].mean() % np.pi)


def _width(planes: Sequence[Array], yaw: float, height: float, top: float, any_slant: bool = False) -> float:
    """See `grasp_width`. Found by cutting all pieces with lines along the closing direction, a grid of them as wide as a pad."""
    along = np.linspace(-PAD_HALF_WIDTH, PAD_HALF_WIDTH, 9)
    low = max(height - PAD_HALF_HEIGHT, 1e-4)
    levels = np.concatenate([np.linspace(low, min(height + PAD_HALF_HEIGHT, top), 5), np.linspace(height, top, 8)[1:]])
    across = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    a, z = (grid.reshape(-1) for grid in np.meshgrid(along, levels))
    starts = np.c_[-a * np.sin(yaw), a * np.cos(yaw), z]
    enter, leave, slant_in, slant_out = (
        np.stack(values) for values in zip(*(_cut(p, starts, across) for p in planes), strict=True)
    )
    if not np.isfinite(enter).any():
        return np.inf
    reach = OPENING / 2 - CLEARANCE
    if enter.min() < -reach or leave.max() > reach:
        return np.inf
    held = z <= height + PAD_HALF_HEIGHT + 1e-9
    first, last = enter[:, held].min(), leave[:, held].max()
    width = last - first
    flat = np.cos(np.radians(MAX_SLANT_DEG))
    touches_in = slant_in[:, held][enter[:, held] <= first + 5e-4]
    touches_out = slant_out[:, held][leave[:, held] >= last - 5e-4]
    if not any_slant and (touches_in.max() < flat or touches_out.max() < flat):
        return np.inf
    return float(width)


def _cut(planes: Array, starts: Array, direction: Array) -> tuple[Array, Array, Array, Array]:
    """Where lines [n] enter and leave a convex piece, as distances from their starts (inf and -inf for those that miss), and the
    cosines between the line and the faces' normals there."""
    facing = planes[:, :3] @ direction
    heights = starts @ planes[:, :3].T + planes[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = -heights / facing
    entering, leaving = facing < -1e-9, facing > 1e-9
    enter = np.where(entering, distances, -np.inf)
    leave = np.where(leaving, distances, np.inf)
    i, j = enter.argmax(axis=1), leave.argmin(axis=1)
    enter, leave = enter.max(axis=1), leave.min(axis=1)
    missed = (enter >= leave) | ((np.abs(facing) <= 1e-9) & (heights > 1e-9)).any(axis=1)
    return np.where(missed, np.inf, enter), np.where(missed, -np.inf, leave), -facing[i], facing[j]
