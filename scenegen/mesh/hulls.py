"""What is touched: convex pieces, and the mass properties that follow from them exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from scenegen.mesh.surfaces import ring

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Hull:
    """A convex polyhedron: vertices [v, 3], triangles [f, 3] counter-clockwise seen from outside."""

    vertices: Array
    faces: NDArray[np.int64]


@dataclass(frozen=True)
class MassProperties:
    """Of unit density: volume [m3], centre of mass [3], inertia [3, 3] about it [m5]."""

    volume: float
    com: Array
    inertia: Array


def convex_hull(points: Array) -> Hull:
    """The convex hull of points [n, 3], with points inside it left out."""
    hull = ConvexHull(points)
    corners = points[hull.simplices]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("ij,ij->i", normals, hull.equations[:, :3]) < 0
    simplices = np.where(inward[:, None], hull.simplices[:, ::-1], hull.simplices)
    used, faces = np.unique(simplices, return_inverse=True)
    return Hull(points[used], faces.reshape(-1, 3))


def mass_properties(hulls: Sequence[Hull]) -> MassProperties:
    """Exact, for pieces that do not overlap: each is cut into tetrahedra at the origin (Tonon 2004, Explicit exact formulas for
    the 3-D tetrahedron inertia tensor)."""
    corners = np.concatenate([hull.vertices[hull.faces] for hull in hulls])
    volumes = np.linalg.det(corners) / 6
    volume = volumes.sum()
    com = np.einsum("t,tci->i", volumes, corners) / (4 * volume)
    sums = corners.sum(axis=1)
    moments = np.einsum("t,tci,tcj->ij", volumes, corners, corners) + np.einsum("t,ti,tj->ij", volumes, sums, sums)
    centred = moments / 20 - volume * np.outer(com, com)
    return MassProperties(float(volume), com, np.trace(centred) * np.eye(3) - centred)


def turned_piece(rings: Sequence[tuple[float, float]], segments: int) -> Array:
    """Points of a solid of revolution over (radius, z); convex when the profile is."""
    return np.concatenate([ring(radius, z, segments) if radius > 0 else np.array([[0, 0, z]]) for radius, z in rings])


def wall_pieces(section: Sequence[tuple[float, float]], segments: int) -> list[Array]:
    """A turned wall with a convex cross-section of (radius, z) points, cut into `segments` convex wedges."""
    profile = np.asarray(section, float)
    pieces = []
    for i in range(segments):
        angles = 2 * np.pi * np.array([i, i + 1]) / segments
        pieces.append(np.concatenate([np.c_[profile[:, :1] * [np.cos(a), np.sin(a)], profile[:, 1]] for a in angles]))
    return pieces
