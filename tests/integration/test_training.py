"""The real commands on real scenes in the real simulator, as small as they go: the parts fit, though nothing is learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from genvla.cli import main
from genvla.policy.checkpoints import load_policy

SIM = Path(__file__).parents[2] / "configs" / "sim_cpu.yaml"
SMALL = {"evaluation": {"episodes": 2, "videos": 0}, "hardware": {"threads": 1}, "tracking": {"experiment": "integration"}}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes to train on and one held out."""
    from scenegen.cli import main as scenegen

    folder = tmp_path_factory.mktemp("scenes") / "three"
    sizes = ["--count", "3", "--heldout", "1", "--xy_range", "0.05", "--poses", "8"]
    sizes += ["--catalog", "basic", "--min_distractors", "0", "--distractors", "3"]
    assert scenegen(["build", "--seed", "7", "--output", str(folder), *sizes]) == 0
    return folder


def test_pretrain_then_fit_then_evaluate(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    world = {"scenes": str(scenes), "sim": str(SIM), "num_envs": 2, "workers": 0}
    imitation = {
        "data": {**world, "demonstrations": 4, "minibatch_size": 8, "updates": 2},
        "policy": {"heads": {"value_input": "privileged"}},
        "training": {"iterations": 1},
        "output": "pretrained",
    }
    Path("pretrain.yaml").write_text(yaml.safe_dump({**SMALL, **imitation}))
    assert main(["pretrain", "--config", "pretrain.yaml"]) == 0
    assert load_policy("pretrained").config.heads.value_input == "privileged"
    assert len(list(Path("runs/demonstrations").glob("*.npz"))) == 1

    learning = {
        "checkpoint": "pretrained",
        "data": {**world, "num_scenes": 2, "steps": 7, "minibatch_size": 7, "epochs": 1},
        "module": {"policy_lr": 1e-5},
        "training": {"iterations": 2, "checkpoint_every": 1},
    }
    Path("fit.yaml").write_text(yaml.safe_dump({**SMALL, **learning}))
    assert main(["fit", "--config", "fit.yaml"]) == 0
    run = Path("runs/fit-seed0")
    results = json.loads((run / "results.json").read_text())
    assert results["env_steps"] == 2 * 2 * 7 * 4
    assert all(group["before"]["episodes"] == 2 for group in results["scenes"].values())
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])
    assert first["update/ratio_mean"] == pytest.approx(1, abs=0.1)
    assert first["rollout/episodes"] >= 2

    settings = ["--sim", str(SIM), "--episodes", "2", "--num_envs", "2", "--workers", "0", "--videos", "0"]
    last = str(run / "checkpoints" / "last")
    assert main(["evaluate", "--checkpoint", last, "--scenes", str(scenes), *settings]) == 0
    assert json.loads(Path("evaluation/results.json").read_text())["overall"]["episodes"] == 2


def test_a_broken_scene_is_found_before_a_run_is_begun(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(scenes, broken)
    mesh = next(broken.glob("scenes/*/asset3d/target/result/mesh/target.obj"))
    mesh.unlink()
    data = ["--data.scenes", str(broken), "--data.num_envs", "2", "--data.workers", "0"]
    checkpoint = str(Path(__file__).parents[2] / "checkpoints" / "cpu")
    assert main(["fit", "--checkpoint", checkpoint, *data, "--run_dir", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert mesh.name in message and "scene.json: objects.0.asset.files.visual" in message
    assert not (tmp_path / "run").exists()
