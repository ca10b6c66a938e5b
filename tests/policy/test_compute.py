"""Activation checkpointing, compilation and reduced precision change how a policy is computed, not what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from genvla.policy.activation_checkpointing import CheckpointedLayer, checkpoint_activations
from genvla.policy.finetuning import Finetuning, apply_finetuning
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.pi0 import Pi0Config
from genvla.policy.processor import PolicyInputs
from tests.policy.variants import REAL_LAYOUT, inputs_for, moved, policy_of

MIXED = Finetuning("lora", "lora", "lora", "full", lora_rank=4)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def adapted(model: Pi0Config = REAL_LAYOUT, steps: int = 2) -> FlowPolicy:
    policy = policy_of(model, steps=steps)
    apply_finetuning(policy, MIXED)
    return moved(policy)


def update(policy: FlowPolicy, inputs: PolicyInputs, chain: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor], int]:
    """Evaluation, gradients, and the bytes that autograd keeps for the way back."""
    policy.zero_grad(set_to_none=True)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = sum(parameter.nbytes for parameter in policy.parameters())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for parameter in policy.parameters():
            pack(parameter)
        evaluation = policy.evaluate_actions(inputs, chain)
        loss = evaluation.log_prob.sum() + evaluation.value.sum() + evaluation.log_sigma.sum()
    loss.backward()
    return evaluation, {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}, sum(kept.values()) - own


@pytest.mark.parametrize("model", [Pi0Config.tiny(), REAL_LAYOUT])
def test_activation_checkpointing_keeps_less_and_changes_no_bit(model: Pi0Config) -> None:
    policy = adapted(model)
    inputs = inputs_for(policy)
    chain = policy.act(inputs, generator=seeded()).chain
    plain, wanted, much = update(policy, inputs, chain)
    checkpoint_activations(policy)
    frugal, found, little = update(policy, inputs, chain)
    assert torch.equal(frugal.log_prob, plain.log_prob)
    assert set(found) == set(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert little < (0.6 if model is REAL_LAYOUT else 0.9) * much
    checkpoint_activations(policy, enabled=False)
    assert update(policy, inputs, chain)[2] == much


def test_every_layer_can_be_checkpointed() -> None:
    joint, vision = REAL_LAYOUT.joint, REAL_LAYOUT.vision
    layers = [module for module in policy_of().modules() if isinstance(module, CheckpointedLayer)]
    assert len(layers) == 2 * joint.layers + vision.layers


def spied(policy: FlowPolicy, sizes: set[int]) -> list[int]:
    """Compiles; returns the list that the sizes of compiled calls to velocity are added to."""
    calls: list[int] = []
    policy.pi0.compile_functions(sizes=sizes)
    inner = policy.pi0._compiled["_velocity"]

    def spy(*tensors: Any) -> torch.Tensor:
        calls.append(len(tensors[1]))
        return inner(*tensors)

    policy.pi0._compiled["_velocity"] = spy
    return calls


def test_batches_of_other_sizes_are_filled_up_or_left_uncompiled() -> None:
    policy = adapted()
    inputs = inputs_for(policy, batch=12)
    chain = policy.act(inputs, generator=seeded()).chain
    wanted = [policy.evaluate_actions(inputs[:n], chain[:n]) for n in (10, 9, 4, 12)]
    calls = spied(policy, {10})
    for rows, expected, ran in zip((10, 9, 4, 12), wanted, ([10, 10], [10, 10], [], []), strict=True):
        calls.clear()
        with torch.compiler.set_stance("force_eager"):  # which sizes are compiled is the question, not the compiler
            found = policy.evaluate_actions(inputs[:rows], chain[:rows])
        assert calls == ran
        assert found.log_prob.shape == (rows,) and found.log_sigma.shape == (rows, 2, 4, 7)
        torch.testing.assert_close(found.log_prob, expected.log_prob, atol=1e-4, rtol=0)


def test_rows_that_only_fill_up_get_no_gradient() -> None:
    policy = adapted()
    inputs = inputs_for(policy, batch=9)
    chain = policy.act(inputs, generator=seeded()).chain
    _, wanted, _ = update(policy, inputs, chain)
    calls = spied(policy, {10})
    with torch.compiler.set_stance("force_eager"):
        _, found, _ = update(policy, inputs, chain)
    assert calls == [10, 10]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("frugal", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_equals_eager(backend: str, frugal: bool) -> None:
    """With adapters, and with activation checkpointing: log-probabilities to 1e-3 nats, gradients to 1e-3."""
    policy = adapted(steps=1)
    inputs = inputs_for(policy, batch=8)
    chain = policy.act(inputs, generator=seeded()).chain
    evaluation, wanted, _ = update(policy, inputs, chain)
    checkpoint_activations(policy, frugal)
    policy.pi0.compile_functions(sizes={8}, backend=backend)
    compiled, found, _ = update(policy, inputs, chain)
    torch.testing.assert_close(compiled.log_prob, evaluation.log_prob, atol=1e-3, rtol=0)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("asked", "known", "passed"),
    [
        ({}, ["realize_cpu_opcount_threshold"], {"mode": None, "options": {"realize_cpu_opcount_threshold": 1}}),
        ({"mode": "default"}, ["realize_cpu_opcount_threshold"], {"mode": None, "options": {"realize_cpu_opcount_threshold": 1}}),
        ({"mode": "default"}, [], {"mode": None, "options": {}}),
        ({"mode": "reduce-overhead"}, ["realize_cpu_opcount_threshold"], {"mode": "reduce-overhead"}),
        ({"backend": "eager"}, ["realize_cpu_opcount_threshold"], {"mode": None, "backend": "eager"}),
    ],
)
def test_a_cpu_stores_what_several_read_if_torch_can(
    asked: dict[str, Any], known: list[str], passed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.compile takes a mode or options, not both, and refuses options that this torch does not have."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(torch._inductor, "list_options", lambda: known)
    monkeypatch.setattr(torch, "compile", lambda function, **options: seen.append(options))
    policy_of(REAL_LAYOUT).pi0.compile_functions(**asked)
    assert seen == 3 * [{"dynamic": False, **passed}]


@pytest.mark.slow
def test_a_compiled_decision_of_one_step_is_the_same() -> None:
    """The tiny policy as a robot asks it: one observation, K = 1, by torch.compile's own code generator."""
    policy = policy_of(Pi0Config.tiny())
    inputs, noise = inputs_for(policy, batch=1), torch.randn(1, 4, 7, generator=seeded())
    wanted = policy.act(inputs, noise=noise, deterministic=True)
    policy.pi0.compile_functions()
    torch._dynamo.utils.counters.clear()
    found = policy.act(inputs, noise=noise, deterministic=True)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # encode and velocity, each in one piece
    torch.testing.assert_close(found.chain, wanted.chain, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.value, wanted.value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_what_is_kept_of_the_encoding_enters_a_compiled_policy() -> None:
    policy = policy_of(steps=2)
    apply_finetuning(policy, Finetuning("frozen", "frozen", "frozen", "lora", lora_rank=4))
    moved(policy)
    inputs = inputs_for(policy, batch=8)
    chain = policy.act(inputs, generator=seeded()).chain
    evaluation, wanted, _ = update(policy, inputs, chain)
    policy.pi0.compile_functions(sizes={8}, backend="aot_eager")
    compiled, found, _ = update(policy, policy.keep_frozen(inputs), chain)
    torch.testing.assert_close(compiled.log_prob, evaluation.log_prob, atol=1e-4, rtol=0)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_reduced_precision_leaves_chains_and_probabilities_in_fp32(precision: str, steps: int) -> None:
    """Noise, samples and log-probabilities are fp32 even where new tensors are bf16 by default, as under Fabric's bf16-true; the
    ratio of a batch to itself is then exactly 1, and to its own rows in other company within 0.3 nats."""
    policy = adapted(steps=steps)
    exact = policy.act(inputs := inputs_for(policy, batch=8), generator=seeded())
    if precision == "bf16-true":
        policy.to(torch.bfloat16)
        torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            output = policy.act(inputs, generator=seeded())
            same = policy.evaluate_actions(inputs, output.chain)
            parts = torch.cat([policy.evaluate_actions(inputs[i : i + 3], output.chain[i : i + 3]).log_prob for i in (0, 3, 6)])
    finally:
        torch.set_default_dtype(torch.float32)
    kinds = {output.chain.dtype, output.log_prob.dtype, output.value.dtype, same.log_prob.dtype, same.log_sigma.dtype}
    assert kinds == {torch.float32}
    assert torch.equal(output.chain[:, 0], exact.chain[:, 0])  # all its digits are there
    assert not torch.equal(output.chain, output.chain.bfloat16().float())
    assert torch.equal(same.log_prob, output.log_prob)
    torch.testing.assert_close(parts, output.log_prob, atol=0.3, rtol=0)
    assert (output.chain - exact.chain).abs().mean() < 0.05
