"""Every family: shape, weight and grip, against SAPIEN and scipy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sapien
from scipy.spatial import ConvexHull

from scenegen.engines.procedural.catalog import BASIC, FAMILIES, FULL
from scenegen.engines.procedural.contexts import table
from scenegen.engines.procedural.engine import ProceduralEngine, make, shape
from scenegen.engines.procedural.form import Recipe
from scenegen.engines.procedural.rooms import room
from scenegen.errors import UserError
from scenegen.mesh.surfaces import Surface
from scenegen.schema import Box, NodeSpec, Relation, Role
from scenegen.seeds import generator

SEEDS = range(4)


def forms(category: str):
    family = FAMILIES[category]
    for seed in SEEDS:
        rng = generator(seed, category)
        yield make(family, Recipe(rng, str(rng.choice(family.colors)), str(rng.choice(family.materials))))


def geometric_normals(surface: Surface) -> np.ndarray:
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    return np.cross(b - a, c - a)


def test_there_are_many_families():
    assert sum(family.graspable for family in FAMILIES.values()) >= 12
    assert sum(bool(family.relations) for family in FAMILIES.values()) >= 6


@pytest.mark.parametrize("category", FAMILIES)
def test_surface_is_closed_cheap_and_faces_outwards(category):
    for form in forms(category):
        surface, _, image = shape(form)
        assert len(surface.vertices) <= (250 if category in BASIC.families else 400)
        assert len(form.hulls) <= 24
        assert min(image.shape[:2]) >= 32 and max(image.shape[:2]) <= 160
        assert surface.uvs.min() >= 0 and surface.uvs.max() <= 1
        np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-6)
        normals = geometric_normals(surface)
        assert np.linalg.norm(normals, axis=1).min() > 1e-12
        assert (np.einsum("ij,ij->i", normals, surface.normals[surface.faces].mean(axis=1)) > 0).all()
        assert signed_volume(surface) > 0


def signed_volume(surface: Surface) -> float:
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@pytest.mark.parametrize("category", FAMILIES)
def test_hulls_are_convex_watertight_and_fill_the_surface(category):
    for form in forms(category):
        surface, hulls, _ = shape(form)
        for hull, points in zip(hulls, form.hulls, strict=True):
            assert len(hull.vertices) <= 64  # what PhysX takes on a GPU
            assert hull.vertices.shape == np.unique(np.round(points, 9), axis=0).shape, (
                "a point lies inside the hull: the piece is not convex"
            )
            edges = np.concatenate([hull.faces[:, [0, 1]], hull.faces[:, [1, 2]], hull.faces[:, [2, 0]]])
            assert {tuple(edge) for edge in edges} == {tuple(edge[::-1]) for edge in edges}
        touched = np.concatenate([hull.vertices for hull in hulls])
        np.testing.assert_allclose(touched.min(0), surface.vertices.min(0), atol=1e-6)
        np.testing.assert_allclose(touched.max(0), surface.vertices.max(0), atol=1e-6)
        assert abs(touched[:, 2].min()) < 1e-9


@pytest.mark.parametrize("category", [name for name, family in FAMILIES.items() if family.graspable])
def test_targets_suit_the_gripper(category):
    family = FAMILIES[category]
    for form in forms(category):
        points = np.concatenate(form.hulls)
        grasp = form.grasp
        assert 0.015 <= grasp.width <= 0.048
        assert 0.015 <= np.ptp(points[:, 2]) <= 0.0701
        assert 0 < grasp.height < points[:, 2].max()
        assert np.ptp(points[:, :2], axis=0).max() <= family.span + 1e-3
        assert min_width(points) <= 0.0485
        if not grasp.symmetric:
            across = points[:, :2] @ [np.cos(grasp.yaw), np.sin(grasp.yaw)]
            assert np.ptp(across) <= grasp.width + 0.035  # a bent banana spans more than its grip
            along = points[:, :2] @ [-np.sin(grasp.yaw), np.cos(grasp.yaw)]
            assert np.ptp(across) <= np.ptp(along) + 1e-6


@pytest.mark.parametrize("category", [name for name, family in FAMILIES.items() if family.graspable])
def test_open_fingers_fit_around_the_origin(category):
    """The gripper opens to 56 mm between pads 24 mm wide; the body must be inside that gap, with 3 mm to spare on either side."""
    rng = np.random.default_rng(0)
    for form in forms(category):
        inside = np.concatenate([rng.dirichlet(np.full(len(hull), 0.2), 4000) @ hull for hull in form.hulls])
        for yaw in rng.uniform(0, np.pi, 5) if form.grasp.symmetric else [form.grasp.yaw]:
            across = inside @ [np.cos(yaw), np.sin(yaw), 0]
            between = across[np.abs(inside @ [-np.sin(yaw), np.cos(yaw), 0]) < 0.012]
            assert len(between) and np.abs(between).max() <= 0.025


def min_width(points: np.ndarray) -> float:
    angles = np.radians(np.arange(0, 180, 5))
    return float(np.ptp(points[:, :2] @ np.stack([np.cos(angles), np.sin(angles)]), axis=0).min())


@pytest.mark.parametrize("category", [name for name, family in FAMILIES.items() if family.relations])
def test_destinations_carry(category):
    family = FAMILIES[category]
    for form in forms(category):
        points = np.concatenate(form.hulls)
        assert form.goal_point is not None
        assert 0 < form.goal_point[2] <= points[:, 2].max() + 1e-9
        if Relation.IN in family.relations:
            assert form.cavity is not None
            assert form.goal_point[2] + form.cavity.depth_m == pytest.approx(points[:, 2].max(), abs=1e-6)
            above = points[points[:, 2] > form.goal_point[2] + 1e-6]
            assert np.linalg.norm(above[:, :2], axis=1).min() >= 0.9 * form.cavity.radius_m, "something stands in the cavity"


@pytest.mark.parametrize("category", FAMILIES)
def test_mass_and_inertia_are_those_of_the_hulls_in_sapien(category, tmp_path: Path):
    family = FAMILIES[category]
    spec = NodeSpec(id="thing", name=category, role=Role.DISTRACTOR, category=category, description=category)
    record = ProceduralEngine().generate(spec, 3, 0, tmp_path)
    assert all((tmp_path / path).is_file() for path in record.files.model_dump().values())
    assert record.color in family.colors and record.material in family.materials

    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    builder = scene.create_actor_builder()
    builder.add_multiple_convex_collisions_from_file(str(tmp_path / record.files.collision), density=record.physics.density)
    body = builder.build().find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
    assert len(body.collision_shapes) == record.n_hulls
    assert body.mass == pytest.approx(record.physics.mass_kg, rel=0.01)  # PhysX merges faces that are nearly in one plane
    np.testing.assert_allclose(body.cmass_local_pose.p, record.physics.com_m, atol=2e-4)
    xx, yy, zz, xy, xz, yz = record.physics.inertia
    principal = np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    np.testing.assert_allclose(np.sort(body.inertia), np.maximum(principal, 1e-6), rtol=0.03)  # SAPIEN allows no smaller inertia


def test_mass_properties_of_a_box_are_the_closed_form():
    from scenegen.mesh.hulls import convex_hull, mass_properties
    from scenegen.mesh.surfaces import box_corners

    halves = [convex_hull(box_corners((0.1, 0.2, 0.15), (0.5, 0, z))) for z in (0.0, 0.15)]
    properties = mass_properties(halves)
    volume = 0.1 * 0.2 * 0.3
    assert properties.volume == pytest.approx(volume)
    np.testing.assert_allclose(properties.com, [0.5, 0, 0.15], atol=1e-12)
    expected = volume / 12 * np.array([0.2**2 + 0.3**2, 0.1**2 + 0.3**2, 0.1**2 + 0.2**2])
    np.testing.assert_allclose(properties.inertia, np.diag(expected), atol=1e-12)


def test_size_words_pick_the_ends_of_the_range():
    family = FAMILIES["block"]
    sides = {
        size: [np.ptp(np.concatenate(make(family, Recipe(generator(s), "red", "wood", size)).hulls)[:, 0]) for s in range(8)]
        for size in ("small", "large")
    }
    assert max(sides["small"]) < min(sides["large"])


def test_same_seed_same_files_and_another_attempt_another_object(tmp_path: Path):
    spec = NodeSpec(id="thing", name="mug", role=Role.DISTRACTOR, category="mug", description="mug")
    ids = [ProceduralEngine().generate(spec, 5, attempt, tmp_path / str(i)).asset_id for i, attempt in enumerate((0, 0, 1))]
    assert ids[0] == ids[1] != ids[2]


def test_unknown_category_is_a_user_error(tmp_path: Path):
    spec = NodeSpec(id="thing", name="unicorn", role=Role.DISTRACTOR, category="unicorn", description="unicorn")
    assert ProceduralEngine().supports(spec) == 0
    with pytest.raises(UserError, match="unicorn"):
        ProceduralEngine().generate(spec, 0, 0, tmp_path)


def top_at(surface: Surface, boxes: list[Box], x: float, y: float) -> tuple[float, float]:
    """How high the surface and the boxes reach above a point of the floor."""
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    area = np.cross((b - a)[:, :2], (c - a)[:, :2])
    flat = np.abs(area) > 1e-9
    a, b, c, area = a[flat], b[flat], c[flat], area[flat]
    v = np.cross(np.array([x, y]) - a[:, :2], (c - a)[:, :2]) / area
    w = np.cross((b - a)[:, :2], np.array([x, y]) - a[:, :2]) / area
    z = a[:, 2] + v * (b - a)[:, 2] + w * (c - a)[:, 2]
    hits = z[(v >= 0) & (w >= 0) & (v + w <= 1)]
    inside = [
        b.center[2] + b.half_size[2]
        for b in boxes
        if abs(x - b.center[0]) < b.half_size[0] and abs(y - b.center[1]) < b.half_size[1]
    ]
    return float(hits.max()), max(inside)


@pytest.mark.parametrize("style", FULL.tables)
def test_table_top_is_where_its_boxes_say(style):
    surface, image, boxes = table(FULL.tables[style], 0.8, generator(1))
    assert len(surface.vertices) <= (120 if style in BASIC.tables else 260)
    assert image.shape[1] >= 64 and max(image.shape[:2]) <= 160
    top = np.array([top_at(surface, boxes, x, y) for x in np.linspace(-0.449, 0.449, 7) for y in np.linspace(-0.349, 0.349, 7)])
    np.testing.assert_allclose(top, 0.8, atol=1e-9)
    assert surface.vertices[:, 2].min() == pytest.approx(0)
    normals = geometric_normals(surface)
    assert (np.einsum("ij,ij->i", normals, surface.normals[surface.faces[:, 0]]) > 0).all()


@pytest.mark.parametrize("style", FULL.rooms)
def test_room_faces_inwards(style):
    surface, _ = room(FULL.rooms[style], generator(2))
    middle = np.array([0, 0, 1.0])
    to_middle = middle - surface.vertices[surface.faces].mean(axis=1)
    assert (np.einsum("ij,ij->i", geometric_normals(surface), to_middle) > 0).all()


def test_hull_volume_agrees_with_scipy():
    from scenegen.mesh.hulls import convex_hull, mass_properties

    points = generator(7).normal(size=(40, 3))
    assert mass_properties([convex_hull(points)]).volume == pytest.approx(ConvexHull(points).volume)
