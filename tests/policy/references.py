"""Independent computations of pi0: transformers' own model in openpi's convention, and open-pi-zero's formulas in float64.

Neither runs a module of ours. The second is written from the description of open-pi-zero: one sample, one pass over all tokens
with an explicit mask, no cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import PolicyInputs
from genvla.policy.siglip import SiglipConfig
from genvla.policy.transformers_pi0 import as_transformers, from_transformers, transformers_pi0  # noqa: F401  (for the tests)

try:
    from transformers import PI0ForConditionalGeneration
except ImportError as error:  # never skipped: without it, nothing tells whether openpi's convention is met
    raise ImportError("the tests compare with transformers' pi0: install transformers>=5.23 (the dev extra)") from error

Weights = dict[str, np.ndarray]


def shake(module: nn.Module, generator: torch.Generator, scale: float = 0.15) -> None:
    """Random weights everywhere, biases and norms included."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


# transformers' pi0 ----------------------------------------------------------------------------------------------------------


def exact_frequencies(model: PI0ForConditionalGeneration) -> None:
    """Let it compute time features in float64, as openpi does: in float32 its angles, up to 1571, are off by 1e-4."""
    embedding = model.embed_action_time.sinusoid_embeds
    half = model.config.dit_config.hidden_size // 2

    def forward(time: Tensor) -> Tensor:
        periods = 0.004 * 1000.0 ** (torch.arange(half, dtype=torch.float64) / (half - 1))
        angles = 2 * math.pi * time.double()[:, None] / periods
        return torch.cat((angles.sin(), angles.cos()), dim=1).float()

    embedding.forward = forward


# open-pi-zero, from its formulas --------------------------------------------------------------------------------------------


class OpenPiZero:
    """open-pi-zero for one sample, in numpy and float64. weights: by open-pi-zero's names."""

    def __init__(self, weights: dict[str, Tensor], config: Pi0Config) -> None:
        self.w: Weights = {name: value.double().numpy() for name, value in weights.items()}
        self.c = config

    def velocity(
        self, images: np.ndarray, tokens: np.ndarray, slots: int, proprio: np.ndarray, actions: np.ndarray, t: float
    ) -> np.ndarray:
        """images [n, h, w, 3] bytes; tokens: ids without padding, shown in `slots` slots; actions [c, a] at flow time t."""
        joint, width, wide = self.c.joint, self.c.joint.action.width, self.c.joint.vlm.width
        # The released code divides image features by sqrt(width) and then multiplies all of the VLM's stream by it.
        features = np.concatenate([self.linear("multi_modal_projector.linear", self.siglip(i)) for i in images]) / math.sqrt(wide)
        text = np.zeros((slots, wide))
        text[: len(tokens)] = self.w["embed_tokens.weight"][tokens]
        streams = {
            "vlm": np.concatenate([features, text]) * math.sqrt(wide),
            "proprio": self.linear("proprio_encoder", proprio[None]) * math.sqrt(width),
            "action": self.embed_actions(actions, t) * math.sqrt(width),
        }
        n_vlm, valid, chunk = len(streams["vlm"]), len(features) + len(tokens), len(actions)
        total = n_vlm + 1 + chunk
        visible = np.zeros((total, total), bool)
        visible[:, :valid] = True
        visible[n_vlm:, n_vlm] = True
        visible[n_vlm + 1 :, n_vlm + 1 :] = True
        positions = {"vlm": np.arange(1, n_vlm + 1), "proprio": np.array([1]), "action": np.arange(2, chunk + 2)}
        for i in range(joint.layers):
            query, key, value = ([], [], [])
            for stream, x in streams.items():
                base = f"joint_model.mixtures.{'vlm' if stream == 'vlm' else 'action'}.layers.{i}."
                normed = self.rms(x, base + "input_layernorm.weight")
                split = [(normed @ self.w[f"{base}self_attn.{p}_proj.weight"].T) for p in "qkv"]
                q, k, v = (s.reshape(len(x), -1, joint.head_dim) for s in split)
                query.append(self.rope(q, positions[stream]))
                key.append(self.rope(k, positions[stream]))
                value.append(v)
            mixed = self.attention(np.concatenate(query), np.concatenate(key), np.concatenate(value), visible)
            offset = 0
            for stream, x in streams.items():
                base = f"joint_model.mixtures.{'vlm' if stream == 'vlm' else 'action'}.layers.{i}."
                x = x + mixed[offset : offset + len(x)] @ self.w[base + "self_attn.o_proj.weight"].T
                normed = self.rms(x, base + "post_attention_layernorm.weight")
                gate, up = (normed @ self.w[f"{base}mlp.{p}_proj.weight"].T for p in ("gate", "up"))
                streams[stream] = x + (gelu(gate) * up) @ self.w[base + "mlp.down_proj.weight"].T
                offset += len(x)
        return self.linear("action_decoder", self.rms(streams["action"], "joint_model.mixtures.action.norm.weight"))

    def integrate(self, noise: np.ndarray, steps: int, velocity: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
        """Euler from t = 0 to 1, unclamped."""
        x = noise.copy()
        for k in range(steps):
            x = x + velocity(x, k / steps) / steps
        return x

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def rms(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + self.w[name])

    def layer_norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * self.w[name + ".weight"] + self.w[name + ".bias"]

    def rope(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        half = x.shape[-1] // 2
        angles = positions[:, None, None] * 10_000.0 ** (-np.arange(half) / half)
        first, second = x[..., :half], x[..., half:]
        turned = np.concatenate([-second, first], axis=-1)
        return x * np.tile(np.cos(angles), 2) + turned * np.tile(np.sin(angles), 2)

    def attention(self, query: np.ndarray, key: np.ndarray, value: np.ndarray, visible: np.ndarray) -> np.ndarray:
        heads, cap = query.shape[1], self.c.joint.softcap
        key, value = (np.repeat(x, heads // x.shape[1], axis=1) for x in (key, value))
        logits = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(query.shape[-1])
        logits = np.where(visible, cap * np.tanh(logits / cap), -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return np.einsum("hqk,khd->qhd", weights, value).reshape(len(query), -1)

    def embed_actions(self, actions: np.ndarray, t: float) -> np.ndarray:
        half = self.c.joint.action.width // 2
        angles = t * self.c.time_max_period ** (-np.arange(half) / (half - 1))
        time = np.concatenate([np.sin(angles), np.cos(angles)])
        both = np.concatenate([np.tile(time, (len(actions), 1)), self.linear("action_encoder.linear_1", actions)], axis=-1)
        hidden = self.linear("action_encoder.linear_2", both)
        return self.linear("action_encoder.linear_3", hidden / (1 + np.exp(-hidden)))

    def siglip(self, image: np.ndarray) -> np.ndarray:
        config, base = self.c.vision, "vision_tower.vision_model."
        side, patch = config.image_size // config.patch_size, config.patch_size
        pixels = (image / 255 - 0.5) / 0.5
        patches = pixels.reshape(side, patch, side, patch, 3).transpose(0, 2, 4, 1, 3).reshape(side * side, -1)
        kernel = self.w[base + "embeddings.patch_embedding.weight"].reshape(config.width, -1)
        x = patches @ kernel.T + self.w[base + "embeddings.patch_embedding.bias"]
        x = x + self.w[base + "embeddings.position_embedding.weight"]
        for i in range(config.layers):
            layer = f"{base}encoder.layers.{i}."
            normed = self.layer_norm(x, layer + "layer_norm1")
            q, k, v = (
                self.linear(f"{layer}self_attn.{p}_proj", normed).reshape(len(x), config.heads, -1).swapaxes(0, 1) for p in "qkv"
            )
            logits = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            x = x + self.linear(layer + "self_attn.out_proj", (weights @ v).swapaxes(0, 1).reshape(len(x), -1))
            hidden = gelu(self.linear(layer + "mlp.fc1", self.layer_norm(x, layer + "layer_norm2")))
            x = x + self.linear(layer + "mlp.fc2", hidden)
        return self.layer_norm(x, base + "post_layernorm")


def gelu(x: np.ndarray) -> np.ndarray:
    """The tanh approximation."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# Models and inputs for both -------------------------------------------------------------------------------------------------

VISION = SiglipConfig(16, 4, 24, 2, 2, 32, stem="patch", stem_channels=(), coordinate_channels=False, attention="sdpa")
JOINT = JointConfig(MixtureConfig(32, 48), MixtureConfig(16, 32), 3, 4, 1, 8, feature_layer=3, attention="sdpa")


def small(preset: Pi0Config) -> Pi0Config:
    """A preset with few, narrow layers, its conventions as they are; a low softcap, so that it shows."""
    joint = replace(
        JOINT,
        vlm=replace(JOINT.vlm, final_norm=preset.joint.vlm.final_norm),
        softcap=None if preset.joint.softcap is None else 2.0,
        attention=preset.joint.attention,
    )
    scale = 1.0 if preset.suffix_scale == 1.0 else math.sqrt(JOINT.action.width)
    return replace(preset, vision=VISION, joint=joint, vocab_size=60, suffix_scale=scale)


def random_inputs(
    config: Pi0Config, cameras: Bool[Tensor, "b n"], lengths: tuple[int, ...], generator: torch.Generator
) -> PolicyInputs:
    """One row of `cameras`, True where there is one, and one text length per sample."""
    b, n, side = *cameras.shape, config.vision.image_size
    longest = max(lengths)
    return PolicyInputs(
        images=torch.randint(0, 256, (b, n, side, side, 3), dtype=torch.uint8, generator=generator),
        image_mask=cameras,
        tokens=torch.randint(1, config.vocab_size, (b, longest), generator=generator),
        token_mask=torch.arange(longest) < torch.tensor(lengths)[:, None],
        proprio=torch.randn(b, config.proprio_dim, generator=generator),
    )
