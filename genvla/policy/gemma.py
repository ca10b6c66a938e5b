"""The transformer of pi0: two sets of Gemma weights, of two widths, that meet in one attention.

The VLM's tokens run through the mixture `vlm`; proprioception and actions run through the mixture `action`. A prefix (image,
text, proprioception) never sees the actions, so its keys and values are computed once and kept. Parameters are named as in
open-pi-zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from genvla.policy.attention import AttentionKind, attend, rotary_angles, rotate


@dataclass(frozen=True)
class MixtureConfig:
    """One set of Gemma weights."""

    width: int
    """Features per token."""
    mlp: int
    """Hidden width of the gated MLP."""
    rope_theta: float = 10_000.0
    """Base of the rotary positions of this mixture's streams."""
    final_norm: bool = True
    """Whether the last layer's output goes through a norm with weights of its own (without: a norm without weights)."""


@dataclass(frozen=True)
class JointConfig:
    """What the two mixtures share: depth and the geometry of attention."""

    vlm: MixtureConfig
    """Image and text."""
    action: MixtureConfig
    """Proprioception and actions: the action expert."""
    layers: int
    """Layers of both mixtures."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Key and value heads; they divide the query heads."""
    head_dim: int
    """Features per head; even."""
    feature_layer: int
    """Heads and grounding read the hidden states that enter this layer; `layers` means the final ones. Below `layers`, the last
    layer of the VLM is nothing but keys and values: the action expert, which reads those, is all that sees it."""
    softcap: float | None = None
    """Attention logits are capped to +-softcap by a tanh; None: not."""
    attention: AttentionKind = "eager"
    """eager: plain softmax; sdpa: torch's fused kernel (only without softcap)."""


@dataclass(frozen=True)
class Prefix:
    """What actions need of an observation: keys and values of each layer, and hidden states for the heads."""

    keys: tuple[Float[Tensor, "b s g d"], ...]
    values: tuple[Float[Tensor, "b s g d"], ...]
    mask: Bool[Tensor, "b s"]
    """Which of the s positions (image, text, proprioception) are not padding."""
    next_position: Int[Tensor, " b"]
    """Rotary position of the first action."""
    hidden: Float[Tensor, "b v e"] | None
    """Normalised hidden states of the v = s - 1 image and text tokens; None if they were not asked for."""
    proprio_hidden: Float[Tensor, "b f"] | None
    """The same of the proprioception token."""

    def repeat(self, times: int) -> Prefix:
        """Each sample `times` times in a row, for several draws of noise per observation."""
        if times == 1:
            return self

        def grow(x: Tensor) -> Tensor:
            return x.repeat_interleave(times, dim=0)

        return replace(
            self,
            keys=tuple(grow(k) for k in self.keys),
            values=tuple(grow(v) for v in self.values),
            mask=grow(self.mask),
            next_position=grow(self.next_position),
            hidden=None if self.hidden is None else grow(self.hidden),
            proprio_hidden=None if self.proprio_hidden is None else grow(self.proprio_hidden),
        )

    @property
    def features(self) -> Float[Tensor, "b ef"]:
        """Mean hidden state of the image and text tokens that are not padding, and that of proprioception."""
        if self.hidden is None or self.proprio_hidden is None:
            raise RuntimeError("this prefix was encoded without features")
        weights = self.mask[:, :-1].to(self.hidden.dtype)
        mean = torch.einsum("bve,bv->be", self.hidden, weights) / weights.sum(1, keepdim=True)
        return torch.cat((mean, self.proprio_hidden), dim=-1)


class RmsNorm(nn.Module):
    """x / rms(x) * (1 + weight), computed in fp32, as Gemma."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return F.rms_norm(x.float(), self.weight.shape, 1.0 + self.weight.float(), 1e-6).to(x.dtype)


def rms_normalise(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """x / rms(x) in fp32."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    """The projections of one layer of one mixture."""

    def __init__(self, width: int, joint: JointConfig, *, queries: bool) -> None:
        super().__init__()
        self.head_dim = joint.head_dim
        self.k_proj = nn.Linear(width, joint.kv_heads * joint.head_dim, bias=False)
        self.v_proj = nn.Linear(width, joint.kv_heads * joint.head_dim, bias=False)
        if queries:
            self.q_proj = nn.Linear(width, joint.heads * joint.head_dim, bias=False)
            self.o_proj = nn.Linear(joint.heads * joint.head_dim, width, bias=False)

    def heads(self, projection: nn.Linear, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n h d"]:
        return projection(x).unflatten(-1, (-1, self.head_dim))


class GatedMlp(nn.Module):
    """down(gelu(gate(x)) * up(x)), with the tanh approximation of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class MixtureLayer(nn.Module):
    """One layer's weights. Attention itself lies between `project` and `finish`, where the streams meet."""

    def __init__(self, config: MixtureConfig, joint: JointConfig, *, queries: bool) -> None:
        super().__init__()
        self.self_attn = Attention(config.width, joint, queries=queries)
        self.input_layernorm = RmsNorm(config.width)
        if queries:
            self.mlp = GatedMlp(config.width, config.mlp)
            self.post_attention_layernorm = RmsNorm(config.width)

    def keys_values(self, normed: Float[Tensor, "b n w"], angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Rotated keys and values [b, n, g, d] of normalised inputs."""
        key = self.self_attn.heads(self.self_attn.k_proj, normed)
        return rotate(key, angles), self.self_attn.heads(self.self_attn.v_proj, normed)

    def queries(self, normed: Float[Tensor, "b n w"], angles: tuple[Tensor, Tensor]) -> Float[Tensor, "b n h d"]:
        """Rotated queries of normalised inputs."""
        return rotate(self.self_attn.heads(self.self_attn.q_proj, normed), angles)

    def finish(self, x: Float[Tensor, "b n w"], mixed: Float[Tensor, "b n hd"]) -> Float[Tensor, "b n w"]:
        """Residual stream after attention's output and the MLP."""
        x = x + self.self_attn.o_proj(mixed)
        return x + self.mlp(self.post_attention_layernorm(x))


class Mixture(nn.Module):
    """All layers of one set of weights."""

    def __init__(self, config: MixtureConfig, joint: JointConfig, *, last_queries: bool) -> None:
        super().__init__()
        self.rope_theta = config.rope_theta
        last = joint.layers - 1
        self.layers = nn.ModuleList(MixtureLayer(config, joint, queries=i < last or last_queries) for i in range(joint.layers))
        self.norm = RmsNorm(config.width) if config.final_norm else None

    @property
    def stack(self) -> list[MixtureLayer]:
        """The layers, first to last."""
        return cast(list[MixtureLayer], list(self.layers))

    def normalise(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        """The final norm; without weights where the checkpoint has none."""
        return rms_normalise(x).to(x.dtype) if self.norm is None else self.norm(x)


class JointTransformer(nn.Module):
    """Prefix once, actions as often as wanted."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.config = config
        reads_end = config.feature_layer == config.layers
        vlm = replace(config.vlm, final_norm=config.vlm.final_norm and reads_end)
        self.mixtures = nn.ModuleDict(
            {
                "vlm": Mixture(vlm, config, last_queries=reads_end),
                "action": Mixture(config.action, config, last_queries=True),
            }
        )

    def prefix(
        self,
        tokens: Float[Tensor, "b v e"],
        proprio: Float[Tensor, "b 1 f"],
        mask: Bool[Tensor, "b v"],
        *,
        continue_positions: bool,
        features: bool,
    ) -> Prefix:
        """Run image, text and proprioception; keep each layer's keys and values.

        Image and text see each other, proprioception sees them and itself. Padding takes no position. continue_positions: the
        proprioception follows the last token instead of starting anew at the first position.
        """
        vlm, action, end = self._mixture("vlm"), self._mixture("action"), self.config.layers
        positions = mask.long().cumsum(1).clamp_min(1)
        proprio_position = positions.new_ones(len(mask)) if not continue_positions else mask.sum(1) + 1
        angles = rotary_angles(positions, self.config.head_dim, vlm.rope_theta)
        proprio_angles = rotary_angles(proprio_position[:, None], self.config.head_dim, action.rope_theta)
        full_mask = F.pad(mask, (0, 1), value=True)
        keys, values, hidden, proprio_hidden = [], [], None, None
        for i in range(end + 1):
            if features and i == self.config.feature_layer:
                hidden = vlm.normalise(tokens)
                proprio_hidden = action.normalise(proprio)[:, 0] if i == end else rms_normalise(proprio).to(proprio.dtype)[:, 0]
            if i == end:
                break
            layer, proprio_layer = vlm.stack[i], action.stack[i]
            normed, proprio_normed = layer.input_layernorm(tokens), proprio_layer.input_layernorm(proprio)
            key, value = layer.keys_values(normed, angles)
            proprio_key, proprio_value = proprio_layer.keys_values(proprio_normed, proprio_angles)
            keys.append(torch.cat((key, proprio_key), dim=1))
            values.append(torch.cat((value, proprio_value), dim=1))
            if i == end - 1 and not (features and self.config.feature_layer == end):
                break  # nothing reads the streams after the last keys and values
            tokens = layer.finish(tokens, self._attend(layer.queries(normed, angles), key, value, mask))
            query = proprio_layer.queries(proprio_normed, proprio_angles)
            proprio = proprio_layer.finish(proprio, self._attend(query, keys[-1], values[-1], full_mask))
        return Prefix(tuple(keys), tuple(values), full_mask, proprio_position + 1, hidden, proprio_hidden)

    def actions(self, x: Float[Tensor, "b c f"], prefix: Prefix) -> Float[Tensor, "b c f"]:
        """Run action tokens, which see the prefix and each other; normalised hidden states of the last layer."""
        action, count = self._mixture("action"), x.shape[1]
        positions = prefix.next_position[:, None] + torch.arange(count, device=x.device)
        angles = rotary_angles(positions, self.config.head_dim, action.rope_theta)
        mask = F.pad(prefix.mask, (0, count), value=True)
        for layer, prefix_key, prefix_value in zip(action.stack, prefix.keys, prefix.values, strict=True):
            normed = layer.input_layernorm(x)
            key, value = layer.keys_values(normed, angles)
            key, value = torch.cat((prefix_key, key), dim=1), torch.cat((prefix_value, value), dim=1)
            x = layer.finish(x, self._attend(layer.queries(normed, angles), key, value, mask))
        return action.normalise(x)

    def _mixture(self, name: str) -> Mixture:
        return cast(Mixture, self.mixtures[name])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return attend(query, key, value, mask, softcap=self.config.softcap, kind=self.config.attention)
