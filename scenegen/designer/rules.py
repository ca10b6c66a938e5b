"""Sentence -> SceneGraph by grammar and lexicon: needs no network, and says in one line what it does not understand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenegen.designer.lexicon import Phrase, parse_phrase
from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.engines.procedural.form import Family
from scenegen.errors import UserError
from scenegen.palette import plainly_different
from scenegen.schema import EdgeSpec, GoalSpec, NodeSpec, Relation, Role, SceneGraph
from scenegen.seeds import generator

MAX_DISTRACTORS = 3

_VERBS = r"(?:put|place|move|set|drop|lay|bring|transfer|stack)"
_PREPOSITIONS = r"(?P<relation>on top of|onto|on to|on|inside of|inside|into|in to|in)"
_SENTENCE = re.compile(rf"^(?:please )?{_VERBS} (?P<subject>.+?) {_PREPOSITIONS} (?P<object>.+)$")
_TWO_STEPS = re.compile(
    rf"^(?:please )?(?:pick up|take|grab|lift) (?P<subject>.+?),? and (?:then )?{_VERBS} it {_PREPOSITIONS} (?P<object>.+)$"
)
_ALIKE = (
    {"apple", "tomato", "peach", "orange", "ball", "lemon", "lime", "egg", "potato"},
    {"marker", "glue stick"},
    {"can", "jar", "bottle", "shaker", "mug"},
    {"block", "puzzle cube", "brick", "carton"},
    {"plate", "coaster"},
    {"mouse pad", "towel", "cutting board", "tray", "notebook"},
    {"cucumber", "eggplant", "carrot", "banana"},
)
"""Categories that an eye at 64 x 64 pixels takes for one another when the colours agree."""


@dataclass(frozen=True)
class Task:
    """A sentence understood."""

    sentence: str
    subject: Phrase
    relation: Literal[Relation.ON, Relation.IN]
    object: Phrase


def parse_task(sentence: str) -> Task:
    """Understand "put the red block on the plate". Raises UserError when the sentence, a word, or what it asks for is not
    possible."""
    text = " ".join(sentence.split()).strip().rstrip(".!")
    match = _TWO_STEPS.match(text.lower()) or _SENTENCE.match(text.lower())
    if match is None:
        raise UserError(
            f"task {sentence!r}: found no 'put A on B' or 'put A in B'; wanted a verb (put, move), an object, on or in, a place"
        )
    subject, object_ = parse_phrase(match["subject"], text), parse_phrase(match["object"], text)
    relation: Literal[Relation.ON, Relation.IN] = Relation.IN if match["relation"].startswith("in") else Relation.ON
    _check_possible(text, subject, relation, object_)
    return Task(text, subject, relation, object_)


def _check_possible(text: str, subject: Phrase, relation: Relation, object_: Phrase) -> None:
    if not subject.family.graspable:
        graspable = ", ".join(sorted(name for name, family in FAMILIES.items() if family.graspable))
        raise UserError(
            f"task {text!r}: object: a {subject.family.category} is too large for the gripper; wanted one of {graspable}"
        )
    if relation not in object_.family.relations:
        places = sorted(name for name, family in FAMILIES.items() if relation in family.relations)
        raise UserError(
            f"task {text!r}: place: nothing goes {relation} a {object_.family.category}; wanted one of {', '.join(places)}"
        )
    if not fits(subject.family, object_.family):
        raise UserError(
            f"task {text!r}: place: a {subject.family.category} is too long for a {object_.family.category}; wanted a larger one"
        )
    if subject.family is object_.family and (subject.color is None or subject.color == object_.color or object_.color is None):
        raise UserError(
            f"task {text!r}: color: object and place are both a {subject.family.category}; wanted two different colours"
        )


def fits(target: Family, destination: Family) -> bool:
    return target.span <= destination.room


def design_scene(sentence: str, seed: int, distractors: int = MAX_DISTRACTORS) -> SceneGraph:
    """A scene for a sentence: what it names, colours and materials for what it leaves open, a table, a room, and from none to
    `distractors` things that are in the way of understanding.

    Raises UserError as `parse_task` does."""
    task = parse_task(sentence)
    rng = generator(seed, "design")
    subject_color, object_color = _colors(task, rng)
    target = _object_node("target", Role.TARGET, task.subject, subject_color, rng)
    destination = _object_node("destination", Role.DESTINATION, task.object, object_color, rng)
    taken = [target, destination]
    for i in range(int(rng.integers(distractors + 1))):
        taken.append(_distractor(i, taken, rng))
    fixed = [
        NodeSpec(id="room", name="room", role=Role.BACKGROUND, category="room", description="a room"),
        NodeSpec(id="table", name="table", role=Role.CONTEXT, category="table", description="a table"),
        NodeSpec(id="robot", name="WidowX 250S", role=Role.ROBOT, category="robot", description="a WidowX 250S arm"),
    ]
    edges = [EdgeSpec(child="table", parent="room", relation=Relation.ON)]
    edges += [EdgeSpec(child=node.id, parent="table", relation=Relation.ON) for node in (fixed[2], *taken)]
    instruction = task.sentence[0].lower() + task.sentence[1:]
    goal = GoalSpec(predicate=task.relation, subject=target.id, object=destination.id)
    return SceneGraph(instruction=instruction, nodes=[*fixed, *taken], edges=edges, goal=goal)


def _colors(task: Task, rng: np.random.Generator) -> tuple[str, str]:
    """Colours for target and destination, plainly different wherever the sentence leaves a choice."""
    subjects = [task.subject.color] if task.subject.color else list(task.subject.family.colors)
    objects = [task.object.color] if task.object.color else list(task.object.family.colors)
    pairs = [(a, b) for a in subjects for b in objects]
    apart = [pair for pair in pairs if plainly_different(*pair)]
    choices = apart or pairs
    return choices[int(rng.integers(len(choices)))]


def _object_node(node_id: str, role: Role, phrase: Phrase, color: str, rng: np.random.Generator) -> NodeSpec:
    family = phrase.family
    material = phrase.material or str(rng.choice(family.materials))
    return NodeSpec(
        id=node_id,
        name=phrase.words,
        role=role,
        category=family.category,
        description=_describe(family, color, material, phrase.size),
        color=color,
        material=material,
        size=phrase.size,
        graspable=family.graspable,
        container=Relation.IN in family.relations,
    )


def _describe(family: Family, color: str, material: str, size: str | None) -> str:
    """Words for the looks; a colour that goes without saying goes unsaid."""
    words = [size, color if len(family.colors) > 1 else None, material if material != "produce" else None, family.category]
    text = " ".join(word for word in words if word)
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _distractor(index: int, taken: list[NodeSpec], rng: np.random.Generator) -> NodeSpec:
    """Something small of another category than everything else, and of another colour than what it could be mistaken for."""
    options = []
    for family in FAMILIES.values():
        if not family.graspable or family.category in {node.category for node in taken}:
            continue
        for color in family.colors:
            if not any(_confusable(family.category, color, node) for node in taken):
                options.append((family, color))
    families = sorted({family.category for family, _ in options})
    category = str(rng.choice(families))
    color = str(rng.choice([c for family, c in options if family.category == category]))
    family = FAMILIES[category]
    material = str(rng.choice(family.materials))
    name = f"{color} {category}" if family.speaks_color else category
    return NodeSpec(
        id=f"distractor_{index}",
        name=name,
        role=Role.DISTRACTOR,
        category=category,
        color=color,
        material=material,
        graspable=True,
        description=_describe(family, color, material, None),
    )


def _confusable(category: str, color: str, node: NodeSpec) -> bool:
    alike = any({category, node.category} <= group for group in _ALIKE)
    return alike and node.color is not None and not plainly_different(color, node.color)
