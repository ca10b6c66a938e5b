"""Tables: a slab on legs. Few vertices, because every environment draws one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.textures import Image, Rng
from scenegen.mesh.surfaces import SIDES, Surface, box_corners, hexahedron, join
from scenegen.schema import Box

TOP_SIZE = (0.90, 0.70)
TOP_THICKNESS = 0.03
LEG = 0.05


Table = tuple[Surface, Image, list[Box]]


@dataclass(frozen=True)
class TableStyle:
    name: str
    color: tuple[float, float, float]
    pattern: Callable[[Image, Rng], Image]
    friction: tuple[float, float]
    shininess: float
    build: Callable[[TableStyle, float, Rng], Table] | None = None
    """Makes another table than a slab on legs."""

    heights: tuple[float, float] = (0.70, 0.90)


TABLES: dict[str, TableStyle] = {
    "oak": TableStyle("oak table", (0.72, 0.54, 0.35), lambda c, r: textures.planks(c, r, 5), (0.55, 0.48), 20),
    "walnut": TableStyle("walnut table", (0.36, 0.23, 0.15), lambda c, r: textures.planks(c, r, 4), (0.55, 0.48), 25),
    "bamboo": TableStyle("bamboo table", (0.84, 0.72, 0.50), lambda c, r: textures.planks(c, r, 9), (0.55, 0.48), 20),
    "white": TableStyle("white desk", (0.88, 0.88, 0.87), lambda c, r: textures.solid(c, r, 96, 96, 0.02), (0.50, 0.43), 40),
    "slate": TableStyle("slate counter", (0.27, 0.29, 0.31), textures.granite, (0.55, 0.48), 40),
    "marble": TableStyle("marble counter", (0.86, 0.85, 0.83), textures.marble, (0.50, 0.43), 80),
    "granite": TableStyle("granite counter", (0.55, 0.52, 0.50), textures.granite, (0.50, 0.43), 60),
    "green": TableStyle("workbench", (0.24, 0.40, 0.33), lambda c, r: textures.solid(c, r, 96, 96, 0.05), (0.60, 0.52), 10),
    "linen": TableStyle("table with a linen cloth", (0.62, 0.66, 0.72), lambda c, r: textures.fabric(c, r, 128), (0.65, 0.55), 1),
    "tiled": TableStyle("tiled counter", (0.70, 0.78, 0.78), lambda c, r: textures.tiles(c, r, 6), (0.50, 0.43), 70),
}


def table(style: TableStyle, height: float, rng: Rng) -> Table:
    """A table standing on the floor with the middle of its top above the origin: surface, texture, collision boxes. Its top is
    flat at `height` and clear over TOP_SIZE."""
    if style.build is not None:
        return style.build(style, height, rng)
    length, width = TOP_SIZE
    color = np.asarray(style.color)
    image, ranges = textures.atlas({"top": style.pattern(color, rng), "legs": textures.solid(0.6 * color, rng, 16, 16)})
    plate = box_corners((length, width, TOP_THICKNESS), (0, 0, height - TOP_THICKNESS))
    parts = [
        hexahedron(plate, ("top",)).with_uvs(*ranges["top"]),
        hexahedron(plate, ("bottom", *SIDES)).with_uvs(*ranges["legs"]),
    ]
    boxes = [_box((length, width, TOP_THICKNESS), (0, 0, height - TOP_THICKNESS))]
    for x in (-1, 1):
        for y in (-1, 1):
            size, base = (LEG, LEG, height - TOP_THICKNESS), (x * (length - LEG) / 2, y * (width - LEG) / 2, 0)
            parts.append(hexahedron(box_corners(size, base), SIDES).with_uvs(*ranges["legs"]))
            boxes.append(_box(size, base))
    return join(parts), image, boxes


def _box(size: tuple[float, float, float], base: tuple[float, float, float]) -> Box:
    return Box(center=(base[0], base[1], base[2] + size[2] / 2), half_size=(size[0] / 2, size[1] / 2, size[2] / 2))
