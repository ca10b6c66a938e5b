"""Where the arm is and how it gets from one posture to another. Actions become targets in `genvla.robots.control`, in the
simulator and here."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float

from genvla.robots import kinematics
from genvla.robots.wx250s import FINGERTIP, REST_QPOS
from genvla.types import CONTROL_HZ

PERIOD = 1 / CONTROL_HZ
"""Seconds of a control step."""

PROFILE_TIME, PROFILE_ACCELERATION = 1.25, 0.5
"""A servo's time profile for a step of one second: how long it takes and how long it speeds up; 250 and 100 ms for a control
step, as bridge_data_robot sets them. The next step comes before the profile ends, so a steady motion does not stop between
steps."""

SLEEP = np.array([0.0, -1.80, 1.55, 0.0, 0.8, 0.0])
"""Lying on its own forearm, where motors may let go (Interbotix)."""
NEUTRAL = np.array([-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401])
"""Drawn back over the table, between sleep and anywhere else (bridge_data_robot)."""
START = REST_QPOS[:6].numpy().copy()
"""Where episodes begin, in the simulator too."""

Joints = Float[np.ndarray, " 6"]
TOP_DOWN = np.array(kinematics.TOP_DOWN)


def hand_pose(joints: Joints) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, "3 3"]]:
    """Position [m] and rotation of ee_gripper_link in the base frame."""
    points, rotation = _chain(joints)
    return points[3], rotation


def outline(joints: Joints) -> Float[np.ndarray, "5 3"]:
    """Points along the arm in the base frame [m]: elbow, forearm, wrist, between the pads, fingertips."""
    return _chain(joints)[0]


def _chain(joints: Joints) -> tuple[Float[np.ndarray, "5 3"], Float[np.ndarray, "3 3"]]:
    """The outline and the hand's rotation. One arm at a time, for which NumPy is ten times as quick as a batch in PyTorch."""
    rotation, position, points = np.eye(3), np.zeros(3), []
    for angle, axis, offset in zip(joints, kinematics.JOINT_AXES, _OFFSETS, strict=True):
        position = position + rotation @ offset
        points.append(position)
        rotation = rotation @ _about(axis, float(angle))
    hand = position + rotation[:, 0] * kinematics.EE_OFFSET
    return np.array([*points[2:5], hand, hand + rotation[:, 0] * FINGERTIP]), rotation


_OFFSETS = np.array(kinematics.JOINT_OFFSETS)


def from_rpy(angles: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix of roll, pitch, yaw, as of `genvla.robots.rotations`."""
    roll, pitch, yaw = (float(angle) for angle in angles)
    return _about("z", yaw) @ _about("y", pitch) @ _about("x", roll)


def to_rpy(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 3"]:
    """Inverse of `from_rpy`; at a right angle of pitch, where roll and yaw are one, yaw is 0."""
    r = rotation.tolist()
    cos_pitch = math.hypot(r[0][0], r[1][0])
    pitch = math.atan2(-r[2][0], cos_pitch)
    if cos_pitch < 1e-8:
        return np.array([math.atan2(-r[1][2], r[1][1]), pitch, 0.0])
    return np.array([math.atan2(r[2][1], r[2][2]), pitch, math.atan2(r[1][0], r[0][0])])


def lean(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 3"]:
    """Roll, pitch, yaw [rad] of the hand relative to pointing straight down, as in proprioception."""
    return to_rpy(rotation @ TOP_DOWN.T)


def from_lean(angles: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "3 3"]:
    """Inverse of `lean`."""
    return from_rpy(angles) @ TOP_DOWN


def turn_between(start: Float[np.ndarray, "3 3"], end: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, " 3"]:
    """Roll, pitch, yaw of the rotation that `genvla.types` puts into an action: end = R(them) @ start."""
    return to_rpy(end @ start.T)


def angle_between(start: Float[np.ndarray, "3 3"], end: Float[np.ndarray, "3 3"]) -> float:
    """Radians: trace(end start^T) = 1 + 2 cos(angle)."""
    return math.acos(min(max((float((end * start).sum()) - 1) / 2, -1.0), 1.0))


def straight(start: Joints, goal: Joints, speed: float, seconds: float = 0.0) -> Float[np.ndarray, "k 6"]:
    """Joint angles for each control step on the straight way to `goal`, which is the last; the fastest joint moves at most at
    `speed` [rad/s], and the whole takes at least `seconds`."""
    steps = max(1, int(np.ceil(max(np.abs(goal - start).max() / speed, seconds) / PERIOD - 1e-9)))
    return start + (goal - start) * (np.arange(1, steps + 1) / steps)[:, None]


def raised(joints: Joints, height: float) -> Joints:
    """The posture with the hand straight above, at `height` [m] over the base, or as near as the arm comes."""
    position, rotation = kinematics.forward(torch.from_numpy(np.asarray(joints, float)[None]))
    position[0, 2] = height
    return kinematics.inverse(torch.from_numpy(np.asarray(joints, float)[None]), position, rotation, iterations=50)[0].numpy()


def _about(axis: str, angle: float) -> Float[np.ndarray, "3 3"]:
    cos, sin = math.cos(angle), math.sin(angle)
    if axis == "x":
        return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    if axis == "y":
        return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
