"""An EmbodiedGen task, read: its layout and the meshes of its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenegen.embodiedgen.assets import ReadAsset, read_asset
from scenegen.embodiedgen.frames import UPRIGHT, Frame, from_xyzw
from scenegen.embodiedgen.layout_file import CONTEXT, LAYOUT_FILE, Layout, read_layout
from scenegen.embodiedgen.sidecar import Extra, read_extra
from scenegen.errors import UserError

Array = NDArray[np.float64]
TABLE_FACES = 12_000


@dataclass(frozen=True)
class ImportOptions:
    """What decides an import beside the task's files. `target` and `destination` are names in the layout; by default its
    sentence says, else the order of its manipulated objects. An object stands at most `xy_range` [m] from its nominal place
    along x and y in `poses` start placements. `background_files`: keep the files of the background, which may be large, for
    an export."""

    target: str | None = None
    destination: str | None = None
    seed: int = 0
    xy_range: float = 0.15
    poses: int = 128
    background_files: bool = True


@dataclass(frozen=True)
class Source:
    """A task, read. Meshes by the names of the layout's nodes."""

    folder: Path
    layout: Layout
    extra: Extra | None
    meshes: Mapping[str, ReadAsset]

    @property
    def path(self) -> Path:
        return self.folder / LAYOUT_FILE

    @property
    def table(self) -> str:
        return self.layout.of_role(CONTEXT)[0]

    def link(self, node: str) -> Frame | None:
        """The upright link of a node in the layout's world."""
        if node not in self.layout.position:
            return None
        numbers = self.layout.position[node]
        turn = from_xyzw(numbers[3:])
        return Frame(numbers[:3], UPRIGHT * turn * UPRIGHT.inv() if self.meshes[node].urdf.legacy else turn)

    def shift(self, node: str) -> Array:
        """From the upright link of an object to ours [m]: none for an asset of ours, which lies in the frame it had."""
        return np.zeros(3) if self.extra is not None else self.meshes[node].shift


def read_source(task_dir: Path, options: ImportOptions) -> Source:
    path = task_dir / LAYOUT_FILE
    layout = read_layout(path)
    extra = None if options.target or options.destination else read_extra(layout, path)
    table = layout.of_role(CONTEXT)[0]
    meshes = {}
    for node in (table, *layout.objects):
        if node not in layout.assets:
            raise UserError(f"{path}: assets: found nothing for {node!r}; wanted the folder of its asset")
        place = task_dir / layout.assets[node]
        if not place.is_dir():
            raise UserError(f"{path}: assets.{node}: {layout.assets[node]} does not exist")
        meshes[node] = read_asset(place, max_faces=TABLE_FACES if node == table else 8000)
    return Source(task_dir, layout, extra, meshes)
