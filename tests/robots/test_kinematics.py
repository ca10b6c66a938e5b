"""Against the product of exponentials, published proprioception, finite motions and pinocchio."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from genvla.robots import kinematics, rotations, wx250s
from tests.robots import published

LOWER, UPPER = wx250s.JOINT_LOWER[:6], wx250s.JOINT_UPPER[:6]
TOP_DOWN = torch.tensor(kinematics.TOP_DOWN, dtype=torch.float64)


def random_arms(count: int, seed: int = 0) -> torch.Tensor:
    return LOWER + (UPPER - LOWER) * torch.rand(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_forward_equals_the_product_of_exponentials() -> None:
    arms = random_arms(50)
    position, rotation = kinematics.forward(arms)
    truth = np.stack([published.pose(arm) for arm in arms.numpy()])
    np.testing.assert_allclose(position, truth[:, :3, 3], atol=1e-12)
    np.testing.assert_allclose(rotation, truth[:, :3, :3], atol=1e-12)


def test_single_precision_is_enough() -> None:
    arms = random_arms(1000)
    for double, single in zip(kinematics.forward(arms), kinematics.forward(arms.float()), strict=True):
        assert single.dtype == torch.float32
        assert (double - single).abs().max() < 1e-5


def test_jacobian_equals_the_space_jacobian_of_the_screws() -> None:
    arms = random_arms(20)
    ours = kinematics.jacobian(arms).numpy()
    for arm, jacobian in zip(arms.numpy(), ours, strict=True):
        position = published.pose(arm)[:3, 3]
        for joint in range(6):
            # A screw, carried along by the joints before it, moves the hand with v + w x p.
            before = np.zeros(6)
            before[:joint] = arm[:joint]
            carried = published.pose(before) @ np.linalg.inv(published.HOME_POSE)
            angular = carried[:3, :3] @ published.SCREWS[joint, :3]
            linear = carried[:3, :3] @ published.SCREWS[joint, 3:] + np.cross(carried[:3, 3], angular)
            np.testing.assert_allclose(jacobian[:3, joint], linear + np.cross(angular, position), atol=1e-12)
            np.testing.assert_allclose(jacobian[3:, joint], angular, atol=1e-12)


@pytest.mark.parametrize(
    ("qpos", "proprio"),
    [
        # initial states of SIMPLER's two Bridge tables, proprioception as open-pi-zero computes it from the simulator
        (
            [-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398, 0.037, 0.037],
            [0.292069, -0.006091, 0.135321, -0.004539, 0.056753, -0.019003, 1.0],
        ),
        (
            [-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038, 0.037, 0.037],
            [0.249719, -0.067508, 0.227593, 0.006636, 0.048383, 0.009225, 1.0],
        ),
    ],
)
def test_proprioception_of_known_states(qpos: list[float], proprio: list[float]) -> None:
    np.testing.assert_allclose(kinematics.proprioception(torch.tensor([qpos]))[0], proprio, atol=2e-6)


def test_gripper_opening_is_clipped_mean() -> None:
    fingers = torch.tensor([[0.015, 0.015], [0.014, 0.010], [0.026, 0.026], [0.015, 0.037], [0.038, 0.039]])
    qpos = torch.cat((torch.zeros(5, 6), fingers), 1)
    np.testing.assert_allclose(kinematics.proprioception(qpos)[:, 6], [0, 0, 0.5, 0.5, 1], atol=1e-6)


def test_pose_error_weighs_rotation() -> None:
    eye, turned = torch.eye(3)[None], torch.tensor(Rotation.from_rotvec([0, 0, 0.01]).as_matrix()[None], dtype=torch.float32)
    here, there = torch.zeros(1, 3), torch.tensor([[0.0, 0.004, 0.0]])
    assert kinematics.pose_error(here, eye, there, eye).item() == pytest.approx(0.004)
    assert kinematics.pose_error(here, eye, here, turned).item() == pytest.approx(0.01 * kinematics.ROTATION_LENGTH, rel=1e-4)
    assert kinematics.pose_error(here, eye, there, turned).item() == pytest.approx(np.hypot(0.004, 0.0015), rel=1e-4)


unit = st.floats(-1, 1)
vectors = st.tuples(unit, unit, unit).filter(lambda v: np.linalg.norm(v) > 0.1)


def well_conditioned(q: torch.Tensor) -> bool:
    weights = torch.tensor([1.0] * 3 + [kinematics.ROTATION_LENGTH] * 3, dtype=torch.float64)
    smallest = torch.linalg.svdvals(weights[:, None] * kinematics.jacobian(q))[0, -1]
    margin = torch.minimum(q - LOWER, UPPER - q).min()
    return bool(smallest > 0.05) and bool(margin > 0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(0.17, 0.40), st.floats(-0.17, 0.25), st.floats(-0.02, 0.22)),
    st.tuples(st.floats(-0.4, 0.4), st.floats(-0.5, 0.3), st.floats(-1.35, 1.8)),
    vectors,
    vectors,
    st.floats(0, 1),
)
def test_inverse_follows_steps_of_5_cm_and_0_3_rad(place: tuple, rpy: tuple, shift: tuple, turn: tuple, size: float) -> None:
    """Over the workspace and the hand's rotations of the Bridge data, away from singular postures and limits."""
    position = torch.tensor([place], dtype=torch.float64)
    rotation = rotations.euler_to_matrix(torch.tensor([rpy], dtype=torch.float64)) @ TOP_DOWN
    start = kinematics.inverse(wx250s.REST_QPOS[None, :6], position, rotation, iterations=50)
    assume(kinematics.pose_error(position, rotation, *kinematics.forward(start)) < 1e-4)
    step = torch.tensor(np.array(shift) / np.linalg.norm(shift) * 0.05 * size)
    spin = torch.tensor(Rotation.from_rotvec(np.array(turn) / np.linalg.norm(turn) * 0.3 * size).as_matrix())
    goal = position + step, spin @ rotation
    assume(well_conditioned(start) and well_conditioned(kinematics.inverse(start, *goal, iterations=50)))
    reached = kinematics.inverse(start, *goal)
    reached_position, reached_rotation = kinematics.forward(reached)
    assert (reached_position - goal[0]).norm() < 1e-3
    assert rotations.matrix_to_rotvec(reached_rotation @ goal[1].mT).norm() < 5e-3
    assert kinematics.pose_error(*goal, *kinematics.forward(kinematics.inverse(start, *goal, iterations=8))) < 1e-8


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), vectors, st.floats(0.1, 3))
def test_inverse_stays_within_limits_whatever_is_asked(seed: int, shift: tuple, distance: float) -> None:
    start = random_arms(1, seed)
    position, rotation = kinematics.forward(start)
    reached = kinematics.inverse(start, position + torch.tensor(shift) * distance, rotation)
    assert reached.isfinite().all()
    assert (reached >= LOWER).all() and (reached <= UPPER).all()


def test_inverse_stretches_towards_what_is_out_of_reach() -> None:
    start = wx250s.REST_QPOS[None, :6]
    _, rotation = kinematics.forward(start)
    goal = torch.tensor([[0.9, 0.0, 0.15]], dtype=torch.float64)
    position, _ = kinematics.forward(kinematics.inverse(start, goal, rotation, iterations=100))
    assert 0.5 < position[0, 0] < 0.6635  # the reach published for the stretched arm
    assert (position - goal).norm() < 0.4


def test_against_pinocchio() -> None:
    pinocchio = pytest.importorskip("pinocchio")
    model = pinocchio.buildModelFromUrdf(str(wx250s.urdf_path()))
    data = model.createData()
    frame = model.getFrameId(wx250s.EE_LINK)
    arms = random_arms(20, seed=1)
    jacobians = kinematics.jacobian(arms).numpy()
    positions, matrices = (value.numpy() for value in kinematics.forward(arms))
    for index, arm in enumerate(arms.numpy()):
        q = np.array([*arm, 0.02, 0.02])
        pinocchio.framesForwardKinematics(model, data, q)
        np.testing.assert_allclose(data.oMf[frame].translation, positions[index], atol=1e-12)
        np.testing.assert_allclose(data.oMf[frame].rotation, matrices[index], atol=1e-12)
        jacobian = pinocchio.computeFrameJacobian(model, data, q, frame, pinocchio.LOCAL_WORLD_ALIGNED)
        np.testing.assert_allclose(jacobian[:, :6], jacobians[index], atol=1e-12)
