"""The operator's hand on the keyboard: any key holds the arm; or, as a dead man's switch, the space bar is what lets it move."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from genvla.errors import UserError

HELD = 0.8
"""Seconds for which a key still counts as held: more than a keyboard waits before it repeats one, 0.25 to 0.66 s."""


@contextmanager
def operator_keys(
    dead_man: bool, file: int | None = None, now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], str]]:
    """Yields what tells why the arm must not move now: one line, empty while it may.

    Args:
        dead_man: the arm may move only while the space bar is held, or a pedal that types it. Otherwise any key holds the arm and
            Enter lets it go on.
        file: of the terminal; standard input when None.
        now: seconds.

    Raises:
        UserError: a dead man's switch without a terminal. Without either the arm may always move.
    """
    file = sys.stdin.fileno() if file is None else file
    if not os.isatty(file):
        if dead_man:
            raise UserError("dead_man: standard input is no terminal, one with a space bar wanted")
        yield lambda: ""
        return
    before = termios.tcgetattr(file)
    tty.setcbreak(file)  # single keys, not lines; Ctrl-C still interrupts
    print(
        "the arm moves while the space bar is held" if dead_man else "any key holds the arm, Enter lets it go on",
        "(Ctrl-C parks)",
    )
    try:
        yield (_DeadMan(file, now) if dead_man else _Pause(file)).reason
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


class _DeadMan:
    def __init__(self, file: int, now: Callable[[], float]) -> None:
        self._file, self._now = file, now
        self._pressed = -HELD

    def reason(self) -> str:
        if b" " in _typed(self._file):
            self._pressed = self._now()
        return "" if self._now() - self._pressed < HELD else "the space bar is not held"


class _Pause:
    def __init__(self, file: int) -> None:
        self._file = file
        self._holding = False

    def reason(self) -> str:
        if typed := _typed(self._file):
            self._holding = typed[-1:] not in b"\r\n"  # not the same key again: a key that is held in fright repeats
        return "held by the operator" if self._holding else ""


def _typed(file: int) -> bytes:
    """What has been typed since the last time."""
    return os.read(file, 1024) if select.select([file], [], [], 0)[0] else b""
