"""The WidowX 250S as a ManiSkill agent, driven by target end-effector poses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sapien
import torch
from gymnasium import spaces
from mani_skill.agents.base_agent import BaseAgent
from mani_skill.agents.controllers.base_controller import BaseController, ControllerConfig
from mani_skill.agents.registration import register_agent

from genvla.robots import wx250s
from genvla.robots.control import TargetPoseControl
from genvla.sim.config import Gains
from genvla.types import ACTION_DIM


class TargetPoseController(BaseController):
    """Moves a target end-effector pose by each action (types.ActionChunk) and drives the joints to its inverse kinematics."""

    config: TargetPoseControllerConfig
    sets_target_qpos = True
    sets_target_qvel = False

    def _initialize_action_space(self) -> None:
        bound = np.array([1.0, 1.0, 1.0, np.pi, np.pi, np.pi, 1.0], dtype=np.float32)
        self.single_action_space = spaces.Box(-bound, bound, (ACTION_DIM,), np.float32)
        self._control = TargetPoseControl(self.scene.num_envs, self.device)

    def set_drive_property(self) -> None:
        gains = self.config.gains
        arm = zip(gains.stiffness, gains.damping, gains.force_limit, strict=True)
        finger = (gains.gripper_stiffness, gains.gripper_damping, gains.gripper_force_limit)
        for joint, (stiffness, damping, force_limit) in zip(self.joints, [*arm, finger, finger], strict=True):
            joint.set_drive_properties(stiffness, damping, force_limit=force_limit, mode="force")
            joint.set_friction(0.0)

    def reset(self) -> None:
        index = self.scene._reset_mask.nonzero().flatten()
        self._control.reset(index, self.qpos[index, :6])

    def set_action(self, action: torch.Tensor) -> None:
        targets = self._control.joint_targets(self._preprocess_action(action))
        self.articulation.set_joint_drive_targets(targets, self.joints, self.active_joint_indices)


@dataclass
class TargetPoseControllerConfig(ControllerConfig):
    gains: Gains = field(default_factory=Gains)
    controller_cls = TargetPoseController


@register_agent()
class WidowX(BaseAgent):
    """Reads its geometry from genvla.robots; the gains are the constructor's, since experiments choose them."""

    uid = "genvla_widowx250s"
    urdf_path = str(wx250s.urdf_path())

    def __init__(
        self, *args: Any, gains: Gains | None = None, pad_friction: float = 1.0, prefer_meshes: bool = False, **kwargs: Any
    ):
        self._gains = gains or Gains()
        self.urdf_path = str(wx250s.urdf_path(prefer_meshes))
        pads = {"static_friction": pad_friction, "dynamic_friction": pad_friction, "restitution": 0.0}
        finger = {"material": "pads", "patch_radius": 0.1, "min_patch_radius": 0.1}
        self.urdf_config = {"_materials": {"pads": pads}, "link": {"left_finger_link": finger, "right_finger_link": finger}}
        super().__init__(*args, **kwargs)

    @property
    def _controller_configs(self) -> dict[str, ControllerConfig]:
        joints = [*wx250s.ARM_JOINTS, *wx250s.FINGER_JOINTS]
        return {"target_delta_pose": TargetPoseControllerConfig(joints, self._gains)}

    @property
    def articulation(self) -> sapien.physx.PhysxArticulation:
        """SAPIEN's own object of the first environment; the one there is on CPU."""
        return self.robot._objs[0]
