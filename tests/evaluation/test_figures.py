from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genvla.errors import UserError
from genvla.evaluation.figures import plot_before_after, plot_curves, read_metrics, smooth
from genvla.evaluation.results import EvaluationResult, Protocol
from genvla.evaluation.statistics import wilson_interval
from genvla.types import EpisodeRecord


def write_run(folder: Path, seed: int, iterations: int = 40) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = []
    for step in range(iterations):
        true = 0.1 + 0.6 * (1 - np.exp(-step / 15))
        shares = {"rollout/success": rng.binomial(150, true) / 150}
        lines.append({"step": step, "env_steps": 12288 * (step + 1), "wall_seconds": 15.0 * (step + 1 + 0.1 * seed), **shares})
        if step % 10 == 9:
            interval = wilson_interval(int(rng.binomial(200, true * 0.9)), 200)
            key = "evaluation/heldout/success_once"
            lines.append({"step": step, key: interval.value, f"{key}_low": interval.low, f"{key}_high": interval.high, "x": None})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def result(successes: int, n: int) -> EvaluationResult:
    records = [EpisodeRecord("pan", i, i < successes, False, False, 20, 5, "put it") for i in range(n)]
    return EvaluationResult(tuple(records), Protocol("heldout", 0))


def test_lines_of_a_step_are_joined_and_nulls_left_out(tmp_path: Path) -> None:
    rows = read_metrics(write_run(tmp_path / "run", 0))
    assert len(rows) == 40
    assert rows[9].keys() > {"env_steps", "rollout/success", "evaluation/heldout/success_once"} and "x" not in rows[9]


def test_curves_of_several_seeds_are_drawn(tmp_path: Path) -> None:
    runs = {f"seed {seed}": write_run(tmp_path / f"run{seed}", seed) for seed in range(3)}
    plot_curves(runs, tmp_path / "figures" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "figures" / "curves.png").convert("RGB"))
    assert picture.shape[1] > 1000
    for colour in ((0x1F, 0x6F, 0xB4), (0xD1, 0x60, 0x3D), (0x3A, 0x8F, 0x5C)):
        assert (np.abs(picture.astype(int) - colour).max(-1) < 12).sum() > 200
    plot_curves(runs, tmp_path / "figures" / "curves.svg")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {"curves.png", "curves.svg"}


def test_bars_stand_as_high_as_their_success(tmp_path: Path) -> None:
    plot_before_after({"heldout": (result(20, 200), result(120, 200))}, tmp_path / "bars.png")
    picture = np.asarray(Image.open(tmp_path / "bars.png").convert("RGB")).astype(int)
    heights = []
    for colour in ((0xB9, 0xC4, 0xCF), (0x1F, 0x6F, 0xB4)):
        mask = (np.abs(picture - colour).max(-1) < 3)[100:]  # without the legend
        heights.append(mask.sum(0).max())
    assert heights[1] / heights[0] == pytest.approx(6, rel=0.1)


def testsmoothing_is_the_mean_of_the_last_values() -> None:
    assert list(smooth([1, 3, 5, 7], width=2)) == [1, 2, 4, 6]


def test_runs_that_cannot_be_drawn_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        plot_curves({"a": tmp_path}, tmp_path / "a.png")
    for content, message in (
        ("", "empty"),
        ('{"step": 1, "env_', "line 1"),
        ("[3]\n", "line 1"),
        ('{"step": 1, "loss": 2}\n', "env_steps"),
    ):
        (tmp_path / "metrics.jsonl").write_text(content)
        with pytest.raises(UserError, match=message):
            plot_curves({"a": tmp_path}, tmp_path / "a.png")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "env_steps": 2, "wall_seconds": 1}\n')
    with pytest.raises(UserError, match="rollout/success"):
        plot_curves({"a": tmp_path}, tmp_path / "a.png")
