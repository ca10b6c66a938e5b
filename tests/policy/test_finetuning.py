from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from genvla.errors import UserError
from genvla.policy.adapters import adapted_layers, has_adapters, merged
from genvla.policy.checkpoints import load_config, load_policy, save_policy
from genvla.policy.finetuning import LINEAR_LAYERS, Finetuning, apply_finetuning, count_parameters, part_of
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0 import Pi0, Pi0Config
from genvla.policy.processor import ProcessorConfig
from tests.policy.variants import NAMES, REAL_LAYOUT, inputs_for, moved, policy_of, variant

MODES = st.sampled_from(["frozen", "lora", "full"])
LORA_EVERYWHERE = Finetuning("lora", "lora", "lora", "lora", lora_rank=4)


def full_size() -> FlowPolicy:
    with torch.device("meta"):
        return FlowPolicy(Pi0Config.open_pi_zero(), HeadsConfig(grounding=False), ProcessorConfig(image_size=224))


def decide(policy: FlowPolicy, cameras: int = 1) -> torch.Tensor:
    output = policy.act(inputs_for(policy, cameras=cameras), generator=torch.Generator().manual_seed(0))
    return torch.cat((output.chain.flatten(1), output.log_prob[:, None], output.value[:, None]), dim=1)


def test_at_full_size_the_counts_are_the_known_ones() -> None:
    """open-pi-zero's layers less the five that nothing reads, which are 284; its own count, v_proj for q_proj, is 54,742,016."""
    policy = full_size()
    apply_finetuning(policy, variant("full_expert"))
    counts = count_parameters(policy)
    assert len(adapted_layers(policy)) == 284
    assert sum(count["adapters"] for count in counts.values()) == 54_684_672
    assert counts["expert"] == {"trainable": 314_636_295, "adapters": 0, "total": 314_636_295}
    assert sum(counts[part]["trainable"] for part in ("vision", "projector", "vlm")) == 54_684_672


@pytest.mark.parametrize(("rank", "millions"), [(8, 13.7), (16, 27.3), (64, 109.4)])
def test_at_full_size_other_ranks(rank: int, millions: float) -> None:
    policy = full_size()
    apply_finetuning(policy, Finetuning("lora", "lora", "lora", "full", lora_rank=rank))
    assert round(sum(count["adapters"] for count in count_parameters(policy).values()) / 1e6, 1) == millions


@pytest.mark.parametrize("preset", ["tiny", "mid", "open_pi_zero", "openpi"])
def test_every_linear_layer_belongs_to_one_part(preset: str) -> None:
    with torch.device("meta"):
        model = Pi0(getattr(Pi0Config, preset)())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            parts = [part for part, pattern in LINEAR_LAYERS.items() if re.fullmatch(pattern, name)]
            assert parts == [part_of(f"{name}.weight")], name


@given(vision=MODES, projector=MODES, vlm=MODES, expert=MODES)
@settings(max_examples=25)
def test_what_trains_is_what_was_asked_for(vision: str, projector: str, vlm: str, expert: str) -> None:
    policy = policy_of()
    before = decide(policy)
    apply_finetuning(policy, Finetuning(vision, projector, vlm, expert, lora_rank=2))  # type: ignore[arg-type]
    torch.testing.assert_close(decide(policy), before, atol=1e-6, rtol=0)
    asked = {"vision_tower": vision, "multi_modal_projector": projector, "action": expert, "proprio": expert}
    last = "pi0.joint_model.mixtures.vlm.layers.2."
    for name, parameter in policy.named_parameters():
        mode = next((mode for key, mode in asked.items() if key in name), "full" if name.split(".")[0] != "pi0" else vlm)
        adapter = "lora_" in name
        assert not (adapter and mode != "lora"), name
        unread = name.startswith(last) and not re.search("k_proj|v_proj|input_layernorm", name)
        assert parameter.requires_grad is (not unread and (mode == "full" or (mode == "lora" and adapter))), name


def test_gradients_reach_what_trains_and_nothing_that_is_left_out() -> None:
    """Asked of autograd itself, with everything trainable."""
    policy = policy_of(steps=2)
    apply_finetuning(policy, LORA_EVERYWHERE)
    moved(policy)
    trains = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    policy.requires_grad_(True)
    inputs = inputs_for(policy)
    chain = policy.act(inputs, generator=torch.Generator().manual_seed(0)).chain
    evaluation = policy.evaluate_actions(inputs, chain)
    (evaluation.log_prob.sum() + evaluation.value.sum() + evaluation.log_sigma.sum()).backward()
    moving = {name for name, parameter in policy.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert trains <= moving
    unread = {name for name, _ in policy.named_parameters()} - moving
    names = {re.sub(r"\.(weight|bias)$", "", name.removeprefix("pi0.joint_model.mixtures.vlm.layers.2.")) for name in unread}
    gates = {f"mlp.{name}_proj" for name in ("gate", "up", "down")}
    # Biases of keys shift all logits alike.
    assert {name for name in names if "vision_tower" not in name} == {
        "self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", *gates
    }  # fmt: skip
    assert all("k_proj" in name for name in names if "vision_tower" in name)


def test_grounding_keeps_the_last_layer_in_training() -> None:
    for grounding, rest in ((True, 0), (False, 5)):
        policy = policy_of(grounding=grounding)
        apply_finetuning(policy, variant("full_expert"))
        assert len(adapted_layers(policy)) == 6 * 2 + 1 + 7 * 3 - rest


def test_adapters_follow_from_the_seed_and_draw_nothing_else() -> None:
    state = torch.random.get_rng_state()
    policies = [policy_of() for _ in range(3)]
    for policy, seed in zip(policies, (3, 3, 4), strict=True):
        apply_finetuning(policy, LORA_EVERYWHERE, seed)
    assert torch.equal(state, torch.random.get_rng_state())
    first, again, other = (policy.state_dict() for policy in policies)
    drawn = [name for name in first if "lora_A" in name]
    assert drawn and all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    bound = first["pi0.joint_model.mixtures.vlm.layers.0.self_attn.q_proj.lora_A.default.weight"].abs().max()
    assert 0.9 / 8 < bound <= 1 / 8  # 64 inputs


def test_scale_is_alpha_over_rank() -> None:
    policy = policy_of()
    apply_finetuning(policy, LORA_EVERYWHERE)
    assert {layer.scaling["default"] for layer in adapted_layers(policy).values()} == {1.0}
    apply_finetuning(policy, Finetuning(vlm="lora", lora_rank=4, lora_alpha=2.0))
    assert {layer.scaling["default"] for layer in adapted_layers(policy).values()} == {0.5}


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_policy_decides_the_same_bits(tmp_path: Path, name: str) -> None:
    policy = policy_of()
    apply_finetuning(policy, variant(name))
    moved(policy)
    save_policy(policy, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    assert torch.equal(decide(again), decide(policy))
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in policy.state_dict().items()
    }
    apply_finetuning(again, variant(name))
    assert torch.equal(decide(again), decide(policy))
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in policy.parameters()]


def test_plain_peft_reads_the_adapters(tmp_path: Path) -> None:
    from peft import PeftModel

    policy = policy_of()
    apply_finetuning(policy, LORA_EVERYWHERE)
    moved(policy)
    save_policy(policy, tmp_path)
    base = FlowPolicy.from_config(load_config(tmp_path))
    base.load_state_dict(load_file(tmp_path / "model.safetensors"))
    fresh = decide(base)
    wrapped = PeftModel.from_pretrained(base.pi0, tmp_path)
    assert not [name for name, parameter in wrapped.named_parameters() if parameter.requires_grad]
    inputs, actions, tau = inputs_for(policy), torch.randn(5, 4, 7), torch.rand(5)
    found = wrapped.get_base_model()
    velocity = found.velocity(actions, tau, found.encode(inputs))
    assert torch.equal(velocity, policy.pi0.velocity(actions, tau, policy.pi0.encode(inputs)))
    assert not torch.allclose(decide(base), fresh)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["lora_dropout"] == 0


def test_adapters_that_plain_peft_wrote_load(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = policy_of()
    save_policy(base, tmp_path)
    names = ["k_proj", "gate_proj", "action_decoder"]
    wrapped = get_peft_model(base.pi0, LoraConfig(r=3, lora_alpha=6, target_modules=names, init_lora_weights=False))
    wrapped.save_pretrained(tmp_path)
    assert torch.equal(decide(load_policy(tmp_path)), decide(base))


def test_merging_gives_a_plain_policy_that_does_the_same(tmp_path: Path) -> None:
    policy = policy_of()
    plain = set(policy.state_dict())
    apply_finetuning(policy, LORA_EVERYWHERE)
    before = decide(policy)
    moved(policy)
    copy = merged(policy)
    assert set(copy.state_dict()) == plain and not has_adapters(copy) and has_adapters(policy)
    torch.testing.assert_close(decide(copy), decide(policy), atol=1e-4, rtol=1e-5)
    assert not torch.allclose(decide(copy), before, atol=1e-2)
    save_policy(copy, tmp_path)
    assert torch.equal(decide(load_policy(tmp_path)), decide(copy))
    assert not (tmp_path / "adapter_config.json").exists()


def test_another_variant_begins_with_what_the_first_has_learnt() -> None:
    policy = policy_of()
    apply_finetuning(policy, LORA_EVERYWHERE)
    learnt = decide(moved(policy))
    apply_finetuning(policy, variant("frozen_vlm_full_expert"))
    assert not has_adapters(policy)
    torch.testing.assert_close(decide(policy), learnt, atol=1e-4, rtol=1e-5)
    apply_finetuning(policy, variant("full_expert"))
    torch.testing.assert_close(decide(policy), learnt, atol=1e-4, rtol=1e-5)
    apply_finetuning(policy, Finetuning())
    assert not has_adapters(policy)


def test_frozen_weights_in_bf16_and_trained_ones_in_fp32() -> None:
    policy = policy_of().to(torch.bfloat16)
    apply_finetuning(policy, Finetuning("frozen", "lora", "lora", "full", 4, trainable_dtype="float32"))
    kinds = {(parameter.requires_grad, parameter.dtype) for parameter in policy.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert decide(policy).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert decide(policy).isfinite().all()
    wide = policy_of()
    apply_finetuning(wide, Finetuning("frozen", "full", "frozen", "full", frozen_dtype="bfloat16"))
    assert decide(wide).isfinite().all()


def test_a_copy_shares_nothing() -> None:
    policy = policy_of()
    apply_finetuning(policy, LORA_EVERYWHERE)
    copy, before = deepcopy(policy), decide(policy)
    moved(copy)
    assert torch.equal(decide(policy), before) and not torch.equal(decide(copy), before)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda folder, document: (folder / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder, document: document.update(peft_type="IA3"), "peft_type"),
        (lambda folder, document: document.update(use_dora=True), "use_dora: found True, want False"),
        (lambda folder, document: document.update(r="four"), "found r 'four'"),
        (lambda folder, document: document.update(r=5), "of another shape"),
        (lambda folder, document: document.update(target_modules="nothing_of_the_kind"), "No modules were targeted"),
        (lambda folder, document: document.update(target_modules="("), "target_modules"),
        (lambda folder, document: (folder / "adapter_model.safetensors").unlink(), "cannot be read as safetensors"),
        (lambda folder, document: (folder / "adapter_model.safetensors").write_bytes(b"x" * 99), "cannot be read as safetensors"),
    ],
)
def test_broken_adapters_end_in_one_line(tmp_path: Path, change, wanted: str) -> None:
    policy = policy_of()
    apply_finetuning(policy, LORA_EVERYWHERE)
    save_policy(policy, tmp_path)
    path = tmp_path / "adapter_config.json"
    document = json.loads(path.read_text())
    before = dict(document)
    change(tmp_path, document)
    if document != before:
        path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=re.escape(wanted)) as failure:
        load_policy(tmp_path)
    assert "\n" not in str(failure.value) and str(tmp_path) in str(failure.value)


@pytest.mark.parametrize("wrong", [{"lora_rank": 0}, {"lora_alpha": -1.0}, {"lora_alpha": float("nan")}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Finetuning(**wrong)  # type: ignore[arg-type]


def test_real_layout_has_the_real_names() -> None:
    """What the other tests use is named as the full size is."""
    with torch.device("meta"):
        small, large = Pi0(REAL_LAYOUT), Pi0(Pi0Config.open_pi_zero())
    names = [{re.sub(r"\.\d+\.", ".i.", name) for name in model.state_dict()} for model in (small, large)]
    assert names[0] == names[1]
