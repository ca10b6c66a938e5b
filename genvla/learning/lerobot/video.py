"""Pictures into MP4 files and out of them again, one frame a control step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genvla.errors import UserError
from genvla.learning.lerobot.layout import FPS, Images

ENCODERS = {
    "video": ("libx264", "yuv420p", "h264", ["-crf", "10"]),
    "lossless": ("libx264rgb", "rgb24", "h264", ["-crf", "0"]),
}
"""Encoder, format of its pixels, name of the codec, options. "video" plays everywhere and halves the resolution of colours;
"lossless" returns the very same pixels, and is not for browsers and hardware decoders."""

SEEK = ["-g", "2", "-bf", "0"]
"""Every other frame stands alone, so that any can be read without those before it; none waits for a later one."""


class VideoWriter:
    """One MP4 file in the making.

    Raises:
        UserError: the pictures' sides are odd, which the format of `images` cannot hold.
    """

    def __init__(self, path: Path, height: int, width: int, images: Images) -> None:
        from imageio_ffmpeg import write_frames

        encoder, pixels, _, options = ENCODERS[images]
        if images == "video" and (height % 2 or width % 2):
            raise UserError(f"images: {height} x {width} pixels found, even numbers wanted for video; lossless and png take any")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frames = 0
        self._writer = write_frames(
            str(path),
            (width, height),
            fps=FPS,
            codec=encoder,
            pix_fmt_out=pixels,
            quality=None,
            macro_block_size=1,
            output_params=[*options, *SEEK, "-movflags", "+faststart"],
        )
        self._writer.send(None)

    def add(self, frames: UInt8[np.ndarray, "t h w 3"]) -> None:
        for frame in frames:
            self._writer.send(np.ascontiguousarray(frame))
        self.frames += len(frames)

    def close(self) -> None:
        """Finishes the file. RuntimeError when it does not hold what was written."""
        from imageio_ffmpeg import count_frames_and_secs

        self._writer.close()
        found = count_frames_and_secs(str(self.path))[0] if self.path.exists() else 0
        if found != self.frames:
            raise RuntimeError(f"{self.path}: ffmpeg wrote {found} of {self.frames} frames")


def video_info(height: int, width: int, images: Images) -> dict[str, Any]:
    """What info.json says of the files of a column."""
    _, pixels, codec, _ = ENCODERS[images]
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": codec,
        "video.pix_fmt": "gbrp" if pixels == "rgb24" else pixels,
        "video.is_depth_map": False,
        "video.fps": FPS,
        "video.channels": 3,
        "has_audio": False,
    }


def read_video(path: Path, height: int, width: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The frames of a file one after the other.

    Raises:
        UserError: it is missing, cannot be read, or has another size.
    """
    from imageio_ffmpeg import read_frames

    if not path.is_file():
        raise UserError(f"{path}: not found; the dataset is not whole")
    try:
        reader = read_frames(str(path), output_params=["-fps_mode", "passthrough"])
        found = next(reader)["size"]
        if tuple(found) != (width, height):
            raise UserError(f"{path}: {found[1]} x {found[0]} pixels found, {height} x {width} wanted, as meta/info.json says")
        for frame in reader:
            yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, StopIteration) as error:
        raise UserError(f"{path}: no video that can be read ({_last_line(error)})") from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
