from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genvla.learning.metrics import LOG_RATIO_LIMIT, combined, diagnosis


def of(values: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "ratio_mean": values.mean(),
        "ratio_std": values.std(correction=0),
        "ratio_min": values.min(),
        "ratio_max": values.max(),
        "log_ratio_rms": values.square().mean().sqrt(),
        "loss": values.mean(),
    }


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=20), st.integers(1, 5))
def test_micro_batches_give_the_metrics_of_the_whole(numbers: list[float], parts: int) -> None:
    values = torch.tensor(numbers, dtype=torch.float64)
    pieces = values.tensor_split(parts)
    found = combined([of(piece) for piece in pieces], [len(piece) / len(values) for piece in pieces])
    for name, value in of(values).items():
        assert found[name].item() == pytest.approx(value.item(), abs=1e-7)


SOUND = {"loss": 0.1, "policy_loss": 0.2, "log_ratio_rms": 0.5, "grad_norm_vlm": 1.0, "position_error_m": math.nan}


def test_a_sound_update_has_no_diagnosis() -> None:
    assert diagnosis(SOUND) is None  # a policy without a grounding head has no position error


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"policy_loss": math.nan}, ["policy_loss not finite", "loss 0.1", "gradient norms vlm 1"]),
        ({"grad_norm_vlm": math.inf}, ["grad_norm_vlm not finite", "vlm inf"]),
        ({"log_ratio_rms": 2 * LOG_RATIO_LIMIT}, ["log_ratio_rms above 1000", "log_ratio_rms 2000"]),
    ],
)
def test_a_diagnosis_says_what_and_how_much(wrong: dict[str, float], words: list[str]) -> None:
    found = diagnosis({**SOUND, **wrong})
    assert found is not None and all(word in found for word in words)
