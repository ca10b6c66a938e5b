"""All that the folder of a set says about how it was made; what older and imported sets lack is None."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from scenegen.errors import UserError
from scenegen.loader import Scene, load_scene_set
from scenegen.schema import (
    BUILD_LOG,
    PROVENANCE_FILE,
    QA_FILE,
    AssetRecord,
    BuildEvent,
    ManifestLine,
    Provenance,
    Status,
    Verdict,
)

T = TypeVar("T")

_EVENT, _VERDICTS, _PROVENANCE = TypeAdapter(BuildEvent), TypeAdapter(list[Verdict]), TypeAdapter(Provenance)


@dataclass(frozen=True)
class SceneRecord:
    """One scene of a set with what its checks and its making left behind."""

    line: ManifestLine
    scene: Scene
    verdicts: list[Verdict] | None
    provenance: Provenance | None

    @property
    def statuses(self) -> set[Status]:
        return {verdict.status for verdict in self.verdicts or []}

    @property
    def categories(self) -> list[str]:
        return [entry.asset.category for entry in self.scene.objects]


@dataclass(frozen=True)
class SetRecord:
    """A set. `events` are the lines of its log, oldest first."""

    folder: Path
    scenes: Sequence[SceneRecord]
    events: Sequence[BuildEvent] | None

    @property
    def assets(self) -> list[AssetRecord]:
        """Of every object of every scene, the same asset as often as it is used."""
        return [entry.asset for record in self.scenes for entry in record.scene.objects]

    @property
    def last_events(self) -> dict[str, BuildEvent]:
        """How each scene that the log knows ended."""
        return {event.scene_id: event for event in self.events or []}

    @property
    def rejected(self) -> list[BuildEvent]:
        """The ends of the scenes that were given up and are not in the set."""
        kept = {record.line.id for record in self.scenes}
        return [event for name, event in self.last_events.items() if event.outcome == "rejected" and name not in kept]


def read_set(folder: Path) -> SetRecord:
    """Read a set. Raises UserError for a file that is malformed, or when there is no set."""
    scenes = load_scene_set(folder)
    records = []
    for line in scenes.lines:
        scene = scenes.load(line.id)
        verdicts, provenance = scene.folder / QA_FILE, scene.folder / PROVENANCE_FILE
        records.append(
            SceneRecord(
                line,
                scene,
                _parse(_VERDICTS, verdicts.read_bytes(), str(verdicts)) if verdicts.is_file() else None,
                _parse(_PROVENANCE, provenance.read_bytes(), str(provenance)) if provenance.is_file() else None,
            )
        )
    return SetRecord(scenes.folder, records, _events(scenes.folder / BUILD_LOG))


def _events(log: Path) -> list[BuildEvent] | None:
    if not log.is_file():
        return None
    lines = enumerate(log.read_bytes().splitlines(), start=1)
    return [_parse(_EVENT, text, f"{log}:{number}") for number, text in lines if text.strip()]


def _parse(adapter: TypeAdapter[T], content: bytes, where: str) -> T:
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole)"
        found = "" if isinstance(first["input"], dict | list | bytes) else f"; found {first['input']!r:.80}"
        raise UserError(f"{where}: {field}: {first['msg']}{found}") from None
