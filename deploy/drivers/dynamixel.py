"""The servos themselves, through ROBOTIS' SDK and a U2D2 adapter: protocol 2.0 at 1 Mbit/s.

Start-up: find nine motors of the right models; look at their error bits; write the settings that differ (EEPROM wears out, and
takes them only with the torque off: the arm must lie in its sleep pose then); bring the shadows in line; set gains and current
limits; goal = present position; torque on; bus watchdog. The servos then hold by themselves when this process dies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from deploy.control import PERIOD, PROFILE_ACCELERATION, PROFILE_TIME, SLEEP
from deploy.drivers import ArmFault, ArmState, Clock, ReadError, WallClock, finger_position
from deploy.drivers import registers as r
from deploy.drivers.registers import ARM_SERVOS, COMMANDED, SERVOS, Motor, Register
from deploy.drivers.servo_bus import REPLY_TIMEOUT, Bus, name_of, shorten_latency
from deploy.gravity import GravityCompensation
from deploy.safety_config import SafetyConfig
from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN

TRIES = 3
"""Of a single read or write at start-up."""
HEALTH_SECONDS = 0.5
"""Between two looks at temperatures, voltages and error bits."""
GRIPPER = SERVOS[-1]


class DynamixelDriver:
    """Nine servos on one bus.

    Args:
        device: the serial port.
        safety: current and PWM limits, bus watchdog and park tolerance.
        compensation: raises the goals against gravity; of the data sheet when None.
        clock: seconds.
        reply_timeout: how long a servo may take to answer, seconds.
    """

    def __init__(
        self,
        device: str = "/dev/ttyDXL",
        safety: SafetyConfig | None = None,
        compensation: GravityCompensation | None = None,
        clock: Clock | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
    ) -> None:
        self._device, self._safety, self._reply_timeout = device, safety or SafetyConfig(), reply_timeout
        self.compensation = compensation or GravityCompensation.from_data_sheet()
        self._clock = clock or WallClock()
        self._bus: Bus | None = None
        self._watchdog = 0
        self._joints = SLEEP.copy()
        self._health_time = -np.inf
        self._voltages, self._temperatures = np.full(len(SERVOS), np.nan), np.full(len(SERVOS), np.nan)
        self._faults: tuple[str, ...] = ()

    # ---- the protocol

    def connect(self) -> None:
        shorten_latency(self._device)
        self._bus = Bus(self._device, self._reply_timeout)
        try:
            self._check_motors()
            self._set_up()
            self._patiently(self.read)
        except BaseException:
            self._bus.close()
            self._bus = None
            raise

    def read(self) -> ArmState:
        raw = self._open.read_all(SERVOS, r.MOTION_BLOCK)
        now = self._clock.now()
        if now - self._health_time >= HEALTH_SECONDS:
            self._read_health(now)
        angles, speeds, currents = {}, {}, np.full(len(SERVOS), np.nan)
        for place, servo in enumerate(SERVOS):
            current, speed, tick = _signed(raw[servo.id], 2, 4, 4)
            angles[servo.id], speeds[servo.id] = r.to_angle(tick), speed * r.VELOCITY_UNIT
            if servo.model.has_current:
                currents[place] = current * r.CURRENT_UNIT
            elif servo is GRIPPER:
                load = current * r.LOAD_UNIT
        self._joints = np.array([angles[servo.id] for servo in ARM_SERVOS])
        finger = float(np.clip(r.crank_to_finger(angles[GRIPPER.id]), FINGER_CLOSED, FINGER_OPEN))
        return ArmState(
            time=now,
            joint_positions=self._joints.copy(),
            joint_velocities=np.array([speeds[servo.id] for servo in ARM_SERVOS]),
            fingers=np.array([finger, finger]),
            temperatures=self._temperatures,
            currents=currents,
            voltages=self._voltages,
            gripper_velocity=speeds[GRIPPER.id],
            gripper_load=load,
            faults=self._faults,
        )

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        goals = np.asarray(joint_targets, float)
        goals = goals + self.compensation.offsets(goals)
        angles = [*goals, r.finger_to_crank(finger_position(gripper))]
        self._send(dict(zip(COMMANDED, map(r.to_tick, angles), strict=True)), duration)

    def hold(self) -> None:
        """Each joint's goal = where it comes to a stop; also wakes servos whose bus watchdog stopped them. The gripper keeps its
        grip. A servo that does not answer keeps its last goal, and does not keep the others from holding."""
        angles, answering = self._joints.copy(), set()
        for servo in (*COMMANDED, *(servo for servo in SERVOS if servo.is_shadow)):
            try:
                if self._get(servo, r.BUS_WATCHDOG) != self._watchdog:
                    self._set_watchdog(servo)
                if servo in ARM_SERVOS:
                    speed = self._get(servo, r.PRESENT_VELOCITY) * r.VELOCITY_UNIT
                    angles[ARM_SERVOS.index(servo)] = r.to_angle(self._get(servo, r.PRESENT_POSITION)) + speed * PERIOD / 4
                answering.add(servo)
            except ReadError:
                continue
        self._health_time = -np.inf
        goals = angles + self.compensation.offsets(angles)
        self._send({servo: r.to_tick(goal) for servo, goal in zip(ARM_SERVOS, goals, strict=True) if servo in answering}, PERIOD)
        if missing := [name_of(servo) for servo in SERVOS if servo not in answering]:
            raise ArmFault(f"{self._device}: no answer from {', '.join(missing)}; the others hold")

    def park(self) -> None:
        state = self._patiently(self.read)
        off = np.abs(state.joint_positions - SLEEP)
        if off.max() > self._safety.homing.park_tolerance:
            raise ArmFault(
                f"{ARM_SERVOS[int(off.argmax())].name} is {off.max():.2f} rad from the sleep pose, "
                f"at most {self._safety.homing.park_tolerance:g} wanted: the motors keep holding"
            )
        for servo in SERVOS:
            self._write(servo, r.BUS_WATCHDOG, 0)
        for servo in reversed(SERVOS):
            self._write(servo, r.TORQUE_ENABLE, 0)

    def close(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    # ---- start-up

    def _check_motors(self) -> None:
        found, missing = {}, []
        for servo in SERVOS:
            try:
                found[servo] = self._patiently(lambda servo=servo: self._open.ping(servo))
            except ReadError:
                missing.append(name_of(servo))
        if missing:
            raise ArmFault(f"{self._device}: no answer from {', '.join(missing)}: check power and cables")
        for servo, number in found.items():
            if number != servo.model.number:
                raise ArmFault(f"{name_of(servo)}: model {number} found, {servo.model.number} ({servo.model.name}) wanted")
        self._read_health(self._clock.now())
        if self._faults:
            raise ArmFault(f"{self._faults[0]}: support the arm, then `deploy reboot`")

    def _set_up(self) -> None:
        self._watchdog = max(1, round(self._safety.watchdogs.bus / r.WATCHDOG_UNIT))
        for servo in SERVOS:  # a watchdog that has tripped refuses goals
            self._write(servo, r.BUS_WATCHDOG, 0)
        different = [
            (servo, register, value)
            for servo in SERVOS
            for register, value in _eeprom(servo)
            if self._get(servo, register) != value
        ]
        offsets = self._shadow_offsets()
        if different or offsets:
            self._let_go_if_asleep(different[0] if different else (offsets[0][0], r.HOMING_OFFSET, offsets[0][1]))
            for servo, register, value in different:
                self._write(servo, register, value)
            for servo, value in self._shadow_offsets():
                self._write(servo, r.HOMING_OFFSET, value)
        for servo in SERVOS:
            for register, value in self._ram(servo):
                self._write(servo, register, value)
        if not all(self._get(servo, r.TORQUE_ENABLE) for servo in SERVOS):
            positions = {servo: self._get(servo, r.PRESENT_POSITION) for servo in COMMANDED}
            self._send(positions, PERIOD)
            for servo in SERVOS:
                self._write(servo, r.TORQUE_ENABLE, 1)
        for servo in SERVOS:
            self._set_watchdog(servo)

    def _shadow_offsets(self) -> list[tuple[Motor, int]]:
        """The homing offsets of shadows that do not stand where their masters do: both push the same joint, and would fight."""
        wanted = []
        for servo in SERVOS:
            if not servo.is_shadow:
                continue
            master = next(other for other in SERVOS if other.id == servo.shadow_of)
            gap = self._get(servo, r.PRESENT_POSITION) - self._get(master, r.PRESENT_POSITION)
            if abs(gap) > SHADOW_TICKS:
                now = self._get(servo, r.HOMING_OFFSET)
                wanted.append((servo, now + (gap if servo.reverse else -gap)))
        return wanted

    def _let_go_if_asleep(self, why: tuple[Motor, Register, int]) -> None:
        joints = np.array([r.to_angle(self._get(servo, r.PRESENT_POSITION)) for servo in ARM_SERVOS])
        holding = any(self._get(servo, r.TORQUE_ENABLE) for servo in SERVOS)
        if holding and np.abs(joints - SLEEP).max() > self._safety.homing.start_tolerance:
            servo, register, value = why
            raise ArmFault(
                f"{name_of(servo)}: address {register.address} must be set to {value}, for which the motors let go, and the arm "
                "is not in its sleep pose: support it and switch its power off and on"
            )
        for servo in SERVOS:
            self._write(servo, r.TORQUE_ENABLE, 0)

    def _ram(self, servo: Motor) -> list[tuple[Register, int]]:
        values = [(r.POSITION_P, servo.position_p), (r.POSITION_I, 0), (r.POSITION_D, servo.position_d)]
        if servo.model.has_current:
            values.append((r.GOAL_CURRENT, round(self._safety.joints.goal_current / r.CURRENT_UNIT)))
        if servo is GRIPPER:
            values.append((r.GOAL_PWM, self._safety.gripper.pwm))
        return values

    # ---- small things

    @property
    def _open(self) -> Bus:
        if self._bus is None:
            raise ArmFault(f"{self._device}: not connected")
        return self._bus

    def _send(self, ticks: dict[Motor, int], duration: float) -> None:
        times = (round(1000 * duration * PROFILE_ACCELERATION), round(1000 * duration * PROFILE_TIME))
        data = {}
        for servo, tick in ticks.items():
            tick = min(max(tick, servo.min_tick), servo.max_tick)
            data[servo] = b"".join(value.to_bytes(4, "little", signed=True) for value in (*times, tick))
        self._open.write_all(data, r.GOAL_BLOCK)

    def _set_watchdog(self, servo: Motor) -> None:
        self._write(servo, r.BUS_WATCHDOG, 0)
        self._write(servo, r.BUS_WATCHDOG, self._watchdog)

    def _read_health(self, now: float) -> None:
        """Voltages, temperatures, error bits. What alarms is believed when it is read twice: a reply that comes very late can be
        taken for another's."""
        health, errors = self._look_at_health()
        if any(map(any, errors.values())) or not all(map(_usual, health.values())):
            health, again = self._look_at_health()
            errors = {key: bytes([errors[key][0] & again[key][0]]) for key in errors}
        watchdogs = self._patiently(lambda: self._open.read_all(SERVOS, r.BUS_WATCHDOG))
        self._health_time = now
        self._voltages = np.array([int.from_bytes(health[s.id][:2], "little") * r.VOLTAGE_UNIT for s in SERVOS])
        self._temperatures = np.array([float(health[s.id][2]) for s in SERVOS])
        faults = []
        for servo in SERVOS:
            faults += [f"{name_of(servo)}: {text}" for bit, text in r.HARDWARE_ERRORS.items() if errors[servo.id][0] >> bit & 1]
        self._faults = tuple(faults)
        stopped = [name_of(servo) for servo in SERVOS if watchdogs[servo.id][0] == 255]
        if stopped and self._watchdog:
            raise ArmFault(f"{stopped[0]}: stopped by its bus watchdog, nothing was sent for {self._safety.watchdogs.bus:g} s")

    def _look_at_health(self) -> tuple[dict[int, bytes], dict[int, bytes]]:
        health = self._patiently(lambda: self._open.read_all(SERVOS, r.HEALTH_BLOCK))
        return health, self._patiently(lambda: self._open.read_all(SERVOS, r.HARDWARE_ERROR))

    def _get(self, servo: Motor, register: Register) -> int:
        return self._patiently(lambda: self._open.read(servo, register))

    def _write(self, servo: Motor, register: Register, value: int) -> None:
        self._patiently(lambda: self._open.write(servo, register, value))

    def _patiently(self, call: Any) -> Any:
        """Again when an answer got lost; the last time its ReadError stays."""
        for _ in range(TRIES - 1):
            try:
                return call()
            except ReadError:
                continue
        return call()


def _usual(health: bytes) -> bool:
    """Whether a voltage and a temperature are those of a servo in good order."""
    return 110 <= int.from_bytes(health[:2], "little") <= 130 and 5 <= health[2] <= 60


SHADOW_TICKS = 2
"""By which two motors of a joint may differ."""


def _eeprom(servo: Motor) -> list[tuple[Register, int]]:
    """What is kept in a motor, in the order it is written."""
    return [
        (r.DRIVE_MODE, servo.drive_mode),
        (r.OPERATING_MODE, servo.operating_mode),
        (r.SECONDARY_ID, servo.shadow_of),
        (r.MIN_POSITION, servo.min_tick),
        (r.MAX_POSITION, servo.max_tick),
    ]


def _signed(data: bytes, *sizes: int) -> list[int]:
    """Little-endian integers one after the other."""
    values, place = [], 0
    for size in sizes:
        values.append(int.from_bytes(data[place : place + size], "little", signed=True))
        place += size
    return values
