"""The runs of a sweep: what is still to be done for each cell, done as processes of `genvla`, and written into MLflow."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import IO, Any

import yaml

from genvla.evaluation.results import write_atomically
from genvla.evaluation.sources import BEFORE, RESULTS, SUITES
from genvla.learning.grid import SEED, Cell, as_text, with_seed
from genvla.learning.sweep_display import SweepDisplay

GENVLA = (sys.executable, "-m", "genvla.cli")
STOPPED = {130: 130, 75: 75, -signal.SIGINT: 130, -signal.SIGTERM: 143}
"""Exit codes of a run that somebody stopped (75 is EX_TEMPFAIL: it wants to be started again), and the sweep's own then."""
BASELINE = "baseline"
PLACE = "cell.json"
"""In a cell's folder, once all is done for it: where it stands in the grid."""
LOOK_SECONDS = 2.0


class Cells:
    """Runs the cells of a sweep, as far as that has not been done.

    A process that runs a cell holds a lock on the cell's log, and so do those that it starts: where a sweep was killed and left a
    run behind, or another one works in the same folder, that run is waited for and not begun a second time.

    Args:
        cells: all of the sweep.
        output: its folder.
        suites: further evaluations, name to options of `genvla evaluate`.
        baseline: policy that the suites are evaluated with too.
        display: where progress shows.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        output: Path,
        suites: Mapping[str, dict[str, Any]],
        baseline: Path | None,
        display: SweepDisplay,
    ) -> None:
        self.cells = cells
        self.output = Path(output)
        self.suites = suites
        self.baseline = baseline
        self.display = display
        self.failures: dict[str, int] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = threading.Event()

    def run_dir(self, cell: Cell) -> Path:
        return self.output / "runs" / cell.name

    def run(self, jobs: int, only: Cell | None = None) -> dict[str, int]:
        """Runs all, `jobs` at a time, or one. Returns the exit codes of those that did not end well, by name."""
        from genvla.learning.cpu import keep_to_share_of_cores

        chosen = list(self.cells) if only is None else [only]
        parts = count()
        with (
            self._passing_on_sigterm(),
            ThreadPoolExecutor(jobs, initializer=lambda: keep_to_share_of_cores(next(parts), jobs)) as pool,
        ):
            try:
                if only is None and self.baseline is not None:
                    self._evaluate_baseline()
                list(pool.map(self._work, chosen))
            finally:
                self._stopping.set()
        return self.failures

    @property
    def stopped(self) -> int | None:
        """The exit code of a sweep that was stopped."""
        return next((STOPPED[code] for code in self.failures.values() if code in STOPPED), None)

    def _evaluate_baseline(self) -> None:
        log = self.output / "logs" / f"{BASELINE}.log"
        with self._locked(log, BASELINE) as file:
            for folder, options in self._baselines().items():
                if not (folder / RESULTS).is_file():
                    self.display.say(f"{BASELINE}: evaluating on {folder.name}, see {log}")
                    code = self._call(_evaluate(self.baseline, options, folder), file)
                    if code:
                        self._failed(BASELINE, code, log)
                        return

    def _baselines(self) -> dict[Path, dict[str, Any]]:
        """Options of the baseline's evaluations by their folders: one for each seed where the seed decides the episodes."""
        found = {}
        for suite in self.suites:
            for cell in self.cells:
                found[self._baseline_of(suite, cell)] = with_seed(self.suites[suite], cell.seed)
        return found

    def _baseline_of(self, suite: str, cell: Cell) -> Path:
        seeded = SEED in self.suites[suite].values()
        return self.output / BASELINE / (f"{suite}-seed{cell.seed}" if seeded else suite)

    def _work(self, cell: Cell) -> None:
        if self.stopped is not None:
            return
        log, start = self.output / "logs" / f"{cell.name}.log", perf_counter()
        with self._locked(log, cell.name) as file:
            if self._stopping.is_set():
                self.failures[cell.name] = -signal.SIGTERM
                return
            did = False
            for what, words in self._commands(cell):
                did = True
                self.display.begin(cell.name, f"{what}, see {log}", self.run_dir(cell))
                code = self._call(words, file, cell)
                if code == 0 and what != "evaluating" and not _finished(self.run_dir(cell)):
                    code = 1  # judged by nothing: evaluation.episodes is 0
                if code:
                    self._failed(cell.name, code, log)
                    return
            if did or self._incomplete(cell):
                self._complete(cell)
        self.display.end(cell.name, perf_counter() - start if did else None)

    def _failed(self, name: str, code: int, log: Path) -> None:
        self.failures[name] = code
        self.display.fail(name, "stopped" if code in STOPPED else f"failed with exit code {code}: {_last_line(log)}")

    def _commands(self, cell: Cell) -> Iterator[tuple[str, list[str]]]:
        """What is still to be called for a cell, with a word for it."""
        run = self.run_dir(cell)
        if not _finished(run):
            if (run / "config.yaml").is_file():
                yield "resuming", [*GENVLA, "fit", "--resume", str(run)]
            else:
                yield "training", [*GENVLA, "fit", *cell.arguments(), f"--run_dir={run}"]
        for suite, options in self.suites.items():
            folder = run / SUITES / suite
            if not (folder / RESULTS).is_file():
                yield "evaluating", _evaluate(run / "checkpoints" / "last", with_seed(options, cell.seed), folder)

    def _call(self, words: Sequence[str], log: IO[str], cell: Cell | None = None) -> int:
        log.write(f"$ {shlex.join(words)}\n")
        log.flush()
        with subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
            self._running.add(process)
            while True:
                try:
                    code = process.wait(LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if cell is not None:
                        self.display.look(cell.name)
        self._running.discard(process)
        return code

    @contextmanager
    def _locked(self, log: Path, name: str) -> Iterator[IO[str]]:
        """The log, once no other process works on what it belongs to."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            told = False
            while not self._stopping.is_set():
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        self.display.say(f"{name}: another process is at it; waiting for that")
                    told = True
                    self._stopping.wait(LOOK_SECONDS)
            yield file

    @contextmanager
    def _passing_on_sigterm(self) -> Iterator[None]:
        """What a scheduler sends to the sweep reaches the runs, which save and stop."""

        def pass_on(number: int, _: Any) -> None:
            self._stopping.set()
            for process in list(self._running):
                process.send_signal(number)

        before = signal.signal(signal.SIGTERM, pass_on)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _incomplete(self, cell: Cell) -> bool:
        run = self.run_dir(cell)
        missing = [s for s in self.suites if self._has_baseline(s, cell) and not (run / SUITES / s / BEFORE).is_file()]
        return bool(missing) or not (run / PLACE).is_file()

    def _has_baseline(self, suite: str, cell: Cell) -> bool:
        return self.baseline is not None and (self._baseline_of(suite, cell) / RESULTS).is_file()

    def _complete(self, cell: Cell) -> None:
        """Puts the baseline beside the cell's evaluations, and adds to the run in MLflow its place in the grid, as tags, and the
        evaluations episode by episode."""
        import torch

        from genvla.learning.checkpoints import TRAINING_STATE
        from genvla.learning.tracking import NO_TRACKING, Tracker

        run = self.run_dir(cell)
        for suite in self.suites:
            if self._has_baseline(suite, cell):
                shutil.copyfile(self._baseline_of(suite, cell) / RESULTS, run / SUITES / suite / BEFORE)
        tracking = tracking_of(run)
        state = torch.load(run / "checkpoints" / "last" / TRAINING_STATE, weights_only=True, mmap=True, map_location="cpu")
        run_id = state["tracker"].get("run_id")
        place = {"sweep": self.output.name, "cell": cell.name, "group": cell.group}
        axes = {re.sub(r"[^\w. /-]", "_", axis): label for axis, label in cell.labels.items()}
        if run_id is not None and tracking.get("uri") != NO_TRACKING:
            with Tracker(
                run, tracking.get("experiment", "genvla"), tracking_uri=tracking.get("uri"), resume_id=run_id
            ) as tracker:
                tracker.set_tags({**place, **axes})
                for folder in ("evaluation", SUITES):
                    if (run / folder).is_dir():
                        tracker.log_artifact(run / folder, folder)
        write_atomically(run / PLACE, json.dumps({**place, "axes": cell.labels}, indent=2) + "\n")


def tracking_of(run: Path) -> dict[str, Any]:
    """Where a run is recorded, as its configuration says."""
    return (yaml.safe_load((run / "config.yaml").read_text()) or {}).get("tracking") or {}


def _evaluate(checkpoint: Path | None, options: Mapping[str, Any], folder: Path) -> list[str]:
    words = [f"--{name}={as_text(value)}" for name, value in options.items()]
    return [*GENVLA, "evaluate", f"--checkpoint={checkpoint}", *words, f"--output={folder}"]


def _finished(run: Path) -> bool:
    """`genvla fit` writes its results last."""
    return (run / RESULTS).is_file()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
