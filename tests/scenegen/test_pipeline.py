"""Whole sets: the command, resuming, determinism, the loader's complaints, and the built scenes in physics."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pydantic import TypeAdapter

from scenegen.checks.run import accepted, check_all
from scenegen.cli import main
from scenegen.designer.base import RulesDesigner
from scenegen.designer.tasks import generate_tasks
from scenegen.engines.chain import ChainEngine
from scenegen.engines.procedural.catalog import BASIC
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.errors import UserError
from scenegen.files import tree_digest
from scenegen.layout.physics import Bench
from scenegen.loader import load_scene, load_scene_set
from scenegen.manifest import UNCOUNTED
from scenegen.options import AssetOptions
from scenegen.pipeline import Builder, Plan
from scenegen.schema import BUILD_LOG, PREVIEW_FILE, PROVENANCE_FILE, QA_FILE, BuildEvent, Provenance, Verdict

COUNT = 4
OPTIONS = ["--count", str(COUNT), "--seed", "3", "--heldout", "1", "--poses", "24", "--catalog", "basic", "--distractors", "3"]
OPTIONS += ["--min-distractors", "0"]


def build(output: Path, *more: str, workers: int = 1) -> int:
    return main(["build", "--output", str(output), *OPTIONS, "--workers", str(workers), *more])


def content(folder: Path) -> str:
    """Of a set, all but the log of how long things took."""
    return tree_digest(folder, UNCOUNTED | {BUILD_LOG})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "set"
    assert build(folder) == 0
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
        assert tree_digest(scene.folder, UNCOUNTED) == line.digest
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


def test_same_seed_same_bytes_with_any_number_of_workers_and_shards(built, tmp_path):
    again = tmp_path / "again"
    assert build(again, workers=2) == 0
    assert content(again) == content(built)
    assert (again / BUILD_LOG).read_bytes() != (built / BUILD_LOG).read_bytes()
    assert load_scene_set(again).digest() == load_scene_set(built).digest()
    shards = tmp_path / "shards"
    for shard in ("1/2", "0/2"):
        assert build(shards, "--shard", shard) == 0
        assert not (shards / "scene_set.jsonl").exists()
    assert build(shards) == 0
    assert content(shards) == content(built)


def test_resume_builds_only_what_is_missing(built, tmp_path, capfd):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    lost = load_scene_set(copy).lines[1]
    shutil.rmtree(copy / lost.path)
    (copy / "scenes" / ".building-s0001_left_over").mkdir()
    assert build(copy, "--resume") == 0
    assert f"({COUNT - 1} already there)" in capfd.readouterr().out
    assert content(copy) == content(built)
    assert build(copy, "--resume", "false") == 2


@pytest.mark.parametrize("after", [0.5, 1.5])
def test_killed_and_resumed_is_as_if_uninterrupted(built, tmp_path, after):
    """Killed so long after the first scene was begun."""
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "scenegen.cli", "build", "--output", str(folder), *OPTIONS, "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        while not list((folder / "scenes").glob(".building-*")) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
    assert build(folder) == 0
    assert content(folder) == content(built)


def test_every_file_says_how_the_scene_came_about(built):
    events = [BuildEvent.model_validate_json(line) for line in (built / BUILD_LOG).read_text().splitlines()]
    assert [event.outcome for event in events].count("accepted") == COUNT
    for scene in load_scene_set(built):
        verdicts = TypeAdapter(list[Verdict]).validate_json((scene.folder / QA_FILE).read_bytes())
        assert verdicts == check_all(scene) and accepted(verdicts)
        assert len(verdicts) == 3 * len(scene.objects) + 2
        event = next(event for event in events if event.scene_id == scene.id and event.outcome == "accepted")
        assert event.verdicts[-len(verdicts) :] == verdicts and {"assets", "layout", "checks"} <= event.seconds.keys()
        provenance = Provenance.model_validate_json((scene.folder / PROVENANCE_FILE).read_bytes())
        assert provenance.engines.keys() == {entry.id for entry in scene.objects}
        assert (provenance.task, provenance.designer) == (scene.instruction, "rules")


def test_replay_makes_every_file_again(built, tmp_path, capfd):
    scene = load_scene_set(built).lines[0]
    assert main(["replay", str(built / scene.path)]) == 0
    assert f"identical, {scene.digest}" in capfd.readouterr().out
    copy = tmp_path / scene.id
    shutil.copytree(built / scene.path, copy)
    texture = next(copy.glob("asset3d/target/result/mesh/*.png"))
    texture.write_bytes(texture.read_bytes() + b" ")
    assert main(["replay", str(copy)]) == 1
    assert texture.name in capfd.readouterr().out


def test_check_says_what_has_changed(built, tmp_path, capfd):
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    assert main(["check", str(copy), "--workers", "1"]) == 0
    said, scenes = capfd.readouterr().out, list(load_scene_set(copy))
    assert f"{COUNT} of {COUNT} scenes are" in said and f"stays there in {COUNT} of {COUNT} scenes" in said
    assets = [entry.asset for scene in scenes for entry in scene.objects]
    assert f"{len(assets)} objects ({len(assets) / COUNT:.2f} a scene), {len({a.asset_id for a in assets})} of them" in said
    assert f"of {len({asset.category for asset in assets})} categories" in said
    folder = copy / load_scene_set(copy).lines[2].path
    with np.load(folder / "poses.npz") as bank:
        poses, offsets = bank["poses"].copy(), bank["offsets"]
    poses[:, 0, 2] += 0.05
    np.savez(folder / "poses.npz", poses=poses, offsets=offsets)
    assert main(["check", str(copy), "--workers", "1"]) == 1
    said = capfd.readouterr().out
    assert f"{folder.name}: settle" in said and f"{folder.name}: files" in said and f"{COUNT - 1} of {COUNT} scenes" in said


@dataclass(frozen=True)
class DeadlyOptions(AssetOptions):
    """An engine that kills its process over an apple and never ends over a can."""

    def engine(self) -> ChainEngine:
        return ChainEngine([DeadlyEngine()])


class DeadlyEngine(ProceduralEngine):
    def generate(self, spec, seed, attempt, folder, feedback=()):
        if spec.category == "apple":
            os.kill(os.getpid(), signal.SIGKILL)
        while spec.category == "can":
            time.sleep(1)
        return super().generate(spec, seed, attempt, folder, feedback)


def test_a_crash_or_a_hang_costs_one_scene(tmp_path):
    tasks = ["put the apple on the plate", "put the can on the plate", "put the lemon on the plate"]
    plan = Plan(tmp_path / "set", tasks, False, 0, "basic", (0, 0), 0.1, 4, attempts=1)
    events = list(Builder(plan, RulesDesigner(BASIC, (0, 0)), DeadlyOptions(), workers=2, timeout=15).run())
    reasons = {result.task: result.reason for result in events[-1].results}
    assert "exit code" in reasons[tasks[0]] and "longer than 15 s" in reasons[tasks[1]] and reasons[tasks[2]] == ""
    assert [scene.instruction for scene in load_scene_set(tmp_path / "set")] == [tasks[2]]
    assert [entry.name for entry in (tmp_path / "set/scenes").iterdir()] == ["s0002_put_the_lemon_on_the_plate"]


class FullDisk(ProceduralEngine):
    def generate(self, spec, seed, attempt, folder, feedback=()):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "visual.glb"))


@dataclass(frozen=True)
class FullDiskOptions(AssetOptions):
    def engine(self) -> ChainEngine:
        return ChainEngine([FullDisk()])


def test_a_full_disk_ends_the_run_at_once(tmp_path):
    plan = Plan(tmp_path / "set", ["put the lemon on the plate"] * 6, False, 0, "basic", (0, 0), 0.1, 4, attempts=3)
    with pytest.raises(UserError, match=r"^output: \S+visual.glb: No space left on device; the same command goes on"):
        list(Builder(plan, RulesDesigner(BASIC, (0, 0)), FullDiskOptions(), workers=1, timeout=60).run())
    assert list((tmp_path / "set/scenes").iterdir()) == [] and not (tmp_path / "set" / BUILD_LOG).exists()


def test_a_full_disk_for_the_log_alone_ends_the_run_at_once_too(tmp_path):
    plan = Plan(tmp_path / "set", ["put the lemon on the plate"] * 3, False, 0, "basic", (0, 0), 0.1, 4)
    (tmp_path / "set").mkdir()
    log = tmp_path / "set" / BUILD_LOG
    log.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"^output: \S+: No space left on device; the same command goes on"):
        list(Builder(plan, RulesDesigner(BASIC, (0, 0)), AssetOptions(), workers=1, timeout=60).run())
    log.unlink()
    list(Builder(plan, RulesDesigner(BASIC, (0, 0)), AssetOptions(), workers=1, timeout=60).run())
    assert len(load_scene_set(tmp_path / "set").lines) == 3


class Fussy(RulesDesigner):
    """Says of every first task that it is impossible."""

    def design(self, task, seed, feedback=()):
        if task in generate_tasks(2, 5, BASIC):
            raise UserError(f"task {task!r}: found it impossible")
        return super().design(task, seed, feedback)


def test_a_drawn_task_that_never_passes_is_replaced(tmp_path):
    designer = Fussy(BASIC, (0, 0))
    tasks = designer.propose(2, 5)
    plan = Plan(tmp_path / "set", tasks, True, 5, "basic", (0, 0), 0.1, 4)
    summary = list(Builder(plan, designer, AssetOptions(), workers=1, timeout=60).run())[-1]
    assert len(summary.accepted) == 2 and not {result.task for result in summary.accepted} & set(tasks)
    again = list(Builder(plan, designer, AssetOptions(), workers=1, timeout=60).run())[-1]
    assert [result.digest for result in again.results] == [result.digest for result in summary.results]
    assert all(result.reused for result in again.results)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--count", "2", "--seed", "4"], "another run|another seed"),
        (["--count", str(COUNT), "--seed", "3", "--poses", "25"], "other tasks, options"),
        (["--count", "0"], "count"),
        ([], "exactly one"),
        (["--count", "2", "--heldout", "2"], "heldout"),
        (["--count", "2", "--shard", "2/2"], "shard"),
        (["--count", "2", "--distractors", "7"], "distractors"),
        (["--count", "2", "--designer", "lm"], "designer"),
        (["--count", "2", "--assets.engines", "[library]"], "assets.library"),
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


def test_a_bad_task_in_a_file_is_told_and_the_others_are_built(tmp_path, capfd):
    tasks = tmp_path / "tasks.txt"
    tasks.write_text("put the apple on the plate\nput the moon on the plate\nfold the cloth\n")
    assert main(["build", "--tasks", str(tasks), "--output", str(tmp_path / "set"), "--poses", "4", "--workers", "1"]) == 0
    said = capfd.readouterr()
    assert "1 scenes accepted" in said.out and "2 rejected" in said.out
    assert "found 'moon'" in said.err and "found no 'put A on B'" in said.err
    assert [line.task for line in load_scene_set(tmp_path / "set").lines] == ["put the apple on the plate"]


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


def test_digest_of_a_set_is_that_of_its_scenes(built, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(built, folder)
    scene = folder / load_scene_set(built).lines[0].path
    first = load_scene_set(folder).digest()
    (folder / BUILD_LOG).unlink()
    (folder / "report.html").write_text("a report")
    (scene / PREVIEW_FILE).write_bytes(b"the picture of another driver")
    (scene / ".left").write_text("by a file browser")
    assert load_scene_set(folder).digest() == first
    manifest = folder / "scene_set.jsonl"
    lines = manifest.read_text()
    manifest.write_text(lines.replace("heldout", "train"))
    assert load_scene_set(folder).digest() != first
    manifest.write_text(lines)
    edit(scene / "scene.json", lambda data: data["objects"][0]["asset"]["physics"].update(mass_kg=0.123))
    assert load_scene_set(folder).digest() != first


def test_loader_needs_no_mesh_tool_no_simulator():
    code = "import sys, scenegen.loader; print([m for m in ('sapien', 'trimesh', 'scipy', 'torch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
