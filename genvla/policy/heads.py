"""What is added to pi0: the noise of the stochastic integrator, the value of an observation, and where the named objects are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genvla.errors import UserError
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
        """fp32. NaN where this head reads simulator state and there is none, as on the robot.

        A head that reads simulator state knows how much time is left, and with none left there is nothing to expect. The
        network never meets such a state in training, only in the bootstrap at truncation: what it made up there fed on itself,
        and values left [0, 1] within twenty iterations. A head that sees features does not know the time, and bootstraps.
        """
        dtype = next(self.layers.parameters()).dtype
        if not self.privileged:
            return self.layers(self.norm(features.detach().to(dtype))).float().squeeze(-1)
        if privileged is None:
            return features.new_full((len(features),), math.nan, dtype=torch.float32)
        value = self.layers(scale_privileged(privileged).to(dtype)).float().squeeze(-1)
        return value * (privileged[:, PRIVILEGED_NAMES.index("time_left")] > 0)


def scale_privileged(privileged: Float[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """Metres to numbers of order one; sines, cosines, touches and fractions stay."""
    if privileged.shape[-1] != len(PRIVILEGED_NAMES):
        raise UserError(f"privileged: found {privileged.shape[-1]} values, want the {len(PRIVILEGED_NAMES)} of PRIVILEGED_NAMES")
    centre, scale = [], []
    for name in PRIVILEGED_NAMES:
        axis = "xyz".find(name[-1]) if name[-2] == "_" else -1  # u and v are of order one as they are
        absolute = axis >= 0 and "_to_" not in name
        centre.append(WORKSPACE_CENTRE[axis] if absolute else 0.0)
        scale.append(WORKSPACE_SCALE if axis >= 0 else 1.0)
    return (privileged - privileged.new_tensor(centre)) / privileged.new_tensor(scale)


class GroundingHead(nn.Module):
    """Where the target and the destination of the instruction are, and how the target lies: the entries of GROUNDING_NAMES.

    Its loss teaches a small trunk to look. For each of the two objects every token of the first camera gets a score, and the
    tokens, weighted by the scores' softmax, are read out. The scores have a loss of their own, towards the tokens that show the
    object: a regression alone is content with a place between two objects for thousands of steps before it tells them apart.
    """

    CHANNELS = 64
    POINTING_WEIGHT = 0.5
    """Of the scores' cross-entropy beside the squared error of the read-out."""

    def __init__(self, width: int, image_tokens: int) -> None:
        super().__init__()
        self.side = math.isqrt(image_tokens)
        self.score = nn.Linear(width, 2)
        self.value = nn.Linear(width, self.CHANNELS)
        self.target = nn.Sequential(nn.Linear(self.CHANNELS + 2, 128), nn.GELU(), nn.Linear(128, 5))
        self.destination = nn.Sequential(nn.Linear(self.CHANNELS + 2, 128), nn.GELU(), nn.Linear(128, 3))

    def forward(self, prefix: Prefix) -> tuple[Float[Tensor, "b 8"], Float[Tensor, "b 2 t"]]:
        """Scaled positions and yaw (in workspace units, see WORKSPACE_SCALE; sine and cosine as they are), and the scores of the
        first camera's t tokens for target and destination."""
        assert prefix.hidden is not None, "grounding reads features"
        hidden = prefix.hidden[:, : self.side**2].to(self.score.weight.dtype)
        scores = self.score(hidden).transpose(1, 2)
        places = token_centres(self.side).to(hidden).expand(len(hidden), -1, -1)
        values = torch.cat((self.value(hidden), places), dim=-1)
        target, destination = (scores.float().softmax(dim=-1).to(values.dtype) @ values).unbind(1)
        return torch.cat((self.target(target), self.destination(destination)), dim=1).float(), scores.float()

    def loss(self, prefix: Prefix, privileged: Float[Tensor, "b p"] | None) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Squared error of the scaled positions and yaw, plus the scores' cross-entropy; mean distance of the two positions from
        the true ones, metres."""
        if privileged is None:
            raise UserError("grounding: found no privileged state in the data, want the positions of target and destination")
        predicted, scores = self(prefix)
        labels = scale_privileged(privileged)[:, : len(GROUNDING_NAMES)]
        error = predicted - labels[:, :8]
        shown = token_weights(labels[:, 8:].unflatten(1, (2, 2)), self.side)
        pointing = -(shown * scores.log_softmax(dim=-1)).sum(dim=-1).mean()
        distances = torch.stack((error[:, 0:3].norm(dim=-1), error[:, 5:8].norm(dim=-1)))
        return error.square().mean() + self.POINTING_WEIGHT * pointing, distances.mean().detach() * WORKSPACE_SCALE


def token_centres(side: int) -> Float[Tensor, "t 2"]:
    """u, v in [-1, 1] of the tokens of a square grid, row by row."""
    axis = (torch.arange(side) + 0.5) * 2 / side - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((u.flatten(), v.flatten()), dim=1)


def token_weights(places: Float[Tensor, "*b 2"], side: int) -> Float[Tensor, "*b t"]:
    """Shares of the tokens of a square grid in a place (u, v in [-1, 1]) of the picture: bilinear between the four nearest token
    centres. They add up to 1; a place beyond the outermost centres is moved onto them."""
    cells = ((places + 1) * side / 2 - 0.5).clamp(0, side - 1)
    u, v = ((1 - (cells[..., i, None] - torch.arange(side, device=places.device)).abs()).clamp_min(0) for i in (0, 1))
    return (v[..., :, None] * u[..., None, :]).flatten(-2)
