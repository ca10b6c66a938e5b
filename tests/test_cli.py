"""The `genvla` command as a user meets it; training runs on the toy world, chosen by class_path like anything else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from genvla.cli import BENCHMARKS, COMMANDS, main
from genvla.policy.checkpoints import load_policy, save_policy
from scenegen.cli import main as scenegen
from tests.learning.toy import still_policy

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short run in the toy world, started from a folder of its own."""
    monkeypatch.chdir(tmp_path)
    save_policy(still_policy(), tmp_path / "policy")
    settings = {
        "checkpoint": "policy",
        "data": {
            "class_path": "tests.learning.toy.ToyData",
            "init_args": {"scenes": "toy", "num_envs": 8, "workers": 0, "steps": 4, "minibatch_size": 16, "epochs": 1},
        },
        "module": {"policy_lr": 5e-4},
        "training": {"iterations": 2, "checkpoint_every": 1},
        "evaluation": {"episodes": 6, "videos": 1},
        "hardware": {"threads": 1, "accelerator": "cpu"},
        "tracking": {"uri": "none"},
    }
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_fit_writes_a_run_that_can_be_resumed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config), "--seed", "3"]) == 0
    run = config.parent / "runs" / "toy-seed3"
    expected = {"config.yaml", "scenes.txt", "revision.txt", "metrics.jsonl", "results.json", "curve.png", "episodes.mp4"}
    assert expected <= {path.name for path in run.iterdir()}
    results = json.loads((run / "results.json").read_text())
    assert set(results["scenes"]) == {"train", "heldout"}
    assert results["scenes"]["train"]["before"]["episodes"] == 6
    assert "rollout success" in capsys.readouterr().out
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert settings["seed"] == 3
    assert settings["module"]["init_args"]["policy_lr"] == 5e-4

    written = (run / "evaluation" / "before_train.json").stat().st_mtime_ns
    assert main(["fit", "--resume", str(run), "--training.iterations", "3"]) == 0
    assert (run / "evaluation" / "before_train.json").stat().st_mtime_ns == written
    assert json.loads((run / "results.json").read_text())["iterations"] == 3
    assert (run / "checkpoints" / "last").resolve().name == "iteration_000003"
    load_policy(run / "checkpoints" / "last")


def test_a_resumed_run_ends_in_the_same_bits_as_an_uninterrupted_one(config: Path) -> None:
    short = ["--evaluation.episodes", "0"]
    assert main(["fit", "--config", str(config), *short, "--training.iterations", "4", "--run_dir", "whole"]) == 0
    assert main(["fit", "--config", str(config), *short, "--run_dir", "parts"]) == 0
    assert main(["fit", "--resume", "parts", "--training.iterations=4"]) == 0
    whole, parts = (load_policy(config.parent / run / "checkpoints" / "last").state_dict() for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_before_means_before_even_if_it_is_only_asked_for_when_resuming(config: Path) -> None:
    command = ["fit", "--config", str(config), "--module.policy_lr", "0.005"]
    assert main([*command, "--run_dir", "whole"]) == 0
    assert main([*command, "--run_dir", "late", "--evaluation.episodes", "0"]) == 0
    assert main(["fit", "--resume", "late", "--evaluation.episodes", "6"]) == 0
    whole, late = (json.loads((config.parent / run / "results.json").read_text())["scenes"] for run in ("whole", "late"))
    assert late == whole


def test_a_taken_run_folder_gets_a_number(config: Path) -> None:
    quick = ["fit", "--config", str(config), "--evaluation.episodes", "0", "--training.iterations", "1"]
    assert main(quick) == main(quick) == 0
    assert sorted(path.name for path in (config.parent / "runs").iterdir()) == ["toy-seed0", "toy-seed0-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.num_envs", "0"], "data.num_envs: 0 found"),
        (["--data.num_envs", "many"], "num_envs"),
        (["--data.envs", "4"], "envs"),
        (["--module.clip", "wide"], "clip"),
        (["--training.iterations", "null"], "iterations and max_seconds are both null"),
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--run_dir", "toy.yaml/run"], "run_dir"),
        (["--resume", "nowhere"], "nowhere/config.yaml not found"),
        (["--hardware.accelerator", "abacus"], "hardware"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["fit", "--config", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error" in line]
    assert len(lines) == 1 and lines[0].startswith("genvla: error: ") and message in lines[0]
    assert "Traceback" not in error


def test_an_interrupt_is_130(config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("genvla.learning.loop.Loop.run", interrupted)
    assert main(["fit", "--config", str(config), "--evaluation.episodes", "0"]) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["nonsense"], ["bench"], ["fit"]])
def test_incomplete_commands_are_2(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("genvla: error: ")


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *(["bench", name] for name in BENCHMARKS)])
def test_every_option_of_every_command_is_explained(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--config" in text
    options = [part for part in text.split(" --")[1:] if "(type:" in part and not part.startswith("policy.")]
    for option in options:
        name, _, rest = option.partition(" ")
        assert not rest.partition(" ")[2].startswith("(type:"), f"--{name} has no help"


def test_help_needs_neither_torch_nor_the_simulator() -> None:
    code = "import sys; from genvla.cli import main; main(['--help']); print('torch' in sys.modules, 'sapien' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("False False")
    for name in [*COMMANDS, "bench"]:
        assert name in done.stdout


@pytest.mark.parametrize(
    "path", sorted(set((ROOT / "configs").glob("*.yaml")) - set((ROOT / "configs").glob("sim*.yaml"))), ids=lambda path: path.stem
)
def test_shipped_configurations_parse(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "pretrain" if path.stem.startswith("pretrain") else "fit"
    assert main([command, "--config", str(path), "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    small = "cpu" in path.stem or path.stem == "smoke"
    assert settings["data"]["init_args"]["sim"]["image_size"] == (64 if small else 224)
    if command == "fit":
        built = ROOT / "configs" / "scenes" / f"{Path(settings['data']['init_args']['scenes']).name}.yaml"
        assert yaml.safe_load(built.read_text())["output"] == settings["data"]["init_args"]["scenes"]
    if "_n" in path.stem:
        assert settings["data"]["init_args"]["num_scenes"] == int(path.stem.rpartition("_n")[2])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "scenes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_scene_sets_are_options_of_scenegen(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scenegen(["build", "--config", str(path), "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    wanted = yaml.safe_load(path.read_text())
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["count"] - settings["heldout"] in (50, 100, 3200)


def test_a_scene_set_that_is_not_there_is_named_with_what_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    checkpoint = str(ROOT / "checkpoints" / "cpu")
    assert main(["fit", "--config", "configs/ppoflow_cpu_n3.yaml", "--checkpoint", checkpoint, "--run_dir", "run"]) == 2
    said = capsys.readouterr().err
    assert "scenegen build --config configs/scenes/cpu_w100.yaml --output scenes/cpu_w100" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_papers_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """arXiv 2603.18532, as far as it tells them; sizes are those of one of eight devices."""
    assert main(["fit", "--config", str(ROOT / "configs" / "ppoflow_n100.yaml"), "--print_config"]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    data, module, devices = settings["data"]["init_args"], settings["module"]["init_args"], settings["hardware"]["devices"]
    assert data["num_envs"] * devices == 192
    assert data["num_envs"] * data["steps"] * devices == 19_200
    assert data["minibatch_size"] * devices == 1_920
    assert data["sim"]["max_chunks"] == 25 and settings["integration_steps"] == 1
    wanted = {"gamma": 0.99, "policy_lr": 2e-5, "clip": 0.2, "ratio_power": 0.2, "max_grad_norm": 0.5}
    assert {name: module[name] for name in wanted} == wanted
    tuning = settings["finetuning"]
    assert [tuning[part] for part in ("vision", "projector", "vlm", "expert")] == ["lora"] * 3 + ["full"]
    assert tuning["lora_rank"] == 32


def test_a_configuration_adds_to_its_base(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / "mine"
    folder.mkdir()
    (folder / "more.yaml").write_text("base: ../toy.yaml\ndata:\n  num_envs: 4\n")
    (folder / "most.yaml").write_text("base: more.yaml\nmodule:\n  gamma: 0.5\n")
    for arguments in (["--config", "mine/most.yaml"], ["--config=mine/most.yaml"]):
        assert main(["fit", *arguments, "--print_config"]) == 0
        settings = yaml.safe_load(capsys.readouterr().out)
        assert "base" not in settings, "what is printed needs no other file"
        assert settings["data"]["init_args"]["num_envs"] == 4 and settings["data"]["init_args"]["steps"] == 4
        assert settings["module"]["init_args"]["gamma"] == 0.5 and settings["module"]["init_args"]["policy_lr"] == 5e-4
    quick = ["--evaluation.episodes", "0", "--training.iterations", "1"]
    assert main(["fit", "--config", "mine/most.yaml", *quick]) == 0
    assert (config.parent / "runs" / "most-seed0" / "config.yaml").is_file(), "a run is named after its file, not the base"


@pytest.mark.parametrize(
    ("base", "message"), [("nowhere.yaml", "'nowhere.yaml' found, want a YAML file"), ("round.yaml", "want no circle")]
)
def test_a_wrong_base_is_one_line(config: Path, capsys: pytest.CaptureFixture[str], base: str, message: str) -> None:
    (config.parent / "round.yaml").write_text(f"base: {base}\n")
    assert main(["fit", "--config", "round.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error and "round.yaml: base: " in error


def test_a_base_on_the_command_line_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--base", "toy.yaml", "--config", "toy.yaml"]) == 2
    assert "give --config twice" in capsys.readouterr().err
