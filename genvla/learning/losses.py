"""What PPOFlow minimises (arXiv 2603.18532) and what it watches while doing so; pure functions of one minibatch of b decisions.

A decision is a whole chain of integration steps A^0 .. A^1, so log-probabilities here are sums over its K steps and 28
dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_EXPONENT = 20.0
"""exp() is fed no more than this, so that one absurd sample cannot make a whole update infinite."""


def powered_ratio(log_prob: Float[Tensor, " b"], old_log_prob: Float[Tensor, " b"], power: float) -> Float[Tensor, " b"]:
    """(pi / pi_old)^power. The ratio of a chain is a product over K x 28 densities and spreads over orders of magnitude; the
    power draws it back to where clipping at 1 +- 0.2 leaves a gradient (paper: power 0.2)."""
    return (power * (log_prob - old_log_prob)).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).exp()


def clipped_policy_loss(ratio: Float[Tensor, " b"], advantage: Float[Tensor, " b"], clip: float) -> Float[Tensor, ""]:
    """-E[min(r A, clip(r, 1 - clip, 1 + clip) A)] with the already powered ratio r."""
    return -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def value_loss(value: Float[Tensor, " b"], returns: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """0.5 E[(V - R)^2], not clipped."""
    return 0.5 * (value - returns).square().mean()


def approximate_kl(log_prob: Float[Tensor, " b"], old_log_prob: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """KL(pi_old || pi) in nats per decision, of the unpowered chain: E[(x - 1) - log x], x = pi / pi_old (Schulman's k3)."""
    log_ratio = (log_prob - old_log_prob).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return (log_ratio.expm1() - log_ratio).mean()


def clip_fraction(ratio: Float[Tensor, " b"], clip: float) -> Float[Tensor, ""]:
    """Share of decisions whose ratio left [1 - clip, 1 + clip]."""
    return ((ratio - 1).abs() > clip).float().mean()


def explained_variance(value: Float[Tensor, " b"], returns: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """1 - Var(R - V) / Var(R): 1 a perfect critic, 0 one no better than a constant; 0 when the returns do not vary."""
    variance = returns.var(correction=0)
    explained = 1 - (returns - value).var(correction=0) / variance.clamp_min(1e-12)
    return torch.where(variance > 1e-12, explained, torch.zeros_like(explained))


def gaussian_entropy(log_sigma: Float[Tensor, b * dims]) -> Float[Tensor, ""]:
    """Entropy of the chain's noise in nats per dimension: E[log sigma] + 0.5 log(2 pi e). Per dimension, so that its coefficient
    means the same for every K and chunk size."""
    return log_sigma.mean() + 1.4189385332046727
