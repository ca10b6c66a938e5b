"""Policies and inputs made up for measuring: the shapes of real ones, random contents."""

from __future__ import annotations

import torch
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.flow_policy import FlowPolicy, FlowPolicyConfig
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import PolicyInputs, ProcessorConfig
from genvla.seeding import generator

PRESETS = ("tiny", "mid", "open_pi_zero", "openpi")
TEXT_TOKENS = 20
"""Slots of open-pi-zero's text; as many are filled here."""


def preset(name: str) -> Pi0Config:
    """The model of a name.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        raise UserError(f"model: found {name!r}, want one of {', '.join(PRESETS)}")
    return getattr(Pi0Config, name)()


def fresh_policy(model: Pi0Config, device: torch.device | str = "cpu") -> FlowPolicy:
    """A policy of random weights, with noise and value heads and without a grounding head."""
    processor = ProcessorConfig(
        image_size=model.vision.image_size,
        vocab_size=min(ProcessorConfig.vocab_size, model.vocab_size),
        action_dim=model.action_dim,
        proprio_dim=model.proprio_dim,
    )
    config = FlowPolicyConfig(model, HeadsConfig(grounding=False), processor)
    with torch.random.fork_rng(), torch.device(device):  # layers draw from torch's global generator when they are made
        return FlowPolicy.from_config(config).eval()


def random_inputs(
    model: Pi0Config, batch: int, cameras: int = 1, device: torch.device | str = "cpu", text: int = TEXT_TOKENS
) -> PolicyInputs:
    """Of all cameras, with `text` text tokens and no padding."""
    draw, size = generator("cpu", 0, "synthetic inputs"), model.vision.image_size
    return PolicyInputs(
        images=torch.randint(0, 256, (batch, cameras, size, size, 3), dtype=torch.uint8, generator=draw),
        image_mask=torch.ones(batch, cameras, dtype=torch.bool),
        tokens=torch.randint(3, model.vocab_size, (batch, text), generator=draw),
        token_mask=torch.ones(batch, text, dtype=torch.bool),
        proprio=torch.randn(batch, model.proprio_dim, generator=draw),
    ).to(device)


def random_chain(model: Pi0Config, batch: int, steps: int, device: torch.device | str = "cpu") -> Tensor:
    """Noise and samples of `steps` integration steps, [batch, steps + 1, horizon, action_dim]."""
    draw = generator("cpu", 0, "synthetic chain")
    return torch.randn(batch, steps + 1, model.horizon, model.action_dim, generator=draw).to(device)
