"""The fine-tuning variants in a real PPO update, in the toy world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Fabric
from rich.console import Console

from genvla.cli import COMMANDS, _parser_of, main
from genvla.errors import UserError
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.display import parameter_table
from genvla.learning.fit import check_precision, describe_cache
from genvla.learning.loop import Loop, TrainingConfig
from genvla.learning.runs import HardwareConfig
from genvla.learning.tracking import NO_TRACKING, Tracker
from genvla.policy.checkpoints import load_policy
from genvla.policy.finetuning import Finetuning, apply_finetuning, count_parameters, part_of
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.pi0 import Pi0Config
from tests.learning.toy import ToyData, still_policy, toy_data, toy_module
from tests.policy.variants import FOLDER, NAMES, REAL_LAYOUT, policy_of, variant

KEPT = {"frozen_vlm_lora_expert", "frozen_vlm_full_expert", "frozen_siglip_lora_gemma_lora_expert"}


def loop_of(
    folder: Path,
    policy: FlowPolicy,
    iterations: int = 1,
    data: ToyData | None = None,
    precision: Any = "32-true",
    **settings: Any,
) -> Loop:
    training = TrainingConfig(iterations=iterations, checkpoint_every=2, micro_batch_size=settings.pop("micro_batch_size", None))
    return Loop(
        Fabric(accelerator="cpu", devices=1, precision=precision),
        toy_module(policy, **{"policy_lr": 1e-3, "head_lr": 1e-3, **settings}),
        data or toy_data(num_envs=6, steps=2, minibatch_size=6, epochs=1),
        training,
        Checkpoints(folder / "checkpoints", keep=2),
        Tracker(folder, "toy", tracking_uri=NO_TRACKING),
    )


def trained_once(folder: Path, policy: FlowPolicy, finetuning: Finetuning, **settings: Any) -> set[str]:
    """One iteration of PPO; the names of the parameters whose bytes it changed."""
    apply_finetuning(policy, finetuning)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    loop = loop_of(folder, policy, **settings)
    loop.run()
    return {name for name, value in loop.module.policy.state_dict().items() if not torch.equal(value, before[name])}


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("layout", ["tiny", "real", pytest.param("mid", marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", [*NAMES, "default"])
def test_an_update_changes_what_trains_and_not_a_byte_of_the_rest(tmp_path: Path, name: str, steps: int, layout: str) -> None:
    model = {"tiny": Pi0Config.tiny, "mid": Pi0Config.mid, "real": lambda: REAL_LAYOUT}[layout]()
    policy = policy_of(model, steps=steps)
    finetuning = Finetuning() if name == "default" else variant(name)
    # Two small updates: the gradient of A is zero as long as B is, and that of a clipped ratio is too.
    data = toy_data(num_envs=2, steps=2, minibatch_size=2, epochs=1) if layout == "mid" else None
    changed = trained_once(tmp_path, policy, finetuning, data=data, policy_lr=1e-5, head_lr=1e-5)
    trains = {key for key, parameter in policy.named_parameters() if parameter.requires_grad}
    assert changed <= trains
    # Biases of the vision tower's keys have no gradient, and words that were not said are not learnt.
    still = {key for key in trains - changed if "vision_tower" not in key or "k_proj.bias" not in key}
    assert not still, sorted(still)
    parts = {part_of(key) for key in changed}
    assert {part for part, mode in finetuning.parts.items() if mode == "frozen"}.isdisjoint(parts)
    assert {"expert", "noise_head", "value_head"} <= parts
    (row,) = logged(tmp_path)
    assert {key.removeprefix("update/grad_norm_") for key in row if "grad_norm_" in key} == parts
    # The tiny tower is a convolutional stem, which has nothing to adapt.
    assert (row["rollout/frozen_cache_gib"] > 0) is (name in KEPT or (layout == "tiny" and name != "default"))


@pytest.mark.parametrize("stop", [2, 3])
@pytest.mark.parametrize("name", ["full_expert", "frozen_siglip_lora_gemma_lora_expert"])
def test_resuming_with_adapters_gives_the_same_bits(tmp_path: Path, name: str, stop: int) -> None:
    def begin() -> FlowPolicy:
        policy = still_policy()
        apply_finetuning(policy, variant(name))
        return policy

    settings: dict[str, Any] = {"lr_schedule": "cosine", "iterations": 4}
    whole = loop_of(tmp_path / "whole", begin(), **settings)
    whole.run()
    broken = loop_of(tmp_path / "broken", begin(), **settings)
    for _ in range(stop):
        metrics = broken.iterate()
        broken.iteration += 1
        broken._conclude(metrics)
    policy = load_policy(broken.checkpoints.last)  # type: ignore[arg-type]
    apply_finetuning(policy, variant(name))
    again = loop_of(tmp_path / "broken", policy, **settings)
    assert again.resume() and again.iteration == 2
    again.run()
    first, second = whole.module.policy.state_dict(), again.module.policy.state_dict()
    assert set(first) == set(second) and any("lora_B" in key and value.any() for key, value in first.items())
    assert all(torch.equal(first[key], second[key]) for key in first)
    moments = [[state["exp_avg"] for state in loop.optimizer.state_dict()["state"].values()] for loop in (whole, again)]
    assert len(moments[0]) > 10 and all(torch.equal(a, b) for a, b in zip(*moments, strict=True))


@pytest.mark.parametrize("name", ["frozen_vlm_full_expert", "frozen_siglip_lora_gemma_lora_expert"])
def test_with_and_without_the_cache_the_same_is_learnt(tmp_path: Path, name: str) -> None:
    """After two epochs of two updates, wherever it is kept; also when there is no room for it."""
    states, gib = {}, {}
    for label, settings in {
        "off": {"frozen_cache": "off"},
        "device": {"frozen_cache": "device"},
        "cpu": {"frozen_cache": "cpu"},
        "no room": {"frozen_cache_gib": 1e-6},
    }.items():
        policy = policy_of(steps=2)
        data = toy_data(num_envs=6, steps=2, minibatch_size=6, epochs=2, **settings)
        trained_once(tmp_path / label, policy, variant(name), data=data, policy_lr=1e-4, micro_batch_size=4)
        states[label], gib[label] = policy.state_dict(), logged(tmp_path / label)[0]["rollout/frozen_cache_gib"]
    for label in ("device", "cpu"):
        # Adam's steps are 1e-4 long however small the gradient, whose sign rounding may turn.
        torch.testing.assert_close(states[label], states["off"], atol=2e-4, rtol=0)
    assert all(torch.equal(states["no room"][key], value) for key, value in states["off"].items())
    assert gib["off"] == gib["no room"] == 0 < gib["device"] == gib["cpu"] < 0.01


def test_lost_decisions_are_lost_in_the_cache_too(tmp_path: Path) -> None:
    policy = policy_of()
    apply_finetuning(policy, variant("frozen_vlm_full_expert"))
    data = toy_data(num_envs=6, steps=3, minibatch_size=6, epochs=1)
    data.env.deaths = frozenset({(1, 2)})
    loop = loop_of(tmp_path, policy, data=data)
    data.collect(loop.module, 0)
    decisions = data._decisions
    assert decisions is not None and 0 < len(decisions) < 18 and decisions.inputs.frozen is not None
    with torch.no_grad():
        found = loop.module.evaluate_actions(decisions.inputs, decisions.chain).log_prob
    torch.testing.assert_close(found, decisions.log_prob, atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_before_an_update_the_ratio_is_one_under_reduced_precision(tmp_path: Path, precision: str) -> None:
    """In the first update of an iteration, where only the company of the rows differs."""
    policy = policy_of()
    apply_finetuning(policy, variant("full_expert"))
    loop = loop_of(tmp_path, policy, precision=precision)
    with loop.autocast():
        loop.data.collect(loop.module, 0)
    batch = next(iter(loop.data.train_dataloader()))
    assert batch.chain.dtype == batch.log_prob.dtype == batch.advantage.dtype == torch.float32
    metrics = loop._accumulate(batch, 0)
    assert 0.99 < metrics["ratio_min"].item() <= metrics["ratio_max"].item() < 1.01
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16 if precision == "bf16-true" else torch.float32}
    if precision == "bf16-mixed":
        loop.run()
        assert all(value.isfinite().all() for value in policy.state_dict().values())


def test_frozen_bf16_under_mixed_precision_trains(tmp_path: Path) -> None:
    """The cheapest set-up that loses nothing: bf16 where nothing trains, fp32 where something does."""
    finetuning = Finetuning("lora", "lora", "lora", "full", 4, frozen_dtype="bfloat16", trainable_dtype="float32")
    changed = trained_once(tmp_path, policy_of(), finetuning, precision="bf16-mixed")
    assert {part_of(name) for name in changed} >= {"vision", "projector", "vlm", "expert"}
    assert load_policy(tmp_path / "checkpoints" / "last").pi0.embed_tokens.weight.dtype == torch.bfloat16


def test_precision_that_would_undo_the_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"hardware\.precision: bf16-true found"):
        check_precision(HardwareConfig(precision="bf16-true"), Finetuning(trainable_dtype="float32"))


def test_what_trains_is_shown() -> None:
    policy = policy_of()
    apply_finetuning(policy, variant("full_expert"))
    console = Console(width=100)
    with console.capture() as capture:
        console.print(parameter_table(count_parameters(policy), variant("full_expert")))
    lines = {words[0]: words[1:] for words in map(str.split, capture.get().splitlines()) if words}
    trainable = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert lines["all"] == [
        f"{trainable:,}",
        f"{sum(p.numel() for n, p in policy.named_parameters() if 'lora_' in n):,}",
        f"{sum(p.numel() for p in policy.parameters()):,}",
    ]
    assert lines["vision"][0] == "lora" and lines["expert"][0] == "full" and lines["expert"][2] == "0"


def test_what_is_kept_is_said_beforehand(tmp_path: Path) -> None:
    policy = policy_of()
    apply_finetuning(policy, variant("frozen_vlm_full_expert"))
    loop = loop_of(tmp_path, policy)
    line = describe_cache(loop.fabric, policy, loop.data)  # type: ignore[arg-type]
    loop.run()
    gib = logged(tmp_path)[0]["rollout/frozen_cache_gib"]
    assert line is not None and f"12 decisions = {gib:.3g} GiB, computed once and kept on the training device" in line
    apply_finetuning(policy, Finetuning())
    assert describe_cache(loop.fabric, policy, loop.data) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_is_given_as_a_second_configuration(name: str) -> None:
    """As documented: --config experiment --config variant, and single options after them."""
    parser = _parser_of(COMMANDS["fit"], wanted=True)
    experiment = FOLDER.parent / "ppoflow_cpu.yaml"
    words = ["--config", str(experiment), "--config", str(FOLDER / f"{name}.yaml"), "--finetuning.lora_rank", "8"]
    settings = parser.parse_args(words)
    chosen = parser.instantiate(settings).finetuning
    assert chosen.parts == variant(name).parts and chosen.lora_rank == 8
    assert str(settings.checkpoint) == yaml.safe_load(experiment.read_text())["checkpoint"]


def test_a_misspelt_variant_ends_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("finetuning:\n  vision: forzen\n")
    experiment = str(FOLDER.parent / "smoke.yaml")
    assert main(["fit", "--config", experiment, "--config", str(tmp_path / "x.yaml")]) == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and "finetuning" in message and "forzen" in message
