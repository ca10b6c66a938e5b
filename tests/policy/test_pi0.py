from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.policy.attention import attend, rotary_angles, rotate
from genvla.policy.gemma import rms_normalise
from genvla.policy.pi0 import Pi0, Pi0Config, flow_pair, sinusoid


def uncached_velocity(model: Pi0, inputs, actions: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
    """One pass over all tokens with a full [query, key] mask and no cache, from the description of open-pi-zero."""
    config, joint = model.config, model.joint_model
    vlm, expert = joint.mixtures["vlm"], joint.mixtures["action"]
    text = model.embed_tokens(inputs.tokens) * config.joint.vlm.width**0.5
    tokens = torch.cat((model.image_tokens(inputs.images), text), dim=1)
    valid = torch.cat((inputs.image_mask.repeat_interleave(config.vision.tokens, 1), inputs.token_mask), 1)
    time = sinusoid(tau, config.joint.action.width, config.time_max_period)
    suffix = (
        torch.cat((model.proprio_encoder(inputs.proprio)[:, None], model.action_encoder(actions, time)), 1) * config.suffix_scale
    )
    b, n = valid.shape
    count = n + suffix.shape[1]
    mask = torch.zeros(b, count, count, dtype=torch.bool)
    mask[:, :, :n] = valid[:, None]
    mask[:, n, n] = True
    mask[:, n + 1 :, n:] = True
    base = torch.zeros(b, 1) if config.positions == "restart" else valid.sum(1, keepdim=True)
    positions = torch.cat((valid.cumsum(1), base + torch.arange(1, suffix.shape[1] + 1)), 1).long()
    angles, heads = rotary_angles(positions, config.joint.head_dim, 10_000.0), config.joint.heads

    def angles_of(part: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the first `part` positions, or of the last if negative."""
        return tuple(a[:, :part] if part > 0 else a[:, part:] for a in angles)

    for layer, expert_layer in zip(vlm.layers, expert.layers, strict=True):
        normed, expert_normed = layer.input_layernorm(tokens), expert_layer.input_layernorm(suffix)
        has_queries = hasattr(layer, "mlp")
        queries = layer.queries(normed, angles_of(n)) if has_queries else torch.zeros(b, n, heads, config.joint.head_dim)
        query = torch.cat((queries, expert_layer.queries(expert_normed, angles_of(-suffix.shape[1]))), 1)
        vlm_key, vlm_value = layer.keys_values(normed, angles_of(n))
        expert_key, expert_value = expert_layer.keys_values(expert_normed, angles_of(-suffix.shape[1]))
        key, value = torch.cat((vlm_key, expert_key), 1), torch.cat((vlm_value, expert_value), 1)
        repeats = config.joint.heads // config.joint.kv_heads
        key, value = key.repeat_interleave(repeats, 2), value.repeat_interleave(repeats, 2)
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(config.joint.head_dim)
        logits = config.joint.softcap * torch.tanh(logits / config.joint.softcap)
        weights = logits.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, value).flatten(2)
        suffix = expert_layer.finish(suffix, mixed[:, n:])
        if has_queries:
            tokens = layer.finish(tokens, mixed[:, :n])
    return model.action_decoder(expert.normalise(suffix[:, 1:]))


@pytest.mark.parametrize("positions", ["restart", "continue"])
@pytest.mark.parametrize("feature_layer", [2, 3])
def test_cached_equals_uncached(small_policy, inputs_of, positions: str, feature_layer: int) -> None:
    joint = small_policy().model_config.joint
    policy = small_policy(joint=replace(joint, feature_layer=feature_layer), positions=positions, suffix_scale=3.0)
    inputs = inputs_of(policy)
    actions, tau = torch.randn(5, 4, 7), torch.rand(5)
    expected = uncached_velocity(policy.pi0, inputs, actions, tau)
    for features in (True, False):
        prefix = policy.pi0.encode(inputs, features=features)
        torch.testing.assert_close(policy.pi0.velocity(actions, tau, prefix), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["restart", "continue"])
def test_padding_changes_nothing(small_policy, inputs_of, positions: str) -> None:
    policy = small_policy(positions=positions)
    inputs = inputs_of(policy)
    longest = int(inputs.token_mask.sum(1).max())
    trimmed = replace(inputs, tokens=inputs.tokens[:, :longest], token_mask=inputs.token_mask[:, :longest])
    garbage = torch.where(inputs.token_mask, inputs.tokens, 77)
    other_camera = torch.randint(0, 256, inputs.images.shape, dtype=torch.uint8)
    padded = replace(
        inputs,
        tokens=garbage,
        images=torch.cat((inputs.images, other_camera), 1),
        image_mask=torch.tensor([True, False]).expand(5, 2),
    )
    chain = torch.randn(5, 2, 4, 7)
    results = [policy.evaluate_actions(x, chain) for x in (trimmed, inputs, padded)]
    for result in results[1:]:
        torch.testing.assert_close(result.log_prob, results[0].log_prob, atol=2e-4, rtol=1e-5)
        torch.testing.assert_close(result.value, results[0].value, atol=1e-5, rtol=1e-5)
    errors = [policy.grounding_loss(x)[0] for x in (trimmed, inputs, padded)]
    torch.testing.assert_close(torch.stack(errors), errors[0].expand(3))


def test_instruction_image_and_proprio_all_matter(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)
    actions, tau = torch.randn(5, 4, 7), torch.rand(5)

    def velocity(changed) -> torch.Tensor:
        return policy.pi0.velocity(actions, tau, policy.pi0.encode(changed))

    base = velocity(inputs)
    for change in (
        {"tokens": inputs.tokens.roll(1, 0), "token_mask": inputs.token_mask.roll(1, 0)},
        {"images": inputs.images.roll(1, 0)},
        {"proprio": inputs.proprio.roll(1, 0)},
    ):
        assert (velocity(replace(inputs, **change)) - base).abs().amax() > 1e-3
    assert (policy.pi0.velocity(actions, tau + 0.3, policy.pi0.encode(inputs)) - base).abs().amax() > 1e-3


@given(tau=st.floats(0, 0.999), seed=st.integers(0, 100))
def test_flow_pair_can_be_inverted(tau: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise, actions = torch.randn(2, 4, 7, generator=generator).double(), torch.randn(2, 4, 7, generator=generator).double()
    time, sigma = torch.full((2,), tau, dtype=torch.float64), 0.001
    noisy, velocity = flow_pair(noise, actions, time, sigma)
    torch.testing.assert_close(noisy - tau * velocity, noise)
    torch.testing.assert_close((1 - sigma) * noisy + (1 - (1 - sigma) * tau) * velocity, actions)


def test_flow_loss_is_the_error_of_the_velocity(small_policy, inputs_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a velocity that is zero, the loss is the mean square of the target: E(a1^2) + (1 - sigma)^2; and tau has its law."""
    policy = small_policy()
    prefix = policy.pi0.encode(inputs_of(policy))
    taus = []

    def zero(actions: torch.Tensor, tau: torch.Tensor, prefix: object) -> torch.Tensor:
        taus.append(tau)
        return torch.zeros_like(actions)

    monkeypatch.setattr(policy.pi0, "velocity", zero)
    actions = torch.full((20_000, 4, 7), 0.5)
    loss = policy.pi0.flow_loss(actions, prefix, torch.Generator().manual_seed(0))
    assert loss.item() == pytest.approx(0.25 + 0.999**2, rel=0.01)
    sampled = taus[0].double()
    assert sampled.min() >= 0 and sampled.max() < 0.999
    reference = 0.999 * (1 - torch.distributions.Beta(1.5, 1.0).sample((200_000,)).double())
    for level in (0.1, 0.5, 0.9):
        assert sampled.quantile(level).item() == pytest.approx(reference[:100_000].quantile(level).item(), abs=0.01)


def test_integrate_is_exact_on_a_straight_flow(small_policy, inputs_of, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy()
    prefix, noise, goal = policy.pi0.encode(inputs_of(policy)), torch.randn(5, 4, 7), torch.randn(5, 4, 7)
    monkeypatch.setattr(policy.pi0, "velocity", lambda actions, tau, prefix: (goal - actions) / (1 - tau[:, None, None]))
    for steps in (1, 3, 10):
        torch.testing.assert_close(policy.pi0.integrate(noise, prefix, steps), goal, atol=1e-5, rtol=1e-5)


def test_prefix_repeat_keeps_samples_apart(small_policy, inputs_of) -> None:
    policy = small_policy()
    prefix, actions, tau = policy.pi0.encode(inputs_of(policy)), torch.randn(5, 4, 7), torch.rand(5)
    repeated = policy.pi0.velocity(actions.repeat_interleave(3, 0), tau.repeat_interleave(3), prefix.repeat(3))
    torch.testing.assert_close(repeated[1::3], policy.pi0.velocity(actions, tau, prefix), atol=1e-5, rtol=1e-5)


def test_features_ignore_padding_and_are_normalised(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)
    prefix = policy.pi0.encode(inputs)
    torch.testing.assert_close(rms_normalise(prefix.hidden), prefix.hidden, atol=1e-4, rtol=1e-4)
    sample = int(inputs.token_mask[1].sum()) + policy.model_config.vision.tokens
    torch.testing.assert_close(prefix.features[1, :48], prefix.hidden[1, :sample].mean(0))


def test_overfits_a_batch(small_policy, inputs_of) -> None:
    policy = small_policy(draws=8)
    inputs, actions = inputs_of(policy), torch.rand(5, 4, 7) * 2 - 1
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        losses = policy.imitation_losses(inputs, actions, generator)
        optimizer.zero_grad()
        (losses.flow + losses.grounding).backward()
        optimizer.step()
    reached = policy.pi0.integrate(torch.zeros(5, 4, 7), policy.pi0.encode(inputs), 10)
    assert (reached - actions).abs().mean() < 0.15
    assert policy.grounding_loss(inputs)[1] < 0.03


@pytest.mark.parametrize("change", [{"kv_heads": 3}, {"head_dim": 7}, {"feature_layer": 0}, {"feature_layer": 9}])
def test_impossible_shapes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match="model.joint"):
        Pi0Config(joint=replace(Pi0Config().joint, **change))


def test_wrong_image_size_is_refused(small_policy, inputs_of) -> None:
    policy = small_policy()
    inputs = inputs_of(policy)
    with pytest.raises(UserError, match="want 16 x 16"):
        policy.pi0.encode(replace(inputs, images=inputs.images[:, :, :8]))


def test_rotary_attention_depends_on_distance_only() -> None:
    query, key = torch.randn(1, 4, 1, 8), torch.randn(1, 4, 1, 8)
    value, positions = torch.randn(1, 4, 1, 8), torch.tensor([[0, 3, 4, 9]])
    results = []
    for shift in (0, 11):
        angles = rotary_angles(positions + shift, 8, 10_000.0)
        results.append(attend(rotate(query, angles), rotate(key, angles), value))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)
