from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Fabric

from genvla.learning.checkpoints import TRAINING_STATE, Checkpoints
from genvla.learning.loop import Loop, TrainingConfig, TrainingDiverged
from genvla.learning.tracking import NO_TRACKING, Tracker
from genvla.policy.checkpoints import load_policy
from genvla.policy.flow_policy import FlowPolicy
from tests.learning.toy import ToyData, still_policy, toy_data, toy_module

LEARNS = {"policy_lr": 5e-4, "target_kl": 2.0}


def make_loop(
    folder: Path, iterations: int = 4, policy: FlowPolicy | None = None, data: ToyData | None = None, **settings: Any
) -> Loop:
    """A new loop over new objects, as another process would make it."""
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    module = toy_module(policy=policy, **{**LEARNS, **settings})
    return Loop(
        Fabric(accelerator="cpu", devices=1),
        module,
        data or toy_data(),
        TrainingConfig(iterations=iterations, checkpoint_every=2),
        checkpoints,
        Tracker(folder, "toy", tracking_uri=NO_TRACKING),
    )


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_reinforcement_learning_learns(tmp_path: Path) -> None:
    make_loop(tmp_path, 12, data=toy_data(num_envs=64, minibatch_size=256)).run()
    success = [row["rollout/success"] for row in logged(tmp_path)]
    assert sum(success[-3:]) / 3 > sum(success[:2]) / 2 + 0.12


@pytest.mark.parametrize("stop", [2, 3])
def test_resuming_gives_the_same_bits(tmp_path: Path, stop: int) -> None:
    """Stopped after `stop` iterations, of which the last checkpoint may miss one, and continued by new objects."""
    whole = make_loop(tmp_path / "whole", lr_schedule="cosine")
    whole.run()

    broken = make_loop(tmp_path / "broken", lr_schedule="cosine")
    for _ in range(stop):
        metrics = broken.iterate()
        broken.iteration += 1
        broken._conclude(metrics)
    policy = load_policy(broken.checkpoints.last)
    again = make_loop(tmp_path / "broken", policy=policy, lr_schedule="cosine")
    assert again.resume()
    assert again.iteration == 2
    again.run()

    first, second = whole.module.policy.state_dict(), again.module.policy.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], value) for name, value in still_policy().state_dict().items())
    moments = [[state["exp_avg"] for state in loop.optimizer.state_dict()["state"].values()] for loop in (whole, again)]
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    same = [
        {name: value for name, value in row.items() if "second" not in name and "_per_s" not in name}
        for row in logged(tmp_path / "whole")
    ]
    assert [{name: row[name] for name in one} for row, one in zip(logged(tmp_path / "broken"), same, strict=True)] == same


def test_nothing_happens_when_resuming_a_finished_run(tmp_path: Path) -> None:
    make_loop(tmp_path, 1).run()
    before = (tmp_path / "metrics.jsonl").read_text()
    loop = make_loop(tmp_path, 1, policy=load_policy(tmp_path / "checkpoints" / "last"))
    assert loop.resume()
    loop.run()
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_what_a_ppo_user_looks_for_is_logged(tmp_path: Path) -> None:
    make_loop(tmp_path, 1).run()
    (row,) = logged(tmp_path)
    wanted = {
        *(f"update/{name}" for name in ("approx_kl", "clip_fraction", "ratio_mean", "ratio_std", "ratio_min", "ratio_max")),
        *(f"update/{name}" for name in ("entropy", "sigma_mean", "policy_loss", "value_loss", "lr_policy", "lr_heads")),
        *(f"update/grad_norm_{part}" for part in ("vision", "vlm", "expert", "noise_head", "value_head")),
        *(f"rollout/{name}" for name in ("success", "explained_variance", "advantage_std", "scene_success/toy-0")),
        *(f"speed/{name}" for name in ("simulate_steps_per_s", "infer_steps_per_s", "update_steps_per_s", "env_steps_per_s")),
        "env_steps",
        "wall_seconds",
    }
    assert wanted <= set(row)
    assert row["env_steps"] == 32 * 8 * 4
    assert 0.082 <= row["update/sigma_mean"] <= 0.136


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_nothing(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 6)
    collect = loop.data.collect

    def spoiled(module: Any, iteration: int) -> dict[str, Any]:
        metrics = collect(module, iteration)
        if iteration == 3:
            loop.data._decisions.advantage[:] = float("nan")
        return metrics

    loop.data.collect = spoiled  # type: ignore[method-assign]
    with pytest.raises(TrainingDiverged, match=r"iteration 3, update 0: loss.*iteration_000002"):
        loop.run()
    assert all(parameter.isfinite().all() for parameter in loop.module.parameters())
    resumed = make_loop(tmp_path, 4, policy=load_policy(tmp_path / "checkpoints" / "last"))
    assert resumed.resume()
    resumed.run()
    assert resumed.iteration == 4


def test_only_the_newest_and_the_best_checkpoints_stay(tmp_path: Path) -> None:
    scores = iter([0.2, 0.9, 0.3, 0.4])
    loop = make_loop(tmp_path, 5)
    loop.config = TrainingConfig(iterations=5, checkpoint_every=1, keep_checkpoints=2, evaluate_every=1)
    loop.evaluate = lambda: ({"evaluation": {"heldout": {"success_once": 0.5}}}, next(scores))
    loop.run()
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best",
        "iteration_000002",
        "iteration_000004",
        "iteration_000005",
        "last",
    ]
    assert (folder / "best").resolve().name == "iteration_000002"
    assert (folder / "last").resolve().name == "iteration_000005"
    assert loop.best_score == 0.9
    torch.load(folder / "last" / TRAINING_STATE, weights_only=True)


def test_only_the_critic_learns_while_it_warms_up(tmp_path: Path) -> None:
    before = still_policy().state_dict()
    loop = make_loop(tmp_path, 1, critic_warmup_iterations=1)
    loop.run()
    changed = {
        name.split(".")[0] for name, value in loop.module.policy.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"value_head"}


def test_updates_end_when_the_policy_has_moved_enough(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 1, target_kl=1e-6, policy_lr=1e-3)
    policies, critics = [], []
    step = loop.optimizer.step

    def watched() -> None:
        before = {name: value.clone() for name, value in loop.module.policy.named_parameters()}
        step()
        changed = {name for name, value in loop.module.policy.named_parameters() if not torch.equal(value, before[name])}
        critics.append(any(name.startswith("value_head") for name in changed))
        policies.append(any(not name.startswith("value_head") for name in changed))

    loop.optimizer.step = watched
    loop.run()
    (row,) = logged(tmp_path)
    assert row["update/stopped_early"] == 1
    # Before the first update the policy has not moved at all, so it is made; of the other three, the one that shows how far it
    # went is left out, and the rest is the critic's.
    assert policies == [True, False, False] and all(critics)
    assert row["update/updates"] == 3


def test_micro_batches_add_up_to_the_minibatch(tmp_path: Path) -> None:
    gradients, metrics = [], []
    for size in (None, 7):
        loop = make_loop(tmp_path, 1)
        loop.data.collect(loop.module, 0)
        loop.config = TrainingConfig(iterations=1, micro_batch_size=size)
        metrics.append(loop._accumulate(next(iter(loop.data.train_dataloader())), 0))
        gradients.append({name: p.grad for name, p in loop.module.policy.named_parameters() if p.grad is not None})
    assert gradients[0]
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(metrics[1], metrics[0], atol=1e-6, rtol=1e-4)


def test_wall_clock_limit(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    loop.config = TrainingConfig(iterations=None, max_seconds=1e-9)
    loop.run()
    assert loop.iteration == 1


@pytest.mark.parametrize(
    ("schedule", "factors"), [("constant", [1 / 3, 2 / 3, 1, 1, 1]), ("linear", [1 / 3, 2 / 3, 1, 0.75, 0.5])]
)
def test_learning_rates_warm_up_and_decay(schedule: Any, factors: list[float]) -> None:
    module = toy_module(policy_lr=3.0, lr_schedule=schedule, lr_warmup_iterations=2)
    optimizer = module.configure_optimizers()
    rates = [module.start_iteration(iteration, 6, optimizer)["lr_policy"] for iteration in range(5)]
    assert rates == pytest.approx([3 * factor for factor in factors])


def test_options_win_over_the_checkpoint_when_resuming(tmp_path: Path) -> None:
    make_loop(tmp_path, 2).run()
    loop = make_loop(tmp_path, 3, policy=load_policy(tmp_path / "checkpoints" / "last"), policy_lr=7e-5)
    loop.resume()
    assert loop.module.start_iteration(2, 3, loop.optimizer)["lr_policy"] == 7e-5
