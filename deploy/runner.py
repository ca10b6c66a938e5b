"""The control loop at 5 Hz: look, decide, and act through the safety layer, in simulation and on the robot alike.

A decision is a chunk of four actions. By default all are executed before the next decision, for which the robot looks when the
fourth has had its time. `exec_horizon` executes fewer of them; `prefetch` decides while the last of them is still being executed,
on a picture that is one control step older. What goes wrong leads to a hold, what stays wrong to parking.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

import numpy as np
from jaxtyping import Float

from deploy.arm import GuardedArm
from deploy.camera import Camera, CameraFault, FrameGuard
from deploy.client import PolicyFault
from deploy.deadlines import STEP, Deadlines
from deploy.drivers import ArmFault, Clock, WallClock
from deploy.policy import Policy
from deploy.safety_config import SafetyConfig
from genvla.errors import UserError
from genvla.types import CHUNK_SIZE

Chunk = Float[np.ndarray, "c 7"]
Noise = Callable[[int], Float[np.ndarray, "c 7"] | None]
"""The noise A^0 of the given decision; None lets the policy draw its own."""

PREFETCH_TIMEOUT = 2.0
"""Seconds for a decision made in the background; the policy's own time-out comes first where it is a server."""


@dataclass(frozen=True)
class RunSettings:
    """How chunks are executed.

    Args:
        exec_horizon: actions of a chunk that are executed before the next decision.
        prefetch: decide on the next chunk during the last action of this one, instead of after it.
    """

    exec_horizon: int = CHUNK_SIZE
    prefetch: bool = False

    def __post_init__(self) -> None:
        if self.exec_horizon < 1:
            raise UserError(f"exec_horizon: {self.exec_horizon} found, at least 1 wanted")


@dataclass
class RunReport:
    """What a run came to.

    outcome: over, as the caller's `over` said; or parked, for `reason`. cause: of parking: the arm or its safety layer, the
    camera, or the policy. decisions, steps: chunks asked for and actions executed.
    holds: why the arm was held, in order. fault: the last thing that camera or policy did wrong, empty when nothing.
    halted: control steps for which the operator held the arm.
    discarded: actions not executed because something changed the one before them, or the operator held the arm.
    changes: how often each guard of the safety layer changed an action.
    """

    outcome: Literal["over", "parked"] = "over"
    reason: str = ""
    cause: Literal["", "arm", "camera", "policy"] = ""
    decisions: int = 0
    steps: int = 0
    discarded: int = 0
    halted: int = 0
    fault: str = ""
    holds: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)
    max_frame_age: float = 0.0
    old_frames: int = 0
    deadlines: Deadlines = field(default_factory=Deadlines)

    def count(self, changes: tuple[str, ...]) -> None:
        for name in changes:
            self.changes[name] = self.changes.get(name, 0) + 1


class Runner:
    """One policy on one arm with one camera.

    Args:
        arm: takes every action.
        camera: its pictures are what the policy sees.
        policy: decides.
        clock: keeps the 5 Hz; the arm's.
        safety: how old a picture may be, and how long the arm holds before it parks.
        settings: see there.
        on_step: called after each control step with the report so far; for a display, a film.
        halted: why the operator does not want the arm to move now, empty while it may; asked before each action.
    """

    def __init__(
        self,
        arm: GuardedArm,
        camera: Camera,
        policy: Policy,
        clock: Clock,
        safety: SafetyConfig,
        settings: RunSettings | None = None,
        on_step: Callable[[RunReport], None] | None = None,
        halted: Callable[[], str] | None = None,
    ) -> None:
        self.arm, self.camera, self.policy, self.clock = arm, camera, policy, clock
        self.safety, self.settings = safety, settings or RunSettings()
        self._on_step = on_step or (lambda report: None)
        self._halted = halted or (lambda: "")

    def run(self, instruction: str, noise: Noise, over: Callable[[], bool]) -> RunReport:
        """Acts until `over`, which is asked before each decision, or until the arm had to park.

        Args:
            instruction: what to do.
            noise: see `Noise`.
            over: whether the episode is over.
        """
        return _Run(self, instruction, noise, over).run()


@contextmanager
def _short_pauses(clock: Clock) -> Iterator[None]:
    """Keeps the garbage collector from looking through all that was there before, for 0.1 s and more in the midst of a step;
    where time passes meanwhile."""
    if not isinstance(clock, WallClock):
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Run:
    """One run in progress."""

    def __init__(self, runner: Runner, instruction: str, noise: Noise, over: Callable[[], bool]) -> None:
        self._arm, self._camera, self._policy, self._clock = runner.arm, runner.camera, runner.policy, runner.clock
        self._safety, self._settings, self._on_step = runner.safety, runner.settings, runner._on_step
        self._halted = runner._halted
        self._instruction, self._noise, self._over = instruction, noise, over
        self._guard = FrameGuard(self._safety.frames)
        self._report = RunReport()
        self._times = self._report.deadlines
        self._tick = self._worked = 0.0
        self._faulty_steps = 0

    def run(self) -> RunReport:
        with ThreadPoolExecutor(1, "prefetch") as background, _short_pauses(self._clock):
            self._tick = self._clock.now()
            self._worked = time.perf_counter()
            try:
                self._loop(background)
            except ArmFault as fault:
                self._end(str(fault), "arm")
        self._report.max_frame_age, self._report.old_frames = self._guard.max_age, self._guard.warnings
        return self._report

    def _loop(self, background: ThreadPoolExecutor) -> None:
        ahead: Future[Chunk] | None = None
        while not self._over():
            if reason := self._halted():
                self._halt(reason)
                ahead = None
                continue
            try:
                chunk = self._chunk(ahead)
            except (CameraFault, PolicyFault) as fault:
                ahead = None
                if not self._hold(fault):
                    return
                continue
            self._faulty_steps = 0
            ahead = self._execute(chunk[: self._settings.exec_horizon], background)

    def _chunk(self, ahead: Future[Chunk] | None) -> Chunk:
        """The chunk that was decided on ahead, or one decided on now."""
        if ahead is None:
            image, state = self._observe()
            with self._times.measure("policy"):
                return self._decide(image, state)
        with self._times.measure("policy"):
            try:
                return ahead.result(PREFETCH_TIMEOUT)
            except NotInTime:
                raise PolicyFault(f"policy: no decision within {PREFETCH_TIMEOUT:g} s") from None

    def _observe(self) -> tuple[np.ndarray, np.ndarray]:
        with self._times.measure("camera"):
            frame = self._camera.read()
            self._guard.check(frame, self._clock.now())
        return frame.image, self._arm.proprioception()

    def _decide(self, image: np.ndarray, state: np.ndarray) -> Chunk:
        noise = self._noise(self._report.decisions)
        chunk = self._policy.decide(image, state, self._instruction, noise)
        self._report.decisions += 1
        return chunk

    def _execute(self, chunk: Chunk, background: ThreadPoolExecutor) -> Future[Chunk] | None:
        """Executes the actions one control step each; what is decided on meanwhile, if anything."""
        ahead: Future[Chunk] | None = None
        for k, action in enumerate(chunk):
            if self._halted():
                self._report.discarded += len(chunk) - k
                return None
            last = k == len(chunk) - 1
            if last and self._settings.prefetch:
                try:
                    ahead = background.submit(self._decide, *self._observe())
                except CameraFault:
                    ahead = None  # the next decision looks again, and holds if there is still nothing to see
            with self._times.measure("arm"):
                outcome = self._arm.execute(action)
            self._report.count(outcome.changes)
            if outcome.kind == "held":
                self._report.holds.append(outcome.reason)
            self._next_step()
            if outcome.changed and not last:  # the rest of the chunk was meant for another place
                self._report.discarded += len(chunk) - 1 - k
                return None
        return ahead

    def _next_step(self) -> None:
        """Ends a control step: notes its work, waits for the next. A late step moves those after it; none is made up for."""
        self._report.steps += 1
        self._times.step(time.perf_counter() - self._worked)
        self._wait()
        self._on_step(self._report)

    def _wait(self) -> None:
        self._tick = max(self._tick + STEP, self._clock.now())
        self._clock.sleep(self._tick - self._clock.now())
        self._worked = time.perf_counter()

    def _halt(self, reason: str) -> None:
        """Holds for a control step, for as many as the operator likes."""
        self._report.halted += 1
        self._arm.hold(reason)
        self._wait()
        self._on_step(self._report)

    def _hold(self, fault: CameraFault | PolicyFault) -> bool:
        """Holds for a control step; parks, and returns False, when that has lasted too long."""
        camera = isinstance(fault, CameraFault)
        patience = self._safety.frames.abort if camera else self._safety.watchdogs.park
        self._faulty_steps += 1
        self._report.holds.append(str(fault))
        self._report.fault = str(fault)
        if self._faulty_steps >= ceil(patience / STEP):
            self._end(str(fault), "camera" if camera else "policy")
            return False
        self._arm.hold(str(fault))
        self._wait()
        self._on_step(self._report)
        return True

    def _end(self, reason: str, cause: Literal["arm", "camera", "policy"]) -> None:
        """Parks, unless the arm itself is what cannot go on: then its own layer has held it, and parks it when its block ends."""
        self._report.outcome, self._report.reason, self._report.cause = "parked", reason, cause
        if cause != "arm":
            self._arm.park(reason)
