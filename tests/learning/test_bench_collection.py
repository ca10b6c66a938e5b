"""`genvla bench collection`: both ways of every row run, and what is written down is what was timed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch

from genvla.cli import main
from genvla.learning.bench_collection import SCENE_ENVS, collection_rows
from genvla.policy.checkpoints import save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.heads import HeadsConfig

SIM = Path(__file__).parents[2] / "configs" / "sim_cpu.yaml"
SMALL = ["--num_envs", "2", "--chunks", "2", "--rounds", "2", "--many", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from scenegen.cli import main as scenegen

    folder = tmp_path_factory.mktemp("scenes") / "three"
    sizes = ["--count", "3", "--xy_range", "0.05", "--poses", "8", "--catalog", "basic", "--min_distractors", "0"]
    assert scenegen(["build", "--seed", "7", "--output", str(folder), "--distractors", "1", *sizes]) == 0
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    save_policy(FlowPolicy(heads=HeadsConfig(value_input="privileged")), folder)
    return folder


def bench(scenes: Path, checkpoint: Path, output: Path, *more: str) -> int:
    files = ["--scenes", str(scenes), "--checkpoint", str(checkpoint), "--sim", str(SIM), "--output", str(output)]
    return main(["bench", "collection", *files, *SMALL, *more])


def test_the_policy_decides_in_the_precision_asked_for(
    scenes: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: set[torch.dtype] = set()
    linear = torch.nn.functional.linear

    def watched(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        result = linear(x, weight, bias)
        computed.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    more = ["--rows", "inference", "--workers", "1"]
    assert bench(scenes, checkpoint, tmp_path / "a.json", *more) == 0
    assert computed == {torch.float32}
    assert bench(scenes, checkpoint, tmp_path / "b.json", *more, "--precision", "bf16-mixed") == 0
    assert torch.bfloat16 in computed
    assert json.loads((tmp_path / "b.json").read_text())["precision"] == "bf16-mixed"


@pytest.mark.parametrize("rows", ["policy,inference", pytest.param("workers,scenes,gymnasium", marks=pytest.mark.slow)])
def test_rows_are_timed_and_written_down(
    scenes: Path, checkpoint: Path, tmp_path: Path, rows: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "collection.json"
    assert bench(scenes, checkpoint, output, "--rows", rows, "--workers", "1") == 0
    result = json.loads(output.read_text())
    assert [row["row"] for row in result["rows"]] == rows.split(",")
    for row in result["rows"]:
        (ours, fast), (theirs, slow) = row["seconds"].items()
        rounds, envs, chunks = {"scenes": (3, SCENE_ENVS, 7), "gymnasium": (2, 4, 2)}.get(row["row"], (2, 2, 2))
        assert len(fast) == len(slow) == rounds and min(*fast, *slow) > 0
        ratio = sum(slow) / sum(fast) if row["row"] == "scenes" else median(s / f for f, s in zip(fast, slow, strict=True))
        assert row["ratio"] == pytest.approx(ratio)
        assert row["env_steps_per_s"][ours] == pytest.approx(envs * chunks * 4 / median(fast))
    printed = capsys.readouterr().out
    for line in collection_rows(result)[1:]:
        assert line[1] in printed and line[4] in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--rows", "policy,speed"), "rows: 'speed' found"),
        (("--rows", "scenes", "--many", "4"), "3 scenes found, 4 wanted"),
        (("--rounds", "0"), "rounds: found '0'"),
        (("--device", "abacus"), "device: 'abacus'"),
    ],
)
def test_what_cannot_be_measured_is_named(
    scenes: Path, checkpoint: Path, tmp_path: Path, more: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(scenes, checkpoint, tmp_path / "out.json", *more) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out.json").exists()
