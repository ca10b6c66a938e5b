from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genvla.policy.heads import token_centres, token_weights


@settings(deadline=None, max_examples=50)
@given(u=st.floats(-2, 2), v=st.floats(-2, 2), side=st.integers(2, 16))
def test_token_weights_are_shares_that_meet_in_the_place(u: float, v: float, side: int) -> None:
    weights = token_weights(torch.tensor([[u, v]]), side)[0]
    assert weights.shape == (side * side,) and weights.min() >= 0 and (weights > 0).sum() <= 4
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-4)
    edge = 1 - 1 / side  # the outermost token centres
    wanted = [min(max(place, -edge), edge) for place in (u, v)]
    assert (weights @ token_centres(side)).tolist() == pytest.approx(wanted, abs=1e-4)
