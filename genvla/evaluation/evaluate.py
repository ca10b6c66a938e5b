"""From a policy and environments to a result: what `genvla evaluate` and the training loop both call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.evaluation.episodes import Act, Environments, Film, episode_specs
from genvla.evaluation.ranks import run_over_ranks
from genvla.evaluation.results import EvaluationResult, Protocol
from genvla.types import ActionChunk, EpisodeRecord, EpisodeSpec, Observation

if TYPE_CHECKING:
    from genvla.policy.flow_policy import FlowPolicy


def policy_act(policy: FlowPolicy) -> Act:
    """The policy as an evaluation runs it: from the given A^0, without the noise that training explores with.

    PaliGemma's prompts are not padded, for padding costs the VLM as much as text does, unless the policy is compiled for one
    length. The words of small policies are few, and padded as in training.
    """
    pad = policy.processor.config.tokenizer == "words" or policy.pi0.compiled

    @torch.no_grad()
    def act(observation: Observation, noise: Float[Tensor, "b c 7"]) -> ActionChunk:
        device = next(policy.parameters()).device
        inputs = policy.processor(observation, pad=pad).to(device)
        return policy.act(inputs, noise=noise.to(device), deterministic=True).actions.cpu()

    return act


def evaluate_specs(
    policy: FlowPolicy,
    env: Environments,
    specs: Sequence[EpisodeSpec],
    protocol: Protocol,
    *,
    terminate_on_success: bool = False,
    progress: Callable[[EpisodeRecord], None] | None = None,
    watch: Film | None = None,
    done: Mapping[EpisodeSpec, EpisodeRecord] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> EvaluationResult:
    """Runs the policy on the given episodes, in evaluation mode, and leaves it in the mode it was in.

    See `run_episodes`, and `run_over_ranks` for rank and world_size.
    """
    training = policy.training
    policy.eval()
    try:
        records = run_over_ranks(
            policy_act(policy),
            env,
            specs,
            rank=rank,
            world_size=world_size,
            terminate_on_success=terminate_on_success,
            progress=progress,
            watch=watch,
            done=done,
        )
    finally:
        policy.train(training)
    return EvaluationResult(tuple(records), as_run(protocol, policy, env, terminate_on_success))


def as_run(protocol: Protocol, policy: FlowPolicy, env: Environments, terminate_on_success: bool) -> Protocol:
    """The protocol with what policy and environments decide of it."""
    return replace(
        protocol,
        integration_steps=policy.integration_steps,
        max_chunks=env.max_chunks,
        num_envs=env.num_envs,
        terminate_on_success=terminate_on_success,
    )


def evaluate(
    policy: FlowPolicy,
    env: Environments,
    scene_ids: Sequence[str],
    episodes_per_scene: int,
    seed: int,
    *,
    split: str = "",
    terminate_on_success: bool = False,
    progress: Callable[[EpisodeRecord], None] | None = None,
) -> EvaluationResult:
    """Runs the policy on every scene, the same number of episodes each.

    Args:
        policy: its `integration_steps` says in how many steps the flow is integrated.
        env: environments over a scene set that has the scenes.
        scene_ids: scenes to visit.
        episodes_per_scene: episodes in each.
        seed: of the evaluation; the same seed gives the same episodes, whatever else was run before.
        split: what the scenes are called in the result.
        terminate_on_success: see `run_episodes`.
        progress: called with each record when its episode ends.
    """
    specs = episode_specs(scene_ids, seed, per_scene=episodes_per_scene)
    protocol = Protocol(split=split, seed=seed)
    return evaluate_specs(policy, env, specs, protocol, terminate_on_success=terminate_on_success, progress=progress)
