from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genvla.learning.advantages import gae, normalise

GAMMA, LAM = 0.9, 0.8


def column(rewards: list[float], values: list[float], next_value: float, **marks: list[float]) -> tuple[list[float], list[float]]:
    """gae() for one environment."""

    def read(name: str, default: float) -> torch.Tensor:
        return torch.tensor(marks.get(name, [default] * len(rewards)), dtype=torch.float64)[:, None]

    advantages, returns = gae(
        torch.tensor(rewards, dtype=torch.float64)[:, None],
        torch.tensor(values, dtype=torch.float64)[:, None],
        torch.tensor([next_value], dtype=torch.float64),
        read("terminated", 0).bool(),
        read("truncated", 0).bool(),
        read("final", 0),
        read("valid", 1).bool(),
        GAMMA,
        LAM,
    )
    return advantages[:, 0].tolist(), returns[:, 0].tolist()


def test_the_end_of_the_rollout_bootstraps() -> None:
    advantages, returns = column([1.0, 2.0], [0.5, 0.25], 4.0)
    second = 2.0 + GAMMA * 4.0 - 0.25
    first = 1.0 + GAMMA * 0.25 - 0.5 + GAMMA * LAM * second
    assert advantages == pytest.approx([first, second])
    assert returns == pytest.approx([first + 0.5, second + 0.25])


def test_termination_neither_bootstraps_nor_lets_the_trace_through() -> None:
    advantages, _ = column([1.0, 2.0], [0.5, 0.25], 4.0, terminated=[1, 0], final=[100.0, 0.0])
    assert advantages == pytest.approx([1.0 - 0.5, 2.0 + GAMMA * 4.0 - 0.25])


def test_truncation_bootstraps_its_own_last_observation_and_cuts_the_trace() -> None:
    advantages, _ = column([1.0, 2.0], [0.5, 0.25], 4.0, truncated=[1, 0], final=[3.0, 100.0])
    assert advantages == pytest.approx([1.0 + GAMMA * 3.0 - 0.5, 2.0 + GAMMA * 4.0 - 0.25])


def test_success_in_the_last_moment_counts_as_success() -> None:
    advantages, _ = column([1.0], [0.5], 4.0, terminated=[1], truncated=[1], final=[3.0])
    assert advantages == pytest.approx([0.5])


def test_invalid_rows_are_nothing_even_where_their_numbers_are_absurd() -> None:
    nan = float("nan")
    advantages, returns = column([1.0, nan, 1.0], [0.5, nan, 0.5], 2.0, terminated=[1, 0, 0], valid=[1, 0, 1], final=[0, nan, 0])
    assert advantages == pytest.approx([0.5, 0.0, 1.0 + GAMMA * 2.0 - 0.5])
    assert returns == pytest.approx([1.0, 0.0, 1.0 + GAMMA * 2.0])


@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 1000))
def test_with_lambda_1_returns_are_discounted_sums(steps: int, num: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, values, final = (torch.from_numpy(rng.normal(size=(steps, num))) for _ in range(3))
    terminated, truncated = (torch.from_numpy(rng.random((steps, num)) < 0.25) for _ in range(2))
    following = torch.from_numpy(rng.normal(size=num))
    _, returns = gae(rewards, values, following, terminated, truncated, final, torch.ones(steps, num).bool(), GAMMA, 1.0)
    for n in range(num):
        expected = following[n].item()
        for t in reversed(range(steps)):
            if terminated[t, n]:
                expected = 0.0
            elif truncated[t, n]:
                expected = final[t, n].item()
            expected = rewards[t, n].item() + GAMMA * expected
            assert returns[t, n].item() == pytest.approx(expected)


def test_normalising_ignores_what_is_not_valid_and_spans_processes() -> None:
    valid = torch.tensor([[True, False], [True, True]])
    result = normalise(torch.tensor([[1.0, 1e9], [2.0, 6.0]]), valid)
    kept = result[valid]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert kept.std(correction=0).item() == pytest.approx(1)
    assert result[0, 1] == 0

    parts = torch.tensor([[1.0, 2.0], [6.0, 8.0]])
    sums = iter([torch.tensor([4.0, 17.0], dtype=torch.float64), ((parts - 17 / 4) ** 2).sum().double()])
    together = normalise(parts[0], torch.ones(2).bool(), lambda tensor: next(sums))
    torch.testing.assert_close(together, ((parts - parts.mean()) / parts.std(correction=0))[0])


def test_nothing_but_failures_gives_no_advantage_and_no_nan() -> None:
    assert normalise(torch.zeros(5), torch.ones(5).bool()).tolist() == [0.0] * 5
    assert normalise(torch.ones(2), torch.zeros(2).bool()).tolist() == [0.0, 0.0]
