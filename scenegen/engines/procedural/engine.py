"""Node -> files of an asset, from the families of the catalogue. Everything convex, so hulls, mass and inertia are exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.engines.procedural.materials import MATERIALS
from scenegen.engines.writing import MadeAsset, Origin, physics_of, write_asset
from scenegen.errors import UserError
from scenegen.mesh.grasping import clear_of_hand
from scenegen.mesh.hulls import Hull, convex_hull
from scenegen.mesh.surfaces import Surface, join
from scenegen.schema import AssetRecord, NodeSpec
from scenegen.seeds import generator

MASS_JITTER = 0.15
"""Objects of one family and size differ in mass by this fraction, as filled and empty ones do."""


def shape(form: Form) -> tuple[Surface, list[Hull], textures.Image]:
    """One surface over one texture, and the hulls, of what a family returned."""
    image, ranges = textures.atlas(form.textures)
    surface = join([part.with_uvs(*ranges[panel]) for part, panel in form.surfaces])
    return surface, [convex_hull(points) for points in form.hulls], image


def make(family: Family, recipe: Recipe) -> Form:
    """Build, unless the family chose another origin put it below the middle of the footprint, and keep its grasp clear of the
    hand."""
    form = family.build(recipe)
    if form.centred:
        points = np.concatenate(form.hulls)
        shift = np.array([*-(points[:, :2].min(0) + points[:, :2].max(0)) / 2, 0.0])
        form.hulls = [hull + shift for hull in form.hulls]
        form.surfaces = [(surface.moved(shift), panel) for surface, panel in form.surfaces]
    if form.grasp is not None:
        form.grasp = clear_of_hand(form.grasp, [convex_hull(points) for points in form.hulls])
    return form


class ProceduralEngine:
    """The engine that needs no network, no GPU and no model."""

    name = "procedural"
    version = "1"

    def supports(self, spec: NodeSpec) -> float:
        family = FAMILIES.get(spec.category)
        if family is None:
            return 0.0
        return 1.0 if spec.color in (None, *family.colors) and spec.material in (None, *family.materials) else 0.5

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        """Write asset3d/<id>/result below `folder`. Raises UserError for a category that is not in the catalogue."""
        family = FAMILIES.get(spec.category)
        if family is None:
            raise UserError(f"node {spec.id}: category: found {spec.category!r}; wanted one of {sorted(FAMILIES)}")
        rng = generator(seed, self.name, self.version, spec.id, attempt)
        color = spec.color or str(rng.choice(family.colors))
        material = spec.material or str(rng.choice(family.materials))
        form = make(family, Recipe(rng, color, material, spec.size))
        surface, hulls, image = shape(form)
        prior = MATERIALS[material]
        physics = physics_of(
            hulls,
            density=prior.density * (1 + MASS_JITTER * rng.uniform(-1, 1)),
            static_friction=prior.static_friction,
            dynamic_friction=prior.dynamic_friction,
            restitution=prior.restitution,
        )
        made = MadeAsset(
            surface,
            hulls,
            textures.png(image),
            physics,
            color,
            material,
            prior.shininess,
            form.grasp,
            family.graspable,
            form.cavity,
            form.goal_point,
        )
        return write_asset(folder, spec, made, Origin(self.name, self.version, seed, attempt))
