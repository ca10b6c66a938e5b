"""A world without a simulator that shows within seconds whether learning works: say where the goal is, and be paid for reaching
there.

The goal of an episode stands in the observed proprioception (y). A decision succeeds when the y movement of its first action
matches it to within a tolerance; then it is paid 1 and the episode ends. Otherwise it pays for its distance and goes on until it
is truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from genvla.learning.datamodule import RolloutDataModule
from genvla.learning.module import PPOFlowModule
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import ProcessorConfig, Statistics
from genvla.policy.siglip import SiglipConfig
from genvla.seeding import derive_seed, generator
from genvla.sim.vector import parts_of
from genvla.types import PRIVILEGED_NAMES, ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition

SCENES = ["toy-0", "toy-1", "toy-2"]
TOLERANCE = 0.15
"""In the units of an action in [-1, 1]; goals lie between 0 and 0.8."""


def small_policy(seed: int = 0, **heads: object) -> FlowPolicy:
    """The smallest real policy: 8 pixels, 4 image tokens, width 32."""
    vision = SiglipConfig(8, 4, 32, 1, 2, 32, stem_channels=(8,))
    mixture = MixtureConfig(width=32, mlp=64)
    joint = JointConfig(mixture, mixture, layers=2, heads=2, kv_heads=1, head_dim=16, feature_layer=1)
    unit = Statistics((-1.0,) * 6 + (0.0,), (1.0,) * 7, (-1.0,) * 7, (1.0,) * 7)
    settings = {"noise_hidden": (32,), "value_hidden": (32,), "value_input": "privileged", "grounding": False, **heads}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlowPolicy(
            Pi0Config(vision, joint),
            HeadsConfig(**settings),  # type: ignore[arg-type]
            ProcessorConfig(image_size=8, max_tokens=3),
            statistics=unit,
        )


@cache
def _still_weights() -> dict[str, torch.Tensor]:
    policy = small_policy()
    observation = ToyEnv(64).reset(lambda slot, k: EpisodeSpec("toy", derive_seed(slot)))
    inputs, noise = policy.processor(observation), generator("cpu", 0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    for _ in range(160):
        optimizer.zero_grad()
        policy.flow_loss(inputs, torch.zeros(64, 4, 7), noise).backward()
        optimizer.step()
    return policy.state_dict()


def still_policy() -> FlowPolicy:
    """A small policy that has learnt by flow matching to stand still, wherever the goal is: where reinforcement learning
    starts."""
    policy = small_policy()
    policy.load_state_dict(_still_weights())
    return policy


class ToyEnv:
    """A VectorEnv of the toy world. `deaths` holds (step, slot) pairs at which a worker dies, counted from the last reset."""

    def __init__(
        self, num_envs: int, max_chunks: int = 3, deaths: frozenset[tuple[int, int]] = frozenset(), groups: int = 1
    ) -> None:
        self.num_envs = num_envs
        self.groups = parts_of(num_envs, groups)
        self.max_chunks = max_chunks
        self.deaths = deaths
        self.restarts = 0
        self.watched: list[int] = []

    def reset(self, schedule: Callable[[int, int], EpisodeSpec | None], *, terminate_on_success: bool = True) -> Observation:
        assert terminate_on_success
        self.schedule = schedule
        self.episode = [0] * self.num_envs
        self.chunks = [0] * self.num_envs
        self.steps = [0] * self.num_envs
        self.sent: list[tuple[int, ActionChunk]] = []
        return self.observe(range(self.num_envs))

    def spec(self, slot: int) -> EpisodeSpec | None:
        return self.schedule(slot, self.episode[slot])

    def goal(self, slot: int) -> float:
        spec = self.spec(slot)
        return 0.0 if spec is None else 0.8 * float(torch.rand((), generator=generator("cpu", spec.seed)))

    def observe(self, slots: range) -> Observation:
        proprio = torch.zeros(len(slots), 7)
        proprio[:, 1] = torch.tensor([self.goal(slot) for slot in slots])
        privileged = torch.zeros(len(slots), len(PRIVILEGED_NAMES))
        privileged[:, 1] = 0.15 * proprio[:, 1]
        privileged[:, -1] = 1 - torch.tensor([self.chunks[slot] for slot in slots]) / self.max_chunks
        images = torch.zeros(len(slots), 1, 8, 8, 3, dtype=torch.uint8)
        return Observation(images, ["reach"] * len(slots), proprio, privileged=privileged)

    def step(self, actions: ActionChunk) -> Transition:
        assert len(self.groups) == 1
        self.send(actions, 0)
        return self.receive(0)

    def send(self, actions: ActionChunk, group: int) -> None:
        self.sent.append((group, actions))

    def receive(self, group: int) -> Transition:
        sent, actions = self.sent.pop(0)
        assert sent == group
        slots = self.groups[group]
        goals = torch.tensor([self.goal(slot) for slot in slots])
        valid = torch.tensor([self.spec(slot) is not None and (self.steps[slot], slot) not in self.deaths for slot in slots])
        distance = (actions[:, 0, 1] - goals).abs()
        success = (distance < TOLERANCE) & valid
        reward = torch.where(success, 1.0, -distance)
        for slot in slots:
            self.chunks[slot] += 1
        truncated = (torch.tensor([self.chunks[slot] for slot in slots]) >= self.max_chunks) & ~success & valid
        final = self.observe(slots)
        episodes = []
        for row in (success | truncated | ~valid).nonzero().flatten().tolist():
            slot = slots[row]
            if valid[row]:
                spec, won = self.spec(slot), bool(success[row])
                record = EpisodeRecord(spec.scene_id, spec.seed, won, won, won, 4 * self.chunks[slot], self.chunks[slot], "reach")
                episodes.append((row, record))
            self.episode[slot] += self.spec(slot) is not None
            self.chunks[slot] = 0
        for slot in slots:
            self.steps[slot] += 1
        return Transition(self.observe(slots), reward, success, truncated, valid, final if truncated.any() else None, episodes)

    def read_timings(self) -> dict[str, float]:
        return {}

    def watch(self, slots: Sequence[int]) -> None:
        self.watched = list(slots)

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return {slot: [np.full((32, 32, 3), 60 * step, np.uint8) for step in range(4)] for slot in self.watched}

    def close(self) -> None:
        self.watched = []


class ToyData(RolloutDataModule):
    """RolloutDataModule over the toy world."""

    deaths: frozenset[tuple[int, int]] = frozenset()

    def scene_ids(self) -> list[str]:
        return SCENES

    def heldout_ids(self) -> list[str]:
        return ["toy-9"]

    def check_scenes(self) -> None:
        pass

    def make_env(self) -> ToyEnv:
        return ToyEnv(self.num_envs, deaths=self.deaths, groups=self._group_count())


def toy_data(**settings: object) -> ToyData:
    """Small enough for a second per iteration; set up."""
    data = ToyData(Path("toy"), **{"num_envs": 32, "workers": 0, "steps": 8, "minibatch_size": 128, "epochs": 2, **settings})  # type: ignore[arg-type]
    data.setup()
    return data


def toy_module(policy: FlowPolicy | None = None, **settings: object) -> PPOFlowModule:
    return PPOFlowModule(policy or still_policy(), **{"policy_lr": 1e-3, "head_lr": 3e-3, **settings})  # type: ignore[arg-type]
