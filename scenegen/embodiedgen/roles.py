"""Who is who: EmbodiedGen says what is manipulated, but not what goes where. The task's sentence does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from scenegen.designer.lexicon import ARTICLES
from scenegen.designer.rules import words_of
from scenegen.embodiedgen.layout_file import CONTEXT, MANIPULATED, Layout
from scenegen.errors import UserError
from scenegen.schema import Relation


@dataclass
class Casting:
    """Target and destination by their names in the layout. `predicate` is None when the sentence leaves it open, `sentence` None
    when it does not say to put this target there. `notes` tell in one line each what was chosen without being said."""

    target: str
    destination: str
    predicate: Relation | None
    sentence: str | None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Sentence:
    text: str
    subject: str
    relation: Relation
    place: str


def cast_roles(layout: Layout, path: Path, target: str | None = None, destination: str | None = None) -> Casting:
    """Target and destination of a layout: as named by the caller, by the sentence, by the order of the manipulated objects.
    Raises UserError when one is named that is not there, or when nothing can be the destination."""
    objects = layout.objects
    for option, name in (("target", target), ("destination", destination)):
        if name is not None and name not in objects:
            raise UserError(f"{path}: {option}: found no object {name!r}; wanted one of {', '.join(objects)}")
    if target is not None and target == destination:
        raise UserError(f"{path}: target, destination: found {target!r} for both; wanted two objects")
    if len(objects) < 2:
        raise UserError(f"{path}: objs_mapping: found {len(objects)} object; wanted at least a target and a destination")
    notes: list[str] = []
    sentence = _understood(layout)
    if sentence is None:
        notes.append("the task's sentence has no 'put A on B' or 'put A in B'")
    ranked = [node for node in layout.of_role(MANIPULATED) if node in objects]
    ranked += [node for node in objects if node not in ranked]
    if (
        sentence
        and destination is None
        and not _matching(sentence.place, objects)
        and _matching(sentence.place, layout.of_role(CONTEXT))
    ):
        raise UserError(f"{path}: relation.task_desc: found {sentence.place!r} as the place; wanted one of {', '.join(objects)}")
    subject, place_ = (sentence.subject, sentence.place) if sentence else (None, None)
    chosen = target or _choose("target", subject, [node for node in ranked if node != destination], notes)
    place = destination or _choose("destination", place_, [node for node in ranked if node != chosen], notes)
    said = sentence and chosen in _matching(sentence.subject, objects) and place in _matching(sentence.place, objects)
    predicate = sentence.relation if sentence else None
    return Casting(chosen, place, predicate, sentence.text if sentence and said else None, notes)


def _understood(layout: Layout) -> _Sentence | None:
    for key in ("task_desc", "task"):
        text = " ".join(str(layout.relation.get(key, "")).split()).rstrip(".!")
        words = words_of(text)
        if words is not None:
            relation = Relation.IN if words["relation"].startswith("in") else Relation.ON
            return _Sentence(text, words["subject"], relation, words["object"])
    return None


def _choose(what: str, phrase: str | None, nodes: list[str], notes: list[str]) -> str:
    found = _matching(phrase, nodes) if phrase else []
    if len(found) == 1:
        return found[0]
    if found:
        notes.append(f"{what}: {phrase!r} may be any of {', '.join(found)}; took {found[0]!r}")
        return found[0]
    notes.append(
        f"{what}: no object is called {phrase!r}; took {nodes[0]!r}" if phrase else f"{what}: took {nodes[0]!r}, by order"
    )
    return nodes[0]


def _matching(phrase: str, nodes: list[str]) -> list[str]:
    """The nodes that a noun phrase fits best: its noun must be theirs, and the more other words agree the better."""
    words = _words(phrase)
    if not words:
        return []
    scores = {node: _score(words, _words(node)) for node in nodes}
    best = max(scores.values(), default=0)
    return [node for node, score in scores.items() if score == best and best > 0]


def _score(phrase: list[str], name: list[str]) -> int:
    if not name or (phrase[-1] not in name and name[-1] not in phrase):
        return 0
    return 10 * len({*phrase} & {*name}) - len({*phrase} ^ {*name})


def _words(text: str) -> list[str]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return [word for word in words if word not in ARTICLES] or words
