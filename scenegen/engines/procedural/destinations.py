"""Things to put other things on or in. They are wide and low, so that a gripper comes over them with room to spare."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.mesh.hulls import turned_piece, wall_pieces
from scenegen.mesh.surfaces import SIDES, Array, box_corners, hexahedron, lathe, rounded_rectangle, slab
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Cavity, Relation

COLORS = tuple(PALETTE)
_SEGMENTS = 16
_OPEN = ("bottom", "top", *SIDES)


def _glaze(recipe: Recipe) -> textures.Image:
    """Concentric on a turned surface."""
    other = textures.contrast(recipe.paint)
    options = (
        lambda: textures.solid(recipe.paint, recipe.rng, 96),
        lambda: textures.speckle(recipe.paint, 0.6 * recipe.paint + 0.4 * other, recipe.rng, 0.015),
        lambda: (
            textures.wood(recipe.paint, recipe.rng) if recipe.material == "wood" else textures.solid(recipe.paint, recipe.rng, 96)
        ),
    )
    image = options[recipe.rng.integers(3)]()
    if recipe.rng.random() < 0.4 and recipe.material != "wood":
        image[44:48] = 0.5 * image[44:48] + 0.5 * other
    return image


def _plate(recipe: Recipe) -> Form:
    radius, height, thick = recipe.length(0.075, 0.095), recipe.length(0.012, 0.018), 0.005
    well = 0.62 * radius
    form = Form({"body": _glaze(recipe)})
    profile = [(0, 0), (well, 0), (radius, height - 0.004), (radius, height), (well, thick), (0, thick)]
    base = turned_piece([(well, 0), (well, thick)], _SEGMENTS)
    rim = wall_pieces([(well, 0), (radius, height - 0.004), (radius, height), (well, thick)], _SEGMENTS)
    form.add(lathe(profile, _SEGMENTS, crease_deg=12), [base, *rim])
    form.goal_point = (0.0, 0.0, thick)
    return form


def _bowl(recipe: Recipe) -> Form:
    """Its wall is thicker than china's: PhysX throws long things out of bowls with slanted walls of less than 10 mm."""
    radius, height, wall, floor = recipe.length(0.070, 0.086), recipe.length(0.034, 0.045), 0.010, 0.006
    foot = 0.62 * radius
    bottom, inner = foot - wall, foot - wall + (radius - foot) * floor / height
    form = Form({"body": _glaze(recipe)})
    profile = [(0, 0), (foot, 0), (radius, height), (radius - wall, height), (inner, floor), (0, floor)]
    base = turned_piece([(bottom, 0), (inner, floor)], _SEGMENTS)
    side = wall_pieces([(bottom, 0), (foot, 0), (radius, height), (radius - wall, height)], _SEGMENTS)
    form.add(lathe(profile, _SEGMENTS), [base, *side])
    form.cavity = Cavity(radius_m=inner, depth_m=height - floor)
    form.goal_point = (0.0, 0.0, floor)
    return form


def _pan(recipe: Recipe) -> Form:
    radius, height, wall, floor = recipe.length(0.070, 0.085), recipe.length(0.028, 0.036), 0.006, 0.005
    inner = radius - wall
    form = Form(
        {
            "body": textures.stripes(recipe.paint, 1.25 * recipe.paint, recipe.rng, 12),
            "handle": textures.wood(rgb("brown"), recipe.rng, 24, 48),
        }
    )
    form.add(
        lathe([(0, 0), (radius, 0), (radius, height), (inner, height), (inner, floor), (0, floor)], _SEGMENTS),
        [
            turned_piece([(inner, 0), (inner, floor)], _SEGMENTS),
            *wall_pieces([(inner, 0), (radius, 0), (radius, height), (inner, height)], _SEGMENTS),
        ],
    )
    bar = box_corners((0.070, 0.018, 0.010), (radius + 0.034, 0, height - 0.014))
    form.add(hexahedron(bar), [bar], "handle")
    form.centred = False
    form.cavity = Cavity(radius_m=inner, depth_m=height - floor)
    form.goal_point = (0.0, 0.0, floor)
    return form


def _open_box(length: float, width: float, height: float, wall: float, floor: float, flare: float) -> tuple[Array, list[Array]]:
    """Corners of the floor and of four walls that lean out by `flare` [m] at the rim; none overlap."""
    x, y = length / 2, width / 2
    base = box_corners((length - 2 * wall - 2 * flare, width - 2 * wall - 2 * flare, floor))

    def rectangle(inset: float, z: float) -> Array:
        return np.array(
            [[-x + inset, -y + inset, z], [x - inset, -y + inset, z], [x - inset, y - inset, z], [-x + inset, y - inset, z]]
        )

    low_out, low_in = rectangle(flare, 0), rectangle(flare + wall, 0)
    high_out, high_in = rectangle(0, height), rectangle(wall, height)
    walls = [
        np.array([low_out[i], low_out[j], low_in[j], low_in[i], high_out[i], high_out[j], high_in[j], high_in[i]])
        for i, j in ((0, 1), (1, 2), (2, 3), (3, 0))
    ]
    return base, walls


def _container(form: Form, shape: tuple[float, float, float, float, float, float], inside: str) -> Form:
    length, width, height, wall, floor, flare = shape
    base, walls = _open_box(*shape)
    form.add(hexahedron(base, ("bottom", "top")), [base], inside)
    for corners in walls:
        form.add(hexahedron(corners, _OPEN), [corners])
    form.cavity = Cavity(radius_m=min(length, width) / 2 - wall - flare, depth_m=height - floor)
    form.goal_point = (0.0, 0.0, floor)
    return form


def _tray(recipe: Recipe) -> Form:
    skin = textures.wood if recipe.material == "wood" else textures.solid
    form = Form({"floor": skin(recipe.paint, recipe.rng), "body": skin(0.9 * recipe.paint, recipe.rng)[:48]})
    return _container(
        form, (recipe.length(0.18, 0.22), recipe.length(0.14, 0.17), recipe.length(0.016, 0.024), 0.007, 0.006, 0.003), "floor"
    )


def _basket(recipe: Recipe) -> Form:
    form = Form(
        {"floor": textures.basketwork(0.85 * recipe.paint, recipe.rng), "body": textures.basketwork(recipe.paint, recipe.rng)}
    )
    return _container(
        form, (recipe.length(0.16, 0.20), recipe.length(0.13, 0.16), recipe.length(0.032, 0.040), 0.007, 0.006, 0.010), "floor"
    )


def _sheet(outline: Array, height: float, top: textures.Image, rim: textures.Image) -> Form:
    """A flat convex slab with a picture on top."""
    form = Form({"top": top, "rim": rim})
    lid, rest = slab(outline, 0, height)
    form.add(lid, [np.concatenate([np.c_[outline, np.full(len(outline), z)] for z in (0, height)])], "top")
    form.add(rest, (), "rim")
    form.goal_point = (0.0, 0.0, height)
    return form


def _board(recipe: Recipe) -> Form:
    outline = rounded_rectangle(recipe.length(0.18, 0.22), recipe.length(0.13, 0.16), 0.015, steps=3)
    skin = textures.planks if recipe.material == "wood" else textures.solid
    return _sheet(
        outline, recipe.length(0.012, 0.016), skin(recipe.paint, recipe.rng), textures.solid(0.85 * recipe.paint, recipe.rng, 16)
    )


def _mousepad(recipe: Recipe) -> Form:
    outline = rounded_rectangle(recipe.length(0.18, 0.22), recipe.length(0.15, 0.18), 0.012, steps=3)
    return _sheet(outline, 0.005, textures.fabric(recipe.paint, recipe.rng), textures.solid(0.6 * recipe.paint, recipe.rng, 16))


def _coaster(recipe: Recipe) -> Form:
    radius = recipe.length(0.050, 0.060)
    angles = 2 * np.pi * np.arange(16) / 16
    outline = radius * np.c_[np.cos(angles), np.sin(angles)]
    top = textures.wood(recipe.paint, recipe.rng) if recipe.material == "wood" else textures.fabric(recipe.paint, recipe.rng)
    return _sheet(outline, 0.007, top, textures.solid(0.85 * recipe.paint, recipe.rng, 16))


def _towel(recipe: Recipe) -> Form:
    outline = rounded_rectangle(recipe.length(0.16, 0.20), recipe.length(0.15, 0.18), 0.004)
    top = (
        textures.gingham(recipe.paint, recipe.rng)
        if recipe.rng.random() < 0.5
        else textures.stripes(recipe.paint, textures.contrast(recipe.paint), recipe.rng, 3)
    )
    return _sheet(outline, 0.005, top, textures.solid(recipe.paint, recipe.rng, 16))


def _notebook(recipe: Recipe) -> Form:
    outline = rounded_rectangle(recipe.length(0.17, 0.20), recipe.length(0.13, 0.15), 0.003)
    cover = textures.solid(recipe.paint, recipe.rng, 96, 96)
    cover[:, :8] *= 0.6
    cover[20:44, 30:78] = textures.solid(rgb("white"), recipe.rng, 24, 48)
    cover[28:30, 36:70] = cover[34:36, 36:60] = rgb("black")
    pages = textures.stripes(rgb("white"), rgb("gray") * 1.3, recipe.rng, 4, 16)
    return _sheet(outline, recipe.length(0.010, 0.018), cover, pages)


_DISH = ("ceramic", "plastic", "wood")
_ON, _IN = (Relation.ON,), (Relation.IN,)
FAMILIES = (
    Family(("plate", "dish", "dinner plate"), COLORS, _DISH, _plate, 0.19, relations=_ON, room=0.15),
    Family(("bowl", "fruit bowl", "salad bowl"), COLORS, _DISH, _bowl, 0.172, relations=_IN, room=0.13),
    Family(
        ("pan", "frying pan", "skillet", "saucepan"),
        ("black", "gray", "red", "teal"),
        ("metal",),
        _pan,
        0.24,
        relations=_IN,
        room=0.13,
    ),
    Family(
        ("tray", "serving tray"),
        COLORS,
        ("wood", "plastic", "metal"),
        _tray,
        0.22,
        relations=(Relation.ON, Relation.IN),
        room=0.15,
    ),
    Family(
        ("basket", "bread basket", "bin"),
        ("beige", "brown", "white", "gray", "red", "blue", "green", "pink", "teal"),
        ("wicker", "plastic"),
        _basket,
        0.20,
        relations=_IN,
        room=0.15,
    ),
    Family(
        ("cutting board", "chopping board", "board"),
        ("beige", "brown", "white", "green", "gray", "light blue"),
        ("wood", "plastic"),
        _board,
        0.22,
        relations=_ON,
        room=0.15,
    ),
    Family(("mouse pad", "mousepad", "mat"), COLORS, ("fabric", "rubber"), _mousepad, 0.22, relations=_ON, room=0.15),
    Family(("coaster", "trivet"), COLORS, ("wood", "fabric"), _coaster, 0.12, relations=_ON, room=0.08),
    Family(("towel", "napkin", "cloth", "dish towel"), COLORS, ("fabric",), _towel, 0.20, relations=_ON, room=0.15),
    Family(("notebook", "book", "magazine"), COLORS, ("paper",), _notebook, 0.20, relations=_ON, room=0.15),
)
