"""What the evidence means, and what an operator may answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.judge import LETTERS, Evidence, OperatorJudge, SessionOver
from deploy.trial_log import DYNAMICS_TAGS, SEMANTIC_TAGS


@pytest.mark.parametrize(
    ("evidence", "tags", "dynamics", "semantic"),
    [
        (Evidence(touched=True, grasped=True, success=True), (), False, False),
        (Evidence(touched=True), ("miss_grasp",), True, False),
        (Evidence(touched=True, displaced=0.1), ("miss_grasp", "push_away"), True, False),
        (Evidence(displaced=0.1), ("push_away",), True, False),
        (Evidence(touched=True, grasped=True), ("drop",), True, False),
        (Evidence(touched=True, grasped=True, held=True), ("hesitation",), False, True),
        (Evidence(touched=True, grasped=True, on_other=True), ("wrong_target",), False, True),
        (Evidence(wrong_lifted=True), ("wrong_object",), False, True),
        (Evidence(touched=True, wrong_lifted=True), ("miss_grasp", "wrong_object"), True, True),
        (Evidence(), ("hesitation",), False, True),
        (Evidence(stopped=True), ("safety_stop", "hesitation"), True, True),
    ],
)
def test_what_the_evidence_means(evidence: Evidence, tags: tuple[str, ...], dynamics: bool, semantic: bool) -> None:
    finding = evidence.finding()
    assert (finding.tags, finding.dynamics_failure, finding.semantic_failure) == (tags, dynamics, semantic)
    assert finding.partial == evidence.grasped and finding.success == evidence.success


@given(st.builds(Evidence))
def test_every_failure_has_a_cause_and_no_success_has(evidence: Evidence) -> None:
    finding = evidence.finding()
    assert finding.success != (finding.dynamics_failure or finding.semantic_failure)


def test_every_cause_but_the_safety_layer_s_has_a_letter() -> None:
    assert set(LETTERS.values()) == {*DYNAMICS_TAGS, *SEMANTIC_TAGS} - {"safety_stop"}


def answering(*answers: str) -> Callable[[str], str]:
    waiting = list(answers)
    return lambda question: waiting.pop(0)


def test_the_operator_s_answers() -> None:
    assert OperatorJudge(answering("s", "well done")).finding(False).comment == "well done"
    failed = OperatorJudge(answering("?", "", "G", "x", "", "d, o", "")).finding(False)
    assert failed.tags == ("drop", "wrong_object") and failed.partial and failed.dynamics_failure and failed.semantic_failure
    stopped = OperatorJudge(answering("f", "", "")).finding(True)
    assert stopped.tags == ("safety_stop",) and stopped.dynamics_failure and not stopped.partial
    assert OperatorJudge(answering("v", "cable")).finding(False).void == "cable"
    with pytest.raises(SessionOver):
        OperatorJudge(answering("q")).finding(False)
