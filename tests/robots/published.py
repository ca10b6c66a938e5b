"""The tests' truth: the wx250s as Interbotix publishes it (interbotix_xsarm_descriptions, BSD-3-Clause)."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm

HALF, FULL = np.pi / 2, np.pi

INERTIAS = {
    # link: mass, centre of mass, roll-pitch-yaw of the tensor's axes, ixx, iyy, izz, ixy, ixz, iyz in those axes
    "base_link": (
        0.538736,
        (-0.0380446, 0.000613892, 0.0193354),
        (0, 0, HALF),
        (2.115e-3, 6.921e-4, 2.524e-3, -1.635e-5, 6.998e-7, 4.642e-5),
    ),
    "shoulder_link": (
        0.480879,
        (2.23482e-5, 4.14609e-5, 0.0066287),
        (0, 0, HALF),
        (3.79e-4, 5.557e-4, 5.889e-4, 2.2e-9, -3.561e-7, 1.2245e-6),
    ),
    "upper_arm_link": (
        0.430811,
        (0.0171605, 2.725e-7, 0.191323),
        (0, 0, HALF),
        (3.463e-3, 3.587e-3, 4.566e-4, -1e-10, -2e-10, 4.272e-4),
    ),
    "upper_forearm_link": (0.234589, (0.107963, 0.000115876, 0), (0, 0, 0), (3.971e-5, 8.878e-4, 8.88e-4, 2.3528e-6, 0, 0)),
    "lower_forearm_link": (0.220991, (0.0374395, 0.00522252, 0), (FULL, 0, 0), (6.369e-5, 1.677e-4, 1.834e-4, -2.292e-5, 0, 0)),
    "wrist_link": (
        0.084957,
        (0.04236, -1.0663e-5, 0.010577),
        (0, 0, HALF),
        (3.082e-5, 2.822e-5, 3.152e-5, 1.91e-8, 2.3e-9, 2.5481e-6),
    ),
    "gripper_link": (0.072885, (0.021631, 2.516e-7, 0.01141), (0, 0, HALF), (2.537e-5, 1.836e-5, 1.674e-5, 0, 0, 4.34e-7)),
    "gripper_prop_link": (
        0.00434,
        (8.46e-4, -1.6817e-6, 4.2e-5),
        (0, 0, HALF),
        (5.923e-7, 1.1156e-6, 5.743e-7, 0, 3.195e-7, -4e-10),
    ),
    "gripper_bar_link": (
        0.034199,
        (0.009687, 8.177e-7, 0.004962),
        (0, 0, HALF),
        (7.4125e-6, 2.843e-5, 2.86e-5, -8e-10, -6e-10, -1.3889e-6),
    ),
    "left_finger_link": (0.016246, (0.013816, 0, 0), (FULL, FULL, HALF), (4.731e-6, 1.5506e-6, 3.7467e-6, -4.56e-7, 0, 0)),
    "right_finger_link": (0.016246, (0.013816, 0, 0), (0, FULL, HALF), (4.731e-6, 1.5506e-6, 3.7467e-6, 4.56e-7, 0, 0)),
}
PROP_IN_BAR = np.array([0.0055, 0, 0])
"""Where gripper_prop_link sits in gripper_bar_link's frame."""

TOTAL_MASS = 2.137879
"""Kilograms, with the three links of a gram that stand for frames only."""

HOME_POSE = np.array([[1, 0, 0, 0.458325], [0, 1, 0, 0], [0, 0, 1, 0.36065], [0, 0, 0, 1]])
SCREWS = np.array(
    [
        # angular, linear: space frame
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, -0.11065, 0, 0],
        [0, 1, 0, -0.36065, 0, 0.04975],
        [1, 0, 0, 0, 0.36065, 0],
        [0, 1, 0, -0.36065, 0, 0.29975],
        [1, 0, 0, 0, 0.36065, 0],
    ]
)

GRAVITY_TORQUES = {
    # arm joints, and the torque gravity exerts on waist .. wrist_rotate by recursive Newton-Euler of the published description
    (0, 0, 0, 0, 0, 0): (0, -1.8774, -1.4693, 0.0113, -0.1917, 0),
    (0, -1.8, 1.55, 0, 0.8, 0): (0, 1.1109, -1.4111, 0.011, -0.1731, 0),
    (-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401): (0, 0.1703, -1.2574, 0.0086, -0.0436, 0.0004),
}


def pose(q: np.ndarray) -> np.ndarray:
    """Of ee_gripper_link, 4x4, by the product of exponentials."""
    transform = HOME_POSE
    for angle, (wx, wy, wz, vx, vy, vz) in zip(q[::-1], SCREWS[::-1], strict=True):
        twist = np.array([[0, -wz, wy, vx], [wz, 0, -wx, vy], [-wy, wx, 0, vz], [0, 0, 0, 0]])
        transform = expm(twist * angle) @ transform
    return transform
