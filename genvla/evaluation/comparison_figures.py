"""Figures of a comparison: success with intervals, learning curves, and success by scene."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from genvla.errors import UserError
from genvla.evaluation.comparison import TRAIN, Comparison, Group
from genvla.evaluation.figures import COLOURS, ENV_STEPS, EVALUATION, ROLLOUT, STYLE, WALL_SECONDS, placed, save_figure, smooth
from genvla.evaluation.overview import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES: Sequence[Any] = ("-", (0, (5, 2)), (0, (2, 2)))
"""Of the groups' lines, once the colours are used up."""
GRID = 200
"""Points at which curves of several seeds are averaged."""
MOST_SCENES, FEW_SCENES = 128, 20
"""Scenes that fit into a heat map, and of which the numbers can be read in it."""


def write_figures(
    comparison: Comparison, folder: Path, along: str | None = None, published: Published | None = None
) -> dict[str, Path]:
    """Everything there is to draw, as PNG files in the folder. Returns them by title.

    along: a setting whose values are numbers, to draw success against.
    """
    figures = {}
    if along is not None:
        figures[f"Success against {along}"] = folder / "along.png"
        plot_along(comparison, along, published, figures[f"Success against {along}"])
    figures["Success"] = folder / "success.png"
    plot_success(comparison, figures["Success"])
    if curves(comparison):
        figures["Learning curves"] = folder / "curves.png"
        plot_group_curves(comparison, figures["Learning curves"])
    for suite in comparison.suites:
        path = folder / f"scenes_{suite}.png"
        if plot_scenes(comparison, suite, path):
            figures[f"Success by scene, {suite}"] = path
    return figures


def plot_success(comparison: Comparison, output: Path) -> None:
    """Success of every group on every suite: a filled point with its interval, a hollow one before training, a tick for each
    seed."""
    from matplotlib.lines import Line2D

    groups, suites = comparison.groups, comparison.suites
    figure, (panels,) = _panels(1, len(suites), 4.4 * len(suites) + 0.09 * _longest(groups), 1.7 + 0.42 * len(groups))
    for axes, suite in zip(panels, suites, strict=True):
        for row, group in enumerate(groups):
            colour = COLOURS[row % len(COLOURS)]
            before, after = group.success(suite, before=True), group.success(suite)
            if before is not None:
                axes.plot(100 * before.value, row, "o", color=colour, markerfacecolor="white", markersize=6)
            if after is not None:
                low, high = (after.low, after.high) if not isnan(after.low) else (after.value, after.value)
                axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2)
                axes.plot(100 * after.value, row, "o", color=colour, markersize=7)
            if len(group.runs) > 1:
                seeds = [100 * run.after[suite].overall.success_once.value for run in group.runs if suite in run.after]
                axes.plot(seeds, [row + 0.22] * len(seeds), "|", color=colour, markersize=7)
        axes.set(xlim=(0, 100), xlabel="success [%]", title=f"{suite} scenes")
        axes.set_yticks(range(len(groups)), [group.name for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
    signs = [("o", "#777777", "after training, 95 %"), ("o", "white", "before"), ("|", "#777777", "each seed")]
    handles = [Line2D([], [], color="#777777", linestyle="", marker=m, markerfacecolor=c, label=name) for m, c, name in signs]
    seeds_too = any(len(group.runs) > 1 for group in groups)
    figure.legend(handles=handles[: 2 + seeds_too], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, output)


def along_values(comparison: Comparison, along: str) -> dict[str, float]:
    """The value of a setting in each group, from the smallest.

    Raises:
        UserError: a group has none, several, or one that is no number.
    """
    values = {}
    for group in comparison.groups:
        found = sorted({run.settings.get(along, "none") for run in group.runs})
        try:
            (text,) = found
            values[group.name] = float(text)
        except ValueError as error:
            raise UserError(f"along: {along} is {', '.join(found)} in {group.name}, want one number for each group") from error
    return dict(sorted(values.items(), key=lambda item: item[1]))


def plot_along(comparison: Comparison, along: str, published: Published | None, output: Path) -> None:
    """Success of every suite against a setting, its values evenly spaced: means with intervals, a tick for each seed, dashed what
    it was before training. Hollow points met other scenes than the reference; thin dotted lines are published."""
    from matplotlib.lines import Line2D

    values = along_values(comparison, along)
    groups = {group.name: group for group in comparison.groups}
    places = {value: place for place, value in enumerate(dict.fromkeys(values.values()))}
    figure, ((axes,),) = _panels(1, 1, max(6.5, 2.5 + 0.9 * len(places)), 4.6)
    for i, suite in enumerate(comparison.suites):
        colour, shift = COLOURS[i % len(COLOURS)], 0.09 * (i - (len(comparison.suites) - 1) / 2)
        shown = [
            (places[value] + shift, groups[name], share)
            for name, value in values.items()
            if (share := groups[name].success(suite))
        ]
        same = [suite == TRAIN or not comparison.other_scenes(group, suite) for _, group, _ in shown]
        line = [(x, 100 * share.value) for (x, _, share), alike in zip(shown, same, strict=True) if alike]
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.6, label=f"{suite} scenes") if line else None
        begun = [(x, group.success(suite, before=True)) for (x, group, _), alike in zip(shown, same, strict=True) if alike]
        dashed = [(x, 100 * before.value) for x, before in begun if before is not None]
        axes.plot(*zip(*dashed, strict=True), color=colour, linestyle=(0, (5, 4)), linewidth=1, alpha=0.7) if dashed else None
        for (x, group, share), alike in zip(shown, same, strict=True):
            axes.plot(x, 100 * share.value, "o", color=colour, markerfacecolor=colour if alike else "white", markersize=6)
            if not isnan(share.low):
                axes.plot([x, x], [100 * share.low, 100 * share.high], color=colour, linewidth=1, alpha=0.6)
            seeds = [100 * run.after[suite].overall.success_once.value for run in group.runs]
            axes.plot([x] * len(seeds), seeds, "_", color=colour, markersize=7) if len(seeds) > 1 else None
        theirs = (
            {places[value]: published.success.get(name, {}).get(suite) for name, value in values.items()} if published else {}
        )
        points = [(x, share) for x, share in theirs.items() if share is not None]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=":", linewidth=1, marker=".") if points else None
    axes.set_xticks(range(len(places)), [f"{value:g}" for value in places])
    axes.set(xlabel=along, ylabel="success [%]", ylim=(0, 100))
    meanings = [("before training", {"linestyle": (0, (5, 4))})] + ([("published", {"linestyle": ":"})] if published else [])
    extra = [Line2D([], [], color="#777777", linewidth=1, label=name, **style) for name, style in meanings]
    figure.legend(handles=[*axes.get_legend_handles_labels()[0], *extra], loc="outside right upper", frameon=False, fontsize=9)
    save_figure(figure, output)


def plot_group_curves(comparison: Comparison, output: Path) -> None:
    """Success against environment steps and against wall-clock time: in the training rollouts, smoothed over five iterations, and
    in the evaluations of each suite. Thin lines are seeds, thick ones their mean as far as all of them got."""
    shown = curves(comparison)
    if not shown:
        raise UserError("compare: no run has a learning curve, want runs with metrics.jsonl")
    figure, grid = _panels(len(shown), 2, 9.5, 0.4 + 2.7 * len(shown))
    for axes_row, (name, key) in zip(grid, shown.items(), strict=True):
        for axes, against, scale in zip(axes_row, (ENV_STEPS, WALL_SECONDS), (1e-3, 1 / 60), strict=True):
            for i, group in enumerate(comparison.groups):
                _draw_group(axes, group, key, against, scale, COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)])
            axes.set_ylim(0, 100)
        axes_row[0].set_ylabel(f"{name}\nsuccess [%]")
    grid[-1][0].set_xlabel("environment steps [thousands]")
    grid[-1][1].set_xlabel("wall-clock time [min]")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)), frameon=False, fontsize=9)
    save_figure(figure, output)


def curves(comparison: Comparison) -> dict[str, str]:
    """Names and metrics of the success that some run has followed: before and after alone make no curve."""
    keys = {"training rollouts": ROLLOUT} | {f"{suite} scenes": EVALUATION.format(split=suite) for suite in comparison.suites}
    runs = [run for group in comparison.groups for run in group.runs]
    return {name: key for name, key in keys.items() if any(sum(key in row for row in run.rows) > 2 for run in runs)}


def plot_scenes(comparison: Comparison, suite: str, output: Path) -> bool:
    """A row for each group, a column for each scene, the hardest first. False where there is nothing to compare or too much."""
    groups = [group for group in comparison.groups if any(suite in run.after for run in group.runs)]
    scenes, table = scene_table(groups, suite)
    if len(groups) < 2 or not 1 < len(scenes) <= MOST_SCENES:
        return False
    width = max(6.0, (0.4 if len(scenes) <= FEW_SCENES else 0.2) * len(scenes) + 0.08 * _longest(groups) + 1.5)
    figure, ((axes,),) = _panels(1, 1, width, 1.7 + 0.32 * len(groups))
    image = axes.imshow(100 * table, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set_yticks(range(len(groups)), [group.name for group in groups])
    short = [scene.partition("_")[0] for scene in scenes]
    axes.set_xticks(range(len(scenes)), short if len(set(short)) == len(short) else scenes, rotation=90, fontsize=7)
    if len(scenes) <= FEW_SCENES:
        for (row, column), value in np.ndenumerate(table):
            if not isnan(value):
                ink = "black" if value > 0.6 else "white"
                axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_title(f"{suite}: success by scene")
    axes.grid(False)
    figure.colorbar(image, ax=axes, label="success [%]", pad=0.01)
    save_figure(figure, output)
    return True


def scene_table(groups: Sequence[Group], suite: str) -> tuple[list[str], Float[np.ndarray, "g s"]]:
    """Scenes, those with the least success over all groups first, and the success in each, nan where a group has not met it."""
    shares = []
    for group in groups:
        by_scene: dict[str, list[bool]] = {}
        for run in group.runs:
            for record in run.after[suite].records if suite in run.after else ():
                by_scene.setdefault(record.scene_id, []).append(record.success_once)
        shares.append({scene: float(np.mean(outcomes)) for scene, outcomes in by_scene.items()})
    scenes = sorted({scene for row in shares for scene in row})
    hardest = sorted(scenes, key=lambda scene: (np.mean([row[scene] for row in shares if scene in row]), scene))
    return hardest, np.array([[row.get(scene, np.nan) for scene in hardest] for row in shares]).reshape(len(shares), len(hardest))


def _draw_group(axes: Axes, group: Group, key: str, against: str, scale: float, colour: str, dashes: Any) -> None:
    drawn = []
    for run in group.runs:
        points = [(row[against] * scale, 100 * row[key]) for row in placed(run.rows) if key in row]
        if len(points) < 2:
            continue
        x, y = (np.array(values) for values in zip(*points, strict=True))
        drawn.append((x, np.array(list(smooth(y.tolist()))) if key == ROLLOUT else y))
    marker = "" if key == ROLLOUT else "o"
    alone = len(drawn) == 1
    for x, y in drawn:
        style = {"linewidth": 1.8, "label": group.name} if alone else {"linewidth": 0.8, "alpha": 0.35}
        axes.plot(x, y, color=colour, linestyle=dashes, marker=marker, markersize=4, **style)
    if len(drawn) > 1:
        grid = np.linspace(max(x[0] for x, _ in drawn), min(x[-1] for x, _ in drawn), GRID)
        mean = np.mean([np.interp(grid, x, y) for x, y in drawn], axis=0)
        axes.plot(grid, mean, color=colour, linestyle=dashes, linewidth=2, label=group.name)


def _longest(groups: Sequence[Group]) -> int:
    return max(len(group.name) for group in groups)


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure outside pyplot (see `figures`), and its axes in rows and columns."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, squeeze=False, sharey=True)
