"""Episodes to a folder in lerobot's format, one after the other, without holding more than one in memory."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genvla.learning.lerobot import layout
from genvla.learning.lerobot.layout import ACTION, DONE, FPS, PRIVILEGED, REWARD, SCENE, SEED, STATE, SUCCESS, Images
from genvla.learning.lerobot.statistics import Column, flat, histogram, joined, of_pictures, of_rows
from genvla.learning.lerobot.video import VideoWriter, video_info
from genvla.sim.expert import Demonstration

ROBOT = "widowx250s"


class DatasetWriter:
    """Writes to an empty folder; whole only after `close`.

    Args:
        folder: where to.
        images: how pictures are kept, see genvla.learning.lerobot.video.
    """

    def __init__(self, folder: Path, images: Images = "lossless") -> None:
        self.folder = Path(folder)
        self.images = images
        self.features: dict[str, dict[str, Any]] = {}
        self.frames = 0
        self._tasks: list[str] = []
        self._episodes: list[dict[str, Any]] = []
        self._file = -1
        self._file_frames = 0
        self._data: Any = None
        self._videos: dict[str, VideoWriter] = {}
        self._rows: dict[str, list[np.ndarray]] = defaultdict(list)
        self._levels: dict[str, np.ndarray] = {}

    @property
    def episodes(self) -> int:
        return len(self._episodes)

    def add(self, episode: Demonstration) -> None:
        """Appends an episode. ValueError when its pictures are not like those of the first."""
        length, cameras, height, width, _ = episode.images.shape
        features = layout.features(cameras, height, width, self.images)
        self.features = self.features or features
        if features != self.features:
            raise ValueError("the cameras of an episode are not those of the first")
        if self._data is None or self._full(length):
            self._next_file()
        columns = self._columns(episode)
        statistics = self._statistics(columns, episode)
        self._episodes.append(self._described(episode.record.instruction, length) | flat(statistics))
        self._write(columns, episode)
        self.frames += length
        self._file_frames += length

    def close(self) -> None:
        """Finishes the files and writes what describes them. ValueError when there was no episode."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._episodes:
            raise ValueError("a dataset wants at least one episode")
        self._close_files()
        episodes = self.folder / layout.EPISODES.format(**layout.shard(0))
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        # Names of type object: what pandas 3 makes of text by itself, pandas 2 does not read.
        tasks = pd.DataFrame({"task_index": range(len(self._tasks))}, index=pd.Index(self._tasks, dtype=object))
        tasks.to_parquet(self.folder / layout.TASKS)
        whole: dict[str, Column] = {name: of_rows(joined(parts)) for name, parts in self._rows.items()}
        whole |= {name: of_pictures(levels, self.frames) for name, levels in self._levels.items()}
        _write_json(self.folder / layout.STATISTICS, whole)
        _write_json(self.folder / layout.INFO, self._info())

    def _full(self, length: int) -> bool:
        megabytes = (self.folder / layout.DATA.format(**layout.shard(self._file))).stat().st_size / 2**20
        return self._file_frames + length > layout.FRAMES_PER_FILE or megabytes >= layout.DATA_MEGABYTES

    def _next_file(self) -> None:
        """Data and videos go on in new files, of the same number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._close_files()
        self._file, self._file_frames = self._file + 1, 0
        place = layout.shard(self._file)
        path = self.folder / layout.DATA.format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: feature for name, feature in self.features.items() if feature["dtype"] != "video"}
        self._data = pq.ParquetWriter(path, pa.schema([(name, _arrow_type(feature)) for name, feature in kept.items()]))
        for name, feature in self.features.items():
            if feature["dtype"] == "video":
                video = self.folder / layout.VIDEO.format(video_key=name, **place)
                height, width, _ = feature["shape"]
                self._videos[name] = VideoWriter(video, height, width, self.images)

    def _close_files(self) -> None:
        if self._data is not None:
            self._data.close()
        for video in self._videos.values():
            video.close()
        self._data, self._videos = None, {}

    def _columns(self, episode: Demonstration) -> dict[str, np.ndarray]:
        """Everything but pictures and text, a row for each control step."""
        record, length = episode.record, len(episode.actions)
        step = np.arange(length)
        if record.instruction not in self._tasks:
            self._tasks.append(record.instruction)
        task = self._tasks.index(record.instruction)
        return {
            STATE: episode.proprio.astype(np.float32),
            ACTION: episode.actions.astype(np.float32),
            PRIVILEGED: episode.privileged.astype(np.float32),
            REWARD: (record.success_once & (step == record.steps - 1)).astype(np.float32),
            SUCCESS: record.success_once & (step >= record.steps - 1),
            DONE: step == length - 1,
            SEED: np.full(length, record.seed),
            "timestamp": (step / FPS).astype(np.float32),
            "frame_index": step,
            "episode_index": np.full(length, self.episodes),
            "index": self.frames + step,
            "task_index": np.full(length, task),
        }

    def _statistics(self, columns: dict[str, np.ndarray], episode: Demonstration) -> dict[str, Column]:
        """Those of the episode; also adds it to those of all."""
        found = {}
        for name, values in columns.items():
            self._rows[name].append(values)
            found[name] = of_rows(joined([values]))
        for camera in range(episode.images.shape[1]):
            name = layout.camera_key(camera)
            levels = histogram(episode.images[:, camera])
            self._levels[name] = self._levels.get(name, 0) + levels
            found[name] = of_pictures(levels, len(episode.images))
        return found

    def _described(self, task: str, length: int) -> dict[str, Any]:
        """The episode's row in the table of episodes."""
        place = layout.shard(self._file)
        row = {
            "episode_index": self.episodes,
            "tasks": [task],
            "length": length,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            **{f"data/{name}": value for name, value in place.items()},
            **{f"meta/episodes/{name}": value for name, value in layout.shard(0).items()},
        }
        for video in self._videos:
            row |= {f"videos/{video}/{name}": value for name, value in place.items()}
            row[f"videos/{video}/from_timestamp"] = self._file_frames / FPS
            row[f"videos/{video}/to_timestamp"] = (self._file_frames + length) / FPS
        return row

    def _write(self, columns: dict[str, np.ndarray], episode: Demonstration) -> None:
        """The rows to the data file, the pictures to it or to the videos."""
        import pyarrow as pa

        lists: dict[str, Any] = {name: list(values) for name, values in columns.items()}
        lists[SCENE] = [episode.record.scene_id] * len(episode.actions)
        for camera in range(episode.images.shape[1]):
            name = layout.camera_key(camera)
            if name in self._videos:
                self._videos[name].add(episode.images[:, camera])
            else:
                lists[name] = [{"bytes": _png(image), "path": None} for image in episode.images[:, camera]]
        schema = self._data.schema
        self._data.write_table(pa.table([pa.array(lists[name], schema.field(name).type) for name in schema.names], schema=schema))

    def _info(self) -> dict[str, Any]:
        videos = {name: feature for name, feature in self.features.items() if feature["dtype"] == "video"}
        for feature in videos.values():
            height, width, _ = feature["shape"]
            feature["info"] = video_info(height, width, self.images)
        return {
            "codebase_version": layout.VERSION,
            "robot_type": ROBOT,
            "total_episodes": self.episodes,
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.FILES_PER_CHUNK,
            "data_files_size_in_mb": layout.DATA_MEGABYTES,
            "video_files_size_in_mb": layout.VIDEO_MEGABYTES,
            "fps": FPS,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO if videos else None,
            "features": self.features,
        }


def _arrow_type(feature: dict[str, Any]) -> Any:
    import pyarrow as pa

    if feature["dtype"] == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    scalar = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_(), "string": pa.string()}[feature["dtype"]]
    return scalar if feature["shape"] == [1] else pa.list_(scalar, feature["shape"][0])


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
