"""Building blocks of other shapes, and pieces of games."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    OPEN_BELOW,
    box,
    disc,
    frustum,
    hoop,
    lid,
    prism,
    put,
    turned,
    upright,
)
from scenegen.engines.procedural.prints import plain, shade
from scenegen.engines.procedural.toys import BRIGHT
from scenegen.schema import Relation

_GLASS = np.array([0.68, 0.84, 0.94])


def _dice(recipe: Recipe) -> Form:
    """Opposite faces add up to seven."""
    side = recipe.length(0.026, 0.034)
    pips = {
        1: [(0.5, 0.5)],
        2: [(0.27, 0.27), (0.73, 0.73)],
        3: [(0.27, 0.27), (0.5, 0.5), (0.73, 0.73)],
        4: prints.lattice(2, 2, 0.04, 0.04, 0.96, 0.96),
        5: [*prints.lattice(2, 2, 0.04, 0.04, 0.96, 0.96), (0.5, 0.5)],
        6: prints.lattice(2, 3, 0.04, 0.06, 0.96, 0.94),
    }
    form = Form({})
    for face, count in (("top", 1), ("front", 2), ("right", 3), ("back", 5), ("left", 4)):
        image = textures.solid(recipe.paint, recipe.rng, 32, 32, 0.02)
        form.textures[face] = prints.spots(image, pips[count], 0.11, 0.11, prints.other(recipe.paint))
    put(form, "top", box(side, side, side, ("top",)).bare())
    for face in ("front", "right", "back", "left"):
        put(form, face, box(side, side, side, (face,)).bare())
    put(form, "front", box(side, side, side, ("bottom",)))
    form.grasp = Grasp(side, side / 2)
    return form


def _domino(recipe: Recipe) -> Form:
    width, high = recipe.length(0.022, 0.028), 0.0155
    top = textures.solid(recipe.paint, recipe.rng, 48, 96, 0.02)
    mark = prints.other(recipe.paint)
    prints.rectangle(top, 0.485, 0.08, 0.515, 0.92, mark)
    for left in (0.0, 0.5):
        count = int(recipe.rng.integers(1, 4))
        prints.spots(top, prints.lattice(2, count, left + 0.06, 0.1, left + 0.44, 0.9), 0.045, 0.09, mark)
    form = Form({"top": top, "body": plain(recipe.paint, recipe.rng, 32)})
    put(form, "body", box(2 * width, width, high, ("bottom", "front", "right", "back", "left")))
    put(form, "top", box(2 * width, width, high, ("top",)).bare())
    form.grasp = Grasp(width, high / 2, yaw=np.pi / 2)
    return form


def _arch(recipe: Recipe) -> Form:
    """A bridge of six wedges of a half ring and its two spandrels, on two feet."""
    length, width, height = recipe.length(0.062, 0.074), recipe.length(0.030, 0.038), recipe.length(0.032, 0.038)
    radius = 0.58 * height
    form = Form({"body": prints.coat(recipe)})
    angles = np.linspace(np.pi, 0, 7)
    inner = np.c_[radius * np.cos(angles), radius * np.sin(angles)]
    for i in range(6):
        (ax, az), (bx, bz) = inner[i], inner[i + 1]
        left, right = (-length / 2 if i == 0 else ax), (length / 2 if i == 5 else bx)
        low = [(left, az), (bx, bz)] if i < 3 else [(ax, az), (right, bz)]
        if i == 0:
            low = [(-length / 2, 0), (ax, az), (bx, bz)]
        if i == 5:
            low = [(ax, az), (bx, bz), (length / 2, 0)]
        put(form, "body", upright([*low, (right, height), (left, height)], width))
    form.grasp = Grasp(width, 0.8 * height, yaw=np.pi / 2)
    form.goal_point = (0.0, 0.0, height)
    return form


def _cylinder(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0150, 0.0200), recipe.length(0.036, 0.052)
    form = Form({"body": prints.coat(recipe)})
    put(form, "body", turned([(radius, 0), (radius, height)], 16))
    form.grasp = Grasp(2 * radius, height / 2, symmetric=True)
    return form


def _cone(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0190, 0.0230), recipe.length(0.042, 0.052)
    form = Form({"body": prints.coat(recipe)})
    put(form, "body", turned([(radius, 0), (radius, 0.006), (0.0015, height)], 16))
    form.grasp = Grasp(1.76 * radius, 0.30 * height, symmetric=True)
    return form


def _pyramid(recipe: Recipe) -> Form:
    side, height = recipe.length(0.034, 0.040), recipe.length(0.038, 0.044)
    form = Form({"body": prints.coat(recipe)})
    put(form, "body", box(side, side, 0.006, ("bottom", "front", "right", "back", "left")))
    put(form, "body", frustum((side, side), (0.002, 0.002), height, faces=OPEN_BELOW).at(z=0.006))
    form.grasp = Grasp(0.82 * side, 0.006 + 0.25 * height)
    return form


def _toy_house(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.042, 0.050), recipe.length(0.032, 0.038), recipe.length(0.026, 0.032)
    walls = (0.96, 0.91, 0.80) if recipe.color not in ("white", "beige") else (0.62, 0.78, 0.90)
    side = plain(walls, recipe.rng, 40, 48)
    prints.rectangle(side, 0.40, 0.42, 0.60, 1.0, (0.45, 0.28, 0.16))
    for left in (0.10, 0.72):
        prints.rectangle(side, left, 0.30, left + 0.18, 0.62, _GLASS * 0.8)
    roof = textures.solid(recipe.paint, recipe.rng, 32, 48)
    roof[::7] *= 0.78
    form = Form({"roof": roof, "wall": side, "gable": plain(walls, recipe.rng)})
    put(form, "wall", box(length, width, 0.62 * height, ("bottom", "front", "right", "back", "left")))
    put(form, "roof", frustum((length + 0.006, width + 0.008), (length + 0.004, 0.003), 0.016).at(z=0.62 * height))
    put(form, "roof", box(0.007, 0.007, 0.012).at(0.28 * length, 0.2 * width, 0.62 * height + 0.007))
    form.grasp = Grasp(width + 0.008, 0.62 * height + 0.001, yaw=np.pi / 2)
    return form


def _ring(recipe: Recipe) -> Form:
    wide, high, outer = recipe.length(0.0052, 0.0062), 0.0088, recipe.length(0.0215, 0.0235)
    form = Form({"body": textures.solid(recipe.paint, recipe.rng, 32, 48)})
    angles = np.radians((-64, -22, 22, 64, 116, 158, 202, 244))
    reach = np.cos(np.radians(22))
    section = [(outer + wide * (np.cos(a) / reach - 1), high * (np.sin(a) + np.sin(np.radians(64)))) for a in angles]
    put(form, "body", hoop(section, 14, 60))
    form.grasp = Grasp(2 * outer, high * 0.9, symmetric=True)
    return form


def _stacking_cup(recipe: Recipe) -> Form:
    """A toy cup upside down, as they are stacked."""
    foot, top, height = recipe.length(0.0195, 0.0213), 0.0165, recipe.length(0.036, 0.044)
    body = textures.solid(recipe.paint, recipe.rng, 48, 48)
    body[26:] *= 0.88
    form = Form({"body": body, "rim": plain(shade(recipe.paint, 0.85), recipe.rng)})
    put(form, "rim", turned([(foot, 0), (foot, 0.005)], 16))
    put(form, "body", turned([(0.93 * foot, 0.005), (top, height)], 16, (False, True)))
    form.grasp = Grasp(0.93 * foot + top - 0.001, 0.5 * height, symmetric=True)
    form.goal_point = (0.0, 0.0, height)
    return form


def _rook(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0155, 0.0185), recipe.length(0.042, 0.050)
    form = Form({"body": prints.coat(recipe), "inside": plain(0.6 * recipe.paint, recipe.rng)})
    put(
        form,
        "body",
        turned([(radius, 0), (radius, 0.005), (0.86 * radius, 0.008)]),
        turned([(0.72 * radius, 0.008), (0.56 * radius, 0.74 * height)], closed=(False, False)),
    )
    put(
        form,
        "body",
        turned(
            [(0.60 * radius, 0.74 * height), (0.86 * radius, 0.80 * height), (0.86 * radius, 0.86 * height)], closed=(True, False)
        ),
    )
    put(form, "inside", lid(disc(0.86 * radius, 12), 0.86 * height))
    for i in range(5):
        a, b = 2 * np.pi * (i + np.array([0.0, 0.62])) / 5
        outline = radius * np.array(
            [
                (0.86 * np.cos(a), 0.86 * np.sin(a)),
                (0.86 * np.cos(b), 0.86 * np.sin(b)),
                (0.52 * np.cos(b), 0.52 * np.sin(b)),
                (0.52 * np.cos(a), 0.52 * np.sin(a)),
            ]
        )
        put(form, "body", prism(outline, 0.14 * height).at(z=0.86 * height))
    form.grasp, form.centred = Grasp(1.72 * radius, 0.83 * height, symmetric=True), False
    return form


_ON = (Relation.ON,)
_WOODS = ("wood", "plastic")
FAMILIES = (
    Family(("dice", "die"), BRIGHT, ("plastic", "wood"), _dice, 0.034, graspable=True),
    Family(
        ("domino", "domino tile"), ("white", "black", "beige", "red", "blue", "green"), _WOODS, _domino, 0.056, graspable=True
    ),
    Family(
        ("arch", "arch block", "bridge", "bridge block"), BRIGHT, _WOODS, _arch, 0.074, graspable=True, relations=_ON, room=0.040
    ),
    Family(("cylinder", "cylinder block", "toy cylinder"), BRIGHT, _WOODS, _cylinder, 0.041, graspable=True),
    Family(("cone", "cone block", "toy cone"), BRIGHT, _WOODS, _cone, 0.047, graspable=True),
    Family(("pyramid", "pyramid block", "toy pyramid"), BRIGHT, _WOODS, _pyramid, 0.045, graspable=True),
    Family(
        ("toy house", "house"),
        ("red", "blue", "green", "brown", "orange", "purple", "teal"),
        _WOODS,
        _toy_house,
        0.057,
        graspable=True,
    ),
    Family(("ring", "toy ring"), BRIGHT, _WOODS, _ring, 0.048, graspable=True),
    Family(
        ("stacking cup", "nesting cup"), BRIGHT, ("plastic",), _stacking_cup, 0.043, graspable=True, relations=_ON, room=0.043
    ),
    Family(("rook", "chess rook"), ("white", "black", "brown", "beige", "red"), _WOODS, _rook, 0.038, graspable=True),
)
