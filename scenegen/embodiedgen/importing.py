"""The folder of an EmbodiedGen task -> one of our scenes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from scenegen.checks.run import check_all, write_verdicts
from scenegen.embodiedgen import graphs
from scenegen.embodiedgen.arranging import Arrangement, Placed, Table, arrange
from scenegen.embodiedgen.assets import write_own_asset, write_read_asset
from scenegen.embodiedgen.frames import Frame, tilt_deg
from scenegen.embodiedgen.layout_file import LAYOUT_FILE
from scenegen.embodiedgen.roles import Casting, cast_roles
from scenegen.embodiedgen.rooms import write_visual
from scenegen.embodiedgen.scene_writing import add_to_manifest, sidecar_of, write_bundle, write_provenance
from scenegen.embodiedgen.sidecar import Extra, write_sidecar
from scenegen.embodiedgen.source import ImportOptions, Source, read_source
from scenegen.embodiedgen.tables import find_top, trim
from scenegen.engines.base import EngineError
from scenegen.engines.writing import clipped_friction
from scenegen.errors import UserError
from scenegen.files import write_atomic
from scenegen.layout.bank import LayoutError
from scenegen.layout.surfaces import INSET
from scenegen.loader import load_scene
from scenegen.manifest import SCENES
from scenegen.mesh.writers import collision_obj
from scenegen.schema import (
    SCENE_FILE,
    AssetRecord,
    ContextEntry,
    Pose,
    SceneBundle,
    SceneGraph,
    Verdict,
)
from scenegen.seeds import generator

TABLE_VISUAL, TABLE_COLLISION = "table", "context/table_collision.obj"


@dataclass(frozen=True)
class Imported:
    """The scene; whether its objects stand as they came ("kept") or were laid out "anew"; in short lines what was chosen or
    mended on the way; what the checks say of it."""

    bundle: SceneBundle
    arrangement: str
    notes: list[str]
    verdicts: list[Verdict]


def import_layout(
    task_dir: Path, output_set: Path, scene_id: str, options: ImportOptions | None = None, split: str = "train"
) -> Imported:
    """Make the EmbodiedGen task in `task_dir` (a folder with a layout.json) the scene `scene_id` of the set `output_set`,
    which is made when it is not there; `split` is "train" or "heldout".

    Raises UserError in one line for whatever cannot become a scene, and leaves nothing behind then.
    """
    options = options or ImportOptions()
    if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", scene_id):
        raise UserError(f"scene_id: found {scene_id!r}; wanted small letters, digits and single underscores")
    if split not in ("train", "heldout") or options.poses < 1 or not options.xy_range >= 0:
        raise UserError("split, poses, xy_range: wanted train or heldout, at least 1 and at least 0")
    final = output_set / SCENES / scene_id
    if final.exists():
        raise UserError(f"output: {final} exists already; wanted a new scene_id")
    building = output_set / SCENES / f".building-{scene_id}-{os.getpid()}"
    path = task_dir / LAYOUT_FILE
    try:
        source = read_source(task_dir, options)
        building.mkdir(parents=True)
        imported = _import(source, building, scene_id, options)
        building.rename(final)
    except (EngineError, LayoutError) as error:
        raise UserError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    add_to_manifest(output_set, scene_id, imported.bundle.instruction, split)
    return imported


def _import(source: Source, folder: Path, scene_id: str, options: ImportOptions) -> Imported:
    layout, extra = source.layout, source.extra
    notes = [f"{node}: {warning}" for node, mesh in source.meshes.items() for warning in mesh.mesh.warnings]
    if extra is not None:
        ids, graph, records, mended = _own_objects(source, extra, folder)
    else:
        casting = cast_roles(layout, source.path, options.target, options.destination)
        ids, graph, records = _objects(source, casting, folder, options.seed)
        mended = casting.notes
    notes += mended
    table = _table(source, folder)
    arrangement = _arrange(source, graph, ids, records, table, folder, options)
    if arrangement.reason:
        notes.append(f"laid out anew: {arrangement.reason}")
    bundle = write_bundle(source, graph, records, table, arrangement, folder, scene_id, options, notes)
    write_sidecar(folder, sidecar_of(source, ids, bundle, table, arrangement, folder, options, notes))
    write_provenance(folder, bundle, options)
    write_atomic(folder / SCENE_FILE, (bundle.model_dump_json(indent=1) + "\n").encode())
    verdicts = check_all(load_scene(folder))
    write_verdicts(folder, verdicts)
    return Imported(bundle, arrangement.how, notes, verdicts)


# ---- objects


def _objects(
    source: Source, casting: Casting, folder: Path, seed: int
) -> tuple[dict[str, str], SceneGraph, dict[str, AssetRecord]]:
    """Node -> id, the graph, id -> record; the assets are written."""
    ids = graphs.ids_of(source.layout, casting)
    movable = {node_id: node for node, node_id in ids.items() if node != source.table}
    specs = {node_id: graphs.spec_of(source.layout, node, node_id, source.meshes[node]) for node_id, node in movable.items()}
    records = {node_id: write_read_asset(source.meshes[node], specs[node_id], folder, seed) for node_id, node in movable.items()}
    return ids, graphs.graph_of(source.layout, source.path, casting, ids, specs, records), records


def _own_objects(
    source: Source, extra: Extra, folder: Path
) -> tuple[dict[str, str], SceneGraph, dict[str, AssetRecord], list[str]]:
    """The same of a scene of ours, and notes on what was changed since."""
    ids = {extra.names[node.id]: node.id for node in extra.graph.nodes if extra.names.get(node.id) in source.meshes}
    if {*ids} != {*source.meshes}:
        strange = sorted({*ids} ^ {*source.meshes}) or ["?"]
        raise UserError(f"{source.path}: x_scenegen.names: {strange[0]!r} is not there or not a node of the layout")
    records, notes = {}, []
    for node in extra.graph.objects:
        asset = source.meshes[extra.names[node.id]]
        record = write_own_asset(asset, node, folder, extra.assets[node.id]) if node.id in extra.assets else None
        if record is None:
            notes.append(f"{node.name}: changed since it was exported; measured anew")
            record = write_read_asset(asset, node, folder)
        records[node.id] = record
    return ids, extra.graph, records, notes


# ---- the table, and where everything stands


def _table(source: Source, folder: Path) -> Table:
    """Write the table."""
    asset = source.meshes[source.table]
    surface = asset.mesh.surface
    top = find_top(surface.vertices, surface.faces)
    low, high = top.loops[0].min(axis=0), top.loops[0].max(axis=0)
    middle = np.array([*np.round((low + high) / 2, 4), 0.0])
    asset, top = asset.moved(-middle), top.moved(-float(middle[0]), -float(middle[1]))
    hulls = trim(asset.mesh.hulls, top)
    visual, texture = write_visual(folder, "context", TABLE_VISUAL, asset.mesh.surface, asset.mesh.texture_png, 20.0)
    (folder / TABLE_COLLISION).write_text(collision_obj(hulls))
    friction = clipped_friction(*asset.urdf.friction)
    link = source.link(source.table) or Frame([0, 0, float(asset.shift[2])])
    frame = link * Frame(-asset.shift)
    if (tilt := tilt_deg(frame.turn)) > 1:
        raise LayoutError(f"context: stands tilted by {tilt:.0f} deg; wanted it upright")
    known = source.extra.context if source.extra is not None else None
    entry = ContextEntry(
        id=known.id if known else graphs.TABLE,
        name=known.name if known else source.table,
        style=known.style if known else "imported",
        visual=visual,
        texture=texture,
        collision_boxes=[],
        collision=TABLE_COLLISION,
        top_height_m=round(top.height, 6),
        top_size_m=tuple(round(float(side) + 2 * INSET, 4) for side in high - low),  # type: ignore[arg-type]
        static_friction=friction[0],
        dynamic_friction=friction[1],
        pose=Pose(p=(0, 0, 0)),
    )
    return Table(entry, frame, top, asset.shift)


def _arrange(
    source: Source,
    graph: SceneGraph,
    ids: Mapping[str, str],
    records: Mapping[str, AssetRecord],
    table: Table,
    folder: Path,
    options: ImportOptions,
) -> Arrangement:
    order = [node.id for node in graph.objects]
    nodes = {node_id: node for node, node_id in ids.items()}
    links = [source.link(nodes[node_id]) for node_id in order]
    missing = [nodes[i] for i, link in zip(order, links, strict=True) if link is None]
    if missing and (len(missing) < len(order) or source.layout.position):
        raise UserError(f"{source.path}: position: found nothing for {missing[0]!r}; wanted one for every object or none")
    frames = None
    if not missing:
        shifts = [source.shift(nodes[node_id]) for node_id in order]
        frames = [link * Frame(-shift) for link, shift in zip(links, shifts, strict=True) if link is not None]
    relations = [
        (order.index(edge.child), order.index(edge.parent), edge.relation)
        for edge in graph.edges
        if edge.child in order and edge.parent in order
    ]
    goal = order.index(graph.goal.subject), order.index(graph.goal.object)
    placed = Placed(folder, [records[i] for i in order], frames, relations, *goal, settled=source.extra is not None)
    base = source.extra.base_pose if source.extra is not None else None
    return arrange(placed, table, base, options.xy_range, options.poses, generator(options.seed, "layout"))
