"""What is painted and printed on things: small images [h, w, 3] and marks on them, in fractions of the width from the left and of
the height from the top."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.form import Recipe
from scenegen.engines.procedural.textures import Image, Rng
from scenegen.palette import rgb

METAL = np.array([0.72, 0.73, 0.76])
PALE = np.array([0.93, 0.92, 0.89])
DARK = np.array([0.13, 0.13, 0.15])
GOLDEN = np.array([0.86, 0.68, 0.32])
LEAF = np.array([0.20, 0.50, 0.20])
SCREEN = np.array([0.10, 0.16, 0.26])


def plain(colour: ArrayLike, rng: Rng, height: int = 16, width: int = 32, grain: float = 0.03) -> Image:
    """A small panel of one colour."""
    return textures.solid(np.asarray(colour, float), rng, height, width, grain)


def coat(recipe: Recipe, height: int = 64, width: int = 64) -> Image:
    """The paint, or wood of that colour where it is wood."""
    skin = textures.wood if recipe.material == "wood" else textures.solid
    return skin(recipe.paint, recipe.rng, height, width)


def shade(colour: Image, factor: float) -> Image:
    """Darker below 1, lighter above: towards black, towards white."""
    return colour * factor if factor <= 1 else colour + (1 - colour) * (factor - 1)


def other(colour: Image) -> Image:
    """A colour for print and trim that is plainly seen on this one."""
    return textures.contrast(colour)


def rectangle(image: Image, left: float, top: float, right: float, bottom: float, colour: ArrayLike) -> Image:
    height, width = image.shape[:2]
    image[
        round(top * height) : max(round(bottom * height), round(top * height) + 1), round(left * width) : round(right * width)
    ] = np.clip(colour, 0, 1)
    return image


def spot(image: Image, x: float, y: float, radius_x: float, radius_y: float, colour: ArrayLike) -> Image:
    height, width = image.shape[:2]
    v, u = np.mgrid[0:height, 0:width] + 0.5
    image[((u / width - x) / radius_x) ** 2 + ((v / height - y) / radius_y) ** 2 <= 1] = np.clip(colour, 0, 1)
    return image


def spots(image: Image, places: Iterable[tuple[float, float]], radius_x: float, radius_y: float, colour: ArrayLike) -> Image:
    for x, y in places:
        spot(image, x, y, radius_x, radius_y, colour)
    return image


def lattice(columns: int, rows: int, left: float, top: float, right: float, bottom: float) -> list[tuple[float, float]]:
    """Places in even rows and columns over a field."""
    x = left + (np.arange(columns) + 0.5) / columns * (right - left)
    y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
    return [(float(a), float(b)) for b in y for a in x]


def keys(
    image: Image, columns: int, rows: int, field: tuple[float, float, float, float], colour: ArrayLike, gap: float = 0.25
) -> Image:
    """Square keys over a field (left, top, right, bottom)."""
    half_x, half_y = (1 - gap) / 2 * (field[2] - field[0]) / columns, (1 - gap) / 2 * (field[3] - field[1]) / rows
    for x, y in lattice(columns, rows, *field):
        rectangle(image, x - half_x, y - half_y, x + half_x, y + half_y, colour)
    return image


def upright_stripes(
    colour: Image, line: ArrayLike, rng: Rng, count: int, share: float = 0.25, height: int = 48, width: int = 96
) -> Image:
    """Stripes from top to bottom: ribs, pleats, ridges."""
    image = textures.solid(colour, rng, height, width)
    return np.where(((np.arange(width) * count / width) % 1 < share)[None, :, None], np.asarray(line, float), image)


def kernels(colour: Image, rng: Rng, height: int = 48, width: int = 64, rows: int = 10, columns: int = 12) -> Image:
    """Rounded grains side by side, as on a cob or a pineapple."""
    v, u = np.mgrid[0:height, 0:width]
    relief = np.abs(np.sin(np.pi * rows * v / height) * np.sin(np.pi * (columns * u / width)))
    return np.clip(colour * (0.72 + 0.32 * np.sqrt(relief) + 0.03 * textures.noise(rng, height, width, 8))[..., None], 0, 1)


def holes(image: Image, columns: int, rows: int, colour: ArrayLike) -> Image:
    """Round holes in staggered rows."""
    height, width = image.shape[:2]
    for i, (x, y) in enumerate(lattice(columns, rows, 0, 0, 1, 1)):
        spot(image, (x + (i // columns % 2) * 0.5 / columns) % 1, y, 1.6 / width, 1.6 / height, colour)
    return image


def printed(
    image: Image, rng: Rng, left: float, top: float, right: float, lines: int, colour: ArrayLike, step: float = 0.07
) -> Image:
    """Lines of print that end where they end."""
    for row in range(lines):
        end = left + (right - left) * float(rng.uniform(0.55, 1.0))
        rectangle(image, left, top + row * step, end, top + row * step + 0.4 * step, colour)
    return image


def dial(size: int, face: ArrayLike, rim: Image, hands: ArrayLike = DARK) -> Image:
    """The face of a clock at ten past ten."""
    image = np.zeros((size, size, 3)) + rim
    spot(image, 0.5, 0.5, 0.42, 0.42, face)
    for angle in np.arange(12) * np.pi / 6:
        spot(image, 0.5 + 0.35 * np.sin(angle), 0.5 - 0.35 * np.cos(angle), 0.025, 0.025, hands)
    for angle, length in ((-np.pi / 3, 0.20), (np.pi / 3, 0.30)):
        for t in np.linspace(0, length, 24):
            spot(image, 0.5 + t * np.sin(angle), 0.5 - t * np.cos(angle), 0.022, 0.022, hands)
    return image


WHITE = rgb("white")
