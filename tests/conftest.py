"""What every test shares: one thread a process (pytest runs several), the same hypothesis examples every time, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402  (it reads OMP_NUM_THREADS when imported)
from hypothesis import settings  # noqa: E402

torch.set_num_threads(1)
settings.register_profile("genvla", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("genvla")


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """Commands that a test runs set threads for their process, and with more of them sums end in other last bits."""
    yield
    torch.set_num_threads(1)
