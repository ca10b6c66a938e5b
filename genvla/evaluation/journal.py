"""The finished episodes of an evaluation that is still going on, so that the same command goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from genvla.errors import UserError
from genvla.evaluation.results import FORMAT, Protocol, write_atomically
from genvla.types import EpisodeRecord, EpisodeSpec


class Journal:
    """Episodes as lines of `unfinished-<rank>.jsonl` in the folder of the results, under a line with the protocol.

    Each process writes a file of its own and reads all of them, so the evaluation may go on with another number of processes.

    Raises:
        UserError: the folder has the episodes of an evaluation with another protocol, or a file that is not a journal.
    """

    def __init__(self, folder: Path, protocol: Protocol, rank: int = 0) -> None:
        self.folder = Path(folder)
        self._header: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "protocol": asdict(protocol)}))
        self.records: dict[EpisodeSpec, EpisodeRecord] = {}
        own = self.folder / f"unfinished-{rank}.jsonl"
        found = {path: list(self._read(path)) for path in self._files()}
        for records in found.values():
            self.records |= {record.spec: record for record in records}
        # Written anew, so that nothing is appended to half a line.
        lines = [json.dumps(self._header), *(json.dumps(asdict(record)) for record in found.get(own, []))]
        write_atomically(own, "".join(f"{line}\n" for line in lines))
        self._file = own.open("a")

    def add(self, record: EpisodeRecord) -> None:
        """Keeps a finished episode, which is safe with this process dead from here on."""
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Removes the journals of all processes: the results are written."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("unfinished-*.jsonl"))

    def _read(self, path: Path) -> Iterator[EpisodeRecord]:
        lines = path.read_text().splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # it was being written when the process died
            lines.pop()
        if not lines:
            return
        number = 1
        try:
            header = json.loads(lines[0])
            _refuse_difference(path, "", header, self._header)
            for line in lines[1:]:
                number += 1
                yield TypeAdapter(EpisodeRecord).validate_json(line)
        except UserError:
            raise
        except ValueError as error:  # of json and of pydantic
            raise UserError(f"{path}: line {number} is no episode, want what an interrupted `genvla evaluate` wrote") from error


def _refuse_difference(path: Path, name: str, was: Any, now: Any) -> None:
    """UserError that names the first entry in which two settings differ."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}):
            _refuse_difference(path, f"{name}.{key}" if name else key, was.get(key), now.get(key))
    elif was != now:
        raise UserError(
            f"{path}: an evaluation with {name} {was!r} was interrupted here, this one has {now!r}; want the same command, or "
            "another --output"
        )
