"""The ManiSkill environment over a scene set.

Two ways in. Gymnasium's (`gym.make("GenvlaScene-v1", scenes=...)`, `reset`, `step`) is for users and one environment at a time.
The short methods below it (`begin`, `drive`, `advance`, `touches`, `look`) do the same without the per-step dictionaries, so that
a worker can hold dozens of environments, solve their inverse kinematics in one batch and render only what a policy will see;
tests hold the two ways together.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.envs.sapien_env import BaseEnv
from mani_skill.sensors.camera import CameraConfig
from mani_skill.utils.building.actor_builder import ActorBuilder
from mani_skill.utils.registration import register_env
from mani_skill.utils.structs.types import SceneConfig as PhysxSceneConfig
from mani_skill.utils.structs.types import SimConfig as ManiSkillSimConfig

from genvla.errors import UserError
from genvla.robots import kinematics, wx250s
from genvla.seeding import derive_seed
from genvla.sim.cameras import looking_at, picture
from genvla.sim.config import SimConfig
from genvla.sim.randomization import draw_episode, usable_placements
from genvla.sim.success import Touches, target_touches
from genvla.sim.widowx import WidowX
from genvla.types import CONTROL_HZ
from scenegen.loader import Scene, SceneObject, load_scene_set

VIEW_SIZE = 256
"""Pixels of the human-view picture, for videos."""


def load_scene_of(scenes: Path | str | None, scene_id: str | None) -> Scene:
    """One scene of a scene set; the first when no id is given. UserError when there is none of that id."""
    if scenes is None:
        raise UserError("SceneEnv: scenes: nothing found, the folder of a scene set wanted")
    scene_set = load_scene_set(scenes)
    return scene_set.load(scene_id or scene_set.ids()[0])


@dataclass(frozen=True)
class Start:
    """How an episode of a scene begins, in the world: poses [k, 7] of its things, joint positions [8], robot and camera, the
    ambient light's colour and the sun's."""

    poses: np.ndarray
    qpos: np.ndarray
    base: sapien.Pose
    camera: sapien.Pose
    ambient: np.ndarray
    sun: np.ndarray


class TaskState(abc.ABC):
    """What a task's target and destination are about, from the poses in a simulated scene."""

    layout: Scene
    sim: SimConfig

    @abc.abstractmethod
    def object_pose(self, index: int) -> sapien.Pose:
        """Of one of the layout's objects, in the world."""

    @abc.abstractmethod
    def base_pose(self) -> sapien.Pose:
        """Of the robot's base, in the world."""

    @abc.abstractmethod
    def camera_pose(self) -> sapien.Pose:
        """Of the policy's camera, in the world."""

    @property
    def instruction(self) -> str:
        return self.layout.instruction

    @property
    def grasp_height(self) -> float:
        """Of the grasp point over the target's underside, metres.

        As the asset says, but no lower than fingertips off the table allow.
        """
        asset = self.layout.objects[self.layout.target_index].asset
        return max(asset.grasp_height_m or 0.0, wx250s.FINGERTIP + 0.004)

    def target_state(self) -> tuple[np.ndarray, float, np.ndarray]:
        """In the base frame: grasp point, grasp yaw and goal.

        The target's grasp point [3], the yaw (as in proprioception) of a hand that closes on its narrow side, nan when any will
        do, and the point [3] of the destination where its underside should come to rest.
        """
        layout = self.layout
        to_base = self.base_pose().inv()
        target, destination = layout.objects[layout.target_index].asset, layout.objects[layout.destination_index].asset
        pose = to_base * self.object_pose(layout.target_index)
        goal = to_base * self.object_pose(layout.destination_index) * sapien.Pose(destination.goal_point)
        grasp = pose * sapien.Pose([0.0, 0.0, self.grasp_height])
        if target.grasp_symmetric:
            return grasp.p, float("nan"), goal.p
        assert target.grasp_yaw_rad is not None, "a target is graspable"
        axis = pose.to_transformation_matrix()[:3, :3] @ [np.cos(target.grasp_yaw_rad), np.sin(target.grasp_yaw_rad), 0.0]
        return grasp.p, float(np.arctan2(axis[1], axis[0])) - np.pi / 2, goal.p

    def in_picture(self, points: np.ndarray) -> np.ndarray:
        """Where points [k, 3] of the base frame lie in the policy's picture.

        u, v [k, 2], from -1 at its left and upper edges to 1 at the others.
        """
        matrix = (self.camera_pose().inv() * self.base_pose()).to_transformation_matrix()
        forward, left, up = (points @ matrix[:3, :3].T + matrix[:3, 3]).T
        focal = self.sim.camera.intrinsics(2).diagonal()  # of a picture two units wide
        return np.stack((-left * focal[0], -up * focal[1]), axis=1) / np.maximum(forward, 1e-3)[:, None]


@register_env("GenvlaScene-v1", max_episode_steps=100)
class SceneEnv(BaseEnv, TaskState):
    """One generated scene with the WidowX, on the CPU backend.

    Args:
        scenes: folder of a scene set, as `scenegen build` writes it.
        scene_id: which scene; the first when None. `reset(options={"reconfigure": True, "scene_id": ...})` changes it.
        scene: a scene already loaded, instead of the two above.
        sim: the simulated set-up.
    """

    SUPPORTED_ROBOTS = [WidowX.uid]
    SUPPORTED_REWARD_MODES = ["sparse", "none"]
    agent: WidowX

    def __init__(
        self,
        *args: Any,
        scenes: Path | str | None = None,
        scene_id: str | None = None,
        scene: Scene | None = None,
        sim: SimConfig | None = None,
        robot_uids: str = WidowX.uid,
        **kwargs: Any,
    ):
        self.sim = sim or SimConfig()
        self._scenes = scenes
        self.layout = scene if scene is not None else load_scene_of(scenes, scene_id)
        kwargs.setdefault("obs_mode", "rgb")
        kwargs.setdefault("enable_shadow", self.sim.shadows)
        kwargs.setdefault("render_backend", "gpu" if torch.cuda.is_available() else "cpu")
        super().__init__(*args, robot_uids=robot_uids, **kwargs)

    # ---- what ManiSkill asks for

    @property
    def _default_sim_config(self) -> ManiSkillSimConfig:
        # Sleeping bodies stop reporting contact forces, and success is read from those.
        return ManiSkillSimConfig(
            sim_freq=self.sim.sim_hz,
            control_freq=int(CONTROL_HZ),
            scene_config=PhysxSceneConfig(
                sleep_threshold=0.0, contact_offset=0.01, solver_position_iterations=self.sim.solver_iterations
            ),
        )

    @property
    def _default_sensor_configs(self) -> list[CameraConfig]:
        size = self.sim.image_size
        pose = self._nominal_camera(self.layout, np.zeros(3))
        intrinsic = self.sim.camera.intrinsics(size)
        return [CameraConfig("camera", pose, size, size, intrinsic=intrinsic, near=0.01, far=10.0, shader_pack=self.sim.shader)]

    @property
    def _default_human_render_camera_configs(self) -> list[CameraConfig]:
        if self.render_mode is None:
            return []
        return [
            CameraConfig(
                "render_camera",
                self._view_pose(self.layout),
                VIEW_SIZE,
                VIEW_SIZE,
                fov=0.8,
                near=0.01,
                far=10.0,
                shader_pack="default",
            )
        ]

    def _load_agent(self, options: dict) -> None:
        sim = self.sim
        self.agent = WidowX(
            self.scene,
            int(CONTROL_HZ),
            self._control_mode,
            initial_pose=self._nominal_base(self.layout),
            gains=sim.gains,
            pad_friction=sim.pad_friction,
            prefer_meshes=sim.prefer_meshes,
        )

    def _load_scene(self, options: dict) -> None:
        if "scene_id" in options:
            self.layout = load_scene_of(self._scenes, options["scene_id"])
        layout = self.layout
        self._view: sapien.render.RenderCameraComponent | None = None
        self._placements = usable_placements(layout.offsets, self.sim.randomization.object_xy, layout.id)
        self.objects = [
            self._object_builder(item, pose).build(item.id)._objs[0]
            for item, pose in zip(layout.objects, layout.poses[self._placements[0]], strict=True)
        ]
        table = self._table_builder(layout).build_static(layout.bundle.context.id)._objs[0]
        self._room_builder(layout).build_static(layout.bundle.background.id)
        roles = {"target": layout.target_index, "destination": layout.destination_index}
        self._roles = {self.objects[index].global_id: role for role, index in roles.items()}
        self._roles[table.global_id] = "table"
        self._roles |= {link._objs[0].entity.global_id: "robot" for link in self.agent.robot.links}
        self._bodies = [entity.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent) for entity in self.objects]

    def _object_builder(self, item: SceneObject, pose: np.ndarray) -> ActorBuilder:
        builder = self.scene.create_actor_builder()
        physics = item.asset.physics
        material = sapien.physx.PhysxMaterial(physics.static_friction, physics.dynamic_friction, physics.restitution)
        builder.add_visual_from_file(str(item.visual))
        # The density, rather than the mass, makes PhysX compute mass, centre and inertia from the same hulls.
        builder.add_multiple_convex_collisions_from_file(str(item.collision), material=material, density=physics.density)
        builder.initial_pose = sapien.Pose(pose[:3], pose[3:])
        return builder

    def _table_builder(self, layout: Scene) -> ActorBuilder:
        context = layout.bundle.context
        builder = self.scene.create_actor_builder()
        material = sapien.physx.PhysxMaterial(context.static_friction, context.dynamic_friction, 0.0)
        builder.add_visual_from_file(str(layout.table_visual))
        for box in context.collision_boxes:
            builder.add_box_collision(sapien.Pose(box.center), box.half_size, material=material)
        if context.collision is not None:
            builder.add_multiple_convex_collisions_from_file(str(layout.folder / context.collision), material=material)
        builder.initial_pose = sapien.Pose(context.pose.p, context.pose.q_wxyz)
        return builder

    def _room_builder(self, layout: Scene) -> ActorBuilder:
        background = layout.bundle.background
        builder = self.scene.create_actor_builder()
        builder.add_visual_from_file(str(layout.room_visual))
        builder.initial_pose = sapien.Pose(background.pose.p, background.pose.q_wxyz)
        return builder

    def _load_lighting(self, options: dict) -> None:
        self.scene.set_ambient_light([0.3, 0.3, 0.3])
        self._suns = [
            scene.add_directional_light(
                [0.4, 0.5, -1.0], [1.0, 1.0, 1.0], shadow=self.enable_shadow, shadow_scale=1.0, shadow_map_size=1024
            )
            for scene in self.scene.sub_scenes
        ]

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        self.begin(int(self._episode_seed[0]))

    def _get_obs_extra(self, info: dict) -> dict[str, torch.Tensor]:
        return {"proprioception": kinematics.proprioception(torch.from_numpy(self.qpos()[None]))}

    def evaluate(self) -> dict[str, torch.Tensor]:
        touches = self.touches()
        return {"success": torch.tensor([touches.success]), "grasped": torch.tensor([touches.robot and not touches.table])}

    # ---- the short way in

    def begin(self, seed: int) -> None:
        """Starts the episode with this seed: settled objects, robot, camera and light drawn; nothing is simulated."""
        self._renew_physics()
        start = self._start(self.layout, self._placements, seed)
        zero = np.zeros(3, dtype=np.float32)
        for entity, body, pose in zip(self.objects, self._bodies, start.poses, strict=True):
            entity.set_pose(sapien.Pose(pose[:3], pose[3:]))
            body.set_linear_velocity(zero)
            body.set_angular_velocity(zero)
        robot = self.agent.articulation
        robot.set_root_pose(start.base)
        robot.set_qpos(start.qpos)
        robot.set_qvel(np.zeros_like(start.qpos))
        robot.set_qf(np.zeros_like(start.qpos))
        self.drive(start.qpos)
        self.scene.sub_scenes[0].set_ambient_light(start.ambient)
        self._suns[0].set_color(start.sun)
        self._camera().set_local_pose(start.camera)

    def _start(self, layout: Scene, placements: np.ndarray, seed: int) -> Start:
        """Of the episode with this seed, of a scene whose usable placements are these."""
        draw = draw_episode(self.sim.randomization, placements, derive_seed("episode", seed))
        base, qpos = self._nominal_base(layout), wx250s.REST_QPOS.numpy().astype(np.float32)
        qpos[:6] += draw.joint_offset
        return Start(
            poses=layout.poses[draw.placement],
            qpos=qpos,
            base=sapien.Pose(base.p + [0, 0, draw.base_height_offset], base.q),
            camera=self._nominal_camera(layout, draw.camera_offset),
            ambient=draw.ambient_light,
            sun=np.full(3, draw.directional_light),
        )

    def _renew_physics(self) -> None:
        """Moves every body into a new, empty physics engine, in 0.4 ms.

        PhysX keeps the order in which contacts were found, and the order decides the last bits of a contact-rich second. In a new
        engine an episode depends on its seed alone, whatever the environment lived through: evaluations and resumed runs rest on
        that.
        """
        old = self.scene.sub_scenes[0]
        entities = old.get_entities()
        for entity in entities:
            old.remove_entity(entity)
        self._set_scene_config()
        physics = sapien.physx.PhysxCpuSystem()
        physics.timestep = 1.0 / self.sim.sim_hz
        new = sapien.Scene([physics, old.render_system])
        for entity in entities:
            new.add_entity(entity)
        self.scene.sub_scenes[0], self.scene.px = new, physics

    def qpos(self) -> np.ndarray:
        """Joint positions, arm then fingers, float32 [8]."""
        return self.agent.articulation.get_qpos()

    def drive(self, targets: np.ndarray) -> None:
        """Sets the joint targets [8] (rad, m) that the drives pull towards."""
        for joint, target in zip(self.agent.articulation.get_active_joints(), targets, strict=True):
            joint.set_drive_target(float(target))

    def advance(self) -> None:
        """Simulates one control step."""
        step = self.scene.px.step
        for _ in range(self.sim.substeps):
            step()

    def touches(self) -> Touches:
        """Whom the target touches now."""
        return target_touches(self.scene.px.get_contacts(), self._roles, 1.0 / self.sim.sim_hz)

    def look(self) -> np.ndarray:
        """The policy's picture, uint8 [size, size, 3]."""
        self.scene.sub_scenes[0].update_render()
        return picture(self._camera())

    def view(self) -> np.ndarray:
        """A picture for people, uint8 [VIEW_SIZE, VIEW_SIZE, 3].

        Its camera is made at the first call, since training never needs it.
        """
        scene = self.scene.sub_scenes[0]
        if self._view is None:
            self._view = scene.add_camera("view", VIEW_SIZE, VIEW_SIZE, 0.8, 0.01, 10.0)
            self._view.set_local_pose(self._view_pose(self.layout))
        scene.update_render()
        return picture(self._view)

    def object_pose(self, index: int) -> sapien.Pose:
        return self.objects[index].pose

    def base_pose(self) -> sapien.Pose:
        return self.agent.articulation.root_pose

    def camera_pose(self) -> sapien.Pose:
        return self._camera().get_global_pose()

    # ---- helpers

    def _camera(self) -> sapien.render.RenderCameraComponent:
        return self.scene.sensors["camera"].camera._render_cameras[0]

    def _nominal_base(self, layout: Scene) -> sapien.Pose:
        """Where the robot's base stands before randomisation, in the world."""
        pose = layout.bundle.robot.base_pose
        return sapien.Pose(pose.p, pose.q_wxyz)

    def _nominal_camera(self, layout: Scene, offset: np.ndarray) -> sapien.Pose:
        """Where the policy's camera stands, moved by an offset [3] in the base's axes."""
        camera = self.sim.camera
        pose = looking_at(np.array(camera.position), np.array(camera.look_at))
        return self._nominal_base(layout) * sapien.Pose(pose.p + offset, pose.q)

    def _view_pose(self, layout: Scene) -> sapien.Pose:
        return self._nominal_base(layout) * looking_at(np.array([0.75, -0.45, 0.5]), np.array([0.22, 0.0, 0.05]))
