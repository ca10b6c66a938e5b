from __future__ import annotations

from pathlib import Path

import pytest

from genvla.sim import Camera, DomainRandomization, Gains, SimConfig

STIFF = Gains(stiffness=(1000.0,) * 6, damping=(100.0,) * 6, gripper_force_limit=15.0)


@pytest.fixture(scope="session")
def sim() -> SimConfig:
    """Small and stiff, as the CPU preset is."""
    return SimConfig(
        image_size=32,
        camera=Camera(position=(0.62, 0.0, 0.5), look_at=(0.3, 0.0, 0.02), horizontal_fov=40, vertical_fov=40),
        sim_hz=100,
        gains=STIFF,
        pad_friction=1.5,
        max_chunks=6,
        randomization=DomainRandomization(object_xy=0.05, robot_joints=0.05, robot_height=0.0, camera_position=0.01),
    )


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three built scenes, two to train on and one held out."""
    from scenegen.cli import main

    folder = tmp_path_factory.mktemp("scenes") / "three"
    sizes = ["--count", "3", "--heldout", "1", "--xy_range", "0.05", "--poses", "16"]
    things = ["--catalog", "basic", "--min_distractors", "0", "--distractors", "3"]
    assert main(["build", "--seed", "7", "--output", str(folder), *sizes, *things]) == 0
    return folder
