"""A picture of a surface as a handful of 3D Gaussians, in the PLY that EmbodiedGen's viewer loads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_SH_0 = 0.28209479177387814
"""The constant spherical harmonic: a colour is 0.5 + _SH_0 f_dc (Kerbl et al. 2023, 3D Gaussian Splatting)."""

_FIELDS = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_OPACITY = 0.98


def splat_ply(points: Array, colors: Array, radius: float) -> bytes:
    """Round Gaussians of `radius` [m] at points [n, 3] with sRGB colors [n, 3] in 0..1: binary, little-endian. Opacity is kept
    as its logit, size as its logarithm, the turn as w, x, y, z."""
    rows = np.zeros((len(points), len(_FIELDS)), "<f4")
    rows[:, :3] = points
    rows[:, 3:6] = (np.clip(colors, 0, 1) - 0.5) / _SH_0
    rows[:, 6] = np.log(_OPACITY / (1 - _OPACITY))
    rows[:, 7:10] = np.log(radius)
    rows[:, 10] = 1.0
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in _FIELDS] + ["end_header"]
    return ("\n".join(header) + "\n").encode() + rows.tobytes()


def sample_surface(
    vertices: Array, uvs: Array, faces: NDArray[np.int64], image: Array, count: int, rng: np.random.Generator
) -> tuple[Array, Array, float]:
    """`count` points [n, 3] spread evenly over the area, their colours [n, 3] in the texture [h, w, 3] (row 0 on top), and
    their typical distance [m]."""
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    chosen = np.searchsorted(np.cumsum(areas), (np.arange(count) + rng.random(count)) / count * areas.sum() * (1 - 1e-12))
    a, b = np.sort(rng.random((2, count)), axis=0)
    weights = np.stack([a, b - a, 1 - b], axis=1)[..., None]
    points, texels = (weights * corners[chosen]).sum(1), (weights * uvs[faces][chosen]).sum(1)
    height, width = image.shape[:2]
    columns = np.clip((texels[:, 0] % 1.0) * width, 0, width - 1).astype(int)
    rows = np.clip((1 - texels[:, 1] % 1.0) * height, 0, height - 1).astype(int)
    return points, image[rows, columns], float(np.sqrt(areas.sum() / count))
