"""The statistics that a lerobot dataset keeps of each column, for every episode and for all together.

Exact, of all pictures and all rows. (lerobot itself estimates: from some of the pictures, and the quantiles of all from those of
the episodes.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Column = dict[str, list[Any]]
"""Statistic by name: min, max, mean, std, count and the quantiles."""


def of_rows(values: Float[np.ndarray, "t d"]) -> Column:
    """Of each entry of a vector."""
    values = np.asarray(values, dtype=np.float64)
    moments = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    quantiles = dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))
    return {name: value.tolist() for name, value in (moments | quantiles).items()} | {"count": [len(values)]}


def histogram(images: UInt8[np.ndarray, "t h w 3"]) -> Int[np.ndarray, "3 256"]:
    """How often each level occurs in each channel; histograms of episodes add up to that of all."""
    return np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])


def of_pictures(levels: Int[np.ndarray, "3 256"], count: int) -> Column:
    """Of each channel, from 0 to 1, as [3, 1, 1]. A quantile is the least level that so large a share does not exceed.

    count: pictures.
    """
    share = levels / levels.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    variance = ((values - mean[:, None]) ** 2 * share).sum(axis=1)
    there = levels > 0
    least, most = there.argmax(axis=1), 255 - there[:, ::-1].argmax(axis=1)
    below = share.cumsum(axis=1)
    columns = {"min": values[least], "max": values[most], "mean": mean, "std": np.sqrt(variance)}
    for name, quantile in QUANTILES.items():
        columns[name] = values[(below >= quantile - 1e-12).argmax(axis=1)]
    return {name: column.reshape(3, 1, 1).tolist() for name, column in columns.items()} | {"count": [count]}


def flat(columns: dict[str, Column]) -> dict[str, Any]:
    """As the table of episodes names them."""
    return {f"stats/{name}/{statistic}": value for name, column in columns.items() for statistic, value in column.items()}


def joined(parts: Sequence[np.ndarray]) -> Float[np.ndarray, "t d"]:
    """Rows of several episodes; scalars become vectors of one."""
    whole = np.concatenate(list(parts))
    return whole.reshape(len(whole), -1)
