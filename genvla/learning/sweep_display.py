"""How a sweep shows that it gets on: which run of how many, how far it is, and how long the rest will take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

TAIL = 1 << 17
"""Bytes at the end of a file of metrics in which its last line is looked for."""


class SweepDisplay:
    """A line whenever a run begins or ends; on a terminal also a bar for the sweep and one for each run at work.

    Args:
        names: of all runs, in their order.
        jobs: runs at a time.
        console: where it shows.
    """

    def __init__(self, names: Sequence[str], jobs: int, console: Console) -> None:
        self.console = console
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._jobs = jobs
        self._left = set(names)
        self._took: list[float] = []
        self._runs: dict[str, tuple[Path, TaskID]] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._all = self._bars.add_task("sweep", total=len(names), note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True, highlight=False)

    def begin(self, name: str, what: str, run: Path) -> None:
        """A run begins or goes on with something else."""
        self.say(f"{self._place(name)}: {what}")
        if name not in self._runs:
            self._runs[name] = (run, self._bars.add_task(name, total=None, note=""))

    def look(self, name: str) -> None:
        """Shows how far a run's training is."""
        if self._bars.disable:
            return
        run, task = self._runs[name]
        row, total = last_row(run), iterations_of(run)
        if row:
            success = row.get("rollout/success")
            note = "" if success is None else f"success {100 * success:.0f} %"
            self._bars.update(task, completed=row["step"], total=total, note=note)

    def end(self, name: str, seconds: float | None) -> None:
        """A run is done; in no time where it was done before."""
        if seconds is not None:
            self._took.append(seconds)
        self._leave(name)
        if seconds is None:
            self.say(f"{self._place(name)}: finished before")
        else:
            self.say(f"{self._place(name)}: done in {seconds / 60:.1f} min{self._rest()}")

    def fail(self, name: str, how: str) -> None:
        self._leave(name)
        self.say(f"{self._place(name)}: {how}")

    def _place(self, name: str) -> str:
        return f"[{self._numbers[name]}/{len(self._numbers)}] {name}" if name in self._numbers else name

    def _leave(self, name: str) -> None:
        self._left.discard(name)
        if name in self._runs:
            self._bars.remove_task(self._runs.pop(name)[1])
        self._bars.update(self._all, completed=len(self._numbers) - len(self._left), note=self._rest())

    def _rest(self) -> str:
        if not self._left or not self._took:
            return ""
        seconds = sum(self._took) / len(self._took) * len(self._left) / self._jobs
        how_long = f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.0f} min"
        return f"; {len(self._left)} left, at most about {how_long}"


def last_row(run: Path) -> dict[str, Any]:
    """The newest metrics of a run that may be writing them; empty where there are none yet."""
    path = run / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]  # what stands behind the last newline is being written
        return json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}


def iterations_of(run: Path) -> int | None:
    """How many iterations a run will train; None where it goes by time, or has not begun."""
    try:
        return yaml.safe_load((run / "config.yaml").read_text())["training"]["iterations"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
