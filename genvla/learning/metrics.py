"""Metrics of updates: put together from parts, averaged, and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 1000.0
"""Root mean square of log pi / pi_old, in nats per decision, beyond which a policy is lost: with sigma 0.1, each of the 28
dimensions then lies 0.8 from where it was, in a range of 2. Runs that collapsed showed 7."""


def combined(outputs: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The metrics of a minibatch from those of its micro-batches, which hold such shares of its rows.

    Metrics whose names end so are minima, maxima, root mean squares; standard deviations, whose means go by the same name with
    _mean; all others are means.
    """

    def mean(values: Tensor) -> Tensor:
        return (values.new_tensor(shares) * values).sum()

    stacked = {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}
    result = {}
    for name, values in stacked.items():
        stem, _, kind = name.rpartition("_")
        if kind in ("min", "max"):
            result[name] = values.amin() if kind == "min" else values.amax()
        elif kind == "rms":
            result[name] = mean(values.square()).sqrt()
        elif kind == "std":
            centres = stacked.get(f"{stem}_mean", torch.zeros_like(values))
            result[name] = (mean(values.square()) + mean((centres - mean(centres)).square())).sqrt()
        else:
            result[name] = mean(values)
    return result


class Means:
    """Means of metrics over updates; the extremes of those that say so in their name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value)

    def result(self) -> dict[str, float]:
        reduce: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}
        return {
            name: reduce.get(name.rpartition("_")[2], lambda values: sum(values) / len(values))(values)
            for name, values in self._values.items()
        }


def diagnosis(metrics: Mapping[str, float]) -> str | None:
    """What is wrong with an update, in words; None where nothing is.

    Wrong are losses and gradient norms that are not finite, and a policy LOG_RATIO_LIMIT away from the one that collected.
    """
    judged = {name: value for name, value in metrics.items() if name.endswith("loss") or name.startswith("grad_norm")}
    broken = [name for name, value in judged.items() if not math.isfinite(value)]
    distance = metrics.get("log_ratio_rms", 0.0)
    if not broken and distance <= LOG_RATIO_LIMIT:
        return None
    parts = {name.removeprefix("grad_norm_"): v for name, v in judged.items() if name.startswith("grad_norm_")}
    words = [f"{', '.join(broken)} not finite"] if broken else [f"log_ratio_rms above {LOG_RATIO_LIMIT:g}: the policy is lost"]
    words += ["losses " + ", ".join(f"{name} {value:.4g}" for name, value in judged.items() if name.endswith("loss"))]
    words += [f"log_ratio_rms {distance:.4g}"] if "log_ratio_rms" in metrics else []
    words += ["gradient norms " + ", ".join(f"{part} {value:.4g}" for part, value in parts.items())] if parts else []
    return "; ".join(words)
