"""What every engine is: something that makes the files of an asset for a node."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from scenegen.schema import AssetRecord, NodeSpec


class AssetEngine(Protocol):
    """`supports` says how well a node can be made (0 not at all .. 1 exactly). `generate` writes asset3d/<id>/result
    below `folder` and describes it; paths in the record are relative to `folder`. Another `attempt` gives another object
    for the same node."""

    name: str
    version: str

    def supports(self, spec: NodeSpec) -> float: ...

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path) -> AssetRecord: ...
