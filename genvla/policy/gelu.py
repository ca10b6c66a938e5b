"""The activation of both transformers' MLPs and of the convolutional stem."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def gelu(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """GELU in its tanh approximation (arXiv 1606.08415). Without a gradient it overwrites x, the output of a layer that nothing
    else reads: at full size the largest tensor of all, whose memory is slower to get than to fill."""
    if torch.compiler.is_compiling():
        # (1 + tanh u) / 2 is the sigmoid of 2u, which a CPU computes several times as fast; compiled, all this is one loop.
        u = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return x * torch.sigmoid(2 * u)
    if torch.is_grad_enabled():
        return F.gelu(x, approximate="tanh")
    return torch.ops.aten.gelu_(x, approximate="tanh")


class Gelu(nn.Module):
    """`gelu` as a layer."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return gelu(x)
