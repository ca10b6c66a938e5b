"""A dataset in lerobot's format as demonstrations to imitate: ours, or anybody's with the same columns, units and rate."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from genvla.errors import UserError
from genvla.learning.demonstrations import DemonstrationSet
from genvla.learning.lerobot import layout
from genvla.learning.lerobot.layout import ACTION, FPS, PRIVILEGED, STATE, SUCCESS, WIDTHS
from genvla.learning.lerobot.video import read_video
from genvla.types import PRIVILEGED_NAMES

if TYPE_CHECKING:
    import pyarrow as pa


def read_dataset(folder: Path) -> DemonstrationSet:
    """The episodes that succeeded, in their order; all of them where the dataset does not say which did.

    Without the column `privileged` the set has no simulator state, and a policy without a grounding head must be trained.

    Raises:
        UserError: the dataset is not whole, of another version or rate, or its columns are not what a policy wants.
    """
    folder = Path(folder)
    features = check_dataset(folder)
    cameras = _cameras(folder, features)
    rows = _rows(folder, features)
    episode = rows["episode_index"].to_numpy()
    kept = _successful(rows, episode)
    if not kept.any():
        raise UserError(f"{folder}: none of {len(np.unique(episode))} episodes succeeded, want at least one")
    task = rows["task_index"].to_numpy()[kept]
    texts = _tasks(folder)
    if missing := set(task.tolist()) - set(texts):
        raise UserError(f"{folder / layout.TASKS}: no task of index {min(missing)}, which the data name")
    instructions = sorted({texts[index] for index in task.tolist()})
    _, number = np.unique(episode[kept], return_inverse=True)
    return DemonstrationSet(
        images=_pictures(folder, features, cameras, rows, kept),
        proprio=_vectors(folder, rows, STATE)[kept],
        privileged=_vectors(folder, rows, PRIVILEGED)[kept] if PRIVILEGED in features else None,
        actions=_vectors(folder, rows, ACTION)[kept],
        episode=number,
        task=np.array([instructions.index(texts[index]) for index in task.tolist()]),
        instructions=instructions,
        tried=_tried(folder, len(np.unique(episode))),
    )


def check_dataset(folder: Path) -> dict[str, dict[str, Any]]:
    """The dataset's columns, from its info.json alone.

    Raises:
        UserError: there is none, it is of another version or rate, or a column is missing or has another shape.
    """
    path = Path(folder) / layout.INFO
    if not path.is_file():
        raise UserError(f"{path}: not found, want the folder of a whole lerobot dataset")
    try:
        info = json.loads(path.read_text())
        version, fps, features = info["codebase_version"], info["fps"], dict(info["features"])
        shapes = {name: list(feature["shape"]) for name, feature in features.items()}
        kinds = {name: str(feature["dtype"]) for name, feature in features.items()}
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]}: missing, want the info.json of a lerobot dataset") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}; want the info.json of a lerobot dataset") from error
    if not str(version).startswith("v3."):
        raise UserError(f"{path}: codebase_version: {version!r} found, {layout.VERSION} wanted; lerobot converts older ones")
    if fps != FPS:
        raise UserError(f"{path}: fps: {fps} found, {FPS} wanted, the rate that the robot is controlled at")
    for name, width in WIDTHS.items():
        if name not in features and name != PRIVILEGED:
            raise UserError(f"{path}: features: {name} is missing, want it with shape [{width}]")
        if name in features and (shapes[name] != [width] or not kinds[name].startswith("float")):
            raise UserError(f"{path}: features.{name}: {kinds[name]} {shapes[name]} found, float32 [{width}] wanted")
    if PRIVILEGED in features and features[PRIVILEGED].get("names") != list(PRIVILEGED_NAMES):
        raise UserError(f"{path}: features.{PRIVILEGED}.names: other names than this version's found, want its PRIVILEGED_NAMES")
    return features


def _cameras(folder: Path, features: dict[str, dict[str, Any]]) -> list[str]:
    """The columns that hold pictures."""
    cameras = [name for name, feature in features.items() if feature["dtype"] in ("image", "video")]
    shapes = {tuple(features[name]["shape"]) for name in cameras}
    if len(shapes) != 1 or len(shape := next(iter(shapes))) != 3 or shape[2] != 3:
        found = {name: list(features[name]["shape"]) for name in cameras}
        raise UserError(f"{folder / layout.INFO}: {found or 'no camera'} found, one shape [height, width, 3] wanted")
    return cameras


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        there = pq.read_schema(path).names
        if missing := [name for name in columns or [] if name not in there]:
            raise UserError(f"{path}: column {missing[0]} is missing")
        return pq.ParquetFile(path).read(columns)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; the dataset is not whole") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: no parquet file that can be read ({str(error).splitlines()[0]})") from error


def _rows(folder: Path, features: dict[str, dict[str, Any]]) -> pa.Table:
    """All data, in the order of their index."""
    import pyarrow as pa

    paths = sorted((folder / "data").glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{folder / 'data'}: no parquet file found; the dataset is not whole")
    wanted = [STATE, ACTION, "episode_index", "frame_index", "task_index", "index"]
    optional = [name for name in (PRIVILEGED, SUCCESS) if name in features]
    pictures = [name for name, feature in features.items() if feature["dtype"] == "image"]
    table = pa.concat_tables([_read(path, [*wanted, *optional, *pictures]) for path in paths]).sort_by("index")
    total = json.loads((folder / layout.INFO).read_text()).get("total_frames", len(table))
    if len(table) != total or table["index"].to_pylist() != list(range(total)):
        raise UserError(f"{folder / 'data'}: {len(table)} rows found, {total} wanted; the dataset is not whole")
    return table


def _successful(rows: pa.Table, episode: Int[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Which rows are of an episode that succeeded at some time."""
    if SUCCESS not in rows.column_names:
        return np.ones(len(episode), dtype=bool)
    return np.isin(episode, np.unique(episode[rows[SUCCESS].to_numpy().reshape(-1).astype(bool)]))


def _vectors(folder: Path, rows: pa.Table, name: str) -> np.ndarray:
    values = np.array(rows[name].to_pylist(), dtype=np.float32)
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise UserError(f"{folder / 'data'}: {name}: {values[first].tolist()} found in row {first}, finite numbers wanted")
    return values


def _tasks(folder: Path) -> dict[int, str]:
    """Instructions by index."""
    import pandas as pd

    path = folder / layout.TASKS
    _read(path, ["task_index"])
    tasks = pd.read_parquet(path)
    texts = tasks.get("task", tasks.index)
    return {int(index): str(text) for index, text in zip(tasks["task_index"], texts, strict=True)}


def _pictures(
    folder: Path, features: dict[str, dict[str, Any]], cameras: list[str], rows: pa.Table, kept: Bool[np.ndarray, " m"]
) -> UInt8[np.ndarray, "k n h w 3"]:
    """Those of the kept rows."""
    height, width, _ = features[cameras[0]]["shape"]
    images = np.empty((int(kept.sum()), len(cameras), height, width, 3), np.uint8)
    places = np.where(kept, kept.cumsum() - 1, -1)
    for camera, name in enumerate(cameras):
        if features[name]["dtype"] == "video":
            _fill_from_videos(folder, name, images[:, camera], places)
        else:
            _fill_from_column(folder, rows, name, images[:, camera], places)
    return images


def _fill_from_column(
    folder: Path, rows: pa.Table, name: str, images: UInt8[np.ndarray, "k h w 3"], places: Int[np.ndarray, " m"]
) -> None:
    from PIL import Image

    for row, picture in enumerate(rows[name]):
        if places[row] < 0:
            continue
        try:
            image = np.asarray(Image.open(io.BytesIO(picture["bytes"].as_py())).convert("RGB"))
        except (OSError, TypeError) as error:
            raise UserError(f"{folder / 'data'}: {name}: no picture in row {row} ({error})") from error
        if image.shape != images.shape[1:]:
            found, wanted = list(image.shape), list(images.shape[1:])
            raise UserError(f"{folder / 'data'}: {name}: {found} found in row {row}, {wanted} wanted, as meta/info.json says")
        images[places[row]] = image


def _fill_from_videos(folder: Path, name: str, images: UInt8[np.ndarray, "k h w 3"], places: Int[np.ndarray, " m"]) -> None:
    """Goes through each file once; the table of episodes says which of its frames are which rows."""
    template = json.loads((folder / layout.INFO).read_text()).get("video_path") or layout.VIDEO
    files: dict[Path, dict[int, int]] = {}
    for first, last, chunk, file, start in _episodes(folder, name):
        try:
            path = folder / template.format(video_key=name, chunk_index=chunk, file_index=file)
        except (LookupError, ValueError, AttributeError) as error:
            raise UserError(f"{folder / layout.INFO}: video_path: {template!r} found, want one like {layout.VIDEO}") from error
        offset = round(start * FPS) - first
        files.setdefault(path, {}).update({row + offset: row for row in range(first, min(last, len(places)))})
    if sum(len(rows) for rows in files.values()) != len(places):
        raise UserError(f"{folder / 'meta/episodes'}: other rows than the {len(places)} of the data; the dataset is not whole")
    for path, rows in files.items():
        frames = 0
        for frames, picture in enumerate(read_video(path, *images.shape[1:3]), 1):
            place = places[rows[frames - 1]] if frames - 1 in rows else -1
            if place >= 0:
                images[place] = picture
        if frames <= max(rows, default=-1):
            raise UserError(f"{path}: {frames} frames found, {max(rows) + 1} wanted; the dataset is not whole")


def _episodes(folder: Path, video: str) -> list[tuple[Any, ...]]:
    """First row and the row behind the last, chunk, file and time of the first frame in it, of each episode."""
    names = ["dataset_from_index", "dataset_to_index"]
    names += [f"videos/{video}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    paths = sorted((folder / "meta/episodes").glob("*/*.parquet"))
    if not paths:
        raise UserError(f"{folder / 'meta/episodes'}: no parquet file found; the dataset is not whole")
    tables = [_read(path, names) for path in paths]
    return [tuple(row[name] for name in names) for table in tables for row in table.to_pylist()]


def _tried(folder: Path, episodes: int) -> int:
    """How many episodes were run for it, where ours says so."""
    try:
        return int(json.loads((folder / layout.ORIGIN).read_text())["tried"])
    except (OSError, ValueError, KeyError, TypeError):
        return episodes
