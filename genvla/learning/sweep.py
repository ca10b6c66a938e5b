"""`genvla sweep`: a grid of configurations and seeds, one training run for each, and the comparison of them all."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation.compare import write_comparison
from genvla.evaluation.comparison import Group
from genvla.evaluation.figures import ENV_STEPS, WALL_SECONDS, placed
from genvla.evaluation.overview import Published
from genvla.evaluation.results import write_atomically
from genvla.evaluation.sources import Run, read_run
from genvla.learning import sweep_cells
from genvla.learning.grid import Cell, make_cells
from genvla.learning.sweep_cells import Cells, tracking_of
from genvla.learning.sweep_display import SweepDisplay

DEFINITION = "sweep.yaml"
HIDDEN = ("title", "published")
"""Options that say nothing about what was run."""


def sweep(
    configs: list[Path],
    axes: dict[str, Any],
    output: Path,
    seeds: list[int] = [0],  # noqa: B006  (read only)
    options: dict[str, Any] = {},  # noqa: B006  (read only)
    suites: dict[str, dict[str, Any]] = {},  # noqa: B006  (read only)
    baseline: Path | None = None,
    reference: str | None = None,
    unpaired: bool = False,
    along: str | None = None,
    title: str = "Comparison",
    published: Published | None = None,
    page: Path | None = None,
    jobs: int = 1,
    only: str | None = None,
    dry_run: bool = False,
    slurm: Path | None = None,
) -> int:
    """Train every cell of a grid of configurations and seeds, evaluate each, and compare them.

    The same command goes on where it stopped: finished cells are left alone, interrupted ones resumed, failed ones tried again.

    Args:
        configs: Configuration files of `genvla fit` that all cells share, the later over the earlier.
        axes: What varies. An option of fit with a list of its values, or a name of your own with labelled entries: each the path
            of a configuration file, or options with their values. "{seed}" in a value is the cell's seed.
        output: Folder: runs/<cell> for each run, logs/<cell>.log with what it printed, baseline/, comparison/, and sweep.yaml
            with all these options.
        seeds: Seeds that each combination is run with.
        options: Options of fit for all cells.
        suites: Further evaluations of every trained policy: name to options of `genvla evaluate`.
        baseline: Policy that the suites are evaluated with too, as what was before training.
        reference: Group that the others are compared with, or how its name begins; by default the first.
        unpaired: Show groups that were evaluated on other scenes side by side, without differences, instead of refusing.
        along: Setting whose values are numbers, such as data.num_scenes, to draw success against.
        title: Heading of the comparison's pages.
        published: Numbers of others, to stand beside these.
        page: Markdown file to write for a documentation too, with figures and numbers in a folder of its name beside it. Where
            there is one already, what stands below its marked line is kept.
        jobs: Cells that run at a time, each on its share of the CPU's cores.
        only: Run this cell alone, by name or number from 0, and compare nothing: for job arrays.
        dry_run: Show the cells and what they call, and run nothing.
        slurm: Write a Slurm array script with a task for each cell to this file, and run nothing.

    Returns:
        The exit code: 0, 1 when a cell failed, that of the stopped cell when one was stopped.

    Raises:
        UserError: the grid is empty or contradicts itself, or the output folder holds another sweep's cells.
    """
    console = Console()
    cells = list(make_cells(configs, axes, seeds, options))
    if jobs < 1:
        raise UserError(f"jobs: {jobs} found, at least 1 wanted")
    if dry_run:
        for number, cell in enumerate(cells):
            console.print(f"{number} {cell.name}: genvla fit {shlex.join(cell.arguments())}", soft_wrap=True, highlight=False)
        return 0
    one = None if only is None else _chosen(cells, only)
    _check_options(cells[0])
    _claim(cells, output)
    definition = {
        **{"title": title, "configs": [str(path) for path in configs], "output": str(output), "seeds": seeds, "axes": axes},
        **{"options": options, "suites": suites, "baseline": None if baseline is None else str(baseline)},
        **{"reference": reference, "unpaired": unpaired, "along": along},
        **({} if published is None else {"published": asdict(published)}),
    }
    write_atomically(output / DEFINITION, yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
    if slurm is not None:
        write_slurm(len(cells), output, slurm)
        console.print(f"written to {slurm}: {len(cells)} tasks; start them with: sbatch {slurm}", soft_wrap=True)
        return 0
    with SweepDisplay([cell.name for cell in cells], jobs, console) as display:
        work = Cells(cells, output, suites, baseline, display)
        failures = work.run(jobs, one)
    if work.stopped is not None:
        console.print("stopped; the same command goes on")
        return work.stopped
    if one is None:
        groups = _finished_groups(cells, failures, work, console)
        if groups:
            tracking = tracking_of(work.run_dir(cells[[cell.group for cell in cells].index(groups[0].name)]))
            write_comparison(
                groups,
                output / "comparison",
                console,
                reference=reference,
                unpaired=unpaired,
                along=along,
                title=title,
                published=published,
                page=page,
                introduction=_introduction(output, groups),
                mlflow=tracking.get("uri") or "default",
                experiment=tracking.get("experiment", "genvla"),
                name=f"{output.name} comparison",
            )
    return 1 if failures else 0


def _finished_groups(cells: Sequence[Cell], failures: dict[str, int], work: Cells, console: Console) -> list[Group]:
    """The cells that ended well, those of one group together; none where there is nothing to compare."""
    members: dict[str, list[Run]] = {}
    for cell in cells:
        if cell.name not in failures:
            members.setdefault(cell.group, []).append(read_run(work.run_dir(cell)))
    if failures:
        console.print(f"failed: {', '.join(failures)}", markup=False, soft_wrap=True)
    if len(members) < 2:
        console.print("nothing to compare: fewer than two groups are finished")
        return []
    return [Group(name, tuple(runs)) for name, runs in members.items()]


def _introduction(output: Path, groups: Sequence[Group]) -> str:
    """What was run, for the page."""
    runs = [run for group in groups for run in group.runs]
    spent = [placed(run.rows)[-1] for run in runs if run.rows]
    steps = sorted({int(row[ENV_STEPS]) for row in spent})
    hours = sum(row[WALL_SECONDS] for row in spent) / 3600
    each = f"{steps[0]:,}" if len(set(steps)) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    definition = yaml.safe_dump(
        {name: value for name, value in yaml.safe_load((output / DEFINITION).read_text()).items() if name not in HIDDEN},
        sort_keys=False,
        allow_unicode=True,
        width=140,
    )
    return (
        f"{len(runs)} runs of {each} environment steps each, {hours:.1f} hours of training in all; `genvla sweep` of\n\n"
        f"```yaml\n{definition}```"
    )


def write_slurm(tasks: int, output: Path, script: Path) -> None:
    """A script whose array tasks run a cell each, by the definition in the sweep's folder."""
    command = shlex.join([*sweep_cells.GENVLA, "sweep", "--config", str(output / DEFINITION)])
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
    now = {cell.name: {"arguments": cell.arguments(), "files": _settings(cell), **asdict(cell)} for cell in cells}
    for name, entry in now.items():
        was = {**entry, **known.get(name, {})}
        if not (Path(output) / "runs" / name).exists():
            continue
        arguments = sorted(set(was["arguments"]) ^ set(entry["arguments"]))
        files = sorted({file for file, _ in was["files"].items() ^ entry["files"].items()})
        if arguments or files:
            differs = "differs" if len(arguments or files) == 1 else "differ"
            raise UserError(
                f"{file}: cell {name} was run otherwise, {' '.join(arguments or files)} {differs}; want another output folder"
            )
    write_atomically(file, json.dumps(known | now, indent=2) + "\n")


def _settings(cell: Cell) -> dict[str, str]:
    """The digest of what stands in each of a cell's configuration files, and in the files that those name."""
    found: dict[str, str] = {}
    waiting = [Path(config) for config in cell.configs]
    while waiting:
        file = waiting.pop()
        if str(file) in found or not file.is_file():
            continue
        said = yaml.safe_load(file.read_text())
        found[str(file)] = sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]
        waiting += [file.parent / word for word in _words(said) if word.endswith(".yaml")]
    return found


def _words(said: Any) -> Iterator[str]:
    """The texts in what a YAML file says."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for part in said.values() if isinstance(said, dict) else said:
            yield from _words(part)


def _check_options(cell: Cell) -> None:
    """Lets `genvla fit` read the first cell's options, so that a wrong one is told at once and not by every cell.

    Raises:
        UserError: they cannot be read.
    """
    words = [*sweep_cells.GENVLA, "fit", *cell.arguments(), "--print_config"]
    found = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if found.returncode:
        told = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{cell.name}: {told.removeprefix('genvla: error: ')}")


def _chosen(cells: Sequence[Cell], wanted: str) -> Cell:
    found = [cell for number, cell in enumerate(cells) if wanted in (cell.name, str(number))]
    if not found:
        raise UserError(f"only: there is no cell {wanted!r}, want 0 to {len(cells) - 1}, or a name such as {cells[0].name}")
    return found[0]
