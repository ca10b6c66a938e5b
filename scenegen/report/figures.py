"""The numbers of a set: how often its checks passed, how its objects stand, and how unlike each other they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from scenegen.palette import lab
from scenegen.preview import pixels
from scenegen.report.records import SceneRecord, SetRecord
from scenegen.schema import AssetRecord, BuildEvent, Check, Status, Verdict

PAPER = {Check.APPEARANCE: 0.833, Check.GEOMETRY: 0.752, Check.ALIGNMENT: 0.919}
PAPER_USABLE = 0.85
"""Pass rates at the first attempt, and scenes usable unedited, of the paper that this repeats: 100 scenes, judged by GPT-4o."""

PAPER_OBJECTS = 5.16
PAPER_UNIQUE = 516

REST_M, REST_DEG, PENETRATION_M = 0.010, 5.0, 0.001
NEAR = 1.05
"""Two assets of one category and colour are near-duplicates when no extent differs by more than this factor."""

MAX_PAIRS = 400


@dataclass(frozen=True)
class Rate:
    """How a check went. An error counts as not passed; what was skipped was not judged."""

    statuses: Counter[Status]

    @property
    def judged(self) -> int:
        return self.statuses.total() - self.statuses[Status.SKIP]

    @property
    def share(self) -> float | None:
        return self.statuses[Status.PASS] / self.judged if self.judged else None


def rates(verdicts: Iterable[Verdict]) -> dict[tuple[Check, str], Rate]:
    """By check and mode, in the order of the checks."""
    counts: dict[tuple[Check, str], Counter[Status]] = defaultdict(Counter)
    for verdict in verdicts:
        counts[verdict.check, verdict.mode][verdict.status] += 1
    order = list(Check)
    return {key: Rate(counts[key]) for key in sorted(counts, key=lambda key: (order.index(key[0]), key[1] != "offline"))}


def first_verdicts(events: Sequence[BuildEvent]) -> list[Verdict]:
    """What each check said first of each object and each scene, at the first attempt at that scene."""
    verdicts: dict[tuple[str, str, Check, str], Verdict] = {}
    for event in first_events(events):
        for verdict in event.verdicts:
            verdicts.setdefault((event.scene_id, verdict.subject, verdict.check, verdict.mode), verdict)
    return list(verdicts.values())


def first_events(events: Sequence[BuildEvent]) -> list[BuildEvent]:
    first: dict[str, BuildEvent] = {}
    for event in events:
        first.setdefault(event.scene_id, event)
    return list(first.values())


def accepted_share(record: SetRecord) -> tuple[int, int] | None:
    """Scenes accepted in the end, of those tried; None without a log."""
    if record.events is None:
        return None
    kept = {scene.line.id for scene in record.scenes}
    return len(kept), len(kept | set(record.last_events))


@dataclass(frozen=True)
class Standing:
    """How the objects stand. From the layouts of all scenes: those at rest (nothing moves 10 mm or tilts 5 degrees), those that
    start with a penetration over 1 mm, the worst of each, the distance of target and destination from the robot's base, and the
    share of start placements that have both, and that have every object, in the picture (by their middles).

    From the settle and task checks, None where they were not made: the share of objects at rest in all their runs, of runs that
    start without a penetration over 1 mm, and how much of the target is seen in the first placement (median) and at least."""

    scenes: int
    at_rest: int
    penetrating: int
    drift_m: float
    tilt_deg: float
    penetration_m: float
    reach_m: tuple[float, float]
    goal_in_view: float
    all_in_view: float
    objects_at_rest: float | None
    runs_clear: float | None
    seen: tuple[float, float] | None


def standing(record: SetRecord) -> Standing:
    layouts = [scene.scene.bundle.layout for scene in record.scenes]
    reach, goal, everything = [], [], []
    for scene in (item.scene for item in record.scenes):
        pair = [scene.target_index, scene.destination_index]
        base = np.asarray(scene.bundle.robot.base_pose.p)
        reach.append(np.linalg.norm(scene.poses[:, pair, :2] - base[:2], axis=-1))
        places = scene.poses[..., :3].astype(float)
        places[..., 2] += [entry.asset.extents_m[2] / 2 for entry in scene.objects]
        seen = pixels(scene, places.reshape(-1, 3)).reshape(*places.shape[:2], 2)
        inside = np.all((seen > 0) & (seen < 1), axis=-1)
        goal.append(inside[:, pair].all(axis=1))
        everything.append(inside.all(axis=1))
    return Standing(
        scenes=len(layouts),
        at_rest=sum(layout.max_drift_m <= REST_M and layout.max_tilt_deg <= REST_DEG for layout in layouts),
        penetrating=sum(layout.max_penetration_m > PENETRATION_M for layout in layouts),
        drift_m=max(layout.max_drift_m for layout in layouts),
        tilt_deg=max(layout.max_tilt_deg for layout in layouts),
        penetration_m=max(layout.max_penetration_m for layout in layouts),
        reach_m=(float(min(r.min() for r in reach)), float(max(r.max() for r in reach))),
        goal_in_view=float(np.concatenate(goal).mean()),
        all_in_view=float(np.concatenate(everything).mean()),
        **_settled(record),
        seen=_seen(record),
    )


def _settled(record: SetRecord) -> dict[str, float | None]:
    """Each scene counts by its objects, and by its runs."""
    found = [(len(scene.scene.objects), values) for scene, values in _of_check(record, Check.SETTLE) if "share_at_rest" in values]
    objects = sum(count for count, _ in found)
    runs = sum(values.get("runs", 0) for _, values in found)
    deep = sum(values.get("penetrations_over_1_mm", 0) for _, values in found)
    rest = sum(count * values["share_at_rest"] for count, values in found)
    return {"objects_at_rest": rest / objects if objects else None, "runs_clear": 1 - deep / runs if runs else None}


def _seen(record: SetRecord) -> tuple[float, float] | None:
    found = [values for _, values in _of_check(record, Check.TASK) if {"visible_nominal", "visible_least"} <= set(values)]
    if not found:
        return None
    return float(np.median([values["visible_nominal"] for values in found])), min(values["visible_least"] for values in found)


def _of_check(record: SetRecord, check: Check) -> list[tuple[SceneRecord, dict[str, float]]]:
    """The measurements of one offline check, scene by scene."""
    return [
        (scene, verdict.measurements)
        for scene in record.scenes
        for verdict in scene.verdicts or []
        if verdict.check is check and verdict.mode == "offline"
    ]


@dataclass(frozen=True)
class Measured:
    """One measurement of a check over all its verdicts."""

    check: Check
    name: str
    count: int
    low: float
    median: float
    high: float


def measured(record: SetRecord) -> list[Measured]:
    """Every figure that the checks of the accepted scenes wrote down."""
    values: dict[tuple[int, str], list[float]] = defaultdict(list)
    order = list(Check)
    for scene in record.scenes:
        for verdict in scene.verdicts or []:
            for name, value in verdict.measurements.items():
                values[order.index(verdict.check), name].append(value)
    return [
        Measured(order[check], name, len(found), min(found), float(np.median(found)), max(found))
        for (check, name), found in sorted(values.items())
    ]


@dataclass(frozen=True)
class Diversity:
    """How unlike the objects are. `distinct` counts near-duplicates once. `colour_distance` is the mean CIE76 distance between
    the colours of two unique assets, `shape_factor` by how much their extents, sorted, typically differ."""

    objects: int
    unique: int
    distinct: int
    per_scene: float
    histogram: dict[int, int]
    categories: Counter[str]
    colors: Counter[str]
    materials: Counter[str]
    tables: Counter[str]
    rooms: Counter[str]
    goals: Counter[str]
    colour_distance: float
    shape_factor: float


def diversity(record: SetRecord) -> Diversity:
    assets = unique_assets(record)
    sizes = Counter(len(scene.scene.objects) for scene in record.scenes)
    bundles = [scene.scene.bundle for scene in record.scenes]
    colour, shape = _pairwise(assets)
    return Diversity(
        objects=len(record.assets),
        unique=len(assets),
        distinct=_distinct(assets),
        per_scene=len(record.assets) / len(record.scenes),
        histogram={count: sizes[count] for count in range(min(sizes), max(sizes) + 1)},
        categories=Counter(asset.category for asset in assets),
        colors=Counter(asset.color for asset in assets),
        materials=Counter(asset.material for asset in assets),
        tables=Counter(bundle.context.style.replace("_", " ") for bundle in bundles),
        rooms=Counter(bundle.background.style.replace("_", " ") for bundle in bundles),
        goals=Counter(str(bundle.graph.goal.predicate) for bundle in bundles),
        colour_distance=colour,
        shape_factor=shape,
    )


def unique_assets(record: SetRecord) -> list[AssetRecord]:
    """Each asset once, by category, then as the scenes name them."""
    unique = {asset.asset_id: asset for asset in record.assets}
    return sorted(unique.values(), key=lambda asset: asset.category)


def _distinct(assets: Sequence[AssetRecord]) -> int:
    """Assets that are no near-duplicates of an earlier one that counts."""
    count = 0
    for _, group in groupby(sorted(assets, key=_kind), key=_kind):
        leaders: list[np.ndarray] = []
        for asset in group:
            extents = np.log(np.sort(asset.extents_m))
            if all(np.abs(extents - leader).max() > np.log(NEAR) for leader in leaders):
                leaders.append(extents)
        count += len(leaders)
    return count


def _kind(asset: AssetRecord) -> tuple[str, str]:
    return asset.category, asset.color


def _pairwise(assets: Sequence[AssetRecord]) -> tuple[float, float]:
    """Mean distance of colours and mean factor between extents, over the pairs of at most MAX_PAIRS evenly chosen assets."""
    chosen = assets[:: -(-len(assets) // MAX_PAIRS)]
    if len(chosen) < 2:
        return 0.0, 1.0
    colours = lab(np.array([asset.color_rgb for asset in chosen]) / 255)
    extents = np.log(np.sort(np.array([asset.extents_m for asset in chosen]), axis=1))
    one, other = np.triu_indices(len(chosen), 1)
    colour = np.linalg.norm(colours[one] - colours[other], axis=1).mean()
    return float(colour), float(np.exp(np.abs(extents[one] - extents[other]).mean()))
