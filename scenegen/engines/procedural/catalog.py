"""What can be made: all families by category, and the two catalogues of families, tables and rooms that scenes draw from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from scenegen.engines.procedural import (
    bakery,
    blocks,
    contexts,
    cutlery,
    decor,
    desk,
    destinations,
    furniture,
    gadgets,
    garden,
    home,
    household,
    interiors,
    kitchen,
    produce,
    rooms,
    toybox,
    toys,
    vessels,
    workshop,
)
from scenegen.engines.procedural.contexts import TableStyle
from scenegen.engines.procedural.form import Family
from scenegen.engines.procedural.rooms import RoomStyle
from scenegen.errors import UserError


@dataclass(frozen=True)
class Catalog:
    """Families by category, table and room styles by name. The order of each is part of what a seed means: only append."""

    name: str
    families: Mapping[str, Family]
    tables: Mapping[str, TableStyle]
    rooms: Mapping[str, RoomStyle]

    @cached_property
    def nouns(self) -> dict[str, Family]:
        """Every word for a family; where two families claim one, the family of that name has it, else the first."""
        synonyms = {noun: family for family in reversed(list(self.families.values())) for noun in family.nouns}
        return synonyms | dict(self.families)

    @cached_property
    def graspable(self) -> list[Family]:
        return [family for family in self.families.values() if family.graspable]

    @cached_property
    def clutter(self) -> list[Family]:
        """What may stand about without being named: everything but the places, which the robot could take for the goal."""
        return [family for family in self.families.values() if family.graspable or not family.relations]

    @cached_property
    def places(self) -> list[Family]:
        return [family for family in self.families.values() if family.relations]


def _by_category(*modules: object) -> dict[str, Family]:
    return {family.category: family for module in modules for family in module.FAMILIES}  # type: ignore[attr-defined]


_BASIC = _by_category(toys, produce, household, destinations)
BASIC = Catalog("basic", _BASIC, contexts.TABLES, rooms.ROOMS)
"""Things that a small policy can tell apart in pictures of 64 x 64 pixels."""

FULL = Catalog(
    "full",
    _BASIC | _by_category(kitchen, bakery, garden, cutlery, workshop, blocks, toybox, desk, gadgets, home, decor, vessels),
    contexts.TABLES | furniture.FULL_TABLES,
    rooms.ROOMS | interiors.FULL_ROOMS,
)
"""All that can be made: BASIC's first, in their order."""

CATALOGS = {catalog.name: catalog for catalog in (BASIC, FULL)}
FAMILIES = FULL.families


def find_catalog(name: str) -> Catalog:
    """Raises UserError for a name that is none."""
    if name not in CATALOGS:
        raise UserError(f"catalog: found {name!r}; wanted one of {', '.join(CATALOGS)}")
    return CATALOGS[name]
