"""The control loop on the simulated arm, through the real safety layer; policies and cameras here do as they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.arm import GuardedArm
from deploy.camera import CameraFault, Frame
from deploy.client import PolicyFault
from deploy.deadlines import Deadlines
from deploy.drivers.twin import TwinDriver
from deploy.recorder import Recorder
from deploy.runner import Runner, RunReport, RunSettings
from deploy.safety_config import SafetyConfig
from genvla.errors import UserError
from genvla.sim.config import SimConfig


class Telling:
    """A policy whose k-th decision moves a little to the left and back; keeps what it was shown."""

    def __init__(self, faults: Callable[[int], bool] = lambda call: False) -> None:
        self.calls, self.faults = 0, faults
        self.seen: list[tuple[int, float]] = []

    def decide(self, image: np.ndarray, state: np.ndarray, prompt: str, noise: np.ndarray | None) -> np.ndarray:
        self.calls += 1
        if self.faults(self.calls - 1):
            raise PolicyFault("ws://nowhere did not answer in time")
        assert prompt == "go" and state.dtype == np.float32 and state.shape == (7,)
        self.seen.append((int(image[0, 0, 0]), float(state[1])))
        chunk = np.zeros((4, 7), np.float32)
        chunk[:, 1] = 0.001 * np.arange(1, 5) * (1 if len(self.seen) % 2 else -1)
        chunk[:, 6] = 1.0
        return chunk

    def close(self) -> None: ...


class Counting:
    """A camera whose pictures tell at which control step they were taken."""

    def __init__(self, driver: TwinDriver, faults: Callable[[int], bool] = lambda read: False) -> None:
        self.driver, self.faults, self.reads = driver, faults, 0

    def read(self) -> Frame:
        self.reads += 1
        if self.faults(self.reads - 1):
            raise CameraFault("camera: gone")
        step = round(self.driver.clock.now() * 5)
        return Frame(np.full((8, 8, 3), 50 + step % 200, np.uint8), self.driver.clock.now(), step)

    def close(self) -> None: ...


class World:
    """Arm, black box, camera and policy."""

    def __init__(self, **settings: Any) -> None:
        self.driver = TwinDriver(SimConfig(sim_hz=100), start="start")
        self.box = Recorder()
        self.safety = SafetyConfig()
        self.arm = GuardedArm(self.driver, self.safety, clock=self.driver.clock, recorder=self.box, homing=False)
        self.arm.connect()
        self.camera, self.policy, self.settings = Counting(self.driver), Telling(), RunSettings(**settings)

    def run(self, steps: int) -> RunReport:
        runner = Runner(self.arm, self.camera, self.policy, self.driver.clock, self.safety, self.settings)
        return runner.run("go", lambda decision: None, lambda: self.driver.clock.now() > (steps - 0.5) / 5)

    def actions(self) -> np.ndarray:
        return np.array([row["action"][1] for row in self.box._rows if row["kind"] == "action"])


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(**settings))
        return made[-1]

    yield make
    for one in made:
        one.arm.close()


CHUNK = np.array([0.001, 0.002, 0.003, 0.004], np.float32)


def test_chunks_are_executed_whole_and_the_robot_looks_after_each(world: Callable[..., World]) -> None:
    here = world()
    report = here.run(12)
    np.testing.assert_array_equal(here.actions(), np.concatenate((CHUNK, -CHUNK, CHUNK)))
    assert [picture - 50 for picture, _ in here.policy.seen] == [0, 4, 8]
    assert (report.decisions, report.steps, report.outcome, report.holds) == (3, 12, "over", [])
    assert report.deadlines.steps == 12 and report.changes == {}


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_receding_horizon_executes_the_first_actions_alone(world: Callable[..., World], horizon: int) -> None:
    here = world(exec_horizon=horizon)
    report = here.run(6)
    signs = np.repeat([1, -1] * 3, horizon)[:6]
    np.testing.assert_array_equal(here.actions(), (np.tile(CHUNK[:horizon], 6)[:6] * signs).astype(np.float32))
    assert report.decisions == 6 / horizon
    assert [picture - 50 for picture, _ in here.policy.seen] == list(range(0, 6, horizon))


def test_prefetch_decides_one_step_ahead_and_executes_the_same(world: Callable[..., World]) -> None:
    here = world(prefetch=True)
    report = here.run(12)
    np.testing.assert_array_equal(here.actions(), np.concatenate((CHUNK, -CHUNK, CHUNK)))
    assert [picture - 50 for picture, _ in here.policy.seen] == [0, 3, 7, 11]  # the last one is not executed any more
    assert report.decisions == 4


def test_a_silent_policy_is_a_hold_then_parking_with_the_reason(world: Callable[..., World]) -> None:
    here = world()
    here.policy.faults = lambda call: call >= 1
    report = here.run(1000)
    assert (report.outcome, report.cause) == ("parked", "policy")
    assert report.reason == "ws://nowhere did not answer in time"
    assert len(report.holds) == 10  # two seconds of control steps
    np.testing.assert_array_equal(here.actions(), CHUNK)
    here.driver.park()  # it lies in the sleep pose, or this would raise


def test_a_camera_that_is_gone_is_a_hold_then_parking_sooner(world: Callable[..., World]) -> None:
    here = world()
    here.camera.faults = lambda read: read >= 2
    report = here.run(1000)
    assert (report.outcome, report.cause, report.reason) == ("parked", "camera", "camera: gone")
    assert len(report.holds) == 5 and report.steps == 8


@pytest.mark.parametrize("prefetch", [False, True])
def test_what_passes_is_held_and_gone_on_from(world: Callable[..., World], prefetch: bool) -> None:
    here = world(prefetch=prefetch)
    here.policy.faults = lambda call: call in (1, 2, 5)
    here.camera.faults = lambda read: read == 5
    report = here.run(40)
    assert report.outcome == "over"
    assert 3 <= len(report.holds) <= 4 and set(report.holds) <= {"ws://nowhere did not answer in time", "camera: gone"}


def test_a_wild_action_drops_the_rest_of_its_chunk(world: Callable[..., World]) -> None:
    here = world()
    wild = np.zeros((4, 7), np.float32)
    wild[:, 6] = 1.0
    wild[1, 0] = 0.2
    here.policy.decide = lambda *_: wild  # type: ignore[method-assign]
    report = here.run(2)
    assert report.changes["step"] == 1 and report.discarded == 2 and report.steps == 2


def test_an_arm_that_cannot_go_on_ends_the_run(world: Callable[..., World]) -> None:
    here = world()
    here.policy.decide = lambda *_: np.full((4, 7), np.nan, np.float32)  # type: ignore[method-assign]
    report = here.run(100)
    assert (report.outcome, report.cause) == ("parked", "arm") and "finite" in report.reason


def test_the_operator_holds_the_arm_for_as_long_as_it_takes(world: Callable[..., World]) -> None:
    here = world()
    held = iter([False] * 8 + [True] * 30 + [False] * 1000)  # asked before each decision and each action
    runner = Runner(
        here.arm, here.camera, here.policy, here.driver.clock, here.safety, here.settings, halted=lambda: "held" * next(held)
    )
    report = runner.run("go", lambda decision: None, lambda: here.driver.clock.now() > (14 + 29 - 0.5) / 5)
    assert (report.outcome, report.halted, report.steps, report.holds) == ("over", 29, 14, [])
    second = here.actions()[4:6]
    np.testing.assert_array_equal(second, -CHUNK[:2])  # the rest of it was meant for another place
    assert report.discarded == 2 and report.decisions == 4


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="exec_horizon: 0 found"):
        RunSettings(exec_horizon=0)


@settings(max_examples=50)
@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=40))
def test_latencies_are_percentiles_and_misses_are_counted(seconds: list[float]) -> None:
    times = Deadlines()
    for value in seconds:
        times.step(value)
    summary = times.summary()
    assert summary["missed"] == sum(value > 0.2 for value in seconds) and summary["steps"] == len(seconds)
    assert summary["stages"]["step"]["max_ms"] == pytest.approx(1000 * max(seconds))
    assert summary["stages"]["step"]["p50_ms"] == pytest.approx(1000 * float(np.median(seconds)))
    twice = Deadlines()
    twice.add(times)
    twice.add(times)
    assert twice.summary()["steps"] == 2 * len(seconds) and twice.table().row_count == 1
