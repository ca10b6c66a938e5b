"""Mesh geometry: a surface without faults, convex pieces that follow it, and a record that tells the truth about both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scenegen.checks.body import check_body
from scenegen.checks.files import AssetOnDisk, Mesh
from scenegen.checks.findings import FileFault, Findings
from scenegen.checks.handling import check_handling
from scenegen.checks.references import references, size
from scenegen.checks.sampling import Samples, areas, distance_to_triangles, sample
from scenegen.checks.solid import Solid
from scenegen.checks.topology import open_share, pieces
from scenegen.schema import AssetRecord, Check, NodeSpec, Verdict

Array = NDArray[np.float64]

SAMPLES = 1024
MAX_OPEN = 0.35
"""Share of edge length with a face on one side only. Parts that are set into others leave out the faces that nobody sees."""

MAX_DEGENERATE = 0.02
GAP = 0.002
"""Parts of a surface farther apart than this [m] are not one thing."""

MAX_SIZE = 1.6
"""Times larger or smaller than its kind usually is."""


def check_geometry(node: NodeSpec, disk: AssetOnDisk) -> Verdict:
    """Needs no picture: texture and colour are the business of others."""
    findings = Findings()
    try:
        _surface(disk.visual, findings)
        check_body(disk, findings)
        _agreement(disk.visual, disk.solid, findings)
        _record(disk.record, disk.visual, disk.solid, findings)
        _size(node, disk.solid, findings)
        check_handling(node, disk, findings)
    except FileFault as fault:
        findings.need(False, str(fault))
    return findings.verdict(Check.GEOMETRY, node.id)


def _surface(mesh: Mesh, findings: Findings) -> None:
    flat = float((areas(mesh.points, mesh.faces)[0] < 1e-12).mean())
    opened = open_share(mesh)
    floating = len(pieces(mesh, GAP)) - 1
    findings.measure(degenerate_share=flat, open_share=opened, floating_parts=floating)
    findings.need(flat <= MAX_DEGENERATE, f"{flat:.0%} of the faces have no area")
    findings.need(opened <= MAX_OPEN, f"the surface is open: {opened:.0%} of its edges have one face")
    findings.need(floating == 0, f"{floating} parts float more than {GAP * 1e3:.0f} mm away from the body")


def _agreement(mesh: Mesh, solid: Solid, findings: Findings) -> None:
    """What is seen and what is touched are the same thing, and its faces look outwards."""
    seen = sample(mesh.points, mesh.faces, SAMPLES)
    outward = _outward_share(seen, solid)
    findings.measure(outward_share=outward)
    findings.need(outward >= 0.8, f"only {outward:.0%} of the surface faces outwards")
    off_hulls = np.maximum(solid.outside(seen.points).min(axis=1), 0)
    off_surface = _off_surface(mesh, _skin(solid))
    tolerance = 0.002 + 0.03 * float(np.ptp(solid.points, axis=0).max())
    for name, off in (("surface_off_hulls", off_hulls), ("hulls_off_surface", off_surface)):
        worst, most = float(off.max()), float(np.quantile(off, 0.95))
        findings.measure(**{f"{name}_m": worst})
        findings.need(
            most <= tolerance and worst <= 2 * tolerance,
            f"{name.replace('_', ' ')}: by {worst * 1e3:.0f} mm at worst, more than {most * 1e3:.0f} mm over 5%",
        )


def _outward_share(seen: Samples, solid: Solid) -> float:
    """Of the points that have matter on one side only, those that have it behind them."""
    step = 0.001
    before, behind = (solid.outside(seen.points + side * step * seen.normals).min(axis=1) < 0 for side in (1, -1))
    told = before != behind
    return float(behind[told].mean()) if told.any() else 0.0


def _skin(solid: Solid) -> Array:
    """Points on the outside of the union [n, 3]: those before which no other piece begins."""
    spots = [sample(hull.vertices, hull.faces, max(16, SAMPLES // len(solid.hulls))) for hull in solid.hulls]
    points = np.concatenate([spot.points for spot in spots])
    before = points + 5e-4 * np.concatenate([spot.normals for spot in spots])
    return points[np.flatnonzero(solid.outside(before).min(axis=1) >= 0)]


def _off_surface(mesh: Mesh, points: Array) -> Array:
    """Distances of points to the surface [n]: to the triangles of the nearest of many samples of it."""
    spots = sample(mesh.points, mesh.faces, 4 * SAMPLES)
    nearest = cKDTree(spots.points).query(points, k=6)[1]
    return distance_to_triangles(points[:, None], mesh.points[mesh.faces[spots.faces[nearest]]]).min(axis=1)


def _record(record: AssetRecord, mesh: Mesh, solid: Solid, findings: Findings) -> None:
    findings.need(record.n_faces == len(mesh.faces), f"{len(mesh.faces)} faces in the file, {record.n_faces} in the record")
    findings.need(record.n_hulls == len(solid.hulls), f"{len(solid.hulls)} hulls in the file, {record.n_hulls} in the record")
    extents = np.ptp(solid.points, axis=0)
    off = float(np.abs(extents - record.extents_m).max())
    findings.need(off <= 1e-3, f"extents differ from the record's by {off * 1e3:.1f} mm")
    reach = float(np.linalg.norm(solid.points[:, :2], axis=1).max())
    off = abs(reach - record.footprint_radius_m)
    findings.need(off <= 1e-3, f"the footprint's radius differs from the record's by {off * 1e3:.1f} mm")


def _size(node: NodeSpec, solid: Solid, findings: Findings) -> None:
    """Against its kind's, where the catalogue knows it."""
    known = references(node.category)
    if known is None:
        return
    ratio = size(solid) / float(np.median(known.sizes))
    findings.measure(size_ratio=ratio)
    findings.need(
        1 / MAX_SIZE <= ratio <= MAX_SIZE,
        f"{ratio:.2f} times the usual size of a {node.category}; wanted 1/{MAX_SIZE:g} to {MAX_SIZE:g}",
    )
