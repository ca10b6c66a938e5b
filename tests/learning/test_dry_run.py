"""What `genvla fit --dry-run` says before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from genvla.cli import main
from genvla.learning.dry_run import extrapolate
from genvla.policy.checkpoints import inspect_policy, load_policy, save_policy
from genvla.policy.formats.names import with_alias
from genvla.policy.pi0 import Pi0
from genvla.policy.pi0_config import Pi0Config
from tests.learning.toy import still_policy

SETTINGS = {
    "checkpoint": "policy",
    "data": {
        "class_path": "tests.learning.toy.ToyData",
        "init_args": {"scenes": "toy", "num_envs": 24, "workers": 0, "steps": 100, "minibatch_size": 240, "epochs": 2},
    },
    "training": {"iterations": 10, "micro_batch_size": 60},
    "hardware": {"devices": 8, "accelerator": "cpu"},
}
ARCHITECTURE = {"vision": "lora", "projector": "lora", "vlm": "lora", "expert": "full"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def plan_of(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return " ".join(captured.out.split()), captured.err


def write_full_size_checkpoint(path: Path) -> None:
    """Names, shapes and precision of open-pi-zero's Bridge checkpoints, 938 tensors; the file holds one zero for each."""
    with torch.device("meta"):
        tensors = with_alias(Pi0(Pi0Config.open_pi_zero()).state_dict())
    zero = torch.zeros(1, dtype=torch.bfloat16)
    torch.save({"model": {name: zero.expand(tensor.shape) for name, tensor in tensors.items()}}, path)


def test_the_plan_of_a_run(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_policy(still_policy(), config.parent / "policy")
    before = sorted(config.parent.rglob("*"))
    assert main(["fit", "--config", str(config), "--dry-run"]) == 0
    out, err = plan_of(capsys)
    assert err == ""
    assert "environments 192: 24 per rank" in out
    assert "decisions 19,200 per iteration: 100 in each environment, 2,400 per rank; 76,800 control steps" in out
    assert "update 2 epochs of 10 minibatches of 1,920: 240 per rank, in 4 micro-batches of 60" in out
    assert "10 iterations, 0.8 million control steps" in out
    assert sorted(config.parent.rglob("*")) == before, "nothing is written"


def test_a_full_size_checkpoint_is_planned_from_its_names_and_shapes(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / "policy"
    folder.mkdir()
    write_full_size_checkpoint(folder / "bridge.pt")
    tuning = [f"--finetuning.{part}={mode}" for part, mode in ARCHITECTURE.items()]
    assert main(["fit", "--config", str(config), "--dry-run", *tuning, "--finetuning.trainable_dtype", "float32"]) == 2
    out, err = plan_of(capsys)
    assert "3.24 billion parameters in bfloat16" in out
    assert "expert 314.64 million" in out  # open-pi-zero's README: 0.315 billion
    assert "gradients 1.38 GiB, Adam 2.76 GiB" in out  # 370.99 million in fp32
    assert err.startswith("genvla: error: missing: policy/tokenizer.json: hf download") and err.count("\n") == 1


def test_all_that_is_missing_stands_in_one_line_after_the_plan(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(yaml.safe_dump({**SETTINGS, "data": {"scenes": "scenes/none", "num_envs": 2}}))
    assert main(["fit", "--config", str(config), "--dry-run"]) == 2
    out, err = plan_of(capsys)
    assert "planned with the shapes of open-pi-zero" in out and "environments 16: 2 per rank" in out
    assert err.count("\n") == 1 and "policy, the checkpoint" in err and "scenes/none" in err


def test_a_damaged_checkpoint_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_policy(still_policy(), config.parent / "policy")
    weights = config.parent / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["fit", "--config", str(config), "--dry-run"]) == 2
    assert "model.safetensors: cannot be read" in capsys.readouterr().err


def test_inspection_sees_what_loading_makes(tmp_path: Path) -> None:
    save_policy(still_policy(), tmp_path / "policy")
    seen, loaded = inspect_policy(tmp_path / "policy"), load_policy(tmp_path / "policy")
    assert seen.config == loaded.config
    assert all(parameter.is_meta for parameter in seen.parameters())
    described = {name: (tensor.shape, tensor.dtype) for name, tensor in seen.state_dict().items()}
    assert described == {name: (tensor.shape, tensor.dtype) for name, tensor in loaded.state_dict().items()}


@given(st.tuples(*[st.integers(0, 1000)] * 3), st.integers(1, 27), st.integers(1, 18))
def test_what_grows_with_the_layers_is_extrapolated_exactly(costs: tuple[int, int, int], vision: int, joint: int) -> None:
    def measure(of_vision: int, of_joint: int) -> tuple[float, ...]:
        return (costs[0] + costs[1] * of_vision + costs[2] * of_joint,)

    assert extrapolate(measure, (vision, joint)) == measure(vision, joint)
