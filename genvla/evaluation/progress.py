"""How episodes, evaluated or demonstrated, show that they get on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

LINES = 10
"""Lines that a whole evaluation prints where there is no terminal to draw a bar on."""


@contextmanager
def progress_bar(total: int, console: Console, what: str = "episodes") -> Iterator[Callable[[bool], None]]:
    """A function to call with each finished episode's success.

    It moves a bar with the success so far, or prints a line now and then.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from torchmetrics.aggregation import MeanMetric

    success = MeanMetric(sync_on_compute=False)  # only one process evaluates
    done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)

        def advance(succeeded: bool) -> None:
            nonlocal done
            done += 1
            success.update(float(succeeded))
            so_far = f"success {100 * float(success.compute()):.0f} %"
            bar.update(task, advance=1, description=so_far)
            if not console.is_terminal and done * LINES // total > (done - 1) * LINES // total:
                console.print(f"{done}/{total} {what}, {so_far}")

        yield advance
