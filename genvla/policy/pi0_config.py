"""The shape and the conventions of pi0: one implementation covers the tiny preset, open-pi-zero's and openpi's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from genvla.errors import UserError
from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.siglip import SiglipConfig
from genvla.types import ACTION_DIM, CHUNK_SIZE, PROPRIO_DIM


@dataclass(frozen=True)
class Pi0Config:
    """Shape and conventions of the model; the defaults are the tiny preset.

    Two things that openpi does otherwise need no field, since they compute the same: it feeds proprioception in as the first
    token of the actions' stream (a block of its own that never sees the actions; here the last token of the prefix), and it
    counts positions from 0 (rotary attention reads differences alone).
    """

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
    time_direction: Literal["forward", "backward"] = "forward"
    """backward: the network is told 1 - tau and answers with the velocity from actions to noise, as in openpi. Outside the
    network tau runs from noise to actions in either case."""
    time_embedding: Literal["open_pi_zero", "openpi"] = "open_pi_zero"
    """open_pi_zero: angles time * P^(-i/(h-1)); openpi: 2 pi time / period, periods from time_min_period to time_max_period."""
    time_min_period: float = 0.004
    """Of openpi's time embedding; open_pi_zero's has none."""
    time_max_period: float = 100.0
    """P of open_pi_zero's time embedding, whose released checkpoints have 10,000; 4 in openpi."""
    time_first: bool = True
    """Order in which time and action enter the action encoder: time first in open-pi-zero, last in openpi."""
    positions: Literal["restart", "continue"] = "restart"
    """Whether rotary positions of proprioception and actions start anew (open-pi-zero) or follow the text (openpi)."""
    sigma_min: float = 0.001
    """Width of the flow's end at tau = 1; 0 in openpi."""

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
        if self.time_embedding == "openpi" and not 0 < self.time_min_period < self.time_max_period:
            raise UserError(
                f"model.time_min_period: found {self.time_min_period}, want more than 0 "
                f"and less than time_max_period {self.time_max_period}"
            )

    @classmethod
    def tiny(cls) -> Self:
        """A model that two CPU cores train; images of 64 x 64."""
        return cls()

    @classmethod
    def open_pi_zero(cls) -> Self:
        """open-pi-zero's Bridge checkpoints: SigLIP So400m/14 at 224, Gemma 2B, an action expert of 0.3 B.

        3,238,100,727 parameters. With feature_layer 17 nothing reads the last VLM layer but its keys and values, and the rest of
        it is left out: 3,129,046,775.
        """
        joint = replace(PALIGEMMA, softcap=50.0, vlm=replace(PALIGEMMA.vlm, final_norm=False))
        return cls(SO400M, joint, vocab_size=257_216, suffix_scale=32.0, time_max_period=10_000.0)

    @classmethod
    def openpi(cls) -> Self:
        """openpi's and lerobot's pi0: the same networks in openpi's conventions; 32 padded dimensions, chunks of 50."""
        return cls(
            SO400M,
            PALIGEMMA,
            vocab_size=257_152,
            action_dim=32,
            proprio_dim=32,
            horizon=50,
            time_direction="backward",
            time_embedding="openpi",
            time_max_period=4.0,
            time_first=False,
            positions="continue",
            sigma_min=0.0,
        )

    @classmethod
    def mid(cls) -> Self:
        """open-pi-zero's at a quarter of its widths and under half its depth: 76 million parameters, the same 256 image tokens.

        For tests and measurements on a CPU; its vocabulary is the word tokenizer's.
        """
        vision = replace(SO400M, width=288, layers=12, heads=4, mlp=1076)
        joint = JointConfig(
            vlm=MixtureConfig(width=512, mlp=4096, final_norm=False),
            action=MixtureConfig(width=256, mlp=1024),
            layers=8,
            heads=8,
            kv_heads=1,
            head_dim=64,
            feature_layer=8,
            softcap=50.0,
            attention="sdpa",
        )
        return cls(vision, joint, suffix_scale=16.0, time_max_period=10_000.0)


SO400M = SiglipConfig(224, 14, 1152, 27, 16, 4304, stem="patch", stem_channels=(), coordinate_channels=False, attention="sdpa")
"""SigLIP So400m/14."""

PALIGEMMA = JointConfig(
    vlm=MixtureConfig(width=2048, mlp=16384),
    action=MixtureConfig(width=1024, mlp=4096),
    layers=18,
    heads=8,
    kv_heads=1,
    head_dim=256,
    feature_layer=18,
    attention="sdpa",
)
"""Gemma 2B, as in PaliGemma, beside pi0's action expert."""
