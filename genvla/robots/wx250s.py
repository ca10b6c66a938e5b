"""Names, limits and files of the WidowX-250 6DOF ("wx250s").

Source of the figures: interbotix_xsarm_descriptions (Interbotix/Trossen, BSD-3-Clause). The order of every vector of eight is
ARM_JOINTS, then FINGER_JOINTS, as SAPIEN lists them.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
FINGER_JOINTS = ("left_finger", "right_finger")
FINGER_LINKS = ("left_finger_link", "right_finger_link")
BASE_LINK = "base_link"
EE_LINK = "ee_gripper_link"
"""Between the finger pads, 15.6 mm short of their tips; x points out of the hand, y from finger to finger."""

GRIPPER_LINK = "gripper_link"
EE_OFFSET = 0.093575
"""Metres from GRIPPER_LINK to EE_LINK along their common x axis; EE_LINK has no mass and no shape."""

FINGERTIP = 0.015575
"""Metres from EE_LINK to the tips of the fingers."""

PALM = 0.022575
"""Metres from EE_LINK back to the hand between the fingers: what they close on may stand up no further."""

HAND = ((0.015, 0.052), (0.035, 0.021))
"""Half the sides, along the pads and across, of two rectangles around EE_LINK's axis that cover the hand over the fingers, to the
millimetre; in metres."""

FINGER_CLOSED = 0.015
FINGER_OPEN = 0.037
"""Limits of a finger joint in metres."""

FINGER_PAD = 0.00895
"""Depth of a finger's pad in metres: the clear gap between the pads is 2 (q - FINGER_PAD), 12.1 mm closed and 56.1 mm open."""

_ROLL = 3.141582653589793
JOINT_LOWER = torch.tensor(
    [-_ROLL, -1.8849555921538759, -2.1467549799530254, -_ROLL, -1.7453292519943295, -_ROLL, FINGER_CLOSED, FINGER_CLOSED],
    dtype=torch.float64,
)
JOINT_UPPER = torch.tensor(
    [_ROLL, 1.9896753472735358, 1.6057029118347832, _ROLL, 2.1467549799530254, _ROLL, FINGER_OPEN, FINGER_OPEN],
    dtype=torch.float64,
)
"""Radians for the arm, metres for the fingers; the same figures as in the URDF."""

REST_QPOS = torch.tensor(
    [-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, FINGER_OPEN, FINGER_OPEN], dtype=torch.float64
)
"""Gripper open and pointing down over the table, 0.29 m ahead: where SIMPLER's Bridge tasks start (Li et al. 2024)."""


def urdf_path(prefer_meshes: bool = False) -> Path:
    """The robot's URDF; an SRDF of the same name lies beside it.

    prefer_meshes: take ManiSkill's download of the official meshes (asset "widowx250s", under $MS_ASSET_DIR or ~/.maniskill) when
    it is there. Its joints, limits (to 1e-5 rad) and the links named in this module are the same.
    """
    if prefer_meshes:
        assets = Path(os.environ.get("MS_ASSET_DIR", "~/.maniskill")).expanduser()
        official = assets / "data" / "robots" / "widowx" / "wx250s.urdf"
        if official.is_file():
            return official
    return Path(__file__).with_name("wx250s.urdf")
