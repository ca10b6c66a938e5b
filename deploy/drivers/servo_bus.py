"""The wire to the servos: registers read and written through ROBOTIS' SDK, and the port taken for one process alone."""

from __future__ import annotations

import fcntl
import os
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from deploy.drivers import ArmFault, ReadError
from deploy.drivers.registers import SERVOS, Motor, Register
from genvla.errors import UserError

BAUD_RATE = 1_000_000
REPLY_TIMEOUT = 0.02
"""Seconds beyond the time on the wire. The SDK's own 34 ms would cost a sixth of a control step for each lost reply."""


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
            raise ArmFault(f"{name_of(motor)} refuses {value} at address {register.address}: {what}")

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
        return ReadError(f"{self.device}: no good answer from {name_of(motor)}: {what}")

    def _call(self, function: Any, *args: Any) -> Any:
        try:
            return function(*args)
        except (OSError, TypeError, termios.error) as error:  # TypeError: a port that pyserial closed
            self._port.is_using = False
            raise ArmFault(f"{self.device}: the bus is gone: {error}") from error


def reboot_motors(device: str, names: Iterable[str]) -> None:
    """Restarts motors, which clears their errors and lets go of their joints."""
    bus = Bus(device)
    try:
        for servo in SERVOS:
            if servo.name in names:
                bus.reboot(servo)
    finally:
        bus.close()


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


def name_of(servo: Motor) -> str:
    """For people."""
    return f"motor {servo.id} ({servo.name})"
