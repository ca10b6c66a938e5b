"""A foreign mesh -> few convex pieces with few vertices, as physics engines want them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError, cKDTree

from scenegen.engines.base import EngineError
from scenegen.errors import UserError
from scenegen.mesh.hulls import Hull, convex_hull, mass_properties
from scenegen.mesh.reading import Array, Faces, Part
from scenegen.mesh.texturing import sample, simplified

MAX_VERTICES = 64
"""What PhysX takes of a convex piece on a GPU."""

FLAT = 1e-4
"""A piece thinner than this [m] is dropped."""

_CHILD = Path(__file__).with_name("coacd_child.py")
_COACD_THRESHOLD = 0.05
_COACD_SEED = 1
_COACD_FACES = 600
"""Its time grows faster than the number of faces, and its pieces are no finer than this."""


def pieces_of_mesh(vertices: Array, faces: Faces, max_hulls: int, timeout: float) -> list[Hull]:
    """The convex hull of a mesh that fills it, else what CoACD cuts it into. Raises EngineError."""
    whole = _solid(vertices)
    if whole is None:
        raise EngineError(f"it is flat: nothing of it is thicker than {FLAT * 1e3:g} mm")
    pieces = [whole] if _fills(vertices, faces, whole) else _cut(vertices, faces, max_hulls, timeout)
    return few(pieces, max_hulls) or [_few_vertices(whole)]


def pieces_of_groups(groups: Sequence[tuple[Array, Faces]], max_hulls: int, timeout: float, warnings: list[str]) -> list[Hull]:
    """The pieces that someone else cut: one for each group, or for each connected part of a group that is not convex. What is
    still not convex then is replaced by its hull, but a file of one such group is cut up anew. Raises EngineError."""
    parts = [part for vertices, faces in groups for part in _convex_parts(vertices, faces)]
    if len(parts) == 1 and not _is_convex(*parts[0]):
        warnings.append("its collision mesh is one concave piece: cut into convex ones")
        return pieces_of_mesh(*parts[0], max_hulls, timeout)
    concave = sum(not _is_convex(*part) for part in parts)
    if concave:
        warnings.append(f"{concave} of {len(parts)} collision pieces are not convex: their hulls are taken")
    solids = [hull for vertices, _ in parts if (hull := _solid(vertices))]
    if len(solids) < len(parts):
        warnings.append(f"{len(parts) - len(solids)} of {len(parts)} collision pieces are flat: dropped")
    if not solids:
        raise EngineError(f"all {len(parts)} pieces of its collision mesh are flat")
    if len(solids) > max_hulls:
        warnings.append(f"{len(solids)} collision pieces merged into {max_hulls}")
    return few(solids, max_hulls)


def few(pieces: Sequence[Hull], max_hulls: int) -> list[Hull]:
    """At most `max_hulls` pieces: the smallest is merged, again and again, with the neighbour whose union with it adds least
    volume."""
    volumes = [mass_properties([piece]).volume for piece in pieces]
    left = [(volume, piece.vertices) for volume, piece in zip(volumes, pieces, strict=True)]
    while len(left) > max_hulls:
        smallest = min(range(len(left)), key=lambda i: left[i][0])
        volume, points = left.pop(smallest)
        middles = np.array([other.mean(axis=0) for _, other in left])
        near = np.argsort(np.linalg.norm(middles - points.mean(axis=0), axis=1), kind="stable")[:8]
        unions = {int(i): ConvexHull(np.concatenate([points, left[i][1]])).volume for i in near}
        best = min(unions, key=lambda i: unions[i] - left[i][0] - volume)
        left[best] = (unions[best], np.concatenate([points, left[best][1]]))
    return [_few_vertices(convex_hull(points)) for _, points in left]


def _few_vertices(hull: Hull) -> Hull:
    """The hull of at most 64 of its vertices: those that reach furthest in directions spread over the sphere."""
    if len(hull.vertices) <= MAX_VERTICES:
        return hull
    n = MAX_VERTICES - 6
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    radius = np.sqrt(1 - z**2)
    spread = np.c_[radius * np.cos(angle), radius * np.sin(angle), z]
    directions = np.concatenate([np.eye(3), -np.eye(3), spread])
    kept = np.unique((hull.vertices @ directions.T).argmax(axis=0))
    return convex_hull(hull.vertices[kept])


def _solid(points: Array) -> Hull | None:
    """The convex hull of points that do not all lie in one plane."""
    if len(points) < 4:
        return None
    directions = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2]
    if np.ptp(points @ directions.T, axis=0).min() < FLAT:
        return None
    try:
        return convex_hull(points)
    except QhullError:
        return None


def _fills(vertices: Array, faces: Faces, hull: Hull, share: float = 0.04) -> bool:
    """Whether the hull's skin lies within `share` of the longest side of the surface, everywhere: then nothing is hollow that
    could be reached from outside."""
    size = float(np.ptp(vertices, axis=0).max())
    surface, _, _ = sample(vertices, faces, 20_000)
    skin, _, _ = sample(hull.vertices, hull.faces, 2000)
    gap, _ = cKDTree(surface).query(skin)
    return bool(np.percentile(gap, 99.8) < share * size)


def _is_convex(vertices: Array, faces: Faces) -> bool:
    """Whether the vertices of faces all lie on their hull, to 1 % of its size."""
    points = vertices[np.unique(faces)]
    hull = _solid(points)
    if hull is None:
        return True
    equations = ConvexHull(hull.vertices).equations
    depth = -(points @ equations[:, :3].T + equations[:, 3]).max(axis=1)
    corners = vertices[faces]
    volume = abs(np.linalg.det(corners - points.mean(axis=0)).sum()) / 6
    return bool(depth.max() < 0.01 * np.ptp(points, axis=0).max() and volume > 0.97 * mass_properties([hull]).volume)


def _convex_parts(vertices: Array, faces: Faces) -> list[tuple[Array, Faces]]:
    """A group as it is when convex, else its connected parts when those are all convex, else as it is."""
    used, compact = np.unique(faces, return_inverse=True)
    vertices, index = np.unique(np.round(vertices[used], 7), axis=0, return_inverse=True)
    faces = index.reshape(-1)[compact.reshape(-1, 3)]
    if _is_convex(vertices, faces):
        return [(vertices, faces)]
    rows, columns = np.r_[faces[:, 0], faces[:, 1]], np.r_[faces[:, 1], faces[:, 2]]
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(vertices),) * 2)
    count, labels = connected_components(graph, directed=False)
    parts = [(vertices, faces[labels[faces[:, 0]] == i]) for i in range(count)]
    parts = [(points[np.unique(part)], np.searchsorted(np.unique(part), part)) for points, part in parts if len(part)]
    return parts if len(parts) > 1 and all(_is_convex(*part) for part in parts) else [(vertices, faces)]


def _cut(vertices: Array, faces: Faces, max_hulls: int, timeout: float) -> list[Hull]:
    """Convex pieces by CoACD (Wei et al. 2022), in a process of its own that is killed after `timeout` seconds. One thread and a
    fixed seed: the same pieces each time."""
    if find_spec("coacd") is None:
        raise UserError("importing concave meshes needs coacd: pip install 'genvla[assets]'")
    coarse = simplified(Part(vertices, faces, np.zeros((len(faces), 3, 3))), _COACD_FACES)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "mesh.npz"), Path(folder, "pieces.npz")
        np.savez(source, vertices=coarse.vertices, faces=coarse.faces.astype(np.int32))
        numbers = [_COACD_THRESHOLD, max_hulls, MAX_VERTICES, _COACD_SEED]
        command = [sys.executable, "-P", str(_CHILD), str(source), str(target), *map(str, numbers)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"its convex decomposition took more than {timeout:g} s") from None
        if done.returncode or not target.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise EngineError(f"its convex decomposition failed: {last[:120]}")
        with np.load(target) as archive:
            pieces = np.split(archive["vertices"], np.cumsum(archive["counts"])[:-1])
    return [hull for points in pieces if (hull := _solid(points))]
