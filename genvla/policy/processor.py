"""Between the world's units and the model's: images, text and proprioception in, actions out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.tokenizer import PAD, WordTokenizer
from genvla.types import ACTION_DIM, PROPRIO_DIM, ActionChunk, Observation, TensorFields

GRIPPER = 6
"""The action that is a command, 0 or 1, and is never rescaled."""


@dataclass(frozen=True)
class PolicyInputs(TensorFields):
    """An observation as the model reads it; a batch of b."""

    images: UInt8[Tensor, "b n h w 3"]
    """RGB at the model's resolution."""
    image_mask: Bool[Tensor, "b n"]
    """False for a camera that this sample does not have."""
    tokens: Int[Tensor, "b t"]
    """Token ids of the instruction, padded to the right."""
    token_mask: Bool[Tensor, "b t"]
    """False for padding."""
    proprio: Float[Tensor, "b 7"]
    """In [-1, 1]."""
    privileged: Float[Tensor, "b p"] | None = None
    """Simulator state in the order and units of PRIVILEGED_NAMES."""

    def __len__(self) -> int:
        return len(self.proprio)


@dataclass(frozen=True)
class Statistics:
    """The 1st and 99th percentile of every entry of actions and proprioception, in their physical units (see genvla.types)."""

    action_p01: tuple[float, ...]
    action_p99: tuple[float, ...]
    proprio_p01: tuple[float, ...]
    proprio_p99: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, wanted in (("action", ACTION_DIM), ("proprio", PROPRIO_DIM)):
            low, high = getattr(self, f"{name}_p01"), getattr(self, f"{name}_p99")
            if len(low) != wanted or len(high) != wanted:
                raise UserError(f"statistics.{name}: found {len(low)} and {len(high)} values, want {wanted} each")
            if not np.isfinite([low, high]).all() or not np.less(low, high).all():
                raise UserError(f"statistics.{name}: found p01 {list(low)} and p99 {list(high)}, want finite p01 < p99")

    @classmethod
    def fit(cls, actions: Float[np.ndarray, "n 7"], proprio: Float[np.ndarray, "n 7"], smallest_range: float = 1e-3) -> Self:
        """Percentiles of data. An entry that hardly moves gets a range of smallest_range (m, rad) about its middle, so that
        its noise is not blown up to the size of a signal."""
        bounds = []
        for name, data, wanted in (("actions", actions, ACTION_DIM), ("proprio", proprio, PROPRIO_DIM)):
            data = np.asarray(data, dtype=np.float64)
            if data.ndim != 2 or data.shape[1] != wanted or not len(data) or not np.isfinite(data).all():
                raise UserError(f"statistics: found {name} of shape {data.shape}, want finite [n, {wanted}]")
            low, high = np.quantile(data, (0.01, 0.99), axis=0)
            lacking = np.maximum(smallest_range - (high - low), 0) / 2
            bounds += [tuple((low - lacking).tolist()), tuple((high + lacking).tolist())]
        return cls(*bounds)


BRIDGE_STATISTICS = Statistics(
    action_p01=(-0.028540, -0.041432, -0.025977, -0.080209, -0.092131, -0.205486, 0.0),
    action_p99=(0.028122, 0.040630, 0.039949, 0.081219, 0.077244, 0.202140, 1.0),
    proprio_p01=(0.170171, -0.169657, -0.054787, -0.365569, -0.543549, -1.350144, 0.052190),
    proprio_p99=(0.452731, 0.234908, 0.197345, 0.378780, 0.277230, 1.837805, 1.010569),
)
"""Of BridgeData V2 on the WidowX (open-pi-zero, config/bridge_statistics.json)."""


@dataclass(frozen=True)
class ProcessorConfig:
    """How observations become model inputs."""

    image_size: int = 64
    """Side of the model's square images, pixels; other images are squashed to it with Lanczos-4 interpolation."""
    tokenizer: Literal["words"] = "words"
    """words: one id per word, nothing to download."""
    vocab_size: int = 512
    """Ids of the tokenizer; the model's embedding needs as many rows."""
    max_tokens: int = 16
    """Tokens of an instruction, with beginning and newline."""


class Processor:
    """Observation to PolicyInputs, and actions between physical units and the model's [-1, 1]."""

    def __init__(self, config: ProcessorConfig, statistics: Statistics = BRIDGE_STATISTICS) -> None:
        self.config = config
        self.statistics = statistics
        self.tokenizer = WordTokenizer(config.vocab_size, config.max_tokens)

    def __call__(self, observation: Observation) -> PolicyInputs:
        """Tensors stay on the device where they are; text and masks go to the device of proprio."""
        device = observation.proprio.device
        tokens, token_mask = self.tokenise(observation.instructions)
        images = self.resize(observation.images)
        mask = observation.image_mask
        return PolicyInputs(
            images=images,
            image_mask=torch.ones(images.shape[:2], dtype=torch.bool, device=device) if mask is None else mask,
            tokens=tokens.to(device),
            token_mask=token_mask.to(device),
            proprio=self.normalise_proprio(observation.proprio),
            privileged=observation.privileged,
        )

    def tokenise(self, instructions: list[str]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Ids and mask, padded to max_tokens."""
        length = self.config.max_tokens
        rows = [(ids := self.tokenizer.encode(text)) + (PAD,) * (length - len(ids)) for text in instructions]
        tokens = torch.tensor(rows, dtype=torch.long).reshape(len(rows), length)
        return tokens, tokens != PAD

    def resize(self, images: UInt8[Tensor, "b n h w 3"]) -> UInt8[Tensor, "b n s s 3"]:
        """Squash to the model's size without antialiasing, as open-pi-zero does in evaluation; untouched if the size is right."""
        size = self.config.image_size
        b, n, h, w, _ = images.shape
        if (h, w) == (size, size):
            return images
        flat = images.reshape(b * n, h, w, 3).cpu().numpy()
        resized = [cv2.resize(image, (size, size), interpolation=cv2.INTER_LANCZOS4) for image in flat]
        return torch.from_numpy(np.stack(resized)).reshape(b, n, size, size, 3).to(images.device)

    def normalise_proprio(self, proprio: Float[Tensor, "b 7"]) -> Float[Tensor, "b 7"]:
        """To [-1, 1] between the percentiles, clipped."""
        low, high = proprio.new_tensor(self.statistics.proprio_p01), proprio.new_tensor(self.statistics.proprio_p99)
        return (2 * (proprio - low) / (high - low) - 1).clamp(-1, 1)

    def normalise_actions(self, actions: ActionChunk) -> Float[Tensor, "b c 7"]:
        """Physical to [-1, 1], clipped; the gripper stays 0 or 1."""
        low, high = self._action_bounds(actions)
        scaled = (2 * (actions[..., :GRIPPER] - low) / (high - low) - 1).clamp(-1, 1)
        return torch.cat((scaled, actions[..., GRIPPER:]), dim=-1)

    def denormalise_actions(self, actions: Float[Tensor, "b c 7"]) -> ActionChunk:
        """Clip to [-1, 1] and back to physical units; the gripper becomes 1 above 0.5, else 0."""
        low, high = self._action_bounds(actions)
        physical = (actions[..., :GRIPPER].clamp(-1, 1) + 1) / 2 * (high - low) + low
        return torch.cat((physical, (actions[..., GRIPPER:] > 0.5).to(actions.dtype)), dim=-1)

    def _action_bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.statistics.action_p01[:GRIPPER], self.statistics.action_p99[:GRIPPER]
        return like.new_tensor(low), like.new_tensor(high)
