"""Parts to put things together from: each is a piece of the surface and the convex pieces behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from scenegen.engines.procedural.form import Form
from scenegen.engines.procedural.toys import sphere_profile
from scenegen.mesh.hulls import turned_piece, wall_pieces
from scenegen.mesh.surfaces import SIDES, Array, Surface, hexahedron, join, lathe, rounded_rectangle, slab, sweep
from scenegen.schema import Cavity

ALL = ("bottom", "top", *SIDES)
OPEN_BELOW = ("top", *SIDES)
Rings = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Part:
    """Moved and turned as one; hulls are convex point sets. Angles in radians, right-handed about the axes of the object."""

    surface: Surface
    hulls: tuple[Array, ...] = ()

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Part:
        offset = np.array([x, y, z])
        return Part(self.surface.moved(offset), tuple(hull + offset for hull in self.hulls))

    def about_x(self, angle: float) -> Part:
        return self._turned(1, 2, angle)

    def about_y(self, angle: float) -> Part:
        return self._turned(2, 0, angle)

    def about_z(self, angle: float) -> Part:
        return self._turned(0, 1, angle)

    def bare(self) -> Part:
        """Seen but not touched, because another part is there already."""
        return Part(self.surface)

    def _turned(self, i: int, j: int, angle: float) -> Part:
        rotation = np.eye(3)
        rotation[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        surface = self.surface
        turned = replace(surface, vertices=surface.vertices @ rotation.T, normals=surface.normals @ rotation.T)
        return Part(turned, tuple(hull @ rotation.T for hull in self.hulls))


def put(form: Form, panel: str, *parts: Part) -> None:
    """Add parts that show the panel of the texture."""
    for part in parts:
        form.add(part.surface, part.hulls, panel)


def frustum(
    bottom: tuple[float, float],
    top: tuple[float, float],
    height: float,
    shift: tuple[float, float] = (0, 0),
    faces: Sequence[str] = ALL,
) -> Part:
    """A box on z = 0 whose top has another size than its bottom and is shifted over it."""
    square = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    low, high = square * bottom, square * top + shift
    corners = np.concatenate([np.c_[low, np.zeros(4)], np.c_[high, np.full(4, height)]])
    return Part(hexahedron(corners, faces), (corners,))


def box(length: float, width: float, height: float, faces: Sequence[str] = ALL) -> Part:
    return frustum((length, width), (length, width), height, faces=faces)


def turned(rings: Rings, segments: int = 12, closed: tuple[bool, bool] = (True, True), crease_deg: float = 35.0) -> Part:
    """A convex body turned about z; `closed` says whether bottom and top are seen."""
    profile = [(0.0, rings[0][1])] * closed[0] + list(rings) + [(0.0, rings[-1][1])] * closed[1]
    return Part(lathe(profile, segments, crease_deg), (turned_piece(rings, segments),))


def ball(radius: float, squash: float = 1.0, segments: int = 10, bands: int = 5) -> Part:
    """Rests on a small flat at z = 0."""
    return turned(sphere_profile(radius, bands, squash)[1:-1], segments, crease_deg=60)


def hoop(section: Rings, segments: int = 12, crease_deg: float = 50.0) -> Part:
    """A ring about z of a convex section (radius, z), counter-clockwise."""
    return Part(lathe([*section, section[0]], segments, crease_deg), tuple(wall_pieces(section, segments)))


def hollow(
    form: Form, foot: float, rim: float, height: float, wall: float, floor: float, panels: tuple[str, str], segments: int = 16
) -> None:
    """A turned vessel with a straight wall from radius `foot` out to `rim`, open above. Panels: outside, inside."""
    bottom, inner = foot - wall, foot - wall + (rim - foot) * floor / height
    base = turned_piece([(bottom, 0), (inner, floor)], segments)
    side = wall_pieces([(bottom, 0), (foot, 0), (rim, height), (rim - wall, height)], segments)
    form.add(lathe([(0, 0), (foot, 0), (rim, height)], segments), [base, *side], panels[0])
    form.add(lathe([(rim, height), (rim - wall, height), (inner, floor), (0, floor)], segments), (), panels[1])
    form.centred = False
    form.cavity = Cavity(radius_m=inner, depth_m=height - floor)
    form.goal_point = (0.0, 0.0, floor)


def prism(outline: ArrayLike, height: float, top: bool = True) -> Part:
    """Over a convex outline [n, 2], counter-clockwise; without its top where a `lid` goes."""
    flat = np.asarray(outline, float)
    cover, rest = slab(flat, 0, height)
    hull = np.concatenate([np.c_[flat, np.full(len(flat), z)] for z in (0, height)])
    return Part(join([cover, rest]) if top else rest, (hull,))


def lid(outline: ArrayLike, height: float) -> Part:
    """A picture laid flat on the top of a prism: it reads upright for who looks along y."""
    return Part(slab(outline, height - 0.001, height)[0])


def loft(loops: ArrayLike | Sequence[ArrayLike], hulls: str = "whole", top: bool = True) -> Part:
    """A soft skin over loops [n, 3] that are counter-clockwise seen from the end of the way; convex as a whole, or between every
    two loops (hulls="links"). Without its last cap where a `lid` goes."""
    rings = np.asarray(loops, float)
    surface = sweep(rings)
    if not top:
        n = rings.shape[1]
        surface = replace(
            surface,
            vertices=surface.vertices[:-n],
            normals=surface.normals[:-n],
            uvs=surface.uvs[:-n],
            faces=surface.faces[: -(n - 2)],
        )
    if hulls == "whole":
        return Part(surface, (rings.reshape(-1, 3),))
    return Part(surface, tuple(rings[i : i + 2].reshape(-1, 3) for i in range(len(rings) - 1)))


def pillow(length: float, width: float, height: float, radius: float, edge: float, top: bool = True, steps: int = 3) -> Part:
    """A box with rounded corners and edges rounded by `edge`."""
    wide = rounded_rectangle(length, width, radius, steps)
    narrow = rounded_rectangle(length - 2 * edge, width - 2 * edge, max(radius - edge, 0.3 * radius), steps)
    levels = ((narrow, 0.0), (wide, edge), (wide, height - edge), (narrow, height))
    return loft([np.c_[loop, np.full(len(loop), z)] for loop, z in levels], top=top)


def pillow_top(length: float, width: float, height: float, radius: float, edge: float, steps: int = 3) -> Part:
    """The lid of such a box."""
    return lid(rounded_rectangle(length - 2 * edge, width - 2 * edge, max(radius - edge, 0.3 * radius), steps), height)


def rings_along(path: ArrayLike, radii: ArrayLike, sides: int, up: ArrayLike = (0, 0, 1)) -> Array:
    """Rings [m, sides, 3] across a path [m, 3], each with a flat edge away from `up`. Radii [m], or [m, 2]: sideways, upwards."""
    points = np.asarray(path, float)
    given = np.asarray(radii, float)
    radius = np.broadcast_to(given if given.ndim == 2 else given.reshape(-1, 1), (len(points), 2)) / np.cos(np.pi / sides)
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(np.asarray(up, float), along)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angles = 2 * np.pi * (np.arange(sides) + 0.5) / sides - np.pi / 2
    across = radius[:, None, :1] * np.cos(angles)[None, :, None] * side[:, None]
    return points[:, None] + across + radius[:, None, 1:] * np.sin(angles)[None, :, None] * np.cross(along, side)[:, None]


def tube(path: ArrayLike, radii: ArrayLike, sides: int = 8, up: ArrayLike = (0, 0, 1), hulls: str = "links") -> Part:
    """A bent rod; radii are those of the flats."""
    return loft(rings_along(path, radii, sides, up), hulls)


def rod(stations: Rings, sides: int = 8, height: float = 0.0) -> Part:
    """A convex rod along x through (x, radius), lying at `height`, on a flat where it is thickest."""
    axis = height + max(radius for _, radius in stations)
    path = [(x, 0, axis) for x, _ in stations]
    return tube(path, [radius for _, radius in stations], sides, hulls="whole")


def disc(radius: float, segments: int = 16, phase: float = 0.0) -> Array:
    """A round outline [segments, 2]."""
    angles = phase + 2 * np.pi * np.arange(segments) / segments
    return radius * np.c_[np.cos(angles), np.sin(angles)]


def oval(length: float, width: float, segments: int = 12) -> Array:
    return disc(0.5, segments) * [length, width]


def upright(outline: ArrayLike, width: float) -> Part:
    """A prism along y, its middle at y = 0, over a convex outline [n, 2] of (x, z), counter-clockwise seen from -y."""
    return prism(outline, width).about_x(np.pi / 2).at(y=width / 2)
