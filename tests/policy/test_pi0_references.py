"""pi0 as a whole against independent computations on shared random weights: transformers' pi0 and open-pi-zero's formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from genvla.policy.pi0 import Pi0, Pi0Config
from genvla.policy.processor import PolicyInputs
from tests.policy.references import (
    OpenPiZero,
    as_transformers,
    exact_frequencies,
    from_transformers,
    random_inputs,
    shake,
    small,
    transformers_pi0,
)

SCALE = 0.2
"""Of the weights: attention logits of order one, velocities too."""

CAMERAS = {
    1: [[1], [1], [1], [1]],
    2: [[1, 1], [1, 0], [0, 1], [1, 1]],
    3: [[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]],
    "absent": [[1, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]],
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# openpi and lerobot: transformers' own model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openpi() -> tuple[Pi0, torch.nn.Module]:
    """Ours and transformers', with the same weights."""
    config = small(Pi0Config.openpi())
    theirs = transformers_pi0(config)
    shake(theirs, seeded(), SCALE)
    ours = Pi0(config)
    ours.load_state_dict(from_transformers(theirs))
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize("cameras", CAMERAS)
def test_openpi_equals_transformers(openpi, cameras: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Velocity, loss and ten integration steps, within 1e-5; with their own, coarser time features within 2e-4."""
    ours, theirs = openpi
    mask = torch.tensor(CAMERAS[cameras], dtype=torch.bool)
    inputs = random_inputs(ours.config, mask, (9, 4, 7, 2), seeded(1))
    arguments = as_transformers(inputs, ours.config)
    noise, actions = torch.randn(4, 50, 32, generator=seeded(2)), torch.randn(4, 50, 32, generator=seeded(3))
    time = torch.tensor([0.0625, 0.375, 0.75, 1.0])  # theirs, 1 is noise; 1 - time is exact
    prefix = ours.encode(inputs)
    velocity = ours.velocity(noise, 1 - time, prefix)

    coarse = -theirs(**arguments, noise=noise, timestep=time).logits
    torch.testing.assert_close(velocity, coarse, atol=2e-4, rtol=0)
    embedding = theirs.embed_action_time.sinusoid_embeds
    monkeypatch.setattr(embedding, "forward", embedding.forward)  # put back afterwards
    exact_frequencies(theirs)
    exact = -theirs(**arguments, noise=noise, timestep=time).logits
    assert exact.std() > 0.3
    torch.testing.assert_close(velocity, exact, atol=1e-5, rtol=1e-5)
    loss = theirs(**arguments, noise=noise, timestep=time, actions=actions).loss
    torch.testing.assert_close(ours.flow_loss_at(actions, noise, 1 - time, prefix), loss, atol=0, rtol=1e-6)
    sampled = theirs.sample_actions(**arguments, noise=noise, num_steps=10)
    torch.testing.assert_close(ours.integrate(noise, prefix, 10), sampled, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"suffix_scale": 4.0},
        {"time_direction": "forward"},
        {"time_embedding": "open_pi_zero"},
        {"time_max_period": 100.0},
        {"time_min_period": 0.04},
        {"time_first": True},
        {"positions": "restart"},
        {"softcap": 2.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_convention_of_openpi_matters(openpi, change: dict) -> None:
    """With one of them changed, the comparison above would fail by far."""
    ours, _ = openpi
    config = ours.config
    softcap = {"joint": replace(config.joint, softcap=change["softcap"])} if "softcap" in change else change
    assert deviation(ours, Pi0(replace(config, **softcap))) > 5e-3


@torch.no_grad()
def test_sigma_min_shapes_the_loss(openpi) -> None:
    ours, _ = openpi
    other = Pi0(replace(ours.config, sigma_min=0.05))
    other.load_state_dict(ours.state_dict())
    inputs = random_inputs(ours.config, torch.ones(2, 1, dtype=torch.bool), (3, 5), seeded(1))
    noise, actions, tau = torch.randn(2, 50, 32, generator=seeded(2)), torch.ones(2, 50, 32), torch.tensor([0.2, 0.7])
    losses = [model.flow_loss_at(actions, noise, tau, model.encode(inputs)).item() for model in (ours, other)]
    assert abs(losses[0] - losses[1]) > 1e-3


# open-pi-zero: its formulas in float64 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["one camera", "two cameras"])
def open_pi_zero(request: pytest.FixtureRequest) -> tuple[Pi0, PolicyInputs]:
    config = small(Pi0Config.open_pi_zero())
    ours = Pi0(config)
    shake(ours, seeded(), SCALE)
    mask = torch.ones(3, 1 if request.param == "one camera" else 2, dtype=torch.bool)
    return ours, random_inputs(config, mask, (9, 4, 1), seeded(1))


@torch.no_grad()
def test_open_pi_zero_equals_its_formulas(open_pi_zero) -> None:
    """Encode, velocity and ten integration steps in fp32 against float64 without a cache, within 2e-6 and 5e-6."""
    ours, inputs = open_pi_zero
    reference = OpenPiZero(ours.state_dict(), ours.config)
    noise, tau = torch.randn(3, 4, 7, generator=seeded(2)), torch.tensor([0.0, 0.31, 0.9])
    for features in (True, False):
        prefix = ours.encode(inputs, features=features)
        velocity, sampled = ours.velocity(noise, tau, prefix), ours.integrate(noise, prefix, 10)
        for i in range(3):
            tokens = inputs.tokens[i, inputs.token_mask[i]].numpy()
            observed = (inputs.images[i].double().numpy(), tokens, inputs.tokens.shape[1], inputs.proprio[i].double().numpy())
            start = noise[i].double().numpy()
            expected = reference.velocity(*observed, start, float(tau[i]))
            assert np.std(expected) > 0.2
            np.testing.assert_allclose(velocity[i].numpy(), expected, atol=2e-6, rtol=1e-5)
            path = reference.integrate(start, 10, lambda x, t, seen=observed: reference.velocity(*seen, x, t))
            np.testing.assert_allclose(sampled[i].numpy(), path, atol=5e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"suffix_scale": 1.0},
        {"time_direction": "backward"},
        {"time_embedding": "openpi"},
        {"time_max_period": 100.0},
        {"time_first": False},
        {"positions": "continue"},
        {"softcap": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_convention_of_open_pi_zero_matters(open_pi_zero, change: dict) -> None:
    ours, _ = open_pi_zero
    config = ours.config
    softcap = {"joint": replace(config.joint, softcap=change["softcap"])} if "softcap" in change else change
    assert deviation(ours, Pi0(replace(config, **softcap))) > 1e-3


def deviation(model: Pi0, other: Pi0) -> float:
    """Largest difference of velocities when `other` gets the model's weights."""
    other.load_state_dict(model.state_dict())
    config = model.config
    inputs = random_inputs(config, torch.ones(2, 1, dtype=torch.bool), (9, 4), seeded(1))
    actions = torch.randn(2, config.horizon, config.action_dim, generator=seeded(2))
    tau = torch.tensor([0.2, 0.7])
    one, two = (m.velocity(actions, tau, m.encode(inputs)) for m in (model, other))
    assert math.isfinite(two.sum().item())
    return (one - two).abs().max().item()
