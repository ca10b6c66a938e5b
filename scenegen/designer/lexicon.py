"""The words that sentences may use, and what they mean: nouns are families, adjectives are colours, materials and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scenegen.engines.procedural.catalog import Catalog
from scenegen.engines.procedural.form import Family
from scenegen.engines.procedural.materials import MATERIALS
from scenegen.errors import UserError
from scenegen.palette import PALETTE

COLOR_WORDS: dict[str, str] = {**{name: name for name in PALETTE}, "grey": "gray", "light-blue": "light blue", "violet": "purple"}
MATERIAL_WORDS: dict[str, str] = {word: name for name, material in MATERIALS.items() for word in material.words}
SIZE_WORDS: dict[str, Literal["small", "large"]] = {
    "small": "small",
    "little": "small",
    "tiny": "small",
    "large": "large",
    "big": "large",
}
ARTICLES = ("the", "a", "an", "one", "some", "this", "that")


@dataclass(frozen=True)
class Phrase:
    """A noun phrase understood: `words` without its article, the family meant, and what the adjectives said."""

    words: str
    family: Family
    color: str | None = None
    material: str | None = None
    size: Literal["small", "large"] | None = None


def parse_phrase(text: str, sentence: str, catalog: Catalog) -> Phrase:
    """Understand "the small red block". Raises UserError for a noun or an adjective that is not known or does not fit."""
    words = text.lower().split()
    while words and words[0] in ARTICLES:
        words = words[1:]
    for start in range(len(words)):
        noun = " ".join(words[start:])
        if noun in catalog.nouns:
            return _described(words[:start], catalog.nouns[noun], " ".join(words), sentence)
    raise UserError(f"task {sentence!r}: noun: found {' '.join(words)!r}; wanted one of {', '.join(sorted(catalog.families))}")


def _described(adjectives: list[str], family: Family, words: str, sentence: str) -> Phrase:
    color = material = size = None
    i = 0
    while i < len(adjectives):
        pair, word = " ".join(adjectives[i : i + 2]), adjectives[i].rstrip(",")
        if pair in COLOR_WORDS:
            color, i = COLOR_WORDS[pair], i + 1
        elif word in COLOR_WORDS:
            color = COLOR_WORDS[word]
        elif word in MATERIAL_WORDS:
            material = MATERIAL_WORDS[word]
        elif word in SIZE_WORDS:
            size = SIZE_WORDS[word]
        else:
            known = sorted({*COLOR_WORDS, *MATERIAL_WORDS, *SIZE_WORDS})
            raise UserError(f"task {sentence!r}: adjective: found {word!r}; wanted one of {', '.join(known)}")
        i += 1
    if color is not None and color not in family.colors:
        raise UserError(f"task {sentence!r}: color: found a {color} {family.category}; wanted one of {', '.join(family.colors)}")
    if material is not None and material not in family.materials:
        raise UserError(
            f"task {sentence!r}: material: found a {material} {family.category}; wanted one of {', '.join(family.materials)}"
        )
    return Phrase(words, family, color, material, size)
