"""ManiSkill's Bridge tasks behind our interface: their own code runs, on stand-ins for the assets that are a download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mani_skill.agents.robots.widowx.widowx import WidowX250S
from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval import base_env, put_on_in_scene

from genvla.cli import main
from genvla.errors import UserError
from genvla.robots import kinematics, wx250s
from genvla.sim import SimConfig, make_vector_env, scenes_of
from genvla.sim.simpler import TASKS, SimplerEnv, cover_configurations, default_sim, require_assets
from genvla.types import CHUNK_SIZE, EpisodeSpec
from tests.sim.bridge_stand_ins import SINK_COLOUR, TABLE_COLOUR, TABLE_HEIGHT, write_bridge_stand_ins

SMALL = SimConfig(image_size=64, max_chunks=3)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bridge_stand_ins(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def installed(assets: Path) -> Iterator[None]:
    """As if the assets were downloaded; for the robot's meshes stand our boxes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_env, "BRIDGE_DATASET_ASSET_PATH", assets)
        for robot in (WidowX250S, base_env.WidowX250SBridgeDatasetFlatTable, base_env.WidowX250SBridgeDatasetSink):
            patch.setattr(robot, "urdf_path", str(wx250s.urdf_path()))
        yield


@pytest.fixture(scope="module")
def table(installed: None) -> Iterator[SimplerEnv]:
    """The carrot's task, for all tests: each begins an episode of its own."""
    env = SimplerEnv("carrot_on_plate", SMALL)
    yield env
    env.close()


@pytest.fixture
def absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_env, "BRIDGE_DATASET_ASSET_PATH", tmp_path / "none")


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((np.abs(picture.astype(int) - colour).max(-1) < 3).mean())


def test_missing_assets_are_one_line_with_the_command(absent: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="download_asset -y bridge_v2_real2sim"):
        require_assets()
    assert main(["evaluate", "--checkpoint", "checkpoints/cpu", "--scenes", "simpler"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "python -m mani_skill.utils.download_asset -y bridge_v2_real2sim" in error


def test_splits() -> None:
    assert len(scenes_of(Path("simpler"), "train")) == 3 == len(scenes_of(Path("simpler"), "tabletop"))
    assert "eggplant_in_basket" in scenes_of(Path("simpler"), "all") and scenes_of(Path("simpler"), "heldout") == []
    with pytest.raises(UserError, match="tabletop"):
        scenes_of(Path("simpler"), "nonsense")


def test_time_limits_are_the_tasks_own() -> None:
    assert default_sim(scenes_of(Path("simpler"), "tabletop"), 224).max_chunks * CHUNK_SIZE == 60
    assert default_sim(scenes_of(Path("simpler"), "all"), 224).max_chunks * CHUNK_SIZE == 120


@given(st.lists(st.integers(0, 2**40), min_size=24, max_size=24, unique=True))
def test_episodes_cover_the_start_configurations(seeds: list[int]) -> None:
    specs = cover_configurations([EpisodeSpec("stack_cube", seed) for seed in seeds])
    assert sorted(spec.seed % 24 for spec in specs) == list(range(24))
    assert all(abs(spec.seed - seed) < 24 for spec, seed in zip(specs, seeds, strict=True))


def test_an_episode_starts_as_the_benchmark_says(table: SimplerEnv) -> None:
    env, task = table, table._env
    assert env.instruction == "put carrot on plate"
    assert len(task.xyz_configs) * len(task.quat_configs) == TASKS["carrot_on_plate"].configurations
    for seed in (7, 7 + 24):
        env.begin(seed)
        placed = [task.objs[name].pose.p[0].numpy() for name in task.obj_names]
        np.testing.assert_allclose([p[:2] for p in placed], task.xyz_configs[7 // 2][:, :2].numpy(), atol=0.01)
        # Measured in ManiSkill 3.0.1's task with the robot's official description.
        start = kinematics.proprioception(torch.from_numpy(env.qpos()[None]))[0].numpy()
        np.testing.assert_allclose(start, [0.292069, -0.006091, 0.135321, -0.004539, 0.056753, -0.019003, 1.0], atol=2e-5)


def test_success_is_the_benchmarks_rule(table: SimplerEnv) -> None:
    env = table
    env.begin(0)
    env.advance()
    found = env.touches()
    assert not found.success and found.table and not found.destination
    plate, carrot = (env._env.objs[name] for name in (env._env.target_obj_name, env._env.source_obj_name))
    pose = plate._objs[0].pose
    pose.p = pose.p + [0.0, 0.0, 0.03]
    carrot._objs[0].set_pose(pose)
    for _ in range(5):
        env.advance()
    found = env.touches()
    assert found.success and found.destination and not found.table and not found.robot


def test_pictures_keep_their_own_photograph(table: SimplerEnv) -> None:
    """ManiSkill keeps it on the class: the second environment of a process would change the first one's."""
    sink = SimplerEnv("eggplant_in_basket", SMALL)
    for _ in range(2):
        for env, colour, other in ((table, TABLE_COLOUR, SINK_COLOUR), (sink, SINK_COLOUR, TABLE_COLOUR)):
            env.begin(3)
            picture = env.look()
            assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
            assert share_of(picture, colour) > 0.3 and share_of(picture, other) < 0.01
            assert share_of(picture, colour) < 0.99, "robot and objects stand before the photograph"
    assert table.view().shape == (256, 256, 3)
    sink.close()


def test_what_is_seen_lies_where_the_state_says(table: SimplerEnv) -> None:
    env = table
    env.begin(0)
    grasp, _, goal = env.target_state()
    assert grasp[2] == pytest.approx(TABLE_HEIGHT + 0.015 - 0.870, abs=0.005)  # the robot stands at 0.870
    (u, v), _ = env.in_picture(np.stack((grasp, goal)))
    column, row = round((u + 1) * 320), round((v + 1) * 240)
    assert share_of(env._photograph()[row - 1 : row + 2, column - 1 : column + 2], TABLE_COLOUR) == 0.0
    shown = env._env._get_obs_sensor_data()["3rd_view_camera"]["segmentation"][0, row, column, 0]
    assert int(shown) == int(env._env.objs[env._env.source_obj_name].per_scene_id[0])


def test_many_of_them_behind_the_vector_interface(installed: None) -> None:
    names = ["carrot_on_plate", "eggplant_in_basket"]

    def schedule(slot: int, k: int) -> EpisodeSpec | None:
        return EpisodeSpec(names[slot], 5 + k) if k < 2 else None

    still = torch.zeros(2, CHUNK_SIZE, 7)
    still[..., 6] = 1.0
    forward = still.clone()
    forward[0, 0, 0] = 0.02
    with make_vector_env(Path("simpler"), SMALL, 2, 0) as env:
        first = env.reset(schedule)
        assert first.instructions == ["put carrot on plate", "put eggplant into yellow basket"]
        moved = env.step(forward).observation
        shift = moved.proprio[:, 0] - first.proprio[:, 0]
        assert shift[0] == pytest.approx(0.02, abs=1e-3) and abs(shift[1]) < 1e-3
        ended = [env.step(still) for _ in range(2)][-1]
        assert ended.truncated.all() and [record.scene_id for _, record in ended.episodes] == names
        again = env.reset(schedule)
        assert torch.equal(first.proprio, again.proprio) and torch.equal(first.images, again.images)


def test_the_classes_named_exist() -> None:
    assert all(issubclass(getattr(put_on_in_scene, task.environment), base_env.BaseBridgeEnv) for task in TASKS.values())
