"""A mesh file from elsewhere -> triangles with what is painted on them. Trusts nothing: the file may be torn, lie about its
textures or point out of its folder."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image as Picture

from scenegen.engines.base import EngineError

Array = NDArray[np.float64]
Faces = NDArray[np.int64]
Pixels = NDArray[np.uint8]

FORMATS = (".obj", ".glb", ".ply", ".stl")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".webp")
_MAX_BYTES = 512 * 2**20
_MAX_SIDE = 8192
_GRAY = np.array([0.6, 0.6, 0.6])


@dataclass(frozen=True)
class Part:
    """Triangles that share an image: vertices [v, 3], faces [f, 3], and at each corner `paint`: texture coordinates [f, 3, 2]
    with v upwards, or, when there is no image, colours [f, 3, 3] in 0..1."""

    vertices: Array
    faces: Faces
    paint: Array
    image: Pixels | None = None


def read_mesh(file: Path, root: Path | None = None, texture_size: int = 512) -> tuple[list[Part], list[str]]:
    """The parts of a mesh file, one for each image and one for all that is merely coloured, images no larger than
    `texture_size`; and warnings. Opens nothing outside `root` (else the file's folder). Raises EngineError in one line."""
    scene, warnings = _load(file, root or file.parent)
    parts = []
    for vertices, faces, mesh in _placed(scene):
        if not np.isfinite(vertices).all():
            raise EngineError(f"{file.name}: holds coordinates that are not finite")
        parts.append(_painted(file, vertices, faces, mesh.visual, texture_size, warnings))
    parts = [_without_slivers(part) for part in _joined(parts)]
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise EngineError(f"{file.name}: holds no faces")
    return parts, list(dict.fromkeys(warnings))


def read_groups(file: Path, root: Path | None = None) -> list[tuple[Array, Faces]]:
    """Vertices and faces of each `o` group of an OBJ, or of each mesh of another format. Raises EngineError in one line."""
    scene, _ = _load(file, root or file.parent, split_objects=True, group_material=False, skip_materials=True)
    groups = [(vertices, faces) for vertices, faces, _ in _placed(scene) if len(faces)]
    if not groups:
        raise EngineError(f"{file.name}: holds no faces")
    if not all(np.isfinite(vertices).all() for vertices, _ in groups):
        raise EngineError(f"{file.name}: holds coordinates that are not finite")
    return groups


class _Folder(trimesh.resolvers.Resolver):
    """Gives trimesh the files that a mesh refers to, when they lie below `root`. Trimesh passes over errors in silence, so what
    was refused or torn is kept in `trouble`, what is not there in `missing`."""

    def __init__(self, root: Path, beside: Path) -> None:
        self.root, self.beside = root.resolve(), beside
        self.trouble: list[str] = []
        self.missing: list[str] = []

    def get(self, key: str) -> bytes:
        path = (self.beside / key.replace("\\", "/")).resolve()
        if not path.is_relative_to(self.root):
            self.trouble.append(f"refers to {key!r}, which is outside its folder")
            raise PermissionError(key)
        if not path.is_file():
            self.missing.append(key)
            raise FileNotFoundError(key)
        content = _bounded(path)
        if path.suffix.lower() in _PICTURES:
            try:
                _picture(Picture.open(io.BytesIO(content)))
            except EngineError as error:
                self.trouble.append(f"{path.name}: {error}")
                raise
            except Exception:
                self.trouble.append(f"{path.name}: not a readable image")
                raise
        return content

    def namespaced(self, namespace: str) -> _Folder:
        return self

    def keys(self) -> list[str]:
        return []

    def write(self, name: str, data: bytes) -> None:
        raise PermissionError(name)


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise EngineError(f"{path.name}: larger than {_MAX_BYTES // 2**20} MB")
    return path.read_bytes()


def _load(file: Path, root: Path, **options: Any) -> tuple[trimesh.Scene, list[str]]:
    kind = file.suffix.lower()
    if kind not in FORMATS:
        raise EngineError(f"{file.name}: found the format {kind or 'of no name'}; wanted one of {', '.join(FORMATS)}")
    if not file.resolve().is_relative_to(root.resolve()):
        raise EngineError(f"{file.name}: lies outside its folder")
    if not file.is_file():
        raise EngineError(f"{file.name}: not found")
    folder = _Folder(root, file.parent)
    try:
        scene = trimesh.load_scene(io.BytesIO(_bounded(file)), file_type=kind[1:], resolver=folder, process=False, **options)
    except EngineError:
        raise
    except Exception as error:  # a parser of foreign files may raise anything
        found = " ".join(str(error).split())[:120]
        raise EngineError(
            f"{file.name}: {(folder.trouble or [f'cannot be read ({found or type(error).__name__})'])[0]}"
        ) from None
    if folder.trouble:
        raise EngineError(f"{file.name}: {folder.trouble[0]}")
    return scene, [f"{name} is missing" for name in folder.missing]


def _placed(scene: trimesh.Scene) -> list[tuple[Array, Faces, trimesh.Trimesh]]:
    """Every mesh of a scene where the scene puts it, in the order of their names."""
    placed = []
    for node in sorted(scene.graph.nodes_geometry):
        transform, name = scene.graph[node]
        mesh = scene.geometry[name]
        if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
            continue
        vertices = np.asarray(mesh.vertices, float) @ transform[:3, :3].T + transform[:3, 3]
        faces = np.asarray(mesh.faces, np.int64)
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise EngineError("a face names a vertex that is not there")
        placed.append((vertices, faces[:, ::-1] if np.linalg.det(transform[:3, :3]) < 0 else faces, mesh))
    return placed


def _painted(file: Path, vertices: Array, faces: Faces, visual: Any, texture_size: int, warnings: list[str]) -> Part:
    """What is painted on a mesh. `faces` index the mesh's own vertices, maybe in turned order."""
    material = getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uvs = getattr(visual, "uv", None)
    if picture is not None and uvs is not None and len(uvs) == len(vertices):
        try:
            image = _picture(picture, texture_size, getattr(material, "baseColorFactor", None))
        except Exception as error:
            raise EngineError(f"{file.name}: its texture cannot be read ({' '.join(str(error).split())[:80]})") from None
        uvs = np.asarray(uvs, float)
        if not np.isfinite(uvs).all():
            raise EngineError(f"{file.name}: holds texture coordinates that are not finite")
        return Part(vertices, faces, _in_one_tile(uvs[faces], warnings), image)
    if material is not None:
        color = np.asarray(material.main_color, float)[:3] / 255
        return Part(vertices, faces, np.broadcast_to(color, (len(faces), 3, 3)).copy())
    if getattr(visual, "kind", None) == "vertex" and len(visual.vertex_colors) == len(vertices):
        return Part(vertices, faces, np.asarray(visual.vertex_colors, float)[faces][..., :3] / 255)
    if getattr(visual, "kind", None) == "face" and len(visual.face_colors) == len(faces):
        return Part(vertices, faces, np.repeat(np.asarray(visual.face_colors, float)[:, None, :3] / 255, 3, axis=1))
    warnings.append("nothing is painted on it: gray")
    return Part(vertices, faces, np.broadcast_to(_GRAY, (len(faces), 3, 3)).copy())


def _picture(picture: Picture.Image, size: int = _MAX_SIDE, factor: Any = None) -> Pixels:
    """The pixels [h, w, 3] of an image, its longer side no more than `size`, times a material's base colour."""
    if max(picture.size) > _MAX_SIDE:
        raise EngineError(f"an image of {picture.size[0]} x {picture.size[1]} pixels; wanted at most {_MAX_SIDE}")
    picture = picture.convert("RGB")
    if max(picture.size) > size:
        ratio = size / max(picture.size)
        width, height = (max(1, round(side * ratio)) for side in picture.size)
        picture = picture.resize((width, height), Picture.Resampling.BOX)
    pixels = np.asarray(picture, np.uint8)
    if factor is None:
        return pixels
    factor = np.asarray(factor, float)[:3]
    factor = factor / 255 if factor.max() > 1 else factor
    return np.round(pixels * np.clip(factor, 0, 1)).astype(np.uint8)


def _in_one_tile(uvs: Array, warnings: list[str]) -> Array:
    """Corners [f, 3, 2] of faces on a repeated texture, moved into 0..1 face by face. A face that spans more than one tile is
    squeezed into it."""
    low, high = uvs.min(axis=1, keepdims=True), uvs.max(axis=1, keepdims=True)
    outside = (low < -1e-6) | (high > 1 + 1e-6)
    moved = np.where(outside, uvs - np.floor(low), uvs)
    span = moved.max(axis=1, keepdims=True)
    if (span > 1 + 1e-4).any():
        warnings.append(f"{int((span > 1 + 1e-4).any(axis=(1, 2)).sum())} faces repeat their texture: it is drawn once on each")
    return np.clip(moved / np.maximum(span, 1), 0, 1)


def _joined(parts: list[Part]) -> list[Part]:
    """Parts of one image, and all parts without one, as one."""
    groups: dict[bytes, list[Part]] = {}
    for part in parts:
        key = b"" if part.image is None else sha256(repr(part.image.shape).encode() + part.image.tobytes()).digest()
        groups.setdefault(key, []).append(part)
    joined = []
    for group in groups.values():
        starts = np.cumsum([0, *(len(part.vertices) for part in group[:-1])])
        faces = np.concatenate([part.faces + start for part, start in zip(group, starts, strict=True)])
        vertices, paint = np.concatenate([part.vertices for part in group]), np.concatenate([part.paint for part in group])
        joined.append(Part(vertices, faces, paint, group[0].image))
    return joined


def _without_slivers(part: Part) -> Part:
    """Equal vertices become one, faces without area and vertices without faces go."""
    scale = float(np.ptp(part.vertices, axis=0).max()) or 1.0
    _, first, index = np.unique(np.round(part.vertices / scale, 7) + 0.0, axis=0, return_index=True, return_inverse=True)
    vertices, faces = part.vertices[first], index.reshape(-1)[part.faces]
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = areas > 1e-12 * scale**2
    used, compact = np.unique(faces[kept], return_inverse=True)
    return replace(part, vertices=vertices[used], faces=compact.reshape(-1, 3), paint=part.paint[kept])
