"""Where everything of an imported layout stands for our robot: as it came when the arm can reach it so, else laid out anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenegen.embodiedgen.frames import Frame, about_z, from_wxyz, tilt_deg, to_pose, yaw_of
from scenegen.embodiedgen.tables import find_base, roomiest_base
from scenegen.layout.bank import (
    CHECK_SECONDS,
    CHECKED,
    CLEARANCE,
    MAX_DRIFT,
    MAX_PENETRATION,
    MAX_TILT_DEG,
    SETTLE_SECONDS,
    WORKSPACE,
    Bank,
    LayoutError,
    build_bank,
    settle,
)
from scenegen.layout.physics import Bench, Motion
from scenegen.layout.sampler import Footprint, footprint, sample, separation, transform
from scenegen.layout.surfaces import Surface
from scenegen.mesh.writers import read_points
from scenegen.schema import AssetRecord, ContextEntry, Pose, Relation

Array = NDArray[np.float64]
_LIFT = 0.004
"""What lies on or in another thing starts this much [m] higher than the layout says: it was placed by percentiles of vertices."""

_ROUNDS, _ATTEMPTS = 12, 3


@dataclass(frozen=True)
class Table:
    """The context, its `entry` without a pose yet: its frame in the layout's world, its top in its own frame, and the shift [m]
    from its upright link to its frame."""

    entry: ContextEntry
    frame: Frame
    top: Surface
    shift: Array

    @property
    def friction(self) -> tuple[float, float]:
        return self.entry.static_friction, self.entry.dynamic_friction

    @property
    def on_layout(self) -> Surface:
        """Its top in the layout's world."""
        return self.top.moved(float(self.frame.p[0]), float(self.frame.p[1]), yaw_of(self.frame.turn))

    def placed(self, world: Frame) -> ContextEntry:
        return self.entry.model_copy(update={"pose": to_pose(world * self.frame)})

    def surface(self, world: Frame) -> Surface:
        """Its top in ours."""
        frame = world * self.frame
        return self.top.moved(float(frame.p[0]), float(frame.p[1]), yaw_of(frame.turn))


@dataclass(frozen=True)
class Placed:
    """The movable objects of a layout: records of their assets below `folder`, frames in the layout's world (None for a
    layout without positions), (child, parent, relation) of those that do not stand on the table, indices of target and
    destination. `settled`: the frames are at rest already, as physics here left them."""

    folder: Path
    assets: Sequence[AssetRecord]
    frames: Sequence[Frame] | None
    relations: Sequence[tuple[int, int, Relation]]
    target: int
    destination: int
    settled: bool = False

    @property
    def roots(self) -> list[int]:
        """What stands on the table."""
        children = {child for child, _, _ in self.relations}
        return [i for i in range(len(self.assets)) if i not in children]

    def root_of(self, i: int) -> int:
        parents = {child: parent for child, parent, _ in self.relations}
        while i in parents:
            i = parents[i]
        return i


@dataclass(frozen=True)
class Arrangement:
    """`world` moves the layout's world into ours. `reason` says why the objects do not stand as they came."""

    world: Frame
    bank: Bank
    how: Literal["kept", "anew"]
    reason: str = ""


def arrange(
    placed: Placed, table: Table, base: Pose | None, xy_range: float, count: int, rng: np.random.Generator
) -> Arrangement:
    """Find where the robot stands (unless its `base` in the layout's world is given) and a bank of `count` placements whose
    first is the layout's own. Raises LayoutError when the objects cannot be laid out at all or the table is too small."""
    reason = "it has no positions"
    if placed.frames is not None:
        try:
            return _keep(placed, placed.frames, table, base, xy_range, count, rng)
        except LayoutError as error:
            reason = str(error)
    world = _world(roomiest_base(table.on_layout), table)
    hulls = [read_points(placed.folder / asset.files.collision) for asset in placed.assets]
    goal, height, surface = (placed.target, placed.destination), table.entry.top_height_m, table.surface(world)
    folder, assets, relations = placed.folder, placed.assets, placed.relations
    bank = build_bank(folder, assets, hulls, height, table.friction, xy_range, count, goal, rng, relations, surface)
    _check(placed, table, world, np.asarray(bank.poses, float))
    return Arrangement(world, bank, "anew", reason)


def _keep(
    placed: Placed,
    frames: Sequence[Frame],
    table: Table,
    base: Pose | None,
    xy_range: float,
    count: int,
    rng: np.random.Generator,
) -> Arrangement:
    """Raises LayoutError when the imported arrangement does not do."""
    units = {i: _unit(placed, frames, i) for i in placed.roots}
    world = _world(_base(placed, frames, table, base, units), table)
    standing = _standing(placed, [world * frame for frame in frames], table)
    held = _settle_children(placed, table, world, [world * frame for frame in frames], standing)
    reason = ""
    for _ in range(_ATTEMPTS):
        roots = _others(units, standing, placed.root_of(placed.target), xy_range, count - 1, table.surface(world), rng)
        poses = np.zeros((count, len(placed.assets), 7))
        for k, moved in enumerate([standing, *roots]):
            for i in range(len(placed.assets)):
                root = placed.root_of(i)
                poses[k, i] = (moved[i] if i == root else moved[root] * held[i]).row()
        try:
            motions = _check(placed, table, world, poses)
        except LayoutError as error:
            reason = str(error)
            continue
        return Arrangement(world, _bank(poses, motions), "kept")
    raise LayoutError(reason)


def _base(
    placed: Placed, frames: Sequence[Frame], table: Table, base: Pose | None, units: Mapping[int, Footprint]
) -> Sequence[float]:
    """x, y, yaw in the layout's world."""
    if base is not None:
        return [base.p[0], base.p[1], yaw_of(from_wxyz(base.q_wxyz))]
    xy = np.array([frames[i].p[:2] for i in units])
    yaw = np.array([yaw_of(frames[i].turn) for i in units])
    goal = [list(units).index(placed.root_of(i)) for i in (placed.target, placed.destination)]
    found = find_base(table.on_layout, list(units.values()), xy, yaw, *goal)
    if found is None:
        raise LayoutError("the arm cannot stand so that it reaches and sees target and destination")
    return [float(value) for value in found]


def _standing(placed: Placed, frames: Sequence[Frame], table: Table) -> dict[int, Frame]:
    """What stands on the table, at rest, given all frames in our world: place and yaw as they came, height and tilt as physics
    has them."""
    roots = placed.roots
    if placed.settled:
        return {i: frames[i] for i in roots}
    for i, frame in enumerate(frames):
        if (tilt := tilt_deg(frame.turn)) > MAX_TILT_DEG:
            raise LayoutError(f"{placed.assets[i].category} stands tilted by {tilt:.0f} deg")
    rest = settle(placed.folder, [placed.assets[i] for i in roots], table.friction)
    return {
        i: Frame([*np.round(frames[i].p[:2], 4), table.entry.top_height_m + z], about_z(yaw_of(frames[i].turn)) * from_wxyz(q))
        for i, z, q in zip(roots, rest[:, 2], rest[:, 3:], strict=True)
    }


def _unit(placed: Placed, frames: Sequence[Frame], root: int) -> Footprint:
    """A thing on the table with all that lies on or in it, in its own frame, turned back to yaw 0."""
    upright = _without_tilt(frames[root])
    points = []
    for i, asset in enumerate(placed.assets):
        if placed.root_of(i) == root:
            local = upright.inverse() * frames[i]
            points.append(local.p + local.turn.apply(read_points(placed.folder / asset.files.collision)))
    return footprint(np.concatenate(points))


def _settle_children(
    placed: Placed, table: Table, world: Frame, frames: Sequence[Frame], standing: Mapping[int, Frame]
) -> dict[int, Frame]:
    """Poses of what lies on or in other things, in the frames of what carries them on the table, once they came to rest."""
    if not placed.relations:
        return {}
    parents = {child: parent for child, parent, _ in placed.relations}
    start = []
    for i, frame in enumerate(frames):
        lift, root = 0.0, i
        while root in parents:
            root, lift = parents[root], lift + _LIFT
        raised = _without_tilt(standing[root]) * _without_tilt(frames[root]).inverse() * frame
        start.append(standing[i] if i == root else Frame(raised.p + [0, 0, lift], raised.turn))
    [motion] = _motions(placed, table, world, np.array([[frame.row() for frame in start]]), SETTLE_SECONDS)
    for child, parent, relation in placed.relations:
        if frozenset((child, parent)) not in motion.resting:
            names = [placed.assets[i].category for i in (child, parent)]
            raise LayoutError(f"the {names[0]} does not stay {relation} the {names[1]}")
    final = [Frame.of_row(row) for row in motion.final]
    return {child: final[placed.root_of(child)].inverse() * final[child] for child in parents}


def _others(
    units: Mapping[int, Footprint],
    standing: Mapping[int, Frame],
    target: int,
    xy_range: float,
    count: int,
    surface: Surface,
    rng: np.random.Generator,
) -> list[dict[int, Frame]]:
    """`count` more placements of what stands on the table. What stands out of reach stays where it is. Raises LayoutError when
    there are not that many."""
    low, high = np.array([WORKSPACE.x, WORKSPACE.y]).T
    xy = {i: frame.p[:2] for i, frame in standing.items()}
    free = [i for i in units if ((xy[i] >= low) & (xy[i] <= high)).all()]
    nominal = np.array([xy[i] for i in free])
    fixed = [transform(units[i].outline, xy[i][None], np.array([yaw_of(standing[i].turn)])) for i in units if i not in free]
    found: list[dict[int, Frame]] = []
    for _ in range(_ROUNDS):
        if len(found) >= count:
            return found[:count]
        outlines = [units[i] for i in free]
        places, yaws = sample(outlines, free.index(target), nominal, xy_range, CLEARANCE, WORKSPACE, max(count, 64), rng)
        good = np.ones(len(places), bool)
        for j, unit in enumerate(outlines):
            shapes = transform(unit.outline, places[:, j], yaws[:, j])
            good &= surface.holds(shapes)
            for other in fixed:
                good &= separation(shapes, np.repeat(other, len(shapes), axis=0)) >= CLEARANCE
        for place, turns in zip(places[good], yaws[good], strict=True):
            moved = {
                i: Frame([*place[j], standing[i].p[2]], about_z(turns[j] - yaw_of(standing[i].turn)) * standing[i].turn)
                for j, i in enumerate(free)
            }
            found.append({**standing, **moved})
    raise LayoutError("too crowded")


def _motions(placed: Placed, table: Table, world: Frame, poses: Array, seconds: float) -> list[Motion]:
    """What placements [c, n, 7] in our world do on the actual table."""
    bench = Bench(placed.folder, placed.assets, len(poses), table.friction, table.placed(world))
    return bench.run(poses - [0, 0, table.entry.top_height_m, 0, 0, 0, 0], seconds)


def _check(placed: Placed, table: Table, world: Frame, poses: Array) -> list[Motion]:
    """What a sample of placements does on the actual table. Raises LayoutError for one that does not stay or is solved."""
    chosen = poses[np.linspace(0, len(poses) - 1, min(CHECKED, len(poses))).astype(int)]
    motions = _motions(placed, table, world, chosen, CHECK_SECONDS)
    for motion in motions:
        for asset, drift, tilt in zip(placed.assets, motion.drift_m, motion.tilt_deg, strict=True):
            if drift > MAX_DRIFT or tilt > MAX_TILT_DEG:
                raise LayoutError(f"{asset.category} does not stay: moved {drift * 1e3:.0f} mm, tilted {tilt:.0f} deg")
        if motion.penetration_m > MAX_PENETRATION:
            raise LayoutError(f"penetration of {motion.penetration_m * 1e3:.1f} mm")
        if frozenset((placed.target, placed.destination)) in motion.touching:
            raise LayoutError("the target touches the destination from the start")
        for child, parent, relation in placed.relations:
            if frozenset((child, parent)) not in motion.resting:
                raise LayoutError(f"the {placed.assets[child].category} is not {relation} the {placed.assets[parent].category}")
    return motions


def _bank(poses: Array, motions: Sequence[Motion]) -> Bank:
    nominal = np.round(poses[0, :, :2], 4)
    return Bank(
        np.round(poses, 6).astype(np.float32),
        np.round(poses[..., :2] - nominal, 6).astype(np.float32),
        nominal,
        len(motions),
        round(max(float(np.max(m.drift_m)) for m in motions), 6),
        round(max(float(np.max(m.tilt_deg)) for m in motions), 6),
        round(max(m.penetration_m for m in motions), 6),
    )


def _world(base: Sequence[float] | Array, table: Table) -> Frame:
    """The layout's world in ours, for a base at x, y, yaw in it: the base is our origin, and the table stands at z = 0."""
    return Frame([float(base[0]), float(base[1]), table.frame.p[2]], about_z(float(base[2]))).inverse()


def _without_tilt(frame: Frame) -> Frame:
    return Frame(frame.p, about_z(yaw_of(frame.turn)))
