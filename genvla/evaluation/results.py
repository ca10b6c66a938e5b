"""What an evaluation found: the episodes, how they were run, and the numbers that follow from them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genvla.errors import UserError
from genvla.evaluation.statistics import Interval, mean_interval, wilson_interval
from genvla.types import CHUNK_SIZE, CONTROL_HZ, EpisodeRecord

FORMAT = 2

OF_FORMAT_1 = "v1:"
"""How the digest of a scene set from a format 1 file begins: the build's log, with its seconds, was part of it then."""


@dataclass(frozen=True)
class Summary:
    """The numbers of a group of episodes; shares with Wilson's interval, means with Student's, all at 95 %.

    success_once: succeeded at some control step. success_at_end: still so at the last. grasped_once: held the target at some
    step. steps, seconds: to the first success, over the successful episodes only. episode_seconds: until the episode was
    over, over all of them.
    """

    episodes: int
    success_once: Interval
    success_at_end: Interval
    grasped_once: Interval
    steps: Interval
    seconds: Interval
    episode_seconds: Interval

    @classmethod
    def of(cls, records: Sequence[EpisodeRecord]) -> Summary:
        n = len(records)
        successes = [record for record in records if record.success_once]
        return cls(
            episodes=n,
            success_once=wilson_interval(len(successes), n),
            success_at_end=wilson_interval(sum(record.success_at_end for record in records), n),
            grasped_once=wilson_interval(sum(record.grasped_once for record in records), n),
            steps=mean_interval([record.steps for record in successes]),
            seconds=mean_interval([record.seconds for record in successes]),
            episode_seconds=mean_interval([record.chunks * CHUNK_SIZE / CONTROL_HZ for record in records]),
        )


@dataclass(frozen=True)
class Protocol:
    """How an evaluation was run: what two results must share to be compared, and where they come from.

    split_seed is that of a split drawn from the set's training scenes (genvla.sim.split_scenes), None for the set's own. The flow
    is integrated without noise after A^0, which is random; in 0 steps where the scripted expert acted. Digests are of file
    contents; empty when the scenes or the policy did not come from files. sim holds the fields of the SimConfig.
    """

    split: str
    seed: int
    integration_steps: int = 0
    max_chunks: int = 0
    num_envs: int = 0
    terminate_on_success: bool = False
    deterministic: bool = True
    chunk_size: int = CHUNK_SIZE
    control_hz: float = CONTROL_HZ
    scene_set_digest: str = ""
    checkpoint_digest: str = ""
    sim: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    split_seed: int | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """The records of an evaluation in the order of its specs, and its protocol. Everything else follows from them."""

    records: tuple[EpisodeRecord, ...]
    protocol: Protocol

    @property
    def overall(self) -> Summary:
        return Summary.of(self.records)

    @property
    def per_scene(self) -> dict[str, Summary]:
        """By scene id, in the order in which the scenes first appear."""
        groups: dict[str, list[EpisodeRecord]] = {}
        for record in self.records:
            groups.setdefault(record.scene_id, []).append(record)
        return {scene: Summary.of(records) for scene, records in groups.items()}

    @property
    def instructions(self) -> dict[str, str]:
        """The instruction of each scene, of its first episode where they vary."""
        first: dict[str, str] = {}
        for record in self.records:
            first.setdefault(record.scene_id, record.instruction)
        return first

    def metrics(self) -> dict[str, float]:
        """Scalars to log: the overall shares with bounds (`success_once`, `success_once_low`, ...), mean seconds to success where
        there was one, mean seconds per episode, and the number of episodes."""
        overall = self.overall
        scalars: dict[str, float] = {"episodes": float(overall.episodes)}
        for name in ("success_once", "success_at_end", "grasped_once"):
            interval: Interval = getattr(overall, name)
            scalars |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        scalars |= {"seconds_to_success": overall.seconds.value, "episode_seconds": overall.episode_seconds.value}
        return {name: value for name, value in scalars.items() if not isnan(value)}

    def to_json(self, path: Path) -> None:
        """Writes the result atomically. The summaries in it are for the reader: `from_json` computes them anew. There is no time
        in it, so the same evaluation writes the same file."""
        data = {
            "format": FORMAT,
            "protocol": asdict(self.protocol),
            "overall": asdict(self.overall),
            "per_scene": {scene: asdict(summary) for scene, summary in self.per_scene.items()},
            "records": [asdict(record) for record in self.records],
        }
        write_atomically(path, json.dumps(null_for_nan(data), indent=2, allow_nan=False) + "\n")

    @classmethod
    def from_json(cls, path: Path) -> EvaluationResult:
        """Reads what `to_json` wrote, now or in format 1.

        Raises:
            UserError: no such file, not JSON, another format version, or a field that is missing or of the wrong type.
        """
        try:
            data = json.loads(Path(path).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as evaluation results ({error}), want a results.json") from error
        found = data.get("format") if isinstance(data, dict) else None
        if found == 1:
            data, found = _from_format_1(data), FORMAT
        if found != FORMAT:
            raise UserError(f"{path}: format is {found!r}, want {FORMAT}")
        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: {place} is {_short(first['input'])}, want: {first['msg']}") from error


def _from_format_1(data: dict[str, Any]) -> dict[str, Any]:
    protocol = data.get("protocol")
    if not isinstance(protocol, dict) or not protocol.get("scene_set_digest"):
        return data
    return {**data, "protocol": {**protocol, "scene_set_digest": f"{OF_FORMAT_1}{protocol['scene_set_digest']}"}}


def write_atomically(path: Path, text: str) -> None:
    """Writes text to a temporary file beside path and renames it, so that a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def null_for_nan(value: Any) -> Any:
    """JSON has no NaN: what is undefined becomes null."""
    if isinstance(value, dict):
        return {key: null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [null_for_nan(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
