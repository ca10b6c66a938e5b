"""Sentences: what is understood, what is refused and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from scenegen.designer.rules import design_scene, parse_task
from scenegen.designer.tasks import generate_tasks
from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.errors import UserError
from scenegen.palette import PALETTE, difference, lab, rgb
from scenegen.schema import EdgeSpec, Relation, Role, SceneGraph


@pytest.mark.parametrize(
    ("sentence", "subject", "relation", "place"),
    [
        ("put the red block on the white plate", ("block", "red"), Relation.ON, ("plate", "white")),
        ("Put a carrot into the bowl.", ("carrot", None), Relation.IN, ("bowl", None)),
        ("place the small wooden cube on top of the light blue book", ("block", None), Relation.ON, ("book", "light blue")),
        ("please move the grey can onto the chopping board", ("can", "gray"), Relation.ON, ("cutting board", None)),
        ("drop  the rubik's cube inside the basket", ("puzzle cube", None), Relation.IN, ("basket", None)),
        ("pick up the banana and put it in the frying pan", ("banana", None), Relation.IN, ("pan", None)),
        ("set the green block on the red block", ("block", "green"), Relation.ON, ("block", "red")),
    ],
)
def test_understood(sentence, subject, relation, place):
    task = parse_task(sentence)
    assert (task.subject.family.category, task.subject.color) == subject
    assert task.relation is relation
    assert (task.object.family.category, task.object.color) == place


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("put the unicorn on the plate", "unicorn"),
        ("put the apple on the roof", "roof"),
        ("put the sparkling apple on the plate", "sparkling"),
        ("put the blue carrot on the plate", "blue"),
        ("put the ceramic block on the plate", "ceramic"),
        ("put the plate on the tray", "too large"),
        ("put the apple in the plate", "in a plate"),
        ("put the cucumber on the coaster", "too long"),
        ("put the block on the block", "two different colours"),
        ("put the red block on the red block", "two different colours"),
        ("dance", "put A on B"),
        ("put the apple", "put A on B"),
        ("", "put A on B"),
    ],
)
def test_refused_in_one_line(sentence, word):
    with pytest.raises(UserError, match=word) as error:
        design_scene(sentence, 0)
    assert "\n" not in str(error.value) and "wanted" in str(error.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 59))
def test_designs_are_valid_and_never_ambiguous(seed, index):
    sentence = generate_tasks(60, 11)[index]
    graph = design_scene(sentence, seed)
    assert SceneGraph.model_validate_json(graph.model_dump_json()) == graph
    assert design_scene(sentence, seed) == graph
    named = [graph.node(graph.goal.subject), graph.node(graph.goal.object)]
    distractors = [node for node in graph.objects if node.role is Role.DISTRACTOR]
    assert len(distractors) <= 3
    assert not {node.category for node in distractors} & {node.category for node in named}
    assert all(
        node.color in FAMILIES[node.category].colors and node.material in FAMILIES[node.category].materials
        for node in graph.objects
    )
    assert all(word in graph.instruction for word in named[0].name.split() + named[1].name.split())


def test_distractor_counts_vary():
    counts = {len(design_scene("put the apple on the plate", seed).objects) - 2 for seed in range(40)}
    assert counts == {0, 1, 2, 3}


def test_generated_tasks_are_distinct_even_and_stable():
    tasks = generate_tasks(1200, 4)
    assert len(set(tasks)) == 1200
    assert tasks[:50] == generate_tasks(50, 4)
    assert tasks[:50] != generate_tasks(50, 5)[:50]
    parsed = [parse_task(task) for task in tasks]
    targets = {task.subject.family.category for task in parsed}
    places = {task.object.family.category for task in parsed}
    assert targets == {name for name, family in FAMILIES.items() if family.graspable}
    assert len(places) >= 18


def test_too_many_tasks_is_a_user_error():
    with pytest.raises(UserError, match="at most"):
        generate_tasks(10_000_000, 0)


def test_graph_refuses_what_makes_no_sense():
    graph = design_scene("put the red apple on the white plate", 1)
    data = graph.model_dump()

    def broken(**changes):
        with pytest.raises(ValidationError):
            SceneGraph.model_validate({**data, **changes})

    broken(goal={**data["goal"], "object": "nowhere"})
    broken(goal={**data["goal"], "predicate": "in"})
    broken(goal={**data["goal"], "subject": data["goal"]["object"]})
    broken(nodes=[node for node in data["nodes"] if node["role"] != "robot"])
    broken(
        nodes=[*data["nodes"], {**data["nodes"][3], "id": "twin"}],
        edges=[*data["edges"], {"child": "twin", "parent": "table", "relation": "on"}],
    )
    broken(nodes=[*data["nodes"], data["nodes"][3]])
    broken(edges=data["edges"][1:])
    broken(edges=[EdgeSpec(child="table", parent="target", relation="on").model_dump(), *data["edges"][1:]])
    broken(surprise=1)


def test_palette_is_told_apart_and_lab_is_right():
    assert lab(rgb("white") * 0 + 1) == pytest.approx([100, 0, 0], abs=0.1)
    assert lab([1.0, 0, 0]) == pytest.approx([53.24, 80.09, 67.20], abs=0.1)
    names = list(PALETTE)
    assert min(difference(rgb(a), rgb(b)) for a in names for b in names if a < b) > 20


@pytest.mark.parametrize("most", [0, 1, 3])
def test_no_more_distractors_than_asked(most: int) -> None:
    counts = {len(design_scene("put the apple on the plate", seed, (0, most)).objects) - 2 for seed in range(40)}
    assert counts == set(range(most + 1))
