"""Between the world's units and the model's: images, text and proprioception in, actions out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from genvla.errors import UserError
from genvla.policy.frozen_prefix import FrozenPrefix
from genvla.policy.images import letterbox, squash
from genvla.policy.tokenizer import PAD, PaligemmaTokenizer, WordTokenizer
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
    proprio: Float[Tensor, "b p"]
    """In [-1, 1], or of unit variance; zeros after the first 7 where the model wants more."""
    privileged: Float[Tensor, "b p"] | None = None
    """Simulator state in the order and units of PRIVILEGED_NAMES."""
    frozen: FrozenPrefix | None = None
    """What was kept of their encoding, so that it need not be computed again."""

    def __len__(self) -> int:
        return len(self.proprio)


@dataclass(frozen=True)
class Statistics:
    """What every entry of actions and proprioception is normalised by, in their physical units (see genvla.types)."""

    action_p01: tuple[float, ...] | None = None
    action_p99: tuple[float, ...] | None = None
    proprio_p01: tuple[float, ...] | None = None
    proprio_p99: tuple[float, ...] | None = None
    action_mean: tuple[float, ...] | None = None
    action_std: tuple[float, ...] | None = None
    proprio_mean: tuple[float, ...] | None = None
    proprio_std: tuple[float, ...] | None = None
    normalisation: Literal["bounds", "quantiles", "mean_std"] = "bounds"
    """bounds: 1st to 99th percentile to [-1, 1], clipped; the gripper's command stays 0 or 1 (open-pi-zero, and ours).
    quantiles: the same of all entries, the gripper's too, and not clipped (lerobot). mean_std: to mean 0 and variance 1 (openpi,
    lerobot)."""

    def __post_init__(self) -> None:
        for name, wanted in (("action", ACTION_DIM), ("proprio", PROPRIO_DIM)):
            first, second = self.pair(name)
            if len(first) != wanted or len(second) != wanted:
                raise UserError(f"statistics.{name}: found {len(first)} and {len(second)} values, want {wanted} each")
            if self.normalisation == "mean_std":
                if not np.isfinite([first, second]).all() or not np.greater(second, 0).all():
                    raise UserError(f"statistics.{name}: found mean {list(first)} and std {list(second)}, want finite, std > 0")
            elif not np.isfinite([first, second]).all() or not np.less(first, second).all():
                raise UserError(f"statistics.{name}: found p01 {list(first)} and p99 {list(second)}, want finite p01 < p99")

    def pair(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """p01 and p99, or mean and standard deviation, of "action" or "proprio"."""
        first, second = ("mean", "std") if self.normalisation == "mean_std" else ("p01", "p99")
        values = getattr(self, f"{name}_{first}"), getattr(self, f"{name}_{second}")
        if None in values:
            raise UserError(f"statistics: want {name}_{first} and {name}_{second} for normalisation {self.normalisation}")
        return values

    @classmethod
    def fit(cls, actions: Float[np.ndarray, "n 7"], proprio: Float[np.ndarray, "n 7"], smallest_range: float = 1e-3) -> Self:
        """Percentiles of data. An entry that hardly moves gets a range of smallest_range (m, rad) about its middle, so that
        its noise is not blown up to the size of a signal."""
        bounds: list[tuple[float, ...]] = []
        for name, data, wanted in (("actions", actions, ACTION_DIM), ("proprio", proprio, PROPRIO_DIM)):
            data = np.asarray(data, dtype=np.float64)
            if data.ndim != 2 or data.shape[1] != wanted or not len(data) or not np.isfinite(data).all():
                raise UserError(f"statistics: found {name} of shape {data.shape}, want finite [n, {wanted}]")
            low, high = np.quantile(data, (0.01, 0.99), axis=0)
            lacking = np.maximum(smallest_range - (high - low), 0) / 2
            bounds += [tuple((low - lacking).tolist()), tuple((high + lacking).tolist())]
        return cls(bounds[0], bounds[1], bounds[2], bounds[3])


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
    """Side of the model's square images, pixels; other images are resized to it."""
    tokenizer: Literal["words", "paligemma"] = "words"
    """words: one id per word, nothing to download. paligemma: that of PaliGemma, from a file beside the weights."""
    vocab_size: int = 512
    """Ids of the tokenizer; the model's embedding needs as many rows."""
    max_tokens: int = 16
    """Tokens of an instruction, with beginning and newline."""
    clean_prompt: bool = False
    """Of paligemma: whether white space around an instruction goes, and underscores and newlines in it become spaces, as openpi
    does; open-pi-zero takes it as it is."""
    resize: Literal["squash", "letterbox"] = "squash"
    """What is done to images of another size. squash: Lanczos-4, aspect lost (open-pi-zero). letterbox: bilinear with black
    borders (openpi)."""
    action_dim: int = ACTION_DIM
    """Entries of the model's actions; those after the first 7 are zero padding (openpi: 32)."""
    proprio_dim: int = PROPRIO_DIM
    """Entries of the model's proprioception, likewise."""
    executed: int | None = None
    """How many actions of the model's chunk become the policy's; None: all."""

    def __post_init__(self) -> None:
        if self.action_dim < ACTION_DIM or self.proprio_dim < PROPRIO_DIM:
            raise UserError(
                f"processor: found action_dim {self.action_dim} and proprio_dim {self.proprio_dim}, "
                f"want at least {ACTION_DIM} and {PROPRIO_DIM}"
            )
        if self.executed is not None and self.executed < 1:
            raise UserError(f"processor.executed: found {self.executed}, want at least 1")


class Processor:
    """Observation to PolicyInputs, and actions between physical units and the model's [-1, 1]."""

    def __init__(self, config: ProcessorConfig, statistics: Statistics = BRIDGE_STATISTICS) -> None:
        self.config = config
        self.statistics = statistics
        self.tokenizer: WordTokenizer | PaligemmaTokenizer
        if config.tokenizer == "words":
            self.tokenizer = WordTokenizer(config.vocab_size, config.max_tokens)
        else:
            self.tokenizer = PaligemmaTokenizer(config.vocab_size, config.max_tokens, clean=config.clean_prompt)

    def __call__(self, observation: Observation, *, pad: bool = True) -> PolicyInputs:
        """Tensors stay on the device where they are; text and masks go to the device of proprio. pad: see `tokenise`."""
        device = observation.proprio.device
        tokens, token_mask = self.tokenise(observation.instructions, pad=pad)
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

    def tokenise(self, instructions: list[str], *, pad: bool = True) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Ids and mask, padded to max_tokens, so that batches have one shape and can be put together; or with pad=False to the
        longest of these."""
        prompts = [self.tokenizer.encode(text) for text in instructions]
        length = self.config.max_tokens if pad else max(map(len, prompts), default=0)
        rows = [ids + (PAD,) * (length - len(ids)) for ids in prompts]
        tokens = torch.tensor(rows, dtype=torch.long).reshape(len(rows), length)
        return tokens, tokens != PAD

    def load_tokenizer(self, source: Path | str) -> None:
        """Takes the tokenizer's file from a folder or from the model hub; nothing to do for "words"."""
        if isinstance(self.tokenizer, PaligemmaTokenizer):
            self.tokenizer.load(source)

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer's file, if it has one."""
        if isinstance(self.tokenizer, PaligemmaTokenizer):
            self.tokenizer.save(folder)

    def resize(self, images: UInt8[Tensor, "b n h w 3"]) -> UInt8[Tensor, "b n s s 3"]:
        """To the model's size; untouched if the size is right."""
        size = self.config.image_size
        if images.dtype != torch.uint8 or images.ndim != 5 or images.shape[-1] != 3:
            raise UserError(f"images: found {_name(images)}, want uint8 [batch, cameras, height, width, 3]")
        if images.shape[2:4] == (size, size):
            return images
        return squash(images, size) if self.config.resize == "squash" else letterbox(images, size)

    def normalise_proprio(self, proprio: Float[Tensor, "b 7"]) -> Float[Tensor, "b p"]:
        """To the model's units, padded with zeros to its entries."""
        if not proprio.is_floating_point() or proprio.ndim != 2 or proprio.shape[1] != PROPRIO_DIM:
            raise UserError(f"proprio: found {_name(proprio)}, want floating point [batch, {PROPRIO_DIM}]")
        return self._pad(self._normalise(proprio, "proprio"), self.config.proprio_dim)

    def normalise_actions(self, actions: ActionChunk) -> Float[Tensor, "b c a"]:
        """Physical to the model's units, padded with zeros to its entries."""
        if self.statistics.normalisation == "bounds":
            scaled = self._normalise(actions[..., :GRIPPER], "action", GRIPPER)
            return self._pad(torch.cat((scaled, actions[..., GRIPPER:]), dim=-1), self.config.action_dim)
        return self._pad(self._normalise(actions, "action"), self.config.action_dim)

    def denormalise_actions(self, actions: Float[Tensor, "b c a"]) -> ActionChunk:
        """The actions that are executed, in physical units; the gripper becomes 1 above 0.5, else 0. With `bounds` everything is
        clipped to [-1, 1] first."""
        actions = actions[:, : self.config.executed, :ACTION_DIM]
        if self.statistics.normalisation == "bounds":
            low, high = self._pair(actions, "action", GRIPPER)
            physical = (actions[..., :GRIPPER].clamp(-1, 1) + 1) / 2 * (high - low) + low
            return torch.cat((physical, (actions[..., GRIPPER:] > 0.5).to(actions.dtype)), dim=-1)
        first, second = self._pair(actions, "action")
        if self.statistics.normalisation == "quantiles":
            physical = (actions + 1) / 2 * (second - first) + first
        else:
            physical = actions * second + first
        return torch.cat((physical[..., :GRIPPER], (physical[..., GRIPPER:] > 0.5).to(actions.dtype)), dim=-1)

    def _normalise(self, values: Tensor, name: str, entries: int | None = None) -> Tensor:
        first, second = self._pair(values, name, entries)
        if self.statistics.normalisation == "mean_std":
            return (values - first) / (second + 1e-8)
        scaled = 2 * (values - first) / (second - first) - 1
        return scaled.clamp(-1, 1) if self.statistics.normalisation == "bounds" else scaled

    def _pair(self, like: Tensor, name: str, entries: int | None = None) -> tuple[Tensor, Tensor]:
        first, second = self.statistics.pair(name)
        return like.new_tensor(first[:entries]), like.new_tensor(second[:entries])

    @staticmethod
    def _pad(values: Tensor, entries: int) -> Tensor:
        lacking = entries - values.shape[-1]
        return F.pad(values, (0, lacking)) if lacking else values


def _name(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
