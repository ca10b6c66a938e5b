"""The robot loaded into a physics scene without a renderer."""

from __future__ import annotations

import pytest
import sapien
from sapien import physx

from genvla.robots.wx250s import urdf_path


@pytest.fixture(scope="package")
def scene() -> sapien.Scene:
    scene = sapien.Scene([physx.PhysxCpuSystem()])
    scene.set_timestep(1e-4)
    return scene


@pytest.fixture(scope="package")
def articulation(scene: sapien.Scene) -> physx.PhysxArticulation:
    (builder,), actors, cameras = scene.create_urdf_loader().parse(str(urdf_path()))
    assert not actors and not cameras
    for link in builder.link_builders:
        link.visual_records = []  # a scene without a renderer takes no visuals
    return builder.build()
