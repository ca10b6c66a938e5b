"""The named colours: what the designer may ask for, the engines paint and the checks look for."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (200, 32, 34),
    "orange": (236, 120, 24),
    "yellow": (244, 206, 40),
    "green": (44, 140, 58),
    "lime": (156, 206, 48),
    "teal": (20, 138, 140),
    "blue": (34, 78, 186),
    "light blue": (122, 184, 234),
    "purple": (112, 52, 150),
    "pink": (240, 136, 172),
    "brown": (118, 72, 40),
    "beige": (222, 200, 162),
    "white": (240, 240, 236),
    "gray": (132, 134, 138),
    "black": (34, 34, 38),
}


def rgb(name: str) -> NDArray[np.float64]:
    """A named colour as sRGB in 0..1."""
    return np.array(PALETTE[name]) / 255.0


def lab(srgb: ArrayLike) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB values in 0..1, any shape [..., 3] (IEC 61966-2-1, CIE 15)."""
    values = np.asarray(srgb, float)
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def difference(a: ArrayLike, b: ArrayLike) -> float:
    """How far two sRGB colours look apart: CIE76 delta E; 2 is just seen, 25 is plainly another colour."""
    return float(np.linalg.norm(lab(a) - lab(b)))


PLAINLY_DIFFERENT = 25.0


@cache
def plainly_different(a: str, b: str) -> bool:
    """Whether nobody takes one named colour for the other."""
    return difference(rgb(a), rgb(b)) >= PLAINLY_DIFFERENT
