from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.sim.config import DomainRandomization
from genvla.sim.randomization import draw_episode, usable_placements

PLACEMENTS = np.array([3, 5, 8])


@given(st.integers(0, 2**62), st.floats(0, 0.5), st.floats(0, 0.1), st.floats(0, 0.1))
def test_every_draw_lies_in_its_range(seed: int, joints: float, height: float, camera: float) -> None:
    config = DomainRandomization(0.1, joints, height, camera, (0.1, 0.4), (0.8, 1.2))
    draw = draw_episode(config, PLACEMENTS, seed)
    assert draw.placement in PLACEMENTS
    assert np.abs(draw.joint_offset).max() <= joints
    assert abs(draw.base_height_offset) <= height
    assert np.abs(draw.camera_offset).max() <= camera
    assert ((draw.ambient_light >= 0.1) & (draw.ambient_light <= 0.4)).all()
    assert 0.8 <= draw.directional_light <= 1.2


def test_the_seed_decides_and_one_range_leaves_the_rest() -> None:
    first, again = (draw_episode(DomainRandomization(), PLACEMENTS, 4) for _ in range(2))
    other = draw_episode(DomainRandomization(robot_joints=0.0), PLACEMENTS, 4)
    assert np.array_equal(first.joint_offset, again.joint_offset)
    assert (other.joint_offset == 0).all()
    assert np.array_equal(first.camera_offset, other.camera_offset)
    assert first.placement == other.placement


def test_draws_fill_their_range() -> None:
    draws = [draw_episode(DomainRandomization(), PLACEMENTS, seed) for seed in range(300)]
    lights = np.array([draw.ambient_light for draw in draws])
    assert lights.min() < 0.02 and lights.max() > 0.58
    assert {draw.placement for draw in draws} == set(PLACEMENTS.tolist())


def test_only_near_placements_are_used() -> None:
    offsets = np.array([[[0.01, -0.02]], [[0.2, 0.0]], [[0.05, 0.05]]])
    assert usable_placements(offsets, 0.05, "s").tolist() == [0, 2]
    with pytest.raises(UserError, match="scene s: no placement.*the nearest needs 0.020"):
        usable_placements(offsets, 0.01, "s")
