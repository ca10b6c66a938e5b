"""Camera poses and pictures."""

from __future__ import annotations

import numpy as np
import sapien


def looking_at(position: np.ndarray, target: np.ndarray) -> sapien.Pose:
    """The pose of a SAPIEN camera (x forward, y left, z up) at `position`, with `target` in the picture's centre and no roll."""
    forward = np.asarray(target, dtype=np.float64) - position
    forward /= np.linalg.norm(forward)
    left = np.cross([0.0, 0.0, 1.0], forward)
    if np.linalg.norm(left) < 1e-6:  # straight down: the picture's top is the far side of the table
        left = np.array([0.0, 1.0, 0.0])
    left /= np.linalg.norm(left)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = forward, left, np.cross(forward, left)
    matrix[:3, 3] = position
    return sapien.Pose(matrix)


def picture(camera: sapien.render.RenderCameraComponent) -> np.ndarray:
    """Takes and returns an RGB picture, uint8 [h, w, 3]; the scene's render state must be up to date."""
    camera.take_picture()
    color = camera.get_picture("Color")[..., :3]
    return color if color.dtype == np.uint8 else (color * 255).clip(0, 255).astype(np.uint8)
