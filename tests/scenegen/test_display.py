"""The display of a build: live in a terminal, line by line elsewhere, silent when asked to be."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from scenegen.display import BuildDisplay
from scenegen.schema import BuildEvent


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, record=True, width=110, height=40)


def event(scene: str, outcome: str, attempt: int = 0, **more: object) -> BuildEvent:
    return BuildEvent.model_validate({"scene_id": scene, "task": "t", "attempt": attempt, "outcome": outcome, **more})


def a_run(display: BuildDisplay, clock: Clock) -> None:
    display.reused("s0")
    display.started("s1")
    display.stage("s1", "layout")
    clock.now += 4
    seconds = {"design": 0.1, "assets": 0.2, "layout": 0.3}
    display.finished(event("s1", "retry", reasons=["no room [bold]at all[/bold]"], stage="layout", seconds=seconds, usd=0.25))
    display.started("s1")
    display.finished(event("s1", "accepted", 1, seconds={"design": 0.1, "assets": 0.2, "layout": 0.3}, usd=0.25))
    clock.now += 6
    display.started("s2")
    display.finished(event("s2", "rejected", 3, reasons=["target: not red", "too big"], stage="checks"))
    display.started("s3")
    display.stage("s3", "assets")


def test_lines_when_not_a_terminal():
    out, clock = console(False), Clock()
    with BuildDisplay(6, out, clock=clock) as display:
        a_run(display, clock)
    assert out.export_text().splitlines() == [
        "s0: already there",
        "s1: tried again after attempt 1 (layout): no room [bold]at all[/bold]",
        "s1: accepted in 1.2 s (attempt 2)",
        "s2: rejected: target: not red; too big (attempt 4)",
    ]
    assert "\x1b" not in out.file.getvalue()


def test_long_reasons_stay_on_their_line():
    out = console(False)
    with BuildDisplay(1, out) as display:
        display.finished(event("s0", "rejected", reasons=["x" * 400]))
    assert out.export_text() == f"s0: rejected: {'x' * 400}\n"


def test_live_table_in_a_terminal():
    out, clock = console(True), Clock()
    with BuildDisplay(6, out, clock=clock) as display:
        a_run(display, clock)
    last = out.export_text().split("of 6 scenes")[-1]
    assert "\x1b[" in out.file.getvalue()
    for said in ("1 accepted", "1 rejected", "0 retrying", "1 already there", "50% accepted", "$0.50", "10 s, 15 s left"):
        assert said in last, said
    rows = {
        line.split()[0]: line.split()[1:]
        for line in last.splitlines()
        if line.split()[:1] in (["assets"], ["layout"], ["checks"])
    }
    assert rows == {"assets": ["1", "2", "0.20"], "layout": ["–", "2", "0.30"], "checks": ["–", "0", "–"]}
    assert "no room [bold]at all[/bold]" in last and "s1: accepted in 1.2 s (attempt 2)" in last


def test_table_while_a_scene_is_tried_again():
    out, clock = console(True), Clock()
    display = BuildDisplay(3, out, clock=clock)
    display.finished(event("s0", "retry", reasons=["no"]))
    assert display.seconds_left is None
    out.print(display.render())
    said = out.export_text()
    assert "1 retrying" in said and "time left not known yet" in said and "none judged" in said


def test_quiet():
    for terminal in (False, True):
        out, clock = console(terminal), Clock()
        with BuildDisplay(6, out, verbose=False, clock=clock) as display:
            a_run(display, clock)
        assert out.file.getvalue() == ""
        assert display.done == 3


@given(st.lists(st.sampled_from(["accepted", "rejected", "reused"]), max_size=20), st.integers(0, 5), st.floats(0.1, 1e5))
def test_time_left_is_the_pace_of_what_was_made(outcomes, more, seconds):
    clock = Clock()
    display = BuildDisplay(len(outcomes) + more, console(False), verbose=False, clock=clock)
    for i, outcome in enumerate(outcomes):
        if outcome == "reused":
            display.reused(f"s{i}")
        else:
            display.finished(event(f"s{i}", outcome, reasons=["r"]))
    clock.now = seconds
    made = sum(outcome != "reused" for outcome in outcomes)
    assert display.done == len(outcomes)
    if made == 0:
        assert display.seconds_left is None
    else:
        assert abs(display.seconds_left - seconds * more / made) < 1e-6 * seconds
