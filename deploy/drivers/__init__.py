"""What can move: the servos themselves, a bridge_data_robot server, or the simulated arm, behind one protocol.

Only `deploy.arm.GuardedArm` gives a driver commands; everything else holds the guarded arm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Float

from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN

MOTORS = (
    "waist",
    "shoulder",
    "shoulder_shadow",
    "elbow",
    "elbow_shadow",
    "forearm_roll",
    "wrist_angle",
    "wrist_rotate",
    "gripper",
)
"""In the order of their ids, 1 to 9: the order of every vector of nine."""


class ArmFault(RuntimeError):
    """The arm cannot go on. One line: what happened, and to which part."""


class ReadError(ArmFault):
    """One reading got lost. The next may succeed."""


def _unknown() -> Float[np.ndarray, " 9"]:
    return np.full(len(MOTORS), np.nan)


@dataclass(frozen=True)
class ArmState:
    """One reading of the arm.

    time: of the driver's clock, seconds. joint_positions [6] rad, joint_velocities [6] rad/s in the order of wx250s.ARM_JOINTS.
    fingers: positions of the two finger joints [2], metres. temperatures [C], currents [A], voltages [V]: of each of MOTORS, nan
    where the driver cannot know. gripper_velocity: of the gripper's motor, rad/s. gripper_load: its effort, fraction of the most
    it has, signed, closing negative. faults: what motors report to be wrong with them, for people.
    """

    time: float
    joint_positions: Float[np.ndarray, " 6"]
    joint_velocities: Float[np.ndarray, " 6"]
    fingers: Float[np.ndarray, " 2"]
    temperatures: Float[np.ndarray, " 9"] = field(default_factory=_unknown)
    currents: Float[np.ndarray, " 9"] = field(default_factory=_unknown)
    voltages: Float[np.ndarray, " 9"] = field(default_factory=_unknown)
    gripper_velocity: float = 0.0
    gripper_load: float = float("nan")
    faults: tuple[str, ...] = ()

    @property
    def gripper(self) -> float:
        """How far the gripper is open, 0 closed to 1 open."""
        return float(np.clip((np.mean(self.fingers, dtype=np.float64) - FINGER_CLOSED) / (FINGER_OPEN - FINGER_CLOSED), 0, 1))

    @property
    def qpos(self) -> Float[np.ndarray, " 8"]:
        """Arm, then fingers, float32, as the simulator has them."""
        return np.concatenate((self.joint_positions, self.fingers)).astype(np.float32)


class Driver(Protocol):
    """One way to move the arm. Its methods are called by one thread at a time.

    Every method may raise ArmFault, `read` also ReadError for a reading that got lost.
    """

    def connect(self) -> None:
        """Opens the way to the arm, checks that it is the right one, and holds it where it stands."""

    def read(self) -> ArmState:
        """The newest state."""

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        """Starts moving to joint angles [rad] and a gripper opening [0 closed .. 1 open], there in `duration` seconds."""

    def hold(self) -> None:
        """Stops where the arm is and keeps it there; the gripper keeps its grip."""

    def park(self) -> None:
        """Lets go of the arm, which GuardedArm has brought to the sleep pose. ArmFault when it does not lie there."""

    def close(self) -> None:
        """Ends the connection. The arm stays as it is. Never raises."""


class Clock(Protocol):
    """The driver's time: of the wall, or of a simulation, which stands still while a policy thinks."""

    def now(self) -> float:
        """Seconds, never going back."""

    def sleep(self, seconds: float) -> None:
        """Returns when so much time has passed. In a simulation commands make the time pass: returns at once."""


class WallClock:
    """Time that passes."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))


def finger_position(gripper: float) -> float:
    """Of both finger joints [m] at an opening [0 closed .. 1 open]."""
    return FINGER_CLOSED * (1 - gripper) + FINGER_OPEN * gripper
