"""The arm as the rest of the package may use it: every motion passes the safety layer, and it parks whatever happens.

with GuardedArm(driver) as arm:          # connects and brings the arm to the start pose; parks at the end and on exceptions
    proprio = arm.proprioception()       # float32 [7], as the policy was trained
    outcome = arm.execute(action)        # one control step; the caller keeps the 5 Hz
    if outcome.changed: ...              # the rest of the chunk no longer fits
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Literal, NoReturn, Self

import numpy as np
import torch
from jaxtyping import Float

from deploy.control import NEUTRAL, PERIOD, SLEEP, START, Joints, hand_pose, raised
from deploy.drivers import ArmFault, ArmState, Clock, Driver, ReadError, WallClock
from deploy.gravity import GravityCompensation
from deploy.recorder import Recorder
from deploy.safety import SafetyLayer
from deploy.safety_config import SafetyConfig
from deploy.watch import GripperGuard, StateWatch
from genvla.robots.kinematics import proprioception
from genvla.robots.wx250s import ARM_JOINTS, JOINT_LOWER, JOINT_UPPER

CLEAR_OF_THINGS = 0.15
"""Metres over the table to which a hand that is lower is raised before the arm parks."""

SETTLED, SETTLING_STEPS = 0.02, 5
"""A motion is over when no joint is further than this [rad] from its goal, or after so many control steps more: friction and
gravity may keep it."""
OVER = "the run is over"


@dataclass(frozen=True)
class Outcome:
    """What became of an action. changes: the guards that altered it; reason: why the arm held instead."""

    kind: Literal["moved", "held"]
    changes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the arm does something else than the action said."""
        return self.kind == "held" or bool(self.changes)


class GuardedArm:
    """Owns the driver; nothing else commands it.

    Args:
        driver: of the arm, not connected yet.
        safety: the limits.
        clock: the driver's; of a simulation, when its time passes only with commands.
        recorder: the black box.
        monitor: watch the arm from a thread of its own, so that it also holds and parks when the caller hangs; True on a wall
            clock. Without it the arm is watched when it is used.
        homing: get up from the sleep pose, and lie down in the end. False leaves a simulated arm where it is.
    """

    def __init__(
        self,
        driver: Driver,
        safety: SafetyConfig | None = None,
        *,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
        monitor: bool | None = None,
        homing: bool = True,
    ) -> None:
        self.__driver = driver
        self.safety = safety or SafetyConfig()
        self.counts: Counter[str] = Counter()
        """How often each guard changed, held or stopped something."""
        self._clock = clock or WallClock()
        self._recorder = recorder or Recorder(seconds=self.safety.recording_seconds)
        self._monitored = isinstance(self._clock, WallClock) if monitor is None else monitor
        self._homing = homing
        self._layer, self._watch, self._grip = SafetyLayer(self.safety), StateWatch(self.safety), GripperGuard(self.safety)
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._signals: dict[int, object] = {}
        self._connected = self._risen = self._parked = False
        self._stopped_why = ""
        self._last_action: float | None = None
        self._held_by_watchdog = False
        self._opening = 1.0
        self._lost_readings = 0

    # ---- life

    def __enter__(self) -> Self:
        self._catch_signals()
        try:
            self.connect()
            if self._homing:
                self._get_up()
            return self
        except BaseException as error:
            self._end(f"{type(error).__name__}: {error}")
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(OVER if error is None else f"{type(error).__name__}: {error}")

    def connect(self) -> None:
        """Opens the driver and begins to watch. Nothing moves."""
        with self._lock:
            self.__driver.connect()
            self._connected = True
            state = self._read()
            self._opening = float(state.gripper > 0.5)
            self._layer.resync(state)
        if self._monitored:
            self._thread = threading.Thread(target=self._monitor, name="arm-monitor", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stops watching, ends the connection and gives the signals back; the arm stays as it is."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        with self._lock:
            if self._connected:
                self.__driver.close()
            self._connected = False
        for number, handler in self._signals.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._signals = {}

    # ---- use

    def observe(self) -> ArmState:
        """The newest state. ArmFault when it shows that the arm may not go on."""
        with self._lock:
            self._may_go_on()
            return self._checked_state()

    def proprioception(self) -> Float[np.ndarray, " 7"]:
        """What the policy is told of the arm (`genvla.types`), float32."""
        return proprioception(torch.from_numpy(self.observe().qpos[None]))[0].numpy()

    def execute(self, action: Float[np.ndarray, " 7"]) -> Outcome:
        """Starts one control step. ArmFault when the arm may not go on; it holds then, and parks when the block ends."""
        with self._lock:
            self._may_go_on()
            state = self._checked_state()
            verdict = self._layer.step(action, state)
            self._last_action, self._held_by_watchdog = self._clock.now(), False
            self._recorder.write(
                "action", self._clock.now(), action=_recordable(action), verdict=verdict.kind, why=verdict.reason
            )
            self.counts.update(verdict.changes)
            if verdict.kind == "stop":
                self._stop(verdict.reason)
            if verdict.kind == "hold":
                self.counts["hold"] += 1
                self._hold(verdict.reason)
                return Outcome("held", reason=verdict.reason)
            self._opening = verdict.gripper
            self._command(verdict.joints, self._grip.command(verdict.gripper, state), verdict.duration)
            return Outcome("moved", verdict.changes)

    def resync(self) -> None:
        """The policy's target becomes where the hand is; at the start of an episode."""
        with self._lock:
            self._may_go_on()
            self._layer.resync(self._checked_state())

    def move_to(self, joints: Joints, gripper: float | None = None) -> None:
        """Moves to joint angles [rad] at homing speed and returns when the arm is there; gripper 0 closed .. 1 open."""
        with self._lock:
            self._may_go_on()
            self._move(joints, gripper)
            self._layer.resync(self._checked_state())

    def stay(self, joints: Joints) -> None:
        """Spends one control step at joint angles [rad] that `move_to` has brought the arm to."""
        with self._lock:
            self._may_go_on()
            self._move(joints, settle=False)

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self._clock.sleep(seconds)

    def compensate(self, compensation: GravityCompensation) -> None:
        """Raises the drives' goals against gravity in another way from now on. ArmFault when the driver cannot."""
        with self._lock:
            if not hasattr(self.__driver, "compensation"):
                raise ArmFault("this driver cannot compensate for gravity")
            self.__driver.compensation = compensation

    def hold(self, reason: str) -> None:
        """Stops where the arm is, until the next action; it does not park for want of one."""
        with self._lock:
            self._last_action = None
            self.counts["hold"] += 1
            self._hold(reason)

    def park(self, reason: str) -> None:
        """Lies down in the sleep pose and lets go. ArmFault when it cannot; then it holds. An interrupt meanwhile holds too."""
        with self._lock:
            if self._parked:
                return
            self._last_action = None
            self._note(f"parking: {reason}")
            try:
                self._lie_down()
            except BaseException as error:
                self._hold_if_possible(f"parking failed: {type(error).__name__}: {error}")
                raise
            self._parked = True
            self._stopped_why = self._stopped_why or f"parked: {reason}"

    # ---- motion; the lock is held

    def _get_up(self) -> None:
        with self._lock:
            measured = self._checked_state().joint_positions
            _refuse_outside(measured)
            off = np.abs(measured - SLEEP)
            if off.max() > self.safety.homing.start_tolerance:
                raise ArmFault(
                    f"{ARM_JOINTS[int(off.argmax())]} is {off.max():.2f} rad from the sleep pose, at most "
                    f"{self.safety.homing.start_tolerance:g} wanted: run `deploy park`, or lay the arm down with its power off"
                )
            self._risen = True
            self._move(NEUTRAL, 1.0)
            self._move(START, 1.0)
            self._layer.resync(self._checked_state())

    def _lie_down(self) -> None:
        state = self._checked_state(parking=True)
        if state.faults:
            raise ArmFault(f"{state.faults[0]}: it is not moved, reboot the motor by hand")
        measured = state.joint_positions
        clear = self.safety.workspace.table_height + CLEAR_OF_THINGS
        if np.abs(measured - SLEEP).max() > self.safety.homing.start_tolerance:
            if hand_pose(measured)[0][2] < clear:
                self._move(raised(measured, clear), parking=True)
            self._move(NEUTRAL, parking=True)
        self._move(SLEEP, seconds=self.safety.homing.park_seconds, parking=True)
        self._clock.sleep(PERIOD)
        self.__driver.park()

    def _move(
        self, goal: Joints, gripper: float | None = None, seconds: float = 0.0, parking: bool = False, settle: bool = True
    ) -> None:
        if gripper is not None:
            self._opening = gripper
        start = np.asarray(self._checked_state(parking).joint_positions, float)
        previous = start
        for step in self._layer.way(start, goal, seconds):
            measured = np.asarray(self._checked_state(parking).joint_positions, float)
            if np.abs(measured - previous).max() > self.safety.joints.step:
                self._stop(f"the arm does not follow: {np.abs(measured - previous).max():.2f} rad behind")
            self._command(step, self._grip.command(self._opening, self._state), PERIOD)
            self._clock.sleep(PERIOD)
            previous = step
        for _ in range(SETTLING_STEPS if settle else 0):
            if np.abs(self._checked_state(parking).joint_positions - previous).max() < SETTLED:
                break
            self._command(previous, self._grip.command(self._opening, self._state), PERIOD)
            self._clock.sleep(PERIOD)

    def _command(self, joints: Joints, gripper: float, duration: float) -> None:
        self._recorder.write("command", self._clock.now(), joints=joints, gripper=gripper, duration=duration)
        self._guard(lambda: self.__driver.command(joints, gripper, duration))

    def _hold(self, reason: str) -> None:
        self._recorder.write("hold", self._clock.now(), reason=reason)
        self._guard(self.__driver.hold)

    def _hold_if_possible(self, reason: str) -> None:
        self._note(reason)
        try:
            self.__driver.hold()
        except ArmFault as error:
            self._note(f"cannot hold either: {error}")
        self._flush(reason)

    # ---- watching; the lock is held

    def _read(self) -> ArmState:
        """A state; one that got lost is asked for again, up to so many in a row."""
        while True:
            try:
                self._state = self.__driver.read()
            except ReadError as error:
                self._lost_readings += 1
                self.counts["lost reading"] += 1
                if self._lost_readings > self.safety.watchdogs.read_errors:
                    raise ArmFault(f"{self._lost_readings} readings in a row got lost: {error}") from error
                continue
            self._lost_readings = 0
            self._recorder.state(self._state)
            return self._state

    def _checked_state(self, parking: bool = False) -> ArmState:
        """A state that shows nothing to stop for. While the arm parks it goes on as long as it can: hot motors should rest."""
        try:
            state = self._read()
        except ArmFault as error:
            self._stop(str(error))
        findings = self._watch.look(state)
        for warning in findings.warnings:
            self.counts[f"warm {warning.split(':')[0]}"] += 1
        if findings.stop and not parking:
            self._stop(findings.stop)
        if findings.stalled:
            self.counts["stall"] += 1
            self._layer.resync(state)
        if findings.open_a_little:
            self.counts["gripper gave way"] += 1
            self._grip.give_way()
        return state

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except ArmFault as error:
            self._stop(str(error))

    def _may_go_on(self) -> None:
        if not self._connected:
            raise ArmFault("the arm is not connected")
        if self._stopped_why:
            raise ArmFault(self._stopped_why)

    def _stop(self, reason: str) -> NoReturn:
        """Holds for good, keeps the black box, and says so to whoever uses the arm."""
        if not self._stopped_why:
            self._stopped_why = reason
            self.counts["stop"] += 1
            self._hold_if_possible(f"stopped: {reason}")
        raise ArmFault(reason)

    def _monitor(self) -> None:
        """The thread: looks at the arm at a steady rate, holds when actions stop coming, then parks."""
        dogs = self.safety.watchdogs
        while not self._stopping.wait(1.0 / dogs.rate):
            with self._lock:
                if self._stopping.is_set() or self._parked:
                    return
                try:
                    self.watch()
                except ArmFault:
                    if self._last_action is None or self._stopped_why:
                        continue  # the caller is told at its next call; it or the end of its block parks

    def watch(self) -> None:
        """Looks at the arm and at how long ago the last action was; the monitor does this, or a caller without one."""
        with self._lock:
            dogs = self.safety.watchdogs
            if not self._stopped_why:
                self._checked_state()
            if self._last_action is None:
                return
            silent = self._clock.now() - self._last_action
            if silent > dogs.park:
                reason = f"no action for {silent:.1f} s, at most {dogs.park:g} s wanted"
                self.counts["watchdog park"] += 1
                self._stopped_why = self._stopped_why or f"parked: {reason}"
                self._flush(reason)
                self.park(reason)
            elif silent > dogs.hold and not self._held_by_watchdog:
                self._held_by_watchdog = True
                self.counts["watchdog hold"] += 1
                self._hold(f"no action for {silent:.1f} s")

    # ---- ends

    def _end(self, reason: str) -> None:
        """Parks if there is an arm to park, and never hides the exception that led here."""
        try:
            if self._connected and (self._stopped_why or reason != OVER) and not self._parked:
                self._flush(self._stopped_why or reason)
            if self._connected and self._homing:
                self._leave(reason)
            elif self._connected:
                self._hold_if_possible(reason)
        except ArmFault as error:
            self._note(f"the arm could not park and holds where it is, support it before its power goes off: {error}")
        finally:
            self.close()

    def _leave(self, reason: str) -> None:
        """Parks; an arm that never got up is let go of where it lies, or held where it does not lie."""
        if self._risen:
            self.park(reason)
        elif not self._parked:
            with self._lock:
                self.__driver.park()

    def _catch_signals(self) -> None:
        """A polite end of the process raises SystemExit, so that the block ends and the arm parks; Ctrl-C does so by itself."""
        if threading.current_thread() is not threading.main_thread():
            return

        def leave(number: int, frame: FrameType | None) -> None:
            raise SystemExit(128 + number)

        for number in (signal.SIGTERM, signal.SIGHUP):
            self._signals[number] = signal.signal(number, leave)

    def _note(self, text: str) -> None:
        self._recorder.write("event", self._clock.now(), text=text)
        print(f"arm: {' '.join(text.split())}", file=sys.stderr)

    def _flush(self, reason: str) -> None:
        try:
            path = self._recorder.flush(reason)
        except OSError as error:
            self._note(f"the black box could not be written: {error}")
            return
        if path is not None:
            self._note(f"black box: {path}")


def _refuse_outside(joints: Joints) -> None:
    lower, upper = JOINT_LOWER[:6].numpy() - 0.05, JOINT_UPPER[:6].numpy() + 0.05
    outside = (joints < lower) | (joints > upper)
    if outside.any():
        joint = int(outside.argmax())
        raise ArmFault(f"{ARM_JOINTS[joint]}: {joints[joint]:.2f} rad found, {lower[joint]:.2f} to {upper[joint]:.2f} wanted")


def _recordable(action: object) -> list[float] | str:
    return (
        action.tolist()
        if isinstance(action, np.ndarray) and action.size <= 16 and action.dtype.kind in "fiu"
        else str(action)[:200]
    )
