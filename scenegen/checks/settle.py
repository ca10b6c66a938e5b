"""Settle: put down a little off its stored place, on a slippery and on a rough table, everything stays where it is put."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.findings import Findings
from scenegen.checks.placing import rotated, turned
from scenegen.layout.physics import Bench, Motion
from scenegen.loader import Scene
from scenegen.schema import OBJECT_ROLES, Check, Relation, SceneGraph, Verdict
from scenegen.seeds import generator

Array = NDArray[np.float64]

PLACEMENTS, SECONDS = 4, 2.0
JITTER_M, JITTER_DEG = 0.002, 2.0
GRIPS = (0.5, 1.0, 1.5)
"""Times the friction of the records."""

MAX_DRIFT, MAX_TILT_DEG, MAX_PENETRATION = 0.01, 5.0, 0.001
MAX_SPEED, MAX_SPIN = 1e-3, 1e-2
"""m/s and rad/s below which a thing is at rest."""

TABLE = -1


def check_settle(scene: Scene) -> Verdict:
    findings = Findings()
    wanted = supports(scene.bundle.graph)
    poses = _jittered(scene, wanted)
    context = scene.bundle.context
    assets = [entry.asset for entry in scene.objects]
    motions = []
    for grip in GRIPS:
        bench = Bench(scene.folder, assets, len(poses), (context.static_friction, context.dynamic_friction), context, grip)
        motions += bench.run(poses, SECONDS)
    names = [entry.id for entry in scene.objects]
    _judge_starts(names, wanted, bank_starts(scene), findings)
    _judge(names, wanted, motions, findings)
    return findings.verdict(Check.SETTLE, "scene")


def bank_starts(scene: Scene) -> list[tuple[float, frozenset[frozenset[int]]]]:
    """What touches what, and how deep things are in one another [m], at the start of each placement of the bank."""
    context = scene.bundle.context
    assets = [entry.asset for entry in scene.objects]
    bench = Bench(scene.folder, assets, 1, (context.static_friction, context.dynamic_friction), context)
    return bench.starts(above_table(scene, np.arange(len(scene.poses))))


def supports(graph: SceneGraph) -> list[int]:
    """What each object of the scene stands on: the number of another, or TABLE."""
    objects = [node.id for node in graph.objects]
    parents = {edge.child: edge for edge in graph.edges}

    def support(node: str) -> int:
        edge = parents.get(node)
        if edge is None or graph.node(edge.parent).role not in OBJECT_ROLES:
            return TABLE
        return support(edge.parent) if edge.relation is Relation.BESIDE else objects.index(edge.parent)

    return [support(node) for node in objects]


def sampled(count: int, wanted: int) -> NDArray[np.int64]:
    """The nominal placement and others evenly over the bank."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(int))


def above_table(scene: Scene, placements: NDArray[np.int64]) -> Array:
    """Stored poses [k, n, 7] with the table's top at z = 0."""
    poses = scene.poses[placements].astype(float)
    poses[..., 2] -= scene.bundle.context.top_height_m + scene.bundle.context.pose.p[2]
    return poses


def _jittered(scene: Scene, wanted: Sequence[int]) -> Array:
    """What stands on something else moves with what carries it."""
    poses = above_table(scene, sampled(len(scene.poses), PLACEMENTS))
    rng = generator(scene.bundle.seed, scene.id, "settle")
    shifts = JITTER_M * rng.uniform(-1, 1, (*poses.shape[:2], 2))
    turns = np.radians(JITTER_DEG) * rng.uniform(-1, 1, poses.shape[:2])
    feet = [_foot(i, wanted) for i in range(len(wanted))]
    turn, middles = turns[:, feet], poses[:, feet, :3]
    moved = poses.copy()
    moved[..., :3] = middles + rotated(turned(np.array([1.0, 0, 0, 0]), turn), poses[..., :3] - middles)
    moved[..., :2] += shifts[:, feet]
    moved[..., 3:] = turned(poses[..., 3:], turn)
    return moved


def _foot(index: int, wanted: Sequence[int]) -> int:
    """The object on the table that carries it in the end; itself when it stands there."""
    while wanted[index] != TABLE:
        index = wanted[index]
    return index


def _judge_starts(
    names: Sequence[str], wanted: Sequence[int], starts: Sequence[tuple[float, frozenset[frozenset[int]]]], findings: Findings
) -> None:
    """Every placement of the bank, as stored."""
    deepest = [penetration for penetration, _ in starts]
    over = sum(value > MAX_PENETRATION for value in deepest)
    findings.measure(starts=len(starts), penetration_m=max(deepest), penetrations_over_1_mm=over)
    findings.need(
        over == 0, f"in {over} of {len(starts)} placements things begin inside one another, {max(deepest) * 1e3:.1f} mm deep"
    )
    for i, name in enumerate(names):
        loose = sum(frozenset((i, wanted[i])) not in touching for _, touching in starts)
        findings.need(loose == 0, f"{name} does not begin on {_below(names, wanted[i])} in {loose} of {len(starts)} placements")


def _judge(names: Sequence[str], wanted: Sequence[int], motions: Sequence[Motion], findings: Findings) -> None:
    drift, tilt, speed, spin = (
        np.array([getattr(motion, name) for motion in motions]) for name in ("drift_m", "tilt_deg", "speed", "spin")
    )
    resting = (drift <= MAX_DRIFT) & (tilt <= MAX_TILT_DEG) & (speed < MAX_SPEED) & (spin < MAX_SPIN)
    held = np.array([[frozenset((i, below)) in motion.resting for i, below in enumerate(wanted)] for motion in motions])
    deepest = max(motion.penetration_m for motion in motions)
    findings.measure(runs=len(motions), share_at_rest=(resting & held).mean(), drift_m=min(drift.max(), 1e3), tilt_deg=tilt.max())
    findings.measure(jittered_penetration_m=deepest)
    findings.need(deepest <= MAX_PENETRATION, f"moved a little, things are {deepest * 1e3:.1f} mm inside one another")
    for i, name in enumerate(names):
        if not resting[:, i].all():
            moved = f"moves {min(drift[:, i].max(), 10.0) * 1e3:.0f} mm, tilts {tilt[:, i].max():.0f} deg"
            ends = f"ends at {speed[:, i].max() * 1e3:.1f} mm/s and {spin[:, i].max():.3f} rad/s"
            findings.need(False, f"{name} does not stay: {moved}, {ends}")
        elif not held[:, i].all():
            findings.need(False, f"{name} does not come to rest on {_below(names, wanted[i])}")


def _below(names: Sequence[str], index: int) -> str:
    return "the table" if index == TABLE else names[index]
