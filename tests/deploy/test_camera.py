"""Cameras and the guard of their pictures; films are real video files."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.camera import CameraConfig, CameraFault, Frame, FrameGuard, ThreadedCamera, open_camera
from deploy.safety_config import FrameLimits
from genvla.errors import UserError

RNG = np.random.default_rng(0)


def noise(mean: int = 120) -> np.ndarray:
    return RNG.integers(mean - 20, mean + 20, (24, 32, 3)).astype(np.uint8)


def write_film(path: Path, colours: list[tuple[int, int, int]], fps: float) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    assert writer.isOpened()
    for colour in colours:
        writer.write(np.full((48, 64, 3), colour[::-1], np.uint8))
    writer.release()


def test_a_film_plays_at_its_rate_in_rgb_and_its_end_is_a_fault(tmp_path: Path) -> None:
    write_film(tmp_path / "film.avi", [(200, 40, 40)] * 3 + [(40, 40, 200)] * 4, fps=10)
    before = time.monotonic()
    camera = open_camera(CameraConfig(source=str(tmp_path / "film.avi")))
    assert isinstance(camera, ThreadedCamera)
    frames = []
    with pytest.raises(CameraFault, match="no more pictures"):
        while time.monotonic() < before + 60:
            frames.append(camera.read())
            time.sleep(0.01)
    last = camera._newest
    camera.close()
    assert last is not None and last.number == 6 and last.time >= before + 0.6  # six periods after the first
    assert last.image.shape == (48, 64, 3)
    for frame in [*frames, last]:
        colour = (200, 40, 40) if frame.number < 3 else (40, 40, 200)
        np.testing.assert_allclose(frame.image[0, 0], colour, atol=12)


@pytest.mark.parametrize(
    ("source", "words"),
    [("/dev/video97", "/dev/video97"), ("nothing.mp4", "nothing.mp4 not found"), ("realsense:1", "realsense")],
)
def test_no_such_camera_is_one_line(source: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        open_camera(CameraConfig(source=source))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_text("hello")
    with pytest.raises(UserError, match="x.mp4"):
        open_camera(CameraConfig(source=str(tmp_path / "x.mp4")))


def test_only_the_newest_picture_is_kept_and_errors_reach_the_reader() -> None:
    pictures = [noise() for _ in range(5)]
    released = []

    def grab() -> np.ndarray | None:
        if not pictures:
            raise OSError("unplugged")
        return pictures.pop(0)

    last = pictures[-1]
    with ThreadedCamera((grab, lambda: released.append(1), "x")) as camera:
        camera._thread.join(5)
        assert camera._newest is not None
        np.testing.assert_array_equal(camera._newest.image, last)
        with pytest.raises(CameraFault, match="OSError: unplugged"):
            camera.read()
    assert released == [1]


def test_fresh_pictures_pass_and_ages_are_noted() -> None:
    guard = FrameGuard(FrameLimits(warn=0.1, hold=0.2))
    for number, age in enumerate((0.01, 0.15, 0.2)):
        guard.check(Frame(noise(), 10.0, number), 10.0 + age)
    assert guard.max_age == pytest.approx(0.2) and guard.warnings == 2


def test_old_dark_and_misshapen_pictures_are_faults() -> None:
    guard = FrameGuard(FrameLimits())
    with pytest.raises(CameraFault, match="250 ms old"):
        guard.check(Frame(noise(), 1.0, 0), 1.25)
    with pytest.raises(CameraFault, match="dark"):
        guard.check(Frame(np.ones((24, 32, 3), np.uint8), 1.0, 1), 1.0)
    for image in (noise().astype(np.float32), noise()[..., 0], np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(CameraFault, match="want uint8"):
            guard.check(Frame(image, 1.0, 2), 1.0)


def test_a_frozen_camera_is_known_by_its_pixels_at_its_own_rate() -> None:
    """However seldom the robot looks."""
    still = noise()
    pictures = [noise(), *[still] * 4, noise(), *[still] * 6]
    with ThreadedCamera((lambda: pictures.pop(0), lambda: None, "x"), clock=lambda: 0.0) as camera:
        camera._thread.join(5)  # at the end of the list
        last = camera._newest
    assert last is not None and (last.number, last.repeats) == (11, 5)
    guard = FrameGuard(FrameLimits(repeats=6))
    guard.check(last, 0.0)
    with pytest.raises(CameraFault, match="frozen, 6 times the same picture"):
        guard.check(replace(last, repeats=6), 0.0)
