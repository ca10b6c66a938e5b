"""The black box: the last minutes of states, actions, commands and events in memory, on disk when something goes wrong."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from deploy.drivers import ArmState

ROWS_PER_SECOND = 64
"""For which there is room: 50 states, and the rest."""


class Recorder:
    """Rows of JSON, one a line, the oldest forgotten first. Any thread may write.

    folder: where flushes go, black-box-0001.jsonl and so on; nothing is written without one. seconds: how much is kept.
    """

    def __init__(self, folder: Path | None = None, seconds: float = 120.0) -> None:
        self._folder = folder
        self._rows: deque[dict[str, Any]] = deque(maxlen=max(1, int(seconds * ROWS_PER_SECOND)))
        self._lock = Lock()

    def state(self, state: ArmState) -> None:
        """Records a reading."""
        row = {
            "q": state.joint_positions,
            "dq": state.joint_velocities,
            "fingers": state.fingers,
            "currents": state.currents,
            "temperatures": state.temperatures,
            "voltages": state.voltages,
        }
        self.write("state", state.time, **row, **({"faults": state.faults} if state.faults else {}))

    def write(self, kind: str, time: float, **what: Any) -> None:
        """Records a row of any kind: numbers, texts, arrays."""
        row = {"kind": kind, "time": time} | what
        with self._lock:
            self._rows.append(row)

    def flush(self, reason: str) -> Path | None:
        """Writes what is kept, and why, to a new file that survives a loss of power; returns it. None without a folder."""
        if self._folder is None:
            return None
        with self._lock:
            rows = list(self._rows)
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = [int(name.stem[-4:]) for name in self._folder.glob("black-box-[0-9][0-9][0-9][0-9].jsonl")]
        path = self._folder / f"black-box-{max(taken, default=0) + 1:04d}.jsonl"
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with temporary.open("w") as file:
            for row in [{"kind": "flush", "reason": reason, "rows": len(rows)}, *rows]:
                file.write(json.dumps(row, default=_plain) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return path


def _plain(value: Any) -> Any:
    """What JSON knows: nan becomes null."""
    if isinstance(value, np.ndarray):
        return [None if isinstance(x, float) and not np.isfinite(x) else x for x in value.astype(float).tolist()]
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
