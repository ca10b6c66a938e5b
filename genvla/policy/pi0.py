"""pi0 (arXiv 2410.24164) in open-pi-zero's form: encode an observation once, then ask for velocities of the action flow.

Flow time tau runs from 0 (noise) to 1 (actions). The tiny preset and the 3 B parameter model are this one class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from genvla.errors import UserError
from genvla.policy.gemma import JointConfig, JointTransformer, MixtureConfig, Prefix, RmsNorm
from genvla.policy.processor import PolicyInputs
from genvla.policy.siglip import Siglip, SiglipConfig
from genvla.types import ACTION_DIM, CHUNK_SIZE, PROPRIO_DIM


@dataclass(frozen=True)
class Pi0Config:
    """Shape of the model; the defaults are the tiny preset."""

    vision: SiglipConfig = SiglipConfig()
    """The vision tower."""
    joint: JointConfig = JointConfig(
        vlm=MixtureConfig(width=96, mlp=192),
        action=MixtureConfig(width=128, mlp=512),
        layers=3,
        heads=4,
        kv_heads=1,
        head_dim=32,
        feature_layer=2,
    )
    """The transformer."""
    vocab_size: int = 512
    """Rows of the text embedding."""
    action_dim: int = ACTION_DIM
    """Entries of an action."""
    proprio_dim: int = PROPRIO_DIM
    """Entries of proprioception."""
    horizon: int = CHUNK_SIZE
    """Actions in a chunk."""
    suffix_scale: float = 1.0
    """Factor on proprioception and action embeddings: sqrt(width) in open-pi-zero, 1 in openpi."""
    time_embedding: Literal["open_pi_zero", "openpi"] = "open_pi_zero"
    """open_pi_zero: angles tau * P^(-i/(h-1)); openpi: 2 pi (1 - tau) / period, periods 0.004 to 4 (its time runs backwards)."""
    time_max_period: float = 100.0
    """P of open_pi_zero's time embedding; its released checkpoints have 10,000."""
    time_first: bool = True
    """Order in which time and action enter the action encoder: time first in open-pi-zero, last in openpi."""
    positions: Literal["restart", "continue"] = "restart"
    """Whether rotary positions of proprioception and actions start anew (open-pi-zero) or follow the text (openpi)."""
    sigma_min: float = 0.001
    """Width of the flow's end at tau = 1."""

    def __post_init__(self) -> None:
        joint = self.joint
        if joint.heads % joint.kv_heads or joint.head_dim % 2 or not 0 < joint.feature_layer <= joint.layers:
            raise UserError(
                f"model.joint: kv_heads {joint.kv_heads} must divide heads {joint.heads}, head_dim {joint.head_dim} be even, "
                f"and feature_layer {joint.feature_layer} lie in 1..{joint.layers}"
            )
        if joint.action.width % 2:
            raise UserError(f"model.joint.action.width: found {joint.action.width}, want an even number")
        if self.vision.width % 4:
            raise UserError(f"model.vision.width: found {self.vision.width}, want a multiple of 4")

    @classmethod
    def tiny(cls) -> Self:
        """A model that two CPU cores train; images of 64 x 64."""
        return cls()

    @classmethod
    def open_pi_zero(cls) -> Self:
        """The layout of open-pi-zero's Bridge checkpoints: SigLIP So400m/14 at 224, Gemma 2B, an action expert of 0.3 B."""
        vision = SiglipConfig(
            224, 14, 1152, 27, 16, 4304, stem="patch", stem_channels=(), coordinate_channels=False, attention="sdpa"
        )
        joint = JointConfig(
            vlm=MixtureConfig(width=2048, mlp=16384, final_norm=False),
            action=MixtureConfig(width=1024, mlp=4096),
            layers=18,
            heads=8,
            kv_heads=1,
            head_dim=256,
            feature_layer=18,
            softcap=50.0,
        )
        return cls(vision, joint, vocab_size=257_216, suffix_scale=32.0, time_max_period=10_000.0)


class Projector(nn.Module):
    """From the vision tower's width to the VLM's."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        return self.linear(x)


class ActionEncoder(nn.Module):
    """Noisy actions and flow time to tokens: linear_3(silu(linear_2([time, linear_1(action)])))."""

    def __init__(self, action_dim: int, width: int, *, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        self.linear_1 = nn.Linear(action_dim, width)
        self.linear_2 = nn.Linear(2 * width, width)
        self.linear_3 = nn.Linear(width, width)

    def forward(self, actions: Float[Tensor, "b c a"], time: Float[Tensor, "b f"]) -> Float[Tensor, "b c f"]:
        embedded = self.linear_1(actions)
        time = time[:, None].expand_as(embedded)
        both = (time, embedded) if self.time_first else (embedded, time)
        return self.linear_3(F.silu(self.linear_2(torch.cat(both, dim=-1))))


def sinusoid(tau: Float[Tensor, " b"], width: int, max_period: float) -> Float[Tensor, "b width"]:
    """[sin, cos] of tau * max_period^(-i / (width/2 - 1)), in fp32 (open-pi-zero: no factor of 2 pi)."""
    steps = torch.linspace(0, 1, width // 2, device=tau.device, dtype=torch.float32)
    angles = tau.float()[:, None] * max_period**-steps
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def openpi_sinusoid(tau: Float[Tensor, " b"], width: int) -> Float[Tensor, "b width"]:
    """openpi's embedding of its own time 1 - tau: [sin, cos] of 2 pi (1 - tau) / period, periods geometric from 0.004 to 4."""
    steps = torch.linspace(0, 1, width // 2, device=tau.device, dtype=torch.float64)
    angles = 2 * math.pi * (1 - tau.double())[:, None] / (4e-3 * 1e3**steps)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


class Pi0(nn.Module):
    """Vision tower, VLM and action expert. Parameters are named as in open-pi-zero, less `proprio.*`, an alias of `action.*`."""

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        vlm, expert = config.joint.vlm.width, config.joint.action.width
        self.embed_tokens = nn.Embedding(config.vocab_size, vlm)
        self.vision_tower = Siglip(config.vision)
        self.multi_modal_projector = Projector(config.vision.width, vlm)
        self.joint_model = JointTransformer(config.joint)
        self.proprio_encoder = nn.Linear(config.proprio_dim, expert)
        self.action_encoder = ActionEncoder(config.action_dim, expert, time_first=config.time_first)
        self.action_decoder = nn.Linear(expert, config.action_dim)
        initialise(self)

    def encode(self, inputs: PolicyInputs, *, features: bool = True) -> Prefix:
        """The prefix that `velocity` reads; with hidden states for the heads unless features is False."""
        images = self._image_tokens(inputs.images)
        text = self.embed_tokens(inputs.tokens) * self.embed_tokens.embedding_dim**0.5
        per_image = self.config.vision.tokens
        mask = torch.cat((inputs.image_mask.repeat_interleave(per_image, dim=1), inputs.token_mask), dim=1)
        proprio = self.proprio_encoder(inputs.proprio.to(text.dtype))[:, None] * self.config.suffix_scale
        return self.joint_model.prefix(
            torch.cat((images, text), dim=1),
            proprio,
            mask,
            continue_positions=self.config.positions == "continue",
            features=features,
        )

    def velocity(self, actions: Float[Tensor, "b c a"], tau: Float[Tensor, " b"], prefix: Prefix) -> Float[Tensor, "b c a"]:
        """Flow velocity of noisy actions at time tau, in fp32."""
        width, dtype = self.config.joint.action.width, self.action_decoder.weight.dtype
        if self.config.time_embedding == "openpi":
            time = openpi_sinusoid(tau, width)
        else:
            time = sinusoid(tau, width, self.config.time_max_period)
        tokens = self.action_encoder(actions.to(dtype), time.to(dtype)) * self.config.suffix_scale
        return self.action_decoder(self.joint_model.actions(tokens, prefix)).float()

    def flow_loss(self, actions: Float[Tensor, "b c a"], prefix: Prefix, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean squared error of the velocity at tau = 0.999 (1 - z), z ~ Beta(1.5, 1), towards a1 - (1 - sigma) a0."""
        uniform = torch.rand(len(actions), generator=generator, device=generator.device).to(actions.device)
        tau = 0.999 * (1 - uniform ** (1 / 1.5))  # Beta(1.5, 1) by inversion of its distribution function z^1.5
        noise = gaussian(actions, generator)
        noisy, target = flow_pair(noise, actions, tau, self.config.sigma_min)
        return F.mse_loss(self.velocity(noisy, tau, prefix), target)

    def integrate(self, noise: Float[Tensor, "b c a"], prefix: Prefix, steps: int) -> Float[Tensor, "b c a"]:
        """Euler steps from noise at tau = 0 to actions at tau = 1; not clipped."""
        actions = noise
        for step in range(steps):
            tau = actions.new_full((len(actions),), step / steps)
            actions = actions + self.velocity(actions, tau, prefix) / steps
        return actions

    def _image_tokens(self, images: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b nt e"]:
        b, n, h, w, _ = images.shape
        size = self.config.vision.image_size
        if (h, w) != (size, size):
            raise UserError(f"images: found {h} x {w} pixels, want {size} x {size}")
        dtype = self.multi_modal_projector.linear.weight.dtype
        pixels = images.reshape(b * n, h, w, 3).permute(0, 3, 1, 2).to(dtype) / 127.5 - 1
        return self.multi_modal_projector(self.vision_tower(pixels)).reshape(b, -1, self.embed_tokens.embedding_dim)


def flow_pair(
    noise: Float[Tensor, "b c a"], actions: Float[Tensor, "b c a"], tau: Float[Tensor, " b"], sigma_min: float
) -> tuple[Float[Tensor, "b c a"], Float[Tensor, "b c a"]]:
    """The point (1 - (1 - sigma) tau) a0 + tau a1 on the straight path, and the velocity a1 - (1 - sigma) a0 there."""
    tau = tau[:, None, None]
    noisy = (1 - (1 - sigma_min) * tau) * noise + tau * actions
    return noisy, actions - (1 - sigma_min) * noise


def gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal fp32 noise of like's shape on like's device, whichever device the generator is on."""
    if generator is None:  # torch's global generator would make the run depend on everything before
        raise ValueError("a generator is needed to draw noise")
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like.device)


def initialise(model: Pi0) -> None:
    """Normal weights with variance 1 / fan-in, zero biases, text of variance 1 at the start of the residual stream.

    What a layer adds to the stream starts ten times smaller, and image positions start as sines of their coordinates: with both,
    a small model learns to look within hundreds of steps.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            adds = name.endswith(("o_proj", "down_proj", "out_proj", "fc2"))
            nn.init.normal_(part.weight, std=(0.1 if adds else 1.0) * part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, RmsNorm):
            nn.init.zeros_(part.weight)
    nn.init.normal_(model.embed_tokens.weight, std=model.embed_tokens.embedding_dim**-0.5)
    positions = model.vision_tower.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions.copy_(coordinate_sines(math.isqrt(len(positions)), positions.shape[1]))


def coordinate_sines(side: int, width: int) -> Float[Tensor, "t width"]:
    """Sine and cosine of x and of y in [-1, 1], from a quarter of a period to four periods, for the tokens of a square grid."""
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    frequencies = math.pi / 2 * 2 ** torch.linspace(0, 4, width // 4)
    angles = torch.cat((x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies), dim=1)
    return torch.cat((angles.sin(), angles.cos()), dim=1)
