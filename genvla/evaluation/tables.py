"""An evaluation as a table: for the terminal and for a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import TYPE_CHECKING

from genvla.evaluation.results import EvaluationResult, Summary
from genvla.evaluation.statistics import Interval

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "scene",
    "instruction",
    "episodes",
    "success",
    "success at end",
    "grasped",
    "time to success [s]",
    "episode [s]",
)

SHORT_COLUMNS = ("n", "success", "at end", "grasped", "seconds")


def percent(interval: Interval) -> str:
    """A share with its interval: `63.0 % [56.1, 69.4]`."""
    if interval.n == 0:
        return "-"
    return f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def number(interval: Interval) -> str:
    """A mean with half the width of its interval: `7.9 ± 0.4`; without it where a single value leaves it unknown."""
    if interval.n == 0:
        return "-"
    half = (interval.high - interval.low) / 2
    return f"{interval.value:.1f}" + ("" if isnan(half) else f" ± {half:.1f}")


def terminal_table(result: EvaluationResult) -> Table:
    """One row per scene, and the whole evaluation under the line. Fits 80 columns, so only success has its interval."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = {**{scene: _short_row(summary) for scene, summary in result.per_scene.items()}, "all": _short_row(result.overall)}
    table = Table(title=caption(result), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("scene", overflow="ellipsis")
    for column, *column_cells in zip(SHORT_COLUMNS, *rows.values(), strict=True):
        # Where it is too narrow, only the names of the scenes are cut off.
        table.add_column(column, justify="right", no_wrap=True, min_width=max(len(cell) for cell in (column, *column_cells)))
    for scene, cells in rows.items():
        if scene == "all":
            table.add_section()
        table.add_row(scene, *cells, style="bold" if scene == "all" else None)
    return table


def markdown_table(result: EvaluationResult) -> str:
    """One row per scene and one for all, every share with its interval, and the protocol under them."""
    *scenes, overall = _rows(result)
    aligned = ["---" if column in COLUMNS[:2] else "---:" for column in COLUMNS]
    overall = tuple(f"**{cell}**" if cell else "" for cell in overall)
    rows = [COLUMNS, tuple(aligned), *scenes, overall]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return f"### {caption(result)}\n\n" + "\n".join(lines) + "\n\n" + _protocol_note(result) + "\n"


def caption(result: EvaluationResult) -> str:
    scenes = len(result.per_scene)
    split = f"{result.protocol.split}: " if result.protocol.split else ""
    return f"{split}{len(result.records)} episodes in {scenes} scene{'s' if scenes != 1 else ''}"


def _short_row(summary: Summary) -> tuple[str, ...]:
    shares = (f"{100 * share.value:.1f} %" if share.n else "-" for share in (summary.success_at_end, summary.grasped_once))
    return (str(summary.episodes), percent(summary.success_once), *shares, number(summary.seconds))


def _rows(result: EvaluationResult) -> Iterator[tuple[str, ...]]:
    for scene, summary in result.per_scene.items():
        yield _row(scene, result.instructions[scene], summary)
    yield _row("all", "", result.overall)


def _row(name: str, instruction: str, summary: Summary) -> tuple[str, ...]:
    shares = (summary.success_once, summary.success_at_end, summary.grasped_once)
    durations = (summary.seconds, summary.episode_seconds)
    return (name, instruction, str(summary.episodes), *map(percent, shares), *map(number, durations))


def _protocol_note(result: EvaluationResult) -> str:
    protocol = result.protocol
    parts = [
        "Brackets: 95 % Wilson intervals over episodes. Time to success: mean over the successes, ± 95 % Student interval.",
        f"Flow integrated in {protocol.integration_steps} step(s) from random A^0 without exploration noise;"
        if protocol.integration_steps
        else "The scripted expert, which knows true poses;",
        f"at most {protocol.max_chunks} chunks of {protocol.chunk_size} actions at {protocol.control_hz:g} Hz;",
        f"{'ended by success' if protocol.terminate_on_success else 'run to the limit'}; seed {protocol.seed}.",
    ]
    if protocol.checkpoint_digest:
        parts.append(f"Checkpoint {protocol.checkpoint_digest[:12]}, scenes {protocol.scene_set_digest[:12]}.")
    return " ".join(parts)
