"""Watches the arm's state: what must stop it, what makes it give way, and what people should know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deploy.drivers import MOTORS, ArmState
from deploy.drivers.registers import crank_to_finger, finger_to_crank
from deploy.safety import is_finite
from deploy.safety_config import SafetyConfig
from genvla.robots.wx250s import ARM_JOINTS, FINGER_CLOSED, FINGER_OPEN

JOINT_OF_MOTOR = (0, 1, 1, 2, 2, 3, 4, 5)
"""Of all motors but the gripper's."""
VOLTAGE_SECONDS = 1.0
STILL = 0.2
"""rad/s of the gripper's motor, under which it has closed on something or on itself."""


@dataclass(frozen=True)
class Findings:
    """What one state shows. stop: why the arm may not go on, or empty. stalled: it pushes against something. open_a_little: the
    gripper squeezes too hard for too long. warnings: for people."""

    stop: str = ""
    stalled: bool = False
    open_a_little: bool = False
    warnings: tuple[str, ...] = ()


class StateWatch:
    """Looks at every state once, in order."""

    def __init__(self, config: SafetyConfig) -> None:
        self._config = config
        self._since: dict[str, float] = {}

    def look(self, state: ArmState) -> Findings:
        """What this state shows, given those before it."""
        if not is_finite(state):
            return Findings(stop="the arm's state is not finite")
        stalled = self._lasting("stall", self._pushes(state), state.time, self._config.joints.stall_seconds)
        squeezing = abs(state.gripper_load) > self._config.gripper.load
        return Findings(
            stop=next(self._stops(state), ""),
            stalled=stalled,
            open_a_little=self._lasting("squeeze", squeezing, state.time, self._config.gripper.load_seconds),
            warnings=self._warnings(state),
        )

    def _stops(self, state: ArmState) -> Iterator[str]:
        joints, dogs = self._config.joints, self._config.watchdogs
        if state.faults:
            yield state.faults[0]
        for name, degrees in zip(MOTORS, state.temperatures, strict=True):
            if degrees >= dogs.temperature_stop:
                yield f"{name}: {degrees:.0f} C, under {dogs.temperature_stop:g} C wanted"
        speeds = np.abs(state.joint_velocities)
        if speeds.max() > joints.speed_trip:
            yield f"{ARM_JOINTS[int(speeds.argmax())]}: {speeds.max():.1f} rad/s, at most {joints.speed_trip:g} wanted"
        if abs(state.gripper_velocity) > joints.gripper_speed_trip:
            yield f"gripper: {abs(state.gripper_velocity):.1f} rad/s, at most {joints.gripper_speed_trip:g} wanted"
        for motor, (name, joint) in enumerate(zip(MOTORS, JOINT_OF_MOTOR, strict=False)):
            current, most = abs(state.currents[motor]), joints.current_trip[joint]
            if self._lasting(f"current of {name}", current > most, state.time, joints.current_seconds):
                yield f"{name}: {current:.2f} A, at most {most:g} A wanted"
        low, high = dogs.voltage
        for name, volts in zip(MOTORS, state.voltages, strict=True):
            if self._lasting(f"voltage of {name}", volts < low or volts > high, state.time, VOLTAGE_SECONDS):
                yield f"{name}: {volts:.1f} V, {low:g} to {high:g} V wanted"

    def _pushes(self, state: ArmState) -> bool:
        joints = self._config.joints
        return any(
            abs(state.currents[motor]) > joints.stall_current and abs(state.joint_velocities[joint]) < joints.stall_speed
            for motor, joint in enumerate(JOINT_OF_MOTOR)
        )

    def _warnings(self, state: ArmState) -> tuple[str, ...]:
        hot = self._config.watchdogs.temperature_warn
        return tuple(f"{n}: {t:.0f} C" for n, t in zip(MOTORS, state.temperatures, strict=True) if t >= hot)

    def _lasting(self, name: str, now: bool, time: float, seconds: float) -> bool:
        """Whether something has been so for as many seconds without a break."""
        if not now:
            self._since.pop(name, None)
            return False
        return time - self._since.setdefault(name, time) >= seconds - 1e-9


class GripperGuard:
    """Keeps a real gripper's motor from squeezing itself hot. One whose load is unknown is left alone: a simulated one never
    tires, and its grasp should be what the policy learned."""

    def __init__(self, config: SafetyConfig) -> None:
        self._config = config.gripper
        self._closings = 0
        self._given = 0.0

    def command(self, opening: float, state: ArmState) -> float:
        """The opening to command when the policy wants `opening`, 0 closed to 1 open."""
        self._closings = self._closings + 1 if opening < 0.5 else 0
        if self._closings == 0:
            self._given = 0.0
        moving = abs(state.gripper_velocity) > STILL
        if self._closings < self._config.relax_after or moving or not np.isfinite(state.gripper_load):
            return opening
        present = finger_to_crank(float(np.mean(state.fingers)))
        return max(opening, self._opening(max(present - self._config.relax, self._config.floor) + self._given))

    def give_way(self) -> None:
        """Squeezes less from now on, until the gripper opens."""
        self._given += self._config.relax
        self._closings = max(self._closings, self._config.relax_after)

    @staticmethod
    def _opening(angle: float) -> float:
        return float(np.clip((crank_to_finger(angle) - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED), 0.0, 1.0))
