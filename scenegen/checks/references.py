"""What things of a category look like when they are made well: descriptors of a handful of the family's own forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.files import Mesh
from scenegen.checks.sampling import sample
from scenegen.checks.solid import Solid
from scenegen.engines.procedural.catalog import FULL
from scenegen.engines.procedural.engine import make, shape
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.mesh.hulls import mass_properties
from scenegen.seeds import generator

Array = NDArray[np.float64]
COUNT = 12
_SAMPLES = 1024
_BANDS = 5
_TURNS = np.radians(np.arange(0, 180, 5))


@dataclass(frozen=True)
class References:
    """Forms of a family with fixed seeds, over its colours and materials. Made when first asked for, kept for the process."""

    family: Family

    def _form(self, i: int, color: str | None = None, size: str | None = None) -> Form:
        family = self.family
        materials = family.materials
        rng = generator("reference", family.category, i)
        return make(family, Recipe(rng, color or family.colors[i % len(family.colors)], materials[i % len(materials)], size))

    @cached_property
    def _made(self) -> list[tuple[Mesh, Solid]]:
        return [_meshes(self._form(i)) for i in range(COUNT)]

    @property
    def meshes(self) -> list[Mesh]:
        return [mesh for mesh, _ in self._made]

    @cached_property
    def descriptors(self) -> Array:
        """[COUNT, features]; see `describe`."""
        return np.stack([describe(*made) for made in self._made])

    @cached_property
    def spread(self) -> float:
        """How far a form of the family may be from the nearest other one."""
        apart = distances(self.descriptors[:, None], self.descriptors)
        return float((apart + 1e3 * np.eye(COUNT)).min(axis=1).max())

    @cached_property
    def sizes(self) -> Array:
        """`size` of each form [COUNT]."""
        return np.array([size(solid) for _, solid in self._made])

    def sizes_called(self, word: str) -> Array:
        """Of forms that were asked to be "small" or "large"."""
        return np.array([size(_meshes(self._form(i, size=word))[1]) for i in range(COUNT)])

    def looks(self, color: str) -> list[tuple[Mesh, Array]]:
        """Surfaces and textures of forms of one colour."""
        made = []
        for i in range(COUNT // 3):
            surface, _, image = shape(self._form(i, color))
            made.append(
                (Mesh(surface.vertices, surface.faces, surface.uvs[surface.faces], np.zeros(len(surface.faces), int)), image)
            )
        return made


@cache
def references(category: str) -> References | None:
    """Of a category or one of its synonyms; None when the catalogue has nothing of that name."""
    family = FULL.nouns.get(category)
    return References(family) if family is not None else None


def _meshes(form: Form) -> tuple[Mesh, Solid]:
    surface, hulls, _ = shape(form)
    return Mesh(surface.vertices, surface.faces, None, np.zeros(len(surface.faces), int)), Solid.of(hulls)


def size(solid: Solid) -> float:
    """The diagonal [m] of the narrowest upright box around it."""
    return float(np.linalg.norm(_box(solid.points)))


def _box(points: Array) -> Array:
    """Length, width and height of the upright box of least area around points [n, 3]."""
    axes = np.stack([np.cos(_TURNS), np.sin(_TURNS)])
    along, across = np.ptp(points[:, :2] @ axes, axis=0), np.ptp(points[:, :2] @ np.stack([-axes[1], axes[0]]), axis=0)
    best = int(np.argmin(along * across))
    return np.array([max(along[best], across[best]), min(along[best], across[best]), np.ptp(points[:, 2])])


def describe(mesh: Mesh, solid: Solid) -> Array:
    """Numbers that do not depend on size, position or yaw: proportions of the box; how much of it is solid and filled; quantiles
    of the distances between random points of the surface (shape distribution D2, Osada et al. 2002); how area and breadth are
    spread over the height; how much faces up, down and aside."""
    length, width, height = _box(solid.points)
    spots = sample(mesh.points, mesh.faces, _SAMPLES)
    at = spots.points
    rng = np.random.default_rng(0)
    pairs = rng.permutation(_SAMPLES), rng.permutation(_SAMPLES)
    between = np.linalg.norm(at[pairs[0]] - at[pairs[1]], axis=1) / np.linalg.norm([length, width, height])
    middle = (solid.points[:, :2].min(0) + solid.points[:, :2].max(0)) / 2
    radius = np.linalg.norm(at[:, :2] - middle, axis=1) / length
    level = np.clip(((at[:, 2] - solid.points[:, 2].min()) / height * _BANDS).astype(int), 0, _BANDS - 1)
    counts = np.bincount(level, minlength=_BANDS)
    breadth = np.bincount(level, radius, _BANDS) / np.maximum(counts, 1)
    tilt = np.histogram(spots.normals[:, 2], [-1.01, -0.8, -0.3, 0.3, 0.8, 1.01])[0] / _SAMPLES
    filled = mass_properties(solid.hulls).volume / (length * width * height)
    return np.concatenate(
        [
            [
                np.log(length / width),
                np.log(length / height),
                2 * filled,
                2 * spots.area / (2 * length * (width + height) + 2 * width * height),
            ],
            3 * np.quantile(between, [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95]),
            counts / _SAMPLES,
            2 * breadth,
            tilt,
        ]
    )


def distances(a: Array, b: Array) -> Array:
    """Between descriptors [..., features]."""
    return np.sqrt(((a - b) ** 2).mean(axis=-1))
