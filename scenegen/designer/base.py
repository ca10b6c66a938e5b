"""What every designer is: something that turns a task sentence into a SceneGraph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scenegen.designer.rules import design_scene, parse_task
from scenegen.designer.tasks import generate_tasks
from scenegen.engines.procedural.catalog import Catalog
from scenegen.schema import SceneGraph


@dataclass(frozen=True)
class Design:
    """A graph, and where a language model made it, which, from what (SHA-256 of all that it was asked) and for how much."""

    graph: SceneGraph
    model: str | None = None
    prompts: tuple[str, ...] = ()
    usd: float = 0.0


class Designer(Protocol):
    """`propose` draws tasks that are possible and all different. `design` makes a scene for one; another seed gives another
    scene, and `feedback` says in short lines why earlier scenes for the task were turned down. `require` raises UserError for a
    task that can be seen to be impossible without designing it."""

    @property
    def name(self) -> str: ...

    def require(self, task: str) -> None: ...

    def propose(self, count: int, seed: int) -> list[str]: ...

    def design(self, task: str, seed: int, feedback: Sequence[str] = ()) -> Design: ...


@dataclass(frozen=True)
class RulesDesigner:
    """The designer that needs no network: grammar and lexicon over a catalogue. `distractors`: how many at least and at most."""

    catalog: Catalog
    distractors: tuple[int, int]
    name: str = "rules"

    def require(self, task: str) -> None:
        parse_task(task, self.catalog)

    def propose(self, count: int, seed: int) -> list[str]:
        return generate_tasks(count, seed, self.catalog)

    def design(self, task: str, seed: int, feedback: Sequence[str] = ()) -> Design:
        return Design(design_scene(task, seed, self.distractors, self.catalog))
