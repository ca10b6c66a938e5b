"""Where the 200 ms of a control step go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genvla.types import CONTROL_HZ

if TYPE_CHECKING:
    from rich.table import Table

STEP = 1 / CONTROL_HZ
"""Seconds of a control step, in which all work of the step must be done."""

STAGES = ("camera", "policy", "arm", "step")
"""camera: taking a picture and checking it. policy: the decision, the way to a server included, or what is left of it when it was
prefetched. arm: reading it, inverse kinematics, safety and the command. step: all of a control step's work, waiting left out."""


@dataclass
class Deadlines:
    """Durations by stage, in seconds, and the control steps whose work took longer than the step."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missed: int = 0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Takes the time of a block, whatever it raises."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage].append(time.perf_counter() - started)

    def step(self, seconds: float) -> None:
        """Counts a control step whose work took so long."""
        self.seconds["step"].append(seconds)
        self.missed += seconds > STEP

    @property
    def steps(self) -> int:
        return len(self.seconds["step"])

    def add(self, other: Deadlines) -> None:
        """Takes over what another run measured."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds
        self.missed += other.missed

    def summary(self) -> dict[str, Any]:
        """Milliseconds p50, p95 and max of each stage, and the misses."""
        stages = {
            stage: dict(zip(("p50_ms", "p95_ms", "max_ms"), _percentiles(self.seconds[stage]), strict=True))
            for stage in STAGES
            if self.seconds[stage]
        }
        return {"stages": stages, "steps": self.steps, "missed": self.missed}

    def table(self, real_time: bool = True) -> Table:
        """For the terminal. Where time stands still while the policy thinks there is nothing to miss."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        title = f"{self.missed} of {self.steps} control steps missed their {1000 * STEP:.0f} ms"
        if not real_time:
            title = f"{self.steps} control steps in simulated time, which these durations do not delay"
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("stage")
        for column in ("n", "p50 [ms]", "p95 [ms]", "max [ms]"):
            table.add_column(column, justify="right")
        for stage in STAGES:
            if self.seconds[stage]:
                table.add_row(stage, str(len(self.seconds[stage])), *(f"{ms:.1f}" for ms in _percentiles(self.seconds[stage])))
        return table


def _percentiles(seconds: list[float]) -> list[float]:
    return [1000 * float(value) for value in np.percentile(seconds, (50, 95, 100))]
