"""ManiSkill's four digital twins of BridgeData scenes (SIMPLER; the paper's SE column), in the place of a scene set.

`--scenes simpler` means them wherever a scene set is named. An environment has the methods of SceneEnv that a host calls, so
actions, proprioception, workers, videos and records are those of generated scenes. The tasks' own are: objects and their start
configurations, physics, robot and gains, lights, the camera with the photograph behind the scene, and the rule of success. Of
SimConfig only image_size and max_chunks count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from genvla.errors import UserError
from genvla.robots import wx250s
from genvla.sim.config import SimConfig
from genvla.sim.success import Touches, target_touches
from genvla.types import CHUNK_SIZE, CONTROL_HZ, EpisodeSpec

NAME = "simpler"
"""What is given for the folder of a scene set to mean these tasks."""

CAMERA = "3rd_view_camera"
SIM_HZ = 500
GRIPPER_CLEARANCE = 0.001
"""Metres by which ManiSkill commands the fingers beyond their limits, so that they press on what they hold."""


@dataclass(frozen=True)
class Task:
    """One of the tasks. steps: its time limit in control steps. configurations: start placements; an episode's seed picks one."""

    id: str
    environment: str
    steps: int
    configurations: int


TASKS = {
    task.id: task
    for task in (
        Task("carrot_on_plate", "PutCarrotOnPlateInScene", 60, 24),
        Task("spoon_on_towel", "PutSpoonOnTableClothInScene", 60, 24),
        Task("stack_cube", "StackGreenCubeOnYellowCubeBakedTexInScene", 60, 24),
        Task("eggplant_in_basket", "PutEggplantInBasketScene", 120, 64),
    )
}
SPLITS = {
    "tabletop": ["carrot_on_plate", "spoon_on_towel", "stack_cube"],
    "train": ["carrot_on_plate", "spoon_on_towel", "stack_cube"],
    "heldout": [],
    "all": list(TASKS),
}
"""tabletop: the three that the paper trains and evaluates on; the fourth plays in a sink."""


def is_simpler(scenes: Path | str) -> bool:
    """Whether these tasks are meant, and no folder."""
    return str(scenes) == NAME


def tasks_of(split: str) -> list[str]:
    """Task ids of a split.

    Raises:
        UserError: there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"split: found {split!r}; wanted {', '.join(SPLITS)} for the scenes {NAME}")
    return SPLITS[split]


def assets_folder() -> Path:
    """Where the tasks' objects, tables and photographs lie."""
    from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval import base_env

    return Path(base_env.BRIDGE_DATASET_ASSET_PATH)


def require_assets() -> None:
    """UserError, with the commands that get them, where what ManiSkill downloads is not there."""
    from mani_skill.agents.robots.widowx.widowx import WidowX250S

    wanted = {"bridge_v2_real2sim": assets_folder(), "widowx250s": Path(WidowX250S.urdf_path)}
    lacking = {name: path for name, path in wanted.items() if not path.exists()}
    if lacking:
        commands = " && ".join(f"python -m mani_skill.utils.download_asset -y {name}" for name in lacking)
        raise UserError(f"{NAME}: {' and '.join(map(str, lacking.values()))} not found; get what is missing by: {commands}")


def default_sim(tasks: Iterable[str], image_size: int) -> SimConfig:
    """The tasks' own time limit; the longest of theirs where there are several."""
    return replace(SimConfig(), image_size=image_size, max_chunks=max(TASKS[task].steps for task in tasks) // CHUNK_SIZE)


def cover_configurations(specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """The same episodes with the seeds moved so that a task's k-th plays in its k-th start configuration, round after round."""
    seen: Counter[str] = Counter()
    result = []
    for spec in specs:
        number = TASKS[spec.scene_id].configurations
        result.append(EpisodeSpec(spec.scene_id, spec.seed - spec.seed % number + seen[spec.scene_id] % number))
        seen[spec.scene_id] += 1
    return result


@dataclass(frozen=True)
class TwinTouches(Touches):
    """Contacts of the object to be moved, and whether ManiSkill's rule for the task is met."""

    placed: bool

    @property
    def success(self) -> bool:
        return self.placed


class SimplerEnv:
    """One of the tasks, on the CPU.

    Its control is that of generated scenes (the host solves for joint targets), not ManiSkill's controller, which takes rotations
    for intrinsic XYZ angles where BridgeData's are roll, pitch and yaw about fixed axes.

    Raises:
        UserError: what ManiSkill downloads for them is not there.
    """

    def __init__(self, task: str, sim: SimConfig, **rendering: Any) -> None:
        require_assets()
        if task not in TASKS:
            raise UserError(f"{NAME}: task {task!r} found, want one of {', '.join(TASKS)}")
        self.layout = TASKS[task]
        self._size = sim.image_size
        rendering.setdefault("render_backend", "gpu" if torch.cuda.is_available() else "cpu")
        # Sleeping bodies stop reporting the contact forces that success is read from.
        physics = {"scene_config": {"sleep_threshold": 0.0}}
        self._env = _environment(self.layout)(
            obs_mode="rgb+segmentation", sim_backend="physx_cpu", sim_config=physics, **rendering
        )
        self.instruction = str(self._env.get_language_instruction()[0])

    # ---- what a host calls

    def begin(self, seed: int) -> None:
        """Starts an episode: the seed's start configuration, settled by ManiSkill, in a new physics engine."""
        env = self._env
        options = {"episode_id": seed % self.layout.configurations, "reconfigure": True}
        env.reset(seed=seed % 2**31, options=options)
        self._robot = env.agent.robot._objs[0]
        self._source, self._target = (env.objs[name] for name in (env.source_obj_name, env.target_obj_name))
        self._roles = {self._source._objs[0].global_id: "target", self._target._objs[0].global_id: "destination"}
        for name in ("arena", "sink"):
            if name in env.scene.actors:
                self._roles[env.scene.actors[name]._objs[0].global_id] = "table"
        self._roles |= {link._objs[0].entity.global_id: "robot" for link in env.agent.robot.links}
        self.drive(self.qpos())

    def qpos(self) -> np.ndarray:
        """Joint positions, arm then fingers, float32 [8]."""
        return self._robot.get_qpos()

    def drive(self, targets: np.ndarray) -> None:
        """Sets the joint targets [8] (rad, m) that the drives pull towards."""
        targets = np.array(targets, dtype=np.float32)
        middle = (wx250s.FINGER_OPEN + wx250s.FINGER_CLOSED) / 2
        targets[6:] += np.where(targets[6:] > middle, GRIPPER_CLEARANCE, -GRIPPER_CLEARANCE)
        for joint, target in zip(self._robot.get_active_joints(), targets, strict=True):
            joint.set_drive_target(float(target))

    def advance(self) -> None:
        """Simulates one control step."""
        for _ in range(int(SIM_HZ / CONTROL_HZ)):
            self._env.scene.px.step()

    def touches(self) -> TwinTouches:
        """Whom the object to be moved touches now, and whether it is where it should be."""
        found = target_touches(self._env.scene.px.get_contacts(), self._roles, 1.0 / SIM_HZ)
        placed = bool(self._env.evaluate()["success"][0])
        return TwinTouches(found.robot, found.table, found.destination, placed)

    def look(self) -> np.ndarray:
        """The policy's picture, uint8 [size, size, 3]: 640 x 480 squashed with Lanczos-4, as SIMPLER's evaluations do."""
        return cv2.resize(self._photograph(), (self._size, self._size), interpolation=cv2.INTER_LANCZOS4)

    def view(self) -> np.ndarray:
        """A picture for people: what the camera sees, between black borders, uint8 [256, 256, 3]."""
        picture = np.zeros((256, 256, 3), dtype=np.uint8)
        picture[32:224] = cv2.resize(self._photograph(), (256, 192), interpolation=cv2.INTER_AREA)
        return picture

    @property
    def grasp_height(self) -> float:
        """Of the grasp point over the object's underside, metres; no lower than fingertips off the table allow."""
        return max(self._half_height(self._source), wx250s.FINGERTIP + 0.004)

    def target_state(self) -> tuple[np.ndarray, float, np.ndarray]:
        """In the base frame: the object's centre [3], nan (its narrow side is unknown), and the point [3] on the destination."""
        to_base = self._robot.root_pose.inv()
        goal = to_base * self._target._objs[0].pose
        above = np.array([0.0, 0.0, self._half_height(self._target)])
        return (to_base * self._source._objs[0].pose).p, float("nan"), goal.p + above

    def in_picture(self, points: np.ndarray) -> np.ndarray:
        """Where points [k, 3] of the base frame lie in the picture.

        u, v [k, 2], from -1 at its left and upper edges to 1 at the others.
        """
        camera = self._env.scene.sensors[CAMERA].camera._render_cameras[0]
        matrix = (camera.get_global_pose().inv() * self._robot.root_pose).to_transformation_matrix()
        forward, left, up = (points @ matrix[:3, :3].T + matrix[:3, 3]).T
        intrinsic = camera.get_intrinsic_matrix()
        seen = np.stack((-left, -up), axis=1) / np.maximum(forward, 1e-3)[:, None]
        pixels = seen * intrinsic.diagonal()[:2] + intrinsic[:2, 2]
        return pixels / [camera.width / 2, camera.height / 2] - 1

    def close(self) -> None:
        """Frees the environment."""
        self._env.close()

    # ---- helpers

    def _photograph(self) -> np.ndarray:
        """The camera's picture with the photograph for a background, uint8 [480, 640, 3]."""
        return self._env._get_obs_sensor_data()[CAMERA]["rgb"][0].cpu().numpy().astype(np.uint8)

    def _half_height(self, thing: Any) -> float:
        box = self._env.model_db[thing.name]["bbox"]
        return (box["max"][2] - box["min"][2]) * self._env.episode_model_scales[thing.name] / 2


def _environment(task: Task) -> type[Any]:
    """ManiSkill's class of a task.

    It keeps the photograph and the list of what stands before it on the class, where environments of one process would overwrite
    each other's; here each has its own.
    """
    from mani_skill.envs.tasks.digital_twins.bridge_dataset_eval import put_on_in_scene

    base = getattr(put_on_in_scene, task.environment)

    class Twin(base):  # type: ignore[misc, valid-type]
        def __init__(self, **kwargs: Any) -> None:
            self._rgb_overlay_images: dict[str, Any] = {}
            self._objects_to_remove_from_greenscreen: list[Any] = []
            super().__init__(**kwargs)

    return Twin
