"""The small convolutional stem: sizes, what its blocks look at, how they begin."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from genvla.errors import UserError
from genvla.policy.pi0 import Pi0, initialise
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.siglip import ConvBlock, ConvStem, SiglipConfig
from genvla.seeding import generator


@pytest.mark.parametrize("blocks", [(), (0, 1, 1), (2, 0, 1)])
def test_token_grid_does_not_depend_on_blocks(blocks: tuple[int, ...]) -> None:
    stem = ConvStem((5, 32, 64, 96), blocks)
    assert stem(torch.zeros(2, 5, 64, 64)).shape == (2, 96, 8, 8)
    assert sum(isinstance(layer, ConvBlock) for layer in stem) == sum(blocks)


def test_a_block_adds_what_its_neighbourhood_tells() -> None:
    """It sees two pixels to each side. GroupNorm's statistics span the picture, so they are fixed for the look."""
    block = ConvBlock(32)
    x = torch.randn(1, 32, 9, 9, generator=generator("cpu", 0, "x"), requires_grad=True)
    hidden = block.conv(torch.nn.functional.gelu(block.norm1(x), approximate="tanh"))
    expected = x + block.out_conv(torch.nn.functional.gelu(block.norm2(hidden), approximate="tanh"))
    torch.testing.assert_close(block(x), expected)
    block.norm1, block.norm2 = torch.nn.Identity(), torch.nn.Identity()
    block(x)[0, :, 4, 4].sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    assert seen[2:7, 2:7].all() and seen.sum() == 25


def test_blocks_begin_near_the_identity() -> None:
    """As every branch that adds to a residual stream does: `initialise` draws its last layer ten times smaller."""
    pi0 = Pi0(replace(Pi0Config(), vision=replace(SiglipConfig(), stem_blocks=(0, 1, 1))))
    initialise(pi0)
    block = next(part for part in pi0.modules() if isinstance(part, ConvBlock))
    assert block.out_conv.weight.std().item() == pytest.approx(0.1 * block.conv.weight.std().item(), rel=0.05)
    x = torch.randn(4, 64, 16, 16, generator=generator("cpu", 1, "x"))
    assert (block(x) - x).std() < 0.3


@pytest.mark.parametrize("change", [{"stem_blocks": (1, 1)}, {"stem": "patch", "stem_channels": (), "stem_blocks": (0, 1, 1)}])
def test_wrong_number_of_blocks(change: dict) -> None:
    with pytest.raises(UserError, match=r"vision\.stem_blocks: found .* want none, or one for each"):
        replace(SiglipConfig(), **change)


def test_small_pi0_with_blocks_is_still_small() -> None:
    plain, deeper = (
        sum(p.numel() for p in Pi0(replace(Pi0Config(), vision=replace(SiglipConfig(), stem_blocks=blocks))).parameters())
        for blocks in ((), (0, 1, 1))
    )
    convolutions = sum(2 * (9 * width * width + width) + 4 * width for width in (64, 96))
    assert deeper - plain == convolutions
