"""The servos themselves, through ROBOTIS' SDK and a U2D2 adapter: protocol 2.0 at 1 Mbit/s.

Start-up: find nine motors of the right models; look at their error bits; write the settings that differ (EEPROM wears out, and
takes them only with the torque off: the arm must lie in its sleep pose then); bring the shadows in line; set gains and current
limits; goal = present position; torque on; bus watchdog. The servos then hold by themselves when this process dies.
"""

from __future__ import annotations

import fcntl
import os
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from deploy.control import PERIOD, PROFILE_ACCELERATION, PROFILE_TIME, SLEEP
from deploy.drivers import ArmFault, ArmState, Clock, ReadError, WallClock, finger_position
from deploy.drivers import registers as r
from deploy.drivers.registers import ARM_SERVOS, COMMANDED, SERVOS, Motor, Register
from deploy.gravity import GravityCompensation
from deploy.safety_config import SafetyConfig
from genvla.errors import UserError
from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN

BAUD_RATE = 1_000_000
REPLY_TIMEOUT = 0.02
"""Seconds beyond the time on the wire. The SDK's own 34 ms would cost a sixth of a control step for each lost reply."""
TRIES = 3
"""Of a single read or write at start-up."""
HEALTH_SECONDS = 0.5
"""Between two looks at temperatures, voltages and error bits."""
GRIPPER = SERVOS[-1]


class Bus:
    """Reads and writes registers. Takes the port for this process alone."""

    def __init__(self, device: str, reply_timeout: float = REPLY_TIMEOUT) -> None:
        sdk = _sdk()
        self.device = device
        self._sdk = sdk
        self.reply_timeout = reply_timeout
        self._lock = _take(device)
        self._port = _port_handler(sdk, device, lambda: self.reply_timeout)
        self._packets = sdk.PacketHandler(2.0)
        self._readers: dict[tuple[int, int], Any] = {}
        try:
            opened = self._port.setBaudRate(BAUD_RATE)
        except (OSError, ValueError) as error:
            os.close(self._lock)
            raise ArmFault(f"{device}: cannot be opened: {error}") from error
        if not opened:
            os.close(self._lock)
            raise ArmFault(f"{device}: does not take {BAUD_RATE} baud")

    def close(self) -> None:
        """Never raises."""
        try:
            self._port.closePort()
        except Exception:  # an unplugged adapter fails in many ways, and there is nothing left to do
            pass
        finally:
            os.close(self._lock)

    def ping(self, motor: Motor) -> int:
        """The model number; ReadError when the motor does not answer."""
        number, result, _ = self._call(self._packets.ping, self._port, motor.id)
        if result != self._sdk.COMM_SUCCESS:
            raise self._lost(motor, result)
        return number

    def read(self, motor: Motor, register: Register) -> int:
        data, result, _ = self._call(self._packets.readTxRx, self._port, motor.id, register.address, register.size)
        if result != self._sdk.COMM_SUCCESS or len(data) != register.size:
            raise self._lost(motor, result)
        return int.from_bytes(bytes(data), "little", signed=register.signed)

    def write(self, motor: Motor, register: Register, value: int) -> None:
        """ArmFault when the motor refuses it, ReadError when its answer got lost."""
        data = value.to_bytes(register.size, "little", signed=register.signed)
        result, error = self._call(self._packets.writeTxRx, self._port, motor.id, register.address, register.size, data)
        if result != self._sdk.COMM_SUCCESS:
            raise self._lost(motor, result)
        if error & 0x7F:
            what = self._packets.getRxPacketError(error & 0x7F)
            raise ArmFault(f"{_name(motor)} refuses {value} at address {register.address}: {what}")

    def read_all(self, motors: Iterable[Motor], register: Register) -> dict[int, bytes]:
        """One register of several motors in one packet. ReadError names the first whose answer is missing."""
        motors = tuple(motors)
        key = (register.address, len(motors))
        if key not in self._readers:
            self._readers[key] = self._sdk.GroupSyncRead(self._port, self._packets, register.address, register.size)
            for motor in motors:
                self._readers[key].addParam(motor.id)
        reader = self._readers[key]
        for motor in motors:
            reader.data_dict[motor.id] = []
        result = self._call(reader.txRxPacket)
        for motor in motors:
            if len(reader.data_dict[motor.id]) != register.size or result == self._sdk.COMM_TX_FAIL:
                raise self._lost(motor, result)
        return {motor.id: bytes(reader.data_dict[motor.id]) for motor in motors}

    def write_all(self, values: dict[Motor, bytes], register: Register) -> None:
        """One register of several motors in one packet, which none of them answers."""
        writer = self._sdk.GroupSyncWrite(self._port, self._packets, register.address, register.size)
        for motor, data in values.items():
            writer.addParam(motor.id, list(data))
        result = self._call(writer.txPacket)
        if result != self._sdk.COMM_SUCCESS:
            raise ArmFault(f"{self.device}: nothing could be sent: {self._packets.getTxRxResult(result)}")

    def reboot(self, motor: Motor) -> None:
        """Restarts a motor, which clears its error; its torque is off then."""
        result, _ = self._call(self._packets.reboot, self._port, motor.id)
        if result != self._sdk.COMM_SUCCESS:
            raise self._lost(motor, result)

    def _lost(self, motor: Motor, result: int) -> ReadError:
        """What to raise for a reply that did not come. Waits until the wire is quiet: a reply that comes late would be taken for
        that to the next question."""
        since = time.monotonic()
        while time.monotonic() - since < self.reply_timeout:
            if self._call(self._port.readPort, 256):
                since = time.monotonic()
        what = str(self._packets.getTxRxResult(result)).removeprefix("[TxRxResult] ")
        return ReadError(f"{self.device}: no good answer from {_name(motor)}: {what}")

    def _call(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except (OSError, TypeError, termios.error) as error:  # TypeError: a port that pyserial closed
            self._port.is_using = False
            raise ArmFault(f"{self.device}: the bus is gone: {error}") from error


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

    # ---- the protocol

    def connect(self) -> None:
        shorten_latency(self._device)
        self._bus = Bus(self._device, self._reply_timeout)
        try:
            self._check_motors()
            self._set_up()
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
        finger = float(np.clip(r.crank_to_finger(angles[GRIPPER.id]), FINGER_CLOSED, FINGER_OPEN))
        return ArmState(
            time=now,
            joint_positions=np.array([angles[servo.id] for servo in ARM_SERVOS]),
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
        """Goal = where it is, or comes to a stop; also wakes servos whose bus watchdog stopped them."""
        for servo in SERVOS:
            if self._patiently(lambda servo=servo: self._open.read(servo, r.BUS_WATCHDOG)) != self._watchdog:
                self._set_watchdog(servo)
        self._health_time = -np.inf
        raw = self._patiently(lambda: self._open.read_all(SERVOS, r.MOTION_BLOCK))
        angles = []
        for servo in ARM_SERVOS:
            _, speed, tick = _signed(raw[servo.id], 2, 4, 4)
            angles.append(r.to_angle(tick) + speed * r.VELOCITY_UNIT * PERIOD / 4)
        goals = np.array(angles) + self.compensation.offsets(np.array(angles))
        ticks = [r.to_tick(angle) for angle in goals] + [_signed(raw[GRIPPER.id], 2, 4, 4)[2]]
        self._send(dict(zip(COMMANDED, ticks, strict=True)), PERIOD)

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
                missing.append(_name(servo))
        if missing:
            raise ArmFault(f"{self._device}: no answer from {', '.join(missing)}: check power and cables")
        for servo, number in found.items():
            if number != servo.model.number:
                raise ArmFault(f"{_name(servo)}: model {number} found, {servo.model.number} ({servo.model.name}) wanted")
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
                f"{_name(servo)}: address {register.address} must be set to {value}, for which the motors let go, and the arm is "
                "not in its sleep pose: support it and switch its power off and on"
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
        health = self._patiently(lambda: self._open.read_all(SERVOS, r.HEALTH_BLOCK))
        errors = self._patiently(lambda: self._open.read_all(SERVOS, r.HARDWARE_ERROR))
        if any(map(any, errors.values())):  # believed when they say so twice
            again = self._patiently(lambda: self._open.read_all(SERVOS, r.HARDWARE_ERROR))
            errors = {key: bytes([errors[key][0] & again[key][0]]) for key in errors}
        watchdogs = self._patiently(lambda: self._open.read_all(SERVOS, r.BUS_WATCHDOG))
        self._health_time = now
        self._voltages = np.array([int.from_bytes(health[s.id][:2], "little") * r.VOLTAGE_UNIT for s in SERVOS])
        self._temperatures = np.array([float(health[s.id][2]) for s in SERVOS])
        faults = []
        for servo in SERVOS:
            faults += [f"{_name(servo)}: {text}" for bit, text in r.HARDWARE_ERRORS.items() if errors[servo.id][0] >> bit & 1]
        self._faults = tuple(faults)
        stopped = [_name(servo) for servo in SERVOS if watchdogs[servo.id][0] == 255]
        if stopped and hasattr(self, "_watchdog"):
            raise ArmFault(f"{stopped[0]}: stopped by its bus watchdog, nothing was sent for {self._safety.watchdogs.bus:g} s")

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


def reboot_motors(device: str, names: Iterable[str]) -> None:
    """Restarts motors, which clears their errors and lets go of their joints."""
    bus = Bus(device)
    try:
        for servo in SERVOS:
            if servo.name in names:
                bus.reboot(servo)
    finally:
        bus.close()


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


def shorten_latency(device: str, root: Path = Path("/sys/bus/usb-serial/devices")) -> int | None:
    """Sets the USB adapter's latency to 1 ms if this process may; the latency then in ms, None for a port that has none."""
    path = root / Path(os.path.realpath(device)).name / "latency_timer"
    if not path.is_file():
        return None
    if int(path.read_text()) > 1:
        try:
            path.write_text("1")
        except OSError:
            print(f"arm: {path} is {path.read_text().strip()} ms: for 1 ms, echo 1 | sudo tee {path}")
    return int(path.read_text())


def _take(device: str) -> int:
    """A lock on the port that ends with the process. ArmFault when another one has it."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"{device}: {error.strerror} found, the serial port of the robot wanted: see `deploy doctor`") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise UserError(f"{device}: in use by another process, the port for this one alone wanted") from None
    return descriptor


def _sdk() -> Any:
    try:
        import dynamixel_sdk
    except ImportError:
        raise UserError("dynamixel-sdk: not found, want it installed: pip install 'genvla[robot]'") from None
    return dynamixel_sdk


def _port_handler(sdk: Any, device: str, reply_timeout: Callable[[], float]) -> Any:
    class Port(sdk.PortHandler):
        """Waits for bytes instead of asking for them again and again, gives a lost reply up sooner, by a clock nobody sets."""

        def setupPort(self, cflag_baud: int) -> bool:
            opened = super().setupPort(cflag_baud)
            self.ser.timeout = 0.001
            return opened

        def setPacketTimeout(self, packet_length: int) -> None:
            self.setPacketTimeoutMillis(self.tx_time_per_byte * packet_length + reply_timeout() * 1000)

        def getCurrentTime(self) -> float:
            return time.monotonic() * 1000

    return Port(device)


def _signed(data: bytes, *sizes: int) -> list[int]:
    """Little-endian integers one after the other."""
    values, place = [], 0
    for size in sizes:
        values.append(int.from_bytes(data[place : place + size], "little", signed=True))
        place += size
    return values


def _name(servo: Motor) -> str:
    return f"motor {servo.id} ({servo.name})"
