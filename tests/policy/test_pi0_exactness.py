"""What must not change the result: absent cameras, kinds of attention, precision within its bounds, compilation."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genvla.policy.pi0 import Float32Linear, Pi0, Pi0Config
from genvla.policy.processor import PolicyInputs
from tests.policy.references import random_inputs, shake, small

PRESETS = {"open_pi_zero": small(Pi0Config.open_pi_zero()), "openpi": small(Pi0Config.openpi())}
LENGTHS = (9, 4, 7)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model_of(preset: str, **joint: object) -> Pi0:
    config = PRESETS[preset]
    model = Pi0(replace(config, joint=replace(config.joint, **joint)))
    shake(model, seeded(), 0.2)
    return model


def inputs_for(model: Pi0, cameras: list[list[int]] | None = None) -> PolicyInputs:
    mask = torch.tensor(cameras or [[1]] * len(LENGTHS), dtype=torch.bool)
    return random_inputs(model.config, mask, LENGTHS, seeded(1))


def results(model: Pi0, inputs: PolicyInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Velocity and features."""
    config, b = model.config, len(inputs)
    actions = torch.randn(len(LENGTHS), config.horizon, config.action_dim, generator=seeded(2))[:b]
    prefix = model.encode(inputs)
    return model.velocity(actions, torch.linspace(0, 0.9, b), prefix), prefix.features


def assert_same(one: tuple[torch.Tensor, ...], two: tuple[torch.Tensor, ...], tolerance: float = 1e-5) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@torch.no_grad()
@settings(deadline=None, max_examples=15)
@given(rows=st.lists(st.tuples(*[st.booleans()] * 3), min_size=3, max_size=3), preset=st.sampled_from(sorted(PRESETS)))
def test_masked_cameras_equal_dropped_ones(rows: list[tuple[bool, ...]], preset: str) -> None:
    """A batch in which cameras are missing here and there gives each sample what it gets with its own cameras alone, and only
    cameras that some sample has are computed."""
    model = model_of(preset)
    inputs = inputs_for(model, [list(row) for row in rows])
    computed = []
    model.vision_tower.register_forward_pre_hook(lambda module, arguments: computed.append(len(arguments[0])))
    together = results(model, inputs)
    assert computed == [3 * int(inputs.image_mask.any(0).sum())]
    for i, row in enumerate(rows):
        kept = [camera for camera, there in enumerate(row) if there]
        one = inputs[i : i + 1]
        length = int(one.token_mask.sum())
        one = replace(
            one,
            images=one.images[:, kept],
            image_mask=one.image_mask[:, kept],
            tokens=one.tokens[:, :length],  # and padded text equals text without padding
            token_mask=one.token_mask[:, :length],
        )
        prefix = model.encode(one)
        actions = torch.randn(3, model.config.horizon, model.config.action_dim, generator=seeded(2))[i : i + 1]
        alone = model.velocity(actions, torch.linspace(0, 0.9, 3)[i : i + 1], prefix), prefix.features
        assert_same(alone, tuple(x[i : i + 1] for x in together))


@torch.no_grad()
@pytest.mark.parametrize("preset", PRESETS)
def test_pixels_of_absent_cameras_do_not_matter(preset: str) -> None:
    model = model_of(preset)
    inputs = inputs_for(model, [[1, 1], [1, 0], [1, 1]])
    other = inputs.images.clone()
    other[1, 1] = 255 - other[1, 1]
    assert_same(results(model, inputs), results(model, replace(inputs, images=other)), 0.0)


@pytest.mark.parametrize("feature_layer", [2, 3])
def test_fused_attention_equals_plain_in_values_and_gradients(feature_layer: int) -> None:
    one, two = (model_of("openpi", attention=kind, feature_layer=feature_layer) for kind in ("eager", "sdpa"))
    two.load_state_dict(one.state_dict())
    gradients = []
    for model in (one, two):
        velocity, features = results(model, inputs_for(model, [[1, 1], [1, 0], [0, 1]]))
        (velocity.square().mean() + features.square().mean()).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert_same(results(one, inputs_for(one)), results(two, inputs_for(two)))
    assert_same(tuple(gradients[0]), tuple(gradients[1]))


@torch.no_grad()
def test_softcap_is_kept_where_the_fused_kernel_lacks_it() -> None:
    one, two = (model_of("open_pi_zero", attention=kind) for kind in ("eager", "sdpa"))
    assert_same(results(one, inputs_for(one)), results(two, inputs_for(two)), 0.0)
    free = model_of("open_pi_zero", attention="sdpa", softcap=None)
    assert (results(free, inputs_for(free))[0] - results(two, inputs_for(two))[0]).abs().max() > 1e-3


def test_the_last_vlm_layer_is_keys_and_values_unless_features_are_read_after_it() -> None:
    whole, lean = model_of("open_pi_zero"), model_of("open_pi_zero", feature_layer=2)
    lean.load_state_dict({name: whole.state_dict()[name] for name in lean.state_dict()})
    last = "joint_model.mixtures.vlm.layers.2."
    assert {name.removeprefix(last) for name in whole.state_dict().keys() - lean.state_dict().keys()} == {
        "self_attn.q_proj.weight",
        "self_attn.o_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
        "post_attention_layernorm.weight",
    }
    inputs = inputs_for(whole)
    assert_same(results(whole, inputs)[:1], results(lean, inputs)[:1], 0.0)
    results(whole, inputs)[0].sum().backward()
    unused = {name.removeprefix(last) for name, p in whole.named_parameters() if p.grad is not None and not p.grad.any()}
    unused |= {name.removeprefix(last) for name, p in whole.named_parameters() if p.grad is None}
    assert {name for name in unused if "self_attn" in name or "mlp" in name} == {
        "self_attn.q_proj.weight",
        "self_attn.o_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "mlp.down_proj.weight",
    }
    called = []
    whole.joint_model.mixtures["vlm"].layers[2].mlp.register_forward_pre_hook(lambda *_: called.append(1))
    whole.encode(inputs, features=False)
    assert not called


@torch.no_grad()
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
def test_bf16_is_close_to_fp32(preset: str, autocast: bool) -> None:
    """Relative error of velocities (norm) under 2 %, measured 0.3 to 0.8 %; outputs are fp32."""
    exact = model_of(preset).bfloat16().float()  # the same weights
    inputs = inputs_for(exact, [[1, 1], [1, 0], [0, 1]])
    expected = results(exact, inputs)[0]
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            velocity = results(exact, inputs)[0]
    else:
        velocity = results(deepcopy(exact).bfloat16(), inputs)[0]
    assert velocity.dtype == torch.float32
    error = ((velocity - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < 0.02


@torch.no_grad()
def test_actions_and_time_enter_in_fp32_under_bf16_weights() -> None:
    """Steps that bf16 cannot tell apart, three parts in ten thousand, still move what the action encoder computes first."""
    layer = Float32Linear(7, 16)
    torch.nn.init.normal_(layer.weight, generator=seeded())
    layer = layer.bfloat16()
    x = torch.full((1, 7), 1.0)
    nudged = x + 3e-4
    assert torch.equal(x.bfloat16(), nudged.bfloat16())
    expected = 3e-4 * layer.weight.float().sum(1)
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.testing.assert_close(layer(nudged)[0] - layer(x)[0], expected, atol=1e-6, rtol=1e-2)
    model, times = model_of("openpi").bfloat16(), []
    model.action_encoder.register_forward_pre_hook(lambda module, arguments: times.append(arguments))
    results(model, inputs_for(model))
    assert all(x.dtype == torch.float32 for x in times[0])


def shallow_model(preset: str) -> Pi0:
    """Less for the compiler to do."""
    config = PRESETS[preset]
    joint = replace(config.joint, layers=2, feature_layer=2)
    model = Pi0(replace(config, vision=replace(config.vision, layers=1), joint=joint))
    shake(model, seeded(), 0.2)
    return model


@torch.no_grad()
def test_what_is_compiled_follows_weights_and_cameras() -> None:
    """A copy of a compiled model computes with its own weights, and other cameras are another shape. With a backend that takes
    the functions apart but generates no code, so that the test needs no minutes; for real below."""
    model = shallow_model("openpi")
    inputs = inputs_for(model, [[1, 1], [1, 0], [0, 1]])
    fewer = replace(inputs, image_mask=torch.tensor([[True, False]]).expand(3, 2))
    expected = [results(model, seen) for seen in (inputs, fewer)]
    model.compile_functions(backend="eager")
    compiled = [results(model, seen) for seen in (inputs, fewer)]
    for result, eager in zip(compiled, expected, strict=True):
        assert_same(result, eager, 1e-6)  # not to the last bit: the activation is written with a sigmoid there
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.mul_(1.1)
    assert (results(copy, inputs)[0] - expected[0][0]).abs().max() > 1e-2
    for seen, result in zip((inputs, fewer), compiled, strict=True):
        assert_same(results(model, seen), result, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_compiled_equals_eager(preset: str) -> None:
    """Values and gradients within 1e-5, by torch.compile's default backend."""
    model = shallow_model(preset)
    inputs = inputs_for(model, [[1, 1], [1, 0], [0, 1]])

    def run() -> tuple[torch.Tensor, ...]:
        model.zero_grad()
        velocity, features = results(model, inputs)
        (velocity.square().mean() + features.square().mean()).backward()
        return velocity.detach(), features.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)

    eager = run()
    model.compile_functions()
    torch._dynamo.utils.counters.clear()
    assert_same(run(), eager)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # encode and velocity, each in one piece
