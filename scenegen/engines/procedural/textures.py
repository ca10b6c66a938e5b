"""Small seeded images [h, w, 3] in 0..1 whose mean stays near the colour they are named for. Row 0 is the top of the image."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PngImage

from scenegen.palette import rgb

Image = NDArray[np.float64]
Rng = np.random.Generator


def noise(rng: Rng, height: int, width: int, cells: int) -> NDArray[np.float64]:
    """Smooth noise [h, w] of zero mean and unit amplitude that wraps around horizontally."""
    grid = rng.uniform(-1, 1, (cells + 1, cells))
    grid = np.concatenate([grid, grid[:, :1]], axis=1)
    y, x = np.linspace(0, cells, height), np.linspace(0, cells, width)
    i, j = np.minimum(y.astype(int), cells - 1), np.minimum(x.astype(int), cells - 1)
    fy, fx = (y - i)[:, None], (x - j)[None]
    fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
    top = grid[i][:, j] * (1 - fx) + grid[i][:, j + 1] * fx
    return top * (1 - fy) + (grid[i + 1][:, j] * (1 - fx) + grid[i + 1][:, j + 1] * fx) * fy


def solid(colour: Image, rng: Rng, height: int = 64, width: int = 64, grain: float = 0.05) -> Image:
    """One colour, a little uneven, a little darker towards the bottom."""
    shade = 1 + grain * noise(rng, height, width, 5) + np.linspace(0.03, -0.05, height)[:, None]
    return np.clip(colour * shade[..., None], 0, 1)


def wood(colour: Image, rng: Rng, height: int = 96, width: int = 96, rings: float = 7.0) -> Image:
    """Grain along x."""
    y = np.linspace(0, rings, height)[:, None] + 0.6 * noise(rng, height, width, 3)
    grain = 0.10 * np.sin(2 * np.pi * y) + 0.05 * noise(rng, height, width, 14)
    return np.clip(colour * (1 + grain)[..., None], 0, 1)


def stripes(colour: Image, other: Image, rng: Rng, count: int = 4, height: int = 64, width: int = 64) -> Image:
    """Horizontal bands: `other` takes a quarter of each."""
    band = (np.linspace(0, count, height, endpoint=False) % 1 > 0.75)[:, None, None]
    return np.where(band, solid(other, rng, height, width), solid(colour, rng, height, width))


def checker(colour: Image, other: Image, rng: Rng, count: int = 6, size: int = 96) -> Image:
    steps = np.linspace(0, count, size, endpoint=False).astype(int)
    odd = ((steps[:, None] + steps[None]) % 2 == 1)[..., None]
    return np.where(odd, solid(other, rng, size, size), solid(colour, rng, size, size))


def gingham(colour: Image, rng: Rng, count: int = 6, size: int = 96) -> Image:
    """Woven squares of the colour on a paler one."""
    steps = (np.linspace(0, count, size, endpoint=False) % 1 > 0.5).astype(float)
    weave = 0.25 * (steps[:, None] + steps[None])
    cloth = colour * (1 - weave[..., None]) + weave[..., None] * (0.6 + 0.4 * colour)
    return np.clip(cloth * (1 + 0.04 * noise(rng, size, size, 24))[..., None], 0, 1)


def speckle(colour: Image, other: Image, rng: Rng, amount: float = 0.05, height: int = 96, width: int = 96) -> Image:
    """Dots, as on glazed stoneware or the skin of a fruit."""
    image = solid(colour, rng, height, width)
    image[rng.random((height, width)) < amount] = other
    return image


def fabric(colour: Image, rng: Rng, size: int = 96) -> Image:
    y, x = np.mgrid[0:size, 0:size]
    weave = 0.07 * np.where((x // 2 + y // 2) % 2, 1.0, -1.0) + 0.05 * noise(rng, size, size, 8)
    return np.clip(colour * (1 + weave)[..., None], 0, 1)


def basketwork(colour: Image, rng: Rng, height: int = 48, width: int = 96) -> Image:
    y, x = np.mgrid[0:height, 0:width]
    over = ((x // 8 + y // 6) % 2 == 0) * 0.16 - 0.08 + 0.10 * np.sin(2 * np.pi * y / 6)
    return np.clip(colour * (1 + over + 0.05 * noise(rng, height, width, 12))[..., None], 0, 1)


def skin(colour: Image, blush: Image, rng: Rng, height: int = 64, width: int = 64, strength: float = 0.5) -> Image:
    """Fruit: patches of a second colour and pale freckles."""
    patch = np.clip(noise(rng, height, width, 3), 0, 1)[..., None] * strength
    image = solid(colour, rng, height, width) * (1 - patch) + blush * patch
    freckles = rng.random((height, width)) < 0.015
    image[freckles] = 0.7 * image[freckles] + 0.3
    return np.clip(image, 0, 1)


def label(colour: Image, paper: Image, rng: Rng, height: int = 64, width: int = 96) -> Image:
    """A wrapper with a pale field and bars for print on it, twice around."""
    image = solid(colour, rng, height, width)
    for left in (int(width * 0.10), int(width * 0.60)):
        field = slice(int(height * 0.3), int(height * 0.68)), slice(left, left + int(width * 0.28))
        image[field] = solid(paper, rng, height, width)[field]
        for row in range(3):
            y = int(height * (0.36 + 0.10 * row))
            length = int(width * rng.uniform(0.10, 0.22))
            image[y : y + 2, left + 3 : left + 3 + length] = 0.25 * colour
    return image


def marble(colour: Image, rng: Rng, size: int = 128) -> Image:
    y, x = np.mgrid[0:size, 0:size] / size
    veins = np.abs(np.sin(np.pi * (3 * x + 2 * y + 1.3 * noise(rng, size, size, 4) + 0.5 * noise(rng, size, size, 9))))
    return np.clip(colour * (1 - 0.16 * (1 - veins) ** 4 + 0.03 * noise(rng, size, size, 5))[..., None], 0, 1)


def granite(colour: Image, rng: Rng, size: int = 128) -> Image:
    grains = rng.uniform(-1, 1, (size, size)) * 0.12 + 0.06 * noise(rng, size, size, 20)
    return np.clip(colour * (1 + grains)[..., None], 0, 1)


def planks(colour: Image, rng: Rng, count: int = 6, size: int = 128) -> Image:
    """Boards along x, each of its own shade, with dark joints."""
    image = wood(colour, rng, size, size, rings=3.0 * count)
    rows = np.linspace(0, count, size, endpoint=False)
    shades = 1 + rng.uniform(-0.10, 0.10, count)[rows.astype(int)]
    image = image * shades[:, None, None]
    image[rows % 1 < 0.06] *= 0.65
    return np.clip(image, 0, 1)


def tiles(colour: Image, rng: Rng, count: int = 6, size: int = 128) -> Image:
    """Square tiles with pale joints."""
    steps = np.linspace(0, count, size, endpoint=False)
    shades = 1 + rng.uniform(-0.05, 0.05, (count, count))
    image = colour * shades[steps.astype(int)][:, steps.astype(int)][..., None]
    joint = (steps % 1 < 0.07)[:, None] | (steps % 1 < 0.07)[None]
    image[joint] = 0.5 * image[joint] + 0.4
    return np.clip(image, 0, 1)


def contrast(colour: Image) -> Image:
    """White on dark colours, black on pale ones: for print and marks."""
    return rgb("white") if colour @ [0.3, 0.6, 0.1] < 0.55 else rgb("black")


def atlas(panels: dict[str, Image]) -> tuple[Image, dict[str, tuple[float, float]]]:
    """Panels stacked from the top, and for each the range of v that lies well inside it."""
    width = max(panel.shape[1] for panel in panels.values())
    rows = [panel[:, (np.arange(width) * panel.shape[1] // width)] for panel in panels.values()]
    total, top, ranges = sum(len(row) for row in rows), 0, {}
    for name, row in zip(panels, rows, strict=True):
        inset = 1.5 if len(panels) > 1 else 0.5
        ranges[name] = (1 - (top + len(row) - inset) / total, 1 - (top + inset) / total)
        top += len(row)
    return np.concatenate(rows), ranges


def png(image: Image) -> bytes:
    """The file of an image."""
    stream = io.BytesIO()
    PngImage.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(stream, "PNG", compress_level=6)
    return stream.getvalue()


Pattern = Callable[[Image, Rng], Image]
