"""Several engines as one: what the first cannot make, another may."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scenegen.engines.base import AssetEngine, EngineError
from scenegen.errors import UserError
from scenegen.schema import AssetRecord, NodeSpec

WELL_ENOUGH = 0.99


class ChainEngine:
    """Asks its engines in their order: first those that can make a node well (`supports` >= 0.99), then the others, the best
    first. The record names the engine that made it."""

    name = "chain"

    def __init__(self, engines: Sequence[AssetEngine]) -> None:
        if not engines:
            raise UserError("engines: found none; wanted at least one")
        self.engines = tuple(engines)
        self.version = ",".join(f"{engine.name}={engine.version}" for engine in self.engines)

    def supports(self, spec: NodeSpec) -> float:
        return max(engine.supports(spec) for engine in self.engines)

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        """See `AssetEngine`. The EngineError names what each engine said."""
        reasons = []
        for engine in self.order(spec):
            try:
                return engine.generate(spec, seed, attempt, folder, feedback)
            except EngineError as error:
                reasons.append(f"{engine.name}: {error}")
        names = ", ".join(engine.name for engine in self.engines)
        raise EngineError("; ".join(reasons) or f"node {spec.id}: none of {names} makes a {spec.category!r}")

    def prepare(self, nodes: Sequence[NodeSpec], seed: int, attempt: int) -> None:
        """Lets the engines that make many objects at a time (those with a `prepare` of their own) make what they would be asked
        for first. Raises EngineError as they do."""
        for engine in self.engines:
            wanted = [node for node in nodes if self.order(node)[:1] == [engine]]
            prepare = getattr(engine, "prepare", None)
            if wanted and prepare is not None:
                prepare(wanted, seed, attempt)

    def order(self, spec: NodeSpec) -> list[AssetEngine]:
        """The engines that can make a node at all, in the order in which they are asked."""
        scores = [(min(engine.supports(spec), WELL_ENOUGH), engine) for engine in self.engines]
        return [engine for score, engine in sorted(scores, key=lambda pair: -pair[0]) if score > 0]
