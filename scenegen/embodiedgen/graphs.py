"""An EmbodiedGen layout as one of our scene graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scenegen.designer.lexicon import ARTICLES
from scenegen.embodiedgen.assets import ReadAsset, named_color, named_material
from scenegen.embodiedgen.layout_file import BACKGROUND, CONTEXT, FLOOR, INSIDE, Layout
from scenegen.embodiedgen.roles import Casting
from scenegen.engines.procedural.catalog import FULL
from scenegen.errors import UserError
from scenegen.schema import AssetRecord, EdgeSpec, GoalSpec, NodeSpec, Relation, Role, SceneGraph

ROOM, TABLE, ROBOT = "room", "table", "robot"


def ids_of(layout: Layout, casting: Casting) -> dict[str, str]:
    """Node -> our id, of the table and the objects: target and destination first."""
    table = layout.of_role(CONTEXT)[0]
    others = [node for node in layout.objects if node not in (casting.target, casting.destination)]
    named = {table: TABLE, casting.target: "target", casting.destination: "destination"}
    return named | {node: f"distractor_{i}" for i, node in enumerate(others)}


def spec_of(layout: Layout, node: str, node_id: str, asset: ReadAsset) -> NodeSpec:
    """What the layout and the asset say of an object; what it is good for shows once it is made."""
    roles = {"target": Role.TARGET, "destination": Role.DESTINATION}
    description = layout.objs_desc.get(node) or asset.description
    return NodeSpec(
        id=node_id,
        name=node,
        role=roles.get(node_id, Role.DISTRACTOR),
        category=_category(node, asset),
        description=description[:200],
        color=named_color(node) or named_color(description),
        material=named_material(f"{node} {description}"),
    )


def graph_of(
    layout: Layout,
    path: Path,
    casting: Casting,
    ids: Mapping[str, str],
    specs: Mapping[str, NodeSpec],
    records: Mapping[str, AssetRecord],
) -> SceneGraph:
    """The graph, once records (by id, as specs) tell what can be grasped and what is hollow. Adds to the casting's notes.
    Raises UserError for a target that cannot be grasped, a destination that carries nothing and things on the floor."""
    target, place = records["target"], records["destination"]
    if not target.graspable:
        raise UserError(f"{path}: target: the gripper cannot hold {casting.target!r}; name another target")
    if place.goal_point is None:
        raise UserError(f"{path}: destination: {casting.destination!r} has no flat part or hollow that carries anything")
    predicate = casting.predicate or (Relation.IN if place.cavity else Relation.ON)
    if predicate is Relation.IN and place.cavity is None:
        casting.notes.append(f"destination: {casting.destination!r} has no hollow, so the goal is on, not in")
        predicate = Relation.ON
    instruction = casting.sentence
    if instruction is None:
        instruction = f"put {_the(casting.target)} {predicate} {_the(casting.destination)}"
        casting.notes.append(f"instruction: wrote {instruction!r}")
    background = layout.of_role(BACKGROUND)[0]
    fixed = [
        _fixed(ROOM, Role.BACKGROUND, background, layout),
        _fixed(TABLE, Role.CONTEXT, layout.of_role(CONTEXT)[0], layout),
        NodeSpec(id=ROBOT, name="WidowX 250S", role=Role.ROBOT, category="robot", description="a WidowX 250S arm"),
    ]
    edges = [EdgeSpec(child=TABLE, parent=ROOM, relation=Relation.ON), EdgeSpec(child=ROBOT, parent=TABLE, relation=Relation.ON)]
    nodes = []
    for node, node_id in ids.items():
        if node_id == TABLE:
            continue
        record, spec = records[node_id], specs[node_id]
        made = {"color": spec.color or record.color, "graspable": record.graspable, "container": record.cavity is not None}
        nodes.append(spec.model_copy(update=made))
        edges.append(_edge(layout, path, node, ids))
    goal = GoalSpec(predicate=predicate, subject="target", object="destination")  # type: ignore[arg-type]
    sentence = instruction[0].lower() + instruction[1:]
    return SceneGraph(instruction=sentence, nodes=[*fixed, *nodes], edges=edges, goal=goal)


def _fixed(node_id: str, role: Role, node: str, layout: Layout) -> NodeSpec:
    return NodeSpec(id=node_id, name=node, role=role, category=node_id, description=layout.objs_desc.get(node, node)[:200])


def _edge(layout: Layout, path: Path, node: str, ids: Mapping[str, str]) -> EdgeSpec:
    parent, relation = layout.parents[node]
    if relation == FLOOR or parent not in ids:
        raise UserError(f"{path}: tree: {node!r} stands on the floor of {parent!r}; wanted it on the table or on another object")
    inside = relation == INSIDE and ids[parent] != TABLE
    return EdgeSpec(child=ids[node], parent=ids[parent], relation=Relation.IN if inside else Relation.ON)


def _category(node: str, asset: ReadAsset) -> str:
    """The family whose noun the name ends with, else what the asset calls itself."""
    words = node.lower().split()
    for start in range(len(words)):
        noun = " ".join(words[start:])
        if noun in FULL.nouns:
            return FULL.nouns[noun].category
    return asset.category[:200]


def _the(node: str) -> str:
    return node if node.split()[0].lower() in ARTICLES else f"the {node}"
