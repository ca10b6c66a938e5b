"""Ending early when told to: a cluster that needs the machine sends SIGTERM, or the signal that the job asked for, and waits."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from genvla.learning.rollouts import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM is what Slurm and Kubernetes send; SIGUSR1 is what `sbatch --signal=USR1@120` sends two minutes before."""


class StopRequest:
    """Notes that one of the signals has come, while its block lasts. What runs then asks, and ends where it is safe to.

    Outside the main thread, where Python allows no signal handlers, it notes nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.received

    def check(self) -> None:
        """Raises Interrupted when a signal has come."""
        if self.received:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
