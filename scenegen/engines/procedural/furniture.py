"""Tables of other shapes than a slab on four legs. The top of each is clear over TOP_SIZE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.contexts import TOP_SIZE, TOP_THICKNESS, Table, TableStyle
from scenegen.engines.procedural.textures import Image, Rng
from scenegen.mesh.surfaces import SIDES, Surface, box_corners, hexahedron, join, slab
from scenegen.schema import Box

_REST = ("bottom", *SIDES)


@dataclass
class _Frame:
    """A table being put together: panels of the texture, parts that show them, boxes."""

    panels: dict[str, Image]
    parts: list[tuple[Surface, str]] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def block(
        self,
        size: tuple[float, float, float],
        base: tuple[float, float, float],
        panels: str | dict[str, Sequence[str]],
        solid: bool = True,
    ) -> None:
        """A box standing on `base`; panels: one for all its faces, or faces by panel."""
        faces = {panels: ("top", *_REST)} if isinstance(panels, str) else panels
        corners = box_corners(size, base)
        self.parts += [(hexahedron(corners, names), panel) for panel, names in faces.items()]
        if solid:
            self.boxes.append(
                Box(center=(base[0], base[1], base[2] + size[2] / 2), half_size=(size[0] / 2, size[1] / 2, size[2] / 2))
            )

    def table(self) -> Table:
        image, ranges = textures.atlas(self.panels)
        return join([part.with_uvs(*ranges[panel]) for part, panel in self.parts]), image, self.boxes


def _start(style: TableStyle, rng: Rng, rest: float = 0.6) -> _Frame:
    color = np.asarray(style.color)
    return _Frame({"top": style.pattern(color, rng), "rest": textures.solid(rest * color, rng, 16, 16)})


def _plate(frame: _Frame, height: float, size: tuple[float, float] = TOP_SIZE, thick: float = TOP_THICKNESS) -> None:
    frame.block((*size, thick), (0, 0, height - thick), {"top": ("top",), "rest": _REST})


def _legs(frame: _Frame, size: tuple[float, float], height: float, wide: float) -> None:
    for x in (-1, 1):
        for y in (-1, 1):
            frame.block((wide, wide, height), (x * (size[0] - wide) / 2, y * (size[1] - wide) / 2, 0), {"rest": SIDES})


def _coffee(style: TableStyle, height: float, rng: Rng) -> Table:
    """Low, with a second board below the top."""
    frame = _start(style, rng, 0.75)
    _plate(frame, height, (1.1, 0.74), 0.04)
    _legs(frame, (1.04, 0.68), height - 0.04, 0.06)
    frame.block((1.0, 0.64, 0.02), (0, 0, 0.3 * height), "rest")
    return frame.table()


def _shelf(style: TableStyle, height: float, rng: Rng) -> Table:
    """A low board on two upright sides, with one between the floor and the top."""
    frame = _start(style, rng, 0.85)
    _plate(frame, height, (0.92, 0.80), 0.025)
    for y in (-1, 1):
        frame.block((0.92, 0.025, height - 0.025), (0, y * 0.3875, 0), {"rest": SIDES})
    frame.block((0.90, 0.75, 0.02), (0, 0, 0.45 * height), "rest")
    return frame.table()


def _round(style: TableStyle, height: float, rng: Rng) -> Table:
    """A round top on a column. It reaches around the corners of TOP_SIZE; the boxes fill it from within."""
    frame = _start(style, rng)
    radius = float(np.hypot(*TOP_SIZE)) / 2 + 0.015
    angles = 2 * np.pi * np.arange(24) / 24
    lid, rest = slab(radius * np.c_[np.cos(angles), np.sin(angles)], height - TOP_THICKNESS, height)
    frame.parts += [(lid, "top"), (rest, "rest")]
    inside = radius * np.cos(np.pi / 24)
    for half_x in (0.45, 0.30, 0.52):
        half_y = float(np.sqrt(inside**2 - half_x**2))
        frame.boxes.append(Box(center=(0, 0, height - TOP_THICKNESS / 2), half_size=(half_x, half_y, TOP_THICKNESS / 2)))
    frame.block((0.12, 0.12, height - TOP_THICKNESS), (0, 0, 0), {"rest": SIDES})
    frame.block((0.55, 0.55, 0.03), (0, 0, 0), {"rest": ("top", *SIDES)})
    return frame.table()


def _doors(color: Image, rng: Rng, columns: int, drawers: bool) -> Image:
    """The front of a cabinet, with knobs."""
    image = textures.solid(color, rng, 48, 96, 0.02)
    for i in range(columns):
        left, right = (i + 0.04) / columns, (i + 0.96) / columns
        fields = ((0.06, 0.32), (0.36, 0.62), (0.66, 0.95)) if drawers else ((0.06, 0.95),)
        for top, bottom in fields:
            prints.rectangle(image, left, top, right, bottom, 0.80 * color)
            prints.rectangle(image, left + 0.02, top + 0.03, right - 0.02, bottom - 0.03, color)
            middle = (left + right) / 2 if drawers else (right - 0.05 if i % 2 == 0 else left + 0.05)
            prints.rectangle(
                image, middle - 0.02, (top + bottom) / 2 - 0.02, middle + 0.02, (top + bottom) / 2 + 0.02, (0.75, 0.74, 0.70)
            )
    return image


def _counter(style: TableStyle, height: float, rng: Rng) -> Table:
    """A worktop over cabinets that reach to the floor."""
    frame = _start(style, rng, 0.8)
    fronts = np.array([(0.92, 0.91, 0.88), (0.30, 0.42, 0.40), (0.66, 0.50, 0.34), (0.35, 0.42, 0.55)])[int(rng.integers(4))]
    frame.panels["front"] = _doors(fronts, rng, 3, False)
    _plate(frame, height, (0.96, 1.5), 0.035)
    frame.block((0.88, 1.46, height - 0.035), (0, 0, 0), {"front": SIDES})
    return frame.table()


def _desk(style: TableStyle, height: float, rng: Rng) -> Table:
    """A chest of drawers under one side, two legs under the other."""
    frame = _start(style, rng, 0.8)
    frame.panels["front"] = _doors(0.85 * np.asarray(style.color), rng, 1, True)
    _plate(frame, height, (0.90, 1.3))
    frame.block((0.80, 0.38, height - TOP_THICKNESS), (0, 0.42, 0), {"front": SIDES})
    for x in (-1, 1):
        frame.block((0.05, 0.05, height - TOP_THICKNESS), (x * 0.40, -0.60, 0), {"rest": SIDES})
    return frame.table()


def _bench(style: TableStyle, height: float, rng: Rng) -> Table:
    """A thick top on heavy legs; a vise is screwed to it beyond where the robot works."""
    frame = _start(style, rng, 0.7)
    frame.panels["vise"] = textures.solid(np.array([0.22, 0.32, 0.45]), rng, 16, 16)
    _plate(frame, height, (0.90, 1.4), 0.06)
    _legs(frame, (0.84, 1.3), height - 0.06, 0.09)
    frame.block((0.78, 1.2, 0.03), (0, 0, 0.2), "rest")
    frame.block((0.14, 0.16, 0.03), (0.28, 0.52, height), "vise")
    for x in (0.24, 0.32):
        frame.block((0.03, 0.16, 0.07), (x, 0.52, height + 0.03), "vise")
    return frame.table()


def _island(style: TableStyle, height: float, rng: Rng) -> Table:
    """A solid block."""
    frame = _start(style, rng, 0.9)
    _plate(frame, height, (1.0, 0.9), 0.05)
    frame.block((0.92, 0.82, height - 0.05), (0, 0, 0), {"rest": SIDES})
    return frame.table()


def _trestle(style: TableStyle, height: float, rng: Rng) -> Table:
    """A board on two trestles."""
    frame = _start(style, rng, 0.7)
    _plate(frame, height, (0.90, 1.3), 0.025)
    for y in (-0.48, 0.48):
        frame.block((0.80, 0.06, 0.05), (0, y, height - 0.075), {"rest": _REST})
        for x in (-0.36, 0.36):
            frame.block((0.05, 0.05, height - 0.075), (x, y, 0), {"rest": SIDES})
        frame.block((0.72, 0.03, 0.03), (0, y, 0.25), "rest")
    return frame.table()


def _terrazzo(color: Image, rng: Rng) -> Image:
    image = textures.solid(color, rng, 112, 112, 0.02)
    chips = ((0.82, 0.45, 0.36), (0.35, 0.42, 0.46), (0.92, 0.78, 0.52), (0.55, 0.66, 0.58))
    for x, y, radius in rng.uniform((0, 0, 0.010), (1, 1, 0.026), (110, 3)):
        prints.spot(image, x, y, radius, 0.8 * radius, chips[int(rng.integers(4))])
    return image


def _grain(color: Image, rng: Rng) -> Image:
    """Wood under a thin coat."""
    return 0.35 * textures.wood(color, rng, 96, 96, 12) + 0.65 * color


def _concrete(color: Image, rng: Rng) -> Image:
    return textures.speckle(color, 0.88 * color, rng, 0.03, 112, 112)


def _check(color: Image, rng: Rng) -> Image:
    return textures.gingham(color, rng, 9, 108)


FULL_TABLES: dict[str, TableStyle] = {
    "coffee": TableStyle(
        "coffee table", (0.50, 0.30, 0.17), lambda c, r: textures.planks(c, r, 4, 112), (0.55, 0.48), 40, _coffee, (0.40, 0.50)
    ),
    "shelf": TableStyle("low shelf", (0.90, 0.86, 0.78), _grain, (0.55, 0.48), 20, _shelf, (0.40, 0.55)),
    "round": TableStyle("round table", (0.66, 0.42, 0.24), lambda c, r: textures.planks(c, r, 7, 112), (0.55, 0.48), 30, _round),
    "cabinet": TableStyle(
        "kitchen counter", (0.46, 0.47, 0.48), lambda c, r: textures.granite(c, r, 96), (0.52, 0.45), 60, _counter, (0.84, 0.92)
    ),
    "butcher": TableStyle(
        "butcher block counter",
        (0.80, 0.62, 0.40),
        lambda c, r: textures.planks(c, r, 12, 96),
        (0.58, 0.50),
        20,
        _counter,
        (0.84, 0.92),
    ),
    "desk": TableStyle("desk", (0.74, 0.60, 0.44), _grain, (0.55, 0.48), 25, _desk, (0.70, 0.78)),
    "bench": TableStyle(
        "workbench with a vise",
        (0.70, 0.58, 0.42),
        lambda c, r: textures.planks(c, r, 8, 112),
        (0.60, 0.52),
        8,
        _bench,
        (0.80, 0.92),
    ),
    "terrazzo": TableStyle("terrazzo island", (0.88, 0.86, 0.82), _terrazzo, (0.50, 0.43), 80, _island, (0.84, 0.92)),
    "concrete": TableStyle("concrete island", (0.62, 0.61, 0.59), _concrete, (0.60, 0.52), 10, _island, (0.84, 0.92)),
    "trestle": TableStyle("trestle table", (0.92, 0.90, 0.86), _grain, (0.55, 0.48), 15, _trestle),
    "picnic": TableStyle("picnic table with a checked cloth", (0.78, 0.24, 0.24), _check, (0.65, 0.55), 1, _trestle),
    "playroom": TableStyle(
        "children's table",
        (0.56, 0.76, 0.84),
        lambda c, r: textures.solid(c, r, 112, 112, 0.02),
        (0.52, 0.45),
        50,
        _coffee,
        (0.45, 0.55),
    ),
}
"""Those that FULL has more than BASIC."""
