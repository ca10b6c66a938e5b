"""More places to put things on or in; wide and low, as those of `destinations`."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.engines.procedural.parts import box, frustum, hollow, lid, prism, put, tube
from scenegen.engines.procedural.prints import METAL, plain, shade
from scenegen.mesh.hulls import turned_piece, wall_pieces
from scenegen.mesh.surfaces import lathe
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Cavity, Relation

COLORS = tuple(PALETTE)


def _bucket(recipe: Recipe) -> Form:
    foot, rim, height = recipe.length(0.054, 0.058), recipe.length(0.066, 0.072), recipe.length(0.048, 0.056)
    body = textures.solid(recipe.paint, recipe.rng, 48, 64)
    for row in (2, 30):
        body[row : row + 3] = shade(recipe.paint, 0.78)
    form = Form({"body": body, "inside": plain(0.85 * recipe.paint, recipe.rng, 24), "handle": plain(METAL, recipe.rng)})
    hollow(form, foot, rim, height, 0.010, 0.006, ("body", "inside"))
    angles = np.linspace(-np.pi / 2, np.pi / 2, 7)
    reach = np.full(7, rim + 0.0045)
    reach[[0, -1]] = foot + 0.86 * (rim - foot)  # its ends go into the wall
    handle = np.c_[reach * np.cos(angles), reach * np.sin(angles), 0.86 * height - 0.016 * np.cos(angles)]
    put(form, "handle", tube(handle, 0.0028, 6))
    return form


def _crate(recipe: Recipe) -> Form:
    """Slats on four posts."""
    length, width, height = recipe.length(0.165, 0.185), recipe.length(0.130, 0.150), recipe.length(0.044, 0.052)
    wall, floor, slats = 0.007, 0.006, 2
    skin = textures.wood if recipe.material == "wood" else textures.solid
    form = Form(
        {
            "slat": skin(recipe.paint, recipe.rng, 32, 64),
            "floor": textures.planks(0.9 * recipe.paint, recipe.rng, 5, 64),
            "post": plain(shade(recipe.paint, 0.86), recipe.rng),
        }
    )
    put(form, "floor", box(length - 2 * wall, width - 2 * wall, floor))
    tall = (height - 0.008) / slats
    for row in range(slats):
        z = row * (tall + 0.008)
        for side in (-1, 1):
            put(form, "slat", box(length, wall, tall).at(0, side * (width - wall) / 2, z))
            put(form, "slat", box(wall, width - 2 * wall, tall).at(side * (length - wall) / 2, 0, z))
    inner_x, inner_y, post = length / 2 - wall, width / 2 - wall, 0.009
    for x in (-1, 1):
        for y in (-1, 1):
            put(form, "post", box(post, post, height - floor).at(x * (inner_x - post / 2), y * (inner_y - post / 2), floor))
    form.cavity = Cavity(radius_m=inner_y, depth_m=height - floor)
    form.goal_point = (0.0, 0.0, floor)
    return form


def _fruit_basket(recipe: Recipe) -> Form:
    foot, rim, height = recipe.length(0.058, 0.062), recipe.length(0.074, 0.082), recipe.length(0.036, 0.042)
    form = Form(
        {
            "body": textures.basketwork(recipe.paint, recipe.rng, 48, 128),
            "inside": textures.basketwork(0.86 * recipe.paint, recipe.rng, 48, 128),
            "handle": textures.stripes(shade(recipe.paint, 0.9), shade(recipe.paint, 0.65), recipe.rng, 8, 32, 16),
        }
    )
    hollow(form, foot, rim, height, 0.010, 0.006, ("body", "inside"))
    for side in (0, np.pi):
        path = [
            (rim - 0.004, -0.026, height - 0.008),
            (rim + 0.016, -0.018, height - 0.0045),
            (rim + 0.016, 0.018, height - 0.0045),
            (rim - 0.004, 0.026, height - 0.008),
        ]
        put(form, "handle", tube(path, 0.0038, 6).about_z(side))
    return form


def _flower_pot(recipe: Recipe) -> Form:
    """The rim is a second ring outside the wall."""
    foot, top, height, wall, floor, segments = (
        recipe.length(0.044, 0.048),
        recipe.length(0.056, 0.062),
        recipe.length(0.046, 0.054),
        0.010,
        0.010,
        11,
    )
    band, lip = 0.014, 0.005
    color = recipe.paint if recipe.color != "orange" else np.array([0.86, 0.45, 0.22])
    form = Form(
        {
            "body": textures.solid(color, recipe.rng, 48, 48),
            "soil": textures.speckle(np.array([0.27, 0.19, 0.13]), np.array([0.42, 0.31, 0.2]), recipe.rng, 0.15, 24, 48),
            "inside": plain(0.85 * color, recipe.rng),
        }
    )
    low, ledge = foot - wall, foot + (top - foot) * (height - band) / height
    inner = low + (top - foot) * floor / height
    base = turned_piece([(low, 0), (inner, floor)], segments)
    side = wall_pieces([(low, 0), (foot, 0), (top, height), (top - wall, height)], segments)
    rim = wall_pieces([(ledge, height - band), (ledge + lip, height - band), (top + lip, height), (top, height)], segments)
    outside = [(0, 0), (foot, 0), (ledge, height - band), (ledge + lip, height - band), (top + lip, height), (top - wall, height)]
    form.add(lathe(outside, segments), [base, *side, *rim])
    form.add(lathe([(top - wall, height), (inner, floor)], segments), (), "inside")
    form.add(lathe([(inner, floor), (0, floor)], segments), (), "soil")
    form.centred, form.cavity, form.goal_point = (
        False,
        Cavity(radius_m=inner * np.cos(np.pi / segments), depth_m=height - floor),
        (0.0, 0.0, floor),
    )
    return form


def _chessboard(recipe: Recipe) -> Form:
    side, high = recipe.length(0.175, 0.200), recipe.length(0.010, 0.014)
    pale = np.array([0.93, 0.86, 0.72]) if recipe.color != "beige" else rgb("brown")
    top = textures.wood(recipe.paint, recipe.rng, 96, 96)
    squares = np.add.outer(np.arange(72) // 9, np.arange(72) // 9) % 2 == 0
    field = top[12:84, 12:84]
    field[squares] = textures.solid(pale, recipe.rng, 72, 72, 0.02)[squares]
    form = Form({"top": top, "side": plain(shade(recipe.paint, 0.85), recipe.rng)})
    outline = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * side
    put(form, "side", prism(outline, high, top=False))
    put(form, "top", lid(outline, high))
    form.goal_point = (0.0, 0.0, high)
    return form


def _stool(recipe: Recipe) -> Form:
    """A doll's stool: a round seat on a drum of legs."""
    radius, height = recipe.length(0.050, 0.056), recipe.length(0.046, 0.054)
    form = Form({"seat": textures.wood(recipe.paint, recipe.rng, 64, 64), "leg": plain(shade(recipe.paint, 0.85), recipe.rng)})
    angles = 2 * np.pi * np.arange(20) / 20
    outline = radius * np.c_[np.cos(angles), np.sin(angles)]
    for x in (-1, 1):
        for y in (-1, 1):
            leg = frustum((0.013, 0.013), (0.013, 0.013), height - 0.010, (-0.006 * x, -0.006 * y))
            put(form, "leg", leg.at(x * 0.64 * radius, y * 0.64 * radius))
    put(form, "leg", prism(outline, 0.010, top=False).at(z=height - 0.010))
    put(form, "seat", lid(outline, height))
    form.goal_point = (0.0, 0.0, height)
    return form


def _book(recipe: Recipe) -> Form:
    """Thicker than a notebook: covers and a block of pages."""
    length, width, high = recipe.length(0.165, 0.185), recipe.length(0.115, 0.130), recipe.length(0.018, 0.026)
    cover = textures.solid(recipe.paint, recipe.rng, 64, 96, 0.03)
    ink = (
        prints.other(recipe.paint)
        if recipe.color not in ("red", "blue", "green", "purple", "teal")
        else np.array([0.93, 0.80, 0.42])
    )
    prints.rectangle(cover, 0.10, 0.06, 0.93, 0.09, ink)
    prints.rectangle(cover, 0.10, 0.91, 0.93, 0.94, ink)
    prints.rectangle(cover, 0.24, 0.28, 0.80, 0.42, ink)
    prints.rectangle(cover, 0.34, 0.54, 0.70, 0.60, ink)
    form = Form(
        {
            "cover": cover,
            "edge": plain(shade(recipe.paint, 0.85), recipe.rng),
            "pages": textures.stripes(rgb("white"), rgb("gray") * 1.4, recipe.rng, 4, 16, 16),
        }
    )
    board, outline = 0.003, np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * (width, length)
    put(form, "edge", prism(outline, board), prism(outline, board, top=False).at(z=high - board))
    put(form, "cover", lid(outline, high))
    put(
        form, "pages", box(0.95 * width, 0.96 * length, high - 2 * board, ("front", "right", "back")).at(-0.005 * width, 0, board)
    )
    put(form, "edge", box(0.005, length, high - 2 * board, ("front", "back", "left")).at(-width / 2 + 0.0025, 0, board))
    form.goal_point = (0.0, 0.0, high)
    return form


_ON, _IN = (Relation.ON,), (Relation.IN,)
_POTS = ("orange", "white", "brown", "blue", "teal", "gray", "green", "yellow", "black")
FAMILIES = (
    Family(
        ("bucket", "pail"),
        ("red", "blue", "yellow", "green", "gray", "white", "orange", "teal", "pink"),
        ("plastic", "metal"),
        _bucket,
        0.158,
        relations=_IN,
        room=0.11,
    ),
    Family(
        ("crate", "wooden box", "storage box"),
        ("beige", "brown", "white", "gray", "blue", "red", "green"),
        ("wood", "plastic"),
        _crate,
        0.186,
        relations=_IN,
        room=0.14,
    ),
    Family(
        ("fruit basket", "round basket"),
        ("beige", "brown", "white", "gray", "red", "green"),
        ("wicker",),
        _fruit_basket,
        0.208,
        relations=_IN,
        room=0.13,
    ),
    Family(
        ("flower pot", "flowerpot", "plant pot", "planter"), _POTS, ("ceramic",), _flower_pot, 0.136, relations=_IN, room=0.060
    ),
    Family(
        ("chessboard", "chess board", "checkerboard"),
        ("brown", "black", "green", "red", "blue"),
        ("wood",),
        _chessboard,
        0.201,
        relations=_ON,
        room=0.15,
    ),
    Family(
        ("stool", "footstool"),
        ("beige", "brown", "white", "red", "blue", "green", "yellow", "teal"),
        ("wood", "plastic"),
        _stool,
        0.114,
        relations=_ON,
        room=0.075,
    ),
    Family(("book", "hardcover", "novel"), COLORS, ("paper",), _book, 0.187, relations=_ON, room=0.10),
)
