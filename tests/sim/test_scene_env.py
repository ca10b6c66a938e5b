from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import sapien
import torch

from genvla.errors import UserError
from genvla.sim.config import SimConfig
from genvla.sim.scene_env import SceneEnv
from scenegen.loader import UserError as SceneError
from scenegen.loader import load_scene_set


@pytest.fixture(scope="module")
def env(scenes: Path, sim: SimConfig) -> SceneEnv:
    return gym.make("GenvlaScene-v1", scenes=scenes, sim=sim).unwrapped


def test_it_is_a_gymnasium_environment(env: SceneEnv) -> None:
    observation, _ = env.reset(seed=3)
    assert observation["sensor_data"]["camera"]["rgb"].shape == (1, 32, 32, 3)
    assert observation["extra"]["proprioception"].shape == (1, 7)
    observation, reward, terminated, truncated, info = env.step(torch.zeros(1, 7))
    assert not reward.any() and not terminated.any() and not truncated.any() and not info["success"].any()


def test_both_ways_in_do_the_same(env: SceneEnv) -> None:
    """Gymnasium's step and the short methods with the same inverse kinematics end at the same joint positions and picture."""
    from genvla.robots.control import TargetPoseControl

    actions = torch.tensor([[0.02, 0.01, -0.02, 0, 0, 0.1, 1], [0.0, 0.03, -0.01, 0, 0, 0.1, 0]])
    observation, _ = env.reset(seed=11)
    for action in actions:
        observation, *_ = env.step(action[None])
    expected, picture = env.qpos(), observation["sensor_data"]["camera"]["rgb"][0].numpy()

    env.begin(11)
    control = TargetPoseControl(1, torch.device("cpu"))
    control.reset(torch.tensor([0]), torch.from_numpy(env.qpos()[None, :6]))
    for action in actions:
        env.drive(control.joint_targets(action[None])[0].numpy())
        env.advance()
    np.testing.assert_allclose(env.qpos(), expected, atol=1e-6)
    assert np.abs(env.look().astype(int) - picture.astype(int)).max() <= 1


def test_nothing_moves_before_the_first_step(env: SceneEnv) -> None:
    """Objects start at rest: after a second of simulation without action they stand where they stood, within a centimetre."""
    for seed in range(4):
        env.begin(seed)
        before = np.stack([entity.pose.p for entity in env.objects])
        for _ in range(5):
            env.advance()
        after = np.stack([entity.pose.p for entity in env.objects])
        assert np.linalg.norm(after - before, axis=1).max() < 0.01
        assert not env.touches().success


def test_target_put_on_its_destination_succeeds(env: SceneEnv) -> None:
    env.begin(0)
    target = env.objects[env.layout.target_index]
    destination = env.objects[env.layout.destination_index].pose
    goal = destination * sapien.Pose(env.layout.objects[env.layout.destination_index].asset.goal_point)
    target.set_pose(sapien.Pose(goal.p + [0, 0, 0.005], target.pose.q))
    for _ in range(10):
        env.advance()
    assert env.touches().success


def test_target_state_is_in_the_base_frame(env: SceneEnv) -> None:
    env.begin(5)
    grasp, _, goal = env.target_state()
    base = env.agent.articulation.root_pose
    target = env.objects[env.layout.target_index].pose
    height = env.layout.objects[env.layout.target_index].asset.grasp_height_m
    np.testing.assert_allclose((base * sapien.Pose(grasp)).p, target.p + [0, 0, height], atol=2e-3)
    assert 0.1 < goal[0] < 0.5 and -0.05 < goal[2] < 0.15


def test_the_same_seed_gives_the_same_picture(env: SceneEnv) -> None:
    env.begin(21)
    first = env.look()
    env.begin(22)
    other = env.look()
    env.begin(21)
    assert np.array_equal(env.look(), first)
    assert not np.array_equal(other, first)


def test_errors_name_what_is_wrong(scenes: Path, sim: SimConfig, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="nowhere"):
        SceneEnv(scenes=tmp_path / "nowhere", sim=sim)
    with pytest.raises(SceneError, match="'missing'"):
        SceneEnv(scenes=scenes, scene_id="missing", sim=sim)
    with pytest.raises(UserError, match="sim_hz"):
        SimConfig(sim_hz=101)
    assert len(load_scene_set(scenes)) == 3


def test_objects_lie_in_the_picture_where_the_renderer_puts_them(env: SceneEnv) -> None:
    """The middle of the pixels that show the target, against the projected grasp point."""
    found = []
    for seed in range(6):
        env.begin(seed)
        env.look()
        shown = env._camera().get_picture("PositionSegmentation")[..., 3] == env.objects[env.layout.target_index].per_scene_id
        if shown.sum() < 3:  # behind the arm
            continue
        rows, columns = np.nonzero(shown)
        pixels = np.array([columns.mean(), rows.mean()]) + 0.5
        grasp, _, _ = env.target_state()
        found.append(np.linalg.norm((env.in_picture(grasp[None])[0] + 1) * 16 - pixels))
    assert len(found) >= 3
    assert max(found) < 1.5  # of 32 pixels
