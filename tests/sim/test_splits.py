from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import genvla.sim
from genvla.errors import UserError
from genvla.learning.datamodule import RolloutDataModule
from genvla.sim import split_scenes


@pytest.fixture(scope="module", autouse=True)
def hundred_scenes() -> None:
    """A set whose folder's name says how many training scenes it has; 28 more are held out."""

    def scenes_of(scenes: Path, split: str) -> list[str]:
        own = {"train": [f"t{i}" for i in range(int(scenes.name))], "heldout": [f"h{i}" for i in range(28)]}
        return own["train"] + own["heldout"] if split == "all" else own[split]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(genvla.sim, "scenes_of", scenes_of)
        yield


def test_without_a_seed_the_split_is_the_sets_own() -> None:
    assert split_scenes(Path("7"), "train") == [f"t{i}" for i in range(7)]
    assert split_scenes(Path("7"), "heldout") == [f"h{i}" for i in range(28)]


@settings(max_examples=40)
@given(st.integers(2, 130), st.integers(0, 2**31))
def test_halves_are_disjoint_and_make_up_the_training_scenes(count: int, seed: int) -> None:
    train, heldout, both = (split_scenes(Path(str(count)), split, seed) for split in ("train", "heldout", "all"))
    assert not set(train) & set(heldout)
    assert train + heldout == both and sorted(both) == sorted(f"t{i}" for i in range(count))
    assert 0 <= len(train) - len(heldout) <= 1
    assert train == split_scenes(Path(str(count)), "train", seed)


def test_every_scene_trains_in_about_half_of_the_splits() -> None:
    draws = [set(split_scenes(Path("100"), "train", seed)) for seed in range(400)]
    assert len({frozenset(draw) for draw in draws}) == 400
    for scene in ("t0", "t49", "t50", "t99"):
        assert 160 < sum(scene in draw for draw in draws) < 240  # 200 +- 4 standard deviations


@settings(max_examples=40)
@given(st.integers(1, 50), st.integers(0, 9))
def test_fewer_scenes_are_the_first_of_more(number: int, seed: int) -> None:
    data = RolloutDataModule(Path("100"), num_scenes=number, split_seed=seed)
    whole = RolloutDataModule(Path("100"), num_scenes=50, split_seed=seed)
    assert data.scene_ids() == whole.scene_ids()[:number]
    assert data.heldout_ids() == whole.heldout_ids() and len(data.heldout_ids()) == 50


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="1 training scenes"):
        split_scenes(Path("1"), "train", 0)
    with pytest.raises(UserError, match="'test'"):
        split_scenes(Path("9"), "test", 0)
    with pytest.raises(UserError, match="50 scenes in split train, data.num_scenes wants 51"):
        RolloutDataModule(Path("100"), num_scenes=51, split_seed=0).scene_ids()
