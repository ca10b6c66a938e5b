"""A comparison as terminal table, Markdown page and one HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from genvla.evaluation.comparison import Comparison, Difference, Group
from genvla.evaluation.overview import COST_NOTE, Published, beside, cost, overview, overview_notes, share, signed
from genvla.evaluation.tables import number

if TYPE_CHECKING:
    from rich.table import Table

SHORT = 12
"""Letters of a group's name beside which a terminal has room for all columns."""
LEADING = "Success against"
"""How the titles of figures begin that stand before the tables they summarise."""
STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #fff; --line: #d8dce0; --quiet: #5c646c;
  --better: #1a7f43; --worse: #b3372b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --page: #16181b; --line: #383d43; --quiet: #a0a8b0; --better: #5fcf8d; --worse: #ff8f82 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 86rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { font-weight: 600 }
.better { color: var(--better) } .worse { color: var(--worse) } .notes, caption { color: var(--quiet) }
img { max-width: 100%; background: #fff; border-radius: 8px; padding: .5rem; box-sizing: border-box }
"""


def points(difference: Difference | None) -> str:
    """`+6.9 [+1.2, +12.5]`, in points."""
    return "-" if difference is None else signed(difference.interval)


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
    """One table for each suite, and one of them all; names are folded where it is too narrow."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    tables = []
    shown = (0, 3, 4, 5, 6) if max(len(group.name) for group in comparison.groups) <= SHORT else (0, 3, 4, 6)
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
    if len(comparison.suites) > 1:
        tables.append(_terminal_table("success in %, 95 % intervals", *overview(comparison)))
    head, rows = cost(comparison)
    if rows:
        tables.append(_terminal_table("what an iteration took", head, rows))
    return tables


def _terminal_table(title: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(head):  # as Text, since brackets are markup elsewhere
        table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
    for line in rows:
        table.add_row(*map(Text, line))
    return table


@dataclass(frozen=True)
class _Part:
    """A section of the page: a table, with a class for each row's cell `against`, or a figure."""

    title: str
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    marks: Sequence[str] = ()
    notes: Sequence[str] = ()
    figure: Path | None = None


def _parts(comparison: Comparison, figures: Mapping[str, Path], published: Published | None) -> Iterator[_Part]:
    general = ["Shares in per cent, differences in points, on the same episodes.", *comparison.notes]
    if len(comparison.suites) > 1:
        yield _Part("Success in %", *overview(comparison), notes=[*overview_notes(comparison), *comparison.notes])
    if published is not None:
        yield _Part("Beside what is published, in %", *beside(comparison, published), notes=[f"Published: {published.source}."])
    for title, path in figures.items():
        if title.startswith(LEADING):
            yield _Part(title, figure=path)
    for suite in comparison.suites:
        rows = [row(comparison, group, suite) for group in comparison.groups]
        marks = [_mark(comparison.differences[suite].get(group.name)) for group in comparison.groups]
        last = suite == comparison.suites[-1]
        yield _Part(f"{suite} scenes", columns(comparison), rows, marks, general if last else ())
    if comparison.settings:
        yield _Part("What differs", *_settings(comparison))
    head, times = cost(comparison)
    if times:
        yield _Part("What an iteration took", head, times, notes=[COST_NOTE])
    for title, path in figures.items():
        if not title.startswith(LEADING):
            yield _Part(title, figure=path)


def markdown(
    comparison: Comparison,
    figures: Mapping[str, Path],
    title: str = "Comparison",
    published: Published | None = None,
    folder: str = "",
    introduction: str = "",
) -> str:
    """The page. folder: where the figures lie, seen from the page."""
    lines = [f"# {title}", "", *([introduction, ""] if introduction else [])]
    for part in _parts(comparison, figures, published):
        lines += [f"## {part.title}", ""]
        if part.figure is not None:
            lines += [f"![{part.title}]({folder}{part.figure.name})", ""]
            continue
        lines += _markdown_table(part.head, part.rows)
        lines += ["  \n".join(note.replace("*", "\\*") for note in part.notes), ""] if part.notes else []
    return "\n".join(lines)


def html(
    comparison: Comparison, figures: Mapping[str, Path], title: str = "Comparison", published: Published | None = None
) -> str:
    """The same as one page that needs no other file."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for part in _parts(comparison, figures, published):
        parts.append(f"<h2>{escape(part.title)}</h2>")
        if part.figure is not None:
            data = b64encode(part.figure.read_bytes()).decode()
            parts.append(f'<img alt="{escape(part.title)}" src="data:image/png;base64,{data}">')
            continue
        parts.append(_html_table(part.head, part.rows, part.marks))
        parts.append("<p class=notes>" + "<br>".join(map(escape, part.notes)) + "</p>" if part.notes else "")
    meta = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!doctype html><html lang="en"><head>{meta}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def _settings(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What sets the groups apart, the longer side down the page."""
    groups = [group.name for group in comparison.groups]
    if len(groups) < len(comparison.settings):
        return ("setting", *groups), [(name, *(row[group] for group in groups)) for name, row in comparison.settings.items()]
    return ("group", *comparison.settings), [(group, *(row[group] for row in comparison.settings.values())) for group in groups]


def _mark(difference: Difference | None) -> str:
    """Whether the difference is told apart from nothing."""
    if difference is None:
        return ""
    return "better" if difference.interval.low > 0 else "worse" if difference.interval.high < 0 else ""


def _markdown_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    aligned = ("---", *("---:" for _ in head[1:]))
    escaped = [tuple(cell.replace("|", "\\|").replace("*", "\\*") for cell in line) for line in (head, aligned, *rows)]
    return ["| " + " | ".join(line) + " |" for line in escaped] + [""]


def _html_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], marks: Sequence[str] = ()) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for i, cells in enumerate(rows):
        classes = ["" for _ in cells]
        if marks:
            classes[6] = f' class="{marks[i]}"' if marks[i] else ""
        lines.append(
            "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(classes, cells, strict=True)) + "</tr>"
        )
    return "<table>" + "".join(lines) + "</table>"
