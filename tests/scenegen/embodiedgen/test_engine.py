"""The driver, against a real process that writes EmbodiedGen's folders, or does not."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from scenegen.engines.base import EngineError
from scenegen.engines.embodiedgen import EmbodiedGenEngine, EmbodiedGenFiles
from scenegen.errors import UserError
from scenegen.schema import NodeSpec, Role
from tests.scenegen.embodiedgen.folders import Asset, box, cube_pieces, write_asset

PROGRAM = """
import argparse, os, pathlib, shutil, subprocess, sys, time
mode = os.environ.get("FAKE_MODE", "")
print("loading models", flush=True)
if mode == "hangs":
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
parser = argparse.ArgumentParser()
parser.add_argument("--prompts", nargs="+")
parser.add_argument("--asset_names", nargs="+")
parser.add_argument("--output_root", type=pathlib.Path)
parser.add_argument("--seed_img", type=int)
parser.add_argument("--seed_3d", type=int)
args = parser.parse_args()
with open(os.environ["FAKE_RUNS"], "a") as runs:
    print(len(args.prompts), args.seed_img, args.seed_3d, file=runs)
for i, (prompt, name) in enumerate(zip(args.prompts, args.asset_names)):
    if mode == "dies" and i == 1:
        print("out of memory", file=sys.stderr)
        sys.exit(3)
    if mode == "forgets" and i == 1:
        continue
    result = args.output_root / "asset3d" / name / "result"
    shutil.copytree(os.environ["FAKE_TEMPLATE"], result)
    for file in ("mesh/thing.obj", "mesh/thing_collision.obj", "thing.urdf"):
        text = (result / file).read_text().replace("thing", name).replace("PROMPT", prompt)
        if file.endswith("obj"):
            factor = 0.8 + args.seed_3d % 1000 / 2000
            lines = [line.split() for line in text.splitlines()]
            scaled = [["v", *(str(float(n) * factor) for n in line[1:])] if line[0] == "v" else line for line in lines]
            text = "\\n".join(map(" ".join, scaled))
        (result / file).unlink()
        (result / file.replace("thing", name)).write_text(text[:200] if mode == "tears" and i == 0 else text)
    print("finished", name, flush=True)
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbodiedGenEngine:
    script = tmp_path / "text3d.py"
    script.write_text(PROGRAM)
    template = write_asset(tmp_path / "template", "thing", Asset(cube_pieces(), (200, 32, 34), info={"description": "PROMPT"}))
    monkeypatch.setenv("FAKE_TEMPLATE", str(template.parent))
    monkeypatch.setenv("FAKE_RUNS", str(tmp_path / "runs"))
    return EmbodiedGenEngine(tmp_path / "made", f"'{sys.executable}' '{script}'", timeout=60)


def node(name: str = "red block", category: str = "block", **more: object) -> NodeSpec:
    fields = {"id": "target", "name": name, "role": Role.TARGET, "category": category, "description": f"a {name}", **more}
    return NodeSpec.model_validate(fields)


def runs(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs").read_text().splitlines()


def test_one_process_makes_a_batch_and_nothing_twice(engine, tmp_path):
    nodes = [node(), node("green block", id="other")]
    engine.prepare(nodes, seed=7)
    engine.prepare(nodes, seed=7)
    first = engine.generate(nodes[0], 7, 0, tmp_path / "scene")
    assert [line.split()[0] for line in runs(tmp_path)] == ["2"]
    assert first.graspable and first.engine == "embodiedgen" and first.engine_version == "v0.1.5"
    assert (tmp_path / "scene" / first.files.visual).is_file()
    again = engine.generate(nodes[0], 7, 1, tmp_path / "scene")
    assert len(runs(tmp_path)) == 2 and runs(tmp_path)[0] != runs(tmp_path)[1]  # another attempt has other seeds
    assert again.extents_m != first.extents_m


def test_what_hangs_is_killed_with_all_it_started(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_MODE", "hangs")
    engine.timeout = 4
    started = time.monotonic()
    with pytest.raises(EngineError, match="not done after 4 s; last line") as error:
        engine.generate(node(), 0, 0, tmp_path / "scene")
    assert time.monotonic() - started < 30
    child = int(str(error.value).split("'")[-2])
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.05)
    assert not alive(child)
    assert not (tmp_path / "scene").exists()


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    if not status.parent.parent.is_dir():
        pytest.skip("no /proc here")
    return status.is_file() and "State:\tZ" not in status.read_text()


def test_what_was_finished_before_a_crash_is_kept(engine, tmp_path, monkeypatch):
    nodes = [node(), node("green block", id="other"), node("blue block", id="third")]
    monkeypatch.setenv("FAKE_MODE", "dies")
    with pytest.raises(EngineError, match="ended with 3; last line: 'out of memory'"):
        engine.prepare(nodes, seed=1)
    monkeypatch.setenv("FAKE_MODE", "")
    engine.prepare(nodes, seed=1)
    assert [line.split()[0] for line in runs(tmp_path)] == ["3", "2"]


def test_an_object_left_out_is_an_error(engine, monkeypatch):
    monkeypatch.setenv("FAKE_MODE", "forgets")
    with pytest.raises(EngineError, match="left out 1 of 2: block_.*found no URDF"):
        engine.prepare([node(), node("green block", id="other")], seed=1)


def test_a_torn_urdf_is_an_error_and_made_again(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_MODE", "tears")
    with pytest.raises(EngineError, match="not valid XML"):
        engine.generate(node(), 0, 0, tmp_path / "scene")
    monkeypatch.setenv("FAKE_MODE", "")
    assert engine.generate(node(), 0, 0, tmp_path / "scene").graspable


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="embodiedgen_command: 'no-such-program' does not start"):
        EmbodiedGenEngine(tmp_path, ["no-such-program"]).prepare([node()], 0)


def test_an_object_far_too_large_is_refused(tmp_path):
    write_asset(tmp_path / "a", "block", Asset([box((0.4, 0.4, 0.4))], (200, 32, 34), info={"category": "block"}))
    with pytest.raises(EngineError, match="block") as error:
        EmbodiedGenFiles(tmp_path).generate(node(), 0, 0, tmp_path / "scene")
    assert "\n" not in str(error.value) and not (tmp_path / "scene").exists()


@pytest.fixture
def made_before(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    for name, color, category, text in (
        ("one", (200, 32, 34), "Block", "a red toy"),
        ("two", (34, 78, 186), "block", "a blue toy"),
        ("three", (200, 32, 34), "toy", "a red block of wood"),
        ("four", (200, 32, 34), "block", "another red toy"),
    ):
        pieces = [box((0.03, 0.03, 0.03 + len(text) / 1e4))]
        write_asset(root / name, name, Asset(pieces, color, info={"category": category, "description": text}))
    (root / "torn").mkdir()
    (root / "torn/torn.urdf").write_text("<robot><link>")
    return root


def test_files_are_matched_by_kind_and_colour(made_before, tmp_path):
    files = EmbodiedGenFiles(made_before)
    assert len(files.unreadable) == 1 and "torn.urdf: not valid XML" in files.unreadable[0]
    red, white = node(color="red"), node("white block", color="white")
    assert files.supports(red) == 1.0 > files.supports(white) > 0 == files.supports(node("pear", "pear"))
    assert files.generate(node("blue block", color="blue"), 0, 0, tmp_path / "b").color == "blue"
    with pytest.raises(EngineError, match="none of 4 assets is a pear"):
        files.generate(node("pear", "pear"), 0, 0, tmp_path / "p")


def test_other_attempts_and_seeds_take_other_files_of_the_best(made_before, tmp_path):
    files = EmbodiedGenFiles(made_before)
    heights = {0.03 + len(text) / 1e4 for text in ("a red toy", "another red toy")}

    def taken(seed: int, attempt: int) -> float:
        return files.generate(node(color="red"), seed, attempt, tmp_path / "scene").extents_m[2]

    first = [taken(5, attempt) for attempt in range(3)]
    assert sorted(first[:2]) == pytest.approx(sorted(heights)) and first[2] == first[0]
    assert taken(5, 0) == first[0]
    assert len({taken(seed, 0) for seed in range(8)}) == 2
