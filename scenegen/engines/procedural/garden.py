"""More fruit and vegetables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import Part, ball, frustum, loft, put, rings_along, rod, tube, turned
from scenegen.engines.procedural.prints import LEAF, plain, shade
from scenegen.palette import rgb

_STALK = np.array([0.42, 0.52, 0.22])
_PALE_STALK = np.array([0.68, 0.76, 0.42])
_BARK = np.array([0.40, 0.27, 0.15])


def _leaves(count: int, length: float, width: float, rise: float) -> list[Part]:
    """Pointed leaves from the axis outwards and up."""
    leaf = frustum((0.004, 0.5 * width), (0.0025, 0.35 * width), length, (rise, 0))
    return [leaf.about_z(2 * np.pi * i / count) for i in range(count)]


def _star(count: int, length: float, droop: float) -> list[Part]:
    """The small leaves around a stem, lying on what is below."""
    path = [(0.001, 0, 0.001), (0.55 * length, 0, 0.001 - 0.2 * droop), (length, 0, 0.001 - droop)]
    leaf = tube(path, [[0.0025, 0.001], [0.003, 0.001], [0.001, 0.001]], 4, hulls="links")
    return [leaf.about_z(2 * np.pi * i / count) for i in range(count)]


def _stem(radius: float, height: float, lean: float = 0.0) -> Part:
    return frustum((2 * radius, 2 * radius), (1.6 * radius, 1.6 * radius), height, (lean, 0))


def _broccoli(recipe: Recipe) -> Form:
    size = recipe.length(0.0165, 0.0195)
    dark = 0.9 * recipe.paint
    form = Form({"body": textures.speckle(dark, 0.62 * dark, recipe.rng, 0.30, 48, 48), "stalk": plain(_PALE_STALK, recipe.rng)})
    put(form, "stalk", turned([(0.62 * size, 0), (0.50 * size, 0.016)], 8, closed=(True, False)))
    put(form, "stalk", turned([(0.50 * size, 0.016), (0.9 * size, 0.028)], 8, closed=(False, False)))
    bud = ball(0.66 * size, 0.9, 7, 3)
    for angle in np.arange(5) * 2 * np.pi / 5:
        put(form, "body", bud.at(0.56 * size * np.cos(angle), 0.56 * size * np.sin(angle), 0.020))
    put(form, "body", ball(0.8 * size, 0.9, 8, 4).at(z=0.026))
    form.grasp, form.centred = Grasp(2.1 * size, 0.029, symmetric=True), False
    return form


def _mushroom(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0195, 0.0225), recipe.length(0.036, 0.044)
    cap = textures.solid(recipe.paint, recipe.rng, 48, 64)
    if recipe.color == "red":
        prints.spots(cap, recipe.rng.uniform((0, 0.02), (1, 0.55), (13, 2)).tolist(), 0.045, 0.06, rgb("white"))
    form = Form({"cap": cap, "stem": plain((0.92, 0.88, 0.78), recipe.rng), "gills": plain((0.80, 0.70, 0.56), recipe.rng)})
    put(form, "stem", turned([(0.50 * radius, 0), (0.42 * radius, 0.46 * height)], 10, closed=(True, False)))
    dome = [(radius, 0.50), (0.94 * radius, 0.66), (0.68 * radius, 0.88), (0.30 * radius, 1.0)]
    under = [(0.42 * radius, 0.44 * height), (radius, 0.50 * height)]
    put(form, "gills", turned(under, 12, (True, False)))
    put(form, "cap", turned([(r, z * height) for r, z in dome], 12, (False, True), crease_deg=60))
    form.grasp = Grasp(2 * radius, 0.56 * height, symmetric=True)
    return form


def _lying(stations: ArrayLike, bend: float = 0.0, sides: int = 8, squash: float = 1.0) -> np.ndarray:
    """Rings of a body along x through (x, radius) whose underside lies on z = 0, bent sideways by `bend` in the middle."""
    x, radius = np.asarray(stations, float).T
    t = 2 * (x - x.min()) / np.ptp(x) - 1
    rings = rings_along(np.c_[x, bend * (1 - t * t), radius], np.c_[radius, squash * radius], sides)
    rings[..., 2] -= rings[..., 2].min(axis=1, keepdims=True)
    return rings


def _strawberry(recipe: Recipe) -> Form:
    radius = recipe.length(0.0165, 0.0195)
    skin = textures.solid(recipe.paint, recipe.rng, 48, 48)
    prints.spots(
        skin,
        [(x + (i // 7 % 2) / 14, y) for i, (x, y) in enumerate(prints.lattice(7, 7, 0, 0.04, 1, 0.96))],
        0.022,
        0.03,
        (0.96, 0.80, 0.36),
    )
    form = Form({"body": skin, "leaf": plain(LEAF, recipe.rng)})
    profile = [
        (0.30 * radius, 0),
        (0.66 * radius, 0.45 * radius),
        (0.94 * radius, 1.2 * radius),
        (radius, 1.65 * radius),
        (0.86 * radius, 2.05 * radius),
        (0.45 * radius, 2.25 * radius),
    ]
    put(form, "body", turned(profile, 10, crease_deg=60))
    put(
        form,
        "leaf",
        *(leaf.at(z=2.25 * radius) for leaf in _star(5, 0.95 * radius, 0.10 * radius)),
        _stem(0.0018, 0.006, 0.002).at(z=2.25 * radius),
    )
    form.grasp = Grasp(2 * radius, 1.5 * radius, symmetric=True)
    return form


def _garlic(recipe: Recipe) -> Form:
    radius = recipe.length(0.0195, 0.0225)
    tinge = 0.7 * recipe.paint + 0.3 * rgb("purple")
    skin = prints.upright_stripes(recipe.paint, tinge, recipe.rng, 9, 0.14)
    form = Form({"body": skin, "neck": plain(0.92 * recipe.paint, recipe.rng)})
    put(
        form,
        "body",
        turned(
            [
                (0.45 * radius, 0),
                (0.92 * radius, 0.35 * radius),
                (radius, 0.75 * radius),
                (0.80 * radius, 1.25 * radius),
                (0.34 * radius, 1.62 * radius),
            ],
            12,
            (True, False),
            60,
        ),
    )
    put(form, "neck", turned([(0.34 * radius, 1.62 * radius), (0.17 * radius, 1.95 * radius)], 8, (False, True)))
    form.grasp = Grasp(2 * radius, 0.75 * radius, symmetric=True)
    return form


def _onion(recipe: Recipe) -> Form:
    radius = recipe.length(0.0190, 0.0220)
    color = {"brown": np.array([0.66, 0.40, 0.18]), "purple": np.array([0.46, 0.16, 0.40])}.get(recipe.color, recipe.paint)
    form = Form(
        {"body": prints.upright_stripes(color, 0.82 * color, recipe.rng, 20, 0.3), "tip": plain((0.78, 0.66, 0.42), recipe.rng)}
    )
    put(
        form,
        "body",
        turned(
            [
                (0.40 * radius, 0),
                (0.88 * radius, 0.35 * radius),
                (radius, 0.85 * radius),
                (0.84 * radius, 1.35 * radius),
                (0.30 * radius, 1.78 * radius),
            ],
            12,
            (True, False),
            60,
        ),
    )
    put(form, "tip", turned([(0.30 * radius, 1.78 * radius), (0.08 * radius, 2.45 * radius)], 8, (False, True)))
    form.grasp = Grasp(2 * radius, 0.85 * radius, symmetric=True)
    return form


def _chili(recipe: Recipe) -> Form:
    radius, length = recipe.length(0.0085, 0.0105), recipe.length(0.075, 0.095)
    grow = [(-0.5, 0.2), (-0.3, 0.62), (-0.05, 0.92), (0.2, 1.0), (0.36, 0.94), (0.42, 0.55)]
    rings = _lying(np.array(grow) * (length, radius), bend=0.011)
    grip = rings[2:4, :, 1].mean()
    form = Form({"body": textures.solid(recipe.paint, recipe.rng, 32, 32), "stem": plain(_STALK, recipe.rng)})
    put(form, "body", loft(rings, "links").at(y=-grip))
    end = rings[-1].mean(axis=0)
    put(
        form,
        "stem",
        tube(
            [end + (0, -grip, 0), end + (0.007, -grip - 0.001, 0.003), end + (0.013, -grip - 0.004, 0.006)],
            [0.0035, 0.002, 0.002],
            6,
        ),
    )
    form.grasp, form.centred = Grasp(2.0 * radius, radius, yaw=np.pi / 2), False
    return form


def _bell_pepper(recipe: Recipe) -> Form:
    half, height = recipe.length(0.0185, 0.0215), recipe.length(0.040, 0.048)
    angles = 2 * np.pi * (np.arange(12) + 0.5) / 12
    lobes = (np.abs(np.cos(angles)) ** 3.2 + np.abs(np.sin(angles)) ** 3.2) ** (-1 / 3.2)
    outline = np.c_[np.cos(angles), np.sin(angles)] * lobes[:, None]
    levels = ((0.62, 0.0), (0.84, 0.14), (1.0, 0.62), (0.92, 0.86), (0.58, 1.0))
    loops = [np.c_[half * f * outline, np.full(12, z * height)] for f, z in levels]
    skin = textures.solid(recipe.paint, recipe.rng, 48, 64)
    columns = np.arange(64) * 4 / 64 % 1
    skin *= (1 - 0.30 * np.exp(-((np.abs(columns - 0.5) / 0.07) ** 2)))[None, :, None]
    form = Form({"body": skin, "stem": plain(LEAF * 1.1, recipe.rng)})
    put(form, "body", loft(loops[:3], top=False), loft(loops[2:]))
    put(form, "stem", turned([(0.007, 0), (0.004, 0.0025)], 8).at(z=height), _stem(0.0028, 0.012, 0.003).at(z=height))
    form.grasp = Grasp(2.1 * half, 0.55 * height, symmetric=True)
    return form


def _corn(recipe: Recipe) -> Form:
    radius, length = recipe.length(0.0125, 0.0150), recipe.length(0.085, 0.105)
    grow = np.array([(-0.5, 0.35), (-0.38, 0.72), (-0.1, 0.97), (0.2, 1.0), (0.45, 0.86)]) * (length, radius)
    form = Form(
        {
            "body": prints.kernels(recipe.paint * 1.16, recipe.rng, 64, 48, 18, 8),
            "husk": plain((0.45, 0.62, 0.24), recipe.rng, 16, 32, 0.2),
        }
    )
    put(form, "body", loft(_lying(grow)))
    for side in (-1, 1):
        path = [
            (0.50 * length, 0, 0.010),
            (0.34 * length, side * 0.95 * radius, 0.011),
            (0.23 * length, side * 1.25 * radius, 0.006),
        ]
        put(form, "husk", tube(path, [[0.005, 0.008], [0.0025, 0.0085], [0.001, 0.0035]], 6))
    put(form, "husk", rod([(0.44 * length, 0.009), (0.60 * length, 0.0045)], 8, 0.003))
    form.grasp = Grasp(2 * radius, radius, yaw=np.pi / 2)
    return form


def _pear(recipe: Recipe) -> Form:
    radius = recipe.length(0.0185, 0.0215)
    image = textures.skin(recipe.paint, 0.7 * recipe.paint + 0.3 * rgb("brown"), recipe.rng, strength=0.25)
    form = Form({"body": image, "stem": plain(_BARK, recipe.rng)})
    belly = [
        (0.50 * radius, 0),
        (0.90 * radius, 0.35 * radius),
        (radius, 0.80 * radius),
        (0.86 * radius, 1.20 * radius),
        (0.52 * radius, 1.60 * radius),
    ]
    neck = [(0.52 * radius, 1.60 * radius), (0.42 * radius, 1.95 * radius), (0.20 * radius, 2.10 * radius)]
    put(form, "body", turned(belly, 10, (True, False), 60), turned(neck, 10, (False, True), 60))
    put(form, "stem", _stem(0.0018, 0.006, 0.003).at(z=2.08 * radius))
    form.grasp = Grasp(2 * radius, 0.85 * radius, symmetric=True)
    return form


def _pineapple(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0175, 0.0200), recipe.length(0.034, 0.038)
    v, u = np.mgrid[0:64, 0:96]
    lines = np.minimum(np.abs((u / 96 * 10 + v / 64 * 5) % 1 - 0.5), np.abs((u / 96 * 10 - v / 64 * 5) % 1 - 0.5)) < 0.05
    skin = np.where(
        lines[..., None], np.array([0.55, 0.36, 0.12]), textures.solid(recipe.paint * (1.0, 0.96, 0.95), recipe.rng, 64, 96)
    )
    form = Form({"body": skin, "leaf": plain(LEAF, recipe.rng, 16, 32, 0.2)})
    put(
        form,
        "body",
        turned(
            [
                (0.72 * radius, 0),
                (0.96 * radius, 0.25 * height),
                (radius, 0.5 * height),
                (0.92 * radius, 0.8 * height),
                (0.55 * radius, height),
            ],
            12,
            crease_deg=60,
        ),
    )
    for count, rise, length, phase in ((4, 0.011, 0.010, 0.0), (3, 0.005, 0.013, 0.5)):
        put(form, "leaf", *(leaf.about_z(phase).at(z=height) for leaf in _leaves(count, length, 0.010, rise)))
    form.grasp = Grasp(2 * radius, 0.45 * height, symmetric=True)
    return form


def _pumpkin(recipe: Recipe) -> Form:
    radius = recipe.length(0.0200, 0.0225)
    form = Form(
        {"body": prints.upright_stripes(recipe.paint, 0.72 * recipe.paint, recipe.rng, 9, 0.2), "stem": plain(_STALK, recipe.rng)}
    )
    put(
        form,
        "body",
        turned(
            [
                (0.55 * radius, 0),
                (0.93 * radius, 0.30 * radius),
                (radius, 0.72 * radius),
                (0.86 * radius, 1.16 * radius),
                (0.45 * radius, 1.40 * radius),
            ],
            12,
            crease_deg=60,
        ),
    )
    put(form, "stem", frustum((0.010, 0.010), (0.006, 0.006), 0.010, (0.003, 0)).at(z=1.40 * radius))
    form.grasp = Grasp(2 * radius, 0.72 * radius, symmetric=True)
    return form


def _watermelon(recipe: Recipe) -> Form:
    radius = recipe.length(0.0190, 0.0220)
    grow = np.array([(-1.35, 0.25), (-1.05, 0.72), (-0.45, 0.98), (0.45, 0.98), (1.05, 0.72), (1.35, 0.25)]) * radius
    skin = prints.upright_stripes(recipe.paint, shade(rgb("lime"), 0.85), recipe.rng, 8, 0.28, 48, 96)
    form = Form({"body": skin, "stem": plain(_STALK, recipe.rng)})
    path = np.c_[grow[:, 0], np.zeros(6), np.full(6, grow[:, 1].max())]
    put(form, "body", tube(path, grow[:, 1], 10, hulls="whole"))
    form.grasp = Grasp(2 * 0.98 * radius, 0.98 * radius, yaw=np.pi / 2)
    return form


def _grapes(recipe: Recipe) -> Form:
    size = recipe.length(0.0068, 0.0080)
    form = Form({"body": textures.solid(recipe.paint, recipe.rng, 32, 32, 0.1), "stem": plain(_BARK, recipe.rng)})
    step = 1.6 * size
    rows = [(-1, (-1, 0, 1)), (0, (-0.5, 0.5)), (1, (0,))]
    places = [(step * x, step * y, 0.0) for x, ys in rows for y in ys] + [
        (-0.62 * step, step * y, 1.35 * size) for y in (-0.5, 0.5)
    ]
    for x, y, z in places:
        put(form, "body", ball(size, 1.0, 6, 3).at(x, y, z))
    path = [(-1.0 * step, 0, 1.9 * size), (-1.7 * step, 0, 2.4 * size), (-2.2 * step, 0.003, 2.3 * size)]
    put(form, "stem", tube(path, [0.0022, 0.0018, 0.0022], 5))
    form.grasp, form.centred = Grasp(2 * (step + 0.95 * size), 1.0 * size, yaw=np.pi / 2), False
    return form


def _radish_like(color: str) -> Callable[[Recipe], Form]:
    """A round root with a tail and a tuft of leaves, lying."""

    def build(recipe: Recipe) -> Form:
        radius = recipe.length(0.0150, 0.0180)
        form = Form(
            {
                "body": textures.solid(recipe.paint, recipe.rng, 48, 48),
                "tail": plain(rgb(color), recipe.rng),
                "leaf": plain(LEAF * 1.15, recipe.rng),
            }
        )
        grow = np.array([(-1.05, 0.30), (-0.75, 0.76), (-0.35, 1.0), (0.40, 1.0), (0.78, 0.76), (0.98, 0.36)]) * radius
        path = np.c_[grow[:, 0], np.zeros(6), np.full(6, radius)]
        put(form, "body", tube(path, grow[:, 1], 10, hulls="whole"))
        put(form, "tail", rod([(-1.75 * radius, 0.001), (-1.0 * radius, 0.28 * radius)], 6, 0.72 * radius))
        for turn in (-0.5, 0.0, 0.5):
            leaf = tube([(0, 0, 0), (0.012, 0, 0.002), (0.024, 0, 0.0)], [[0.002, 0.0015], [0.006, 0.002], [0.002, 0.0015]], 6)
            put(form, "leaf", leaf.about_z(turn).at(x=0.9 * radius, z=radius))
        form.grasp, form.centred = Grasp(2 * radius, radius, yaw=np.pi / 2), False
        return form

    return build


_STUFF = ("produce",)
FAMILIES = (
    Family(("broccoli",), ("green",), _STUFF, _broccoli, 0.052, graspable=True, speaks_color=False),
    Family(
        ("mushroom", "champignon", "toadstool"),
        ("beige", "brown", "white", "red"),
        _STUFF,
        _mushroom,
        0.046,
        graspable=True,
        speaks_color=False,
    ),
    Family(("strawberry",), ("red",), _STUFF, _strawberry, 0.042, graspable=True, speaks_color=False),
    Family(("garlic", "garlic bulb"), ("white",), _STUFF, _garlic, 0.046, graspable=True, speaks_color=False),
    Family(("onion",), ("brown", "purple", "white"), _STUFF, _onion, 0.046, graspable=True, speaks_color=False),
    Family(
        ("chili pepper", "chili", "chilli", "chilli pepper", "hot pepper"),
        ("red", "green"),
        _STUFF,
        _chili,
        0.110,
        graspable=True,
    ),
    Family(
        ("bell pepper", "sweet pepper", "paprika", "capsicum"),
        ("red", "yellow", "green", "orange"),
        _STUFF,
        _bell_pepper,
        0.046,
        graspable=True,
    ),
    Family(
        ("corn", "corn cob", "ear of corn", "sweet corn"), ("yellow",), _STUFF, _corn, 0.118, graspable=True, speaks_color=False
    ),
    Family(("pear",), ("lime", "green", "yellow"), _STUFF, _pear, 0.044, graspable=True, speaks_color=False),
    Family(("pineapple",), ("yellow",), _STUFF, _pineapple, 0.046, graspable=True, speaks_color=False),
    Family(("pumpkin",), ("orange",), _STUFF, _pumpkin, 0.046, graspable=True, speaks_color=False),
    Family(("watermelon", "melon"), ("green",), _STUFF, _watermelon, 0.061, graspable=True, speaks_color=False),
    Family(("grapes", "bunch of grapes", "grape"), ("purple", "lime"), _STUFF, _grapes, 0.061, graspable=True),
    Family(("radish",), ("red", "pink"), _STUFF, _radish_like("white"), 0.075, graspable=True, speaks_color=False),
    Family(("beetroot", "beet"), ("purple",), _STUFF, _radish_like("purple"), 0.075, graspable=True, speaks_color=False),
)
