"""Many scenes in one ManiSkill environment: a sub-scene each, which PhysX simulates together on a GPU.

Everything goes through ManiSkill's batched structures, for a GPU keeps the state of bodies and joints in its own memory. On the
CPU, where PhysX holds one sub-scene, the same code runs with one; tests hold it against SceneEnv there. Sub-scenes begin episodes
apart: nothing is simulated, and the others stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sapien
import torch
from mani_skill.sensors.camera import CameraConfig
from mani_skill.utils.structs.actor import Actor
from mani_skill.utils.structs.pose import Pose

from genvla.robots import wx250s
from genvla.sim.cameras import picture
from genvla.sim.config import SimConfig
from genvla.sim.randomization import usable_placements
from genvla.sim.scene_env import VIEW_SIZE, SceneEnv, TaskState
from genvla.sim.success import CONTACT_FORCE, Touches
from scenegen.loader import Scene


@dataclass(frozen=True)
class Snapshot:
    """All that moves in a sub-scene, to go on from in another one of the same scene: poses of things [k, 7] and their velocities
    [k, 6], the robot's root pose [7], joint positions, velocities and drive targets [8], and the episode's camera and light."""

    things: torch.Tensor
    velocities: torch.Tensor
    root: torch.Tensor
    qpos: torch.Tensor
    qvel: torch.Tensor
    targets: torch.Tensor
    camera: torch.Tensor
    ambient: np.ndarray
    sun: np.ndarray


class SceneBatch(SceneEnv):
    """A scene in each of n sub-scenes.

    Args:
        layouts: the scenes, which may repeat.
        sim: the simulated set-up.
        device: what simulates: "cuda", "cuda:1" and so on, or "cpu", which takes a single scene.
    """

    def __init__(self, layouts: Sequence[Scene], sim: SimConfig, device: str, **kwargs: Any):
        self.layouts = tuple(layouts)
        self._targets = torch.zeros(len(self.layouts), len(wx250s.REST_QPOS))
        super().__init__(
            scene=layouts[0],
            sim=sim,
            num_envs=len(layouts),
            obs_mode="none",
            reward_mode="none",
            sim_backend=f"physx_{device}",
            **kwargs,
        )

    # ---- what ManiSkill asks for

    @property
    def _default_sensor_configs(self) -> list[CameraConfig]:
        size = self.sim.image_size
        intrinsic = self.sim.camera.intrinsics(size)
        # On a GPU a camera moves with the body that it is mounted on, and in no other way.
        mounted = {"mount": self._mount, "pose": sapien.Pose()}
        return [
            CameraConfig(
                "camera",
                width=size,
                height=size,
                intrinsic=intrinsic,
                near=0.01,
                far=10.0,
                shader_pack=self.sim.shader,
                **mounted,
            )
        ]

    def _load_scene(self, options: dict) -> None:
        self._placed = [usable_placements(each.offsets, self.sim.randomization.object_xy, each.id) for each in self.layouts]
        self._things = [self._build_things(place) for place in range(self.num_envs)]
        tables = []
        for place, layout in enumerate(self.layouts):
            table, room = self._table_builder(layout), self._room_builder(layout)
            table.set_scene_idxs([place])
            room.set_scene_idxs([place])
            tables.append(table.build_static(f"table {place}"))
            room.build_static(f"room {place}")
        mount = self.scene.create_actor_builder()
        mount.initial_pose = self._nominal_camera(self.layout, np.zeros(3))
        self._mount = mount.build_kinematic("camera mount")
        pairs = list(zip(self._things, self.layouts, strict=True))
        self._target = Actor.merge([things[layout.target_index] for things, layout in pairs], "target")
        self._destination = Actor.merge([things[layout.destination_index] for things, layout in pairs], "destination")
        self._table = Actor.merge(tables, "table")
        self._views: dict[int, sapien.render.RenderCameraComponent] = {}
        self._pictures: np.ndarray | None = None
        self._touches: list[Touches] | None = None

    def _build_things(self, place: int) -> list[Actor]:
        layout, things = self.layouts[place], []
        for item, pose in zip(layout.objects, layout.poses[self._placed[place][0]], strict=True):
            builder = self._object_builder(item, pose)
            builder.set_scene_idxs([place])
            things.append(builder.build(f"{item.id} {place}"))
        return things

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict) -> None:
        for place in env_idx.tolist():
            self.begin_in(place, int(self._episode_seed[place]))

    def _get_obs_extra(self, info: dict) -> dict[str, torch.Tensor]:
        return {}

    def evaluate(self) -> dict[str, torch.Tensor]:
        return {"success": torch.tensor([touches.success for touches in self.all_touches()], device=self.device)}

    # ---- the short way in, by the number of a sub-scene

    def begin_in(self, place: int, seed: int) -> None:
        """Starts the episode with this seed in one sub-scene, as SceneEnv.begin does; the others stay as they are."""
        start = self._start(self.layouts[place], self._placed[place], seed)
        qpos = torch.from_numpy(start.qpos)
        self.restore(
            place,
            Snapshot(
                things=torch.from_numpy(np.asarray(start.poses, dtype=np.float32)),
                velocities=torch.zeros(len(start.poses), 6),
                root=_row(start.base),
                qpos=qpos,
                qvel=torch.zeros_like(qpos),
                targets=qpos,
                camera=_row(start.camera),
                ambient=start.ambient,
                sun=start.sun,
            ),
        )

    def snapshot(self, place: int) -> Snapshot:
        """What moves in a sub-scene now."""
        things, robot = self._things[place], self.agent.robot
        return Snapshot(
            things=torch.cat([thing.pose.raw_pose for thing in things]).cpu(),
            velocities=torch.cat([torch.cat((each.linear_velocity, each.angular_velocity), dim=-1) for each in things]).cpu(),
            root=robot.root.pose.raw_pose[place].cpu(),
            qpos=robot.qpos[place].cpu().clone(),
            qvel=robot.qvel[place].cpu().clone(),
            targets=self._targets[place].clone(),
            camera=self._mount.pose.raw_pose[place].cpu(),
            ambient=np.asarray(self.scene.sub_scenes[place].ambient_light),
            sun=np.asarray(self._suns[place].color),
        )

    def restore(self, place: int, snapshot: Snapshot) -> None:
        """Puts a sub-scene where a snapshot was taken; the others stay as they are."""
        if not self.gpu_sim_enabled:
            self._renew_physics()
        self._targets[place] = snapshot.targets
        with self._alone(place):
            for thing, pose, velocity in zip(self._things[place], snapshot.things, snapshot.velocities, strict=True):
                thing.set_pose(Pose.create(pose[None].to(self.device)))
                thing.set_linear_velocity(velocity[:3])
                thing.set_angular_velocity(velocity[3:])
            robot = self.agent.robot
            robot.set_root_pose(Pose.create(snapshot.root[None].to(self.device)))
            robot.set_qpos(snapshot.qpos[None])
            robot.set_qvel(snapshot.qvel[None])
            robot.set_qf(torch.zeros_like(snapshot.qpos)[None])
            robot.set_joint_drive_targets(self._targets[place][None], robot.active_joints)
            self._mount.set_pose(Pose.create(snapshot.camera[None].to(self.device)))
        self.scene.sub_scenes[place].set_ambient_light(snapshot.ambient)
        self._suns[place].set_color(snapshot.sun)
        if self.gpu_sim_enabled:
            self.scene._gpu_apply_all()
            self.scene.px.gpu_update_articulation_kinematics()
            self.scene._gpu_fetch_all()
        self._pictures = self._touches = None

    def all_qpos(self) -> np.ndarray:
        """Joint positions, arm then fingers, float32 [n, 8]."""
        return self.agent.robot.qpos.cpu().numpy()

    def advance_all(self, targets: np.ndarray) -> None:
        """Simulates one control step with these joint targets [n, 8] (rad, m)."""
        self._targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        self.agent.robot.set_joint_drive_targets(self._targets, self.agent.robot.active_joints)
        if self.gpu_sim_enabled:
            self.scene.px.gpu_apply_articulation_target_position()
        for _ in range(self.sim.substeps):
            self.scene.step()
        if self.gpu_sim_enabled:
            self.scene._gpu_fetch_all()
        self._pictures = self._touches = None

    def all_touches(self) -> list[Touches]:
        """Whom each target touches now: one query for each pair of bodies, over all sub-scenes."""
        if self._touches is None:
            destination, table = (self._force(other) for other in (self._destination, self._table))
            robot = torch.stack([self._force(link) for link in self.agent.robot.links]).sum(0)
            flags = (torch.stack((robot, table, destination), dim=1) > CONTACT_FORCE).tolist()
            self._touches = [Touches(*row) for row in flags]
        return self._touches

    def all_pictures(self) -> np.ndarray:
        """The policy's pictures, uint8 [n, size, size, 3]."""
        if self._pictures is None:
            camera = self.scene.sensors["camera"]
            self.scene.update_render(update_sensors=True, update_human_render_cameras=False)
            camera.capture()
            taken = camera.get_obs(rgb=True, depth=False, position=False, segmentation=False)["rgb"]
            self._pictures = taken.cpu().numpy()
        return self._pictures

    def view_of(self, place: int) -> np.ndarray:
        """A picture for people, uint8 [VIEW_SIZE, VIEW_SIZE, 3]."""
        scene = self.scene.sub_scenes[place]
        if place not in self._views:
            self._views[place] = scene.add_camera("view", VIEW_SIZE, VIEW_SIZE, 0.8, 0.01, 10.0)
            self._views[place].set_local_pose(self._view_pose(self.layouts[place]))
        if self.gpu_sim_enabled:
            self.scene.px.sync_poses_gpu_to_cpu()
        scene.update_render()
        return picture(self._views[place])

    # ---- helpers

    def _force(self, other: Any) -> torch.Tensor:
        """Newtons between each target and a body of its sub-scene, [n]."""
        return self.scene.get_pairwise_contact_forces(self._target, other).norm(dim=-1)

    @contextmanager
    def _alone(self, place: int) -> Iterator[None]:
        """What is set meanwhile is set in this sub-scene."""
        before = self.scene._reset_mask
        self.scene._reset_mask = torch.arange(self.num_envs, device=self.device) == place
        try:
            yield
        finally:
            self.scene._reset_mask = before


def _row(pose: sapien.Pose) -> torch.Tensor:
    """Position and quaternion, float32 [7]."""
    return torch.from_numpy(np.concatenate((pose.p, pose.q)).astype(np.float32))


class SubScene(TaskState):
    """One place of a batch, with the methods by which a host knows an environment."""

    def __init__(self, batch: SceneBatch, place: int) -> None:
        self.batch, self.place = batch, place
        self.layout, self.sim = batch.layouts[place], batch.sim

    def begin(self, seed: int) -> None:
        """Starts the episode with this seed."""
        self.batch.begin_in(self.place, seed)

    def qpos(self) -> np.ndarray:
        """Joint positions, arm then fingers, float32 [8]."""
        return self.batch.all_qpos()[self.place]

    def touches(self) -> Touches:
        """Whom the target touches now."""
        return self.batch.all_touches()[self.place]

    def look(self) -> np.ndarray:
        """The policy's picture, uint8 [size, size, 3]."""
        return self.batch.all_pictures()[self.place]

    def view(self) -> np.ndarray:
        """A picture for people, uint8 [VIEW_SIZE, VIEW_SIZE, 3]."""
        return self.batch.view_of(self.place)

    def object_pose(self, index: int) -> sapien.Pose:
        return _pose(self.batch._things[self.place][index].pose.raw_pose[0])

    def base_pose(self) -> sapien.Pose:
        return _pose(self.batch.agent.robot.root.pose.raw_pose[self.place])

    def camera_pose(self) -> sapien.Pose:
        return _pose(self.batch._mount.pose.raw_pose[self.place])

    def close(self) -> None:
        """The batch is freed as a whole."""


def _pose(row: torch.Tensor) -> sapien.Pose:
    values = row.cpu().numpy()
    return sapien.Pose(values[:3], values[3:])
