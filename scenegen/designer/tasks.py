"""Distinct task sentences, as many as are asked for, evenly over the families."""

from __future__ import annotations

from functools import cache

import numpy as np

from scenegen.designer.rules import fits
from scenegen.engines.procedural.catalog import FULL, Catalog
from scenegen.engines.procedural.form import Family
from scenegen.errors import UserError
from scenegen.palette import plainly_different
from scenegen.schema import Relation
from scenegen.seeds import generator

_NARROW = ("block", "carton", "coaster", "arch", "stacking cup", "saucer", "pen holder", "flower pot", "stool")
"""Places that a sentence may name but that are too narrow to be drawn at random."""


def generate_tasks(count: int, seed: int, catalog: Catalog = FULL) -> list[str]:
    """`count` sentences, no two the same; the first k do not depend on count. Raises UserError when there are not that many."""
    rng = generator(seed, "tasks")
    graspable = catalog.graspable
    wide = [family for family in catalog.places if family.category not in _NARROW]
    possible = sum(len(_combinations(target, place)) for target in graspable for place in wide)
    if count > possible:
        raise UserError(f"count: found {count}; wanted at most {possible}, the number of different tasks of these families")
    targets, places = _Cycle(rng), _Cycle(rng)
    sentences: dict[str, None] = {}
    while len(sentences) < count:
        target, place = targets.take(graspable), places.take(wide)
        combinations = _combinations(target, place)
        if combinations:
            color, place_color, relation = combinations[int(rng.integers(len(combinations)))]
            sentences[f"put {_named(target, color)} {relation} {_named(place, place_color)}"] = None
    return list(sentences)


class _Cycle:
    """Draws each family once before any comes again, in a new order every round."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.left: list[int] = []

    def take(self, families: list[Family]) -> Family:
        if not self.left:
            self.left = self.rng.permutation(len(families)).tolist()
        return families[self.left.pop()]


@cache
def _combinations(target: Family, place: Family) -> list[tuple[str, str, Relation]]:
    """Colour of the target, colour of the place, relation: those that a camera can tell apart, spoken differently."""
    if not fits(target, place):
        return []
    spoken = target.colors if target.speaks_color else target.colors[:1]
    return [(a, b, r) for a in spoken for b in place.colors if plainly_different(a, b) for r in place.relations]


def _named(family: Family, color: str) -> str:
    return f"the {color} {family.category}" if family.speaks_color else f"the {family.category}"
