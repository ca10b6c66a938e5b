"""The goal probe: the target, let go a little over its goal, comes to rest there and stays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.placing import into, out_of, rotated, turned
from scenegen.checks.settle import TABLE, above_table
from scenegen.checks.solid import Solid
from scenegen.layout.physics import HZ, Bench
from scenegen.loader import Scene

Array = NDArray[np.float64]

DROP, SECONDS, HELD = 0.005, 1.5, 0.5
"""Metres over where it comes to lie; seconds to come to rest, the last of which it must be there."""

YAWS = np.pi / 4 * np.arange(4)
FORCE = 0.01
"""Newtons above which two things touch: below it lies what the solver leaves between things that are merely near."""

_GRID = 0.004
_EVERY = 5
_UPRIGHT = np.array([1.0, 0, 0, 0])
_UP = np.array([0.0, 0, 1])


def probe_goal(scene: Scene, solids: list[Solid]) -> float:
    """The share of yaws in which the target, upright, touches the destination and not the table all through the last HELD
    seconds; all else stands as in the nominal placement."""
    context, target = scene.bundle.context, scene.target_index
    start = above_table(scene, np.array([0]))[0]
    goal = out_of(start[scene.destination_index], np.array(scene.objects[scene.destination_index].asset.goal_point))
    poses = np.repeat(start[None], len(YAWS), axis=0)
    for pose, yaw in zip(poses[:, target], YAWS, strict=True):
        pose[3:] = turned(_UPRIGHT, yaw)
        pose[:2] = goal[:2]
        pose[2] = _resting_height(pose, target, start, solids) + DROP
    friction = (context.static_friction, context.dynamic_friction)
    bench = Bench(scene.folder, [entry.asset for entry in scene.objects], len(YAWS), friction, context)
    for bodies in bench.bodies:
        for body in bodies:
            body.set_sleep_threshold(0.0)  # what sleeps reports no forces
    bench.place(poses)
    stayed = np.ones(len(YAWS), bool)
    for step in range(int(SECONDS * HZ)):
        bench.scene.step()
        if step >= (SECONDS - HELD) * HZ and step % _EVERY == 0:
            stayed &= _solved(bench, target, scene.destination_index)
    return float(stayed.mean())


def _resting_height(pose: Array, target: int, others: Array, solids: list[Solid]) -> float:
    """Where the target's origin is when, lowered as it is turned, it first touches anything else; no lower than on the table."""
    turn = pose[3:]
    spots = rotated(turn, solids[target].points)
    low, high = spots.min(axis=0), spots.max(axis=0)
    grid = np.stack(np.meshgrid(*(np.arange(low[i], high[i], _GRID) for i in (0, 1))), axis=-1).reshape(-1, 2)
    grid = np.c_[grid, np.zeros(len(grid))]
    bottom = solids[target].extent(rotated(turn * [1, -1, -1, -1], grid), _UP)[0]
    grid, bottom = grid[np.isfinite(bottom)] + [*pose[:2], 0.0], bottom[np.isfinite(bottom)]
    height = float(-low[2])
    radius = float(np.linalg.norm(spots, axis=1).max())
    for i, solid in enumerate(solids):
        near = np.linalg.norm(others[i, :2] - pose[:2]) <= radius + np.linalg.norm(solid.points, axis=1).max()
        if i != target and near:
            up = rotated(others[i, 3:] * [1, -1, -1, -1], _UP)
            top = solid.extent(into(others[i], grid), up)[1]
            height = max(height, float((top - bottom).max()))
    return height


def _solved(bench: Bench, target: int, destination: int) -> NDArray[np.bool_]:
    """The rule of the task, for each copy, by the forces of the last step."""
    whose = {body.entity.per_scene_id: (copy, i) for copy, bodies in enumerate(bench.bodies) for i, body in enumerate(bodies)}
    force = np.zeros((len(bench.bodies), len(bench.bodies[0]) + 1))  # the last column is the table's
    for contact in bench.scene.get_contacts():
        pair = [whose.get(body.entity.per_scene_id, (-1, TABLE)) for body in contact.bodies]
        for (copy, i), (_, other) in (pair, pair[::-1]):
            if i == target:
                force[copy, other] += sum(float(np.linalg.norm(point.impulse)) for point in contact.points) * HZ
    return (force[:, destination] > FORCE) & (force[:, TABLE] <= FORCE)
