"""The nine servos of the WidowX 250S: control table, identities, and the units between registers and joints.

Sources: ROBOTIS e-manual of the XM430-W350 and XL430-W250 (control table, protocol 2.0, units); interbotix_ros_manipulators
(BSD-3: ids, drive modes, position limits, crank); HorizonRoboticsInternal/interbotix_xs_driver (BSD-3: current-based position
mode).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN


class Register(NamedTuple):
    """Address and size in bytes. Addresses below 64 are EEPROM: written only while the torque is off."""

    address: int
    size: int
    signed: bool = False


MODEL_NUMBER = Register(0, 2)
DRIVE_MODE = Register(10, 1)
OPERATING_MODE = Register(11, 1)
SECONDARY_ID = Register(12, 1)
HOMING_OFFSET = Register(20, 4, True)
TEMPERATURE_LIMIT = Register(31, 1)
CURRENT_LIMIT = Register(38, 2)
VELOCITY_LIMIT = Register(44, 4)
MAX_POSITION = Register(48, 4)
MIN_POSITION = Register(52, 4)
TORQUE_ENABLE = Register(64, 1)
HARDWARE_ERROR = Register(70, 1)
POSITION_D = Register(80, 2)
POSITION_I = Register(82, 2)
POSITION_P = Register(84, 2)
BUS_WATCHDOG = Register(98, 1, True)
GOAL_PWM = Register(100, 2, True)
GOAL_CURRENT = Register(102, 2, True)
PROFILE_ACCELERATION = Register(108, 4)
PROFILE_VELOCITY = Register(112, 4)
GOAL_POSITION = Register(116, 4, True)
PRESENT_CURRENT = Register(126, 2, True)
PRESENT_VELOCITY = Register(128, 4, True)
PRESENT_POSITION = Register(132, 4, True)
PRESENT_VOLTAGE = Register(144, 2)
PRESENT_TEMPERATURE = Register(146, 1)

MOTION_BLOCK = Register(PRESENT_CURRENT.address, 10)
"""Present current (or load), velocity and position, read as one."""
HEALTH_BLOCK = Register(PRESENT_VOLTAGE.address, 3)
"""Voltage and temperature."""
GOAL_BLOCK = Register(PROFILE_ACCELERATION.address, 12)
"""Profile acceleration, profile velocity, goal position, written as one."""

TICKS = 4096
CENTRE = 2048
RADIAN = TICKS / (2 * math.pi)
"""Ticks."""
VELOCITY_UNIT = 0.229 * 2 * math.pi / 60
"""rad/s."""
CURRENT_UNIT = 2.69e-3
"""A; of the XM430. The XL430 has the load in its place, in 0.1 %."""
LOAD_UNIT = 1e-3
VOLTAGE_UNIT = 0.1
WATCHDOG_UNIT = 0.02
"""s."""
PWM_FULL = 885

POSITION_MODE, CURRENT_BASED_POSITION_MODE = 3, 5
REVERSE, TIME_PROFILE = 1, 4
"""Bits of the drive mode. With the second one profiles are given as durations in ms."""
NO_SECONDARY_ID = 255

HARDWARE_ERRORS = {0: "input voltage", 2: "overheating", 3: "motor encoder", 4: "electrical shock", 5: "overload"}


@dataclass(frozen=True)
class Model:
    """A kind of servo. stall_torque: N m at 12 V. has_current: whether it measures and limits its current."""

    name: str
    number: int
    stall_torque: float
    has_current: bool

    def stiffness(self, position_p: int) -> float:
        """Of its position control [N m / rad], friction ignored: P/128 PWM per tick, PWM_FULL gives the stall torque."""
        return position_p / 128 * RADIAN * self.stall_torque / PWM_FULL


XM430 = Model("XM430-W350", 1020, 4.1, True)
XL430 = Model("XL430-W250", 1060, 1.5, False)


@dataclass(frozen=True)
class Motor:
    """One servo. shadow_of: the id whose writes it obeys too, pushing the same joint from the other side."""

    id: int
    name: str
    model: Model
    reverse: bool
    min_tick: int
    max_tick: int
    position_p: int
    position_d: int
    shadow_of: int = NO_SECONDARY_ID

    @property
    def drive_mode(self) -> int:
        return TIME_PROFILE | (REVERSE if self.reverse else 0)

    @property
    def operating_mode(self) -> int:
        return CURRENT_BASED_POSITION_MODE if self.model.has_current else POSITION_MODE

    @property
    def is_shadow(self) -> bool:
        return self.shadow_of != NO_SECONDARY_ID


SERVOS = (
    Motor(1, "waist", XM430, False, 0, 4095, 800, 0),
    Motor(2, "shoulder", XM430, False, 819, 3345, 800, 0),
    Motor(3, "shoulder_shadow", XM430, True, 819, 3345, 800, 0, shadow_of=2),
    Motor(4, "elbow", XM430, False, 648, 3094, 800, 0),
    Motor(5, "elbow_shadow", XM430, True, 648, 3094, 800, 0, shadow_of=4),
    Motor(6, "forearm_roll", XM430, False, 0, 4095, 800, 0),
    Motor(7, "wrist_angle", XM430, True, 910, 3447, 800, 0),
    Motor(8, "wrist_rotate", XL430, False, 0, 4095, 640, 4000),
    Motor(9, "gripper", XL430, False, 0, 4095, 640, 4000),
)
"""In the order of drivers.MOTORS. The reverse drive mode makes a motor's positions turn as its joint does."""

ARM_SERVOS = tuple(servo for servo in SERVOS if not servo.is_shadow and servo.name != "gripper")
"""One for each arm joint, in their order."""
COMMANDED = (*ARM_SERVOS, SERVOS[-1])
MOTORS_PER_JOINT = (1, 2, 2, 1, 1, 1)

_HORN, _ROD = 0.014, 0.024
"""Radius of the gripper's crank and length of its rods, metres."""


def to_tick(angle: float) -> int:
    """The register's position for an angle [rad]."""
    return round(CENTRE + angle * RADIAN)


def to_angle(tick: int) -> float:
    return (tick - CENTRE) / RADIAN


def finger_to_crank(finger: float) -> float:
    """The gripper motor's angle [rad] that puts both fingers at `finger` [m]."""
    return math.asin((_HORN**2 + finger**2 - _ROD**2) / (2 * _HORN * finger))


def crank_to_finger(angle: float) -> float:
    """Position of the finger joints [m] at an angle of the gripper's motor [rad]."""
    return _HORN * math.sin(angle) + math.sqrt(_ROD**2 - (_HORN * math.cos(angle)) ** 2)


def joint_stiffness() -> tuple[float, ...]:
    """Of the six arm joints as their motors are set up here, N m / rad; two motors push twice as hard."""
    pairs = zip(ARM_SERVOS, MOTORS_PER_JOINT, strict=True)
    return tuple(number * servo.model.stiffness(servo.position_p) for servo, number in pairs)


GRIPPER_RANGE = (finger_to_crank(FINGER_CLOSED), finger_to_crank(FINGER_OPEN))
"""Angles of the gripper's motor [rad], closed and open."""
