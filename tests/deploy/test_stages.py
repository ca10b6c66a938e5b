"""Trials with an operator, on the simulated arm without a scene: what is asked, what is kept, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from deploy.drivers import ArmFault
from deploy.drivers.twin import TwinDriver
from deploy.judge import SessionOver
from deploy.runner import RunSettings
from deploy.safety_config import SafetyConfig
from deploy.sources import PolicySource
from deploy.stages import ArmStage, read_tasks
from deploy.trial_log import Plan, TrialLog
from deploy.trials import make_trials
from genvla.errors import UserError
from genvla.sim.config import SimConfig
from tests.deploy.test_runner import Counting, Telling

TASKS = {"cups": "go"}


class Session:
    """An operator with prepared answers, who presses Enter when told to."""

    def __init__(self, output: Path, answers: list[str], pressed: Callable[[], bool] = lambda: False) -> None:
        self.questions: list[str] = []
        self.driver = TwinDriver(SimConfig(sim_hz=100))
        self.camera, self.policy = Counting(self.driver), Telling()
        self.source = PolicySource(self.policy, "digest", SimConfig(), 1)
        self._answers = answers
        self.stage = ArmStage(
            TASKS,
            self.driver,
            lambda: self.camera,
            3.9,
            SafetyConfig(),
            RunSettings(),
            output / "black-box",
            output,
            ask=self._ask,
            pressed=pressed,
            clock=self.driver.clock,
        )
        self.plan = Plan(self.stage.scenes, 1, ("a", "b"), 0, {})

    def _ask(self, question: str) -> str:
        self.questions.append(question)
        return self._answers.pop(0)

    def make(self, output: Path) -> TrialLog:
        with TrialLog.opened(output / "trials.jsonl", self.plan) as log, self.stage as stage:
            make_trials(log, stage, {"a": self.source, "b": self.source}, Console(quiet=True))
        return log


def test_two_trials_with_the_operator_s_words(tmp_path: Path) -> None:
    presses = iter([False] * 7 + [True] + [False] * 1000)
    session = Session(tmp_path, ["", "s", "", "l", "", "f", "d", "knocked"], lambda: next(presses))
    log = session.make(tmp_path)
    first, second = (log.counted[key] for key in log.plan.order)
    assert first.success and first.time_to_finish_s == pytest.approx(8 / 5) and first.run["decisions"] == 2
    assert not second.success and second.time_to_finish_s is None and second.dynamics_failure
    assert (second.tags, second.comment, second.seconds) == (("drop",), "knocked", 4.0)
    assert (tmp_path / "layouts" / "cups-0.png").is_file() and (tmp_path / "layouts" / "overlay.png").is_file()
    session.driver.park()  # it lies in the sleep pose, or this would raise


def test_quitting_keeps_what_was_made_and_parks(tmp_path: Path) -> None:
    session = Session(tmp_path, ["", "f", "h", "", "q"])
    with pytest.raises(SessionOver):
        session.make(tmp_path)
    assert len(TrialLog.read(tmp_path / "trials.jsonl").counted) == 1
    session.driver.park()


def test_a_policy_that_falls_silent_is_a_void_trial_and_the_end_of_the_session(tmp_path: Path) -> None:
    session = Session(tmp_path, [""])
    session.policy.faults = lambda call: call >= 1
    with pytest.raises(ArmFault, match="did not answer in time"):
        session.make(tmp_path)
    log = TrialLog.read(tmp_path / "trials.jsonl")
    assert log.counted == {} and [trial.void for trial in log.attempts] == ["ws://nowhere did not answer in time"]
    assert session.questions == ["Enter begins, l looks again, q quits > "]
    session.driver.park()


def test_a_safety_stop_is_judged_and_ends_the_session(tmp_path: Path) -> None:
    session = Session(tmp_path, ["", "f", "", ""])
    session.policy.decide = lambda *_: np.full((4, 7), np.nan, np.float32)  # type: ignore[method-assign]
    with pytest.raises(ArmFault, match="finite"):
        session.make(tmp_path)
    (trial,) = TrialLog.read(tmp_path / "trials.jsonl").counted.values()
    assert trial.tags == ("safety_stop",) and trial.dynamics_failure


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [1]", "'a': a scene's name"),
        ("- a", "list found"),
        ("a: {", "cannot be read"),
        ("", "NoneType found"),
        ("1: x", "1: a scene"),
    ],
)
def test_task_files_that_are_none(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=words) as error:
        read_tasks(path)
    assert "\n" not in str(error.value)
    path.write_text(yaml.safe_dump(TASKS))
    assert read_tasks(path) == TASKS
