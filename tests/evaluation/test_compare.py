from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation.compare import compare_command
from genvla.evaluation.comparison import Group, compare, difference, differing_settings, grouped
from genvla.evaluation.comparison_figures import scene_table
from genvla.evaluation.comparison_report import markdown, terminal_tables
from genvla.evaluation.sources import Run, read_run, read_runs
from genvla.evaluation.statistics import mean_interval, paired_interval
from tests.evaluation.runs import SCENES, evaluation, write_run


def group(name: str, *chances: float, **options: Any) -> Group:
    runs = [
        Run(f"{name}-seed{seed}", {"heldout": evaluation(chance, seed, **options)}, settings={"seed": str(seed)})
        for seed, chance in enumerate(chances)
    ]
    return Group(name, tuple(runs))


def successes(result: Any) -> np.ndarray:
    return np.array([record.success_once for record in result.records])


def test_differences_are_of_the_same_episodes() -> None:
    one, other = evaluation(0.4), evaluation(0.7)
    found = difference([(one, other)])
    first, second = successes(one), successes(other)
    assert (found.won, found.lost) == ((second & ~first).sum(), (first & ~second).sum()) and found.lost == 0
    assert found.interval == paired_interval(found.won, 0, 60)
    # More episodes contain the fewer: those in common count, in whatever order they come.
    shuffled = type(other)(other.records[::-1], other.protocol)
    assert difference([(evaluation(0.4, episodes=24), shuffled)]).interval.n == 24


def test_several_seeds_are_matched_and_their_mean_has_an_interval_over_them() -> None:
    groups = [group("a", 0.3, 0.4, 0.5), group("b", 0.6, 0.5, 0.9)]
    found = compare(groups).differences["heldout"]["b"]
    shares = [[successes(run.after["heldout"]).mean() for run in one.runs] for one in groups]
    gaps = np.subtract(shares[1], shares[0])
    assert found is not None and found.pairs == 3 and found.p is None
    assert found.interval.value == pytest.approx(gaps.mean())
    assert found.interval == mean_interval(list(gaps)) or found.interval.low == pytest.approx(mean_interval(list(gaps)).low)
    success = groups[1].success("heldout")
    assert success is not None and success.value == pytest.approx(np.mean(shares[1])) and success.n == 3


def test_only_common_seeds_are_paired() -> None:
    one, other = group("a", 0.3, 0.4, 0.5), group("b", 0.6, 0.6)
    found = compare([one, Group("b", other.runs[1:])]).differences["heldout"]["b"]
    assert found is not None and found.pairs == 1
    assert found == difference([(one.runs[1].after["heldout"], other.runs[1].after["heldout"])])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"scene_set_digest": "b" * 64}, "the scene set is aaaaaaaaaaaa in a-seed0 and bbbbbbbbbbbb in b-seed0"),
        ({"terminate_on_success": True}, "terminate_on_success is False in a-seed0 and True in b-seed0"),
        ({"sim": {"max_chunks": 9}}, "sim.max_chunks is 7 in a-seed0 and 9 in b-seed0"),
        ({"scenes": SCENES[:5]}, "a-seed0 and b-seed0 were evaluated on other scenes"),
    ],
)
def test_other_protocols_and_scenes_are_refused_by_name(other: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        compare([group("a", 0.3), group("b", 0.4, **other)])
    assert "\n" not in str(error.value)


def test_scene_sets_of_the_old_format_are_compared_and_told() -> None:
    for first, second, told in (("v1:b", "v1:b", False), ("v1:b", "v1:c", True), ("v1:b", "b", True)):
        groups = [group("a", 0.3, scene_set_digest=first), group("b", 0.4, scene_set_digest=second)]
        assert any("scene set in heldout is the same" in note for note in compare(groups).notes) is told
    with pytest.raises(UserError, match="the scene set is b in"):
        compare([group("a", 0.3, scene_set_digest="b"), group("b", 0.4, scene_set_digest="c")])


def test_what_the_policy_is_may_differ() -> None:
    compare([group("a", 0.3), group("b", 0.4, integration_steps=4, checkpoint_digest="c", num_envs=9, split_seed=2)])
    notes = compare([group("a", 0.3), group("b", 0.4, versions={"torch": "3"})]).notes
    assert any("torch: 2, 3" in note for note in notes)


def test_other_scenes_stand_side_by_side_where_that_is_asked_for() -> None:
    comparison = compare([group("a", 0.3), group("b", 0.4, scenes=SCENES[:3])], unpaired=True)
    assert comparison.differences["heldout"]["b"] is None


def test_runs_are_grouped_by_name_or_by_settings() -> None:
    runs = [Run(f"lr{lr}-seed{seed}", {}, settings={"lr": lr, "seed": str(seed)}) for lr in ("1", "2") for seed in (0, 1)]
    assert [(one.name, len(one.runs)) for one in grouped(runs)] == [("lr1", 2), ("lr2", 2)]
    assert [one.name for one in grouped(runs, ["seed", "lr"])] == [f"seed {s}, lr {lr}" for lr in (1, 2) for s in (0, 1)]
    assert differing_settings(grouped(runs)) == {"lr": {"lr1": "1", "lr2": "2"}}
    with pytest.raises(UserError, match="no setting or tag 'rank'"):
        grouped(runs, ["rank"])
    for wanted, message in (("lr", "2 groups begin"), ("x", "0 groups")):
        with pytest.raises(UserError, match=message):
            compare(grouped(runs), wanted)
    with pytest.raises(UserError, match="two groups"):
        compare(grouped(runs)[:1])


def test_scenes_are_sorted_from_hard_to_easy() -> None:
    groups = [group("a", 0.3, 0.4), group("b", 0.6, 0.5, scenes=SCENES[:4])]
    scenes, table = scene_table(groups, "heldout")
    records = [record for run in groups[0].runs for record in run.after["heldout"].records]
    for column, scene in enumerate(scenes):
        assert table[0, column] == np.mean([record.success_once for record in records if record.scene_id == scene])
    assert np.isnan(table[1]).sum() == 2
    assert (np.diff(np.nanmean(table, axis=0)) >= 0).all()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        write_run(folder / f"{name}-seed{seed}", chance + 0.05 * seed, seed, {"finetuning": {"vlm": vlm}})
        for name, vlm, chance in (("frozen", "frozen", 0.5), ("lora|<b>", "lora", 0.8))
        for seed in (0, 1)
    ]


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_is_written_and_the_page_needs_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    comparison = compare_command(runs, output=tmp_path / "out")
    files = {file.name for file in (tmp_path / "out").iterdir()}
    assert files == {f"comparison.{kind}" for kind in ("html", "md", "json")} | {
        "success.png",
        "curves.png",
        "scenes_heldout.png",
    } | {"scenes_train.png", "runs.csv", "scenes.csv", "curves.csv"}
    for file in (tmp_path / "out").glob("*.png"):
        assert np.asarray(Image.open(file).convert("L")).std() > 5
    page = _Page((tmp_path / "out" / "comparison.html").read_text())
    pictures = [attributes for tag, attributes in page.seen if tag == "img"]
    assert len(pictures) == 4 and all((picture["src"] or "").startswith("data:image/png;base64,") for picture in pictures)
    assert not any("href" in attributes or tag in ("script", "link", "b") for tag, attributes in page.seen)
    assert "lora|<b>" in page.text
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    found = data["groups"]["lora|<b>"]["suites"]["heldout"]
    assert found["difference"]["interval"]["value"] == comparison.differences["heldout"]["lora|<b>"].interval.value  # type: ignore[union-attr]
    assert data["settings"]["finetuning.vlm"] == {"frozen": "frozen", "lora|<b>": "lora"} and found["gain"]["pairs"] == 2
    again = compare_command(runs, output=tmp_path / "again")
    assert again == comparison
    assert (tmp_path / "again" / "comparison.html").read_bytes() == (tmp_path / "out" / "comparison.html").read_bytes()


def test_tables_fit_and_hold_the_numbers(runs: list[Path]) -> None:
    comparison = compare(grouped(read_runs(runs), ["finetuning.vlm"]))
    shown = StringIO()
    for table in terminal_tables(comparison):
        Console(width=80, file=shown).print(table)
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and sum("vlm lora" in line for line in lines) >= len(comparison.suites)
    text = markdown(comparison, {})
    rows = [line for line in text.splitlines() if line.startswith("| vlm lora") and "[" in line]
    assert len(rows) == 3 and rows[1].count("|") == rows[2].count("|")
    found = comparison.differences["heldout"]["vlm lora"]
    assert found is not None and f"{100 * found.interval.value:+.1f} [{100 * found.interval.low:+.1f}" in rows[2]


def test_evaluations_alone_can_be_compared(tmp_path: Path) -> None:
    for name, chance in (("a", 0.4), ("b", 0.6)):
        evaluation(chance).to_json(tmp_path / name / "results.json")
    compare_command([tmp_path / "a", tmp_path / "b" / "results.json"], output=tmp_path / "out")
    assert not (tmp_path / "out" / "curves.png").exists()


def test_what_is_no_run_is_refused(tmp_path: Path, runs: list[Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "evaluation").mkdir(parents=True)
    for path, message in (
        (tmp_path / "nothing", "not found"),
        (tmp_path / "empty", "results.json: cannot be read"),
        (tmp_path / "unfinished", "no iteration_"),
        (runs[0] / "results.json", "format is None, want 2"),
    ):
        with pytest.raises(UserError, match=message):
            read_run(path)


def test_comparison_is_kept_in_mlflow_and_made_from_it(runs: list[Path], tmp_path: Path) -> None:
    from genvla.learning.tracking import Tracker, mlflow_client

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for run in runs:
        with Tracker(tmp_path / run.name, "study", run.name, uri, tags={"kind": "fit", "family": run.name[:4]}) as tracker:
            tracker.log_config({"seed": int(run.name[-1]), "module": {"init_args": {"clip": 0.2}}})
            for line in (run / "metrics.jsonl").read_text().splitlines()[-3:]:
                row = json.loads(line)
                tracker.log_metrics({key: value for key, value in row.items() if key != "step"}, row["step"])
            tracker.log_artifact(run / "evaluation", "evaluation")
    options = {"mlflow": uri, "experiment": "study", "by": ["family"]}
    comparison = compare_command([], output=tmp_path / "out", **options)
    assert comparison.differences == {
        suite: {"family lora": row["lora|<b>"]} for suite, row in compare(grouped(read_runs(runs))).differences.items()
    }
    assert (tmp_path / "out" / "curves.png").is_file()
    assert [sorted(group.phase_seconds()) for group in comparison.groups] == [["simulate", "update"]] * 2
    client = mlflow_client(uri)
    (kept,) = client.search_runs([client.get_experiment_by_name("study").experiment_id], "tags.kind = 'comparison'")
    assert kept.info.run_name == "out" and kept.data.tags["reference"] == "family froz"
    assert {file.path for file in client.list_artifacts(kept.info.run_id)} >= {
        "comparison.html",
        "comparison.json",
        "success.png",
    }
    assert kept.data.metrics["success/heldout/family lora"] == pytest.approx(comparison.groups[1].success("heldout").value)  # type: ignore[union-attr]
    for wrong, message in (({"filter": "tags.x = 'y'"}, "selects no"), ({"experiment": "none"}, "none of the name")):
        with pytest.raises(UserError, match=message):
            compare_command([], output=tmp_path / "out", **{**options, **wrong})
