from __future__ import annotations

import fcntl
import json
import os
import shlex
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation import comparison_figures
from genvla.evaluation.overview import BEFORE
from genvla.learning import sweep_cells
from genvla.learning.grid import make_cells
from genvla.learning.sweep import sweep
from genvla.learning.sweep_display import SweepDisplay, iterations_of, last_row
from tests.evaluation.runs import write_run

CONFIGS = Path(__file__).parents[2] / "configs"
AXES: dict[str, Any] = {"module.ratio_power": [1.0, 0.2]}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prepared runs of the cells of AXES and two seeds, from which the stand-in for `genvla` copies."""
    prepared = tmp_path / "prepared"
    for power, chance in ((1.0, 0.4), (0.2, 0.8)):
        for seed in (0, 1):
            name = f"ratio_power_{power}-seed{seed}"
            settings = {"tracking": {"uri": "none"}, "module": {"ratio_power": power}}
            run = write_run(prepared / name, chance, seed, settings)
            (run / "checkpoints" / "last").mkdir(parents=True)
            torch.save({"tracker": {}}, run / "checkpoints" / "last" / "training_state.ckpt")
    (prepared / "plan.json").write_text("{}")
    fake = Path(__file__).with_name("fake_genvla.py")
    monkeypatch.setattr(sweep_cells, "GENVLA", (sys.executable, str(fake), str(prepared)))
    monkeypatch.setattr(comparison_figures, "write_figures", lambda *_: {})  # takes longest, and is tested elsewhere
    (tmp_path / "base.yaml").write_text("{}")
    return tmp_path


def plan(base: Path, **endings: list[int]) -> None:
    (base / "prepared" / "plan.json").write_text(json.dumps(endings))


def calls(base: Path) -> list[list[str]]:
    file = base / "prepared" / "calls"
    lines = file.read_text().splitlines() if file.is_file() else []
    file.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def run(base: Path, **options: Any) -> int:
    return sweep([base / "base.yaml"], AXES, base / "out", **{"seeds": [0, 1], **options})


def test_every_combination_meets_every_seed(tmp_path: Path) -> None:
    fragment = tmp_path / "lora.yaml"
    fragment.write_text("{}")
    axes = {
        "module.ratio_power": [1.0, 0.2],
        "variant": {"lora": str(fragment), "wide": {"policy.width": 9, "data.split_seed": "{seed}"}},
    }
    cells = list(make_cells([fragment], axes, [0, 7], {"data.only": None, "policy.width": 1}))
    assert [cell.name for cell in cells[:3]] == [
        "ratio_power_1.0_lora-seed0",
        "ratio_power_1.0_lora-seed7",
        "ratio_power_1.0_wide-seed0",
    ]
    assert len({cell.name for cell in cells}) == 8
    lora, wide = cells[1].arguments(), cells[7].arguments()
    twice = ["--config", str(fragment)] * 2
    assert lora == [*twice, "--data.only=null", "--policy.width=1", "--module.ratio_power=1.0", "--seed=7"]
    assert wide == [
        *twice[:2],
        "--data.only=null",
        "--policy.width=9",
        "--module.ratio_power=0.2",
        "--data.split_seed=7",
        "--seed=7",
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "0 axes"),
        ({"a": []}, r"axes\.a: \[\] found"),
        ({"a": {"x": 3}}, r"axes\.a\.x: 3 found"),
        ({"a": {"x": "nowhere.yaml"}}, "nowhere.yaml not found"),
        ({"a": ["b c", "b_c"]}, "two combinations are called a_b_c"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(make_cells([], axes, [0], {}))


def test_cells_are_run_evaluated_and_compared_and_not_again(base: Path) -> None:
    suites = {"unseen": {"scenes": "w", "seed": "{seed}"}}
    assert run(base, suites=suites) == 0
    made = calls(base)
    assert [call[0] for call in made] == ["fit", "evaluate"] * 4
    assert made[1][2:4] == ["--scenes=w", "--seed=0"] and made[7][3] == "--seed=1"
    data = json.loads((base / "out" / "comparison" / "comparison.json").read_text())
    assert {name: len(entry["runs"]) for name, entry in data["groups"].items()} == {"ratio_power_1.0": 2, "ratio_power_0.2": 2}
    assert set(data["groups"]["ratio_power_0.2"]["suites"]) == {"train", "heldout", "unseen"}
    assert run(base, suites=suites) == 0
    assert calls(base) == []
    (base / "out" / "runs" / "ratio_power_1.0-seed1" / "suites" / "unseen" / "results.json").unlink()
    (base / "out" / "runs" / "ratio_power_1.0-seed1" / "suites" / "unseen").rmdir()
    assert run(base, suites=suites) == 0
    assert [call[0] for call in calls(base)] == ["evaluate"]


def test_the_baseline_is_evaluated_once_and_stands_beside_every_cell(base: Path) -> None:
    suites = {"unseen": {"scenes": "w"}, "drawn": {"scenes": "w", "split_seed": "{seed}"}}
    baseline = base / "prepared" / "ratio_power_1.0-seed0" / "checkpoints" / "last"
    assert run(base, suites=suites, baseline=baseline) == 0
    made = calls(base)
    first = [call[-1].rpartition("/")[2] for call in made[:3]]
    assert first == ["unseen", "drawn-seed0", "drawn-seed1"] and len(made) == 3 + 4 * 3
    assert [call[3] for call in made[1:3]] == ["--split_seed=0", "--split_seed=1"]
    data = json.loads((base / "out" / "comparison" / "comparison.json").read_text())
    assert all(entry["suites"][suite]["before"] for entry in data["groups"].values() for suite in suites)
    assert run(base, suites=suites, baseline=baseline) == 0 and calls(base) == []


def test_a_run_that_a_killed_sweep_left_behind_is_waited_for(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It holds the lock on its log; when it is done, nothing is left to do for its cell."""
    name = "ratio_power_1.0-seed0"
    log = base / "out" / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True)
    words = [*sweep_cells.GENVLA, "fit", f"--run_dir={base / 'out' / 'runs' / name}"]
    with log.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        late = subprocess.Popen(["sh", "-c", f"sleep 2; {shlex.join(words)}"], stdout=file)
    assert run(base) == 0
    assert late.wait() == 0
    told = capsys.readouterr().out
    assert f"{name}: another process is at it" in told and f"[1/4] {name}: finished before" in told
    assert len(calls(base)) == 4


def test_the_display_tells_how_far_a_run_is(tmp_path: Path) -> None:
    assert last_row(tmp_path) == {} and iterations_of(tmp_path) is None
    lines = [json.dumps({"step": step, "rollout/success": step / 10}) for step in range(4)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "roll')
    (tmp_path / "config.yaml").write_text("training: {iterations: 8}")
    assert last_row(tmp_path) == {"step": 3, "rollout/success": 0.3} and iterations_of(tmp_path) == 8
    console = Console(force_terminal=True, width=100, file=StringIO())
    with SweepDisplay(["a", "b"], 1, console) as display:
        display.begin("a", "training", tmp_path)
        display.look("a")
        display._bars.refresh()
        display.end("a", 7200.0)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3/8" in shown and "success 30 %" in shown and "[1/2] a: done in 120.0 min; 1 left, at most about 2.0 h" in shown


def test_a_failed_cell_is_told_and_tried_again_and_the_others_go_on(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(base, **{"ratio_power_1.0-seed1": [1]})
    assert run(base, jobs=2) == 1
    told = capsys.readouterr().out
    assert "ratio_power_1.0-seed1: failed with exit code 1: boom 1" in told and "failed: ratio_power_1.0-seed1" in told
    assert len(calls(base)) == 4 and (base / "out" / "comparison" / "comparison.html").is_file()
    assert run(base) == 0
    again = calls(base)
    assert len(again) == 1 and "--resume" not in again[0] and again[0][-1].endswith("ratio_power_1.0-seed1")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not tell cores")
@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_cells_that_run_at_a_time_share_the_cores(base: Path, jobs: int) -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert run(base, jobs=jobs) == 0
    shares = [json.loads(line) for line in (base / "prepared" / "cores").read_text().splitlines()]
    assert len(shares) == 4 and sorted(os.sched_getaffinity(0)) == mine
    assert {len(share) for share in shares} <= {max(1, len(mine) // jobs), -(-len(mine) // jobs)}
    assert {core for share in shares for core in share} <= set(mine)
    if jobs <= len(mine):  # no core in two shares
        different = {tuple(share) for share in shares}
        assert sum(map(len, different)) == len({core for share in different for core in share})


@pytest.mark.parametrize(("ending", "code"), [(130, 130), (75, 75)])
def test_a_stopped_cell_stops_the_sweep_and_is_resumed(base: Path, ending: int, code: int) -> None:
    plan(base, **{"ratio_power_1.0-seed1": [ending]})
    assert run(base) == code
    assert len(calls(base)) == 2 and not (base / "out" / "comparison").exists()
    assert run(base) == 0
    first, *rest = calls(base)
    assert first == ["fit", "--resume", str(base / "out" / "runs" / "ratio_power_1.0-seed1")] and len(rest) == 2


def test_one_cell_alone_by_number_or_name(base: Path) -> None:
    assert run(base, only="2") == 0
    assert run(base, only="ratio_power_1.0-seed0") == 0
    assert [call[-1].rpartition("/")[2] for call in calls(base)] == ["ratio_power_0.2-seed0", "ratio_power_1.0-seed0"]
    assert not (base / "out" / "comparison").exists()
    with pytest.raises(UserError, match="no cell '4', want 0 to 3"):
        run(base, only="4")


def test_other_cells_of_the_same_name_and_options_that_do_not_exist_are_refused(base: Path) -> None:
    assert run(base, only="0") == 0
    with pytest.raises(UserError, match=r"ratio_power_1.0-seed0 was run otherwise, --training.iterations=9 differs"):
        run(base, options={"training.iterations": 9})
    with pytest.raises(UserError, match="Unknown option: nonsense"):
        sweep([base / "base.yaml"], AXES, base / "other", options={"nonsense": 1})
    assert not (base / "other").exists()


def test_cells_of_other_settings_files_are_refused_before_any_runs(base: Path) -> None:
    (base / "base.yaml").write_text("data: {sim: parts/sim.yaml}\n")
    (base / "parts").mkdir()
    sim = base / "parts" / "sim.yaml"
    sim.write_text("sim_hz: 50\n")
    assert run(base, only="0") == 0
    sim.write_text("sim_hz: 50  # coarse\n")
    assert run(base, only="0") == 0
    sim.write_text("sim_hz: 100\n")
    calls(base)
    with pytest.raises(
        UserError, match=r"ratio_power_1.0-seed0 was run otherwise, .*parts/sim.yaml differs; want another output"
    ):
        run(base, only="1")
    assert calls(base) == []


def test_slurm_script_has_a_task_for_each_cell(base: Path) -> None:
    script = base / "array.sh"
    assert run(base, slurm=script) == 0
    assert calls(base) == []
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert stat.S_ISREG(script.stat().st_mode) and "#SBATCH --array=0-3\n" in script.read_text()
    written = yaml.safe_load((base / "out" / "sweep.yaml").read_text())
    cells = make_cells([Path(path) for path in written["configs"]], written["axes"], written["seeds"], written["options"])
    assert [cell.name for cell in cells][1] == "ratio_power_1.0-seed1"
    words = next(line for line in script.read_text().splitlines() if "SLURM_ARRAY_TASK_ID" in line)
    assert words.endswith(f'sweep --config {base / "out" / "sweep.yaml"} --only "$SLURM_ARRAY_TASK_ID"')


def settings_of(path: Path) -> dict[str, Any]:
    """A configuration file over its base."""
    own = yaml.safe_load(path.read_text())
    shared = settings_of(path.parent / own.pop("base")) if "base" in own else {}
    return shared | {key: {**shared.get(key, {}), **value} if isinstance(value, dict) else value for key, value in own.items()}


@pytest.mark.parametrize("path", sorted((CONFIGS / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_make_their_cells(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    definition = yaml.safe_load(path.read_text())
    base = [Path(config) for config in definition["configs"]]
    cells = list(make_cells(base, definition["axes"], definition["seeds"], definition.get("options", {})))
    assert len(cells) == {"scenes": 18, "steps_k": 9, "ratio_power": 9, "variants": 15}[path.stem]
    shared, options = settings_of(base[0]), definition["options"]
    shape = shared["data"]
    iterations = options.get("training.iterations", shared["training"]["iterations"])
    steps = iterations * shape["num_envs"] * shape["steps"] * 4
    assert steps == {"scenes": 1_008_000}.get(path.stem, 501_760), "what the files' comments say"
    assert options.get("training.max_seconds", shared["training"].get("max_seconds")) is None, "cells with unequal budgets"
    reference = definition.get("reference")
    published = definition.get("published", {}).get("success", {}).keys() - {BEFORE}
    assert {*published, *([reference] if reference else [])} <= {cell.group for cell in cells}
    along = {json.dumps(cell.options.get(definition["along"])) for cell in cells} if "along" in definition else {"1"}
    assert all(float(value) for value in along)
    folders = {options.get("data.scenes", shape["scenes"]), *(suite["scenes"] for suite in definition.get("suites", {}).values())}
    assert folders == {shape["scenes"]}
