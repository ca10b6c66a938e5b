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
