"""Figures of training runs: learning curves, and success before and after."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genvla.errors import UserError
from genvla.evaluation.results import EvaluationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ENV_STEPS = "env_steps"
WALL_SECONDS = "wall_seconds"
ROLLOUT = "rollout/success"
EVALUATION = "evaluation/{split}/success_once"
PHASE_SECONDS = re.compile(r"speed/(\w+)_seconds")
"""Keys of metrics.jsonl: what curves are drawn from, and the time of each phase of an iteration. An evaluation's bounds have
`_low` and `_high` after its key, as `EvaluationResult.metrics` names them."""

COLOURS = ("#1f6fb4", "#d1603d", "#3a8f5c", "#8a5fb0", "#b58a1b", "#4a4a4a")
MARKERS: tuple[dict[str, Any], ...] = ({"marker": "o"}, {"marker": "s", "markerfacecolor": "white"})
"""Of the evaluations, in the order of the splits."""
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
}
Rows = list[dict[str, float]]


def read_metrics(run_dir: Path) -> Rows:
    """The metrics of a run, one dictionary per step in order; lines of the same step are joined and nulls left out.

    Raises:
        UserError: no metrics.jsonl in the folder, nothing in it, or a line that is not an object with a step.
    """
    path = Path(run_dir) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file, want the metrics of a training run")
    steps: dict[int, dict[str, float]] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: line {number} is {line[:60]!r}, want a JSON object with a step") from error
        steps.setdefault(step, {}).update({key: value for key, value in values.items() if value is not None})
    if not steps:
        raise UserError(f"{path}: empty, want at least one line")
    return [steps[step] for step in sorted(steps)]


def plot_curves(runs: Mapping[str, Path], output: Path, *, splits: Sequence[str] = ("train", "heldout")) -> None:
    """Success of each run against environment steps, and against wall-clock time.

    Lines are the success of the training rollouts (on training scenes, with exploration noise), smoothed over five iterations;
    points are the evaluations on `splits` with their 95 % intervals.

    Args:
        runs: label to run directory; several seeds are several runs.
        output: image file; its suffix says which kind.
        splits: names of the evaluations to show, two at most.

    Raises:
        UserError: a run without metrics.jsonl, or without success, environment steps or times in it.
    """
    metrics = {label: _checked(Path(folder), splits) for label, folder in runs.items()}
    figure, axes = _subplots(2, width=9.5)
    for i, (label, rows) in enumerate(metrics.items()):
        _draw_run(axes[0], rows, ENV_STEPS, 1e-3, splits, label, COLOURS[i % len(COLOURS)])
        _draw_run(axes[1], rows, WALL_SECONDS, 1 / 60, splits, label, COLOURS[i % len(COLOURS)])
    axes[0].set(xlabel="environment steps [thousands]", ylabel="success [%]", ylim=(0, 100))
    axes[1].set(xlabel="wall-clock time [min]", ylim=(0, 100))
    handles = axes[0].get_legend_handles_labels()[0]
    entries = [*handles, *_meanings(splits)]
    figure.legend(handles=entries, loc="outside upper center", ncols=min(3, len(handles) + 1), fontsize=9, frameon=False)
    save_figure(figure, output)


def plot_before_after(results: Mapping[str, tuple[EvaluationResult, EvaluationResult]], output: Path) -> None:
    """Bars of success before and after training with 95 % intervals, a pair for each label (a split, a seed, ...)."""
    figure, (axes,) = _subplots(1, width=1.6 + 1.5 * len(results))
    for j, (name, colour) in enumerate((("before", "#b9c4cf"), ("after", COLOURS[0]))):
        intervals = [pair[j].overall.success_once for pair in results.values()]
        positions = [i + (j - 0.5) * 0.38 for i in range(len(intervals))]
        heights = [100 * interval.value for interval in intervals]
        below = [100 * (interval.value - interval.low) for interval in intervals]
        above = [100 * (interval.high - interval.value) for interval in intervals]
        axes.bar(positions, heights, 0.36, color=colour, label=name)
        axes.errorbar(positions, heights, [below, above], fmt="none", ecolor="#333333", elinewidth=1.2, capsize=3)
        for x, interval in zip(positions, intervals, strict=True):
            axes.text(x, 100 * interval.high + 2, f"{100 * interval.value:.0f}", ha="center", fontsize=9)
    axes.set_xticks(range(len(results)), list(results))
    axes.set(ylabel="success [%]", ylim=(0, 110), yticks=range(0, 101, 20))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.14), ncols=2, frameon=False)
    save_figure(figure, output)


def _checked(run_dir: Path, splits: Sequence[str]) -> Rows:
    """The metrics of a run with env_steps and wall_seconds in every row: where they are missing, those of the row before."""
    rows = read_metrics(run_dir)
    known = {key for row in rows for key in row}
    success = {ROLLOUT, *(EVALUATION.format(split=split) for split in splits)}
    for key in (ENV_STEPS, WALL_SECONDS):
        if key not in known:
            raise UserError(f"{run_dir / 'metrics.jsonl'}: has {sorted(known)}, want {key} too")
    if not success & known:
        raise UserError(f"{run_dir / 'metrics.jsonl'}: has {sorted(known)}, want one of {sorted(success)} too")
    return placed(rows)


def placed(rows: Rows) -> Rows:
    """Rows with env_steps and wall_seconds in each: where they are missing, those of the row before."""
    place = {ENV_STEPS: 0.0, WALL_SECONDS: 0.0}
    result = []
    for row in rows:
        place = {key: row.get(key, value) for key, value in place.items()}
        result.append({**row, **place})
    return result


def _draw_run(axes: Axes, rows: Rows, against: str, scale: float, splits: Sequence[str], label: str, colour: str) -> None:
    rollouts = [(row[against] * scale, 100 * row[ROLLOUT]) for row in rows if ROLLOUT in row]
    if rollouts:
        x, success = zip(*rollouts, strict=True)
        axes.plot(x, success, color=colour, linewidth=0.8, alpha=0.25)
        axes.plot(x, list(smooth(success)), color=colour, linewidth=1.6, label=label)
    named = bool(rollouts)
    for split, style in zip(splits, MARKERS, strict=False):
        key = EVALUATION.format(split=split)
        points = [row for row in rows if key in row]
        if not points:
            continue
        y = [100 * row[key] for row in points]
        below = [value - 100 * row[f"{key}_low"] for value, row in zip(y, points, strict=True)]
        above = [100 * row[f"{key}_high"] - value for value, row in zip(y, points, strict=True)]
        places = [row[against] * scale for row in points]
        bars = axes.errorbar(places, y, [below, above], linestyle="", color=colour, markersize=5, **style)
        bars.set_label("_" if named else label)
        named = True


def smooth(values: Sequence[float], width: int = 5) -> Iterator[float]:
    """The mean over the last `width` values, fewer at the start."""
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        yield sum(window) / len(window)


def _meanings(splits: Sequence[str]) -> list[Line2D]:
    """Legend entries for what lines and points are, whatever their colour."""
    from matplotlib.lines import Line2D

    grey = "#777777"
    points = [
        Line2D([], [], color=grey, linestyle="", label=f"evaluation, {split} scenes, 95 %", **style)
        for split, style in zip(splits, MARKERS, strict=False)
    ]
    return [Line2D([], [], color=grey, linewidth=1.6, label="training rollouts"), *points]


def _subplots(columns: int, width: float) -> tuple[Figure, Sequence[Axes]]:
    """A figure of its own, outside pyplot: it needs no display and no backend to be chosen for the whole process."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, 3.8), layout="constrained", dpi=150)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(1, columns, squeeze=False)[0]


def save_figure(figure: Figure, output: Path) -> None:
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{os.getpid()}.{output.name}")
    figure.savefig(temporary)
    temporary.replace(output)
