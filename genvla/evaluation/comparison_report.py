"""A comparison as terminal table, Markdown page and one HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from genvla.evaluation.comparison import Comparison, Difference, Group
from genvla.evaluation.statistics import Interval
from genvla.evaluation.tables import number

if TYPE_CHECKING:
    from rich.table import Table

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #fff; --line: #d8dce0; --quiet: #5c646c;
  --better: #1a7f43; --worse: #b3372b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --page: #16181b; --line: #383d43; --quiet: #a0a8b0; --better: #5fcf8d; --worse: #ff8f82 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 78rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600 }
.better { color: var(--better) } .worse { color: var(--worse) } .notes, caption { color: var(--quiet) }
img { max-width: 100%; background: #fff; border-radius: 8px; padding: .5rem; box-sizing: border-box }
"""


def share(interval: Interval | None) -> str:
    """`63.0 [56.1, 69.4]`, in per cent; without bounds where they are not known."""
    if interval is None or isnan(interval.value):
        return "-"
    bounds = "" if isnan(interval.low) else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{100 * interval.value:.1f}{bounds}"


def points(difference: Difference | None) -> str:
    """`+6.9 [+1.2, +12.5]`, in points."""
    if difference is None or isnan(difference.interval.value):
        return "-"
    interval = difference.interval
    bounds = "" if isnan(interval.low) else f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.value:+.1f}{bounds}"


def columns(comparison: Comparison) -> tuple[str, ...]:
    return ("group", "runs", "episodes", "before", "success", "gain", f"against {comparison.reference}", "p", "seconds")


def row(comparison: Comparison, group: Group, suite: str) -> tuple[str, ...]:
    """The cells of a group: shares in per cent, differences in points, each with its 95 % interval."""
    difference = comparison.differences[suite].get(group.name)
    against = "reference" if group.name == comparison.reference else points(difference)
    episodes = sum(len(run.after[suite].records) for run in group.runs if suite in run.after)
    before, seconds = group.success(suite, before=True), group.seconds(suite)
    return (
        group.name,
        str(len(group.runs)),
        str(episodes),
        "-" if before is None else f"{100 * before.value:.1f}",
        share(group.success(suite)),
        points(comparison.gains[suite][group.name]),
        against,
        "-" if difference is None or difference.p is None else f"{difference.p:.2g}",
        "-" if seconds is None else number(seconds),
    )


def terminal_tables(comparison: Comparison) -> list[Table]:
    """One table for each suite; names are folded where it is too narrow."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    tables = []
    shown = (0, 3, 4, 5, 6)
    for suite in comparison.suites:
        cells = [row(comparison, group, suite) for group in comparison.groups]
        used = [i for i in shown if i == 0 or any(line[i] != "-" for line in cells)]
        title = f"{suite} scenes: success in %, differences in points, 95 % intervals"
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i in used:
            name = "difference" if i == 6 else columns(comparison)[i]
            table.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=i > 0)
        for line in cells:
            table.add_row(*(line[i] for i in used))
        tables.append(table)
    return tables


def markdown(comparison: Comparison, figures: Mapping[str, Path]) -> str:
    """The page, with the figures beside it."""
    lines = ["# Comparison", ""]
    for suite in comparison.suites:
        lines += [f"## {suite} scenes", ""]
        lines += _markdown_table(columns(comparison), [row(comparison, group, suite) for group in comparison.groups])
    lines += ["Shares in per cent, differences in points, on the same episodes.", *comparison.notes, ""]
    if comparison.settings:
        lines += ["## What differs", "", *_markdown_table(*_settings(comparison))]
    for title, path in figures.items():
        lines += [f"## {title}", "", f"![{title}]({path.name})", ""]
    return "\n".join(lines)


def html(comparison: Comparison, figures: Mapping[str, Path]) -> str:
    """The same as one page that needs no other file."""
    parts = ["<h1>Comparison</h1>"]
    for suite in comparison.suites:
        rows = [row(comparison, group, suite) for group in comparison.groups]
        marks = [_mark(comparison.differences[suite].get(group.name)) for group in comparison.groups]
        parts += [f"<h2>{escape(suite)} scenes</h2>", _html_table(columns(comparison), rows, marks)]
    notes = ["Shares in per cent, differences in points, on the same episodes.", *comparison.notes]
    parts.append("<p class=notes>" + "<br>".join(map(escape, notes)) + "</p>")
    if comparison.settings:
        head, rows = _settings(comparison)
        parts += ["<h2>What differs</h2>", _html_table(head, rows)]
    for title, path in figures.items():
        data = b64encode(path.read_bytes()).decode()
        parts += [f"<h2>{escape(title)}</h2>", f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">']
    meta = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Comparison</title>'
    return f'<!doctype html><html lang="en"><head>{meta}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def _settings(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = [group.name for group in comparison.groups]
    return ("setting", *names), [(name, *(values[group] for group in names)) for name, values in comparison.settings.items()]


def _mark(difference: Difference | None) -> str:
    """Whether the difference is told apart from nothing."""
    if difference is None:
        return ""
    return "better" if difference.interval.low > 0 else "worse" if difference.interval.high < 0 else ""


def _markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    aligned = ("---", *("---:" for _ in head[1:]))
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (head, aligned, *rows)] + [""]


def _html_table(head: tuple[str, ...], rows: list[tuple[str, ...]], marks: list[str] | None = None) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for i, cells in enumerate(rows):
        classes = ["" for _ in cells]
        if marks:
            classes[6] = f' class="{marks[i]}"' if marks[i] else ""
        lines.append(
            "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(classes, cells, strict=True)) + "</tr>"
        )
    return "<table>" + "".join(lines) + "</table>"
