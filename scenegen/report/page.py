"""The page: what is in it, in the order in which it is read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.resources import files

from scenegen.report import figures, numbers
from scenegen.report.cards import asset_card, scene_card
from scenegen.report.charts import Bar, bars, counts
from scenegen.report.html import Html, tag
from scenegen.report.pictures import ASSET, Pictures
from scenegen.report.records import SetRecord
from scenegen.schema import BUILD_LOG, PROVENANCE_FILE, QA_FILE, BuildEvent

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(record: SetRecord, pictures: Pictures) -> str:
    """The whole document."""
    classes = {
        asset.asset_id: f"a{i}" for i, asset in enumerate(figures.unique_assets(record)) if asset.asset_id in pictures.assets
    }
    thumbs = "".join(f".{name}{{background-image:url({pictures.assets[key]})}}\n" for key, name in classes.items())
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{record.folder.name}: scenes"),
        tag("style", Html(_resource("page.css") + f".thumb{{--size:{ASSET}px}}\n" + thumbs)),
    )
    body = tag(
        "body",
        tag("header", _title(record), _links(), class_="top"),
        tag(
            "main",
            _notes(record, pictures),
            _overview(record),
            _section(
                "quality",
                "Quality",
                tag("div", numbers.funnel(record), numbers.standing(record), class_="halves"),
                numbers.measured(record),
            ),
            _section("diversity", "Diversity", numbers.diversity(record)),
            _section("scenes", "Scenes", _filters(record), _scenes(record, pictures, classes)),
            _section("assets", "Assets", _assets(record, classes)),
            _section("rejected", "Rejected", _rejected(record)),
            _section("origin", "How it was made", _origin(record)),
        ),
        tag("script", Html(_resource("page.js"))),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _resource(name: str) -> str:
    return (files("scenegen.report") / name).read_text(encoding="utf-8")


def _title(record: SetRecord) -> Html:
    return Html(tag("h1", record.folder.name) + tag("p", "A set of tabletop scenes for the WidowX 250S", class_="quiet"))


def _links() -> Html:
    names = ("quality", "diversity", "scenes", "assets", "rejected", "origin")
    return tag("nav", [tag("a", "how it was made" if name == "origin" else name, href=f"#{name}") for name in names])


def _section(key: str, title: str, *children: object) -> Html:
    return tag("section", tag("h2", title), *children, id=key)


def _notes(record: SetRecord, pictures: Pictures) -> Html | None:
    """What the page cannot show, and why."""
    total = len(record.scenes)
    unchecked = sum(item.verdicts is None for item in record.scenes)
    unknown = sum(item.provenance is None for item in record.scenes)
    notes = [pictures.note] if pictures.note else []
    if record.events is None:
        notes.append(f"There is no {BUILD_LOG}: pass rates at the first attempt, rejected scenes and seconds are not known.")
    if unchecked:
        notes.append(f"{unchecked} of {total} scenes have no {QA_FILE}: what the checks said of them is not known.")
    if unknown:
        notes.append(f"{unknown} of {total} scenes have no {PROVENANCE_FILE}: what made them is not known.")
    return tag("ul", [tag("li", note) for note in notes], class_="notes", role="note") if notes else None


def _overview(record: SetRecord) -> Html:
    splits = Counter(item.line.split for item in record.scenes)
    assets = figures.unique_assets(record)
    accepted = figures.accepted_share(record)
    tiles: list[tuple[object, str, str]] = [
        (len(record.scenes), "scenes", ", ".join(f"{n} {split}" for split, n in sorted(splits.items(), reverse=True))),
        (len(record.assets), "objects", f"{len(record.assets) / len(record.scenes):.2f} per scene"),
        (len(assets), "unique assets", f"{len({asset.category for asset in assets})} categories"),
    ]
    if accepted:
        tiles.append((f"{accepted[0] / accepted[1]:.0%}", "accepted", f"{accepted[0]} of {accepted[1]} scenes tried"))
    if record.events:
        seconds = sum(sum(event.seconds.values()) for event in record.events)
        tiles.append((f"{seconds / len(record.last_events):.1f} s", "per scene tried", f"{seconds:.0f} s of work in all"))
    usd = _usd(record)
    if usd is not None:
        tiles.append((f"${usd:.2f}", "spent on models", f"${usd / len(record.scenes):.3f} per scene"))
    return tag(
        "div", [tag("div", tag("b", a), tag("span", b), tag("small", c), class_="tile") for a, b, c in tiles], class_="tiles"
    )


def _usd(record: SetRecord) -> float | None:
    return None if record.events is None else sum(event.usd for event in record.events)


def _filters(record: SetRecord) -> Html:
    categories = Counter(name for item in record.scenes for name in set(item.categories))
    options = [tag("option", f"{name} ({n})", value=name) for name, n in sorted(categories.items())]
    said = {
        "": "any verdict",
        "clean": "nothing failed",
        "fail": "with a fail",
        "error": "with an error",
        "skip": "with a skip",
        "none": "not checked",
    }
    return tag(
        "form",
        tag("input", type="search", name="text", placeholder="Search instructions, objects, ids ( / )", aria_label="Search"),
        tag(
            "select",
            [tag("option", name or "any split", value=name) for name in ("", "train", "heldout")],
            name="split",
            aria_label="Split",
        ),
        tag("select", tag("option", "any category", value=""), options, name="category", aria_label="Category"),
        tag("select", [tag("option", text, value=key) for key, text in said.items()], name="verdict", aria_label="Verdict"),
        tag("button", "Clear", type="reset"),
        tag("output", f"{len(record.scenes)} scenes", aria_live="polite"),
        class_="filters",
        role="search",
    )


def _scenes(record: SetRecord, pictures: Pictures, classes: dict[str, str]) -> Html:
    events: dict[str, list[BuildEvent]] = defaultdict(list)
    for event in record.events or []:
        events[event.scene_id].append(event)
    return tag("div", [scene_card(item, pictures, events[item.line.id], classes) for item in record.scenes], class_="cards")


def _assets(record: SetRecord, classes: dict[str, str]) -> Html:
    first: dict[str, tuple[str, str]] = {}
    for item in record.scenes:
        for entry in item.scene.bundle.objects:
            first.setdefault(entry.asset.asset_id, (entry.name, item.line.id))
    groups: dict[str, list[Html]] = defaultdict(list)
    for asset in figures.unique_assets(record):
        groups[asset.category].append(asset_card(asset, *first[asset.asset_id], classes))
    sheets = [
        tag("div", tag("h3", category, tag("small", len(cards))), tag("div", cards, class_="sheet"), class_="group")
        for category, cards in groups.items()
    ]
    return Html(
        tag("p", "Every unique asset, each filling its picture; a click leads to a scene that has it.", class_="quiet")
        + tag("div", sheets, class_="groups")
    )


def _rejected(record: SetRecord) -> Html:
    if record.events is None:
        return tag("p", f"Not known: there is no {BUILD_LOG}.", class_="quiet")
    lines = [_row(event, attempts) for event, attempts in ((event, _attempts(record, event)) for event in record.rejected)]
    heads = tag("thead", tag("tr", [tag("th", head, scope="col") for head in ("scene", "task", "attempts", "stage", "reasons")]))
    table = (
        tag("div", tag("table", heads, tag("tbody", lines), class_="plain"), class_="wide")
        if lines
        else tag("p", "No scene was rejected.")
    )
    reasons = Counter(reason for event in record.events if event.outcome != "accepted" for reason in event.reasons)
    if not reasons:
        return table
    turned = sum(event.outcome != "accepted" for event in record.events)
    return Html(table + tag("h3", f"Why {turned} attempts were turned down") + counts(reasons, limit=15))


def _attempts(record: SetRecord, last: BuildEvent) -> list[BuildEvent]:
    return [event for event in record.events or [] if event.scene_id == last.scene_id]


def _row(event: BuildEvent, attempts: Sequence[BuildEvent]) -> Html:
    reasons = [tag("div", reason) for reason in dict.fromkeys(reason for attempt in attempts for reason in attempt.reasons)]
    return tag("tr", *(tag("td", cell) for cell in (event.scene_id, event.task, len(attempts), event.stage or "–", reasons)))


def _origin(record: SetRecord) -> Html:
    rows: list[tuple[str, str]] = []
    known = [item.provenance for item in record.scenes if item.provenance]
    rows.append(("engines", _tally(f"{asset.engine} {asset.engine_version}" for asset in figures.unique_assets(record))))
    if known:
        rows.append(("designer", _tally(p.designer + (f" ({p.model})" if p.model else "") for p in known)))
        keys = sorted({key for p in known for key in p.options})
        rows += [(key, _tally(p.options.get(key, "not given") for p in known)) for key in keys]
        names = sorted({name for p in known for name in p.versions})
        rows += [(f"version of {name}", _tally(p.versions.get(name, "not given") for p in known)) for name in names]
    usd = _usd(record)
    if usd is not None:
        rows.append(("cost", f"${usd:.4f} for {len(record.scenes)} scenes, failed attempts included"))
    listing = tag("dl", [(tag("dt", key), tag("dd", value)) for key, value in rows], class_="origin")
    if not record.events:
        return listing
    stages: dict[str, list[float]] = defaultdict(list)
    for event in record.events:
        for stage, seconds in event.seconds.items():
            stages[stage].append(seconds)
    if not stages:
        return listing
    most = max(sum(times) for times in stages.values()) or 1.0
    rows_ = [Bar(stage, sum(t) / most, f"{sum(t):.1f} s, {sum(t) / len(t):.2f} s per attempt") for stage, t in stages.items()]
    return Html(listing + tag("h3", "Seconds by stage") + bars(rows_))


def _tally(values: object) -> str:
    """Each different value, with how often when there are several."""
    found = Counter(values)  # type: ignore[call-overload]
    if len(found) == 1:
        return str(next(iter(found)))
    shown = ", ".join(f"{value} ({n})" for value, n in found.most_common(5))
    return shown + (f" and {len(found) - 5} more" if len(found) > 5 else "")
