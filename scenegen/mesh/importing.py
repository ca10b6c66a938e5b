"""A mesh file from elsewhere -> the surface, texture and convex pieces of an asset, in its own frame."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image as Picture

from scenegen.engines.base import EngineError
from scenegen.mesh.decomposing import pieces_of_groups, pieces_of_mesh
from scenegen.mesh.hulls import Hull, convex_hull
from scenegen.mesh.reading import Array, Faces, Part, Pixels, read_groups, read_mesh
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.texturing import dominant_color, simplified, surface_of

UPRIGHT = {"z": np.eye(3), "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])}
SIZE_LIMITS = (0.005, 3.0)
"""No object or table is shorter or longer than this [m]; what seems to be was measured in other units."""


@dataclass(frozen=True)
class SizePrior:
    """How long the longest side of a kind of thing is, along an axis: between `low` and `high` [m]. `name` is for messages."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class ImportedMesh:
    """surface and hulls are in the frame of an object: metres, z up, the base of the hulls at z = 0, the origin below the middle
    of their footprint. A point p of the file lies at `rotation @ (scale * p) + shift`. image is uint8 [h, w, 3], row 0 on top.
    warnings are short lines on what was mended."""

    surface: Surface
    hulls: list[Hull]
    image: Pixels
    rotation: Array
    scale: Array
    shift: Array
    warnings: list[str] = field(default_factory=list)

    @property
    def texture_png(self) -> bytes:
        stream = io.BytesIO()
        Picture.fromarray(self.image).save(stream, "PNG", compress_level=6)
        return stream.getvalue()

    @property
    def color(self) -> str:
        """The name of the palette that most of it shows."""
        return dominant_color(self.surface, self.image)


def import_mesh(
    visual: Path,
    collision: Path | None = None,
    *,
    up: Literal["y", "z"] = "z",
    rotation: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    height: float | None = None,
    prior: SizePrior | None = None,
    root: Path | None = None,
    max_faces: int = 8000,
    max_hulls: int = 32,
    texture_size: int = 512,
    timeout: float = 300.0,
) -> ImportedMesh:
    """Read OBJ, GLB, PLY or STL. Nothing outside `root` (else the folder of `visual`) is opened.

    The mesh is turned upright (`up="y"`: +90 degrees about x), then by `rotation` [3, 3] about the upright axes. It is scaled
    by `scale` (one factor, or one per axis of the file), or to stand `height` metres high, or so that its longest side is the
    geometric mean of `prior`; by nothing when none is given. A longest side more than twice out of `prior`'s range is an error.
    `collision` is an OBJ with one convex piece in each `o` group, in the same frame as `visual`; without one the mesh's convex
    hull is taken when the mesh fills it, else CoACD cuts it up, for at most `timeout` seconds.

    Raises EngineError in one line for anything that cannot be read, is empty, flat, not finite or of an absurd size, UserError
    when a package that it takes is missing.
    """
    parts, warnings = read_mesh(visual, root, texture_size)
    groups = read_groups(collision, root) if collision is not None else None
    turn = _rotation(rotation) @ UPRIGHT[up]
    factor = _factor(visual, parts, turn, scale, height, prior)
    parts = [replace(part, vertices=(part.vertices * factor) @ turn.T) for part in parts]
    _check_size(visual, parts, prior)
    parts = _outside_out(_fewer_faces(parts, max_faces, warnings))
    try:
        if groups is not None:
            placed = [((vertices * factor) @ turn.T, faces) for vertices, faces in groups]
            hulls = pieces_of_groups(placed, max_hulls, timeout, warnings)
        else:
            hulls = pieces_of_mesh(*_whole(parts), max_hulls, timeout)
    except EngineError as error:
        raise EngineError(f"{visual.name}: {error}") from None
    surface, image = surface_of(parts, texture_size)
    points = np.concatenate([hull.vertices for hull in hulls])
    low, high = points.min(axis=0), points.max(axis=0)
    shift = -np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    hulls = [convex_hull(hull.vertices + shift) for hull in hulls]
    return ImportedMesh(surface.moved(shift), hulls, image, turn, factor, shift, warnings)


def _rotation(rotation: ArrayLike | None) -> Array:
    matrix = np.eye(3) if rotation is None else np.asarray(rotation, float)
    if matrix.shape != (3, 3) or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-4) or np.linalg.det(matrix) < 0:
        raise EngineError("rotation: found no rotation matrix [3, 3]")
    return matrix


def _factor(
    file: Path, parts: Sequence[Part], turn: Array, scale: ArrayLike | None, height: float | None, prior: SizePrior | None
) -> Array:
    """Metres per unit of the file, along each of its axes."""
    if scale is not None:
        factor = np.broadcast_to(np.asarray(scale, float), (3,)).copy()
        if not (np.isfinite(factor).all() and (factor > 0).all()):
            raise EngineError(f"{file.name}: scale: found {scale}; wanted factors above 0")
        return factor
    sides = np.ptp(np.concatenate([part.vertices for part in parts]) @ turn.T, axis=0)
    if height is not None:
        if not sides[2] > 0:
            raise EngineError(f"{file.name}: has no height to scale by")
        return np.full(3, height / sides[2])
    return np.full(3, np.sqrt(prior.low * prior.high) / sides.max()) if prior else np.ones(3)


def _check_size(file: Path, parts: Sequence[Part], prior: SizePrior | None) -> None:
    longest = float(np.ptp(np.concatenate([part.vertices for part in parts]), axis=0).max())
    if not SIZE_LIMITS[0] <= longest <= SIZE_LIMITS[1]:
        low, high = SIZE_LIMITS
        raise EngineError(f"{file.name}: {longest:.3g} m long; wanted {low:g} .. {high:g} m (is it in other units?)")
    if prior and not prior.low / 2 <= longest <= prior.high * 2:
        found = f"{longest:.3g} m long; a {prior.name} is {prior.low:g} .. {prior.high:g} m"
        raise EngineError(f"{file.name}: {found} (does it lie where its height was measured?)")


def _fewer_faces(parts: list[Part], max_faces: int, warnings: list[str]) -> list[Part]:
    total = sum(len(part.faces) for part in parts)
    if total <= max_faces:
        return parts
    parts = [simplified(part, max(4, int(max_faces * len(part.faces) / total))) for part in parts]
    warnings.append(f"{total} faces reduced to {sum(len(part.faces) for part in parts)}")
    return parts


def _whole(parts: Sequence[Part]) -> tuple[Array, Faces]:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    return np.concatenate([part.vertices for part in parts]), faces


def _outside_out(parts: list[Part]) -> list[Part]:
    """Turn all faces when together they enclose a negative volume."""
    vertices, faces = _whole(parts)
    volume = np.linalg.det((vertices - vertices.mean(axis=0))[faces]).sum()
    if volume >= 0:
        return parts
    return [replace(part, faces=part.faces[:, ::-1], paint=part.paint[:, ::-1]) for part in parts]
