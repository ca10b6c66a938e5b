from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import psutil
import pytest
import torch

from genvla.cli import main
from genvla.errors import UserError
from genvla.policy.bench import bench_policy, decisions, in_turns, reference_pair, speed_ratio, summary
from genvla.policy.checkpoints import save_policy
from genvla.policy.measuring import OtherWork, device_of, whole_numbers
from genvla.policy.synthetic import fresh_policy, preset
from tests.policy.variants import REAL_LAYOUT


def test_decisions_are_timed_and_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "times.json"
    arguments = ["--model", "tiny", "--steps", "4,1", "--rounds", "3", "--threads", "1", "--output", str(output)]
    assert main(["bench", "policy", *arguments]) == 0
    result = json.loads(output.read_text())
    assert set(result["milliseconds"]) == {"K=4 eager", "K=1 eager", "prefix eager"}
    assert all(len(times) == 3 and min(times) > 0 for times in result["milliseconds"].values())
    assert result["parameters"] > 1_000_000 and result["machine"]["threads"] == 1
    printed = capsys.readouterr().out
    assert f"{result['summary']['K=4 eager']['p50']:.1f}" in printed and "1.75" in printed


def test_every_k_is_run() -> None:
    timed = decisions(fresh_policy(REAL_LAYOUT), [3, 1], 2, 1, torch.device("cpu"), None)
    assert [timed[f"K={k} eager"]().chain.shape for k in (3, 1)] == [(2, 4, 4, 7), (2, 2, 4, 7)]  # type: ignore[attr-defined]


def test_a_checkpoint_can_be_timed(tmp_path: Path) -> None:
    save_policy(fresh_policy(REAL_LAYOUT), tmp_path / "policy")
    result = bench_policy(checkpoint=tmp_path / "policy", steps="1", rounds=1, batch=2, cameras=2, dtype="bfloat16")
    assert list(result["milliseconds"]) == ["K=1 eager", "prefix eager"]


@pytest.mark.parametrize(("batch", "cameras"), [(1, 1), (2, 3)])
def test_transformers_decides_the_same(batch: int, cameras: int) -> None:
    """What is compared computes the same actions, to the precision of transformers' time features."""
    timed, difference = reference_pair(REAL_LAYOUT, batch, cameras, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        ours, theirs = timed["ours"](), timed["transformers"]()
    assert isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)
    assert ours.shape == (batch, 4, 7) and theirs.std() > 0.3
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert difference == (ours - theirs).abs().max().item()


def test_the_comparison_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genvla.policy.bench.preset", lambda name: REAL_LAYOUT)
    result = bench_policy(steps="1", rounds=3, reference=True, threads=1)
    ratio = result["reference"]
    assert 0 < ratio["quartiles_of_rounds"][0] <= ratio["quartiles_of_rounds"][2]
    assert result["reference"]["largest_difference_of_actions"] < 1e-4
    assert f"{ratio['of_medians']:.2f}" in capsys.readouterr().out


def test_ratios_and_percentiles() -> None:
    found = speed_ratio({"transformers": [12.0, 24.0, 12.0], "ours": [10.0, 10.0, 10.0]})
    assert found == {"of_medians": 1.2, "quartiles_of_rounds": [1.2, 1.2, pytest.approx(1.8)]}
    assert summary([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": pytest.approx(2.9), "min": 1.0}


def test_functions_take_turns() -> None:
    calls: list[str] = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, torch.device("cpu"))
    assert calls == [*"ab", *"ba", *"ab", *"ba", *"ab"]  # two rounds to warm up
    assert [len(values) for values in times.values()] == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "10,0"], "steps: found '10,0'"),
        (["--steps", "ten"], "steps: found 'ten'"),
        (["--model", "huge"], "model: found 'huge', want one of tiny, mid"),
        (["--batch", "0"], "batch: found 0"),
        (["--rounds", "0"], "rounds: found 0"),
        (["--threads", "0"], "threads: found '0'"),
        (["--device", "abacus"], "device: 'abacus' cannot be used here"),
        (["--model", "tiny", "--reference"], "vision tower"),
        (["--dtype", "float8"], "dtype"),
    ],
)
def test_wrong_options_are_one_line_and_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "policy", "--steps", "1", "--rounds", "1", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_lists_of_numbers() -> None:
    assert whole_numbers("steps", "10,4, 1") == [10, 4, 1]
    with pytest.raises(UserError, match="steps: found ''"):
        whole_numbers("steps", "")


def test_presets_and_devices() -> None:
    assert preset("mid").vision.tokens == 256
    assert device_of("cpu").type == "cpu"


def test_our_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which others keep one core and a half busy, beside this process and a child of it."""

    class Times(NamedTuple):
        user: float
        idle: float = 1e9

    def of_all() -> Times:
        family = [psutil.Process(), *psutil.Process().children()]
        return Times(sum(sum(process.cpu_times()[:4]) for process in family) + 1.5 * perf_counter())

    monkeypatch.setattr(psutil, "cpu_times", of_all)
    other_work = OtherWork()
    burn = "from time import process_time\nwhile process_time() < 0.4: pass\ninput()"
    child = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE)
    start = os.times().user
    while os.times().user < start + 0.4:
        pass
    alive = other_work.cores()
    child.communicate(b"\n")
    assert alive == pytest.approx(1.5, abs=0.1)
    assert other_work.cores() == pytest.approx(1.5, abs=0.1)
