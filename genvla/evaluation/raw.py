"""The numbers behind a comparison as CSV files, small enough to be kept beside a page: by run, by scene and by iteration."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from genvla.evaluation.comparison import Comparison, Group
from genvla.evaluation.figures import ENV_STEPS, EVALUATION, ROLLOUT, WALL_SECONDS, placed
from genvla.evaluation.results import EvaluationResult, write_atomically
from genvla.evaluation.sources import Run

PLACE = ("group", "run", "suite")


def write_raw(comparison: Comparison, folder: Path) -> list[Path]:
    """runs.csv: episodes and successes of every run and suite. scenes.csv: those after training by scene. curves.csv: by step.

    Returns the files that there was something to write to.
    """
    tables: dict[str, tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]] = {
        "runs.csv": ((*PLACE, "when", "seed", "episodes", "successes", ENV_STEPS, "minutes"), _runs(comparison)),
        "scenes.csv": ((*PLACE, "scene", "episodes", "successes"), _scenes(comparison)),
        "curves.csv": ((*PLACE[:2], "iteration", ENV_STEPS, WALL_SECONDS, *_keys(comparison)), _curves(comparison)),
    }
    written = []
    for name, (head, rows) in tables.items():
        lines = list(rows)
        if lines:
            text = StringIO()
            csv.writer(text, lineterminator="\n").writerows([head, *lines])
            write_atomically(folder / name, text.getvalue())
            written.append(folder / name)
    return written


def _results(comparison: Comparison) -> Iterator[tuple[Group, Run, str, str, EvaluationResult]]:
    for group in comparison.groups:
        for run in group.runs:
            for suite in comparison.suites:
                for when, results in (("before", run.before), ("after", run.after)):
                    if suite in results:
                        yield group, run, suite, when, results[suite]


def _runs(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    for group, run, suite, when, result in _results(comparison):
        last = placed(run.rows)[-1] if run.rows and when == "after" else {}
        spent = (int(last[ENV_STEPS]), round(last[WALL_SECONDS] / 60, 1)) if last else ("", "")
        successes = sum(record.success_once for record in result.records)
        yield group.name, run.name, suite, when, run.seed or "", len(result.records), successes, *spent


def _scenes(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    for group, run, suite, when, result in _results(comparison):
        if when == "before":
            continue
        episodes = Counter(record.scene_id for record in result.records)
        successes = Counter(record.scene_id for record in result.records if record.success_once)
        for scene in sorted(episodes):
            yield group.name, run.name, suite, scene, episodes[scene], successes[scene]


def _keys(comparison: Comparison) -> list[str]:
    return [ROLLOUT, *(EVALUATION.format(split=suite) for suite in comparison.suites)]


def _curves(comparison: Comparison) -> Iterator[tuple[Any, ...]]:
    keys = _keys(comparison)
    for group in comparison.groups:
        for run in group.runs:
            for iteration, row in enumerate(placed(run.rows)):
                found = ["" if row.get(key) is None else round(row[key], 4) for key in keys]
                yield (
                    group.name,
                    run.name,
                    int(row.get("step", iteration)),
                    int(row[ENV_STEPS]),
                    round(row[WALL_SECONDS], 1),
                    *found,
                )
