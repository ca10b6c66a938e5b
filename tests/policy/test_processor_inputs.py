"""Images, proprioception and actions as each family of checkpoints was trained with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genvla.errors import UserError
from genvla.policy.images import letterbox, squash, squash_by_matrices
from genvla.policy.processor import BRIDGE_STATISTICS, Processor, ProcessorConfig, Statistics
from genvla.types import Observation


def picture(height: int, width: int, seed: int, smooth: float) -> np.ndarray:
    """Noise of the given correlation length (pixels), stretched to the whole range, with a hard-edged rectangle in it."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 255, (height, width, 3))
    if smooth:
        image = cv2.GaussianBlur(image, (0, 0), smooth)
        image = (image - image.min()) / max(np.ptp(image), 1e-6) * 255
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.choice([0, 255], 3)
    return image.astype(np.uint8)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(10, 200), st.integers(10, 200), st.sampled_from([16, 31, 64]), st.integers(0, 99), st.sampled_from([0, 1.5, 6.0])
)
def test_two_matrices_are_opencvs_lanczos_within_one_step(h: int, w: int, size: int, seed: int, smooth: float) -> None:
    images = torch.from_numpy(picture(h, w, seed, smooth))[None, None]
    expected = cv2.resize(images[0, 0].numpy(), (size, size), interpolation=cv2.INTER_LANCZOS4)
    assert np.array_equal(squash(images, size)[0, 0].numpy(), expected)
    difference = np.abs(squash_by_matrices(images, size)[0, 0].numpy().astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.2


def test_a_camera_picture_at_full_size() -> None:
    images = torch.from_numpy(np.stack([picture(480, 640, seed, 4.0) for seed in range(2)]))[:, None]
    difference = (squash(images, 224).int() - squash_by_matrices(images, 224).int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.1


@pytest.mark.gpu
def test_on_a_gpu_images_stay_there() -> None:
    images = torch.from_numpy(picture(480, 640, 0, 4.0))[None, None]
    there = squash(images.cuda(), 224)
    assert there.is_cuda and (there.cpu().int() - squash(images, 224).int()).abs().max() <= 1


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 200), st.integers(20, 200), st.integers(0, 99), st.sampled_from([0, 3.0]))
def test_letterbox_is_pillows_bilinear_between_black_borders(h: int, w: int, seed: int, smooth: float) -> None:
    image, size = picture(h, w, seed, smooth), 56
    ratio = max(w / size, h / size)
    height, width = int(h / ratio), int(w / ratio)
    expected = np.zeros((size, size, 3), dtype=int)
    top, left = (size - height) // 2, (size - width) // 2
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    expected[top : top + height, left : left + width] = np.asarray(resized)
    assert np.abs(letterbox(torch.from_numpy(image)[None, None], size)[0, 0].numpy() - expected).max() <= 1


@pytest.mark.parametrize(
    ("images", "proprio", "match"),
    [
        (torch.zeros(1, 1, 8, 8, 3), torch.zeros(1, 7), r"images: found float32 \[1, 1, 8, 8, 3\], want uint8"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 7), r"found uint8 \[1, 8, 8, 3\]"),
        (torch.zeros(1, 1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 7), "want uint8"),
        (torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 8), r"proprio: found float32 \[1, 8\]"),
        (torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8), torch.zeros(1, 7, dtype=torch.int64), "want floating point"),
    ],
)
def test_wrong_inputs_are_named_in_one_line(images: torch.Tensor, proprio: torch.Tensor, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        Processor(ProcessorConfig(image_size=16))(Observation(images, ["go"], proprio))
    assert "\n" not in str(caught.value)


def test_bounds_are_those_of_open_pi_zero() -> None:
    """Figures of a WidowX at rest in the flat-table and the sink scene, in the Bridge frame (see genvla.types)."""
    raw = torch.tensor(
        [
            [0.292069, -0.006091, 0.135321, -0.004539, 0.056753, -0.019003, 1.0],
            [0.249719, -0.067508, 0.227593, 0.006636, 0.048383, 0.009225, 1.0],
        ]
    )
    expected = torch.tensor(
        [
            [-0.137186, -0.191400, 0.508003, -0.029943, 0.462759, -0.164892, 0.977944],
            [-0.436949, -0.495019, 1.0, 0.000081, 0.442366, -0.147183, 0.977944],
        ]
    )
    torch.testing.assert_close(Processor(ProcessorConfig()).normalise_proprio(raw), expected, atol=4e-6, rtol=0)


values = st.lists(st.floats(-3, 3, width=32), min_size=7, max_size=7)


@given(values, st.sampled_from(["quantiles", "mean_std"]))
def test_lerobots_normalisations_are_affine_in_every_entry(numbers: list[float], normalisation: Any) -> None:
    low, high = np.array(BRIDGE_STATISTICS.action_p01) - 0.01, np.array(BRIDGE_STATISTICS.action_p99) + 0.01
    pairs = ("p01", "p99") if normalisation == "quantiles" else ("mean", "std")
    fields: Any = {f"{name}_{key}": tuple(bound.tolist()) for name in ("action", "proprio")
                   for key, bound in zip(pairs, (low, high), strict=True)}  # fmt: skip
    processor = Processor(ProcessorConfig(action_dim=9, proprio_dim=8), Statistics(**fields, normalisation=normalisation))
    raw = torch.tensor([[numbers]], dtype=torch.float64)
    x = np.array(numbers)
    expected = 2 * (x - low) / (high - low) - 1 if normalisation == "quantiles" else (x - low) / (high + 1e-8)
    normalised = processor.normalise_actions(raw)
    np.testing.assert_allclose(normalised[0, 0, :7].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert normalised.shape == (1, 1, 9) and not normalised[..., 7:].any()
    proprio = processor.normalise_proprio(raw[0])
    np.testing.assert_allclose(proprio[0, :7].numpy(), expected, rtol=1e-9, atol=1e-9)
    assert proprio.shape == (1, 8) and not proprio[:, 7:].any()
    back = processor.denormalise_actions(normalised)
    torch.testing.assert_close(back[..., :6], raw[..., :6], atol=1e-6, rtol=1e-6)
    assert back.shape == (1, 1, 7)
    if abs(numbers[6] - 0.5) > 1e-3:
        assert back[0, 0, 6].item() == float(numbers[6] > 0.5)


def test_only_the_executed_actions_come_out() -> None:
    processor = Processor(ProcessorConfig(action_dim=32, executed=4), replace(BRIDGE_STATISTICS, normalisation="quantiles"))
    actions = torch.rand(2, 50, 32, generator=torch.Generator().manual_seed(0))
    whole = Processor(ProcessorConfig(action_dim=32), processor.statistics).denormalise_actions(actions)
    assert whole.shape == (2, 50, 7) and torch.equal(processor.denormalise_actions(actions), whole[:, :4])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"normalisation": "mean_std"}, "want action_mean and action_std for normalisation mean_std"),
        ({"action_p01": None}, "want action_p01 and action_p99"),
        ({"proprio_p99": (0.0,) * 6}, "found 7 and 6 values, want 7 each"),
        ({"proprio_p99": (float("inf"),) * 7}, "want finite"),
    ],
)
def test_statistics_must_hold_what_their_mode_needs(change: dict[str, object], match: str) -> None:
    with pytest.raises(UserError, match=match):
        replace(BRIDGE_STATISTICS, **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="want at least 7 and 7"):
        ProcessorConfig(action_dim=6)
