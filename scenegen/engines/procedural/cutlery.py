"""Cutlery and cooking spoons with thick handles, because a gripper cannot take flat ones off a table. All lie along x."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import disc, frustum, lid, loft, oval, prism, put, tube
from scenegen.engines.procedural.prints import METAL, plain, shade
from scenegen.mesh.surfaces import rounded_rectangle
from scenegen.palette import PALETTE

COLORS = tuple(PALETTE)
_HIGH = 0.0165


def _handle(recipe: Recipe, form: Form, length: float, right: float) -> None:
    """A bar that ends at x = right and is a little thinner there; held in the middle of its thick part."""
    width = recipe.length(0.0155, 0.0185)
    sections = ((right - length, 0.72), (right - 0.92 * length, 1.0), (right - 0.25 * length, 1.0), (right, 0.72))
    loops = []
    for x, size in sections:
        outline = rounded_rectangle(size * width, _HIGH * (0.5 + 0.5 * size), 0.005, 2)
        y, z = outline.T
        loops.append(np.c_[np.full(len(y), x), y, z - z.min()])
    put(form, "handle", loft(loops))
    form.grasp, form.centred = Grasp(width, _HIGH / 2, yaw=np.pi / 2), False


def _coats(recipe: Recipe, head: np.ndarray | None = None) -> Form:
    image = prints.coat(recipe, 48, 48)
    prints.rectangle(image, 0, 0.84, 1, 0.88, prints.other(recipe.paint))
    return Form({"handle": image, "head": plain(METAL if head is None else head, recipe.rng, 16, 48, 0.08)})


def _spoon(recipe: Recipe) -> Form:
    head = recipe.paint if recipe.material != "metal" else METAL
    form = _coats(recipe, head)
    length, wide = recipe.length(0.036, 0.042), recipe.length(0.028, 0.034)
    form.textures["dip"] = prints.spot(plain(head, recipe.rng, 32, 32), 0.5, 0.5, 0.40, 0.40, shade(head, 0.66))
    prints.spot(form.textures["dip"], 0.56, 0.5, 0.27, 0.27, shade(head, 0.78))
    _handle(recipe, form, 0.070, 0.022)
    middle = 0.036 + length / 2
    levels = ((0.45, 0.0), (0.84, 0.005), (1.0, 0.011))
    loops = [np.c_[oval(length * f, wide * f, 14), np.full(14, z)] for f, z in levels]
    put(
        form,
        "head",
        loft(loops, top=False).at(x=middle),
        tube([(0.020, 0, 0.009), (0.042, 0, 0.007)], [[0.005, 0.0035], [0.006, 0.003]], 6),
    )
    put(form, "dip", lid(oval(length, wide, 14), 0.011).at(x=middle))
    return form


def _fork(recipe: Recipe) -> Form:
    form = _coats(recipe)
    wide = recipe.length(0.024, 0.028)
    _handle(recipe, form, 0.078, 0.026)
    put(form, "head", tube([(0.024, 0, 0.008), (0.034, 0, 0.0055)], [[0.0045, 0.003], [0.006, 0.0025]], 6))
    outline = np.array(
        [(0.030, -0.006), (0.040, -wide / 2), (0.050, -wide / 2), (0.050, wide / 2), (0.040, wide / 2), (0.030, 0.006)]
    )
    put(form, "head", prism(outline, 0.0055).at(z=0.002))
    for i in range(4):
        tine = frustum((0.020, 0.0036), (0.017, 0.003), 0.004, (-0.0015, 0))
        put(form, "head", tine.at(0.059, (i - 1.5) * (wide - 0.004) / 3, 0.0022))
    return form


def _knife(recipe: Recipe) -> Form:
    form = _coats(recipe)
    wide, length = recipe.length(0.018, 0.022), recipe.length(0.052, 0.064)
    _handle(recipe, form, 0.072, 0.026)
    outline = np.array([(0, -0.5), (0.70, -0.5), (0.90, -0.28), (1.0, 0.18), (0.96, 0.5), (0, 0.5)]) * (length, wide)
    put(form, "head", prism(outline, 0.0045).at(0.024, 0, 0.004))
    return form


def _spatula(recipe: Recipe) -> Form:
    form = _coats(recipe, recipe.paint)
    wide, length = recipe.length(0.034, 0.040), recipe.length(0.040, 0.046)
    blade = plain(recipe.paint, recipe.rng, 32, 32)
    for y in (0.22, 0.5, 0.78):
        prints.rectangle(
            blade, 0.25, y - 0.07, 0.82, y + 0.07, shade(recipe.paint, 0.25) if recipe.color != "black" else (0.45, 0.45, 0.47)
        )
    form.textures["blade"] = blade
    form.textures["neck"] = plain(METAL, recipe.rng)
    _handle(recipe, form, 0.068, 0.016)
    put(form, "neck", tube([(0.012, 0, 0.009), (0.024, 0, 0.008), (0.036, 0, 0.004)], 0.003, 6))
    outline = np.array(
        [(-0.5, -0.36), (-0.40, -0.44), (0.42, -0.5), (0.5, -0.44), (0.5, 0.44), (0.42, 0.5), (-0.40, 0.44), (-0.5, 0.36)]
    ) * (length, wide)
    middle = 0.032 + length / 2
    put(form, "head", prism(outline, 0.005, top=False).at(middle, 0, 0.0005))
    put(form, "blade", lid(outline, 0.0055).at(middle))
    return form


def _ladle(recipe: Recipe) -> Form:
    form = _coats(recipe, recipe.paint)
    radius, deep = recipe.length(0.0190, 0.0215), 0.020
    _handle(recipe, form, 0.072, 0.018)
    middle = 0.030 + radius
    outline = disc(radius, 14)
    loops = [np.c_[f * outline, np.full(14, z * deep)] for f, z in ((0.45, 0.0), (0.80, 0.28), (1.0, 1.0))]
    hollow = prints.spot(plain(recipe.paint, recipe.rng, 32, 32), 0.5, 0.5, 0.43, 0.43, shade(recipe.paint, 0.5))
    form.textures["hollow"] = prints.spot(hollow, 0.55, 0.46, 0.30, 0.30, shade(recipe.paint, 0.38))
    put(
        form,
        "head",
        loft(loops, top=False).at(x=middle),
        tube([(0.014, 0, 0.010), (0.026, 0, 0.012), (0.034, 0, 0.017)], [[0.005, 0.004], [0.005, 0.003], [0.008, 0.0025]], 6),
    )
    put(form, "hollow", lid(outline, deep).at(x=middle))
    return form


def _whisk(recipe: Recipe) -> Form:
    form = _coats(recipe, shade(recipe.paint, 1.12))
    _handle(recipe, form, 0.070, 0.018)
    t = np.linspace(0, np.pi, 8)[[0, 2, 4, 7]]
    x = 0.014 + recipe.length(0.058, 0.066) * np.sin(t / 2) ** 1.3
    bow = 0.019 * np.sin(t) ** 0.7
    for angle in np.arange(6) * np.pi / 3 + 0.5:
        put(form, "head", tube(np.c_[x, bow * np.cos(angle), 0.010 + 0.42 * bow * np.sin(angle)], 0.0012, 4))
    return form


def _tongs(recipe: Recipe) -> Form:
    form = Form({"handle": prints.coat(recipe, 32, 32), "head": plain(METAL, recipe.rng, 16, 48)})
    for side in (-1, 1):
        path = [(-0.046, 0.004 * side, 0.008), (-0.020, 0.010 * side, 0.008), (0.022, 0.013 * side, 0.008)]
        put(form, "handle", tube(path, [[0.003, 0.008], [0.003, 0.008], [0.0025, 0.008]], 4))
        put(
            form,
            "head",
            tube([(0.022, 0.013 * side, 0.008), (0.040, 0.010 * side, 0.008)], [[0.0025, 0.006], [0.003, 0.007]], 6),
            frustum((0.018, 0.012), (0.015, 0.010), 0.013).at(0.046, 0.011 * side),
        )
    put(form, "head", frustum((0.008, 0.016), (0.008, 0.016), 0.016).at(x=-0.050))
    form.grasp, form.centred = Grasp(0.030, 0.008, yaw=np.pi / 2), False
    return form


_BRIGHT = ("red", "orange", "yellow", "green", "teal", "blue", "light blue", "purple", "pink", "black", "brown", "beige")
FAMILIES = (
    Family(("spoon", "tablespoon", "teaspoon"), COLORS, ("plastic", "wood"), _spoon, 0.130, graspable=True),
    Family(("fork",), _BRIGHT, ("plastic",), _fork, 0.130, graspable=True),
    Family(("knife", "table knife", "kitchen knife"), _BRIGHT, ("plastic",), _knife, 0.136, graspable=True),
    Family(("spatula", "turner"), _BRIGHT, ("plastic",), _spatula, 0.132, graspable=True),
    Family(("ladle", "soup ladle"), _BRIGHT, ("plastic", "wood"), _ladle, 0.130, graspable=True),
    Family(("whisk", "egg beater"), _BRIGHT, ("plastic",), _whisk, 0.136, graspable=True),
    Family(("tongs", "kitchen tongs"), _BRIGHT, ("plastic",), _tongs, 0.114, graspable=True),
)
