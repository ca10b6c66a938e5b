"""What a build shows while it runs: a live table in a terminal, a line for each event elsewhere."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, get_args

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scenegen.schema import BuildEvent, Stage

RECENT = 6
COLOURS = {"accepted": "green", "retry": "yellow", "rejected": "red"}


class BuildDisplay:
    """Tell it what happens; use it as a context manager around the run.

    `total`: scenes wanted. `console`: by default stderr. `verbose=False` shows nothing. `clock` gives seconds; it is there for
    tests. Methods are to be called from one thread. Attempts are counted from 0 in events and from 1 for people.
    """

    def __init__(
        self, total: int, console: Console | None = None, verbose: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total = total
        self._console = console or Console(stderr=True)
        self._verbose = verbose
        self._clock = clock
        self._start = clock()
        self._running: dict[str, str] = {}
        self._outcomes: Counter[str] = Counter()
        self._retrying: set[str] = set()
        self._stages: dict[str, list[float]] = defaultdict(list)
        self._spent: dict[str, float] = defaultdict(float)
        self._usd = 0.0
        self._recent: deque[Text] = deque(maxlen=RECENT)
        live = verbose and self._console.is_terminal
        self._live = Live(get_renderable=self.render, console=self._console, refresh_per_second=4) if live else None

    def __enter__(self) -> Self:
        self._start = self._clock()
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def started(self, scene_id: str) -> None:
        """An attempt at a scene begins."""
        self._running[scene_id] = "start"

    def stage(self, scene_id: str, stage: str) -> None:
        """A scene has come to a stage."""
        self._running[scene_id] = stage

    def reused(self, scene_id: str) -> None:
        """A scene is there from an earlier run."""
        self._running.pop(scene_id, None)
        self._outcomes["reused"] += 1
        self._say(Text.assemble(scene_id, ": ", ("already there", "dim")))

    def finished(self, event: BuildEvent) -> None:
        """An attempt has ended."""
        scene = event.scene_id
        self._running.pop(scene, None)
        self._outcomes[event.outcome] += 1
        self._usd += event.usd
        self._spent[scene] += sum(event.seconds.values())
        for stage, seconds in event.seconds.items():
            self._stages[stage].append(seconds)
        (self._retrying.add if event.outcome == "retry" else self._retrying.discard)(scene)
        self._say(self._line(event))

    def _line(self, event: BuildEvent) -> Text:
        reasons = "; ".join(event.reasons) or "no reason given"
        tries = f" (attempt {event.attempt + 1})" if event.attempt else ""
        if event.outcome == "accepted":
            said = f" in {self._spent[event.scene_id]:.1f} s{tries}"
        elif event.outcome == "rejected":
            said = f": {reasons}{tries}"
        else:
            said = f" after attempt {event.attempt + 1}{f' ({event.stage})' if event.stage else ''}: {reasons}"
        word = "tried again" if event.outcome == "retry" else event.outcome
        return Text.assemble(f"{event.scene_id}: ", (word, COLOURS[event.outcome]), said)

    def _say(self, line: Text) -> None:
        self._recent.append(line)
        if self._verbose and not self._live:
            self._console.print(line, soft_wrap=True)

    @property
    def done(self) -> int:
        """Scenes that are decided."""
        return self._outcomes["accepted"] + self._outcomes["rejected"] + self._outcomes["reused"]

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first scene is decided. Scenes found ready do not count for the pace."""
        made = self._outcomes["accepted"] + self._outcomes["rejected"]
        if not made:
            return None
        return (self._clock() - self._start) / made * max(0, self._total - self.done)

    def render(self) -> Group:
        """The table as it is now."""
        return Group(self._head(), self._stage_table(), *(_cut(line) for line in self._recent))

    def _head(self) -> Table:
        head = Table.grid(padding=(0, 2))
        left = self.seconds_left
        end = f"{_span(left)} left" if left is not None else "time left not known yet"
        head.add_row(
            Text(f"{self.done} of {self._total} scenes", style="bold"),
            ProgressBar(total=max(1, self._total), completed=self.done, width=30),
            Text(f"{_span(self._clock() - self._start)}, {end}"),
        )
        facts = Table.grid(padding=(0, 2))
        judged = self._outcomes["accepted"] + self._outcomes["rejected"]
        rate = f"{self._outcomes['accepted'] / judged:.0%} accepted" if judged else "none judged"
        facts.add_row(
            Text(f"{self._outcomes['accepted']} accepted", style="green"),
            Text(f"{self._outcomes['rejected']} rejected", style="red"),
            Text(f"{len(self._retrying)} retrying", style="yellow"),
            Text(f"{self._outcomes['reused']} already there", style="dim"),
            Text(rate),
            Text(f"${self._usd:.2f}"),
        )
        both = Table.grid()
        both.add_row(head)
        both.add_row(facts)
        return both

    def _stage_table(self) -> Table:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for title in ("stage", "now", "done", "mean s"):
            table.add_column(title, justify="left" if title == "stage" else "right")
        now = Counter(self._running.values())
        known = [*get_args(Stage), *sorted((set(self._stages) | set(now)) - set(get_args(Stage)) - {"start"})]
        for stage in known:
            times = self._stages.get(stage, [])
            mean = f"{sum(times) / len(times):.2f}" if times else "–"
            table.add_row(Text(stage), str(now[stage] or "–"), str(len(times)), mean)
        return table


def _cut(line: Text) -> Text:
    """A line that keeps to one line of the terminal."""
    line = line.copy()
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _span(seconds: float) -> str:
    """Hours, minutes and seconds, as few as it takes: 1 h 05 min, 2 min 10 s, 9 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
