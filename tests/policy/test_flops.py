"""Counted operations against published figures and against sums made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genvla.policy.finetuning import VARIANTS
from genvla.policy.flops import forward_flops, update_flops
from genvla.policy.measuring import peak_flops
from genvla.policy.pi0 import Pi0Config


def test_full_size_is_as_published() -> None:
    """GFLOP of one sample of one camera, 276 image and text tokens: SigLIP So400m, projector, Gemma 2B, one step of four actions.
    From the shapes: Gemma without what its last layer does after keys and values, and attention over 276 keys."""
    found = forward_flops(Pi0Config.open_pi_zero())
    for part, gflop in {"vision": 219.0, "projector": 1.2, "vlm": 1047.3, "proprio": 0.6, "step": 2.7}.items():
        assert found[part] / 1e9 == pytest.approx(gflop, rel=0.02 if gflop > 2 else 0.06), part
    assert forward_flops(Pi0Config.open_pi_zero(), text=12)["vlm"] / 1e9 == pytest.approx(1016.6, rel=0.02)


def test_the_language_model_is_counted_as_by_hand() -> None:
    joint, tokens = Pi0Config.mid().joint, 256 + 20
    width, mlp, inner = joint.vlm.width, joint.vlm.mlp, joint.heads * joint.head_dim
    keys_values = 2 * width * joint.head_dim
    rest = 2 * width * inner + 3 * width * mlp + 2 * tokens * inner
    by_hand = 2 * tokens * (joint.layers * keys_values + (joint.layers - 1) * rest)
    assert forward_flops(Pi0Config.mid())["vlm"] == by_hand


def test_what_is_frozen_is_not_counted() -> None:
    """Gradients of activations cost as much as the forward pass, those of weights as much again, and a frozen VLM nothing."""
    model = Pi0Config.mid()
    model = replace(model, vision=replace(model.vision, layers=2), joint=replace(model.joint, layers=4, feature_layer=3))
    forward = sum(forward_flops(model).values())
    names = ("everything", "full_expert", "frozen_siglip_lora_gemma_lora_expert", "frozen_vlm_full_expert")
    cost = {name: update_flops(model, VARIANTS[name]) / forward for name in names}
    assert 2.8 < cost["everything"] < 3.1
    assert 2.0 < cost["full_expert"] < 2.4
    assert 1.5 < cost["frozen_siglip_lora_gemma_lora_expert"] < cost["full_expert"]
    assert 0 < cost["frozen_vlm_full_expert"] < 0.02
    assert update_flops(model, VARIANTS["full_expert"], steps=4) > update_flops(model, VARIANTS["full_expert"])


@pytest.mark.slow
def test_updates_of_the_full_size() -> None:
    """2.6 TFLOP for adapters in all that sees and reads, less than 0.1 for a frozen VLM."""
    model = Pi0Config.open_pi_zero()
    assert update_flops(model, VARIANTS["full_expert"]) / 1e12 == pytest.approx(2.6, rel=0.06)
    assert update_flops(model, VARIANTS["frozen_vlm_full_expert"]) < 0.1e12


def test_a_processor_is_measured() -> None:
    flops, source = peak_flops(torch.device("cpu"), torch.float32)
    assert 1e8 < flops < 1e14 and source.startswith("measured")
