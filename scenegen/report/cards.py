"""What the report shows of one scene and of one asset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from scenegen.mesh.writers import read_points
from scenegen.preview import pixels
from scenegen.report.html import Html, html, tag
from scenegen.report.pictures import HERO, Pictures
from scenegen.report.records import SceneRecord
from scenegen.schema import AssetRecord, BuildEvent, Check, NodeSpec, Role, Status, Verdict

NAMES = {
    Check.APPEARANCE: "semantic appearance",
    Check.GEOMETRY: "mesh geometry",
    Check.ALIGNMENT: "text-to-3D alignment",
    Check.SETTLE: "settle",
    Check.TASK: "task",
}
SHORT = {Check.APPEARANCE: "appearance", Check.GEOMETRY: "geometry", Check.ALIGNMENT: "alignment"}
WORST = (Status.ERROR, Status.FAIL, Status.PASS, Status.SKIP)
SIGNS = {Status.PASS: "✓", Status.FAIL: "✗", Status.ERROR: "!", Status.SKIP: "–"}


def scene_card(record: SceneRecord, pictures: Pictures, events: Sequence[BuildEvent], classes: Mapping[str, str]) -> Html:
    """`events` are those of this scene; `classes` the CSS classes that hold the pictures of assets."""
    bundle, line = record.scene.bundle, record.line
    statuses = sorted(str(status) for status in record.statuses) or ["none"]
    words = [bundle.instruction, line.id, bundle.context.name, bundle.background.name]
    words += [f"{entry.name} {entry.asset.category} {entry.asset.color}" for entry in record.scene.objects]
    return tag(
        "article",
        _hero(record, pictures),
        tag("h3", instruction(record)),
        tag("p", tag("span", line.split, class_=f"chip {line.split}"), _spent(record, events), class_="meta"),
        badges(record.verdicts),
        _tree(record, classes),
        tag("details", tag("summary", "Figures, seeds and origin"), _facts(record, events), class_="facts"),
        class_="card",
        id=line.id,
        data_split=line.split,
        data_statuses=" ".join(statuses),
        data_categories="|" + "|".join(record.categories) + "|",
        data_text=" ".join(words).lower(),
    )


def instruction(record: SceneRecord) -> Html:
    """The instruction with the words for target and destination marked, where they are found in it."""
    graph = record.scene.bundle.graph
    text, marks = record.scene.instruction, []
    for role, node_id in (("target", graph.goal.subject), ("destination", graph.goal.object)):
        found = list(re.finditer(rf"\b{re.escape(graph.node(node_id).name)}\b", text, re.IGNORECASE))
        if found:
            match = found[0] if role == "target" else found[-1]
            marks.append((match.start(), match.end(), role))
    parts: list[object] = []
    end = 0
    for start, stop, role in sorted(marks):
        if start >= end:
            parts += [text[end:start], tag("mark", text[start:stop], class_=role)]
            end = stop
    return html([*parts, text[end:]])


def badges(verdicts: Sequence[Verdict] | None) -> Html:
    """One badge for each check and mode; opened, it says what was found of each subject."""
    if verdicts is None:
        return tag("p", tag("span", "not checked: no qa.json", class_="badge none"), class_="badges")
    order = list(Check)
    keys = sorted({(order.index(v.check), v.mode != "offline", v.mode) for v in verdicts})
    parts = []
    for check, _, mode in keys:
        mine = [v for v in verdicts if v.check is order[check] and v.mode == mode]
        worst = next(status for status in WORST if any(v.status is status for v in mine))
        passed = sum(v.status is Status.PASS for v in mine)
        judged = sum(v.status is not Status.SKIP for v in mine)
        share = f" {passed}/{judged}" if len(mine) > 1 else ""
        aside = f"{mode}, {len(mine) - judged} skipped" if len(mine) > max(judged, 1) else mode
        reasons = [f"{v.subject}: {reason}" for v in mine for reason in v.reasons]
        title = f"{NAMES[order[check]]}: {worst}, {mode}" + "".join(f"\n{reason}" for reason in reasons)
        said = tag("span", SIGNS[worst], aria_label=str(worst))
        summary = tag(
            "summary", said, f" {SHORT.get(order[check], NAMES[order[check]])}{share}", tag("small", aside), title=title
        )
        parts.append(tag("details", summary, tag("ul", [_finding(v) for v in mine]), class_=f"badge {worst}"))
    return tag("div", parts, class_="badges")


def quantity(name: str, *values: float) -> list[str]:
    """A measurement's name and values for people: "drift_m", 0.002 as "drift", "2 mm"."""
    for end, factor, unit in (("_m", 1e3, " mm"), ("_kg", 1e3, " g"), ("_deg", 1, "°"), ("_mm", 1, " mm")):
        if name.endswith(end) and "_over_" not in name:
            return [name.removesuffix(end).replace("_", " "), *(f"{factor * value:.3g}{unit}" for value in values)]
    return [name.replace("_", " "), *(f"{value:.4g}" for value in values)]


def _finding(verdict: Verdict) -> Html:
    figures = " · ".join(" ".join(quantity(name, value)) for name, value in verdict.measurements.items())
    judge = ", ".join(part for part in (verdict.model, verdict.prompt_sha and f"prompt {verdict.prompt_sha[:10]}") if part)
    return tag(
        "li",
        tag("b", f"{SIGNS[verdict.status]} {verdict.subject}: {verdict.status}"),
        [tag("div", reason, class_="reason") for reason in verdict.reasons],
        tag("div", figures, class_="quiet") if figures else None,
        tag("div", judge, class_="quiet") if judge else None,
    )


def _hero(record: SceneRecord, pictures: Pictures) -> Html:
    picture = pictures.scenes.get(record.line.id)
    if picture is None:
        return tag("div", "no picture", class_="hero empty")
    image = tag("img", src=picture, alt=f"The table from over the robot's shoulder: {record.scene.instruction}", loading="lazy")
    scene = record.scene
    pins = [_pin(record, "destination", scene.destination_index), _pin(record, "target", scene.target_index)]
    return tag("div", image, tag("svg", pins, aria_hidden="true", viewBox=f"0 0 {HERO[0]} {HERO[1]}"), class_="hero")


def _pin(record: SceneRecord, role: str, index: int) -> Html:
    """A frame around where an object appears in the first placement."""
    pose = record.scene.poses[0, index].astype(float)
    points = read_points(record.scene.objects[index].visual)
    seen = pixels(record.scene, pose[:3] + points @ _rotation(pose[3:]).T) * HERO
    left, top = np.maximum(seen.min(axis=0) - 5, 2)
    right, bottom = np.minimum(seen.max(axis=0) + 5, np.subtract(HERO, 2))
    place = {"x": round(left), "y": round(top), "width": max(0, round(right - left)), "height": max(0, round(bottom - top))}
    label = tag("text", role, x=round(left) + 1, y=round(top) - 5 if top > 18 else round(bottom) + 14)
    return tag("g", tag("rect", rx=7, **place), label, class_=role)


def _rotation(q: np.ndarray) -> np.ndarray:
    """The matrix of a unit quaternion w, x, y, z."""
    w, v = q[0], q[1:]
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def _tree(record: SceneRecord, classes: Mapping[str, str]) -> Html:
    """The scene's nodes below what they stand on."""
    graph = record.scene.bundle.graph
    parents = {edge.child: edge for edge in graph.edges}
    assets = {entry.id: entry.asset for entry in record.scene.objects}
    bundle = record.scene.bundle
    fixed = {bundle.context.id: bundle.context.name, bundle.background.id: bundle.background.name}

    def branch(node: NodeSpec) -> Html:
        below = [branch(child) for child in graph.nodes if child.id in parents and parents[child.id].parent == node.id]
        asset = assets.get(node.id)
        name = fixed.get(node.id, node.name)
        relation = tag("i", parents[node.id].relation) if node.id in parents else None
        thumb = _thumb(asset, classes, "small") if asset else None
        row = tag("span", thumb, relation, tag("b", name), tag("span", node.role, class_=f"role {node.role}"), class_="node")
        return tag("li", row, tag("ul", below) if below else None)

    root = next(node for node in graph.nodes if node.role is Role.BACKGROUND)
    return tag("ul", branch(root), class_="tree")


def _spent(record: SceneRecord, events: Sequence[BuildEvent]) -> str:
    """Attempts, time and cost, as far as they are known."""
    parts = [f"{len(record.scene.objects)} objects"]
    attempt = record.provenance.attempt if record.provenance else events[-1].attempt if events else None
    if attempt is not None:
        parts.append("first attempt" if attempt == 0 else f"attempt {attempt + 1}")
    if events:
        parts.append(f"{sum(sum(event.seconds.values()) for event in events):.1f} s")
    usd = sum(event.usd for event in events)
    if usd:
        parts.append(f"${usd:.3f}")
    return " · ".join(parts)


def _facts(record: SceneRecord, events: Sequence[BuildEvent]) -> Html:
    bundle, provenance = record.scene.bundle, record.provenance
    layout = bundle.layout
    rows: list[tuple[str, object]] = [
        ("scene", record.line.id),
        (
            "settled",
            f"drift {1e3 * layout.max_drift_m:.1f} mm, tilt {layout.max_tilt_deg:.1f}° in {layout.checked_placements} placements",
        ),
        ("penetration", f"{1e3 * layout.max_penetration_m:.2f} mm at most"),
        ("placements", f"{layout.count}, each object ±{1e2 * layout.xy_range_m:.0f} cm, {1e3 * layout.clearance_m:.0f} mm apart"),
        ("table", f"{bundle.context.name}, {bundle.context.top_height_m:.3f} m high"),
        ("room", bundle.background.name),
        ("seed", bundle.seed),
    ]
    if provenance:
        rows.append(("designer", provenance.designer + (f" ({provenance.model})" if provenance.model else "")))
        if provenance.task != bundle.instruction:
            rows.append(("task", provenance.task))
        if provenance.options:
            rows.append(("options", ", ".join(f"{key} {value}" for key, value in provenance.options.items())))
        for failed in provenance.failed:
            rows.append((f"attempt {failed.attempt + 1}", f"turned down at {failed.stage}: {'; '.join(failed.reasons)}"))
        if provenance.prompts:
            rows.append(("prompts", ", ".join(prompt[:10] for prompt in provenance.prompts)))
    else:
        rows.append(("origin", "unknown: no provenance.json"))
    seconds: dict[str, float] = {}
    for event in events:
        for stage, value in event.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    if seconds:
        rows.append(("seconds", ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())))
    rows.append(("digest", record.line.digest[:16]))
    return tag("dl", [(tag("dt", key), tag("dd", value)) for key, value in rows])


def asset_card(asset: AssetRecord, name: str, used: str, classes: Mapping[str, str]) -> Html:
    """`used`: the scene that it stands in."""
    size = "×".join(f"{1e3 * v:.0f}" for v in asset.extents_m) + " mm"
    mass = f"{1e3 * asset.physics.mass_kg:.0f} g"
    grasp = f"grasp {1e3 * asset.grasp_width_m:.0f} mm" if asset.graspable and asset.grasp_width_m else "no grasp"
    return tag(
        "a",
        _thumb(asset, classes, ""),
        tag("b", name),
        tag("span", _swatch(asset), f"{asset.color}, {asset.material}"),
        tag("span", size),
        tag("span", f"{mass} · {grasp}"),
        class_="asset",
        href=f"#{used}",
        title=f"{asset.engine} {asset.engine_version}, seed {asset.seed}, {asset.n_faces} faces, {asset.n_hulls} hulls",
    )


def _thumb(asset: AssetRecord, classes: Mapping[str, str], more: str) -> Html:
    key = classes.get(asset.asset_id)
    colour = None if key else f"background:rgb{asset.color_rgb}"
    return tag("span", class_=f"thumb {more} {key or ''}".strip(), style=colour, aria_hidden="true")


def _swatch(asset: AssetRecord) -> Html:
    return tag("i", class_="swatch", style=f"background:rgb{asset.color_rgb}")
