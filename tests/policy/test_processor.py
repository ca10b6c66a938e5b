from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genvla.errors import UserError
from genvla.policy.processor import BRIDGE_STATISTICS, Processor, ProcessorConfig, Statistics
from genvla.policy.tokenizer import BOS, NEWLINE, WORDS, WordTokenizer


def test_statistics_are_percentiles_of_the_data() -> None:
    rng = np.random.default_rng(0)
    actions, proprio = rng.normal(size=(5000, 7)), rng.uniform(size=(5000, 7))
    actions[:, 3] = 0.02  # an entry that never moves
    statistics = Statistics.fit(actions, proprio)
    assert statistics.action_p01[0] == pytest.approx(np.quantile(actions[:, 0], 0.01))
    assert statistics.proprio_p99[6] == pytest.approx(np.quantile(proprio[:, 6], 0.99))
    processor = Processor(ProcessorConfig(), statistics)
    still = processor.normalise_actions(torch.tensor(actions, dtype=torch.float32)[:, None])[..., 3]
    assert still.abs().max() < 1e-4
    inside = (processor.normalise_proprio(torch.tensor(proprio)).abs() < 1).double().mean()
    assert inside == pytest.approx(0.98, abs=0.005)


@pytest.mark.parametrize("shape", [(0, 7), (5, 6), (7,)])
def test_statistics_refuse_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="statistics"):
        Statistics.fit(np.zeros(shape), np.zeros((5, 7)))


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.booleans())
def test_actions_survive_the_way_there_and_back(values: list[float], opened: bool) -> None:
    processor = Processor(ProcessorConfig())
    actions = torch.tensor([[[*values, float(opened)]]], dtype=torch.float64)
    physical = processor.denormalise_actions(actions)
    torch.testing.assert_close(processor.normalise_actions(physical), actions, atol=1e-9, rtol=0)
    low, high = np.array(BRIDGE_STATISTICS.action_p01[:6]), np.array(BRIDGE_STATISTICS.action_p99[:6])
    np.testing.assert_allclose(physical[0, 0, :6].numpy(), (np.array(values) + 1) / 2 * (high - low) + low, atol=1e-9)


def test_out_of_range_is_clipped_and_gripper_thresholded() -> None:
    processor = Processor(ProcessorConfig())
    wild = torch.tensor([[[9.0, -9, 9, -9, 9, -9, 0.51]]])
    physical = processor.denormalise_actions(wild)[0, 0]
    assert physical[0].item() == pytest.approx(0.028122) and physical[1].item() == pytest.approx(-0.041432)
    assert physical[6] == 1.0 and processor.denormalise_actions(wild - 0.02)[0, 0, 6] == 0.0
    assert processor.normalise_actions(wild)[0, 0, :6].tolist() == [1, -1, 1, -1, 1, -1]


def test_images_are_squashed_with_lanczos_only_if_needed(observe) -> None:
    processor = Processor(ProcessorConfig(image_size=16))
    same = observe(size=16)
    assert processor(same).images is same.images
    large = torch.randint(0, 256, (2, 3, 20, 30, 3), dtype=torch.uint8)
    resized = processor.resize(large)
    assert resized.shape == (2, 3, 16, 16, 3)
    expected = cv2.resize(large[1, 2].numpy(), (16, 16), interpolation=cv2.INTER_LANCZOS4)
    assert np.array_equal(resized[1, 2].numpy(), expected)


def test_masks_mark_text_and_cameras(observe) -> None:
    inputs = Processor(ProcessorConfig(image_size=16))(observe(cameras=2))
    assert inputs.image_mask.all() and inputs.image_mask.shape == (5, 2)
    assert inputs.token_mask.sum(1).tolist() == [10, 5, 5, 8, 3]
    assert not inputs.tokens[~inputs.token_mask].any()
    assert len(inputs) == 5


def test_known_words_have_ids_of_their_own() -> None:
    tokenizer = WordTokenizer(512, 16)
    ids = [tokenizer.encode(word)[1] for word in dict.fromkeys(WORDS)]
    assert len(set(ids)) == len(ids) and min(ids) > NEWLINE and max(ids) < tokenizer.first_hashed


def test_unknown_words_hash_the_same_everywhere() -> None:
    tokenizer = WordTokenizer(512, 16)
    assert tokenizer.encode("zyzzyva") == (BOS, 400, NEWLINE)  # 319 + blake2b("zyzzyva") mod 193: saved policies rely on it


@given(st.text(max_size=200))
def test_any_text_becomes_a_valid_prompt(text: str) -> None:
    ids = WordTokenizer(512, 16).encode(text)
    assert ids[0] == BOS and ids[-1] == NEWLINE and len(ids) <= 16
    assert all(NEWLINE < i < 512 for i in ids[1:-1])
    assert ids == WordTokenizer(512, 16).encode(text.lower().replace("_", " "))


def test_text_keeps_order_and_long_text_its_newline() -> None:
    tokenizer = WordTokenizer(512, 6)
    first, second = tokenizer.encode("red cube, blue bowl"), tokenizer.encode("Blue bowl: RED cube!")
    assert sorted(first) == sorted(second) and first != second
    assert tokenizer.encode("put the red cube in the blue bowl") == tokenizer.encode("put the red cube")
