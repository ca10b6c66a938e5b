"""A policy server and a camera that fail in the midst of a run: the arm holds, then parks, and one line says why."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deploy.camera import Frame, ThreadedCamera
from deploy.client import PolicyClient
from deploy.runner import Runner, RunReport
from tests.deploy.test_runner import World, world  # noqa: F401

pytest.importorskip("websockets")
pytest.importorskip("msgpack")

from genvla.serving.wire import pack  # noqa: E402
from tests.serving.test_server import Peer  # noqa: E402

CALM = np.tile(np.array([0, 0.001, 0, 0, 0, 0, 1.0], np.float32), (4, 1))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("hang", "did not answer in time|cannot be reached"),
        ("drop", "dropped the connection"),
        ("text", "the server says: error: tired"),
        (b"\xc1garbage", "no msgpack message"),
        (pack({"actions": np.full((4, 7), np.nan)}), "not finite"),
        (pack({"actions": np.zeros((4, 3))}), "want numbers"),
    ],
    ids=["hang", "drop", "text", "garbage", "nan", "shape"],
)
def test_a_server_that_fails(world: Callable[..., World], behaviour: Any, words: str) -> None:  # noqa: F811
    here = world()
    with Peer() as peer:
        client = PolicyClient(f"ws://127.0.0.1:{peer.port}", timeout=20.0)

        def stepped(report: RunReport) -> None:
            if report.steps == 4:
                peer.behaviour, client.timeout = behaviour, 0.05 if behaviour == "hang" else 20.0

        runner = Runner(here.arm, here.camera, client, here.driver.clock, here.safety, here.settings, stepped)
        report = runner.run("go", lambda decision: CALM, lambda: here.driver.clock.now() > 60)
        client.close()
    assert (report.outcome, report.cause, report.steps) == ("parked", "policy", 4)
    assert re.search(words, report.reason) and "\n" not in report.reason
    assert len(report.holds) == 10  # two seconds of control steps
    here.driver.park()  # it lies in the sleep pose, or this would raise


class Patient(ThreadedCamera):
    """Waits for a picture of now: simulated time leaps."""

    def read(self) -> Frame:
        with self._changed:
            seen = self._newest
            self._changed.wait_for(lambda: self._newest is not seen or self._problem is not None, 30)
        return super().read()


@pytest.mark.parametrize("fault", ["frozen", "unplugged"])
def test_a_camera_that_fails(world: Callable[..., World], fault: str) -> None:  # noqa: F811
    here, rng = world(), np.random.default_rng(0)
    struck: list[int] = []
    still = rng.integers(100, 140, (24, 32, 3)).astype(np.uint8)

    def grab() -> np.ndarray | None:
        time.sleep(0.001)
        if not struck:
            return rng.integers(100, 140, (24, 32, 3)).astype(np.uint8)
        return still if fault == "frozen" else None

    with Patient((grab, lambda: None, "x"), clock=here.driver.clock.now) as camera:

        def stepped(report: RunReport) -> None:
            if report.steps == 8 and not struck:
                struck.append(1)
                until = time.monotonic() + 30
                while time.monotonic() < until and camera._thread.is_alive() and camera._newest.repeats < 50:  # type: ignore[union-attr]
                    time.sleep(0.01)

        runner = Runner(here.arm, camera, here.policy, here.driver.clock, here.safety, here.settings, stepped)
        report = runner.run("go", lambda decision: None, lambda: here.driver.clock.now() > 60)
    assert (report.outcome, report.cause, report.steps) == ("parked", "camera", 8)
    assert ("frozen" if fault == "frozen" else "gives no more pictures") in report.reason and "\n" not in report.reason
    assert len(report.holds) == 5  # one second
    here.driver.park()
