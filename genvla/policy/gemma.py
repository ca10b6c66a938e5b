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

from genvla.policy.activation_checkpointing import CheckpointedLayer
from genvla.policy.attention import AttentionKind, attend, mask_bias, rotary_angles, rotate
from genvla.policy.gelu import gelu
from genvla.policy.linear import Linear


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
    """eager: plain softmax; sdpa: torch's fused kernel, but plain softmax where there is a softcap, which that kernel lacks."""


@dataclass(frozen=True)
class Context:
    """What image and text come to on their own: they see neither proprioception nor actions."""

    keys: tuple[Float[Tensor, "b v g d"], ...]
    """Rotated keys of each layer."""
    values: tuple[Float[Tensor, "b v g d"], ...]
    mask: Bool[Tensor, "b v"]
    """Which of the v positions are not padding."""
    hidden: Float[Tensor, "b v e"] | None
    """Normalised hidden states that enter the feature layer; None if they were not asked for."""
    mean: Float[Tensor, "b e"] | None
    """Their mean over what is not padding."""


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
    mean: Float[Tensor, "b e"] | None
    """Their mean over what is not padding."""
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
            mean=None if self.mean is None else grow(self.mean),
            proprio_hidden=None if self.proprio_hidden is None else grow(self.proprio_hidden),
        )

    @property
    def features(self) -> Float[Tensor, "b ef"]:
        """Mean hidden state of the image and text tokens that are not padding, and that of proprioception."""
        if self.mean is None or self.proprio_hidden is None:
            raise RuntimeError("this prefix was encoded without features")
        return torch.cat((self.mean, self.proprio_hidden), dim=-1)


def masked_mean(x: Float[Tensor, "b v e"], mask: Bool[Tensor, "b v"]) -> Float[Tensor, "b e"]:
    """Mean over the positions where the mask is True."""
    weights = mask.to(x.dtype)
    return torch.einsum("bve,bv->be", x, weights) / weights.sum(1, keepdim=True)


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
        self.k_proj = Linear(width, joint.kv_heads * joint.head_dim, bias=False)
        self.v_proj = Linear(width, joint.kv_heads * joint.head_dim, bias=False)
        if queries:
            self.q_proj = Linear(width, joint.heads * joint.head_dim, bias=False)
            self.o_proj = Linear(joint.heads * joint.head_dim, width, bias=False)

    def heads(self, projection: nn.Linear, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n h d"]:
        return projection(x).unflatten(-1, (-1, self.head_dim))


class GatedMlp(nn.Module):
    """down(gelu(gate(x)) * up(x)), with the tanh approximation of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, hidden, bias=False)
        self.up_proj = Linear(width, hidden, bias=False)
        self.down_proj = Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "b n w"]) -> Float[Tensor, "b n w"]:
        gate = gelu(self.gate_proj(x))
        up = self.up_proj(x)
        # Without a gradient nothing needs the gate any more: less memory to fetch for the largest product of all.
        return self.down_proj(gate * up if torch.is_grad_enabled() else gate.mul_(up))


class MixtureLayer(CheckpointedLayer):
    """One layer of one mixture. Its streams meet in attention: a later one reads the keys and values of those before it."""

    def __init__(self, config: MixtureConfig, joint: JointConfig, *, queries: bool) -> None:
        super().__init__()
        self.softcap, self.kind = joint.softcap, joint.attention
        self.self_attn = Attention(config.width, joint, queries=queries)
        self.input_layernorm = RmsNorm(config.width)
        if queries:
            self.mlp = GatedMlp(config.width, config.mlp)
            self.post_attention_layernorm = RmsNorm(config.width)

    def forward(
        self,
        x: Float[Tensor, "b n w"],
        angles: tuple[Tensor, Tensor],
        bias: Float[Tensor, "b 1 1 s"],
        past: tuple[Tensor, Tensor] | None = None,
        *,
        finish: bool = True,
    ) -> tuple[Float[Tensor, "b n w"], Float[Tensor, "b s g d"], Float[Tensor, "b s g d"]]:
        """One stream through this layer: its new state, and the keys and values that it read.

        past: keys and values [b, s - n, g, d] of the streams before it; its own are appended. bias: which of the s it may
        read, as `mask_bias` says it. finish: False leaves x as it is, where only keys and values are wanted.
        """
        normed = self.input_layernorm(x)
        key, value = self.keys_values(normed, angles)
        if past is not None:
            key, value = torch.cat((past[0], key), dim=1), torch.cat((past[1], value), dim=1)
        if finish:
            query = self.queries(normed, angles)
            x = self.finish(x, attend(query, key, value, bias, softcap=self.softcap, kind=self.kind))
        return x, key, value

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

    def context(self, tokens: Float[Tensor, "b v e"], mask: Bool[Tensor, "b v"], *, features: bool) -> Context:
        """Run image and text, which see each other and nothing else. Padding takes no position."""
        vlm = self._mixture("vlm")
        positions = mask.long().cumsum(1).clamp_min(1)
        angles = rotary_angles(positions, self.config.head_dim, vlm.rope_theta)
        keys, values, hidden = self._fill(vlm, tokens, angles, mask, None, features=features)
        return Context(keys, values, mask, hidden, None if hidden is None else masked_mean(hidden, mask))

    def prefix(self, context: Context, proprio: Float[Tensor, "b 1 f"], *, continue_positions: bool, features: bool) -> Prefix:
        """Run proprioception, which sees image, text and itself.

        continue_positions: it follows the last token that is not padding instead of starting anew at the first position.
        """
        action, mask = self._mixture("action"), context.mask
        position = mask.sum(1) + 1 if continue_positions else mask.new_ones(len(mask), dtype=torch.long)
        angles = rotary_angles(position[:, None], self.config.head_dim, action.rope_theta)
        mask = F.pad(mask, (0, 1), value=True)
        keys, values, hidden = self._fill(action, proprio, angles, mask, context, features=features)
        proprio_hidden = None if hidden is None else hidden[:, 0]
        return Prefix(keys, values, mask, position + 1, context.hidden, context.mean, proprio_hidden)

    def actions(self, x: Float[Tensor, "b c f"], prefix: Prefix) -> Float[Tensor, "b c f"]:
        """Run action tokens, which see the prefix and each other; normalised hidden states of the last layer."""
        action, count = self._mixture("action"), x.shape[1]
        positions = prefix.next_position[:, None] + torch.arange(count, device=x.device)
        angles = rotary_angles(positions, self.config.head_dim, action.rope_theta)
        bias = mask_bias(F.pad(prefix.mask, (0, count), value=True), x.dtype)
        for layer, key, value in zip(action.layers, prefix.keys, prefix.values, strict=True):
            x, _, _ = layer(x, angles, bias, (key, value))
        return action.normalise(x)

    def _fill(
        self,
        mixture: Mixture,
        x: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor,
        past: Context | None,
        *,
        features: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor | None]:
        """Keys and values of each layer, those of `past` included, and the normalised states that enter the feature layer.

        Nothing reads the stream after the last keys and values unless features are taken there: that part is left out.
        """
        end, at = self.config.layers, self.config.feature_layer
        bias = mask_bias(mask, x.dtype)
        keys, values, hidden = [], [], None
        for i, layer in enumerate(mixture.layers):
            if features and i == at:
                hidden = rms_normalise(x).to(x.dtype)
            before = None if past is None else (past.keys[i], past.values[i])
            x, key, value = layer(x, angles, bias, before, finish=i < end - 1 or (features and at == end))
            keys.append(key)
            values.append(value)
        if features and at == end:
            hidden = mixture.normalise(x)
        return tuple(keys), tuple(values), hidden

    def _mixture(self, name: str) -> Mixture:
        return cast(Mixture, self.mixtures[name])
