"""The gallery: one HTML file that shows a set of scenes, how good they are and how they were made."""

from __future__ import annotations

from pathlib import Path

from scenegen.errors import UserError
from scenegen.files import write_atomic
from scenegen.report.page import page
from scenegen.report.pictures import Progress, take_pictures
from scenegen.report.records import read_set

REPORT_FILE = "report/index.html"


def write_gallery(
    scene_set_dir: str | Path, output: str | Path | None = None, progress: Progress = lambda done, total: None
) -> Path:
    """Write the gallery of a set, by default to report/index.html in it, and return where it lies. The file needs no other file
    and no network. `progress` is called with the pictures done and those wanted.

    Without a Vulkan driver the page comes without pictures and says so, as it does of qa.json, provenance.json and build.jsonl
    when a set lacks them. Raises UserError when there is no set, a file of it is malformed, or `output` is a folder.
    """
    record = read_set(Path(scene_set_dir))
    file = Path(output) if output is not None else record.folder / REPORT_FILE
    if file.is_dir():
        raise UserError(f"output: {file} is a folder; wanted the name of a file")
    content = page(record, take_pictures(record, progress))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"output: {file} cannot be written: {error.strerror}") from None
    return file
