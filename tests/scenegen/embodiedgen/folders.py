"""Tasks and assets in EmbodiedGen's folders, written from the description of its formats with nothing of scenegen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

Array = np.ndarray


def wedges(rings: list[tuple[float, float, float]], segments: int = 12) -> list[trimesh.Trimesh]:
    """Convex pieces of a turned wall: rings are (inner radius, outer radius, z), z up."""
    pieces = []
    for (in_a, out_a, a), (in_b, out_b, b) in zip(rings, rings[1:], strict=False):
        for i in range(segments):
            points = []
            for angle in 2 * np.pi * np.array([i, i + 1]) / segments:
                c, s = np.cos(angle), np.sin(angle)
                points += [(r * c, r * s, z) for r, z in ((in_a, a), (out_a, a), (in_b, b), (out_b, b))]
            pieces.append(trimesh.convex.convex_hull(np.array(points)))
    return pieces


def disc(radius: float, low: float, high: float) -> trimesh.Trimesh:
    piece = trimesh.creation.cylinder(radius, high - low, sections=24)
    piece.apply_translation([0, 0, (low + high) / 2])
    return piece


def box(size: tuple[float, float, float], middle: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    piece = trimesh.creation.box(size)
    piece.apply_translation(middle)
    return piece


def cube_pieces() -> list[trimesh.Trimesh]:
    return [box((0.045, 0.04, 0.05))]


def bowl_pieces() -> list[trimesh.Trimesh]:
    return [disc(0.045, -0.03, -0.024), *wedges([(0.040, 0.046, -0.024), (0.058, 0.065, 0.0), (0.068, 0.074, 0.03)])]


def mug_pieces() -> list[trimesh.Trimesh]:
    handle = [box((0.03, 0.01, 0.01), (0.052, 0, 0.025)), box((0.03, 0.01, 0.01), (0.052, 0, -0.025))]
    handle.append(box((0.01, 0.01, 0.06), (0.07, 0, 0)))
    return [disc(0.038, -0.045, -0.039), *wedges([(0.034, 0.038, -0.039), (0.034, 0.038, 0.045)]), *handle]


def table_pieces() -> list[trimesh.Trimesh]:
    legs = [box((0.06, 0.06, 0.71), (x, y, -0.02)) for x in (-0.5, 0.5) for y in (-0.3, 0.3)]
    return [box((1.2, 0.8, 0.04), (0, 0, 0.355)), *legs]


@dataclass
class Asset:
    """An asset by its convex pieces, z up around the middle; `away` moves them in the frame of the link."""

    pieces: list[trimesh.Trimesh]
    color: tuple[int, int, int]
    mass: float | None = 0.1
    mu: tuple[float, float] | None = (0.8, 0.6)
    away: tuple[float, float, float] = (0.0, 0.0, 0.0)
    collision: bool = True
    info: dict[str, str] = field(default_factory=dict)

    @property
    def points(self) -> Array:
        """In the frame of the upright link."""
        return np.concatenate([piece.vertices for piece in self.pieces]) + self.away


def y_up(points: Array) -> Array:
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)


def write_asset(folder: Path, name: str, asset: Asset, version: str | None = "v0.1.5", legacy: bool = False) -> Path:
    """<folder>/result/<name>.urdf with its meshes."""
    result = folder / "result"
    (result / "mesh").mkdir(parents=True)
    visual = ["mtllib material.mtl", "usemtl material_0", "vt 0.25 0.25", "vt 0.75 0.25", "vt 0.5 0.75"]
    collision, start = [], 1
    for i, piece in enumerate(asset.pieces):
        vertices = [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in y_up(piece.vertices + asset.away)]
        visual += vertices + [f"f {a}/1 {b}/2 {c}/3" for a, b, c in piece.faces + start]
        collision += [f"o geometry_{i}", *vertices] + [f"f {a} {b} {c}" for a, b, c in piece.faces + start]
        start += len(piece.vertices)
    (result / f"mesh/{name}.obj").write_text("\n".join(visual) + "\n")
    (result / "mesh/material.mtl").write_text("newmtl material_0\nKd 1 1 1\nmap_Kd material_0.png\n")
    Image.fromarray(np.full((16, 16, 3), asset.color, np.uint8)).save(result / "mesh/material_0.png")
    if asset.collision:
        (result / f"mesh/{name}_collision.obj").write_text("\n".join(collision) + "\n")
    (result / f"{name}.urdf").write_text(urdf(name, asset, version, legacy))
    return result / f"{name}.urdf"


def urdf(name: str, asset: Asset, version: str | None, legacy: bool) -> str:
    origin = '<origin xyz="0.0 0.0 0.0" rpy="{}"/>'.format("0.0 0.0 0.0" if legacy else "1.5708 0.0 0.0")
    info = {"scale": "1.0", **asset.info} | ({"version": version} if version else {})
    gazebo = f"<gazebo><mu1>{asset.mu[0]}</mu1><mu2>{asset.mu[1]}</mu2></gazebo>" if asset.mu else ""
    collision = f'{origin}<geometry><mesh filename="mesh/{name}_collision.obj" scale="1.0 1.0 1.0"/></geometry>{gazebo}'
    mass = f'<mass value="{asset.mass}"/><inertia ixx="1.0" ixy="0.0" ixz="0.0" iyy="1.0" iyz="0.0" izz="1.0"/>'
    return f"""<?xml version="1.0" ?>
<robot name="{name}">
  <link name="{name}">
    <visual>
      {origin}
      <geometry><mesh filename="mesh/{name}.obj" scale="1.0 1.0 1.0"/></geometry>
    </visual>
    {f"<collision>{collision}</collision>" if asset.collision or gazebo else ""}
    {f"<inertial>{mass}</inertial>" if asset.mass else ""}
    <extra_info>{"".join(f"<{key}>{value}</{key}>" for key, value in info.items())}</extra_info>
  </link>
  <custom_data>
    <quality><MeshGeoChecker>YES</MeshGeoChecker><ImageAestheticChecker>5.36</ImageAestheticChecker></quality>
    <affordance><part_count>2</part_count></affordance>
  </custom_data>
</robot>
"""


ASSETS = {
    "wooden table": Asset(table_pieces(), (150, 110, 70), mass=20.0, mu=(0.6, 0.5)),
    "rubik's cube": Asset(cube_pieces(), (200, 32, 34), mass=0.08, away=(0.01, 0.0, 0.0), info={"category": "puzzle cube"}),
    "grey bowl": Asset(bowl_pieces(), (132, 134, 138), mass=0.2),
    "mug": Asset(mug_pieces(), (34, 78, 186), mass=0.25, mu=None),
}
TOP = 0.75
"""Height of the table's top."""

PLACES = {"rubik's cube": (0.10, -0.05, 0.3), "grey bowl": (0.12, 0.15, 0.0), "mug": (-0.1, 0.05, 2.0)}
"""x, y and yaw of what stands on the table, in the layout's world."""


def about(axis: str, angle: float) -> list[float]:
    """A quaternion x, y, z, w."""
    s, c = np.sin(angle / 2), np.cos(angle / 2)
    return [round(float(v), 4) for v in {"z": (0, 0, s, c), "y": (0, s, 0, c)}[axis]]


def layout(legacy: bool = False) -> dict:
    """The layout.json of a task whose sentence puts the cube in the bowl."""
    position = {"cozy kitchen": [0.0, 0.0, 0.0, *about("y", 0.7)], "wooden table": [0.0, 0.0, 0.375, 0.0, 0.0, 0.0, 1.0]}
    for name, (x, y, yaw) in PLACES.items():
        height = round(TOP - float(ASSETS[name].points[:, 2].min()), 4)
        position[name] = [x, y, height, *about("y" if legacy else "z", yaw)]
    position["franka"] = [-0.5, 0.1, TOP, *about("z", 0.1)]
    return {
        "tree": {
            "cozy kitchen": [["wooden table", "FLOOR"], ["franka", "IN"]],
            "wooden table": [["rubik's cube", "ON"], ["grey bowl", "ON"], ["mug", "ON"]],
        },
        "relation": {
            "task_desc": "Put the rubik's cube in the grey bowl.",
            "task": "put in",
            "robot": "franka",
            "background": "cozy kitchen",
            "context": "wooden table",
            "manipulated_objs": ["rubik's cube"],
            "distractor_objs": ["grey bowl", "mug"],
        },
        "objs_desc": {"rubik's cube": "a small red puzzle cube", "mug": "a blue mug with a handle", "grey bowl": "a plain bowl"},
        "objs_mapping": {
            "cozy kitchen": "background",
            "wooden table": "context",
            "rubik's cube": "manipulated_objs",
            "grey bowl": "distractor_objs",
            "mug": "distractor_objs",
        },
        "assets": {"cozy kitchen": "background"} | {n: f"asset3d/{n.replace(' ', '_')}/result" for n in ASSETS},
        "quality": {"rubik's cube": "YES", "mug": "NO: the handle is thin", "grey bowl": "YES"},
        "position": position,
        "a key of tomorrow": {"kept": [1, 2.5, None]},
    }


def write_task(folder: Path, legacy: bool = False, content: dict | None = None) -> Path:
    """A whole task folder."""
    content = content or layout(legacy)
    for name, asset in ASSETS.items():
        stem = name.replace(" ", "_")
        write_asset(folder / "asset3d" / stem, stem, asset, "v0.1.4" if legacy else "v0.1.5", legacy)
    (folder / "background").mkdir()
    (folder / "background/prompt.txt").write_text("a cozy kitchen")
    (folder / "layout.json").write_text(json.dumps(content))
    return folder
