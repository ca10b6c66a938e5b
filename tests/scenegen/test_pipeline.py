"""Whole sets: the command, resuming, determinism, the loader's complaints, and the built scenes in physics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scenegen.cli import main
from scenegen.errors import UserError
from scenegen.files import tree_digest
from scenegen.layout.physics import Bench
from scenegen.loader import load_scene, load_scene_set

COUNT = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "set"
    assert (
        main(
            [
                "build",
                "--count",
                str(COUNT),
                "--seed",
                "3",
                "--output",
                str(folder),
                "--heldout",
                "1",
                "--poses",
                "24",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    return folder


def test_set_is_complete_and_split(built):
    scenes = load_scene_set(built)
    assert len(scenes) == COUNT
    assert len(scenes.ids("heldout")) == 1 and len(scenes.ids("train")) == COUNT - 1
    assert set(scenes.ids("heldout")) | set(scenes.ids("train")) == set(scenes.ids())
    for scene, line in zip(scenes, scenes.lines, strict=True):
        assert scene.id == line.id and scene.instruction == line.task
        assert scene.poses.shape == (24, len(scene.objects), 7)
        assert all(entry.visual.is_file() and entry.collision.is_file() and entry.visual.is_absolute() for entry in scene.objects)
        assert scene.objects[scene.target_index].role == "target" and scene.objects[scene.destination_index].role == "destination"
        assert sum(entry.asset.n_vertices for entry in scene.objects) + 150 <= 2500
        assert tree_digest(scene.folder) == line.digest
        base = scene.bundle.robot.base_pose.p
        assert base == (0, 0, scene.bundle.context.top_height_m) and 0.7 <= base[2] <= 0.9
    assert not [entry.name for entry in (built / "scenes").iterdir() if entry.name.startswith(".")]


def test_urdf_says_what_the_scene_says(built):
    for scene in load_scene_set(built):
        for entry in scene.objects:
            urdf = scene.folder / entry.asset.files.urdf
            link = ElementTree.parse(urdf).getroot().find("link")
            assert float(link.find("inertial/mass").get("value")) == pytest.approx(entry.asset.physics.mass_kg, rel=1e-4)
            assert float(link.find("inertial/inertia").get("izz")) == pytest.approx(entry.asset.physics.inertia[2], rel=1e-4)
            assert (urdf.parent / link.find("visual/geometry/mesh").get("filename")) == entry.visual


def test_whole_bank_rests_in_physics(built):
    for scene in load_scene_set(built):
        context = scene.bundle.context
        records = [entry.asset for entry in scene.objects]
        bench = Bench(scene.folder, records, len(scene.poses), (context.static_friction, context.dynamic_friction))
        goal = {scene.target_index, scene.destination_index}
        poses = scene.poses.astype(float) - [0, 0, context.top_height_m, 0, 0, 0, 0]
        for motion in bench.run(poses, 1.0):
            assert motion.drift_m.max() <= 0.01 and motion.tilt_deg.max() <= 5
            assert motion.penetration_m <= 0.001
            assert goal not in motion.touching


def test_same_seed_same_bytes_with_any_number_of_workers(built, tmp_path):
    again = tmp_path / "again"
    assert (
        main(
            [
                "build",
                "--count",
                str(COUNT),
                "--seed",
                "3",
                "--output",
                str(again),
                "--heldout",
                "1",
                "--poses",
                "24",
                "--workers",
                "2",
            ]
        )
        == 0
    )
    assert tree_digest(again) == tree_digest(built)


def test_resume_builds_only_what_is_missing(built, tmp_path, capfd):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    lost = load_scene_set(copy).lines[1]
    shutil.rmtree(copy / lost.path)
    (copy / "scenes" / ".building-left-over").mkdir()
    assert (
        main(
            [
                "build",
                "--count",
                str(COUNT),
                "--seed",
                "3",
                "--output",
                str(copy),
                "--heldout",
                "1",
                "--poses",
                "24",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    assert f"({COUNT - 1} already there)" in capfd.readouterr().out
    assert tree_digest(copy) == tree_digest(built)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--count", "2", "--seed", "4"], "another run|another seed"),
        (["--count", str(COUNT), "--seed", "3", "--poses", "25"], "other options"),
        (["--count", "0"], "count"),
        ([], "exactly one"),
        (["--count", "2", "--heldout", "2"], "heldout"),
        (["--count", "2", "--poses", "0"], "poses"),
        (["--tasks", "no_such_file.txt"], "no_such_file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(built, arguments, word, capfd):
    before = tree_digest(built)
    assert main(["build", "--output", str(built), *arguments]) == 2
    message = capfd.readouterr().err.strip()
    assert "\n" not in message and any(part in message for part in word.split("|"))
    assert tree_digest(built) == before


def test_foreign_folder_is_left_alone(tmp_path, capfd):
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(["build", "--count", "1", "--output", str(tmp_path)]) == 2
    assert "thesis.txt" in capfd.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_tasks_from_a_file(tmp_path):
    tasks = tmp_path / "tasks.txt"
    tasks.write_text("# mine\n\nput the green block on the red block\nPut a lemon into the big blue bowl.\n")
    assert main(["build", "--tasks", str(tasks), "--output", str(tmp_path / "set"), "--poses", "4", "--workers", "1"]) == 0
    scenes = list(load_scene_set(tmp_path / "set"))
    assert [scene.instruction for scene in scenes] == [
        "put the green block on the red block",
        "put a lemon into the big blue bowl",
    ]
    assert scenes[0].objects[0].asset.color == "green" and scenes[1].objects[1].asset.color == "blue"


def test_bad_task_in_a_file_stops_before_anything_is_written(tmp_path, capfd):
    tasks = tmp_path / "tasks.txt"
    tasks.write_text("put the apple on the plate\nput the moon on the plate\n")
    assert main(["build", "--tasks", str(tasks), "--output", str(tmp_path / "set")]) == 2
    assert "moon" in capfd.readouterr().err and not (tmp_path / "set").exists()


def edit(file: Path, change) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: next(f.rglob("target.obj")).unlink(), ["target.obj", "objects.0.asset.files.visual"]),
        (lambda f: (f / "poses.npz").unlink(), ["poses.npz", "layout.poses_file"]),
        (lambda f: (f / "poses.npz").write_bytes(b"junk"), ["poses.npz", "npz"]),
        (lambda f: (f / "background/room.obj").unlink(), ["room.obj", "background.visual"]),
        (lambda f: (f / "scene.json").write_text("{"), ["scene.json", "JSON"]),
        (lambda f: edit(f / "scene.json", lambda d: d.update(colour=1)), ["colour"]),
        (lambda f: edit(f / "scene.json", lambda d: d.pop("robot")), ["robot"]),
        (lambda f: edit(f / "scene.json", lambda d: d["objects"][0]["asset"]["physics"].update(mass_kg=-1)), ["mass_kg", "-1"]),
        (
            lambda f: edit(f / "scene.json", lambda d: d["objects"][0]["asset"]["files"].update(visual="../../x.obj")),
            ["visual", "x.obj"],
        ),
        (lambda f: edit(f / "scene.json", lambda d: d["layout"].update(count=7)), ["poses", "(7,"]),
        (lambda f: edit(f / "scene.json", lambda d: d.update(schema_version=99)), ["schema_version", "99"]),
    ],
)
def test_loader_names_file_and_field(built, tmp_path, spoil, words):
    folder = tmp_path / "scene"
    shutil.copytree(built / load_scene_set(built).lines[0].path, folder)
    load_scene(folder)
    spoil(folder)
    with pytest.raises(UserError) as error:
        load_scene(folder)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_set_loader_complaints(built, tmp_path):
    with pytest.raises(UserError, match="scenegen build"):
        load_scene_set(tmp_path)
    manifest = (built / "scene_set.jsonl").read_text().splitlines()
    (tmp_path / "scene_set.jsonl").write_text(manifest[0])
    with pytest.raises(UserError, match="does not exist"):
        load_scene_set(tmp_path)
    with pytest.raises(UserError, match="no scene 'x'"):
        load_scene_set(built).load("x")
    with pytest.raises(UserError, match="split"):
        load_scene_set(built).ids("test")


def test_loader_needs_no_mesh_tool_no_simulator():
    code = "import sys, scenegen.loader; print([m for m in ('sapien', 'trimesh', 'scipy', 'torch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
