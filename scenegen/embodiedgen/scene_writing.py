"""The files of a scene that was imported, and its line in the manifest of the set."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from scenegen.embodiedgen.arranging import Arrangement, Table
from scenegen.embodiedgen.assets import ENGINE
from scenegen.embodiedgen.frames import Frame, to_wxyz
from scenegen.embodiedgen.layout_file import BACKGROUND
from scenegen.embodiedgen.rooms import import_room
from scenegen.embodiedgen.sidecar import KEPT, KeptAsset, Sidecar, copy_file, keep_files
from scenegen.embodiedgen.source import ImportOptions, Source
from scenegen.files import locked, write_atomic
from scenegen.loader import load_scene_set
from scenegen.manifest import SCENES, scene_digest, write_manifest
from scenegen.schema import (
    MANIFEST_FILE,
    PROVENANCE_FILE,
    AssetRecord,
    ManifestLine,
    ObjectEntry,
    Pose,
    Provenance,
    RobotEntry,
    SceneBundle,
    SceneGraph,
)


def write_bundle(
    source: Source,
    graph: SceneGraph,
    records: Mapping[str, AssetRecord],
    table: Table,
    arrangement: Arrangement,
    folder: Path,
    scene_id: str,
    options: ImportOptions,
    notes: list[str],
) -> SceneBundle:
    bank, world = arrangement.bank, arrangement.world
    room = source.layout.of_role(BACKGROUND)[0]
    background = import_room(
        source.folder / source.layout.assets.get(room, BACKGROUND),
        room,
        source.layout.position.get(room),
        world,
        source.extra,
        folder,
        options.seed,
        notes,
    )
    order = graph.objects
    objects = [
        ObjectEntry.model_validate(
            {"id": node.id, "role": node.role, "name": node.name, "nominal_xy": xy.tolist(), "asset": records[node.id]}
        )
        for node, xy in zip(order, np.round(bank.nominal, 4), strict=True)
    ]
    robot = next(node.id for node in graph.nodes if node.role.value == "robot")
    parts = [source.path.read_text(encoding="utf-8"), *(records[node.id].asset_id for node in order), scene_id, options]
    return SceneBundle(
        scene_id=scene_id,
        build_key=sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest(),
        seed=options.seed,
        instruction=graph.instruction,
        graph=graph,
        objects=objects,
        context=table.placed(world),
        background=background,
        robot=RobotEntry(id=robot, uid="wx250s", base_pose=Pose(p=(0, 0, table.entry.top_height_m))),
        layout=bank.write(folder, options.xy_range),
    )


def sidecar_of(
    source: Source,
    ids: Mapping[str, str],
    bundle: SceneBundle,
    table: Table,
    arrangement: Arrangement,
    folder: Path,
    options: ImportOptions,
    notes: list[str],
) -> Sidecar:
    world = arrangement.world
    rows = {entry.id: row for entry, row in zip(bundle.objects, np.asarray(arrangement.bank.poses[0], float), strict=True)}
    context = bundle.context
    rows[context.id] = np.array([*context.pose.p, *context.pose.q_wxyz])
    assets = {}
    for node, node_id in ids.items():
        shift = table.shift if node == source.table else source.shift(node)
        link = source.link(node)
        if arrangement.how == "anew" and node != source.table and link is not None:
            rows[node_id] = (world * link * Frame(-shift)).row()  # where it was to stand, not where it stands
        urdf = source.meshes[node].urdf
        assets[node_id] = KeptAsset(
            node=node,
            urdf=urdf.path.read_text(encoding="utf-8-sig"),
            shift=tuple(shift.tolist()),
            pose=tuple(rows[node_id].tolist()),
            files=keep_files(urdf, node, folder),
        )
    background = source.folder / source.layout.assets.get(source.layout.of_role(BACKGROUND)[0], BACKGROUND)
    kept = [p for p in sorted(background.rglob("*")) if p.is_file() and not p.is_symlink()] if options.background_files else []
    names = [path.relative_to(background).as_posix() for path in kept]
    for path, name in zip(kept, names, strict=True):
        copy_file(path, folder / KEPT / BACKGROUND / name)
    return Sidecar(
        layout=source.layout.model_dump(mode="json", exclude_unset=True),
        world=Pose(p=tuple(world.p.tolist()), q_wxyz=to_wxyz(world.turn)),
        arrangement=arrangement.how,
        notes=notes,
        assets=assets,
        background=names,
    )


def write_provenance(folder: Path, bundle: SceneBundle, options: ImportOptions) -> None:
    given = {key: str(value) for key, value in vars(options).items() if value is not None and key != "seed"}
    provenance = Provenance(
        task=bundle.instruction,
        seed=options.seed,
        attempt=0,
        options=given,
        designer=ENGINE,
        engines={entry.id: entry.asset.engine for entry in bundle.objects},
        versions={f"{entry.asset.engine} ({entry.id})": entry.asset.engine_version for entry in bundle.objects},
    )
    write_atomic(folder / PROVENANCE_FILE, (provenance.model_dump_json(indent=1) + "\n").encode())


def add_to_manifest(output_set: Path, scene_id: str, task: str, split: str) -> None:
    digest = scene_digest(output_set / SCENES / scene_id)
    line = ManifestLine.model_validate(
        {"id": scene_id, "path": f"{SCENES}/{scene_id}", "split": split, "task": task, "digest": digest}
    )
    with locked(output_set / ".lock"):
        there = (output_set / MANIFEST_FILE).is_file()
        write_manifest(output_set, [*(load_scene_set(output_set).lines if there else []), line])
