"""Triangles, painted in whatever way -> one surface over one small image; fewer triangles with the paint kept in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from scenegen.errors import UserError
from scenegen.mesh.reading import Array, Faces, Part, Pixels
from scenegen.mesh.surfaces import Surface
from scenegen.palette import PALETTE, lab, rgb
from scenegen.seeds import generator

CREASE_DEG = 40.0
_SAMPLES = 120_000
_PULL = 0.15
"""What distance in the texture counts beside distance in space: enough to stay on one side of a seam, too little to shift."""


def sample(vertices: Array, faces: Faces, count: int) -> tuple[Array, NDArray[np.int64], Array]:
    """Points [count, 3] spread evenly over a surface, the same ones each time; the faces they lie on and their barycentric
    coordinates [count, 3]."""
    rng = generator("sample", count)
    edges = np.cumsum(_areas(vertices, faces))
    chosen = np.searchsorted(edges, (np.arange(count) + 0.5) / count * edges[-1], side="right").clip(0, len(faces) - 1)
    a, b = rng.random((2, count))
    a, b = np.where(a + b > 1, 1 - a, a), np.where(a + b > 1, 1 - b, b)
    weights = np.c_[1 - a - b, a, b]
    return np.einsum("nc,nci->ni", weights, vertices[faces[chosen]]), chosen, weights


def simplified(part: Part, target: int) -> Part:
    """The same with about `target` faces. Each new face takes its paint from the patch of the old surface that it lies on, so
    that nothing is smeared across the seams of a texture. Raises UserError when fast-simplification is missing."""
    try:
        import fast_simplification
    except ImportError:
        raise UserError("importing meshes needs fast-simplification: pip install 'genvla[assets]'") from None
    if len(part.faces) <= target:
        return part
    points, triangles = fast_simplification.simplify(part.vertices, part.faces, target_count=max(target, 4), agg=5)
    vertices, faces = np.asarray(points, float), np.asarray(triangles, np.int64)
    areas = _areas(vertices, faces)
    faces = faces[areas > 1e-12 * np.ptp(vertices, axis=0).max() ** 2]
    if not len(faces):
        return part
    return Part(vertices, faces, _transferred(part, vertices, faces), part.image)


def _transferred(part: Part, vertices: Array, faces: Faces) -> Array:
    """The paint [f, 3, k] of new faces: that of the nearest points of the old surface, on the patch that is nearest to the face's
    middle. Points of the other side of a thin wall are kept away by the direction they face, and those beyond a seam of the same
    patch (a tube painted once around) by how far off they lie in the texture."""
    size = float(np.ptp(part.vertices, axis=0).max())
    patches = _patches(part)
    points, chosen, weights = sample(part.vertices, part.faces, _SAMPLES)
    points = np.concatenate([points, part.vertices[part.faces].mean(axis=1)])
    chosen = np.concatenate([chosen, np.arange(len(part.faces))])
    weights = np.concatenate([weights, np.full((len(part.faces), 3), 1 / 3)])
    facing = 0.05 * size * _face_normals(part.vertices, part.faces)[chosen]
    new_facing = 0.05 * size * _face_normals(vertices, faces)
    _, middle = cKDTree(np.c_[points, facing]).query(np.c_[vertices[faces].mean(axis=1), new_facing])

    apart = 10 * size  # more than any two points of one patch differ
    place = _PULL * _length_of_texture(part) * np.einsum("nc,nck->nk", weights, part.paint[chosen])
    tree = cKDTree(np.c_[points, facing, apart * patches[chosen], place])
    corners = vertices[faces].reshape(-1, 3)
    wanted = np.c_[new_facing, apart * patches[chosen[middle]], place[middle]]
    _, near = tree.query(np.c_[corners, np.repeat(wanted, 3, axis=0)])
    old = chosen[near]
    weights = _closest(part.vertices[part.faces[old]], corners)
    return np.einsum("nc,nck->nk", weights, part.paint[old]).reshape(len(faces), 3, -1)


def _length_of_texture(part: Part) -> float:
    """How many metres a unit of texture coordinates is, on the whole; 0 for colours."""
    if part.image is None:
        return 0.0
    corners = part.paint
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / 2
    return float(np.sqrt(_areas(part.vertices, part.faces).sum() / max(flat, 1e-6)))


def _patches(part: Part) -> NDArray[np.int64]:
    """For each face the number of its patch: faces that share vertices with equal paint hang together."""
    flat = np.c_[part.faces.reshape(-1), np.round(part.paint.reshape(-1, part.paint.shape[-1]), 5)]
    _, corners = np.unique(flat, axis=0, return_inverse=True)
    corners = corners.reshape(-1, 3)
    rows, columns = np.r_[corners[:, 0], corners[:, 1]], np.r_[corners[:, 1], corners[:, 2]]
    n = int(corners.max()) + 1
    _, labels = connected_components(coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n)), directed=False)
    return labels[corners[:, 0]].astype(np.int64)


def _closest(triangles: Array, points: Array) -> Array:
    """Barycentric coordinates [n, 3] of the point of each triangle [n, 3, 3] nearest to each point."""
    from trimesh.triangles import closest_point, points_to_barycentric

    weights = np.clip(np.nan_to_num(points_to_barycentric(triangles, closest_point(triangles, points))), 0, 1)
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, weights / np.maximum(total, 1e-12), 1 / 3)


def surface_of(parts: Sequence[Part], texture_size: int) -> tuple[Surface, Pixels]:
    """One surface, its normals smooth but at creases, over one image of at most `texture_size` pixels."""
    panels = [(part.image, part.paint) if part.image is not None else _baked(part.paint, texture_size) for part in parts]
    image, uvs = panels[0] if len(panels) == 1 else _stacked(panels, texture_size)
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    normals = _corner_normals(vertices, faces)
    rows = np.c_[faces.reshape(-1), np.round(uvs.reshape(-1, 2), 6), np.round(normals.reshape(-1, 3), 4)]
    _, first, index = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    corner = Surface(vertices[faces].reshape(-1, 3), normals.reshape(-1, 3), uvs.reshape(-1, 2), faces)
    return Surface(corner.vertices[first], corner.normals[first], corner.uvs[first], index.reshape(-1, 3)), image


def _baked(colors: Array, texture_size: int) -> tuple[Pixels, Array]:
    """Colours at corners [f, 3, 3] as an image with a square cell for each different triangle of colours, and the corners' places
    in it."""
    shades = np.round(colors * 255).clip(0, 255).reshape(-1, 9)
    triples, index = np.unique(shades, axis=0, return_inverse=True)
    across = int(np.ceil(np.sqrt(len(triples))))
    cell = int(np.clip(texture_size // across, 4, 8))
    low, high = 1.0, cell - 2.0  # texels whose centres are the corners
    j, i = np.meshgrid(np.arange(cell), np.arange(cell))
    u, v = (j - low) / (high - low), (i - low) / (high - low)
    a, b, c = (triples[:, None, None, 3 * k : 3 * k + 3] for k in range(3))
    cells = a + u[..., None] * (b - a) + v[..., None] * (c - a)
    cells = np.concatenate([cells, np.zeros((across**2 - len(triples), cell, cell, 3))])
    image = cells.reshape(across, across, cell, cell, 3).transpose(0, 2, 1, 3, 4).reshape(across * cell, across * cell, 3)
    row, column = np.divmod(index.reshape(-1), across)
    plain = (triples.reshape(-1, 3, 3) == triples[:, None, :3]).all(axis=(1, 2))[index.reshape(-1), None, None]
    corners = np.where(plain, cell / 2, np.array([[low, low], [high, low], [low, high]]) + 0.5)
    places = (np.stack([column, row], axis=-1)[:, None] * cell + corners) / (across * cell)
    return np.round(image).clip(0, 255).astype(np.uint8), np.stack([places[..., 0], 1 - places[..., 1]], axis=-1)


def _stacked(panels: Sequence[tuple[Pixels, Array]], texture_size: int) -> tuple[Pixels, Array]:
    """Several images as one, from the top down, each between two rows of its edge, and the corners' places in it."""
    total = sum(image.shape[0] for image, _ in panels)
    shrink = min(1.0, (texture_size - 4 * len(panels)) / total)
    width = min(texture_size, max(image.shape[1] for image, _ in panels))
    rows, tops, top = [], [], 0
    for image, _ in panels:
        height = max(4, int(image.shape[0] * shrink))
        picture = Picture.fromarray(image).resize(
            (width, height), Picture.Resampling.NEAREST if height < 32 else Picture.Resampling.BOX
        )
        rows.append(np.pad(np.asarray(picture), ((2, 2), (0, 0), (0, 0)), mode="edge"))
        tops.append((top + 2, height))
        top += height + 4
    uvs = []
    for (_, places), (start, height) in zip(panels, tops, strict=True):
        inside = places.copy()
        inside[..., 1] = 1 - (start + (1 - places[..., 1]) * height) / top
        uvs.append(inside)
    return np.concatenate(rows), np.concatenate(uvs)


def _corner_normals(vertices: Array, faces: Faces) -> Array:
    """[f, 3, 3]: at each corner the mean of the faces around the vertex that turn by less than the crease angle, by area."""
    weighted = _face_normals(vertices, faces) * _areas(vertices, faces)[:, None]
    unit = _face_normals(vertices, faces)
    flat = faces.reshape(-1)
    owner = np.arange(len(flat)) // 3
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat, minlength=len(vertices))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    repeats = counts[flat]
    corner = np.repeat(np.arange(len(flat)), repeats)
    offset = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    other = owner[order[starts[flat[corner]] + offset]]
    near = np.einsum("ij,ij->i", unit[owner[corner]], unit[other]) > np.cos(np.radians(CREASE_DEG))
    sums = np.zeros((len(flat), 3))
    np.add.at(sums, corner[near], weighted[other[near]])
    return (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-20)).reshape(-1, 3, 3)


def _areas(vertices: Array, faces: Faces) -> Array:
    corners = vertices[faces]
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def _face_normals(vertices: Array, faces: Faces) -> Array:
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)


def dominant_color(surface: Surface, image: Pixels) -> str:
    """The name of the palette that most of a surface shows: each of many points counts for the name nearest to it (CIE76)."""
    _, chosen, weights = sample(surface.vertices, surface.faces, 4000)
    uvs = np.einsum("nc,nck->nk", weights, surface.uvs[surface.faces[chosen]])
    height, width = image.shape[:2]
    columns = (uvs[:, 0] * width).astype(int).clip(0, width - 1)
    rows = ((1 - uvs[:, 1]) * height).astype(int).clip(0, height - 1)
    shown = lab(image[rows, columns] / 255)
    names = list(PALETTE)
    named = lab(np.array([rgb(name) for name in names]))
    nearest = np.linalg.norm(shown[:, None] - named, axis=-1).argmin(axis=1)
    return names[int(np.bincount(nearest, minlength=len(names)).argmax())]
