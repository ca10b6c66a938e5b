"""The flat parts of a table that things can stand on, found on its mesh.

The mesh is drawn onto a grid seen from above: what is level at one height, less what is above it within the head-room. That asks
nothing of the mesh, be it closed, cut into many parts, wound inside out or drawn twice. Each connected part becomes a polygon,
drawn in by `INSET` so that what lies in the polygon lies on the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from scenegen.layout.sampler import separation

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_AREA = 0.005
HEADROOM = 0.25
"""Free height [m] above a surface, for an object and the hand that holds it."""

MARGIN = 0.01
"""Footprints keep this far [m] from the border of a surface."""

CELL = 0.002
INSET = 0.004
"""One cell for what drawing rounds up, one for straightening the border."""

_SLOPE = np.cos(np.radians(3))
_STEP = 0.002
_MAX_SIDE = 4.0


@dataclass(frozen=True)
class Surface:
    """A level polygon at `height`: loops [m, 2] of which the first is the border and the others are holes."""

    height: float
    loops: tuple[Array, ...]

    @property
    def area(self) -> float:
        sizes = [_area(loop) for loop in self.loops]
        return sizes[0] - sum(sizes[1:])

    def moved(self, x: float, y: float, yaw: float = 0.0) -> Surface:
        """In the frame in which the origin of the mesh is at (x, y), turned by yaw: the robot's, for `build_bank`."""
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        return replace(self, loops=tuple(loop @ turn.T + [x, y] for loop in self.loops))

    def contains(self, points: Array) -> Mask:
        """Whether points [k, 2] are inside the border and in no hole: [k]."""
        starts, ends = self._edges
        x, y = points[:, None, 0], points[:, None, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = starts[:, 0] + (y - starts[:, 1]) / (ends[:, 1] - starts[:, 1]) * (ends[:, 0] - starts[:, 0])
        crossed = ((starts[:, 1] > y) != (ends[:, 1] > y)) & (x < crossing)
        return crossed.sum(axis=1) % 2 == 1

    def holds(self, shapes: Array, margin: float = MARGIN) -> Mask:
        """Whether convex shapes [k, m, 2] are on the surface, `margin` away from its border and its holes: [k]."""
        middles = shapes.mean(axis=1)
        radii = np.linalg.norm(shapes - middles[:, None], axis=-1).max(axis=1)
        good = self.contains(middles)
        starts, ends = self._edges
        way = ends - starts
        along = np.einsum("kec,ec->ke", middles[:, None] - starts, way) / np.maximum((way * way).sum(axis=1), 1e-18)
        nearest = starts + np.clip(along, 0, 1)[..., None] * way
        near = np.linalg.norm(middles[:, None] - nearest, axis=-1) < radii[:, None] + margin
        rows, edges = np.nonzero(near & good[:, None])
        close = separation(shapes[rows], np.stack([starts[edges], ends[edges]], axis=1)) < margin
        good[rows[close]] = False
        return good

    @property
    def _edges(self) -> tuple[Array, Array]:
        return np.concatenate(self.loops), np.concatenate([np.roll(loop, -1, axis=0) for loop in self.loops])


def find_surfaces(
    vertices: Array, faces: NDArray[np.integer], min_area: float = MIN_AREA, headroom: float = HEADROOM
) -> list[Surface]:
    """All surfaces of a mesh (vertices [v, 3] in metres, z up; faces [f, 3]), the largest first, in the frame of the mesh.

    Whether a face looks up or down does not matter: the underside of a table top has no head-room. Raises ValueError for a mesh
    more than 4 m long or wide."""
    triangles = np.asarray(vertices, float)[np.asarray(faces)]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    sizes = np.linalg.norm(normals, axis=1)
    triangles, normals, sizes = triangles[sizes > 0], normals[sizes > 0], sizes[sizes > 0]
    if len(triangles) == 0:
        return []
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    if (high - low)[:2].max() > _MAX_SIDE:
        raise ValueError(f"found a table of {(high - low)[0]:.1f} x {(high - low)[1]:.1f} m; wanted at most {_MAX_SIDE:g} m")
    grid = _Grid(low[:2], high[:2])
    level = np.flatnonzero(np.abs(normals[:, 2]) >= _SLOPE * sizes)
    found = []
    for members in _levels(triangles[level]):
        if sizes[level[members]].sum() / 2 < min_area:
            continue
        height = float(triangles[level[members], :, 2].max())
        above = grid.drawn(_slices(triangles, height + _STEP, height + headroom))
        found += grid.outlined(grid.drawn(triangles[level[members], :, :2]) & ~above, height)
    return sorted((surface for surface in found if surface.area >= min_area), key=lambda surface: -surface.area)


def _levels(triangles: Array) -> Iterator[NDArray[np.intp]]:
    """Indices of the triangles at one height, for each height: none is more than a step above the first."""
    heights = triangles[..., 2].max(axis=1)
    order = np.argsort(heights, kind="stable")
    start = 0
    for i in range(1, len(order) + 1):
        if i == len(order) or heights[order[i]] > heights[order[start]] + _STEP:
            yield order[start:i]
            start = i


def _slices(triangles: Array, low: float, high: float) -> Iterator[Array]:
    """Seen from above, what of each triangle is between two heights."""
    z = triangles[..., 2]
    inside = (z.min(axis=1) >= low) & (z.max(axis=1) <= high)
    yield from triangles[inside][..., :2]
    for triangle in triangles[~inside & (z.max(axis=1) > low) & (z.min(axis=1) < high)]:
        piece = _half(_half(triangle, low, 1.0), -high, -1.0)
        if len(piece):
            yield piece[:, :2]


def _half(polygon: Array, bound: float, sign: float) -> Array:
    """The part of a convex polygon [n, 3] with sign * z >= bound."""
    points = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        da, db = sign * a[2] - bound, sign * b[2] - bound
        if da >= 0:
            points.append(a)
        if (da < 0) != (db < 0):
            points.append(a + da / (da - db) * (b - a))
    return np.array(points).reshape(-1, 3)


class _Grid:
    """Cells of CELL metres over a rectangle and a free border around it."""

    _BORDER = 2
    _BITS = 4

    def __init__(self, low: Array, high: Array) -> None:
        self.origin = low - self._BORDER * CELL
        columns, rows = np.ceil((high - self.origin) / CELL).astype(int) + 1 + self._BORDER
        self.shape = (int(rows), int(columns))

    def drawn(self, polygons: Iterable[Array]) -> Mask:
        """All cells that one of the convex polygons [n, 2] covers or touches."""
        image = np.zeros(self.shape, np.uint8)
        for polygon in polygons:
            cells = np.round((polygon - self.origin) / CELL * (1 << self._BITS)).astype(np.int32)
            cv2.fillConvexPoly(image, cells, 1, lineType=cv2.LINE_8, shift=self._BITS)
        return image > 0

    def outlined(self, mask: Mask, height: float) -> list[Surface]:
        """The connected parts of a mask, drawn in: the middles of border cells, straightened by no more than a cell."""
        kernel = np.ones((3, 3), np.uint8)
        image = cv2.erode(mask.astype(np.uint8), kernel, iterations=round(INSET / CELL))
        rings, tree = cv2.findContours(image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        surfaces = []
        for i, ring in enumerate(rings):
            if tree[0, i, 3] >= 0:  # a hole
                continue
            members = [ring, *(rings[j] for j in range(len(rings)) if tree[0, j, 3] == i)]
            loops = [cv2.approxPolyDP(member, 1.0, True)[:, 0].astype(float) for member in members]
            surfaces.append(Surface(height, tuple(self.origin + loop * CELL for loop in loops if len(loop) > 2)))
        return [surface for surface in surfaces if surface.loops]


def _area(polygon: Array) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
