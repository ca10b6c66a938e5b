"""Where things stand on a table: uniform over the placements in which no two footprints come near one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from scenegen.layout.view import sight_lines, visible
from scenegen.schema import Workspace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Footprint:
    """A convex outline [m, 2] around the origin, counter-clockwise, and how high the object reaches [m]."""

    outline: Array
    height: float

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.outline, axis=1).max())


_DRAWS = 4096
_ROUNDS = 60


def footprint(points: Array) -> Footprint:
    """Of an object with these points [n, 3]."""
    flat = points[:, :2]
    return Footprint(flat[ConvexHull(flat).vertices], float(points[:, 2].max()))


def transform(outline: Array, xy: Array, yaw: Array) -> Array:
    """An outline [m, 2] at positions [k, 2] turned by yaw [k]: [k, m, 2]."""
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y = outline[:, 0], outline[:, 1]
    return np.stack([cos * x - sin * y + xy[:, :1], sin * x + cos * y + xy[:, 1:]], axis=-1)


def separation(a: Array, b: Array) -> Array:
    """How far convex polygons [k, m, 2] and [k, n, 2] are apart at least [k]: the widest gap along a normal of an edge of either
    (separating axes). Never more than their distance; negative when they overlap."""
    gaps = []
    for first, second in ((a, b), (b, a)):
        edges = np.roll(first, -1, axis=1) - first
        lengths = np.maximum(np.linalg.norm(edges, axis=-1, keepdims=True), 1e-12)  # a line may have shrunk to a point
        normals = np.stack([edges[..., 1], -edges[..., 0]], axis=-1) / lengths
        reach = np.einsum("kec,kec->ke", normals, first)
        gaps.append((np.einsum("kec,kvc->kev", normals, second).min(axis=2) - reach).max(axis=1))
    return np.maximum(*gaps)


def distance(a: Array, b: Array) -> Array:
    """How far convex polygons [k, m, 2] and [k, n, 2] that do not overlap are apart [k]: from a corner of one to a side of the
    other."""
    nearest = []
    for corners, other in ((a, b), (b, a)):
        side = np.roll(other, -1, axis=1) - other
        way = corners[:, :, None] - other[:, None]
        along = np.einsum("kvec,kec->kve", way, side) / np.maximum((side * side).sum(axis=-1), 1e-18)[:, None]
        gap = way - np.clip(along, 0, 1)[..., None] * side[:, None]
        nearest.append(np.linalg.norm(gap, axis=-1).min(axis=(1, 2)))
    return np.minimum(*nearest)


def sample(
    footprints: Sequence[Footprint],
    target: int,
    nominal: Array,
    xy_range: float,
    clearance: float,
    workspace: Workspace,
    count: int,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Positions [k, n, 2] and yaws [k, n] of `count` placements, or of fewer when they are too hard to find.

    Each centre is uniform within xy_range of its nominal [n, 2] and within the workspace. Drawn again as a whole are
    placements in which two outlines are nearer than clearance, one is not all in the camera's picture or nearer to the
    robot than min_x_m, or something hides the middle of the target.
    """
    order = np.argsort([-footprint.radius for footprint in footprints])
    kept_xy, kept_yaw, found = [], [], 0
    for _ in range(_ROUNDS):
        alone = [_alone(*item, xy_range, workspace, rng) for item in zip(footprints, nominal, strict=True)]
        draws = min(len(yaw) for _, yaw in alone)
        xy = np.stack([places[:draws] for places, _ in alone], axis=1)
        yaw = np.stack([turns[:draws] for _, turns in alone], axis=1)
        good = np.arange(draws)
        for rank, i in enumerate(order):
            for j in order[:rank]:
                good = good[_clear(footprints, i, j, xy[good], yaw[good], clearance)]
        for i in set(range(len(footprints))) - {target}:
            lines = sight_lines(xy[good, target], footprints[target].height / 2, footprints[i].height)
            good = good[separation(lines, transform(footprints[i].outline, xy[good, i], yaw[good, i])) > 0]
        kept_xy.append(xy[good])
        kept_yaw.append(yaw[good])
        found += len(good)
        if found >= count:
            break
    return np.concatenate(kept_xy)[:count], np.concatenate(kept_yaw)[:count]


def _alone(
    footprint: Footprint, nominal: Array, xy_range: float, workspace: Workspace, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Positions [m, 2] and yaws [m] at which one object is where it may be, the others left aside; m is at most _DRAWS."""
    low = np.maximum(nominal - xy_range, [workspace.x[0], workspace.y[0]])
    high = np.minimum(nominal + xy_range, [workspace.x[1], workspace.y[1]])
    xy, yaw = rng.uniform(low, high, (_DRAWS, 2)), rng.uniform(0, 2 * np.pi, _DRAWS)
    shape = transform(footprint.outline, xy, yaw)
    allowed = (shape[..., 0].min(axis=1) >= workspace.min_x_m) & visible(shape)
    return xy[allowed], yaw[allowed]


def _clear(footprints: Sequence[Footprint], i: int, j: int, xy: Array, yaw: Array, clearance: float) -> NDArray[np.bool_]:
    """Circles around the outlines decide most cases, the outlines the rest."""
    clear = np.linalg.norm(xy[:, i] - xy[:, j], axis=1) >= footprints[i].radius + footprints[j].radius + clearance
    rest = np.flatnonzero(~clear)
    shapes = [transform(footprints[k].outline, xy[rest, k], yaw[rest, k]) for k in (i, j)]
    clear[rest] = separation(*shapes) >= clearance
    return clear
