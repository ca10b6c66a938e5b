"""The table of an imported scene: what of its mesh carries things, and where a robot's base can stand on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scenegen.layout.bank import WORKSPACE, LayoutError
from scenegen.layout.sampler import Footprint, separation, transform
from scenegen.layout.surfaces import Surface, find_surfaces
from scenegen.layout.view import sight_lines, visible
from scenegen.mesh.hulls import Hull, convex_hull

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SMALLEST = 0.05
"""A table's top has this area at least [m2]."""

BASE_RADIUS = 0.09
"""Of the disc on the table that the robot's base needs [m]."""

KEEP_OFF = 0.15
"""How near to the axis of the base nothing may stand [m]."""


def find_top(vertices: Array, faces: NDArray[np.int64]) -> Surface:
    """The largest level surface in the upper half of a mesh with z up. Raises LayoutError when there is none of SMALLEST."""
    try:
        found = find_surfaces(vertices, faces)
    except ValueError as error:
        raise LayoutError(f"context: {error}") from None
    middle = (vertices[:, 2].min() + vertices[:, 2].max()) / 2
    upper = [surface for surface in found if surface.height > middle]
    if not upper or upper[0].area < SMALLEST:
        size = upper[0].area if upper else 0.0
        raise LayoutError(f"context: the largest level surface has {size * 1e4:.0f} cm2; wanted {SMALLEST * 1e4:.0f} at least")
    return upper[0]


def trim(hulls: Sequence[Hull], top: Surface, slack: float = 0.015) -> list[Hull]:
    """Convex pieces that end at the height of the top where they rose above it by less than `slack` [m]: pieces that were
    blown up a little would lift what stands on the table off what is seen."""
    trimmed = []
    for hull in hulls:
        highest = hull.vertices[:, 2].max()
        if top.height < highest < top.height + slack and hull.vertices[:, 2].min() < top.height - 1e-3:
            lowered = hull.vertices.copy()
            lowered[:, 2] = np.minimum(lowered[:, 2], top.height)
            hull = convex_hull(lowered)
        trimmed.append(hull)
    return trimmed


def find_base(
    top: Surface, footprints: Sequence[Footprint], xy: Array, yaw: Array, target: int, destination: int
) -> Array | None:
    """Where to set the robot's base, x, y, yaw [3], so that target and destination lie in its workspace and in the picture, it
    stands on the table and nothing stands in its way, given the objects' footprints, places [n, 2] and yaws [n].

    Of these poses the one with most other objects in the workspace, then that with the two nearest its middle; None when
    there is none."""
    poses = _candidates((xy[target] + xy[destination]) / 2)
    places, turns = _seen_from(poses, xy, yaw)
    shapes = [transform(f.outline, places[:, i], turns[:, i]) for i, f in enumerate(footprints)]
    reached = np.stack([_reachable(places[:, i], shape) for i, shape in enumerate(shapes)], axis=1)
    good = reached[:, target] & reached[:, destination]
    for shape in shapes:
        good &= np.linalg.norm(shape, axis=-1).min(axis=1) > KEEP_OFF
    for i, shape in enumerate(shapes):
        if i != target:
            lines = sight_lines(places[good, target], footprints[target].height / 2, footprints[i].height)
            good[good] = separation(lines, shape[good]) > 0
    good[good] = _stands(top, poses[good])
    if not good.any():
        return None
    middle = (places[:, target] + places[:, destination]) / 2
    away = np.linalg.norm(middle - [np.mean(WORKSPACE.x), np.mean(WORKSPACE.y)], axis=1)
    ranked = np.lexsort((np.round(away, 6), -reached.sum(axis=1), ~good))
    return poses[ranked[0]]


def roomiest_base(top: Surface) -> Array:
    """Where to set the base so that as much as possible of its workspace lies on the table: x, y, yaw [3]. Raises LayoutError
    when there is no room for base and workspace."""
    low, high = top.loops[0].min(axis=0), top.loops[0].max(axis=0)
    area = np.stack(np.meshgrid(np.linspace(*WORKSPACE.x, 7), np.linspace(*WORKSPACE.y, 9)), axis=-1).reshape(-1, 2)
    area = area[visible(area[:, None])]
    best, share = np.zeros(3), 0.0
    for yaw in np.radians(np.arange(0, 360, 30)):
        grid = np.meshgrid(np.arange(low[0], high[0], 0.05), np.arange(low[1], high[1], 0.05), [yaw], indexing="ij")
        poses = np.stack([axis.reshape(-1) for axis in grid], axis=1)
        poses = poses[_stands(top, poses)]
        c, s = np.cos(yaw), np.sin(yaw)
        points = area @ np.array([[c, s], [-s, c]]) + poses[:, None, :2]
        shares = top.contains(points.reshape(-1, 2)).reshape(points.shape[:2]).mean(axis=1)
        if len(shares) and shares.max() > share + 1e-9:
            best, share = poses[int(np.argmax(shares))], float(shares.max())
    if share < 0.5:
        raise LayoutError("context: its top has no room for the robot's base and what it reaches; wanted about 0.5 x 0.4 m")
    return best


def _candidates(middle: Array) -> Array:
    """Base poses [k, 3] that see a point at places all over the workspace, under 36 angles."""
    x, y = np.arange(WORKSPACE.x[0], WORKSPACE.x[1], 0.02), np.arange(WORKSPACE.y[0], WORKSPACE.y[1] + 0.01, 0.02)
    grid = np.meshgrid(np.radians(np.arange(0, 360, 10)), x, y, indexing="ij")
    yaw, ahead, left = (axis.reshape(-1) for axis in grid)
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([middle[0] - c * ahead + s * left, middle[1] - s * ahead - c * left, yaw], axis=1)


def _seen_from(poses: Array, xy: Array, yaw: Array) -> tuple[Array, Array]:
    """Places [k, n, 2] and yaws [k, n] in the frames of base poses [k, 3]."""
    c, s = np.cos(poses[:, 2])[:, None], np.sin(poses[:, 2])[:, None]
    x, y = np.moveaxis(xy[None] - poses[:, None, :2], -1, 0)
    return np.stack([c * x + s * y, c * y - s * x], axis=-1), yaw[None] - poses[:, 2:]


def _reachable(places: Array, shapes: Array) -> Flags:
    low, high = np.array([WORKSPACE.x, WORKSPACE.y]).T
    inside = ((places >= low) & (places <= high)).all(axis=1)
    return inside & (shapes[..., 0].min(axis=1) >= WORKSPACE.min_x_m) & visible(shapes)


def _stands(top: Surface, poses: Array) -> Flags:
    """Whether the whole disc of the base is on the table, for base poses [k, 3]: [k]."""
    angles = np.arange(12) * np.pi / 6
    return top.holds(poses[:, None, :2] + BASE_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1), margin=0.0)
