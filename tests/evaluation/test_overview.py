"""The table of all suites, what stands beside it, and the page and the raw numbers that go with it."""

from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation import comparison_figures
from genvla.evaluation.compare import KEPT, write_comparison
from genvla.evaluation.comparison import Group, compare
from genvla.evaluation.comparison_figures import along_values, plot_along
from genvla.evaluation.comparison_report import markdown, terminal_tables
from genvla.evaluation.overview import Published, beside, cost, overview, overview_notes
from genvla.evaluation.sources import Run
from genvla.evaluation.statistics import wilson_interval
from tests.evaluation.runs import SCENES, evaluation, write_run

TRAIN = ["t0", "t1"]


def group(number: int, chances: tuple[float, ...], scenes: list[str] = SCENES) -> Group:
    runs = []
    for seed, chance in enumerate(chances):
        before = {"heldout": evaluation(0.3, scenes=scenes), "train": evaluation(0.3, scenes=TRAIN, split="train")}
        after = {
            "train": evaluation(0.9, seed, scenes=TRAIN, split="train"),
            "heldout": evaluation(chance, seed, scenes=scenes),
        }
        settings = {"seed": str(seed), "data.num_scenes": str(number), "checkpoint": "start"}
        runs.append(Run(f"n{number}-seed{seed}", after, before, settings=settings))
    return Group(f"n{number}", tuple(runs))


def test_the_overview_holds_the_baseline_the_gap_and_marks_other_scenes() -> None:
    groups = [group(1, (0.3, 0.4)), group(10, (0.6, 0.5)), group(100, (0.7, 0.7), ["x0", "x1"])]
    comparison = compare(groups, unpaired=True)
    head, rows = overview(comparison)
    assert head == ("group", "runs", "train", "heldout", "train - heldout")
    assert [row[0] for row in rows] == ["before training", "n1", "n10", "n100"]
    assert [row[3].endswith("*") for row in rows] == [False, False, False, True]
    assert overview_notes(comparison) == ["* other scenes than those of n1."]
    # One policy: its episodes on both sets of scenes count together, each once.
    met = [*evaluation(0.3).records, *evaluation(0.3, scenes=["x0", "x1"]).records]
    assert comparison.baseline("heldout") == wilson_interval(sum(record.success_once for record in met), 120)
    gaps = [
        np.mean([r.success_once for r in run.after["train"].records])
        - np.mean([r.success_once for r in run.after["heldout"].records])
        for run in groups[1].runs
    ]
    gap = groups[1].gap()
    assert (
        gap is not None and gap.value == pytest.approx(np.mean(gaps)) and rows[2][4].startswith(f"{100 * np.mean(gaps):+.1f} [")
    )


def test_runs_that_started_from_two_policies_have_no_baseline_in_common() -> None:
    one, other = group(1, (0.3,)), group(10, (0.6,))
    moved = Group("n10", tuple(replace(run, settings={**run.settings, "checkpoint": "elsewhere"}) for run in other.runs))
    assert compare([one, other]).baseline("heldout") is not None
    assert compare([one, moved]).baseline("heldout") is None


def test_published_numbers_stand_beside_ours() -> None:
    comparison = compare([group(1, (0.3,)), group(10, (0.6,))])
    published = Published("a paper", {"n10": {"heldout": 72.4}, "before training": {"heldout": 9.6}})
    head, rows = beside(comparison, published)
    assert head == ("group", "heldout, here", "heldout, published")
    assert [row[2] for row in rows] == ["9.6", "-", "72.4"]
    share = comparison.groups[1].success("heldout")
    assert share is not None and rows[2][1] == f"{100 * share.value:.1f}"


def test_what_an_iteration_took_stands_beside_what_it_gained(tmp_path: Path) -> None:
    """write_run: 1 s of simulation, 2 s of update and one more for each seed, the first iteration a hundredfold; 330 s in all."""
    from genvla.evaluation.comparison import grouped
    from genvla.evaluation.sources import read_runs

    both = [write_run(tmp_path / f"both-seed{seed}", 0.5, seed) for seed in (0, 1)]
    slow = write_run(tmp_path / "slow-seed3", 0.5, 3, scenes=SCENES)
    comparison = compare(grouped(read_runs([*both, slow])), unpaired=True)
    head, rows = cost(comparison)
    assert head == ("group", "simulate [s]", "update [s]", "a run [min]")
    assert rows == [("both", "1.00", "2.50", "5.5"), ("slow", "1.00", "5.00", "5.5")]
    assert "| slow | 1.00 | 5.00 | 5.5 |" in markdown(comparison, {})
    assert comparison.to_dict()["groups"]["slow"]["iteration_seconds"] == {"simulate": 1.0, "update": 5.0}
    shown = StringIO()
    Console(width=80, file=shown).print(terminal_tables(comparison)[-1])
    assert "update [s]" in shown.getvalue()
    assert cost(compare([group(1, (0.3,)), group(10, (0.6,))])) == (("group", "a run [min]"), [])


def test_success_is_drawn_against_a_number(tmp_path: Path) -> None:
    comparison = compare([group(10, (0.6, 0.5)), group(1, (0.3, 0.4))])
    assert list(along_values(comparison, "data.num_scenes").items()) == [("n1", 1.0), ("n10", 10.0)]
    plot_along(comparison, "data.num_scenes", Published("a paper", {"n1": {"train": 50.0}}), tmp_path / "along.png")
    assert np.asarray(Image.open(tmp_path / "along.png").convert("L")).std() > 5
    for along, message in (
        ("seed", "seed is 0, 1 in n10"),
        ("checkpoint", "checkpoint is start in n10"),
        ("no", "no is none in n10"),
    ):
        with pytest.raises(UserError, match=f"along: {message}, want one number for each group"):
            along_values(comparison, along)


def test_what_was_before_training_is_drawn_for_every_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they started from different policies, as one policy does that integrates in different numbers of steps."""
    one, other = group(1, (0.3,)), group(10, (0.6,))
    moved = Group("n10", tuple(replace(run, settings={**run.settings, "checkpoint": "elsewhere"}) for run in other.runs))
    drawn: list[Figure] = []
    monkeypatch.setattr(comparison_figures, "save_figure", lambda figure, output: drawn.append(figure))
    plot_along(compare([one, moved]), "data.num_scenes", None, tmp_path / "along.png")
    dashed = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == "--"]
    before = [100 * share.value for found in (one, moved) if (share := found.success("heldout", before=True))]
    assert len(before) == 2 and any(np.allclose(line.get_ydata(), before) for line in dashed)


def test_the_page_has_its_files_and_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"n{n}-seed{seed}", chance, seed) for n, chance in ((1, 0.4), (9, 0.8)) for seed in (0, 1)]
    from genvla.evaluation.comparison import grouped
    from genvla.evaluation.sources import read_runs

    groups, page = grouped(read_runs(runs)), tmp_path / "docs" / "study.md"
    for output in ("one", "two"):
        write_comparison(
            groups, tmp_path / output, Console(quiet=True), title="How many?", page=page, introduction="So it was run."
        )
        text = page.read_text()
        assert text.startswith("# How many?\n\nSo it was run.\n") and text.count(KEPT) == 1
        if output == "one":
            page.write_text(f"{text}\nThey agree.\n")
    assert page.read_text().endswith(f"{KEPT}\n\nThey agree.\n")
    for link in ("success.png", "runs.csv", "scenes.csv", "curves.csv", "comparison.json"):
        assert f"(study/{link})" in text and (page.with_suffix("") / link).is_file()
    rows = list(csv.DictReader((page.with_suffix("") / "runs.csv").open()))
    by_scene = list(csv.DictReader((page.with_suffix("") / "scenes.csv").open()))
    after = [row for row in rows if row["when"] == "after"]
    assert len(rows) == 16 and len(after) == 8 and all(row["env_steps"] == "11000" for row in after)
    for row in after:
        scenes = [one for one in by_scene if (one["run"], one["suite"]) == (row["run"], row["suite"])]
        assert sum(int(one["successes"]) for one in scenes) == int(row["successes"])
        assert sum(int(one["episodes"]) for one in scenes) == int(row["episodes"]) == 60
