"""Generalised advantage estimation over decisions (one decision is one chunk of actions), and its normalisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gae(
    rewards: Float[Tensor, "t n"],
    values: Float[Tensor, "t n"],
    next_values: Float[Tensor, " n"],
    terminated: Bool[Tensor, "t n"],
    truncated: Bool[Tensor, "t n"],
    final_values: Float[Tensor, "t n"],
    valid: Bool[Tensor, "t n"],
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "t n"], Float[Tensor, "t n"]]:
    """Advantages and returns (advantage + value) of t decisions in n environments (Schulman et al., arXiv 1506.02438).

    next_values: V of the observation after the last decision. final_values: V of the last observation of an episode, read only
    where truncated. Success ends the future: no bootstrap. Running out of time does not: V(final observation) stands for what
    would have followed. Both cut the trace, because the next row belongs to another episode. Rows that are not valid come out as
    0 and pass nothing on.
    """
    following = torch.cat([values[1:], next_values[None]])
    bootstrap = torch.where(truncated, final_values, following)
    bootstrap = torch.where(terminated | ~valid, 0.0, bootstrap)
    delta = rewards + gamma * bootstrap - values
    delta = torch.where(valid, delta, 0.0)
    keep = (valid & ~terminated & ~truncated).to(values.dtype)

    advantages = torch.zeros_like(values)
    trace = torch.zeros_like(next_values)
    for t in reversed(range(len(rewards))):
        trace = delta[t] + gamma * lam * keep[t] * trace
        advantages[t] = trace
    return advantages, torch.where(valid, advantages + values, 0.0)


def normalise(
    advantages: Float[Tensor, "*rows"],
    valid: Bool[Tensor, "*rows"],
    all_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    eps: float = 1e-8,
) -> Float[Tensor, "*rows"]:
    """Mean 0 and standard deviation 1 over the valid rows of every process; other rows become 0.

    all_sum adds a tensor up over processes. Over the whole batch and not per minibatch: with sparse reward a minibatch can hold
    nothing but failures, and dividing by its spread would blow noise up to the size of a signal.
    """
    kept = torch.where(valid, advantages, 0.0).double()
    count, total = all_sum(torch.stack([valid.sum().double(), kept.sum()]))
    mean = total / count.clamp_min(1)
    centred = torch.where(valid, advantages.double() - mean, 0.0)
    spread = (all_sum(centred.square().sum()) / count.clamp_min(1)).sqrt()
    return (centred / (spread + eps)).to(advantages.dtype)
