"""The resumable run over many scenes: one task each, in parallel, every scene whole or absent."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from scenegen.build import SceneSpec, build_scene
from scenegen.designer.rules import parse_task
from scenegen.errors import UserError
from scenegen.files import tree_digest, write_atomic
from scenegen.layout.bank import LayoutError
from scenegen.loader import load_scene
from scenegen.schema import MANIFEST_FILE, SCENE_FILE, ManifestLine, Role
from scenegen.seeds import derive_seed

SCENES = "scenes"
PREVIEW_FILE = "preview.png"


@dataclass(frozen=True)
class SceneResult:
    """How one scene came out: `reason` is empty when it was accepted."""

    scene_id: str
    task: str
    reason: str = ""
    reused: bool = False
    seconds: float = 0.0
    digest: str = ""
    categories: tuple[str, ...] = ()


@dataclass
class BuildSummary:
    """What a run made."""

    results: list[SceneResult] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def accepted(self) -> list[SceneResult]:
        return [result for result in self.results if not result.reason]

    @property
    def rejected(self) -> list[SceneResult]:
        return [result for result in self.results if result.reason]

    def line(self) -> str:
        built = [result.seconds for result in self.results if not result.reused]
        categories = Counter(category for result in self.accepted for category in result.categories)
        reused = sum(result.reused for result in self.results)
        text = f"{len(self.accepted)} scenes accepted ({reused} already there), {len(self.rejected)} rejected"
        text += f"; {sum(categories.values())} objects of {len(categories)} categories; {self.seconds:.1f} s"
        text += f", {sum(built) / len(built):.2f} s per scene and core" if built else ""
        reasons = Counter(result.reason for result in self.rejected)
        return text + "".join(f"; {count} x {reason}" for reason, count in reasons.most_common())


def plan(tasks: Sequence[str], seed: int, xy_range: float, poses: int, distractors: int) -> list[SceneSpec]:
    """A spec for each task. Raises UserError for a task that is not understood or not possible."""
    specs = []
    for i, task in enumerate(tasks):
        parse_task(task)
        slug = "_".join(re.findall(r"[a-z0-9]+", task.lower()))[:60].rstrip("_")
        specs.append(SceneSpec(f"s{i:04d}_{slug}", task, derive_seed(seed, "scene", i), xy_range, poses, distractors))
    return specs


def run_build(
    specs: Sequence[SceneSpec], output: Path, heldout: int, seed: int, workers: int, preview: bool
) -> Iterator[SceneResult | BuildSummary]:
    """Build what is missing, yielding each result as it comes and the summary last; then write the manifest.

    Raises UserError when `output` holds anything that this run would not make itself.
    """
    started = time.perf_counter()
    _prepare(specs, output)
    summary = BuildSummary()
    for result in _results(specs, output, workers):
        summary.results.append(result)
        yield result
    if preview:
        _render_previews([output / SCENES / result.scene_id for result in summary.accepted])
    summary.seconds = time.perf_counter() - started
    order = {spec.scene_id: i for i, spec in enumerate(specs)}
    summary.results.sort(key=lambda result: order[result.scene_id])
    _write_manifest(summary.accepted, output, heldout, seed)
    yield summary


def _prepare(specs: Sequence[SceneSpec], output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"output: {output} is a file; wanted a folder")
    known = {MANIFEST_FILE, SCENES}
    strange = sorted(entry.name for entry in output.iterdir() if entry.name not in known) if output.is_dir() else []
    if strange:
        raise UserError(
            f"output: {output} holds {strange[0]!r}, which is no part of a scene set; wanted an empty folder or a set"
        )
    scenes = output / SCENES
    scenes.mkdir(parents=True, exist_ok=True)
    keys = {spec.scene_id: spec.key for spec in specs}
    for entry in sorted(scenes.iterdir()):
        if entry.name.startswith(".building-"):
            shutil.rmtree(entry)
        elif entry.name not in keys:
            raise UserError(
                f"output: {entry} is of another run; wanted an empty folder or the tasks and seed that it was built with"
            )
        elif load_scene(entry).bundle.build_key != keys[entry.name]:
            raise UserError(
                f"output: {entry} was built with another seed, other options or version; wanted an empty folder or the same"
            )


def _results(specs: Sequence[SceneSpec], output: Path, workers: int) -> Iterator[SceneResult]:
    if workers <= 1 or len(specs) <= 1:
        for spec in specs:
            yield _build_one(spec, output)
        return
    with ProcessPoolExecutor(min(workers, len(specs)), mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(_build_one, spec, output) for spec in specs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _build_one(spec: SceneSpec, output: Path) -> SceneResult:
    """Build a scene beside its place and rename it there, or find it there."""
    started = time.perf_counter()
    final = output / SCENES / spec.scene_id
    reused = (final / SCENE_FILE).is_file()
    if not reused:
        building = output / SCENES / f".building-{spec.scene_id}-{os.getpid()}"
        building.mkdir()
        try:
            build_scene(spec, building)
            building.rename(final)
        except LayoutError as error:
            return SceneResult(spec.scene_id, spec.task, str(error), seconds=time.perf_counter() - started)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    scene = load_scene(final)
    categories = tuple(entry.asset.category for entry in scene.objects if entry.role is not Role.ROBOT)
    digest = tree_digest(final, frozenset({PREVIEW_FILE}))
    return SceneResult(spec.scene_id, spec.task, "", reused, time.perf_counter() - started, digest, categories)


def _render_previews(folders: Sequence[Path]) -> None:
    from scenegen.preview import Photographer

    photographer = Photographer()
    for folder in folders:
        if not (folder / PREVIEW_FILE).is_file():
            write_atomic(folder / PREVIEW_FILE, photographer.preview(load_scene(folder)))


def _write_manifest(accepted: Sequence[SceneResult], output: Path, heldout: int, seed: int) -> None:
    ranked = sorted(accepted, key=lambda result: derive_seed(seed, "split", result.scene_id))
    held = {result.scene_id for result in ranked[:heldout]}
    lines = [
        ManifestLine(
            id=r.scene_id,
            path=f"{SCENES}/{r.scene_id}",
            split="heldout" if r.scene_id in held else "train",
            task=r.task,
            digest=r.digest,
        )
        for r in accepted
    ]
    write_atomic(output / MANIFEST_FILE, "".join(line.model_dump_json() + "\n" for line in lines).encode())
