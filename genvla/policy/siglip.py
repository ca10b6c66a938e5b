"""The vision tower: SigLIP's pre-norm transformer, behind its patch convolution or a small convolutional stem.

Parameters are named as in SigLIP checkpoints (vision_model.encoder.layers.0.self_attn.q_proj ...), so that those load by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genvla.errors import UserError
from genvla.policy.activation_checkpointing import CheckpointedLayer
from genvla.policy.attention import AttentionKind, attend
from genvla.policy.gelu import Gelu, gelu
from genvla.policy.linear import Linear


@dataclass(frozen=True)
class SiglipConfig:
    """Shape of the vision tower; the defaults are the tiny preset."""

    image_size: int = 64
    """Side of the square input, pixels."""
    patch_size: int = 8
    """Pixels per token along one side: the token grid is (image_size / patch_size)^2."""
    width: int = 96
    """Features per token."""
    layers: int = 0
    """Transformer layers; a small model sees as well without, and a quarter faster."""
    heads: int = 4
    """Attention heads; they divide the width."""
    mlp: int = 192
    """Hidden width of a layer's MLP."""
    stem: Literal["patch", "conv"] = "conv"
    """patch: one convolution of patch_size x patch_size, as SigLIP. conv: 3x3 convolutions of stride 2, which overlap."""
    stem_channels: tuple[int, ...] = (32, 64)
    """conv only: channels after each halving but the last, which gives `width`; patch_size is 2^(length + 1)."""
    coordinate_channels: bool = True
    """Append x and y in [-1, 1] to the pixels, so that a position need not be inferred from the place of a token."""
    attention: AttentionKind = "eager"
    """eager: plain softmax; sdpa: torch's fused kernel."""
    stem_blocks: tuple[int, ...] = ()
    """conv only: residual blocks after each halving, none if empty; they tell small things apart at little cost."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size or self.width % self.heads:
            raise UserError(
                f"vision: image_size {self.image_size} must be a multiple of patch_size {self.patch_size}, "
                f"and width {self.width} of heads {self.heads}"
            )
        if self.stem == "conv" and self.patch_size != 2 ** (len(self.stem_channels) + 1):
            raise UserError(
                f"vision.stem_channels: found {len(self.stem_channels)} stages for patch_size {self.patch_size}, "
                "want patch_size = 2^(stages + 1)"
            )
        if self.stem_blocks and (self.stem != "conv" or len(self.stem_blocks) != len(self.stem_channels) + 1):
            raise UserError(
                f"vision.stem_blocks: found {len(self.stem_blocks)} numbers for a {self.stem} stem, "
                f"want none, or one for each of the conv stem's {len(self.stem_channels) + 1} halvings"
            )

    @property
    def tokens(self) -> int:
        """Tokens per image."""
        return (self.image_size // self.patch_size) ** 2


class ConvStem(nn.Sequential):
    """3x3 convolutions of stride 2 down to the token grid, GroupNorm and GELU between them; residual blocks if wanted."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...] = ()) -> None:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            if i:
                layers += [nn.GroupNorm(max(before // 16, 1), before), Gelu()]
            layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            layers += [ConvBlock(after) for _ in range(blocks[i] if blocks else 0)]
        super().__init__(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d m n"]:
        # Channels last, as oneDNN and cuDNN compute; the tokens that are read from the output then need no copy.
        return super().forward(x.contiguous(memory_format=torch.channels_last))


class ConvBlock(nn.Module):
    """Pre-norm residual block of two 3x3 convolutions (He et al., arXiv 1603.05027)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(max(channels // 16, 1), channels) for _ in range(2))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out_conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        hidden = self.conv(gelu(self.norm1(x)))
        return x + self.out_conv(gelu(self.norm2(hidden)))


class Embeddings(nn.Module):
    """Pixels to tokens with learned positions."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.coordinate_channels = config.coordinate_channels
        channels = 5 if config.coordinate_channels else 3
        if config.stem == "conv":
            self.patch_embedding: nn.Module = ConvStem((channels, *config.stem_channels, config.width), config.stem_blocks)
        else:
            self.patch_embedding = nn.Conv2d(channels, config.width, config.patch_size, stride=config.patch_size)
        self.position_embedding = nn.Embedding(config.tokens, config.width)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        if self.coordinate_channels:
            b, _, h, w = pixels.shape
            y = torch.linspace(-1, 1, h, device=pixels.device, dtype=pixels.dtype)[:, None].expand(h, w)
            x = torch.linspace(-1, 1, w, device=pixels.device, dtype=pixels.dtype)[None, :].expand(h, w)
            pixels = torch.cat((pixels, torch.stack((x, y)).expand(b, 2, h, w)), dim=1)
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight


class SelfAttention(nn.Module):
    """Full attention among the tokens of one image, with biases."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.heads, self.kind = config.heads, config.attention
        self.q_proj = Linear(config.width, config.width)
        self.k_proj = Linear(config.width, config.width)
        self.v_proj = Linear(config.width, config.width)
        self.out_proj = Linear(config.width, config.width)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        query, key, value = (f(x).unflatten(-1, (self.heads, -1)) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(attend(query, key, value, kind=self.kind))


class Mlp(nn.Module):
    """Two layers with tanh-approximated GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.fc2(gelu(self.fc1(x)))


class Layer(CheckpointedLayer):
    """Pre-norm transformer layer."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.self_attn = SelfAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = Mlp(config.width, config.mlp)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        for layer in self.layers:
            x = layer(x)
        return x


class SiglipModel(nn.Module):
    """Embeddings, layers, final norm."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        return self.post_layernorm(self.encoder(self.embeddings(pixels)))


class Siglip(nn.Module):
    """The vision tower. Its one child carries the name that checkpoints give it."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.vision_model = SiglipModel(config)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b t d"]:
        """Tokens, row by row, of images with pixels in [-1, 1]."""
        return self.vision_model(pixels)
