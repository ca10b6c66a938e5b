"""Nine simulated servos on a pseudo-terminal, speaking Dynamixel protocol 2.0 to whoever opens it: the real SDK, unmodified.

Written from ROBOTIS' e-manual, apart from the driver: packets with CRC and byte stuffing; EEPROM that is locked under torque;
read-only registers and ranges; shadows that obey their master's writes; the drive mode's direction and the homing offset; time
profiles; the bus watchdog; hardware errors that cut the torque until a reboot. The arm is a chain of springs under gravity.
"""

from __future__ import annotations

import math
import os
import pty
import select
import threading
import tty
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pinocchio

from genvla.robots.wx250s import urdf_path

DT = 0.02
LAG = 0.03
"""Seconds in which a joint covers two thirds of the way to where its springs balance its weight."""
TICKS_PER_RADIAN = 4096 / (2 * math.pi)
XM, XL = 1020, 1060
STALL = {XM: 4.1, XL: 1.5}
MODES = {XM: (0, 1, 3, 4, 5, 16), XL: (1, 3, 4, 16)}
JOINT = {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 4, 8: 5, 9: 6}
MIRRORED = (3, 5, 7)
MODEL = {i: XL if i in (8, 9) else XM for i in JOINT}
GRIPPER = 6
OVERLOAD, OVERLOAD_SECONDS = 0.6, 1.0
SLEEP = (0.0, -1.80, 1.55, 0.0, 0.8, 0.0)
PING, READ, WRITE, REBOOT, STATUS, SYNC_READ, SYNC_WRITE = 1, 2, 3, 8, 0x55, 0x82, 0x83
RESULT, INSTRUCTION, CRC, RANGE, LENGTH, LIMIT, ACCESS, ALERT = 1, 2, 3, 4, 5, 6, 7, 0x80


class Time(Protocol):
    def now(self) -> float: ...


class SteppedTime:
    """Passes only when someone sleeps, and the servos have heard what was sent before: they answer no goals, so nobody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.before: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.before()
        self.seconds += max(seconds, 0.0)


def crc16(data: bytes) -> int:
    """Polynomial 0x8005, initially 0, most significant bit first."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
    return value


def packet(identity: int, instruction: int, parameters: bytes) -> bytes:
    body = bytes([instruction]) + parameters
    body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = b"\xff\xff\xfd\x00" + bytes([identity]) + (len(body) + 2).to_bytes(2, "little") + body
    return head + crc16(head).to_bytes(2, "little")


class Servo:
    """One motor: its control table and its profile."""

    def __init__(self, identity: int) -> None:
        self.id, self.model = identity, MODEL[identity]
        self.table = bytearray(256)
        for address, size, value in (
            *((0, 2, self.model), (6, 1, 45), (7, 1, identity), (8, 1, 3), (11, 1, 3), (12, 1, 255), (13, 1, 2)),
            *((31, 1, 80 if self.model == XM else 72), (36, 2, 885), (44, 4, 200), (48, 4, 4095), (52, 4, 0), (63, 1, 52)),
        ):
            self.put(address, size, value)
        if self.model == XM:
            self.put(38, 2, 1193)
        self.writes = 0
        """Of EEPROM."""
        self.reset()

    def reset(self) -> None:
        """What a reboot does to the RAM."""
        self.table[64:] = bytes(192)
        for address, size, value in ((68, 1, 2), (76, 2, 1920), (78, 2, 100), (84, 2, 800 if self.model == XM else 640)):
            self.put(address, size, value)
        self.put(100, 2, 885)
        if self.model == XM:
            self.put(102, 2, 1193)
        self.put(144, 2, 120)
        self.put(146, 1, 35)
        self.start = self.goal = 0.0
        self.began, self.total, self.speeding = -1e9, 0.0, 0.0
        self.loaded = 0.0

    def get(self, address: int, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.table[address : address + size], "little", signed=signed)

    def put(self, address: int, size: int, value: int) -> None:
        self.table[address : address + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    @property
    def torque(self) -> bool:
        return bool(self.table[64])

    @property
    def watchdog_tripped(self) -> bool:
        return self.table[98] == 255

    def present(self, angle: float, misalignment: float) -> float:
        """Its position register when its joint stands at an angle."""
        mirrored = -1 if self.id in MIRRORED else 1
        raw = 2048 + mirrored * angle * TICKS_PER_RADIAN + misalignment + self.get(20, 4, True)
        return 4096 - raw if self.table[10] & 1 else raw

    @property
    def direction(self) -> int:
        """Whether its position grows with its joint's angle."""
        return (-1 if self.id in MIRRORED else 1) * (-1 if self.table[10] & 1 else 1)

    def planned(self, now: float) -> float:
        """Where its profile is, ticks."""
        elapsed, total = now - self.began, self.total
        if total <= 0 or elapsed >= total:
            return self.goal
        speeding = min(max(self.speeding, 1e-6), total / 2)
        if elapsed < speeding:
            done = elapsed**2 / (2 * speeding)
        elif elapsed < total - speeding:
            done = elapsed - speeding / 2
        else:
            done = total - speeding - (total - elapsed) ** 2 / (2 * speeding)
        return self.start + (self.goal - self.start) * done / (total - speeding)

    def aim(self, now: float) -> None:
        """Begins the profile that the goal registers say."""
        self.start = self.planned(now)
        self.goal, self.began = float(self.get(116, 4, True)), now
        timed = bool(self.table[10] & 4)
        self.speeding, self.total = (self.get(108, 4) / 1000, self.get(112, 4) / 1000) if timed else (0.0, 0.0)

    def write(self, address: int, data: bytes, now: float, present: float) -> int:
        """Error code; 0 when it was taken."""
        if address < 64:
            if self.torque or address < 7:
                return ACCESS
            if address == 11 and data[0] not in MODES[self.model]:
                return RANGE
            self.writes += 1
        elif address + len(data) > 120 or (address in (38, 102) and self.model == XL):
            return ACCESS
        touches_goal = address < 120 and address + len(data) > 100
        if touches_goal and self.watchdog_tripped:
            return ACCESS
        if touches_goal and address + len(data) >= 120:
            goal = int.from_bytes(data[116 - address : 120 - address], "little", signed=True)
            if not self.get(52, 4) <= goal <= self.get(48, 4):
                return RANGE
        if address == 64 and data[0] and self.table[70]:
            return RESULT
        if address == 102 and abs(int.from_bytes(data, "little", signed=True)) > self.get(38, 2):
            return RANGE
        enabling = address == 64 and data[0] and not self.torque
        self.table[address : address + len(data)] = data
        if enabling:
            self.start = self.goal = present if self.get(116, 4) == 0 else float(self.get(116, 4, True))
            self.total = 0.0
        if touches_goal and address + len(data) >= 120:
            self.aim(now)
        return 0


class SimulatedBus:
    """The arm, its servos and the wire. Use as a context manager; `device` is the port to open.

    time: seconds. joints: where the arm lies at first. object_crank: the gripper's motor cannot close further than this angle.
    """

    def __init__(self, time: Time, joints: tuple[float, ...] = SLEEP, object_crank: float = -0.5) -> None:
        self.time = time
        self.servos = {i: Servo(i) for i in JOINT}
        self.angles = np.array([*joints, 1.2])
        self.speeds = np.zeros(7)
        self.object_crank = object_crank
        self.misalignment = dict.fromkeys(JOINT, 0.0) | {3: 11.0, 5: -7.0}
        self.friction = 0.0
        """N m that a joint at rest withstands."""
        self.stuck: set[int] = set()
        self.silent: set[int] = set()
        self.drop = self.corrupt = self.delay = 0.0
        """Chances of losing and of damaging a reply; seconds that replies take longer."""
        self.temperatures: dict[int, int] = {}
        self.volts = 12.0
        self.fell = False
        """Whether a joint went down without torque away from sleep."""
        self.fastest = 0.0
        self.fights = 0.0
        """Greatest torque [N m] by which two motors of one joint worked against each other."""
        self.packets = 0
        self._random = np.random.default_rng(0)
        self._model = pinocchio.buildModelFromUrdf(str(urdf_path()))
        self._data = self._model.createData()
        self._now = self._heard = time.now()
        self._lock = threading.Lock()
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self.device = os.ttyname(slave)
        self._slave: int | None = slave
        self._closing = self._busy = False
        if isinstance(time, SteppedTime):
            time.before = self.hear
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> SimulatedBus:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing = True
        self._thread.join(5)
        self.unplug()

    def unplug(self) -> None:
        """Pulls the adapter out."""
        with self._lock:
            if self._slave is not None:
                os.close(self._slave)
                os.close(self._master)
            self._slave = None

    @property
    def torques_on(self) -> set[int]:
        return {i for i, servo in self.servos.items() if servo.torque}

    def hear(self) -> None:
        """Waits until the servos have taken in all that was sent."""
        while self._slave is not None and self._thread.is_alive():
            waiting = bool(select.select([self._master], [], [], 0)[0])
            if not waiting and not self._busy:
                return
            threading.Event().wait(0.0005)

    def catch_up(self) -> None:
        """Brings the arm to the present time."""
        self.hear()
        with self._lock:
            self._advance()

    # ---- the wire

    def _serve(self) -> None:
        buffer = b""
        while not self._closing:
            with self._lock:
                if self._slave is None:
                    return
            try:
                self._busy = False
                if not select.select([self._master], [], [], 0.02)[0]:
                    continue
                self._busy = True  # before the bytes are gone from the wire
                buffer += os.read(self._master, 4096)
            except (OSError, ValueError):
                return
            while True:
                start = buffer.find(b"\xff\xff\xfd\x00")
                if start < 0 or len(buffer) < start + 7:
                    break
                end = start + 7 + int.from_bytes(buffer[start + 5 : start + 7], "little")
                if len(buffer) < end:
                    break
                whole, buffer = buffer[start:end], buffer[end:]
                if crc16(whole[:-2]) == int.from_bytes(whole[-2:], "little"):
                    self._answer(whole[4], whole[7], whole[8:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd"))

    def _answer(self, identity: int, instruction: int, parameters: bytes) -> None:
        with self._lock:
            if self._slave is None:
                return
            self.packets += 1
            self._advance()
            self._heard = self._now
            replies = self._handle(identity, instruction, parameters)
            sent = b""
            for servo, error, data in replies:
                if servo.id in self.silent or self._random.random() < self.drop:
                    continue
                reply = bytearray(packet(servo.id, STATUS, bytes([error | (ALERT if servo.table[70] else 0)]) + data))
                if self._random.random() < self.corrupt:
                    reply[self._random.integers(4, len(reply))] ^= 1 << int(self._random.integers(8))
                sent += bytes(reply)
            if sent:
                if self.delay:
                    threading.Event().wait(self.delay)
                os.write(self._master, sent)

    def _handle(self, identity: int, instruction: int, parameters: bytes) -> list[tuple[Servo, int, bytes]]:
        if instruction == SYNC_READ:
            address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
            return [(self.servos[i], 0, bytes(self.servos[i].table[address : address + size])) for i in parameters[4:]]
        if instruction == SYNC_WRITE:
            address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
            rows = parameters[4:]
            for start in range(0, len(rows), size + 1):
                self._write(rows[start], address, rows[start + 1 : start + 1 + size])
            return []
        servo = self.servos.get(identity)
        if servo is None:
            return []
        if instruction == PING:
            return [(servo, 0, bytes(servo.table[0:2] + servo.table[6:7]))]
        if instruction == READ:
            address, size = int.from_bytes(parameters[:2], "little"), int.from_bytes(parameters[2:4], "little")
            return [(servo, 0, bytes(servo.table[address : address + size]))]
        if instruction == WRITE:
            return [(servo, self._write(identity, int.from_bytes(parameters[:2], "little"), parameters[2:]), b"")]
        if instruction == REBOOT:
            servo.reset()
            return [(servo, 0, b"")]
        return [(servo, INSTRUCTION, b"")]

    def _write(self, identity: int, address: int, data: bytes) -> int:
        """To a motor, and to the shadows that listen to it too."""
        error = 0
        for servo in self.servos.values():
            if servo.id in self.silent:
                continue
            present = self._present(servo)
            if servo.id == identity:
                error = servo.write(address, data, self._now, present)
            elif servo.table[12] == identity and address >= 64:
                servo.write(address, data, self._now, present)
        return error

    # ---- the arm

    def _present(self, servo: Servo) -> float:
        return servo.present(self.angles[JOINT[servo.id]], self.misalignment[servo.id])

    def _advance(self) -> None:
        until = self.time.now()
        while self._now + DT <= until + 1e-9:
            self._now += DT
            self._step()
        self._publish()

    def _step(self) -> None:
        for servo in self.servos.values():
            watchdog = servo.get(98, 1)
            if 0 < watchdog < 128 and servo.torque and self._now - self._heard > watchdog * 0.02:
                servo.put(98, 1, 255)
                servo.start = servo.goal = servo.planned(self._now)
                servo.total = 0.0
        weight = np.append(
            pinocchio.computeGeneralizedGravity(self._model, self._data, np.append(self.angles[:6], [0.037] * 2))[:6], 0.0
        )
        before = self.angles.copy()
        for joint in range(7):
            self._move(joint, float(weight[joint]))
        self.angles[GRIPPER] = max(self.angles[GRIPPER], self.object_crank)
        self.speeds = (self.angles - before) / DT
        self.fastest = max(self.fastest, float(np.abs(self.speeds[:6]).max()))

    def _move(self, joint: int, weight: float) -> None:
        springs, pulls = 0.0, []
        for servo in self.servos.values():
            if JOINT[servo.id] != joint:
                continue
            stall = STALL[servo.model]
            error = servo.planned(self._now) - self._present(servo)
            gain = servo.get(84, 2) / 128 * stall / 885 if servo.torque else 0.0  # N m per tick
            most = stall * servo.get(100, 2, True) / 885
            pull = float(np.clip(gain * error, -most, most)) * servo.direction
            pulls.append(pull)
            springs += gain * TICKS_PER_RADIAN
            self._feel(servo, pull, stall)
        if len(pulls) == 2 and pulls[0] * pulls[1] < 0:
            self.fights = max(self.fights, min(map(abs, pulls)))
        if joint in self.stuck:
            return
        if not any(s.torque for s in self.servos.values() if JOINT[s.id] == joint):
            if joint < 6 and abs(self.angles[joint] - SLEEP[joint]) > 0.15:
                self.fell = True
            return
        surplus = sum(pulls) - weight
        if abs(surplus) <= self.friction:
            return
        surplus -= math.copysign(self.friction, surplus)
        self.angles[joint] += surplus / springs * (1 - math.exp(-DT / LAG))

    def _feel(self, servo: Servo, pull: float, stall: float) -> None:
        servo.loaded = servo.loaded + DT if abs(pull) / stall > OVERLOAD and servo.torque else 0.0
        if servo.loaded >= OVERLOAD_SECONDS and servo.get(63, 1) & 0x20:
            servo.table[70] |= 0x20
        if self.temperatures.get(servo.id, 35) > servo.get(31, 1):
            servo.table[70] |= 0x04
        if servo.table[70]:
            servo.table[64] = 0
        ratio = pull * servo.direction / stall
        servo.put(126, 2, round(ratio * 2.3 / 2.69e-3) if servo.model == XM else round(ratio * 1000))

    def _publish(self) -> None:
        for servo in self.servos.values():
            servo.put(132, 4, round(self._present(servo)))
            servo.put(128, 4, round(self.speeds[JOINT[servo.id]] * servo.direction / 0.0239691227))
            servo.put(144, 2, round(self.volts * 10))
            servo.put(146, 1, self.temperatures.get(servo.id, 35))
