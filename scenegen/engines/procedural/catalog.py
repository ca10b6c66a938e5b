"""All families by category."""

from __future__ import annotations

from scenegen.engines.procedural import destinations, household, produce, toys
from scenegen.engines.procedural.form import Family

FAMILIES: dict[str, Family] = {
    family.category: family for module in (toys, produce, household, destinations) for family in module.FAMILIES
}
