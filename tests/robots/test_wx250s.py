"""The URDF, as the physics engine reads it, against the published robot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sapien
import torch
from sapien import physx
from scipy.spatial.transform import Rotation

from genvla.robots import kinematics, wx250s
from tests.robots import published


def links(articulation: physx.PhysxArticulation) -> dict[str, physx.PhysxArticulationLinkComponent]:
    return {link.name: link for link in articulation.links}


def put(articulation: physx.PhysxArticulation, arm: np.ndarray, finger: float) -> None:
    articulation.set_qpos(np.array([*arm, finger, finger], np.float32))
    articulation.set_qvel(np.zeros(8, np.float32))


def published_tensor(name: str) -> tuple[float, np.ndarray, np.ndarray]:
    mass, centre, rpy, (xx, yy, zz, xy, xz, yz) = published.INERTIAS[name]
    axes = Rotation.from_euler("xyz", rpy).as_matrix()
    return mass, np.array(centre), axes @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ axes.T


def about(mass: float, lever: np.ndarray) -> np.ndarray:
    return mass * (lever @ lever * np.eye(3) - np.outer(lever, lever))


def test_joints_and_limits(articulation: physx.PhysxArticulation) -> None:
    assert tuple(joint.name for joint in articulation.active_joints) == wx250s.ARM_JOINTS + wx250s.FINGER_JOINTS
    limits = torch.stack((wx250s.JOINT_LOWER, wx250s.JOINT_UPPER), 1)
    np.testing.assert_allclose(articulation.qlimits, limits.numpy(), atol=1e-6)


def test_masses(articulation: physx.PhysxArticulation) -> None:
    assert sum(link.mass for link in articulation.links) == pytest.approx(published.TOTAL_MASS - 0.003, abs=2e-6)
    assert links(articulation)[wx250s.EE_LINK].mass < 1e-5


@pytest.mark.parametrize("name", [name for name in published.INERTIAS if name != "gripper_prop_link"])
def test_inertia_in_link_axes(articulation: physx.PhysxArticulation, name: str) -> None:
    mass, centre, tensor = published_tensor(name)
    if name == "gripper_bar_link":  # ours carries the crank, which does not turn in the description
        crank_mass, crank_centre, crank_tensor = published_tensor("gripper_prop_link")
        crank_centre = crank_centre + published.PROP_IN_BAR
        both = (mass * centre + crank_mass * crank_centre) / (mass + crank_mass)
        tensor = tensor + about(mass, centre - both) + crank_tensor + about(crank_mass, crank_centre - both)
        mass, centre = mass + crank_mass, both
    link = links(articulation)[name]
    axes = link.cmass_local_pose.to_transformation_matrix()[:3, :3]
    assert link.mass == pytest.approx(mass, rel=1e-5)
    np.testing.assert_allclose(link.cmass_local_pose.p, centre, atol=1e-7)
    np.testing.assert_allclose(axes @ np.diag(link.inertia) @ axes.T, tensor, atol=1e-4 * np.abs(tensor).max())


def test_link_poses_equal_forward_kinematics(articulation: physx.PhysxArticulation) -> None:
    generator = np.random.default_rng(0)
    base = links(articulation)[wx250s.BASE_LINK].entity
    for _ in range(20):
        arm = generator.uniform(wx250s.JOINT_LOWER[:6].numpy(), wx250s.JOINT_UPPER[:6].numpy())
        put(articulation, arm, wx250s.FINGER_OPEN)
        position, rotation = kinematics.forward(torch.tensor(arm)[None])
        loaded = (base.pose.inv() * links(articulation)[wx250s.EE_LINK].entity.pose).to_transformation_matrix()
        np.testing.assert_allclose(loaded[:3, 3], position[0].numpy(), atol=2e-6)
        np.testing.assert_allclose(loaded[:3, :3], rotation[0].numpy(), atol=5e-6)
        offset = links(articulation)[wx250s.GRIPPER_LINK].entity.pose.inv() * links(articulation)[wx250s.EE_LINK].entity.pose
        np.testing.assert_allclose(offset.p, [wx250s.EE_OFFSET, 0, 0], atol=2e-6)


@pytest.mark.parametrize("arm", published.GRAVITY_TORQUES)
def test_gravity_torques(articulation: physx.PhysxArticulation, arm: tuple[float, ...]) -> None:
    put(articulation, np.array(arm), wx250s.FINGER_OPEN)
    torques = articulation.compute_passive_force(gravity=True, coriolis_and_centrifugal=False)[:6]
    # The published description carries three grams more in the hand.
    np.testing.assert_allclose(torques, published.GRAVITY_TORQUES[arm], atol=0.0187)


@pytest.mark.parametrize(("finger", "gap"), [(0.015, 0.0121), (0.037, 0.0561)])
def test_clear_gap_between_finger_pads(articulation: physx.PhysxArticulation, finger: float, gap: float) -> None:
    put(articulation, np.zeros(6), finger)  # at zero the hand's axes are the world's
    faces = {}
    for name, inner in zip(wx250s.FINGER_LINKS, (min, max), strict=True):
        link = links(articulation)[name]
        spans = [shape.local_pose.p[1] + sign * shape.half_size[1] for shape in link.collision_shapes for sign in (-1, 1)]
        faces[name] = link.entity.pose.p[1] + inner(spans)
    assert faces["left_finger_link"] - faces["right_finger_link"] == pytest.approx(gap, abs=1e-6)
    assert gap == pytest.approx(2 * (finger - wx250s.FINGER_PAD))


def test_palm_is_what_lies_between_the_fingers(articulation: physx.PhysxArticulation) -> None:
    put(articulation, np.zeros(6), wx250s.FINGER_OPEN)  # at zero the hand's axes are the world's
    hand = links(articulation)["gripper_bar_link"]
    front = hand.entity.pose.p[0] + max(shape.local_pose.p[0] + shape.half_size[0] for shape in hand.collision_shapes)
    assert links(articulation)[wx250s.EE_LINK].entity.pose.p[0] - front == pytest.approx(wx250s.PALM, abs=1e-6)


def test_two_rectangles_cover_the_hand(articulation: physx.PhysxArticulation) -> None:
    shapes = links(articulation)["gripper_bar_link"].collision_shapes
    found = sorted((abs(s.local_pose.p[2]) + s.half_size[2], abs(s.local_pose.p[1]) + s.half_size[1]) for s in shapes)
    np.testing.assert_allclose(found, wx250s.HAND, atol=6e-4)


@pytest.mark.parametrize("finger", [wx250s.FINGER_CLOSED, wx250s.FINGER_OPEN])
@pytest.mark.parametrize("arm", [tuple(wx250s.REST_QPOS[:6].tolist()), *published.GRAVITY_TORQUES])
def test_no_self_contact_in_usual_postures(
    scene: sapien.Scene, articulation: physx.PhysxArticulation, arm: tuple[float, ...], finger: float
) -> None:
    put(articulation, np.array(arm), finger)
    scene.step()
    assert not [contact for contact in scene.get_contacts() if any(point.separation < 0 for point in contact.points)]


def test_a_real_self_collision_is_seen(scene: sapien.Scene, articulation: physx.PhysxArticulation) -> None:
    put(articulation, np.array([0, -1.8, 1.6, 0, 2.1, 0]), wx250s.FINGER_OPEN)
    scene.step()
    assert any(point.separation < 0 for contact in scene.get_contacts() for point in contact.points)


def test_official_meshes_only_when_asked_for_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MS_ASSET_DIR", str(tmp_path))
    ours = wx250s.urdf_path()
    assert ours.is_file() and ours.with_suffix(".srdf").is_file()
    assert wx250s.urdf_path(prefer_meshes=True) == ours
    official = tmp_path / "data" / "robots" / "widowx" / "wx250s.urdf"
    official.parent.mkdir(parents=True)
    official.write_text("<robot/>")
    assert wx250s.urdf_path(prefer_meshes=True) == official
    assert wx250s.urdf_path() == ours
