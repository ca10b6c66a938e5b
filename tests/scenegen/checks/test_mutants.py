"""Good scenes pass everything; each way to spoil one is caught by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenegen.checks.run import accepted, check_all, check_asset, check_scene
from scenegen.loader import Scene
from scenegen.mesh.surfaces import box_corners, hexahedron
from scenegen.schema import Check, Status, Verdict
from tests.scenegen.checks import mutants

Mutant = Callable[[Scene], Scene]
TARGET, PLACE = 0, 1


@pytest.fixture(scope="module")
def good(scenes) -> dict[str, list[Verdict]]:
    return {name: check_all(scene) for name, scene in scenes.items()}


def test_good_scenes_pass_every_check(scenes, good):
    for name, verdicts in good.items():
        assert [v for v in verdicts if v.status is not Status.PASS] == []
        assert accepted(verdicts)
        subjects = [entry.id for entry in scenes[name].objects]
        expected = [(check, subject) for subject in subjects for check in list(Check)[:3]]
        assert [(v.check, v.subject) for v in verdicts] == [*expected, (Check.SETTLE, "scene"), (Check.TASK, "scene")]


def test_verdicts_are_the_same_bytes_again(scenes, good):
    again = check_all(scenes["bowl"])
    assert [v.model_dump_json() for v in again] == [v.model_dump_json() for v in good["bowl"]]


def recolored(scene: Scene) -> Scene:
    return mutants.repainted(scene, PLACE, "purple")


def grounded(scene: Scene) -> Scene:
    reach = 2.6 * mutants.record(scene, TARGET).footprint_radius_m
    return mutants.with_slab(scene, TARGET, (reach, reach, 0.002), (0, 0, 0))


def lidded(scene: Scene) -> Scene:
    asset = mutants.record(scene, PLACE)
    side = 1.2 * asset.footprint_radius_m
    return mutants.with_slab(scene, PLACE, (side, side, 0.004), (0, 0, asset.extents_m[2]))


def doubled(scene: Scene) -> Scene:
    """A second thing of the same size beside it."""
    asset = mutants.record(scene, TARGET)
    return mutants.with_slab(scene, TARGET, asset.extents_m, (0, asset.extents_m[1] + 0.012, 0))


def heavy_inertia(scene: Scene) -> Scene:
    asset = mutants.record(scene, TARGET)
    physics = asset.physics.model_copy(update={"inertia": tuple(5 * value for value in asset.physics.inertia)})
    path = scene.folder / asset.files.urdf
    lines = path.read_text().splitlines()
    xx, yy, zz, xy, xz, yz = physics.inertia
    row = f'<inertia ixx="{xx:.6g}" iyy="{yy:.6g}" izz="{zz:.6g}" ixy="{xy:.6g}" ixz="{xz:.6g}" iyz="{yz:.6g}"/>'
    path.write_text("\n".join(row if "<inertia " in line else line for line in lines))
    return mutants.with_asset(scene, TARGET, physics=physics)


def urdf_mass(scene: Scene) -> Scene:
    path = scene.folder / mutants.record(scene, TARGET).files.urdf
    path.write_text(path.read_text().replace('<mass value="', '<mass value="1'))
    return scene


def nan_vertex(scene: Scene) -> Scene:
    path = scene.folder / mutants.record(scene, TARGET).files.visual
    path.write_text(path.read_text().replace("\nv ", "\nv nan 0 0\nv ", 1))
    return scene


def inside_out(scene: Scene) -> Scene:
    path = scene.folder / mutants.record(scene, TARGET).files.visual
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([p[0], p[1], p[3], p[2]] if p[0] == "f" else p) for p in lines))
    return scene


def torn(scene: Scene) -> Scene:
    """Every second face is missing."""
    path = scene.folder / mutants.record(scene, TARGET).files.visual
    lines = path.read_text().splitlines()
    faces = [line for line in lines if line.startswith("f ")]
    path.write_text("\n".join([line for line in lines if not line.startswith("f ")] + faces[::2]))
    return mutants.with_asset(scene, TARGET, n_faces=len(faces[::2]))


def floating_part(scene: Scene) -> Scene:
    asset = mutants.record(scene, TARGET)
    corners = box_corners((0.004, 0.004, 0.004), (0, 0, asset.extents_m[2] + 0.01))
    faces = mutants.append(scene.folder / asset.files.visual, hexahedron(corners))
    return mutants.with_asset(scene, TARGET, n_faces=asset.n_faces + faces)


def corrupt_picture(scene: Scene) -> Scene:
    path = scene.folder / mutants.record(scene, TARGET).files.texture
    path.write_bytes(path.read_bytes()[:80])
    return scene


def flooded(color: tuple[int, int, int]) -> Mutant:
    def mutate(scene: Scene) -> Scene:
        Image.new("RGB", (8, 8), color).save(scene.folder / mutants.record(scene, TARGET).files.texture)
        return scene

    return mutate


def no_picture(scene: Scene) -> Scene:
    (scene.folder / mutants.record(scene, TARGET).files.texture).unlink()
    return scene


def changed(index: int, **changes: object) -> Mutant:
    return lambda scene: mutants.with_asset(scene, index, **changes)


def ordered(index: int, **changes: object) -> Mutant:
    return lambda scene: mutants.with_node(scene, index, **changes)


def dense(scene: Scene) -> Scene:
    physics = mutants.record(scene, TARGET).physics
    return mutants.with_asset(scene, TARGET, physics=physics.model_copy(update={"density": 20000.0}))


def colliding(scene: Scene) -> Scene:
    return mutants.moved(scene, TARGET, tuple(scene.poses[3, PLACE, :2] + [0.07, 0]), slice(3, 4))  # type: ignore[arg-type]


def on_the_edge(scene: Scene) -> Scene:
    """Its middle is 3 mm beyond the border of the table."""
    x = scene.bundle.context.pose.p[0] - scene.bundle.context.top_size_m[0] / 2 - 0.003
    return mutants.moved(scene, TARGET, (x, 0.25))


def hidden(scene: Scene) -> Scene:
    """A tall thing right before it, on the way to the camera."""
    blocker = len(scene.objects) - 1
    mutants.with_slab(scene, blocker, (0.09, 0.09, 0.12), (0, 0, 0))
    for pose in scene.poses:
        toward = np.array([0.0, -0.16]) - pose[TARGET, :2]
        pose[blocker, :2] = pose[TARGET, :2] + 0.075 * toward / np.linalg.norm(toward)
        pose[blocker, 3:] = (1, 0, 0, 0)
    return scene


def hollowed(depth: float) -> Mutant:
    """The same container, said to be so much deeper [m]."""

    def mutate(scene: Scene) -> Scene:
        cavity = scene.objects[PLACE].asset.cavity
        assert cavity is not None
        return mutants.with_asset(scene, PLACE, cavity=cavity.model_copy(update={"depth_m": cavity.depth_m + depth}))

    return mutate


def twin(scene: Scene) -> Scene:
    """A distractor of the target's kind; the sentence names the target's colour, and the twin's is near it."""
    last = len(scene.objects) - 1
    wanted = mutants.node(scene, TARGET)
    return mutants.with_node(scene, last, category=wanted.category, name=f"{wanted.color} thing", color=wanted.color)


MUTANTS: dict[str, tuple[str, Mutant, Check, str]] = {
    "shrunk": ("mug", lambda s: mutants.scaled(s, TARGET, 0.5), Check.GEOMETRY, "times the usual size"),
    "blown up": ("bowl", lambda s: mutants.scaled(s, PLACE, 2.0), Check.GEOMETRY, "times the usual size"),
    "wrong colour": ("bowl", recolored, Check.APPEARANCE, "looks purple, white wanted"),
    "recorded colour": ("mug", changed(TARGET, color="green"), Check.APPEARANCE, "recorded as green"),
    "corrupt picture": ("mug", corrupt_picture, Check.APPEARANCE, "not a readable picture"),
    "no picture": ("mug", no_picture, Check.APPEARANCE, "missing"),
    "black": ("mug", flooded((0, 0, 0)), Check.APPEARANCE, "black all over"),
    "magenta": ("mug", flooded((255, 0, 255)), Check.APPEARANCE, "magenta"),
    "ground plane": ("mug", grounded, Check.ALIGNMENT, "plate"),
    "two things": ("basket", doubled, Check.ALIGNMENT, "2 things"),
    "another shape": ("mug", ordered(TARGET, category="plate"), Check.ALIGNMENT, "rather than a plate"),
    "another material": ("mug", ordered(TARGET, material="wood"), Check.ALIGNMENT, "wood wanted"),
    "not small": ("basket", ordered(TARGET, size="large"), Check.ALIGNMENT, "mm across, above"),
    "bad inertia": ("mug", heavy_inertia, Check.GEOMETRY, "inertia differs"),
    "mass of the URDF": ("mug", urdf_mass, Check.GEOMETRY, "mass"),
    "density": ("mug", dense, Check.GEOMETRY, "density"),
    "NaN vertex": ("mug", nan_vertex, Check.GEOMETRY, "not finite"),
    "inside out": ("bowl", inside_out, Check.GEOMETRY, "faces outwards"),
    "torn": ("bowl", torn, Check.GEOMETRY, "open"),
    "floating part": ("bowl", floating_part, Check.GEOMETRY, "float"),
    "lid": ("bowl", lidded, Check.GEOMETRY, "not open"),
    "no hollow": ("mug", ordered(PLACE, container=True), Check.GEOMETRY, "hollow"),
    "shallower than said": ("bowl", hollowed(0.006), Check.GEOMETRY, "not open"),
    "deeper than said": ("bowl", hollowed(-0.018), Check.GEOMETRY, "off its depth"),
    "grasp width": ("mug", changed(TARGET, grasp_width_m=0.03), Check.GEOMETRY, "30 mm recorded"),
    "held too low": ("mug", changed(TARGET, grasp_height_m=0.015), Check.GEOMETRY, "the palm meets it"),
    "goal in the air": ("mug", changed(PLACE, goal_point=(0.0, 0.0, 0.03)), Check.GEOMETRY, "goal point"),
    "floating": ("basket", lambda s: mutants.lifted(s, PLACE, 0.05), Check.SETTLE, "destination does not"),
    "one in another": ("bowl", colliding, Check.SETTLE, "inside one another"),
    "half off the table": ("mug", on_the_edge, Check.SETTLE, "target does not stay"),
    "solved start": ("basket", lambda s: mutants.solved(s, 5), Check.TASK, "1 of 8 starts are solved"),
    "out of reach": ("bowl", lambda s: mutants.moved(s, TARGET, (0.75, 0.0)), Check.TASK, "does not reach the target"),
    "hidden": ("basket", hidden, Check.TASK, "is to be seen"),
    "twin": ("mug", twin, Check.TASK, "could mean"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_rejected_by_the_check_meant_for_it(name: str, scenes, tmp_path: Path):
    base, mutate, check, words = MUTANTS[name]
    scene = mutate(mutants.copy(scenes[base], tmp_path / "scene"))
    verdicts = check_scene(scene) if check in (Check.SETTLE, Check.TASK) else check_assets(scene)
    assert not accepted(verdicts)
    assert [v for v in verdicts if v.status is Status.ERROR] == []
    failed = {v.check: v.reasons for v in verdicts if v.status is Status.FAIL}
    assert check in failed, f"rejected, but by {failed}"
    reasons = [reason for v in verdicts if v.check is check for reason in v.reasons]
    assert any(words in reason for reason in reasons), reasons
    assert all("\n" not in reason for v in verdicts for reason in v.reasons)


def check_assets(scene: Scene) -> list[Verdict]:
    graph = scene.bundle.graph
    return [v for entry in scene.objects for v in check_asset(graph.node(entry.id), entry.asset, scene.folder)]
