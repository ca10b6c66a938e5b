"""A bank of start placements for a scene: each object settled once by physics, placements sampled, a sample of them
checked by physics.

On a flat table the settled height and tilt of an object hold for every planar pose, so one settling serves the whole bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenegen.layout.physics import Bench, Motion, up_axis
from scenegen.layout.sampler import Footprint, footprint, sample
from scenegen.schema import AssetRecord, Workspace

Array = NDArray[np.float64]

WORKSPACE = Workspace(x=(0.18, 0.44), y=(-0.20, 0.20), min_x_m=0.12)
CLEARANCE = 0.01
MAX_DRIFT, MAX_TILT_DEG, MAX_PENETRATION = 0.01, 5.0, 0.001
SETTLE_SECONDS, CHECK_SECONDS, CHECKED = 1.5, 1.0, 6
_ATTEMPTS = 3


class LayoutError(Exception):
    """A scene that cannot be laid out; says why in a few words."""


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


def settle(folder: Path, assets: Sequence[AssetRecord], friction: tuple[float, float]) -> Array:
    """The resting pose [n, 7] of each object alone on a plane at z = 0, turned back to yaw 0. Raises LayoutError for one
    that topples or wanders off."""
    bench = Bench(folder, assets, 1, friction)
    start = np.tile([0.0, 0, 0.0005, 1, 0, 0, 0], (1, len(assets), 1))
    start[0, :, 1] = 0.4 * (np.arange(len(assets)) - len(assets) / 2)
    motion = bench.run(start, SETTLE_SECONDS)[0]
    for asset, drift, tilt in zip(assets, motion.drift_m, motion.tilt_deg, strict=True):
        if drift > MAX_DRIFT or tilt > MAX_TILT_DEG:
            raise LayoutError(f"unstable {asset.category}: moved {drift * 1e3:.0f} mm, tilted {tilt:.0f} deg")
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
) -> Bank:
    """`count` placements of assets (hulls: their points [m, 3] in the object frame) on a table at height `top`; goal =
    (target index, destination index). Raises LayoutError when no arrangement passes."""
    rest = settle(folder, assets, friction)
    footprints = [footprint(points) for points in hulls]
    bench = Bench(folder, assets, min(CHECKED, count), friction)
    reason = ""
    for _ in range(_ATTEMPTS):
        placed = _placements(footprints, goal[0], xy_range, count, rng)
        if placed is None:
            reason = "too crowded"
            continue
        xy, yaw = placed
        nominal = xy[0]
        poses = np.concatenate([xy, np.broadcast_to(rest[:, 2:3], (*yaw.shape, 1)), _turned(yaw, rest[:, 3:])], axis=-1)
        motions = bench.run(poses[np.linspace(0, count - 1, min(CHECKED, count)).astype(int)], CHECK_SECONDS)
        reason = next(filter(None, (_fault(motion, assets, goal) for motion in motions)), "")
        if not reason:
            return _bank(poses, xy - nominal, nominal, top, motions)
    raise LayoutError(reason)


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


def _fault(motion: Motion, assets: Sequence[AssetRecord], goal: tuple[int, int]) -> str:
    for asset, drift, tilt in zip(assets, motion.drift_m, motion.tilt_deg, strict=True):
        if drift > MAX_DRIFT or tilt > MAX_TILT_DEG:
            return f"{asset.category} does not stay: moved {drift * 1e3:.0f} mm, tilted {tilt:.0f} deg"
    if motion.penetration_m > MAX_PENETRATION:
        return f"penetration of {motion.penetration_m * 1e3:.1f} mm"
    if frozenset(goal) in motion.touching:
        return "the target touches the destination from the start"
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


def _turned(yaw: Array, q: Array) -> Array:
    """Quaternions of yaw [k, n] about the world's z after q [n, 4]: [k, n, 4]."""
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], axis=-1)


def _without_yaw(q: Array) -> Array:
    """The shortest turn that tilts z as q does."""
    up = up_axis(q)
    turn = np.stack([1 + up[:, 2], -up[:, 1], up[:, 0], np.zeros(len(q))], axis=-1)
    return turn / np.linalg.norm(turn, axis=-1, keepdims=True)
