"""The `scenegen` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scenegen.build import SceneSpec
from scenegen.designer.rules import MAX_DISTRACTORS
from scenegen.designer.tasks import generate_tasks
from scenegen.errors import UserError
from scenegen.pipeline import BuildSummary, SceneResult, plan, run_build


def build(
    output: Path,
    tasks: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    heldout: float = 0,
    xy_range: float = 0.15,
    poses: int = 128,
    distractors: int = MAX_DISTRACTORS,
    workers: int | None = None,
    preview: bool = False,
) -> int:
    """Make a set of scenes; go on where an earlier run of the same command stopped.

    Args:
        output: Folder for the set: empty, new, or of an earlier run of the same command.
        tasks: Text file with one task sentence a line; blank lines and lines that start with # are skipped.
        count: Number of different tasks to draw instead.
        seed: What everything random is derived from; the same seed gives the same files.
        heldout: Scenes to keep out of training: a number, or a fraction below 1.
        xy_range: How far an object stands from its nominal place at most, along x and y [m].
        poses: Start placements for each scene.
        distractors: Most things on the table that the task does not name; each scene has from none to this many.
        workers: Processes; by default one for each core.
        preview: Also render preview.png for each scene (needs Vulkan).
    """
    sentences = _sentences(tasks, count, seed)
    if not 0 <= heldout < len(sentences) or (heldout > 1 and heldout != int(heldout)):
        raise UserError(
            f"heldout: found {heldout:g}; wanted a fraction below 1 or a number below that of the scenes, {len(sentences)}"
        )
    if xy_range < 0 or poses < 1:
        raise UserError(f"xy_range, poses: found {xy_range:g}, {poses}; wanted xy_range >= 0 and poses >= 1")
    if not 0 <= distractors <= MAX_DISTRACTORS:
        raise UserError(f"distractors: found {distractors}; wanted 0 to {MAX_DISTRACTORS}")
    held = round(heldout * len(sentences)) if heldout < 1 else int(heldout)
    specs = plan(sentences, seed, xy_range, poses, distractors)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _run(specs, output, held, seed, workers or cores, preview)


def _sentences(tasks: Path | None, count: int | None, seed: int) -> list[str]:
    if (tasks is None) == (count is None):
        raise UserError("tasks, count: wanted exactly one of --tasks FILE and --count N")
    if count is not None:
        if count < 1:
            raise UserError(f"count: found {count}; wanted at least 1")
        return generate_tasks(count, seed)
    assert tasks is not None
    if not tasks.is_file():
        raise UserError(f"tasks: {tasks} not found; wanted a text file with one sentence a line")
    lines = [line.strip() for line in tasks.read_text(encoding="utf-8").splitlines()]
    sentences = [line for line in lines if line and not line.startswith("#")]
    if not sentences:
        raise UserError(f"tasks: {tasks} holds no sentence; wanted at least one")
    return sentences


def _run(specs: Sequence[SceneSpec], output: Path, heldout: int, seed: int, workers: int, preview: bool) -> int:
    console = Console(stderr=True)
    columns = (TextColumn("scenes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[last]}"))
    summary = BuildSummary()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("scenes", total=len(specs), last="")
        for event in run_build(specs, output, heldout, seed, workers, preview):
            if isinstance(event, BuildSummary):
                summary = event
            else:
                progress.update(bar, advance=1, last=event.scene_id)
                if not console.is_terminal:
                    print(_result_line(event), file=sys.stderr, flush=True)
    print(f"{output}: {summary.line()}")
    return 0 if summary.accepted else 1


def _result_line(result: SceneResult) -> str:
    verdict = (
        f"rejected: {result.reason}"
        if result.reason
        else "already there"
        if result.reused
        else f"built in {result.seconds:.2f} s"
    )
    return f"{result.scene_id}: {verdict}"


def main(args: Sequence[str] | None = None) -> int:
    """Run `scenegen`; returns the exit code: 0 done, 1 no scene was accepted, 2 something the user gave is wrong."""
    parser = ArgumentParser(prog="scenegen", description="Task sentences to scenes that are ready for simulation.")
    commands = parser.add_subcommands()
    build_parser = ArgumentParser(description=build.__doc__.splitlines()[0] if build.__doc__ else None)
    build_parser.add_function_arguments(build)
    commands.add_subcommand("build", build_parser, help="make a set of scenes")
    settings = parser.instantiate(parser.parse_args(args))
    try:
        return build(**vars(settings.build))
    except UserError as error:
        print(f"scenegen: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
