"""What an arm does with an object: where it is held, what it holds, what it carries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genvla.robots.wx250s import HAND, PALM
from scenegen.checks.files import AssetOnDisk
from scenegen.checks.findings import Findings
from scenegen.checks.sampling import sample
from scenegen.checks.solid import Solid
from scenegen.schema import AssetRecord, Cavity, NodeSpec

Array = NDArray[np.float64]

OPENING = 0.0561
"""Clear gap of the open gripper [m]."""

PAD, PAD_HEIGHT = 0.012, 0.005
"""Half the width and half the height of what a finger pad touches [m]."""

WIDTH_TOLERANCE = 0.006
HEADROOM = 0.05
"""Above the goal point, and above a container's rim, that must be free [m]."""


def check_handling(node: NodeSpec, disk: AssetOnDisk, findings: Findings) -> None:
    record, solid = disk.record, disk.solid
    findings.need(record.graspable or not node.graspable, "cannot be grasped, though a graspable thing is wanted")
    if record.graspable:
        _grasp(record, solid, findings)
    findings.need(record.cavity is not None or not node.container, "has no hollow, though a container is wanted")
    if record.cavity is not None:
        mesh = disk.visual
        middle = np.array([*(record.goal_point or (0.0, 0.0))[:2], 0.0])
        _hollow(record.cavity, middle, solid, sample(mesh.points, mesh.faces, 1024).points, findings)
    if record.goal_point is not None:
        _goal(np.array(record.goal_point), solid, findings)


def _grasp(record: AssetRecord, solid: Solid, findings: Findings) -> None:
    """The fingers close on as much as the record says, and go down past everything that stands between them."""
    yaw, height, width = record.grasp_yaw_rad or 0.0, record.grasp_height_m or 0.0, record.grasp_width_m or 0.0
    top = float(solid.points[:, 2].max())
    findings.need(0 < height < top, f"to be held {height * 1e3:.0f} mm high, it is {top * 1e3:.0f} mm high")
    yaws = [yaw + turn for turn in np.pi / 6 * np.arange(6)] if record.grasp_symmetric else [yaw]
    held, needed = zip(*(_between_fingers(solid, at, height, top) for at in yaws), strict=True)
    off = max(abs(value - width) for value in held)
    room = PALM - max(_under_hand(solid, at) for at in yaws) + height
    findings.measure(grasp_width_m=np.mean(held), opening_m=max(needed), palm_room_m=room)
    findings.need(room >= 0, f"stands {-room * 1e3:.0f} mm too high over where it is held: the palm meets it")
    findings.need(min(held) > 0, "there is nothing where it is to be held")
    findings.need(off <= WIDTH_TOLERANCE, f"{held[0] * 1e3:.0f} mm wide where it is held, {width * 1e3:.0f} mm recorded")
    findings.need(
        max(needed) <= OPENING, f"needs an opening of {max(needed) * 1e3:.0f} mm; the gripper opens {OPENING * 1e3:.0f} mm"
    )


def _between_fingers(solid: Solid, yaw: float, height: float, top: float) -> tuple[float, float]:
    """How wide it is between the pads, and the opening that clears all of it from the height of the grasp up."""
    across, along = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    steps = np.linspace(-PAD, PAD, 9)
    pads = np.linspace(max(height - PAD_HEIGHT, 1e-4), min(height + PAD_HEIGHT, top - 1e-4), 5)
    low, high = solid.extent((steps[:, None, None] * along + pads[:, None] * [0, 0, 1.0]).reshape(-1, 3), across)
    hit = low < high
    held = float(high[hit].max() - low[hit].min()) if hit.any() else 0.0
    levels = np.linspace(height, top - 1e-4, 12)
    points = (steps[:, None, None] * along + levels[:, None] * [0, 0, 1.0]).reshape(-1, 3)
    low, high = solid.extent(points, across)
    hit = low < high
    return held, 2 * float(np.maximum(-low[hit], high[hit]).max(initial=0.0))


def _under_hand(solid: Solid, yaw: float) -> float:
    """How high it is under the hand [m]."""
    across, along = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    grids = [np.meshgrid(np.linspace(-a, a, 11), np.linspace(-c, c, 25)) for a, c in HAND]
    rows = np.concatenate([a.reshape(-1, 1) * along + c.reshape(-1, 1) * across for a, c in grids])
    low, high = solid.extent(rows, np.array([0.0, 0.0, 1.0]))
    return float(high[low < high].max(initial=0.0))


def _hollow(cavity: Cavity, middle: Array, solid: Solid, surface: Array, findings: Findings) -> None:
    """An upright cylinder around the middle, from the floor to above the rim, in which there is nothing. Round bowls go on below
    it, but not as wide."""
    rim = float(solid.points[:, 2].max())
    floor = rim - cavity.depth_m
    findings.need(floor >= -1e-3, f"a hollow {cavity.depth_m * 1e3:.0f} mm deep in a thing {rim * 1e3:.0f} mm high")
    radius = 0.92 * cavity.radius_m  # round walls are polygons
    angles = np.pi / 8 * np.arange(16)
    rings = [r * np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1) for r in (0, 0.5 * radius, radius)]
    columns = middle + np.concatenate(rings)
    enter, leave = solid.cast(columns + [0, 0, floor], np.array([0.0, 0.0, 1.0]))
    filled = np.clip(np.minimum(leave, cavity.depth_m + HEADROOM) - np.maximum(enter, 0.001), 0, None)
    within = (np.linalg.norm((surface - middle)[:, :2], axis=1) < radius) & (surface[:, 2] > floor + 0.002)
    findings.measure(hollow_filled_m=filled.max())
    findings.need(filled.max() < 1e-3 and not within.any(), "its hollow is not open: something stands in it or closes it")
    below = solid.extent(columns + [0, 0, floor], np.array([0.0, 0, 1]))[1].max()  # the wall of a round bowl narrows slowly
    findings.need(-0.25 * radius - 2e-3 < below < 2e-3, f"the floor of its hollow lies {abs(below) * 1e3:.0f} mm off its depth")


def _goal(goal: Array, solid: Solid, findings: Findings) -> None:
    """On a surface, with nothing above."""
    low, high = solid.extent(goal[None], np.array([0.0, 0.0, 1.0]))
    off = float(high[0]) if low[0] < high[0] else np.inf
    findings.measure(goal_off_m=min(abs(off), 1.0))
    findings.need(abs(off) <= 0.002, f"the goal point is not on its upper surface: {min(abs(off), 1.0) * 1e3:.0f} mm off")
