"""Task: the start is not the goal, the goal can be reached and stays reached, the arm gets there, the camera sees what is meant,
and the sentence means one thing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.files import AssetOnDisk
from scenegen.checks.findings import FileFault, Findings
from scenegen.checks.goal import probe_goal
from scenegen.checks.placing import as_row, into, out_of, rotated
from scenegen.checks.referring import mistaken
from scenegen.checks.sampling import sample
from scenegen.checks.settle import TABLE, bank_starts, sampled
from scenegen.checks.solid import Solid
from scenegen.layout.view import ASPECT, EYE, FOV_DEG, LOOK_AT
from scenegen.loader import Scene
from scenegen.schema import Check, Verdict

Array = NDArray[np.float64]

GRASP_WIDTH = (0.012, 0.052)
PLACEMENTS = 24
SEEN_NOMINAL, SEEN_ALWAYS = 0.5, 0.3
"""Share of the target's near side that nothing hides from the camera."""

HOVER, CLEARANCE = 0.05, 0.012
"""Above the grasp and above the place to let go, where a hand lines up [m]; between what it carries and the goal."""

LOWEST_GRASP = 0.02
"""Lower than this above the table the hand is not where it grasps: its fingers reach further down [m]."""

_POINTS = 96


def check_task(scene: Scene) -> Verdict:
    findings = Findings()
    try:
        solids = [AssetOnDisk(entry.asset, scene.folder).solid for entry in scene.objects]
        _start(scene, findings)
        _goal(scene, solids, findings)
        _reach(scene, findings)
        _grasp(scene, findings)
        _sight(scene, solids, findings)
        for reason in mistaken(scene.bundle.graph):
            findings.need(False, reason)
    except FileFault as fault:
        findings.need(False, str(fault))
    return findings.verdict(Check.TASK, "scene")


def _start(scene: Scene, findings: Findings) -> None:
    """In no placement does the target touch the destination and not the table."""
    target = scene.target_index
    goal, table = frozenset((target, scene.destination_index)), frozenset((target, TABLE))
    starts = bank_starts(scene)
    solved = sum(goal in touching and table not in touching for _, touching in starts)
    findings.measure(starts=len(starts), starts_solved=solved)
    findings.need(solved == 0, f"{solved} of {len(starts)} starts are solved already")


def _goal(scene: Scene, solids: list[Solid], findings: Findings) -> None:
    share = probe_goal(scene, solids)
    findings.measure(goal_share=share)
    place = scene.bundle.graph.goal
    findings.need(
        share > 0, f"let go over its goal, the target does not stay {place.predicate} the {place.object}, however turned"
    )


def _reach(scene: Scene, findings: Findings) -> None:
    """The hand, pointing down, gets to the target, above it, and above the goal."""
    from scenegen.layout.reach import reach_down  # PyTorch, which nothing else here needs

    target, destination = scene.objects[scene.target_index].asset, scene.objects[scene.destination_index].asset
    poses = scene.poses[sampled(len(scene.poses), PLACEMENTS)].astype(float)
    stand = as_row(scene.bundle.robot.base_pose)
    height = np.array([0, 0, max(target.grasp_height_m or 0.0, LOWEST_GRASP)])
    grasp = into(stand, out_of(poses[:, scene.target_index], height))
    aim = into(stand, out_of(poses[:, scene.destination_index], np.array(destination.goal_point)))
    yaw = np.full(len(poses), np.nan)
    if not target.grasp_symmetric and target.grasp_yaw_rad is not None:
        axis = np.array([np.cos(target.grasp_yaw_rad), np.sin(target.grasp_yaw_rad), 0.0])
        closing = into(stand, out_of(poses[:, scene.target_index], height + axis)) - grasp
        yaw = np.arctan2(closing[:, 1], closing[:, 0]) - np.pi / 2
    over = aim + height + [0, 0, HOVER + CLEARANCE]
    points = np.concatenate([grasp, grasp + [0, 0, HOVER], over])
    found = reach_down(points, np.concatenate([yaw, yaw, np.full(len(poses), np.nan)]))
    findings.measure(reach_off_m=found.distance_m.max(), reach_off_deg=np.degrees(found.angle_rad.max()))
    for name, reached in zip(("the target", "above the target", "above the goal"), np.split(found.reached, 3), strict=True):
        findings.need(bool(reached.all()), f"the hand does not reach {name} in {(~reached).sum()} of {len(reached)} placements")


def _grasp(scene: Scene, findings: Findings) -> None:
    width, (low, high) = scene.objects[scene.target_index].asset.grasp_width_m or 0.0, GRASP_WIDTH
    findings.measure(grasp_width_m=width)
    wanted = f"{low * 1e3:.0f} to {high * 1e3:.0f} mm wanted"
    findings.need(low <= width <= high, f"the target is {width * 1e3:.0f} mm wide where it is grasped, {wanted}")


def _sight(scene: Scene, solids: list[Solid], findings: Findings) -> None:
    shares = visible_shares(scene, solids, sampled(len(scene.poses), PLACEMENTS))
    findings.measure(visible_nominal=shares[0], visible_least=shares.min())
    findings.need(shares[0] >= SEEN_NOMINAL, f"{shares[0]:.0%} of the target is to be seen, {SEEN_NOMINAL:.0%} wanted")
    findings.need(
        shares.min() >= SEEN_ALWAYS, f"{shares.min():.0%} of the target is to be seen in one placement, {SEEN_ALWAYS:.0%} wanted"
    )


def visible_shares(scene: Scene, solids: list[Solid], placements: NDArray[np.int64]) -> Array:
    """Of the target's side that faces the camera, what is in the picture and not behind another object [k]."""
    poses, target = scene.poses[placements].astype(float), scene.target_index
    stand = as_row(scene.bundle.robot.base_pose)
    eye = out_of(stand, np.array(EYE))
    points, normals = _skin(solids[target])
    places = out_of(poses[:, target, None], points)  # [k, m, 3]
    facing = np.einsum("kmc,kmc->km", rotated(poses[:, target, None, 3:], normals), eye - places) > 0
    seen = facing & _in_picture(into(stand, places))
    for i, solid in enumerate(solids):
        if i != target:
            local, eyes = (into(poses[:, i, None], where) for where in (places, np.broadcast_to(eye, places.shape)))
            rows = np.flatnonzero(seen)
            hidden = solid.hides(local.reshape(-1, 3)[rows], eyes.reshape(-1, 3)[rows])
            seen.reshape(-1)[rows[hidden]] = False
    return seen.sum(axis=1) / np.maximum(facing.sum(axis=1), 1)


def _skin(solid: Solid) -> tuple[Array, Array]:
    """Points on its pieces that are in no other piece, and which way they face."""
    spots = [sample(hull.vertices, hull.faces, max(16, 2 * _POINTS // len(solid.hulls))) for hull in solid.hulls]
    points, normals = (np.concatenate([getattr(spot, name) for spot in spots]) for name in ("points", "normals"))
    free = (solid.outside(points + 5e-4 * normals) >= 0).all(axis=1)
    return points[free], normals[free]


def _in_picture(points: Array) -> NDArray[np.bool_]:
    """Of points [..., 3] of the robot's base frame, as the policy's camera has it."""
    forward = np.subtract(LOOK_AT, EYE) / np.linalg.norm(np.subtract(LOOK_AT, EYE))
    left = np.cross([0.0, 0, 1], forward)
    left /= np.linalg.norm(left)
    half = np.tan(np.radians(FOV_DEG) / 2)
    ahead, aside, up = ((points - EYE) @ axis for axis in (forward, left, np.cross(forward, left)))
    return (np.abs(aside) <= half * ASPECT * ahead) & (np.abs(up) <= half * ahead)
