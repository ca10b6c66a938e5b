from __future__ import annotations

import numpy as np
import pytest
import torch

from genvla.evaluation.episodes import run_episodes
from genvla.evaluation.recording import InOrder, Recorder
from genvla.sim.expert import Demonstration, Moment
from genvla.types import CHUNK_SIZE, ActionChunk, EpisodeRecord, EpisodeSpec, Transition
from tests.evaluation.toy import ToyEnv, toy_act

SPECS = [EpisodeSpec(f"scene-{k % 3}", k) for k in range(7)]


class RecordedToy(ToyEnv):
    """Its moments hold where the point is before each of the chunk's actions."""

    recording = False

    def record(self, on: bool) -> None:
        self.recording = on

    def step(self, actions: ActionChunk) -> Transition:
        self.moments: dict[int, list[Moment]] = {slot: [] for slot, one in enumerate(self.episodes) if one and self.recording}
        return super().step(actions)

    def _advance(self, slot: int, episode: object, chunk: torch.Tensor) -> None:
        for action in chunk:
            position = episode.position.numpy().copy()  # type: ignore[attr-defined]
            self.moments[slot].append((np.full((1, 8, 8, 3), episode.spec.seed, np.uint8), position, position[:3]))  # type: ignore[attr-defined]
            super()._advance(slot, episode, action[None])  # type: ignore[arg-type]

    def take_moments(self) -> dict[int, list[Moment]]:
        return {slot: moments for slot, moments in self.moments.items() if moments}  # not those of a worker that died


def run(env: ToyEnv) -> tuple[list[EpisodeRecord], list[Demonstration]]:
    kept: list[Demonstration] = []
    return run_episodes(toy_act, Recorder(env, kept.append), SPECS, terminate_on_success=True), kept  # type: ignore[arg-type]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_episodes_are_kept_whole(num_envs: int) -> None:
    """The recorded actions, taken from the first recorded state, lead through the recorded states."""
    records, kept = run(RecordedToy(num_envs))
    assert sorted(map(str, records)) == sorted(str(one.record) for one in kept)
    for one in kept:
        assert len(one.actions) == len(one.proprio) == one.record.chunks * CHUNK_SIZE
        assert (one.images == one.record.seed).all()
        position = torch.from_numpy(one.proprio[:-1])
        moved = position + torch.from_numpy(one.actions[:-1]) + 0.1 * torch.sin(position.roll(1, dims=1))
        torch.testing.assert_close(moved, torch.from_numpy(one.proprio[1:]))


def test_what_a_dying_worker_took_is_recorded_anew() -> None:
    whole = {str(one.record): one.actions for one in run(RecordedToy(3))[1]}
    after = {str(one.record): one.actions for one in run(RecordedToy(3, dies=[(2, 0), (5, 1)]))[1]}
    assert whole.keys() == after.keys()
    for name, actions in whole.items():
        np.testing.assert_allclose(after[name], actions)


def test_moments_that_were_lost_are_an_error() -> None:
    class Forgetful(RecordedToy):
        def take_moments(self) -> dict[int, list[Moment]]:
            return {slot: moments for slot, moments in self.moments.items() if self.time != 2}

    with pytest.raises(RuntimeError, match="control steps of .* were recorded"):
        run(Forgetful(2))


def test_episodes_are_handed_on_in_order() -> None:
    def one(spec: EpisodeSpec) -> Demonstration:
        record = EpisodeRecord(spec.scene_id, spec.seed, True, True, True, 1, 1, "")
        return Demonstration(record, *(np.zeros((1, 1)) for _ in range(4)))

    handed: list[EpisodeSpec] = []
    hand_on = InOrder(SPECS, lambda episode: handed.append(episode.record.spec))
    for number, wanted in ((1, 0), (0, 2), (3, 2), (2, 4), (6, 4), (5, 4), (4, 7)):
        hand_on(one(SPECS[number]))
        assert handed == SPECS[:wanted]
