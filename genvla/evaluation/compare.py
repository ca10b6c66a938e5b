"""`genvla compare`: runs side by side, to tables, figures and one HTML page, and to MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from genvla.evaluation.overview import Published
from genvla.evaluation.results import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from genvla.evaluation.comparison import Comparison, Group

KEPT = "<!-- genvla writes what stands above this line; what stands below it is kept -->"


def compare_command(
    runs: list[Path] = [],  # noqa: B006  (read only)
    mlflow: str | None = None,
    experiment: str = "genvla",
    filter: str = "",
    by: list[str] | str = [],  # noqa: B006  (read only)
    reference: str | None = None,
    unpaired: bool = False,
    along: str | None = None,
    title: str = "Comparison",
    published: Published | None = None,
    output: Path = Path("comparison"),
    page: Path | None = None,
    name: str | None = None,
) -> Comparison:
    """Compare runs: success with intervals, differences on the same episodes, learning curves, success by scene.

    Args:
        runs: Folders of training runs, or results of `genvla evaluate`; none to take those of --experiment from MLflow.
        mlflow: MLflow server or store, where the comparison is kept too. By default that is done only where the runs come from
            MLflow, in the store that MLFLOW_TRACKING_URI names, or mlflow.db in the current folder; "none" does without.
        experiment: Name of the MLflow experiment.
        filter: Which of its runs, in MLflow's words, such as "tags.sweep = 'variants'" or "params.finetuning.vlm = 'lora'".
        by: Setting or tag that makes runs a group, such as finetuning.vlm, or a list of them, such as [finetuning.vlm,
            finetuning.expert]; by default runs whose names differ in -seed<number> alone are one.
        reference: Group that the others are compared with, or how its name begins; by default the first.
        unpaired: Show groups that were evaluated on other scenes side by side, without differences, instead of refusing.
        along: Setting whose values are numbers, such as data.num_scenes, to draw success against.
        title: Heading of the pages.
        published: Numbers of others, to stand beside these.
        output: Folder for comparison.html, comparison.md, comparison.json, the figures, and runs, scenes and curves as CSV.
        page: Markdown file to write for a documentation too, with figures and numbers in a folder of its name beside it. Where
            there is one already, what stands below its marked line is kept.
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
        grouped(found, [by] if isinstance(by, str) else by),
        output,
        Console(),
        reference=reference,
        unpaired=unpaired,
        along=along,
        title=title,
        published=published,
        page=page,
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
    along: str | None = None,
    title: str = "Comparison",
    published: Published | None = None,
    page: Path | None = None,
    introduction: str = "",
    mlflow: str | None = None,
    experiment: str = "genvla",
    name: str | None = None,
) -> Comparison:
    """Compares, shows the tables, writes everything to a folder and keeps it in MLflow.

    introduction: of the page. mlflow: its URI, "default" for the one that training uses, None or "none" for no MLflow.
    """
    from genvla.evaluation.comparison import compare
    from genvla.evaluation.comparison_figures import write_figures
    from genvla.evaluation.comparison_report import html, markdown, terminal_tables
    from genvla.evaluation.raw import write_raw
    from genvla.evaluation.results import null_for_nan

    comparison = compare(groups, reference, unpaired=unpaired)
    output = Path(output)
    figures = write_figures(comparison, output, along, published)
    raw = write_raw(comparison, output)
    write_atomically(output / "comparison.json", json.dumps(null_for_nan(comparison.to_dict()), indent=2) + "\n")
    write_atomically(output / "comparison.md", markdown(comparison, figures, title, published))
    write_atomically(output / "comparison.html", html(comparison, figures, title, published))
    for table in terminal_tables(comparison):
        console.print(table)
    for note in comparison.notes:
        console.print(note, style="dim")
    if page is not None:
        beside = [*figures.values(), *raw, output / "comparison.json"]
        text = markdown(comparison, figures, title, published, f"{Path(page).stem}/", introduction)
        _write_page(Path(page), text, beside)
        console.print(f"page written to {page}", soft_wrap=True)
    console.print(f"written to {output}; look at {output / 'comparison.html'}", soft_wrap=True)
    if mlflow not in (None, "none"):
        _log(
            comparison,
            output,
            [*figures.values(), *raw],
            None if mlflow == "default" else mlflow,
            experiment,
            name or output.name,
        )
        console.print(f"kept in MLflow as {name or output.name!r} of experiment {experiment!r}", soft_wrap=True)
    return comparison


def _write_page(page: Path, text: str, beside: Sequence[Path]) -> None:
    """The page, and copies of the files in a folder of its name beside it."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for file in beside:
        shutil.copyfile(file, folder / file.name)
    links = ", ".join(f"[{file.name}]({folder.name}/{file.name})" for file in beside if file.suffix != ".png")
    kept = page.read_text().partition(KEPT)[2] if page.exists() else "\n"
    write_atomically(page, f"{text}\nRaw: {links}\n\n{KEPT}{kept}")


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
