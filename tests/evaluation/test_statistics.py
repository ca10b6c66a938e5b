from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2, t

from genvla.evaluation.statistics import gap_interval, mcnemar, mean_interval, paired_interval, wilson_interval

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.floats(0.5, 0.999))
def test_wilson_equals_scipy(count: tuple[int, int], confidence: float) -> None:
    interval = wilson_interval(*count, confidence=confidence)
    truth = binomtest(*count).proportion_ci(confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((truth.low, truth.high), abs=1e-12)


@given(counts)
def test_wilson_contains_the_share_within_zero_and_one_and_shrinks(count: tuple[int, int]) -> None:
    k, n = count
    once, tenfold, sure = wilson_interval(k, n), wilson_interval(10 * k, 10 * n), wilson_interval(k, n, 0.99)
    assert 0 <= once.low <= k / n <= once.high <= 1
    assert once.low < once.high
    assert tenfold.high - tenfold.low < once.high - once.low < sure.high - sure.low


@given(counts)
def test_wilson_is_symmetric_and_monotone(count: tuple[int, int]) -> None:
    k, n = count
    hits, misses = wilson_interval(k, n), wilson_interval(n - k, n)
    assert (hits.low, hits.high) == pytest.approx((1 - misses.high, 1 - misses.low), abs=1e-12)
    if k < n:
        more = wilson_interval(k + 1, n)
        assert more.low > hits.low and more.high > hits.high


def test_wilson_bounds_solve_the_score_equation() -> None:
    interval = wilson_interval(126, 200)
    for bound in (interval.low, interval.high):
        assert abs(126 / 200 - bound) / math.sqrt(bound * (1 - bound) / 200) == pytest.approx(1.959964, abs=1e-5)


def test_wilson_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = rng.binomial(200, 0.2, size=4000)
    covered = np.mean([wilson_interval(int(k), 200).low <= 0.2 <= wilson_interval(int(k), 200).high for k in hits])
    assert 0.935 < covered < 0.965


def test_wilson_of_nothing_and_of_nonsense() -> None:
    nothing = wilson_interval(0, 0)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high, nothing.n) == (0, 1, 0)
    for k, n, confidence in ((3, 2, 0.95), (-1, 2, 0.95), (1, 2, 0.0), (1, 2, 1.0)):
        with pytest.raises(ValueError):
            wilson_interval(k, n, confidence)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(0.5, 0.99))
def test_mean_interval_equals_scipy(values: list[float], confidence: float) -> None:
    interval = mean_interval(values, confidence)
    spread = np.std(values, ddof=1) / math.sqrt(len(values))
    half = t.ppf(0.5 + confidence / 2, len(values) - 1) * spread
    mean = float(np.mean(values))
    assert (interval.value, interval.low, interval.high) == pytest.approx((mean, mean - half, mean + half), abs=1e-6)


def test_mean_of_few_values_has_no_interval() -> None:
    assert math.isnan(mean_interval([]).value) and mean_interval([]).n == 0
    one = mean_interval([7])
    assert one.value == 7 and math.isnan(one.low) and math.isnan(one.high)


trials = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda won: st.tuples(st.just(won), st.integers(0, n - won), st.just(n)))
)


def score(d: float, won: int, lost: int, n: int) -> float:
    """The score statistic for a difference d, with the nuisance parameter found by maximising the likelihood numerically."""

    def minus_log_likelihood(q: float) -> float:
        shares = ((won, q + d), (lost, q), (n - won - lost, 1 - 2 * q - d))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in shares if count)

    q = minimize_scalar(minus_log_likelihood, bounds=(max(0.0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-12}).x
    return (won - lost - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize(("won", "lost", "n"), [(12, 2, 50), (40, 31, 224), (3, 0, 20), (0, 7, 30), (90, 4, 100), (1, 1, 8)])
def test_paired_bounds_solve_the_score_equation(won: int, lost: int, n: int) -> None:
    interval = paired_interval(won, lost, n)
    assert interval.value == (won - lost) / n
    assert score(interval.low, won, lost, n) == pytest.approx(1.959964, abs=2e-3)
    assert score(interval.high, won, lost, n) == pytest.approx(-1.959964, abs=2e-3)


@settings(max_examples=50)
@given(trials)
def test_paired_interval_leaves_out_zero_when_mcnemar_does(trial: tuple[int, int, int]) -> None:
    won, lost, n = trial
    interval = paired_interval(*trial)
    assert -1 <= interval.low <= interval.value <= interval.high <= 1 and interval.low < interval.high
    if won + lost:
        significant = (won - lost) ** 2 / (won + lost) > chi2.ppf(0.95, 1)
        assert (interval.low > 0 or interval.high < 0) == significant
    mirrored = paired_interval(lost, won, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-6)


def test_paired_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(100, [0.2, 0.05, 0.75], size=600)
    covered = np.mean(
        [paired_interval(int(w), int(x), 100).low <= 0.15 <= paired_interval(int(w), int(x), 100).high for w, x, _ in draws]
    )
    assert 0.92 < covered < 0.98


def test_without_any_difference_the_interval_has_the_width_of_wilsons() -> None:
    interval = paired_interval(0, 0, 200)
    assert (interval.high, -interval.low) == pytest.approx([wilson_interval(0, 200).high] * 2, abs=1e-6)


def test_gap_agrees_with_the_published_example() -> None:
    """56 of 70 against 48 of 80: method 10 in Newcombe's table II."""
    found = gap_interval(wilson_interval(56, 70), wilson_interval(48, 80))
    assert (round(found.value, 4), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)
    other = gap_interval(wilson_interval(48, 80), wilson_interval(56, 70))
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_sum_of_the_binomial(won: int, lost: int) -> None:
    n, most = won + lost, max(won, lost)
    tail = sum(math.comb(n, k) for k in range(most, n + 1)) / 2**n
    assert mcnemar(won, lost) == pytest.approx(min(1.0, 2 * tail))


def test_pairs_that_cannot_be_are_refused() -> None:
    assert math.isnan(paired_interval(0, 0, 0).value)
    for won, lost, n in ((2, 2, 3), (-1, 0, 3), (0, -1, 3)):
        with pytest.raises(ValueError):
            paired_interval(won, lost, n)
