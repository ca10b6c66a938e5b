"""Attention and rotary positions, shared by the vision tower and the transformer."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

AttentionKind = Literal["eager", "sdpa"]


def attend(
    query: Float[Tensor, "b n h d"],
    key: Float[Tensor, "b s g d"],
    value: Float[Tensor, "b s g d"],
    bias: Float[Tensor, "b 1 1 s"] | None = None,
    *,
    softcap: float | None = None,
    kind: AttentionKind = "eager",
) -> Float[Tensor, "b n hd"]:
    """Softmax attention of h query heads over g <= h key heads (query head i reads key head i // (h / g)).

    bias: added to the logits of each key, the same for all queries of a sample; see `mask_bias`. softcap: logits become
    c * tanh(logits / c). kind: sdpa is torch's fused kernel; it knows no softcap, and with one this computes as eager does. The
    heads stay the last but one axis, so that a single key head needs no copy of anything.
    """
    b, n, h, d = query.shape
    groups = key.shape[2]
    # All queries of a sample read the same keys, so those that share a key head are just more queries of it.
    grouped = query.reshape(b, n, groups, h // groups, d).transpose(1, 2).reshape(b, groups, n * (h // groups), d)
    if kind == "sdpa" and softcap is None:
        mask = None if bias is None else bias.to(query.dtype)
        mixed = F.scaled_dot_product_attention(grouped, key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask)
        return mixed.reshape(b, groups, n, h // groups, d).transpose(1, 2).reshape(b, n, h * d)
    logits = (grouped * d**-0.5) @ key.permute(0, 2, 3, 1)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    weights = torch.softmax(logits, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed = weights @ value.transpose(1, 2)  # [b, g, n * h/g, d]
    return mixed.reshape(b, groups, n, h // groups, d).transpose(1, 2).reshape(b, n, h * d)


def mask_bias(allowed: Bool[Tensor, "b s"], dtype: torch.dtype) -> Float[Tensor, "b 1 1 s"]:
    """What to add to attention logits: 0 for keys that may be read, at least one per sample, minus infinity for others."""
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))[:, None, None]


def rotary_angles(
    positions: Int[Tensor, "b n"], head_dim: int, theta: float
) -> tuple[Float[Tensor, "b n 1 d"], Float[Tensor, "b n 1 d"]]:
    """Cosine and sine of position * theta^(-2i / head_dim), in fp32 (RoFormer, arXiv 2104.09864), for both halves of a head; the
    sine of the first half negative, as `rotate` wants it."""
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions[:, :, None, None].float() * theta**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Float[Tensor, "b n h d"], angles: tuple[Tensor, Tensor]) -> Float[Tensor, "b n h d"]:
    """Rotary embedding in the half-split layout, in fp32: entry i is paired with entry i + d/2."""
    cos, sin = angles
    exact = x.float()
    # In place, on tensors that autograd does not keep: the angles have no gradient.
    turned = exact.roll(x.shape[-1] // 2, -1).mul_(sin)
    return (exact * cos).add_(turned).to(x.dtype)
