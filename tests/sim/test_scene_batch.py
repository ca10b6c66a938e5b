"""A batch of scenes, as a GPU simulates it, on the CPU, which takes one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genvla.robots import wx250s
from genvla.sim.config import SimConfig
from genvla.sim.scene_batch import SceneBatch, SubScene
from genvla.sim.scene_env import SceneEnv
from scenegen.loader import Scene, load_scene_set

CPU = {"render_backend": "cpu"}


@pytest.fixture(scope="module")
def layout(scenes: Path) -> Scene:
    return load_scene_set(scenes).load(load_scene_set(scenes).ids()[0])


@pytest.fixture
def batch(layout: Scene, sim: SimConfig) -> Iterator[SceneBatch]:
    made = SceneBatch([layout], sim, "cpu", **CPU)
    yield made
    made.close()


def closing_in(step: int) -> np.ndarray:
    """Joint targets that lead the hand down to the table."""
    targets = wx250s.REST_QPOS.numpy().astype(np.float32).copy()
    targets[1] += 0.05 * step
    targets[2] -= 0.02 * step
    return targets


def test_a_sub_scene_is_the_scene(batch: SceneBatch, layout: Scene, sim: SimConfig) -> None:
    alone, part = SceneEnv(scene=layout, sim=sim, obs_mode="none", **CPU), SubScene(batch, 0)
    for seed in (3, 4):
        alone.begin(seed)
        part.begin(seed)
        for step in range(14):
            np.testing.assert_array_equal(part.qpos(), alone.qpos())
            assert part.touches() == alone.touches()
            for mine, theirs in zip(part.target_state(), alone.target_state(), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-6)
            point = np.array([[0.3, 0.02, 0.05]])
            np.testing.assert_allclose(part.in_picture(point), alone.in_picture(point), atol=1e-6)
            np.testing.assert_array_equal(part.look(), alone.look())
            alone.drive(closing_in(step))
            alone.advance()
            batch.advance_all(closing_in(step)[None])
        np.testing.assert_array_equal(part.view(), alone.view())
    assert part.grasp_height == alone.grasp_height and part.instruction == alone.instruction
    alone.close()


def test_an_episode_goes_on_in_another_batch(batch: SceneBatch, layout: Scene, sim: SimConfig) -> None:
    """What contacts remember is lost: afterwards the two agree to what a solver's warm start is worth."""
    batch.begin_in(0, 5)
    for step in range(6):
        batch.advance_all(closing_in(step)[None])
    other = SceneBatch([layout], sim, "cpu", **CPU)
    snapshot = batch.snapshot(0)
    other.restore(0, snapshot)
    for name, value in vars(other.snapshot(0)).items():
        np.testing.assert_allclose(np.asarray(value), np.asarray(getattr(snapshot, name)), atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(other.all_pictures(), batch.all_pictures())
    for step in range(6, 9):
        batch.advance_all(closing_in(step)[None])
        other.advance_all(closing_in(step)[None])
    np.testing.assert_allclose(other.all_qpos(), batch.all_qpos(), atol=1e-4)
    for mine, theirs in zip(other.snapshot(0).things[:, :3], batch.snapshot(0).things[:, :3], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)
    other.close()
