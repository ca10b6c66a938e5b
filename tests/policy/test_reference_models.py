"""Our blocks against transformers' on shared random weights, and the real layout's size and names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import GemmaConfig, GemmaModel, SiglipVisionConfig, SiglipVisionModel

from genvla.policy.attention import attend, mask_bias
from genvla.policy.gemma import JointConfig, JointTransformer, MixtureConfig
from genvla.policy.pi0 import Pi0, Pi0Config, openpi_sinusoid, sinusoid
from genvla.policy.processor import PolicyInputs
from genvla.policy.siglip import Siglip, SiglipConfig


def shake(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
def test_siglip_equals_transformers(kind: str) -> None:
    reference = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=12,
            patch_size=4,
            vision_use_head=False,
        )
    ).eval()
    shake(reference)
    ours = Siglip(SiglipConfig(12, 4, 32, 2, 4, 40, stem="patch", stem_channels=(), coordinate_channels=False, attention=kind))
    weights = reference.state_dict()
    ours.load_state_dict({k if k.startswith("vision_model.") else f"vision_model.{k}": v for k, v in weights.items()})
    pixels = torch.rand(3, 3, 12, 12) * 2 - 1
    torch.testing.assert_close(ours(pixels), reference(pixels).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize("stream", ["vlm", "action"])
def test_both_mixtures_equal_gemma(kind: str, stream: str) -> None:
    reference = GemmaModel(
        GemmaConfig(
            vocab_size=8,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            attn_implementation="eager",
        )
    ).eval()
    shake(reference)
    mixture, other = MixtureConfig(24, 40), MixtureConfig(16, 16)
    vlm, action = (mixture, other) if stream == "vlm" else (other, mixture)
    ours = JointTransformer(JointConfig(vlm, action, 3, 4, 2, 8, feature_layer=3, attention=kind))
    weights = {k: v for k, v in reference.state_dict().items() if not k.startswith("embed_tokens")}
    ours.mixtures[stream].load_state_dict(weights)
    x = torch.randn(2, 6, 24)
    full, positions = torch.zeros(2, 1, 6, 6), torch.arange(6).expand(2, -1)
    expected = reference(inputs_embeds=x, attention_mask=full, position_ids=positions).last_hidden_state
    if stream == "vlm":
        result = ours.context(x, torch.ones(2, 6, dtype=torch.bool), features=True).hidden
    else:
        context = ours.context(torch.zeros(2, 1, 16), torch.ones(2, 1, dtype=torch.bool), features=False)
        empty = ours.prefix(context, torch.zeros(2, 1, 24), continue_positions=False, features=False)
        nothing = replace(
            empty, keys=tuple(k[:, :0] for k in empty.keys), values=tuple(v[:, :0] for v in empty.values), mask=empty.mask[:, :0]
        )
        result = ours.actions(x, nothing)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_eager_and_sdpa_agree_on_grouped_heads_and_masks() -> None:
    query, key, value = torch.randn(3, 5, 6, 8), torch.randn(3, 7, 2, 8), torch.randn(3, 7, 2, 8)
    allowed = torch.rand(3, 7) < 0.6
    allowed[:, 0] = True
    bias = mask_bias(allowed, torch.float32)
    torch.testing.assert_close(attend(query, key, value, bias, kind="eager"), attend(query, key, value, bias, kind="sdpa"))


def test_softcap_bounds_logits() -> None:
    query, key = torch.full((1, 1, 1, 4), 100.0), torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4) * 100
    value = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    weight = attend(query, key, value, softcap=1.0)[0, 0, 0]
    assert weight.item() == pytest.approx(1 / (1 + torch.e**-2), abs=1e-5)  # logits +1 and -1


PARTS = {
    "embed_tokens": 526_778_368,
    "vision_tower": 412_442_352,
    "multi_modal_projector": 2_361_344,
    "joint_model.mixtures.vlm": 1_981_882_368,
    "joint_model.mixtures.action": 311_464_960,
    "proprio_encoder": 8_192,
    "action_encoder": 3_155_968,
    "action_decoder": 7_175,
}
"""Parameters of open-pi-zero's Bridge checkpoints by part (github.com/allenzren/open-pi-zero, shapes of its modules)."""


def on_meta(config: Pi0Config) -> Pi0:
    with torch.device("meta"):
        return Pi0(config)


def count(model: Pi0, *prefixes: str) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefixes))


def test_open_pi_zero_layout() -> None:
    model = on_meta(Pi0Config.open_pi_zero())
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {part: count(model, part + ".") for part in PARTS} == PARTS
    assert count(model, "") == sum(PARTS.values()) == 3_238_100_727
    assert len(shapes) == 938 - 163  # the checkpoint's 938 keys count the aliased expert's 163 twice
    expert = ("joint_model.mixtures.action.", "action_encoder.", "action_decoder.", "proprio_encoder.")
    assert count(model, *expert) == 314_636_295
    assert shapes["vision_tower.vision_model.embeddings.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert shapes["vision_tower.vision_model.encoder.layers.26.self_attn.out_proj.bias"] == (1152,)
    assert shapes["multi_modal_projector.linear.weight"] == (2048, 1152)
    assert shapes["joint_model.mixtures.vlm.layers.17.mlp.down_proj.weight"] == (2048, 16384)
    assert shapes["joint_model.mixtures.action.layers.0.self_attn.o_proj.weight"] == (1024, 2048)
    assert shapes["action_encoder.linear_2.weight"] == (1024, 2048)
    assert shapes["embed_tokens.weight"] == (257216, 2048)


def test_open_pi_zero_without_what_nothing_reads() -> None:
    """With features taken before the last layer, its VLM part is keys, values and one norm."""
    config = Pi0Config.open_pi_zero()
    model = on_meta(replace(config, joint=replace(config.joint, feature_layer=17)))
    unused = 2 * 2048 * 2048 + 3 * 2048 * 16384 + 2048
    assert count(model, "") == 3_238_100_727 - unused == 3_129_046_775
    vlm = count(model, "vision_tower.", "multi_modal_projector.", "joint_model.mixtures.vlm.")
    # open-pi-zero's own count, 2,291,302,128, leaves out v_proj, which is read, and keeps q_proj, which is not.
    assert vlm + 2048 * 2048 - 2048 * 256 == 2_291_302_128


def test_openpi_and_mid_layouts() -> None:
    shapes = {name: tuple(p.shape) for name, p in on_meta(Pi0Config.openpi()).named_parameters()}
    assert shapes["embed_tokens.weight"] == (257152, 2048)
    assert shapes["joint_model.mixtures.vlm.norm.weight"] == (2048,)
    assert shapes["proprio_encoder.weight"] == shapes["action_encoder.linear_1.weight"] == (1024, 32)
    assert shapes["action_decoder.weight"] == (32, 1024)
    mid = Pi0Config.mid()
    assert mid.vision.tokens == Pi0Config.open_pi_zero().vision.tokens == 256
    assert 60e6 < count(on_meta(mid), "") < 120e6
    assert mid.joint.vlm.width / mid.joint.action.width == 2 and mid.vision.width / mid.joint.vlm.width == 1152 / 2048


@pytest.mark.parametrize("preset", ["open_pi_zero", "openpi"])
def test_full_size_shapes_run_on_the_meta_device(preset: str) -> None:
    """At no cost; three cameras, as openpi has."""
    config = getattr(Pi0Config, preset)()
    model = on_meta(config)
    inputs = PolicyInputs(
        torch.zeros(2, 3, 224, 224, 3, dtype=torch.uint8),
        torch.ones(2, 3, dtype=torch.bool),
        torch.zeros(2, 20, dtype=torch.long),
        torch.ones(2, 20, dtype=torch.bool),
        torch.zeros(2, config.proprio_dim),
    ).to("meta")
    prefix = model.encode(inputs)
    assert len(prefix.keys) == 18 and prefix.keys[0].shape == (2, 3 * 256 + 20 + 1, 1, 256)
    assert prefix.features.shape == (2, 2048 + 1024)
    actions = torch.zeros(2, config.horizon, config.action_dim, device="meta")
    assert model.velocity(actions, torch.zeros(2, device="meta"), prefix).shape == actions.shape


def test_time_embeddings_match_published_values() -> None:
    ours = sinusoid(torch.tensor([0.5]), 1024, 10_000.0)[0]
    expected = {0: 0.479426, 1: 0.471569, 100: 0.082357, 511: 5.0e-5, 512: 0.877583, 513: 0.881829}
    for index, value in expected.items():
        assert ours[index].item() == pytest.approx(value, abs=2e-6)
    assert sinusoid(torch.tensor([0.5]).bfloat16(), 1024, 10_000.0).dtype == torch.float32
    theirs = openpi_sinusoid(torch.tensor([0.5]), 1024)[0]
    for index, value in {1: 0.900485, 100: 0.822128, 511: 0.707107, 513: -0.434887}.items():
        assert theirs[index].item() == pytest.approx(value, abs=2e-6)
