"""The layer between what a policy wants and what the arm is told: no command leaves it outside any limit of SafetyConfig.

An action that breaks no limit passes unchanged, to the last bit: with a sane policy the real arm does what the simulated one
does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from deploy import control
from deploy.control import Joints, from_rpy, hand_pose, lean, outline
from deploy.drivers import ArmFault, ArmState
from deploy.safety_config import SafetyConfig
from genvla.robots.control import REACH_TOLERANCE, TargetPoseControl
from genvla.robots.kinematics import ROTATION_LENGTH
from genvla.robots.wx250s import ARM_JOINTS, FINGERTIP, JOINT_LOWER, JOINT_UPPER
from genvla.types import ACTION_DIM

ROUNDING = 1e-6
"""Radians; joint targets are of single precision."""

Kind = Literal["move", "hold", "stop"]


@dataclass(frozen=True)
class Verdict:
    """What may be done with an action.

    kind: move to joints [6] rad and a gripper opening within `duration` seconds; hold; or stop, because it cannot go on so.
    changes: the guards that altered it, in the order they did. reason: why it holds or stops.
    """

    kind: Kind
    joints: Joints
    gripper: float
    duration: float
    changes: tuple[str, ...] = ()
    reason: str = ""


class SafetyLayer:
    """Turns actions into commands. Keeps the target pose that actions move, and how often in a row they were refused."""

    def __init__(self, config: SafetyConfig) -> None:
        self.config = config
        self._control = TargetPoseControl(1)
        self._bad = self._failed = 0
        margin = config.joints.margin
        self._lower, self._upper = JOINT_LOWER[:6].numpy() + margin, JOINT_UPPER[:6].numpy() - margin

    def resync(self, state: ArmState) -> None:
        """The target is where the hand is."""
        self._put_target(state.joint_positions)
        self._bad = self._failed = 0

    def step(self, action: Float[np.ndarray, " 7"], state: ArmState) -> Verdict:
        """One action of the policy (see `genvla.types`), the arm being in this state."""
        if not is_finite(state):
            return self._refused(state, "the arm's state is not finite", bad=True)
        wanted = _as_action(action)
        if wanted is None:
            return self._refused(state, f"action: {_shown(action)} found, {ACTION_DIM} finite numbers wanted", bad=True)
        self._bad = 0
        before = (self._control.joints, self._control.position, self._control.rotation)
        measured = np.asarray(state.joint_positions, float)
        changes: list[str] = []
        self._leash(measured, changes)
        wanted = self._inside(self._clipped(wanted, changes), changes)
        limits = self.config.step
        if (np.abs(wanted[:3]) > limits.translation + 1e-6).any() or (np.abs(wanted[3:6]) > limits.rotation + 1e-6).any():
            return self._failure(state, before, "the hand is outside of the workspace, more than a step from it")
        moved, missed = self._solve(wanted)
        if missed > limits.miss:
            return self._failure(state, before, f"the kinematics miss the target pose by {missed * 1000:.0f} mm")
        joints = self._limited(moved[:6], measured, changes)
        broken = self.broken_limit(joints, measured)
        if broken:
            return self._failure(state, before, broken)
        self._failed = 0
        return Verdict("move", joints, float(wanted[6] > 0.5), self._duration(joints - measured), tuple(changes))

    def broken_limit(self, joints: Joints, measured: Joints) -> str:
        """Which limit a command of joint angles breaks, the joints being at `measured`; empty when none."""
        config, space = self.config, self.config.workspace
        if not np.isfinite(joints).all():
            return "joint angles are not finite"
        over = np.maximum(self._lower - joints, joints - self._upper)
        if over.max() > ROUNDING:
            return f"{ARM_JOINTS[int(over.argmax())]} would come within {config.joints.margin:.3f} rad of its end"
        if np.abs(joints - measured).max() > self._joint_step + 1e-6:
            return f"{ARM_JOINTS[int(np.abs(joints - measured).argmax())]} is too far from where it should go"
        position, rotation = hand_pose(joints)
        heights = (space.z[0] + space.table_height, space.z[1] + space.table_height)
        for name, value, (low, high) in zip("xyz", position, (space.x, space.y, heights), strict=True):
            if not low <= value <= high:
                return f"the hand's {name} would be {value:.3f} m, {low:g} to {high:g} wanted"
        if np.abs(lean(rotation)[:2]).max() > space.lean:
            return "the hand would lean too far"
        points = outline(joints)
        if np.hypot(*points[3:, :2].T).min() < space.base_radius:
            return "the hand would come too near to the base"
        return self._collision(points)

    def _collision(self, points: Float[np.ndarray, "5 3"]) -> str:
        """What of the table or the boxes to keep out of an arm with this outline would touch; empty when nothing."""
        space = self.config.workspace
        if points[:, 2].min() < space.table_height + space.fingertips:
            return f"the arm would be {points[:, 2].min() - space.table_height:.3f} m over the table"
        for box in space.keep_out:
            if ((points > box[:3]) & (points < box[3:])).all(axis=1).any():
                return "the arm would enter a box to keep out of"
        return ""

    def way(self, start: Joints, goal: Joints, seconds: float = 0.0) -> Float[np.ndarray, "k 6"]:
        """Commands for each control step to get the arm to other joint angles, at homing speed and clear of the table.

        Joints outside their limits come in. ArmFault when the way leads through something.
        """
        end = np.clip(goal, self._lower, self._upper)
        steps = control.straight(start, end, self.config.homing.speed, seconds)
        inside = np.clip(steps, self._lower, self._upper)
        lowest = min(outline(start)[:, 2].min(), self.config.workspace.table_height + self.config.workspace.fingertips)
        for step in inside:
            points = outline(step)
            what = self._collision(points)
            if what and not (what.endswith("table") and points[:, 2].min() >= lowest):
                raise ArmFault(f"no free way: {what}")
        return inside

    @property
    def standing(self) -> Joints:
        """The joint angles of the target pose."""
        return self._control.joints[0].numpy()

    # ---- the guards

    @property
    def _joint_step(self) -> float:
        return min(self.config.joints.rate * control.PERIOD, self.config.joints.step)

    def _leash(self, measured: Joints, changes: list[str]) -> None:
        """Puts a target that ran away, say against an obstacle, back to where the hand is."""
        position, rotation = hand_pose(measured)
        away = float(np.linalg.norm(self._control.position[0].numpy() - position))
        angle = control.angle_between(rotation, self._control.rotation[0].numpy())
        if away > self.config.step.leash or angle > self.config.step.leash_angle:
            self._put_target(measured)
            changes.append("leash")

    def _clipped(self, action: Float[np.ndarray, " 7"], changes: list[str]) -> Float[np.ndarray, " 7"]:
        limits = self.config.step
        bound = np.array([limits.translation] * 3 + [limits.rotation] * 3)
        motion = np.clip(action[:6], -bound, bound)
        if (motion != action[:6]).any():
            changes.append("step")
        return np.append(motion * limits.scale, action[6])

    def _inside(self, action: Float[np.ndarray, " 7"], changes: list[str]) -> Float[np.ndarray, " 7"]:
        """The action that leads to the nearest pose the hand may take. What the kinematics may miss by is kept free."""
        space = self.config.workspace
        slack, lean_slack = REACH_TOLERANCE, REACH_TOLERANCE / ROTATION_LENGTH
        action = action.copy()
        rotation = self._control.rotation[0].numpy()
        turned = from_rpy(action[3:6]) @ rotation
        angles = lean(turned)
        if np.abs(angles[:2]).max() > space.lean - lean_slack:
            angles[:2] = np.clip(angles[:2], lean_slack - space.lean, space.lean - lean_slack)
            turned = control.from_lean(angles)
            action[3:6] = control.turn_between(rotation, turned)
            changes.append("lean")
        position = self._control.position[0].numpy()
        low = np.array([space.x[0], space.y[0], space.z[0] + space.table_height]) + slack
        high = np.array([space.x[1], space.y[1], space.z[1] + space.table_height]) - slack
        low[2] = max(low[2], space.table_height + space.fingertips + slack - min(turned[2, 0], 0.0) * FINGERTIP)
        target = position + action[:3]
        allowed = np.clip(target, low, high)
        if (allowed != target).any():
            # Only the coordinates that were out: the others keep their bits.
            action[:3] = np.where(allowed != target, allowed - position, action[:3])
            changes.append("workspace")
        return action

    def _solve(self, action: Float[np.ndarray, " 7"]) -> tuple[Float[np.ndarray, " 8"], float]:
        """Joint targets as the simulator computes them, and by how much they miss the pose asked for [m]."""
        with torch.inference_mode():
            targets = self._control.joint_targets(torch.from_numpy(action[None]))[0].numpy().astype(np.float64)
            return targets, float(self._control.missed[0])

    def _limited(self, joints: Joints, measured: Joints, changes: list[str]) -> Joints:
        """Joint angles kept off the ends of their ranges, and near enough to be reached without haste."""
        kept = np.clip(joints, self._lower, self._upper)
        if np.abs(kept - joints).max() > ROUNDING:
            changes.append("joint range")
        else:
            kept = joints
        furthest = np.abs(kept - measured).max()
        if furthest > self._joint_step:
            kept = measured + (kept - measured) * (self._joint_step / furthest)
            kept = np.clip(kept, self._lower, self._upper)
            changes.append("joint step")
        if kept is not joints and (kept != joints).any():
            self._put_target(kept)
        return kept

    def _duration(self, change: Joints) -> float:
        """Of a command: a control step, or longer where a servo's trapezoid would peak above the profile speed."""
        cruise = control.PROFILE_TIME - control.PROFILE_ACCELERATION
        return max(control.PERIOD, float(np.abs(change).max()) / (cruise * self.config.joints.profile_speed))

    # ---- refusals

    def _failure(self, state: ArmState, before: tuple, reason: str) -> Verdict:
        self._control.joints, self._control.position, self._control.rotation = before
        return self._refused(state, reason, bad=False)

    def _refused(self, state: ArmState, reason: str, bad: bool) -> Verdict:
        """Holds, or stops when it is not the first time in a row."""
        if bad:
            self._bad += 1
            count, most = self._bad, self.config.step.bad_actions
        else:
            self._failed += 1
            count, most = self._failed, self.config.step.failures
        if count >= most:
            return Verdict("stop", state.joint_positions, state.gripper, control.PERIOD, reason=f"{reason} ({count} in a row)")
        return Verdict("hold", state.joint_positions, state.gripper, control.PERIOD, reason=reason)

    def _put_target(self, joints: Joints) -> None:
        self._control.reset([0], torch.from_numpy(np.asarray(joints, float)[None]))


def is_finite(state: ArmState) -> bool:
    """Whether posture and motion of the arm are numbers, as many as there should be."""
    parts = ((state.joint_positions, 6), (state.joint_velocities, 6), (state.fingers, 2))
    return all(np.shape(part) == (size,) and np.isfinite(part).all() for part, size in parts)


def _as_action(action: object) -> Float[np.ndarray, " 7"] | None:
    """Seven finite numbers, rounded to single precision as the simulator takes them; None when it is something else."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(action)
            array = array.astype(np.float32) if array.dtype.kind in "fiu" else np.zeros(0)
    except (TypeError, ValueError, OverflowError):
        return None
    return array.astype(np.float64) if array.shape == (ACTION_DIM,) and np.isfinite(array).all() else None


def _shown(action: object) -> str:
    text = " ".join(repr(action.tolist() if isinstance(action, np.ndarray) and action.size < 20 else action).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
