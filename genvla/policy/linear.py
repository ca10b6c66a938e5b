"""The linear layer of both transformers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ONEDNN = torch.backends.mkldnn.is_available()
SAMPLES = 16
"""From this many samples on torch hands a 1x1 convolution to oneDNN, whatever its number of threads."""
PRODUCTS = 1 << 24
"""Multiplications from which its preparations have paid for themselves."""


class Linear(nn.Linear):
    """nn.Linear, in fp32 on a CPU as a convolution where that is faster.

    torch gives fp32 matrix products to MKL, which runs at half speed on processors not made by Intel, and convolutions to oneDNN,
    which does not (docs/benchmarks/policy.md). Tokens times a matrix are a 1x1 convolution of a picture one token wide, stored
    channels last. Nothing is approximated, but sums are taken in another order.
    """

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        if not self._convolves(x):
            return F.linear(x, self.weight, self.bias)
        picture = x.unsqueeze(2).permute(0, 3, 1, 2)
        return F.conv2d(picture, self.weight[:, :, None, None], self.bias).permute(0, 2, 3, 1).squeeze(2)

    def _convolves(self, x: Tensor) -> bool:
        return (
            x.dim() == 3
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and len(x) >= SAMPLES
            and x.numel() * self.out_features >= PRODUCTS
            and ONEDNN
            and not torch.is_autocast_enabled("cpu")
        )
