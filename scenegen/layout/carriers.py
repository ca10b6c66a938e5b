"""Where a thing can carry others: the flat part of it that they stand on, and what of it rises around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from scenegen.layout.sampler import separation, transform
from scenegen.schema import AssetRecord

Array = NDArray[np.float64]

LEVEL = 0.002
"""Points within this height [m] of one another are on one level."""

MIN_AREA = 1e-4
"""Of a flat part that can carry anything [m2]."""

OVERHANG = 0.005
"""What stands on a thing without walls may reach this far [m] over its border, as one block does on another."""

CLEAR = 0.001
"""What stands on a thing keeps this far [m] from its walls at the start."""


@dataclass(frozen=True)
class Carrier:
    """In the frame of the object: the flat part [m, 2] (convex, counter-clockwise) at `height`, the outlines of the pieces that
    rise above it, and the highest point of all."""

    flat: Array
    height: float
    walls: tuple[Array, ...]
    rim: float

    def fits(self, outline: Array, xy: Array, yaw: Array) -> NDArray[np.bool_]:
        """Whether an outline [m, 2] at positions [k, 2] turned by yaw [k] stands on the flat part, clear of the walls: [k]."""
        shapes = transform(outline, xy, yaw)
        good = reach_beyond(self.flat, shapes) <= OVERHANG
        for wall in self.walls:
            good[good] = separation(shapes[good], np.broadcast_to(wall, (good.sum(), *wall.shape))) >= CLEAR
        return good


def carrier(folder: Path, asset: AssetRecord) -> Carrier | None:
    """Of an object: the level of its goal_point when it has one, else its top; None for one without a flat part there, such as
    an apple."""
    pieces = read_pieces(folder / asset.files.collision)
    rim = max(float(piece[:, 2].max()) for piece in pieces)
    height = asset.goal_point[2] if asset.goal_point else rim
    flat = _flat(pieces, height)
    if flat is None and asset.cavity is not None and asset.goal_point is not None:
        angles = 2 * np.pi * np.arange(24) / 24
        flat = asset.goal_point[:2] + asset.cavity.radius_m * np.c_[np.cos(angles), np.sin(angles)]
    if flat is None:
        return None
    walls = [outline(piece[:, :2]) for piece in pieces if piece[:, 2].max() > height + LEVEL]
    return Carrier(flat, height, tuple(wall for wall in walls if wall is not None), rim)


def _flat(pieces: Sequence[Array], height: float) -> Array | None:
    """What the tops of pieces that end at this height span, when they cover most of it; else the largest of the tops."""
    tops = [piece[np.abs(piece[:, 2] - height) <= LEVEL, :2] for piece in pieces if piece[:, 2].max() <= height + LEVEL]
    found = [top for top in map(outline, tops) if top is not None]
    if not found:
        return None
    whole, largest = outline(np.concatenate(found)), max(found, key=_area)
    assert whole is not None
    best = whole if sum(map(_area, found)) >= 0.8 * _area(whole) else largest
    return best if _area(best) >= MIN_AREA else None


def read_pieces(path: Path) -> list[Array]:
    """The vertices [v, 3] of each `o` group of an OBJ."""
    pieces: list[list[list[float]]] = [[]]
    for line in path.read_text().splitlines():
        if line.startswith("o "):
            pieces.append([])
        elif line.startswith("v "):
            pieces[-1].append([float(value) for value in line.split()[1:4]])
    return [np.array(piece) for piece in pieces if piece]


def outline(points: Array) -> Array | None:
    """The convex outline of points [n, 2], counter-clockwise; None when they lie on a line."""
    try:
        return points[ConvexHull(points).vertices] if len(points) > 2 else None
    except QhullError:
        return None


def reach_beyond(convex: Array, shapes: Array) -> Array:
    """How far shapes [k, m, 2] reach over the edges of a convex outline [n, 2] at most: [k]; negative inside."""
    edges = np.roll(convex, -1, axis=0) - convex
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=-1) / np.linalg.norm(edges, axis=1, keepdims=True)
    return (shapes @ normals.T - np.einsum("ec,ec->e", normals, convex)).max(axis=(1, 2))


def _area(polygon: Array) -> float:
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
