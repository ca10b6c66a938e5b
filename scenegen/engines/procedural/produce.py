"""Fruit and vegetables. What is long lies on its side on a flat strip, so that it does not roll."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.toys import sphere_profile
from scenegen.mesh.hulls import turned_piece
from scenegen.mesh.surfaces import Array, box_corners, hexahedron, lathe, sweep, sweep_rings
from scenegen.palette import rgb

_SIDES = 8


def _lying(length: float, radii: ArrayLike, bend: float = 0.0, sag: float = 1.0, ends: float = 0.4) -> Array:
    """Rings of a body along x with the given radii, bent sideways by `bend` [m] in the middle; the outer two rings at
    either end are `ends` half lengths apart. Its underside lies flat on z = 0 all along when sag is 1; when it is 0 the
    axis is straight and the body touches where it is thickest."""
    radius = np.asarray(radii, float)
    t = np.concatenate([[-1], np.linspace(ends - 1, 1 - ends, len(radius) - 2), [1]])
    height = sag * radius + (1 - sag) * radius.max()
    centres = np.c_[t * length / 2, bend * (0.5 - t * t), height * np.cos(np.pi / _SIDES)]
    rings = sweep_rings(centres, radius, _SIDES)
    rings[..., 2] -= rings[..., 2].min()
    return rings


def _long(recipe: Recipe, rings: Array, image: textures.Image, pieces: Sequence[Array], grip: int) -> Form:
    """A long body held across at ring `grip`."""
    form = Form({"body": image})
    form.add(sweep(rings), pieces)
    ring = rings[grip]
    form.grasp = Grasp(float(np.ptp(ring[:, 1])), float(ring[:, 2].max() / 2), yaw=np.pi / 2)
    return form


def _whole(rings: Array) -> list[Array]:
    return [rings.reshape(-1, 3)]


def _carrot(recipe: Recipe) -> Form:
    length, radius = recipe.length(0.080, 0.110), recipe.length(0.012, 0.016)
    rings = _lying(length, radius * np.array([0.35, 0.74, 0.95, 1.0, 0.9]))
    image = textures.stripes(recipe.paint, 0.88 * recipe.paint, recipe.rng, count=9)
    image[:6] = rgb("green")
    form = _long(recipe, rings, image, _whole(rings), 2)
    leaf = box_corners((0.016, 0.014, 0.006), (length / 2 + 0.008, 0, 0.6 * radius))
    form.textures["leaf"] = textures.solid(rgb("green"), recipe.rng, 16, 16)
    form.add(hexahedron(leaf), [leaf], "leaf")
    return form


def _cucumber(recipe: Recipe) -> Form:
    radius = recipe.length(0.012, 0.016)
    rings = _lying(recipe.length(0.095, 0.125), radius * np.array([0.5, 1.0, 1.0, 0.5]), sag=0.2, ends=0.3)
    return _long(
        recipe,
        rings,
        textures.stripes(recipe.paint, 1.25 * recipe.paint, recipe.rng, count=2).transpose(1, 0, 2),
        _whole(rings),
        1,
    )


def _eggplant(recipe: Recipe) -> Form:
    radius = recipe.length(0.016, 0.022)
    rings = _lying(recipe.length(0.090, 0.120), radius * np.array([0.5, 0.88, 1.0, 0.9, 0.66, 0.35]))
    image = textures.solid(recipe.paint, recipe.rng)
    image[:9] = rgb("green")
    return _long(recipe, rings, image, _whole(rings), 2)


def _banana(recipe: Recipe) -> Form:
    radius = recipe.length(0.012, 0.015)
    rings = _lying(recipe.length(0.100, 0.125), radius * np.array([0.4, 0.85, 1.0, 1.0, 0.85, 0.35]), bend=0.03)
    image = textures.skin(recipe.paint, 0.75 * recipe.paint, recipe.rng, strength=0.3)
    image[:5] = image[-4:] = rgb("brown")
    rings[..., 1] -= rings[2:4, :, 1].mean()
    form = _long(recipe, rings, image, [rings[i : i + 2].reshape(-1, 3) for i in range(len(rings) - 1)], 2)
    form.centred = False  # the middle of its bend is where to hold it, and lies beside the middle of its outline
    return form


def _round(radii: tuple[float, float], squash: float, blush: str, freckle: float, stem: str | None) -> Callable[[Recipe], Form]:
    """A family of round fruit: radius range [m], height over width, second colour, how much of it, colour of the stem."""

    def build(recipe: Recipe) -> Form:
        profile = sphere_profile(recipe.length(*radii), squash=squash * recipe.rng.uniform(0.96, 1.04))
        form = Form({"body": textures.skin(recipe.paint, rgb(blush), recipe.rng, strength=freckle)})
        form.add(lathe(profile, 10, crease_deg=60), [turned_piece(profile[1:-1], 10)])
        height = profile[-1][1]
        if stem is not None:
            stalk = box_corners((0.004, 0.004, 0.007), (0, 0, height))
            form.textures["stem"] = textures.solid(rgb(stem), recipe.rng, 16, 16)
            form.add(hexahedron(stalk, ("top", "front", "right", "back", "left")), [stalk], "stem")
        form.grasp = Grasp(2 * max(r for r, _ in profile), height / 2, symmetric=True)
        return form

    return build


def _oval(radii: tuple[float, float], stretch: float, freckle: float) -> Callable[[Recipe], Form]:
    """A family of egg-like things that lie on their side."""

    def build(recipe: Recipe) -> Form:
        radius = recipe.length(*radii)
        rings = _lying(2 * stretch * radius, radius * np.array([0.3, 0.80, 1.0, 1.0, 0.76, 0.25]), sag=0.1)
        return _long(
            recipe, rings, textures.skin(recipe.paint, 0.85 * recipe.paint, recipe.rng, strength=freckle), _whole(rings), 2
        )

    return build


_STUFF = ("produce",)
FAMILIES = (
    Family(("carrot",), ("orange",), _STUFF, _carrot, 0.127, graspable=True, speaks_color=False),
    Family(("cucumber", "zucchini"), ("green",), _STUFF, _cucumber, 0.126, graspable=True, speaks_color=False),
    Family(("eggplant", "aubergine"), ("purple",), _STUFF, _eggplant, 0.120, graspable=True, speaks_color=False),
    Family(("banana",), ("yellow",), _STUFF, _banana, 0.130, graspable=True, speaks_color=False),
    Family(
        ("apple",),
        ("red", "green", "yellow"),
        _STUFF,
        _round((0.019, 0.0225), 0.92, "orange", 0.4, "brown"),
        0.045,
        graspable=True,
    ),
    Family(
        ("orange", "tangerine", "mandarin"),
        ("orange",),
        _STUFF,
        _round((0.019, 0.0225), 0.96, "yellow", 0.2, None),
        0.045,
        graspable=True,
        speaks_color=False,
    ),
    Family(
        ("tomato",),
        ("red",),
        _STUFF,
        _round((0.018, 0.022), 0.80, "orange", 0.2, "green"),
        0.044,
        graspable=True,
        speaks_color=False,
    ),
    Family(
        ("peach",),
        ("pink", "orange"),
        _STUFF,
        _round((0.018, 0.022), 0.94, "red", 0.5, None),
        0.044,
        graspable=True,
        speaks_color=False,
    ),
    Family(("lemon",), ("yellow",), _STUFF, _oval((0.017, 0.020), 1.35, 0.2), 0.055, graspable=True, speaks_color=False),
    Family(("lime",), ("lime", "green"), _STUFF, _oval((0.015, 0.018), 1.25, 0.2), 0.046, graspable=True, speaks_color=False),
    Family(("egg",), ("white", "beige", "brown"), _STUFF, _oval((0.017, 0.020), 1.3, 0.1), 0.053, graspable=True),
    Family(("potato",), ("beige", "brown"), _STUFF, _oval((0.018, 0.022), 1.5, 0.6), 0.067, graspable=True, speaks_color=False),
)
