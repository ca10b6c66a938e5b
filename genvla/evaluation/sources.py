"""What is compared: evaluations, learning curves and settings of runs, from their folders, from result files or from MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from genvla.errors import UserError
from genvla.evaluation.figures import ENV_STEPS, PHASE_SECONDS, ROLLOUT, WALL_SECONDS, Rows, read_metrics
from genvla.evaluation.results import EvaluationResult

RESULTS = "results.json"
SUITES = "suites"
"""Folder in a run's folder with further evaluations of its last checkpoint, `suites/<name>/results.json`."""
BEFORE = "before.json"
"""Beside them: the same episodes by the policy that training started from."""

_AFTER = re.compile(r"iteration_(\d+)_(.+)\.json")
_CURVES = re.compile(rf"{ENV_STEPS}|{WALL_SECONDS}|{ROLLOUT}|{PHASE_SECONDS.pattern}|evaluation/[^/]+/success_once(_low|_high)?")


@dataclass(frozen=True)
class Run:
    """A training run, or an evaluation alone.

    before and after: evaluations by suite: the split evaluated on, or the name of a folder in suites/. rows: its metrics by
    iteration, empty for an evaluation alone. settings: its configuration as text by dotted name, tags included.
    """

    name: str
    after: dict[str, EvaluationResult]
    before: dict[str, EvaluationResult] = field(default_factory=dict)
    rows: Rows = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> str | None:
        return self.settings.get("seed")


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs and results, in the order given. Each is named by its folder or file; by its whole path where two would be alike.

    Raises:
        UserError: a path is neither the folder of a finished run nor an evaluation's results.
    """
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    alike = [names.count(name) > 1 for name in names]
    return [replace(run, name=str(path)) if twice else run for run, path, twice in zip(runs, paths, alike, strict=True)]


def read_run(path: Path) -> Run:
    """One run or evaluation.

    Raises:
        UserError: it is neither.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: not found, want the folder of a run, or the results.json of an evaluation")
    if path.is_dir() and (path / "evaluation").is_dir():
        config = path / "config.yaml"
        settings = _flat(yaml.safe_load(config.read_text()) or {}) if config.is_file() else {}
        rows = read_metrics(path) if (path / "metrics.jsonl").is_file() else []
        before, after = _evaluations(path)
        return Run(path.name, after, before, rows, settings)
    file = path / RESULTS if path.is_dir() else path
    result = EvaluationResult.from_json(file)
    name = path.parent.name or path.stem if path.name == RESULTS else path.stem
    return Run(name, {result.protocol.split or "evaluation": result})


def mlflow_runs(uri: str | None, experiment: str, filter_string: str) -> list[Run]:
    """The finished training runs of an MLflow experiment that a filter selects, oldest first.

    Raises:
        UserError: MLflow cannot be reached, has no such experiment or run, or a run was logged without its evaluations.
    """
    from mlflow.exceptions import MlflowException

    from genvla.learning.tracking import default_tracking_uri, mlflow_client

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = uri or default_tracking_uri()
    client = mlflow_client(uri)
    try:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise UserError(f"experiment: MLflow at {uri} has none of the name {experiment!r}")
        query = " and ".join(part for part in ("attributes.status = 'FINISHED'", filter_string) if part)
        runs = client.search_runs([found.experiment_id], query, order_by=["attributes.start_time ASC"])
    except MlflowException as error:
        raise UserError(f"filter: {filter_string!r} cannot be used in MLflow at {uri}: {str(error).splitlines()[0]}") from error
    fits = [run for run in runs if run.data.tags.get("kind", "fit") == "fit"]
    if not fits:
        raise UserError(f"filter: {filter_string!r} selects no finished run of experiment {experiment!r} in MLflow at {uri}")
    return [_mlflow_run(client, run) for run in fits]


def _mlflow_run(client: Any, run: Any) -> Run:
    name = run.info.run_name
    with TemporaryDirectory() as folder:
        for artifact in client.list_artifacts(run.info.run_id):
            if artifact.path in ("evaluation", SUITES):
                client.download_artifacts(run.info.run_id, artifact.path, folder)
        try:
            before, after = _evaluations(Path(folder))
        except UserError as error:
            raise UserError(
                f"{name}: MLflow has no evaluations of it (artifacts evaluation/), want a run that logged them, or its folder"
            ) from error
    steps: dict[int, dict[str, float]] = {}
    for key in filter(_CURVES.fullmatch, run.data.metrics):
        for point in client.get_metric_history(run.info.run_id, key):  # of steps run again after a resume, the last counts
            steps.setdefault(point.step, {})[key] = point.value
    settings = {**_flat(run.data.params), **{key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")}}
    return Run(name, after, before, [steps[step] for step in sorted(steps)], settings)


def _evaluations(folder: Path) -> tuple[dict[str, EvaluationResult], dict[str, EvaluationResult]]:
    """Those before and those after training."""
    evaluation = folder / "evaluation"
    files = sorted(evaluation.glob("before_*.json"))
    before = {file.stem.removeprefix("before_"): EvaluationResult.from_json(file) for file in files}
    matches = [match for match in (_AFTER.fullmatch(file.name) for file in evaluation.glob("*.json")) if match]
    if not matches:
        raise UserError(f"{evaluation}: no iteration_*.json, want a run that was evaluated after training")
    last = max(match[1] for match in matches)
    after = {match[2]: EvaluationResult.from_json(evaluation / match[0]) for match in matches if match[1] == last}
    for file in sorted((folder / SUITES).glob(f"*/{RESULTS}")):
        after[file.parent.name] = EvaluationResult.from_json(file)
    for file in sorted((folder / SUITES).glob(f"*/{BEFORE}")):
        before[file.parent.name] = EvaluationResult.from_json(file)
    return before, dict(sorted(after.items(), key=lambda item: (item[0] != "train", item[0] != "heldout", item[0])))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name, as they are given on the command line: without class_path and init_args."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}".replace(".init_args", "")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.".replace(".init_args.", "."))
        elif not name.endswith("class_path"):
            flat[name] = "null" if value is None else str(value)
    return flat
