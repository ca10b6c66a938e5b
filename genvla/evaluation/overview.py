"""The comparison in one table: a row for each group, a column for each suite, and what others have published beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isnan
from statistics import fmean

from genvla.evaluation.comparison import HELDOUT, TRAIN, Comparison
from genvla.evaluation.figures import WALL_SECONDS, placed
from genvla.evaluation.statistics import Interval

BEFORE = "before training"
"""Row of the policy that training started from."""
OTHER_SCENES = "*"
"""Marks a share of other scenes than the reference's."""
COST_NOTE = (
    "Seconds of an iteration: the median over a run's iterations, the mean over a group's runs. Simulate is what was "
    "waited for environments: while the policy decides for some, others simulate."
)


@dataclass(frozen=True)
class Published:
    """Success that others report, to stand beside ours.

    Args:
        source: where it is reported.
        success: per cent by group and suite; the group "before training" is the policy that training starts from.
    """

    source: str
    success: dict[str, dict[str, float]] = field(default_factory=dict)


def share(interval: Interval | None) -> str:
    """`63.0 [56.1, 69.4]`, in per cent; without bounds where they are not known."""
    if interval is None or isnan(interval.value):
        return "-"
    bounds = "" if isnan(interval.low) else f" [{100 * max(0.0, interval.low):.1f}, {100 * min(1.0, interval.high):.1f}]"
    return f"{100 * interval.value:.1f}{bounds}"


def signed(interval: Interval | None) -> str:
    """`+6.9 [+1.2, +12.5]`, in points."""
    if interval is None or isnan(interval.value):
        return "-"
    bounds = "" if isnan(interval.low) else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f}{bounds}"


def overview(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows: success in per cent by group and suite, and the gap between training scenes and held-out ones in points."""
    suites = comparison.suites
    gap = TRAIN in suites and HELDOUT in suites
    head = ("group", "runs", *suites, *([f"{TRAIN} - {HELDOUT}"] if gap else []))
    rows = []
    before = [share(comparison.baseline(suite)) for suite in suites]
    if any(cell != "-" for cell in before):
        rows.append((BEFORE, "", *before, *([""] if gap else [])))
    for group in comparison.groups:
        cells = [share(group.success(s)) + OTHER_SCENES * comparison.other_scenes(group, s) * (s != TRAIN) for s in suites]
        star = OTHER_SCENES if gap and comparison.other_scenes(group, HELDOUT) else ""
        rows.append((group.name, str(len(group.runs)), *cells, *([signed(group.gap()) + star] if gap else [])))
    return head, rows


def overview_notes(comparison: Comparison) -> list[str]:
    """What the table's marks mean."""
    suites = [suite for suite in comparison.suites if suite != TRAIN]
    if any(comparison.other_scenes(group, suite) for group in comparison.groups for suite in suites):
        return [f"{OTHER_SCENES} other scenes than those of {comparison.reference}."]
    return []


def beside(comparison: Comparison, published: Published) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the suites that both have: ours and theirs, in per cent."""
    reported = {suite for row in published.success.values() for suite in row}
    suites = [suite for suite in comparison.suites if suite in reported]
    head = ("group", *(f"{suite}, {whose}" for suite in suites for whose in ("here", "published")))
    ours = {BEFORE: {suite: comparison.baseline(suite) for suite in suites}}
    ours |= {group.name: {suite: group.success(suite) for suite in suites} for group in comparison.groups}
    rows = []
    for name, shares in ours.items():
        theirs = published.success.get(name, {})
        cells = []
        for suite in suites:
            found = shares[suite]
            cells += ["-" if found is None else f"{100 * found.value:.1f}", f"{theirs[suite]:.1f}" if suite in theirs else "-"]
        rows.append((name, *cells))
    return head, rows


def cost(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows: seconds of an iteration by phase, and minutes of a whole run. No rows where no group has logged any."""
    spent = {group.name: group.phase_seconds() for group in comparison.groups}
    phases = list(dict.fromkeys(phase for times in spent.values() for phase in times))
    rows = []
    for group in comparison.groups:
        cells = [f"{spent[group.name][phase]:.2f}" if phase in spent[group.name] else "-" for phase in phases]
        minutes = [placed(run.rows)[-1][WALL_SECONDS] / 60 for run in group.runs if run.rows]
        rows.append((group.name, *cells, f"{fmean(minutes):.1f}" if minutes else "-"))
    return ("group", *(f"{phase} [s]" for phase in phases), "a run [min]"), rows if phases else []
