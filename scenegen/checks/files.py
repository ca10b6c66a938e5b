"""The files of an asset as they lie on disk, read strictly: the checks trust no engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scenegen.checks.findings import FileFault
from scenegen.checks.solid import Solid
from scenegen.mesh.hulls import convex_hull
from scenegen.schema import AssetRecord

Array = NDArray[np.float64]
_PASSED_OVER = {"vn", "vp", "o", "g", "s", "usemtl", "mtllib"}
MAX_SIDE = 8192
"""Pixels of a texture."""


@dataclass(frozen=True)
class Mesh:
    """Triangles of an OBJ: points [v, 3], faces [f, 3] into them, uvs [f, 3, 2] of their corners (None when a corner has none),
    and the index of the `o` group of each face [f]."""

    points: Array
    faces: NDArray[np.int64]
    uvs: Array | None
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class AssetOnDisk:
    """Each file is read when it is first asked for; FileFault says what is wrong with it."""

    record: AssetRecord
    folder: Path

    @cached_property
    def visual(self) -> Mesh:
        return read_obj(self.folder / self.record.files.visual)

    @cached_property
    def solid(self) -> Solid:
        """The convex hulls of the groups of the collision mesh."""
        path = self.folder / self.record.files.collision
        mesh = read_obj(path)
        hulls = []
        for group in range(mesh.groups.max() + 1):
            points = mesh.points[np.unique(mesh.faces[mesh.groups == group])]
            try:
                hulls.append(convex_hull(points))
            except (ValueError, RuntimeError):  # Qhull's complaints are either
                raise FileFault(f"{path.name}: convex piece {group} is flat or empty") from None
        return Solid.of(hulls)

    @cached_property
    def collision(self) -> Mesh:
        return read_obj(self.folder / self.record.files.collision)

    @cached_property
    def texture(self) -> Array:
        """sRGB in 0..1 [h, w, 3]."""
        path = self.folder / self.record.files.texture
        try:
            with Image.open(path) as image:
                if max(image.size) > MAX_SIDE:
                    raise FileFault(f"{path.name}: {image.size[0]} x {image.size[1]} pixels, at most {MAX_SIDE} wanted")
                return np.asarray(image.convert("RGB"), float) / 255
        except FileNotFoundError:
            raise FileFault(f"{path.name}: the texture is missing") from None
        except (OSError, ValueError, SyntaxError) as error:
            raise FileFault(f"{path.name}: not a readable picture: {_line(error)}") from None

    @cached_property
    def texture_of_material(self) -> Path | None:
        """What the material lays on the surface, or None."""
        path = self.folder / self.record.files.material
        names = [line.split(None, 1)[1].strip() for line in _lines(path) if line.lower().startswith("map_kd ")]
        return path.parent / names[-1] if names else None

    @cached_property
    def link(self) -> ElementTree.Element:
        """The only link of the URDF."""
        path = self.folder / self.record.files.urdf
        try:
            links = ElementTree.fromstring("\n".join(_lines(path))).findall("link")
        except ElementTree.ParseError as error:
            raise FileFault(f"{path.name}: not valid XML: {_line(error)}") from None
        if len(links) != 1:
            raise FileFault(f"{path.name}: {len(links)} links, 1 wanted")
        return links[0]


def read_obj(path: Path) -> Mesh:
    """Raises FileFault for anything that another reader could take in another way."""
    points: list[list[float]] = []
    texels: list[list[float]] = []
    corners: list[tuple[int, int]] = []
    groups: list[int] = []
    group = 0
    for number, line in enumerate(_lines(path), start=1):
        key, *rest = line.split() or ["#"]
        try:
            if key == "v":
                points.append([float(value) for value in rest[:3]])
            elif key == "vt":
                texels.append([float(value) for value in rest[:2]])
            elif key == "f":
                polygon = [_corner(text, len(points), len(texels)) for text in rest]
                if len(polygon) < 3:
                    raise ValueError("a face has fewer than three corners")
                for i in range(1, len(polygon) - 1):
                    corners += [polygon[0], polygon[i], polygon[i + 1]]
                    groups.append(group)
            elif key == "o":
                group = groups[-1] + 1 if groups else 0
            elif not key.startswith("#") and key not in _PASSED_OVER:
                raise ValueError(f"{key!r} is not understood")
        except ValueError as error:
            raise FileFault(f"{path.name}: line {number}: {_line(error)}") from None
    if not groups:
        raise FileFault(f"{path.name}: holds no face")
    if any(len(point) != 3 for point in points) or any(len(texel) != 2 for texel in texels):
        raise FileFault(f"{path.name}: a vertex lacks a coordinate")
    return _mesh(path, points, texels, corners, groups)


def _mesh(
    path: Path, points: list[list[float]], texels: list[list[float]], corners: list[tuple[int, int]], groups: list[int]
) -> Mesh:
    indices = np.array(corners).reshape(-1, 3, 2)
    places, uvs = np.array(points), None
    if (indices[..., 1] >= 0).all():
        uvs = np.array(texels)[indices[..., 1]]
        if not np.isfinite(uvs).all():
            raise FileFault(f"{path.name}: texture coordinates that are not finite")
    if not np.isfinite(places).all():
        raise FileFault(f"{path.name}: vertices that are not finite")
    return Mesh(places, indices[..., 0], uvs, np.array(groups))


def _corner(text: str, n_points: int, n_texels: int) -> tuple[int, int]:
    """ "3/2/1" as (2, 1); -1 for no texture coordinate. Negative numbers count from the end of what was read so far."""
    parts = text.split("/")
    place = _index(parts[0], n_points)
    return place, _index(parts[1], n_texels) if len(parts) > 1 and parts[1] else -1


def _index(text: str, count: int) -> int:
    value = int(text)
    index = value - 1 if value > 0 else count + value
    if value == 0 or not 0 <= index < count:
        raise ValueError(f"index {value} of {count}")
    return index


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileFault(f"{path.name}: missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileFault(f"{path.name}: not readable as text: {_line(error)}") from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
