from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal

from genvla.learning.losses import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    explained_variance,
    gaussian_entropy,
    powered_ratio,
    value_loss,
)
from genvla.seeding import generator
from tests.learning.toy import ToyEnv, small_policy

floats = st.floats(-5, 5, width=32)


@pytest.mark.parametrize("steps", [1, 3])
def test_log_prob_of_a_chain_is_the_product_of_its_gaussians(steps: int) -> None:
    policy = small_policy()
    policy.integration_steps = steps
    env = ToyEnv(5)
    from genvla.types import EpisodeSpec

    inputs = policy.processor(env.reset(lambda slot, k: EpisodeSpec("toy", slot)))
    chain = policy.act(inputs, generator=generator("cpu", 1)).chain
    evaluation = policy.evaluate_actions(inputs, chain)
    prefix = policy.pi0.encode(inputs)
    expected = Independent(Normal(0.0, torch.ones(4, 7)), 2).log_prob(chain[:, 0])
    for k in range(steps):
        mean = chain[:, k] + policy.pi0.velocity(chain[:, k], torch.full((5,), k / steps), prefix) / steps
        sigma = evaluation.log_sigma[:, k].exp()
        expected = expected + Independent(Normal(mean, sigma), 2).log_prob(chain[:, k + 1])
    torch.testing.assert_close(evaluation.log_prob, expected, rtol=1e-5, atol=1e-3)


@given(st.lists(st.tuples(floats, floats), min_size=1, max_size=8), st.floats(0.05, 1))
def test_powered_ratio_is_the_ratio_to_a_power(pairs: list[tuple[float, float]], power: float) -> None:
    now, old = torch.tensor(pairs, dtype=torch.float64).T
    torch.testing.assert_close(powered_ratio(now, old, power), (now.exp() / old.exp()) ** power)


def test_an_absurd_ratio_stays_finite() -> None:
    assert powered_ratio(torch.tensor([1e4, -1e4]), torch.zeros(2), 0.2).isfinite().all()
    assert approximate_kl(torch.tensor([1e4]), torch.zeros(1)).isfinite()


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "objective", "gradient"),
    [
        (0.0, 2.0, 2.0, True),  # inside the bounds
        (1.0, 2.0, 2.4, False),  # risen enough
        (1.0, -2.0, -2.0 * math.e, True),  # risen though it is bad: no clipping in the way
        (-1.0, 2.0, 2.0 / math.e, True),  # fallen though it is good
        (-1.0, -2.0, -1.6, False),  # fallen enough
    ],
)
def test_branches_of_the_clipped_loss(log_ratio: float, advantage: float, objective: float, gradient: bool) -> None:
    now = torch.tensor([log_ratio], requires_grad=True)
    loss = clipped_policy_loss(powered_ratio(now, torch.zeros(1), 1.0), torch.tensor([advantage]), clip=0.2)
    assert loss.item() == pytest.approx(-objective, rel=1e-6)
    loss.backward()
    assert (now.grad.item() != 0) == gradient


def test_clipping_acts_on_the_powered_ratio() -> None:
    log_ratio = torch.tensor([0.8, 1.0])  # to the power 0.2: 1.174 and 1.221
    ratio = powered_ratio(log_ratio, torch.zeros(2), 0.2)
    assert clip_fraction(ratio, 0.2).item() == 0.5
    assert clipped_policy_loss(ratio, torch.ones(2), 0.2).item() == pytest.approx(-(math.exp(0.16) + 1.2) / 2)


def test_approximate_kl_estimates_the_divergence_of_gaussians() -> None:
    old, now = Normal(0.0, 1.0), Normal(0.3, 1.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = old.sample((200_000,))
    estimate = approximate_kl(now.log_prob(x), old.log_prob(x)).item()
    assert estimate == pytest.approx(torch.distributions.kl_divergence(old, now).item(), rel=0.02)


def test_value_loss_entropy_and_explained_variance() -> None:
    value, returns = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 2.0, 6.0])
    assert value_loss(value, returns).item() == pytest.approx(0.5 * 5 / 3)
    assert explained_variance(returns, returns).item() == 1.0
    assert explained_variance(torch.full((3,), 9.0), returns).item() == pytest.approx(0.0, abs=1e-6)
    assert explained_variance(-returns, returns).item() == pytest.approx(-3.0)
    assert explained_variance(value, torch.ones(3)).item() == 0.0
    log_sigma = torch.tensor([[-2.0, -2.5]])
    assert gaussian_entropy(log_sigma).item() == pytest.approx(Normal(0.0, log_sigma.exp()).entropy().mean().item())
