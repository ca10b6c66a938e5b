"""The body that is touched: convex pieces that a simulator takes as they are, how they stand, what they weigh."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from scenegen.checks.files import AssetOnDisk
from scenegen.checks.findings import FileFault, Findings
from scenegen.checks.solid import Solid
from scenegen.mesh.hulls import mass_properties
from scenegen.schema import PhysicsSpec

Array = NDArray[np.float64]

MAX_HULLS, MAX_VERTICES = 64, 64
"""Vertices of a piece: more, PhysX does not take on a GPU."""

DENSITY = (50.0, 9000.0)
"""Of a whole object [kg/m3]: foam to solid brass."""


def check_body(disk: AssetOnDisk, findings: Findings) -> None:
    solid = disk.solid
    _convex(disk, findings)
    _stands(solid, findings)
    _physics(disk.record.physics, disk.record.volume_m3, solid, findings)
    _urdf(disk, findings)


def _convex(disk: AssetOnDisk, findings: Findings) -> None:
    mesh, solid = disk.collision, disk.solid
    most = max(len(hull.vertices) for hull in solid.hulls)
    findings.measure(hulls=len(solid.hulls), hull_vertices=most)
    findings.need(len(solid.hulls) <= MAX_HULLS, f"{len(solid.hulls)} convex pieces, at most {MAX_HULLS} wanted")
    findings.need(most <= MAX_VERTICES, f"a convex piece has {most} vertices, at most {MAX_VERTICES} wanted")
    worst = 0.0
    for group, hull in enumerate(solid.hulls):
        points = mesh.points[np.unique(mesh.faces[mesh.groups == group])]
        equations = ConvexHull(hull.vertices).equations
        worst = max(worst, float(-(points @ equations[:, :3].T + equations[:, 3]).max(axis=1).min()))
    findings.measure(dent_m=worst)
    findings.need(worst <= 0.001, f"a collision piece is not convex: a corner lies {worst * 1e3:.1f} mm inside its hull")


def _stands(solid: Solid, findings: Findings) -> None:
    """On z = 0, with the centre of mass above what touches it."""
    bottom = float(solid.points[:, 2].min())
    findings.need(abs(bottom) <= 1e-3, f"its lowest point is at z = {bottom * 1e3:.1f} mm, 0 wanted")
    feet = solid.points[solid.points[:, 2] < bottom + 1e-3, :2]
    com = mass_properties(solid.hulls).com[:2]
    margin = -1.0
    if len(feet) >= 3:
        try:
            equations = ConvexHull(feet).equations
            margin = float(-(equations[:, :2] @ com + equations[:, 2]).max())
        except QhullError:  # the feet lie on a line
            pass
    findings.measure(support_margin_m=margin)
    findings.need(margin > 0, "its centre of mass is not above what it stands on")


def _physics(physics: PhysicsSpec, volume: float, solid: Solid, findings: Findings) -> None:
    """The record's mass properties are those of the pieces at the record's density."""
    true = mass_properties(solid.hulls)
    low, high = DENSITY
    findings.measure(density=physics.density, mass_kg=physics.mass_kg)
    findings.need(low <= physics.density <= high, f"density of {physics.density:.0f} kg/m3, wanted {low:.0f} to {high:.0f}")
    _close(findings, "volume", volume, true.volume, 0.01)
    _close(findings, "mass", physics.mass_kg, true.volume * physics.density, 0.01)
    off = float(np.linalg.norm(true.com - physics.com_m))
    findings.measure(com_off_m=off)
    findings.need(off <= 1e-3, f"the centre of mass differs from the hulls' by {off * 1e3:.1f} mm")
    expected = true.inertia * physics.density
    off = float(np.abs(_matrix(physics.inertia) - expected).max() / np.trace(expected))
    findings.measure(inertia_off=off)
    findings.need(off <= 0.02, f"the inertia differs from the hulls' by {off:.0%} of its trace")


def _urdf(disk: AssetOnDisk, findings: Findings) -> None:
    """Says the same as the record, and names the same meshes."""
    physics, folder = disk.record.physics, disk.folder
    path = folder / disk.record.files.urdf
    for part in ("visual", "collision"):
        mesh = disk.link.find(f"{part}/geometry/mesh")
        named = "" if mesh is None else mesh.get("filename", "")
        wanted = folder / getattr(disk.record.files, part)
        findings.need((path.parent / named).resolve() == wanted.resolve(), f"{path.name}: {part} is {named!r}, not {wanted.name}")
    mass = _numbers(disk, "inertial/mass", ("value",))[0]
    _close(findings, f"{path.name}: mass", mass, physics.mass_kg, 0.01)
    inertia = _numbers(disk, "inertial/inertia", ("ixx", "iyy", "izz", "ixy", "ixz", "iyz"))
    off = float(np.abs(np.subtract(inertia, physics.inertia)).max() / sum(physics.inertia[:3]))
    findings.need(off <= 0.02, f"{path.name}: inertia differs from the record's by {off:.0%} of its trace")


def _numbers(disk: AssetOnDisk, where: str, names: tuple[str, ...]) -> list[float]:
    element = disk.link.find(where)
    try:
        if element is None:
            raise ValueError("missing")
        values = [float(element.attrib[name]) for name in names]
        if not np.isfinite(values).all():
            raise ValueError("not finite")
    except (ValueError, KeyError) as error:
        raise FileFault(f"{disk.record.files.urdf}: {where}: {error}") from None
    return values


def _close(findings: Findings, name: str, found: float, wanted: float, tolerance: float) -> None:
    findings.need(abs(found - wanted) <= tolerance * abs(wanted), f"{name} of {found:.4g}, {wanted:.4g} wanted")


def _matrix(inertia: tuple[float, float, float, float, float, float]) -> Array:
    xx, yy, zz, xy, xz, yz = inertia
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
