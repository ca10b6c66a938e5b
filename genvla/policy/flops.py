"""Floating-point operations of pi0, two per multiplication and addition.

Counted, not estimated: the model runs on the meta device, which has shapes and no numbers, and torch adds up what its matrix
products and convolutions would take. Attention is counted in full, recomputation not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from genvla.policy.finetuning import Finetuning, apply_finetuning
from genvla.policy.pi0 import Pi0
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.synthetic import TEXT_TOKENS, fresh_policy, random_chain, random_inputs


def count(function: Callable[[], object]) -> int:
    """Operations of what a function computes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def plain_attention(model: Pi0Config) -> Pi0Config:
    """The same model with attention made of matrix products, which can be counted."""
    return replace(model, vision=replace(model.vision, attention="eager"), joint=replace(model.joint, attention="eager"))


@torch.no_grad()
def forward_flops(model: Pi0Config, cameras: int = 1, text: int = TEXT_TOKENS) -> dict[str, int]:
    """Of one sample: vision, projector, vlm and proprio make the prefix, computed once without features; step is one
    integration step."""
    model = plain_attention(model)
    with torch.random.fork_rng(), torch.device("meta"):
        pi0 = Pi0(model)
    inputs = random_inputs(model, 1, cameras, "meta", text)
    actions, tau = torch.empty(1, model.horizon, model.action_dim, device="meta"), torch.empty(1, device="meta")
    vision = pi0.vision_tokens(inputs.images)
    tokens = pi0.project(vision)
    context = pi0.context(tokens, inputs.image_mask, inputs.tokens, inputs.token_mask, features=False)
    prefix = pi0.prefix(context, inputs.proprio, features=False)
    return {
        "vision": count(lambda: pi0.vision_tokens(inputs.images)),
        "projector": count(lambda: pi0.project(vision)),
        "vlm": count(lambda: pi0.context(tokens, inputs.image_mask, inputs.tokens, inputs.token_mask, features=False)),
        "proprio": count(lambda: pi0.prefix(context, inputs.proprio, features=False)),
        "step": count(lambda: pi0.velocity(actions, tau, prefix)),
    }


def update_flops(model: Pi0Config, finetuning: Finetuning, steps: int = 1) -> int:
    """Of one decision of K = steps in one update: forward once, back to the first trainable parameter. What is frozen from the
    images on is taken as kept from collecting, and not counted."""
    model = plain_attention(model)
    policy = fresh_policy(model, "meta")
    apply_finetuning(policy, replace(finetuning, frozen_dtype=None, trainable_dtype=None))
    policy.integration_steps = steps
    inputs, chain = policy.keep_frozen(random_inputs(model, 1, device="meta")), random_chain(model, 1, steps, "meta")

    def update() -> None:
        evaluation = policy.evaluate_actions(inputs, chain)
        (evaluation.log_prob.sum() + evaluation.value.sum()).backward()

    return count(update)
