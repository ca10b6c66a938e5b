"""What every engine is: something that makes the files of an asset for a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from scenegen.schema import AssetRecord, NodeSpec


class EngineError(Exception):
    """An asset that an engine could not make this time; says why in one line. Another attempt, or another engine, may succeed."""


class AssetEngine(Protocol):
    """`supports` says how well a node can be made (0 not at all .. 1 exactly). `generate` writes asset3d/<id>/result
    below `folder` and describes it; paths in the record are relative to `folder`. Another `attempt` gives another object
    for the same node; `feedback` says in short lines what was wrong with earlier ones. It raises EngineError when it did not
    succeed and leaves nothing behind then."""

    name: str
    version: str

    def supports(self, spec: NodeSpec) -> float: ...

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord: ...
