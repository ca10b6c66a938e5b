"""The simulated arm: SAPIEN with the simulator's drives, alone in the world. Commands make its time pass, a control step each."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float

from deploy.control import PERIOD, SLEEP, START
from deploy.drivers import ArmFault, ArmState, finger_position
from deploy.gravity import GravityCompensation
from genvla.robots.wx250s import FINGER_OPEN, urdf_path
from genvla.sim.config import Gains, SimConfig

POSTURES = {"sleep": SLEEP, "start": START}


class SimulatedClock:
    """Time that a simulation makes pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Returns at once: the next command makes time pass."""


class TwinDriver:
    """The arm of `genvla.sim` without a scene.

    Args:
        sim: drives and physics rate; the same as a policy was trained with.
        start: the posture it begins in.
        gravity: whether the arm has weight. The simulator's has none, as if it were compensated for perfectly.
        compensation: raises the drives' goals against gravity.
    """

    def __init__(
        self,
        sim: SimConfig | None = None,
        start: Literal["sleep", "start"] = "sleep",
        gravity: bool = False,
        compensation: GravityCompensation | None = None,
    ) -> None:
        self.clock = SimulatedClock()
        self._sim = sim or SimConfig()
        self._start, self._gravity, self._gripper = POSTURES[start], gravity, 1.0
        self.compensation = compensation

    def connect(self) -> None:
        import sapien

        sapien.physx.set_scene_config()
        sapien.physx.set_body_config(solver_position_iterations=self._sim.solver_iterations, sleep_threshold=0.0)
        system = sapien.physx.PhysxCpuSystem()
        system.timestep = 1.0 / self._sim.sim_hz
        scene = sapien.Scene([system])
        builder = scene.create_urdf_loader().parse(str(urdf_path()))[0][0]
        for link in builder.link_builders:
            link.visual_records = []  # a scene without a renderer takes no visuals
        self._robot = builder.build()
        self._scene, self._system = scene, system
        for link in self._robot.links:
            link.disable_gravity = not self._gravity
        self._set_drives(self._sim.gains)
        self._put(np.append(self._start, [FINGER_OPEN] * 2))

    def read(self) -> ArmState:
        qpos, qvel = self._robot.get_qpos(), self._robot.get_qvel()
        return ArmState(self.clock.now(), qpos[:6], qvel[:6], qpos[6:])

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        """The duration is left aside: the simulator's drives have no profile."""
        goals, self._gripper = np.asarray(joint_targets, float), gripper
        if self.compensation is not None:
            goals = goals + self.compensation.offsets(goals)
        self._drive(np.append(goals, [finger_position(gripper)] * 2))
        self._advance()

    def hold(self) -> None:
        """The gripper keeps its grip."""
        self.command(self.read().joint_positions, self._gripper, PERIOD)

    def park(self) -> None:
        off = np.abs(self.read().joint_positions - SLEEP).max()
        if off > 0.1:
            raise ArmFault(f"the arm is {off:.2f} rad from the sleep pose, at most 0.1 wanted")

    def close(self) -> None:
        pass

    def settle(self, seconds: float) -> None:
        """Lets time pass with the goals as they are."""
        for _ in range(round(seconds / PERIOD)):
            self._advance()

    def _set_drives(self, gains: Gains) -> None:
        finger = (gains.gripper_stiffness, gains.gripper_damping, gains.gripper_force_limit)
        arm = zip(gains.stiffness, gains.damping, gains.force_limit, strict=True)
        for joint, (stiffness, damping, limit) in zip(self._robot.get_active_joints(), [*arm, finger, finger], strict=True):
            joint.set_drive_properties(stiffness, damping, force_limit=limit, mode="force")
            joint.set_friction(0.0)

    def _put(self, qpos: Float[np.ndarray, " 8"]) -> None:
        self._robot.set_qpos(qpos.astype(np.float32))
        self._robot.set_qvel(np.zeros(8, np.float32))
        self._drive(qpos)

    def _drive(self, targets: Float[np.ndarray, " 8"]) -> None:
        for joint, target in zip(self._robot.get_active_joints(), targets, strict=True):
            joint.set_drive_target(float(target))

    def _advance(self) -> None:
        for _ in range(self._sim.substeps):
            self._system.step()
        self.clock.seconds += PERIOD
