"""More toys: vehicles, figures, balls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    ball,
    box,
    disc,
    frustum,
    lid,
    loft,
    put,
    rod,
    tube,
    turned,
    upright,
)
from scenegen.engines.procedural.prints import DARK, METAL, plain, shade
from scenegen.engines.procedural.toys import BRIGHT
from scenegen.palette import rgb

_SKIN = np.array([0.93, 0.74, 0.58])
_GLASS = np.array([0.68, 0.84, 0.94])


def _wheels(form: Form, panel: str, radius: float, places: list[tuple[float, float]], width: float) -> None:
    """On either side of a body, standing on z = 0; (x, y) is where an axle leaves the body."""
    for x, y in places:
        wheel = turned([(radius, 0), (radius, width)], 10, (False, True)).about_x(np.pi / 2 * (1 if y < 0 else -1))
        put(form, panel, wheel.at(x, y, radius * np.cos(np.pi / 10)))


def _toy_car(recipe: Recipe) -> Form:
    length, width = recipe.length(0.056, 0.066), recipe.length(0.026, 0.030)
    radius = 0.0075
    body = textures.solid(recipe.paint, recipe.rng, 32, 48)
    windows = plain(recipe.paint, recipe.rng, 24, 48)
    prints.rectangle(windows, 0.08, 0.18, 0.46, 0.86, _GLASS * 0.72)
    prints.rectangle(windows, 0.54, 0.18, 0.92, 0.86, _GLASS * 0.72)
    tyre = prints.rectangle(plain(DARK, recipe.rng, 16), 0, 0, 1, 0.22, METAL)
    form = Form({"body": body, "window": windows, "tyre": tyre, "lamp": plain((1.0, 0.95, 0.7), recipe.rng)})
    low, high = 0.005, 0.0165
    profile = np.array([(-0.5, low), (0.5, low), (0.5, 0.78 * high), (0.42, high), (-0.46, high), (-0.5, 0.9 * high)])
    put(form, "body", upright(profile * (length, 1), width))
    cabin = frustum(
        (0.58 * length, width - 0.001),
        (0.36 * length, width - 0.006),
        0.0125,
        (-0.02 * length, 0),
        ("front", "right", "back", "left"),
    )
    put(form, "window", cabin.at(-0.06 * length, 0, high))
    put(
        form,
        "body",
        frustum((0.36 * length, width - 0.006), (0.34 * length, width - 0.007), 0.002).at(-0.08 * length, 0, high + 0.0125),
    )
    for y in (-0.3, 0.3):
        put(form, "lamp", box(0.002, 0.005, 0.004).at(length / 2, y * width, 0.55 * high))
    _wheels(form, "tyre", radius, [(x * length, y * width / 2) for x in (-0.29, 0.30) for y in (-1, 1)], 0.003)
    form.grasp, form.centred = Grasp(width, high, yaw=np.pi / 2), False
    return form


def _toy_train(recipe: Recipe) -> Form:
    length, width = recipe.length(0.058, 0.068), recipe.length(0.024, 0.028)
    trim = rgb("yellow") if recipe.color not in ("yellow", "orange") else rgb("red")
    cab = textures.solid(recipe.paint, recipe.rng, 32, 32)
    prints.rectangle(cab, 0.25, 0.12, 0.75, 0.52, _GLASS * 0.8)
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 48),
            "cab": cab,
            "black": plain(DARK, recipe.rng),
            "trim": plain(trim, recipe.rng),
        }
    )
    put(form, "body", box(length, width, 0.007).at(z=0.006))
    boiler = 0.0105
    put(form, "body", rod([(-0.08 * length, boiler), (0.46 * length, boiler)], 10, 0.013))
    put(form, "trim", rod([(0.46 * length, 0.9 * boiler), (0.50 * length, 0.9 * boiler)], 10, 0.0140))
    put(form, "cab", box(0.36 * length, width, 0.028, ("front", "right", "back", "left")).at(-0.29 * length, 0, 0.013))
    put(form, "trim", frustum((0.44 * length, width + 0.004), (0.40 * length, width), 0.004).at(-0.29 * length, 0, 0.041))
    put(form, "black", frustum((0.008, 0.008), (0.012, 0.012), 0.014).at(0.30 * length, 0, 0.032))
    put(form, "trim", turned([(0.005, 0), (0.003, 0.005)], 8).at(0.08 * length, 0, 0.0335))
    _wheels(form, "black", 0.0085, [(x * length, y * width / 2) for x in (-0.28, 0.27) for y in (-1, 1)], 0.0025)
    form.grasp, form.centred = Grasp(width, 0.022, yaw=np.pi / 2), False
    return form


def _toy_boat(recipe: Recipe) -> Form:
    length, width = recipe.length(0.064, 0.074), recipe.length(0.028, 0.034)
    hull = textures.solid(recipe.paint, recipe.rng, 32, 48)
    hull[20:] = 0.75 * hull[20:]
    form = Form(
        {
            "body": hull,
            "deck": textures.wood(np.array([0.80, 0.62, 0.40]), recipe.rng, 24, 32),
            "cabin": plain(prints.WHITE, recipe.rng),
            "funnel": plain(shade(recipe.paint, 0.9), recipe.rng),
        }
    )
    outline = np.array(
        [(-0.46, -0.42), (0.16, -0.5), (0.36, -0.30), (0.5, -0.03), (0.5, 0.03), (0.36, 0.30), (0.16, 0.5), (-0.46, 0.42)]
    )
    loops = [np.c_[outline * (length, width) * f, np.full(8, z)] for f, z in ((0.74, 0.0), (1.0, 0.017))]
    put(form, "body", loft(loops, top=False))
    put(form, "deck", lid(outline * (length, width), 0.017))
    put(form, "cabin", box(0.30 * length, 0.52 * width, 0.010).at(-0.12 * length, 0, 0.017))
    put(form, "funnel", turned([(0.0055, 0), (0.0050, 0.015)], 10).at(-0.16 * length, 0, 0.027))
    put(form, "body", box(0.13 * length, 0.40 * width, 0.009).at(0.0, 0, 0.027))
    form.grasp, form.centred = Grasp(width * 0.98, 0.014, yaw=np.pi / 2), False
    return form


def _face(colour: np.ndarray, rng: np.random.Generator, eyes: float = 0.42, smile: bool = False) -> np.ndarray:
    """Wrapped around a head: it looks to the front (-y), three quarters of the way round."""
    image = plain(colour, rng, 32, 64)
    for x in (0.69, 0.81):
        prints.spot(image, x, eyes, 0.022, 0.055, DARK)
    if smile:
        for t in np.linspace(-1, 1, 9):
            prints.spot(image, 0.75 + 0.055 * t, eyes + 0.24 - 0.07 * t * t, 0.012, 0.03, (0.75, 0.2, 0.2))
    return image


def _figurine(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0150, 0.0175), recipe.length(0.036, 0.040)
    hair = [np.array(c) for c in ((0.35, 0.2, 0.1), (0.9, 0.75, 0.35), (0.12, 0.1, 0.1))][int(recipe.rng.integers(3))]
    body = textures.solid(recipe.paint, recipe.rng, 32, 32)
    prints.rectangle(body, 0, 0.62, 1, 0.70, prints.other(recipe.paint))
    form = Form({"body": body, "head": _face(_SKIN, recipe.rng, 0.16, smile=True), "hair": plain(hair, recipe.rng)})
    put(form, "body", turned([(radius, 0), (radius, 0.004), (0.62 * radius, height)], 12))
    head = 0.66 * radius
    put(
        form,
        "head",
        turned([(0.5 * head, 0), (head, 0.5 * head), (head, 1.4 * head)], 12, (True, False), 60).at(z=height - 0.001),
    )
    put(
        form,
        "hair",
        turned([(1.06 * head, 0), (0.94 * head, 0.45 * head), (0.5 * head, 0.80 * head)], 12, crease_deg=60).at(
            z=height - 0.001 + 1.4 * head
        ),
    )
    for side in (-1, 1):
        put(
            form,
            "body",
            tube(
                [(side * 0.62 * radius, 0, 0.86 * height), (side * 1.0 * radius, -0.002, 0.45 * height)], 0.0032, 6, up=(0, 1, 0)
            ),
        )
    form.grasp, form.centred = Grasp(1.7 * radius, 0.32 * height, yaw=np.pi / 2), False
    return form


def _rubber_duck(recipe: Recipe) -> Form:
    size = recipe.length(0.0175, 0.0205)
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 32),
            "head": _face(recipe.paint, recipe.rng),
            "beak": plain(rgb("orange") if recipe.color != "orange" else rgb("red"), recipe.rng),
        }
    )
    outline = disc(1.0, 12)
    levels = ((0.72, 0.0), (1.0, 0.38), (0.96, 0.72), (0.62, 1.0))
    put(form, "body", loft([np.c_[outline * (1.35 * size, size) * f, np.full(12, 1.25 * size * z)] for f, z in levels]))
    put(form, "body", frustum((0.010, 1.0 * size), (0.004, 0.5 * size), 0.011, (-0.006, 0)).at(-1.18 * size, 0, 0.85 * size))
    head = ball(0.68 * size, 0.95, 10, 4).about_z(np.pi / 2)
    put(form, "head", head.at(0.62 * size, 0, 1.15 * size))
    put(form, "beak", frustum((0.010, 0.016), (0.009, 0.012), 0.005, (0.001, 0)).at(1.32 * size, 0, 1.55 * size))
    for side in (-1, 1):
        wing = frustum((1.2 * size, 0.004), (1.0 * size, 0.002), 0.55 * size, (-0.2 * size, 0))
        put(form, "body", wing.at(-0.15 * size, side * 0.92 * size, 0.48 * size))
    form.grasp, form.centred = Grasp(2.0 * size, 0.55 * size, yaw=np.pi / 2), False
    return form


def _teddy(recipe: Recipe) -> Form:
    size = recipe.length(0.0135, 0.0155)
    pale = shade(recipe.paint, 1.35) if recipe.color != "white" else rgb("beige")
    muzzle = prints.spot(plain(pale, recipe.rng), 0.5, 0.1, 0.5, 0.28, DARK)
    form = Form({"body": textures.fabric(recipe.paint, recipe.rng, 32), "head": _face(recipe.paint, recipe.rng), "pale": muzzle})
    put(
        form,
        "body",
        turned(
            [(0.70 * size, 0), (size, 0.6 * size), (0.92 * size, 1.3 * size), (0.55 * size, 1.95 * size)], 10, (True, False), 60
        ),
    )
    put(form, "head", ball(0.86 * size, 0.92, 10, 4).at(z=1.72 * size))
    put(
        form,
        "pale",
        turned([(0.42 * size, 0), (0.3 * size, 0.3 * size)], 8, (False, True))
        .about_x(np.pi / 2)
        .at(0, -0.74 * size, 2.32 * size),
    )
    for side in (-1, 1):
        put(
            form,
            "body",
            turned([(0.32 * size, 0), (0.32 * size, 0.22 * size)], 8)
            .about_x(np.pi / 2)
            .at(side * 0.66 * size, 0.1 * size, 3.12 * size),
        )
        put(
            form,
            "body",
            tube(
                [(side * 0.55 * size, -0.3 * size, 0.36 * size), (side * 0.80 * size, -1.62 * size, 0.34 * size)],
                [0.36 * size, 0.34 * size],
                6,
            ),
        )
        put(
            form,
            "body",
            tube(
                [(side * 0.75 * size, -0.1 * size, 1.5 * size), (side * 0.98 * size, -0.75 * size, 0.85 * size)],
                [0.28 * size, 0.28 * size],
                6,
                up=(0, 1, 0),
            ),
        )
    form.grasp, form.centred = Grasp(2.35 * size, 1.3 * size), False
    return form


def _snowman(recipe: Recipe) -> Form:
    size = recipe.length(0.0180, 0.0205)
    scarf = rgb(str(recipe.rng.choice(["red", "blue", "green"])))
    form = Form(
        {
            "body": plain(recipe.paint, recipe.rng, 32),
            "head": _face(recipe.paint, recipe.rng),
            "scarf": plain(scarf, recipe.rng),
            "hat": plain(DARK, recipe.rng),
            "nose": plain(rgb("orange"), recipe.rng),
        }
    )
    put(
        form,
        "body",
        turned(
            [(0.74 * size, 0), (size, 0.55 * size), (0.96 * size, 1.05 * size), (0.58 * size, 1.66 * size)], 12, crease_deg=60
        ),
    )
    put(form, "head", ball(0.68 * size, 0.95, 10, 4).at(z=1.62 * size))
    put(form, "scarf", turned([(0.62 * size, 0), (0.62 * size, 0.22 * size)], 10).at(z=1.50 * size))
    top = 1.62 * size + 2 * 0.95 * 0.68 * size * np.sin(np.pi / 2 * 0.86)
    put(
        form,
        "hat",
        turned([(0.66 * size, 0), (0.66 * size, 0.0015)], 10).at(z=top - 0.003),
        turned([(0.42 * size, 0), (0.40 * size, 0.011)], 10, (False, True)).at(z=top - 0.0015),
    )
    put(form, "nose", turned([(0.0025, 0), (0.0006, 0.008)], 6).about_x(np.pi / 2).at(0, -0.62 * size, 2.25 * size))
    form.grasp, form.centred = Grasp(2 * size, 0.85 * size, symmetric=True), False
    return form


def _toy_tree(recipe: Recipe) -> Form:
    radius = recipe.length(0.0195, 0.0225)
    form = Form(
        {
            "body": textures.speckle(recipe.paint, 0.8 * recipe.paint, recipe.rng, 0.15, 32, 48),
            "trunk": plain((0.42, 0.27, 0.15), recipe.rng),
        }
    )
    put(
        form,
        "trunk",
        turned([(0.55 * radius, 0), (0.55 * radius, 0.003)], 10),
        turned([(0.26 * radius, 0.003), (0.24 * radius, 0.014)], 8, (False, False)),
    )
    z = 0.014
    for size in (1.0, 0.78, 0.55):
        put(form, "body", turned([(size * radius, z), (0.55 * size * radius, z + 0.019)], 12))
        z += 0.0145
    put(form, "body", turned([(0.16 * radius, z + 0.0045), (0.0006, z + 0.009)], 8, (False, False)))
    form.grasp, form.centred = Grasp(1.9 * radius, 0.016, symmetric=True), False
    return form


def _sport(radii: tuple[float, float], pattern: Callable[[Recipe], np.ndarray]) -> Callable[[Recipe], Form]:
    """A family of balls: radius range [m] and what is on them."""

    def build(recipe: Recipe) -> Form:
        part = ball(recipe.length(*radii), segments=12, bands=4)
        form = Form({"body": pattern(recipe)})
        put(form, "body", part)
        points = part.hulls[0]
        form.grasp = Grasp(float(2 * points[:, 0].max()), float(points[:, 2].max() / 2), symmetric=True)
        return form

    return build


def _tennis(recipe: Recipe) -> np.ndarray:
    image = textures.fabric(recipe.paint * (1.08, 1.06, 0.9), recipe.rng, 64)
    v, u = np.mgrid[0:64, 0:64] / 64
    seam = np.abs(v - 0.5 - 0.24 * np.sin(4 * np.pi * u)) < 0.035
    image[seam] = 0.97
    return np.clip(image, 0, 1)


def _soccer(recipe: Recipe) -> np.ndarray:
    image = plain(recipe.paint, recipe.rng, 64, 96)
    for row, count, shift in ((0.12, 3, 0.0), (0.38, 5, 0.1), (0.64, 5, 0.0), (0.88, 3, 0.1)):
        prints.spots(image, [((i + 0.5) / count + shift, row) for i in range(count)], 0.055, 0.085, DARK)
    return image


def _basket(recipe: Recipe) -> np.ndarray:
    image = textures.speckle(recipe.paint, 0.88 * recipe.paint, recipe.rng, 0.2, 64, 96)
    image[31:34] = DARK
    for column in (0, 24, 48, 72):
        image[:, column : column + 2] = DARK
    return image


_WOODS = ("wood", "plastic")
FAMILIES = (
    Family(("toy car", "car"), BRIGHT, ("plastic", "metal"), _toy_car, 0.070, graspable=True),
    Family(
        ("toy train", "train", "locomotive"),
        ("red", "green", "blue", "orange", "purple", "teal"),
        _WOODS,
        _toy_train,
        0.074,
        graspable=True,
    ),
    Family(
        ("toy boat", "boat", "toy ship", "ship"),
        ("red", "green", "blue", "orange", "yellow", "purple", "teal"),
        _WOODS,
        _toy_boat,
        0.075,
        graspable=True,
    ),
    Family(
        ("figurine", "toy figure", "doll", "figure"),
        ("red", "green", "blue", "orange", "yellow", "purple", "teal", "pink", "light blue"),
        _WOODS,
        _figurine,
        0.044,
        graspable=True,
    ),
    Family(
        ("rubber duck", "duck", "toy duck"),
        ("yellow", "pink", "light blue", "orange"),
        ("rubber",),
        _rubber_duck,
        0.075,
        graspable=True,
    ),
    Family(
        ("teddy bear", "teddy", "toy bear", "bear"),
        ("brown", "beige", "white", "pink"),
        ("fabric",),
        _teddy,
        0.055,
        graspable=True,
    ),
    Family(("snowman",), ("white",), ("plastic",), _snowman, 0.046, graspable=True, speaks_color=False),
    Family(("toy tree", "tree"), ("green", "lime", "teal"), _WOODS, _toy_tree, 0.047, graspable=True, speaks_color=False),
    Family(
        ("tennis ball",), ("lime",), ("rubber",), _sport((0.0185, 0.0220), _tennis), 0.046, graspable=True, speaks_color=False
    ),
    Family(
        ("soccer ball", "football"),
        ("white",),
        ("rubber",),
        _sport((0.0195, 0.0225), _soccer),
        0.046,
        graspable=True,
        speaks_color=False,
    ),
    Family(
        ("basketball",), ("orange",), ("rubber",), _sport((0.0195, 0.0225), _basket), 0.046, graspable=True, speaks_color=False
    ),
)
