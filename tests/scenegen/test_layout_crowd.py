"""Crowded tables, things on and beside one another: never a collision at the start, every relation kept in every placement."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import sapien
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from scipy.stats import ks_2samp

from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.layout.bank import CLEARANCE, WORKSPACE, LayoutError, build_bank
from scenegen.layout.carriers import OVERHANG
from scenegen.layout.crowd import BESIDE, Crowd
from scenegen.layout.physics import Bench
from scenegen.layout.sampler import Footprint, distance, footprint, sample, separation, transform
from scenegen.layout.stacks import Part, Unit
from scenegen.layout.view import EYE, visible
from scenegen.mesh.writers import read_points
from scenegen.schema import NodeSpec, Relation, Role
from scenegen.seeds import generator

ON, IN, BY = Relation.ON, Relation.IN, Relation.BESIDE
TOP, FRICTION = 0.8, (0.55, 0.48)
SQUARE = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])


def make(folder, categories, seed=9):
    engine = ProceduralEngine()
    nodes = [NodeSpec(id=f"n{i}", name=c, role=Role.DISTRACTOR, category=c, description=c) for i, c in enumerate(categories)]
    records = [engine.generate(node, seed, 0, folder) for node in nodes]
    return records, [read_points(folder / record.files.collision) for record in records]


def bank_of(folder, categories, goal=(0, 1), relations=(), count=24, xy_range=0.15, seed=1):
    records, hulls = make(folder, categories)
    bank = build_bank(folder, records, hulls, TOP, FRICTION, xy_range, count, goal, generator(seed), relations)
    return records, hulls, bank


OLD = [
    (("apple", "bowl", "marker"), 1, 0.1, 32, "e0333f65f5bbdb0b"),
    (("block", "plate"), 7, 0.15, 128, "2758a1830b0f1487"),
    (("carrot", "tray", "can", "lemon", "bottle"), 3, 0.15, 64, "529cef6da9d552da"),
    (("banana", "basket", "block", "mug", "tomato"), 11, 0.06, 64, "95aedd42781e82cf"),
    (("block", "towel", "apple"), 5, 0.0, 16, "fc4f219242395e32"),
]


@pytest.mark.parametrize(("categories", "seed", "xy_range", "count", "digest"), OLD)
def test_scenes_of_few_things_keep_the_placements_they_had(tmp_path, categories, seed, xy_range, count, digest):
    """Digests of what was laid out before there were crowds and relations; policies were trained on such scenes."""
    bank = bank_of(tmp_path, categories, count=count, xy_range=xy_range, seed=seed)[2]
    content = bank.poses.tobytes() + bank.offsets.tobytes() + np.round(bank.nominal, 6).tobytes()
    assert sha256(content).hexdigest()[:16] == digest


def disc(radius):
    angles = 2 * np.pi * np.arange(24) / 24
    return radius * np.c_[np.cos(angles), np.sin(angles)]


def single(index, outline, height):
    return Unit((Part(index, np.array([0, 0, 0, 1.0, 0, 0, 0]), outline, 0.0, height, None, frozenset()),))


def things_of_a_full_table():
    boxes = [(0.13, 0.03, 0.02), (0.06, 0.05, 0.06), (0.10, 0.02, 0.02), (0.045, 0.045, 0.045), (0.07, 0.07, 0.08)]
    shapes = [(disc(0.02), 0.05), (disc(0.095), 0.018), (disc(0.06), 0.09)]
    shapes += [(SQUARE * [length / 2, width / 2], height) for length, width, height in boxes]
    return [single(i, outline, height) for i, (outline, height) in enumerate(shapes)]


def gap(a, b):
    """The widest strip between convex outlines [m, 2], by the sides of the hull of their Minkowski difference."""
    return ConvexHull((a[:, None] - b[None]).reshape(-1, 2)).equations[:, 2].max()


@pytest.mark.parametrize("seed", range(2))
def test_eight_things_find_room(seed):
    units, rng = things_of_a_full_table(), np.random.default_rng(seed)
    crowd = Crowd(units, 0, {}, WORKSPACE)
    nominal = crowd.nominal(CLEARANCE, rng)
    xy, yaw = crowd.around(nominal, 0.15, CLEARANCE, 127, rng)
    assert xy.shape == (127, 8, 2) and (np.abs(xy - nominal[0]) <= 0.15 + 1e-9).all()
    assert np.std(yaw % (2 * np.pi), axis=0).min() > 1.0 and min(len(np.unique(yaw[:, i])) for i in range(8)) > 90
    shapes = [transform(unit.footprint.outline, xy[:, i], yaw[:, i]) for i, unit in enumerate(units)]
    assert all(visible(shape).all() for shape in shapes)
    assert min(gap(shapes[i][k], shapes[j][k]) for k in range(0, 127, 9) for i in range(8) for j in range(i)) >= CLEARANCE - 1e-9
    # From the middle of the target, nothing is met on the way to the eye.
    for fraction in np.linspace(0, 1, 20):
        points = xy[:, 0] + fraction * (np.array(EYE[:2]) - xy[:, 0])
        height = 0.025 + fraction * (EYE[2] - 0.025)
        for unit, shape in zip(units[1:], shapes[1:], strict=True):
            assert height > unit.footprint.height or (separation(points[:, None], shape) > 0).all()


def test_crowds_are_drawn_as_the_joint_sampler_draws(monkeypatch):
    """Three plates that fill the table: uniform over what is allowed, where one after the other by itself is not."""
    shapes = [disc(0.09), disc(0.075), disc(0.05)]
    middle = np.tile([np.mean(WORKSPACE.x), np.mean(WORKSPACE.y)], (3, 1))
    prints = [Footprint(shape, 0.01) for shape in shapes]
    joint, _ = sample(prints, 2, middle, 1.0, 0.02, WORKSPACE, 600, np.random.default_rng(0))
    crowd = Crowd([single(i, shape, 0.01) for i, shape in enumerate(shapes)], 2, {}, WORKSPACE)

    def furthest():
        ours, _ = crowd.around((joint[0], np.zeros(3)), 1.0, 0.02, 600, np.random.default_rng(1))
        return max(ks_2samp(joint[:, i, axis], ours[:, i, axis]).statistic for i, axis in np.ndindex(3, 2))

    assert len(joint) == 600 and furthest() < 0.1
    monkeypatch.setattr("scenegen.layout.crowd._ROUNDS", 0)
    assert furthest() > 0.13


def test_the_thing_without_room_is_named():
    units = [single(i, disc(radius), 0.02) for i, radius in enumerate((0.02, 0.125, 0.12, 0.115))]
    with pytest.raises(LayoutError, match="too crowded") as caught:
        Crowd(units, 0, {}, WORKSPACE).nominal(CLEARANCE, np.random.default_rng(0))
    assert caught.value.misfit == 3
    with pytest.raises(LayoutError, match="no room") as caught:
        Crowd([single(0, disc(0.3), 0.05)], 0, {}, WORKSPACE).nominal(CLEARANCE, np.random.default_rng(0))
    assert caught.value.misfit == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_distance_is_that_of_the_nearest_points(seed):
    rng = np.random.default_rng(seed)
    shapes = [transform(SQUARE, rng.uniform(-3, 3, (1, 2)), rng.uniform(0, 6, 1))[0] for _ in range(2)]
    assume(gap(*shapes) > 0)
    steps = np.linspace(0, 1, 80)[:, None, None]
    borders = [(shape + steps * (np.roll(shape, -1, axis=0) - shape)).reshape(-1, 2) for shape in shapes]
    nearest = np.linalg.norm(borders[0][:, None] - borders[1][None], axis=-1).min()
    assert nearest - 0.03 <= distance(shapes[0][None], shapes[1][None])[0] <= nearest + 1e-9


def pose(values):
    return sapien.Pose(values[:3], values[3:])


def outline_at(hull, values):
    matrix = pose(values).to_transformation_matrix()
    flat = (hull @ matrix[:3, :3].T + matrix[:3, 3])[:, :2]
    return flat[ConvexHull(flat).vertices]


STACKS = [
    (("apple", "bowl", "tray", "can"), [(0, 2, ON), (3, 2, IN)]),
    (("block", "plate", "cutting board", "tray"), [(0, 2, ON)]),
    (("lemon", "towel", "coaster", "mouse pad"), [(0, 2, ON), (2, 3, ON)]),
    (("banana", "plate", "basket"), [(0, 2, IN)]),
    (("marker", "towel", "bowl"), [(0, 2, IN)]),
    (("apple", "plate", "bowl", "mouse pad"), [(1, 3, ON)]),
]


@pytest.mark.parametrize(("categories", "relations"), STACKS)
def test_what_is_on_or_in_another_moves_with_it(tmp_path, categories, relations):
    records, hulls, bank = bank_of(tmp_path, categories, relations=relations, count=16)
    poses = bank.poses.astype(float)
    np.testing.assert_array_equal(bank.offsets[0], 0)
    assert np.abs(bank.offsets).max() <= 0.15 + 1e-6
    np.testing.assert_allclose(poses[..., :2] - bank.offsets, np.broadcast_to(bank.nominal, (16, len(categories), 2)), atol=2e-6)
    for child, parent, _ in relations:
        relative = np.array([(pose(k[parent]).inv() * pose(k[child])).to_transformation_matrix() for k in poses])
        np.testing.assert_allclose(relative, np.broadcast_to(relative[0], relative.shape), atol=1e-5)
        assert relative[0, 2, 3] > 0.002
        rim, shape = outline_at(hulls[parent], poses[0, parent]), outline_at(hulls[child], poses[0, child])
        ahead = np.roll(rim, -1, axis=0) - rim
        inward = np.c_[-ahead[:, 1], ahead[:, 0]] / np.linalg.norm(ahead, axis=1, keepdims=True)
        assert ((shape[:, None] - rim) * inward).sum(axis=-1).min() >= -OVERHANG - 1e-4
    parents = {child: parent for child, parent, _ in relations}
    for a, b in np.ndindex(len(categories), len(categories)):
        if a < b and parents.get(a) == parents.get(b):
            gaps = [gap(outline_at(hulls[a], k[a]), outline_at(hulls[b], k[b])) for k in poses]
            assert min(gaps) >= CLEARANCE - 1e-6
    bench = Bench(tmp_path, records, 3, FRICTION)
    for motion in bench.run(poses[:3] - [0, 0, TOP, 0, 0, 0, 0], 1.0):
        for child, parent in parents.items():
            assert {child, parent} in motion.resting and {child, -1} not in motion.resting


def test_beside_is_near_in_every_placement(tmp_path):
    relations = [(2, 1, BY), (3, 2, BY)]
    _, hulls, bank = bank_of(tmp_path, ("block", "bowl", "mug", "plate"), relations=relations, count=32)
    for placement in bank.poses.astype(float):
        for child, parent, _ in relations:
            shapes = [outline_at(hulls[i], placement[i])[None] for i in (child, parent)]
            assert gap(shapes[0][0], shapes[1][0]) >= CLEARANCE - 1e-6 and distance(*shapes)[0] <= BESIDE + 2e-6


@pytest.mark.parametrize(
    ("categories", "relations", "reason", "misfit"),
    [
        (("block", "plate"), [(0, 1, ON)], "the target starts on its destination", 0),
        (("block", "plate", "lemon"), [(2, 0, ON)], "something stands on the target", 2),
        (("block", "plate", "apple"), [(0, 2, ON)], "nothing stands on the apple", 0),
        (("block", "bowl", "coaster", "tray"), [(3, 2, ON)], "the tray does not fit on the coaster", 3),
        (("block", "plate", "tray"), [(0, 2, ON), (0, 1, BY)], "wanted one parent", None),
        (("block", "plate", "tray", "towel"), [(2, 3, ON), (3, 2, BY)], "beside itself", 2),
    ],
)
def test_relations_that_cannot_be_are_refused(tmp_path, categories, relations, reason, misfit):
    with pytest.raises(LayoutError, match=reason) as caught:
        bank_of(tmp_path, categories, relations=relations)
    assert caught.value.misfit == misfit and "\n" not in str(caught.value)


def test_banks_are_reproducible(tmp_path):
    first, second = (
        bank_of(tmp_path, ("apple", "bowl", "tray", "can"), relations=[(0, 2, ON), (3, 2, BY)], count=8)[2] for _ in range(2)
    )
    np.testing.assert_array_equal(first.poses, second.poses)


_SMALL = [name for name, family in FAMILIES.items() if family.span <= 0.13 and not family.relations]
_PLACES = [name for name, family in FAMILIES.items() if family.relations and family.span <= 0.22]


@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 8), st.booleans())
def test_no_placement_starts_in_collision(tmp_path_factory, seed, count, related):
    """With any families: the outlines on the table keep their clearance in every placement, and physics finds nothing inside
    anything else."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("scene")
    small = rng.choice(_SMALL, count - 1, replace=False).tolist()
    categories, relations = [small[0], str(rng.choice(_PLACES)), *small[1:]], []
    if related and count > 2:
        categories[2] = str(rng.choice(["tray", "cutting board", "mouse pad"]))
        relations = [(0, 2, ON)] + ([(3, 1, BY)] if count > 3 else [])
    try:
        records, hulls, bank = bank_of(folder, categories, relations=relations, count=12, seed=seed)
    except LayoutError as error:
        assert count > 5 or related, str(error)
        assume(False)
    poses = bank.poses.astype(float) - [0, 0, TOP, 0, 0, 0, 0]
    carried = {child for child, _, relation in relations if relation is not BY}
    floor = [i for i in range(count) if i not in carried]
    plain = not relations and count <= 5
    for placement in poses:
        if plain:  # which measures things as they were made, not as they lean at rest
            yaws = 2 * np.arctan2(placement[:, 6], placement[:, 3])
            shapes = [transform(footprint(hulls[i]).outline, placement[[i], :2], yaws[[i]])[0] for i in floor]
        else:
            shapes = [outline_at(hulls[i], placement[i]) for i in floor]
        gaps = [gap(shapes[a], shapes[b]) for a in range(len(floor)) for b in range(a)]
        assert min(gaps) >= CLEARANCE - (3e-6 if plain else 1e-6)
    motions = Bench(folder, records, len(poses), FRICTION).run(poses, 1 / 200)
    assert max(motion.penetration_m for motion in motions) <= 0.001
