"""Folders that transformers itself writes, loaded by us, compute what transformers computes."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from genvla.policy.checkpoints import load_policy
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import PolicyInputs
from tests.policy.layouts import small_config
from tests.policy.references import as_transformers, exact_frequencies, from_transformers, shake, transformers_pi0


def test_pi0_as_transformers_saves_it(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    config = small_config(Pi0Config.openpi())
    model = transformers_pi0(config)
    shake(model, generator)
    exact_frequencies(model)
    model.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.model_config == config
    state, expected = policy.pi0.state_dict(), from_transformers(model)
    assert state.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in state.items())

    noise = torch.randn(2, 50, 32, generator=generator)
    inputs = PolicyInputs(
        images=torch.randint(0, 256, (2, 2, 28, 28, 3), dtype=torch.uint8, generator=generator),
        image_mask=torch.tensor([[True, True], [True, False]]),
        tokens=torch.tensor([[2, 7, 108, 0], [2, 9, 11, 108]]),
        token_mask=torch.tensor([[True, True, True, False], [True, True, True, True]]),
        proprio=torch.randn(2, 32, generator=generator),
    )
    with torch.no_grad():
        ours = policy.pi0.integrate(noise, policy.pi0.encode(inputs, features=False), 10)
        theirs = model.sample_actions(**as_transformers(inputs, config), noise=noise, num_steps=10)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_paligemma_as_transformers_saves_it(tmp_path: Path) -> None:
    text = {"model_type": "gemma", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 300,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}  # fmt: skip
    vision = {"model_type": "siglip_vision_model", "hidden_size": 72, "intermediate_size": 20, "num_hidden_layers": 2,
              "num_attention_heads": 1, "image_size": 28, "patch_size": 14, "vision_use_head": False}  # fmt: skip
    config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=32, image_token_id=299)
    generator = torch.Generator().manual_seed(0)
    model = PaliGemmaForConditionalGeneration(config).eval()
    shake(model, generator)
    model.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.model_config.joint.softcap == 50.0  # put to use in open-pi-zero's conventions
    assert torch.equal(policy.pi0.embed_tokens.weight, model.model.language_model.embed_tokens.weight)
    images = torch.randint(0, 256, (2, 1, 28, 28, 3), dtype=torch.uint8, generator=generator)
    pixels = images[:, 0].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        features = model.model.multi_modal_projector(model.model.vision_tower(pixels).last_hidden_state)
        torch.testing.assert_close(policy.pi0.image_tokens(images), features, atol=1e-5, rtol=1e-5)
