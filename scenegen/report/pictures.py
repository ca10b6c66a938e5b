"""The pictures of a report, small enough to lie inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scenegen.report.records import SetRecord

HERO = (480, 360)
ASSET = 144
QUALITY = 82

Progress = Callable[[int, int], None]
"""Called with the pictures done and those wanted."""


@dataclass
class Pictures:
    """Data URIs by scene id and by asset id; whatever could not be taken is absent, and `note` says why."""

    scenes: dict[str, str] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)
    note: str = ""


def take_pictures(record: SetRecord, progress: Progress) -> Pictures:
    """One of each scene and one of each unique asset."""
    pictures = Pictures()
    visuals = {entry.asset.asset_id: entry.visual for item in record.scenes for entry in item.scene.objects}
    total, failed = len(record.scenes) + len(visuals), 0
    try:
        from scenegen.preview import Photographer

        photographer = Photographer()
    except (ImportError, RuntimeError) as error:
        pictures.note = f"No pictures were taken: {error}. They need SAPIEN and a Vulkan driver."
        _use_previews(record, pictures)
        return pictures
    jobs: list[tuple[dict[str, str], str, Callable[[], NDArray[np.uint8]]]] = []
    for item in record.scenes:
        jobs.append((pictures.scenes, item.line.id, lambda item=item: photographer.take(item.scene, 0, *HERO, robot=True)))  # type: ignore[misc]
    for name, visual in visuals.items():
        jobs.append((pictures.assets, name, lambda visual=visual: photographer.asset_view(visual, ASSET)))  # type: ignore[misc]
    for done, (place, name, job) in enumerate(jobs):
        progress(done, total)
        try:
            place[name] = data_uri(job())
        except (RuntimeError, ValueError, OSError):
            failed += 1
    progress(total, total)
    if failed:
        pictures.note = f"{failed} of {total} pictures could not be taken: the renderer refused the files."
    return pictures


def _use_previews(record: SetRecord, pictures: Pictures) -> None:
    """Show what an earlier build rendered."""
    for item in record.scenes:
        preview: Path = item.scene.folder / "preview.png"
        if preview.is_file():
            with Image.open(preview) as image:
                pictures.scenes[item.line.id] = data_uri(np.asarray(image.convert("RGB")))


def data_uri(picture: NDArray[np.uint8]) -> str:
    """A picture [h, w, 3] as WebP in a data URI."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
