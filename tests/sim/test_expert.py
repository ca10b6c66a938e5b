"""`genvla expert` on real scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from genvla.errors import UserError
from genvla.evaluation.expert import expert_command
from genvla.evaluation.results import EvaluationResult
from genvla.sim import SimConfig, scenes_of


def test_every_scene_is_tried_as_often_and_the_order_is_fixed(
    scenes: Path, sim: SimConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = expert_command(scenes, resets=3, output=tmp_path / "a", num_envs=4, workers=0, sim=sim)
    ids = scenes_of(scenes, "all")
    assert [record.scene_id for record in found.records] == [scene for scene in ids for _ in range(3)]
    assert len({record.seed for record in found.records}) == 9
    assert found.overall.success_once.value >= 0.75
    assert all(record.chunks == -(-min(record.steps + 2, sim.max_steps) // 4) for record in found.records)
    expert_command(scenes, resets=3, output=tmp_path / "b", num_envs=2, workers=2, sim=sim)
    again = EvaluationResult.from_json(tmp_path / "b" / "results.json")
    assert again.records == found.records
    assert "scripted expert" in (tmp_path / "a" / "results.md").read_text()
    assert f"solved {len(ids)} of {len(ids)} scenes" in capsys.readouterr().out


def test_it_names_what_it_never_solves(scenes: Path, sim: SimConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one decision nothing can be carried anywhere."""
    expert_command(scenes, resets=1, output=tmp_path, num_envs=3, workers=0, sim=replace(sim, max_chunks=1))
    told = capsys.readouterr().out
    assert "solved 0 of 3 scenes" in told and all(f"never solved: {scene}" in told for scene in scenes_of(scenes, "all"))


def test_wrong_numbers_are_refused(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resets: 0 found"):
        expert_command(scenes, resets=0, output=tmp_path)
