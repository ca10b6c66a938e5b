"""A run that is killed at any moment and resumed ends with the very parameters of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from genvla.cli import main
from genvla.policy.checkpoints import load_policy, save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.heads import HeadsConfig

SIM = Path(__file__).parents[2] / "configs" / "sim_cpu.yaml"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from scenegen.cli import main as scenegen

    monkeypatch.chdir(tmp_path)
    sizes = ["--count", "3", "--heldout", "1", "--xy_range", "0.05", "--poses", "8"]
    sizes += ["--catalog", "basic", "--min_distractors", "0", "--distractors", "3"]
    assert scenegen(["build", "--seed", "7", "--output", "scenes", *sizes]) == 0
    torch.manual_seed(0)
    save_policy(FlowPolicy(heads=HeadsConfig(value_input="privileged")), "start")
    settings = {
        "checkpoint": "start",
        "data": {
            "scenes": "scenes",
            "sim": str(SIM),
            "num_envs": 4,
            "workers": 2,
            "steps": 8,
            "minibatch_size": 16,
            "epochs": 2,
        },
        "module": {"policy_lr": 1e-4},
        "training": {"iterations": 3, "checkpoint_every": 1},
        "evaluation": {"episodes": 0},
        "hardware": {"threads": 1},
        "tracking": {"uri": "none"},
    }
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_killed_and_resumed_equals_uninterrupted(config: Path) -> None:
    assert main(["fit", "--config", str(config), "--run_dir", "whole"]) == 0

    command = [sys.executable, "-m", "genvla.cli", "fit", "--config", str(config), "--run_dir", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 600
        while not (Path("killed") / "checkpoints" / "last").exists():
            assert process.poll() is None and time.monotonic() < deadline, "it did not get to its first checkpoint"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert (Path("killed") / "checkpoints" / "last").resolve().name != "iteration_000003"

    assert main(["fit", "--resume", "killed"]) == 0
    whole, resumed = (load_policy(Path(run) / "checkpoints" / "last").state_dict() for run in ("whole", "killed"))
    start = load_policy("start").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], start[name]) for name in whole)
    steps = [[json.loads(line)["step"] for line in (Path(run) / "metrics.jsonl").open()] for run in ("whole", "killed")]
    assert steps[0] == steps[1] and set(steps[0]) == {0, 1, 2, 3}


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_ten_kills_and_two_preemptions_leave_no_trace(config: Path) -> None:
    """SIGKILL takes the whole process group; SIGTERM too, as Slurm sends it, and the run then ends by itself with 75."""
    iterations = ["--training.iterations", "16"]
    assert main(["fit", "--config", str(config), "--run_dir", "whole", *iterations]) == 0

    run, draw = Path("stopped"), random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["fit", "--config", str(config), "--run_dir", str(run), *iterations]
    for number in [signal.SIGKILL] * 5 + [signal.SIGTERM] + [signal.SIGKILL] * 5 + [signal.SIGTERM]:
        before, deadline = lines(run), time.monotonic() + 900
        with subprocess.Popen([sys.executable, "-m", "genvla.cli", *command], env=environment, start_new_session=True) as process:
            while lines(run) <= before:
                assert process.poll() is None and time.monotonic() < deadline, "it got no further"
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.5))
            os.killpg(process.pid, number)
            assert process.wait(600) == (75 if number == signal.SIGTERM else -signal.SIGKILL)
        command = ["fit", "--resume", str(run)]
    assert main(command) == 0
    whole, stopped = (load_policy(folder / "checkpoints" / "last").state_dict() for folder in (Path("whole"), run))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def simulators_of(process: int) -> list[int]:
    """The process ids of a run's simulator processes."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
def test_a_killed_and_a_stopped_simulator_process_do_not_end_a_run(config: Path) -> None:
    more = ["--training.iterations", "6", "--data.steps", "64", "--data.groups", "2", "--data.worker_timeout", "60"]
    more += ["--module.policy_lr", "1e-6"]  # so many small steps at the other rate would be the end of the policy
    command = [sys.executable, "-m", "genvla.cli", "fit", "--config", str(config), "--run_dir", "run", *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for number, iterations in ((signal.SIGKILL, 1), (signal.SIGSTOP, 3)):
            while not (Path("run") / "checkpoints" / f"iteration_{iterations:06d}").exists():
                assert process.poll() is None, "it ended too early"
                time.sleep(0.02)
            time.sleep(0.3)  # now it collects the next iteration
            os.kill(simulators_of(process.pid)[0], number)
        _, said = process.communicate(timeout=900)
    assert process.returncode == 0
    for fate in ("was ended by signal 9", "fell silent"):
        assert f"{fate}; 2 episodes dropped, process replaced" in said
    logged = [json.loads(line) for line in (Path("run") / "metrics.jsonl").open()]
    dropped = [row["rollout/dropped_episodes"] for row in logged if "worker_restarts" in row]
    assert len(dropped) == 6 and sum(dropped) == 4
    assert [row["worker_restarts"] for row in logged if "worker_restarts" in row][-1] == 2
