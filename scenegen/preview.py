"""Pictures of scenes and of single assets, through SAPIEN. Needs a Vulkan driver; one in software does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sapien
from numpy.typing import NDArray

from scenegen.engines.procedural.textures import png
from scenegen.layout.view import ASPECT, EYE, FOV_DEG, LOOK_AT
from scenegen.loader import Scene
from scenegen.mesh.writers import read_points

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]

SUN = np.array([-0.35, -0.45, -1.0])
SUN_SPREAD = 0.05
"""The sun's direction differs by this between the passes of a picture, which softens the shadows."""

PASSES = 6
ASSET_PASSES = 4
BACKDROP = (0.86, 0.86, 0.87)
ASSET_FOV_DEG = 24.0
ASSET_MARGIN = 1.12


class Photographer:
    """Takes pictures of scenes and assets. Keep one for many: the renderer's shaders are compiled for the first picture and stay
    with it. Raises RuntimeError where there is no Vulkan driver."""

    def __init__(self) -> None:
        self._device = _renderer()

    def take(self, scene: Scene, placement: int, width: int, height: int, robot: bool = False) -> Picture:
        """RGB [height, width, 3] of one start placement as the camera of the Bridge set-up sees it over the robot's shoulder;
        `robot`: with the arm at rest in the picture."""
        world = _world(physics=robot)
        bundle = scene.bundle
        for visual, fixed in ((scene.table_visual, bundle.context.pose), (scene.room_visual, bundle.background.pose)):
            _add(world, visual, sapien.Pose(fixed.p, fixed.q_wxyz))
        for entry, pose in zip(scene.objects, scene.poses[placement], strict=True):
            _add(world, entry.visual, sapien.Pose(pose[:3], pose[3:]))
        stand = bundle.robot.base_pose
        base = np.asarray(stand.p)
        if robot:
            _add_robot(world, sapien.Pose(stand.p, stand.q_wxyz))
        return _shoot(world, look_at(base + EYE, base + LOOK_AT), FOV_DEG, (width, height), base + LOOK_AT, 0.8, PASSES)

    def preview(self, scene: Scene, width: int = 256) -> bytes:
        """The PNG of the first placement."""
        return png(self.take(scene, 0, width, round(width / ASPECT)) / 255.0)

    def asset_view(self, visual: Path, size: int = 112, azimuth_deg: float = -55.0, elevation_deg: float = 34.0) -> Picture:
        """RGB [size, size, 3] of one asset, filling the picture, on a neutral ground. The azimuth is where the camera stands,
        counted about z from the asset's x axis."""
        azimuth, elevation = np.radians((azimuth_deg, elevation_deg))
        back = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        points = read_points(visual)
        low, high = points.min(axis=0), points.max(axis=0)
        middle, span = (low + high) / 2, float(np.linalg.norm(high - low))
        eye = middle + back * _distance(points - middle, back) * ASSET_MARGIN
        world = _world(physics=False)
        _add(world, visual, sapien.Pose())
        _add_ground(world, float(low[2]), 60 * span)
        return _shoot(world, look_at(eye, middle), ASSET_FOV_DEG, (size, size), middle, span, ASSET_PASSES)


def look_at(eye: Array, target: Array) -> sapien.Pose:
    """The pose at `eye` whose x axis points to `target` and whose z axis is as upright as can be (SAPIEN's camera frame)."""
    matrix = np.eye(4)
    matrix[:3, :4] = np.column_stack([*_axes(target - eye), eye])
    return sapien.Pose(matrix)


def pixels(scene: Scene, points: Array) -> Array:
    """Where points of the world [k, 3] appear in `Photographer.take`: [k, 2] from the left and from the top, in 0..1 inside."""
    base = np.asarray(scene.bundle.robot.base_pose.p)
    forward, left, up = np.stack(_axes(np.subtract(LOOK_AT, EYE))) @ (points - base - EYE).T
    half = forward * np.tan(np.radians(FOV_DEG) / 2)
    return np.stack([0.5 - left / (2 * half * ASPECT), 0.5 - up / (2 * half)], axis=1)


def _axes(direction: Array) -> tuple[Array, Array, Array]:
    """Forward, left and up of a camera that looks along `direction`."""
    forward = direction / np.linalg.norm(direction)
    left = np.cross([0.0, 0, 1], forward)
    left /= np.linalg.norm(left)
    return forward, left, np.cross(forward, left)


def _distance(points: Array, back: Array) -> float:
    """How far from the origin along `back` a camera that looks at the origin sees all of `points` [k, 3]."""
    forward, left, up = np.stack(_axes(-back)) @ points.T
    half = np.tan(np.radians(ASSET_FOV_DEG) / 2)
    return float(np.max(np.maximum(np.abs(left), np.abs(up)) / half - forward))


def _world(physics: bool) -> sapien.Scene:
    """A world for one picture; the arm's joints need physics in it."""
    render = _renderer()
    return sapien.Scene([sapien.physx.PhysxCpuSystem(), render] if physics else [render])


def _renderer() -> sapien.render.RenderSystem:
    """A process renders on one device only, so this takes the one by the name ManiSkill gives it."""
    try:
        device = sapien.Device("cuda")
    except RuntimeError:
        device = sapien.Device("cpu")
    return sapien.render.RenderSystem(device)


def _shoot(
    world: sapien.Scene, eye: sapien.Pose, fov_deg: float, size: tuple[int, int], middle: Array, reach: float, passes: int
) -> Picture:
    """The mean of `passes` pictures, each with the sun and the pixels shifted a little: soft shadows and smooth edges. Shadows
    fall within `reach` of `middle`."""
    world.set_ambient_light([0.44, 0.44, 0.45])
    sun = world.add_directional_light(
        SUN, [1.22, 1.19, 1.12], True, middle, shadow_scale=reach, shadow_near=-2 * reach, shadow_far=2 * reach
    )
    others = sapien.render.get_camera_shader_dir()
    sapien.render.set_camera_shader_dir("default")  # ManiSkill's environments set the process's shaders, and leave them
    camera = world.add_camera("preview", *size, np.radians(fov_deg), 0.01, 20.0)
    sapien.render.set_camera_shader_dir(others)
    camera.entity.set_pose(eye)
    focal, (width, height) = size[1] / 2 / np.tan(np.radians(fov_deg) / 2), size
    total = np.zeros((height, width, 3))
    for i in range(passes):
        angle = 2 * np.pi * i / passes
        spread = SUN_SPREAD * np.array([np.cos(angle), np.sin(angle), 0])
        sun.entity.set_pose(sapien.Pose(middle, look_at(-SUN - spread, np.zeros(3)).q))
        x, y = (i + 0.5) / passes - 0.5, (2 * i + 1) % (2 * passes) / (2 * passes) - 0.5
        camera.set_perspective_parameters(0.01, 20.0, focal, focal, width / 2 + x, height / 2 + y, 0.0)
        world.update_render()
        camera.take_picture()
        color = camera.get_picture("Color")[..., :3]  # bytes where ManiSkill set the process's format, else floats
        total += color / 255 if color.dtype == np.uint8 else np.clip(color, 0, 1)
    return np.round(total / passes * 255).astype(np.uint8)


def _add(world: sapien.Scene, visual: Path, pose: sapien.Pose) -> None:
    builder = world.create_actor_builder()
    builder.add_visual_from_file(str(visual))
    _place(world, builder, pose)


def _add_ground(world: sapien.Scene, height: float, size: float) -> None:
    material = sapien.render.RenderMaterial(base_color=[*BACKDROP, 1.0], roughness=1.0, specular=0.0)
    builder = world.create_actor_builder()
    builder.add_box_visual(half_size=[size, size, 0.001], material=material)
    _place(world, builder, sapien.Pose([0, 0, height - 0.001]))


def _place(world: sapien.Scene, builder: sapien.ActorBuilder, pose: sapien.Pose) -> None:
    entity = sapien.Entity()
    entity.add_component(builder.build_render_component())
    entity.set_pose(pose)
    world.add_entity(entity)


def _add_robot(world: sapien.Scene, base: sapien.Pose) -> None:
    from genvla.robots.wx250s import REST_QPOS, urdf_path

    loader = world.create_urdf_loader()
    loader.fix_root_link = True
    arm = loader.load(str(urdf_path()))
    arm.set_root_pose(base)
    arm.set_qpos(REST_QPOS.numpy().astype(np.float32))
