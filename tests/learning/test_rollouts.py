from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genvla.errors import UserError
from genvla.learning.assignment import SceneAssignment
from genvla.learning.datamodule import Minibatches, RolloutDataModule
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import Decisions, Interrupted, Rollout, RolloutCollector
from genvla.types import CHUNK_SIZE
from tests.learning.toy import SCENES, ToyEnv, small_policy, toy_data, toy_module


def collect(
    num_envs: int = 6, steps: int = 7, seed: int = 0, iteration: int = 0, module: PPOFlowModule | None = None, **world: Any
) -> Rollout:
    env = ToyEnv(num_envs, **world)
    collector = RolloutCollector(env, SceneAssignment(SCENES, num_envs), steps, seed, "cpu")
    return collector.collect(module or toy_module(), iteration)


def test_an_iteration_follows_from_seed_and_number_alone() -> None:
    first, again = collect(iteration=3), collect(iteration=3)
    assert torch.equal(first.buffer.chain, again.buffer.chain)
    assert torch.equal(first.buffer.reward, again.buffer.reward)
    assert first.episodes == again.episodes
    assert not torch.equal(first.buffer.chain, collect(iteration=4).buffer.chain)
    assert not torch.equal(first.buffer.chain, collect(seed=1, iteration=3).buffer.chain)


def test_environments_keep_to_their_scene_and_never_repeat_an_episode() -> None:
    collector = RolloutCollector(ToyEnv(4), SceneAssignment(SCENES, 8), 1, 0, "cpu", first_slot=4)
    assert [collector.episode(0, slot, 0).scene_id for slot in range(4)] == ["toy-1", "toy-2", "toy-0", "toy-1"]
    seeds = [collector.episode(i, slot, k).seed for i in range(3) for slot in range(4) for k in range(3)]
    assert len(set(seeds)) == len(seeds)


def test_groups_collect_what_as_many_processes_would() -> None:
    """Bit for bit, so that training does not depend on how environments are shared out, nor on who was faster."""
    module = toy_module()

    def rollout(env: ToyEnv, first_slot: int) -> Rollout:
        return RolloutCollector(env, SceneAssignment(SCENES, 6), 7, 0, "cpu", first_slot).collect(module, 3)

    whole = rollout(ToyEnv(6, max_chunks=2, groups=2), 0)
    parts = [rollout(ToyEnv(3, max_chunks=2), first) for first in (0, 3)]
    for name in ("chain", "log_prob", "value", "reward", "terminated", "truncated", "valid", "final_value"):
        assert torch.equal(getattr(whole.buffer, name), torch.cat([getattr(part.buffer, name) for part in parts], dim=1)), name
    assert torch.equal(whole.buffer.next_value, torch.cat([part.buffer.next_value for part in parts]))
    assert torch.equal(whole.buffer.inputs.proprio, torch.cat([part.buffer.inputs.proprio for part in parts], dim=1))
    assert sorted(whole.episodes, key=str) == sorted(parts[0].episodes + parts[1].episodes, key=str)
    assert whole.buffer.truncated.any() and whole.buffer.terminated.any()


def test_more_scenes_than_environments_take_turns() -> None:
    data = toy_data(num_envs=2, steps=3, minibatch_size=6)
    seen = set()
    for iteration in range(2):
        data.collect(toy_module(), iteration)
        seen |= {data._collector.episode(iteration, slot, 0).scene_id for slot in range(2)}
    assert seen == set(SCENES)


def test_a_collection_that_is_broken_off_leaves_no_trace() -> None:
    """In whichever phase: the next one is that of a collector that was never disturbed."""
    module, data = toy_module(), toy_data(num_envs=4, steps=3, groups=2, curriculum=True)
    decisions = iter(range(100))
    data.interrupted = lambda: next(decisions) == 3
    before = data.state_dict()
    with pytest.raises(Interrupted):
        data.collect(module, 0)
    assert data.state_dict() == before
    data.interrupted = lambda: False
    again, fresh = data.collect(module, 0), toy_data(num_envs=4, steps=3, groups=2, curriculum=True).collect(module, 0)
    assert again["rollout"]["scene_success"] == fresh["rollout"]["scene_success"]
    assert again["rollout"]["advantage_mean"] == fresh["rollout"]["advantage_mean"]


def test_the_buffer_holds_what_happened() -> None:
    module = toy_module(small_policy(value_input="features"))
    rollout = collect(num_envs=6, steps=9, max_chunks=2, module=module)
    buffer = rollout.buffer
    assert buffer.inputs.images.dtype == torch.uint8
    assert buffer.usable().all()
    assert len(rollout.episodes) == int((buffer.terminated | buffer.truncated).sum())
    assert sum(record.success_once for record in rollout.episodes) == int(buffer.terminated.sum())
    values = module.value(buffer.inputs[4])
    torch.testing.assert_close(values, buffer.value[4])
    assert (buffer.final_value != 0).equal(buffer.truncated)
    # The goal is over before the toy's clock: its last observation is valued, not the next episode's first.
    assert not torch.isclose(buffer.final_value[:-1], buffer.value[1:])[buffer.truncated[:-1]].any()


def test_a_critic_that_sees_the_clock_expects_nothing_after_the_last_decision() -> None:
    buffer = collect(num_envs=6, steps=9, max_chunks=2).buffer
    assert buffer.truncated.any() and (buffer.final_value == 0).all() and (buffer.value != 0).all()


def test_an_interrupted_episode_is_void_back_to_its_start() -> None:
    rollout = collect(num_envs=2, steps=6, max_chunks=3, deaths=frozenset({(4, 1)}))
    buffer, usable = rollout.buffer, rollout.buffer.usable()
    assert usable[:, 0].all()
    ends = (buffer.terminated | buffer.truncated)[:4, 1].nonzero().flatten().tolist()
    start = ends[-1] + 1 if ends else 0
    assert usable[:, 1].tolist() == [t < start or t > 4 for t in range(6)]
    decisions, metrics = buffer.decisions(0.99, 0.95)
    assert len(decisions) == int(usable.sum())
    assert metrics["dropped_decisions"] == 12 - len(decisions)
    assert decisions.returns.isfinite().all()


def test_rows_of_the_update_are_the_usable_rows_with_their_own_inputs() -> None:
    buffer = collect(num_envs=3, steps=5, deaths=frozenset({(2, 0)})).buffer
    decisions, _ = buffer.decisions(0.99, 0.95)
    torch.testing.assert_close(decisions.chain, buffer.chain[buffer.usable()])
    torch.testing.assert_close(decisions.inputs.proprio, buffer.inputs.proprio[buffer.usable()])
    assert decisions.advantage.mean().item() == pytest.approx(0, abs=1e-5)


def test_the_ratio_is_1_before_the_first_update() -> None:
    module, data = toy_module(), toy_data()
    data.collect(module, 0)
    for batch in data.train_dataloader():
        metrics = module.training_step(batch)
        assert metrics["ratio_min"].item() == pytest.approx(1, abs=1e-5)
        assert metrics["ratio_max"].item() == pytest.approx(1, abs=1e-5)
        assert metrics["approx_kl"].item() == pytest.approx(0, abs=1e-5)


def test_recomputing_changes_nothing_where_acting_and_updating_agree() -> None:
    module, plain, recomputed = toy_module(), toy_data(), toy_data(recompute_log_probs=True)
    plain.collect(module, 0)
    recomputed.collect(module, 0)
    torch.testing.assert_close(plain._decisions.log_prob, recomputed._decisions.log_prob, atol=1e-3, rtol=1e-5)


def test_minibatches_cover_every_row_once_per_epoch_in_new_orders() -> None:
    number = torch.arange(103.0)
    rows = Decisions(number, number, number, number, number)  # type: ignore[arg-type]
    batches = list(Minibatches(rows, 4, 3, 7, "minibatches", 0))
    assert len(batches) == len(Minibatches(rows, 4, 3, 7)) == 12
    assert {len(batch) for batch in batches} == {25, 26}
    epochs = [torch.cat([batch.log_prob for batch in batches[e : e + 4]]) for e in (0, 4, 8)]
    for order in epochs:
        assert sorted(order.tolist()) == number.tolist()
    assert not torch.equal(epochs[0], epochs[1])
    again = list(Minibatches(rows, 4, 3, 7, "minibatches", 0))
    assert all(torch.equal(a.log_prob, b.log_prob) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(batches[0].log_prob, next(iter(Minibatches(rows, 4, 3, 7, "minibatches", 1))).log_prob)


def test_minibatches_are_about_as_large_as_asked_and_leave_out_what_is_void() -> None:
    data = toy_data(num_envs=10, steps=8, minibatch_size=30, epochs=1)
    data.env.deaths = frozenset({(0, 0)})
    metrics = data.collect(toy_module(), 0)
    assert metrics["decisions"] == 79
    assert [len(batch) for batch in data.train_dataloader()] == [27, 26, 26]
    assert metrics["env_steps"] == 80 * CHUNK_SIZE


def test_losing_everything_is_an_error_and_not_an_empty_update() -> None:
    data = toy_data(num_envs=1, steps=2)
    data.env.deaths = frozenset({(0, 0), (1, 0)})
    with pytest.raises(UserError, match="workers died"):
        data.collect(toy_module(), 0)


def test_success_is_reported_for_all_and_for_each_scene() -> None:
    rollout = toy_data().collect(toy_module(), 0)["rollout"]
    assert set(rollout["scene_success"]) == set(SCENES)
    assert 0 < rollout["success"] < 1
    assert min(rollout["scene_success"].values()) <= rollout["success"] <= max(rollout["scene_success"].values())


def test_scenes_are_named_by_the_beginning_of_their_id(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ["s0001_put_a", "s0002_put_b", "s0003_put_c", "s0012_put_d"]
    monkeypatch.setattr("genvla.sim.scenes_of", lambda scenes, split: found)
    assert RolloutDataModule(Path("x"), only=["s0003", "s0001_put_a"]).scene_ids() == ["s0003_put_c", "s0001_put_a"]
    assert RolloutDataModule(Path("x"), only=["s0003", "s0001"], num_scenes=1).scene_ids() == ["s0003_put_c"]
    for wrong, count in (("s0004", 0), ("s000", 3)):
        with pytest.raises(UserError, match=f"data.only: {count} scenes of split train in x begin with '{wrong}', want one"):
            RolloutDataModule(Path("x"), only=[wrong]).scene_ids()
