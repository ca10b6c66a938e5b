"""The background of an imported layout: its mesh when it has one, the room it was exported with, or one of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scenegen.embodiedgen.frames import UPRIGHT, Frame, from_xyzw, to_pose
from scenegen.embodiedgen.sidecar import OWN_ROOM, Extra, copy_file
from scenegen.engines.procedural import textures
from scenegen.engines.procedural.catalog import BASIC
from scenegen.engines.procedural.rooms import room
from scenegen.mesh.reading import read_mesh
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.texturing import simplified, surface_of
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, material_mtl, visual_obj
from scenegen.schema import BackgroundEntry, Pose
from scenegen.seeds import generator

MESH_FILE = "mesh_model.ply"
FACES, TEXTURE = 12_000, 1024
FOLDER = "background"


def import_room(
    source: Path,
    name: str,
    position: list[float] | None,
    world: Frame,
    extra: Extra | None,
    folder: Path,
    seed: int,
    notes: list[str],
) -> BackgroundEntry:
    """Write the room of the background folder `source` below `folder`; `position` is its place in the layout's world, which
    `world` moves into ours."""
    if extra is not None and (source / OWN_ROOM / Path(extra.background.visual).name).is_file():
        return _own(source / OWN_ROOM, extra.background, folder)
    if (source / MESH_FILE).is_file():
        return _from_mesh(source, name, position or [0, 0, 0, 0, 0, 0, 1], world, folder)
    rng = generator(seed, "room")
    style = str(rng.choice(list(BASIC.rooms)))
    surface, image = room(BASIC.rooms[style], rng)
    visual, texture = write_visual(folder, FOLDER, "room", surface, textures.png(image), 2.0)
    notes.append(f"background: has no {MESH_FILE}; took one of our rooms, {style.replace('_', ' ')}")
    return BackgroundEntry(id="room", name=name, style=style, visual=visual, texture=texture, pose=Pose(p=(0, 0, 0)))


def write_visual(folder: Path, where: str, name: str, surface: Surface, png: bytes, shininess: float) -> tuple[str, str]:
    """Write an OBJ with its material and texture; their names relative to `folder`."""
    (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / where / f"{name}.obj").write_text(visual_obj(surface, name))
    (folder / where / MATERIAL_FILE).write_text(material_mtl(shininess))
    (folder / where / TEXTURE_FILE).write_bytes(png)
    return f"{where}/{name}.obj", f"{where}/{TEXTURE_FILE}"


def _own(source: Path, entry: BackgroundEntry, folder: Path) -> BackgroundEntry:
    for name in (Path(entry.visual).name, MATERIAL_FILE, Path(entry.texture).name):
        copy_file(source / name, folder / FOLDER / name)
    return entry.model_copy(
        update={"visual": f"{FOLDER}/{Path(entry.visual).name}", "texture": f"{FOLDER}/{Path(entry.texture).name}"}
    )


def _from_mesh(source: Path, name: str, position: list[float], world: Frame, folder: Path) -> BackgroundEntry:
    """The mesh has y up; its position turns it about y, and then stands upright."""
    parts, _ = read_mesh(source / MESH_FILE, source, TEXTURE)
    total = sum(len(part.faces) for part in parts)
    if total > FACES:
        parts = [simplified(part, max(4, FACES * len(part.faces) // total)) for part in parts]
    surface, pixels = surface_of(parts, TEXTURE)
    upright = Surface(UPRIGHT.apply(surface.vertices), UPRIGHT.apply(surface.normals), surface.uvs, surface.faces)
    png = textures.png(np.asarray(pixels, float) / 255)
    visual, texture = write_visual(folder, FOLDER, "room", upright, png, 2.0)
    frame = world * Frame(position[:3], UPRIGHT * from_xyzw(position[3:]) * UPRIGHT.inv())
    return BackgroundEntry(id="room", name=name, style="imported", visual=visual, texture=texture, pose=to_pose(frame))
