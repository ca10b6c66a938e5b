from __future__ import annotations

import json
import mmap
from pathlib import Path

import pytest
import torch
import yaml

import genvla.learning.bench_update as bench_update_module
from genvla.cli import main
from genvla.learning.bench_update import MadeUpDecisions, bench_update, peak_since, reset_peak
from genvla.learning.module import PPOFlowModule
from genvla.policy.finetuning import VARIANTS, Finetuning
from genvla.policy.flops import update_flops
from genvla.policy.pi0 import Pi0Config
from genvla.policy.synthetic import fresh_policy

FOLDER = Path(__file__).parents[2] / "configs" / "variants"


def test_variants_are_those_that_are_shipped() -> None:
    shipped = {path.stem: Finetuning(**yaml.safe_load(path.read_text())["finetuning"]) for path in FOLDER.glob("*.yaml")}
    assert shipped | {"everything": Finetuning()} == VARIANTS


def test_updates_are_timed_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "update.json"
    command = ["bench", "update", "--model", "tiny", "--device", "cpu", "--threads", "1", "--rounds", "2"]
    variants = ["--variants", "full_expert,frozen_vlm_lora_expert", "--micro_batch", "2,4"]
    assert main([*command, *variants, "--checkpointing", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert [(row["variant"], row["micro_batch"]) for row in result["updates"]] == [
        ("full_expert", 2),
        ("full_expert", 4),
        ("frozen_vlm_lora_expert", 2),
        ("frozen_vlm_lora_expert", 4),
    ]
    first = result["updates"][0]
    assert first["gflops_per_sample"] == update_flops(Pi0Config.tiny(), VARIANTS["full_expert"]) / 1e9
    middle = sum(first["seconds"]) / 2
    assert first["samples_per_s"] == pytest.approx(2 / middle)
    assert first["utilisation"] == pytest.approx(first["gflops_per_sample"] * 2 / middle / (1e3 * result["peak_tflops"]))
    assert result["peak_from"].startswith("measured")
    assert "full_expert" in capsys.readouterr().out


def test_updates_change_the_policy_and_every_one_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = []
    fresh = bench_update_module.fresh_policy
    monkeypatch.setattr(
        bench_update_module, "fresh_policy", lambda *arguments: policies.append(fresh(*arguments)) or policies[-1]
    )
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in fresh(Pi0Config.tiny()).state_dict().items()}
    torch.manual_seed(0)
    result = bench_update("tiny", micro_batch="2", device="cpu", threads=1, rounds=3, variants="frozen_vlm_full_expert")
    assert len(result["updates"][0]["seconds"]) == 3
    after = policies[0].state_dict()
    moved = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert any(name.startswith("pi0.joint_model.mixtures.action") for name in moved)
    assert not any(name.startswith("pi0.vision_tower") for name in moved)


def test_made_up_decisions_are_rows_of_an_update() -> None:
    data, module = MadeUpDecisions(5), PPOFlowModule(fresh_policy(Pi0Config.tiny()))
    data.collect(module)
    (decisions,) = data.train_dataloader()
    assert len(decisions) == 5 and decisions.chain.shape == (5, 2, 4, 7)
    assert decisions.advantage.mean().abs() < 1e-6
    _, metrics = module.ppo_loss(decisions)
    assert metrics["log_ratio_rms"] < 1e-4  # nothing is clipped away


def test_the_peak_is_that_since_it_was_reset() -> None:
    """64 MiB that are gone again, as the kernel counts pages; not from malloc, which may have some left."""
    start = reset_peak(torch.device("cpu"))
    if start is None:
        pytest.skip("the kernel does not tell")
    with mmap.mmap(-1, 64 << 20) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
    found = peak_since(start, torch.device("cpu"))
    assert found is not None and 60 << 20 < found < 90 << 20


def test_an_estimate_runs_nothing_and_tells_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genvla.learning.bench_update.run_updates", None)
    output = tmp_path / "plan.json"
    command = ["bench", "update", "--model", "tiny", "--estimate", "--gpu", "2 GiB", "--precision", "bf16-mixed"]
    assert main([*command, "--variants", "full_expert", "--output", str(output)]) == 0
    plans = json.loads(output.read_text())["plans"]
    assert [plan["checkpointing"] for plan in plans] == [False, True]
    assert plans[1]["largest_micro_batch"]["2 GiB"] > plans[0]["largest_micro_batch"]["2 GiB"] > 0
    printed = " ".join(capsys.readouterr().out.split())
    assert str(plans[0]["largest_micro_batch"]["2 GiB"]) in printed and "Time is not estimated" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "full_expert,best"], "variants: found 'best', want some of everything, full_expert"),
        (["--micro_batch", "0"], "micro_batch: found '0'"),
        (["--rounds", "0"], "rounds: found '0'"),
        (["--model", "huge"], "model: found 'huge'"),
        (["--estimate", "--gpu", "RTX 9999"], "gpu: found 'RTX 9999'"),
        (["--precision", "8-true"], "precision"),
        (["--device", "abacus"], "hardware: "),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "update", "--model", "tiny", *arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and message in lines[0]
