"""The record of a run: `metrics.jsonl` in the run directory, and the same in MLflow.

With no tracking URI, MLflow's own environment variable `MLFLOW_TRACKING_URI` decides; without that, `mlflow.db` and
`mlruns/` in the current folder, which is where `mlflow ui` looks by default.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from genvla.errors import Preempted, UserError

NO_TRACKING = "none"
"""The tracking URI that keeps the record in the run directory alone."""

Status = Literal["FINISHED", "FAILED", "KILLED"]

_PARAM_VALUE_LIMIT = 6000
_KEY_LIMIT = 250
_PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000
_PROBE_SECONDS = 10.0


def default_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file in the current folder that `mlflow ui` opens by itself."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


class Tracker:
    """Writes one run's metrics, configuration, tags and artifacts; one per run, on the main process only.

    The MLflow run begins with the first thing logged. Given `resume_id`, or a state through `load_state_dict`, logging goes on in
    that MLflow run and `metrics.jsonl` loses the lines after `resume_step`; MLflow cannot forget points, so there the steps
    that are run again appear twice.

    Raises UserError when MLflow is not installed, cannot be reached, or does not know the run to resume.
    """

    def __init__(
        self,
        run_dir: Path,
        experiment: str,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        resume_id: str | None = None,
        resume_step: int | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.metrics_path = self.run_dir / "metrics.jsonl"
        self.experiment = experiment
        self.run_name = run_name or self.run_dir.name
        self.tracking_uri = tracking_uri or default_tracking_uri()
        self.run_id: str | None = None
        self._step: int | None = None
        self._tags = {**revision_tags(), **{key: str(value) for key, value in (tags or {}).items()}}
        self._client: Any = None if self.tracking_uri == NO_TRACKING else mlflow_client(self.tracking_uri)
        if resume_id is not None or resume_step is not None:
            self._resume(resume_id, resume_step)

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Numbers, 0-d tensors or nested mappings of them ("train/loss"); `step` is the iteration.

        A value that is not finite stands as null in the file, as JSON has no word for it.
        """
        values = {key: float(value) for key, value in _flatten(metrics, "/")}
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        with self.metrics_path.open("a") as file:
            file.write(json.dumps({"step": int(step), **finite}) + "\n")
        self._step = int(step) if self._step is None else max(self._step, int(step))
        if self._client is not None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            points = [Metric(key, value, now, int(step)) for key, value in values.items()]
            for start in range(0, len(points), _METRICS_PER_BATCH):
                self._mlflow("log_batch", metrics=points[start : start + _METRICS_PER_BATCH])

    def log_config(self, config: Mapping[str, Any]) -> None:
        """The configuration as MLflow parameters, named as on the command line ("policy.width"), and as the artifact config.yaml.

        MLflow parameters cannot change: on a resumed run they keep their first values, config.yaml has the present ones.
        """
        if self._client is None:
            return
        from mlflow.entities import Param

        known = self._client.get_run(self._started()).data.params
        named = ((key.replace(".init_args", ""), value) for key, value in _flatten(config, "."))
        flat = {key[:_KEY_LIMIT]: str(value)[:_PARAM_VALUE_LIMIT] for key, value in named}
        params = [Param(key, value) for key, value in flat.items() if key not in known]
        for start in range(0, len(params), _PARAMS_PER_BATCH):
            self._mlflow("log_batch", params=params[start : start + _PARAMS_PER_BATCH])
        self._mlflow("log_dict", json.loads(json.dumps(config, default=str)), "config.yaml")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Adds or replaces tags of the MLflow run."""
        if self._client is not None:
            from mlflow.entities import RunTag

            self._mlflow("log_batch", tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copies a file, or all of a directory, to the run's artifacts, below `folder`."""
        if not Path(path).exists():
            raise FileNotFoundError(path)
        self._mlflow("log_artifacts" if Path(path).is_dir() else "log_artifact", str(path), folder)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the MLflow run's id (None without MLflow) and the last step logged."""
        return {"run_id": self.run_id, "step": self._step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken: in the same MLflow run, and with metrics.jsonl cut after its step."""
        self._resume(state["run_id"], -1 if state["step"] is None else state["step"])

    def finish(self, status: Status = "FINISHED") -> None:
        """Closes the MLflow run, if one was begun."""
        if self.run_id is not None:
            self._mlflow("set_terminated", status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt | Preempted) else "FAILED")

    def _resume(self, run_id: str | None, step: int | None) -> None:
        self._step = step
        if step is not None:
            _truncate(self.metrics_path, step)
        self.run_id = run_id if self._client is not None else None
        if self.run_id is not None:
            self._mlflow("update_run", status="RUNNING")

    def _mlflow(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            getattr(self._client, method)(self._started(), *args, **kwargs)
        except MlflowException as error:
            raise UserError(f"tracking_uri: MLflow at {self.tracking_uri} failed in {method}: {_first_line(error)}") from error

    def _started(self) -> str:
        """The id of the MLflow run, which begins here if it has not."""
        if self.run_id is None:
            # Named by hand: MLflow's own defaults are the login name and the path of the script.
            neutral = {"mlflow.user": "-", "mlflow.source.name": "genvla", "mlflow.source.type": "LOCAL"}
            experiment_id = _experiment_id(self._client, self.experiment, self.tracking_uri)
            run = self._client.create_run(experiment_id, tags={**neutral, **self._tags}, run_name=self.run_name)
            self.run_id = run.info.run_id
        return self.run_id


def revision_tags() -> dict[str, str]:
    """What code runs: the git revision and whether the tree has changes, or the version when there is no git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"genvla.version": installed_version()}
    git = ["git", "-C", str(root)]
    try:
        revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return {"genvla.version": installed_version()}
    return {
        "genvla.version": installed_version(),
        "mlflow.source.git.commit": revision,
        "git.revision": revision,
        "git.dirty": str(bool(changes)).lower(),
    }


def installed_version() -> str:
    """The version of the installed package, "unknown" when it runs without being installed."""
    try:
        return version("genvla")
    except PackageNotFoundError:
        return "unknown"


def mlflow_client(uri: str) -> Any:
    """MLflow's client for a server or store that answers.

    Raises:
        UserError: MLflow is not installed, or there is none at the URI.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError(
            f"tracking_uri: {uri} needs MLflow, which cannot be imported ({error}); install it or use 'none'"
        ) from error
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    try:
        if uri.startswith(("http://", "https://")):
            _probe(uri)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow lets those of SQLAlchemy, requests and its stores through
        raise UserError(
            f"tracking_uri: no MLflow at {uri} ({_first_line(error)}); start it, give another, or 'none' to do without"
        ) from error
    return client


def _probe(uri: str) -> None:
    """Fails within seconds where MLflow itself would try again for minutes. Any HTTP answer, 401 too, counts as being there."""
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return


def _experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment of this name, made where there is none; beside a SQLite file its artifacts go to mlruns/."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_experiment_by_name(name)
        if found is None:
            location = None
            if uri.startswith("sqlite:///"):
                location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlruns" / name).as_uri()
            return client.create_experiment(name, artifact_location=location)
        if found.lifecycle_stage != "active":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    except MlflowException as error:
        raise UserError(f"experiment: {name!r} cannot be used in MLflow at {uri}: {_first_line(error)}") from error


def _flatten(tree: Mapping[str, Any], separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{separator}{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flatten(value, separator, name)
        else:
            yield name, value


def _truncate(path: Path, last_step: int) -> None:
    """Drops the lines after `last_step`, and a line that a crash left incomplete."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= last_step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".jsonl.tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
