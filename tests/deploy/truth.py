"""The tests' own geometry and limits, from the published screws and joint ranges, many postures at once."""

from __future__ import annotations

import numpy as np

from tests.robots.published import HOME_POSE, SCREWS

LOWER = np.radians([-180, -108, -123, -180, -100, -180])
UPPER = np.radians([180, 114, 92, 180, 123, 180])
MARGIN, JOINT_STEP = np.radians(2), 0.5
X, Y, Z = (0.10, 0.45), (-0.15, 0.25), (0.005, 0.25)
JOINT_PLACES = {2: (0.04975, 0, 0.36065), 3: (0.22475, 0, 0.36065), 4: (0.29975, 0, 0.36065)}
"""Where elbow, forearm roll and wrist sit at the home pose: on their own axes."""
POST = ((-0.05, -0.21, 0.0), (0.05, -0.11, 0.45))
LEAN, FINGERTIP, TIP_HEIGHT, BASE_RADIUS = 0.6, 0.015575, 0.002, 0.10
DOWN = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def exponential(screw: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Of one screw (angular, linear) for many angles: [n, 4, 4] (Rodrigues)."""
    w, v = screw[:3], screw[3:]
    k = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    s, c, t = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None], angles[:, None, None]
    out = np.zeros((len(angles), 4, 4))
    out[:, :3, :3] = np.eye(3) + s * k + (1 - c) * (k @ k)
    out[:, :3, 3] = (t * np.eye(3) + (1 - c) * k + (t - s) * (k @ k)) @ v
    out[:, 3, 3] = 1
    return out


def hand(joints: np.ndarray) -> np.ndarray:
    """Pose of ee_gripper_link for postures [n, 6]: [n, 4, 4]."""
    pose = np.broadcast_to(HOME_POSE, (len(joints), 4, 4))
    for place in reversed(range(6)):
        pose = exponential(SCREWS[place].astype(float), joints[:, place]) @ pose
    return pose


def along(joints: np.ndarray) -> np.ndarray:
    """Elbow, forearm and wrist for postures [n, 6]: [n, 3, 3]."""
    pose, places = np.broadcast_to(np.eye(4), (len(joints), 4, 4)), []
    for place in range(5):
        if place in JOINT_PLACES:
            places.append((pose @ np.append(JOINT_PLACES[place], 1.0))[:, :3])
        pose = pose @ exponential(SCREWS[place].astype(float), joints[:, place])
    return np.stack(places, axis=1)


def broken(joints: np.ndarray, measured: np.ndarray) -> dict[str, int]:
    """How many commands [n, 6], given where the joints were, break each limit. Joint targets are single precision: 1e-6."""
    pose = hand(joints)
    position, tip = pose[:, :3, 3], pose[:, :3, 3] + FINGERTIP * pose[:, :3, 0]
    arm = np.concatenate((along(joints), position[:, None], tip[:, None]), axis=1)
    turned = pose[:, :3, :3] @ DOWN.T
    pitch = np.arctan2(-turned[:, 2, 0], np.hypot(turned[:, 0, 0], turned[:, 1, 0]))
    roll = np.arctan2(turned[:, 2, 1], turned[:, 2, 2])
    checks = {
        "range": ((joints < LOWER + MARGIN - 1e-5) | (joints > UPPER - MARGIN + 1e-5)).any(axis=1),
        "step": np.abs(joints - measured).max(axis=1) > JOINT_STEP + 2e-6,
        "x": (position[:, 0] < X[0]) | (position[:, 0] > X[1]),
        "y": (position[:, 1] < Y[0]) | (position[:, 1] > Y[1]),
        "z": (position[:, 2] < Z[0]) | (position[:, 2] > Z[1]),
        "lean": np.maximum(np.abs(roll), np.abs(pitch)) > LEAN + 1e-9,
        "height": arm[..., 2].min(axis=1) < TIP_HEIGHT,
        "post": ((arm > POST[0]) & (arm < POST[1])).all(axis=2).any(axis=1),
        "base": np.minimum(np.hypot(*position[:, :2].T), np.hypot(*tip[:, :2].T)) < BASE_RADIUS,
        "finite": ~np.isfinite(joints).all(axis=1),
    }
    return {name: int(bad.sum()) for name, bad in checks.items() if bad.any()}
