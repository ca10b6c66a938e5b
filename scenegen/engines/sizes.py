"""How large things of a kind are: as large as the procedural family makes them."""

from __future__ import annotations

from functools import cache

import numpy as np

from scenegen.engines.procedural.catalog import FULL
from scenegen.engines.procedural.engine import make
from scenegen.engines.procedural.form import Recipe
from scenegen.mesh.importing import SizePrior
from scenegen.seeds import generator

_SAMPLES = 6


@cache
def size_prior(category: str) -> SizePrior | None:
    """The longest sides of some small and large members of a family; None for what is no family."""
    family = FULL.families.get(category)
    if family is None:
        return None
    sides = []
    for i in range(_SAMPLES):
        recipe = Recipe(generator("size", category, i), family.colors[0], family.materials[0], ("small", "large")[i % 2])
        sides.append(float(np.ptp(np.concatenate(make(family, recipe).hulls), axis=0).max()))
    return SizePrior(category, min(sides), max(sides))
