"""Good scenes made bad in one way each. A mutant is a copy (folder, record, poses); the scene that it was made of stays."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from scenegen.loader import Scene
from scenegen.mesh.hulls import Hull, convex_hull, mass_properties
from scenegen.mesh.surfaces import Surface, box_corners, hexahedron
from scenegen.mesh.writers import collision_obj, urdf
from scenegen.palette import rgb
from scenegen.schema import AssetRecord, NodeSpec


def copy(scene: Scene, folder: Path) -> Scene:
    shutil.copytree(scene.folder, folder)
    objects = tuple(
        dataclasses.replace(entry, visual=folder / entry.asset.files.visual, collision=folder / entry.asset.files.collision)
        for entry in scene.objects
    )
    return dataclasses.replace(scene, folder=folder, objects=objects, poses=scene.poses.copy())


def with_asset(scene: Scene, index: int, **changes: object) -> Scene:
    """Another record for one object."""
    objects = list(scene.objects)
    objects[index] = dataclasses.replace(objects[index], asset=objects[index].asset.model_copy(update=changes))
    return dataclasses.replace(scene, objects=tuple(objects))


def with_node(scene: Scene, index: int, **changes: object) -> Scene:
    """Another order for one object."""
    graph = scene.bundle.graph
    wanted = graph.objects[index].id
    nodes = [node.model_copy(update=changes) if node.id == wanted else node for node in graph.nodes]
    bundle = scene.bundle.model_copy(update={"graph": graph.model_copy(update={"nodes": nodes})})
    return dataclasses.replace(scene, bundle=bundle)


def node(scene: Scene, index: int) -> NodeSpec:
    return scene.bundle.graph.objects[index]


def edit(path: Path, change: object) -> None:
    """Each vertex line of an OBJ through `change`: [3] -> [3]."""
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if line.startswith("v "):
            moved = change(np.array(line.split()[1:4], float))  # type: ignore[operator]
            lines[i] = "v " + " ".join(f"{value:.7f}" for value in moved)
    path.write_text("\n".join(lines) + "\n")


def hulls_of(scene: Scene, index: int) -> list[Hull]:
    text = (scene.folder / scene.objects[index].asset.files.collision).read_text()
    groups = [group.splitlines()[1:] for group in text.split("o ") if group.strip()]
    points = [np.array([line.split()[1:4] for line in group if line.startswith("v ")], float) for group in groups]
    return [convex_hull(group) for group in points]


def settled_record(scene: Scene, index: int, hulls: list[Hull], n_faces: int | None = None) -> Scene:
    """The record and the URDF as an engine would have written them for these hulls."""
    asset = scene.objects[index].asset
    properties, physics = mass_properties(hulls), asset.physics
    inertia = properties.inertia * physics.density
    rows = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    physics = physics.model_copy(
        update={
            "mass_kg": properties.volume * physics.density,
            "com_m": tuple(properties.com.tolist()),
            "inertia": tuple(float(inertia[row]) for row in rows),
        }
    )
    points = np.concatenate([hull.vertices for hull in hulls])
    (scene.folder / asset.files.collision).write_text(collision_obj(hulls))
    name = Path(asset.files.urdf).stem
    (scene.folder / asset.files.urdf).write_text(urdf(name, physics, asset.category, "a thing"))
    return with_asset(
        scene,
        index,
        physics=physics,
        volume_m3=properties.volume,
        n_hulls=len(hulls),
        n_faces=n_faces or asset.n_faces,
        extents_m=tuple(np.ptp(points, axis=0).tolist()),
        footprint_radius_m=float(np.linalg.norm(points[:, :2], axis=1).max()),
    )


def scaled(scene: Scene, index: int, factor: float) -> Scene:
    """Files and record alike."""
    asset = scene.objects[index].asset
    edit(scene.folder / asset.files.visual, lambda point: factor * point)
    hulls = [Hull(factor * hull.vertices, hull.faces) for hull in hulls_of(scene, index)]
    lengths = {
        name: factor * value for name in ("grasp_width_m", "grasp_height_m") if (value := getattr(asset, name)) is not None
    }
    cavity = asset.cavity and asset.cavity.model_copy(
        update={"radius_m": factor * asset.cavity.radius_m, "depth_m": factor * asset.cavity.depth_m}
    )
    goal = asset.goal_point and tuple(factor * value for value in asset.goal_point)
    return with_asset(settled_record(scene, index, hulls), index, **lengths, cavity=cavity, goal_point=goal)


def repainted(scene: Scene, index: int, color: str) -> Scene:
    """The whole texture in another colour, its light and dark kept."""
    path = scene.folder / scene.objects[index].asset.files.texture
    image = np.asarray(Image.open(path).convert("L"), float) / 255
    shade = np.clip(image / max(image.mean(), 1e-3), 0.9, 1.1)[..., None]
    Image.fromarray(np.round(np.clip(rgb(color) * shade, 0, 1) * 255).astype(np.uint8)).save(path)
    return scene


def with_slab(scene: Scene, index: int, size: tuple[float, float, float], base: tuple[float, float, float]) -> Scene:
    """A box more, in what is seen, in what is touched, and in the record."""
    path = scene.folder / scene.objects[index].asset.files.visual
    corners = box_corners(size, base)
    faces = append(path, hexahedron(corners))
    hulls = [*hulls_of(scene, index), convex_hull(corners)]
    return settled_record(scene, index, hulls, scene.objects[index].asset.n_faces + faces)


def append(path: Path, surface: Surface) -> int:
    """More faces for an OBJ, all of one texel; how many."""
    text = path.read_text()
    start = sum(line.startswith("v ") for line in text.splitlines())
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in surface.vertices]
    lines += ["vt 0.5 0.5"] * len(surface.vertices)
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in surface.normals]
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in surface.faces + start + 1]
    path.write_text(text + "\n".join(lines) + "\n")
    return len(surface.faces)


def lifted(scene: Scene, index: int, height: float) -> Scene:
    for other in range(len(scene.objects)):  # what lies on it comes along
        if other == index:
            scene.poses[:, other, 2] += height
    return scene


def moved(scene: Scene, index: int, xy: tuple[float, float], placements: slice = slice(None)) -> Scene:
    scene.poses[placements, index, :2] = xy
    return scene


def solved(scene: Scene, placement: int) -> Scene:
    """The target lies at its goal from the start, in one placement."""
    goal = scene.objects[scene.destination_index].asset.goal_point
    assert goal is not None
    scene.poses[placement, scene.target_index, :3] = scene.poses[placement, scene.destination_index, :3] + np.float32(goal)
    scene.poses[placement, scene.target_index, 3:] = (1, 0, 0, 0)
    return scene


def record(scene: Scene, index: int) -> AssetRecord:
    return scene.objects[index].asset
