from __future__ import annotations

import itertools

import numpy as np
import pytest
import sapien

from genvla.sim.success import Touches, target_touches


@pytest.mark.parametrize(("robot", "table", "destination"), itertools.product([False, True], repeat=3))
def test_rule(robot: bool, table: bool, destination: bool) -> None:
    assert Touches(robot, table, destination).success == (destination and not table and not robot)


def box(scene: sapien.Scene, half: list[float], position: list[float], static: bool = False) -> sapien.Entity:
    builder = scene.create_actor_builder()
    builder.add_box_collision(half_size=half)
    builder.initial_pose = sapien.Pose(position)
    return builder.build_static() if static else builder.build()


def settle(target_at: list[float], steps: int = 100) -> Touches:
    """A table top at z=0 with a slab on it as destination; the target is let go and watched."""
    sapien.physx.set_body_config(sleep_threshold=0.0)
    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    scene.set_timestep(0.01)
    table = box(scene, [0.5, 0.5, 0.05], [0, 0, -0.05], static=True)
    destination = box(scene, [0.06, 0.06, 0.01], [0, 0, 0.01])
    target = box(scene, [0.02, 0.02, 0.02], target_at)
    roles = {table.global_id: "table", destination.global_id: "destination", target.global_id: "target"}
    for _ in range(steps):
        scene.step()
    return target_touches(scene.physx_system.get_contacts(), roles, 0.01)


def test_on_the_destination_succeeds() -> None:
    assert settle([0, 0, 0.045]) == Touches(robot=False, table=False, destination=True)
    assert settle([0, 0, 0.045]).success


def test_on_the_table_fails() -> None:
    assert settle([0.2, 0, 0.025]) == Touches(robot=False, table=True, destination=False)


def test_in_the_air_touches_nothing() -> None:
    assert settle([0, 0, 0.5], steps=5) == Touches(robot=False, table=False, destination=False)


def test_against_the_destination_but_on_the_table_fails() -> None:
    touches = settle([0.081, 0, 0.02], steps=3)
    assert touches.table and not touches.success


def test_a_force_is_its_impulse_over_the_step() -> None:
    class Body:
        def __init__(self, entity_id: int) -> None:
            self.entity = type("Entity", (), {"global_id": entity_id})

    def touching(impulse: float, timestep: float) -> bool:
        point = type("Point", (), {"impulse": np.array([0, 0, impulse])})
        contact = type("Contact", (), {"bodies": [Body(1), Body(2)], "points": [point, point]})
        return target_touches([contact], {1: "target", 2: "destination"}, timestep).destination

    assert touching(0.6e-4, 0.01)  # two points: 0.012 N
    assert not touching(0.6e-4, 0.02)  # 0.006 N
