"""Tools, lying along x. Handles are as thick as a child's, so that a gripper can take them."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    Part,
    box,
    disc,
    frustum,
    hoop,
    lid,
    loft,
    pillow,
    prism,
    put,
    rings_along,
    rod,
    tube,
    turned,
    upright,
)
from scenegen.engines.procedural.prints import DARK, METAL, plain, shade
from scenegen.palette import rgb

_GRAY = np.array([0.60, 0.61, 0.64])


def _screwdriver(recipe: Recipe) -> Form:
    radius = recipe.length(0.0085, 0.0105)
    handle = prints.upright_stripes(recipe.paint, shade(recipe.paint, 0.6), recipe.rng, 4, 0.10, 32, 32)
    form = Form({"handle": handle, "metal": plain(METAL, recipe.rng, 16, 48)})
    put(form, "handle", rod([(-0.050, 0.75 * radius), (-0.046, radius), (0.002, radius), (0.012, 0.6 * radius)], 8))
    put(form, "metal", rod([(0.012, 0.0036), (0.044, 0.0036)], 6, radius - 0.0036))
    put(form, "metal", frustum((0.010, 0.0055), (0.010, 0.0055), 0.0030).at(0.049, 0, radius - 0.0015))
    form.grasp, form.centred = Grasp(2 * radius, radius, yaw=np.pi / 2), False
    return form


def _hammer(recipe: Recipe) -> Form:
    radius = recipe.length(0.0085, 0.0100)
    form = Form({"handle": prints.coat(recipe, 32, 48), "metal": plain(_GRAY, recipe.rng, 16, 48)})
    high = 2 * radius
    put(form, "handle", rod([(-0.066, 0.86 * radius), (-0.060, radius), (-0.010, radius), (0.046, 0.82 * radius)], 8))
    put(form, "metal", frustum((0.018, 0.018), (0.018, 0.018), high + 0.003).at(x=0.052))
    face = turned([(0.0098, 0), (0.0098, 0.007), (0.007, 0.013)], 10).about_x(-np.pi / 2)
    face = face.at(0.052, -0.022, 0.0098)
    put(form, "metal", face)
    claw = loft(
        [
            np.c_[np.array([-1, 1, 1, -1]) * w, np.full(4, y), np.array([0, 0, h, h]) + z]
            for y, w, h, z in ((0.009, 0.008, 0.014, 0.002), (0.018, 0.0075, 0.008, 0.004), (0.024, 0.007, 0.003, 0.0055))
        ][::-1]
    )
    put(form, "metal", claw.at(x=0.052))
    form.grasp, form.centred = Grasp(2 * radius, radius, yaw=np.pi / 2), False
    return form


def _jaw(angle: float, size: float, high: float) -> list[Part]:
    """An open end of a wrench: a block and two prongs, pointing along x turned by `angle`."""
    block = np.array([(-0.5, -0.45), (0.1, -0.95), (0.45, -0.95), (0.45, 0.95), (0.1, 0.95), (-0.5, 0.45)]) * size
    prong = np.array([(0.45, -0.95), (1.25, -0.85), (1.35, -0.42), (0.45, -0.42)]) * size
    other = prong[::-1] * (1, -1)
    return [prism(outline, high).about_z(angle) for outline in (block, prong, other)]


def _wrench(recipe: Recipe) -> Form:
    high, width = 0.0155, recipe.length(0.0155, 0.0175)
    color = recipe.paint if recipe.color != "gray" else _GRAY
    form = Form({"body": textures.solid(color, recipe.rng, 32, 48), "groove": plain(0.7 * color, recipe.rng)})
    put(form, "body", pillow(0.074, width, high, 0.003, 0.002, steps=2))
    put(form, "groove", box(0.050, 0.4 * width, 0.0008, ("top", "front", "right", "back", "left")).at(z=high))
    for turn, size in ((0.0, 0.0165), (np.pi, 0.0140)):
        for part in _jaw(0.25, size, high):
            put(form, "body", part.at(x=0.036 + 0.42 * size).about_z(turn))
    form.grasp, form.centred = Grasp(width, high / 2, yaw=np.pi / 2), False
    return form


def _pliers(recipe: Recipe) -> Form:
    high = 0.0160
    form = Form(
        {"handle": prints.coat(recipe, 32, 48), "metal": plain(_GRAY, recipe.rng, 16, 48), "bolt": plain(DARK * 2, recipe.rng)}
    )
    half = high / 2
    for side in (-1, 1):
        path = [
            (-0.008, 0.005 * side, half),
            (-0.022, 0.0125 * side, half),
            (-0.040, 0.0165 * side, half),
            (-0.068, 0.0140 * side, half),
        ]
        put(form, "handle", tube(path, [[0.0055, half], [0.0058, half], [0.0055, half], [0.0045, half]], 8))
        jaw = np.array([(0.008, 0.0006), (0.040, 0.0008), (0.040, 0.0045), (0.024, 0.0105), (0.008, 0.011)])
        outline = jaw if side > 0 else jaw[::-1] * (1, -1)
        put(form, "metal", prism(outline, 0.013).at(z=0.0015))
    put(form, "metal", prism(disc(0.012, 12), 0.0145).at(z=0.0005))
    put(form, "bolt", turned([(0.005, 0), (0.004, 0.0016)], 8, (False, True)).at(z=0.0150))
    form.grasp, form.centred = Grasp(0.024, half, yaw=np.pi / 2), False
    return form


def _scissors(recipe: Recipe) -> Form:
    high, ring = 0.0155, 0.0112
    form = Form(
        {"handle": prints.coat(recipe, 32, 48), "metal": plain(METAL, recipe.rng, 16, 48), "bolt": plain(_GRAY, recipe.rng)}
    )
    for side in (-1, 1):
        eye = hoop([(0.0062, 0), (ring, 0), (ring, high), (0.0062, high)], 8)
        put(form, "handle", eye.at(-0.040, 0.0116 * side))
        put(
            form,
            "handle",
            tube(
                [(-0.032, 0.0070 * side, high / 2), (-0.014, 0.0050 * side, high / 2), (0.006, 0.0030 * side, high / 2)],
                [[0.0040, high / 2], [0.0048, high / 2], [0.0050, high / 2]],
                6,
            ),
        )
        blade = np.array([(0.000, -0.0055), (0.036, -0.0020), (0.040, 0.0020), (0.036, 0.0040), (0.000, 0.0055)])
        outline = blade if side > 0 else blade[::-1] * (1, -1)
        put(form, "metal", prism(outline, 0.007).about_z(0.09 * side).at(0.006, 0.0012 * side, 0.0045 + 0.0035 * side))
    put(form, "bolt", turned([(0.0040, 0), (0.0030, 0.0015)], 8).at(0.004, 0, high - 0.0002))
    form.grasp, form.centred = Grasp(0.0180, high / 2, yaw=np.pi / 2), False
    return form


def _paintbrush(recipe: Recipe) -> Form:
    form = Form(
        {
            "handle": prints.coat(recipe, 32, 48),
            "metal": plain(METAL, recipe.rng),
            "hair": prints.upright_stripes(
                np.array([0.80, 0.66, 0.42]), np.array([0.66, 0.52, 0.30]), recipe.rng, 8, 0.4, 16, 48
            ),
        }
    )
    wide = recipe.length(0.026, 0.034)
    sections = (
        (-0.062, 0.011, 0.012),
        (-0.054, 0.016, 0.016),
        (-0.020, 0.0155, 0.0165),
        (0.011, 0.017, 0.0165),
        (0.016, 0.9 * wide, 0.0155),
    )
    loops = [np.c_[np.full(4, x), np.array([-1, 1, 1, -1]) * w / 2, np.array([0, 0, 1, 1]) * h] for x, w, h in sections]
    put(form, "handle", loft(loops, "links"))
    put(form, "metal", box(0.010, wide, 0.0158).at(x=0.021))
    put(
        form,
        "hair",
        loft(
            [
                np.c_[np.full(4, x), np.array([-1, 1, 1, -1]) * w / 2, np.array([0, 0, 1, 1]) * h + z]
                for x, w, h, z in ((0.026, 0.94 * wide, 0.014, 0.001), (0.046, 0.98 * wide, 0.010, 0.003))
            ]
        ),
    )
    form.grasp, form.centred = Grasp(0.0165, 0.008, yaw=np.pi / 2), False
    return form


def _flashlight(recipe: Recipe) -> Form:
    radius = recipe.length(0.0095, 0.0115)
    body = prints.coat(recipe, 32, 48)
    body[::6] *= 0.72
    form = Form(
        {
            "body": body,
            "head": plain(shade(recipe.paint, 0.85), recipe.rng),
            "lens": prints.spot(plain(rgb("gray") * 1.2, recipe.rng, 32, 32), 0.5, 0.5, 0.4, 0.4, (1.0, 0.97, 0.72)),
            "knob": plain(prints.other(recipe.paint), recipe.rng),
        }
    )
    wide = 1.5 * radius
    put(form, "body", rod([(-0.048, 0.85 * radius), (-0.044, radius), (0.016, radius)], 10, wide - radius))
    put(
        form,
        "head",
        loft(rings_along([(0.016, 0, wide), (0.028, 0, wide), (0.040, 0, wide)], [radius, wide, wide], 10), top=False),
    )
    front = rings_along([(0.039, 0, wide), (0.040, 0, wide)], [wide, wide], 10)[1]
    put(form, "lens", lid(front[:, [1, 2]] - (0, wide), 0).about_x(np.pi / 2).about_z(np.pi / 2).at(0.040, 0, wide))
    put(form, "body", box(0.010, 0.010, wide - 0.8 * radius, ("front", "right", "back", "left")).at(x=-0.036))
    put(form, "knob", frustum((0.009, 0.005), (0.007, 0.004), 0.003).at(0.004, 0, wide + radius - 0.0004))
    form.grasp, form.centred = Grasp(2 * radius, wide, yaw=np.pi / 2), False
    return form


def _toothbrush(recipe: Recipe) -> Form:
    half = 0.0078
    form = Form(
        {
            "handle": prints.coat(recipe, 32, 48),
            "hair": prints.keys(
                plain(rgb("white"), recipe.rng, 16, 32),
                6,
                2,
                (0, 0, 1, 1),
                rgb("light blue") if recipe.color != "light blue" else rgb("green"),
                0.5,
            ),
        }
    )
    path = [(-0.060, 0, half), (-0.054, 0, half), (-0.010, 0, half), (0.012, 0, half), (0.026, 0, half * 0.8)]
    put(form, "handle", tube(path, [[0.006, 0.0062], [0.0080, half], [0.0080, half], [0.0068, half * 0.9], [0.0035, 0.0035]], 8))
    put(form, "handle", pillow(0.034, 0.014, 0.007, 0.005, 0.002).at(0.042, 0, 0.002))
    put(form, "hair", box(0.024, 0.010, 0.010, ("top", "front", "right", "back", "left")).at(0.044, 0, 0.009))
    form.grasp, form.centred = Grasp(0.0160, half, yaw=np.pi / 2), False
    return form


def _key(recipe: Recipe) -> Form:
    color = {"yellow": np.array([0.88, 0.72, 0.26]), "gray": _GRAY}[recipe.color]
    form = Form({"body": plain(color, recipe.rng, 32, 32)})
    high = 0.0055
    put(form, "body", hoop([(0.0060, 0), (0.0125, 0), (0.0125, high), (0.0060, high)], 10).at(x=-0.024))
    put(form, "body", box(0.044, 0.006, high).at(x=0.010))
    for x, long in ((0.018, 0.008), (0.029, 0.010)):
        put(form, "body", box(0.006, long, high).at(x, -0.003 - long / 2))
    return form


def _tape_measure(recipe: Recipe) -> Form:
    side, width = recipe.length(0.040, 0.046), recipe.length(0.026, 0.030)
    ruled = textures.stripes(rgb("yellow") if recipe.color != "yellow" else rgb("white"), DARK, recipe.rng, 2, 16, 16)
    badge = prints.spot(plain(prints.other(recipe.paint), recipe.rng, 16), 0.5, 0.0, 2.0, 0.75, DARK)
    form = Form({"body": textures.solid(recipe.paint, recipe.rng, 32, 32), "badge": badge, "blade": ruled})
    outline = np.array([(-0.5, 0), (0.5, 0), (0.5, 0.35), (0.36, 0.82), (0.10, 1.0), (-0.36, 0.92), (-0.5, 0.65)])
    put(form, "body", upright(outline * (side, 0.86 * side), width))
    seal = turned([(0.36 * side, 0), (0.34 * side, 0.0012)], 12, (False, True)).about_x(np.pi / 2).at(0, -width / 2, 0.43 * side)
    put(form, "badge", seal, seal.about_z(np.pi))
    put(
        form, "blade", box(0.016, 0.016, 0.003).at(0.5 * side + 0.008, 0, 0.002), box(0.003, 0.018, 0.008).at(0.5 * side + 0.0175)
    )
    form.grasp, form.centred = Grasp(width + 0.0024, 0.43 * side, yaw=np.pi / 2), False
    return form


_GRIPS = ("red", "orange", "yellow", "green", "teal", "blue", "light blue", "purple", "black")
FAMILIES = (
    Family(("screwdriver",), (*_GRIPS, "lime"), ("plastic",), _screwdriver, 0.110, graspable=True),
    Family(
        ("hammer",),
        ("brown", "beige", "red", "blue", "yellow", "black", "orange"),
        ("wood", "plastic"),
        _hammer,
        0.130,
        graspable=True,
    ),
    Family(
        ("wrench", "spanner"),
        ("gray", "red", "blue", "yellow", "green", "orange"),
        ("metal", "plastic"),
        _wrench,
        0.134,
        graspable=True,
    ),
    Family(("pliers", "pincers"), _GRIPS, ("plastic",), _pliers, 0.112, graspable=True),
    Family(("scissors", "pair of scissors", "shears"), (*_GRIPS, "pink", "lime"), ("plastic",), _scissors, 0.102, graspable=True),
    Family(
        ("paintbrush", "paint brush", "brush"),
        ("brown", "beige", "red", "blue", "green", "yellow", "purple"),
        ("wood", "plastic"),
        _paintbrush,
        0.116,
        graspable=True,
    ),
    Family(
        ("flashlight", "torch"),
        ("black", "red", "yellow", "blue", "orange", "green", "teal"),
        ("plastic", "metal"),
        _flashlight,
        0.092,
        graspable=True,
    ),
    Family(("toothbrush", "tooth brush"), (*_GRIPS, "pink", "lime", "white"), ("plastic",), _toothbrush, 0.122, graspable=True),
    Family(
        ("tape measure", "measuring tape"),
        ("yellow", "red", "blue", "black", "orange", "green"),
        ("plastic",),
        _tape_measure,
        0.068,
        graspable=True,
    ),
    Family(("key", "door key"), ("yellow", "gray"), ("metal",), _key, 0.074, speaks_color=False),
)
