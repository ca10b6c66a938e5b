"""Bar charts: a table whose rows hold a bar drawn as inline SVG, so that they read aloud and fit a narrow screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenegen.report.html import Html, tag


@dataclass(frozen=True)
class Bar:
    """One row: `share` (0..1) is drawn, None draws nothing; `mark` (0..1) is a line beside it to compare with."""

    label: object
    share: float | None
    text: str
    mark: float | None = None
    mark_text: str | None = None
    fill: str | None = None


def bars(rows: Sequence[Bar], heads: Sequence[str] = ()) -> Html:
    """`heads` are the titles of the columns: label, bar, text, and mark when there are marks."""
    marked = any(row.mark_text is not None for row in rows)
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads))) if heads else None
    lines = [
        tag(
            "tr",
            tag("th", row.label, scope="row"),
            tag("td", _bar(row), class_="bar"),
            tag("td", row.text, class_="value"),
            tag("td", row.mark_text or "–", class_="mark") if marked else None,
        )
        for row in rows
    ]
    return tag("table", head, tag("tbody", lines), class_="bars")


def counts(values: Mapping[str, int], colours: Mapping[str, str] | None = None, limit: int = 60) -> Html:
    """A bar for each count, the largest first."""
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    top = max(values.values(), default=1)
    chart = bars([Bar(name, n / top, str(n), fill=(colours or {}).get(name)) for name, n in ranked[:limit]])
    more = tag("p", f"and {len(ranked) - limit} more", class_="quiet") if len(ranked) > limit else None
    return Html(chart + (more or ""))


def columns(values: Mapping[int, int], unit: str) -> Html:
    """A histogram over whole numbers."""
    top = max(values.values())
    width, height = 34, 92
    parts = []
    for i, (value, n) in enumerate(sorted(values.items())):
        tall = 62 * n / top
        middle = i * width + width / 2
        parts.append(
            tag("rect", x=i * width + 5, y=f"{76 - tall:.1f}", width=width - 10, height=f"{tall:.1f}", rx=2, class_="fill")
        )
        parts.append(tag("text", n or "", x=middle, y=f"{71 - tall:.1f}"))
        parts.append(tag("text", value, x=middle, y=89, class_="axis"))
    said = ", ".join(f"{n} with {value}" for value, n in sorted(values.items()) if n)
    size = {"viewBox": f"0 0 {width * len(values)} {height}", "width": width * len(values), "height": height}
    return tag("svg", *parts, class_="columns", role="img", aria_label=f"{unit}: {said}", **size)


def _bar(row: Bar) -> Html:
    parts = []
    if row.share is not None:
        parts.append(tag("rect", width=f"{100 * row.share:.2f}", height=10, class_="fill", style=row.fill and f"fill:{row.fill}"))
    if row.mark is not None:
        parts.append(tag("rect", x=f"{100 * row.mark - 0.4:.2f}", width=0.8, height=10, class_="mark"))
    return tag("svg", *parts, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true")
