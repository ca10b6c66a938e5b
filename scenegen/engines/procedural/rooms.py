"""Rooms: a floor and four walls around the table, seen from inside. Visual only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.textures import Image, Rng
from scenegen.mesh.surfaces import Surface, join, quad

HEIGHT = 2.6


@dataclass(frozen=True)
class RoomStyle:
    wall: tuple[float, float, float]
    floor: tuple[float, float, float]
    flooring: Callable[[Image, Rng], Image]
    furniture: tuple[float, float, float]
    paint: Callable[[RoomStyle, Rng], Image] | None = None
    """Makes another picture of a wall than skirting, furniture and a window."""


def _boards(color: Image, rng: Rng) -> Image:
    return textures.planks(color, rng, 14)


def _tiling(color: Image, rng: Rng) -> Image:
    return textures.tiles(color, rng, 10)


def _carpet(color: Image, rng: Rng) -> Image:
    return textures.fabric(color, rng, 128)


ROOMS: dict[str, RoomStyle] = {
    "kitchen": RoomStyle((0.90, 0.88, 0.80), (0.74, 0.70, 0.64), _tiling, (0.86, 0.86, 0.84)),
    "office": RoomStyle((0.84, 0.86, 0.88), (0.42, 0.45, 0.50), _carpet, (0.50, 0.40, 0.30)),
    "bedroom": RoomStyle((0.88, 0.82, 0.84), (0.60, 0.46, 0.34), _boards, (0.55, 0.60, 0.75)),
    "living_room": RoomStyle((0.86, 0.80, 0.70), (0.52, 0.36, 0.24), _boards, (0.40, 0.46, 0.40)),
    "workshop": RoomStyle((0.62, 0.62, 0.60), (0.48, 0.47, 0.46), textures.granite, (0.60, 0.32, 0.16)),
    "lab": RoomStyle((0.92, 0.94, 0.95), (0.72, 0.76, 0.78), _tiling, (0.30, 0.38, 0.48)),
    "dining_room": RoomStyle((0.70, 0.76, 0.70), (0.44, 0.28, 0.18), _boards, (0.34, 0.20, 0.12)),
    "studio": RoomStyle((0.74, 0.70, 0.76), (0.66, 0.64, 0.60), textures.granite, (0.80, 0.66, 0.30)),
}


def room(style: RoomStyle, rng: Rng) -> tuple[Surface, Image]:
    """A room centred on the origin with its floor at z = 0: surface and texture. Each wall shows the same picture."""
    length, width = rng.uniform(4.0, 6.0), rng.uniform(3.6, 5.0)
    image, ranges = textures.atlas(
        {"wall": (style.paint or _wall)(style, rng), "floor": style.flooring(np.asarray(style.floor), rng)}
    )
    x, y = length / 2, width / 2
    floor = quad([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]]).with_uvs(*ranges["floor"])
    corners = [(x, y), (x, -y), (-x, -y), (-x, y)]
    walls = []
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        walls.append(quad([[ax, ay, 0], [bx, by, 0], [bx, by, HEIGHT], [ax, ay, HEIGHT]]).with_uvs(*ranges["wall"]))
    return join([floor, *walls]), image


def _wall(style: RoomStyle, rng: Rng) -> Image:
    """Skirting, a window or a picture, and a few blurred pieces of furniture."""
    size = 128
    image = textures.solid(np.asarray(style.wall), rng, size, size, 0.03)
    image[-5:] *= 0.7
    for _ in range(int(rng.integers(2, 5))):
        left, wide, tall = int(rng.integers(0, 100)), int(rng.integers(12, 36)), int(rng.integers(20, 60))
        shade = np.asarray(style.furniture) * rng.uniform(0.7, 1.15)
        image[-5 - tall : -5, left : left + wide] = textures.solid(shade, rng, tall, image[:, left : left + wide].shape[1])
    left, top = int(rng.integers(8, 84)), int(rng.integers(14, 26))
    pane = np.array([0.75, 0.86, 0.96]) if rng.random() < 0.6 else rng.uniform(0.2, 0.8, 3)
    image[top - 2 : top + 34, left - 2 : left + 34] = 0.95
    image[top : top + 32, left : left + 32] = pane
    blurred = sum(np.roll(image, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return np.clip(blurred, 0, 1)
