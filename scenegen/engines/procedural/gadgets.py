"""Machines of desk and sofa."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    box,
    frustum,
    lid,
    loft,
    pillow,
    pillow_top,
    prism,
    put,
    tube,
    turned,
)
from scenegen.engines.procedural.prints import DARK, METAL, PALE, SCREEN, plain, shade
from scenegen.mesh.surfaces import rounded_rectangle
from scenegen.palette import rgb


def _gadget(recipe: Recipe, size: tuple[float, float, float], face: textures.Image, radius: float = 0.006) -> Form:
    """A flat rounded body along y with a picture on its top, held across."""
    length, width, high = size
    form = Form({"face": face, "body": plain(shade(recipe.paint, 0.92), recipe.rng, 32)})
    put(form, "body", pillow(width, length, high, radius, 0.002, top=False))
    put(form, "face", pillow_top(width, length, high, radius, 0.002))
    form.grasp = Grasp(width, high / 2)
    return form


def _phone(recipe: Recipe) -> Form:
    face = plain(recipe.paint, recipe.rng, 96, 48)
    prints.rectangle(face, 0.12, 0.13, 0.88, 0.82, SCREEN)
    prints.keys(face, 3, 3, (0.17, 0.34, 0.83, 0.76), (0.35, 0.65, 0.85), 0.42)
    prints.rectangle(face, 0.24, 0.19, 0.76, 0.25, PALE)
    prints.rectangle(face, 0.40, 0.06, 0.60, 0.075, prints.other(recipe.paint))
    prints.spot(face, 0.5, 0.91, 0.08, 0.04, prints.other(recipe.paint))
    return _gadget(recipe, (recipe.length(0.064, 0.074), recipe.length(0.032, 0.038), recipe.length(0.0155, 0.0165)), face)


def _remote(recipe: Recipe) -> Form:
    face = plain(recipe.paint, recipe.rng, 96, 32)
    trim = prints.other(recipe.paint)
    prints.spot(face, 0.5, 0.08, 0.14, 0.045, (0.85, 0.15, 0.12) if recipe.color != "red" else trim)
    prints.spots(face, prints.lattice(3, 4, 0.08, 0.16, 0.92, 0.56), 0.10, 0.032, trim)
    prints.spot(face, 0.5, 0.72, 0.34, 0.11, shade(trim, 0.7))
    prints.spot(face, 0.5, 0.72, 0.15, 0.05, recipe.paint)
    prints.spots(face, prints.lattice(2, 1, 0.08, 0.88, 0.92, 0.96), 0.12, 0.03, (0.2, 0.5, 0.8))
    return _gadget(recipe, (recipe.length(0.086, 0.100), recipe.length(0.026, 0.030), recipe.length(0.0155, 0.018)), face)


def _calculator(recipe: Recipe) -> Form:
    face = plain(recipe.paint, recipe.rng, 96, 64)
    prints.rectangle(face, 0.10, 0.07, 0.90, 0.29, (0.66, 0.74, 0.62))
    for i, x in enumerate((0.52, 0.62, 0.72, 0.82)):
        prints.rectangle(face, x - 0.03, 0.12 + 0.03 * (i % 2), x + 0.03, 0.24, DARK)
    prints.keys(face, 4, 4, (0.08, 0.35, 0.92, 0.95), prints.other(recipe.paint), 0.42)
    prints.keys(face, 1, 4, (0.71, 0.35, 0.92, 0.95), rgb("orange") if recipe.color != "orange" else rgb("blue"), 0.42)
    return _gadget(recipe, (recipe.length(0.056, 0.064), recipe.length(0.038, 0.044), recipe.length(0.0155, 0.017)), face, 0.004)


def _computer_mouse(recipe: Recipe) -> Form:
    length, width, high = recipe.length(0.052, 0.062), recipe.length(0.030, 0.036), recipe.length(0.020, 0.024)
    line = prints.other(recipe.paint)
    top = plain(recipe.paint, recipe.rng, 48, 48)
    prints.rectangle(top, 0.48, 0.0, 0.53, 0.42, 0.5 * line + 0.5 * recipe.paint)
    prints.rectangle(top, 0.0, 0.40, 1.0, 0.43, 0.5 * line + 0.5 * recipe.paint)
    form = Form(
        {"body": textures.solid(recipe.paint, recipe.rng, 32, 32), "top": top, "wheel": plain(0.7 * line + 0.15, recipe.rng)}
    )
    shape = rounded_rectangle(1.0, 1.0, 0.42, 4) * (width, length)
    levels = ((0.92, 0.0, 0.0), (1.0, 0.30, 0.0), (0.92, 0.68, -0.001), (0.66, 1.0, -0.003))
    put(form, "body", loft([np.c_[shape * f + (0, dy), np.full(len(shape), z * high)] for f, z, dy in levels], top=False))
    put(form, "top", lid(shape * 0.66 + (0, -0.003), high))
    put(form, "wheel", frustum((0.005, 0.012), (0.004, 0.008), 0.0035).at(0, 0.17 * length, high - 0.0010))
    form.grasp = Grasp(width, 0.4 * high)
    return form


def _keyboard(recipe: Recipe) -> Form:
    length, width = recipe.length(0.115, 0.135), recipe.length(0.046, 0.052)
    face = plain(recipe.paint, recipe.rng, 64, 160, 0.02)
    key = shade(recipe.paint, 0.80) if recipe.color not in ("black", "gray") else shade(recipe.paint, 1.30)
    prints.keys(face, 13, 4, (0.02, 0.06, 0.98, 0.78), key, 0.22)
    prints.keys(face, 2, 1, (0.02, 0.80, 0.24, 0.96), key, 0.15)
    prints.rectangle(face, 0.27, 0.815, 0.70, 0.945, key)
    prints.keys(face, 2, 1, (0.74, 0.80, 0.98, 0.96), key, 0.15)
    form = Form({"face": face, "body": plain(shade(recipe.paint, 0.85), recipe.rng)})
    outline = rounded_rectangle(length, width, 0.004)
    put(form, "body", prism(outline, 0.010, top=False))
    put(form, "face", lid(outline, 0.010))
    return form


def _camera(recipe: Recipe) -> Form:
    length, width, high = recipe.length(0.048, 0.056), recipe.length(0.022, 0.026), recipe.length(0.030, 0.034)
    glass = prints.spot(plain(DARK, recipe.rng, 16), 0.5, 0.0, 2.0, 0.22, (0.35, 0.50, 0.75))
    body = textures.solid(recipe.paint, recipe.rng, 32, 32)
    form = Form({"body": body, "lens": glass, "metal": plain(METAL, recipe.rng), "flash": plain((0.95, 0.95, 0.88), recipe.rng)})
    put(form, "body", pillow(length, width, high, 0.005, 0.002, steps=2))
    put(form, "body", frustum((0.022, 0.8 * width), (0.014, 0.6 * width), 0.007).at(z=high))
    put(form, "metal", turned([(0.0045, 0), (0.0045, 0.004)], 8, (False, True)).at(0.34 * length, 0, high))
    lens = turned([(0.0115, 0), (0.0105, 0.009)], 14, (False, True)).about_x(np.pi / 2)
    put(form, "lens", lens.at(0, -width / 2, 0.48 * high))
    put(form, "flash", box(0.008, 0.002, 0.005).at(-0.33 * length, -width / 2, 0.74 * high))
    form.grasp = Grasp(width + 0.009, 0.5 * high, yaw=np.pi / 2)
    return form


def _battery(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0105, 0.0130), recipe.length(0.046, 0.058)
    image = textures.solid(recipe.paint, recipe.rng, 48, 48)
    image[11:22] = np.array([0.78, 0.52, 0.28])
    for x in (0.25, 0.75):
        prints.rectangle(image, x - 0.02, 0.52, x + 0.02, 0.74, prints.other(recipe.paint))
        prints.rectangle(image, x - 0.06, 0.61, x + 0.06, 0.65, prints.other(recipe.paint))
    form = Form({"body": image, "metal": plain(METAL, recipe.rng)})
    put(form, "body", turned([(radius, 0), (radius, height)], 14, (True, False)))
    put(
        form,
        "metal",
        turned([(radius, height - 0.001), (0.9 * radius, height + 0.001)], 14, (False, True)),
        turned([(0.38 * radius, 0), (0.36 * radius, 0.004)], 10, (False, True)).at(z=height + 0.001),
    )
    form.grasp = Grasp(2 * radius, height / 2, symmetric=True)
    return form


def _controller(recipe: Recipe) -> Form:
    """A game pad: a bar and two grips towards the player."""
    form = Form(
        {
            "body": textures.solid(recipe.paint, recipe.rng, 32, 32),
            "top": plain(recipe.paint, recipe.rng, 48, 64),
            "stick": plain(0.6 * prints.other(recipe.paint) + 0.1, recipe.rng),
        }
    )
    mark = prints.other(recipe.paint)
    top, high, length, width = form.textures["top"], 0.0165, recipe.length(0.054, 0.062), 0.028
    prints.rectangle(top, 0.13, 0.36, 0.33, 0.48, mark)
    prints.rectangle(top, 0.20, 0.24, 0.26, 0.60, mark)
    for (x, y), name in zip(
        ((0.77, 0.22), (0.86, 0.42), (0.68, 0.42), (0.77, 0.62)), ("yellow", "red", "blue", "green"), strict=True
    ):
        prints.spot(top, x, y, 0.042, 0.075, rgb(name) if name != recipe.color else mark)
    put(form, "body", pillow(length, width, high, 0.008, 0.002, top=False))
    put(form, "top", pillow_top(length, width, high, 0.008, 0.002))
    for side in (-1, 1):
        put(
            form,
            "body",
            tube(
                [(side * 0.36 * length, -0.010, 0.0085), (side * 0.47 * length, -0.024, 0.0070)],
                [[0.0080, 0.0080], [0.0062, 0.0062]],
                8,
            ),
        )
        put(form, "stick", turned([(0.0042, 0), (0.0050, 0.004)], 8, (False, True)).at(side * 0.15 * length, -0.007, high))
    form.grasp, form.centred = Grasp(width, high / 2, yaw=np.pi / 2), False
    return form


_GADGETS = ("black", "white", "gray", "red", "blue", "light blue", "pink", "teal", "green")
FAMILIES = (
    Family(
        ("phone", "smartphone", "mobile phone", "cell phone", "telephone"),
        _GADGETS,
        ("plastic", "metal"),
        _phone,
        0.075,
        graspable=True,
    ),
    Family(("remote", "remote control", "tv remote"), ("black", "gray", "white"), ("plastic",), _remote, 0.101, graspable=True),
    Family(("calculator",), (*_GADGETS, "purple"), ("plastic",), _calculator, 0.065, graspable=True),
    Family(("computer mouse", "mouse"), _GADGETS, ("plastic",), _computer_mouse, 0.063, graspable=True),
    Family(("keyboard",), ("black", "white", "gray"), ("plastic",), _keyboard, 0.136),
    Family(
        ("camera", "photo camera"),
        ("black", "gray", "red", "blue", "pink", "teal", "yellow"),
        ("plastic",),
        _camera,
        0.058,
        graspable=True,
    ),
    Family(("battery",), ("black", "green", "red", "blue", "yellow"), ("metal",), _battery, 0.027, graspable=True),
    Family(("game controller", "controller", "gamepad", "joystick"), _GADGETS, ("plastic",), _controller, 0.074, graspable=True),
)
