"""OBJ and URDF as text. Fixed number formats and no dates, so that equal meshes give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from scenegen.mesh.hulls import Hull
from scenegen.mesh.surfaces import Surface
from scenegen.schema import PhysicsSpec

MATERIAL_FILE = "material.mtl"
TEXTURE_FILE = "material_0.png"


def visual_obj(surface: Surface, name: str) -> str:
    """An OBJ with one index per vertex: position, texture coordinate and normal are stored side by side, never shared apart."""
    lines = [f"mtllib {MATERIAL_FILE}", f"o {name}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in surface.vertices + 0.0]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in surface.uvs]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in np.round(surface.normals, 4) + 0.0]
    lines.append("usemtl material_0")
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in face) for face in surface.faces + 1]
    return "\n".join(lines) + "\n"


def collision_obj(hulls: Sequence[Hull]) -> str:
    """An OBJ with an `o` group for each convex piece."""
    lines, start = [], 1
    for i, hull in enumerate(hulls):
        lines.append(f"o convex_{i}")
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in hull.vertices + 0.0]
        lines += ["f " + " ".join(str(v) for v in face) for face in hull.faces + start]
        start += len(hull.vertices)
    return "\n".join(lines) + "\n"


def read_points(path: Path) -> NDArray[np.float64]:
    """The vertices [v, 3] of an OBJ."""
    rows = [line.split()[1:4] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(rows, float)


def material_mtl(shininess: float) -> str:
    """A material with the texture beside it; shininess 0 (matt) .. 200 (glazed)."""
    return f"newmtl material_0\nKa 0 0 0\nKd 1 1 1\nKs 0.04 0.04 0.04\nNs {shininess:.1f}\nd 1\nillum 2\nmap_Kd {TEXTURE_FILE}\n"


def urdf(name: str, physics: PhysicsSpec, category: str, description: str) -> str:
    """One link with visual, collision and inertia; meshes as they are (z up, metres)."""
    xx, yy, zz, xy, xz, yz = physics.inertia
    origin = '<origin xyz="0 0 0" rpy="0 0 0"/>'
    com = " ".join(f"{v:.6g}" for v in physics.com_m)
    return f"""<?xml version="1.0"?>
<robot name={quoteattr(name)}>
  <link name={quoteattr(name)}>
    <visual>
      {origin}
      <geometry><mesh filename="mesh/{name}.obj" scale="1 1 1"/></geometry>
    </visual>
    <collision>
      {origin}
      <geometry><mesh filename="mesh/{name}_collision.obj" scale="1 1 1"/></geometry>
      <gazebo><mu1>{physics.static_friction:g}</mu1><mu2>{physics.dynamic_friction:g}</mu2></gazebo>
    </collision>
    <inertial>
      <origin xyz="{com}" rpy="0 0 0"/>
      <mass value="{physics.mass_kg:.6g}"/>
      <inertia ixx="{xx:.6g}" iyy="{yy:.6g}" izz="{zz:.6g}" ixy="{xy:.6g}" ixz="{xz:.6g}" iyz="{yz:.6g}"/>
    </inertial>
    <extra_info>
      <category>{category}</category>
      <description>{description}</description>
    </extra_info>
  </link>
</robot>
"""
