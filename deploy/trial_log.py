"""The trials of an evaluation on the robot: which there are, in which order, and the log of how they went.

The log is one file that is only ever added to, a line of JSON at a time, each on the disk before the next trial begins. What is
still to do follows from plan and log alone, so a session may be killed at any moment and gone on with on another day.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np
from pydantic import TypeAdapter, ValidationError

from genvla.errors import UserError
from genvla.seeding import derive_seed

FORMAT = 1

DYNAMICS_TAGS = ("miss_grasp", "drop", "push_away", "collision", "safety_stop")
SEMANTIC_TAGS = ("wrong_object", "wrong_target", "hesitation")
"""What went wrong, each a cause of a dynamics or of a semantic failure; a trial may have both."""


@dataclass(frozen=True, order=True)
class TrialKey:
    """One trial of the plan: a policy on one layout of a scene. The policies of a plan share scenes and layouts, in pairs."""

    scene: str
    layout: int
    policy: str

    def __str__(self) -> str:
        return f"{self.scene}/{self.layout}/{self.policy}"

    @classmethod
    def parse(cls, text: str) -> TrialKey:
        """Of SCENE/LAYOUT/POLICY; UserError when it is something else."""
        parts = text.split("/")
        if len(parts) != 3 or not parts[1].isdigit():
            raise UserError(f"trial: {text!r} found, SCENE/LAYOUT/POLICY wanted, such as s0000/3/rl")
        return cls(parts[0], int(parts[1]), parts[2])


@dataclass(frozen=True)
class Plan:
    """The trials to be made, and everything that decides how they go.

    setting: digests, seeds and options that a continued session must share with the first.
    """

    scenes: tuple[str, ...]
    layouts: int
    policies: tuple[str, ...]
    seed: int
    setting: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("scenes", "policies"):
            names = getattr(self, name)
            if not names or len(set(names)) != len(names):
                raise UserError(f"trials: {name}: {list(names)} found, at least one and each once wanted")
            if any("/" in one or not one for one in names):
                raise UserError(f"trials: {name}: {list(names)} found, names without / wanted")
        if self.layouts < 1:
            raise UserError(f"trials: layouts: {self.layouts} found, at least 1 wanted")

    @property
    def order(self) -> list[TrialKey]:
        """One scene after the other, so that the table is set once; scenes, layouts in a scene, and the policies on a layout in
        random order."""
        rng = np.random.default_rng(derive_seed(self.seed, "trials"))
        return [
            TrialKey(self.scenes[scene], int(layout), self.policies[policy])
            for scene in rng.permutation(len(self.scenes))
            for layout in rng.permutation(self.layouts)
            for policy in rng.permutation(len(self.policies))
        ]


@dataclass(frozen=True)
class Trial:
    """One trial that was made.

    success: the task's rule held. partial: the right object was grasped, which success implies. The failures are of failed trials
    alone. time_to_finish_s: from the first action to success, None without. seconds: until the trial was over. void: why it does
    not count (broken hardware, an operator's slip), empty when it does.
    """

    key: TrialKey
    attempt: int
    success: bool
    partial: bool
    dynamics_failure: bool
    semantic_failure: bool
    seconds: float
    time_to_finish_s: float | None = None
    tags: tuple[str, ...] = ()
    void: str = ""
    instruction: str = ""
    comment: str = ""
    run: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strike:
    """Takes an earlier attempt out of the count: a redo makes it anew, a void leaves its reason; both keep its record."""

    key: TrialKey
    attempt: int
    reason: str


class TrialLog:
    """Plan and trials in one append-only file; `opened` makes or continues one."""

    def __init__(self, path: Path, plan: Plan, entries: Sequence[Trial | Strike], file: TextIO | None = None) -> None:
        self.path, self.plan = path, plan
        self._entries = list(entries)
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, path: Path, plan: Plan) -> Iterator[TrialLog]:
        """The log at this path, of this plan and nobody else's while it is open.

        Raises:
            UserError: the file is of another plan, is damaged, or another process has it open.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{path}: another process has it open, want one session at a time") from None
            _drop_half_line(file)
            file.seek(0)
            lines = file.read().splitlines()
            if lines:
                found, entries = _parse(path, lines)
                _require_same(path, found, plan)
            else:
                entries = []
                _append(file, {"kind": "plan", "format": FORMAT, **asdict(plan)})
            yield cls(path, plan, entries, file)

    @classmethod
    def read(cls, path: Path) -> TrialLog:
        """The log as it stands, for a report; UserError when it is none."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read ({error}), want a log of trials") from error
        plan, entries = _parse(path, text[: text.rfind("\n") + 1].splitlines())
        return cls(path, plan, entries)

    @property
    def attempts(self) -> list[Trial]:
        """All trials made, in order, counted or not."""
        return [entry for entry in self._entries if isinstance(entry, Trial)]

    @property
    def counted(self) -> dict[TrialKey, Trial]:
        """The trials that count: of each the newest attempt that is neither void nor struck out."""
        struck = {(entry.key, entry.attempt) for entry in self._entries if isinstance(entry, Strike)}
        return {trial.key: trial for trial in self.attempts if not trial.void and (trial.key, trial.attempt) not in struck}

    @property
    def pending(self) -> list[TrialKey]:
        """The trials still to be made, in the plan's order."""
        counted = self.counted
        return [key for key in self.plan.order if key not in counted]

    def next_attempt(self, key: TrialKey) -> int:
        """The number of a trial's next attempt, from 1 on."""
        return 1 + sum(trial.key == key for trial in self.attempts)

    def add(self, trial: Trial) -> None:
        """Writes a trial; it is on the disk when this returns."""
        self._write("trial", trial)

    def strike(self, key: TrialKey, reason: str) -> None:
        """Takes the counted attempt of a trial out, so that it is to be made again; UserError when there is none."""
        trial = self.counted.get(key)
        if trial is None:
            raise UserError(f"{self.path}: {key} has not been made yet, or does not count")
        self._write("strike", Strike(key, trial.attempt, reason))

    def _write(self, kind: Literal["trial", "strike"], entry: Trial | Strike) -> None:
        if self._file is None:
            raise RuntimeError("this log is open for reading alone")
        written = datetime.now(UTC).isoformat(timespec="seconds")  # for people: nothing is decided by it
        _append(self._file, {"kind": kind, "written": written, **asdict(entry)})
        self._entries.append(entry)


def _append(file: TextIO, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, allow_nan=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _drop_half_line(file: TextIO) -> None:
    """A process that was killed while it wrote leaves a line without its end."""
    file.seek(0)
    text = file.read()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.truncate(len(whole.encode()))


def _parse(path: Path, lines: Sequence[str]) -> tuple[Plan, list[Trial | Strike]]:
    kinds: dict[str, Any] = {"plan": Plan, "trial": Trial, "strike": Strike}
    parsed: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            kind = row.pop("kind")
            row.pop("written", None)
            if kind == "plan" and (found := row.pop("format")) != FORMAT:
                raise UserError(f"{path}: line {number}: format {found!r} found, {FORMAT} wanted")
            parsed.append(TypeAdapter(kinds[kind]).validate_python(row))
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{path}: line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: line {number}: no entry of a trial log ({type(error).__name__}: {error})") from None
    if not parsed or not isinstance(parsed[0], Plan):
        raise UserError(f"{path}: line 1: want the plan of the trials")
    return parsed[0], parsed[1:]


def _require_same(path: Path, found: Plan, wanted: Plan) -> None:
    one, other = (json.loads(json.dumps(asdict(plan))) for plan in (found, wanted))
    for plan in (one, other):
        plan |= {f"setting.{name}": value for name, value in plan.pop("setting").items()}
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            shown = [" ".join(str(plan.get(name)).split())[:60] for plan in (one, other)]
            raise UserError(f"{path}: {name}: {shown[0]} found, {shown[1]} asked for; want the same, or another --output")
