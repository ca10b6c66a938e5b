"""What an imported scene's own files have no room for: `embodiedgen.json` in its folder, and the files it names.

With it an export gives back what was imported: names, texts, versions, verdicts, conventions, frames and all unknown keys.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scenegen.embodiedgen.asset_urdf import AssetUrdf
from scenegen.embodiedgen.layout_file import Layout, file_name
from scenegen.errors import UserError
from scenegen.files import write_atomic
from scenegen.schema import (
    AssetRecord,
    BackgroundEntry,
    ContextEntry,
    Finite,
    Model,
    Pose,
    RelativePath,
    SceneGraph,
    Slug,
    Vector,
)

SIDECAR_FILE = "embodiedgen.json"
KEPT = "embodiedgen"
"""Folder of a scene that holds files of EmbodiedGen that we have no use for."""

OWN_ROOM = "x_scenegen"

Row = tuple[Finite, Finite, Finite, Finite, Finite, Finite, Finite]


class KeptAsset(Model):
    """Of one node: its URDF as it was, the shift [m] from its upright link to our object, the pose (x, y, z, qw, qx, qy, qz in
    our world) that its position in the layout became, and the files kept for it, relative to its folder."""

    node: str
    urdf: str
    shift: Vector
    pose: Row
    files: list[RelativePath]


class Sidecar(Model):
    """`world`: the pose of the layout's world in ours. `arrangement` says whether the objects stand as the layout had them or
    were laid out anew; `notes` tell what was chosen or mended on import."""

    layout: dict[str, Any]
    world: Pose
    arrangement: Literal["kept", "anew"]
    notes: list[str]
    assets: dict[Slug, KeptAsset]
    background: list[RelativePath]


class Extra(Model):
    """Our truth in a layout.json that we write (its key `x_scenegen`): the graph, the name of each node there, where the base
    of the WidowX stands in the layout's world, and the entries of scene.json. The paths in these are those of the scene that
    was exported; the room's files lie below OWN_ROOM in the folder of the background."""

    version: Literal[1] = 1
    graph: SceneGraph
    names: dict[Slug, str]
    base_pose: Pose
    assets: dict[Slug, AssetRecord]
    context: ContextEntry
    background: BackgroundEntry


def read_sidecar(folder: Path) -> Sidecar | None:
    """Of a scene, if it was imported."""
    path = folder / SIDECAR_FILE
    if not path.is_file():
        return None
    try:
        return Sidecar.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(f"{path}: not what an import wrote: {str(error).splitlines()[0]}") from None


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    write_atomic(folder / SIDECAR_FILE, (sidecar.model_dump_json(indent=1) + "\n").encode())


def read_extra(layout: Layout, path: Path) -> Extra | None:
    """Our truth in a layout that one of our scenes was exported to, if nobody dropped it."""
    if layout.extra is None:
        return None
    try:
        return Extra.model_validate(layout.extra)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: x_scenegen.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def keep_files(urdf: AssetUrdf, node: str, scene_folder: Path) -> list[str]:
    """Copy the files that an asset's notes name into the scene; their names, relative to the asset's folder."""
    for file in urdf.files:
        copy_file(urdf.path.parent / file, scene_folder / KEPT / file_name(node) / file)
    return urdf.files


def copy_file(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)
