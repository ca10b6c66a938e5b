"""A deterministic stand-in for the simulator: a point that actions move, whose course depends on its seed and every action."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genvla.seeding import generator
from genvla.types import CHUNK_SIZE, PROPRIO_DIM, ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition


@dataclass
class _Episode:
    spec: EpisodeSpec
    position: Tensor
    steps: int = 0
    success_at: int | None = None


class ToyEnv:
    """An episode succeeds when the sum of its point's first three coordinates comes above 3. In `dies` are the (step of the
    environment, slot) at which a worker is lost; with `every`, slot 0 is lost each so many steps. The rows of an idle slot are
    not valid. Like the real one it asks for the next episode of each slot in advance."""

    def __init__(self, num_envs: int, max_chunks: int = 6, dies: Sequence[tuple[int, int]] = (), every: int = 0) -> None:
        self.num_envs, self.max_chunks = num_envs, max_chunks
        self.dies, self.every, self.time = set(dies), every, 0
        self.watched: list[int] = []
        self.started: list[EpisodeSpec] = []

    @property
    def active(self) -> np.ndarray:
        return np.array([episode is not None for episode in self.episodes])

    def reset(self, schedule: Callable[[int, int], EpisodeSpec | None], *, terminate_on_success: bool = True) -> Observation:
        self.schedule, self.terminate = schedule, terminate_on_success
        self.count = [-1] * self.num_envs
        self.episodes: list[_Episode | None] = [None] * self.num_envs
        self.following = [schedule(slot, 0) for slot in range(self.num_envs)]
        for slot in range(self.num_envs):
            self._next(slot)
        return self._observe()

    def step(self, actions: ActionChunk) -> Transition:
        assert actions.shape == (self.num_envs, CHUNK_SIZE, 7)
        self.time += 1
        self.following = [self.schedule(slot, k + 1) for slot, k in enumerate(self.count)]
        self.frames: dict[int, list[np.ndarray]] = {slot: [] for slot in self.watched}
        valid, terminated, truncated = (torch.zeros(self.num_envs, dtype=torch.bool) for _ in range(3))
        finished = []
        for slot, episode in enumerate(self.episodes):
            if episode is None:
                continue
            if (self.time, slot) in self.dies or (self.every and self.time % self.every == 0 and slot == 0):
                self._next(slot)
                continue
            valid[slot] = True
            self._advance(slot, episode, actions[slot])
            terminated[slot] = self.terminate and episode.success_at is not None
            truncated[slot] = not terminated[slot] and episode.steps == self.max_chunks * CHUNK_SIZE
            if terminated[slot] or truncated[slot]:
                finished.append((slot, self._record(episode)))
                self._next(slot)
        reward = terminated.float()
        return Transition(self._observe(), reward, terminated, truncated, valid, None, finished)

    def watch(self, slots: Sequence[int]) -> None:
        self.watched = list(slots)

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return self.frames

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> ToyEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _advance(self, slot: int, episode: _Episode, chunk: Tensor) -> None:
        for action in chunk:
            episode.position = episode.position + action + 0.1 * torch.sin(episode.position.roll(1))
            episode.steps += 1
            if episode.success_at is None and float(episode.position[:3].sum()) > 3:
                episode.success_at = episode.steps
            if slot in self.watched:
                self.frames[slot].append(np.full((48, 64, 3), int(episode.spec.seed % 200), np.uint8))

    def _next(self, slot: int) -> None:
        self.count[slot] += 1
        spec = self.following[slot]
        self.episodes[slot] = None
        if spec is not None:
            self.started.append(spec)
            self.episodes[slot] = _Episode(spec, torch.randn(PROPRIO_DIM, generator=generator("cpu", spec.seed, "reset")))

    def _observe(self) -> Observation:
        rows = [torch.full((PROPRIO_DIM,), torch.nan) if episode is None else episode.position for episode in self.episodes]
        texts = ["" if episode is None else f"visit {episode.spec.scene_id}" for episode in self.episodes]
        return Observation(torch.zeros(self.num_envs, 1, 8, 8, 3, dtype=torch.uint8), texts, torch.stack(rows))

    def _record(self, episode: _Episode) -> EpisodeRecord:
        success = episode.success_at is not None
        at_end = success and float(episode.position[:3].sum()) > 3
        steps = episode.success_at or episode.steps
        text = f"visit {episode.spec.scene_id}"
        return EpisodeRecord(
            episode.spec.scene_id, episode.spec.seed, success, at_end, success, steps, episode.steps // CHUNK_SIZE, text
        )


def toy_act(observation: Observation, noise: Tensor) -> ActionChunk:
    """Depends on the state and on every entry of the noise."""
    return 0.15 * noise + 0.05 * observation.proprio[:, None] * torch.linspace(-1, 1, 7)
