from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageFont

from genvla.evaluation.results import EvaluationResult, Protocol
from genvla.evaluation.videos import (
    BORDER,
    FAILURE,
    FONT_SIZE,
    HEADER,
    RUNNING,
    SUCCESS,
    TITLE,
    Clip,
    _wrap,
    by_outcome,
    write_strip,
    write_video,
)
from genvla.types import EpisodeRecord


def clip(success_at: int | None, steps: int, grey: int = 100, size: tuple[int, int] = (63, 81)) -> Clip:
    record = EpisodeRecord(
        "pan", 1, success_at is not None, False, True, success_at or steps, steps // 4, "put the pen in the pan"
    )
    return Clip(record, [np.full((*size, 3), grey + step, np.uint8) for step in range(steps)])


def read(path: Path) -> tuple[dict, np.ndarray]:
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_video_reads_back_in_real_time_with_every_step(tmp_path: Path) -> None:
    clips = [clip(9, 12), clip(None, 24), clip(4, 8)]
    write_video(clips, tmp_path / "new" / "episodes.mp4", hold_seconds=1.0)
    meta, frames = read(tmp_path / "new" / "episodes.mp4")
    assert meta["fps"] == 5 and meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    tile_height, tile_width = 63 + HEADER + 2 * BORDER, 81 + 2 * BORDER
    assert frames.shape == (24 + 5, 2 * tile_height, 2 * tile_width, 3)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["episodes.mp4"]
    # Each control step shows in its order, and a clip stands still once it is over.
    middle = frames[:, HEADER + BORDER + 20 : HEADER + BORDER + 40, 30:60].mean((1, 2, 3))
    assert np.abs(middle - (100 + np.minimum(np.arange(29), 11))).max() < 3


def test_borders_tell_the_outcome(tmp_path: Path) -> None:
    write_video([clip(9, 12), clip(None, 12)], tmp_path / "episodes.mp4")
    _, frames = read(tmp_path / "episodes.mp4")
    width = frames.shape[2] // 2

    def border(step: int, column: int) -> np.ndarray:
        return frames[step - 1, 40:-40, column * width + 2 : column * width + 4].reshape(-1, 3).mean(0)

    for step, colours in ((8, (RUNNING, RUNNING)), (9, (SUCCESS, RUNNING)), (12, (SUCCESS, FAILURE)), (17, (SUCCESS, FAILURE))):
        for column, colour in enumerate(colours):
            assert np.abs(border(step, column) - colour).max() < 25, (step, column)


def test_strip_has_a_row_for_each_clip_from_first_to_last_step(tmp_path: Path) -> None:
    write_strip([clip(9, 12), clip(None, 20, grey=40)], tmp_path / "episodes.png", columns=4)
    picture = np.asarray(Image.open(tmp_path / "episodes.png"))
    height, width = 63 + HEADER + 2 * BORDER, 81 + 2 * BORDER
    assert picture.shape == (2 * height, 4 * width, 3)
    centres = picture[HEADER + BORDER + 30 :: height, BORDER + 40 :: width, 0]
    assert centres.tolist() == [[100, 104, 107, 111], [40, 46, 53, 59]]


def test_sections_stand_under_their_titles(tmp_path: Path) -> None:
    result = EvaluationResult(tuple(one.record for one in (clip(9, 12), clip(None, 12), clip(4, 12))), Protocol("train", 0))
    sections = by_outcome([clip(None, 12), clip(9, 12)], result)
    assert list(sections) == ["successes: 1 of 2", "failures: 1 of 1"]
    write_strip(sections, tmp_path / "sheet.png", columns=2)
    picture = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    height, width = 63 + HEADER + 2 * BORDER, 81 + 2 * BORDER
    assert picture.shape == (2 * (height + TITLE), 2 * width, 3)
    assert all((picture[top : top + TITLE] > 200).all(-1).sum() > 50 for top in (0, height + TITLE))
    assert np.abs(picture[TITLE + height - 2, width + 20] - SUCCESS).max() == 0
    assert np.abs(picture[-2, width + 20] - FAILURE).max() == 0
    write_video(sections, tmp_path / "sheet.mp4")
    _, frames = read(tmp_path / "sheet.mp4")
    assert frames.shape[1] == 2 * (height + TITLE)


def test_header_shows_the_instruction_and_the_outcome() -> None:
    shown = [np.asarray(clip(9, 12).tile(step))[BORDER : BORDER + HEADER].astype(int) for step in (1, 12)]
    assert (shown[0] > 200).all(-1).sum() > 50
    green = (shown[1][..., 1] > shown[1][..., 0] + 60).sum()
    assert green > 50


@pytest.mark.parametrize("text", ["put the pen " * 9, "unbroken" * 12, "short", ""])
def test_text_stays_within_its_lines(text: str) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    lines = _wrap(text, font, 150, lines=2)
    assert 1 <= len(lines) <= 2 and all(font.getlength(line) <= 150 for line in lines)
    assert " ".join(lines) == text or "..." in lines[-1]


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    for clips in ([], {}, [clip(None, 0)]):
        with pytest.raises(ValueError, match="nothing to show"):
            write_video(clips, tmp_path / "episodes.mp4")
