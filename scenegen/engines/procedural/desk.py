"""Stationery, and what a desk has besides."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    ball,
    box,
    hollow,
    lid,
    pillow,
    prism,
    put,
    rod,
    tube,
    turned,
    upright,
)
from scenegen.engines.procedural.prints import DARK, METAL, PALE, plain, shade
from scenegen.mesh.hulls import wall_pieces
from scenegen.mesh.surfaces import lathe, rounded_rectangle
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Relation

COLORS = tuple(PALETTE)
_WOODEN = np.array([0.88, 0.72, 0.50])


def _pencil(recipe: Recipe) -> Form:
    radius, half = recipe.length(0.0076, 0.0086), recipe.length(0.046, 0.054)
    lead = recipe.paint if recipe.color not in ("yellow", "white", "beige") else DARK
    form = Form(
        {
            "body": prints.upright_stripes(recipe.paint, shade(recipe.paint, 0.84), recipe.rng, 3, 0.33, 16, 48),
            "wood": plain(_WOODEN, recipe.rng),
            "lead": plain(lead, recipe.rng),
            "metal": textures.stripes(METAL, METAL * 0.7, recipe.rng, 3, 16, 16),
            "rubber": plain((0.90, 0.55, 0.58), recipe.rng),
        }
    )
    high = radius
    put(form, "body", tube([(-half + 0.014, 0, high), (half - 0.016, 0, high)], radius, 6, hulls="whole"))
    put(form, "wood", tube([(half - 0.016, 0, high), (half - 0.0045, 0, high)], [radius, 0.28 * radius], 6, hulls="whole"))
    put(form, "lead", tube([(half - 0.0045, 0, high), (half, 0, high)], [0.28 * radius, 0.0006], 6, hulls="whole"))
    put(form, "metal", tube([(-half + 0.007, 0, high), (-half + 0.014, 0, high)], radius, 6, hulls="whole"))
    put(form, "rubber", tube([(-half, 0, high), (-half + 0.007, 0, high)], [0.88 * radius, 0.94 * radius], 6, hulls="whole"))
    form.grasp = Grasp(2 * radius / np.cos(np.pi / 6), high, yaw=np.pi / 2)
    return form


def _crayon(recipe: Recipe) -> Form:
    radius, half = recipe.length(0.0080, 0.0095), recipe.length(0.034, 0.042)
    wrap = textures.solid(shade(recipe.paint, 1.12), recipe.rng, 48, 32)
    trim = prints.other(recipe.paint)
    for row in (3, 43):
        wrap[row : row + 2] = trim
    wrap[18:30, 4:28] = recipe.paint * 0.85
    form = Form({"wrap": wrap, "wax": plain(recipe.paint, recipe.rng)})
    put(form, "wrap", rod([(-half + 0.006, radius), (half - 0.016, radius)], 8))
    put(form, "wax", rod([(-half, 0.9 * radius), (-half + 0.006, 0.9 * radius)], 8, 0.1 * radius))
    put(form, "wax", rod([(half - 0.016, 0.88 * radius), (half - 0.010, 0.84 * radius), (half, 0.30 * radius)], 8, 0.12 * radius))
    form.grasp = Grasp(2 * radius, radius, yaw=np.pi / 2)
    return form


def _eraser(recipe: Recipe) -> Form:
    length, width, high = recipe.length(0.046, 0.056), recipe.length(0.024, 0.030), recipe.length(0.0155, 0.018)
    sleeve = prints.printed(
        textures.solid(recipe.paint, recipe.rng, 32, 32),
        recipe.rng,
        0.2,
        0.35,
        0.8,
        3,
        PALE if recipe.color != "white" else rgb("blue"),
        0.12,
    )
    form = Form(
        {"sleeve": sleeve, "rubber": plain((0.96, 0.95, 0.93) if recipe.color != "white" else (0.92, 0.60, 0.66), recipe.rng)}
    )
    split = 0.18 * length
    put(form, "sleeve", box(length / 2 + split, width, high).at(x=-(length / 2 - split) / 2))
    put(
        form,
        "rubber",
        pillow(length / 2 - split + 0.004, 0.92 * width, 0.92 * high, 0.004, 0.002).at(
            x=(length / 2 + split) / 2 + 0.002, z=0.04 * high
        ),
    )
    form.grasp = Grasp(width, high / 2, yaw=np.pi / 2)
    return form


def _tape_roll(recipe: Recipe) -> Form:
    outer, inner, high = recipe.length(0.0205, 0.0230), 0.0135, recipe.length(0.017, 0.022)
    form = Form(
        {
            "body": textures.stripes(recipe.paint, shade(recipe.paint, 0.92), recipe.rng, 6, 32, 48),
            "core": plain((0.72, 0.58, 0.40), recipe.rng),
        }
    )
    core = inner + 0.0022
    form.add(
        lathe([(core, 0), (outer, 0), (outer, high), (core, high)], 16),
        wall_pieces([(inner, 0), (outer, 0), (outer, high), (inner, high)], 16),
    )
    form.add(lathe([(core, high), (inner, high), (inner, 0), (core, 0)], 16), (), "core")
    form.grasp = Grasp(2 * outer, high / 2, symmetric=True)
    return form


def _stapler(recipe: Recipe) -> Form:
    length, width = recipe.length(0.070, 0.082), recipe.length(0.0185, 0.0225)
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 32),
            "metal": plain(METAL, recipe.rng),
            "base": plain(shade(recipe.paint, 0.55), recipe.rng),
        }
    )
    put(form, "base", pillow(length, width, 0.006, 0.004, 0.0015, steps=2))
    put(
        form,
        "metal",
        box(0.84 * length, 0.55 * width, 0.007, ("front", "right", "back", "left")).about_y(-0.07).at(-0.02 * length, 0, 0.0095),
    )
    arm = np.array([(-0.5, 0.0055), (0.5, 0.0190), (0.5, 0.0245), (0.40, 0.0300), (-0.18, 0.0290), (-0.5, 0.0220)])
    put(form, "body", upright(arm * (length, 1), width))
    form.grasp = Grasp(width, 0.020, yaw=np.pi / 2)
    return form


def _tape_dispenser(recipe: Recipe) -> Form:
    length, width = recipe.length(0.066, 0.074), recipe.length(0.024, 0.028)
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 32),
            "tape": plain((0.84, 0.78, 0.60) if recipe.color != "beige" else (0.7, 0.85, 0.9), recipe.rng),
            "hub": plain(DARK, recipe.rng),
            "metal": plain(METAL, recipe.rng),
        }
    )
    base = np.array([(-0.5, 0.0), (0.5, 0.0), (0.5, 0.012), (0.42, 0.015), (-0.44, 0.015), (-0.5, 0.010)])
    put(form, "body", upright(base * (length, 1), width))
    nose = np.array([(0.22, 0.015), (0.42, 0.015), (0.5, 0.030), (0.42, 0.030)])
    put(form, "body", upright(nose * (length, 1), width))
    put(form, "metal", box(0.004, 0.8 * width, 0.004).at(0.49 * length, 0, 0.029))
    radius = 0.0175
    reel = turned([(radius, 0), (radius, 0.62 * width)], 14).about_x(np.pi / 2).at(-0.16 * length, 0.31 * width, 0.011 + radius)
    put(form, "tape", reel)
    hub = (
        turned([(0.45 * radius, 0), (0.40 * radius, 0.001)], 10, (False, True))
        .about_x(np.pi / 2)
        .at(-0.16 * length, -0.31 * width, 0.011 + radius)
    )
    put(form, "hub", hub, hub.at(x=0.16 * length).about_z(np.pi).at(x=-0.16 * length))
    for side in (-1, 1):
        put(
            form,
            "body",
            upright(np.array([(-0.44, 0.015), (0.10, 0.015), (-0.06, 0.034), (-0.26, 0.034)]) * (length, 1), 0.0035).at(
                y=side * (0.5 * width - 0.00175)
            ),
        )
    form.grasp, form.centred = Grasp(width, 0.014, yaw=np.pi / 2), False
    return form


def _pen_holder(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.045, 0.049), recipe.length(0.042, 0.048)
    mesh = textures.solid(recipe.paint, recipe.rng, 48, 128)
    for row in range(8, 42, 6):
        for x in range(0, 128, 6):
            mesh[row : row + 3, x : x + 3] = 0.45 * recipe.paint
    form = Form({"body": mesh, "inside": plain(0.72 * recipe.paint, recipe.rng, 24)})
    hollow(form, radius, radius, height, 0.008, 0.006, ("body", "inside"), 16)
    return form


def _magazine(recipe: Recipe) -> Form:
    length, width = recipe.length(0.125, 0.140), recipe.length(0.165, 0.190)
    cover = textures.solid(recipe.paint, recipe.rng, 112, 80, 0.02)
    ink, photo = prints.other(recipe.paint), np.array([[0.55, 0.75, 0.92], [0.35, 0.60, 0.35]])
    for i, x in enumerate(np.linspace(0.10, 0.76, 6)):
        prints.rectangle(cover, x, 0.05, x + (0.11 if i % 2 else 0.08), 0.16, ink)
    prints.rectangle(cover, 0.34, 0.34, 0.90, 0.54, photo[0])
    prints.rectangle(cover, 0.34, 0.54, 0.90, 0.66, photo[1])
    prints.spot(cover, 0.74, 0.42, 0.07, 0.05, (1.0, 0.9, 0.5))
    prints.printed(cover, recipe.rng, 0.08, 0.36, 0.26, 4, ink, 0.06)
    prints.printed(cover, recipe.rng, 0.10, 0.78, 0.80, 2, ink, 0.06)
    form = Form({"cover": cover, "pages": textures.stripes(rgb("white"), rgb("gray") * 1.4, recipe.rng, 2, 16, 16)})
    outline = rounded_rectangle(length, width, 0.002)
    put(form, "pages", prism(outline, 0.006, top=False))
    put(form, "cover", lid(outline, 0.006))
    form.goal_point = (0.0, 0.0, 0.006)
    return form


def _globe(recipe: Recipe) -> Form:
    radius = recipe.length(0.034, 0.038)
    sea = textures.solid(recipe.paint, recipe.rng, 64, 96)
    land = textures.noise(recipe.rng, 64, 96, 5) > 0.45
    sea[land] = textures.solid(np.array([0.42, 0.60, 0.28]), recipe.rng, 64, 96)[land]
    sea[:4] = sea[-4:] = 0.95
    form = Form({"sea": sea, "stand": plain(shade(recipe.paint, 0.72), recipe.rng)})
    put(
        form,
        "stand",
        turned([(0.028, 0), (0.024, 0.005), (0.008, 0.010)], 14),
        turned([(0.006, 0.010), (0.006, 0.020)], 8, (False, False)),
    )
    put(form, "sea", ball(radius, 1.0, 12, 4).at(z=0.020))
    angles = np.linspace(-np.pi / 2 * 0.8, np.pi / 2 * 0.8, 6)
    put(
        form,
        "stand",
        tube(
            [((radius + 0.004) * np.cos(a), 0, 0.020 + 0.97 * radius + (radius + 0.004) * np.sin(a)) for a in angles],
            0.0028,
            6,
            up=(0, 1, 0),
        ),
    )
    return form


_PAINTS = ("red", "orange", "yellow", "green", "teal", "blue", "light blue", "purple", "pink", "white", "black")
_GADGETS = ("black", "white", "gray", "red", "blue", "light blue", "pink", "teal", "green")
FAMILIES = (
    Family(
        ("pencil",),
        ("yellow", "red", "orange", "green", "blue", "purple", "teal", "black", "pink"),
        ("wood",),
        _pencil,
        0.110,
        graspable=True,
    ),
    Family(("crayon", "wax crayon"), tuple(c for c in COLORS if c != "white"), ("plastic",), _crayon, 0.086, graspable=True),
    Family(("eraser", "rubber eraser"), _PAINTS, ("rubber",), _eraser, 0.062, graspable=True),
    Family(("tape roll", "roll of tape", "tape", "sticky tape"), COLORS, ("plastic",), _tape_roll, 0.047, graspable=True),
    Family(("stapler",), (*_GADGETS, "purple", "orange", "yellow"), ("plastic", "metal"), _stapler, 0.083, graspable=True),
    Family(("tape dispenser",), (*_GADGETS, "purple", "orange"), ("plastic",), _tape_dispenser, 0.076, graspable=True),
    Family(
        ("pen holder", "pencil cup", "pen cup", "pencil holder"),
        ("black", "gray", "red", "blue", "green", "teal", "pink", "purple"),
        ("metal", "plastic"),
        _pen_holder,
        0.100,
        relations=(Relation.IN,),
        room=0.050,
    ),
    Family(
        ("magazine", "journal"),
        ("red", "blue", "yellow", "teal", "pink", "orange", "white", "purple"),
        ("paper",),
        _magazine,
        0.192,
        relations=(Relation.ON,),
        room=0.12,
    ),
    Family(("globe",), ("blue", "light blue"), ("plastic",), _globe, 0.086, speaks_color=False),
)
