"""Cameras behind one protocol: USB (UVC) and video files through OpenCV, RealSense through its SDK.

A source that makes pictures by itself is read by a thread that keeps only the newest: what a policy sees is as young as it can
be, and its age is known. `FrameGuard` says which pictures may not be acted upon.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
from jaxtyping import UInt8

from deploy.safety_config import FrameLimits
from genvla.errors import UserError

FIRST_FRAME = 5.0
"""Seconds that a camera may take to wake up."""


class CameraFault(RuntimeError):
    """There is no picture to act upon. One line."""


@dataclass(frozen=True)
class Frame:
    """A picture: RGB; when it was taken, seconds of the clock that the camera was given; the how manieth it is; and how many just
    before it were the same to the last bit, which no working sensor's are."""

    image: UInt8[np.ndarray, "h w 3"]
    time: float
    number: int
    repeats: int = 0


class Camera(Protocol):
    """Where pictures come from."""

    def read(self) -> Frame:
        """The newest frame; again the same one when there is no newer. CameraFault when the camera is gone."""

    def close(self) -> None:
        """Lets go of the camera."""


@dataclass(frozen=True)
class CameraConfig:
    """A real camera, or a film of one.

    Args:
        source: /dev/video0 or its number; a video file; or realsense, realsense:SERIAL.
        width: of the picture, pixels.
        height: of the picture, pixels.
        fps: frames a second.
        exposure: fixed exposure, in the camera's own unit (UVC: 0.1 ms; RealSense: 1 us); None leaves it automatic.
        focus: fixed focus in the camera's own unit; None leaves it where it is, switched to manual.
    """

    source: str = "/dev/video0"
    width: int = 640
    height: int = 480
    fps: int = 30
    exposure: float | None = None
    focus: float | None = None


def open_camera(config: CameraConfig) -> Camera:
    """The camera of this source, once it has given its first picture.

    Raises:
        UserError: there is no such camera or file, it gives no pictures, or a package is missing.
    """
    if config.source == "realsense" or config.source.startswith("realsense:"):
        return ThreadedCamera(_realsense_grab(config, config.source.partition(":")[2]))
    if config.source.isdigit() or config.source.startswith("/dev/"):
        return ThreadedCamera(_uvc_grab(config))
    return ThreadedCamera(_film_grab(config))


Grab = tuple[Callable[[], np.ndarray | None], Callable[[], None], str]
"""Waits for the next picture, RGB, and returns it, None at the end; lets go of the source; what the source is called."""


class ThreadedCamera:
    """Keeps the newest picture of a source that makes them by itself."""

    def __init__(self, grab: Grab, clock: Callable[[], float] = time.monotonic) -> None:
        self._next, self._release, self._name = grab
        self._clock = clock
        self._newest: Frame | None = None
        self._problem: str | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"camera {self._name}", daemon=True)
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._problem is not None, FIRST_FRAME)
            if self._newest is None:
                problem = self._problem or f"no picture within {FIRST_FRAME:g} s"
        if self._newest is None:
            self.close()
            raise UserError(f"camera: {self._name}: {problem}")

    def read(self) -> Frame:
        with self._changed:
            if self._problem is not None:
                raise CameraFault(f"camera {self._name}: {self._problem}")
            assert self._newest is not None
            return self._newest

    def close(self) -> None:
        self._stopping = True
        self._thread.join(2.0)
        if not self._thread.is_alive():  # else it hangs in the driver, which must not be pulled from under it
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        number = repeats = checksum = 0
        while not self._stopping:
            try:
                image, problem = self._next(), "gives no more pictures"
                taken = self._clock()
            except Exception as error:  # whatever a camera's SDK raises must reach the one who reads
                image, problem = None, f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            if image is not None:
                before, checksum = checksum, zlib.crc32(np.ascontiguousarray(image).data)
                repeats = repeats + 1 if number and checksum == before else 0
            with self._changed:
                if image is None:
                    self._problem = problem
                else:
                    self._newest = Frame(image, taken, number, repeats)
                self._changed.notify_all()
            if image is None:
                return
            number += 1


def _uvc_grab(config: CameraConfig) -> Grab:
    number = int(config.source.removeprefix("/dev/video")) if config.source.removeprefix("/dev/video").isdigit() else None
    capture = cv2.VideoCapture(config.source if number is None else number)
    if not capture.isOpened():
        raise UserError(f"camera: {config.source} cannot be opened; `deploy doctor` lists the cameras there are")
    wanted: list[tuple[int, float]] = [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, config.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, config.height),
        (cv2.CAP_PROP_FPS, config.fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        (cv2.CAP_PROP_AUTOFOCUS, 0),
    ]
    if config.focus is not None:
        wanted.append((cv2.CAP_PROP_FOCUS, config.focus))
    if config.exposure is not None:  # 1 is manual, 3 automatic, in V4L2's numbering
        wanted += [(cv2.CAP_PROP_AUTO_EXPOSURE, 1), (cv2.CAP_PROP_EXPOSURE, config.exposure), (cv2.CAP_PROP_AUTO_WB, 0)]
    for name, value in wanted:
        capture.set(name, value)
    return (lambda: _rgb(capture)), capture.release, config.source


def _film_grab(config: CameraConfig) -> Grab:
    if not Path(config.source).is_file():
        raise UserError(f"camera: {config.source} not found, want /dev/videoN, a video file, or realsense")
    capture = cv2.VideoCapture(config.source)
    if not capture.isOpened():
        raise UserError(f"camera: {config.source} cannot be read as a video")
    period = 1 / (capture.get(cv2.CAP_PROP_FPS) or config.fps)
    started, shown = time.monotonic(), 0

    def grab() -> np.ndarray | None:
        nonlocal shown
        time.sleep(max(started + shown * period - time.monotonic(), 0))
        shown += 1
        return _rgb(capture)

    return grab, capture.release, config.source


def _realsense_grab(config: CameraConfig, serial: str) -> Grab:
    try:
        import pyrealsense2 as rs
    except ImportError as error:
        raise UserError("camera: realsense: pyrealsense2 not installed, want pip install 'genvla[realsense]'") from error
    settings, pipeline = rs.config(), rs.pipeline()
    if serial:
        settings.enable_device(serial)
    settings.enable_stream(rs.stream.color, config.width, config.height, rs.format.rgb8, config.fps)
    try:
        profile = pipeline.start(settings)
    except RuntimeError as error:
        raise UserError(f"camera: {config.source}: {' '.join(str(error).split())}") from error
    if config.exposure is not None:
        sensor = profile.get_device().first_color_sensor()
        sensor.set_option(rs.option.enable_auto_exposure, 0)
        sensor.set_option(rs.option.exposure, config.exposure)
        sensor.set_option(rs.option.enable_auto_white_balance, 0)

    def grab() -> np.ndarray | None:
        return np.array(pipeline.wait_for_frames(1000).get_color_frame().get_data())

    return grab, pipeline.stop, config.source


def _rgb(capture: Any) -> np.ndarray | None:
    got, image = capture.read()
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if got else None


class FrameGuard:
    """Which frames may be acted upon. Keeps the greatest age seen, and how many frames were older than `limits.warn`."""

    def __init__(self, limits: FrameLimits) -> None:
        self.limits = limits
        self.max_age, self.warnings = 0.0, 0

    def check(self, frame: Frame, now: float) -> None:
        """Raises CameraFault when this frame must not be acted upon.

        Args:
            frame: the picture.
            now: of the clock that the frame's time is of.
        """
        image, age, limits = frame.image, now - frame.time, self.limits
        self.max_age = max(self.max_age, age)
        self.warnings += age > limits.warn
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise CameraFault(f"camera: picture {image.dtype} {list(image.shape)}, want uint8 [h, w, 3]")
        if age > limits.hold:
            raise CameraFault(f"camera: the newest picture is {1000 * age:.0f} ms old, want at most {1000 * limits.hold:.0f} ms")
        if frame.repeats >= limits.repeats:
            raise CameraFault(f"camera: frozen, {frame.repeats} times the same picture")
        brightness = float(image[::8, ::8].mean())
        if brightness < limits.dark:
            raise CameraFault(f"camera: dark, brightness {brightness:.0f} of 255, want at least {limits.dark:.0f}")
