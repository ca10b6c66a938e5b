"""The activation of both transformers' MLPs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def gelu(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """GELU in its tanh approximation (arXiv 1606.08415). Without a gradient it overwrites x, the output of a layer that nothing
    else reads: at full size the largest tensor of all, whose memory is slower to get than to fill."""
    if torch.is_grad_enabled():
        return F.gelu(x, approximate="tanh")
    return torch.ops.aten.gelu_(x, approximate="tanh")
