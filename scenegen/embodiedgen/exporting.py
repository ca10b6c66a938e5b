"""One of our scenes -> the folder of an EmbodiedGen task.

A scene that was imported goes back in its own terms: names, texts and versions, its world, its origins; and where nothing was
changed since, its positions to the digit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from scenegen.embodiedgen import layout_file as eg
from scenegen.embodiedgen.asset_urdf import VERSION, parse_urdf
from scenegen.embodiedgen.asset_writing import Part, write_part, write_splat
from scenegen.embodiedgen.frames import UPRIGHT, Frame, of_pose, to_pose, to_xyzw
from scenegen.embodiedgen.layout_file import LAYOUT_FILE, Layout, file_name, write_layout
from scenegen.embodiedgen.sidecar import KEPT, OWN_ROOM, Extra, Sidecar, copy_file, read_sidecar
from scenegen.engines.writing import physics_of
from scenegen.errors import UserError
from scenegen.loader import Scene
from scenegen.mesh.hulls import Hull, convex_hull
from scenegen.mesh.surfaces import box_corners
from scenegen.mesh.writers import MATERIAL_FILE, collision_obj
from scenegen.schema import QA_FILE, Check, PhysicsSpec, Relation, Role, Status, Verdict

ROBOT = "franka"
"""The robot that a layout of ours names: EmbodiedGen knows no WidowX. Ours is in `x_scenegen`."""

GENERATED = "19700101000000"
"""For `generate_time`: equal scenes give equal files, so no time of day enters them."""

TABLE_DENSITY = 620.0
ASSET_SPLATS, ROOM_SPLATS = 400, 4000
CHECKERS = {Check.APPEARANCE: "SemanticConsistChecker", Check.GEOMETRY: "MeshGeoChecker", Check.ALIGNMENT: "TextGenAlignChecker"}

Verdicts = Mapping[str, list[Verdict]]


def export_scene(scene: Scene, output_dir: Path) -> Path:
    """Write `scene` as an EmbodiedGen task into the new folder `output_dir`; the path of its layout.json.

    Raises UserError when `output_dir` exists and is not empty.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise UserError(f"output: {output_dir} exists already; wanted a new or an empty folder")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    building = output_dir.with_name(f".{output_dir.name}.{os.getpid()}.tmp")
    building.mkdir()
    try:
        sidecar = read_sidecar(scene.folder)
        _write_new(scene, building) if sidecar is None else _write_again(scene, sidecar, building)
        if output_dir.exists():
            output_dir.rmdir()
        building.rename(output_dir)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return output_dir / LAYOUT_FILE


# ---- a scene of our own


def _write_new(scene: Scene, folder: Path) -> None:
    names, verdicts = _names(scene), _verdicts(scene)
    layout = _layout(scene, names, verdicts)
    write_layout(folder / LAYOUT_FILE, layout)
    for node_id, (visual, texture, collision, physics) in _bodies(scene).items():
        node = names[node_id]
        place, gs_model = folder / layout.assets[node], f"mesh/{file_name(node)}_gs.ply"
        info, quality = _info(scene, node_id, physics, gs_model), _quality(verdicts.get(node_id, []))
        write_part(Part(visual, texture, collision, physics, np.zeros(3), None, info, quality), node, place)
        write_splat(visual, texture, place / gs_model, ASSET_SPLATS, Frame())
    room = scene.bundle.background
    background = folder / layout.assets[names[room.id]]
    standing = _world(scene).inverse() * of_pose(room.pose)
    write_splat(scene.room_visual, scene.folder / room.texture, background / "gs_model.ply", ROOM_SPLATS, standing)
    for source in (scene.room_visual, scene.room_visual.with_name(MATERIAL_FILE), scene.folder / room.texture):
        copy_file(source, background / OWN_ROOM / source.name)


def _names(scene: Scene) -> dict[str, str]:
    """id -> a name for the node, as it is shown, made different from the others and fit for a file."""
    bundle = scene.bundle
    wanted = {bundle.robot.id: ROBOT}
    wanted |= {bundle.background.id: bundle.background.name, bundle.context.id: bundle.context.name}
    wanted |= {entry.id: entry.name for entry in bundle.objects}
    names: dict[str, str] = {}
    for node_id, name in wanted.items():
        base = "".join(c if c.isprintable() and c not in "/\\" else " " for c in name).strip(". ") or "thing"
        numbered = (base if number == 1 else f"{base} {number}" for number in range(1, len(wanted) + 1))
        taken = {file_name(other).lower() for other in names.values()}
        names[node_id] = next(candidate for candidate in numbered if file_name(candidate).lower() not in taken)
    return names


def _layout(scene: Scene, names: Mapping[str, str], verdicts: Verdicts) -> Layout:
    bundle, graph = scene.bundle, scene.bundle.graph
    room, table, robot = names[bundle.background.id], names[bundle.context.id], names[bundle.robot.id]
    tree: dict[str, list[tuple[str, str]]] = {room: [(table, eg.FLOOR), (robot, eg.IN)]}
    for entry in bundle.objects:
        parent, relation = _support(scene, entry.id)
        tree.setdefault(names[parent], []).append((names[entry.id], eg.INSIDE if relation is Relation.IN else eg.ON))
    manipulated = [names[graph.goal.subject], names[graph.goal.object]]
    others = [names[entry.id] for entry in bundle.objects if names[entry.id] not in manipulated]
    to_layout = _world(scene).inverse()
    base = to_layout * _robot_base(scene)
    positions = {names[node_id]: _numbers(to_layout * frame) for node_id, frame in _frames(scene).items()}
    extra = Extra(
        graph=graph,
        names=dict(names),
        base_pose=to_pose(base),
        assets={entry.id: entry.asset for entry in bundle.objects},
        context=bundle.context,
        background=bundle.background,
    )
    return Layout.model_validate(
        {
            "tree": tree,
            "relation": {
                "task_desc": graph.instruction,
                "task": graph.instruction,
                "robot": robot,
                "background": room,
                "context": table,
                "manipulated_objs": manipulated,
                "distractor_objs": others,
            },
            "objs_desc": {names[node.id]: node.description for node in graph.nodes if node.role is not Role.ROBOT},
            "objs_mapping": {room: eg.BACKGROUND, table: eg.CONTEXT}
            | dict.fromkeys(manipulated, eg.MANIPULATED)
            | dict.fromkeys(others, eg.DISTRACTOR),
            "assets": {room: "background"} | {node: f"asset3d/{file_name(node)}/result" for node in positions},
            "quality": {
                names[node_id]: _answer(verdict)
                for node_id in names
                for verdict in verdicts.get(node_id, [])
                if verdict.check is Check.ALIGNMENT
            },
            "position": {room: _numbers(Frame())} | positions | {robot: _numbers(base)},
            eg.EXTRA_KEY: extra.model_dump(mode="json"),
        }
    )


def _support(scene: Scene, node_id: str) -> tuple[str, Relation]:
    """What a node rests on or in: what stands beside another rests where that one does."""
    edge = next(edge for edge in scene.bundle.graph.edges if edge.child == node_id)
    return _support(scene, edge.parent) if edge.relation is Relation.BESIDE else (edge.parent, edge.relation)


def _info(scene: Scene, node_id: str, physics: PhysicsSpec, gs_model: str) -> dict[str, str]:
    node = scene.bundle.graph.node(node_id)
    entry = next((entry for entry in scene.bundle.objects if entry.id == node_id), None)
    height = f"{scene.bundle.context.top_height_m if entry is None else entry.asset.extents_m[2]:.4f}"
    mass = f"{physics.mass_kg:.4f}"
    sizes = {"min_height": height, "max_height": height, "real_height": height, "min_mass": mass, "max_mass": mass}
    texts = {"scale": "1.0", "version": VERSION, "category": node.category, "description": node.description}
    return {**texts, **sizes, "generate_time": GENERATED, "gs_model": gs_model}


# ---- a scene that was imported


def _write_again(scene: Scene, sidecar: Sidecar, folder: Path) -> None:
    layout = _layout_again(scene, sidecar)
    write_layout(folder / LAYOUT_FILE, layout)
    for node_id, (visual, texture, collision, physics) in _bodies(scene, sidecar).items():
        kept = sidecar.assets[node_id]
        place = folder / layout.assets[kept.node]
        write_part(Part(visual, texture, collision, physics, np.array(kept.shift), kept.urdf, {}, {}), kept.node, place)
        for file in kept.files:
            copy_file(scene.folder / KEPT / file_name(kept.node) / file, place / file)
    room = scene.bundle.background
    background = folder / layout.assets.get(layout.of_role(eg.BACKGROUND)[0], "background")
    for file in sidecar.background:
        copy_file(scene.folder / KEPT / eg.BACKGROUND / file, background / file)
    if "gs_model.ply" not in sidecar.background:
        world = of_pose(sidecar.world)
        standing = world.inverse() * of_pose(room.pose)
        write_splat(scene.room_visual, scene.folder / room.texture, background / "gs_model.ply", ROOM_SPLATS, standing)


def _layout_again(scene: Scene, sidecar: Sidecar) -> Layout:
    layout = Layout.model_validate(sidecar.layout)
    to_layout = of_pose(sidecar.world).inverse()
    for node_id, frame in _frames(scene).items():
        kept = sidecar.assets[node_id]
        if kept.node in layout.position and np.allclose(frame.row(), kept.pose, atol=1e-6):
            continue
        link = to_layout * frame * Frame(kept.shift)
        if parse_urdf(kept.urdf, scene.folder / kept.node).legacy:
            link = Frame(link.p, UPRIGHT.inv() * link.turn * UPRIGHT)
        layout.position[kept.node] = _numbers(link)
    if sidecar.arrangement == "anew":
        layout.position.setdefault(layout.of_role(eg.BACKGROUND)[0], _numbers(Frame()))
        layout.position[layout.robot or ROBOT] = _numbers(to_layout * _robot_base(scene))
    return layout


# ---- both


def _world(scene: Scene) -> Frame:
    """The layout's world in ours: its origin lies on the floor below the middle of the table."""
    x, y, _ = scene.bundle.context.pose.p
    return Frame([x, y, 0.0])


def _robot_base(scene: Scene) -> Frame:
    return of_pose(scene.bundle.robot.base_pose)


def _frames(scene: Scene) -> dict[str, Frame]:
    """The poses of the table and of the objects in the first placement, by id."""
    table = scene.bundle.context
    frames = {table.id: of_pose(table.pose)}
    rows = np.asarray(scene.poses[0], float)
    return frames | {entry.id: Frame.of_row(row) for entry, row in zip(scene.bundle.objects, rows, strict=True)}


def _bodies(scene: Scene, sidecar: Sidecar | None = None) -> dict[str, tuple[Path, Path, str, PhysicsSpec]]:
    """Visual, texture, text of the collision OBJ and physics of the table and of the objects, by id."""
    table = scene.bundle.context
    mass = None
    if sidecar is not None:
        mass = parse_urdf(sidecar.assets[table.id].urdf, scene.folder / table.id).mass
    if table.collision is not None:
        text = (scene.folder / table.collision).read_text()
        hulls = read_hulls(text)
    else:
        hulls = [
            convex_hull(box_corners(2 * np.array(box.half_size), np.array(box.center) - [0, 0, box.half_size[2]]))
            for box in table.collision_boxes
        ]
        text = collision_obj(hulls)
    weight = {"density": TABLE_DENSITY} if mass is None else {"mass_kg": mass}
    physics = physics_of(hulls, static_friction=table.static_friction, dynamic_friction=table.dynamic_friction, **weight)
    bodies = {table.id: (scene.table_visual, scene.folder / table.texture, text, physics)}
    for item in scene.objects:
        texture = scene.folder / item.asset.files.texture
        bodies[item.id] = (item.visual, texture, item.collision.read_text(), item.asset.physics)
    return bodies


def read_hulls(text: str) -> list[Hull]:
    """The convex pieces of a collision OBJ: one in each `o` group."""
    groups: list[list[list[float]]] = []
    for line in text.splitlines():
        if line.startswith("o "):
            groups.append([])
        elif line.startswith("v "):
            groups[-1].append([float(part) for part in line.split()[1:4]])
    return [convex_hull(np.array(group)) for group in groups if group]


def _numbers(frame: Frame) -> list[float]:
    return [round(float(value), 4) + 0.0 for value in (*frame.p, *to_xyzw(frame.turn))]


# ---- verdicts


def _verdicts(scene: Scene) -> dict[str, list[Verdict]]:
    """What the checks found, by node; nothing when they were not made."""
    path = scene.folder / QA_FILE
    if not path.is_file():
        return {}
    found: dict[str, list[Verdict]] = {}
    try:
        for item in json.loads(path.read_text(encoding="utf-8")):
            verdict = Verdict.model_validate(item)
            found.setdefault(verdict.subject, []).append(verdict)
    except (ValueError, TypeError, ValidationError) as error:
        raise UserError(f"{path}: not a list of verdicts: {str(error).splitlines()[0]}") from None
    return found


def _quality(verdicts: list[Verdict]) -> dict[str, str]:
    answers = {CHECKERS[v.check]: _answer(v) for v in verdicts if v.check in CHECKERS}
    if answers:
        answers["overall"] = "YES" if set(answers.values()) == {"YES"} else "NO"
    return answers


def _answer(verdict: Verdict) -> str:
    """As EmbodiedGen writes verdicts; a check that was not made is no YES."""
    said = {Status.PASS: "YES", Status.FAIL: "NO: ", Status.ERROR: "ERROR: ", Status.SKIP: "not checked: "}[verdict.status]
    reasons = "; ".join(verdict.reasons).replace("YES", "yes")
    return said if verdict.status is Status.PASS else said + reasons
