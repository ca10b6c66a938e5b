"""Meshes from elsewhere: files of every format, whole and broken, against trimesh, SAPIEN and the families' own figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import sapien
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from scipy.spatial.transform import Rotation

from genvla.robots.wx250s import PALM
from scenegen.engines.base import EngineError
from scenegen.engines.procedural.catalog import BASIC
from scenegen.engines.procedural.engine import make, shape
from scenegen.engines.procedural.form import Recipe
from scenegen.engines.writing import MadeAsset, Origin, clipped_friction, physics_of, place, write_asset
from scenegen.mesh import decomposing
from scenegen.mesh.cavities import find_place
from scenegen.mesh.decomposing import few
from scenegen.mesh.grasping import HEADROOM, Grasp, best_grasp, clear_of_hand, grasp_width
from scenegen.mesh.hulls import convex_hull, mass_properties
from scenegen.mesh.importing import SizePrior, import_mesh
from scenegen.mesh.reading import Part
from scenegen.mesh.surfaces import box_corners, lathe
from scenegen.mesh.texturing import dominant_color, simplified, surface_of
from scenegen.palette import PALETTE, rgb
from scenegen.schema import NodeSpec, Role
from scenegen.seeds import generator

BOX = (0.04, 0.06, 0.03)


def moved(mesh: trimesh.Trimesh, *offset: float) -> trimesh.Trimesh:
    mesh.apply_translation(offset)
    return mesh


def saved(mesh: trimesh.Trimesh | trimesh.Scene, path: Path) -> Path:
    mesh.export(path)
    return path


def elbow() -> trimesh.Trimesh:
    """An L of 8 x 2 x 6 cm: plainly concave, few faces, exact volume."""
    outline = np.array([[0, 0], [0.08, 0], [0.08, 0.02], [0.02, 0.02], [0.02, 0.06], [0, 0.06]])
    low, high = np.c_[outline, np.zeros(6)], np.c_[outline, np.full(6, 0.02)]
    cap = [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    faces = [f[::-1] for f in cap] + [[a + 6 for a in f] for f in cap]
    for i in range(6):
        j = (i + 1) % 6
        faces += [[i, j, j + 6], [i, j + 6, i + 6]]
    return trimesh.Trimesh(np.r_[low, high], faces, process=False)


def grouped(pieces: list[np.ndarray]) -> str:
    """An OBJ with an `o` group for the hull of each set of points."""
    lines, start = [], 1
    for i, points in enumerate(pieces):
        hull = convex_hull(points)
        lines += [f"o geometry_{i}"] + [f"v {x} {y} {z}" for x, y, z in hull.vertices]
        lines += ["f " + " ".join(str(v + start) for v in face) for face in hull.faces]
        start += len(hull.vertices)
    return "\n".join(lines) + "\n"


def textured_obj(folder: Path, texture: str = "paint.png", mtl: bool = True, image: np.ndarray | None = None) -> Path:
    """A box whose six sides show an image, and the files beside it."""
    mesh = trimesh.creation.box(BOX)
    faces = mesh.faces + 1
    text = ["mtllib paint.mtl", "o box"] + [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    text += ["vt 0.1 0.1", "vt 0.9 0.1", "vt 0.9 0.9", "usemtl paint"] + [f"f {a}/1 {b}/2 {c}/3" for a, b, c in faces]
    (folder / "box.obj").write_text("\n".join(text) + "\n")
    if mtl:
        (folder / "paint.mtl").write_text(f"newmtl paint\nKd 1 1 1\nmap_Kd {texture}\n")
    pixels = np.full((32, 32, 3), PALETTE["blue"], np.uint8) if image is None else image
    Picture.fromarray(pixels).save(folder / "paint.png")
    return folder / "box.obj"


@pytest.mark.parametrize("suffix", ["stl", "ply", "glb", "obj"])
def test_a_box_of_any_format_is_one_exact_hull(tmp_path: Path, suffix: str):
    mesh = import_mesh(saved(moved(trimesh.creation.box(BOX), 0.3, -0.2, 0.7), tmp_path / f"box.{suffix}"))
    assert len(mesh.hulls) == 1 and len(mesh.hulls[0].vertices) == 8
    points = mesh.hulls[0].vertices
    np.testing.assert_allclose(points.min(0), [-0.02, -0.03, 0], atol=1e-7)
    np.testing.assert_allclose(points.max(0), [0.02, 0.03, 0.03], atol=1e-7)
    np.testing.assert_allclose(mesh.shift, [-0.3, 0.2, -0.685], atol=1e-7)
    assert len(mesh.surface.vertices) == 24 and len(mesh.surface.faces) == 12, "edges of a box are creases"


def test_a_point_of_the_file_lies_where_the_import_says(tmp_path: Path):
    file = saved(moved(trimesh.creation.icosphere(radius=20), 5, 100, -3), tmp_path / "ball.stl")
    turn = Rotation.from_euler("xyz", [0.3, -0.2, 1.0]).as_matrix()
    mesh = import_mesh(file, up="y", rotation=turn, scale=0.001)
    np.testing.assert_allclose(mesh.rotation, turn @ Rotation.from_euler("x", 90, degrees=True).as_matrix(), atol=1e-12)
    there = np.asarray(trimesh.load(file).vertices) * mesh.scale @ mesh.rotation.T + mesh.shift
    gaps = np.linalg.norm(there[:, None] - mesh.surface.vertices, axis=-1).min(axis=1)
    assert gaps.max() < 1e-6


def test_height_of_a_mesh_that_is_y_up(tmp_path: Path):
    mesh = import_mesh(saved(trimesh.creation.box((2, 5, 1)), tmp_path / "tall.glb"), up="y", height=0.1)
    np.testing.assert_allclose(np.ptp(mesh.surface.vertices, axis=0), [0.04, 0.02, 0.1], atol=1e-6)


def test_a_pen_that_lies_where_its_height_was_measured_is_refused(tmp_path: Path):
    pen = saved(trimesh.creation.box((1.4, 0.1, 0.1)), tmp_path / "pen.stl")
    prior = SizePrior("pen", 0.10, 0.16)
    with pytest.raises(EngineError, match=r"pen.stl: 1.96 m long; a pen is 0.1 .. 0.16 m"):
        import_mesh(pen, height=0.14, prior=prior)
    mesh = import_mesh(pen, prior=prior)
    assert np.ptp(mesh.surface.vertices, axis=0).max() == pytest.approx(np.sqrt(0.10 * 0.16), rel=1e-6)
    with pytest.raises(EngineError, match="other units"):
        import_mesh(saved(trimesh.creation.box((40, 60, 30)), tmp_path / "mm.stl"))


@given(
    scale=st.floats(0.3, 3.0),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    density=st.floats(100, 4000),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mass_and_inertia_follow_scale_and_rotation(tmp_path: Path, scale: float, angles: tuple, density: float):
    """Against trimesh's integrals of the untouched mesh; inertia goes with the fifth power of the scale and turns as a tensor."""
    truth = trimesh.convex.convex_hull(np.random.default_rng(3).normal(size=(30, 3)) * [0.02, 0.015, 0.01])
    file = tmp_path / "stone.ply"
    truth.export(file)
    truth = trimesh.load(file)
    turn = Rotation.from_euler("xyz", angles).as_matrix()
    mesh = import_mesh(file, rotation=turn, scale=scale)
    physics = physics_of(mesh.hulls, density=density)
    assert physics.mass_kg == pytest.approx(truth.volume * scale**3 * density, rel=1e-4, abs=2e-7)
    com = turn @ (scale * truth.center_mass) + mesh.shift
    np.testing.assert_allclose(physics.com_m, com, atol=2e-6)
    xx, yy, zz, xy, xz, yz = physics.inertia
    found = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    expected = turn @ truth.moment_inertia @ turn.T * scale**5 * density
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-11)


def test_written_asset_is_what_sapien_loads(tmp_path: Path):
    image = np.full((16, 16, 3), PALETTE["green"], np.uint8)
    mesh = import_mesh(textured_obj(tmp_path, image=image))
    static, dynamic = clipped_friction(1.4, None)
    physics = physics_of(mesh.hulls, mass_kg=0.123, static_friction=static, dynamic_friction=dynamic)
    grasp = best_grasp(mesh.hulls)
    assert grasp is not None and grasp.width == pytest.approx(0.04, abs=1e-4)
    assert abs(np.cos(grasp.yaw)) == pytest.approx(1, abs=1e-3)
    spec = NodeSpec(id="thing", name="box", role=Role.TARGET, category="box & lid", description="a <green> box")
    made = MadeAsset(mesh.surface, mesh.hulls, mesh.texture_png, physics, mesh.color, "plastic", grasp=grasp, graspable=True)
    record = write_asset(tmp_path, spec, made, Origin("test", "1", 0, 0))
    assert record.color == "green" and record.graspable and (static, dynamic) == (0.9, 0.6)
    assert "box &amp; lid" in (tmp_path / record.files.urdf).read_text()

    scene = sapien.Scene([sapien.physx.PhysxCpuSystem()])
    builder = scene.create_actor_builder()
    builder.add_multiple_convex_collisions_from_file(str(tmp_path / record.files.collision), density=record.physics.density)
    body = builder.build().find_component_by_type(sapien.physx.PhysxRigidDynamicComponent)
    assert body.mass == pytest.approx(0.123, rel=1e-3)
    a, b, c = BOX
    expected = 0.123 / 12 * np.array([b * b + c * c, a * a + c * c, a * a + b * b])
    np.testing.assert_allclose(np.sort(body.inertia), np.sort(expected), rtol=1e-3)
    np.testing.assert_allclose(np.sort(record.physics.inertia[:3]), np.sort(expected), rtol=1e-3)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        place(tmp_path / "a/b/result", {"x": b"1"}, {"y": tmp_path / "is-not-there"})
    assert not list(tmp_path.iterdir())


# What is painted on it


def test_glb_texture_and_its_place(tmp_path: Path):
    """A picture that is red on the left and blue on the right, on a sheet bent into a box: red stays at -x."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = PALETTE["red"], PALETTE["blue"]
    box = trimesh.creation.box((0.06, 0.04, 0.04)).subdivide().subdivide()
    uvs = np.c_[box.vertices[:, 0] / 0.06 + 0.5, box.vertices[:, 1] / 0.04 + 0.5]
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Picture.fromarray(pixels))
    box.visual = trimesh.visual.TextureVisuals(uv=uvs, material=material)
    for max_faces in (8000, 40):
        mesh = import_mesh(saved(box, tmp_path / "box.glb"), max_faces=max_faces)
        assert len(mesh.surface.faces) <= max_faces and mesh.image.shape == (64, 64, 3)
        np.testing.assert_allclose(mesh.surface.uvs[:, 0], mesh.surface.vertices[:, 0] / 0.06 + 0.5, atol=0.02)


def test_seams_are_not_smeared_when_faces_are_reduced():
    """A tube painted once around: at its seam u jumps from 1 to 0, and no face of the reduced one may run backwards over it."""
    tube = lathe([(0.03, z) for z in np.linspace(0, 0.1, 12)], 48)
    tube = trimesh.Trimesh(tube.vertices, tube.faces, process=False, visual=trimesh.visual.TextureVisuals(uv=tube.uvs))
    fine = tube.subdivide()
    vertices, index = np.unique(np.round(fine.vertices, 9), axis=0, return_inverse=True)
    faces = index.reshape(-1)[fine.faces]
    part = simplified(Part(vertices, faces, fine.visual.uv[fine.faces], np.zeros((8, 8, 3), np.uint8)), 400)
    assert len(part.faces) <= 400 < len(faces) / 8
    assert np.ptp(part.paint[..., 0], axis=1).max() < 0.3
    corners = part.vertices[part.faces]
    angle = np.arctan2(corners[..., 1], corners[..., 0]) / (2 * np.pi) % 1
    away = np.abs(part.paint[..., 0] - angle)
    away = np.minimum(away, 1 - away).max(axis=1)
    across = np.ptp(angle, axis=1) > 0.5  # those end at the seam
    assert away[~across].max() < 0.012 and away[across].max() < 0.1


def test_vertex_colors_become_a_small_texture(tmp_path: Path):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.02)
    colors = np.where(ball.vertices[:, 2:] > 0, (*PALETTE["yellow"], 255), (*PALETTE["purple"], 255))
    ball.visual.vertex_colors = colors.astype(np.uint8)
    mesh = import_mesh(saved(ball, tmp_path / "ball.ply"))
    assert max(mesh.image.shape) <= 512
    surface, image = mesh.surface, mesh.image / 255
    rows = ((1 - surface.uvs[:, 1]) * image.shape[0]).astype(int)
    shown = image[rows, (surface.uvs[:, 0] * image.shape[1]).astype(int)]
    top = surface.vertices[:, 2] > 0.0205
    np.testing.assert_allclose(shown[top], np.tile(rgb("yellow"), (top.sum(), 1)), atol=0.02)
    np.testing.assert_allclose(shown[~top], np.tile(rgb("purple"), ((~top).sum(), 1)), atol=0.02)


def test_several_textures_and_plain_colors_share_one_image(tmp_path: Path):
    scene = trimesh.Scene()
    for i, name in enumerate(("red", "blue", "white")):
        box = trimesh.creation.box((0.02, 0.02, 0.02))
        pixels = np.full((40, 40, 3), PALETTE[name], np.uint8)
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Picture.fromarray(pixels))
        if name == "white":
            material = trimesh.visual.material.PBRMaterial(baseColorFactor=[*PALETTE[name], 255])
        box.visual = trimesh.visual.TextureVisuals(uv=np.random.default_rng(0).random((8, 2)), material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix((0.02 * i, 0, 0)))
    mesh = import_mesh(saved(scene, tmp_path / "train.glb"), texture_size=128)
    assert max(mesh.image.shape[:2]) <= 128 and len(mesh.hulls) == 1
    columns = (mesh.surface.uvs[:, 0] * mesh.image.shape[1]).astype(int).clip(0, mesh.image.shape[1] - 1)
    shown = mesh.image[((1 - mesh.surface.uvs[:, 1]) * mesh.image.shape[0]).astype(int), columns]
    for i, name in enumerate(("red", "blue", "white")):
        here = np.abs(mesh.surface.vertices[:, 0] - 0.02 * (i - 1)) < 0.009
        if here.any():
            np.testing.assert_allclose(shown[here], np.tile(PALETTE[name], (here.sum(), 1)), atol=6)
    assert {tuple(np.round(c / 8).astype(int)) for c in np.unique(shown, axis=0)} >= {
        tuple(np.round(np.array(PALETTE[name]) / 8).astype(int)) for name in ("red", "blue", "white")
    }


def test_a_large_texture_shrinks_and_one_pixel_is_enough(tmp_path: Path):
    assert import_mesh(textured_obj(tmp_path, image=np.zeros((600, 900, 3), np.uint8))).image.shape == (341, 512, 3)
    mesh = import_mesh(textured_obj(tmp_path, image=np.full((1, 1, 3), PALETTE["pink"], np.uint8)))
    assert mesh.image.shape == (1, 1, 3) and mesh.color == "pink" and not mesh.warnings


@pytest.mark.parametrize("category", [name for name in BASIC.families if name not in ("notebook", "puzzle cube", "mouse pad")])
def test_the_dominant_color_is_the_painted_one(category: str):
    """Not so for things that show several colours by nature."""
    family = BASIC.families[category]
    rng = generator(2, category)
    color = str(rng.choice(family.colors))
    surface, _, image = shape(make(family, Recipe(rng, color, str(rng.choice(family.materials)))))
    assert dominant_color(surface, np.round(image * 255).astype(np.uint8)) == color


# What is touched


def test_given_groups_are_the_pieces(tmp_path: Path):
    visual = saved(elbow(), tmp_path / "elbow.stl")
    collision = tmp_path / "elbow_collision.obj"
    collision.write_text(
        grouped([box_corners((0.08, 0.02, 0.02), (0.04, 0.01, 0)), box_corners((0.02, 0.04, 0.02), (0.01, 0.04, 0))])
    )
    mesh = import_mesh(visual, collision)
    assert len(mesh.hulls) == 2 and not [w for w in mesh.warnings if "collision" in w]
    assert mass_properties(mesh.hulls).volume == pytest.approx(elbow().volume, rel=1e-6)


def test_flat_pieces_are_dropped_and_too_many_merged(tmp_path: Path):
    visual = saved(trimesh.creation.box((0.1, 0.02, 0.02)), tmp_path / "bar.stl")
    collision = tmp_path / "bar.obj"
    slices = [box_corners((0.01, 0.02, 0.02), (-0.045 + 0.01 * i, 0, -0.01)) for i in range(10)]
    flat = "o flat\nv 0 0 0\nv 0.01 0 0\nv 0 0.01 0\nf 81 82 83\n"
    collision.write_text(grouped(slices) + flat)
    mesh = import_mesh(visual, collision, max_hulls=3)
    assert len(mesh.hulls) == 3
    assert mass_properties(mesh.hulls).volume == pytest.approx(0.1 * 0.02 * 0.02, rel=1e-6), "merged neighbours leave no gap"
    assert any("flat" in warning for warning in mesh.warnings) and any("merged" in warning for warning in mesh.warnings)
    collision.write_text("o flat\nv 0 0 0\nv 0.01 0 0\nv 0 0.01 0\nf 1 2 3\n")
    with pytest.raises(EngineError, match="flat"):
        import_mesh(visual, collision)


def test_pieces_have_at_most_64_vertices():
    ball = convex_hull(np.asarray(trimesh.creation.icosphere(subdivisions=3, radius=0.02).vertices))
    (piece,) = few([ball], 8)
    assert len(piece.vertices) <= 64
    assert mass_properties([piece]).volume > 0.85 * mass_properties([ball]).volume
    np.testing.assert_allclose(np.ptp(piece.vertices, axis=0), np.ptp(ball.vertices, axis=0), atol=1e-9)


def test_concave_meshes_are_cut_the_same_way_each_time(tmp_path: Path):
    file = saved(elbow(), tmp_path / "elbow.ply")
    first, again = import_mesh(file), import_mesh(file)
    assert 2 <= len(first.hulls) <= 8
    assert mass_properties(first.hulls).volume == pytest.approx(elbow().volume, rel=0.03)
    for a, b in zip(first.hulls, again.hulls, strict=True):
        np.testing.assert_array_equal(a.vertices, b.vertices)


def test_a_decomposition_that_hangs_or_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = saved(elbow(), tmp_path / "elbow.ply")
    with pytest.raises(EngineError, match=r"elbow.ply: its convex decomposition took more than 0.01 s"):
        import_mesh(file, timeout=0.01)
    monkeypatch.setattr(decomposing, "_CHILD", tmp_path / "is-not-there.py")
    with pytest.raises(EngineError, match=r"elbow.ply: its convex decomposition failed: .*can't open"):
        import_mesh(file)


# Grasps and places: the families know their own


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.12), st.floats(0.018, 0.048), st.floats(0, np.pi))
def test_a_grasp_keeps_the_hand_clear(tall: float, wide: float, yaw: float):
    """However tall a post is, it is held no further below its top than the palm allows, and a slab beside it counts too."""
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])
    post = convex_hull(box_corners((wide, 0.03, tall)) @ turn.T)
    grasp = best_grasp([post])
    assert grasp is not None and tall - PALM < grasp.height < tall
    low = Grasp(wide, 0.005, yaw)
    raised = clear_of_hand(low, [post])
    assert raised.height == pytest.approx(max(0.005, tall - HEADROOM), abs=1e-9) and raised.width == pytest.approx(wide, abs=1e-3)
    beside = convex_hull((box_corners((0.01, 0.01, tall + 0.01)) + [0, 0.03, 0]) @ turn.T)
    assert clear_of_hand(low, [post, beside]).height == pytest.approx(max(0.005, tall + 0.01 - HEADROOM), abs=1e-9)


@pytest.mark.parametrize("category", [name for name, family in BASIC.families.items() if family.graspable])
def test_the_grasp_found_is_the_family_s(category: str):
    family = BASIC.families[category]
    rng = generator(1, category)
    form = make(family, Recipe(rng, family.colors[0], family.materials[0]))
    hulls = [convex_hull(points) for points in form.hulls]
    grasp = best_grasp(hulls)
    assert grasp is not None and form.grasp is not None
    assert grasp.width == pytest.approx(form.grasp.width, abs=0.002)
    if not (grasp.symmetric or form.grasp.symmetric):
        away = abs((grasp.yaw - form.grasp.yaw + np.pi / 2) % np.pi - np.pi / 2)
        assert away < np.radians(6) or grasp_width(hulls, form.grasp.yaw, grasp.height) < grasp.width + 0.002, "one as good"


@given(yaw=st.floats(0, np.pi), size=st.tuples(st.floats(0.015, 0.049), st.floats(0.06, 0.15), st.floats(0.015, 0.09)))
@settings(max_examples=10, deadline=None)
def test_a_box_is_held_across_its_short_side(yaw: float, size: tuple):
    turn = Rotation.from_euler("z", yaw).as_matrix()
    grasp = best_grasp([convex_hull(box_corners(size) @ turn.T)])
    assert grasp is not None and grasp.width == pytest.approx(size[0], abs=5e-4)
    assert abs((grasp.yaw - yaw + np.pi / 2) % np.pi - np.pi / 2) < np.radians(1.1)
    assert 0 < grasp.height < size[2]


def test_nothing_holds_what_is_too_wide_too_thin_or_a_cone():
    assert best_grasp([convex_hull(box_corners((0.052, 0.1, 0.05)))]) is None
    assert best_grasp([convex_hull(box_corners((0.008, 0.1, 0.05)))]) is None
    cone = trimesh.creation.cone(radius=0.024, height=0.02)
    assert best_grasp([convex_hull(np.asarray(cone.vertices))]) is None


@pytest.mark.parametrize("category", [name for name, family in BASIC.families.items() if family.relations])
def test_the_place_found_is_the_family_s(category: str):
    family = BASIC.families[category]
    rng = generator(1, category)
    form = make(family, Recipe(rng, family.colors[0], family.materials[0]))
    cavity, goal = find_place([convex_hull(points) for points in form.hulls])
    assert form.goal_point is not None and goal is not None
    assert cavity is not None or form.cavity is None
    assert cavity is None or form.cavity is not None or category == "plate", "a deep plate is a shallow bowl"
    np.testing.assert_allclose(goal[:2], form.goal_point[:2], atol=0.003)
    assert goal[2] == pytest.approx(form.goal_point[2], abs=0.001)
    if cavity is not None and form.cavity is not None:
        assert cavity.radius_m == pytest.approx(form.cavity.radius_m, rel=0.08)
        assert cavity.depth_m == pytest.approx(form.cavity.depth_m, abs=0.004)


def test_a_ball_carries_nothing():
    ball = convex_hull(np.asarray(trimesh.creation.icosphere(subdivisions=2, radius=0.03).vertices))
    assert find_place([ball]) == (None, None)


# Broken files


def test_truncated_and_empty_files(tmp_path: Path):
    whole = saved(trimesh.creation.box(BOX), tmp_path / "box.glb").read_bytes()
    for name, content in {
        "a.glb": whole[: len(whole) // 2],
        "b.glb": b"",
        "c.ply": b"ply\nformat",
        "d.obj": b"o nothing\n",
        "e.stl": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EngineError, match=name) as caught:
            import_mesh(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="none.obj: not found"):
        import_mesh(tmp_path / "none.obj")
    (tmp_path / "x.fbx").write_bytes(b"x")
    with pytest.raises(EngineError, match=r"x.fbx: found the format .fbx; wanted one of .obj"):
        import_mesh(tmp_path / "x.fbx")


def test_meshes_without_faces_flat_or_not_finite(tmp_path: Path):
    points = trimesh.PointCloud(np.random.default_rng(0).random((10, 3)))
    (tmp_path / "points.ply").write_bytes(points.export(file_type="ply"))
    with pytest.raises(EngineError, match="points.ply: holds no faces"):
        import_mesh(tmp_path / "points.ply")
    (tmp_path / "sheet.obj").write_text("v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nf 1 2 3\n")
    with pytest.raises(EngineError, match="sheet.obj: it is flat"):
        import_mesh(tmp_path / "sheet.obj")
    box = trimesh.creation.box(BOX)
    box.vertices[3, 1] = np.nan
    with pytest.raises(EngineError, match="not finite"):
        import_mesh(saved(box, tmp_path / "nan.stl"))


def test_textures_outside_the_folder_are_refused(tmp_path: Path):
    inside = tmp_path / "asset"
    inside.mkdir()
    Picture.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png"), "..\\secret.png", "link.png"):
        textured_obj(inside, texture=name)
        (inside / "link.png").unlink(missing_ok=True)
        (inside / "link.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(EngineError, match="outside its folder"):
            import_mesh(inside / "box.obj")
    (inside / "box.obj").write_text((inside / "box.obj").read_text().replace("mtllib paint.mtl", "mtllib ../../etc/x.mtl"))
    with pytest.raises(EngineError, match="outside its folder"):
        import_mesh(inside / "box.obj")
    textured_obj(inside, texture="../secret.png")
    assert import_mesh(inside / "box.obj", root=tmp_path).color == "black", "the caller may say that the asset is larger"


def test_missing_material_and_broken_texture(tmp_path: Path):
    mesh = import_mesh(textured_obj(tmp_path, mtl=False))
    assert any("paint.mtl is missing" in warning for warning in mesh.warnings) and mesh.color == "gray"
    textured_obj(tmp_path)
    stream = io.BytesIO()
    Picture.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(stream, "PNG")
    (tmp_path / "paint.png").write_bytes(stream.getvalue()[:2000])
    with pytest.raises(EngineError, match=r"box.obj: paint.png: not a readable image"):
        import_mesh(tmp_path / "box.obj")


def test_a_repeated_texture_is_drawn_once_on_each_face(tmp_path: Path):
    file = textured_obj(tmp_path)
    file.write_text(file.read_text().replace("vt 0.9 0.1", "vt 2.9 0.1"))
    mesh = import_mesh(file)
    assert mesh.surface.uvs.min() >= 0 and mesh.surface.uvs.max() <= 1
    assert any("repeat" in warning for warning in mesh.warnings)


def test_inside_out_meshes_are_turned(tmp_path: Path):
    box = trimesh.creation.box(BOX)
    box.invert()
    surface = import_mesh(saved(box, tmp_path / "box.stl")).surface
    corners = surface.vertices[surface.faces]
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    middle = np.array([0, 0, BOX[2] / 2])
    assert (np.einsum("ij,ij->i", outward, corners.mean(axis=1) - middle) > 0).all()
    assert (np.einsum("ij,ij->i", outward, surface.normals[surface.faces[:, 0]]) > 0).all()


def test_joined_surfaces_keep_their_normals():
    """Smooth on a ball, sharp on a box."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.02)
    plain = np.full((len(ball.faces), 3, 3), 0.5)
    surface, _ = surface_of([Part(np.asarray(ball.vertices), np.asarray(ball.faces), plain)], 64)
    np.testing.assert_allclose(surface.normals, surface.vertices / 0.02, atol=0.02)
