"""What is added to pi0: the noise of the stochastic integrator, the value of an observation, and where the named objects are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genvla.errors import UserError
from genvla.policy.attention import attend
from genvla.policy.gemma import Prefix
from genvla.policy.pi0 import sinusoid
from genvla.types import GROUNDING_NAMES, PRIVILEGED_NAMES

WORKSPACE_CENTRE = (0.28, 0.0, 0.05)
WORKSPACE_SCALE = 0.15
"""Metres; positions enter and leave networks as (position - centre) / scale."""


@dataclass(frozen=True)
class HeadsConfig:
    """Heads on top of pi0."""

    log_sigma_min: float = -2.5
    """Lower bound of the log standard deviation of a chain's step (paper, section on the noise head)."""
    log_sigma_max: float = -2.0
    """Upper bound of the same."""
    noise_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the noise head."""
    value_input: Literal["features", "privileged"] = "features"
    """features: the policy's own detached hidden states, as on the robot; privileged: simulator state, for training only."""
    value_hidden: tuple[int, ...] = (256, 128)
    """Hidden widths of the value head."""
    grounding: bool = True
    """Whether there is an auxiliary head that predicts where the named objects are, for imitation."""
    grounding_queries: int = 8
    """Learned queries of the grounding head's attention over image and text tokens."""

    def __post_init__(self) -> None:
        if not self.log_sigma_min < self.log_sigma_max:
            raise UserError(f"heads.log_sigma_min: found {self.log_sigma_min}, want less than log_sigma_max {self.log_sigma_max}")


def mlp(widths: tuple[int, ...], *, last_std: float) -> nn.Sequential:
    """Linear layers with tanh between them; the last one's weights have standard deviation last_std and no offset."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.Tanh()]
    last = layers[-2]
    assert isinstance(last, nn.Linear)
    nn.init.normal_(last.weight, std=last_std)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers[:-1])


class NoiseHead(nn.Module):
    """log sigma(A^tau, z, tau), one number per action and dimension, within the bounds; in their middle at first."""

    TIME_FEATURES = 16

    def __init__(self, config: HeadsConfig, feature_dim: int, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.middle = (config.log_sigma_max + config.log_sigma_min) / 2
        self.half_range = (config.log_sigma_max - config.log_sigma_min) / 2
        self.norm = nn.LayerNorm(feature_dim)
        flat = horizon * action_dim
        self.layers = mlp((feature_dim + flat + self.TIME_FEATURES, *config.noise_hidden, flat), last_std=0.0)

    def forward(
        self, actions: Float[Tensor, "b c a"], features: Float[Tensor, "b z"], tau: Float[Tensor, " b"]
    ) -> Float[Tensor, "b c a"]:
        """features are detached here: noise never trains the trunk."""
        dtype = self.norm.weight.dtype
        time = sinusoid(tau, self.TIME_FEATURES, max_period=100.0)
        inputs = (self.norm(features.detach().to(dtype)), actions.flatten(1).to(dtype), time.to(dtype))
        raw = self.layers(torch.cat(inputs, dim=-1)).float()
        return self.middle + self.half_range * torch.tanh(raw).view(actions.shape)


class ValueHead(nn.Module):
    """Expected discounted return of an observation, from detached features or from simulator state."""

    def __init__(self, config: HeadsConfig, feature_dim: int) -> None:
        super().__init__()
        self.privileged = config.value_input == "privileged"
        dim = len(PRIVILEGED_NAMES) if self.privileged else feature_dim
        self.norm = nn.Identity() if self.privileged else nn.LayerNorm(dim)
        self.layers = mlp((dim, *config.value_hidden, 1), last_std=0.01)

    def forward(self, features: Float[Tensor, "b z"], privileged: Float[Tensor, "b p"] | None) -> Float[Tensor, " b"]:
        """fp32. NaN where this head reads simulator state and there is none, as on the robot."""
        dtype = next(self.layers.parameters()).dtype
        if not self.privileged:
            inputs = self.norm(features.detach().to(dtype))
        elif privileged is None:
            return features.new_full((len(features),), math.nan, dtype=torch.float32)
        else:
            inputs = scale_privileged(privileged).to(dtype)
        return self.layers(inputs).float().squeeze(-1)


def scale_privileged(privileged: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """Metres to numbers of order one; sines, cosines, touches and fractions stay."""
    if privileged.shape[-1] != len(PRIVILEGED_NAMES):
        raise UserError(f"privileged: found {privileged.shape[-1]} values, want the {len(PRIVILEGED_NAMES)} of PRIVILEGED_NAMES")
    centre, scale = [], []
    for name in PRIVILEGED_NAMES:
        axis = "xyz".find(name[-1]) if name[-2] == "_" else -1
        absolute = axis >= 0 and "_to_" not in name
        centre.append(WORKSPACE_CENTRE[axis] if absolute else 0.0)
        scale.append(WORKSPACE_SCALE if axis >= 0 else 1.0)
    return (privileged - privileged.new_tensor(centre)) / privileged.new_tensor(scale)


class GroundingHead(nn.Module):
    """Where the target and the destination of the instruction are, and how the target lies: the entries of GROUNDING_NAMES.

    Its loss teaches a small trunk to look. Learned queries attend to the hidden states of image and text; beside them, the
    first camera's tokens are read place by place, by weights of their own. The queries could do alone, but for hundreds of steps
    they attend evenly and learn nothing, whereas reading by place tells each token at once what it should have seen.
    """

    PLACE_CHANNELS = 16

    def __init__(self, width: int, queries: int, image_tokens: int, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.image_tokens = heads, image_tokens
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.place = nn.Linear(width, self.PLACE_CHANNELS)
        read = queries * width + image_tokens * self.PLACE_CHANNELS
        self.layers = nn.Sequential(nn.Linear(read, 128), nn.GELU(), nn.Linear(128, len(GROUNDING_NAMES)))

    def forward(self, prefix: Prefix) -> Float[Tensor, "b 8"]:
        """Scaled predictions: positions in workspace units (see WORKSPACE_SCALE), then sine and cosine as they are."""
        hidden, mask = prefix.hidden, prefix.mask[:, :-1]
        assert hidden is not None, "grounding reads features"
        hidden = hidden.to(self.queries.dtype)
        query = self.queries.expand(len(hidden), -1, -1).unflatten(-1, (self.heads, -1))
        key, value = (f(hidden).unflatten(-1, (self.heads, -1)) for f in (self.key, self.value))
        places = self.place(hidden[:, : self.image_tokens]) * mask[:, : self.image_tokens, None]
        read = torch.cat((attend(query, key, value, mask).flatten(1), places.flatten(1)), dim=1)
        return self.layers(read).float()

    def loss(self, prefix: Prefix, privileged: Float[Tensor, "b p"] | None) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean squared error of the scaled predictions; mean distance of the two positions from the true ones, metres."""
        if privileged is None:
            raise UserError("grounding: found no privileged state in the data, want the positions of target and destination")
        target = scale_privileged(privileged)[:, : len(GROUNDING_NAMES)]
        error = self(prefix) - target
        distances = torch.stack((error[:, 0:3].norm(dim=-1), error[:, 5:8].norm(dim=-1)))
        return error.square().mean(), distances.mean().detach() * WORKSPACE_SCALE
