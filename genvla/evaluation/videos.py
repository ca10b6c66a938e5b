"""Filmed episodes as a contact sheet, moving and still: what was asked for, how it went and how it ended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from genvla.evaluation.episodes import Film, spread_over_scenes
from genvla.evaluation.results import EvaluationResult
from genvla.types import CONTROL_HZ, EpisodeRecord, EpisodeSpec

BACKGROUND = (24, 26, 30)
TEXT = (235, 235, 235)
QUIET = (140, 146, 156)
RUNNING, SUCCESS, FAILURE = (90, 96, 106), (38, 166, 91), (214, 57, 57)
BORDER = 6
FONT_SIZE = 16
LINE = 21
HEADER = 3 * LINE + 8
"""Pixels over each picture: two lines of instruction and one for the outcome."""
TITLE_SIZE = 22
TITLE = 40
"""Pixels of a section's title."""


@dataclass(frozen=True)
class Clip:
    """One filmed episode: frames uint8 [H, W, 3], one per control step, and how it went."""

    record: EpisodeRecord
    frames: Sequence[np.ndarray]

    def outcome(self, step: int) -> tuple[str, tuple[int, int, int]]:
        """Label and colour once `step` control steps are done: an episode counts as running until its success or its end."""
        over = min(step, len(self.frames))
        if self.record.success_once and over >= min(self.record.steps, len(self.frames)):
            lost = over == len(self.frames) and not self.record.success_at_end
            return f"success after {self.record.seconds:.1f} s{', then lost' if lost else ''}", SUCCESS
        if over == len(self.frames) and not self.record.success_once:
            return f"failure after {over / CONTROL_HZ:.1f} s{', grasped' if self.record.grasped_once else ''}", FAILURE
        return f"{over / CONTROL_HZ:.1f} s", RUNNING

    def tile(self, step: int, *, titled: bool = True) -> Image.Image:
        """The picture after `step` control steps, or the last one, under its header and in a coloured border."""
        picture = self.frames[min(step, len(self.frames)) - 1]
        height, width = picture.shape[:2]
        label, colour = self.outcome(step)
        tile = Image.new("RGB", (width + 2 * BORDER, height + HEADER + 2 * BORDER), colour)
        tile.paste(BACKGROUND, (BORDER, BORDER, BORDER + width, BORDER + HEADER))
        tile.paste(Image.fromarray(picture), (BORDER, BORDER + HEADER))
        draw = ImageDraw.Draw(tile)
        font = ImageFont.load_default(FONT_SIZE)
        lines = _wrap(self.record.instruction, font, width - 12, lines=2)
        for row, line in enumerate(lines if titled else []):
            draw.text((BORDER + 6, BORDER + 4 + row * LINE), line, TEXT, font)
        draw.text((BORDER + 6, BORDER + 4 + 2 * LINE), label, TEXT if colour == RUNNING else colour, font)
        scene = self.record.scene_id.partition("_")[0]
        if titled and font.getlength(f"{label} {scene}") <= width - 12:
            draw.text((BORDER + width - 6, BORDER + 4 + 2 * LINE), scene, QUIET, font, anchor="ra")
        return tile


Clips = Sequence[Clip] | Mapping[str, Sequence[Clip]]
"""What a sheet shows: clips, or sections of them by title."""


def worth_filming(records: Sequence[EpisodeRecord], count: int) -> list[EpisodeSpec]:
    """`count` episodes, half of them successes and half failures where there are enough of both, of scenes as different as can
    be."""
    kinds = [_by_turns([record.spec for record in records if record.success_once is kind]) for kind in (True, False)]
    fair = (count + 1) // 2, count // 2
    first = min(len(kinds[0]), max(fair[0], count - len(kinds[1])))
    return [spec for specs, some in zip(kinds, (first, count - first), strict=True) for spec in spread_over_scenes(specs, some)]


def _by_turns(specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
    """First one episode of each scene, then the second of each that has one."""
    seen: Counter[str] = Counter()
    turns = []
    for spec in specs:
        turns.append(seen[spec.scene_id])
        seen[spec.scene_id] += 1
    return [spec for _, spec in sorted(zip(turns, specs, strict=True), key=lambda pair: pair[0])]


def by_outcome(clips: Sequence[Clip], result: EvaluationResult) -> dict[str, list[Clip]]:
    """The clips under "successes: 4 of 126" and "failures: 4 of 98"; a kind that none is of is left out."""
    sections = {}
    for name, kind in (("successes", True), ("failures", False)):
        shown = [clip for clip in clips if clip.record.success_once is kind]
        if shown:
            total = sum(record.success_once is kind for record in result.records)
            sections[f"{name}: {len(shown)} of {total}"] = shown
    return sections


def clips_of(result: EvaluationResult, film: Film) -> list[Clip]:
    """The filmed episodes of an evaluation with their records, in the order of the film; it may hold others' too."""
    records = {EpisodeSpec(record.scene_id, record.seed): record for record in result.records}
    return [Clip(records[spec], frames) for spec, frames in film.items() if frames and spec in records]


def write_video(clips: Clips, path: Path, *, hold_seconds: float = 1.0) -> None:
    """All clips side by side in real time, H.264 in an MP4; shorter ones stand still at their end, and all for `hold_seconds`.

    Raises:
        ValueError: no clip, or a clip without frames.
    """
    from imageio_ffmpeg import write_frames

    sections = _sections(clips)
    steps = max(len(clip.frames) for _, some in sections for clip in some) + round(hold_seconds * CONTROL_HZ)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    width, height = _grid(sections, 1).size
    writer = write_frames(
        str(temporary), (width, height), fps=CONTROL_HZ, codec="libx264", pix_fmt_out="yuv420p", quality=7, macro_block_size=2
    )
    writer.send(None)
    for step in range(1, steps + 1):
        writer.send(np.ascontiguousarray(_grid(sections, step)))
    writer.close()
    temporary.replace(path)


def write_strip(clips: Clips, path: Path, *, columns: int = 6) -> None:
    """One row per clip: `columns` pictures from its first to its last control step, evenly spaced, as a PNG."""
    parts = []
    for title, some in _sections(clips):
        rows = []
        for clip in some:
            steps = np.linspace(1, len(clip.frames), columns).round().astype(int).tolist()
            tiles = [np.asarray(clip.tile(step, titled=column == 0)) for column, step in enumerate(steps)]
            rows.append(np.concatenate(tiles, axis=1))
        parts += _titled(title, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    Image.fromarray(_stack(parts)).save(temporary, format="PNG", optimize=True)
    temporary.replace(path)


def _sections(clips: Clips) -> list[tuple[str, Sequence[Clip]]]:
    sections = list(clips.items()) if isinstance(clips, Mapping) else [("", clips)]
    everything = [clip for _, some in sections for clip in some]
    if not everything or not all(len(clip.frames) for clip in everything):
        raise ValueError("nothing to show: no clip, or a clip without frames")
    return sections


def _grid(sections: Sequence[tuple[str, Sequence[Clip]]], step: int) -> Image.Image:
    """The tiles of all clips at one step, in about as many columns as rows; even sides, as yuv420p wants."""
    columns = ceil(sqrt(sum(len(clips) for _, clips in sections)))
    parts = []
    for title, clips in sections:
        tiles = [np.asarray(clip.tile(step)) for clip in clips]
        parts += _titled(title, [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)])
    grid = _stack(parts)
    height, width = grid.shape[:2]
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
    canvas.paste(Image.fromarray(grid), (0, 0))
    return canvas


def _titled(title: str, rows: list[UInt8[np.ndarray, "h w 3"]]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The rows of a section under its title, if it has one."""
    if not title:
        return rows
    bar = Image.new("RGB", (rows[0].shape[1], TITLE), BACKGROUND)
    draw = ImageDraw.Draw(bar)
    draw.text((BORDER + 6, TITLE // 2), title, TEXT, ImageFont.load_default(TITLE_SIZE), anchor="lm")
    return [np.asarray(bar), *rows]


def _stack(rows: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    """Rows under one another, the shorter ones filled up with background."""
    width = max(row.shape[1] for row in rows)
    canvas = np.full((sum(row.shape[0] for row in rows), width, 3), BACKGROUND, np.uint8)
    top = 0
    for row in rows:
        canvas[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0]
    return canvas


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """Text broken at spaces into at most `lines` lines of `width` pixels; what does not fit ends in an ellipsis."""
    result = [""]
    for word in text.split():
        longer = f"{result[-1]} {word}".strip()
        if font.getlength(longer) <= width or not result[-1]:
            result[-1] = longer
        else:
            result.append(word)
    shown = result[:lines]
    if len(result) > lines:
        shown[-1] += " ..."
    for row, line in enumerate(shown):
        while font.getlength(shown[row]) > width and len(line) > 1:
            line = line.removesuffix(" ...")[:-1]
            shown[row] = f"{line}..."
    return shown
