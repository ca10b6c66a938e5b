"""Points spread over surfaces: always the same ones for the same surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.findings import FileFault

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Samples:
    """points [n, 3], unit normals [n, 3] by the winding, the triangle of each [n] and its barycentric coordinates [n, 3].

    Each stands for the same area: `area` / n, square metres."""

    points: Array
    normals: Array
    faces: NDArray[np.int64]
    weights: Array
    area: float


def areas(points: Array, faces: NDArray[np.int64]) -> tuple[Array, Array]:
    """Areas [f] and unit normals [f, 3] of triangles; the normal of one without area is zero."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    length = np.linalg.norm(cross, axis=1)
    return length / 2, cross / np.maximum(length, 1e-30)[:, None]


def sample(points: Array, faces: NDArray[np.int64], count: int) -> Samples:
    """`count` points evenly by area: at equal steps along the triangles laid end to end, within each by the sequence with the
    plastic number (Roberts 2018), which leaves no clumps. Raises FileFault when there is no area."""
    sizes, normals = areas(points, faces)
    total = sizes.sum()
    if not total > 0:
        raise FileFault("the mesh has no area")
    at = np.searchsorted(np.cumsum(sizes) / total, (np.arange(count) + 0.5) / count)
    at = np.minimum(at, len(faces) - 1)
    ratio = 1.32471795724474602596
    u, v = ((0.5 + np.arange(count) * step) % 1 for step in (1 / ratio, 1 / ratio**2))
    folded = u + v > 1
    u, v = np.where(folded, 1 - u, u), np.where(folded, 1 - v, v)
    weights = np.stack([1 - u - v, u, v], axis=1)
    return Samples(np.einsum("nk,nkc->nc", weights, points[faces[at]]), normals[at], at, weights, float(total))


def distance_to_triangles(points: Array, triangles: Array) -> Array:
    """From points [..., 3] to triangles [..., 3, 3], leading axes broadcast; the nearest point lies inside or on an edge."""
    edges = np.roll(triangles, -1, axis=-2) - triangles
    to = points[..., None, :] - triangles
    along = np.einsum("...kc,...kc->...k", to, edges) / np.maximum(np.einsum("...kc,...kc->...k", edges, edges), 1e-30)
    away = to - np.clip(along, 0, 1)[..., None] * edges
    nearest = np.sqrt(np.einsum("...kc,...kc->...k", away, away).min(axis=-1))
    normal = np.cross(edges[..., 0, :], edges[..., 1, :])
    length = np.linalg.norm(normal, axis=-1)
    unit = normal / np.maximum(length, 1e-30)[..., None]
    sides = np.einsum("...kc,...kc->...k", np.cross(unit[..., None, :], edges), to)
    above = (sides >= 0).all(axis=-1) & (length > 1e-15)
    return np.where(above, np.abs(np.einsum("...c,...c->...", to[..., 0, :], unit)), nearest)
