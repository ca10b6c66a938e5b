"""Bread, cakes and snacks. A colour is that of the crust or of the icing."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    OPEN_BELOW,
    ball,
    box,
    lid,
    loft,
    pillow,
    pillow_top,
    prism,
    put,
    rings_along,
    rod,
    tube,
    turned,
)
from scenegen.engines.procedural.prints import plain, shade
from scenegen.mesh.hulls import wall_pieces
from scenegen.mesh.surfaces import lathe
from scenegen.palette import rgb

CRUST = {"brown": np.array([0.60, 0.39, 0.22]), "beige": np.array([0.83, 0.66, 0.43])}
"""What bakers make of the palette's brown and beige."""

_CREAM = np.array([0.97, 0.93, 0.82])


def _donut(recipe: Recipe) -> Form:
    middle, radius = recipe.length(0.0130, 0.0138), recipe.length(0.0088, 0.0094)
    dough = CRUST["beige"] if recipe.color != "beige" else CRUST["brown"]
    icing = textures.solid(recipe.paint, recipe.rng, 48, 96)
    for name in ("white", "yellow", "light blue", "pink", "red"):
        if name != recipe.color:
            icing[recipe.rng.random((48, 96)) < 0.02] = rgb(name)
    form = Form({"icing": icing, "dough": plain(dough, recipe.rng)})
    angles = np.radians((-55, -8, 45, 90, 135, 188, 235))
    section = [(middle + radius * np.cos(a), radius * (np.sin(a) + np.sin(np.radians(55)))) for a in angles]
    form.add(lathe(section[1:6], 14, crease_deg=60), wall_pieces(section, 14), "icing")
    form.add(lathe([*section[5:], *section[:2]], 14, crease_deg=60), (), "dough")
    form.grasp = Grasp(2 * section[1][0], section[1][1] + 0.001, symmetric=True)
    return form


def _toast(recipe: Recipe) -> Form:
    """A slice of a tin loaf, lying."""
    width, length, thick = recipe.length(0.040, 0.045), recipe.length(0.046, 0.052), recipe.length(0.0155, 0.0165)
    crust = CRUST["brown"]
    face = textures.speckle(crust, 0.85 * crust, recipe.rng, 0.1, 64, 64)
    margin = slice(6, 58)
    face[margin, margin] = textures.speckle(rgb("beige") * 1.06, 0.9 * rgb("beige"), recipe.rng, 0.12, 52, 52)
    outline = np.array(
        [(-0.5, -0.45), (0.30, -0.5), (0.45, -0.42), (0.5, -0.22), (0.5, 0.22), (0.45, 0.42), (0.30, 0.5), (-0.5, 0.45)]
    )
    form = Form({"face": np.clip(face, 0, 1), "crust": plain(crust, recipe.rng), "butter": plain((0.98, 0.88, 0.42), recipe.rng)})
    put(form, "butter", box(0.013, 0.011, 0.003, OPEN_BELOW).about_z(0.5).at(x=0.002, z=thick))
    put(form, "crust", prism(outline * (length, width), thick, top=False))
    put(form, "face", lid(outline * (length, width), thick))
    form.grasp = Grasp(0.96 * width, thick / 2, yaw=np.pi / 2)
    return form


def _bread(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.066, 0.080), recipe.length(0.036, 0.044), recipe.length(0.030, 0.038)
    crust = CRUST[recipe.color]
    skin = textures.speckle(crust, 0.9 * crust, recipe.rng, 0.1, 48, 48)
    skin[24:] = skin[24:] * 1.06
    top = textures.speckle(crust, 0.85 * crust, recipe.rng, 0.06, 48, 64)
    for x in (0.2, 0.4, 0.6, 0.8):
        for t in np.linspace(-0.34, 0.34, 24):
            prints.spot(top, x + 0.12 * t, 0.5 + t, 0.028, 0.03, shade(crust, 1.5))
    form = Form({"body": np.clip(skin, 0, 1), "top": top})
    put(form, "body", pillow(length, width, height, 0.4 * width, 0.25 * height, top=False, steps=4))
    put(form, "top", pillow_top(length, width, height, 0.4 * width, 0.25 * height, steps=4))
    form.grasp = Grasp(width, height / 2, yaw=np.pi / 2)
    return form


def _croissant(recipe: Recipe) -> Form:
    """Rolls of dough, thickest in the middle, bent to a crescent."""
    radius, reach = recipe.length(0.0125, 0.0150), recipe.length(0.024, 0.0275)
    crust = CRUST[recipe.color]
    image = textures.solid(crust, recipe.rng, 64, 48)
    rows = np.arange(64) / 64 * 9 % 1
    image *= (1.12 - 0.45 * (rows < 0.22) - 0.15 * rows)[:, None, None]
    form = Form({"body": np.clip(image, 0, 1)})
    angles = np.radians(np.linspace(-105, 105, 10))
    grow = np.array([0.30, 0.50, 0.66, 0.84, 1.0, 1.0, 0.84, 0.66, 0.50, 0.30])
    path = np.c_[reach * np.sin(angles), reach * (np.cos(angles) - 1), radius * grow]
    rings = rings_along(path, radius * np.c_[grow, grow], 8)
    rings[..., 2] -= rings[..., 2].min(axis=1, keepdims=True)
    put(form, "body", loft(rings[::-1][:, ::-1], "links"))
    form.grasp, form.centred = Grasp(2 * radius, 0.9 * radius, yaw=np.pi / 2), False
    return form


def _wedge_width(tip: float, length: float, width: float) -> float:
    """Where the pads of the gripper touch a wedge, 11 mm behind its middle; its tip is 2 `tip` of the width."""
    return 2 * width * (tip + (0.5 - tip) / 0.92 * (0.5 + 0.011 / length))


def _cheese(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.050, 0.060), recipe.length(0.036, 0.042), recipe.length(0.024, 0.032)
    faces = [textures.solid(recipe.paint, recipe.rng, 48, 64) for _ in range(2)]
    for image in faces:
        for _ in range(8):
            x, y, r = recipe.rng.uniform(0.08, 0.92), recipe.rng.uniform(0.12, 0.88), recipe.rng.uniform(0.035, 0.075)
            prints.spot(image, x, y, r, 1.3 * r, 0.72 * recipe.paint)
    form = Form({"top": faces[0], "body": faces[1]})
    outline = np.array([(-0.5, -0.07), (0.42, -0.5), (0.5, -0.25), (0.5, 0.25), (0.42, 0.5), (-0.5, 0.07)]) * (length, width)
    put(form, "body", prism(outline, height, top=False))
    put(form, "top", lid(outline, height))
    form.grasp = Grasp(_wedge_width(0.07, length, width), height / 2, yaw=np.pi / 2)
    return form


def _cake(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.050, 0.060), recipe.length(0.034, 0.040), recipe.length(0.028, 0.034)
    side = textures.solid(recipe.paint, recipe.rng, 48, 48)
    side[22:28] = _CREAM if recipe.color not in ("white", "beige") else rgb("red")
    side[34:40] = side[22:28]
    form = Form(
        {
            "side": side,
            "icing": plain(shade(recipe.paint, 1.1), recipe.rng, 24),
            "berry": plain(rgb("red") if recipe.color != "red" else _CREAM, recipe.rng),
        }
    )
    outline = np.array([(-0.5, -0.10), (0.42, -0.5), (0.5, -0.25), (0.5, 0.25), (0.42, 0.5), (-0.5, 0.10)]) * (length, width)
    put(form, "side", prism(outline, height, top=False))
    put(form, "icing", lid(outline, height))
    put(form, "berry", ball(0.006, 0.9, 8, 4).at(x=0.012, z=height))
    form.grasp = Grasp(_wedge_width(0.10, length, width), height / 2, yaw=np.pi / 2)
    return form


def _hamburger(recipe: Recipe) -> Form:
    radius = recipe.length(0.0195, 0.0215)
    bun = CRUST[recipe.color]
    dome = textures.solid(bun, recipe.rng, 48, 64)
    prints.spots(dome, recipe.rng.uniform((0, 0.02), (1, 0.5), (26, 2)).tolist(), 0.022, 0.022, _CREAM)
    form = Form(
        {
            "bun": dome,
            "base": plain(bun, recipe.rng),
            "lettuce": plain((0.45, 0.68, 0.22), recipe.rng, 16, 48, 0.2),
            "meat": plain((0.30, 0.17, 0.11), recipe.rng, 16, 48, 0.2),
        }
    )
    put(form, "base", turned([(0.92 * radius, 0), (radius, 0.004), (radius, 0.009)], 14))
    put(form, "meat", turned([(1.03 * radius, 0.009), (1.03 * radius, 0.014)], 14))
    put(form, "lettuce", turned([(1.08 * radius, 0.014), (1.04 * radius, 0.0165)], 14))
    put(
        form,
        "bun",
        turned([(radius, 0.0165), (0.98 * radius, 0.022), (0.78 * radius, 0.029), (0.42 * radius, 0.0325)], 14, crease_deg=60),
    )
    form.grasp = Grasp(2.08 * radius, 0.014, symmetric=True)
    return form


def _hot_dog(recipe: Recipe) -> Form:
    length, width = recipe.length(0.080, 0.092), recipe.length(0.036, 0.042)
    bun = CRUST[recipe.color]
    form = Form(
        {
            "bun": textures.solid(bun, recipe.rng, 32, 32),
            "sausage": plain((0.62, 0.20, 0.12), recipe.rng),
            "mustard": plain(rgb("yellow"), recipe.rng),
        }
    )
    half = pillow(length, 0.46 * width, 0.021, 0.0075, 0.006, steps=3)
    put(form, "bun", half.at(y=0.27 * width), half.at(y=-0.27 * width), box(0.9 * length, 0.1 * width, 0.008, ("top",)))
    long = 0.56 * length
    put(form, "sausage", rod([(-long, 0.0034), (-long + 0.005, 0.0068), (long - 0.005, 0.0068), (long, 0.0034)], 8, 0.0125))
    x = np.linspace(-0.8 * long, 0.8 * long, 9)
    path = np.c_[x, 0.0028 * np.where(np.arange(9) % 2, 1, -1), np.full(9, 0.0258)]
    put(form, "mustard", tube(path, 0.0012, 4))
    form.grasp = Grasp(width, 0.011, yaw=np.pi / 2)
    return form


def _cupcake(recipe: Recipe) -> Form:
    radius = recipe.length(0.0185, 0.0215)
    paper = shade(recipe.paint, 0.62) if recipe.color != "black" else rgb("white")
    cup = prints.upright_stripes(paper, shade(paper, 1.35), recipe.rng, 14, 0.4, 24, 112)
    icing = textures.solid(recipe.paint, recipe.rng, 32, 64)
    for name in ("white", "yellow", "light blue", "pink"):
        if name != recipe.color:
            icing[recipe.rng.random((32, 64)) < 0.02] = rgb(name)
    form = Form({"cup": cup, "icing": icing, "cherry": plain(rgb("red") if recipe.color != "red" else _CREAM, recipe.rng)})
    put(form, "cup", turned([(0.68 * radius, 0), (0.90 * radius, 0.015)], 12))
    z, r = 0.015, radius
    for _ in range(2):
        put(form, "icing", turned([(0.9 * r, z), (r, z + 0.003), (0.85 * r, z + 0.0095)], 12, crease_deg=70))
        z, r = z + 0.0095, 0.72 * r
    put(form, "cherry", ball(0.005, 0.95, 8, 4).at(z=z))
    form.grasp = Grasp(1.6 * radius, 0.010, symmetric=True)
    return form


def _sushi(recipe: Recipe) -> Form:
    length, width = recipe.length(0.050, 0.060), recipe.length(0.028, 0.034)
    rice = textures.speckle(rgb("white"), 0.86 * rgb("white"), recipe.rng, 0.12, 48, 48)
    fish = np.where(
        (np.arange(48) * 6 / 48 % 1 < 0.25)[None, :, None],
        np.array([0.98, 0.74, 0.56]),
        textures.solid(np.array([0.95, 0.47, 0.24]), recipe.rng, 32, 48),
    )
    form = Form({"rice": rice, "fish": fish, "band": plain((0.10, 0.16, 0.12), recipe.rng)})
    put(form, "rice", pillow(length, width, 0.022, 0.3 * width, 0.004))
    put(form, "fish", pillow(0.86 * length, 0.56 * width, 0.005, 0.2 * width, 0.002).at(z=0.022))
    put(form, "band", box(0.006, width + 0.002, 0.0280))
    form.grasp = Grasp(width + 0.002, 0.012, yaw=np.pi / 2)
    return form


_FOOD = ("produce",)
_ICINGS = ("pink", "brown", "white", "yellow", "light blue", "red", "green")
_BAKED = ("brown", "beige")
FAMILIES = (
    Family(("donut", "doughnut"), _ICINGS, _FOOD, _donut, 0.048, graspable=True),
    Family(
        ("toast", "bread slice", "slice of bread", "slice of toast"),
        ("brown",),
        _FOOD,
        _toast,
        0.053,
        graspable=True,
        speaks_color=False,
    ),
    Family(("bread", "loaf", "loaf of bread", "bread loaf"), _BAKED, _FOOD, _bread, 0.081, graspable=True, speaks_color=False),
    Family(("croissant",), _BAKED, _FOOD, _croissant, 0.080, graspable=True, speaks_color=False),
    Family(("cheese", "cheese wedge", "piece of cheese"), ("yellow",), _FOOD, _cheese, 0.061, graspable=True, speaks_color=False),
    Family(
        ("cake", "piece of cake", "slice of cake", "cake slice"),
        ("pink", "brown", "white", "yellow", "red"),
        _FOOD,
        _cake,
        0.061,
        graspable=True,
    ),
    Family(("hamburger", "burger", "cheeseburger"), _BAKED, _FOOD, _hamburger, 0.048, graspable=True, speaks_color=False),
    Family(("hot dog", "hotdog"), _BAKED, _FOOD, _hot_dog, 0.105, graspable=True, speaks_color=False),
    Family(("cupcake", "muffin"), _ICINGS, _FOOD, _cupcake, 0.044, graspable=True),
    Family(("sushi",), ("white",), _FOOD, _sushi, 0.061, graspable=True, speaks_color=False),
)
