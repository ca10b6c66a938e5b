"""A sweep of real runs: trained, evaluated, compared, and kept in MLflow; and an evaluation by two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from genvla.cli import main

ROOT = Path(__file__).parents[2]
CHECKPOINT = str(ROOT / "checkpoints" / "cpu")
SIM = str(ROOT / "configs" / "sim_cpu.yaml")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes to train on, of which a split takes two, and one held out by the set."""
    from scenegen.cli import main as scenegen

    folder = tmp_path_factory.mktemp("scenes") / "five"
    sizes = ["--count", "5", "--heldout", "1", "--xy_range", "0.05", "--poses", "8"]
    sizes += ["--catalog", "basic", "--min_distractors", "0", "--distractors", "1"]
    assert scenegen(["build", "--seed", "7", "--output", str(folder), *sizes]) == 0
    return folder


@pytest.mark.slow
def test_two_variants_are_trained_compared_and_kept(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    fit = {
        "checkpoint": CHECKPOINT,
        "data": {"scenes": str(scenes), "sim": SIM, "num_envs": 2, "workers": 0, "steps": 7, "minibatch_size": 7, "epochs": 1},
        "training": {"iterations": 3, "evaluate_every": 1},
        "evaluation": {"episodes": 4, "episodes_during": 2, "videos": 0},
        "hardware": {"threads": 1},
    }
    Path("fit.yaml").write_text(yaml.safe_dump(fit))
    variants = ("frozen_vlm_lora_expert", "frozen_vlm_full_expert")
    definition = {
        "configs": ["fit.yaml"],
        "output": "out",
        "options": {"data.num_scenes": 1, "data.split_seed": "{seed}"},
        "axes": {"variant": {name: str(ROOT / "configs" / "variants" / f"{name}.yaml") for name in variants}},
        "suites": {"unseen": {"scenes": str(scenes), "episodes": 2, "num_envs": 2, "workers": 0, "terminate_on_success": True}},
    }
    Path("sweep.yaml").write_text(yaml.safe_dump(definition))
    assert main(["sweep", "--config", "sweep.yaml"]) == 0
    run = Path("out/runs/frozen_vlm_lora_expert-seed0")
    assert len((run / "scenes.txt").read_text().split()) == 1
    data = json.loads(Path("out/comparison/comparison.json").read_text())
    assert set(data["groups"]) == set(variants)
    assert set(data["groups"]["frozen_vlm_full_expert"]["suites"]) == {"train", "heldout", "unseen"}
    assert data["settings"]["finetuning.expert"] == {
        "frozen_vlm_lora_expert": "lora",
        "frozen_vlm_full_expert": "full",
    }
    assert main(["sweep", "--config", "sweep.yaml"]) == 0

    # The same comparison from MLflow alone.
    assert main(["compare", "--filter", "tags.sweep = 'out'", "--by", "group", "--output", "again"]) == 0
    again = json.loads(Path("again/comparison.json").read_text())
    for group in variants:
        assert (
            again["groups"][f"group {group}"]["suites"]["unseen"]["after"] == data["groups"][group]["suites"]["unseen"]["after"]
        )


@pytest.mark.slow
def test_two_processes_evaluate_as_one(scenes: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    words = ["evaluate", "--checkpoint", CHECKPOINT, "--scenes", str(scenes), "--split", "train", "--split_seed", "3"]
    words += ["--episodes", "4", "--num_envs", "2", "--workers", "0", "--videos", "2", "--device", "cpu"]
    for devices in ("1", "2"):
        output = str(tmp_path / devices)
        subprocess.run(
            [sys.executable, "-m", "genvla.cli", *words, "--devices", devices, "--output", output], cwd=ROOT, check=True
        )
    alone, together = ((tmp_path / devices / "results.json").read_text() for devices in ("1", "2"))
    assert together == alone
    assert {file.name for file in (tmp_path / "2").iterdir()} == {"results.json", "results.md", "episodes.mp4", "episodes.png"}
