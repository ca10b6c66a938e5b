"""`scenegen build`, `scenegen design`: sentences to scenes."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scenegen.designer.base import Designer, RulesDesigner
from scenegen.designer.rules import MAX_DISTRACTORS
from scenegen.display import BuildDisplay
from scenegen.engines.procedural.catalog import find_catalog
from scenegen.errors import UserError
from scenegen.llm.base import LLMClient
from scenegen.llm.connect import LLMOptions, open_client
from scenegen.manifest import SCENES
from scenegen.options import AssetOptions
from scenegen.pipeline import Builder, BuildSummary, Plan, SceneResult, Started
from scenegen.schema import BuildEvent

if TYPE_CHECKING:
    from scenegen.judging import SceneJudge


def build(
    output: Path,
    tasks: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    heldout: float = 0,
    catalog: Literal["full", "basic"] = "full",
    min_distractors: int = 2,
    distractors: int = MAX_DISTRACTORS,
    xy_range: float = 0.15,
    poses: int = 128,
    designer: Literal["rules", "llm"] = "rules",
    judge: bool = False,
    llm: LLMOptions = LLMOptions(),  # noqa: B008  (frozen)
    assets: AssetOptions = AssetOptions(),  # noqa: B008  (frozen)
    max_usd: float | None = None,
    workers: int | None = None,
    attempts: int = 4,
    timeout: float = 300,
    shard: str | None = None,
    resume: bool = True,
    preview: bool = False,
) -> int:
    """Make a set of scenes, every one proven by physics; go on where an earlier run of the same command stopped.

    Args:
        output: Folder for the set: empty, new, or of an earlier run of the same command.
        tasks: Text file with one task sentence a line; blank lines and lines that start with # are skipped.
        count: Number of different tasks to draw instead; a task whose scene never passes is replaced by another.
        seed: What everything random is derived from; the same seed gives the same files.
        heldout: Scenes to keep out of training: a number, or a fraction below 1.
        catalog: What scenes are made of; basic holds what a small policy can tell apart in small pictures.
        min_distractors: Least things on the table that the task does not name.
        distractors: Most of them.
        xy_range: How far an object stands from its nominal place at most, along x and y [m].
        poses: Start placements for each scene.
        designer: Who turns a sentence into a scene: rules need no network, llm asks a language model.
        judge: Let the language model look at every object too.
        llm: The language model.
        assets: Where objects come from.
        max_usd: Most that the language model may cost [USD].
        workers: Processes; by default one for each core.
        attempts: How often a task is tried before it is given up.
        timeout: Longest time for one attempt [s]; what takes longer is killed.
        shard: I/N builds every N-th scene from the I-th on (I from 0), for job arrays; the same command without it, at the end,
            finishes the set.
        resume: Go on with what the folder holds; false refuses a folder that holds scenes.
        preview: Also render preview.png for each scene (needs Vulkan).
    """
    if max_usd is not None:
        llm = replace(llm, max_usd=max_usd)
    if not 0 <= min_distractors <= distractors <= MAX_DISTRACTORS:
        raise UserError(
            f"min_distractors, distractors: found {min_distractors}, {distractors}; "
            f"wanted 0 <= least <= most <= {MAX_DISTRACTORS}"
        )
    if xy_range < 0 or poses < 1 or attempts < 1 or timeout <= 0:
        raise UserError(
            f"xy_range, poses, attempts, timeout: found {xy_range:g}, {poses}, {attempts}, {timeout:g}; "
            "wanted xy_range >= 0, the others above 0"
        )
    if not resume and (output / SCENES).is_dir() and any((output / SCENES).iterdir()):
        raise UserError(f"output: {output} holds scenes; wanted an empty folder, or --resume to go on with it")
    client = open_client(llm) if designer == "llm" or judge else None
    author = make_designer(designer, client, catalog, (min_distractors, distractors), assets)
    sentences = _sentences(tasks, count, seed, author)
    plan = Plan(
        output=output,
        tasks=sentences,
        drawn=tasks is None,
        seed=seed,
        catalog=catalog,
        distractors=(min_distractors, distractors),
        xy_range=xy_range,
        poses=poses,
        heldout=_held_out(heldout, len(sentences)),
        attempts=attempts,
        shard=_shard(shard),
        judge=f"llm {llm.model}" if judge else "",
        preview=preview,
    )
    summary = _run(Builder(plan, author, assets, workers or cores(), timeout, _judge(client) if judge else None))
    print(f"{output}: {summary.line()}")
    if client is not None:
        print(client.ledger.line())
    if plan.shard[1] > 1:
        print(f"shard {shard} done; when all are, the same command without --shard writes the manifest")
    return 0 if summary.accepted else 1


def design(
    task: str,
    seed: int = 0,
    catalog: Literal["full", "basic"] = "full",
    min_distractors: int = 2,
    distractors: int = MAX_DISTRACTORS,
    designer: Literal["rules", "llm"] = "rules",
    llm: LLMOptions = LLMOptions(),  # noqa: B008  (frozen)
    assets: AssetOptions = AssetOptions(),  # noqa: B008  (frozen)
) -> int:
    """Print the scene graph that a sentence is turned into, as JSON.

    Args:
        task: Sentence, such as "put the red apple in the bowl".
        seed: Of what the sentence leaves open.
        catalog: What scenes are made of.
        min_distractors: Least things on the table that the task does not name.
        distractors: Most of them.
        designer: rules or llm.
        llm: The language model.
        assets: Where objects come from.
    """
    client = open_client(llm) if designer == "llm" else None
    author = make_designer(designer, client, catalog, (min_distractors, distractors), assets)
    author.require(task)
    print(author.design(task, seed).graph.model_dump_json(indent=1))
    if client is not None:
        print(client.ledger.line(), file=sys.stderr)
    return 0


def make_designer(
    name: str, client: LLMClient | None, catalog: str, distractors: tuple[int, int], assets: AssetOptions
) -> Designer:
    if client is None or name == "rules":
        return RulesDesigner(find_catalog(catalog), distractors)
    from scenegen.designer.llm import LLMDesigner

    return LLMDesigner(client, find_catalog(catalog), distractors, free_categories=assets.free)


def _judge(client: LLMClient | None) -> SceneJudge:
    from scenegen.judging import SceneJudge

    assert client is not None
    try:
        return SceneJudge(client)
    except RuntimeError as error:
        raise UserError(f"judge: found no Vulkan driver for pictures ({error}); `genvla doctor --fix` installs one") from None


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sentences(tasks: Path | None, count: int | None, seed: int, designer: Designer) -> list[str]:
    if (tasks is None) == (count is None):
        raise UserError("tasks, count: wanted exactly one of --tasks FILE and --count N")
    if count is not None:
        if count < 1:
            raise UserError(f"count: found {count}; wanted at least 1")
        return designer.propose(count, seed)
    assert tasks is not None
    try:
        lines = [line.strip() for line in tasks.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"tasks: {tasks} cannot be read ({error}); wanted a text file with one sentence a line") from None
    sentences = [line for line in lines if line and not line.startswith("#")]
    if not sentences:
        raise UserError(f"tasks: {tasks} holds no sentence; wanted at least one")
    return sentences


def _held_out(heldout: float, scenes: int) -> int:
    if not 0 <= heldout < scenes or (heldout > 1 and heldout != int(heldout)):
        raise UserError(f"heldout: found {heldout:g}; wanted a fraction below 1 or a number below that of the scenes, {scenes}")
    return round(heldout * scenes) if heldout < 1 else int(heldout)


def _shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    first, _, parts = text.partition("/")
    if not (first.isdigit() and parts.isdigit() and int(first) < int(parts)):
        raise UserError(f"shard: found {text!r}; wanted I/N with I from 0 to N - 1")
    return int(first), int(parts)


def _run(builder: Builder) -> BuildSummary:
    with BuildDisplay(total=len(builder.plan.slots)) as display:
        for event in builder.run():
            match event:
                case Started():
                    display.started(event.scene_id)
                case BuildEvent():
                    display.finished(event)
                case SceneResult(reused=True):
                    display.reused(event.scene_id)
                case BuildSummary():
                    return event
    raise AssertionError("a run ends with its summary")
