"""The trials' numbers against closed forms and the paper's published percentages."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.trial_log import Plan, Trial, TrialKey
from deploy.trial_metrics import PAPER, PAPER_TRIALS, Metrics, Paired, TrialReport, paper_cells


def trial(key: TrialKey, success: bool, seconds: float = 10.0, **more: bool) -> Trial:
    flags = {"partial": success, "dynamics_failure": not success, "semantic_failure": False, **more}
    return Trial(key, 1, success, **flags, seconds=seconds, time_to_finish_s=seconds if success else None)


def counted(pairs: list[tuple[bool, bool]]) -> dict[TrialKey, Trial]:
    trials = {}
    for layout, results in enumerate(pairs):
        for policy, success in zip("ab", results, strict=True):
            key = TrialKey("s", layout, policy)
            trials[key] = trial(key, success)
    return trials


def test_the_paper_s_counts_give_the_published_percentages() -> None:
    published = {"paper, pretrained": (21.7, 45.0, 66.7, 18.3), "paper, RL": (75.0, 88.3, 18.3, 6.7)}
    for name, percentages in published.items():
        for count, percentage in zip(PAPER[name][0], percentages, strict=True):
            fitting = [n for n in range(PAPER_TRIALS + 1) if round(100 * n / PAPER_TRIALS, 1) == percentage]
            assert fitting == [count]
    assert paper_cells("paper, RL")[0] == "75.0 % [66.6, 81.9]"


def test_metrics_of_a_handful() -> None:
    keys = [TrialKey("s", layout, "a") for layout in range(4)]
    trials = [
        trial(keys[0], True, 8.0),
        trial(keys[1], True, 12.0),
        trial(keys[2], False, 20.0, partial=True, semantic_failure=True),
        trial(keys[3], False, 20.0, dynamics_failure=False, semantic_failure=True),
    ]
    metrics = Metrics.of(trials)
    assert (metrics.success.value, metrics.partial.value) == (0.5, 0.75)
    assert (metrics.dynamics_failure.value, metrics.semantic_failure.value) == (0.25, 0.5)
    assert (metrics.time_to_finish.value, metrics.time_to_finish.n, metrics.trial_seconds.value) == (10.0, 2, 15.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_mcnemar_is_the_exact_binomial_sum(pairs: list[tuple[bool, bool]]) -> None:
    paired = Paired.of(counted(pairs), "a", "b")
    n, k = paired.only_first + paired.only_second, min(paired.only_first, paired.only_second)
    assert paired.pairs == len(pairs)
    assert paired.p_value == pytest.approx(min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n))
    if pairs:
        assert paired.difference == pytest.approx(sum(b - a for a, b in pairs) / len(pairs))


def test_layouts_that_only_one_policy_has_been_on_do_not_pair() -> None:
    trials = counted([(True, False), (False, True)])
    del trials[TrialKey("s", 1, "b")]
    assert Paired.of(trials, "a", "b").pairs == 1


def test_the_report_names_every_metric_policy_and_the_paper() -> None:
    plan = Plan(("s",), 3, ("a", "b"), 0)
    report = TrialReport(plan, counted([(True, False), (False, True), (False, True)]), attempts=7)
    page = report.markdown()
    for words in ("6 of 6 trials, 1 more", "| SR, success | 33.3 % [6.1, 79.2] | 66.7 % [20.8, 93.9] | 21.7 % [15.2, 29.9] |"):
        assert words in page
    assert "b against a on 3 layouts: +33.3 points" in page and "exact McNemar p = 1" in page
    assert report.table().row_count == 5
    empty = TrialReport(plan, {}, 0)
    assert "0 of 6 trials" in empty.markdown() and empty.table().row_count == 5
