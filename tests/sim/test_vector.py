"""One conformance suite for every back end of VectorEnv."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genvla.errors import UserError
from genvla.sim import SimConfig, VectorEnv, make_vector_env, scenes_of
from genvla.sim.batch_host import BatchHost
from genvla.sim.vector import LocalVectorEnv
from genvla.types import EpisodeSpec, Observation
from scenegen.loader import UserError as SceneError

NUM = 4


BACK_ENDS = {
    "local": {"workers": 0},
    "processes": {"workers": 2},
    "local in groups": {"workers": 0, "groups": 2},
    "processes in groups": {"workers": 2, "groups": 2},
    "batches of one": {"host": partial(BatchHost, device="cpu")},
    "a batch on the GPU": {"workers": 0, "physics": "gpu"},
    "pictures by the GPU": {"workers": 2, "groups": 2, "render_device": "cuda"},
}
"""Every back end, by name: the settings of make_vector_env. All pass the same tests."""


def back_end(scenes: Path, sim: SimConfig, num: int, settings: dict[str, Any]) -> VectorEnv:
    """Batches of one, which the CPU simulates, are for these tests alone."""
    make = LocalVectorEnv if "host" in settings else make_vector_env
    return make(scenes, sim, num, **settings)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.gpu] if "GPU" in name else []) for name in BACK_ENDS],
)
def env(request: pytest.FixtureRequest, scenes: Path, sim: SimConfig) -> Iterator[VectorEnv]:
    with back_end(scenes, sim, NUM, BACK_ENDS[request.param]) as vector_env:
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


def test_groups_step_apart_and_give_what_they_give_together(env: VectorEnv, ids: list[str]) -> None:
    """Whoever is received first and however the steps interleave, each group's rows are those of stepping all at once."""

    def schedule(slot: int, k: int) -> EpisodeSpec:
        return EpisodeSpec(ids[slot % 3], 10 * k + slot)

    env.reset(schedule)
    together = [env.step(wave(t)) for t in range(env.max_chunks + 1)]
    env.reset(schedule)
    rows = [slice(slots.start, slots.stop) for slots in env.groups]
    for group, slots in enumerate(rows):
        env.send(wave(0)[slots], group)
    for t, whole in enumerate(together):
        for group, slots in enumerate(rows):
            part = env.receive(group)
            assert same(part.observation, whole.observation[slots])
            assert torch.equal(part.truncated, whole.truncated[slots]) and torch.equal(part.valid, whole.valid[slots])
            wanted = [(slot - slots.start, record) for slot, record in whole.episodes if slots.start <= slot < slots.stop]
            assert part.episodes == wanted
            if whole.final_observation is not None:
                assert part.final_observation is not None and same(part.final_observation, whole.final_observation[slots])
            if t + 1 < len(together):
                env.send(wave(t + 1)[slots], group)
    assert together[env.max_chunks - 1].truncated.all()


def test_steps_under_way_are_abandoned_by_a_reset(env: VectorEnv, ids: list[str]) -> None:
    def begin() -> Observation:
        return env.reset(lambda slot, k: EpisodeSpec(ids[0], 10 * k + slot))

    first = begin()
    env.send(wave(0)[: env.groups[0].stop], 0)
    assert same(begin(), first)
    last = len(env.groups) - 1
    env.send(wave(0)[env.groups[last].start :], last)
    with pytest.raises(RuntimeError, match="in the order they were sent"):
        env.receive(last + 1)
    env.receive(last)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_physics_on_a_gpu_that_is_not_there(scenes: Path, sim: SimConfig) -> None:
    with pytest.raises(UserError, match="physics: gpu found, and no GPU that torch can use; cpu wanted"):
        make_vector_env(scenes, sim, NUM, 0, physics="gpu")
    with pytest.raises(UserError, match="physics: gpu found with 2 workers and 1 groups, want 0 and 1"):
        make_vector_env(scenes, sim, NUM, 2, physics="gpu")


def test_timings_are_told_by_phase(env: VectorEnv, ids: list[str]) -> None:
    env.read_timings()
    env.reset(lambda slot, k: EpisodeSpec(ids[0], k))
    env.step(hold())
    timings = env.read_timings()
    assert {"physics", "render", "kinematics", "reset"} <= set(timings) and min(timings.values()) > 0
    assert not env.read_timings()


def test_back_ends_agree(scenes: Path, sim: SimConfig, ids: list[str]) -> None:
    def run(**settings: Any) -> Observation:
        with back_end(scenes, sim, NUM, settings) as vector_env:
            vector_env.reset(lambda slot, k: EpisodeSpec(ids[slot % 3], slot))
            for t in range(3):
                observation = vector_env.step(wave(t)).observation
        return observation

    one = run(workers=0)
    for two in (run(workers=2), run(workers=0, groups=2), run(**BACK_ENDS["batches of one"])):
        # the inverse kinematics' last bits depend on how many are solved together
        assert torch.allclose(one.proprio, two.proprio, atol=1e-5) and torch.allclose(one.privileged, two.privileged, atol=1e-4)
        assert (one.images.float() - two.images.float()).abs().mean() < 0.1


@pytest.fixture(scope="module")
def mortal(scenes: Path, sim: SimConfig) -> Iterator[VectorEnv]:
    """Two workers, two groups: worker 1 simulates slot 1 of group 0 and slot 3 of group 1."""
    with make_vector_env(scenes, sim, NUM, workers=2, groups=2) as vector_env:
        yield vector_env


def pid(env: VectorEnv, worker: int) -> int:
    return env._workers[worker]._process.pid  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_replaced_and_its_episodes_are_void(
    mortal: VectorEnv, ids: list[str], number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    env, before = mortal, mortal.restarts
    env.reset(lambda slot, k: EpisodeSpec(ids[0], 10 * k + slot))
    env.step(wave(0))
    env._timeout = 15.0  # type: ignore[attr-defined]
    os.kill(pid(env, 1), number)
    # As the collector does it: group 1 is on its way while group 0 is awaited, and group 0 goes on before group 1 is received.
    env.send(wave(1)[:2], 0)
    env.send(wave(1)[2:], 1)
    assert env.receive(0).valid.tolist() == [True, False]
    env.send(wave(2)[:2], 0)
    assert env.receive(1).valid.tolist() == [True, False]
    env.send(wave(2)[2:], 1)
    assert env.receive(0).valid.all() and env.receive(1).valid.all()
    assert env.restarts == before + 1
    assert "2 episodes dropped" in caplog.text
    finished = []
    for t in range(env.max_chunks):
        transition = env.step(wave(t))
        assert transition.valid.all()
        finished += [record.seed for slot, record in transition.episodes if slot in (1, 3)]
    assert finished == [11, 13]  # the interrupted episodes 1 and 3 are gone
    env._timeout = 300.0  # type: ignore[attr-defined]


def test_a_worker_that_dies_while_its_other_group_waits_for_the_policy(mortal: VectorEnv, ids: list[str]) -> None:
    env = mortal
    env.reset(lambda slot, k: EpisodeSpec(ids[0], 10 * k + slot))
    env.send(wave(0)[:2], 0)
    env.send(wave(0)[2:], 1)
    assert env.receive(0).valid.all()
    os.kill(pid(env, 1), signal.SIGKILL)
    lost = env.receive(1).valid.tolist()  # it may have answered before it died
    env.send(wave(1)[:2], 0)
    assert env.receive(0).valid.tolist() == [True, False]  # what was decided for its slot was decided for an episode now void
    assert lost[0] and env.step(wave(2)).valid.tolist() == [True, True, True, True]


def test_a_worker_that_dies_between_rounds_is_replaced_at_the_reset(mortal: VectorEnv, ids: list[str]) -> None:
    os.kill(pid(mortal, 0), signal.SIGKILL)
    mortal.reset(lambda slot, k: EpisodeSpec(ids[0], 10 * k + slot))
    assert mortal.step(wave(0)).valid.all()


def test_workers_leave_signals_to_their_parent(mortal: VectorEnv, ids: list[str]) -> None:
    """A cluster sends SIGTERM to every process of a job; the run then needs its workers to end in order."""
    before = mortal.restarts
    for worker in (0, 1):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(pid(mortal, worker), number)
    mortal.reset(lambda slot, k: EpisodeSpec(ids[0], k))
    assert mortal.step(wave(0)).valid.all() and mortal.restarts == before


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
