"""Text-to-3D alignment: its shape is that of what it is called, there is one of it, and it is made and sized as asked.

The judge knows the shapes of the catalogue and no others. It turns down what is unlike its own kind *and* much more like another:
that an apple is round like a ball does not make it a ball.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.files import AssetOnDisk, Mesh
from scenegen.checks.findings import FileFault, Findings
from scenegen.checks.references import References, describe, distances, references, size
from scenegen.checks.sampling import areas
from scenegen.checks.topology import pieces
from scenegen.engines.procedural.catalog import FULL
from scenegen.engines.procedural.materials import MATERIALS
from scenegen.schema import Check, NodeSpec, Status, Verdict

Array = NDArray[np.float64]

SLACK, SPREADS = 0.03, 1.5
"""A thing is like its kind when it is nearer to one of the references than SLACK + SPREADS x the family's own spread."""

FAR_BETTER = 0.5
"""Another kind fits far better when it is nearer than this times the distance to its own."""

APART = 0.002
TELLING = 0.08
"""Size words are checked where small and large ones of the kind differ by this fraction."""


def check_alignment(node: NodeSpec, disk: AssetOnDisk) -> Verdict:
    """`skip` for a category of which there is no reference."""
    known = references(node.category)
    if known is None:
        reason = f"no reference for {node.category!r}"
        return Verdict(check=Check.ALIGNMENT, subject=node.id, status=Status.SKIP, reasons=[reason])
    findings = Findings()
    try:
        _kind(node, known, disk, findings)
        _count(disk.visual, findings)
        _plate(known, disk.visual, findings)
        _attributes(node, known, disk, findings)
    except FileFault as fault:
        findings.need(False, str(fault))
    return findings.verdict(Check.ALIGNMENT, node.id)


def _kind(node: NodeSpec, known: References, disk: AssetOnDisk, findings: Findings) -> None:
    made = references(disk.record.category)
    same = made is not None and made.family is known.family
    findings.need(same, f"recorded as a {disk.record.category}, a {node.category} wanted")
    shape = describe(disk.visual, disk.solid)
    own, limit = float(distances(known.descriptors, shape).min()), SLACK + SPREADS * known.spread
    findings.measure(shape_distance=own, shape_limit=limit)
    if own <= limit:
        return
    others = {family.category: references(family.category) for family in FULL.families.values() if family is not known.family}
    nearest = {name: float(distances(other.descriptors, shape).min()) for name, other in others.items() if other is not None}
    likely = min(nearest, key=nearest.__getitem__)
    findings.measure(other_distance=nearest[likely])
    findings.need(
        nearest[likely] > FAR_BETTER * own,
        f"its shape is a {likely}'s rather than a {node.category}'s: distance {nearest[likely]:.2f} against {own:.2f}",
    )


def _count(mesh: Mesh, findings: Findings) -> None:
    """One thing: no second part apart from the first with a fifth of its surface or more."""
    sizes = areas(mesh.points, mesh.faces)[0]
    parts = [float(sizes[part].sum()) for part in pieces(mesh, APART)]
    count = sum(part >= 0.2 * parts[0] for part in parts)
    findings.measure(count=count)
    findings.need(count == 1, f"{count} things apart from one another, 1 wanted")


def _plate(known: References, mesh: Mesh, findings: Findings) -> None:
    """No ground under it that its kind does not have: a level sheet at its foot, much wider than all above."""
    share = base_share(mesh)
    usual = max(base_share(other) for other in known.meshes)
    findings.measure(base_share=share)
    findings.need(share <= max(1.2, 1.3 * usual), f"stands on a plate {share:.1f} times as wide as itself; a kind of ground?")


def base_share(mesh: Mesh) -> float:
    """How wide it is in its lowest tenth (at most 6 mm), against how wide it is above."""
    corners = mesh.points[mesh.faces]
    low, high = float(corners[..., 2].min()), float(corners[..., 2].max())
    level = low + min(0.1 * (high - low), 0.006)
    foot = corners[(corners[..., 2] <= level).all(axis=1)].reshape(-1, 3)
    rest = corners[(corners[..., 2] > level).any(axis=1)].reshape(-1, 3)
    rest = rest[rest[:, 2] > level]
    if not len(foot) or not len(rest):
        return 0.0
    return float(np.hypot(*np.ptp(foot[:, :2], axis=0)) / max(np.hypot(*np.ptp(rest[:, :2], axis=0)), 1e-9))


def _attributes(node: NodeSpec, known: References, disk: AssetOnDisk, findings: Findings) -> None:
    record = disk.record
    findings.need(record.material in MATERIALS, f"made of {record.material!r}, which is no known material")
    findings.need(node.material in (None, record.material), f"made of {record.material}, {node.material} wanted")
    if node.size is not None:
        small, large = (float(np.median(known.sizes_called(word))) for word in ("small", "large"))
        if large - small >= TELLING * small:
            middle, mine = (small + large) / 2, size(disk.solid)
            fits = mine <= middle * 1.02 if node.size == "small" else mine >= middle * 0.98
            findings.measure(size_m=mine, middle_size_m=middle)
            findings.need(
                fits, f"{mine * 1e3:.0f} mm across, {'below' if node.size == 'small' else 'above'} {middle * 1e3:.0f} wanted"
            )
