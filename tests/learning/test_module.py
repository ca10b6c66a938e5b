from __future__ import annotations

import pytest
import torch

from genvla.errors import UserError
from genvla.learning.rollouts import Decisions
from genvla.seeding import derive_seed, generator
from genvla.types import EpisodeSpec
from tests.learning.toy import ToyEnv, small_policy, toy_module


def decisions(policy) -> Decisions:
    inputs = policy.processor(ToyEnv(16).reset(lambda slot, k: EpisodeSpec("toy", derive_seed(slot))))
    inputs.privileged[:, :3] += torch.linspace(-0.05, 0.05, 16)[:, None]
    with torch.no_grad():
        out = policy.act(inputs, generator=generator("cpu", 0))
    draws = torch.Generator().manual_seed(1)
    return Decisions(inputs, out.chain, out.log_prob, torch.randn(16, generator=draws), torch.rand(16, generator=draws))


def test_grounding_adds_its_weighted_loss_and_trains_the_sight() -> None:
    policy = small_policy(grounding=True)
    batch = decisions(policy)
    plain, _ = toy_module(policy).ppo_loss(batch)
    loss, metrics = toy_module(policy, grounding_weight=0.3).ppo_loss(batch)
    grounding, distance = policy.grounding_loss(batch.inputs)
    assert loss.item() == pytest.approx(plain.item() + 0.3 * grounding.item(), rel=1e-5)
    assert metrics["position_error_m"].item() == pytest.approx(distance.item(), rel=1e-5)
    assert metrics["ratio_mean"].item() == pytest.approx(1, abs=1e-5)

    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        toy_module(policy, grounding_weight=1.0, ratio_power=0.0).ppo_loss(batch)[0].backward()
        optimizer.step()
    assert policy.grounding_loss(batch.inputs)[1] < 0.7 * distance


def test_grounding_wants_a_policy_that_has_learnt_it() -> None:
    policy = small_policy()
    with pytest.raises(UserError, match=r"heads\.grounding"):
        toy_module(policy, grounding_weight=0.3).ppo_loss(decisions(policy))
