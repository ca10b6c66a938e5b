"""All checks of an asset, of a scene, of both. What goes wrong inside a check is a verdict too, and no pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from scenegen.checks.alignment import check_alignment
from scenegen.checks.appearance import check_appearance
from scenegen.checks.files import AssetOnDisk
from scenegen.checks.geometry import check_geometry
from scenegen.checks.settle import check_settle
from scenegen.checks.task import check_task
from scenegen.files import write_atomic
from scenegen.loader import Scene
from scenegen.schema import QA_FILE, AssetRecord, Check, NodeSpec, Status, Verdict

SCENE = "scene"
_ASSET_CHECKS = (
    (Check.APPEARANCE, check_appearance),
    (Check.GEOMETRY, check_geometry),
    (Check.ALIGNMENT, check_alignment),
)
_SCENE_CHECKS = ((Check.SETTLE, check_settle), (Check.TASK, check_task))


def check_asset(node: NodeSpec, asset: AssetRecord, folder: Path) -> list[Verdict]:
    """Semantic appearance, mesh geometry, text-to-3D alignment of the files that `asset` names below `folder`."""
    disk = AssetOnDisk(asset, folder)
    return [_guarded(check, node.id, lambda look=look: look(node, disk)) for check, look in _ASSET_CHECKS]  # type: ignore[misc]


def check_scene(scene: Scene) -> list[Verdict]:
    """Settle and task."""
    return [_guarded(check, SCENE, lambda look=look: look(scene)) for check, look in _SCENE_CHECKS]  # type: ignore[misc]


def check_all(scene: Scene) -> list[Verdict]:
    """Of every object in the order of the scene, then of the scene."""
    graph = scene.bundle.graph
    verdicts = [check_asset(graph.node(entry.id), entry.asset, scene.folder) for entry in scene.objects]
    return [verdict for found in verdicts for verdict in found] + check_scene(scene)


def accepted(verdicts: Iterable[Verdict]) -> bool:
    """No failure and no error; nothing skipped but the alignment of what there is no reference for."""
    return all(
        verdict.status is Status.PASS or (verdict.status is Status.SKIP and verdict.check is Check.ALIGNMENT)
        for verdict in verdicts
    )


def _guarded(check: Check, subject: str, look: Callable[[], Verdict]) -> Verdict:
    try:
        return look()
    except Exception as error:  # whatever a broken file or engine brings about, the run goes on
        text = (str(error).splitlines() or [""])[0][:200]
        reason = f"{type(error).__name__}: {text}"
        return Verdict(check=check, subject=subject, status=Status.ERROR, reasons=[reason])


def complaints(verdict: Verdict) -> list[str]:
    """Why a verdict turns something down, as a designer or an engine is told it; nothing for one that does not."""
    if verdict.status in (Status.PASS, Status.SKIP):
        return []
    about = "" if verdict.subject == "scene" else f" of {verdict.subject}"
    return [f"{verdict.check}{about}: {reason}" for reason in verdict.reasons]


def write_verdicts(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """Keep them in the scene's qa.json."""
    content = [verdict.model_dump(mode="json", exclude_defaults=True) for verdict in verdicts]
    write_atomic(folder / QA_FILE, (json.dumps(content, indent=1) + "\n").encode())
