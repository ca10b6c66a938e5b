"""One picture of a scene, from where the camera of the Bridge set-up looks over the robot's shoulder. Needs a Vulkan driver."""

from __future__ import annotations

import numpy as np
import sapien
from numpy.typing import NDArray

from scenegen.engines.procedural.textures import png
from scenegen.layout.view import ASPECT, EYE, FOV_DEG, LOOK_AT
from scenegen.loader import Scene


class Photographer:
    """Takes pictures of scenes. Keep one for many: the renderer's shaders are compiled for the first picture and stay with it."""

    def __init__(self) -> None:
        self._device = sapien.render.RenderSystem()

    def take(self, scene: Scene, placement: int, width: int, height: int) -> NDArray[np.uint8]:
        """RGB [height, width, 3] of one start placement, without the robot."""
        world = sapien.Scene([sapien.render.RenderSystem()])
        world.set_ambient_light([0.45, 0.45, 0.45])
        world.add_directional_light([0.3, 0.5, -1.0], [1.1, 1.1, 1.05], shadow=True)
        bundle = scene.bundle
        for visual, fixed in ((scene.table_visual, bundle.context.pose), (scene.room_visual, bundle.background.pose)):
            _add(world, str(visual), sapien.Pose(fixed.p, fixed.q_wxyz))
        for entry, pose in zip(scene.objects, scene.poses[placement], strict=True):
            _add(world, str(entry.visual), sapien.Pose(pose[:3], pose[3:]))
        base = np.asarray(bundle.robot.base_pose.p)
        camera = world.add_camera("preview", width, height, np.radians(FOV_DEG), 0.01, 20.0)
        camera.entity.set_pose(look_at(base + EYE, base + LOOK_AT))
        world.update_render()
        camera.take_picture()
        return (np.clip(camera.get_picture("Color")[..., :3], 0, 1) * 255).astype(np.uint8)

    def preview(self, scene: Scene, width: int = 256) -> bytes:
        """The PNG of the first placement."""
        return png(self.take(scene, 0, width, round(width / ASPECT)) / 255.0)


def look_at(eye: NDArray[np.float64], target: NDArray[np.float64]) -> sapien.Pose:
    """The pose at `eye` whose x axis points to `target` and whose z axis is as upright as can be (SAPIEN's camera frame)."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    left = np.cross([0.0, 0, 1], forward)
    left /= np.linalg.norm(left)
    matrix = np.eye(4)
    matrix[:3, :4] = np.stack([forward, left, np.cross(forward, left), eye], axis=1)
    return sapien.Pose(matrix)


def _add(world: sapien.Scene, visual: str, pose: sapien.Pose) -> None:
    builder = world.create_actor_builder()
    builder.add_visual_from_file(visual)
    entity = sapien.Entity()
    entity.add_component(builder.build_render_component())
    entity.set_pose(pose)
    world.add_entity(entity)
