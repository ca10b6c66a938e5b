"""`scenegen gallery`, `scenegen import`, `scenegen export`: sets to look at, from elsewhere and for elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from scenegen.checks.run import complaints
from scenegen.embodiedgen.exporting import export_scene
from scenegen.embodiedgen.importing import ImportOptions, import_layout
from scenegen.embodiedgen.layout_file import LAYOUT_FILE
from scenegen.errors import UserError
from scenegen.loader import load_scene, load_scene_set
from scenegen.report import write_gallery
from scenegen.schema import SCENE_FILE


def gallery(path: Path, output: Path | None = None) -> int:
    """Write one HTML file that shows a set: pictures, verdicts, rates and figures of every scene.

    Args:
        path: Folder of a set.
        output: File to write; by default report/index.html in the set.
    """
    with Progress(transient=True) as bar:
        task = bar.add_task("pictures", total=None)
        file = write_gallery(path, output, lambda done, total: bar.update(task, completed=done, total=total))
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


def import_tasks(
    source: Path,
    output: Path,
    split: Literal["train", "heldout"] = "train",
    options: ImportOptions = ImportOptions(),  # noqa: B008  (frozen)
) -> int:
    """Make EmbodiedGen task folders scenes of a set.

    Args:
        source: A folder with a layout.json, or a folder of such folders.
        output: Folder of the set; made when it is not there.
        split: Which of the set's splits they join.
        options: What decides an import beside the files.
    """
    folders = [source] if (source / LAYOUT_FILE).is_file() else sorted(file.parent for file in source.glob(f"*/{LAYOUT_FILE}"))
    if not folders:
        raise UserError(f"source: {source} holds no {LAYOUT_FILE}; wanted a task folder of EmbodiedGen or a folder of them")
    failed = 0
    for folder in folders:
        scene_id = "_".join(re.findall(r"[a-z0-9]+", folder.absolute().name.lower())) or "scene"
        try:
            imported = import_layout(folder, output, scene_id, options, split)
        except UserError as error:
            failed += 1
            print(f"{scene_id}: refused: {error}")
            continue
        print(f"{scene_id}: {imported.bundle.instruction!r}, objects {imported.arrangement}")
        for note in [*imported.notes, *(reason for verdict in imported.verdicts for reason in complaints(verdict))]:
            print(f"{scene_id}: {note}")
    print(f"{output}: {len(folders) - failed} of {len(folders)} tasks imported")
    return 1 if failed else 0


def export_tasks(source: Path, output: Path) -> int:
    """Write scenes as task folders that EmbodiedGen's tools read.

    Args:
        source: Folder of a scene or of a set.
        output: Folder for the task folders, one for each scene.
    """
    scenes = [load_scene(source)] if (source / SCENE_FILE).is_file() else list(load_scene_set(source))
    for scene in scenes:
        print(export_scene(scene, output / scene.id))
    return 0
