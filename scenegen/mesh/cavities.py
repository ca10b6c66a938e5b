"""What a set of convex pieces can carry: the hollow of a container, or a flat place on top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import ConvexHull

from scenegen.mesh.hulls import Hull
from scenegen.schema import Cavity

Array = NDArray[np.float64]

GRID = 97
MIN_DEPTH, MIN_RADIUS = 0.010, 0.012
"""What is shallower or narrower [m] carries but does not contain."""

FLATNESS = 0.0015
STEP = 0.0005
"""Levels that differ by less [m] are one."""

ENCLOSED = 0.7
"""Share of the directions around a cavity in which a wall stands at least half as high as it is deep."""


def find_place(hulls: Sequence[Hull]) -> tuple[Cavity | None, tuple[float, float, float] | None]:
    """The cavity when there is one: the largest upright cylinder that is open to above and walled. And the goal_point: its middle
    on the floor, else that of the largest flat surface seen from above. None where nothing could be put. Exact to about 1 % of
    the length in the plane."""
    tops, xs, ys = top_heights(hulls)
    return _cavity(tops, xs, ys) or (None, _flat(tops, xs, ys))


def top_heights(hulls: Sequence[Hull]) -> tuple[Array, Array, Array]:
    """Height [n, n] of the highest point above each x, y of a square grid over the pieces, -inf where there is none; the xs and
    ys [n]."""
    points = np.concatenate([hull.vertices for hull in hulls])
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    half = (high - low).max() / 2
    centre = (low + high) / 2
    ticks = half * (2 * np.arange(GRID) + 1 - GRID) / GRID
    xs, ys = centre[0] + ticks, centre[1] + ticks
    x, y = (grid.reshape(-1) for grid in np.meshgrid(xs, ys, indexing="ij"))
    tops = np.full(len(x), -np.inf)
    for hull in hulls:
        a, b, c, d = ConvexHull(hull.vertices).equations.T
        sides = np.outer(x, a) + np.outer(y, b) + d
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = -sides / c
        roof = np.where(c > 1e-9, levels, np.inf).min(axis=1)
        floor = np.where(c < -1e-9, levels, -np.inf).max(axis=1)
        inside = (roof >= floor) & ~((np.abs(c) <= 1e-9) & (sides > 0)).any(axis=1)
        tops = np.where(inside, np.maximum(tops, roof), tops)
    return tops.reshape(GRID, GRID), xs, ys


def _cavity(tops: Array, xs: Array, ys: Array) -> tuple[Cavity, tuple[float, float, float]] | None:
    """For each height of the floor the widest disc over which nothing is higher; of these the walled one of the largest volume.
    Where there is no floor nothing can be put."""
    step, rim = float(xs[1] - xs[0]), float(tops.max())
    best, volume = None, 0.0
    for level in _levels(tops[np.isfinite(tops) & (tops <= rim - MIN_DEPTH)]):
        room = _room(np.isfinite(tops) & (tops <= level))
        i, j = _middle(room >= room.max() - 1e-9)
        radius, depth = float(room[i, j]) * step, rim - level
        if radius < MIN_RADIUS or radius**2 * depth <= volume:
            continue
        if np.percentile(_wall(tops, i, j, room[i, j]), 100 * (1 - ENCLOSED)) >= level + depth / 2:
            best, volume = (i, j, radius, level), radius**2 * depth
    if best is None:
        return None
    i, j, radius, level = best
    return Cavity(radius_m=round(radius, 6), depth_m=round(rim - level, 6)), (float(xs[i]), float(ys[j]), float(tops[i, j]))


def _flat(tops: Array, xs: Array, ys: Array) -> tuple[float, float, float] | None:
    """The middle of the widest level disc; of equally wide ones the highest."""
    best, widest = None, 0.0
    for level in _levels(tops[np.isfinite(tops)])[::-1]:
        room = _room(np.abs(tops - level) <= FLATNESS / 2)
        i, j = _middle(room >= room.max() - 1e-9)
        if room[i, j] > widest + 1:
            best, widest = (float(xs[i]), float(ys[j]), float(tops[i, j])), float(room[i, j])
    return best if widest * float(xs[1] - xs[0]) >= MIN_RADIUS else None


def _levels(heights: Array) -> list[float]:
    """The highest height in each step."""
    rounded = np.sort(heights)
    last = np.r_[np.diff(np.floor(rounded / STEP + 1e-6)) > 0, True]
    return rounded[last].tolist() if len(rounded) else []


def _room(mask: NDArray[np.bool_]) -> Array:
    """For each cell the radius, in cells, of the largest disc around it that is all marked."""
    return np.maximum(distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] - 0.5, 0)


def _wall(tops: Array, i: int, j: int, radius: float) -> Array:
    """The greatest height that each of 32 directions meets beyond the radius [cells]."""
    angles = 2 * np.pi * np.arange(32) / 32
    distances = np.arange(int(radius), GRID)
    rows = np.round(i + np.outer(np.cos(angles), distances)).astype(int)
    columns = np.round(j + np.outer(np.sin(angles), distances)).astype(int)
    inside = (rows >= 0) & (rows < GRID) & (columns >= 0) & (columns < GRID)
    return np.where(inside, tops[rows.clip(0, GRID - 1), columns.clip(0, GRID - 1)], -np.inf).max(axis=1)


def _middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The marked cell nearest to the mean of all marked ones."""
    cells = np.argwhere(mask)
    i, j = cells[np.linalg.norm(cells - cells.mean(axis=0), axis=1).argmin()]
    return int(i), int(j)
