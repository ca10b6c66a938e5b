from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation.results import EvaluationResult, Protocol, Summary
from genvla.evaluation.tables import markdown_table, terminal_table
from genvla.types import EpisodeRecord

PROTOCOL = Protocol("heldout", 3, integration_steps=1, max_chunks=25, num_envs=8, sim={"image_size": 64, "light": [0.0, 0.6]})


def record(scene: str, seed: int, steps: int, once: bool, end: bool = False, grasped: bool = True) -> EpisodeRecord:
    return EpisodeRecord(scene, seed, once, end, grasped, steps, -(-steps // 4), f"put it in the {scene}")


RESULT = EvaluationResult(
    (
        record("mug", 1, 10, True, True),
        record("pan", 2, 100, False, grasped=False),
        record("mug", 3, 21, True),
        record("pan", 4, 100, False),
        record("mug", 5, 100, False, grasped=False),
    ),
    PROTOCOL,
)
records = st.builds(
    EpisodeRecord,
    scene_id=st.sampled_from(["mug", "pan", "a|b"]),
    seed=st.integers(0, 2**63 - 1),
    success_once=st.booleans(),
    success_at_end=st.booleans(),
    grasped_once=st.booleans(),
    steps=st.integers(1, 100),
    chunks=st.integers(1, 25),
    instruction=st.text(max_size=20),
)


def test_numbers_by_hand() -> None:
    overall, scenes = RESULT.overall, RESULT.per_scene
    assert (overall.success_once.value, overall.success_at_end.value, overall.grasped_once.value) == (2 / 5, 1 / 5, 3 / 5)
    # Wilson's interval for 2 of 5, as R's prop.test(2, 5, correct = FALSE) gives it.
    assert (overall.success_once.low, overall.success_once.high) == pytest.approx((0.1176208, 0.7692757), abs=1e-6)
    assert overall.steps.value == 15.5 and overall.seconds.value == pytest.approx(3.1) and overall.steps.n == 2
    assert overall.episode_seconds.value == pytest.approx((12 + 100 + 24 + 100 + 100) / 5 / 5)
    assert list(scenes) == ["mug", "pan"]
    assert scenes["mug"].success_once.value == 2 / 3 and scenes["pan"].success_once.value == 0
    assert scenes["pan"].seconds.n == 0
    assert sum(scene.episodes for scene in scenes.values()) == overall.episodes == 5


def test_metrics_are_finite_and_named_as_the_figures_read_them() -> None:
    metrics = RESULT.metrics()
    assert metrics["success_once_low"] < metrics["success_once"] == 0.4 < metrics["success_once_high"]
    assert metrics["seconds_to_success"] == pytest.approx(3.1)
    failures = EvaluationResult(RESULT.records[3:], PROTOCOL).metrics()
    assert failures["success_once"] == 0 and "seconds_to_success" not in failures


@given(st.lists(records, max_size=8))
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, drawn: list[EpisodeRecord]) -> None:
    path = tmp_path_factory.mktemp("results") / "results.json"
    result = EvaluationResult(tuple(drawn), PROTOCOL)
    result.to_json(path)
    assert EvaluationResult.from_json(path) == result
    text = path.read_text()
    result.to_json(path)
    assert path.read_text() == text
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_format_1_is_read_and_its_scene_set_marked(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    RESULT.to_json(file)
    old = {**json.loads(file.read_text()), "format": 1}
    for digest, read in (("ab12", "v1:ab12"), ("", "")):
        old["protocol"]["scene_set_digest"] = digest
        file.write_text(json.dumps(old))
        result = EvaluationResult.from_json(file)
        assert result == replace(RESULT, protocol=replace(PROTOCOL, scene_set_digest=read))
        result.to_json(file)
        assert EvaluationResult.from_json(file) == result


def test_the_file_shows_the_summaries_in_standard_json(tmp_path: Path) -> None:
    RESULT.to_json(tmp_path / "new" / "results.json")
    data = json.loads((tmp_path / "new" / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert data["overall"]["success_once"]["value"] == 0.4
    assert data["per_scene"]["pan"]["seconds"]["value"] is None


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "results.json"
    RESULT.to_json(good)
    data = json.loads(good.read_text())
    wrong = {
        "format is 3, want 2": {**data, "format": 3},
        "format is None": {},
        "records.1.seed is 'two'": {**data, "records": [data["records"][0], {**data["records"][1], "seed": "two"}]},
        "protocol": {key: value for key, value in data.items() if key != "protocol"},
    }
    for message, content in wrong.items():
        (tmp_path / "wrong.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message) as error:
            EvaluationResult.from_json(tmp_path / "wrong.json")
        assert "wrong.json" in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "wrong.json").write_text('{"format": 1, "rec')
    for path in (tmp_path / "wrong.json", tmp_path / "missing.json", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            EvaluationResult.from_json(path)


def test_terminal_table_fits_its_width() -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(width=80, record=True, file=nowhere)
        long = replace(RESULT.records[0], scene_id="put_the_" * 9)
        console.print(terminal_table(EvaluationResult((*RESULT.records, long), PROTOCOL)))
    lines = [line.strip() for line in console.export_text().splitlines()]
    rows = {line[:3]: line.split()[1:] for line in lines if line[:3] in ("mug", "pan", "put", "all")}
    assert rows["mug"] == ["3", "66.7", "%", "[20.8,", "93.9]", "33.3", "%", "66.7", "%", "3.1", "±", "14.0"]
    assert rows["pan"] == ["2", "0.0", "%", "[0.0,", "65.8]", "0.0", "%", "50.0", "%", "-"]
    assert rows["put"] == ["1", "100.0", "%", "[20.7,", "100.0]", "100.0", "%", "100.0", "%", "2.0"]
    assert rows["all"][:5] == ["6", "50.0", "%", "[18.8,", "81.2]"]


def test_markdown_table_has_a_row_for_each_scene_and_one_for_all() -> None:
    lines = [line for line in markdown_table(RESULT).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + 1 and len({line.count("|") for line in lines}) == 1
    assert "put it in the pan" in lines[3] and "0.0 % [0.0, 65.8]" in lines[3]
    assert "**40.0 % [11.8, 76.9]**" in lines[4]


def test_a_bar_in_an_instruction_does_not_break_the_markdown() -> None:
    odd = EvaluationResult((replace(RESULT.records[0], instruction="this|that"),), PROTOCOL)
    assert "this\\|that" in markdown_table(odd)


def test_summary_of_nothing() -> None:
    summary = Summary.of([])
    assert summary.episodes == 0 and (summary.success_once.low, summary.success_once.high) == (0, 1)
