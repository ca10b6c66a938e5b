"""Many environments behind one batched interface, in this process or over worker processes.

A slot is one environment's place in the batch. What runs in it is decided by a schedule, `schedule(slot, k)` being the slot's
k-th episode, so that training, evaluation and a resumed run all say what they want by name and nothing about an environment's
past needs to be saved.

Slots come in groups that can be stepped apart: while a policy decides for one group, the other simulates. What comes out depends
on the number of groups (in the last bits of batched arithmetic), and never on which of the two was faster.
"""

from __future__ import annotations

import abc
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from genvla.errors import UserError
from genvla.sim.config import SimConfig
from genvla.sim.expert import Demonstration, Moment
from genvla.types import ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition

if TYPE_CHECKING:
    from genvla.sim.host import Host

Physics = Literal["cpu", "gpu"]

Schedule = Callable[[int, int], EpisodeSpec | None]
"""(slot, k) -> the slot's k-th episode; None lets the slot idle from then on."""

Outcome = tuple[list[tuple[int, EpisodeRecord]], dict[int, str], list[int]]
"""Of a group's step: finished episodes by slot, instructions of slots that began one (empty: it idles), slots whose step was
lost."""


def parts_of(count: int, parts: int) -> list[range]:
    """0 .. count - 1 in so many runs of equal length, give or take one."""
    bounds = [count * index // parts for index in range(parts + 1)]
    return [range(first, last) for first, last in zip(bounds, bounds[1:], strict=False)]


class VectorEnv(abc.ABC):
    """The batched interface of n environments; every tensor lies on the CPU.

    Attributes: num_envs; max_chunks, the episode limit; groups, the slots of each; active [n], which slots run an episode;
    restarts, how often a worker was replaced.
    """

    def __init__(self, num_envs: int, max_chunks: int, groups: int = 1) -> None:
        self.num_envs = num_envs
        self.max_chunks = max_chunks
        self.groups = parts_of(num_envs, groups)
        self.restarts = 0
        self._schedule: Schedule = lambda slot, k: None
        self._terminate = True
        self._next = [0] * num_envs
        self._instructions = [""] * num_envs
        self._sent: deque[tuple[int, np.ndarray]] = deque()

    @property
    def active(self) -> np.ndarray:
        return np.array([bool(text) for text in self._instructions])

    def reset(self, schedule: Schedule, *, terminate_on_success: bool = True) -> Observation:
        """Starts every slot's first episode; steps under way are abandoned.

        With terminate_on_success False, episodes run to the limit, as evaluation wants.
        """
        self._abandon()
        self._schedule, self._terminate = schedule, terminate_on_success
        self._next = [1] * self.num_envs
        self._instructions = self._reset([schedule(slot, 0) for slot in range(self.num_envs)])
        return self._observation("", range(self.num_envs))

    def step(self, actions: ActionChunk) -> Transition:
        """Runs one chunk [n, c, 7] in every slot; finished slots begin their next episode at once."""
        for group, slots in enumerate(self.groups):
            self.send(actions[slots.start : slots.stop], group)
        transitions = [self.receive(group) for group in range(len(self.groups))]
        return transitions[0] if len(transitions) == 1 else _joined(transitions, [slots.start for slots in self.groups])

    def send(self, actions: ActionChunk, group: int = 0) -> None:
        """Begins one chunk [m, c, 7] in the m slots of a group. `receive` follows, in the order of sending."""
        slots = self.groups[group]
        self._arrays["actions"][slots.start : slots.stop] = actions.numpy()
        self._sent.append((group, self.active[slots.start : slots.stop]))
        self._send(group, [self._following(slot) for slot in slots])

    def receive(self, group: int = 0) -> Transition:
        """What the chunk sent to a group led to; rows and slots of `episodes` count from the group's first slot."""
        if not self._sent or self._sent[0][0] != group:
            raise RuntimeError(f"receive({group}): want the groups in the order they were sent, {[g for g, _ in self._sent]}")
        slots = self.groups[group]
        episodes, began, lost = self._receive(group)
        _, valid = self._sent.popleft()
        for slot, text in began.items():
            self._instructions[slot] = text
            self._next[slot] += 1
        valid[[slot - slots.start for slot in lost]] = False
        ended = {name: self._arrays[name][slots.start : slots.stop] & valid for name in ("terminated", "truncated")}
        terminated, truncated = (torch.from_numpy(flags) for flags in ended.values())
        return Transition(
            observation=self._observation("", slots),
            reward=terminated.float(),
            terminated=terminated,
            truncated=truncated,
            valid=torch.from_numpy(valid),
            final_observation=self._observation("final_", slots) if truncated.any() else None,
            episodes=sorted(((slot - slots.start, record) for slot, record in episodes), key=lambda pair: pair[0]),
        )

    def _observation(self, prefix: str, slots: range) -> Observation:
        rows = slice(slots.start, slots.stop)
        names = ("images", "proprio", "privileged")
        images, proprio, privileged = (torch.from_numpy(self._arrays[prefix + name][rows].copy()) for name in names)
        return Observation(images=images, instructions=self._instructions[rows], proprio=proprio, privileged=privileged)

    def _following(self, slot: int) -> EpisodeSpec | None:
        """The episode that a slot would begin now; an idle slot stays idle."""
        return self._schedule(slot, self._next[slot]) if self._instructions[slot] else None

    def _abandon(self) -> None:
        """Forgets the steps under way."""
        self._sent.clear()

    @property
    @abc.abstractmethod
    def _arrays(self) -> Mapping[str, np.ndarray]:
        """As host.observation_arrays describes them, over all slots."""

    @abc.abstractmethod
    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]: ...

    @abc.abstractmethod
    def _send(self, group: int, following: Sequence[EpisodeSpec | None]) -> None: ...

    @abc.abstractmethod
    def _receive(self, group: int) -> Outcome: ...

    @abc.abstractmethod
    def watch(self, slots: Sequence[int]) -> None:
        """From now on `take_frames` gives pictures of these slots."""

    @abc.abstractmethod
    def take_frames(self) -> dict[int, list[np.ndarray]]:
        """Human-view pictures, uint8 [h, w, 3], at each control step of the last `step`, by watched slot that was active."""

    @abc.abstractmethod
    def record(self, on: bool) -> None:
        """From now on `take_moments` gives what was observed, or no longer."""

    @abc.abstractmethod
    def take_moments(self) -> dict[int, list[Moment]]:
        """What was observed before each control step of the last `step`, by slot that was active."""

    @abc.abstractmethod
    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        """The scripted expert's episodes, in the order they finish. It takes the slots over: `reset` before the next `step`."""

    @abc.abstractmethod
    def read_timings(self) -> dict[str, float]:
        """Seconds of work by phase, summed over workers, since last read."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_vector_env(
    scenes: Path,
    sim: SimConfig,
    num_envs: int,
    workers: int,
    groups: int = 1,
    render_device: str = "auto",
    worker_timeout: float | None = None,
    physics: Physics = "cpu",
) -> VectorEnv:
    """num_envs environments over `workers` processes; in this process when workers is 0.

    Args:
        scenes: folder of a scene set.
        sim: the simulated set-up.
        num_envs: environments side by side.
        workers: processes that simulate.
        groups: groups of environments that can be stepped apart.
        render_device: where pictures are rendered: "auto" (a GPU where torch sees one), "cpu", "cuda", "cuda:1" and so on.
            Physics runs where `physics` says.
        worker_timeout: seconds after which a silent worker counts as hung; the default of genvla.sim.workers when None.
        physics: "cpu", an engine for each environment; "gpu", one on torch's GPU for all of them, without workers.
    """
    if num_envs < 1:
        raise UserError(f"num_envs: {num_envs} found, at least 1 wanted")
    if not 1 <= groups <= num_envs:
        raise UserError(f"groups: {groups} found, between 1 and num_envs ({num_envs}) wanted")
    if physics == "gpu":
        if workers or groups > 1:
            raise UserError(f"physics: gpu found with {workers} workers and {groups} groups, want 0 and 1")
        if not torch.cuda.is_available():
            raise UserError("physics: gpu found, and no GPU that torch can use; cpu wanted")
        from genvla.sim.batch_host import BatchHost

        return LocalVectorEnv(scenes, sim, num_envs, groups, render_device, BatchHost)
    if workers == 0:
        return LocalVectorEnv(scenes, sim, num_envs, groups, render_device)
    from genvla.sim.workers import WORKER_TIMEOUT, ProcessVectorEnv

    timeout = WORKER_TIMEOUT if worker_timeout is None else worker_timeout
    return ProcessVectorEnv(scenes, sim, num_envs, min(workers, num_envs // groups), groups, render_device, timeout)


class LocalVectorEnv(VectorEnv):
    """All environments in this process: for debugging, tests, a single environment, and those that a GPU simulates.

    host: what runs the slots of a group; genvla.sim.host.Host when None.
    """

    def __init__(
        self,
        scenes: Path,
        sim: SimConfig,
        num_envs: int,
        groups: int = 1,
        render_device: str = "auto",
        host: Callable[..., Host] | None = None,
    ) -> None:
        from genvla.sim.host import Host, observation_arrays

        make = Host if host is None else host
        super().__init__(num_envs, sim.max_chunks, groups)
        specification = observation_arrays(num_envs, sim.image_size)
        self._storage = {name: np.zeros(shape, dtype) for name, (shape, dtype) in specification.items()}
        self._hosts = [
            make(scenes, sim, {name: array[slots.start : slots.stop] for name, array in self._storage.items()}, render_device)
            for slots in self.groups
        ]
        self._plans: dict[int, Sequence[EpisodeSpec | None]] = {}

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self._storage

    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]:
        pairs = zip(self._hosts, self.groups, strict=True)
        return [text for host, slots in pairs for text in host.reset(specs[slots.start : slots.stop], self._terminate)]

    def _send(self, group: int, following: Sequence[EpisodeSpec | None]) -> None:
        self._plans[group] = following

    def _receive(self, group: int) -> Outcome:
        finished, began = self._hosts[group].step(self._plans.pop(group))
        first = self.groups[group].start
        return [(first + index, record) for index, record in finished], {first + i: text for i, text in began.items()}, []

    def watch(self, slots: Sequence[int]) -> None:
        for host, group in zip(self._hosts, self.groups, strict=True):
            host.watch([slot - group.start for slot in slots if slot in group])

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        pairs = zip(self._hosts, self.groups, strict=True)
        return {group.start + index: frames for host, group in pairs for index, frames in host.take_frames().items()}

    def record(self, on: bool) -> None:
        for host in self._hosts:
            host.record(on)

    def take_moments(self) -> dict[int, list[Moment]]:
        pairs = zip(self._hosts, self.groups, strict=True)
        return {group.start + index: moments for host, group in pairs for index, moments in host.take_moments().items()}

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        for place, host in enumerate(self._hosts):
            yield from (demonstration for _, demonstration in host.demonstrate(specs[place :: len(self._hosts)], noise))

    def read_timings(self) -> dict[str, float]:
        return added_up([host.take_timings() for host in self._hosts])

    def close(self) -> None:
        for host in self._hosts:
            host.close()


def added_up(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds by phase, summed."""
    total: dict[str, float] = defaultdict(float)
    for part in timings:
        for name, seconds in part.items():
            total[name] += seconds
    return dict(total)


def _joined(transitions: Sequence[Transition], firsts: Sequence[int]) -> Transition:
    """One transition over all slots from those of the groups."""

    def join(name: str) -> torch.Tensor:
        return torch.cat([getattr(transition, name) for transition in transitions])

    finals = [transition.final_observation or transition.observation for transition in transitions]
    return Transition(
        observation=_join_observations([transition.observation for transition in transitions]),
        reward=join("reward"),
        terminated=join("terminated"),
        truncated=join("truncated"),
        valid=join("valid"),
        final_observation=_join_observations(finals) if any(transition.final_observation for transition in transitions) else None,
        episodes=[
            (first + slot, record)
            for first, transition in zip(firsts, transitions, strict=True)
            for slot, record in transition.episodes
        ],
    )


def _join_observations(parts: Sequence[Observation]) -> Observation:
    joined: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in ("images", "proprio", "privileged")
    }
    return Observation(instructions=[text for part in parts for text in part.instructions], **joined)
