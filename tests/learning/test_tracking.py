from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from genvla.errors import UserError
from genvla.learning import tracking
from genvla.learning.tracking import NO_TRACKING, Tracker


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run_id, key)]


def test_metrics_reach_the_file_and_mlflow(uri: str, tmp_path: Path) -> None:
    with Tracker(tmp_path, "metrics", "first", uri) as tracker:
        tracker.log_metrics({"loss": torch.tensor(0.5), "train": {"kl": 2}}, step=3)
        tracker.log_metrics({"loss": float("nan")}, step=4)
    assert lines(tmp_path) == [{"step": 3, "loss": 0.5, "train/kl": 2.0}, {"step": 4, "loss": None}]
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert history(uri, tracker.run_id, "train/kl") == [(3, 2.0)]
    assert [step for step, _ in history(uri, tracker.run_id, "loss")] == [3, 4]


def test_nothing_about_the_host_is_recorded(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "tags", None, uri, tags={"seed": 7})
    tracker.log_metrics({"loss": 1.0}, step=0)
    run = MlflowClient(uri).get_run(tracker.run_id)
    assert run.data.tags["seed"] == "7"
    assert run.data.tags["mlflow.user"] == run.info.user_id == "-"
    values = " ".join(run.data.tags.values())
    for private in (socket.gethostname(), os.getcwd(), sys.executable):
        assert private not in values
    assert getpass.getuser() not in (run.data.tags["mlflow.user"], run.info.user_id)


def test_revision_tags_follow_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "genvla" / "learning" / "tracking.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    monkeypatch.setattr(tracking, "__file__", str(source))
    assert set(tracking.revision_tags()) == {"genvla.version"}

    def git(*command: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *command], capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    git("add", "genvla")
    git("commit", "-q", "-m", "first")
    tags = tracking.revision_tags()
    assert tags["git.revision"] == git("rev-parse", "HEAD").strip()
    assert tags["git.dirty"] == "false"
    source.write_text("changed")
    assert tracking.revision_tags()["git.dirty"] == "true"


def test_config_becomes_parameters_and_a_file(uri: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "config", None, uri)
    tracker.log_config(
        {"policy": {"width": 96, "note": "x" * 7000}, "scenes": Path("scenes/cpu"), **{f"k{i}": i for i in range(150)}}
    )
    client = MlflowClient(uri)
    params = client.get_run(tracker.run_id).data.params
    assert params["policy.width"] == "96"
    assert params["scenes"] == "scenes/cpu"
    assert params["k149"] == "149"
    assert len(params["policy.note"]) == 6000
    text = Path(client.download_artifacts(tracker.run_id, "config.yaml", str(tmp_path))).read_text()
    assert "width: 96" in text

    tracker.log_config({"policy": {"width": 128}, "added": 1})
    params = client.get_run(tracker.run_id).data.params
    assert params["policy.width"] == "96"
    assert params["added"] == "1"


def test_artifacts_lie_beside_the_database(uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    tracker = Tracker(tmp_path / "run", "artifacts", None, uri)
    tracker.log_artifact(folder, "after")
    tracker.log_artifact(folder / "a.mp4")
    store = Path(uri.removeprefix("sqlite:///")).parent / "mlruns"
    stored = sorted(str(path.relative_to(store)) for path in store.rglob("a.mp4"))
    assert stored == [f"artifacts/{tracker.run_id}/artifacts/a.mp4", f"artifacts/{tracker.run_id}/artifacts/after/a.mp4"]
    with pytest.raises(FileNotFoundError):
        tracker.log_artifact(tmp_path / "absent")


@pytest.mark.parametrize("through_constructor", [True, False])
def test_resume_goes_on_in_the_same_run(uri: str, tmp_path: Path, through_constructor: bool) -> None:
    first = Tracker(tmp_path, "resume", None, uri)
    first.log_metrics({"loss": 1.0}, step=1)
    state = first.state_dict()
    first.log_metrics({"loss": 2.0}, step=2)
    first.finish("KILLED")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # as a crash leaves it

    if through_constructor:
        second = Tracker(tmp_path, "resume", None, uri, resume_id=state["run_id"], resume_step=state["step"])
    else:
        second = Tracker(tmp_path, "resume", None, uri)
        second.load_state_dict(json.loads(json.dumps(state)))
    assert MlflowClient(uri).get_run(first.run_id).info.status == "RUNNING"
    second.log_metrics({"loss": 4.0}, step=2)
    assert second.run_id == first.run_id
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 4.0}]
    assert history(uri, first.run_id, "loss")[-1] == (2, 4.0)


@given(st.lists(st.integers(0, 40), max_size=20), st.integers(-1, 41))
def test_truncation_keeps_what_is_not_later(tmp_path_factory: pytest.TempPathFactory, steps: list[int], last: int) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    tracker = Tracker(run_dir, "e", None, NO_TRACKING)
    (run_dir / "metrics.jsonl").touch()
    for step in steps:
        tracker.log_metrics({"loss": step}, step)
    tracker.load_state_dict({"run_id": None, "step": last})
    assert [line["step"] for line in lines(run_dir)] == [step for step in steps if step <= last]


def test_without_tracking_only_the_run_directory_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracker(tmp_path / "run", "e", None, NO_TRACKING) as tracker:
        tracker.log_config({"a": 1})
        tracker.set_tags({"a": 1})
        tracker.log_metrics({"loss": 1.0}, 0)
        tracker.log_artifact(tmp_path / "run" / "metrics.jsonl")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["run", "run/metrics.jsonl"]
    assert tracker.state_dict() == {"run_id": None, "step": 0}


def test_default_store_is_the_one_mlflow_ui_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    import mlflow

    assert tracking.default_tracking_uri() == mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org")
    assert tracking.default_tracking_uri() == "http://tracking.example.org"


@pytest.mark.parametrize("bad", ["http://127.0.0.1:9", "sqlite:////proc/absent/mlflow.db", "nonsense://x"])
def test_unreachable_store_is_named(bad: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=bad):
        Tracker(tmp_path, "e", None, bad)


def test_unknown_run_is_an_error(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0123456789abcdef"):
        Tracker(tmp_path, "e", None, uri, resume_id="0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_status_tells_how_the_run_ended(uri: str, tmp_path: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), Tracker(tmp_path, "status", None, uri) as tracker:
        tracker.log_metrics({"loss": 0.0}, 0)
        raise error
    assert MlflowClient(uri).get_run(tracker.run_id).info.status == status
