from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from genvla.evaluation.statistics import mean_interval, wilson_interval

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
