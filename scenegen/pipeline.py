"""The resumable run over many scenes: one task each, in processes that may crash or hang, every scene whole or absent.

A set has numbered slots. A slot tries its task a few times, each time with another seed and told what was wrong before; where
tasks are drawn, another task takes the place of one that never passes. What a slot ends with depends on the seed and the slot
alone, so that workers, shards and interruptions change nothing.
"""

from __future__ import annotations

import errno
import multiprocessing
import queue
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from scenegen.build import Outcome, SceneSpec, write_provenance
from scenegen.designer.base import Designer
from scenegen.errors import UserError
from scenegen.files import append_line
from scenegen.llm.base import BudgetError, LLMError
from scenegen.loader import load_scene
from scenegen.manifest import SCENES, scene_digest, write_manifest
from scenegen.options import AssetOptions
from scenegen.schema import (
    BUILD_LOG,
    MANIFEST_FILE,
    PREVIEW_FILE,
    PROVENANCE_FILE,
    SCENE_FILE,
    BuildEvent,
    FailedAttempt,
    ManifestLine,
    Provenance,
    SceneGraph,
)
from scenegen.seeds import derive_seed
from scenegen.worker import build_attempt, render_preview, warm_up

REPORT = "report"

REPLACEMENTS = 5
"""Other tasks that a slot may turn to."""

TASKS_PER_WORKER = 64
"""After which a process is replaced by a fresh one: simulators keep memory."""

LASTING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""Errors of the file system that every other scene would meet as well."""

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """What to build. `tasks` are those of the slots; `drawn` says that they were proposed, not given, so that others may take
    their place. `shard` (i, n): only every n-th slot from the i-th on."""

    output: Path
    tasks: Sequence[str]
    drawn: bool
    seed: int
    catalog: str
    distractors: tuple[int, int]
    xy_range: float
    poses: int
    heldout: int = 0
    attempts: int = 4
    shard: tuple[int, int] = (0, 1)
    judge: str = ""
    preview: bool = False

    @property
    def slots(self) -> range:
        return range(self.shard[0], len(self.tasks), self.shard[1])


@dataclass(frozen=True)
class SceneResult:
    """How a slot ended: with an accepted scene, or with the reason why there is none."""

    slot: int
    scene_id: str
    task: str
    reason: str = ""
    reused: bool = False
    digest: str = ""
    categories: tuple[str, ...] = ()


@dataclass
class BuildSummary:
    """What a run made. `seconds` are of the run, `stages` of all attempts together."""

    results: list[SceneResult] = field(default_factory=list)
    attempts: int = 0
    seconds: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0

    @property
    def accepted(self) -> list[SceneResult]:
        return [result for result in self.results if not result.reason]

    @property
    def rejected(self) -> list[SceneResult]:
        return [result for result in self.results if result.reason]

    def line(self) -> str:
        categories = Counter(category for result in self.accepted for category in result.categories)
        reused = sum(result.reused for result in self.results)
        built = len(self.accepted) - reused
        text = f"{len(self.accepted)} scenes accepted ({reused} already there), {len(self.rejected)} rejected"
        text += f"; {sum(categories.values())} objects of {len(categories)} categories; {self.seconds:.1f} s"
        if self.attempts:
            text += f", {self.attempts} attempts, {built / self.attempts:.0%} of them accepted"
            text += "".join(f", {name} {self.stages[name] / self.attempts:.2f} s" for name in sorted(self.stages))
        return text + (f"; ${self.usd:.2f}" if self.usd else "")


@dataclass(frozen=True)
class Started:
    """An attempt begins."""

    scene_id: str
    attempt: int


Event = Started | BuildEvent | SceneResult | BuildSummary


class Builder:
    """Runs a plan. `judge` adds verdicts to what was built and says what they cost [USD]."""

    def __init__(
        self,
        plan: Plan,
        designer: Designer,
        assets: AssetOptions,
        workers: int,
        timeout: float,
        judge: Callable[[SceneGraph, Path, Outcome], float] | None = None,
    ) -> None:
        self.plan = plan
        self._designer = designer
        self._assets = assets
        self._workers = workers
        self._timeout = timeout
        self._judge = judge
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._log = threading.Lock()

    def run(self) -> Iterator[Event]:
        """Build what is missing, yielding what happens as it happens and the summary last; then write the manifest.

        Raises UserError when the output folder holds anything that this run would not make itself, or cannot be written to.
        """
        started, summary = time.perf_counter(), BuildSummary()
        self._prepare()
        context = multiprocessing.get_context("spawn")
        slots = self.plan.slots
        # Threads wait for processes and language models; twice the processes keeps these busy while some scenes are designed.
        threads = ThreadPoolExecutor(min(2 * self._workers, max(1, len(slots))))
        processes = min(self._workers, max(1, len(slots)))
        self._pool = ProcessPool(processes, TASKS_PER_WORKER, warm_up, context=context)
        try:
            futures = [threads.submit(self._slot, slot) for slot in slots]
            for event in self._until_done(futures):
                if isinstance(event, BuildEvent):
                    summary.attempts += 1
                    summary.usd += event.usd
                    summary.stages.update(event.seconds)
                yield event
            summary.results = [future.result() for future in futures]
        finally:
            self._stop.set()
            self._pool.stop()
            threads.shutdown(wait=True, cancel_futures=True)
            self._pool.join()
        summary.seconds = time.perf_counter() - started
        if self.plan.shard[1] == 1:
            with self._lasting_errors_told():
                self._write_manifest(summary.accepted)
        yield summary

    def _until_done(self, futures: Sequence[Future[SceneResult]]) -> Iterator[Event]:
        while True:
            done = all(future.done() for future in futures)
            try:
                yield self._events.get(timeout=0.1)
            except queue.Empty:
                if done:
                    return

    # ---- one slot, in a thread of its own

    def _slot(self, slot: int) -> SceneResult:
        with self._lasting_errors_told():
            return self._tried(slot)

    def _tried(self, slot: int) -> SceneResult:
        result = self._scene(slot, 0, self.plan.tasks[slot])
        for number in range(1, REPLACEMENTS + 1 if self.plan.drawn and result.reason else 1):
            if self._stop.is_set():
                break
            seed = derive_seed(self.plan.seed, "replacement", slot, number)
            result = self._scene(slot, number, self._designer.propose(1, seed)[0])
            if not result.reason:
                break
        self._events.put(result)
        return result

    def _spec(self, slot: int, replacement: int, task: str) -> SceneSpec:
        plan = self.plan
        slug = "_".join(re.findall(r"[a-z0-9]+", task.lower()))[:60].rstrip("_")
        seed = derive_seed(plan.seed, "scene", slot, *([replacement] if replacement else []))
        scene_id = f"s{slot:04d}_{slug}".rstrip("_")
        return SceneSpec(
            scene_id=scene_id,
            task=task,
            seed=seed,
            catalog=plan.catalog,
            distractors=plan.distractors,
            xy_range=plan.xy_range,
            poses=plan.poses,
            designer=self._designer.name,
            engines=self._assets.describe(),
            judge=plan.judge,
        )

    def _scene(self, slot: int, replacement: int, task: str) -> SceneResult:
        spec = self._spec(slot, replacement, task)
        final = self._scenes / spec.scene_id
        if (final / SCENE_FILE).is_file():
            return self._found(slot, spec, reused=True)
        failed: list[FailedAttempt] = []
        try:
            self._designer.require(task)
        except UserError as error:
            return self._turned_down(slot, spec, FailedAttempt(attempt=0, stage="design", reasons=[str(error)]))
        for attempt in range(self.plan.attempts):
            if self._stop.is_set():
                return SceneResult(slot, spec.scene_id, task, failed[-1].reasons[0] if failed else "the run was stopped")
            self._events.put(Started(spec.scene_id, attempt))
            outcome, hopeless = self._attempt(spec, attempt, failed)
            if outcome.ok:
                return self._found(slot, spec, reused=False)
            failed.append(FailedAttempt(attempt=attempt, stage=outcome.stage or "worker", reasons=outcome.reasons))
            if hopeless:
                break
        return SceneResult(slot, spec.scene_id, task, failed[-1].reasons[0])

    def _attempt(self, spec: SceneSpec, attempt: int, failed: Sequence[FailedAttempt]) -> tuple[Outcome, bool]:
        """Design, build, judge; the scene moves to its place when all went well, or nothing of it stays. How it went, and whether
        another attempt would be in vain."""
        folder = self._scenes / f".building-{spec.scene_id}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        outcome, usd, hopeless = Outcome(), 0.0, False
        try:
            started = time.perf_counter()
            try:
                feedback = [reason for failure in failed for reason in failure.reasons]
                design = self._designer.design(spec.task, spec.attempt_seed(attempt), feedback)
                usd += design.usd
            finally:
                outcome.seconds["design"] = time.perf_counter() - started
            outcome = self._built(spec, design.graph, attempt, folder, outcome)
            if outcome.ok and self._judge is not None:
                usd += self._judge(design.graph, folder, outcome)
            if outcome.ok:
                write_provenance(folder, spec, attempt, outcome, failed, design)
                folder.rename(self._scenes / spec.scene_id)
        except UserError as error:
            outcome.failed("design", str(error))
            hopeless = True
        except LLMError as error:
            outcome.failed("design", str(error))
            hopeless = isinstance(error, BudgetError)
            if hopeless:
                self._stop.set()
        except OSError as error:
            if error.errno in LASTING:
                raise
            outcome.failed("worker", f"{error.filename}: {error.strerror}" if error.filename else str(error))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._record(spec, attempt, outcome, usd, hopeless or attempt + 1 == self.plan.attempts)
        return outcome, hopeless

    def _built(self, spec: SceneSpec, graph: SceneGraph, attempt: int, folder: Path, outcome: Outcome) -> Outcome:
        try:
            built = self._in_process(build_attempt, spec, graph, attempt, self._assets, folder, self.plan.preview)
        except TimeoutError:
            return outcome.failed("worker", f"took longer than {self._timeout:g} s")
        except ProcessExpired as error:
            return outcome.failed("worker", f"the process died with exit code {error.exitcode}")
        built.seconds = outcome.seconds | built.seconds
        return built

    def _in_process(self, function: Callable[..., T], *args: object) -> T:
        return self._pool.schedule(function, args=args, timeout=self._timeout).result()

    def _turned_down(self, slot: int, spec: SceneSpec, failure: FailedAttempt) -> SceneResult:
        self._record(spec, failure.attempt, Outcome().failed(failure.stage, *failure.reasons), 0.0, last=True)
        return SceneResult(slot, spec.scene_id, spec.task, failure.reasons[0])

    def _record(self, spec: SceneSpec, attempt: int, outcome: Outcome, usd: float, last: bool) -> None:
        event = BuildEvent(
            scene_id=spec.scene_id,
            task=spec.task,
            attempt=attempt,
            outcome="accepted" if outcome.ok else "rejected" if last else "retry",
            stage=outcome.stage,
            reasons=outcome.reasons,
            verdicts=[*outcome.discarded, *outcome.verdicts],
            seconds={name: round(value, 4) for name, value in outcome.seconds.items()},
            usd=usd,
        )
        with self._log:
            append_line(self.plan.output / BUILD_LOG, event.model_dump_json(exclude_defaults=True))
        self._events.put(event)

    def _found(self, slot: int, spec: SceneSpec, reused: bool) -> SceneResult:
        folder = self._scenes / spec.scene_id
        scene = load_scene(folder)
        if self.plan.preview and not (folder / PREVIEW_FILE).is_file():
            self._in_process(render_preview, folder)
        categories = tuple(entry.asset.category for entry in scene.objects)
        return SceneResult(slot, spec.scene_id, spec.task, "", reused, scene_digest(folder), categories)

    # ---- the folder of the set

    @property
    def _scenes(self) -> Path:
        return self.plan.output / SCENES

    def _prepare(self) -> None:
        output = self.plan.output
        if output.exists() and not output.is_dir():
            raise UserError(f"output: {output} is a file; wanted a folder")
        known = {MANIFEST_FILE, SCENES, BUILD_LOG, REPORT}
        strange = sorted(entry.name for entry in output.iterdir() if entry.name not in known) if output.is_dir() else []
        if strange:
            raise UserError(
                f"output: {output} holds {strange[0]!r}, which is no part of a scene set; wanted an empty folder or a set"
            )
        try:
            self._scenes.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output: {output} cannot be made ({error.strerror}); wanted a folder to write to") from None
        for entry in sorted(self._scenes.iterdir()):
            slot = self._slot_of(entry)
            if entry.name.startswith(".building-"):
                if slot in self.plan.slots:
                    shutil.rmtree(entry)
            elif slot is None or slot >= len(self.plan.tasks) or not self._is_ours(entry, slot):
                raise UserError(
                    f"output: {entry} was built with another seed, other tasks, options or version; "
                    "wanted an empty folder or the set that the same command has begun"
                )

    @staticmethod
    def _slot_of(entry: Path) -> int | None:
        match = re.match(r"(?:\.building-)?s(\d{4,})(?:_|$)", entry.name)
        return int(match[1]) if match else None

    def _is_ours(self, folder: Path, slot: int) -> bool:
        try:
            provenance = Provenance.model_validate_json((folder / PROVENANCE_FILE).read_bytes())
        except (OSError, ValueError):
            return False
        key = load_scene(folder).bundle.build_key
        specs = (self._spec(slot, number, provenance.task) for number in range(REPLACEMENTS + 1))
        given = self.plan.drawn or provenance.task == self.plan.tasks[slot]
        return given and any(spec.key == key for spec in specs)

    @contextmanager
    def _lasting_errors_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in LASTING:
                raise
            self._stop.set()
            where = error.filename or self.plan.output
            raise UserError(f"output: {where}: {error.strerror}; the same command goes on once that is mended") from error

    def _write_manifest(self, accepted: Sequence[SceneResult]) -> None:
        seed = self.plan.seed
        ranked = sorted(accepted, key=lambda result: derive_seed(seed, "split", result.scene_id))
        held = {result.scene_id for result in ranked[: self.plan.heldout]}
        lines = [
            ManifestLine(
                id=r.scene_id,
                path=f"{SCENES}/{r.scene_id}",
                split="heldout" if r.scene_id in held else "train",
                task=r.task,
                digest=r.digest,
            )
            for r in sorted(accepted, key=lambda result: result.slot)
        ]
        write_manifest(self.plan.output, lines)
