"""What is seen: triangle surfaces with normals and texture coordinates, counted so that software rendering stays cheap.

Every surface winds counter-clockwise seen from outside, and its vertices are already split where normals or texture coordinates
jump, so that the number of vertices here is the number that a renderer uploads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """vertices [v, 3] in metres, normals [v, 3] of unit length, uvs [v, 2] in 0..1 with v upwards in the image, faces [f, 3]."""

    vertices: Array
    normals: Array
    uvs: Array
    faces: NDArray[np.int64]

    def moved(self, offset: ArrayLike) -> Surface:
        return replace(self, vertices=self.vertices + np.asarray(offset, float))

    def turned(self, yaw: float) -> Surface:
        """Rotated about z by `yaw` radians."""
        rotation = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        return replace(self, vertices=self.vertices @ rotation.T, normals=self.normals @ rotation.T)

    def with_uvs(self, low: float, high: float) -> Surface:
        """The same with v squeezed from 0..1 into low..high: a panel of a texture that several surfaces share."""
        uvs = self.uvs.copy()
        uvs[:, 1] = low + np.clip(uvs[:, 1], 0, 1) * (high - low)
        return replace(self, uvs=uvs)


def join(surfaces: Sequence[Surface]) -> Surface:
    starts = np.cumsum([0, *(len(s.vertices) for s in surfaces[:-1])])
    return Surface(
        np.concatenate([s.vertices for s in surfaces]),
        np.concatenate([s.normals for s in surfaces]),
        np.concatenate([s.uvs for s in surfaces]),
        np.concatenate([s.faces + start for s, start in zip(surfaces, starts, strict=True)]),
    )


_UNIT_SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
_HEXAHEDRON_FACES = {
    "bottom": (3, 2, 1, 0),
    "top": (4, 5, 6, 7),
    "front": (0, 1, 5, 4),
    "right": (1, 2, 6, 5),
    "back": (2, 3, 7, 6),
    "left": (3, 0, 4, 7),
}
SIDES = ("front", "right", "back", "left")


def quad(corners: ArrayLike) -> Surface:
    """A flat quadrilateral; corners [4, 3] counter-clockwise from the lower left of the texture."""
    points = np.asarray(corners, float)
    normal = np.cross(points[2] - points[0], points[3] - points[1])
    normals = np.tile(normal / np.linalg.norm(normal), (4, 1))
    return Surface(points, normals, _UNIT_SQUARE, np.array([[0, 1, 2], [0, 2, 3]]))


def hexahedron(corners: ArrayLike, faces: Sequence[str] = tuple(_HEXAHEDRON_FACES)) -> Surface:
    """Six (or the named) flat faces over 8 corners: the lower four counter-clockwise seen from above from the front left,
    then the upper."""
    points = np.asarray(corners, float)
    return join([quad(points[list(_HEXAHEDRON_FACES[name])]) for name in faces])


def box_corners(size: ArrayLike, base: ArrayLike = (0, 0, 0)) -> Array:
    """Corners [8, 3] for `hexahedron` of a box standing with the middle of its base at `base`."""
    x, y, z = np.asarray(size, float)
    plane = np.array([[-x, -y], [x, -y], [x, y], [-x, y]]) / 2
    return np.concatenate([np.c_[plane, np.zeros(4)], np.c_[plane, np.full(4, z)]]) + np.asarray(base, float)


def ring(radius: float, z: float, segments: int, phase: float = 0.0) -> Array:
    """[segments, 3] points of a horizontal circle, counter-clockwise."""
    angles = phase + 2 * np.pi * np.arange(segments) / segments
    return np.c_[radius * np.cos(angles), radius * np.sin(angles), np.full(segments, z)]


def lathe(profile: Sequence[tuple[float, float]], segments: int, crease_deg: float = 35.0) -> Surface:
    """The surface of revolution of a profile (radius, z) walked so that the outside lies to its right: from the middle of
    the bottom out, up, and back to the axis. Normals are smooth but where the profile bends by more than the crease
    angle."""
    points = np.asarray(profile, float)
    steps = np.diff(points, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    outward = np.c_[steps[:, 1], -steps[:, 0]] / lengths[:, None]
    runs = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
    smooth = np.einsum("ij,ij->i", outward[:-1], outward[1:]) > np.cos(np.radians(crease_deg))

    rows: list[tuple[Array, Array, float]] = []
    bands: list[tuple[int, int]] = []
    for i, normal in enumerate(outward):
        joined_before = i > 0 and smooth[i - 1]
        if not joined_before:
            rows.append((points[i], normal, runs[i]))
        start = len(rows) - 1
        end_normal = normal
        if i < len(smooth) and smooth[i]:
            end_normal = (normal + outward[i + 1]) / np.linalg.norm(normal + outward[i + 1])
        rows.append((points[i + 1], end_normal, runs[i + 1]))
        bands.append((start, start + 1))

    angles = 2 * np.pi * np.arange(segments + 1) / segments
    cos, sin = np.cos(angles), np.sin(angles)
    vertices = np.concatenate([np.c_[p[0] * cos, p[0] * sin, np.full(segments + 1, p[1])] for p, _, _ in rows])
    normals = np.concatenate([np.c_[n[0] * cos, n[0] * sin, np.full(segments + 1, n[1])] for _, n, _ in rows])
    uvs = np.concatenate([np.c_[angles / (2 * np.pi), np.full(segments + 1, v)] for _, _, v in rows])
    faces = []
    for low, high in bands:
        a = low * (segments + 1) + np.arange(segments)
        d = high * (segments + 1) + np.arange(segments)
        if rows[low][0][0] > 0:
            faces.append(np.c_[a, a + 1, d + 1])
        if rows[high][0][0] > 0:
            faces.append(np.c_[a, d + 1, d])
        elif rows[low][0][0] > 0:
            faces[-1] = np.c_[a, a + 1, d]
    return _compact(Surface(vertices, normals, uvs, np.concatenate(faces)))


def sweep_rings(centres: ArrayLike, radii: ArrayLike, segments: int) -> Array:
    """Upright rings [m, segments, 3] across a path that runs horizontally, each with a flat edge at the bottom."""
    path, radii = np.asarray(centres, float), np.asarray(radii, float)
    tangents = np.gradient(path, axis=0) * [1, 1, 0]
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    sides = np.cross([0.0, 0, 1], tangents)
    sides /= np.linalg.norm(sides, axis=1, keepdims=True)
    ups = np.cross(tangents, sides)
    angles = 2 * np.pi * (np.arange(segments) + 0.5) / segments - np.pi / 2
    spokes = np.cos(angles)[None, :, None] * sides[:, None] + np.sin(angles)[None, :, None] * ups[:, None]
    return path[:, None] + radii[:, None, None] * spokes


def sweep(rings: Array) -> Surface:
    """The skin over rings [m, n, 3] with flat caps; u runs around, v along."""
    m, n = rings.shape[:2]
    centres = rings.mean(axis=1)
    wrapped = np.concatenate([rings, rings[:, :1]], axis=1)
    around = np.roll(rings, -1, axis=1) - np.roll(rings, 1, axis=1)
    normals = np.cross(around, np.gradient(rings, axis=0))
    normals = np.concatenate([normals, normals[:, :1]], axis=1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))])
    u, v = np.meshgrid(np.arange(n + 1) / n, lengths / lengths[-1])
    a = (np.arange(m - 1)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
    d = a + n + 1
    skin = Surface(
        wrapped.reshape(-1, 3),
        normals.reshape(-1, 3),
        np.c_[u.reshape(-1), v.reshape(-1)],
        np.concatenate([np.c_[a, a + 1, d + 1], np.c_[a, d + 1, d]]),
    )
    return join([skin, _fan(rings[0][::-1], 0.0), _fan(rings[-1], 1.0)])


def _fan(loop: Array, v: float) -> Surface:
    """A flat cap over a loop counter-clockwise seen from outside."""
    n = len(loop)
    normal = np.cross(loop[1] - loop[0], loop[2] - loop[0])
    faces = np.c_[np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)]
    return Surface(loop, np.tile(normal / np.linalg.norm(normal), (n, 1)), np.tile([0.5, v], (n, 1)), faces)


def slab(outline: ArrayLike, bottom: float, top: float) -> tuple[Surface, Surface]:
    """An upright prism over a convex outline [n, 2], counter-clockwise: the top with the texture laid flat on it, and all
    the rest."""
    flat = np.asarray(outline, float)
    low, high = np.c_[flat, np.full(len(flat), bottom)], np.c_[flat, np.full(len(flat), top)]
    span = flat.max(0) - flat.min(0)
    lid = replace(_fan(high, 0.0), uvs=(flat - flat.min(0)) / span)
    after = np.roll(np.arange(len(flat)), -1)
    sides = [quad([low[i], low[j], high[j], high[i]]) for i, j in enumerate(after)]
    return lid, join([_fan(low[::-1], 0.5), *sides])


def rounded_rectangle(length: float, width: float, radius: float, steps: int = 2) -> Array:
    """An outline [4 steps, 2], counter-clockwise, with corners cut in `steps - 1` chords."""
    centres = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * [length / 2 - radius, width / 2 - radius]
    arcs = []
    for quarter, centre in enumerate(centres):
        angles = np.pi / 2 * (quarter + np.linspace(0, 1, steps))
        arcs.append(centre + radius * np.c_[np.cos(angles), np.sin(angles)])
    return np.concatenate(arcs)


def _compact(surface: Surface) -> Surface:
    used, faces = np.unique(surface.faces, return_inverse=True)
    return Surface(surface.vertices[used], surface.normals[used], surface.uvs[used], faces.reshape(-1, 3))
