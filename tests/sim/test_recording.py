"""Moments of a chunk in the real simulator, and the whole way from scenes to a dataset and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from genvla.cli import main
from genvla.errors import UserError
from genvla.learning.demonstrations import DemonstrationDataModule
from genvla.learning.lerobot.reader import read_dataset
from genvla.policy.checkpoints import save_policy
from genvla.sim import SimConfig, VectorEnv, make_vector_env, scenes_of
from genvla.sim.config import save_sim
from genvla.types import EpisodeSpec
from tests.learning.toy import small_policy
from tests.sim.test_vector import NUM, wave


@pytest.fixture(scope="module")
def env(scenes: Path, sim: SimConfig) -> Iterator[VectorEnv]:
    """One for the whole file: the first picture of each new environment takes a software renderer seconds."""
    with make_vector_env(scenes, sim, NUM, 0) as vector_env:
        yield vector_env


class Lent:
    """Environments for a command that makes its own, and closes them."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def __enter__(self) -> VectorEnv:
        return self.env

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.env.record(False)


@pytest.fixture
def lent(env: VectorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genvla.sim.make_vector_env", lambda *_, **__: Lent(env))


def test_moments_are_what_is_observed(scenes: Path, env: VectorEnv) -> None:
    check_moments(scenes_of(scenes, "all"), env)


@pytest.mark.slow
def test_moments_come_from_workers_too(scenes: Path, sim: SimConfig) -> None:
    with make_vector_env(scenes, sim, NUM, 2) as env:
        check_moments(scenes_of(scenes, "all"), env)


def check_moments(ids: list[str], env: VectorEnv) -> None:
    """The first of a chunk is the observation that the chunk was decided on; recording changes nothing."""
    plain = env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], k) if slot != 3 else None)
    plain_after = env.step(wave(0)).observation
    assert env.take_moments() == {}
    env.record(True)
    observation = env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], k) if slot != 3 else None)
    after = env.step(wave(0)).observation
    moments = env.take_moments()
    env.record(False)
    assert sorted(moments) == [0, 1, 2]
    for slot, steps in moments.items():
        assert len(steps) == 4
        for found, wanted in zip(steps[0], (observation.images, observation.proprio, observation.privileged), strict=True):
            np.testing.assert_array_equal(found, wanted[slot].numpy())  # type: ignore[index]
        moved = [np.abs(steps[k + 1][1][:3] - steps[k][1][:3]).max() for k in range(3)]
        assert min(moved) > 1e-4
    np.testing.assert_array_equal(observation.images[:3], plain.images[:3])
    np.testing.assert_array_equal(after.proprio[:3], plain_after.proprio[:3])


@pytest.mark.usefixtures("lent")
def test_the_command_writes_what_pretraining_learns_from(
    scenes: Path, sim: SimConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dataset of the command and the native demonstrations of the same options are the same, pictures and all."""
    settings = tmp_path / "sim.yaml"
    settings.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(sim)))))
    output = tmp_path / "dataset"
    options = ["--scenes", str(scenes), "--sim", str(settings), "--num_envs", "2", "--workers", "0", "--seed", "3"]
    options += ["--episodes", "4", "--images", "lossless", "--output", str(output)]
    assert main(["export-dataset", *options]) == 0
    assert "LeRobotDataset(" in capsys.readouterr().out
    assert main(["export-dataset", *options]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    native = DemonstrationDataModule(scenes, demonstrations=4, sim=sim, num_envs=4, workers=0, cache=None, seed=3)
    try:
        wanted, found = native.prepare(), read_dataset(output)
    finally:
        native.teardown()
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    origin = json.loads((output / "meta/genvla.json").read_text())
    assert origin["actor"] == "expert" and origin["sim"]["image_size"] == sim.image_size
    assert (output / "preview.png").stat().st_size > 1000 and "LeRobot" in (output / "README.md").read_text()


@pytest.mark.usefixtures("lent")
def test_the_command_writes_what_a_policy_does(
    scenes: Path, sim: SimConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An untrained policy fails: its episodes are kept where failures are, and nobody imitates them."""
    save_policy(small_policy(value_input="features"), tmp_path / "policy")
    save_sim(sim, tmp_path / "policy")
    output = tmp_path / "dataset"
    options = ["--scenes", str(scenes), "--checkpoint", str(tmp_path / "policy"), "--episodes", "2", "--output", str(output)]
    options += ["--num_envs", "2", "--workers", "0", "--device", "cpu", "--images", "png"]
    assert main(["export-dataset", *options]) == 2
    assert "none of 2 episodes succeeded" in capsys.readouterr().err and not output.exists()
    assert main(["export-dataset", *options, "--failures", "true"]) == 0
    rows = pq.ParquetFile(output / "data/chunk-000/file-000.parquet").read()
    assert len(rows) == 2 * sim.max_steps and not any(rows["next.success"].to_pylist())
    assert sum(rows["next.done"].to_pylist()) == 2 and set(rows["scene_id"].to_pylist()) <= set(scenes_of(scenes, "train"))
    with pytest.raises(UserError, match="none of 2 episodes succeeded"):
        read_dataset(output)
