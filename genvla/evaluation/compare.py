"""`genvla compare`: runs side by side, to tables, figures and one HTML page, and to MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from genvla.evaluation.comparison import Comparison, Group


def compare_command(
    runs: list[Path] = [],  # noqa: B006  (read only)
    mlflow: str | None = None,
    experiment: str = "genvla",
    filter: str = "",
    by: list[str] = [],  # noqa: B006  (read only)
    reference: str | None = None,
    unpaired: bool = False,
    output: Path = Path("comparison"),
    name: str | None = None,
) -> Comparison:
    """Compare runs: success with intervals, differences on the same episodes, learning curves, success by scene.

    Args:
        runs: Folders of training runs, or results of `genvla evaluate`; none to take those of --experiment from MLflow.
        mlflow: MLflow server or store, where the comparison is kept too. By default that is done only where the runs come from
            MLflow, in the store that MLFLOW_TRACKING_URI names, or mlflow.db in the current folder; "none" does without.
        experiment: Name of the MLflow experiment.
        filter: Which of its runs, in MLflow's words, such as "tags.sweep = 'variants'" or "params.finetuning.vlm = 'lora'".
        by: Settings or tags that make runs a group, such as finetuning.vlm; by default runs whose names differ in -seed<number>
            alone are one.
        reference: Group that the others are compared with, or how its name begins; by default the first.
        unpaired: Show groups that were evaluated on other scenes side by side, without differences, instead of refusing.
        output: Folder for comparison.html, comparison.md, comparison.json and the figures.
        name: Of the comparison in MLflow; by default that of the output's folder.

    Raises:
        UserError: a run cannot be read, or runs were evaluated differently.
    """
    from rich.console import Console

    from genvla.evaluation.comparison import grouped
    from genvla.evaluation.sources import mlflow_runs, read_runs

    given = [Path(run) for run in runs or ()]
    found = read_runs(given) if given else mlflow_runs(mlflow, experiment, filter)
    log_to = mlflow if given else (mlflow or "default")
    return write_comparison(
        grouped(found, by),
        output,
        Console(),
        reference=reference,
        unpaired=unpaired,
        mlflow=log_to,
        experiment=experiment,
        name=name,
    )


def write_comparison(
    groups: Sequence[Group],
    output: Path,
    console: Console,
    *,
    reference: str | None = None,
    unpaired: bool = False,
    mlflow: str | None = None,
    experiment: str = "genvla",
    name: str | None = None,
) -> Comparison:
    """Compares, shows the tables, writes everything to a folder and keeps it in MLflow.

    mlflow: its URI, "default" for the one that training uses, None or "none" for no MLflow.
    """
    from genvla.evaluation.comparison import compare
    from genvla.evaluation.comparison_figures import write_figures
    from genvla.evaluation.comparison_report import html, markdown, terminal_tables
    from genvla.evaluation.results import _null_for_nan, write_atomically

    comparison = compare(groups, reference, unpaired=unpaired)
    output = Path(output)
    figures = write_figures(comparison, output)
    write_atomically(output / "comparison.json", json.dumps(_null_for_nan(comparison.to_dict()), indent=2) + "\n")
    write_atomically(output / "comparison.md", markdown(comparison, figures))
    write_atomically(output / "comparison.html", html(comparison, figures))
    for table in terminal_tables(comparison):
        console.print(table)
    for note in comparison.notes:
        console.print(note, style="dim")
    console.print(f"written to {output}; look at {output / 'comparison.html'}", soft_wrap=True)
    if mlflow not in (None, "none"):
        _log(comparison, output, [*figures.values()], None if mlflow == "default" else mlflow, experiment, name or output.name)
        console.print(f"kept in MLflow as {name or output.name!r} of experiment {experiment!r}", soft_wrap=True)
    return comparison


def _log(comparison: Comparison, output: Path, figures: list[Path], uri: str | None, experiment: str, name: str) -> None:
    """A run of its own, tagged kind = comparison, with every group's success as metrics and the files as artifacts."""
    from tempfile import TemporaryDirectory

    from genvla.learning.tracking import Tracker

    tags = {
        "kind": "comparison",
        "reference": comparison.reference,
        "groups": ", ".join(group.name for group in comparison.groups),
    }
    with (
        TemporaryDirectory() as folder,  # the tracker keeps a file of metrics, which says nothing beside comparison.json
        Tracker(Path(folder), experiment, name, uri, tags=tags) as tracker,
    ):
        shares = {
            suite: {_metric_name(group.name): found.value for group in comparison.groups if (found := group.success(suite))}
            for suite in comparison.suites
        }
        tracker.log_metrics({"success": shares}, step=0)
        for file in [output / f"comparison.{kind}" for kind in ("html", "md", "json")] + figures:
            tracker.log_artifact(file)


def _metric_name(text: str) -> str:
    """MLflow takes letters, digits and a few signs."""
    return "".join(sign if sign.isalnum() or sign in "_-. " else "_" for sign in text)
