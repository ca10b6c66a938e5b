"""What a family returns: what is seen, what is touched, how it is held and what it can carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scenegen.engines.procedural.textures import Image
from scenegen.mesh.grasping import Grasp
from scenegen.mesh.surfaces import Surface
from scenegen.palette import rgb
from scenegen.schema import Cavity, Relation

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """What a family is asked for. Sizes come from `length`, so that "small" and "large" mean the ends of a family's range."""

    rng: np.random.Generator
    color: str
    material: str
    size: str | None = None

    @property
    def paint(self) -> Image:
        return rgb(self.color)

    def length(self, low: float, high: float) -> float:
        """A length [m] between low and high; of the lower or upper third when a size was asked for."""
        third = (high - low) / 3
        bounds = {"small": (low, low + third), "large": (high - third, high)}.get(self.size or "", (low, high))
        return float(self.rng.uniform(*bounds))


@dataclass
class Form:
    """surfaces name the texture panel they show; hulls are convex point sets; z up, base at 0. centred: the origin moves
    below the middle of the footprint; otherwise it stays where the family put it, below where to grasp or what
    carries."""

    textures: dict[str, Image]
    surfaces: list[tuple[Surface, str]] = field(default_factory=list)
    hulls: list[Array] = field(default_factory=list)
    centred: bool = True
    grasp: Grasp | None = None
    cavity: Cavity | None = None
    goal_point: tuple[float, float, float] | None = None

    def add(self, surface: Surface, hulls: Sequence[Array] = (), panel: str = "body") -> None:
        self.surfaces.append((surface, panel))
        self.hulls.extend(hulls)


@dataclass(frozen=True)
class Family:
    """A kind of thing. nouns are the words for it (the first is shown); speaks_color says whether sentences name its
    colour; relations are what may be done with it as a destination; span is its longest horizontal extent at most and
    `room` the length of what fits on or in it."""

    nouns: tuple[str, ...]
    colors: tuple[str, ...]
    materials: tuple[str, ...]
    build: Callable[[Recipe], Form]
    span: float
    graspable: bool = False
    relations: tuple[Relation, ...] = ()
    room: float = 0.0
    speaks_color: bool = True

    @property
    def category(self) -> str:
        return self.nouns[0]
