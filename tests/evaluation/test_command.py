from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genvla.sim
from genvla.errors import UserError
from genvla.evaluation.command import evaluate_command
from genvla.evaluation.episodes import episode_specs, spread_over_scenes
from genvla.evaluation.provenance import digest
from genvla.evaluation.results import EvaluationResult
from genvla.evaluation.videos import worth_filming
from genvla.policy.checkpoints import save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.types import ActionChunk, EpisodeRecord, EpisodeSpec, Transition
from scenegen.loader import load_scene_set
from tests.empty_scenes import write_scene_set
from tests.evaluation.toy import ToyEnv


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_policy(FlowPolicy(), folder)
    return folder


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set with an empty scene, and the toy in place of the simulator."""
    monkeypatch.setattr(genvla.sim, "scenes_of", lambda scenes, split: [f"{split}_{i}" for i in range(5)])
    monkeypatch.setattr(genvla.sim, "make_vector_env", lambda scenes, sim, num_envs, workers: ToyEnv(num_envs, 4))
    return write_scene_set(tmp_path / "scenes")


def test_the_same_command_writes_the_same_results(checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    first = evaluate_command(checkpoint, scenes, episodes=6, num_envs=6, videos=3, output=tmp_path / "first", integration_steps=2)
    evaluate_command(checkpoint, scenes, episodes=6, num_envs=6, videos=0, output=tmp_path / "second", integration_steps=2)
    assert {file.name for file in (tmp_path / "first").iterdir()} == {
        "results.json",
        "results.md",
        "episodes.mp4",
        "episodes.png",
    }
    assert {file.name for file in (tmp_path / "second").iterdir()} == {"results.json", "results.md"}
    for name in ("results.json", "results.md"):
        assert (tmp_path / "first" / name).read_text() == (tmp_path / "second" / name).read_text()
    assert EvaluationResult.from_json(tmp_path / "first" / "results.json") == first
    assert first.overall.episodes == 6 and len(first.per_scene) == 5
    assert first.protocol.integration_steps == 2 and first.protocol.sim["image_size"] == 64
    assert first.protocol.checkpoint_digest == digest(checkpoint)
    assert first.protocol.scene_set_digest == load_scene_set(scenes).digest()


def test_an_interrupted_evaluation_ends_with_the_same_files(
    checkpoint: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"episodes": 9, "num_envs": 2, "videos": 4, "integration_steps": 2}
    evaluate_command(checkpoint, scenes, output=tmp_path / "whole", **options)
    started: list[EpisodeSpec] = []

    class Power(ToyEnv):
        """Goes out after some steps; what it starts is counted."""

        lasts = 9

        def step(self, actions: ActionChunk) -> Transition:
            if self.time == self.lasts:
                raise KeyboardInterrupt
            transition = super().step(actions)
            started.extend(spec for spec in self.started if spec not in started)
            return transition

    monkeypatch.setattr(genvla.sim, "make_vector_env", lambda scenes, sim, num_envs, workers: Power(num_envs, 4))
    output = tmp_path / "parts"
    for Power.lasts in (9, 6):
        with pytest.raises(KeyboardInterrupt):
            evaluate_command(checkpoint, scenes, output=output, **options)
    assert {file.name for file in output.iterdir()} == {"unfinished-0.jsonl"}
    with pytest.raises(UserError, match=r"protocol\.seed 0 .* 1"):
        evaluate_command(checkpoint, scenes, output=output, seed=1, **options)
    Power.lasts = 10**6
    started.clear()
    evaluate_command(checkpoint, scenes, output=output, **options)
    assert len(started) < 9
    assert {file.name for file in output.iterdir()} == {file.name for file in (tmp_path / "whole").iterdir()}
    for file in output.iterdir():
        assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes()


def test_there_are_no_results_before_there_are_films(
    checkpoint: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    options = {"episodes": 4, "num_envs": 2, "videos": 2, "integration_steps": 2}
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("genvla.evaluation.videos.write_strip", stopped)
        evaluate_command(checkpoint, scenes, output=tmp_path / "out", **options)
    assert not (tmp_path / "out" / "results.json").exists()
    evaluate_command(checkpoint, scenes, output=tmp_path / "out", **options)
    written = {"results.json", "results.md", "episodes.mp4", "episodes.png"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == written


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=60), st.integers(0, 12))
def test_films_show_successes_and_failures_of_different_scenes(outcomes: list[tuple[int, bool]], count: int) -> None:
    records = [
        EpisodeRecord(f"scene_{scene}", seed, success, success, success, 4, 1, "")
        for seed, (scene, success) in enumerate(outcomes)
    ]
    chosen = worth_filming(records, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(records))
    for kind in (True, False):
        of_kind = [record for record in records if record.success_once is kind]
        shown = [record for record in of_kind if record.spec in chosen]
        assert len(shown) >= min(len(of_kind), count // 2)
        assert len({record.scene_id for record in shown}) == min(len(shown), len({record.scene_id for record in of_kind}))


def test_what_cannot_be_used_is_refused(checkpoint: Path, scenes: Path, tmp_path: Path) -> None:
    for wrong in (
        {"episodes": 0},
        {"num_envs": 0},
        {"workers": -1},
        {"videos": -1},
        {"integration_steps": 0},
        {"device": "abacus"},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            evaluate_command(checkpoint, scenes, output=tmp_path / "out", **wrong)
    with pytest.raises(UserError):
        evaluate_command(tmp_path / "nothing", scenes, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 12))
def test_films_are_of_different_scenes_where_there_are_enough(scenes: int, total: int, count: int) -> None:
    specs = episode_specs([f"scene_{i}" for i in range(scenes)], 0, total=total)
    chosen = spread_over_scenes(specs, count)
    assert len(chosen) == len(set(chosen)) == min(count, total) and set(chosen) <= set(specs)
    assert len({spec.scene_id for spec in chosen}) == min(count, total, scenes)


def test_digest_changes_with_any_name_or_content(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "meshes").mkdir(parents=True)
    (folder / "a.json").write_text("1")
    (folder / "meshes" / "b.obj").write_text("2")
    seen = [digest(folder)]
    assert digest(folder) == seen[0]
    (folder / ".hidden").write_text("left behind")
    assert digest(folder) == seen[0]
    (folder / "meshes" / "b.obj").write_text("3")
    seen.append(digest(folder))
    (folder / "meshes" / "b.obj").rename(folder / "b.obj")
    seen.append(digest(folder))
    (folder / "empty").write_text("")
    seen.append(digest(folder))
    assert len(set(seen)) == 4
