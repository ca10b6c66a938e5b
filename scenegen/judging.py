"""A language model's second look at a built scene."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from scenegen.build import Outcome
from scenegen.checks.judge import Judge
from scenegen.checks.run import write_verdicts
from scenegen.llm.base import Answer, LLMClient, T
from scenegen.loader import Scene, load_scene
from scenegen.preview import Photographer, Picture
from scenegen.schema import SceneGraph


class SceneJudge:
    """Asks about every object and then about the scene, until something is turned down. Safe to call from several threads: they
    share one renderer. Raises RuntimeError where there is no Vulkan driver."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client
        self._photographer = _OneAtATime()

    def __call__(self, graph: SceneGraph, folder: Path, outcome: Outcome) -> float:
        """Take the verdicts into the outcome and into the scene's files; what they cost [USD]."""
        meter, scene = _Meter(self._client), load_scene(folder)
        judge = Judge(meter, self._photographer)
        for entry in scene.objects:
            if not outcome.judged(judge.check_asset(graph.node(entry.id), entry.asset, folder)):
                return meter.usd
        if outcome.judged([judge.check_scene(scene)]):
            write_verdicts(folder, outcome.verdicts)
        return meter.usd


class _Meter:
    """An LLMClient that knows what was spent through it."""

    def __init__(self, client: LLMClient) -> None:
        self._client = client
        self.usd = 0.0

    def complete(self, purpose: str, system: str, user: str, schema: type[T], images: Sequence[bytes] = ()) -> Answer[T]:
        answer = self._client.complete(purpose, system, user, schema, images)
        self.usd += answer.usd
        return answer


class _OneAtATime(Photographer):
    """Takes one picture at a time, whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def take(self, scene: Scene, placement: int, width: int, height: int, robot: bool = False) -> Picture:
        with self._lock:
            return super().take(scene, placement, width, height, robot)

    def asset_view(self, visual: Path, size: int = 112, azimuth_deg: float = -55.0, elevation_deg: float = 34.0) -> Picture:
        with self._lock:
            return super().asset_view(visual, size, azimuth_deg, elevation_deg)
