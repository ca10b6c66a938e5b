"""Placements: apart, in view, in reach, and at rest in physics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenegen.designer.rules import fits
from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.layout.bank import CLEARANCE, WORKSPACE, LayoutError, build_bank, settle
from scenegen.layout.physics import Bench
from scenegen.layout.sampler import Footprint, sample, separation, transform
from scenegen.layout.view import EYE, LOOK_AT, visible
from scenegen.mesh.writers import read_points
from scenegen.schema import MAX_OBJECTS, NodeSpec, Role
from scenegen.seeds import generator

SQUARE = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])


def test_separation_of_squares():
    a = transform(SQUARE, np.array([[0.0, 0], [0, 0], [0, 0]]), np.zeros(3))
    b = transform(SQUARE, np.array([[3.0, 0], [1.5, 0], [3.0, 0]]), np.array([0, 0, np.pi / 4]))
    np.testing.assert_allclose(separation(a, b), [1.0, -0.5, 2 - np.sqrt(2)])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_separation_never_exceeds_the_distance_of_sampled_points(seed):
    rng = np.random.default_rng(seed)
    shapes = [transform(SQUARE, rng.uniform(-3, 3, (1, 2)), rng.uniform(0, 6, 1)) for _ in range(2)]
    weights = rng.dirichlet(np.ones(4), 400)
    inside = [weights @ shape[0] for shape in shapes]
    distance = np.linalg.norm(inside[0][:, None] - inside[1][None], axis=-1).min()
    assert separation(*shapes)[0] <= distance + 1e-9


def test_visible_agrees_with_a_projection():
    forward = np.array(LOOK_AT) - EYE
    forward /= np.linalg.norm(forward)
    left = np.cross([0, 0, 1.0], forward)
    left /= np.linalg.norm(left)
    up = np.cross(forward, left)
    points = np.random.default_rng(0).uniform([0, -0.5], [1.0, 0.5], (500, 2))
    rays = np.c_[points, np.zeros(500)] - EYE
    focal = 623.588  # of the Bridge camera, for 640 x 480 pixels
    x, y = (np.abs(rays @ axis) / (rays @ forward) * focal for axis in (left, up))
    truth = (x <= 320 * 0.95) & (y <= 240 * 0.95)
    agree = visible(points[:, None]) == truth
    assert 0.2 < truth.mean() < 0.9 and agree.mean() > 0.99


def test_samples_keep_their_distance_and_bounds():
    footprints = [Footprint(0.08 * SQUARE, 0.03), Footprint(0.02 * SQUARE, 0.04), Footprint(0.015 * SQUARE, 0.07)]
    nominal = np.array([[0.32, -0.08], [0.30, 0.10], [0.40, 0.05]])
    xy, yaw = sample(footprints, 1, nominal, 0.06, 0.01, WORKSPACE, 300, np.random.default_rng(3))
    assert xy.shape == (300, 3, 2) and (np.abs(xy - nominal) <= 0.06 + 1e-9).all()
    assert (xy[..., 0] >= WORKSPACE.x[0]).all() and (xy[..., 0] <= WORKSPACE.x[1]).all() and (np.abs(xy[..., 1]) <= 0.2).all()
    shapes = [transform(f.outline, xy[:, i], yaw[:, i]) for i, f in enumerate(footprints)]
    assert min(separation(shapes[i], shapes[j]).min() for i in range(3) for j in range(i)) >= 0.01
    assert all(visible(shape).all() for shape in shapes)
    assert np.std(yaw % (2 * np.pi)) > 1.5


def test_no_room_is_reported_not_looped():
    footprints = [Footprint(0.15 * SQUARE, 0.03)] * 3
    xy, _ = sample(footprints, 0, np.tile([0.31, 0.0], (3, 1)), 0.1, 0.01, WORKSPACE, 4, np.random.default_rng(0))
    assert len(xy) == 0


def assets(tmp_path, *categories):
    engine = ProceduralEngine()
    nodes = [NodeSpec(id=f"n{i}", name=c, role=Role.DISTRACTOR, category=c, description=c) for i, c in enumerate(categories)]
    return [engine.generate(node, 9, 0, tmp_path) for node in nodes]


def test_bank_first_is_nominal_and_records_what_physics_says(tmp_path):
    records = assets(tmp_path, "apple", "bowl", "marker")
    hulls = [read_points(tmp_path / record.files.collision) for record in records]
    bank = build_bank(tmp_path, records, hulls, 0.8, (0.55, 0.48), 0.1, 32, (0, 1), generator(1))
    assert bank.poses.shape == (32, 3, 7) and bank.poses.dtype == np.float32
    np.testing.assert_array_equal(bank.offsets[0], 0)
    np.testing.assert_allclose(bank.poses[..., :2] - bank.offsets, np.broadcast_to(bank.nominal, (32, 3, 2)), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(bank.poses[..., 3:], axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(bank.poses[..., 2], 0.8, atol=1e-3)
    assert bank.max_drift_m <= 0.01 and bank.max_tilt_deg <= 5 and bank.max_penetration_m <= 0.001 and bank.checked >= 4
    assert CLEARANCE >= 0.01


def test_the_largest_scene_has_room_to_settle(tmp_path):
    records = assets(tmp_path, *["block"] * MAX_OBJECTS)
    rest = settle(tmp_path, records, (0.5, 0.4))
    np.testing.assert_allclose(rest[:, 2], 0, atol=1e-3)
    np.testing.assert_array_equal(rest[:, :2], 0)


def test_what_does_not_stand_is_rejected(tmp_path):
    record = assets(tmp_path, "bottle")[0]
    obj = tmp_path / record.files.collision
    leaning = [line.split() for line in obj.read_text().splitlines()]
    sheared = [f"v {float(p[1]) + 1.2 * float(p[3]):.6f} {p[2]} {p[3]}" if p and p[0] == "v" else " ".join(p) for p in leaning]
    obj.write_text("\n".join(sheared) + "\n")
    with pytest.raises(LayoutError, match="unstable bottle"):
        settle(tmp_path, [record], (0.5, 0.4))


PLACES = [name for name, family in FAMILIES.items() if family.relations]


@pytest.mark.parametrize("place", PLACES)
def test_every_task_that_may_be_asked_for_can_be_done(place, tmp_path):
    """Let go a little above the goal point (above the rim of a container), every target that fits touches the place, not
    the table, whichever way it is turned."""
    targets = [name for name, family in FAMILIES.items() if family.graspable and fits(family, FAMILIES[place])]
    destination, *records = assets(tmp_path, place, *targets)
    yaws = np.pi / 4 * np.arange(4)
    for record in records:
        poses = np.zeros((len(yaws), 2, 7))
        poses[:, 0, 3] = 1
        poses[:, 1, 3], poses[:, 1, 6] = np.cos(yaws / 2), np.sin(yaws / 2)
        poses[:, 1, :3] = destination.goal_point
        poses[:, 1, 2] += 0.01 + (destination.cavity.depth_m if destination.cavity else 0.0)
        bench = Bench(tmp_path, [destination, record], len(yaws), (0.55, 0.48))
        for motion in bench.run(poses, 1.2):
            assert {0, 1} in motion.resting and {1, -1} not in motion.resting, f"{record.category} does not stay with the {place}"
