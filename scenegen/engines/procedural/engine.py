"""Node -> files of an asset, from the families of the catalogue. Everything convex, so hulls, mass and inertia are exact."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.catalog import FAMILIES
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.engines.procedural.materials import MATERIALS
from scenegen.errors import UserError
from scenegen.mesh.hulls import Hull, convex_hull, mass_properties
from scenegen.mesh.surfaces import Surface, join
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, collision_obj, material_mtl, urdf, visual_obj
from scenegen.palette import PALETTE
from scenegen.schema import AssetFiles, AssetRecord, NodeSpec, PhysicsSpec
from scenegen.seeds import generator

MASS_JITTER = 0.15
"""Objects of one family and size differ in mass by this fraction, as filled and empty ones do."""


def shape(form: Form) -> tuple[Surface, list[Hull], textures.Image]:
    """One surface over one texture, and the hulls, of what a family returned."""
    image, ranges = textures.atlas(form.textures)
    surface = join([part.with_uvs(*ranges[panel]) for part, panel in form.surfaces])
    return surface, [convex_hull(points) for points in form.hulls], image


def make(family: Family, recipe: Recipe) -> Form:
    """Build, and unless the family chose another origin put it below the middle of the footprint."""
    form = family.build(recipe)
    if form.centred:
        points = np.concatenate(form.hulls)
        shift = np.array([*-(points[:, :2].min(0) + points[:, :2].max(0)) / 2, 0.0])
        form.hulls = [hull + shift for hull in form.hulls]
        form.surfaces = [(surface.moved(shift), panel) for surface, panel in form.surfaces]
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

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path) -> AssetRecord:
        """Write asset3d/<id>/result below `folder`. Raises UserError for a category that is not in the catalogue."""
        family = FAMILIES.get(spec.category)
        if family is None:
            raise UserError(f"node {spec.id}: category: found {spec.category!r}; wanted one of {sorted(FAMILIES)}")
        rng = generator(seed, self.name, self.version, spec.id, attempt)
        color = spec.color or str(rng.choice(family.colors))
        material = spec.material or str(rng.choice(family.materials))
        form = make(family, Recipe(rng, color, material, spec.size))
        surface, hulls, image = shape(form)
        physics = _physics(hulls, material, 1 + MASS_JITTER * rng.uniform(-1, 1))

        slug, base = spec.id, f"asset3d/{spec.id}/result"
        contents = {
            f"{base}/{slug}.urdf": urdf(slug, physics, spec.category, spec.description).encode(),
            f"{base}/mesh/{slug}.obj": visual_obj(surface, slug).encode(),
            f"{base}/mesh/{slug}_collision.obj": collision_obj(hulls).encode(),
            f"{base}/mesh/{MATERIAL_FILE}": material_mtl(MATERIALS[material].shininess).encode(),
            f"{base}/mesh/{TEXTURE_FILE}": textures.png(image),
        }
        digest = sha256()
        for path, content in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
            digest.update(Path(path).name.encode() + sha256(content).digest())
        files = AssetFiles(**dict(zip(("urdf", "visual", "collision", "material", "texture"), contents, strict=True)))
        points = np.concatenate([hull.vertices for hull in hulls])
        grasp = form.grasp
        return AssetRecord(
            asset_id=digest.hexdigest(),
            category=spec.category,
            color=color,
            color_rgb=PALETTE[color],
            material=material,
            engine=self.name,
            engine_version=self.version,
            seed=seed,
            attempt=attempt,
            files=files,
            extents_m=_rounded(np.ptp(points, axis=0)),
            footprint_radius_m=round(float(np.linalg.norm(points[:, :2], axis=1).max()), 6),
            n_vertices=len(surface.vertices),
            n_faces=len(surface.faces),
            n_hulls=len(hulls),
            volume_m3=round(physics.mass_kg / physics.density, 10),
            physics=physics,
            graspable=family.graspable,
            grasp_width_m=round(grasp.width, 6) if grasp else None,
            grasp_yaw_rad=round(grasp.yaw, 6) if grasp else None,
            grasp_height_m=round(grasp.height, 6) if grasp else None,
            grasp_symmetric=bool(grasp and grasp.symmetric),
            cavity=form.cavity,
            goal_point=_rounded(form.goal_point) if form.goal_point is not None else None,
        )


def _physics(hulls: list[Hull], material: str, factor: float) -> PhysicsSpec:
    properties, prior = mass_properties(hulls), MATERIALS[material]
    density = prior.density * factor
    inertia = np.round(properties.inertia * density, 12) + 0.0
    xx, yy, zz, xy, xz, yz = (float(inertia[i, j]) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))
    return PhysicsSpec(
        mass_kg=round(properties.volume * density, 7),
        density=round(density, 3),
        static_friction=prior.static_friction,
        dynamic_friction=prior.dynamic_friction,
        restitution=prior.restitution,
        com_m=_rounded(properties.com),
        inertia=(xx, yy, zz, xy, xz, yz),
    )


def _rounded(values: ArrayLike) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 6) + 0.0 for v in np.asarray(values))
    return x, y, z
