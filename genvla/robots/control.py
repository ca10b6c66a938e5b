"""From actions of the policy to joint targets, the same in the simulator and on the robot."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.robots.kinematics import forward, inverse, pose_error
from genvla.robots.rotations import euler_to_matrix
from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN, REST_QPOS

REACH_TOLERANCE = 1.5e-3
"""A target pose missed by more than this `pose_error` is out of reach: 1.5 mm, or 0.01 rad."""


class TargetPoseControl:
    """Target poses of `num` robots, moved by actions and followed by joint targets.

    The target, not the measured pose, accumulates the actions: p' = p + dp and R' = R(droll, dpitch, dyaw) @ R in the base frame
    (see `genvla.types`), so that a lagging arm makes no drift. A target the arm can't reach is replaced by the pose it can
    reach, so it never runs away. All robots are at REST_QPOS until `reset`. Poses are kept in double precision: many small
    rotations would wear a single one out.

    Joint targets may jump by a radian or two in one step where the wrist passes near its singular posture; limiting the speed of
    the joints is for what drives them.
    """

    def __init__(self, num: int, device: torch.device | str = "cpu") -> None:
        self.joints: Float[Tensor, "n 6"] = REST_QPOS[:6].to(device).repeat(num, 1)
        self.position, self.rotation = forward(self.joints)
        self.missed: Float[Tensor, " n"] = torch.zeros_like(self.joints[:, 0])
        """By how much the last actions' targets were out of reach, `pose_error`."""

    def reset(self, index: Tensor | slice | list[int], q: Float[Tensor, "k 6"]) -> None:
        """Put the targets of the robots at `index` where these joint angles put the hand. ValueError when one is not finite."""
        q = q.to(self.joints)
        if not q.isfinite().all():
            raise ValueError("joint angles must be finite")
        # Clones, because targets made in inference mode can't be written to outside of it.
        self.joints, self.position, self.rotation = self.joints.clone(), self.position.clone(), self.rotation.clone()
        self.joints[index] = q
        self.position[index], self.rotation[index] = forward(q)

    def joint_targets(self, actions: Float[Tensor, "n 7"]) -> Float[Tensor, "n 8"]:
        """Move every target by one action; joint targets (radians, then metres for the two fingers) in float32.

        Raises ValueError when an action is not finite, and leaves the targets as they were.
        """
        actions = actions.to(self.joints)
        if not actions.isfinite().all():
            raise ValueError("actions must be finite")
        position = self.position + actions[:, :3]
        rotation = torch.bmm(euler_to_matrix(actions[:, 3:6]), self.rotation)
        self.joints = inverse(self.joints, position, rotation)
        reached_position, reached_rotation = forward(self.joints)
        self.missed = pose_error(position, rotation, reached_position, reached_rotation)
        missed = self.missed > REACH_TOLERANCE
        self.position = torch.where(missed[:, None], reached_position, position)
        self.rotation = torch.where(missed[:, None, None], reached_rotation, rotation)
        fingers = torch.where(actions[:, 6:] > 0.5, FINGER_OPEN, FINGER_CLOSED).expand(-1, 2)
        return torch.cat((self.joints, fingers), -1).float()
