from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.policy.heads import HeadsConfig, NoiseHead, scale_privileged
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import ProcessorConfig
from genvla.types import PRIVILEGED_NAMES


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_ratio_is_one_before_an_update(small_policy, inputs_of, steps: int) -> None:
    policy = small_policy(steps=steps)
    inputs = inputs_of(policy)
    output = policy.act(inputs, generator=seeded())
    assert output.chain.shape == (5, steps + 1, 4, 7)
    evaluation = policy.evaluate_actions(inputs, output.chain)
    torch.testing.assert_close(evaluation.log_prob, output.log_prob, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(evaluation.value, output.value)
    assert evaluation.log_prob.dtype == torch.float32 and evaluation.log_sigma.shape == (5, steps, 4, 7)


def test_chain_density_is_the_product_of_gaussians(small_policy, inputs_of) -> None:
    policy = small_policy(steps=3)
    inputs = inputs_of(policy)
    chain = torch.randn(5, 4, 4, 7)
    prefix = policy.pi0.encode(inputs)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(chain[:, 0].double()).sum((1, 2))
    for k in range(3):
        tau = torch.full((5,), k / 3)
        mean = chain[:, k] + policy.pi0.velocity(chain[:, k], tau, prefix) / 3
        sigma = policy.noise_head(chain[:, k], prefix.features, tau).exp()
        expected += torch.distributions.Normal(mean.double(), sigma.double()).log_prob(chain[:, k + 1].double()).sum((1, 2))
    evaluation = policy.evaluate_actions(inputs, chain)
    torch.testing.assert_close(evaluation.log_prob.double(), expected, atol=1e-2, rtol=1e-5)


def test_samples_have_the_stated_mean_and_spread(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)[torch.zeros(1000, dtype=torch.long)]
    output = policy.act(inputs, generator=seeded())
    mean, log_sigma = policy._step(output.chain[:, 0], 0, (prefix := policy.pi0.encode(inputs)), prefix.features)
    standard = (output.chain[:, 1] - mean) / log_sigma.exp()
    assert standard.mean(0).abs().max() < 5 / math.sqrt(1000)
    assert (standard.std(0) - 1).abs().max() < 5 / math.sqrt(2000)


def test_deterministic_and_given_start(small_policy, inputs_of) -> None:
    policy = small_policy(steps=2)
    inputs = inputs_of(policy)
    zero = policy.act(inputs, noise=torch.zeros(5, 4, 7), deterministic=True)
    again = policy.act(inputs, noise=torch.zeros(5, 4, 7), deterministic=True)
    torch.testing.assert_close(zero.chain, again.chain, atol=0, rtol=0)
    assert not zero.chain[:, 0].any()
    mean = policy.act(inputs, generator=seeded(1), deterministic=True)
    ode = policy.integrate(inputs, 2, seeded(1))
    torch.testing.assert_close(mean.actions, ode)
    sampled = policy.act(inputs, generator=seeded(1))
    assert not torch.equal(sampled.chain[:, 1], mean.chain[:, 1])
    torch.testing.assert_close(sampled.chain[:, 0], mean.chain[:, 0])


def test_actions_are_physical_and_bounded(small_policy, inputs_of) -> None:
    policy = small_policy()
    with torch.no_grad():
        policy.pi0.action_decoder.weight.mul_(20)
    output = policy.act(inputs_of(policy), generator=seeded())
    assert output.chain[:, -1, :, :6].abs().max() > 1  # raw samples stay as they were drawn
    low, high = (torch.tensor(getattr(policy.processor.statistics, f"action_p{p}"))[:6] for p in ("01", "99"))
    assert (output.actions[..., :6] >= low - 1e-6).all() and (output.actions[..., :6] <= high + 1e-6).all()
    assert set(output.actions[..., 6].unique().tolist()) <= {0.0, 1.0}


def test_heads_do_not_train_the_trunk(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)
    chain = policy.act(inputs, generator=seeded()).chain
    evaluation = policy.evaluate_actions(inputs, chain)
    (evaluation.value.sum() + evaluation.log_sigma.sum()).backward()
    assert all(p.grad is None for p in policy.pi0.parameters())
    assert all(p.grad is not None for p in (*policy.noise_head.parameters(), *policy.value_head.parameters()))
    policy.evaluate_actions(inputs, chain).log_prob.sum().backward()
    assert all(p.grad is not None for p in policy.pi0.parameters())  # nothing in the trunk is dead weight


def test_no_gradient_passes_from_one_step_to_another(small_policy, inputs_of) -> None:
    """The gradient of the chain's density is the sum of the gradients of the densities of its steps, each on its own."""
    policy = small_policy(steps=2)
    inputs, chain = inputs_of(policy), torch.randn(5, 3, 4, 7)
    weight = policy.pi0.action_decoder.weight
    whole = torch.autograd.grad(policy.evaluate_actions(inputs, chain).log_prob.sum(), weight)[0]
    prefix, parts = policy.pi0.encode(inputs), []
    for k in range(2):
        mean, log_sigma = policy._step(chain[:, k].clone(), k, prefix, prefix.features)
        density = torch.distributions.Normal(mean, log_sigma.exp()).log_prob(chain[:, k + 1]).sum()
        parts.append(torch.autograd.grad(density, weight, retain_graph=True)[0])
    torch.testing.assert_close(whole, sum(parts), atol=1e-2, rtol=1e-4)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scale=st.floats(0, 1e4), tau=st.floats(0, 1), seed=st.integers(0, 1000))
def test_noise_stays_within_its_bounds(scale: float, tau: float, seed: int) -> None:
    config = HeadsConfig()
    head = NoiseHead(config, 24, 4, 7)
    generator = seeded(seed)
    actions, features = torch.randn(3, 4, 7, generator=generator) * scale, torch.randn(3, 24, generator=generator) * scale
    first = head(actions, features, torch.full((3,), tau))
    torch.testing.assert_close(first, torch.full_like(first, -2.25))
    torch.nn.init.normal_(head.layers[-1].weight, std=3.0)
    moved = head(actions, features, torch.full((3,), tau))
    assert moved.min() >= -2.5 and moved.max() <= -2.0 and moved.std() > 0


def test_privileged_critic(small_policy, inputs_of) -> None:
    policy = small_policy(HeadsConfig(value_input="privileged"))
    inputs = inputs_of(policy)
    value = policy.act(inputs, generator=seeded()).value
    other_images = replace(inputs, images=inputs.images.roll(1, 0))
    torch.testing.assert_close(policy.act(other_images, generator=seeded()).value, value)
    assert not torch.allclose(
        policy.act(replace(inputs, privileged=inputs.privileged.roll(1, 0)), generator=seeded()).value, value
    )
    late = inputs.privileged.clone()
    late[:, PRIVILEGED_NAMES.index("time_left")] = 0
    assert (value != 0).all() and (policy.act(replace(inputs, privileged=late), generator=seeded()).value == 0).all()
    assert policy.act(replace(inputs, privileged=None), generator=seeded()).value.isnan().all()
    with pytest.raises(UserError, match="want the 23"):
        policy.act(replace(inputs, privileged=inputs.privileged[:, :5]), generator=seeded())


def test_privileged_scaling_by_name() -> None:
    values = torch.zeros(1, len(PRIVILEGED_NAMES))
    names = list(PRIVILEGED_NAMES)
    for name, value in {
        "target_x": 0.43,
        "destination_z": 0.05,
        "ee_to_target_z": 0.3,
        "time_left": 0.5,
        "target_sin_2yaw": -1.0,
    }.items():
        values[0, names.index(name)] = value
    scaled = dict(zip(names, scale_privileged(values)[0].tolist(), strict=True))
    assert scaled["target_x"] == pytest.approx(1.0)
    assert scaled["destination_z"] == pytest.approx(0.0, abs=1e-6)
    assert scaled["ee_to_target_z"] == pytest.approx(2.0)
    assert scaled["time_left"] == 0.5 and scaled["target_sin_2yaw"] == -1.0 and scaled["gripper"] == 0.0


def test_grounding_trains_the_trunk_and_needs_labels(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)
    policy.grounding_loss(inputs)[0].backward()
    assert policy.pi0.vision_tower.vision_model.post_layernorm.weight.grad.abs().sum() > 0
    assert policy.pi0.embed_tokens.weight.grad.abs().sum() > 0
    with pytest.raises(UserError, match="privileged"):
        policy.grounding_loss(replace(inputs, privileged=None))
    with pytest.raises(UserError, match="heads.grounding"):
        small_policy(HeadsConfig(grounding=False)).grounding_loss(inputs)


def test_imitation_losses_are_the_single_losses(small_policy, inputs_of) -> None:
    policy = small_policy(draws=3)
    inputs, actions = inputs_of(policy), torch.rand(5, 4, 7)
    both = policy.imitation_losses(inputs, actions, seeded())
    torch.testing.assert_close(both.flow, policy.flow_loss(inputs, actions, seeded()))
    grounding, error = policy.grounding_loss(inputs)
    torch.testing.assert_close(both.grounding, grounding)
    torch.testing.assert_close(both.position_error, error)
    plain = small_policy(HeadsConfig(grounding=False)).imitation_losses(inputs, actions, seeded())
    assert plain.grounding == 0 and plain.position_error.isnan()


def test_parts_must_fit_together(small_policy) -> None:
    from genvla.policy.flow_policy import FlowPolicy

    with pytest.raises(UserError, match="processor.image_size: found 32"):
        FlowPolicy(processor=ProcessorConfig(image_size=32))
    with pytest.raises(UserError, match="processor.vocab_size"):
        FlowPolicy(processor=ProcessorConfig(vocab_size=1024))
    with pytest.raises(UserError, match="integration_steps"):
        small_policy(steps=0)


def test_tiny_preset_is_tiny() -> None:
    from genvla.policy.flow_policy import FlowPolicy

    policy = FlowPolicy(Pi0Config.tiny())
    assert 1e6 < sum(p.numel() for p in policy.parameters()) < 3e6
    assert policy.config.integration_steps == 1
