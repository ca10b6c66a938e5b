"""Semantic appearance: the surface shows the named colour, and there is a picture on it at all."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from scenegen.checks.files import AssetOnDisk, Mesh
from scenegen.checks.findings import FileFault, Findings
from scenegen.checks.references import references
from scenegen.checks.sampling import sample
from scenegen.palette import PALETTE, lab, plainly_different, rgb
from scenegen.schema import Check, NodeSpec, Verdict

Array = NDArray[np.float64]

SAMPLES = 2048
SHARE = 0.4
"""Of the visible area that must be nearer to the named colour than to any plainly different one."""

MEDIAN = 45.0
"""CIE76 distance of the visible surface from the named colour that half of it may not exceed."""

_MAGENTA = (1.0, 0.0, 1.0)
"""What renderers and exporters show where a texture is missing."""


def check_appearance(node: NodeSpec, disk: AssetOnDisk) -> Verdict:
    findings = Findings()
    try:
        _look(node, disk, findings)
    except FileFault as fault:
        findings.need(False, str(fault))
    return findings.verdict(Check.APPEARANCE, node.id)


def _look(node: NodeSpec, disk: AssetOnDisk, findings: Findings) -> None:
    texture = disk.folder / disk.record.files.texture
    seen = visible_colors(disk.visual, disk.texture)
    laid = disk.texture_of_material
    findings.need(laid is not None and laid.resolve() == texture.resolve(), f"the material does not show {texture.name}")
    findings.need(seen.max() > 3 / 255, f"{texture.name}: black all over")
    magenta = np.abs(seen - _MAGENTA).max(axis=1) < 0.05
    findings.measure(magenta_share=magenta.mean())
    findings.need(magenta.mean() < 0.5, f"{texture.name}: the magenta of a missing texture")
    if node.color is None:
        return
    if node.color not in PALETTE:
        raise FileFault(f"color {node.color!r} is none of the palette")
    findings.need(disk.record.color == node.color, f"recorded as {disk.record.color}, {node.color} wanted")
    share, median = closeness(seen, node.color)
    findings.measure(color_share=share, color_distance=median)
    least, most = _limits(node, share, median)
    if share < least or median > most:
        shown = _looks(seen)
        findings.need(False, f"looks {shown}, {node.color} wanted: {share:.0%} of the surface, median distance {median:.0f}")


def _limits(node: NodeSpec, share: float, median: float) -> tuple[float, float]:
    """What goes without saying may look as its kind does: a puzzle cube counts as black and shows mostly its stickers."""
    spoken = re.search(rf"\b{node.color}\b", f"{node.name} {node.description}") is not None
    if (share >= SHARE and median <= MEDIAN) or spoken:
        return SHARE, MEDIAN
    known = references(node.category)
    if known is None or node.color not in known.family.colors:
        return SHARE, MEDIAN
    usual = [closeness(visible_colors(*look), node.color) for look in known.looks(node.color)]
    return min(SHARE, 0.8 * min(share for share, _ in usual)), max(MEDIAN, 1.2 * max(median for _, median in usual))


def visible_colors(mesh: Mesh, texture: Array) -> Array:
    """sRGB [n, 3] of points evenly over what can be seen from above: all but undersides."""
    if mesh.uvs is None:
        raise FileFault("the surface has no texture coordinates")
    spots = sample(mesh.points, mesh.faces, SAMPLES)
    seen = spots.normals[:, 2] > -0.7
    if not seen.any():
        raise FileFault("nothing of the surface can be seen from above")
    uv = np.einsum("nk,nkc->nc", spots.weights, mesh.uvs[spots.faces])[seen]
    uv = np.where((uv < 0) | (uv > 1), uv % 1, uv)  # textures repeat
    height, width = texture.shape[:2]
    column = np.minimum((uv[:, 0] * width).astype(int), width - 1)
    row = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
    return texture[row, column]


def closeness(seen: Array, color: str) -> tuple[float, float]:
    """The share of the colours [n, 3] nearer to a named one than to any plainly different one; their median distance from it."""
    seen = lab(seen)
    distance = np.linalg.norm(seen - lab(rgb(color)), axis=1)
    others = np.stack([lab(rgb(name)) for name in PALETTE if plainly_different(name, color)])
    nearest = np.linalg.norm(seen[:, None] - others, axis=2).min(axis=1)
    return float((distance < nearest).mean()), float(np.median(distance))


def _looks(seen: Array) -> str:
    """The palette's name for the median colour."""
    middle = np.median(lab(seen), axis=0)
    return min(PALETTE, key=lambda name: float(np.linalg.norm(lab(rgb(name)) - middle)))
