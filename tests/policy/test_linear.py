"""The linear layer that computes as a convolution, beside torch's own."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch.nn import functional as F

from genvla.policy import linear
from genvla.policy.linear import Linear

ENOUGH = (linear.SAMPLES, 32, 160)
"""Samples, tokens and features with which a layer of 256 outputs convolves."""


@pytest.fixture
def convolutions(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """What has been convolved."""
    seen: list[torch.Size] = []
    convolve = F.conv2d

    def conv2d(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return convolve(x, *rest)

    monkeypatch.setattr(F, "conv2d", conv2d)
    return seen


@pytest.mark.skipif(not linear.ONEDNN, reason="torch was built without oneDNN")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("contiguous", [False, True])
def test_values_and_gradients_are_those_of_a_matrix_product(convolutions: list[torch.Size], bias: bool, contiguous: bool) -> None:
    torch.manual_seed(0)
    layer, x = Linear(ENOUGH[-1], 256, bias=bias), torch.randn(ENOUGH)
    x = x if contiguous else x.transpose(0, 1).contiguous().transpose(0, 1)
    exact, inputs = copy.deepcopy(layer).double(), x.double().requires_grad_()
    x.requires_grad_()
    found, wanted = layer(x), F.linear(inputs, exact.weight, exact.bias)
    assert convolutions == [(ENOUGH[0], ENOUGH[2], ENOUGH[1], 1)]
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
    pairs = [(x.grad, inputs.grad), *((a.grad, b.grad) for a, b in zip(layer.parameters(), exact.parameters(), strict=True))]
    for ours, theirs in pairs:
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((ENOUGH[0] - 1, 64, 160), id="too few samples"),
        pytest.param((ENOUGH[0], 2, 160), id="too few products"),
        pytest.param((ENOUGH[0] * 32, 160), id="no tokens"),
    ],
)
def test_what_gains_nothing_is_left_to_torch(convolutions: list[torch.Size], shape: tuple[int, ...]) -> None:
    layer, x = Linear(160, 256), torch.randn(shape)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not convolutions


def test_other_precisions_are_left_to_torch(convolutions: list[torch.Size]) -> None:
    layer, x = Linear(160, 256), torch.randn(ENOUGH)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert not convolutions


def test_adapters_merge_into_it(convolutions: list[torch.Size]) -> None:
    torch.manual_seed(0)
    model = peft.get_peft_model(
        torch.nn.Sequential(Linear(160, 256)), peft.LoraConfig(r=4, target_modules=["0"], init_lora_weights=False)
    )
    x = torch.randn(ENOUGH)
    with torch.no_grad():
        adapted = model(x)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(x), adapted, atol=1e-5, rtol=1e-5)
    assert isinstance(merged[0], Linear) and len(convolutions) == 2 * linear.ONEDNN


def test_it_compiles_without_a_break() -> None:
    layer, x = Linear(160, 256), torch.randn(ENOUGH)
    found = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)
