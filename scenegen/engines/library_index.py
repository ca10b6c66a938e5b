"""The index of a library: an SQLite file that can be thrown away at any time."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """What is known of an object without opening it. `carries`: it has a goal_point."""

    id: str
    category: str
    name: str
    description: str
    color: str
    material: str
    size: str
    engine: str
    license: str
    longest_m: float
    graspable: bool
    container: bool
    carries: bool
    times_used: int = 0


_COLUMNS = [field.name for field in fields(Row)]
_TEXT = ("category", "name", "description", "color", "material")
_TABLES = f"""
CREATE TABLE assets ({", ".join(_COLUMNS)}, PRIMARY KEY (id));
CREATE INDEX by_category ON assets (category);
CREATE VIRTUAL TABLE words USING fts5 (id UNINDEXED, {", ".join(_TEXT)}, tokenize = 'porter unicode61');
"""


class Index:
    """Rows by field and by word. `source` gives all rows from what the index is of; the index is made anew from it when the file
    is missing or broken, and in memory for this one question when the file is locked for longer than `wait_s` or cannot be
    written."""

    def __init__(self, file: Path, source: Callable[[], Iterable[Row]], wait_s: float = 20.0) -> None:
        self.file, self.source, self.wait_s = file, source, wait_s

    def search(self, text: str, wanted: Mapping[str, str], limit: int | None) -> list[Row]:
        """Rows that begin all words of `text` and have the `wanted` fields; the best match first, else by id."""
        words = re.findall(r"\w+", text)
        if text.strip() and not words:
            return []
        where = [f"assets.{name} = ?" for name in wanted]
        values: list[object] = list(wanted.values())
        source, order = "assets", "assets.id"
        if words:
            source, order = "words JOIN assets ON assets.id = words.id", "words.rank, assets.id"
            where.append("words MATCH ?")
            values.append(" ".join(f'"{word}"*' for word in words))
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        columns = ", ".join(f"assets.{name}" for name in _COLUMNS)
        query = f"SELECT {columns} FROM {source} {condition} ORDER BY {order} LIMIT ?"
        found = self._run(lambda db: db.execute(query, [*values, -1 if limit is None else limit]).fetchall())
        return [_row(values) for values in found]

    def insert(self, row: Row) -> None:
        """Nothing changes when a row of that id is there."""
        self._run(lambda db: _insert(db, row))

    def delete(self, row_id: str) -> None:
        for table in ("assets", "words"):
            self._run(lambda db, table=table: db.execute(f"DELETE FROM {table} WHERE id = ?", [row_id]))  # type: ignore[misc]

    def use(self, row_id: str) -> None:
        """Count that an object was taken."""
        self._run(lambda db: db.execute("UPDATE assets SET times_used = times_used + 1 WHERE id = ?", [row_id]))

    def rebuild(self) -> None:
        """From the source, under a temporary name. Counts of use are carried over when they can still be read."""
        used = self._counts()
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as db:
            _fill(db, (replace(row, times_used=used.get(row.id, 0)) for row in self.source()))
        self.file.with_name(f"{self.file.name}-journal").unlink(missing_ok=True)
        temporary.replace(self.file)

    def _counts(self) -> dict[str, int]:
        try:
            with closing(sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
                return dict(db.execute("SELECT id, times_used FROM assets").fetchall())
        except sqlite3.Error:
            return {}

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """The file need not survive a crash of the machine: it is not synced."""
        for _ in range(2):
            try:
                if not self.file.is_file():
                    self.rebuild()
                with closing(sqlite3.connect(self.file, timeout=self.wait_s)) as db, db:
                    db.execute("PRAGMA synchronous = OFF")
                    return action(db)
            except sqlite3.DatabaseError as error:
                if any(word in str(error) for word in ("locked", "readonly", "unable to open")):
                    break
                self.file.unlink(missing_ok=True)
        with closing(sqlite3.connect(":memory:")) as db, db:
            _fill(db, self.source())
            return action(db)


def _row(values: Sequence[Any]) -> Row:
    row = dict(zip(_COLUMNS, values, strict=True))
    return Row(**row | {name: bool(row[name]) for name in ("graspable", "container", "carries")})


def _fill(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    with db:
        db.executescript(_TABLES)
        for row in rows:
            _insert(db, row)


def _insert(db: sqlite3.Connection, row: Row) -> None:
    marks = ", ".join("?" * len(_COLUMNS))
    added = db.execute(f"INSERT OR IGNORE INTO assets VALUES ({marks})", astuple(row)).rowcount
    if added:
        db.execute(f"INSERT INTO words VALUES (?{', ?' * len(_TEXT)})", [row.id, *(getattr(row, name) for name in _TEXT)])
