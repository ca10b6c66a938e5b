"""The activation, as it is computed eagerly and compiled, beside its formula in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from genvla.policy.gelu import gelu


@pytest.mark.parametrize("compiled", [False, True])
def test_gelu_and_its_gradient(compiled: bool) -> None:
    function = torch.compile(gelu, backend="aot_eager") if compiled else gelu
    x = torch.linspace(-12, 12, 4001)
    exact = x.double().requires_grad_()
    wanted = 0.5 * exact * (1 + torch.tanh(math.sqrt(2 / math.pi) * (exact + 0.044715 * exact**3)))
    (slope,) = torch.autograd.grad(wanted.sum(), exact)
    given = x.clone().requires_grad_()
    found = function(given)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient.double(), slope, atol=2e-6, rtol=2e-6)
    with torch.no_grad():
        torch.testing.assert_close(function(x.clone()).double(), wanted.detach(), atol=1e-6, rtol=1e-6)
