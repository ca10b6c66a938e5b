"""Rooms whose walls show more than furniture: shelves, tools, tiles, wallpaper."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.rooms import RoomStyle
from scenegen.engines.procedural.textures import Image, Rng

SIZE = 128
_SKY = np.array([0.74, 0.86, 0.96])


def _finish(image: Image) -> Image:
    """A little out of focus, as what is behind the table is."""
    blurred = sum(np.roll(image, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    return np.clip(blurred, 0, 1)


def _base(style: RoomStyle, rng: Rng) -> Image:
    image = textures.solid(np.asarray(style.wall), rng, SIZE, SIZE, 0.03)
    image[-5:] *= 0.7
    return image


def _window(image: Image, rng: Rng, left: float, top: float, wide: float = 0.22, tall: float = 0.30) -> None:
    """With a cross of bars and something green outside."""
    prints.rectangle(image, left - 0.015, top - 0.015, left + wide + 0.015, top + tall + 0.015, (0.95, 0.95, 0.94))
    prints.rectangle(image, left, top, left + wide, top + tall, _SKY)
    prints.rectangle(image, left, top + tall * float(rng.uniform(0.6, 0.8)), left + wide, top + tall, (0.46, 0.62, 0.40))
    prints.rectangle(image, left + wide / 2 - 0.008, top, left + wide / 2 + 0.008, top + tall, (0.95, 0.95, 0.94))
    prints.rectangle(image, left, top + tall / 2 - 0.008, left + wide, top + tall / 2 + 0.008, (0.95, 0.95, 0.94))


def _books(image: Image, rng: Rng, left: float, right: float, floor: float, tall: float) -> None:
    x = left
    while x < right - 0.02:
        wide = float(rng.uniform(0.010, 0.022))
        color = rng.uniform(0.15, 0.8, 3)
        prints.rectangle(image, x, floor - tall * float(rng.uniform(0.65, 0.95)), min(x + wide, right), floor, color)
        x += wide + (0.03 if rng.random() < 0.08 else 0.002)


def _library(style: RoomStyle, rng: Rng) -> Image:
    image = _base(style, rng)
    shelf = np.asarray(style.furniture)
    for left, right in ((0.03, 0.33), (0.67, 0.97)):
        prints.rectangle(image, left, 0.12, right, 0.97, 0.7 * shelf)
        for row in range(5):
            floor = 0.27 + 0.165 * row
            _books(image, rng, left + 0.015, right - 0.015, floor, 0.14)
            prints.rectangle(image, left, floor, right, floor + 0.018, shelf)
    _window(image, rng, 0.39, 0.2)
    prints.rectangle(image, 0.40, 0.70, 0.60, 0.97, 0.8 * shelf)
    return _finish(image)


def _garage(style: RoomStyle, rng: Rng) -> Image:
    """A board with tools on the wall, boxes and a roller door."""
    image = _base(style, rng)
    for row in np.linspace(0.04, 0.95, 18):
        prints.rectangle(image, 0.66, row, 0.98, row + 0.008, 0.85 * np.asarray(style.wall))
    prints.rectangle(image, 0.08, 0.18, 0.56, 0.52, (0.70, 0.56, 0.38))
    for x in np.linspace(0.12, 0.50, 8):
        tall, color = (
            float(rng.uniform(0.10, 0.24)),
            ((0.75, 0.15, 0.12), (0.2, 0.2, 0.22), (0.15, 0.3, 0.6), (0.85, 0.65, 0.15))[int(rng.integers(4))],
        )
        prints.rectangle(image, x, 0.22, x + 0.014, 0.22 + tall, color)
        prints.rectangle(image, x - 0.008, 0.22 + tall, x + 0.022, 0.25 + tall, (0.62, 0.63, 0.65))
    prints.rectangle(image, 0.06, 0.66, 0.60, 0.71, style.furniture)
    for x in np.linspace(0.08, 0.48, 4):
        prints.rectangle(
            image, x, 0.71 + 0.05 * float(rng.random()), x + 0.11, 0.97, rng.uniform(0.35, 0.75) * np.array([1.0, 0.8, 0.55])
        )
    return _finish(image)


def _bathroom(style: RoomStyle, rng: Rng) -> Image:
    image = textures.tiles(np.asarray(style.wall), rng, 12, SIZE)
    image[:44] = textures.solid(np.array([0.96, 0.96, 0.95]), rng, 44, SIZE, 0.02)
    image[44:48] = np.asarray(style.furniture)
    prints.spot(image, 0.3, 0.34, 0.15, 0.2, (0.9, 0.9, 0.9))
    prints.spot(image, 0.3, 0.34, 0.135, 0.185, (0.70, 0.80, 0.86))
    prints.rectangle(image, 0.14, 0.62, 0.46, 0.70, (0.97, 0.97, 0.97))
    prints.rectangle(image, 0.18, 0.70, 0.42, 0.97, 0.9 * np.asarray(style.furniture))
    for x, color in ((0.62, rng.uniform(0.4, 0.9, 3)), (0.78, rng.uniform(0.4, 0.9, 3))):
        prints.rectangle(image, x, 0.48, x + 0.11, 0.80, color)
        prints.rectangle(image, x - 0.02, 0.47, x + 0.13, 0.485, (0.6, 0.6, 0.62))
    return _finish(image)


def _nursery(style: RoomStyle, rng: Rng) -> Image:
    """Wallpaper with dots or stripes, toys on a shelf."""
    wall = np.asarray(style.wall)
    image = _base(style, rng)
    if rng.random() < 0.5:
        prints.spots(image, prints.lattice(9, 6, 0, 0, 1, 0.72), 0.018, 0.018, 0.55 * wall + 0.45 * rng.uniform(0.4, 1.0, 3))
    else:
        image[:92][:, np.arange(SIZE) // 8 % 2 == 0] *= 0.92
    _window(image, rng, 0.10, 0.14)
    prints.rectangle(image, 0.48, 0.62, 0.94, 0.97, style.furniture)
    for x in (0.51, 0.66, 0.81):
        prints.rectangle(image, x, 0.68, x + 0.11, 0.92, rng.uniform(0.45, 0.95, 3))
    for x in np.linspace(0.54, 0.86, 4):
        prints.spot(image, x, 0.57, 0.035, 0.045, rng.uniform(0.3, 0.95, 3))
    return _finish(image)


def _cafe(style: RoomStyle, rng: Rng) -> Image:
    """Bricks, a board with the prices, lamps, a bar."""
    wall = np.asarray(style.wall)
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    row = y // 6
    column = (x + row % 2 * 6) // 12
    shades = 1 + rng.uniform(-0.14, 0.14, (SIZE, SIZE))
    image = wall * shades[row, column % SIZE][..., None]
    image[(y % 6 == 0) | ((x + row % 2 * 6) % 12 == 0)] = 0.55 * wall + 0.35
    prints.rectangle(image, 0.16, 0.16, 0.58, 0.46, (0.35, 0.24, 0.15))
    prints.rectangle(image, 0.18, 0.18, 0.56, 0.44, (0.14, 0.16, 0.16))
    prints.printed(image, rng, 0.22, 0.22, 0.52, 3, (0.85, 0.85, 0.82), 0.07)
    for place in (0.70, 0.88):
        prints.rectangle(image, place - 0.004, 0.0, place + 0.004, 0.18, (0.1, 0.1, 0.1))
        prints.spot(image, place, 0.21, 0.05, 0.045, (1.0, 0.90, 0.62))
    prints.rectangle(image, 0.0, 0.66, 1.0, 0.70, 0.7 * np.asarray(style.furniture))
    prints.rectangle(image, 0.0, 0.70, 1.0, 1.0, style.furniture)
    return _finish(image)


def _classroom(style: RoomStyle, rng: Rng) -> Image:
    """A green board, drawings, lockers."""
    image = _base(style, rng)
    prints.rectangle(image, 0.10, 0.16, 0.66, 0.50, (0.62, 0.46, 0.30))
    prints.rectangle(image, 0.12, 0.18, 0.64, 0.48, (0.16, 0.34, 0.27))
    prints.printed(image, rng, 0.16, 0.23, 0.55, 3, (0.80, 0.85, 0.80), 0.07)
    for x in (0.74, 0.86):
        for top in (0.16, 0.32):
            prints.rectangle(image, x, top, x + 0.09, top + 0.12, rng.uniform(0.6, 1.0, 3))
    for i, left in enumerate(np.linspace(0.04, 0.80, 6)):
        prints.rectangle(image, left, 0.60, left + 0.12, 0.97, np.asarray(style.furniture) * (0.85, 1.0)[i % 2])
        prints.rectangle(image, left + 0.09, 0.76, left + 0.105, 0.80, (0.2, 0.2, 0.2))
    return _finish(image)


def _conservatory(style: RoomStyle, rng: Rng) -> Image:
    """Glass all along, plants below it."""
    image = _base(style, rng)
    for left in (0.02, 0.27, 0.52, 0.77):
        _window(image, rng, left, 0.06, 0.21, 0.56)
    for x in rng.uniform(0.03, 0.97, 14):
        prints.spot(image, x, float(rng.uniform(0.64, 0.78)), 0.045, 0.10, np.array([0.20, 0.45, 0.20]) * rng.uniform(0.8, 1.5))
    prints.rectangle(image, 0.0, 0.80, 1.0, 0.96, style.furniture)
    return _finish(image)


def _boards(color: Image, rng: Rng) -> Image:
    return textures.planks(color, rng, 12, 96)


def _tiling(color: Image, rng: Rng) -> Image:
    return textures.tiles(color, rng, 8, 96)


def _checks(color: Image, rng: Rng) -> Image:
    return textures.checker(color, 0.35 * color, rng, 12, 96)


def _rug(color: Image, rng: Rng) -> Image:
    return textures.fabric(color, rng, 96)


FULL_ROOMS: dict[str, RoomStyle] = {
    "library": RoomStyle((0.82, 0.78, 0.68), (0.46, 0.30, 0.20), _boards, (0.42, 0.26, 0.15), _library),
    "garage": RoomStyle(
        (0.76, 0.76, 0.74), (0.52, 0.52, 0.52), lambda c, r: textures.granite(c, r, 96), (0.50, 0.36, 0.24), _garage
    ),
    "bathroom": RoomStyle((0.72, 0.84, 0.88), (0.80, 0.82, 0.82), _tiling, (0.46, 0.58, 0.66), _bathroom),
    "nursery": RoomStyle((0.94, 0.86, 0.74), (0.72, 0.62, 0.66), _rug, (0.96, 0.94, 0.90), _nursery),
    "cafe": RoomStyle((0.60, 0.34, 0.26), (0.84, 0.82, 0.78), _checks, (0.34, 0.24, 0.18), _cafe),
    "classroom": RoomStyle((0.90, 0.90, 0.84), (0.58, 0.62, 0.60), _rug, (0.42, 0.60, 0.74), _classroom),
    "conservatory": RoomStyle((0.88, 0.90, 0.86), (0.68, 0.60, 0.50), _tiling, (0.60, 0.42, 0.30), _conservatory),
}
"""Those that FULL has more than BASIC."""
