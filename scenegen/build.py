"""One scene, from sentence to files."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from scenegen.designer.rules import design_scene
from scenegen.engines.procedural import contexts, rooms, textures
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.files import npz, write_atomic
from scenegen.layout.bank import CLEARANCE, WORKSPACE, Bank, LayoutError, build_bank
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, material_mtl, read_points, visual_obj
from scenegen.palette import difference, rgb
from scenegen.schema import (
    SCENE_FILE,
    SCHEMA_VERSION,
    AssetRecord,
    BackgroundEntry,
    ContextEntry,
    LayoutEntry,
    ObjectEntry,
    Pose,
    RobotEntry,
    SceneBundle,
    SceneGraph,
)
from scenegen.seeds import derive_seed, generator

TABLE_CENTER_X = 0.25
"""The table reaches from -0.2 to 0.7 m in front of the robot's base."""

MIN_CONTRAST = 25.0
"""CIE76 distance that target and destination keep from the table top."""

ATTEMPTS = 4
POSES_FILE = "poses.npz"


@dataclass(frozen=True)
class SceneSpec:
    """All that decides a scene."""

    scene_id: str
    task: str
    seed: int
    xy_range: float
    poses: int
    distractors: int

    @property
    def key(self) -> str:
        """A digest of this and of the versions of what builds it."""
        parts = [SCHEMA_VERSION, ProceduralEngine.name, ProceduralEngine.version, *asdict(self).values()]
        return sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()


def build_scene(spec: SceneSpec, folder: Path) -> SceneBundle:
    """Write the scene into the empty `folder`. Raises LayoutError when no attempt stands, UserError for an impossible task."""
    engine = ProceduralEngine()
    reasons: list[str] = []
    for attempt in range(ATTEMPTS):
        seed = derive_seed(spec.seed, spec.task, attempt)
        graph = design_scene(spec.task, seed, spec.distractors)
        try:
            assets = [engine.generate(node, seed, attempt, folder) for node in graph.objects]
            context = _context(graph, folder, seed)
            bank = _bank(spec, graph, assets, context, folder, seed)
        except LayoutError as error:
            reasons.append(str(error))
            for entry in list(folder.iterdir()):
                shutil.rmtree(entry)
            continue
        return _write(spec, graph, assets, context, bank, folder, seed)
    raise LayoutError(reasons[-1])


def _bank(spec: SceneSpec, graph: SceneGraph, assets: list[AssetRecord], context: ContextEntry, folder: Path, seed: int) -> Bank:
    ids = [node.id for node in graph.objects]
    hulls = [read_points(folder / asset.files.collision) for asset in assets]
    friction = (context.static_friction, context.dynamic_friction)
    goal = (ids.index(graph.goal.subject), ids.index(graph.goal.object))
    rng = generator(seed, "layout")
    return build_bank(folder, assets, hulls, context.top_height_m, friction, spec.xy_range, spec.poses, goal, rng)


def _context(graph: SceneGraph, folder: Path, seed: int) -> ContextEntry:
    """A table of a style on which target and destination are easily seen."""
    rng = generator(seed, "table")
    colors = [rgb(graph.node(name).color or "gray") for name in (graph.goal.subject, graph.goal.object)]
    contrasts = {name: min(difference(style.color, color) for color in colors) for name, style in contexts.TABLES.items()}
    clear = [name for name, value in contrasts.items() if value >= MIN_CONTRAST] or [max(contrasts, key=contrasts.__getitem__)]
    key = str(rng.choice(clear))
    style = contexts.TABLES[key]
    height = round(float(rng.uniform(0.70, 0.90)), 3)
    surface, image, boxes = contexts.table(style, height, rng)
    visual, texture = _write_visual(folder, "context", "table", surface, image, style.shininess)
    return ContextEntry(
        id="table",
        name=style.name,
        style=key,
        visual=visual,
        texture=texture,
        collision_boxes=boxes,
        top_height_m=height,
        top_size_m=contexts.TOP_SIZE,
        static_friction=style.friction[0],
        dynamic_friction=style.friction[1],
        pose=Pose(p=(TABLE_CENTER_X, 0, 0)),
    )


def _background(folder: Path, seed: int) -> BackgroundEntry:
    rng = generator(seed, "room")
    key = str(rng.choice(list(rooms.ROOMS)))
    surface, image = rooms.room(rooms.ROOMS[key], rng)
    visual, texture = _write_visual(folder, "background", "room", surface, image, 2.0)
    pose = Pose(p=(round(float(rng.uniform(-0.6, 0.6)), 3), round(float(rng.uniform(-0.6, 0.6)), 3), 0))
    return BackgroundEntry(id="room", name=key.replace("_", " "), style=key, visual=visual, texture=texture, pose=pose)


def _write_visual(
    folder: Path, where: str, name: str, surface: Surface, image: textures.Image, shininess: float
) -> tuple[str, str]:
    (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / where / f"{name}.obj").write_text(visual_obj(surface, name))
    (folder / where / MATERIAL_FILE).write_text(material_mtl(shininess))
    (folder / where / TEXTURE_FILE).write_bytes(textures.png(image))
    return f"{where}/{name}.obj", f"{where}/{TEXTURE_FILE}"


def _write(
    spec: SceneSpec, graph: SceneGraph, assets: list[AssetRecord], context: ContextEntry, bank: Bank, folder: Path, seed: int
) -> SceneBundle:
    (folder / POSES_FILE).write_bytes(npz({"poses": bank.poses, "offsets": bank.offsets}))
    objects = [
        ObjectEntry(id=node.id, role=node.role, name=node.name, nominal_xy=tuple(np.round(xy, 4).tolist()), asset=asset)  # type: ignore[arg-type]
        for node, asset, xy in zip(graph.objects, assets, bank.nominal, strict=True)
    ]
    layout = LayoutEntry(
        poses_file=POSES_FILE,
        count=len(bank.poses),
        xy_range_m=spec.xy_range,
        clearance_m=CLEARANCE,
        workspace=WORKSPACE,
        checked_placements=bank.checked,
        max_drift_m=bank.max_drift_m,
        max_tilt_deg=bank.max_tilt_deg,
        max_penetration_m=bank.max_penetration_m,
    )
    robot = RobotEntry(id="robot", uid=graph.robot_uid, base_pose=Pose(p=(0, 0, context.top_height_m)))
    bundle = SceneBundle(
        scene_id=spec.scene_id,
        build_key=spec.key,
        seed=seed,
        instruction=graph.instruction,
        graph=graph,
        objects=objects,
        context=context,
        background=_background(folder, seed),
        robot=robot,
        layout=layout,
    )
    write_atomic(folder / SCENE_FILE, (bundle.model_dump_json(indent=1) + "\n").encode())
    return bundle
