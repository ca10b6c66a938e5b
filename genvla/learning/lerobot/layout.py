"""What a dataset in lerobot's format v3.0 holds, as we write it: files, columns, shapes, names, units.

The format is lerobot's (Apache-2.0), as its releases 0.4.0 to 0.6.1 read and write it (`lerobot.datasets`). A row of data is one
control step: what was observed before it, and the action that followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from genvla.types import ACTION_DIM, CONTROL_HZ, PRIVILEGED_NAMES, PROPRIO_DIM

VERSION = "v3.0"
FPS = int(CONTROL_HZ)

INFO = "meta/info.json"
STATISTICS = "meta/stats.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
ORIGIN = "meta/genvla.json"
"""Ours: where the episodes come from. lerobot does not look at it."""

FILES_PER_CHUNK = 1000
DATA_MEGABYTES = 100
VIDEO_MEGABYTES = 200
FRAMES_PER_FILE = 5000
"""1000 seconds. lerobot looks pictures up by their time in the file, in single precision and to within 0.1 ms: from 1024 seconds
on a float32 is not that fine."""

STATE = "observation.state"
ACTION = "action"
PRIVILEGED = "privileged"
"""No name that begins with "observation": lerobot's policies would read it, and there is none on a robot."""
REWARD, SUCCESS, DONE = "next.reward", "next.success", "next.done"
SCENE, SEED = "scene_id", "seed"

Images = Literal["lossless", "video", "png"]


def camera_key(camera: int) -> str:
    """The name of a camera's column: that of the first is what an exported policy reads (genvla.policy.export)."""
    return f"observation.images.base_{camera}_rgb"


def features(cameras: int, height: int, width: int, images: Images) -> dict[str, dict[str, Any]]:
    """The columns, as info.json lists them. Units are a field of ours, one for each entry of a vector."""
    pictures = {
        camera_key(camera): {
            "dtype": "image" if images == "png" else "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        for camera in range(cameras)
    }
    return {
        STATE: _pose("", "0 closed to 1 open"),
        ACTION: _pose("delta_", "0 close, 1 open"),
        **pictures,
        PRIVILEGED: {"dtype": "float32", "shape": [len(PRIVILEGED_NAMES)], "names": list(PRIVILEGED_NAMES)},
        REWARD: _scalar("float32"),
        SUCCESS: _scalar("bool"),
        DONE: _scalar("bool"),
        SCENE: _scalar("string"),
        SEED: _scalar("int64"),
        "timestamp": _scalar("float32"),
        **{name: _scalar("int64") for name in ("frame_index", "episode_index", "index", "task_index")},
    }


def shard(number: int) -> dict[str, int]:
    """Where the number-th file of a kind stands."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


WIDTHS: Mapping[str, int] = {STATE: PROPRIO_DIM, ACTION: ACTION_DIM, PRIVILEGED: len(PRIVILEGED_NAMES)}
"""Entries of the columns that hold vectors."""


def _pose(prefix: str, gripper: str) -> dict[str, Any]:
    names = [prefix + name for name in ("x", "y", "z", "roll", "pitch", "yaw")]
    return {"dtype": "float32", "shape": [7], "names": [*names, "gripper"], "units": ["m"] * 3 + ["rad"] * 3 + [gripper]}


def _scalar(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1], "names": None}
