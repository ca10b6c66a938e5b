"""One attempt at a scene, from graph to files: assets, layout, checks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from scenegen.checks.run import accepted, check_asset, check_scene, complaints, write_verdicts
from scenegen.designer.base import Design
from scenegen.engines.base import AssetEngine, EngineError
from scenegen.engines.chain import ChainEngine
from scenegen.engines.procedural import contexts, rooms, textures
from scenegen.engines.procedural.catalog import find_catalog
from scenegen.files import write_atomic
from scenegen.layout.bank import Bank, LayoutError, build_bank
from scenegen.loader import load_scene
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, material_mtl, read_points, visual_obj
from scenegen.palette import difference, rgb
from scenegen.schema import (
    PROVENANCE_FILE,
    SCENE_FILE,
    SCHEMA_VERSION,
    AssetRecord,
    BackgroundEntry,
    ContextEntry,
    FailedAttempt,
    NodeSpec,
    ObjectEntry,
    Pose,
    Provenance,
    RobotEntry,
    SceneBundle,
    SceneGraph,
    Stage,
    Verdict,
)
from scenegen.seeds import derive_seed, generator

TABLE_CENTER_X = 0.25
"""The table reaches from -0.2 to 0.7 m in front of the robot's base."""

MIN_CONTRAST = 25.0
"""CIE76 distance that target and destination keep from the table top."""

ASSET_TRIES = 3
"""How often an object is made anew when a check turns it down, before the whole scene is."""

_VERSIONS = ("genvla", "numpy", "scipy", "sapien", "pillow")


@dataclass(frozen=True)
class SceneSpec:
    """All that decides a scene. `seed` is the scene's own; `distractors` at least and at most; `designer`, `engines` and
    `judge` are their names, with model or version."""

    scene_id: str
    task: str
    seed: int
    catalog: str
    distractors: tuple[int, int]
    xy_range: float
    poses: int
    designer: str
    engines: str
    judge: str = ""

    @property
    def options(self) -> dict[str, str]:
        return {
            "catalog": self.catalog,
            "distractors": "{}..{}".format(*self.distractors),
            "xy_range": f"{self.xy_range:g}",
            "poses": str(self.poses),
            "designer": self.designer,
            "engines": self.engines,
            "judge": self.judge,
        }

    @property
    def key(self) -> str:
        """A digest of this."""
        parts = [SCHEMA_VERSION, self.scene_id, self.task, self.seed, *self.options.values()]
        return sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()

    def attempt_seed(self, attempt: int) -> int:
        return derive_seed(self.seed, self.task, attempt)


@dataclass
class Outcome:
    """How an attempt ended: `stage` and `reasons` say where and why it failed. `verdicts` are of what the scene consists of,
    `discarded` of objects that were made anew; `engines` says who made which node; `seconds` are by stage."""

    stage: Stage | None = None
    reasons: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    discarded: list[Verdict] = field(default_factory=list)
    engines: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.stage is None

    def failed(self, stage: Stage, *reasons: str) -> Outcome:
        self.stage, self.reasons = stage, list(reasons)
        return self

    def judged(self, verdicts: Sequence[Verdict]) -> bool:
        """Takes verdicts in; False when they turn the scene down."""
        self.verdicts.extend(verdicts)
        if accepted(verdicts):
            return True
        self.failed("checks", *(reason for verdict in verdicts for reason in complaints(verdict)))
        return False


def build_scene(spec: SceneSpec, graph: SceneGraph, attempt: int, engine: ChainEngine, folder: Path) -> Outcome:
    """Write the scene into the empty `folder`, all but the provenance. When the outcome is not ok the folder's content is of no
    use."""
    outcome, seed = Outcome(), spec.attempt_seed(attempt)
    clock = _Clock(outcome.seconds)
    with clock.of("assets"), suppress(EngineError):  # what could not be made in a batch is told of when it is asked for
        engine.prepare(graph.objects, seed, attempt)
    assets = []
    for node in graph.objects:
        made = _asset(node, engine, seed, attempt, folder, outcome, clock)
        if made is None:
            return outcome
        assets.append(made)
    try:
        with clock.of("layout"):
            context = _context(graph, folder, seed, spec.catalog)
            bank = _bank(spec, graph, assets, context, folder, seed)
            _write(spec, graph, assets, context, bank, folder, seed)
    except LayoutError as error:
        return outcome.failed("layout", str(error))
    with clock.of("checks"):
        if outcome.judged(check_scene(load_scene(folder))):
            write_verdicts(folder, outcome.verdicts)
    return outcome


def _asset(
    node: NodeSpec, engine: AssetEngine, seed: int, attempt: int, folder: Path, outcome: Outcome, clock: _Clock
) -> AssetRecord | None:
    """An object that passes its checks, or None with the outcome failed."""
    feedback: list[str] = []
    for again in range(ASSET_TRIES):
        try:
            with clock.of("assets"):
                asset = engine.generate(node, seed, attempt + 1000 * again, folder, feedback)
        except EngineError as error:
            feedback.append(str(error))
            continue
        with clock.of("checks"):
            verdicts = check_asset(node, asset, folder)
        if accepted(verdicts):
            outcome.verdicts.extend(verdicts)
            outcome.engines[node.id] = f"{asset.engine} {asset.engine_version}"
            return asset
        outcome.discarded.extend(verdicts)
        feedback += [reason for verdict in verdicts for reason in complaints(verdict)]
    outcome.failed("checks" if outcome.discarded else "assets", *feedback)
    return None


def write_provenance(
    folder: Path,
    spec: SceneSpec,
    attempt: int,
    outcome: Outcome,
    failed: Sequence[FailedAttempt],
    design: Design,
) -> None:
    provenance = Provenance(
        task=spec.task,
        seed=spec.seed,
        attempt=attempt,
        options=spec.options,
        designer=spec.designer,
        model=design.model,
        prompts=list(design.prompts),
        engines=outcome.engines,
        versions=_versions(),
        failed=list(failed),
    )
    write_atomic(folder / PROVENANCE_FILE, (provenance.model_dump_json(indent=1) + "\n").encode())


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class _Clock:
    """Adds up seconds by stage."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = self._seconds.get(stage, 0.0) + time.perf_counter() - started


def _bank(spec: SceneSpec, graph: SceneGraph, assets: list[AssetRecord], context: ContextEntry, folder: Path, seed: int) -> Bank:
    ids = [node.id for node in graph.objects]
    hulls = [read_points(folder / asset.files.collision) for asset in assets]
    friction = (context.static_friction, context.dynamic_friction)
    goal = (ids.index(graph.goal.subject), ids.index(graph.goal.object))
    relations = [(ids.index(e.child), ids.index(e.parent), e.relation) for e in graph.edges if {e.child, e.parent} <= set(ids)]
    rng = generator(seed, "layout")
    return build_bank(folder, assets, hulls, context.top_height_m, friction, spec.xy_range, spec.poses, goal, rng, relations)


def _context(graph: SceneGraph, folder: Path, seed: int, catalog: str) -> ContextEntry:
    """A table of a style on which target and destination are easily seen."""
    rng, tables = generator(seed, "table"), find_catalog(catalog).tables
    colors = [rgb(graph.node(name).color or "gray") for name in (graph.goal.subject, graph.goal.object)]
    contrasts = {name: min(difference(style.color, color) for color in colors) for name, style in tables.items()}
    clear = [name for name, value in contrasts.items() if value >= MIN_CONTRAST] or [max(contrasts, key=contrasts.__getitem__)]
    key = str(rng.choice(clear))
    style = tables[key]
    height = round(float(rng.uniform(*style.heights)), 3)
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


def _background(folder: Path, seed: int, catalog: str) -> BackgroundEntry:
    rng, styles = generator(seed, "room"), find_catalog(catalog).rooms
    key = str(rng.choice(list(styles)))
    surface, image = rooms.room(styles[key], rng)
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
    objects = [
        ObjectEntry(id=node.id, role=node.role, name=node.name, nominal_xy=tuple(np.round(xy, 4).tolist()), asset=asset)  # type: ignore[arg-type]
        for node, asset, xy in zip(graph.objects, assets, bank.nominal, strict=True)
    ]
    robot = RobotEntry(id="robot", uid=graph.robot_uid, base_pose=Pose(p=(0, 0, context.top_height_m)))
    bundle = SceneBundle(
        scene_id=spec.scene_id,
        build_key=spec.key,
        seed=seed,
        instruction=graph.instruction,
        graph=graph,
        objects=objects,
        context=context,
        background=_background(folder, seed, spec.catalog),
        robot=robot,
        layout=bank.write(folder, spec.xy_range),
    )
    write_atomic(folder / SCENE_FILE, (bundle.model_dump_json(indent=1) + "\n").encode())
    return bundle
