"""Two processes on this machine (gloo) against one: the same global batch gives the same policy, however the work is shared."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from genvla.evaluation.results import EvaluationResult
from genvla.learning.checkpoints import TRAINING_STATE, Checkpoints
from genvla.learning.loop import Loop, TrainingConfig
from genvla.learning.runs import HardwareConfig, adder
from genvla.policy.activation_checkpointing import checkpoint_activations
from genvla.policy.checkpoints import load_policy, save_policy
from genvla.types import Transition
from tests.learning.toy import ToyData, ToyEnv, small_policy, toy_module

ROOT = Path(__file__).parents[2]
ENVS, STEPS, ITERATIONS = 8, 5, 2


class TellingEnv(ToyEnv):
    """Writes to the file `episodes` which process has finished which episode."""

    def receive(self, group: int) -> Transition:
        transition = super().receive(group)
        with Path("episodes").open("a") as file:
            file.writelines(f"{json.dumps([os.getpid(), record.seed])}\n" for _, record in transition.episodes)
        return transition


class TellingData(ToyData):
    def make_env(self) -> ToyEnv:
        return TellingEnv(self.num_envs, groups=self._group_count())


def train(folder: Path, strategy: str, devices: int, resume: bool = False, iterations: int = ITERATIONS) -> Loop:
    """A run whose global batch is the same for any number of processes: n processes with one group each collect what one process
    with n groups does, and every update sees all of it."""
    fabric = HardwareConfig(accelerator="cpu", devices=devices, strategy=strategy, threads=1).fabric()
    checkpoints = Checkpoints(folder / "checkpoints", keep=9)
    policy = small_policy(value_input="privileged")
    if resume:
        assert checkpoints.last is not None
        policy = load_policy(checkpoints.last)
    checkpoint_activations(policy, strategy == "fsdp2")
    data = ToyData(
        Path("toy"),
        num_envs=ENVS // devices,
        groups=2 // devices,
        workers=0,
        steps=STEPS,
        minibatch_size=ENVS * STEPS // devices,
        epochs=2,
        curriculum=True,
    )
    data.distribute(fabric.device, fabric.global_rank, fabric.world_size, adder(fabric))
    data.setup()
    module = toy_module(policy, policy_lr=1e-3, critic_warmup_iterations=1)
    training = TrainingConfig(iterations=iterations, checkpoint_every=1, micro_batch_size=7)
    loop = Loop(fabric, module, data, training, checkpoints)
    if resume:
        assert loop.resume()
    loop.run()
    weights = torch.cat([value.flatten() for value in _local(loop)])
    everyone: Any = fabric.all_gather(weights)
    if devices > 1:
        assert torch.equal(everyone[0], everyone[1]), "the processes' parameters differ"
    return loop


def _local(loop: Loop) -> list[torch.Tensor]:
    from genvla.learning.sharding import whole

    return [parameter.detach() for parameter in whole(list(loop.module.policy.parameters()))]


def run_in_processes(folder: Path, strategy: str, *more: str) -> None:
    """Starts this file as a command; Lightning's launcher starts the second process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(Path(__file__)), str(folder), strategy, *more]
    subprocess.run(command, env=environment, check=True, timeout=600)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(folder, "auto", 1)
    return folder


def states(folder: Path, iteration: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    path = folder / "checkpoints" / f"iteration_{iteration:06d}"
    return load_policy(path).state_dict(), torch.load(path / TRAINING_STATE, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_do_what_one_does(alone: Path, tmp_path: Path, strategy: str) -> None:
    run_in_processes(tmp_path, strategy)
    for iteration in range(1, ITERATIONS + 1):
        (wanted, state), (found, other) = states(alone, iteration), states(tmp_path, iteration)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert other["data"] == state["data"] and other["loop"]["env_steps"] == state["loop"]["env_steps"]
        moments, others = state["optimizer"]["state"], other["optimizer"]["state"]
        assert set(moments) == set(others)
        assert all(others[number]["exp_avg"].shape == moment["exp_avg"].shape for number, moment in moments.items())
    # What two processes saved, one goes on with, and the other way round.
    train(tmp_path, "auto", 1, resume=True, iterations=ITERATIONS + 1)
    train(alone, "auto", 1, resume=(alone / "checkpoints").exists(), iterations=ITERATIONS + 1)
    one, two = states(alone, ITERATIONS + 1)[0], states(tmp_path, ITERATIONS + 1)[0]
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_a_sharded_run_resumes(alone: Path, tmp_path: Path) -> None:
    run_in_processes(tmp_path / "parts", "fsdp2", "1")
    run_in_processes(tmp_path / "parts", "fsdp2", "2", "resume")
    wanted, found = states(alone, 2)[0], states(tmp_path / "parts", 2)[0]
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def command_of(folder: Path, iterations: int, strategy: str) -> list[str]:
    """The shortest run of the real command over two processes."""
    save_policy(small_policy(value_input="privileged"), folder / "policy")
    settings = {
        "checkpoint": "policy",
        "data": {
            "class_path": "tests.learning.test_distributed.TellingData",
            "init_args": {"scenes": "toy", "num_envs": 4, "workers": 0, "steps": 4, "minibatch_size": 8, "epochs": 1},
        },
        "module": {"critic_warmup_iterations": 1},
        "training": {"iterations": iterations, "checkpoint_every": 1000, "evaluate_every": 1},
        "evaluation": {"episodes": 5, "episodes_during": 4, "videos": 3},
        "hardware": {"threads": 1, "accelerator": "cpu", "devices": 2, "strategy": strategy},
        "tracking": {"uri": "none"},
    }
    (folder / "two.yaml").write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "genvla.cli", "fit", "--config", "two.yaml", "--run_dir", "run"]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_the_command_trains_and_evaluates_on_two_processes(tmp_path: Path, strategy: str) -> None:
    subprocess.run(command_of(tmp_path, 2, strategy), cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=600)
    assert (tmp_path / "run" / "results.json").is_file()
    load_policy(tmp_path / "run" / "checkpoints" / "last")
    # Each evaluated episode ran once, in one of the two processes; the film was put together from both.
    ran = [json.loads(line) for line in (tmp_path / "episodes").read_text().splitlines()]
    assert len({pid for pid, _ in ran}) == 2
    for when in ("before", "iteration_000002"):
        for group in ("train", "heldout"):
            result = EvaluationResult.from_json(tmp_path / "run" / "evaluation" / f"{when}_{group}.json")
            assert len({record.spec for record in result.records}) == 5
    counted = Counter(seed for _, seed in ran)
    thorough = [record.seed for record in result.records]
    assert [counted[seed] for seed in thorough] == [3, 3, 3, 3, 2], "before, during (four of them) and after"
    assert (tmp_path / "run" / "episodes.png").is_file()
    assert len(list((tmp_path / "run").rglob("results.json"))) == 1


@pytest.mark.slow
def test_one_of_two_processes_is_told_to_stop_and_both_do(tmp_path: Path) -> None:
    metrics, last = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "checkpoints" / "last"
    command = command_of(tmp_path, 1000, "auto")
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, start_new_session=True) as process:
        deadline = time.monotonic() + 900
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            assert process.poll() is None and time.monotonic() < deadline, "it did not get to its second iteration"
            time.sleep(0.05)
        process.terminate()
        assert process.wait(600) == 75
        with pytest.raises(ProcessLookupError):  # nothing of the whole session is left
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.1)
    done = int(last.readlink().name.removeprefix("iteration_"))
    assert 2 <= done < 1000
    go_on = [*command[:4], "--resume", "run", "--training.iterations", str(done + 1)]
    subprocess.run(go_on, cwd=tmp_path, env=ENVIRONMENT, check=True, timeout=600)
    assert int(last.readlink().name.removeprefix("iteration_")) == done + 1


if __name__ == "__main__":
    target, name, *rest = sys.argv[1:]
    train(Path(target), name, 2, resume="resume" in rest, iterations=int(rest[0]) if rest else ITERATIONS)
