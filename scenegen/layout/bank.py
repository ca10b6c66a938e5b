"""A bank of start placements for a scene: each object, and each stack of objects, settled once by physics, placements sampled, a
sample of them checked by physics.

On a flat table the settled height and tilt of an object hold for every planar pose, so one settling serves the whole bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenegen.files import npz
from scenegen.layout.crowd import Crowd
from scenegen.layout.errors import LayoutError
from scenegen.layout.physics import Bench, Motion, up_axis
from scenegen.layout.sampler import Footprint, footprint, sample, transform
from scenegen.layout.stacks import Things, stack
from scenegen.layout.surfaces import Surface
from scenegen.layout.turns import turned
from scenegen.schema import AssetRecord, LayoutEntry, Relation, Workspace

__all__ = ["CLEARANCE", "WORKSPACE", "Bank", "LayoutError", "build_bank", "settle"]

Array = NDArray[np.float64]

WORKSPACE = Workspace(x=(0.18, 0.44), y=(-0.20, 0.20), min_x_m=0.12)
CLEARANCE = 0.01
POSES_FILE = "poses.npz"
MAX_DRIFT, MAX_TILT_DEG, MAX_PENETRATION = 0.01, 5.0, 0.001
SETTLE_SECONDS, CHECK_SECONDS, CHECKED = 1.5, 1.0, 6
_ATTEMPTS = 3
_FEW = 5
"""So many objects are drawn all at once, and one by one only when that finds no room."""

Relations = Sequence[tuple[int, int, Relation]]


@dataclass(frozen=True)
class Bank:
    """poses [k, n, 7] in the world, offsets [k, n, 2] from nominal [n, 2], and what the check measured over all checked
    placements."""

    poses: NDArray[np.float32]
    offsets: NDArray[np.float32]
    nominal: Array
    checked: int
    max_drift_m: float
    max_tilt_deg: float
    max_penetration_m: float

    def write(self, folder: Path, xy_range: float) -> LayoutEntry:
        """Write the bank's file into `folder`, and say what it holds."""
        (folder / POSES_FILE).write_bytes(npz({"poses": self.poses, "offsets": self.offsets}))
        return LayoutEntry(
            poses_file=POSES_FILE,
            count=len(self.poses),
            xy_range_m=xy_range,
            clearance_m=CLEARANCE,
            workspace=WORKSPACE,
            checked_placements=self.checked,
            max_drift_m=self.max_drift_m,
            max_tilt_deg=self.max_tilt_deg,
            max_penetration_m=self.max_penetration_m,
        )


def settle(folder: Path, assets: Sequence[AssetRecord], friction: tuple[float, float]) -> Array:
    """The resting pose [n, 7] of each object alone on a plane at z = 0, turned back to yaw 0. Raises LayoutError for one
    that topples or wanders off."""
    bench = Bench(folder, assets, 1, friction)
    start = np.tile([0.0, 0, 0.0005, 1, 0, 0, 0], (1, len(assets), 1))
    start[0, :, 1] = 0.4 * (np.arange(len(assets)) - len(assets) / 2)
    motion = bench.run(start, SETTLE_SECONDS)[0]
    for i, (asset, drift, tilt) in enumerate(zip(assets, motion.drift_m, motion.tilt_deg, strict=True)):
        if drift > MAX_DRIFT or tilt > MAX_TILT_DEG:
            raise LayoutError(f"unstable {asset.category}: moved {drift * 1e3:.0f} mm, tilted {tilt:.0f} deg", i)
    rest = motion.final.copy()
    rest[:, :2] = 0
    rest[:, 3:] = _without_yaw(motion.final[:, 3:])
    return np.round(rest, 6)


def build_bank(
    folder: Path,
    assets: Sequence[AssetRecord],
    hulls: Sequence[Array],
    top: float,
    friction: tuple[float, float],
    xy_range: float,
    count: int,
    goal: tuple[int, int],
    rng: np.random.Generator,
    relations: Relations = (),
    surface: Surface | None = None,
) -> Bank:
    """`count` placements of assets (hulls: their points [m, 3] in the object frame) on a table at height `top`; goal =
    (target index, destination index).

    relations: (child, parent, relation) of each object that starts on, in or beside another. What is on or in another moves with
    it; what is beside another is CLEARANCE to 6 cm away from the stack of which that is part. surface: the part of the table to
    stay on, in the robot's base frame; None for a table without end.

    Raises LayoutError when no arrangement passes."""
    parents, beside = _sorted(relations, len(assets), goal)
    rest = settle(folder, assets, friction)
    bench = Bench(folder, assets, min(CHECKED, count), friction)

    def checked(poses: Array, nominal: Array) -> Bank | str:
        motions = bench.run(poses[np.linspace(0, count - 1, min(CHECKED, count)).astype(int)], CHECK_SECONDS)
        fault = next(filter(None, (_fault(motion, assets, goal, parents) for motion in motions)), "")
        return fault or _bank(poses, poses[..., :2] - nominal, nominal, top, motions)

    crowded = True
    if not relations and surface is None and len(assets) <= _FEW:
        footprints = [footprint(points) for points in hulls]
        bank: Bank | str = ""
        for _ in range(_ATTEMPTS):
            placed = _placements(footprints, goal[0], xy_range, count, rng)
            crowded = placed is None
            if placed is not None:
                bank = checked(_poses(placed, rest), placed[0][0])
                if isinstance(bank, Bank):
                    return bank
        if not crowded:
            raise LayoutError(str(bank))
    units = stack(Things(folder, assets, hulls, rest, parents), friction, CLEARANCE, rng)
    of = {part.index: i for i, unit in enumerate(units) for part in unit.parts}
    links = {of[child]: of[parent] for child, parent in beside.items()}
    crowd = Crowd(units, goal[0], links, WORKSPACE, surface)
    for _ in range(_ATTEMPTS):
        bank = checked(*_arranged(crowd, assets, xy_range, count, rng))
        if isinstance(bank, Bank):
            return bank
    raise LayoutError(str(bank))


def _sorted(relations: Relations, count: int, goal: tuple[int, int]) -> tuple[dict[int, int], dict[int, int]]:
    """What each object is on or in, and what each is beside. Raises LayoutError for what cannot be."""
    parents: dict[int, int] = {}
    beside: dict[int, int] = {}
    for child, parent, relation in relations:
        if child in parents or child in beside or not (0 <= child < count and 0 <= parent < count):
            raise LayoutError(f"object {child} is {relation} object {parent}: wanted one parent among {count} objects", None)
        (beside if relation is Relation.BESIDE else parents)[child] = parent
    both = parents | beside
    for child in both:
        seen = {child}
        while (child := both.get(child, -1)) >= 0:
            if child in seen:
                raise LayoutError(f"object {child} starts on, in or beside itself", child)
            seen.add(child)
    if parents.get(goal[0]) == goal[1]:
        raise LayoutError("the target starts on its destination", goal[0])
    if goal[0] in parents.values():
        covering = next(child for child, parent in parents.items() if parent == goal[0])
        raise LayoutError("something stands on the target", covering)
    return parents, beside


def _arranged(
    crowd: Crowd, assets: Sequence[AssetRecord], xy_range: float, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Poses [k, n, 7], the first of them nominal, and where that has the objects [n, 2]. Raises LayoutError naming the object
    that finds no place."""
    try:
        nominal = crowd.nominal(CLEARANCE, rng)
    except LayoutError as error:
        who = "" if error.misfit is None else f": no place for the {assets[error.misfit].category}"
        raise LayoutError(f"{error}{who}", error.misfit) from None
    xy, yaw = (value[None] for value in nominal)
    if count > 1:
        more = crowd.around(nominal, xy_range, CLEARANCE, count - 1, rng)
        xy, yaw = np.concatenate([xy, more[0]]), np.concatenate([yaw, more[1]])
    n = sum(len(unit.parts) for unit in crowd.units)
    poses = np.zeros((count, n, 7))
    for i, unit in enumerate(crowd.units):
        members = [part.index for part in unit.parts]
        own = np.array([part.pose for part in unit.parts])
        poses[:, members, :2] = transform(unit.centres, xy[:, i], yaw[:, i])
        poses[:, members, 2] = own[:, 2]
        poses[:, members, 3:] = turned(np.repeat(yaw[:, [i]], len(members), axis=1), own[:, 3:])
    return poses, np.round(poses[0, :, :2], 6)


def _poses(placed: tuple[Array, Array], rest: Array) -> Array:
    """Of objects that all stand on the table [k, n, 7]."""
    xy, yaw = placed
    return np.concatenate([xy, np.broadcast_to(rest[:, 2:3], (*yaw.shape, 1)), turned(yaw, rest[:, 3:])], axis=-1)


def _placements(
    footprints: Sequence[Footprint], target: int, xy_range: float, count: int, rng: np.random.Generator
) -> tuple[Array, Array] | None:
    """Positions [k, n, 2] and yaws [k, n], the first of them nominal, or None when there is no room."""
    middle = np.tile([np.mean(WORKSPACE.x), np.mean(WORKSPACE.y)], (len(footprints), 1))
    xy, yaw = sample(footprints, target, middle, 1.0, 2 * CLEARANCE, WORKSPACE, 1, rng)
    if len(xy) and count > 1:
        xy = np.round(xy, 4)
        more = sample(footprints, target, xy[0], xy_range, CLEARANCE, WORKSPACE, count - 1, rng)
        xy, yaw = np.concatenate([xy, more[0]]), np.concatenate([yaw, more[1]])
    return (xy, yaw) if len(xy) == count else None


def _fault(motion: Motion, assets: Sequence[AssetRecord], goal: tuple[int, int], parents: Mapping[int, int]) -> str:
    for asset, drift, tilt in zip(assets, motion.drift_m, motion.tilt_deg, strict=True):
        if drift > MAX_DRIFT or tilt > MAX_TILT_DEG:
            return f"{asset.category} does not stay: moved {drift * 1e3:.0f} mm, tilted {tilt:.0f} deg"
    if motion.penetration_m > MAX_PENETRATION:
        return f"penetration of {motion.penetration_m * 1e3:.1f} mm"
    if frozenset(goal) in motion.touching:
        return "the target touches the destination from the start"
    for child, parent in parents.items():
        if frozenset({child, parent}) not in motion.resting or frozenset({child, -1}) in motion.resting:
            return f"{assets[child].category} does not stay on the {assets[parent].category}"
    return ""


def _bank(poses: Array, offsets: Array, nominal: Array, top: float, motions: Sequence[Motion]) -> Bank:
    lifted = poses + np.array([0, 0, top, 0, 0, 0, 0])
    return Bank(
        np.round(lifted, 6).astype(np.float32),
        np.round(offsets, 6).astype(np.float32),
        nominal,
        len(motions),
        *(
            round(float(max(np.max(values) for values in measured)), 6)
            for measured in ([m.drift_m for m in motions], [m.tilt_deg for m in motions], [m.penetration_m for m in motions])
        ),
    )


def _without_yaw(q: Array) -> Array:
    """The shortest turn that tilts z as q does."""
    up = up_axis(q)
    turn = np.stack([1 + up[:, 2], -up[:, 1], up[:, 0], np.zeros(len(q))], axis=-1)
    return turn / np.linalg.norm(turn, axis=-1, keepdims=True)
