"""Small policies of the real layout, the fine-tuning variants as they are shipped, and inputs for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from genvla.policy.finetuning import Finetuning
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import PolicyInputs, ProcessorConfig
from genvla.policy.siglip import SiglipConfig
from genvla.types import PRIVILEGED_NAMES, Observation

FOLDER = Path(__file__).parents[2] / "configs" / "variants"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

REAL_LAYOUT = Pi0Config(
    vision=SiglipConfig(28, 14, 48, 2, 4, 96, stem="patch", stem_channels=(), coordinate_channels=False, attention="sdpa"),
    joint=JointConfig(
        vlm=MixtureConfig(width=64, mlp=128, final_norm=False),
        action=MixtureConfig(width=32, mlp=64),
        layers=3,
        heads=4,
        kv_heads=1,
        head_dim=16,
        feature_layer=3,
        softcap=50.0,
    ),
    suffix_scale=32.0**0.5,
    time_max_period=10_000.0,
)
"""open-pi-zero's, tiny: a patch stem, transformer layers in the tower, heads that read the last layer."""


def variant(name: str) -> Finetuning:
    """A shipped variant."""
    return Finetuning(**yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["finetuning"])


def policy_of(model: Pi0Config = REAL_LAYOUT, seed: int = 0, steps: int = 1, **heads: Any) -> FlowPolicy:
    """A fresh policy, its noise and value heads moved off their initial values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        processor = ProcessorConfig(image_size=model.vision.image_size, max_tokens=6)
        policy = FlowPolicy(model, HeadsConfig(**{"grounding": False, **heads}), processor, steps)
        for parameter in (*policy.noise_head.parameters(), *policy.value_head.parameters()):
            torch.nn.init.normal_(parameter, std=0.2)
    return policy


def inputs_for(policy: FlowPolicy, batch: int = 5, cameras: int = 1, seed: int = 0) -> PolicyInputs:
    """Random inputs; with several cameras, one sample lacks its last."""
    draw, size = torch.Generator().manual_seed(seed), policy.model_config.vision.image_size
    mask = torch.ones(batch, cameras, dtype=torch.bool)
    mask[0, -1] = cameras == 1
    observation = Observation(
        images=torch.randint(0, 256, (batch, cameras, size, size, 3), dtype=torch.uint8, generator=draw),
        instructions=[("put the red cube in the bowl", "stack the can", "go")[i % 3] for i in range(batch)],
        proprio=torch.randn(batch, 7, generator=draw) * 0.1 + torch.tensor([0.3, 0, 0.1, 0, 0, 0, 0.5]),
        image_mask=mask,
        privileged=torch.rand(batch, len(PRIVILEGED_NAMES), generator=draw) * 0.1,
    )
    return policy.processor(observation)


def moved(policy: FlowPolicy, seed: int = 1) -> FlowPolicy:
    """The policy with adapters that do something: their B is not zero any more."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return policy
