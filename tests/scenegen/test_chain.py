"""Several engines as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from scenegen.engines.base import EngineError
from scenegen.engines.chain import ChainEngine
from scenegen.engines.library import LibraryEngine
from scenegen.engines.procedural.engine import ProceduralEngine
from scenegen.errors import UserError
from scenegen.schema import AssetRecord, NodeSpec, Role


def node(category: str = "mug", **fields: object) -> NodeSpec:
    return NodeSpec(id="thing", name=category, role=Role.DISTRACTOR, category=category, description=category, **fields)  # type: ignore[arg-type]


class Clumsy:
    """Claims everything and makes nothing."""

    version = "1"

    def __init__(self, name: str, score: float) -> None:
        self.name, self.score = name, score

    def supports(self, spec: NodeSpec) -> float:
        return self.score

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        raise EngineError("dropped it")


def test_the_first_that_makes_it_well_is_asked_first():
    good, better, poor = Clumsy("good", 0.995), Clumsy("better", 1.0), Clumsy("poor", 0.5)
    fair, useless = Clumsy("fair", 0.7), Clumsy("useless", 0.0)
    order = ChainEngine([poor, good, useless, better, fair]).order(node())
    assert [engine.name for engine in order] == ["good", "better", "fair", "poor"]


def test_the_next_engine_is_asked_and_the_record_names_it(tmp_path: Path):
    chain = ChainEngine([Clumsy("clumsy", 1.0), LibraryEngine(tmp_path / "library"), ProceduralEngine()])
    record = chain.generate(node(), 3, 0, tmp_path / "scene")
    assert record == ProceduralEngine().generate(node(), 3, 0, tmp_path / "other")
    assert record.engine == "procedural" and chain.supports(node()) == 1.0


def test_when_none_can_all_reasons_are_named(tmp_path: Path):
    chain = ChainEngine([Clumsy("a", 1.0), Clumsy("b", 0.2), ProceduralEngine()])
    with pytest.raises(EngineError, match="^a: dropped it; b: dropped it$"):
        chain.generate(node("unicorn"), 0, 0, tmp_path)
    with pytest.raises(EngineError, match="node thing: none of procedural makes a 'unicorn'"):
        ChainEngine([ProceduralEngine()]).generate(node("unicorn"), 0, 0, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="engines: found none"):
        ChainEngine([])
