"""What a run does when it is told to stop, when the disk is full, and when a worker dies."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from genvla.errors import Preempted, UserError
from genvla.learning.datamodule import RolloutDataModule
from genvla.learning.loop import Loop, TrainingDiverged
from genvla.learning.stopping import StopRequest
from genvla.policy.checkpoints import load_policy
from tests.learning.test_loop import make_loop
from tests.learning.toy import toy_data, toy_module

SMALL = {"num_envs": 4, "steps": 3, "minibatch_size": 6, "epochs": 1}


def same_policy(one: Loop, two: Loop) -> bool:
    first, second = (loop.module.policy.state_dict() for loop in (one, two))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_collecting_saves_the_iterations_that_are_done(tmp_path: Path, number: signal.Signals) -> None:
    whole = make_loop(tmp_path / "whole", 4, data=toy_data(curriculum=True, **SMALL))
    whole.run()

    data = toy_data(curriculum=True, **SMALL)
    with StopRequest() as stop:
        loop = make_loop(tmp_path / "parts", 4, data=data)
        loop.stop = data.interrupted = stop
        receive, calls = data.env.receive, []

        def signalled(group: int) -> Any:
            calls.append(group)
            if len(calls) == 3 * 3 + 2:  # in the middle of the fourth iteration; the last checkpoint is that of the second
                os.kill(os.getpid(), number)
            return receive(group)

        data.env.receive = signalled
        with pytest.raises(Preempted, match="saved after iteration 3"):
            loop.run()
        assert len(calls) == 3 * 3 + 2
    assert signal.getsignal(number) == signal.SIG_DFL
    assert loop.checkpoints.last is not None and loop.checkpoints.last.name == "iteration_000003"

    again = make_loop(tmp_path / "parts", 4, load_policy(loop.checkpoints.last), toy_data(curriculum=True, **SMALL))
    assert again.resume() and again.iteration == 3
    again.run()
    assert same_policy(whole, again)
    assert again.data.state_dict() == whole.data.state_dict()  # type: ignore[attr-defined]


def test_a_signal_while_updating_lets_the_update_end(tmp_path: Path) -> None:
    with StopRequest() as stop:
        loop = make_loop(tmp_path, 4, data=toy_data(**SMALL))
        loop.stop = stop
        step = loop.optimizer.step

        def signalled() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            step()

        loop.optimizer.step = signalled
        with pytest.raises(Preempted, match="after iteration 1"):
            loop.run()
    assert loop.checkpoints.last is not None and loop.checkpoints.last.name == "iteration_000001"


def test_a_signal_before_anything_is_done_saves_nothing(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 4, data=toy_data(**SMALL))
    loop.data.interrupted = lambda: True  # type: ignore[attr-defined]
    with pytest.raises(Preempted):
        loop.run()
    assert loop.checkpoints.last is None


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to write more to a file, with an error of the kind a full disk gives (EFBIG for ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1 << 12, 1 << 17])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, size: int) -> None:
    loop = make_loop(tmp_path, 4, data=toy_data(**SMALL))
    loop.iteration = 1
    loop.save()
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert any(len(content) > size for content in before.values())
    loop.iteration = 2
    with files_no_larger_than(size), pytest.raises(UserError, match="iteration_000002: .*cannot be written.*iteration_000001"):
        loop.save()
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()} == before
    again = make_loop(tmp_path, 4, load_policy(tmp_path / "checkpoints" / "last"))
    assert again.resume() and again.iteration == 1


def test_what_a_killed_save_left_behind_is_removed(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 4, data=toy_data(**SMALL))
    (tmp_path / "checkpoints" / ".iteration_000001.4711").mkdir(parents=True)
    loop.iteration = 1
    loop.save()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["iteration_000001", "last"]


def test_a_policy_that_ran_away_stops_the_run(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 4, data=toy_data(**SMALL), target_kl=None)
    collect = loop.data.collect

    def far_off(module: Any, iteration: int) -> dict[str, Any]:
        metrics = collect(module, iteration)
        if iteration == 2:
            loop.data._decisions.log_prob -= 1e4  # type: ignore[attr-defined]
        return metrics

    loop.data.collect = far_off  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match="iteration 2, update 0: log_ratio_rms above 1000.*losses.*iteration_000002"):
        loop.run()


def test_lost_episodes_are_counted() -> None:
    data = toy_data(**SMALL)
    data.env.deaths = frozenset({(0, 1), (1, 1), (2, 3)})
    rollout = data.collect(toy_module(), 0)["rollout"]
    assert rollout["dropped_episodes"] == 3


@pytest.mark.parametrize(("name", "value"), [("groups", 0), ("groups", 9), ("worker_timeout", 0.0)])
def test_wrong_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"data.{name}: {value}"):
        RolloutDataModule(Path("x"), num_envs=8, **{name: value})  # type: ignore[arg-type]


def test_physics_on_a_gpu_want_the_policy_there() -> None:
    data = RolloutDataModule(Path("x"), num_envs=8, physics="gpu")
    assert data.workers == 0
    with pytest.raises(UserError, match="data.physics: gpu found with the policy on the cpu"):
        data.distribute(torch.device("cpu"), 0, 1, lambda tensor: tensor)
