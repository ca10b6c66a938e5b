"""The file formats: what a task means (SceneGraph), what was made for it (AssetRecord) and the scene a simulator
loads (SceneBundle).

Units are metres, kilograms, radians. Frames:

* World: z up, the floor at z = 0. The robot's base stands on the table top at (0, 0, h), facing +x, so that a point
  of the world and the same point in the robot's base frame differ only by h in z.
* Object: z up, z = 0 is the plane it rests on, the origin lies below the middle of the object: below where to grasp a
  target and below what carries in a destination. Meshes (OBJ) are written in this frame, in metres, without scale or
  rotation.
* Quaternions are w, x, y, z.

Beside `scene.json` lie `qa.json`, a list of the verdicts of all checks, and `provenance.json`.

All file names are relative to the folder of the scene (`scene.json`) or of the set (`scene_set.jsonl`), with forward slashes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

SCHEMA_VERSION = 1
SCENE_FILE = "scene.json"
MANIFEST_FILE = "scene_set.jsonl"
MAX_OBJECTS = 8

Slug = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Pair = tuple[Finite, Finite]
Vector = tuple[Finite, Finite, Finite]


def _inside(path: str) -> str:
    if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ValueError(f"wanted a relative path with forward slashes that stays inside its folder; found {path!r}")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Role(StrEnum):
    BACKGROUND = "background"
    CONTEXT = "context"
    TARGET = "target"
    DESTINATION = "destination"
    DISTRACTOR = "distractor"
    ROBOT = "robot"


OBJECT_ROLES = (Role.TARGET, Role.DESTINATION, Role.DISTRACTOR)


class Relation(StrEnum):
    ON = "on"
    IN = "in"
    BESIDE = "beside"


class Pose(Model):
    """A rigid pose; `q_wxyz` is a unit quaternion."""

    p: Vector
    q_wxyz: tuple[Finite, Finite, Finite, Finite] = (1.0, 0.0, 0.0, 0.0)

    @model_validator(mode="after")
    def _unit(self) -> Self:
        norm = sum(c * c for c in self.q_wxyz)
        if abs(norm - 1) > 1e-3:
            raise ValueError(f"q_wxyz is not a unit quaternion: its squared norm is {norm:.4f}")
        return self


class NodeSpec(Model):
    """One thing of a scene before it exists. `category` is a family's name; `size` picks the small or the large end of
    its range."""

    id: Slug
    name: Name
    role: Role
    category: Name
    description: Name
    color: str | None = None
    material: str | None = None
    size: Literal["small", "large"] | None = None
    graspable: bool = False
    container: bool = False


class EdgeSpec(Model):
    """Where a node starts: `child` is `relation` its `parent`."""

    child: Slug
    parent: Slug
    relation: Relation


class GoalSpec(Model):
    """What must become true: `subject` is `predicate` `object`."""

    predicate: Literal[Relation.ON, Relation.IN]
    subject: Slug
    object: Slug


class SceneGraph(Model):
    """A task in parts: a tree rooted at the background, and the goal."""

    instruction: Name
    nodes: list[NodeSpec]
    edges: list[EdgeSpec]
    goal: GoalSpec
    robot_uid: Literal["wx250s"] = "wx250s"

    def node(self, node_id: str) -> NodeSpec:
        return next(node for node in self.nodes if node.id == node_id)

    @property
    def objects(self) -> list[NodeSpec]:
        """The things that can move, in the order of the nodes: target, destination, distractors."""
        return [node for node in self.nodes if node.role in OBJECT_ROLES]

    @model_validator(mode="after")
    def _roles(self) -> Self:
        ids = [node.id for node in self.nodes]
        if len(set(ids)) != len(ids):
            raise ValueError(f"node ids are not unique: {sorted(i for i in set(ids) if ids.count(i) > 1)}")
        for role in (Role.BACKGROUND, Role.CONTEXT, Role.ROBOT, Role.TARGET, Role.DESTINATION):
            found = sum(node.role is role for node in self.nodes)
            if found != 1:
                raise ValueError(f"a scene has exactly one {role}; found {found}")
        if len(self.objects) > MAX_OBJECTS:
            raise ValueError(f"a scene has at most {MAX_OBJECTS} objects; found {len(self.objects)}")
        return self

    @model_validator(mode="after")
    def _tree(self) -> Self:
        ids = {node.id for node in self.nodes}
        root = next(node.id for node in self.nodes if node.role is Role.BACKGROUND)
        parents: dict[str, str] = {}
        for edge in self.edges:
            if {edge.child, edge.parent} - ids:
                raise ValueError(f"an edge names an unknown node: {edge.child} {edge.relation} {edge.parent}")
            if edge.child in parents:
                raise ValueError(f"{edge.child} has two parents")
            parents[edge.child] = edge.parent
        if set(parents) != ids - {root}:
            raise ValueError(f"every node but the background has one parent; wrong for {sorted(set(parents) ^ (ids - {root}))}")
        for node in ids - {root}:
            seen = {node}
            while (node := parents.get(node, root)) != root:
                if node in seen:
                    raise ValueError(f"the tree has a cycle through {node}")
                seen.add(node)
        return self

    @model_validator(mode="after")
    def _goal(self) -> Self:
        nodes = {node.id: node for node in self.nodes}
        for name in (self.goal.subject, self.goal.object):
            if name not in nodes:
                raise ValueError(f"the goal names an unknown node: {name}")
        subject, object_ = nodes[self.goal.subject], nodes[self.goal.object]
        if subject.role is not Role.TARGET or not subject.graspable:
            raise ValueError(f"the goal's subject {subject.id} is not a graspable target")
        if object_.role is not Role.DESTINATION:
            raise ValueError(f"the goal's object {object_.id} is not the destination")
        if self.goal.predicate is Relation.IN and not object_.container:
            raise ValueError(f"nothing can be put in {object_.id}: it is no container")
        pairs = [(node.category, node.color) for node in self.objects]
        if pairs.count((subject.category, subject.color)) > 1 or pairs.count((object_.category, object_.color)) > 1:
            raise ValueError("another object has the category and colour of the target or of the destination")
        return self


class PhysicsSpec(Model):
    """Of a solid of uniform `density` (the mass over the volume of the collision hulls, so that a simulator that is given
    the hulls with this density arrives at `mass_kg`, `com_m` and `inertia` by itself). `inertia` is about the centre of
    mass in the axes of the object: xx, yy, zz, xy, xz, yz [kg m2]."""

    mass_kg: Positive
    density: Positive
    static_friction: NonNegative
    dynamic_friction: NonNegative
    restitution: NonNegative
    com_m: Vector
    inertia: tuple[Positive, Positive, Positive, Finite, Finite, Finite]


class AssetFiles(Model):
    """`collision` holds one convex piece in each `o` group."""

    urdf: RelativePath
    visual: RelativePath
    collision: RelativePath
    material: RelativePath
    texture: RelativePath


class Cavity(Model):
    """The hollow of a container: `radius_m` of the largest upright cylinder that fits, `depth_m` from rim to floor."""

    radius_m: Positive
    depth_m: Positive


class AssetRecord(Model):
    """A made object. `asset_id` is the SHA-256 of its files.

    grasp_yaw_rad is the direction, in the object frame about z, along which the fingers close (the narrow axis); any
    direction does when grasp_symmetric. grasp_height_m is the height above the base at which to hold it, grasp_width_m
    what the fingers then span. goal_point is the middle of the surface that carries what is put on or in this object.
    """

    asset_id: str = Field(pattern=r"^[0-9a-f]{64}$")
    category: Name
    color: str
    color_rgb: tuple[int, int, int]
    material: str
    engine: str
    engine_version: str
    seed: int
    attempt: int
    files: AssetFiles
    extents_m: tuple[Positive, Positive, Positive]
    footprint_radius_m: Positive
    n_vertices: int
    n_faces: int
    n_hulls: int
    volume_m3: Positive
    physics: PhysicsSpec
    graspable: bool
    grasp_width_m: Positive | None = None
    grasp_yaw_rad: Finite | None = None
    grasp_height_m: Positive | None = None
    grasp_symmetric: bool = False
    cavity: Cavity | None = None
    goal_point: Vector | None = None

    @model_validator(mode="after")
    def _grasp(self) -> Self:
        if self.graspable and None in (self.grasp_width_m, self.grasp_yaw_rad, self.grasp_height_m):
            raise ValueError("a graspable asset needs grasp_width_m, grasp_yaw_rad and grasp_height_m")
        return self


class Status(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"


class Check(StrEnum):
    """The checks, in the order in which they are made; the first three are the paper's."""

    APPEARANCE = "semantic_appearance"
    GEOMETRY = "mesh_geometry"
    ALIGNMENT = "text_to_3d_alignment"
    SETTLE = "settle"
    TASK = "task"


class Verdict(Model):
    """What one check found of one object (`subject`: its node) or of the scene (`subject`: "scene").

    `fail` says that the thing is wrong, `error` that the check could not be made: neither is ever a pass. `skip` says that the
    check does not apply. `reasons` are short lines for people and designers, none when it passed; `measurements` are in SI units
    or degrees unless the name says otherwise. `prompt_sha` is the SHA-256 of all that a language model was shown.
    """

    check: Check
    subject: Slug
    status: Status
    mode: Literal["offline", "llm"] = "offline"
    reasons: list[str] = []
    measurements: dict[str, Finite] = {}
    model: str | None = None
    prompt_sha: str | None = None

    @model_validator(mode="after")
    def _explained(self) -> Self:
        if self.status in (Status.FAIL, Status.ERROR) and not self.reasons:
            raise ValueError(f"a {self.check} verdict of {self.status} needs a reason")
        return self


class ObjectEntry(Model):
    """A movable object of a scene. `nominal_xy` is the middle of its range, in the robot's base frame."""

    id: Slug
    role: Literal[Role.TARGET, Role.DESTINATION, Role.DISTRACTOR]
    name: Name
    nominal_xy: Pair
    asset: AssetRecord


class Box(Model):
    """An axis-aligned box in the frame of its owner."""

    center: Vector
    half_size: tuple[Positive, Positive, Positive]


class ContextEntry(Model):
    """The table: static. Its frame stands on the floor below the middle of the top. In that frame are `collision_boxes`, or, for
    a table that is not made of boxes, the OBJ `collision` with one convex piece in each `o` group."""

    id: Slug
    name: Name
    style: str
    visual: RelativePath
    texture: RelativePath
    collision_boxes: list[Box]
    collision: RelativePath | None = None
    top_height_m: Positive
    top_size_m: tuple[Positive, Positive]
    static_friction: NonNegative
    dynamic_friction: NonNegative
    pose: Pose

    @model_validator(mode="after")
    def _solid(self) -> Self:
        if bool(self.collision_boxes) == (self.collision is not None):
            raise ValueError("a table is either of collision_boxes or of the pieces in collision")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A table of boxes is written as before there were others."""
        return {key: value for key, value in handler(self).items() if (key, value) != ("collision", None)}


class BackgroundEntry(Model):
    """The room: seen, never touched."""

    id: Slug
    name: Name
    style: str
    visual: RelativePath
    texture: RelativePath
    pose: Pose


class RobotEntry(Model):
    """Where the robot stands: the pose of its base link in the world."""

    id: Slug
    uid: Literal["wx250s"]
    base_pose: Pose


class Workspace(Model):
    """Where objects may stand, in the robot's base frame: their centres within x and y, nothing of them nearer than `min_x_m`."""

    x: Pair
    y: Pair
    min_x_m: Finite


class LayoutEntry(Model):
    """The bank of start placements, and what the physics check of a sample of them measured. The first placement is the
    nominal one.

    `poses_file` is an npz with `poses` float32 [count, n_objects, 7] (world x, y, z, qw, qx, qy, qz; objects in the order of the
    scene) and `offsets` float32 [count, n_objects, 2] (planar distance from nominal_xy).
    """

    poses_file: RelativePath
    count: int = Field(ge=1)
    xy_range_m: NonNegative
    clearance_m: NonNegative
    workspace: Workspace
    checked_placements: int
    max_drift_m: NonNegative
    max_tilt_deg: NonNegative
    max_penetration_m: NonNegative


class SceneBundle(Model):
    """The content of `scene.json`. `build_key` is a digest of all that decided the scene: same key, same files."""

    schema_version: Literal[1] = 1
    scene_id: Slug
    build_key: str
    seed: int
    instruction: Name
    graph: SceneGraph
    objects: list[ObjectEntry] = Field(min_length=2)
    context: ContextEntry
    background: BackgroundEntry
    robot: RobotEntry
    layout: LayoutEntry

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if [entry.id for entry in self.objects] != [node.id for node in self.graph.objects]:
            raise ValueError("objects are not those of the graph, in its order")
        goal = next(entry for entry in self.objects if entry.id == self.graph.goal.object)
        target = next(entry for entry in self.objects if entry.id == self.graph.goal.subject)
        if goal.asset.goal_point is None:
            raise ValueError(f"the destination {goal.id} has no goal_point")
        if not target.asset.graspable:
            raise ValueError(f"the target {target.id} is not graspable")
        return self


QA_FILE = "qa.json"
PROVENANCE_FILE = "provenance.json"
PREVIEW_FILE = "preview.png"
BUILD_LOG = "build.jsonl"

Stage = Literal["design", "assets", "layout", "checks", "worker"]
"""Of an attempt at a scene; "worker" when the process died or took too long."""


class FailedAttempt(Model):
    """An attempt at a scene that was turned down, where and why."""

    attempt: int
    stage: Stage
    reasons: list[str] = Field(min_length=1)


class Provenance(Model):
    """The content of `provenance.json`: what made a scene. `options` are those that decide it, as given to the build;
    `prompts` the SHA-256 of what language models were shown; `failed` the attempts before this one."""

    task: Name
    seed: int
    attempt: int
    options: dict[str, str]
    designer: str
    model: str | None = None
    prompts: list[str] = []
    engines: dict[Slug, str]
    versions: dict[str, str]
    failed: list[FailedAttempt] = []


class BuildEvent(Model):
    """One line of `build.jsonl`, the log of a set: one attempt at one scene, how it ended, and what it took."""

    scene_id: Slug
    task: Name
    attempt: int
    outcome: Literal["accepted", "retry", "rejected"]
    stage: Stage | None = None
    reasons: list[str] = []
    verdicts: list[Verdict] = []
    seconds: dict[str, NonNegative] = {}
    usd: NonNegative = 0.0


class ManifestLine(Model):
    """One scene of a set: a line of `scene_set.jsonl`. `digest` is the SHA-256 over the scene's files."""

    id: Slug
    path: RelativePath
    split: Literal["train", "heldout"]
    task: Name
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
