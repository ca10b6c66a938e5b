"""The log of trials: a plan that is fair, and a file that survives what may happen to it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.trial_log import Plan, Trial, TrialKey, TrialLog
from genvla.errors import UserError

PLAN = Plan(("s1", "s2", "s3"), 4, ("a", "b"), 0, {"digest": "x", "steps": (1, 2)})


def made(key: TrialKey, attempt: int = 1, void: str = "") -> Trial:
    return Trial(key, attempt, True, True, False, False, 8.0, 8.0, ("drop",), void, "put it there", run={"holds": ["x"]})


@given(st.integers(0, 1000))
def test_the_order_is_every_trial_once_in_blocks_of_scene_and_layout(seed: int) -> None:
    order = replace(PLAN, seed=seed).order
    assert Counter(order) == Counter(TrialKey(s, k, p) for s in PLAN.scenes for k in range(4) for p in PLAN.policies)
    for block in range(0, 24, 8):
        assert len({key.scene for key in order[block : block + 8]}) == 1
    for pair in range(0, 24, 2):
        assert order[pair].layout == order[pair + 1].layout
    assert order == replace(PLAN, seed=seed).order


def test_which_policy_begins_is_random() -> None:
    first = Counter(replace(PLAN, seed=seed).order[pair].policy for seed in range(50) for pair in range(0, 24, 2))
    assert 240 < first["a"] < 360  # of 600; five standard deviations are 61


def test_what_is_written_is_read_and_goes_on(tmp_path: Path) -> None:
    path, order = tmp_path / "out" / "trials.jsonl", PLAN.order
    with TrialLog.opened(path, PLAN) as log:
        for key in order[:5]:
            log.add(made(key))
    with TrialLog.opened(path, PLAN) as log:
        assert log.pending == order[5:] and log.counted == {key: made(key) for key in order[:5]}
        log.add(made(order[5]))
    assert TrialLog.read(path).pending == order[6:]


def undated(text: str) -> list[dict[str, Any]]:
    """The lines of a log, all but when each was written."""
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(datetime.fromisoformat(row.pop("written")).tzinfo for row in rows[1:])
    return rows


@settings(max_examples=25)  # each is a dozen writes that wait for the disk
@given(st.integers(1, 10**6))
def test_killed_while_writing_loses_the_half_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path, order = tmp_path_factory.mktemp("log") / "trials.jsonl", PLAN.order
    with TrialLog.opened(path, PLAN) as log:
        for key in order[:3]:
            log.add(made(key))
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    cut = ends[0] + cut % (len(whole) - ends[0])
    path.write_bytes(whole[:cut])
    left = sum(end <= cut for end in ends) - 1
    assert len(TrialLog.read(path).counted) == left
    with TrialLog.opened(path, PLAN) as log:
        assert log.pending == order[left:]
        for key in log.pending[: 3 - left]:
            log.add(made(key))
    assert undated(path.read_text()) == undated(whole.decode())


def test_redo_and_void_keep_the_record_and_count_anew(tmp_path: Path) -> None:
    path, key = tmp_path / "trials.jsonl", PLAN.order[0]
    with TrialLog.opened(path, PLAN) as log:
        with pytest.raises(UserError, match="has not been made"):
            log.strike(key, "redo")
        log.add(made(key))
        log.strike(key, "redo")
        assert log.pending[0] == key and log.next_attempt(key) == 2
        log.add(made(key, 2, void="gripper cable"))
        assert log.pending[0] == key and log.next_attempt(key) == 3
        log.add(made(key, 3))
        assert log.pending == PLAN.order[1:]
    again = TrialLog.read(path)
    assert again.counted[key].attempt == 3 and [trial.attempt for trial in again.attempts] == [1, 2, 3]


def test_two_sessions_at_a_time_are_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    with TrialLog.opened(path, PLAN), pytest.raises(UserError, match="another process"), TrialLog.opened(path, PLAN):
        pass


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(PLAN, seed=1), "seed: 0 found, 1 asked for"),
        (replace(PLAN, setting={**PLAN.setting, "digest": "y"}), "setting.digest: x found, y asked for"),
        (replace(PLAN, layouts=5), "layouts: 4 found, 5"),
    ],
)
def test_another_plan_is_refused(tmp_path: Path, other: Plan, words: str) -> None:
    with TrialLog.opened(tmp_path / "trials.jsonl", PLAN):
        pass
    with pytest.raises(UserError, match=words), TrialLog.opened(tmp_path / "trials.jsonl", other):
        pass


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace('"attempt": 1', '"attempt": "x"'), "line 2: attempt"),
        (lambda text: "hello\n" + text, "line 1"),
        (lambda text: text.replace('"kind": "trial"', '"kind": "party"'), "line 2"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "format 9 found, 1 wanted"),
        (lambda text: "".join(text.splitlines(True)[1:]), "line 1: want the plan"),
    ],
)
def test_a_damaged_log_is_one_line_with_its_number(tmp_path: Path, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "trials.jsonl"
    with TrialLog.opened(path, PLAN) as log:
        log.add(made(PLAN.order[0]))
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=words) as error:
        TrialLog.read(path)
    assert "\n" not in str(error.value) and "trials.jsonl" in str(error.value)


def test_keys_are_written_as_they_are_read() -> None:
    key = TrialKey("s0001_put", 3, "rl")
    assert TrialKey.parse(str(key)) == key
    for bad in ("s/x/rl", "s/3", "s/3/a/b"):
        with pytest.raises(UserError, match="SCENE/LAYOUT/POLICY"):
            TrialKey.parse(bad)
    with pytest.raises(UserError, match="without /"):
        Plan(("a/b",), 1, ("x",), 0)
