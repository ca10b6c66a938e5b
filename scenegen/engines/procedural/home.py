"""Small things of bath and living room."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    box,
    disc,
    frustum,
    lid,
    pillow,
    pillow_top,
    put,
    tube,
    turned,
)
from scenegen.engines.procedural.prints import DARK, GOLDEN, METAL, PALE, plain, shade
from scenegen.mesh.hulls import wall_pieces
from scenegen.mesh.surfaces import lathe
from scenegen.palette import rgb


def _candle(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0165, 0.0210), recipe.length(0.040, 0.052)
    wax = textures.solid(recipe.paint, recipe.rng, 48, 32)
    wax[:14] = shade(recipe.paint, 1.12)
    form = Form({"body": wax, "wick": plain(DARK, recipe.rng), "flame": plain((1.0, 0.78, 0.25), recipe.rng)})
    put(form, "body", turned([(radius, 0), (radius, height - 0.002), (0.9 * radius, height)], 14, crease_deg=50))
    put(form, "wick", turned([(0.0014, 0), (0.0014, 0.005)], 6, (False, False)).at(z=height))
    put(form, "flame", turned([(0.0014, 0.004), (0.0034, 0.007), (0.0006, 0.014)], 8).at(z=height))
    form.grasp = Grasp(2 * radius, height / 2, symmetric=True)
    return form


def _soap(recipe: Recipe) -> Form:
    length, width, high = recipe.length(0.050, 0.060), recipe.length(0.032, 0.038), recipe.length(0.018, 0.022)
    top = plain(recipe.paint, recipe.rng, 48, 64)
    for scale, colour in ((0.36, 0.86), (0.32, 1.0)):
        prints.spot(top, 0.5, 0.5, scale, scale, shade(recipe.paint, colour))
    prints.rectangle(top, 0.30, 0.45, 0.70, 0.55, shade(recipe.paint, 0.80))
    form = Form({"body": plain(recipe.paint, recipe.rng, 32), "top": top})
    put(form, "body", pillow(length, width, high, 0.42 * width, 0.28 * high, top=False, steps=4))
    put(form, "top", pillow_top(length, width, high, 0.42 * width, 0.28 * high, steps=4))
    form.grasp = Grasp(width, high / 2, yaw=np.pi / 2)
    return form


def _paper_roll(recipe: Recipe) -> Form:
    outer, inner, high = recipe.length(0.0205, 0.0230), 0.0085, recipe.length(0.036, 0.044)
    sheets = textures.speckle(recipe.paint, 0.94 * recipe.paint, recipe.rng, 0.12, 32, 64)
    sheets[:, 30:32] *= 0.88
    form = Form({"body": np.clip(sheets, 0, 1), "core": plain((0.70, 0.56, 0.40), recipe.rng)})
    core = inner + 0.002
    form.add(
        lathe([(core, 0), (outer, 0), (outer, high), (core, high)], 12),
        wall_pieces([(inner, 0), (outer, 0), (outer, high), (inner, high)], 12),
    )
    form.add(lathe([(core, high), (inner, high), (inner, 0), (core, 0)], 12), (), "core")
    form.grasp = Grasp(2 * outer, high / 2, symmetric=True)
    return form


def _gift_box(recipe: Recipe) -> Form:
    side, high = recipe.length(0.034, 0.044), recipe.length(0.030, 0.040)
    ribbon = rgb("yellow") if recipe.color in ("red", "purple", "blue", "teal", "green", "black") else rgb("red")
    sides, top = (textures.solid(recipe.paint, recipe.rng, 32, 32, 0.02) for _ in range(2))
    for image in (sides, top):
        prints.rectangle(image, 0.42, 0, 0.58, 1, ribbon)
    prints.rectangle(top, 0, 0.42, 1, 0.58, ribbon)
    form = Form({"side": sides, "top": top, "bow": plain(ribbon, recipe.rng)})
    put(form, "side", box(side, side, high, ("bottom", "front", "right", "back", "left")))
    put(form, "top", box(side, side, high, ("top",)).bare())
    for turn in (0.6, 0.6 + np.pi):
        loop = tube(
            [(0, 0, 0.003), (0.008, 0, 0.006), (0.013, 0, 0.004)], [[0.002, 0.0022], [0.0045, 0.0035], [0.0045, 0.0025]], 6
        )
        put(form, "bow", loop.about_z(turn).at(z=high))
    put(form, "bow", frustum((0.006, 0.006), (0.005, 0.005), 0.006).at(z=high))
    form.grasp = Grasp(side, high / 2)
    return form


def _alarm_clock(recipe: Recipe) -> Form:
    """With two bells; its face to the front."""
    radius, width = recipe.length(0.0205, 0.0235), recipe.length(0.020, 0.024)
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 32),
            "face": prints.dial(64, PALE, recipe.paint),
            "metal": plain(METAL, recipe.rng),
        }
    )
    middle = 0.006 + radius
    put(form, "body", turned([(radius, 0), (radius, width)], 16, (True, False)).about_x(np.pi / 2).at(0, width / 2, middle))
    put(form, "face", lid(disc(radius, 16), 0).about_x(np.pi / 2).at(0, -width / 2, middle))
    for side in (-1, 1):
        put(
            form,
            "metal",
            tube([(side * 0.62 * radius, 0, middle - 0.70 * radius), (side * 0.85 * radius, 0, 0.0026)], 0.0026, 6, up=(0, 1, 0)),
        )
        put(
            form,
            "body",
            turned([(0.0080, 0), (0.0070, 0.004), (0.0030, 0.007)], 10)
            .about_y(side * 0.62)
            .at(side * 0.60 * radius, 0, middle + 0.83 * radius),
        )
    put(form, "metal", box(0.003, 0.004, 0.007).at(0, 0, middle + 0.97 * radius))
    low = min(hull[:, 2].min() for hull in form.hulls)
    form.surfaces = [(surface.moved((0, 0, -low)), panel) for surface, panel in form.surfaces]
    form.hulls = [hull - (0, 0, low) for hull in form.hulls]
    form.grasp, form.centred = Grasp(width, middle - low, yaw=np.pi / 2), False
    return form


def _trophy(recipe: Recipe) -> Form:
    gold = GOLDEN * (1.06, 1.10, 0.9)
    radius, high = recipe.length(0.0170, 0.0195), 0.058
    form = Form({"cup": textures.solid(gold, recipe.rng, 32, 48, 0.1), "base": plain((0.30, 0.18, 0.10), recipe.rng)})
    put(form, "base", box(0.026, 0.026, 0.010))
    put(
        form,
        "cup",
        turned([(0.0085, 0.010), (0.0040, 0.018)], 10),
        turned([(0.0040, 0.018), (0.0060, 0.027)], 10, (False, False)),
    )
    put(form, "cup", turned([(0.36 * radius, 0.027), (0.86 * radius, 0.038), (radius, high)], 12, crease_deg=60))
    for side in (0, np.pi):
        path = [
            (0.93 * radius, 0, high - 0.003),
            (radius + 0.010, 0, high - 0.006),
            (radius + 0.008, 0, 0.043),
            (0.86 * radius, 0, 0.039),
        ]
        put(form, "cup", tube(path, 0.0020, 6, up=(0, 1, 0)).about_z(side))
    form.grasp = Grasp(1.95 * radius, 0.050, yaw=np.pi / 2)
    return form


FAMILIES = (
    Family(
        ("candle",),
        ("white", "red", "beige", "pink", "purple", "green", "light blue", "orange", "yellow"),
        ("rubber",),
        _candle,
        0.043,
        graspable=True,
    ),
    Family(
        ("soap", "bar of soap", "soap bar"),
        ("white", "pink", "green", "light blue", "purple", "beige", "yellow", "lime", "orange"),
        ("rubber",),
        _soap,
        0.061,
        graspable=True,
    ),
    Family(
        ("paper roll", "toilet paper", "toilet roll", "roll of toilet paper", "kitchen roll"),
        ("white",),
        ("paper",),
        _paper_roll,
        0.047,
        graspable=True,
        speaks_color=False,
    ),
    Family(
        ("gift box", "present", "gift"),
        ("red", "blue", "green", "purple", "teal", "pink", "white", "light blue", "orange"),
        ("paper",),
        _gift_box,
        0.045,
        graspable=True,
    ),
    Family(
        ("alarm clock", "clock"),
        ("red", "blue", "green", "teal", "yellow", "pink", "black", "orange", "purple"),
        ("metal", "plastic"),
        _alarm_clock,
        0.060,
        graspable=True,
    ),
    Family(("trophy", "cup trophy", "golden cup"), ("yellow",), ("metal",), _trophy, 0.062, graspable=True, speaks_color=False),
)
