"""No arm at all: prints what would be commanded and takes it as done. For a look at a policy's targets before anything moves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from deploy.control import SLEEP
from deploy.drivers import ArmState, Clock, WallClock, finger_position


class DryDriver:
    """An arm that is where it was told to be, at once. Opens no port."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or WallClock()
        self._joints, self._gripper = SLEEP.copy(), 1.0

    def connect(self) -> None:
        print("dry run: no arm is connected, nothing moves")

    def read(self) -> ArmState:
        fingers = np.full(2, finger_position(self._gripper))
        return ArmState(self._clock.now(), self._joints, np.zeros(6), fingers)

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        self._joints, self._gripper = np.asarray(joint_targets, float).copy(), gripper
        print(f"{self._clock.now():10.2f} s  joints {np.round(self._joints, 3).tolist()} rad  gripper {gripper:.2f}")

    def hold(self) -> None:
        print(f"{self._clock.now():10.2f} s  hold")

    def park(self) -> None:
        print(f"{self._clock.now():10.2f} s  motors off")

    def close(self) -> None:
        pass
