"""How a surface hangs together: edges that lie open, and pieces apart from one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scenegen.checks.files import Mesh
from scenegen.checks.sampling import areas, distance_to_triangles, sample

Array = NDArray[np.float64]
_WELD = 1e-5
"""Vertices nearer than this [m] are one."""

_PROBES = 128
_CHUNK = 200_000


def welded(mesh: Mesh) -> NDArray[np.int64]:
    """Faces [f, 3] over vertices that are one where they lie at one place."""
    _, merged = np.unique(np.round(mesh.points / _WELD).astype(np.int64), axis=0, return_inverse=True)
    return merged.reshape(-1)[mesh.faces]


def open_share(mesh: Mesh) -> float:
    """Length of the edges with a face on one side only, over that of all."""
    faces = welded(mesh)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    ends = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    lengths = np.linalg.norm(mesh.points[ends[:, 0]] - mesh.points[ends[:, 1]], axis=1)
    _, first, count = np.unique(edges, axis=0, return_index=True, return_counts=True)
    return float(lengths[first][count == 1].sum() / lengths[first].sum())


def pieces(mesh: Mesh, gap: float) -> list[NDArray[np.int64]]:
    """The faces of each part of the surface that keeps more than `gap` [m] from all others, the largest by area first."""
    labels = _connected(welded(mesh))
    sizes = areas(mesh.points, mesh.faces)[0]
    order = np.argsort([sizes[labels == label].sum() for label in range(labels.max() + 1)])
    near = [(label, other) for label in order[:-1] for other in _touching(mesh, labels, label, gap)]
    group = _components(near, len(order))[labels]
    parts = [np.flatnonzero(group == label) for label in range(group.max() + 1)]
    return sorted(parts, key=lambda part: -sizes[part].sum())


def _connected(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of the connected part of each face [f]."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    vertex = _components(pairs, faces.max() + 1)
    return np.unique(vertex[faces[:, 0]], return_inverse=True)[1].reshape(-1)


def _components(pairs: list[tuple[int, int]] | NDArray[np.int64], count: int) -> NDArray[np.int64]:
    links = np.asarray(pairs, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _touching(mesh: Mesh, labels: NDArray[np.int64], label: int, gap: float) -> list[int]:
    """The other parts that come within `gap` of some vertex or other point of one part, or some vertex of them of it."""
    corners = mesh.points[mesh.faces]
    mine = corners[labels == label]
    low, high = mine.min(axis=(0, 1)) - gap, mine.max(axis=(0, 1)) + gap
    close = (labels != label) & (corners.max(axis=1) >= low).all(axis=1) & (corners.min(axis=1) <= high).all(axis=1)
    found: set[int] = set()
    probes = np.concatenate([np.unique(mine.reshape(-1, 3), axis=0)[:_PROBES], _inner(mesh, labels == label)])
    for chunk in np.array_split(np.flatnonzero(close), 1 + close.sum() * len(probes) // _CHUNK):
        near = distance_to_triangles(probes[:, None], corners[chunk]).min(axis=0, initial=np.inf) <= gap
        found |= set(labels[chunk[near]].tolist())
    for other in set(labels[close].tolist()) - found:
        theirs = np.unique(corners[close & (labels == other)].reshape(-1, 3), axis=0)[:_PROBES]
        if distance_to_triangles(theirs[:, None], mine[:1500]).min() <= gap:
            found.add(other)
    return sorted(found)


def _inner(mesh: Mesh, part: NDArray[np.bool_]) -> Array:
    faces = mesh.faces[part]
    return sample(mesh.points, faces, _PROBES).points if areas(mesh.points, faces)[0].sum() > 0 else np.zeros((0, 3))
