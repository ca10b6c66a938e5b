"""A union of convex pieces, asked by points and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scenegen.mesh.hulls import Hull

Array = NDArray[np.float64]
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Solid:
    """`planes` [h, f, 4] hold the normals and offsets of each piece's faces (n . x + d <= 0 inside), filled up with planes that
    everything lies inside of."""

    hulls: tuple[Hull, ...]
    planes: Array

    @classmethod
    def of(cls, hulls: Sequence[Hull]) -> Solid:
        each = [_planes(hull) for hull in hulls]
        planes = np.zeros((len(each), max(map(len, each)), 4))
        planes[..., 3] = -1e3
        for i, rows in enumerate(each):
            planes[i, : len(rows)] = rows
        return cls(tuple(hulls), planes)

    @cached_property
    def points(self) -> Array:
        """All vertices [n, 3]."""
        return np.concatenate([hull.vertices for hull in self.hulls])

    def outside(self, points: Array) -> Array:
        """How far points [p, 3] are from each piece [p, h]: negative inside; never more than the distance."""
        normals, offsets = self.planes[..., :3], self.planes[..., 3]
        parts = [
            (np.einsum("pc,hfc->phf", chunk, normals) + offsets).max(axis=2)
            for chunk in np.array_split(points, 1 + len(points) * offsets.size // _CHUNK)
        ]
        return np.concatenate(parts)

    def cast(self, points: Array, directions: Array) -> tuple[Array, Array]:
        """Where the lines through points [p, 3] along directions [p, 3] (or one of them, [3]) enter and leave each piece, both
        [p, h] as multiples of the direction; a line that misses a piece enters it after it leaves."""
        normals, offsets = self.planes[..., :3], self.planes[..., 3]
        directions = np.broadcast_to(directions, points.shape)
        entries, exits = [], []
        for start, way in zip(
            *(np.array_split(a, 1 + 4 * a.size * offsets.size // _CHUNK) for a in (points, directions)), strict=True
        ):
            value = np.einsum("pc,hfc->phf", start, normals) + offsets
            slope = np.einsum("pc,hfc->phf", way, normals)
            level = np.abs(slope) < 1e-12
            crossing = -value / np.where(level, 1.0, slope)
            missed = (level & (value > 0)).any(axis=2)
            entries.append(
                np.where(missed, np.inf, np.where(slope < 0, crossing, -np.inf).max(axis=2, where=~level, initial=-np.inf))
            )
            exits.append(
                np.where(missed, -np.inf, np.where(slope > 0, crossing, np.inf).min(axis=2, where=~level, initial=np.inf))
            )
        return np.concatenate(entries), np.concatenate(exits)

    def hides(self, points: Array, eye: Array) -> NDArray[np.bool_]:
        """Whether a piece lies between each of the points [p, 3] and the eye [3]: [p]."""
        enter, leave = self.cast(points, eye - points)
        return np.any(np.maximum(enter, 0.0) < np.minimum(leave, 1.0) - 1e-6, axis=1)

    def extent(self, points: Array, direction: Array) -> tuple[Array, Array]:
        """Where the lines through the points first enter and last leave the union: [p], [p]; (inf, -inf) for a miss."""
        enter, leave = self.cast(points, direction)
        hit = enter < leave
        return enter.min(axis=1, where=hit, initial=np.inf), leave.max(axis=1, where=hit, initial=-np.inf)


def _planes(hull: Hull) -> Array:
    """Triangles in one plane give that plane once."""
    a, b, c = (hull.vertices[hull.faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    normals, a = normals[lengths > 1e-12] / lengths[lengths > 1e-12, None], a[lengths > 1e-12]
    rows = np.c_[normals, -np.einsum("ij,ij->i", normals, a)]
    return rows[np.sort(np.unique(np.round(rows, 5), axis=0, return_index=True)[1])]
