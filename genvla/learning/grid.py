"""The grid of a sweep: what each of its runs is called with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from genvla.errors import UserError

SEED = "{seed}"
"""Stands for the cell's seed in the value of an option."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid: where it stands on each axis, its seed, and what `genvla fit` is called with."""

    name: str
    group: str
    labels: dict[str, str]
    seed: int
    configs: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """Of `genvla fit`, but for the folder of the run."""
        configs = [word for config in self.configs for word in ("--config", config)]
        options = [f"--{name}={as_text(value)}" for name, value in self.options.items()]
        return [*configs, *options, f"--seed={self.seed}"]


def make_cells(base: Sequence[Path], axes: dict[str, Any], seeds: Sequence[int], options: dict[str, Any]) -> Iterator[Cell]:
    """The cells of a grid, the seeds varying fastest.

    Raises:
        UserError: nothing varies, a file is not there, or two cells would have the same name.
    """
    if not axes or not seeds:
        raise UserError(f"axes: {len(axes)} axes and {len(seeds)} seeds found, want at least one of each")
    for path in base:
        _existing("base", path)
    entries = [[(axis, label, change) for label, change in _entries(axis, values)] for axis, values in axes.items()]
    names: set[str] = set()
    for combination in product(*entries):
        group = "_".join(_slug(_called(axis, label, named=isinstance(axes[axis], dict))) for axis, label, _ in combination)
        configs = [str(path) for path in base] + [str(change) for *_, change in combination if isinstance(change, Path)]
        changes = dict(options)
        for _, _, change in combination:
            changes |= {} if isinstance(change, Path) else change
        if group in names:
            raise UserError(f"axes: two combinations are called {group}, want labels that differ in letters and digits")
        names.add(group)
        labels = {axis: label for axis, label, _ in combination}
        for seed in seeds:
            yield Cell(f"{group}-seed{seed}", group, labels, seed, tuple(configs), with_seed(changes, seed))


def _entries(axis: str, values: Any) -> Iterator[tuple[str, Path | dict[str, Any]]]:
    """The labels of an axis, each with the file or the options that it stands for."""
    if isinstance(values, list) and values:
        for value in values:
            yield as_text(value), {axis: value}
    elif isinstance(values, dict) and values:
        for label, change in values.items():
            if not isinstance(change, str | dict):
                raise UserError(f"axes.{axis}.{label}: {change!r} found, want a configuration file, or options with their values")
            yield str(label), change if isinstance(change, dict) else _existing(f"axes.{axis}.{label}", Path(change))
    else:
        raise UserError(f"axes.{axis}: {values!r} found, want a list of values, or labels with files or options")


def _called(axis: str, label: str, named: bool) -> str:
    """`full_expert` is a name by itself; `10`, and the value of an option, want their axis before them."""
    return label if named and label[:1].isalpha() else f"{axis.rpartition('.')[2]}_{label}"


def with_seed(options: dict[str, Any], seed: int) -> dict[str, Any]:
    """Options with the seed where they ask for it."""
    return {name: seed if value == SEED else value for name, value in options.items()}


def as_text(value: Any) -> str:
    """A value as it is given on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _existing(field_name: str, path: Path) -> Path:
    if not Path(path).is_file():
        raise UserError(f"{field_name}: {path} not found, want a configuration file; paths start in the current folder")
    return Path(path)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")
