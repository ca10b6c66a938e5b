"""Episodes kept whole while they run: at every control step what was observed, and the action that followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from genvla.evaluation.episodes import Environments
from genvla.sim.expert import Demonstration, Moment
from genvla.types import CHUNK_SIZE, ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition

Keep = Callable[[Demonstration], None]


class RecordedEnvironments(Environments, Protocol):
    """The part of genvla.sim's VectorEnv that a recording uses."""

    def record(self, on: bool) -> None: ...

    def take_moments(self) -> dict[int, list[Moment]]: ...


class Recorder:
    """The environments of `env` for `run_episodes`; every episode that finishes is handed to `keep`."""

    def __init__(self, env: RecordedEnvironments, keep: Keep) -> None:
        self.num_envs, self.max_chunks = env.num_envs, env.max_chunks
        self._env, self._keep = env, keep
        self._rows: list[list[tuple[np.ndarray, ...]]] = []

    def reset(self, schedule: Callable[[int, int], EpisodeSpec | None], *, terminate_on_success: bool = True) -> Observation:
        self._rows = [[] for _ in range(self.num_envs)]
        self._env.record(True)
        return self._env.reset(schedule, terminate_on_success=terminate_on_success)

    def step(self, actions: ActionChunk) -> Transition:
        transition = self._env.step(actions)
        for slot, moments in self._env.take_moments().items():
            self._rows[slot] += [(*moment, action) for moment, action in zip(moments, actions[slot].numpy(), strict=True)]
        for slot, record in transition.episodes:
            self._keep(self._whole(slot, record))
        over = transition.terminated | transition.truncated | ~transition.valid
        for slot in over.nonzero().flatten().tolist():
            self._rows[slot] = []
        return transition

    def watch(self, slots: Sequence[int]) -> None:
        self._env.watch(slots)

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return self._env.take_frames()

    def _whole(self, slot: int, record: EpisodeRecord) -> Demonstration:
        rows = self._rows[slot]
        if len(rows) != record.chunks * CHUNK_SIZE:
            raise RuntimeError(f"{len(rows)} of {record.chunks * CHUNK_SIZE} control steps of {record.spec} were recorded")
        images, proprio, privileged, actions = (np.stack(column) for column in zip(*rows, strict=True))
        return Demonstration(record, images, proprio, privileged, actions)


class InOrder:
    """Hands episodes on in the order of `specs`, whatever the order they finish in; one that is too early waits."""

    def __init__(self, specs: Iterable[EpisodeSpec], keep: Keep) -> None:
        self._specs = list(specs)[::-1]
        self._keep = keep
        self._waiting: dict[EpisodeSpec, Demonstration] = {}

    def __call__(self, episode: Demonstration) -> None:
        self._waiting[episode.record.spec] = episode
        while self._specs and self._specs[-1] in self._waiting:
            self._keep(self._waiting.pop(self._specs.pop()))
