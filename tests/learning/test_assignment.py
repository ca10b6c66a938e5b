from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.learning.assignment import SceneAssignment


def names(count: int) -> list[str]:
    return [f"scene{number}" for number in range(count)]


def visits(assignment: SceneAssignment, iterations: int, outcomes: dict[str, tuple[int, int]] | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for iteration in range(iterations):
        scenes = assignment.scenes(iteration)
        assert len(scenes) == assignment.slots
        counts.update(scenes)
        assignment.conclude(outcomes or {})
    return counts


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 12))
def test_every_scene_is_visited_as_often_as_any_other(scenes: int, slots: int, iterations: int) -> None:
    counts = visits(SceneAssignment(names(scenes), slots), iterations)
    numbers = [counts[scene] for scene in names(scenes)]
    if scenes > slots:  # they rotate: none is ever ahead of another by more than a visit
        assert max(numbers) - min(numbers) <= 1
        if iterations >= -(-scenes // slots):
            assert min(numbers) >= 1
    else:  # each slot keeps to its scene
        assert max(numbers) - min(numbers) <= iterations
        assignment = SceneAssignment(names(scenes), slots)
        assert assignment.scenes(0) == assignment.scenes(7) == [names(scenes)[slot % scenes] for slot in range(slots)]


@given(st.integers(1, 30), st.integers(1, 20), st.lists(st.floats(0, 10), min_size=1, max_size=30), st.integers(1, 25))
def test_weighted_visits_stay_near_their_share(scenes: int, slots: int, drawn: list[float], iterations: int) -> None:
    weights = {scene: drawn[place % len(drawn)] for place, scene in enumerate(names(scenes))}
    if sum(weights.values()) < 1e-6:
        return
    counts = visits(SceneAssignment(names(scenes), slots, weights), iterations)
    for scene, weight in weights.items():
        share = iterations * slots * weight / sum(weights.values())
        assert abs(counts[scene] - share) < 2.5
        assert weight > 0 or counts[scene] == 0


def test_equal_weights_rotate_as_no_weights_do() -> None:
    plain, weighted = SceneAssignment(names(7), 3), SceneAssignment(names(7), 3, {})
    for iteration in range(14):
        assert sorted(plain.scenes(iteration)) == sorted(weighted.scenes(iteration))
        weighted.conclude({})


def test_the_curriculum_prefers_scenes_that_succeed_half_the_time() -> None:
    outcomes = {"scene0": (10, 5), "scene1": (10, 10), "scene2": (10, 0), "scene3": (10, 2)}
    assignment = SceneAssignment(names(4), 20, curriculum=True)
    visits(assignment, 30, outcomes)
    late = Counter(scene for i in range(30, 40) for scene in (assignment.scenes(i), assignment.conclude(outcomes))[0])
    assert late["scene0"] > late["scene3"] > late["scene1"] > 0
    assert abs(late["scene1"] - late["scene2"]) <= 2
    # 4 p (1 - p) with p = 0.5 and 0.2, and the floor of 0.1 twice
    wanted = 200 * np.array([1.0, 0.1, 0.1, 0.64]) / 1.84
    assert np.allclose([late[scene] for scene in names(4)], wanted, atol=3)


@settings(max_examples=25)
@given(st.integers(0, 6), st.integers(2, 9), st.integers(1, 6))
def test_a_resumed_assignment_goes_on_as_the_other_would(stop: int, scenes: int, slots: int) -> None:
    def run(assignment: SceneAssignment, first: int, last: int) -> list[list[str]]:
        plans = []
        for iteration in range(first, last):
            plans.append(assignment.scenes(iteration))
            assignment.conclude({scene: (2, (iteration + place) % 3) for place, scene in enumerate(names(scenes))})
        return plans

    whole = run(SceneAssignment(names(scenes), slots, curriculum=True), 0, 10)
    first = SceneAssignment(names(scenes), slots, curriculum=True)
    begun = run(first, 0, stop)
    first.scenes(stop)  # broken off: leaves no trace
    state = json.loads(json.dumps(first.state_dict()))
    second = SceneAssignment(names(scenes), slots, curriculum=True)
    second.load_state_dict(state)
    assert begun + run(second, stop, 10) == whole


def test_scenes_that_come_and_go_between_runs() -> None:
    old = SceneAssignment(["a", "b"], 4, curriculum=True)
    for _ in range(5):
        old.conclude({"a": (5, 5)})
    new = SceneAssignment(["c", "a"], 4, curriculum=True)
    new.load_state_dict(old.state_dict())
    assert new.scenes(0).count("c") > new.scenes(0).count("a") > 0
    SceneAssignment(["c"], 2).load_state_dict({})


@pytest.mark.parametrize(
    "weights", [{"nowhere": 1.0}, {"scene0": -1.0}, {"scene0": float("nan")}, {"scene0": 0.0, "scene1": 0.0}]
)
def test_wrong_weights_are_named(weights: dict[str, float]) -> None:
    with pytest.raises(UserError, match="data.scene_weights"):
        SceneAssignment(names(2), 4, weights)
