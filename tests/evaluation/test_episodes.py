from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.evaluation.episodes import ROUNDS, episode_specs, initial_noise, run_episodes
from genvla.types import EpisodeSpec
from tests.evaluation.toy import ToyEnv, toy_act

SCENES = ["bowl", "mug", "pan"]


@given(st.integers(1, 30), st.integers(1, 200), st.integers(0, 2**40))
def test_total_is_spread_evenly_and_each_episode_is_its_own(scenes: int, total: int, seed: int) -> None:
    ids = [f"scene_{i}" for i in range(scenes)]
    specs = episode_specs(ids, seed, total=total)
    assert len(specs) == total == len(set(specs)) == len({spec.seed for spec in specs})
    visits = Counter(spec.scene_id for spec in specs)
    numbers = [visits[scene] for scene in ids]
    assert max(numbers) - min(numbers) <= 1
    # Nor are the scenes with one more at one end: every stretch has its share of them, up to rounding.
    extra = np.cumsum(np.array(numbers) - min(numbers)) - np.arange(1, scenes + 1) * (total % scenes) / scenes
    assert np.abs(extra).max() <= 1


def test_specs_repeat_and_longer_lists_contain_shorter_ones() -> None:
    long = episode_specs(SCENES, 5, per_scene=4)
    assert long == episode_specs(SCENES, 5, total=12)
    assert long[:6] == episode_specs(SCENES, 5, per_scene=2)
    assert set(episode_specs(["pan"], 5, per_scene=4)) < set(long)
    assert not {spec.seed for spec in long} & {spec.seed for spec in episode_specs(SCENES, 6, per_scene=4)}


def test_wrong_numbers_of_episodes_are_refused() -> None:
    with pytest.raises(UserError, match="at least one"):
        episode_specs([], 0, total=3)
    with pytest.raises(UserError, match="0 episodes"):
        episode_specs(SCENES, 0, per_scene=0)
    with pytest.raises(UserError, match="repeat"):
        episode_specs(["pan", "pan"], 0, total=3)
    with pytest.raises(ValueError):
        episode_specs(SCENES, 0, per_scene=1, total=3)


def test_noise_is_standard_normal_and_differs_by_episode_and_chunk() -> None:
    first, second = EpisodeSpec("pan", 1), EpisodeSpec("pan", 2)
    assert torch.equal(initial_noise(first, 3), initial_noise(first, 3))
    draws = torch.stack([initial_noise(spec, chunk) for spec in (first, second) for chunk in range(300)]).flatten(1)
    assert draws.shape == (600, 28) and len(draws.unique(dim=0)) == 600
    assert abs(float(draws.mean())) < 0.03 and abs(float(draws.std()) - 1) < 0.03


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 9), st.integers(1, 23), st.integers(0, 100), st.booleans())
def test_records_do_not_depend_on_the_number_of_slots(slots: int, total: int, seed: int, terminate: bool) -> None:
    specs = episode_specs(SCENES, seed, total=total)
    one_by_one = run_episodes(toy_act, ToyEnv(1), specs, terminate_on_success=terminate)
    assert run_episodes(toy_act, ToyEnv(slots), specs, terminate_on_success=terminate) == one_by_one
    assert [EpisodeSpec(record.scene_id, record.seed) for record in one_by_one] == specs


def test_the_toy_tells_episodes_apart() -> None:
    """Or the test above would prove nothing: outcomes vary, and with them the slots' times of reset."""
    specs = episode_specs(SCENES, 0, total=60)
    records = run_episodes(toy_act, ToyEnv(4), specs, terminate_on_success=True)
    assert len({record.chunks for record in records}) > 3
    assert 5 < sum(record.success_once for record in records) < 55
    assert len({record.steps for record in records}) > 5
    other_noise = run_episodes(
        lambda o, noise: toy_act(o, noise.flip(1)), ToyEnv(4), episode_specs(SCENES, 0, total=60), terminate_on_success=True
    )
    assert other_noise != records


def test_episodes_run_to_the_limit_unless_success_ends_them() -> None:
    specs = episode_specs(SCENES, 0, total=40)
    whole, ended = (run_episodes(toy_act, ToyEnv(4), specs, terminate_on_success=flag) for flag in (False, True))
    assert {record.chunks for record in whole} == {6}
    assert [record.success_once for record in whole] == [record.success_once for record in ended]
    assert [record.steps for record in whole] == [record.steps for record in ended]
    assert sum(record.success_at_end for record in whole) < sum(record.success_once for record in whole)


def test_each_episode_runs_once_and_none_is_abandoned() -> None:
    env, seen = ToyEnv(5), []
    specs = episode_specs(SCENES, 1, total=17)
    records = run_episodes(toy_act, env, specs, progress=seen.append)
    assert Counter(env.started) == Counter(specs)
    assert Counter(seen) == Counter(records)


@pytest.mark.parametrize("dies", [[(1, 0)], [(2, 1), (2, 2), (3, 0), (9, 1)]])
def test_episodes_lost_to_a_worker_are_run_again_with_the_same_outcome(dies: list[tuple[int, int]]) -> None:
    specs = episode_specs(SCENES, 2, total=14)
    env = ToyEnv(3, dies=dies)
    film = {specs[0]: [], specs[1]: []}
    assert run_episodes(toy_act, env, specs, watch=film) == run_episodes(toy_act, ToyEnv(3), specs)
    assert len(env.started) == len(specs) + len(dies)
    unbroken = {spec: [] for spec in film}
    run_episodes(toy_act, ToyEnv(3), specs, watch=unbroken)
    assert all(np.array_equal(film[spec], unbroken[spec]) for spec in film)


def test_workers_that_keep_dying_end_the_evaluation() -> None:
    env = ToyEnv(1, every=1)
    with pytest.raises(RuntimeError, match="2 episodes did not finish"):
        run_episodes(toy_act, env, episode_specs(SCENES, 0, total=2))
    assert len(env.started) == 2 * ROUNDS


def test_films_hold_the_frames_of_their_episode_alone() -> None:
    specs = episode_specs(SCENES, 3, total=12)
    film = {spec: [] for spec in (specs[0], specs[5], specs[11])}
    records = dict(zip(specs, run_episodes(toy_act, ToyEnv(4), specs, watch=film), strict=True))
    for spec, frames in film.items():
        assert len(frames) == 4 * records[spec].chunks
        assert {int(frame[0, 0, 0]) for frame in frames} == {spec.seed % 200}


def test_the_same_episode_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="the same"):
        run_episodes(toy_act, ToyEnv(1), [EpisodeSpec("pan", 1)] * 2)
