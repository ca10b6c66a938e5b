"""Intervals for the two kinds of numbers an evaluation reports: shares of episodes, and means over episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """An estimate from n observations and its confidence interval [low, high]."""

    value: float
    low: float
    high: float
    n: int


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The share of successes in n independent trials with its score interval; (nan, 0, 1) when n is 0.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927): the shares p for which
    |p_hat - p| <= z sqrt(p (1 - p) / n). In closed form, centre (p_hat + z^2 / 2n) / (1 + z^2 / n) and half width
    z / (1 + z^2 / n) sqrt(p_hat (1 - p_hat) / n + z^2 / 4n^2). Unlike the normal interval it stays within [0, 1] and
    has a width at 0 and at n successes.

    The trials are the episodes, so for a fixed set of scenes it tells how well the success on *these* scenes is known.

    Raises:
        ValueError: if not 0 <= successes <= n, or confidence is not within (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    z = _two_sided_quantile(confidence)
    if n == 0:
        return Interval(float("nan"), 0.0, 1.0, 0)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The bounds touch 0 and 1 exactly at no and at only successes; rounding must not push them past the share.
    low = 0.0 if successes == 0 else max(0.0, min(centre - half, share))
    high = 1.0 if successes == n else min(1.0, max(centre + half, share))
    return Interval(share, low, high, n)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values with Student's interval, mean +- t_{n-1} s / sqrt(n) (W. S. Gosset, Biometrika 6, 1908).

    (nan, nan, nan) when there is no value; a single value has no known spread, so its bounds are nan.
    """
    _two_sided_quantile(confidence)
    n = len(values)
    nan = float("nan")
    if n == 0:
        return Interval(nan, nan, nan, 0)
    mean = fsum(values) / n
    if n == 1:
        return Interval(mean, nan, nan, 1)
    from scipy.stats import t

    deviation = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.5 + confidence / 2, n - 1)) * deviation / sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def _two_sided_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def paired_interval(won: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """The difference of two shares of success on the same n trials, with its score interval; (nan, -1, 1) when n is 0.

    T. Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design, Statistics
    in Medicine 17 (1998): the differences d for which |won - lost - n d| <= z sqrt(n (2 q + d (1 - d))), where q is the most
    likely share of lost trials if the difference were d, the larger root of
    2 n q^2 + ((2 n - won + lost) d - won - lost) q - lost d (1 - d). It is to paired trials what Wilson's interval is to one
    sample: it has a width when no trial tells the two apart, and leaves out 0 exactly when McNemar's test without continuity
    correction finds a difference.

    Args:
        won: trials that the second succeeded in and the first did not.
        lost: trials that the first succeeded in and the second did not.
        n: all trials, those that both or neither succeeded in included.

    Raises:
        ValueError: if won or lost is negative or they are more than n, or confidence is not within (0, 1).
    """
    if won < 0 or lost < 0 or won + lost > n:
        raise ValueError(f"{won} won and {lost} lost of {n} trials")
    z = _two_sided_quantile(confidence)
    if n == 0:
        return Interval(float("nan"), -1.0, 1.0, 0)
    from scipy.optimize import brentq

    def excess(d: float) -> float:
        linear = (2 * n - won + lost) * d - won - lost
        q = (sqrt(max(0.0, linear * linear + 8 * n * lost * d * (1 - d))) - linear) / (4 * n)
        return (won - lost - n * d) ** 2 - z * z * n * (2 * q + d * (1 - d))

    found = (won - lost) / n
    bounds = []
    for end in (-1.0, 1.0):
        start = found + 1e-9 * end  # at `found` itself the excess is 0 where no trial tells the two apart
        inside = -1 < start < 1 and excess(start) < 0
        bounds.append(float(brentq(excess, start, end)) if inside else found)
    return Interval(found, bounds[0], bounds[1], n)


def gap_interval(one: Interval, other: Interval) -> Interval:
    """The first share less the second, of independent trials, from their Wilson intervals.

    R. G. Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17 (1998),
    method 10: with shares p, q, their difference d and their bounds, the interval from d - sqrt((p - p_low)^2 + (q_high - q)^2)
    to d + sqrt((p_high - p)^2 + (q - q_low)^2).
    """
    d = one.value - other.value
    below = sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)
    above = sqrt((one.high - one.value) ** 2 + (other.value - other.low) ** 2)
    return Interval(d, d - below, d + above, min(one.n, other.n))


def mcnemar(won: int, lost: int) -> float:
    """How likely a difference of at least this size is by chance: the exact two-sided p of McNemar's test (Q. McNemar,
    Psychometrika 12, 1947), that of `won` heads in won + lost throws of a fair coin; 1 where there is none."""
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
