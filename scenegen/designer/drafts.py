"""What a language model answers when it is asked for a scene (Draft), and the SceneGraph that code makes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from scenegen.designer.lexicon import COLOR_WORDS, Phrase
from scenegen.designer.rules import confusable, describe, parse_task
from scenegen.engines.procedural.catalog import Catalog
from scenegen.errors import UserError
from scenegen.palette import PALETTE, plainly_different
from scenegen.schema import EdgeSpec, GoalSpec, NodeSpec, Relation, Role, SceneGraph

GRASP_MM = (15, 48)
TARGET_MM, LONGEST_MM = 200, 260
"""Longest extents of a target and of anything."""

MAX_STEPS = 2
"""How many things may stand on one another above the table."""


class Thing(BaseModel):
    """One thing on the table."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="noun phrase without article")
    category: str
    color: str
    material: str
    size: Literal["small", "medium", "large"]
    start: Literal["on", "in", "beside"]
    start_at: str = Field(description="table, or the name of another thing")


class FreeThing(Thing):
    """One thing on the table, to be modelled to order."""

    description: str = Field(description="at most 15 words on its looks")
    narrowest_mm: int
    longest_mm: int
    holds: Literal["nothing", "on", "in", "both"]


class Draft(BaseModel):
    """A scene, or the reason why there is none."""

    model_config = ConfigDict(extra="forbid")

    impossible: str = Field(description="empty, or why the task cannot be done")
    relation: Literal["on", "in"]
    target: Thing | None
    destination: Thing | None
    distractors: list[Thing]


class DraftError(Exception):
    """A draft that makes no scene; `problems` are short lines for the model that drew it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def draft_schema(catalog: Catalog | None) -> type[Draft]:
    """The Draft of a catalogue, its categories, colours and materials enumerated; any category when there is no catalogue."""
    choices: dict[str, Any] = {"color": (Literal[tuple(PALETTE)], ...)}
    if catalog is not None:
        materials = sorted({material for family in catalog.families.values() for material in family.materials})
        choices |= {"category": (Literal[tuple(catalog.families)], ...), "material": (Literal[tuple(materials)], ...)}
    thing: Any = create_model("Thing", __base__=FreeThing if catalog is None else Thing, **choices)
    fields: dict[str, Any] = {
        "target": (thing | None, ...),
        "destination": (thing | None, ...),
        "distractors": (list[thing], ...),
    }
    return create_model("Draft", __base__=Draft, **fields)


@dataclass(frozen=True)
class _Item:
    """A thing of a draft and what is known of its kind; lengths in metres. `words` is its name made plain."""

    id: str
    role: Role
    thing: Thing
    words: str
    graspable: bool
    relations: tuple[Relation, ...]
    span: float
    room: float
    description: str


def to_graph(draft: Draft, task: str, catalog: Catalog | None, distractors: tuple[int, int]) -> SceneGraph:
    """The scene of a draft for `task`. Raises DraftError with all that is wrong with it."""
    if draft.target is None or draft.destination is None:
        raise DraftError(["target and destination must be given when the task is possible"])
    roles = [("target", Role.TARGET, draft.target), ("destination", Role.DESTINATION, draft.destination)]
    roles += [(f"distractor_{i}", Role.DISTRACTOR, thing) for i, thing in enumerate(draft.distractors)]
    problems = [problem for _, _, thing in roles for problem in _malformed(thing, catalog)]
    low, high = distractors
    if not low <= len(draft.distractors) <= high:
        problems.append(f"found {len(draft.distractors)} distractors; wanted {low} to {high}")
    if problems:
        raise DraftError(problems)
    items = [_item(name, role, thing, catalog) for name, role, thing in roles]
    relation = Relation(draft.relation)
    problems = [*_goal_problems(items[0], items[1], relation), *_ambiguities(items, task, catalog)]
    problems += _disagreements(items[0], items[1], relation, task, catalog) if catalog else []
    parents = _parents(items, problems)
    if problems:
        raise DraftError(problems)
    try:
        return _graph(items, parents, relation, task)
    except ValidationError as error:
        raise DraftError([" ".join(detail["msg"].split()) for detail in error.errors()]) from None


def instruction_of(task: str) -> str:
    """The user's sentence as the policy reads it: trimmed, without a final stop, the first letter small."""
    text = " ".join(task.split()).rstrip(".!").strip()
    return text[:1].lower() + text[1:]


def plain(text: str) -> str:
    return " ".join(text.lower().split())


def _malformed(thing: Thing, catalog: Catalog | None) -> list[str]:
    """What is wrong with a thing by itself."""
    problems = []
    for field in ("name", "category", "material"):
        words = plain(getattr(thing, field))
        if not 0 < len(words) <= 60 or not all(c.isalnum() or c in " '-" for c in words) or not words[0].isalnum():
            problems.append(f"{field} {words[:60]!r}: wanted letters, digits, spaces, hyphens, apostrophes, at most 60")
    if catalog is not None:
        family = catalog.families[thing.category]
        if thing.color not in family.colors:
            problems.append(f"{thing.name!r}: a {thing.category} is never {thing.color}; wanted {', '.join(family.colors)}")
        if thing.material not in family.materials:
            found, wanted = thing.material, ", ".join(family.materials)
            problems.append(f"{thing.name!r}: a {thing.category} is never of {found}; wanted {wanted}")
    elif isinstance(thing, FreeThing):
        description = plain(thing.description)
        if not 0 < len(description) <= 200 or not description.isprintable():
            problems.append(f"{thing.name!r}: wanted a description of at most 15 words")
        if not 0 < thing.narrowest_mm <= thing.longest_mm <= LONGEST_MM:
            found = f"{thing.narrowest_mm} by {thing.longest_mm} mm"
            problems.append(f"{thing.name!r}: found {found}; wanted narrowest <= longest <= {LONGEST_MM}")
    return problems


def _item(name: str, role: Role, thing: Thing, catalog: Catalog | None) -> _Item:
    if catalog is not None:
        kind = catalog.families[thing.category]
        size = None if thing.size == "medium" else thing.size
        words = describe(kind, thing.color, thing.material, size)
        return _Item(name, role, thing, plain(thing.name), kind.graspable, kind.relations, kind.span, kind.room, words)
    assert isinstance(thing, FreeThing)
    relations = tuple(relation for relation in (Relation.ON, Relation.IN) if thing.holds in (relation, "both"))
    graspable = GRASP_MM[0] <= thing.narrowest_mm <= GRASP_MM[1] and thing.longest_mm <= TARGET_MM
    length = thing.longest_mm / 1000
    description = " ".join(thing.description.split())
    return _Item(name, role, thing, plain(thing.name), graspable, relations, length, length, description)


def _goal_problems(target: _Item, destination: _Item, relation: Relation) -> list[str]:
    problems = []
    if not target.graspable:
        problems.append(f"target {target.words!r}: the gripper cannot lift a {target.thing.category}")
    problems += _cannot_hold(destination, relation, target)
    return problems


def _cannot_hold(holder: _Item, relation: Relation, held: _Item) -> list[str]:
    if relation not in holder.relations:
        return [f"nothing goes {relation} a {holder.thing.category} ({holder.words!r})"]
    if held.span > holder.room:
        return [f"a {held.thing.category} is too long to go {relation} a {holder.thing.category}"]
    return []


def _ambiguities(items: Sequence[_Item], task: str, catalog: Catalog | None) -> list[str]:
    """Names that are not unique, things that are twice there, and things that could be taken for what the sentence means."""
    problems = []
    names = [item.words for item in items]
    problems += [f"two things are called {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    if any(name in ("table", "robot", "room") for name in names):
        problems.append("table, room and robot are added by themselves and are no names of things")
    for i, second in enumerate(items):
        for first in items[:i]:
            a, b = first.thing, second.thing
            if plain(a.category) == plain(b.category):
                told = plainly_different(a.color, b.color)
                named = first.role is not Role.DISTRACTOR
                if not told or (named and not _says(task, a.color) and not _says(task, b.color)):
                    problems.append(
                        f"{first.words!r} and {second.words!r} are both a {a.category} and not told apart by the task"
                    )
            elif catalog and first.role is not Role.DISTRACTOR and confusable(b.category, b.color, _node(first)):
                problems.append(f"a {b.color} {b.category} looks like the {a.color} {a.category}")
    if catalog is not None:
        clutter = {family.category for family in catalog.clutter}
        places = [item.words for item in items if item.role is Role.DISTRACTOR and item.thing.category not in clutter]
        if len(places) > 1:
            problems.append(f"too many distractors that things stand on or in: {', '.join(places)}; wanted at most one")
    return problems


def _says(task: str, color: str) -> bool:
    return any(value == color and re.search(rf"\b{word}\b", task.lower()) for word, value in COLOR_WORDS.items())


def _disagreements(target: _Item, destination: _Item, relation: Relation, task: str, catalog: Catalog) -> list[str]:
    """Where a sentence that the grammar understands says something else than the draft."""
    try:
        parsed = parse_task(task, catalog)
    except UserError:
        return []
    problems = [f"the task says {parsed.relation}, not {relation}"] if parsed.relation is not relation else []
    phrases: tuple[tuple[_Item, Phrase], ...] = ((target, parsed.subject), (destination, parsed.object))
    for item, phrase in phrases:
        said = {"category": phrase.family.category, "color": phrase.color, "material": phrase.material, "size": phrase.size}
        for field, value in said.items():
            if value is not None and getattr(item.thing, field) != value:
                problems.append(f"{item.id}: the task says {field} {value}, not {getattr(item.thing, field)}")
    return problems


def _parents(items: Sequence[_Item], problems: list[str]) -> dict[str, tuple[Relation, str]]:
    """How and at what each thing starts, by id; what cannot be goes to `problems`."""
    ids = {key: item.id for item in items for key in (item.id, item.words)} | {"table": "table"}
    by_id = {item.id: item for item in items}
    parents: dict[str, tuple[Relation, str]] = {}
    for item in items:
        start, at = Relation(item.thing.start), ids.get(plain(item.thing.start_at))
        if at is None:
            problems.append(
                f"{item.words!r} starts at {plain(item.thing.start_at)[:60]!r}; wanted table or the name of another thing"
            )
        elif at == "table" and start is not Relation.ON:
            problems.append(f"{item.words!r} starts {start} the table; wanted on")
        elif at in ("target", "destination") and start is not Relation.BESIDE:
            problems.append(f"{item.words!r} starts {start} the {at}; wanted nothing there")
        elif at != "table" and start is not Relation.BESIDE:
            problems += [f"{item.words!r} cannot start there: {why}" for why in _cannot_hold(by_id[at], start, item)]
        parents[item.id] = (start, at or "table")
    for item in items:
        pile = _pile(item.id, parents)
        if pile is None:
            problems.append(f"{item.words!r} starts in a circle of things that stand at one another")
        elif len(pile) > MAX_STEPS:
            problems.append(f"{item.words!r} starts on a pile of {len(pile)} things; wanted at most {MAX_STEPS}")
    for child, (start, at) in parents.items():
        if start is Relation.BESIDE and at != "table" and parents[at] != (Relation.ON, "table"):
            problems.append(f"{by_id[child].words!r} starts beside {by_id[at].words!r}, which does not stand on the table")
    return parents


def _pile(name: str, parents: dict[str, tuple[Relation, str]]) -> list[str] | None:
    """What a thing stands on or in, from the nearest down to the table; None when it goes in a circle."""
    pile, seen = [], {name}
    start, at = parents[name]
    while at != "table":
        if at in seen:
            return None
        seen.add(at)
        if start is not Relation.BESIDE:
            pile.append(at)
        start, at = parents[at]
    return pile


def _node(item: _Item) -> NodeSpec:
    return NodeSpec(
        id=item.id,
        name=item.words,
        role=item.role,
        category=plain(item.thing.category),
        description=item.description,
        color=item.thing.color,
        material=plain(item.thing.material),
        size=None if item.thing.size == "medium" else item.thing.size,
        graspable=item.graspable,
        container=Relation.IN in item.relations,
    )


def _graph(items: Sequence[_Item], parents: dict[str, tuple[Relation, str]], relation: Relation, task: str) -> SceneGraph:
    fixed = [
        NodeSpec(id="room", name="room", role=Role.BACKGROUND, category="room", description="a room"),
        NodeSpec(id="table", name="table", role=Role.CONTEXT, category="table", description="a table"),
        NodeSpec(id="robot", name="WidowX 250S", role=Role.ROBOT, category="robot", description="a WidowX 250S arm"),
    ]
    edges = [
        EdgeSpec(child="table", parent="room", relation=Relation.ON),
        EdgeSpec(child="robot", parent="table", relation=Relation.ON),
    ]
    edges += [EdgeSpec(child=item.id, parent=parents[item.id][1], relation=parents[item.id][0]) for item in items]
    goal = GoalSpec(predicate=relation, subject="target", object="destination")  # type: ignore[arg-type]
    return SceneGraph(instruction=instruction_of(task), nodes=[*fixed, *map(_node, items)], edges=edges, goal=goal)
