"""Cassettes: answers kept in a file, so that a run can be made again without a network and for nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scenegen.errors import UserError
from scenegen.llm.base import Answer, LLMClient, LLMError, T
from scenegen.llm.cost import Ledger
from scenegen.llm.question import ModelSettings, question_sha


class Cassette:
    """A file of one JSON line for each answer, under the digest of its question. Each line is appended in one piece; one that a
    kill left torn is passed over, and so asked again. Of two answers to one question the first counts. Keeps no key, no host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        if path.is_dir():
            raise UserError(f"cassette: {path} is a folder; wanted a file")
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                self._entries.setdefault(entry["key"], entry)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> dict[str, Any] | None:
        return self._entries.get(key)

    def settings(self) -> ModelSettings:
        """Of the model that the first entry is of. Raises UserError for a cassette that holds none."""
        try:
            return ModelSettings(**next(iter(self._entries.values()))["settings"])
        except (StopIteration, KeyError, TypeError):
            raise UserError(f"cassette: {self.path} holds no answers of a model; wanted a file that was recorded") from None

    def add(self, entry: dict[str, Any]) -> None:
        with self._lock:
            if entry["key"] in self._entries:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps(entry, sort_keys=True).encode() + b"\n"
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                os.write(descriptor, (b"\n" if torn else b"") + line)
            finally:
                os.close(descriptor)
            self._entries[entry["key"]] = entry


class CassetteClient:
    """An LLMClient that knows the answers of a cassette. What it does not know it asks `inner` and keeps; without `inner` that
    is an LLMError. Equal questions get equal answers, also when they are asked at the same time. `settings` are the inner
    client's when None; a cassette that is only played has them from its first entry."""

    def __init__(self, cassette: Cassette, inner: LLMClient | None = None, settings: ModelSettings | None = None) -> None:
        self.cassette, self.inner = cassette, inner
        self.settings: ModelSettings = settings or getattr(inner, "settings", None) or cassette.settings()
        self.ledger: Ledger = getattr(inner, "ledger", None) or Ledger(None, None)
        self._lock = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}

    def complete(self, purpose: str, system: str, user: str, schema: type[T], images: Sequence[bytes] = ()) -> Answer[T]:
        """As LLMClient says."""
        key = question_sha(self.settings, system, user, schema, images)
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        with asking:
            entry = self.cassette.get(key)
            if entry is not None:
                return _replayed(entry, schema, self.cassette.path)
            if self.inner is None:
                raise LLMError(f"{purpose}: {self.cassette.path} holds no answer to this question; record it first")
            answer = self.inner.complete(purpose, system, user, schema, images)
            self.cassette.add(
                {
                    "key": key,
                    "purpose": purpose,
                    "model": answer.model,
                    "settings": asdict(self.settings),
                    "answer": answer.value.model_dump(mode="json"),
                    "tokens": list(answer.tokens),
                    "usd": answer.usd,
                }
            )
            return answer


def _replayed(entry: dict[str, Any], schema: type[T], path: Path) -> Answer[T]:
    try:
        value = schema.model_validate_json(json.dumps(entry["answer"]))
        return Answer(value, str(entry["model"]), str(entry["key"]), 0.0)
    except (ValidationError, KeyError):
        raise LLMError(f"{path}: the entry {entry['key'][:12]} does not fit its question; delete it and record again") from None
