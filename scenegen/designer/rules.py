"""Sentence -> SceneGraph by grammar and lexicon: needs no network, and says in one line what it does not understand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenegen.designer.lexicon import Phrase, parse_phrase
from scenegen.engines.procedural.catalog import FULL, Catalog
from scenegen.engines.procedural.form import Family
from scenegen.errors import UserError
from scenegen.palette import plainly_different
from scenegen.schema import MAX_OBJECTS, EdgeSpec, GoalSpec, NodeSpec, Relation, Role, SceneGraph
from scenegen.seeds import generator

MAX_DISTRACTORS = MAX_OBJECTS - 2

_VERBS = r"(?:put|place|move|set|drop|lay|bring|transfer|stack)"
_PREPOSITIONS = r"(?P<relation>on top of|onto|on to|on|inside of|inside|into|in to|in)"
_SENTENCE = re.compile(rf"^(?:please )?{_VERBS} (?P<subject>.+?) {_PREPOSITIONS} (?P<object>.+)$")
_TWO_STEPS = re.compile(
    rf"^(?:please )?(?:pick up|take|grab|lift) (?P<subject>.+?),? and (?:then )?{_VERBS} it {_PREPOSITIONS} (?P<object>.+)$"
)
_AWAY = r"(?P<start>from|off|out of)"
_FROM = re.compile(
    rf"^(?:please )?(?:take|get|pick up|grab|lift|move|bring) (?P<subject>.+?) {_AWAY} (?P<support>.+?)"
    rf"(?:,? and (?:then )?{_VERBS} it {_PREPOSITIONS} (?P<object>.+)| (?P<relation2>onto|into|on|in) (?P<object2>.+))$"
)
_ALIKE = (
    {
        *(
            "apple",
            "tomato",
            "peach",
            "orange",
            "ball",
            "lemon",
            "lime",
            "egg",
            "potato",
            "onion",
            "pear",
            "pumpkin",
            "bell pepper",
        ),
        *(
            "strawberry",
            "mushroom",
            "garlic",
            "radish",
            "beetroot",
            "tennis ball",
            "soccer ball",
            "basketball",
            "watermelon",
            "lid",
        ),
    },
    {"marker", "glue stick", "pencil", "crayon", "screwdriver", "rolling pin", "flashlight", "toothbrush", "paintbrush"},
    {
        "can",
        "jar",
        "bottle",
        "shaker",
        "mug",
        "candle",
        "cylinder",
        "battery",
        "paper roll",
        "stacking cup",
        "pepper grinder",
        "rook",
    },
    {"bottle", "spray bottle", "soap dispenser", "vase", "pear"},
    {"mug", "teapot", "trophy"},
    {
        "block",
        "puzzle cube",
        "brick",
        "carton",
        "dice",
        "gift box",
        "milk carton",
        "juice box",
        "toy house",
        "arch",
        "domino",
        "eraser",
    },
    {"carton", "juice box", "milk carton", "tissue box"},
    {"cone", "pyramid", "toy tree", "stacking cup", "strawberry"},
    {"pawn", "rook", "pepper grinder", "figurine", "snowman"},
    {"donut", "ring", "tape roll", "paper roll", "hamburger", "cupcake", "lid"},
    {"cheese", "cake", "sushi", "toast", "pyramid"},
    {"bread", "toast", "hot dog", "hamburger", "croissant", "sponge", "soap", "computer mouse", "eraser"},
    {"plate", "coaster", "saucer", "cake stand", "cookie tin", "stool", "lid"},
    {"bowl", "colander", "fruit basket", "bucket", "pot", "flower pot", "pen holder"},
    {"pan", "pot", "colander"},
    {"bread", "potato"},
    {"basket", "crate", "fruit basket"},
    {"mouse pad", "towel", "cutting board", "tray", "notebook", "book", "magazine", "chessboard", "stack of books", "keyboard"},
    {"cucumber", "eggplant", "carrot", "banana", "chili pepper", "corn", "croissant"},
    {"spoon", "fork", "knife", "spatula", "ladle", "whisk", "tongs", "toothbrush", "paintbrush"},
    {"hammer", "wrench", "pliers", "scissors", "screwdriver", "paintbrush", "tongs"},
    {"phone", "remote", "calculator", "game controller", "domino", "soap"},
    {"stapler", "tape dispenser", "toy car", "toy train", "toy boat", "camera", "tape measure"},
    {"broccoli", "toy tree", "potted plant", "pineapple"},
    {"teddy bear", "rubber duck", "figurine"},
    {"tape measure", "alarm clock", "camera"},
)
"""Categories that an eye at 64 x 64 pixels takes for one another when the colours agree."""


Goal = Literal[Relation.ON, Relation.IN]


@dataclass(frozen=True)
class Task:
    """A sentence understood. `support` is what the subject lies on or in at the start, when the sentence says so."""

    sentence: str
    subject: Phrase
    relation: Goal
    object: Phrase
    support: Phrase | None = None


def words_of(text: str) -> dict[str, str] | None:
    """The words of a task by their part in it: subject, relation, object, and where the sentence says where the subject starts,
    support. None for what is no such sentence."""
    lower = text.lower()
    match = _FROM.match(lower) or _TWO_STEPS.match(lower) or _SENTENCE.match(lower)
    return {name.rstrip("2"): found for name, found in match.groupdict().items() if found} if match else None


def parse_task(sentence: str, catalog: Catalog = FULL) -> Task:
    """Understand "put the red block on the plate", "take the apple from the tray and put it in the bowl". Raises UserError when
    the sentence, a word, or what it asks for is not possible."""
    text = " ".join(sentence.split()).strip().rstrip(".!")
    words = words_of(text)
    if words is None:
        raise UserError(
            f"task {sentence!r}: found no 'put A on B' or 'put A in B'; wanted a verb (put, move), an object, on or in, a place"
        )
    subject, object_ = (parse_phrase(words[part], text, catalog) for part in ("subject", "object"))
    relation: Goal = Relation.IN if words["relation"].startswith("in") else Relation.ON
    _check_possible(text, subject, relation, object_, catalog)
    support = parse_phrase(words["support"], text, catalog) if "support" in words else None
    if support is not None:
        _check_possible(text, subject, (support.family.relations or (relation,))[0], support, catalog)
        if support.family is object_.family and (support.color is None or support.color == object_.color):
            raise UserError(
                f"task {text!r}: color: both places are a {support.family.category}; wanted two different colours, both named"
            )
    return Task(text, subject, relation, object_, support)


def _check_possible(text: str, subject: Phrase, relation: Relation, object_: Phrase, catalog: Catalog) -> None:
    if not subject.family.graspable:
        graspable = ", ".join(sorted(family.category for family in catalog.graspable))
        raise UserError(
            f"task {text!r}: object: a {subject.family.category} is too large for the gripper; wanted one of {graspable}"
        )
    if relation not in object_.family.relations:
        places = sorted(family.category for family in catalog.places if relation in family.relations)
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


def design_scene(sentence: str, seed: int, distractors: tuple[int, int] = (0, 3), catalog: Catalog = FULL) -> SceneGraph:
    """A scene for a sentence: what it names, colours and materials for what it leaves open, a table, a room, and things that
    are in the way of understanding, `distractors` of them at least and at most.

    Raises UserError as `parse_task` does."""
    task = parse_task(sentence, catalog)
    rng = generator(seed, "design")
    subject_color, object_color = _colors(task, rng)
    target = _object_node("target", Role.TARGET, task.subject, subject_color, rng)
    destination = _object_node("destination", Role.DESTINATION, task.object, object_color, rng)
    taken = [target, destination]
    edges = []
    if task.support is not None:
        color = task.support.color or _apart(list(task.support.family.colors), [subject_color, object_color], rng)
        taken.append(_object_node("support", Role.DISTRACTOR, task.support, color, rng))
        edges.append(EdgeSpec(child=target.id, parent="support", relation=task.support.family.relations[0]))
    for i in range(int(rng.integers(distractors[0], min(distractors[1], MAX_OBJECTS - len(taken)) + 1))):
        taken.append(_distractor(i, taken, rng, catalog))
    fixed = [
        NodeSpec(id="room", name="room", role=Role.BACKGROUND, category="room", description="a room"),
        NodeSpec(id="table", name="table", role=Role.CONTEXT, category="table", description="a table"),
        NodeSpec(id="robot", name="WidowX 250S", role=Role.ROBOT, category="robot", description="a WidowX 250S arm"),
    ]
    placed = {edge.child for edge in edges}
    edges.append(EdgeSpec(child="table", parent="room", relation=Relation.ON))
    edges += [
        EdgeSpec(child=node.id, parent="table", relation=Relation.ON) for node in (fixed[2], *taken) if node.id not in placed
    ]
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


def _apart(options: list[str], others: list[str], rng: np.random.Generator) -> str:
    """One of the colours, plainly different from the others wherever there is one."""
    choices = [a for a in options if all(plainly_different(a, b) for b in others)] or options
    return choices[int(rng.integers(len(choices)))]


def _object_node(node_id: str, role: Role, phrase: Phrase, color: str, rng: np.random.Generator) -> NodeSpec:
    family = phrase.family
    material = phrase.material or str(rng.choice(family.materials))
    return NodeSpec(
        id=node_id,
        name=phrase.words,
        role=role,
        category=family.category,
        description=describe(family, color, material, phrase.size),
        color=color,
        material=material,
        size=phrase.size,
        graspable=family.graspable,
        container=Relation.IN in family.relations,
    )


def describe(family: Family, color: str, material: str, size: str | None) -> str:
    """Words for the looks; a colour that goes without saying goes unsaid."""
    words = [size, color if len(family.colors) > 1 else None, material if material != "produce" else None, family.category]
    text = " ".join(word for word in words if word)
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _distractor(index: int, taken: list[NodeSpec], rng: np.random.Generator, catalog: Catalog) -> NodeSpec:
    """Something small of another category than everything else, and of another colour than what it could be mistaken for."""
    options = []
    for family in catalog.clutter:
        if family.category in {node.category for node in taken}:
            continue
        for color in family.colors:
            if not any(confusable(family.category, color, node) for node in taken):
                options.append((family, color))
    families = sorted({family.category for family, _ in options})
    category = str(rng.choice(families))
    color = str(rng.choice([c for family, c in options if family.category == category]))
    family = catalog.families[category]
    material = str(rng.choice(family.materials))
    name = f"{color} {category}" if family.speaks_color else category
    return NodeSpec(
        id=f"distractor_{index}",
        name=name,
        role=Role.DISTRACTOR,
        category=category,
        color=color,
        material=material,
        graspable=family.graspable,
        description=describe(family, color, material, None),
    )


def confusable(category: str, color: str, node: NodeSpec) -> bool:
    alike = any({category, node.category} <= group for group in _ALIKE)
    return alike and node.color is not None and not plainly_different(color, node.color)
