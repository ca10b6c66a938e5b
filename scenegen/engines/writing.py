"""The last step of every engine: a made object -> its files and its record."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import ArrayLike

from scenegen.mesh.grasping import Grasp
from scenegen.mesh.hulls import Hull, mass_properties
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, collision_obj, material_mtl, urdf, visual_obj
from scenegen.palette import PALETTE
from scenegen.schema import AssetFiles, AssetRecord, Cavity, NodeSpec, PhysicsSpec


@dataclass(frozen=True)
class MadeAsset:
    """A finished object, in its own frame (z up, base at 0, metres). `color` is a name of the palette, `shininess` as in
    `material_mtl`, `grasp` how it would be held, `graspable` whether it may be a target."""

    surface: Surface
    hulls: Sequence[Hull]
    texture_png: bytes
    physics: PhysicsSpec
    color: str
    material: str
    shininess: float = 20.0
    grasp: Grasp | None = None
    graspable: bool = False
    cavity: Cavity | None = None
    goal_point: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Origin:
    """Who made an object, and from what numbers."""

    engine: str
    engine_version: str
    seed: int
    attempt: int


def write_asset(folder: Path, spec: NodeSpec, asset: MadeAsset, origin: Origin) -> AssetRecord:
    """Write asset3d/<id>/result below `folder`, in place of what is there, and describe it. All of it appears or nothing."""
    slug = spec.id
    contents = {
        f"{slug}.urdf": urdf(slug, asset.physics, escape(spec.category), escape(spec.description)).encode(),
        f"mesh/{slug}.obj": visual_obj(asset.surface, slug).encode(),
        f"mesh/{slug}_collision.obj": collision_obj(asset.hulls).encode(),
        f"mesh/{MATERIAL_FILE}": material_mtl(asset.shininess).encode(),
        f"mesh/{TEXTURE_FILE}": asset.texture_png,
    }
    place(folder / result_folder(slug), contents)
    points = np.concatenate([hull.vertices for hull in asset.hulls])
    grasp = asset.grasp
    return AssetRecord(
        asset_id=files_digest(contents),
        category=spec.category,
        color=asset.color,
        color_rgb=PALETTE[asset.color],
        material=asset.material,
        engine=origin.engine,
        engine_version=origin.engine_version,
        seed=origin.seed,
        attempt=origin.attempt,
        files=asset_files(slug),
        extents_m=_rounded(np.ptp(points, axis=0)),
        footprint_radius_m=round(float(np.linalg.norm(points[:, :2], axis=1).max()), 6),
        n_vertices=len(asset.surface.vertices),
        n_faces=len(asset.surface.faces),
        n_hulls=len(asset.hulls),
        volume_m3=round(asset.physics.mass_kg / asset.physics.density, 10),
        physics=asset.physics,
        graspable=asset.graspable,
        grasp_width_m=round(grasp.width, 6) if grasp else None,
        grasp_yaw_rad=round(grasp.yaw, 6) if grasp else None,
        grasp_height_m=round(grasp.height, 6) if grasp else None,
        grasp_symmetric=bool(grasp and grasp.symmetric),
        cavity=asset.cavity,
        goal_point=_rounded(asset.goal_point) if asset.goal_point is not None else None,
    )


def physics_of(
    hulls: Sequence[Hull],
    *,
    density: float | None = None,
    mass_kg: float | None = None,
    static_friction: float = 0.7,
    dynamic_friction: float = 0.6,
    restitution: float = 0.05,
) -> PhysicsSpec:
    """Mass, centre of mass and inertia of hulls of uniform density. One of `density` [kg/m3] and `mass_kg` is given; the
    other follows, so that the two, the inertia and what a simulator makes of them always agree."""
    properties = mass_properties(hulls)
    if (density is None) == (mass_kg is None):
        raise ValueError("wanted either density or mass_kg")
    density = density if density is not None else (mass_kg or 0.0) / properties.volume
    inertia = np.round(properties.inertia * density, 12) + 0.0
    xx, yy, zz, xy, xz, yz = (float(inertia[i, j]) for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)))
    return PhysicsSpec(
        mass_kg=round(properties.volume * density, 7),
        density=round(density, 3),
        static_friction=static_friction,
        dynamic_friction=dynamic_friction,
        restitution=restitution,
        com_m=_rounded(properties.com),
        inertia=(xx, yy, zz, xy, xz, yz),
    )


def clipped_friction(static: float | None, dynamic: float | None) -> tuple[float, float]:
    """Static and dynamic friction as a simulator can bear them: static in 0.1 .. 0.9, dynamic no greater than it. What is not
    given is 0.7 and 0.6."""
    static = min(max(0.7 if static is None else static, 0.1), 0.9)
    return static, min(max(0.6 if dynamic is None else dynamic, 0.1), static)


def result_folder(slug: str) -> str:
    """Where the files of a node's asset lie in the folder of its scene."""
    return f"asset3d/{slug}/result"


def asset_files(slug: str) -> AssetFiles:
    base = result_folder(slug)
    return AssetFiles(
        urdf=f"{base}/{slug}.urdf",
        visual=f"{base}/mesh/{slug}.obj",
        collision=f"{base}/mesh/{slug}_collision.obj",
        material=f"{base}/mesh/{MATERIAL_FILE}",
        texture=f"{base}/mesh/{TEXTURE_FILE}",
    )


def files_digest(contents: Mapping[str, bytes]) -> str:
    """The asset_id: SHA-256 over names and contents, in the order urdf, visual, collision, material, texture."""
    digest = sha256()
    for path, content in contents.items():
        digest.update(Path(path).name.encode() + sha256(content).digest())
    return digest.hexdigest()


def place(folder: Path, contents: Mapping[str, bytes], linked: Mapping[str, Path] | None = None) -> None:
    """Put files, and hard links to files (copies where the file system has no links), into a folder that takes the place of
    `folder` once it is complete."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    created = [parent for parent in folder.parents if not parent.exists()]
    try:
        for path, content in contents.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_bytes(content)
        for path, source in (linked or {}).items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, temporary / path)
            except OSError:
                shutil.copyfile(source, temporary / path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in created:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _rounded(values: ArrayLike) -> tuple[float, float, float]:
    x, y, z = (round(float(v), 6) + 0.0 for v in np.asarray(values))
    return x, y, z
