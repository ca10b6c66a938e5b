"""Points, lines and surfaces against trimesh, scipy and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from scenegen.checks.files import Mesh, read_obj
from scenegen.checks.findings import FileFault
from scenegen.checks.placing import into, out_of, turned
from scenegen.checks.sampling import distance_to_triangles, sample
from scenegen.checks.solid import Solid
from scenegen.checks.topology import open_share, pieces
from scenegen.mesh.hulls import convex_hull
from scenegen.mesh.surfaces import box_corners, hexahedron, join

SEEDS = st.integers(0, 2**32 - 1)


def mesh_of(*boxes: np.ndarray, faces: tuple[str, ...] = ("bottom", "top", "front", "right", "back", "left")) -> Mesh:
    surface = join([hexahedron(corners, faces) for corners in boxes])
    return Mesh(surface.vertices, surface.faces, surface.uvs[surface.faces], np.zeros(len(surface.faces), int))


@settings(max_examples=20)
@given(SEEDS)
def test_distance_to_triangles_is_trimesh_s(seed: int):
    rng = np.random.default_rng(seed)
    triangles, points = rng.normal(size=(30, 3, 3)), rng.normal(size=(30, 3))
    truth = np.linalg.norm(trimesh.triangles.closest_point(triangles, points) - points, axis=1)
    np.testing.assert_allclose(distance_to_triangles(points, triangles), truth, atol=1e-9)


@settings(max_examples=20)
@given(SEEDS)
def test_lines_enter_and_leave_where_the_inside_begins_and_ends(seed: int):
    rng = np.random.default_rng(seed)
    hull = convex_hull(rng.normal(size=(20, 3)))
    solid = Solid.of([hull, convex_hull(box_corners((1, 1, 1), (5, 0, 0)))])
    start, way = rng.normal(size=(1, 3)) * 3, rng.normal(size=3)
    steps = np.linspace(-4, 4, 4001)
    inside = solid.outside(start + steps[:, None] * way)[:, 0] <= 0
    enter, leave = (value[0, 0] for value in solid.cast(start, way))
    assert (enter < leave) == inside.any() or leave - enter < 0.01
    if inside.sum() > 3 and inside[0] == inside[-1] == False:  # noqa: E712
        assert abs(enter - steps[inside][0]) < 0.003 and abs(leave - steps[inside][-1]) < 0.003


def test_a_box_hides_what_is_behind_it_and_nothing_else():
    solid = Solid.of([convex_hull(box_corners((1, 1, 1), (0, 0, -0.5)))])
    points = np.array([[-3.0, 0, 0], [-3.0, 2, 0], [3.0, 0, 0], [-0.4, 0, 0]])
    np.testing.assert_array_equal(solid.hides(points, np.array([4.0, 0, 0])), [True, False, False, True])


def test_samples_are_even_by_area():
    mesh = mesh_of(box_corners((0.3, 0.1, 0.02)))
    spots = sample(mesh.points, mesh.faces, 2000)
    assert spots.area == pytest.approx(2 * (0.03 + 0.006 + 0.002))
    assert (spots.normals[:, 2] > 0.5).mean() == pytest.approx(0.03 / spots.area, abs=2e-3)
    top = spots.points[spots.normals[:, 2] > 0.5]
    counts = np.histogram2d(top[:, 0], top[:, 1], bins=(6, 2))[0]
    assert counts.max() <= 1.25 * counts.min()


def test_open_edges_and_parts():
    box = box_corners((0.02, 0.02, 0.02))
    assert open_share(mesh_of(box)) == 0
    assert open_share(mesh_of(box, faces=("bottom", "front", "right", "back", "left"))) == pytest.approx(
        4 / (12 + 5 * 2**0.5), abs=1e-6
    )
    near, far = box_corners((0.02, 0.02, 0.02), (0.0215, 0, 0)), box_corners((0.02, 0.02, 0.01), (0.05, 0, 0))
    parts = pieces(mesh_of(far, near, box), 0.002)
    assert [len(part) for part in parts] == [24, 12]
    crossing = box_corners((0.1, 0.004, 0.004), (0, 0, 0.008))  # no corner of either lies near the other's surface
    assert len(pieces(mesh_of(box, crossing), 0.002)) == 1


@given(SEEDS)
@settings(max_examples=10)
def test_into_and_out_of_a_pose(seed: int):
    rng = np.random.default_rng(seed)
    pose = np.r_[rng.normal(size=3), turned(np.array([0.6, 0.8, 0, 0]), rng.normal())]
    points = rng.normal(size=(5, 3))
    np.testing.assert_allclose(into(pose, out_of(pose, points)), points, atol=1e-12)
    tilted = np.array([0, 0, 0, 1.0, 0, 0, 0])
    tilted[3:] = turned(tilted[3:], np.pi / 2)
    np.testing.assert_allclose(out_of(tilted, np.array([1.0, 0, 0])), [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "line 4: index 4 of 3"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "fewer than three"),
        ("v 0 0 0\nv 1 0\nv 0 1 0\nf 1 2 3\n", "lacks a coordinate"),
        ("v 0 0 0\nv 1 0 inf\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 x\n", "line 2"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nvt nan 0\nf 1/1 2/1 3/1\n", "texture coordinates"),
        ("v 0 0 0\ncurv 0 1\n", "'curv' is not understood"),
        ("v 0 0 0\n", "no face"),
        ("", "no face"),
    ],
)
def test_malformed_meshes_are_named_in_one_line(text: str, words: str, tmp_path: Path):
    path = tmp_path / "thing.obj"
    path.write_text(text)
    with pytest.raises(FileFault, match=words) as caught:
        read_obj(path)
    assert "thing.obj" in str(caught.value) and "\n" not in str(caught.value)


def test_quads_negative_indices_and_groups(tmp_path: Path):
    path = tmp_path / "thing.obj"
    square = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\n"
    path.write_text(f"o a\n{square}f 1/1 2/1 3/1 4/1\no b\n{square}f -4//1 -3//1 -2//1\n")
    mesh = read_obj(path)
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(mesh.groups, [0, 0, 1])
    assert mesh.uvs is None
