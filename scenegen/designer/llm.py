"""The designer that asks a language model, and believes nothing that it answers before code has checked it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, create_model

from scenegen.designer.base import Design
from scenegen.designer.drafts import DraftError, draft_schema, instruction_of, plain, to_graph
from scenegen.designer.lexicon import ARTICLES
from scenegen.designer.rules import MAX_DISTRACTORS, parse_task
from scenegen.engines.procedural.catalog import Catalog
from scenegen.errors import UserError
from scenegen.llm.base import Answer, LLMClient, LLMError
from scenegen.llm.prompts import prompt
from scenegen.palette import PALETTE
from scenegen.schema import Relation
from scenegen.seeds import generator

LONGEST_TASK = 199
BATCH = 25
"""Tasks that are asked for at a time."""

SHOWN = 200
"""Tasks already there that a question shows at most, the latest of them."""

_IDEAS, _FEEDBACK = 8, 8
_FILLERS = {*ARTICLES, "please", "put", "place", "move", "set", "drop", "lay", "bring", "transfer", "stack", "pick", "take", "up"}
_FILLERS |= {"on", "onto", "in", "into", "inside", "to", "top", "of", "and", "then", "it"}


class Proposal(BaseModel):
    """One task."""

    model_config = ConfigDict(extra="forbid")

    sentence: str
    target: str
    relation: Literal["on", "in"]
    destination: str


class Proposals(BaseModel):
    """Tasks, all different."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[Proposal]


class LLMDesigner:
    """A Designer over any LLMClient. `distractors`: how many at least and at most. With `free_categories` scenes may hold any
    object, for engines that make what words describe; otherwise only what the catalogue holds. Safe to use from several
    threads. Errors of the client (LLMError, UserError) pass through."""

    name = "llm"

    def __init__(self, client: LLMClient, catalog: Catalog, distractors: tuple[int, int], free_categories: bool = False) -> None:
        if not 0 <= distractors[0] <= distractors[1] <= MAX_DISTRACTORS:
            raise UserError(f"distractors: found {distractors[0]} to {distractors[1]}; wanted within 0 to {MAX_DISTRACTORS}")
        self.client, self.catalog, self.distractors = client, catalog, distractors
        self.free_categories = free_categories
        self._kinds = None if free_categories else catalog
        self._draft, self._proposals = draft_schema(self._kinds), _proposals_schema(self._kinds)
        things = prompt("free_v1") if free_categories else _catalog_text(catalog)
        self._design_prompt, self._propose_prompt = prompt("design_v1", things=things), prompt("propose_v1", things=things)

    @property
    def model(self) -> str | None:
        """The name of the model that is asked."""
        settings = getattr(self.client, "settings", None)
        return getattr(settings, "model", None)

    def require(self, task: str) -> None:
        """What can be seen without asking the model. Raises UserError."""
        text = task.strip()
        if not text or not instruction_of(task):
            raise UserError(f"task {task!r}: found no words; wanted a sentence")
        if len(text) > LONGEST_TASK:
            raise UserError(f"task {text[:40]!r}...: found {len(text)} characters; wanted at most {LONGEST_TASK}")
        if not text.isprintable():
            raise UserError(f"task {text!r}: found a line break or another character that cannot be printed; wanted one line")

    def design(self, task: str, seed: int, feedback: Sequence[str] = ()) -> Design:
        """A scene; it takes one answer, or two when the first was not usable and was sent back.

        Raises UserError for a task that is impossible, LLMError when neither answer is usable."""
        self.require(task)
        question = self._question(task, seed, feedback)
        answers: list[Answer[Any]] = []
        text, problems = question, [""]
        for _ in range(2):
            answer = self.client.complete("design", self._design_prompt, text, self._draft)
            answers.append(answer)
            if answer.value.impossible.strip():
                reason = " ".join(answer.value.impossible.split())[:200]
                raise UserError(
                    f"task {task.strip()!r}: found it impossible: {reason}; wanted one rigid thing put on or in another"
                )
            try:
                graph = to_graph(answer.value, task, self._kinds, self.distractors)
                return Design(graph, answer.model, tuple(a.prompt_sha for a in answers), sum(a.usd for a in answers))
            except DraftError as error:
                problems = error.problems
            listed = "\n".join(f"- {problem}" for problem in problems)
            text = (
                f"{question}\n\nYour last answer was\n{answer.value.model_dump_json()}\nIt cannot be used:\n{listed}\nCorrect it."
            )
        raise LLMError(f"design: no usable scene for {task.strip()!r} in two answers: {'; '.join(problems)[:400]}")

    def _question(self, task: str, seed: int, feedback: Sequence[str]) -> str:
        """The user's part: the task, and what the seed draws so that another seed gives another scene."""
        rng = generator(seed, "llm design")
        count = int(rng.integers(self.distractors[0], self.distractors[1] + 1))
        lines = [f"Task: {json.dumps(' '.join(task.split()))}", f"Variation: {seed}"]
        fewer = f"{count}, or fewer where that helps against the reasons below, {self.distractors[0]} at least"
        lines.append(f"Distractors: {fewer if feedback else f'exactly {count}'}")
        if count and not self.free_categories:
            ideas = _drawn([family.category for family in self.catalog.clutter], rng)
            lines.append(f"Ideas for distractors, take those that fit: {', '.join(ideas)}")
        lines.append(f"Colours to prefer where the sentence leaves them open: {', '.join(_drawn(list(PALETTE), rng)[:4])}")
        if feedback:
            lines.append("Earlier scenes for this task were turned down; do it differently:")
            lines += [f"- {' '.join(line.split())[:200]}" for line in list(feedback)[-_FEEDBACK:]]
        return "\n".join(lines)

    def propose(self, count: int, seed: int) -> list[str]:
        """`count` different tasks, each possible by the catalogue. Raises UserError when the model runs out of them."""
        if count < 1:
            raise UserError(f"count: found {count}; wanted at least 1")
        kept: dict[frozenset[str], Proposal] = {}
        rounds = fruitless = 0
        while len(kept) < count and fruitless < 2 and rounds < 3 + 2 * count // BATCH:
            before = len(kept)
            question = self._proposal_question(min(BATCH, count - before), seed, rounds, list(kept.values()))
            answer = self.client.complete("propose", self._propose_prompt, question, self._proposals)
            for proposal in answer.value.tasks:
                if self._possible(proposal):
                    kept.setdefault(_meaning(proposal), proposal)
            rounds += 1
            fruitless = fruitless + 1 if len(kept) == before else 0
        if len(kept) < count:
            raise UserError(
                f"count: found {count}; wanted at most {len(kept)}, all the possible tasks that the model gave in {rounds} rounds"
            )
        return [instruction_of(proposal.sentence) for proposal in kept.values()][:count]

    def _proposal_question(self, wanted: int, seed: int, rounds: int, kept: Sequence[Proposal]) -> str:
        lines = [f"Propose {wanted} tasks.", f"Variation: {seed}, round {rounds + 1}"]
        rng = generator(seed, "llm propose", rounds)
        for role in ("target", "destination"):
            used = Counter(plain(getattr(proposal, role)) for proposal in kept)
            if not self.free_categories:
                families = self.catalog.graspable if role == "target" else self.catalog.places
                shuffled = rng.permutation([family.category for family in families]).tolist()
                rare = sorted(shuffled, key=lambda category: used[category])[: max(wanted, _IDEAS)]
                lines.append(f"Least used as {role} so far, begin with these: {', '.join(rare)}")
            elif used:
                lines.append(f"Used as {role} so far: {', '.join(f'{name} ({n})' for name, n in used.most_common(60))}")
        if kept:
            lines += ["Already there:", *(f"- {instruction_of(proposal.sentence)}" for proposal in kept[-SHOWN:])]
        return "\n".join(lines)

    def _possible(self, proposal: Proposal) -> bool:
        """Whether a proposed task can be done: with a catalogue, whether its sentence is one that every designer understands."""
        try:
            self.require(proposal.sentence)
        except UserError:
            return False
        if plain(proposal.target) == plain(proposal.destination):
            return False
        if self.free_categories:
            return all(re.fullmatch(r"[^\W_][\w '-]{0,59}", plain(name)) for name in (proposal.target, proposal.destination))
        try:
            parsed = parse_task(proposal.sentence, self.catalog)
        except UserError:
            return False
        said = (parsed.subject.family.category, parsed.relation, parsed.object.family.category)
        return said == (proposal.target, Relation(proposal.relation), proposal.destination)


def _drawn(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [str(name) for name in rng.permutation(list(names))[:_IDEAS]]


def _meaning(proposal: Proposal) -> frozenset[str]:
    """What makes a task the task it is: its words without those that say nothing, and the relation."""
    words = re.findall(r"[\w']+", proposal.sentence.lower())
    return frozenset([*(word for word in words if word not in _FILLERS), f"<{proposal.relation}>"])


def _proposals_schema(catalog: Catalog | None) -> type[Proposals]:
    if catalog is None:
        return Proposals
    fields: dict[str, Any] = {
        "target": (Literal[tuple(family.category for family in catalog.graspable)], ...),
        "destination": (Literal[tuple(family.category for family in catalog.places)], ...),
    }
    proposal: Any = create_model("Proposal", __base__=Proposal, **fields)
    return create_model("Proposals", __base__=Proposals, tasks=(list[proposal], ...))


def _catalog_text(catalog: Catalog) -> str:
    lines = []
    for family in catalog.families.values():
        others = f" ({', '.join(family.nouns[1:])})" if family.nouns[1:] else ""
        colors = "any" if set(family.colors) == set(PALETTE) else ", ".join(family.colors)
        holds = f"{'/'.join(family.relations)} up to {1000 * family.room:.0f} mm" if family.relations else "carries nothing"
        facts = [colors, ", ".join(family.materials), "gripper lifts it" if family.graspable else "too large to lift", holds]
        lines.append(f"- {family.category}{others}: {'; '.join(facts)}; {1000 * family.span:.0f} mm long at most")
    return prompt("catalog_v1", colors=", ".join(PALETTE), lines="\n".join(lines))
