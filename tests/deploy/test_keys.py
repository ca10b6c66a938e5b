"""The operator's keys, on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator

import pytest

from deploy.keys import HELD, operator_keys
from genvla.errors import UserError


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The keyboard's end and the program's."""
    keyboard, file = pty.openpty()
    yield keyboard, file
    os.close(keyboard)
    os.close(file)


def test_any_key_holds_and_enter_lets_go_on(terminal: tuple[int, int]) -> None:
    keyboard, file = terminal
    before = termios.tcgetattr(file)
    with operator_keys(False, file) as halted:
        assert halted() == ""
        os.write(keyboard, b"     ")  # a key held in fright repeats
        assert halted() == halted() == "held by the operator"
        os.write(keyboard, b"\n")
        assert halted() == halted() == ""
        os.write(keyboard, b"\nx")
        assert halted() == "held by the operator"
    assert termios.tcgetattr(file) == before


def test_a_dead_man_s_switch_lets_move_while_it_is_held(terminal: tuple[int, int]) -> None:
    keyboard, file = terminal
    now = 10.0
    with operator_keys(True, file, lambda: now) as halted:
        assert halted() == "the space bar is not held"
        os.write(keyboard, b"x")
        assert halted() == "the space bar is not held"
        os.write(keyboard, b" ")
        assert halted() == ""
        now += 0.9 * HELD
        assert halted() == ""
        os.write(keyboard, b"  ")
        now += 0.2 * HELD
        assert halted() == ""
        now += HELD
        assert halted() == "the space bar is not held"


def test_without_a_terminal_there_is_no_key_to_hold() -> None:
    read, write = os.pipe()
    try:
        with operator_keys(False, read) as halted:
            assert halted() == ""
        with pytest.raises(UserError, match="dead_man: standard input is no terminal"), operator_keys(True, read):
            pass
    finally:
        os.close(read)
        os.close(write)
