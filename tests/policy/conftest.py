from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import PolicyInputs, ProcessorConfig
from genvla.policy.siglip import SiglipConfig
from genvla.types import PRIVILEGED_NAMES, Observation

SMALL = Pi0Config(
    vision=SiglipConfig(image_size=16, patch_size=4, width=32, layers=1, heads=2, mlp=48, stem_channels=(16,)),
    joint=JointConfig(
        vlm=MixtureConfig(width=48, mlp=64),
        action=MixtureConfig(width=32, mlp=64),
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=8,
        feature_layer=2,
        softcap=20.0,
    ),
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def small_policy() -> Callable[..., FlowPolicy]:
    """A policy of a few thousand parameters, its noise and value heads moved off their initial values."""

    def make(heads: HeadsConfig | None = None, steps: int = 1, draws: int = 1, **model: object) -> FlowPolicy:
        config = replace(SMALL, **model)
        processor = ProcessorConfig(image_size=config.vision.image_size)
        policy = FlowPolicy(config, heads or HeadsConfig(), processor, steps, draws)
        for parameter in (*policy.noise_head.parameters(), *policy.value_head.parameters()):
            torch.nn.init.normal_(parameter, std=0.2)
        return policy

    return make


@pytest.fixture
def observe() -> Callable[..., Observation]:
    """A random observation."""

    def make(batch: int = 5, cameras: int = 1, size: int = 16, seed: int = 0) -> Observation:
        generator = torch.Generator().manual_seed(seed)
        texts = ["put the red cube in the blue bowl", "stack the can", "open the Drawer!", "put the leek on the towel", "go"]
        return Observation(
            images=torch.randint(0, 256, (batch, cameras, size, size, 3), dtype=torch.uint8, generator=generator),
            instructions=[texts[i % len(texts)] for i in range(batch)],
            proprio=torch.randn(batch, 7, generator=generator) * 0.1 + torch.tensor([0.3, 0, 0.1, 0, 0, 0, 0.5]),
            privileged=torch.randn(batch, len(PRIVILEGED_NAMES), generator=generator).abs() * 0.1,
        )

    return make


@pytest.fixture
def inputs_of(observe: Callable[..., Observation]) -> Callable[..., PolicyInputs]:
    """Model inputs of a random observation."""

    def make(policy: FlowPolicy, **options: int) -> PolicyInputs:
        return policy.processor(observe(size=policy.model_config.vision.image_size, **options))

    return make
