"""The physics of layout: objects and a table top in SAPIEN on the CPU, without a renderer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sapien
from numpy.typing import NDArray

from scenegen.schema import AssetRecord, ContextEntry

Array = NDArray[np.float64]
HZ = 200
HALF_WIDTH = 2.5
"""Of the plane, along y [m]."""

TOUCH = 0.001
"""Surfaces nearer than this [m] are in touch."""


@dataclass(frozen=True)
class Motion:
    """What happened to the n objects of one placement: drift [m] and tilt [deg] from where they started; the deepest
    penetration [m] at the start; the pairs in touch at the start and at the end, with the plane as -1; the final poses [n, 7];
    the final linear [m/s] and angular [rad/s] speeds [n]."""

    drift_m: Array
    tilt_deg: Array
    penetration_m: float
    touching: frozenset[frozenset[int]]
    resting: frozenset[frozenset[int]]
    final: Array
    speed: Array
    spin: Array


class Bench:
    """A flat plane at z = 0 with the friction of a table, and objects on it; many placements side by side in one simulation.

    `table`: instead of the plane that table, where it stands in the world but with its top at z = 0; what leaves it falls.
    `grip` multiplies all friction."""

    SPACING = 4.0

    def __init__(
        self,
        folder: Path,
        assets: Sequence[AssetRecord],
        copies: int,
        friction: tuple[float, float],
        table: ContextEntry | None = None,
        grip: float = 1.0,
    ) -> None:
        sapien.physx.clear_cache()  # it keeps meshes by file name, and another attempt at a scene writes the same names
        # These are the process's, and an environment that lives in it may have set them, so that nothing ever sleeps.
        sapien.physx.set_scene_config(sapien.physx.PhysxSceneConfig())
        sapien.physx.set_body_config(sapien.physx.PhysxBodyConfig())
        sapien.physx.set_shape_config(sapien.physx.PhysxShapeConfig())
        self.scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
        self.scene.set_timestep(1 / HZ)
        self.grip = grip
        if table is None:
            self._plane(copies, self._material(*friction, 0.0))
        else:
            for copy in range(copies):
                self._table(folder, table, copy, self._material(*friction, 0.0))
        self.bodies: list[list[sapien.physx.PhysxRigidDynamicComponent]] = []
        for _ in range(copies):
            actors = [self._actor(folder, asset) for asset in assets]
            self.bodies.append([actor.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent) for actor in actors])

    def _plane(self, copies: int, material: sapien.physx.PhysxMaterial) -> None:
        ground = self.scene.create_actor_builder()
        half = self.SPACING * (copies + 1)
        where, size = sapien.Pose([half - self.SPACING, 0, -0.05]), [half, HALF_WIDTH, 0.05]
        ground.add_box_collision(where, size, material)
        ground.build_static(name="ground")

    def _table(self, folder: Path, table: ContextEntry, copy: int, material: sapien.physx.PhysxMaterial) -> None:
        builder = self.scene.create_actor_builder()
        for box in table.collision_boxes:
            builder.add_box_collision(sapien.Pose(box.center), box.half_size, material)
        if table.collision is not None:
            builder.add_multiple_convex_collisions_from_file(str(folder / table.collision), material=material)
        place = sapien.Pose(table.pose.p, table.pose.q_wxyz)
        builder.initial_pose = sapien.Pose(place.p + [copy * self.SPACING, 0, -table.top_height_m - table.pose.p[2]], place.q)
        builder.build_static(name=f"table_{copy}")

    def _material(self, static: float, dynamic: float, restitution: float) -> sapien.physx.PhysxMaterial:
        return sapien.physx.PhysxMaterial(static * self.grip, dynamic * self.grip, restitution)

    def _actor(self, folder: Path, asset: AssetRecord) -> sapien.Entity:
        builder = self.scene.create_actor_builder()
        material = self._material(asset.physics.static_friction, asset.physics.dynamic_friction, asset.physics.restitution)
        builder.add_multiple_convex_collisions_from_file(
            str(folder / asset.files.collision), material=material, density=asset.physics.density
        )
        return builder.build(name=asset.category)

    def run(self, poses: Array, seconds: float) -> list[Motion]:
        """Start placements [c, n, 7] (z above the plane) at rest and let them go for `seconds`."""
        self.place(poses)
        self.scene.step()
        starts = [self._contacts(copy) for copy in range(len(poses))]
        for _ in range(int(seconds * HZ) - 1):
            self.scene.step()
        return [self._motion(copy, poses[copy], *starts[copy]) for copy in range(len(poses))]

    def starts(self, poses: Array) -> list[tuple[float, frozenset[frozenset[int]]]]:
        """The deepest penetration [m] and the pairs in touch at the start of placements [k, n, 7], tried one after another."""
        found = []
        for placement in poses:
            self.place(placement[None])
            self.scene.step()
            found.append(self._contacts(0))
        return found

    def place(self, poses: Array) -> None:
        """Put everything at rest at placements [c, n, 7]."""
        for copy, placement in enumerate(poses):
            for body, pose in zip(self.bodies[copy], placement, strict=True):
                body.entity.set_pose(sapien.Pose(pose[:3] + [copy * self.SPACING, 0, 0], pose[3:]))
                body.linear_velocity = body.angular_velocity = np.zeros(3)
                body.wake_up()

    def _contacts(self, copy: int) -> tuple[float, frozenset[frozenset[int]]]:
        indices = {body.entity.per_scene_id: i for i, body in enumerate(self.bodies[copy])}
        deepest, pairs = 0.0, set()
        for contact in self.scene.get_contacts():
            ids = [indices.get(body.entity.per_scene_id, -1) for body in contact.bodies]
            if max(ids) < 0:
                continue
            separation = min((point.separation for point in contact.points), default=1.0)
            deepest = max(deepest, -separation)
            if separation < TOUCH:
                pairs.add(frozenset(ids))
        return deepest, frozenset(pairs)

    def _motion(self, copy: int, start: Array, penetration: float, touching: frozenset[frozenset[int]]) -> Motion:
        final = np.array([[*body.entity.pose.p, *body.entity.pose.q] for body in self.bodies[copy]], float)
        final[:, 0] -= copy * self.SPACING
        drift = np.linalg.norm(final[:, :3] - start[:, :3], axis=1)
        resting = self._contacts(copy)[1]
        speed, spin = (
            np.array([float(np.linalg.norm(velocity)) for velocity in velocities])
            for velocities in zip(*((body.linear_velocity, body.angular_velocity) for body in self.bodies[copy]), strict=True)
        )
        tilt = _angle_between_ups(start[:, 3:], final[:, 3:])
        return Motion(drift, tilt, penetration, touching, resting, final, speed, spin)


def up_axis(q: Array) -> Array:
    """The object's z axis [..., 3] in the world, of quaternions wxyz [..., 4]."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    return np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=-1)


def _angle_between_ups(a: Array, b: Array) -> Array:
    return np.degrees(np.arccos(np.clip(np.einsum("ij,ij->i", up_axis(a), up_axis(b)), -1, 1)))
