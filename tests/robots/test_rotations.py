"""Against scipy, over all rotations."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from genvla.robots import rotations

angles = st.floats(-3.14, 3.14)
components = st.floats(-1, 1)
quaternions = st.tuples(components, components, components, components).filter(lambda q: np.linalg.norm(q) > 0.1)


def as_matrix(rotation: Rotation) -> torch.Tensor:
    return torch.tensor(rotation.as_matrix())


@given(st.tuples(angles, angles, angles))
def test_euler_to_matrix(rpy: tuple[float, float, float]) -> None:
    ours = rotations.euler_to_matrix(torch.tensor(rpy, dtype=torch.float64))
    np.testing.assert_allclose(ours, Rotation.from_euler("xyz", rpy).as_matrix(), atol=1e-12)


@given(quaternions)
def test_conversions_of_a_quaternion(wxyz: tuple[float, float, float, float]) -> None:
    truth = Rotation.from_quat(wxyz, scalar_first=True)
    matrix = rotations.quaternion_to_matrix(torch.tensor(wxyz, dtype=torch.float64))
    np.testing.assert_allclose(matrix, truth.as_matrix(), atol=1e-12)
    back = rotations.matrix_to_quaternion(matrix).numpy()
    assert back[0] >= 0
    assert abs(back @ truth.as_quat(scalar_first=True)) > 1 - 1e-12
    rotvec = rotations.matrix_to_rotvec(matrix).numpy()
    np.testing.assert_allclose(Rotation.from_rotvec(rotvec).as_matrix(), truth.as_matrix(), atol=1e-9)
    assert np.linalg.norm(rotvec) <= np.pi + 1e-9


@given(st.tuples(angles, st.one_of(st.just(np.pi / 2), st.just(-np.pi / 2), angles), angles))
def test_matrix_to_euler_also_when_roll_and_yaw_coincide(rpy: tuple[float, float, float]) -> None:
    matrix = as_matrix(Rotation.from_euler("xyz", rpy))
    euler = rotations.matrix_to_euler(matrix)
    np.testing.assert_allclose(Rotation.from_euler("xyz", euler.numpy()).as_matrix(), matrix, atol=1e-7)
    assert abs(euler[1]) <= np.pi / 2 + 1e-9


@given(st.tuples(angles, st.floats(-1.5, 1.5), angles))
def test_euler_round_trip_in_the_principal_range(rpy: tuple[float, float, float]) -> None:
    angles_ = torch.tensor(rpy, dtype=torch.float64)
    np.testing.assert_allclose(rotations.matrix_to_euler(rotations.euler_to_matrix(angles_)), angles_, atol=1e-9)


@given(st.tuples(components, components, components), st.floats(0, 1e-7))
def test_small_rotation_vectors_keep_their_precision(axis: tuple[float, float, float], size: float) -> None:
    rotvec = np.array(axis) * size
    np.testing.assert_allclose(rotations.matrix_to_rotvec(as_matrix(Rotation.from_rotvec(rotvec))), rotvec, atol=1e-15)


def test_any_leading_axes() -> None:
    rpy = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = rotations.euler_to_matrix(rpy)
    assert matrix.shape == (2, 3, 3, 3)
    for there, back in (
        (rotations.matrix_to_euler, rotations.euler_to_matrix),
        (rotations.matrix_to_quaternion, rotations.quaternion_to_matrix),
    ):
        torch.testing.assert_close(back(there(matrix)), matrix)
    assert rotations.matrix_to_rotvec(matrix).shape == (2, 3, 3)
