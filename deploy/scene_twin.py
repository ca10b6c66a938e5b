"""A generated scene as the robot meets it: the simulated arm as a driver, its camera, and a witness of what happens.

It is the simulator's own environment, begun and stepped as an evaluation does, so that a policy that reaches it through runner
and safety layer earns the very records of `genvla evaluate`, unless one of those changes what the policy does.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from deploy.camera import Frame
from deploy.drivers import ArmState, Clock, WallClock, finger_position
from deploy.drivers.twin import SimulatedClock
from genvla.robots.wx250s import FINGER_OPEN
from genvla.sim.config import SimConfig
from genvla.sim.host import Slot, require_renderer
from genvla.sim.scene_env import SceneEnv, load_scene_of
from genvla.types import EpisodeRecord, EpisodeSpec


class SceneTwin:
    """The simulated robot in a generated scene: a driver, with a camera.

    In lock-step each command passes one control step of simulated time, and a policy may think as long as it likes. In real time
    the simulation follows the clock on the wall: whatever takes time, the arm moves on meanwhile.

    Args:
        scenes: folder of the scene set.
        sim: the simulated set-up.
        real_time: see above.
    """

    def __init__(self, scenes: Path, sim: SimConfig, real_time: bool = False) -> None:
        require_renderer()
        self.scenes, self.sim, self.real_time = scenes, sim, real_time
        self._sim_clock = SimulatedClock()
        self.clock: Clock = WallClock() if real_time else self._sim_clock
        self.camera = TwinCamera(self)
        self.slot = Slot()
        self.film: list[UInt8[np.ndarray, "h w 3"]] | None = None
        """Where the pictures for people go, one for each control step; None takes none."""
        self._env: SceneEnv | None = None
        self._lock = threading.RLock()  # the arm may be watched from another thread, and SAPIEN is for one at a time
        self._began = 0.0
        self._substeps = 0
        self._finger = FINGER_OPEN

    # ---- episodes

    def begin(self, spec: EpisodeSpec) -> str:
        """Puts scene, arm, camera and light where this episode begins; returns its instruction.

        Raises:
            scenegen's UserError: there is no such scene, or a file of it is wrong.
        """
        with self._lock, torch.inference_mode():
            if self._env is None or self._env.layout.id != spec.scene_id:
                self._close_env()
                self._env = SceneEnv(scene=load_scene_of(self.scenes, spec.scene_id), sim=self.sim, obs_mode="none")
                self._env.look()  # the first picture compiles shaders, for seconds
            self._env.begin(spec.seed)
            self.slot = Slot(self._env, spec)
            self._began, self._substeps, self._finger = self.clock.now(), 0, FINGER_OPEN
            return self._env.instruction

    @property
    def env(self) -> SceneEnv:
        """The environment of the episode; `begin` comes first."""
        if self._env is None:
            raise RuntimeError("no episode has begun")
        return self._env

    def over(self, terminate_on_success: bool = False) -> bool:
        """Whether the episode has reached its time limit, or success where that ends it."""
        with self._lock:
            self._catch_up()
            return self.slot.steps >= self.sim.max_steps or (terminate_on_success and self.slot.first_success is not None)

    def dispose(self) -> None:
        """Frees the scene."""
        with self._lock:
            self._close_env()

    def record(self, decisions: int) -> EpisodeRecord:
        """The episode's record, as an evaluation writes it."""
        self.slot.chunks = decisions
        return self.slot.record()

    # ---- driver

    def connect(self) -> None:
        """The simulated arm is always there."""

    def read(self) -> ArmState:
        with self._lock:
            self._catch_up()
            qpos, qvel = self.env.qpos(), self.env.agent.articulation.get_qvel()
            return ArmState(
                self.clock.now(), qpos[:6].astype(np.float64), qvel[:6].astype(np.float64), qpos[6:].astype(np.float64)
            )

    def command(self, joint_targets: Float[np.ndarray, " 6"], gripper: float, duration: float) -> None:
        """Sets the joints' targets; in lock-step a control step passes. The drives, not `duration`, decide how fast it goes."""
        with self._lock:
            self._catch_up()
            self._finger = finger_position(gripper)
            self._drive(joint_targets)
            self._pass_a_step()

    def hold(self) -> None:
        """Stays where it is and keeps its grip; in lock-step for a control step."""
        with self._lock:
            self._catch_up()
            self._drive(self.env.qpos()[:6])
            self._pass_a_step()

    def park(self) -> None:
        """Nothing to let go of."""

    def close(self) -> None:
        """Nothing to disconnect from; `dispose` frees the scene."""

    # ---- the simulation

    def _drive(self, arm: np.ndarray) -> None:
        self.env.drive(np.append(arm, [self._finger, self._finger]).astype(np.float32))

    def _pass_a_step(self) -> None:
        if not self.real_time:
            self._advance(self.sim.substeps)
            self._sim_clock.seconds += self.sim.substeps / self.sim.sim_hz

    def _catch_up(self) -> None:
        """In real time, simulates what has passed since it was last looked at."""
        if self.real_time and self.slot.env is not None:
            self._advance(int((self.clock.now() - self._began) * self.sim.sim_hz) - self._substeps)

    def _advance(self, substeps: int) -> None:
        """Physics steps; after each whole control step of them, what an evaluation notes down."""
        with torch.inference_mode():
            for _ in range(max(substeps, 0)):
                self.env.scene.px.step()
                self._substeps += 1
                if self._substeps % self.sim.substeps == 0:
                    self._note()

    def _note(self) -> None:
        slot = self.slot
        if slot.steps >= self.sim.max_steps:  # a chunk that safety cut short lets the last one end late
            return
        slot.steps += 1
        slot.touches = self.env.touches()
        slot.grasped |= slot.touches.robot and not slot.touches.table
        if slot.touches.success and slot.first_success is None:
            slot.first_success = slot.steps
        if self.film is not None:
            self.film.append(self.env.view())

    def look(self) -> Frame:
        """The policy's picture, taken now."""
        with self._lock, torch.inference_mode():
            self._catch_up()
            return Frame(self.env.look(), self.clock.now(), self._substeps)

    def _close_env(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None
        self.slot = Slot()


class TwinCamera:
    """The simulator's camera."""

    def __init__(self, twin: SceneTwin) -> None:
        self._twin = twin

    def read(self) -> Frame:
        return self._twin.look()

    def close(self) -> None:
        """It goes with the twin."""
