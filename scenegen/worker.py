"""What runs in the processes of a build."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from scenegen.build import Outcome, SceneSpec, build_scene
from scenegen.engines.chain import ChainEngine
from scenegen.files import write_atomic
from scenegen.loader import load_scene
from scenegen.options import AssetOptions
from scenegen.preview import Photographer
from scenegen.schema import PREVIEW_FILE, SceneGraph


def warm_up() -> None:
    """Import what takes seconds, before the clock of the first scene runs."""
    import scenegen.layout.reach  # noqa: F401


def build_attempt(spec: SceneSpec, graph: SceneGraph, attempt: int, assets: AssetOptions, folder: Path, preview: bool) -> Outcome:
    """`build_scene`, with a picture when one is wanted."""
    outcome = build_scene(spec, graph, attempt, _engine(assets), folder)
    if outcome.ok and preview:
        render_preview(folder)
    return outcome


def render_preview(folder: Path) -> None:
    """Write the scene's picture."""
    write_atomic(folder / PREVIEW_FILE, _photographer().preview(load_scene(folder)))


@lru_cache(maxsize=1)
def _engine(assets: AssetOptions) -> ChainEngine:
    return assets.engine()


@lru_cache(maxsize=1)
def _photographer() -> Photographer:
    return Photographer()
