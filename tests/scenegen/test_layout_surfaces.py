"""Surfaces found on the meshes of tables, and nothing that hangs over their border."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.layout.bank import LayoutError, build_bank
from scenegen.layout.surfaces import MARGIN, Surface, find_surfaces
from scenegen.mesh.writers import read_points
from scenegen.schema import NodeSpec, Role
from scenegen.seeds import generator

HEIGHT = 0.75


def slab(size, centre, top=HEIGHT, thick=0.03):
    mesh = trimesh.creation.box((*size, thick))
    mesh.apply_translation((*centre, top - thick / 2))
    return mesh


def round_table():
    mesh = trimesh.creation.cylinder(radius=0.22, height=0.03, sections=48)
    mesh.apply_translation((0.33, 0, HEIGHT - 0.015))
    leg = trimesh.creation.cylinder(radius=0.03, height=HEIGHT - 0.03)
    leg.apply_translation((0.33, 0, (HEIGHT - 0.03) / 2))
    return trimesh.util.concatenate([mesh, leg]), lambda p: np.linalg.norm(p - [0.33, 0], axis=-1) <= 0.22


def l_desk():
    """One leg of the L along y beyond x = 0.36, the other along x below y = -0.05: a corner of the workspace is empty."""
    parts = [slab((0.40, 0.9), (0.56, 0)), slab((0.40, 0.40), (0.16, -0.25))]

    def on(p):
        return ((p[..., 0] >= 0.36) | (p[..., 1] <= -0.05)) & (p[..., 0] >= -0.04)

    return trimesh.util.concatenate(parts), on


def rimmed_table():
    rim = [slab((0.7, 0.02), (0.35, side * 0.17), HEIGHT + 0.03, 0.06) for side in (-1, 1)]
    rim += [slab((0.02, 0.36), (0.35 + side * 0.34, 0), HEIGHT + 0.03, 0.06) for side in (-1, 1)]
    return trimesh.util.concatenate(
        [slab((0.7, 0.36), (0.35, 0)), *rim]
    ), lambda p: (np.abs(p[..., 1]) <= 0.16) & (np.abs(p[..., 0] - 0.35) <= 0.33)


TABLES = [round_table, l_desk, rimmed_table]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("wounded", [False, True])
def test_the_surface_is_the_table_top_a_little_drawn_in(table, wounded):
    mesh, on = table()
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    if wounded:  # inside out, and every triangle by itself
        vertices, faces = vertices[faces[:, ::-1]].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
    surface = find_surfaces(vertices, faces)[0]
    assert surface.height == pytest.approx(HEIGHT, abs=1e-6)
    points = np.random.default_rng(0).uniform([-0.1, -0.5], [0.8, 0.5], (4000, 2))
    inside, truth = surface.contains(points), on(points)
    if table is l_desk:
        truth &= (points[:, 0] <= 0.76) & (np.abs(points[:, 1]) <= 0.45)
    assert not (inside & ~truth).any()
    assert inside.sum() >= 0.9 * truth.sum() and surface.area == pytest.approx(0.9 * 1.0 * inside.mean(), rel=0.06)


@pytest.mark.parametrize("table", TABLES)
def test_nothing_hangs_over_the_border(table, tmp_path):
    mesh, on = table()
    surface = find_surfaces(np.asarray(mesh.vertices), np.asarray(mesh.faces))[0]
    engine = ProceduralEngine()
    nodes = [NodeSpec(id=c, name=c, role=Role.DISTRACTOR, category=c, description=c) for c in ("apple", "plate", "marker", "can")]
    records = [engine.generate(node, 4, 0, tmp_path) for node in nodes]
    hulls = [read_points(tmp_path / record.files.collision) for record in records]
    bank = build_bank(tmp_path, records, hulls, HEIGHT, (0.5, 0.4), 0.15, 48, (0, 1), generator(2), surface=surface)
    w, z = bank.poses[..., 3].astype(float), bank.poses[..., 6].astype(float)
    for i, hull in enumerate(hulls):
        yaw = 2 * np.arctan2(z[:, i], w[:, i])
        cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
        x, y = hull[:, 0], hull[:, 1]
        points = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1) + bank.poses[:, None, i, :2]
        middles = bank.poses[:, None, i, :2]
        assert on(points + 0.8 * MARGIN * (points - middles) / np.linalg.norm(points - middles, axis=-1, keepdims=True)).all()
    assert np.ptp(bank.poses[:, 0, 1]) > 0.1


def test_what_stands_on_the_table_is_a_hole_and_shelves_need_head_room():
    lamp = trimesh.util.concatenate([slab((0.8, 0.6), (0, 0)), slab((0.1, 0.1), (0.1, 0.05), HEIGHT + 0.2, 0.2)])
    table, top = find_surfaces(np.asarray(lamp.vertices), np.asarray(lamp.faces))
    assert (table.height, top.height) == pytest.approx((HEIGHT, HEIGHT + 0.2)) and len(table.loops) == 2
    assert not table.contains(np.array([[0.1, 0.05]]))[0] and table.contains(np.array([[-0.2, 0.05]]))[0]
    square = 0.03 * np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    over = np.array([[0.1, 0.05], [0.02, 0.05], [-0.2, 0.0], [0.38, 0.0]])
    assert table.holds(square + over[:, None]).tolist() == [False, False, True, False]
    wide = 5 * square + np.array([[0.1, 0.05]])
    assert not table.holds(wide[None])[0]
    shelf = trimesh.util.concatenate([slab((0.8, 0.3), (0, 0), z) for z in (0.2, 0.6, 0.75)])
    assert [round(s.height, 3) for s in find_surfaces(np.asarray(shelf.vertices), np.asarray(shelf.faces))] == [0.2, 0.75]


def test_what_is_not_level_or_too_small_is_no_surface():
    ball, stool = trimesh.creation.icosphere(subdivisions=3, radius=0.3), slab((0.06, 0.06), (0, 0))
    for mesh in (ball, stool):
        assert find_surfaces(np.asarray(mesh.vertices), np.asarray(mesh.faces)) == []
    assert find_surfaces(np.zeros((3, 3)), np.array([[0, 1, 2]])) == []
    with pytest.raises(ValueError, match="wanted at most 4 m"):
        find_surfaces(np.array([[0.0, 0, 0], [9, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))


def test_a_surface_moves_with_its_mesh():
    square = np.array([[0.0, 0], [0.2, 0], [0.2, 0.1], [0, 0.1]])
    moved = Surface(0.7, (square,)).moved(1.0, 0.5, np.pi / 2)
    assert moved.contains(np.array([[0.95, 0.6], [1.05, 0.6], [0.95, 0.75]])).tolist() == [True, False, False]
    assert moved.area == pytest.approx(0.02) and moved.height == 0.7


def test_a_table_without_room_is_reported(tmp_path):
    records = [
        ProceduralEngine().generate(NodeSpec(id=c, name=c, role=Role.DISTRACTOR, category=c, description=c), 4, 0, tmp_path)
        for c in ("apple", "plate")
    ]
    hulls = [read_points(tmp_path / record.files.collision) for record in records]
    small = Surface(HEIGHT, (np.array([[0.25, -0.06], [0.37, -0.06], [0.37, 0.06], [0.25, 0.06]]),))
    with pytest.raises(LayoutError, match="no room on the table: no place for the plate") as caught:
        build_bank(tmp_path, records, hulls, HEIGHT, (0.5, 0.4), 0.1, 4, (0, 1), generator(2), surface=small)
    assert caught.value.misfit == 1
