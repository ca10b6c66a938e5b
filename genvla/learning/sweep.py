"""`genvla sweep`: a grid of configurations and seeds, one training run for each, and the comparison of them all."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation.results import write_atomically
from genvla.evaluation.sources import RESULTS, SUITES
from genvla.learning.grid import Cell, as_text, make_cells, with_seed

if TYPE_CHECKING:
    from genvla.evaluation.comparison import Group

GENVLA = (sys.executable, "-m", "genvla.cli")
STOPPED = {130: 130, 75: 75, -signal.SIGINT: 130, -signal.SIGTERM: 143}
"""Exit codes of a run that somebody stopped (75 is EX_TEMPFAIL: it wants to be started again), and the sweep's own then."""


_running: set[subprocess.Popen[bytes]] = set()


def sweep(
    base: list[Path],
    axes: dict[str, Any],
    output: Path,
    seeds: list[int] = [0],  # noqa: B006  (read only)
    options: dict[str, Any] = {},  # noqa: B006  (read only)
    suites: dict[str, dict[str, Any]] = {},  # noqa: B006  (read only)
    reference: str | None = None,
    unpaired: bool = False,
    jobs: int = 1,
    only: str | None = None,
    dry_run: bool = False,
    slurm: Path | None = None,
) -> int:
    """Train every cell of a grid of configurations and seeds, evaluate each, and compare them.

    The same command goes on where it stopped: finished cells are left alone, interrupted ones resumed, failed ones tried again.

    Args:
        base: Configuration files of `genvla fit` that all cells share, the later over the earlier.
        axes: What varies. An option of fit with a list of its values, or a name of your own with labelled entries: each the path
            of a configuration file, or options with their values. "{seed}" in a value is the cell's seed.
        output: Folder: runs/<cell> for each run, logs/<cell>.log with what it printed, comparison/.
        seeds: Seeds that each combination is run with.
        options: Options of fit for all cells.
        suites: Further evaluations of every trained policy: name to options of `genvla evaluate`.
        reference: Group that the others are compared with, or how its name begins; by default the first.
        unpaired: Show groups that were evaluated on other scenes side by side, without differences, instead of refusing.
        jobs: Cells that run at a time.
        only: Run this cell alone, by name or number from 0, and compare nothing: for job arrays.
        dry_run: Show the cells and what they call, and run nothing.
        slurm: Write a Slurm array script with a task for each cell to this file, and run nothing.

    Returns:
        The exit code: 0, 1 when a cell failed, that of the stopped cell when one was stopped.

    Raises:
        UserError: the grid is empty or contradicts itself, or the output folder holds another sweep's cells.
    """
    console = Console()
    cells = list(make_cells(base, axes, seeds, options))
    if jobs < 1:
        raise UserError(f"jobs: {jobs} found, at least 1 wanted")
    if dry_run:
        for number, cell in enumerate(cells):
            console.print(f"{number} {cell.name}: genvla fit {shlex.join(cell.arguments())}", soft_wrap=True, highlight=False)
        return 0
    _check_options(cells[0])
    _claim(cells, output)
    if slurm is not None:
        definition = {"base": [str(path) for path in base], "axes": axes, "seeds": seeds, "options": options, "suites": suites}
        write_slurm(
            {**definition, "reference": reference, "unpaired": unpaired, "output": str(output)}, len(cells), output, slurm
        )
        console.print(f"written to {slurm}: {len(cells)} tasks; start them with: sbatch {slurm}", soft_wrap=True)
        return 0
    chosen = cells if only is None else [_chosen(cells, only)]
    failures = _run_all(chosen, output, suites, jobs, console)
    stopped = [STOPPED[code] for code in failures.values() if code in STOPPED]
    if stopped:
        console.print("stopped; the same command goes on")
        return stopped[0]
    if only is None:
        _compare(cells, failures, output, reference, unpaired, console)
    return 1 if failures else 0


def _run_all(
    cells: Sequence[Cell], output: Path, suites: dict[str, dict[str, Any]], jobs: int, console: Console
) -> dict[str, int]:
    """Runs the cells, `jobs` at a time. Returns the exit codes of those that did not end well."""
    failures: dict[str, int] = {}

    def work(number: int) -> None:
        cell = cells[number]
        if STOPPED.keys() & failures.values():
            return
        place, start = f"[{number + 1}/{len(cells)}] {cell.name}", perf_counter()
        todo = list(_commands(cell, output, suites))
        if not todo:
            console.print(f"{place}: finished before", markup=False)
        for what, words in todo:
            log = output / "logs" / f"{cell.name}.log"
            console.print(f"{place}: {what}, see {log}", markup=False, soft_wrap=True)
            code = _call(words, log)
            if code == 0 and what != "evaluating" and not _finished(_run_dir(cell, output)):
                code = 1  # judged by nothing: evaluation.episodes is 0
            if code:
                failures[cell.name] = code
                how = "stopped" if code in STOPPED else f"failed with exit code {code}: {_last_line(log)}"
                console.print(f"{place}: {how}", markup=False, soft_wrap=True)
                return
        if todo:
            _complete_record(cell, output)
            console.print(f"{place}: done in {(perf_counter() - start) / 60:.1f} min", markup=False)

    with _passing_on_sigterm(), ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(len(cells))))
    return failures


def _commands(cell: Cell, output: Path, suites: dict[str, dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """What is still to be called for a cell, with a word for it."""
    run = _run_dir(cell, output)
    if not _finished(run):
        if (run / "config.yaml").is_file():
            yield "resuming", [*GENVLA, "fit", "--resume", str(run)]
        else:
            yield "training", [*GENVLA, "fit", *cell.arguments(), f"--run_dir={run}"]
    for suite, options in suites.items():
        folder = run / SUITES / suite
        if not (folder / RESULTS).is_file():
            words = [f"--{name}={as_text(value)}" for name, value in with_seed(options, cell.seed).items()]
            checkpoint = run / "checkpoints" / "last"
            yield "evaluating", [*GENVLA, "evaluate", f"--checkpoint={checkpoint}", *words, f"--output={folder}"]


def _call(words: Sequence[str], log: Path) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(f"$ {shlex.join(words)}\n")
        file.flush()
        with subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
            _running.add(process)
            code = process.wait()
        _running.discard(process)
    return code


@contextmanager
def _passing_on_sigterm() -> Iterator[None]:
    """What a scheduler sends to the sweep reaches the runs, which save and stop."""

    def pass_on(number: int, _: Any) -> None:
        for process in list(_running):
            process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(
    cells: Sequence[Cell], failures: dict[str, int], output: Path, reference: str | None, unpaired: bool, console: Console
) -> None:
    from genvla.evaluation.compare import write_comparison
    from genvla.evaluation.comparison import Group
    from genvla.evaluation.sources import read_run

    members: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.name not in failures:
            members.setdefault(cell.group, []).append(cell)
    groups: list[Group] = [
        Group(name, tuple(read_run(_run_dir(cell, output)) for cell in some)) for name, some in members.items()
    ]
    if failures:
        console.print(f"failed: {', '.join(failures)}", markup=False, soft_wrap=True)
    if len(groups) < 2:
        console.print("nothing to compare: fewer than two groups are finished")
        return
    tracking = _tracking(_run_dir(members[groups[0].name][0], output))
    write_comparison(
        groups,
        output / "comparison",
        console,
        reference=reference,
        unpaired=unpaired,
        mlflow=tracking.get("uri") or "default",
        experiment=tracking.get("experiment", "genvla"),
        name=f"{output.name} comparison",
    )


def _complete_record(cell: Cell, output: Path) -> None:
    """Adds to the run in MLflow where it stands in the grid, as tags, and its evaluations episode by episode."""
    import torch

    from genvla.learning.checkpoints import TRAINING_STATE
    from genvla.learning.tracking import NO_TRACKING, Tracker

    run = _run_dir(cell, output)
    tracking = _tracking(run)
    state = torch.load(run / "checkpoints" / "last" / TRAINING_STATE, weights_only=True, mmap=True, map_location="cpu")
    run_id = state["tracker"].get("run_id")
    if run_id is None or tracking.get("uri") == NO_TRACKING:
        return
    tags = {"sweep": output.name, "cell": cell.name, "group": cell.group}
    axes = {re.sub(r"[^\w. /-]", "_", axis): label for axis, label in cell.labels.items()}
    with Tracker(run, tracking.get("experiment", "genvla"), tracking_uri=tracking.get("uri"), resume_id=run_id) as tracker:
        tracker.set_tags({**tags, **axes})
        for folder in ("evaluation", SUITES):
            if (run / folder).is_dir():
                tracker.log_artifact(run / folder, folder)


def write_slurm(definition: dict[str, Any], tasks: int, output: Path, script: Path) -> None:
    """The sweep as one YAML file in its folder, and a script whose array tasks run a cell each."""
    file = output / "sweep.yaml"
    write_atomically(file, yaml.safe_dump(definition, sort_keys=False))
    command = shlex.join([*GENVLA, "sweep", "--config", str(file)])
    write_atomically(
        script,
        f"""#!/bin/bash
# The cells of {output}. Resources are yours to add, here or on the command line: sbatch --gres=gpu:1 --cpus-per-task=16 {script}
# A task that is preempted, killed or out of time goes on from its last checkpoint when the script is submitted again.
#SBATCH --job-name={output.name}
#SBATCH --array=0-{tasks - 1}
#SBATCH --output={output}/logs/slurm-%A_%a.log
#SBATCH --requeue
#SBATCH --open-mode=append
cd {shlex.quote(str(Path.cwd()))}
{command} --only "$SLURM_ARRAY_TASK_ID"
# When all are done, the same without --only finds them finished and compares them:
#   {command}
""",
    )
    (output / "logs").mkdir(parents=True, exist_ok=True)


def _claim(cells: Sequence[Cell], output: Path) -> None:
    """Writes down what each cell is, or finds it written down.

    Raises:
        UserError: the folder has a cell of the same name that was something else.
    """
    file = Path(output) / "cells.json"
    known: dict[str, Any] = {}
    if file.is_file():
        try:
            known = json.loads(file.read_text())
        except ValueError as error:
            raise UserError(f"{file}: not JSON ({error}), want what `genvla sweep` wrote") from error
    now = {cell.name: {"arguments": cell.arguments(), **asdict(cell)} for cell in cells}
    for name, entry in now.items():
        was = known.get(name, {}).get("arguments", entry["arguments"])
        if was != entry["arguments"] and (Path(output) / "runs" / name).exists():
            changed = sorted(set(was) ^ set(entry["arguments"]))
            raise UserError(f"{file}: cell {name} was run otherwise, {' '.join(changed)} differs; want another output folder")
    write_atomically(file, json.dumps(known | now, indent=2) + "\n")


def _check_options(cell: Cell) -> None:
    """Lets `genvla fit` read the first cell's options, so that a wrong one is told at once and not by every cell.

    Raises:
        UserError: they cannot be read.
    """
    words = [*GENVLA, "fit", *cell.arguments(), "--print_config"]
    found = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if found.returncode:
        told = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{cell.name}: {told.removeprefix('genvla: error: ')}")


def _chosen(cells: Sequence[Cell], wanted: str) -> Cell:
    found = [cell for number, cell in enumerate(cells) if wanted in (cell.name, str(number))]
    if not found:
        raise UserError(f"only: there is no cell {wanted!r}, want 0 to {len(cells) - 1}, or a name such as {cells[0].name}")
    return found[0]


def _run_dir(cell: Cell, output: Path) -> Path:
    return Path(output) / "runs" / cell.name


def _finished(run: Path) -> bool:
    """`genvla fit` writes its results last."""
    return (run / RESULTS).is_file()


def _tracking(run: Path) -> dict[str, Any]:
    return (yaml.safe_load((run / "config.yaml").read_text()) or {}).get("tracking") or {}


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it printed nothing"
