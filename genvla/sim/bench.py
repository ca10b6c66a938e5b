"""How much of a bare SAPIEN loop's speed is left when the same physics and pictures run through the ManiSkill environment."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import sapien
import torch

from genvla.robots import wx250s
from genvla.sim.cameras import looking_at, picture
from genvla.sim.config import SimConfig
from genvla.sim.host import Host, observation_arrays
from genvla.sim.scene_env import load_scene_of
from genvla.types import CHUNK_SIZE, EpisodeSpec
from scenegen.loader import Scene


class BareScene:
    """The same bodies, drives and camera in a plain SAPIEN scene, with nothing read but the picture."""

    def __init__(self, scene: Scene, sim: SimConfig) -> None:
        sapien.physx.set_scene_config(enable_tgs=True, enable_pcm=True)
        sapien.physx.set_body_config(
            solver_position_iterations=sim.solver_iterations, solver_velocity_iterations=1, sleep_threshold=0.0
        )
        sapien.physx.set_shape_config(contact_offset=0.01)
        device = sapien.Device("cuda" if torch.cuda.is_available() else "cpu")  # all scenes of a process render on one device
        self.scene = sapien.Scene([sapien.physx.PhysxCpuSystem(), sapien.render.RenderSystem(device)])
        self.scene.set_timestep(1 / sim.sim_hz)
        self.scene.set_ambient_light([0.3, 0.3, 0.3])
        self.scene.add_directional_light([0.4, 0.5, -1.0], [1, 1, 1])
        bundle = scene.bundle
        for item, pose in zip(scene.objects, scene.poses[0], strict=True):
            builder = self.scene.create_actor_builder()
            builder.add_visual_from_file(str(item.visual))
            builder.add_multiple_convex_collisions_from_file(str(item.collision), density=item.asset.physics.density)
            builder.initial_pose = sapien.Pose(pose[:3], pose[3:])
            builder.build()
        builder = self.scene.create_actor_builder()
        builder.add_visual_from_file(str(scene.table_visual))
        for box in bundle.context.collision_boxes:
            builder.add_box_collision(sapien.Pose(box.center), box.half_size)
        builder.initial_pose = sapien.Pose(bundle.context.pose.p, bundle.context.pose.q_wxyz)
        builder.build_static()
        builder = self.scene.create_actor_builder()
        builder.add_visual_from_file(str(scene.room_visual))
        builder.initial_pose = sapien.Pose(bundle.background.pose.p, bundle.background.pose.q_wxyz)
        builder.build_static()
        loader = self.scene.create_urdf_loader()
        loader.fix_root_link = True
        self.robot = loader.load(str(wx250s.urdf_path()))
        base = sapien.Pose(bundle.robot.base_pose.p, bundle.robot.base_pose.q_wxyz)
        self.robot.set_root_pose(base)
        self.robot.set_qpos(wx250s.REST_QPOS.numpy().astype(np.float32))
        gains = sim.gains
        drives = [*zip(gains.stiffness, gains.damping, gains.force_limit, strict=True)]
        drives += [(gains.gripper_stiffness, gains.gripper_damping, gains.gripper_force_limit)] * 2
        for link in self.robot.links:
            link.disable_gravity = True
        for joint, drive, target in zip(self.robot.active_joints, drives, wx250s.REST_QPOS.numpy(), strict=True):
            joint.set_drive_properties(*drive)
            joint.set_drive_target(float(target))
        size, intrinsics = sim.image_size, sim.camera.intrinsics(sim.image_size)
        self.camera = self.scene.add_camera("camera", size, size, 1.0, 0.01, 10.0)
        self.camera.set_focal_lengths(intrinsics[0, 0], intrinsics[1, 1])
        pose = looking_at(np.array(sim.camera.position), np.array(sim.camera.look_at))
        self.camera.set_local_pose(base * pose)

    def chunk(self, substeps: int) -> np.ndarray:
        """Simulates one chunk and takes one picture."""
        for _ in range(CHUNK_SIZE * substeps):
            self.scene.step()
        self.scene.update_render()
        return picture(self.camera)


def bench_rollout(
    scenes: Path, sim: SimConfig | None = None, num_envs: int = 16, chunks: int = 20, rounds: int = 5
) -> dict[str, float]:
    """Times one worker's collection against a bare SAPIEN loop over the same scene, in turns within one run.

    Prints environment steps per second of both, their ratio (median over the rounds), and where the environment's time goes.

    Args:
        scenes: folder of a scene set.
        sim: the simulated set-up.
        num_envs: environments that the one process holds, on either side.
        chunks: decisions per environment and round.
        rounds: how often the two are measured, one after the other.
    """
    torch.set_num_threads(1)
    sim = sim or SimConfig()
    sapien.render.set_camera_shader_dir(sim.shader)
    bare_scenes = [BareScene(load_scene_of(scenes, None), sim) for _ in range(num_envs)]
    specification = observation_arrays(num_envs, sim.image_size)
    host = Host(scenes, sim, {name: np.zeros(shape, dtype) for name, (shape, dtype) in specification.items()})
    scene_id = load_scene_of(scenes, None).id
    specs = [EpisodeSpec(scene_id, slot) for slot in range(num_envs)]
    host.reset(specs, True)
    for bare_scene in bare_scenes:
        bare_scene.chunk(1)
    bare, through = [], []
    host.timings.clear()
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(chunks):
            for bare_scene in bare_scenes:
                bare_scene.chunk(sim.substeps)
        bare.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(chunks):
            host.step(specs)
        through.append(time.perf_counter() - started)
    steps = num_envs * chunks * CHUNK_SIZE
    ratio = float(np.median(np.array(bare) / np.array(through)))
    result = {
        "bare_steps_per_s": steps / float(np.median(bare)),
        "env_steps_per_s": steps / float(np.median(through)),
        "ratio": ratio,
    }
    print(f"bare SAPIEN loop        {result['bare_steps_per_s']:8.0f} env steps/s")
    print(f"through the environment {result['env_steps_per_s']:8.0f} env steps/s")
    print(f"ratio                   {ratio:8.2f}  (median of {rounds} rounds)")
    total = sum(through)
    for name, seconds in sorted(host.timings.items(), key=lambda pair: -pair[1]):
        print(f"  {name:<12} {100 * seconds / total:5.1f} % of the environment's time")
    return result
