"""Rollouts: a fixed number of decisions in every environment, and the rows of a PPO update that come of them.

Every iteration starts from fresh resets with seeds that follow from its number. So nothing of the environments has to be saved:
a run that resumes at iteration i collects exactly what the run that was stopped would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genvla.errors import UserError
from genvla.learning.advantages import gae, normalise
from genvla.learning.assignment import SceneAssignment
from genvla.learning.frozen_cache import FrozenCache
from genvla.learning.losses import explained_variance
from genvla.seeding import derive_seed, generator
from genvla.types import ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition

if TYPE_CHECKING:
    from genvla.policy.flow_policy import PolicyOutput
    from genvla.policy.processor import PolicyInputs


class Environments(Protocol):
    """The part of genvla.sim's VectorEnv that a rollout uses."""

    num_envs: int
    groups: list[range]

    def reset(self, schedule: Callable[[int, int], EpisodeSpec | None]) -> Observation: ...

    def send(self, actions: ActionChunk, group: int) -> None: ...

    def receive(self, group: int) -> Transition: ...


class Actor(Protocol):
    """What decides: the trained module, seen through the strategy that it runs under."""

    def process(self, observation: Observation) -> PolicyInputs: ...

    def keep_frozen(self, inputs: PolicyInputs) -> PolicyInputs: ...

    def act(self, inputs: PolicyInputs, noise_generator: torch.Generator) -> PolicyOutput: ...

    def value(self, inputs: PolicyInputs) -> Float[Tensor, " b"]: ...


def map_tensors(function: Callable[[Tensor], Tensor], rows: Any) -> Any:
    """An object whose attributes are tensors, None or such objects again, with the function applied to every tensor."""
    if rows is None:
        return None
    if isinstance(rows, Tensor):
        return function(rows)
    return type(rows)(**{name: map_tensors(function, value) for name, value in vars(rows).items()})


class Decisions:
    """b decisions to learn from, each with the whole chain of its integration.

    A plain class, because Lightning takes dataclasses apart on their way to several devices and cannot rebuild the frozen one
    inside.
    """

    def __init__(
        self,
        inputs: PolicyInputs,
        chain: Float[Tensor, "b k c 7"],
        log_prob: Float[Tensor, " b"],
        advantage: Float[Tensor, " b"],
        returns: Float[Tensor, " b"],
    ) -> None:
        self.inputs = inputs
        self.chain = chain
        self.log_prob = log_prob
        self.advantage = advantage
        self.returns = returns

    def __len__(self) -> int:
        return len(self.log_prob)


def fill_row(rows: Any, t: int, slots: slice, row: Any) -> None:
    """Copies what some slots have into their part of row t of an object made by map_tensors, attribute by attribute."""
    for name, stored in vars(rows).items():
        if isinstance(stored, Tensor):
            stored[t, slots] = getattr(row, name)
        elif stored is not None:
            fill_row(stored, t, slots, getattr(row, name))


@dataclass
class RolloutBuffer:
    """t decisions in each of n environments, allocated once and filled row by row. Images stay uint8.

    final_value: V of an episode's last observation, where it was truncated; 0 elsewhere. next_value: V after the last decision.
    """

    inputs: PolicyInputs
    chain: Float[Tensor, "t n k c 7"]
    log_prob: Float[Tensor, "t n"]
    value: Float[Tensor, "t n"]
    reward: Float[Tensor, "t n"]
    terminated: Bool[Tensor, "t n"]
    truncated: Bool[Tensor, "t n"]
    valid: Bool[Tensor, "t n"]
    final_value: Float[Tensor, "t n"]
    next_value: Float[Tensor, " n"]

    @classmethod
    def allocate(cls, steps: int, num_envs: int, inputs: PolicyInputs, output: PolicyOutput) -> Self:
        """Room for `steps` decisions in num_envs environments, shaped like the first few."""

        def room(tensor: Tensor) -> Tensor:
            return tensor.new_zeros((steps, num_envs, *tensor.shape[1:]))

        number = room(output.value)
        flag = torch.zeros_like(number, dtype=torch.bool)
        return cls(
            inputs=map_tensors(room, inputs),
            chain=room(output.chain),
            log_prob=room(output.log_prob),
            value=number,
            reward=number.clone(),
            terminated=flag,
            truncated=flag.clone(),
            valid=flag.clone(),
            final_value=number.clone(),
            next_value=torch.zeros_like(number[0]),
        )

    def record(self, t: int, slots: slice, inputs: PolicyInputs, output: PolicyOutput, transition: Transition) -> None:
        """Fills some slots' part of row t with their decisions and what they led to."""
        fill_row(self.inputs, t, slots, inputs)
        for name in ("chain", "log_prob", "value"):
            getattr(self, name)[t, slots] = getattr(output, name)
        for name in ("reward", "terminated", "truncated", "valid"):
            getattr(self, name)[t, slots] = getattr(transition, name)

    @property
    def frozen_bytes(self) -> int:
        """Memory that the frozen part of the encodings takes."""
        return 0 if self.inputs.frozen is None else self.inputs.frozen.nbytes

    def usable(self) -> Bool[Tensor, "t n"]:
        """Valid rows of episodes that no dying worker cut short: such an episode is void back to its start."""
        ended = self.terminated | self.truncated | ~self.valid
        episode = ended.long().cumsum(0) - ended.long()
        broken = torch.zeros(len(episode) + 1, episode.shape[1], dtype=torch.long, device=episode.device)
        broken.scatter_add_(0, episode, (~self.valid).long())
        return broken.gather(0, episode) == 0

    def decisions(
        self, gamma: float, lam: float, all_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> tuple[Decisions, dict[str, Tensor]]:
        """The usable rows in order of time, with advantages normalised over the whole batch, and what to log about them.

        Raises:
            UserError: there are none, because workers keep dying.
        """
        valid = self.usable()
        if not valid.any():
            raise UserError("data.workers: every decision of an iteration was lost because workers died; see their output")
        advantages, returns = gae(
            self.reward,
            self.value,
            self.next_value,
            self.terminated,
            self.truncated,
            self.final_value,
            valid,
            gamma,
            lam,
        )
        normalised = normalise(advantages, valid, all_sum)
        rows = Decisions(self.inputs, self.chain, self.log_prob, normalised, returns)
        kept = valid.flatten().nonzero().squeeze(1)

        def usable(tensor: Tensor) -> Tensor:
            flat = tensor.flatten(0, 1)  # a view: with all rows usable nothing is copied
            return flat if len(kept) == len(flat) else flat[kept.to(flat.device)]

        decisions = map_tensors(usable, rows)
        advantages, returns, values = advantages[valid], returns[valid], self.value[valid]
        metrics = {
            "advantage_mean": advantages.mean(),
            "advantage_std": advantages.std(correction=0),
            "advantage_max": advantages.max(),
            "return_mean": returns.mean(),
            "value_mean": values.mean(),
            "explained_variance": explained_variance(values, returns),
            "reward": self.reward[valid].mean(),
            "dropped_decisions": (~valid).sum(),
            "dropped_episodes": (~self.valid).sum(),
        }
        return decisions, metrics


@dataclass
class Rollout:
    """What one iteration collected.

    seconds: wall-clock by phase: "infer", the policy's work, and "simulate", the waiting for environments that it did not cover.
    """

    buffer: RolloutBuffer
    episodes: list[EpisodeRecord]
    seconds: dict[str, float]


class Interrupted(Exception):
    """The run was told to stop in the middle of what it was doing, of which nothing is kept."""


@dataclass
class _Lane:
    """A group of environments between two of its decisions."""

    group: int
    slots: slice
    noise: torch.Generator
    observation: Observation
    inputs: PolicyInputs | None = None
    output: PolicyOutput | None = None


class RolloutCollector:
    """Runs a policy for `steps` decisions in every environment.

    With a cache, the part of the observations' encoding that training does not change is computed once and kept with them.

    Environments that come in several groups take turns: while the policy decides for one, the others simulate. Each group draws
    its exploration noise from a generator named after its first slot, so what is collected does not depend on who was faster.
    With several processes `first_slot` continues the count: two processes with one group each collect what one process with two
    groups does.

    Args:
        env: the environments of this process.
        assignment: which scene runs in which slot, over all processes.
        steps: decisions in every environment.
        seed: of episodes and exploration.
        device: of the policy.
        first_slot: number of this process's first environment among those of all.
        cache: where the frozen part of the encodings is kept.
        interrupted: asked before every decision; True breaks the collection off.
    """

    def __init__(
        self,
        env: Environments,
        assignment: SceneAssignment,
        steps: int,
        seed: int,
        device: torch.device | str,
        first_slot: int = 0,
        cache: FrozenCache = FrozenCache(),  # noqa: B008  (frozen)
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.env = env
        self.assignment = assignment
        self.steps = steps
        self.seed = seed
        self.device = torch.device(device)
        self.first_slot = first_slot
        self.cache = cache
        self.interrupted = interrupted
        self._caching = False

    def episode(self, iteration: int, slot: int, k: int) -> EpisodeSpec:
        """The k-th episode of a slot in an iteration."""
        slot += self.first_slot
        scene_id = self.assignment.scenes(iteration)[slot]
        return EpisodeSpec(scene_id, derive_seed(self.seed, "rollout", iteration, slot, k))

    @torch.no_grad()
    def collect(self, actor: Actor, iteration: int) -> Rollout:
        """Fresh resets, then `steps` decisions, with noise and episodes that follow from the seed and the iteration alone.

        Raises:
            Interrupted: the run was told to stop.
        """
        self._caching = self.cache.where != "off"
        seconds = {"simulate": 0.0, "infer": 0.0}
        with _timed(seconds, "simulate"):
            observation = self.env.reset(lambda slot, k: self.episode(iteration, slot, k))
        lanes = [
            _Lane(
                group,
                rows := slice(slots.start, slots.stop),
                generator(self.device, self.seed, "policy", iteration, self.first_slot + slots.start),
                observation[rows],
            )
            for group, slots in enumerate(self.env.groups)
        ]
        episodes: list[EpisodeRecord] = []
        buffer: RolloutBuffer | None = None
        for t in range(self.steps + 1):
            for lane in lanes:
                if t > 0:
                    with _timed(seconds, "simulate"):
                        transition = self.env.receive(lane.group)
                    with _timed(seconds, "infer"):
                        buffer = self._record(actor, buffer, t - 1, lane, transition)
                    episodes += [record for _, record in transition.episodes]
                if t < self.steps:
                    if self.interrupted():
                        raise Interrupted
                    with _timed(seconds, "infer"):
                        actions = self._decide(actor, lane)
                    with _timed(seconds, "simulate"):
                        self.env.send(actions, lane.group)
                elif buffer is not None:  # beside what the other groups still simulate
                    with _timed(seconds, "infer"):
                        buffer.next_value[lane.slots] = actor.value(actor.process(lane.observation).to(self.device))
        assert buffer is not None
        return Rollout(buffer, episodes, seconds)

    def _decide(self, actor: Actor, lane: _Lane) -> ActionChunk:
        inputs = actor.process(lane.observation).to(self.device)
        if self._caching:
            inputs = actor.keep_frozen(inputs)
            decisions = self.steps * self.env.num_envs
            fits = inputs.frozen is not None and self.cache.fits(decisions * inputs.frozen.nbytes // len(inputs))
            self._caching, inputs = fits, inputs if fits else replace(inputs, frozen=None)
        lane.inputs, lane.output = inputs, actor.act(inputs, lane.noise)
        return lane.output.actions.to(lane.observation.proprio.device)

    def _record(self, actor: Actor, buffer: RolloutBuffer | None, t: int, lane: _Lane, transition: Transition) -> RolloutBuffer:
        """Keeps a group's decision and what came of it; the first one makes the buffer."""
        assert lane.inputs is not None and lane.output is not None
        inputs = self.cache.stored(lane.inputs)
        if buffer is None:
            buffer = RolloutBuffer.allocate(self.steps, self.env.num_envs, inputs, lane.output)
        buffer.record(t, lane.slots, inputs, lane.output, transition)
        self._value_truncated(actor, transition, buffer.final_value[t, lane.slots])
        lane.observation = transition.observation
        return buffer

    def _value_truncated(self, actor: Actor, transition: Transition, final_value: Float[Tensor, " n"]) -> None:
        """Fills in V of the last observation of every episode that ran out of time in this step."""
        rows = (transition.truncated & ~transition.terminated & transition.valid).nonzero().squeeze(1)
        if len(rows) and transition.final_observation is not None:
            last = actor.process(transition.final_observation[rows]).to(self.device)
            final_value[rows.to(self.device)] = actor.value(last)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[phase] += perf_counter() - start
