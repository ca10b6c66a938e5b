"""Gravity torque against the published table; compliance found again from what it would do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.control import SLEEP, START
from deploy.drivers.registers import joint_stiffness
from deploy.gravity import MAX_OFFSET, GravityCompensation, fit, gravity_torque
from genvla.errors import UserError

TABLE = {
    # published: torque [N m] of shoulder, elbow, wrist_angle to hold the arm, with three grams more in the hand than it weighs
    tuple(START): (-1.749, -1.242, -0.008),
    (-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038): (-1.367, -1.282, -0.009),
    (-0.13192235, -0.76238847, 0.44485444, -0.01994175, 1.7564081, -0.15953401): (0.170, -1.257, -0.044),
    (0.0,) * 6: (-1.877, -1.469, -0.192),
    tuple(SLEEP): (1.111, -1.411, -0.173),
    (0.0, 1.3743624900568605, -1.3743624900568605, 0.0, 0.0, 0.0): (-3.996, -1.469, -0.192),
}


@pytest.mark.parametrize("joints", TABLE)
def test_torques_of_the_published_table(joints: tuple[float, ...]) -> None:
    np.testing.assert_allclose(gravity_torque(np.array(joints))[[1, 2, 4]], TABLE[joints], atol=0.02)


@given(st.integers(0, 10**6))
def test_torque_is_the_gradient_of_the_potential(seed: int) -> None:
    import pinocchio

    from genvla.robots.wx250s import urdf_path

    model = pinocchio.buildModelFromUrdf(str(urdf_path()))
    data = model.createData()
    joints = np.random.default_rng(seed).uniform(-1.5, 1.5, 6)

    def energy(q: np.ndarray) -> float:
        return pinocchio.computePotentialEnergy(model, data, np.append(q, [0.037] * 2))

    gradient = [(energy(joints + step) - energy(joints - step)) / 2e-6 for step in np.eye(6) * 1e-6]
    np.testing.assert_allclose(gravity_torque(joints), gradient, atol=1e-6)


def test_stiffness_of_the_data_sheet() -> None:
    # P 800: 18.9 N m / rad of one XM430; two at shoulder and elbow; the XL430 at P 640: 5.5
    np.testing.assert_allclose(joint_stiffness(), [18.88, 37.76, 37.76, 18.88, 18.88, 5.52], atol=0.01)


@given(st.integers(0, 10**6))
def test_compliance_is_found_again_under_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.01, 0.1, 6)
    postures = rng.uniform(-1, 1, (30, 6)) * [1, 0.8, 0.8, 1.2, 1, 1]
    sags = np.array([gravity_torque(q) for q in postures]) * true + rng.normal(size=(30, 6)) * 1e-4
    found, strongest = fit(postures, sags)
    for joint in (1, 2, 4):
        assert found.compliance[joint] == pytest.approx(true[joint], abs=1e-3)
    nominal = GravityCompensation.from_data_sheet(factor=1.0).compliance
    assert found.compliance[0] == nominal[0] and strongest[0] < 1e-9  # the waist's axis is upright


def test_offsets_are_bounded() -> None:
    soft = GravityCompensation((0.5,) * 6)
    assert np.abs(soft.offsets(np.array([0, 1.37, -1.37, 0, 0, 0]))).max() == MAX_OFFSET


def test_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "gravity.json"
    saved = GravityCompensation((0.01, 0.02, 0.03, 0.04, 0.05, 0.06), (0.1, float("nan"), 0.1, 0.2, 0.3, 0.4))
    saved.save(path)
    loaded = GravityCompensation.load(path)
    assert loaded.compliance == saved.compliance
    np.testing.assert_array_equal(loaded.friction, saved.friction)
    assert [file.name for file in path.parent.iterdir()] == ["gravity.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"format": "other"}',
        json.dumps({"format": "genvla-gravity-1", "compliance": [0.1] * 5, "friction": [0.1] * 6}),
        json.dumps({"format": "genvla-gravity-1", "compliance": [9.0] * 6, "friction": [0.1] * 6}),
        json.dumps({"format": "genvla-gravity-1", "compliance": ["a"] * 6, "friction": [0.1] * 6}),
        "\x00\xff",
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gravity.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError) as caught:
        GravityCompensation.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
