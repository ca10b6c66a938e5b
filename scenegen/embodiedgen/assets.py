"""One EmbodiedGen asset -> one of our objects."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenegen.designer.lexicon import COLOR_WORDS, MATERIAL_WORDS
from scenegen.embodiedgen.asset_urdf import AssetUrdf, find_urdf, read_urdf
from scenegen.engines.base import EngineError
from scenegen.engines.writing import MadeAsset, Origin, clipped_friction, physics_of, write_asset
from scenegen.errors import UserError
from scenegen.mesh.cavities import find_place
from scenegen.mesh.grasping import Grasp, best_grasp
from scenegen.mesh.importing import ImportedMesh, SizePrior, import_mesh
from scenegen.schema import AssetRecord, NodeSpec, PhysicsSpec

Array = NDArray[np.float64]
ENGINE = "embodiedgen"
DENSITY = 500.0
"""kg/m3 of an asset whose URDF has no mass: between a toy and a full carton."""


@dataclass(frozen=True)
class ReadAsset:
    """What lies in an asset's folder. The mesh is in the frame of our objects, in which a point of the asset's upright link is
    `shift` [m] further on."""

    urdf: AssetUrdf
    mesh: ImportedMesh
    shift: Array

    @property
    def version(self) -> str:
        return self.urdf.info.get("version") or "unknown"

    @property
    def category(self) -> str:
        return self.urdf.info.get("category") or self.urdf.name.replace("_", " ")

    @property
    def description(self) -> str:
        return self.urdf.info.get("description") or self.category

    def moved(self, offset: Array) -> ReadAsset:
        """The same in a frame whose origin lies at -offset."""
        surface = self.mesh.surface.moved(offset)
        hulls = [replace(hull, vertices=hull.vertices + offset) for hull in self.mesh.hulls]
        return replace(self, mesh=replace(self.mesh, surface=surface, hulls=hulls), shift=self.shift + offset)


def read_asset(folder: Path, prior: SizePrior | None = None, max_faces: int = 8000) -> ReadAsset:
    """Read the asset in `folder` (or its `result`). Raises UserError for a wrong URDF, EngineError for an unusable mesh."""
    urdf = read_urdf(find_urdf(folder))
    visual, collision, root = urdf.visual, urdf.collision, urdf.path.parent
    file = root / collision.file if collision is not None and collision.file != visual.file else None
    if collision is not None and file is not None:
        apart = (visual.turn.inv() * collision.turn).magnitude() + np.abs(np.subtract(visual.offset, collision.offset)).max()
        if apart > 1e-6 or abs(visual.scale / collision.scale - 1) > 1e-6:
            raise UserError(f"{urdf.path}: collision: found another origin or scale than the visual's; wanted the same")
        file = file if file.is_file() else None
    if not (root / visual.file).is_file():
        raise UserError(f"{urdf.path}: visual/geometry/mesh: {visual.file} does not exist")
    turn = urdf.mesh_to_link.as_matrix()
    mesh = import_mesh(root / visual.file, file, rotation=turn, scale=visual.scale, prior=prior, root=root, max_faces=max_faces)
    offset = (urdf.mesh_to_link * visual.turn.inv()).apply(visual.offset)
    return ReadAsset(urdf, mesh, mesh.shift - offset)


def import_asset(
    asset_dir: Path,
    spec: NodeSpec,
    folder: Path,
    *,
    seed: int = 0,
    attempt: int = 0,
    prior: SizePrior | None = None,
    max_faces: int = 8000,
) -> AssetRecord:
    """Write the asset in `asset_dir` as the node's asset below `folder` and describe it; see `AssetEngine.generate`.

    Raises UserError when the URDF is wrong, EngineError when the mesh is, or when it should be grasped and cannot be.
    """
    return write_read_asset(read_asset(asset_dir, prior, max_faces), spec, folder, seed, attempt)


def write_read_asset(asset: ReadAsset, spec: NodeSpec, folder: Path, seed: int = 0, attempt: int = 0) -> AssetRecord:
    """As `import_asset`, of an asset already read."""
    hulls = asset.mesh.hulls
    grasp = best_grasp(hulls)
    if spec.graspable and grasp is None:
        raise EngineError(f"{asset.urdf.path}: found no grasp for the {spec.name}; wanted something the gripper can close on")
    cavity, goal_point = find_place(hulls)
    if spec.container and cavity is None:
        raise EngineError(f"{asset.urdf.path}: found no hollow that is open above in the {spec.name}; wanted a container")
    made = MadeAsset(
        surface=asset.mesh.surface,
        hulls=hulls,
        texture_png=asset.mesh.texture_png,
        physics=physics_of_asset(asset),
        color=asset.mesh.color,
        material=spec.material or named_material(asset.description) or "plastic",
        grasp=grasp,
        graspable=grasp is not None,
        cavity=cavity,
        goal_point=goal_point,
    )
    return write_asset(folder, spec, made, Origin(ENGINE, asset.version, seed, attempt))


def write_own_asset(asset: ReadAsset, spec: NodeSpec, folder: Path, record: AssetRecord) -> AssetRecord | None:
    """Write an asset that was exported from here and that `record` described; None when it does no longer."""
    own = asset.moved(-asset.shift)
    points = np.concatenate([hull.vertices for hull in own.mesh.hulls])
    physics = physics_of_asset(own, record.physics.restitution)
    same_shape = np.allclose(np.ptp(points, axis=0), record.extents_m, atol=2e-5) and len(own.mesh.hulls) == record.n_hulls
    if not same_shape or not np.allclose(_body(physics), _body(record.physics), rtol=1e-3, atol=1e-5):
        return None
    grasp = None
    if record.grasp_width_m is not None and record.grasp_height_m is not None:
        grasp = Grasp(record.grasp_width_m, record.grasp_height_m, record.grasp_yaw_rad or 0.0, record.grasp_symmetric)
    made = MadeAsset(
        surface=own.mesh.surface,
        hulls=own.mesh.hulls,
        texture_png=own.mesh.texture_png,
        physics=physics,
        color=record.color,
        material=record.material,
        grasp=grasp,
        graspable=record.graspable,
        cavity=record.cavity,
        goal_point=record.goal_point,
    )
    return write_asset(folder, spec, made, Origin(record.engine, record.engine_version, record.seed, record.attempt))


def physics_of_asset(asset: ReadAsset, restitution: float = 0.05) -> PhysicsSpec:
    """The mass and friction that the URDF says, and what follows from them for the hulls."""
    static, dynamic = clipped_friction(*asset.urdf.friction)
    mass = {"density": DENSITY} if asset.urdf.mass is None else {"mass_kg": asset.urdf.mass}
    return physics_of(asset.mesh.hulls, static_friction=static, dynamic_friction=dynamic, restitution=restitution, **mass)


def _body(physics: PhysicsSpec) -> tuple[float, ...]:
    return (physics.mass_kg, *physics.com_m, physics.static_friction, physics.dynamic_friction)


def named_color(text: str) -> str | None:
    """The first colour of the palette that a text names."""
    return _first(text, COLOR_WORDS)


def named_material(text: str) -> str | None:
    return _first(text, MATERIAL_WORDS)


def _first(text: str, words: dict[str, str]) -> str | None:
    found = [(match.start(), -len(word), words[word]) for word in words if (match := re.search(rf"\b{word}\b", text.lower()))]
    return min(found)[2] if found else None
