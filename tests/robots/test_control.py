"""What TargetPoseControl promises: targets accumulate, are followed, never run away, and do not depend on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from genvla.robots import kinematics, rotations
from genvla.robots.control import REACH_TOLERANCE, TargetPoseControl
from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN, JOINT_LOWER, JOINT_UPPER, REST_QPOS

ACTION_RANGE = torch.tensor([0.028, 0.041, 0.026, 0.08, 0.08, 0.2, 1.0])
"""About the 1st and 99th percentiles of the Bridge data's actions."""


def random_actions(steps: int, robots: int, seed: int) -> torch.Tensor:
    uniform = torch.rand(steps, robots, 7, generator=torch.Generator().manual_seed(seed))
    return (2 * uniform - 1) * ACTION_RANGE


def test_targets_accumulate_and_joints_follow() -> None:
    control = TargetPoseControl(1)
    start, hand = (value[0].numpy().copy() for value in kinematics.forward(REST_QPOS[None, :6]))
    actions = random_actions(20, 1, seed=0) * 0.3
    turned = Rotation.from_matrix(hand)
    for action in actions:
        targets = control.joint_targets(action)
        turned = Rotation.from_euler("xyz", action[0, 3:6].numpy()) * turned
    position, rotation = kinematics.forward(targets[:, :6])
    np.testing.assert_allclose(control.position[0], start + actions[:, 0, :3].double().sum(0).numpy(), atol=1e-7)
    np.testing.assert_allclose(control.rotation[0], turned.as_matrix(), atol=1e-6)
    np.testing.assert_allclose(position[0], control.position[0], atol=1e-3)
    np.testing.assert_allclose(rotation[0], control.rotation[0], atol=5e-3)


def test_there_and_back_returns_to_the_start() -> None:
    control = TargetPoseControl(1)
    there = torch.tensor([[0.02, -0.03, 0.02, 0.0, 0.0, 0.2, 1.0]])
    back = there * torch.tensor([-1, -1, -1, -1, -1, -1, 1])
    for action in [there] * 4 + [back] * 4 + [torch.zeros(1, 7)]:
        targets = control.joint_targets(action)
    np.testing.assert_allclose(targets[0, :6], REST_QPOS[:6], atol=1e-5)


def test_gripper_command_is_a_threshold() -> None:
    control = TargetPoseControl(4)
    actions = torch.zeros(4, 7)
    actions[:, 6] = torch.tensor([0.0, 0.5, 0.51, 1.0])
    fingers = control.joint_targets(actions)[:, 6:]
    assert fingers.dtype == torch.float32
    expected = torch.tensor([FINGER_CLOSED, FINGER_CLOSED, FINGER_OPEN, FINGER_OPEN])
    torch.testing.assert_close(fingers, expected[:, None].expand(4, 2))


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, 0, -1)])
def test_a_target_out_of_reach_is_pulled_back(direction: tuple[int, int, int]) -> None:
    control = TargetPoseControl(1)
    push = torch.zeros(1, 7)
    push[0, :3] = torch.tensor(direction) * 0.05
    for _ in range(40):  # two metres
        joints = control.joint_targets(push)[:, :6].double()
        assert (joints >= JOINT_LOWER[:6] - 1e-6).all() and (joints <= JOINT_UPPER[:6] + 1e-6).all()
        reached = kinematics.forward(joints)
        assert kinematics.pose_error(control.position, control.rotation, *reached) < REACH_TOLERANCE + 1e-6
    assert control.position.norm() < 0.9
    # So that the way back begins at once instead of after the metres asked for in vain.
    at_the_edge = control.position.clone()
    for _ in range(4):
        control.joint_targets(-push)
    moved = (control.position - at_the_edge)[0] @ -torch.tensor(direction, dtype=torch.float64)
    assert moved > 0.05


def test_random_actions_keep_every_target_reachable() -> None:
    control = TargetPoseControl(16)
    for actions in random_actions(200, 16, seed=1):
        joints = control.joint_targets(actions)[:, :6]
        miss = kinematics.pose_error(control.position, control.rotation, *kinematics.forward(joints.double()))
        assert miss.max() < REACH_TOLERANCE + 1e-6
    identity = control.rotation @ control.rotation.mT
    torch.testing.assert_close(identity, torch.eye(3, dtype=torch.float64).expand_as(identity), atol=1e-12, rtol=0)


def test_robots_do_not_influence_each_other() -> None:
    actions = random_actions(30, 5, seed=2)
    together = TargetPoseControl(5)
    alone = [TargetPoseControl(1) for _ in range(5)]
    for step in actions:
        batch = together.joint_targets(step)
        single = torch.cat([control.joint_targets(step[i : i + 1]) for i, control in enumerate(alone)])
        torch.testing.assert_close(batch, single, atol=1e-6, rtol=0)


def test_reset_moves_only_the_robots_named() -> None:
    control = TargetPoseControl(3)
    control.joint_targets(random_actions(1, 3, seed=3)[0])
    kept = control.position[[0, 2]].clone()
    joints = torch.tensor([[0.3, -0.2, 0.3, 0.1, 1.4, -0.2]])
    control.reset(torch.tensor([1]), joints)
    position, rotation = kinematics.forward(joints.double())
    torch.testing.assert_close(control.position[1:2], position)
    torch.testing.assert_close(control.rotation[1:2], rotation)
    torch.testing.assert_close(control.position[[0, 2]], kept)
    hold = control.joint_targets(torch.zeros(3, 7))
    torch.testing.assert_close(hold[1, :6], joints[0], atol=1e-6, rtol=0)


def test_inference_mode_or_not() -> None:
    control = TargetPoseControl(2)
    with torch.inference_mode():
        control.joint_targets(torch.zeros(2, 7))
    control.reset([0], REST_QPOS[None, :6])
    torch.testing.assert_close(control.joint_targets(torch.zeros(2, 7))[:, :6], REST_QPOS[:6].float().expand(2, 6))


def test_reset_to_joint_angles_that_are_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        TargetPoseControl(1).reset([0], torch.full((1, 6), float("nan")))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_actions_that_are_not_finite_are_refused_and_change_nothing(bad: float) -> None:
    control = TargetPoseControl(2)
    before = control.joint_targets(torch.zeros(2, 7))
    actions = torch.full((2, 7), 0.01)
    actions[1, 4] = bad
    with pytest.raises(ValueError, match="finite"):
        control.joint_targets(actions)
    torch.testing.assert_close(control.joint_targets(torch.zeros(2, 7)), before)


def test_delta_rotation_is_about_the_base_axes() -> None:
    control = TargetPoseControl(1)
    _, before = kinematics.forward(REST_QPOS[None, :6])
    control.joint_targets(torch.tensor([[0, 0, 0, 0.0, 0.0, 0.1, 1.0]]))
    turn = rotations.matrix_to_rotvec(control.rotation @ before.mT)
    np.testing.assert_allclose(turn[0], [0, 0, 0.1], atol=1e-6)
