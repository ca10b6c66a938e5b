from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Fabric

from genvla.errors import UserError
from genvla.learning.augmentation import Augmentation
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.demonstrations import DemonstrationDataModule, DemonstrationSet
from genvla.learning.imitation import ImitationModule
from genvla.learning.loop import Loop, TrainingConfig
from genvla.learning.pretrain import new_policy
from genvla.policy.checkpoints import load_policy
from genvla.policy.finetuning import part_of
from genvla.policy.flow_policy import FlowPolicyConfig
from genvla.seeding import generator
from genvla.sim.expert import Demonstration
from genvla.types import PRIVILEGED_NAMES, EpisodeRecord, EpisodeSpec
from tests.empty_scenes import write_scene_set
from tests.learning.toy import SCENES, ToyEnv, small_policy


def demonstration(spec: EpisodeSpec, length: int = 5, success: bool = True) -> Demonstration:
    """Goes to the toy's goal in each action; the gripper counts the steps, so that moments can be told apart."""
    env = ToyEnv(1)
    env.reset(lambda slot, k: spec)
    goal = env.goal(0)
    actions, proprio, privileged = np.zeros((length, 7)), np.zeros((length, 7)), np.zeros((length, len(PRIVILEGED_NAMES)))
    actions[:, 1] = proprio[:, 1] = goal
    actions[:, 6] = np.arange(length)
    images = np.full((length, 1, 8, 8, 3), int(200 * goal), np.uint8)
    record = EpisodeRecord(spec.scene_id, spec.seed, success, success, success, length, 2, f"reach in {spec.scene_id}")
    return Demonstration(record, images, proprio, privileged, actions)


class Expert(ToyEnv):
    """The toy world with an expert that fails every fourth time, and finishes in another order than it was asked."""

    calls = 0

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float) -> Iterator[Demonstration]:
        Expert.calls += 1
        return (demonstration(spec, 3 + k % 3, k % 4 != 3) for k, spec in reversed(list(enumerate(specs))))


class ToyDemonstrations(DemonstrationDataModule):
    def scene_ids(self) -> list[str]:
        return SCENES

    def make_env(self) -> Any:
        return Expert(1)


def data(tmp_path: Path, **settings: Any) -> ToyDemonstrations:
    defaults = {"demonstrations": 24, "cache": tmp_path / "cache", "minibatch_size": 32, "updates": 4}
    return ToyDemonstrations(write_scene_set(tmp_path / "scenes"), **{**defaults, **settings})


def toy_config() -> FlowPolicyConfig:
    return small_policy().config


def test_chunks_hold_the_next_actions_and_repeat_the_last() -> None:
    whole = DemonstrationSet.gather([demonstration(EpisodeSpec("toy-0", 1), 3), demonstration(EpisodeSpec("toy-0", 2), 5)])
    assert whole.chunks()[:, :, 6].tolist() == [
        *([0, 1, 2, 2], [1, 2, 2, 2], [2, 2, 2, 2]),
        *([0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4], [3, 4, 4, 4], [4, 4, 4, 4]),
    ]


def test_only_successes_are_kept_and_failures_counted(tmp_path: Path) -> None:
    found = data(tmp_path).prepare()
    assert (found.tried, found.successes) == (24, 18)
    with pytest.raises(UserError, match="none of 2 demonstrations succeeded"):
        DemonstrationSet.gather(demonstration(EpisodeSpec("toy-0", k), success=False) for k in range(2))


def test_the_cache_holds_the_same_and_depends_on_the_settings(tmp_path: Path) -> None:
    Expert.calls = 0
    first = data(tmp_path).prepare()
    again = data(tmp_path).prepare()
    assert Expert.calls == 1
    for name, value in vars(first).items():
        assert np.array_equal(value, getattr(again, name)), name
    data(tmp_path, noise=0.2).prepare()
    data(tmp_path, seed=1).prepare()
    changed = data(tmp_path)
    write_scene_set(changed.scenes, content="{} ")
    changed.prepare()
    assert Expert.calls == 4


def test_samples_are_what_the_policy_reads(tmp_path: Path) -> None:
    source = data(tmp_path)
    policy = new_policy(toy_config(), source, seed=0)
    found, samples = source.prepare(), source.prepare().samples(policy.processor, batch=7)
    assert len(samples) == len(found.actions) == samples.inputs.images.shape[0]
    assert samples.inputs.images.dtype == torch.uint8
    assert samples.inputs.images[5, 0, 0, 0, 0] == found.images[5, 0, 0, 0, 0]
    torch.testing.assert_close(
        policy.processor.denormalise_actions(samples.actions)[:, 0, 1],
        torch.from_numpy(found.actions[:, 1]).clamp(*np.quantile(found.actions[:, 1], (0.01, 0.99)).tolist()),
    )


def test_an_epoch_shows_every_moment_once(tmp_path: Path) -> None:
    source = data(tmp_path, minibatch_size=9, updates=5)
    module = ImitationModule(new_policy(toy_config(), source, seed=0))
    seen = []
    for iteration in range(4):
        source.collect(module, iteration)
        seen += [source._index(update) for update in range(5 * iteration, 5 * iteration + 5)]
        assert [len(batch) for batch in source.train_dataloader()] == [9] * 5
    total = len(source.prepare().actions)
    stream = torch.cat(seen)
    for epoch in range(len(stream) // total):
        assert sorted(stream[epoch * total : (epoch + 1) * total].tolist()) == list(range(total))


def make_loop(tmp_path: Path, iterations: int, policy: Any = None, sight_iterations: int = 0) -> Loop:
    source = data(tmp_path)
    module = ImitationModule(
        policy or new_policy(toy_config(), source, seed=0),
        sight_iterations=sight_iterations,
        policy_lr=5e-3,
        head_lr=5e-3,
        lr_schedule="constant",
    )
    config = TrainingConfig(iterations=iterations, checkpoint_every=2)
    return Loop(Fabric(accelerator="cpu", devices=1), module, source, config, Checkpoints(tmp_path / "run", keep=1))


def test_imitation_learns_where_to_go(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, 20)
    loop.run()
    found, policy = loop.data.prepare(), loop.module.policy
    inputs = found.samples(policy.processor).inputs
    actions = policy.act(inputs, generator=generator("cpu", 0), deterministic=True).actions[:, 0, 1]
    goals = torch.from_numpy(found.actions[:, 1])
    assert (actions - goals).abs().mean() < 0.5 * (goals - goals.mean()).abs().mean()


def test_the_eye_is_trained_before_the_hand(tmp_path: Path) -> None:
    for iterations, learns in ((2, False), (3, True)):
        (tmp_path / str(iterations)).mkdir()
        loop = make_loop(tmp_path / str(iterations), iterations, small_policy(grounding=True), sight_iterations=2)
        before = {name: value.clone() for name, value in loop.module.policy.state_dict().items()}
        loop.run()
        changed = {
            part_of(name) for name, value in loop.module.policy.state_dict().items() if not torch.equal(value, before[name])
        }
        assert ("expert" in changed) is learns
        assert {"vision", "vlm", "grounding_head"} <= changed


def test_the_learning_rates_start_again_for_the_hand() -> None:
    def rates(iterations: range, total: int, **settings: Any) -> list[float]:
        module = ImitationModule(small_policy(grounding=True), policy_lr=1.0, lr_warmup_iterations=1, **settings)
        optimizer = module.configure_optimizers()
        said = [module.start_iteration(i, total, optimizer)["lr_policy"] for i in iterations]
        assert said[-1] == optimizer.param_groups[0]["lr"]
        return said

    alone = rates(range(4), 4), rates(range(3), 3)
    assert rates(range(7), 7, sight_iterations=4) == [*alone[0], *alone[1]]
    assert len({*alone[0]}) == 4
    slower = rates(range(7), 7, sight_iterations=4, hand_lr_factor=0.5)
    assert slower == [*alone[0], *(rate / 2 for rate in alone[1])]


def test_a_hand_learns_at_some_rate() -> None:
    for rate in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match=rf"module.hand_lr_factor: {rate} found, more than 0 wanted"):
            ImitationModule(small_policy(grounding=True), hand_lr_factor=rate)


def test_without_an_eye_to_train_there_is_no_first_the_eye() -> None:
    with pytest.raises(UserError, match=r"module.sight_iterations: 2 found, 0 wanted"):
        ImitationModule(small_policy(grounding=False), sight_iterations=2)


def test_resuming_imitation_gives_the_same_bits(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = make_loop(tmp_path / "a", 4)
    whole.run()
    make_loop(tmp_path / "b", 2).run()
    resumed = make_loop(tmp_path / "b", 4, load_policy(tmp_path / "b" / "run" / "last"))
    assert resumed.resume()
    resumed.run()
    first, second = whole.module.policy.state_dict(), resumed.module.policy.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fresh_weights_follow_from_the_seed_and_touch_no_global_generator(tmp_path: Path) -> None:
    source = data(tmp_path)
    state = torch.get_rng_state()
    first, again, other = (new_policy(toy_config(), source, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def pictures() -> Any:
    draw = generator("cpu", 3)
    images = torch.randint(0, 256, (6, 2, 8, 8, 3), generator=draw).to(torch.uint8)
    rows = small_policy().processor(ToyEnv(6).reset(lambda slot, k: EpisodeSpec("toy", slot)))
    return type(rows)(**{**vars(rows), "images": images})


def test_no_augmentation_changes_nothing() -> None:
    inputs = pictures()
    assert Augmentation()(inputs, generator("cpu", 0)) is inputs


def test_brightness_scales_each_picture_and_leaves_the_rest_alone() -> None:
    inputs = pictures()
    dark = type(inputs)(**{**vars(inputs), "images": inputs.images // 2})
    changed = Augmentation(brightness=0.5)(dark, generator("cpu", 0))
    factor = changed.images.float().sum(dim=(2, 3, 4)) / dark.images.float().sum(dim=(2, 3, 4))
    assert factor.min() > 0.45 and factor.max() < 1.55
    assert factor.unique().numel() == factor.numel()
    assert torch.equal(changed.proprio, inputs.proprio)
    torch.testing.assert_close(changed.images.float(), dark.images * factor[:, :, None, None, None], atol=1.0, rtol=0)


def test_shift_moves_the_whole_picture() -> None:
    inputs = pictures()
    moved = Augmentation(shift=2)(inputs, generator("cpu", 0)).images[0, 0]
    original = torch.nn.functional.pad(inputs.images[0, 0].permute(2, 0, 1).float(), (2,) * 4, mode="replicate").permute(1, 2, 0)
    assert any(torch.equal(moved.float(), original[y : y + 8, x : x + 8]) for y in range(5) for x in range(5))
