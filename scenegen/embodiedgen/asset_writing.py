"""One object or table of ours -> the folder of an EmbodiedGen asset."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from scenegen.embodiedgen.asset_urdf import new_tree, parse_urdf, set_body, set_inertia, set_meshes, to_text
from scenegen.embodiedgen.frames import UPRIGHT, Frame
from scenegen.embodiedgen.layout_file import file_name
from scenegen.embodiedgen.splat import sample_surface, splat_ply
from scenegen.engines.writing import clipped_friction
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE
from scenegen.schema import PhysicsSpec
from scenegen.seeds import generator

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """What is written: visual OBJ with its texture, the text of the collision OBJ, physics, all in the frame of the object, in
    which a point of the upright link is `shift` [m] further on. `urdf` is the text it was imported with."""

    visual: Path
    texture: Path
    collision: str
    physics: PhysicsSpec
    shift: Array
    urdf: str | None
    info: dict[str, str]
    quality: dict[str, str]


def write_part(part: Part, node: str, place: Path) -> None:
    """Write <node_>.urdf and its meshes into `place`. One that was imported keeps its conventions, names and notes; its
    inertia, a placeholder there, is set right."""
    name = file_name(node)
    files, legacy = (f"mesh/{name}.obj", f"mesh/{name}_collision.obj"), False
    friction = (part.physics.static_friction, part.physics.dynamic_friction)
    same_body = False
    if part.urdf is None:
        tree = new_tree(name, part.info, part.quality)
    else:
        asset = parse_urdf(part.urdf, place / f"{name}.urdf")
        tree, legacy = asset.tree, asset.legacy
        collision = asset.collision.file if asset.collision is not None else ""
        files = (
            _obj(asset.visual.file) or files[0],
            collision if _obj(collision) and collision != asset.visual.file else files[1],
        )
        same_mass = asset.mass is not None and abs(asset.mass - part.physics.mass_kg) < 1e-6
        same_body = same_mass and clipped_friction(*asset.friction) == friction
    link = UPRIGHT.inv() if legacy else Rotation.identity()
    set_meshes(tree, *files, legacy)
    if not same_body:
        set_body(tree, part.physics.mass_kg, friction)
    set_inertia(tree, part.physics, link, link.apply(-part.shift))

    def to_file(points: Array) -> Array:
        return UPRIGHT.inv().apply(points - part.shift)

    for file, text in zip(files, (part.visual.read_text(), part.collision), strict=True):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(moved_obj(text, to_file))
    folder = (place / files[0]).parent
    shutil.copyfile(part.visual.with_name(MATERIAL_FILE), folder / MATERIAL_FILE)
    shutil.copyfile(part.texture, folder / TEXTURE_FILE)
    (place / f"{name}.urdf").write_text(to_text(tree), encoding="utf-8")


def write_splat(visual: Path, texture: Path, file: Path, count: int, frame: Frame) -> None:
    """The colours of an OBJ of ours, that stands at `frame` in a world with z up, as `count` Gaussians with y up."""
    rows: dict[str, list[list[str]]] = {"v": [], "vt": [], "f": []}
    for line in visual.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind in rows:
            rows[kind].append(rest.split())
    vertices, uvs = np.array(rows["v"], float), np.array(rows["vt"], float)
    faces = np.array([[int(corner.split("/")[0]) - 1 for corner in face] for face in rows["f"]])
    with Image.open(texture) as picture:
        image = np.asarray(picture.convert("RGB"), float) / 255
    points, colors, distance = sample_surface(vertices, uvs, faces, image, count, generator("splat", count))
    upright = UPRIGHT.inv().apply(frame.p + frame.turn.apply(points))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(splat_ply(upright, colors, distance))


def moved_obj(text: str, move: Callable[[Array], Array]) -> str:
    """An OBJ whose vertices went through `move`, a rigid motion, and whose normals turned along; all else as it was."""
    lines = text.splitlines()
    for kind, digits, origin in (("v", 6, 0.0), ("vn", 4, move(np.zeros((1, 3))))):
        places = [i for i, line in enumerate(lines) if line.startswith(f"{kind} ")]
        if not places:
            continue
        points = move(np.array([lines[i].split()[1:4] for i in places], float)) - origin
        for i, (x, y, z) in zip(places, np.round(points, digits) + 0.0, strict=True):
            lines[i] = f"{kind} {x:.{digits}f} {y:.{digits}f} {z:.{digits}f}"
    return "\n".join(lines) + "\n"


def _obj(file: str) -> str | None:
    return file if file.lower().endswith(".obj") else None
