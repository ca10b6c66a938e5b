from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genvla.errors import UserError
from genvla.evaluation.episodes import episode_specs, run_episodes
from genvla.evaluation.journal import Journal
from genvla.evaluation.results import Protocol
from tests.evaluation.toy import ToyEnv, toy_act

PROTOCOL = Protocol("heldout", 3, sim={"camera": {"fov": 40.0}})
SPECS = episode_specs(["bowl", "mug"], 3, total=8)


def fill(folder: Path, count: int, rank: int = 0) -> Journal:
    journal = Journal(folder, PROTOCOL, rank)
    run_episodes(toy_act, ToyEnv(2), SPECS[:count], progress=journal.add)
    journal.close()
    return journal


def test_what_was_finished_is_known_again(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    again = Journal(tmp_path, PROTOCOL)
    assert list(again.records.values()) == run_episodes(toy_act, ToyEnv(1), SPECS[:5])
    env = ToyEnv(3)
    whole = run_episodes(toy_act, env, SPECS, done=again.records)
    assert whole == run_episodes(toy_act, ToyEnv(3), SPECS)
    assert sorted(env.started, key=str) == sorted(SPECS[5:], key=str)
    again.remove()
    assert not list(tmp_path.iterdir())


def test_half_a_line_is_dropped_and_nothing_is_appended_to_it(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    file = tmp_path / "unfinished-0.jsonl"
    file.write_text(file.read_text()[:-20])
    again = Journal(tmp_path, PROTOCOL)
    assert list(again.records) == SPECS[:2]
    again.add(run_episodes(toy_act, ToyEnv(1), SPECS[4:5])[0])
    again.close()
    assert list(Journal(tmp_path, PROTOCOL).records) == [*SPECS[:2], SPECS[4]]


def test_journals_of_other_processes_count(tmp_path: Path) -> None:
    fill(tmp_path, 2, rank=1)
    assert set(Journal(tmp_path, PROTOCOL, rank=0).records) == set(SPECS[:2])
    assert {file.name for file in tmp_path.iterdir()} == {"unfinished-0.jsonl", "unfinished-1.jsonl"}


def test_another_evaluation_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    before = (tmp_path / "unfinished-0.jsonl").read_text()
    for other, name in (
        (replace(PROTOCOL, seed=4), r"protocol\.seed 3 .* this one has 4"),
        (replace(PROTOCOL, sim={"camera": {"fov": 41.0}}), r"protocol\.sim\.camera\.fov 40\.0"),
        (replace(PROTOCOL, checkpoint_digest="ab"), r"protocol\.checkpoint_digest ''"),
    ):
        with pytest.raises(UserError, match=name) as error:
            Journal(tmp_path, other)
        assert "\n" not in str(error.value)
    assert (tmp_path / "unfinished-0.jsonl").read_text() == before


@pytest.mark.parametrize("place", [1, 3])
def test_a_broken_line_is_named(tmp_path: Path, place: int) -> None:
    fill(tmp_path, 4)
    file = tmp_path / "unfinished-0.jsonl"
    lines = file.read_text().splitlines()
    lines[place - 1] = json.dumps({"scene_id": "bowl"}) if place > 1 else "not JSON"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"line {place} "):
        Journal(tmp_path, PROTOCOL)
