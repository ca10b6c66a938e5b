"""One conformance suite for every back end of VectorEnv."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genvla.sim import SimConfig, VectorEnv, make_vector_env, scenes_of
from genvla.types import EpisodeSpec, Observation
from scenegen.loader import UserError as SceneError

NUM = 4


@pytest.fixture(scope="module", params=[0, 2], ids=["local", "processes"])
def env(request: pytest.FixtureRequest, scenes: Path, sim: SimConfig) -> Iterator[VectorEnv]:
    with make_vector_env(scenes, sim, NUM, request.param) as vector_env:
        yield vector_env


@pytest.fixture(scope="module")
def ids(scenes: Path) -> list[str]:
    return scenes_of(scenes, "all")


def hold() -> torch.Tensor:
    actions = torch.zeros(NUM, 4, 7)
    actions[..., 6] = 1
    return actions


def wave(t: int) -> torch.Tensor:
    actions = hold()
    actions[..., :3] = 0.02 * torch.sin(torch.arange(NUM)[:, None, None] + torch.tensor([0.0, 1.0, 2.0]) + t)
    return actions


def same(first: Observation, second: Observation) -> bool:
    return (
        torch.equal(first.images, second.images)
        and torch.equal(first.proprio, second.proprio)
        and torch.equal(first.privileged, second.privileged)
        and first.instructions == second.instructions
    )


def test_splits(scenes: Path) -> None:
    assert len(scenes_of(scenes, "train")) == 2 and len(scenes_of(scenes, "heldout")) == 1
    assert set(scenes_of(scenes, "all")) == set(scenes_of(scenes, "train")) | set(scenes_of(scenes, "heldout"))


def test_shapes_and_units(env: VectorEnv, ids: list[str], sim: SimConfig) -> None:
    observation = env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], k))
    assert observation.images.shape == (NUM, 1, sim.image_size, sim.image_size, 3) and observation.images.dtype == torch.uint8
    assert len(set(observation.instructions)) >= 2 and all(observation.instructions)
    assert observation.images.float().std() > 10
    assert ((observation.proprio[:, 0] > 0.2) & (observation.proprio[:, 0] < 0.4)).all()
    assert torch.allclose(observation.proprio[:, 6], torch.ones(NUM), atol=1e-3)
    assert observation.privileged[:, -1].eq(1).all()


def test_truncation_bootstraps_from_the_last_picture_and_goes_on(env: VectorEnv, ids: list[str]) -> None:
    env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], 100 * k + slot))
    for _ in range(env.max_chunks - 1):
        transition = env.step(hold())
        assert not transition.truncated.any() and transition.final_observation is None and not transition.episodes
    transition = env.step(hold())
    assert transition.truncated.all() and not transition.terminated.any() and transition.valid.all()
    assert transition.final_observation is not None and transition.final_observation.privileged[:, -1].eq(0).all()
    assert not torch.equal(transition.final_observation.images, transition.observation.images)
    assert [slot for slot, _ in transition.episodes] == list(range(NUM))
    for slot, record in transition.episodes:
        assert (record.scene_id, record.seed, record.steps) == (ids[slot % 3], slot, 4 * env.max_chunks)
        assert not record.success_once
    first = env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], 100 + slot))
    assert same(first, transition.observation)


def test_history_leaves_no_trace(env: VectorEnv, ids: list[str]) -> None:
    """The same episodes give the same bits whatever ran before in the same slots: what an exact resume rests on."""

    def run(seed: int) -> list[Observation]:
        observations = [env.reset(lambda slot, k: EpisodeSpec(ids[(slot + seed) % 3], seed + k))]
        return observations + [env.step(wave(t)).observation for t in range(4)]

    first = run(5)
    run(6)
    run(9)
    again = run(5)
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    assert not same(first[0], first[-1])


def test_a_slot_idles_when_its_schedule_ends(env: VectorEnv, ids: list[str]) -> None:
    env.reset(lambda slot, k: EpisodeSpec(ids[0], k) if slot < 2 and k == 0 else None)
    assert env.active.tolist() == [True, True, False, False]
    for _ in range(env.max_chunks):
        transition = env.step(hold())
        assert transition.valid.tolist() == [True, True, False, False]
    assert len(transition.episodes) == 2 and not env.active.any()


def test_watched_slots_give_frames(env: VectorEnv, ids: list[str]) -> None:
    env.reset(lambda slot, k: EpisodeSpec(ids[0], k))
    env.watch([1, 3])
    env.step(wave(0))
    frames = env.take_frames()
    assert sorted(frames) == [1, 3] and all(len(pictures) == 4 for pictures in frames.values())
    assert all(picture.dtype == np.uint8 and picture.std() > 10 for picture in frames[1])
    env.watch([])
    env.step(wave(1))
    assert env.take_frames() == {}


def test_the_expert_succeeds(env: VectorEnv, ids: list[str]) -> None:
    specs = [EpisodeSpec(scene_id, seed) for scene_id in ids for seed in range(4)]
    demonstrations = list(env.demonstrate(specs))
    assert {demonstration.record.spec for demonstration in demonstrations} == set(specs)
    assert np.mean([demonstration.record.success_once for demonstration in demonstrations]) >= 0.75
    one = demonstrations[0]
    assert len(one.images) == len(one.proprio) == len(one.privileged) == len(one.actions) <= 4 * env.max_chunks
    assert np.linalg.norm(one.actions[:, :3], axis=1).max() < 0.051 and set(np.unique(one.actions[:, 6])) <= {0.0, 1.0}


def test_replaying_a_demonstration_in_chunks_succeeds(env: VectorEnv, ids: list[str]) -> None:
    """The demonstrated actions, sent through `step`, do what they did: demonstrations and policies speak the same actions."""
    demonstration = next(d for d in env.demonstrate([EpisodeSpec(ids[0], seed) for seed in range(4)]) if d.record.success_once)
    env.reset(lambda slot, k: demonstration.record.spec if k == 0 else None)
    actions = torch.from_numpy(demonstration.actions)
    for start in range(0, len(actions), 4):
        chunk = hold()
        part = actions[start : start + 4]
        chunk[:, : len(part)] = part
        transition = env.step(chunk)
        if transition.episodes:
            break
    assert transition.terminated.all() and transition.reward.eq(1).all()
    assert all(record.success_once and record.grasped_once for _, record in transition.episodes)


def test_back_ends_agree(scenes: Path, sim: SimConfig, ids: list[str]) -> None:
    def run(workers: int) -> Observation:
        with make_vector_env(scenes, sim, NUM, workers) as vector_env:
            vector_env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], slot))
            for t in range(3):
                observation = vector_env.step(wave(t)).observation
        return observation

    one, two = run(0), run(2)  # the inverse kinematics' last bits depend on how many are solved together
    assert torch.allclose(one.proprio, two.proprio, atol=1e-5) and torch.allclose(one.privileged, two.privileged, atol=1e-4)
    assert (one.images.float() - two.images.float()).abs().mean() < 0.1


def test_a_killed_worker_is_replaced_and_its_episodes_are_void(scenes: Path, sim: SimConfig, ids: list[str]) -> None:
    with make_vector_env(scenes, sim, NUM, 2) as vector_env:
        vector_env.reset(lambda slot, k: EpisodeSpec(ids[0], 10 * k + slot))
        vector_env.step(wave(0))
        os.kill(vector_env._workers[1]._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        transition = vector_env.step(wave(1))
        assert transition.valid.tolist() == [True, True, False, False]
        assert vector_env.restarts == 1
        for t in range(vector_env.max_chunks):
            transition = vector_env.step(wave(t))
        assert transition.valid.all()
        finished = [record.seed for slot, record in transition.episodes if slot >= 2]
        assert finished == [12, 13]  # the interrupted episodes 2 and 3 are gone


def test_a_missing_mesh_reaches_the_caller_as_one_line(scenes: Path, sim: SimConfig, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(scenes, broken)
    next(broken.rglob("*_collision.obj")).unlink()
    from genvla.errors import UserError

    for workers in (0, 1):
        with (
            make_vector_env(broken, sim, 3, workers) as vector_env,
            pytest.raises((UserError, SceneError), match="_collision.obj does not exist"),
        ):
            vector_env.reset(lambda slot, k: EpisodeSpec(scenes_of(broken, "all")[slot], 0))
