from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genvla.policy.finetuning import Finetuning, apply_finetuning
from genvla.policy.flow_policy import Evaluation, FlowPolicy
from genvla.policy.frozen_prefix import compute_frozen_prefix, frozen_depth
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import PolicyInputs, ProcessorConfig
from tests.policy.variants import REAL_LAYOUT, inputs_for, moved, policy_of, variant

CLOSE = 1e-5
"""Largest difference of log-probabilities, in nats, between what is kept and what is computed anew, in fp32."""


def prepared(finetuning: Finetuning, **settings: object) -> FlowPolicy:
    policy = policy_of(**settings)  # type: ignore[arg-type]
    apply_finetuning(policy, finetuning)
    return moved(policy)


def gradients(policy: FlowPolicy, inputs: PolicyInputs, chain: torch.Tensor) -> tuple[Evaluation, dict[str, torch.Tensor]]:
    policy.zero_grad(set_to_none=True)
    evaluation = policy.evaluate_actions(inputs, chain)
    (evaluation.log_prob.sum() + evaluation.value.sum() + evaluation.log_sigma.sum()).backward()
    return evaluation, {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("full_expert", "nothing"),
        ("frozen_vlm_lora_expert", "context"),
        ("frozen_vlm_full_expert", "context"),
        ("frozen_siglip_lora_gemma_lora_expert", "vision"),
        ("lora_vlm_lora_expert", "nothing"),
    ],
)
def test_how_much_is_frozen_follows_from_what_trains(name: str, depth: str) -> None:
    assert frozen_depth(prepared(variant(name)).pi0) == depth


def test_a_projector_or_a_text_embedding_that_trains_leaves_only_the_tower_frozen() -> None:
    for finetuning in (Finetuning("frozen", "lora", "frozen", "full"), Finetuning("frozen", "frozen", "full", "full")):
        assert frozen_depth(prepared(finetuning).pi0) == "vision"
    assert frozen_depth(policy_of().requires_grad_(False).pi0) == "context"
    assert frozen_depth(policy_of().pi0) == "nothing"


@pytest.mark.parametrize("layout", ["real", "tiny", "openpi"])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["frozen_vlm_lora_expert", "frozen_vlm_full_expert", "frozen_siglip_lora_gemma_lora_expert"])
def test_kept_and_computed_anew_agree(name: str, steps: int, layout: str) -> None:
    openpi = replace(
        REAL_LAYOUT,
        joint=replace(REAL_LAYOUT.joint, softcap=None),
        suffix_scale=1.0,
        positions="continue",
        time_direction="backward",
        time_embedding="openpi",
        time_max_period=4.0,
        time_first=False,
    )
    policy = prepared(variant(name), model={"real": REAL_LAYOUT, "tiny": Pi0Config.tiny(), "openpi": openpi}[layout], steps=steps)
    inputs = inputs_for(policy, cameras=2)
    kept = policy.keep_frozen(inputs)
    assert kept.frozen is not None
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    plain, reusing = policy.act(inputs, generator=draws[0]), policy.act(kept, generator=draws[1])
    torch.testing.assert_close(reusing.log_prob, plain.log_prob, atol=CLOSE, rtol=0)
    (first, wanted), (second, found) = (gradients(policy, each, plain.chain) for each in (inputs, kept))
    torch.testing.assert_close(second.log_prob, first.log_prob, atol=CLOSE, rtol=0)
    torch.testing.assert_close(second.value, first.value, atol=CLOSE, rtol=0)
    assert wanted and set(found) == set(wanted)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_nothing_frozen_is_computed_again() -> None:
    runs: list[str] = []
    for name, resting in (("frozen_vlm_full_expert", "context"), ("frozen_siglip_lora_gemma_lora_expert", "vision")):
        policy = prepared(variant(name))
        kept = policy.keep_frozen(inputs_for(policy))
        runs.clear()
        watched = {"vision_tower": policy.pi0.vision_tower, "vlm": policy.pi0.joint_model.mixtures["vlm"].layers[0]}
        for label, module in watched.items():
            module.register_forward_hook(lambda *_, label=label: runs.append(label))
        chain = policy.act(kept, generator=torch.Generator().manual_seed(0)).chain
        policy.evaluate_actions(kept, chain)
        assert runs == ([] if resting == "context" else ["vlm", "vlm"])


def test_grounding_reads_what_is_kept() -> None:
    policy = prepared(variant("frozen_vlm_full_expert"), grounding=True)
    inputs = inputs_for(policy)
    kept = policy.keep_frozen(inputs)
    torch.testing.assert_close(policy.grounding_loss(kept), policy.grounding_loss(inputs))


def test_rows_of_what_is_kept() -> None:
    """Any rows, in any order, wherever they are kept."""
    policy = prepared(variant("frozen_vlm_full_expert"))
    kept = policy.keep_frozen(inputs_for(policy))
    chain = policy.act(kept, generator=torch.Generator().manual_seed(0)).chain
    whole = policy.evaluate_actions(kept, chain).log_prob
    order = torch.tensor([3, 0, 3])
    part = policy.evaluate_actions(kept[order].to("cpu"), chain[order]).log_prob
    torch.testing.assert_close(part, whole[order], atol=CLOSE, rtol=0)


def test_memory_at_full_size() -> None:
    """Known: 4.87 MiB of keys and values per sample in bf16, of 276 image and text tokens and one of proprioception."""
    with torch.device("meta"):
        policy = FlowPolicy(Pi0Config.open_pi_zero(), HeadsConfig(grounding=False), ProcessorConfig(image_size=224))
    policy.to(torch.bfloat16)
    apply_finetuning(policy, variant("frozen_vlm_full_expert"))
    inputs = PolicyInputs(
        images=torch.zeros(1, 1, 224, 224, 3, dtype=torch.uint8, device="meta"),
        image_mask=torch.ones(1, 1, dtype=torch.bool, device="meta"),
        tokens=torch.zeros(1, 20, dtype=torch.long, device="meta"),
        token_mask=torch.ones(1, 20, dtype=torch.bool, device="meta"),
        proprio=torch.zeros(1, 7, device="meta"),
    )
    context = policy.keep_frozen(inputs).frozen
    assert context is not None and context.keys is not None and context.values is not None
    keys_values = context.keys.nbytes + context.values.nbytes
    assert keys_values == 2 * 18 * 276 * 256 * 2
    assert round(keys_values * 277 / 276 / 2**20, 2) == 4.87
    assert context.nbytes - keys_values == 2048 * 2 + 276
    apply_finetuning(policy, variant("frozen_siglip_lora_gemma_lora_expert"))
    tokens = compute_frozen_prefix(policy.pi0, inputs, hidden=False)
    assert tokens is not None and tokens.nbytes == 256 * 1152 * 2
