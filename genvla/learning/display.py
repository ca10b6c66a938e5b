"""How a training run shows that it gets on: a bar on a terminal, a line per iteration elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from genvla.learning.loop import Loop
from genvla.policy.finetuning import Finetuning


class TrainingDisplay:
    """Iteration, success of rollouts and evaluations, speed and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("training", total=1.0, left="")
        self._evaluated = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def iteration(self, loop: Loop, metrics: dict[str, Any]) -> None:
        """Shows a finished iteration."""
        done = progress_of(loop)
        text = f"iteration {loop.iteration}" + (f"/{loop.config.iterations}" if loop.config.iterations else "")
        text = "  ".join([text, *self._words(metrics)])
        left = loop.seconds * (1 - done) / done if done else 0.0
        self._bar.update(self._task, completed=done, description=text, left=f"{clock(left)} left")
        if not self._console.is_terminal:
            self._console.print(f"{text}  {clock(loop.seconds)} gone, {clock(left)} left", soft_wrap=True)

    def _words(self, metrics: dict[str, Any]) -> list[str]:
        words = []
        if "success" in metrics.get("rollout", {}):
            words.append(f"rollout success {100 * metrics['rollout']['success']:.1f} %")
        if "evaluation" in metrics:
            shares = (f"{name} {100 * values['success_once']:.1f} %" for name, values in metrics["evaluation"].items())
            self._evaluated = "evaluation " + ", ".join(shares)
        if self._evaluated:
            words.append(self._evaluated)
        words.append(f"loss {metrics['update'].get('loss', float('nan')):.4f}")
        if "env_steps_per_s" in metrics["speed"]:
            words.append(f"{metrics['speed']['env_steps_per_s']:.0f} env steps/s")
        return words


def parameter_table(counts: Mapping[str, Mapping[str, int]], finetuning: Finetuning) -> Table:
    """How each part of a policy trains, and with how many parameters; `counts` as count_parameters gives them."""
    table = Table(box=box.SIMPLE, title="what trains")
    table.add_column("part")
    table.add_column("mode")
    for column in ("trainable", "of which adapters", "parameters"):
        table.add_column(column, justify="right")
    for part, count in counts.items():
        mode = finetuning.parts.get(part, "full")
        table.add_row(part, mode, *(f"{count[kind]:,}" for kind in ("trainable", "adapters", "total")))
    sums = (sum(count[kind] for count in counts.values()) for kind in ("trainable", "adapters", "total"))
    table.add_row("all", "", *(f"{number:,}" for number in sums), style="bold")
    return table


def progress_of(loop: Loop) -> float:
    """The share of the run that is done, by whichever limit is nearer."""
    config = loop.config
    shares = [loop.iteration / config.iterations] if config.iterations else []
    shares += [loop.seconds / config.max_seconds] if config.max_seconds else []
    return min(1.0, max(shares, default=1.0))


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
