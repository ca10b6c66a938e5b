"""`deploy calibrate camera`: the live picture under the simulator's view, to put the camera where the policy's was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from deploy.camera import CameraConfig, open_camera
from deploy.control import START
from deploy.opening import ARM, ArmConfig, open_arm
from genvla.errors import UserError
from genvla.sim.config import DomainRandomization, SimConfig, load_sim

CAMERA = CameraConfig()
GREEN = (60, 220, 60)

Picture = UInt8[np.ndarray, "h w 3"]


def calibrate_camera(
    scenes: Path,
    checkpoint: Path | None = None,
    sim: SimConfig | None = None,
    camera: CameraConfig = CAMERA,
    arm: ArmConfig = ARM,
    output: Path = Path("camera.png"),
) -> None:
    """Lay the simulator's view of arm and table over the live picture, to put the camera where the policy's was.

    Args:
        scenes: Folder of a scene set, for its table.
        checkpoint: Folder of the policy, for the set-up of its training.
        sim: The simulated set-up, instead.
        camera: Where the live picture comes from.
        arm: Whose posture is read; the twin stands at the start pose, where a real arm then has to stand too.
        output: The picture to write: live, simulated, and the live one with the edges of the simulated.

    Raises:
        UserError: something given does not exist or cannot be used.
        ArmFault: the arm cannot be read.
    """
    setup = sim or (load_sim(checkpoint) if checkpoint is not None else None)
    if setup is None:
        raise UserError(f"{checkpoint or 'checkpoint'}: no set-up of a policy's training found, want --checkpoint or --sim")
    joints = START if arm.driver == "twin" else _measured(arm)
    source = open_camera(camera)
    try:
        live = source.read().image
    finally:
        source.close()
    simulated = simulated_picture(scenes, setup, joints, live.shape[1], live.shape[0])
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.hstack((live, simulated, overlay(live, simulated)))
    if not cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise UserError(f"{output}: cannot be written, want a name that ends in .png or .jpg")
    print(f"written to {output}: move the camera until the green edges lie on the arm and the table")


def simulated_picture(scenes: Path, sim: SimConfig, joints: Float[np.ndarray, " 6"], width: int, height: int) -> Picture:
    """What the simulator's camera sees of arm and bare table, nothing randomised, in the live picture's shape."""
    import sapien
    import torch

    from genvla.robots.wx250s import FINGER_OPEN
    from genvla.sim.host import require_renderer
    from genvla.sim.scene_env import SceneEnv, load_scene_of

    require_renderer()
    still = DomainRandomization(sim.randomization.object_xy, 0.0, 0.0, 0.0, (0.3, 0.3), (1.0, 1.0))
    sim = replace(sim, image_size=max(width, height), randomization=still)
    with torch.inference_mode():
        env = SceneEnv(scene=load_scene_of(scenes, None), sim=sim, obs_mode="none")
        try:
            env.begin(0)
            env.agent.articulation.set_qpos(np.append(joints, [FINGER_OPEN] * 2).astype(np.float32))
            for entity in env.objects:
                entity.set_pose(sapien.Pose([0, 0, -10]))
            square = env.look()
        finally:
            env.close()
    return cv2.resize(square, (width, height), interpolation=cv2.INTER_AREA)  # the square was squeezed from this shape


def overlay(live: Picture, simulated: Picture) -> Picture:
    """Half of each picture, with the simulated one's edges in green."""
    edges = cv2.Canny(cv2.cvtColor(simulated, cv2.COLOR_RGB2GRAY), 40, 120)
    mixed = cv2.addWeighted(live, 0.65, simulated, 0.35, 0)
    mixed[cv2.dilate(edges, np.ones((2, 2), np.uint8)) > 0] = GREEN
    return mixed


def _measured(config: ArmConfig) -> Float[np.ndarray, " 6"]:
    """Where the arm stands; it holds there."""
    arm = open_arm(config)
    try:
        arm.connect()
        return arm.observe().joint_positions
    finally:
        arm.close()
