"""More of the kitchen: pots, teapots, and what stands on a table for a meal."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.engines.procedural.parts import (
    Part,
    ball,
    box,
    disc,
    frustum,
    hollow,
    hoop,
    lid,
    prism,
    put,
    rod,
    tube,
    turned,
)
from scenegen.engines.procedural.prints import METAL, PALE, plain, shade
from scenegen.mesh.surfaces import lathe
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Relation

COLORS = tuple(PALETTE)


def _arc(radius: float, low: float, high: float, out: float, count: int = 5) -> list[tuple[float, float, float]]:
    """The way of a handle: from a wall at `radius` at height `high` out along x and back at `low`."""
    angles = np.linspace(np.pi / 2, -np.pi / 2, count)
    middle, half = (low + high) / 2, (high - low) / 2
    return [(radius + out * np.cos(a), 0.0, middle + half * np.sin(a)) for a in angles]


def _loop(radius: float, height: float, out: float, wide: float, thick: float) -> Part:
    """A flat handle that stands out along x from a wall."""
    path = [
        (radius, -wide, height),
        (radius + out, -0.7 * wide, height),
        (radius + out, 0.7 * wide, height),
        (radius, wide, height),
    ]
    return tube(path, thick, 6)


def _teapot(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0195, 0.0225), recipe.length(0.038, 0.044)
    body = prints.coat(recipe)
    if recipe.rng.random() < 0.5:
        prints.rectangle(body, 0, 0.40, 1, 0.46, prints.other(recipe.paint))
    form = Form({"body": body, "trim": plain(shade(recipe.paint, 0.75), recipe.rng)})
    rings = [(0.62 * radius, 0), (0.95 * radius, 0.22 * height), (radius, 0.45 * height), (0.86 * radius, 0.8 * height)]
    put(form, "body", turned([*rings, (0.55 * radius, height)], crease_deg=50))
    put(
        form,
        "body",
        tube(
            [(0.8 * radius, 0, 0.3 * height), (1.3 * radius, 0, 0.5 * height), (1.75 * radius, 0, 0.95 * height)],
            [0.0055, 0.0045, 0.003],
            7,
            up=(0, 1, 0),
        ),
    )
    put(form, "body", tube(_arc(0.9 * radius, 0.25 * height, 0.85 * height, 0.018), 0.0028, 6, up=(0, 1, 0)).about_z(np.pi))
    put(form, "trim", turned([(0.62 * radius, 0), (0.34 * radius, 0.006)], closed=(True, True)).at(z=height))
    put(form, "trim", ball(0.0045, segments=8, bands=3).at(z=height + 0.006))
    form.grasp, form.centred = Grasp(2 * radius, 0.45 * height, yaw=np.pi / 2), False
    return form


def _saucer(recipe: Recipe) -> Form:
    radius, height, thick, foot = recipe.length(0.054, 0.062), recipe.length(0.011, 0.014), 0.005, 0.036
    image = prints.coat(recipe, 96)
    edge = prints.other(recipe.paint)
    image[26:30] = 0.78 * image[26:30]
    image[40:44] = 0.45 * image[40:44] + 0.55 * edge
    form = Form({"body": image})
    rim = [(foot, 0), (radius, height - 0.004), (radius, height), (foot, thick)]
    plate = turned([(foot, 0), (foot, thick)], 16)
    walls = hoop(rim, 16)
    form.add(lathe([(0, 0), *rim, (0, thick)], 16, crease_deg=12), [*plate.hulls, *walls.hulls])
    form.goal_point = (0.0, 0.0, thick)
    return form


def _pot(recipe: Recipe) -> Form:
    radius, height, wall, floor = recipe.length(0.066, 0.076), recipe.length(0.044, 0.052), 0.006, 0.005
    outside = prints.coat(recipe)
    outside[:4] = shade(recipe.paint, 1.4)
    form = Form(
        {"body": outside, "inside": plain(0.8 * recipe.paint, recipe.rng, 24), "handle": plain(0.45 * recipe.paint, recipe.rng)}
    )
    hollow(form, radius, radius, height, wall, floor, ("body", "inside"))
    for turn in (0, np.pi):
        put(form, "handle", _loop(radius, 0.8 * height, 0.018, 0.022, 0.0045).about_z(turn))
    return form


def _lid(recipe: Recipe) -> Form:
    radius = recipe.length(0.0205, 0.0235)
    form = Form({"body": prints.coat(recipe), "knob": plain(shade(prints.other(recipe.paint), 0.9), recipe.rng)})
    put(
        form,
        "body",
        turned(
            [(0.94 * radius, 0), (radius, 0.002), (radius, 0.005), (0.8 * radius, 0.0085), (0.45 * radius, 0.011)], crease_deg=40
        ),
    )
    put(form, "knob", turned([(0.005, 0.011), (0.0085, 0.017), (0.0085, 0.022), (0.006, 0.025)], 10))
    form.grasp = Grasp(0.017, 0.0195, symmetric=True)
    return form


def _colander(recipe: Recipe) -> Form:
    """Shaped like the bowls, and as thick, for the same reason."""
    radius, height, wall = recipe.length(0.070, 0.080), recipe.length(0.036, 0.044), 0.010
    holed = [
        prints.holes(textures.solid(shade(recipe.paint, f), recipe.rng, 56, 128), 16, 6, 0.25 * recipe.paint) for f in (1.0, 0.9)
    ]
    for image, band in ((holed[0], slice(0, 10)), (holed[1], slice(46, 56))):
        image[band] = shade(recipe.paint, 1.1)
    form = Form({"body": holed[0], "inside": holed[1], "handle": plain(recipe.paint, recipe.rng)})
    hollow(form, 0.62 * radius, radius, height, wall, 0.006, ("body", "inside"))
    for turn in (0, np.pi):
        put(form, "handle", _loop(radius - 0.002, height - 0.004, 0.016, 0.022, 0.0035).about_z(turn))
    return form


def _pepper_grinder(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.0145, 0.0175), recipe.length(0.058, 0.063)
    form = Form({"body": prints.coat(recipe), "metal": plain(METAL, recipe.rng)})
    waist = 0.62 * radius
    put(form, "body", turned([(radius, 0), (radius, 0.10 * height), (waist, 0.48 * height)]))
    put(form, "body", turned([(waist, 0.48 * height), (0.85 * radius, 0.64 * height)], closed=(False, True)))
    put(form, "metal", turned([(0.6 * radius, 0.64 * height), (0.6 * radius, 0.69 * height)], closed=(False, False)))
    head = [(0.85 * radius, 0.69), (0.95 * radius, 0.78), (0.8 * radius, 0.92), (0.35 * radius, 1.0)]
    put(form, "body", turned([(r, z * height) for r, z in head], crease_deg=50))
    put(form, "metal", ball(0.0035, segments=8, bands=3).at(z=height))
    form.grasp = Grasp(1.9 * radius, 0.78 * height, symmetric=True)
    return form


def _cake_stand(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.060, 0.066), recipe.length(0.042, 0.048)
    form = Form({"body": prints.coat(recipe), "top": plain(shade(recipe.paint, 1.08), recipe.rng, 48, 48)})
    outline = disc(radius, 20)
    put(form, "body", turned([(0.5 * radius, 0), (0.42 * radius, 0.005), (0.16 * radius, 0.012)], 16))
    put(form, "body", turned([(0.16 * radius, 0.012), (0.14 * radius, height - 0.008)], 10, (False, False)))
    put(form, "body", prism(outline, 0.008, top=False).at(z=height - 0.008))
    put(form, "top", lid(outline, height))
    form.goal_point = (0.0, 0.0, height)
    return form


def _cookie_tin(recipe: Recipe) -> Form:
    radius, height, rim = recipe.length(0.056, 0.064), recipe.length(0.032, 0.042), 0.012
    trim = prints.other(recipe.paint)
    top = prints.coat(recipe)
    prints.spot(top, 0.5, 0.5, 0.44, 0.44, trim)
    prints.spot(top, 0.5, 0.5, 0.40, 0.40, shade(recipe.paint, 1.05))
    for angle in np.arange(5) * 2 * np.pi / 5:
        x, y = 0.5 + 0.2 * np.cos(angle), 0.5 + 0.2 * np.sin(angle)
        prints.spot(top, x, y, 0.10, 0.10, (0.78, 0.58, 0.34))
        prints.spots(top, [(x - 0.03, y - 0.02), (x + 0.04, y + 0.02), (x - 0.01, y + 0.05)], 0.022, 0.022, (0.3, 0.18, 0.1))
    form = Form(
        {
            "top": top,
            "body": textures.stripes(recipe.paint, shade(recipe.paint, 0.8), recipe.rng, 2, 24),
            "rim": plain(shade(recipe.paint, 1.15), recipe.rng),
        }
    )
    put(form, "body", turned([(radius - 0.003, 0), (radius - 0.003, height - rim)], 18, (True, False)))
    outline = disc(radius, 18)
    put(form, "rim", prism(outline, rim, top=False).at(z=height - rim))
    put(form, "top", lid(outline, height))
    form.goal_point = (0.0, 0.0, height)
    return form


def _rolling_pin(recipe: Recipe) -> Form:
    radius, half = recipe.length(0.014, 0.018), recipe.length(0.032, 0.040)
    form = Form(
        {"body": textures.wood(recipe.paint, recipe.rng, 48, 64, 3), "handle": plain(shade(recipe.paint, 0.6), recipe.rng)}
    )
    put(form, "body", rod([(-half, radius), (half, radius)], 10))
    for side in (-1, 1):
        grip = rod([(0, 0.005), (0.006, 0.0075), (0.020, 0.0075), (0.023, 0.005)], 8).at(x=half, z=radius - 0.0075)
        put(form, "handle", grip if side > 0 else grip.about_z(np.pi))
    form.grasp = Grasp(2 * radius, radius, yaw=np.pi / 2)
    return form


def _milk_carton(recipe: Recipe) -> Form:
    side, height = recipe.length(0.032, 0.038), recipe.length(0.040, 0.045)
    image = textures.solid(recipe.paint, recipe.rng, 48, 48)
    prints.rectangle(image, 0.12, 0.30, 0.88, 0.78, PALE if recipe.color != "white" else rgb("light blue"))
    prints.spot(image, 0.5, 0.54, 0.22, 0.17, recipe.paint)
    prints.spot(image, 0.42, 0.50, 0.06, 0.05, PALE)
    form = Form({"body": image, "top": plain(shade(recipe.paint, 1.1), recipe.rng)})
    put(form, "body", box(side, side, height, ("bottom", "front", "right", "back", "left")))
    put(form, "top", frustum((side, side), (side, 0.005), 0.014).at(z=height), box(side, 0.005, 0.006).at(z=height + 0.014))
    form.grasp = Grasp(side, 0.45 * height, yaw=np.pi / 2)
    return form


def _juice_box(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.034, 0.040), recipe.length(0.022, 0.028), recipe.length(0.046, 0.054)
    image = textures.solid(recipe.paint, recipe.rng, 48, 48)
    prints.rectangle(image, 0, 0.70, 1, 0.80, PALE if recipe.color != "white" else rgb("green"))
    prints.spot(image, 0.5, 0.42, 0.26, 0.22, rgb("orange") if recipe.color != "orange" else rgb("green"))
    prints.spot(image, 0.5, 0.22, 0.06, 0.06, prints.LEAF)
    form = Form(
        {
            "body": image,
            "top": plain(shade(recipe.paint, 1.12), recipe.rng),
            "straw": textures.stripes(PALE, rgb("red"), recipe.rng, 3, 16, 16),
        }
    )
    put(form, "body", box(length, width, height, ("bottom", "front", "right", "back", "left")))
    put(form, "top", box(length, width, height, ("top",)).bare())
    straw = [(0.25 * length, 0, height), (0.25 * length, 0, height + 0.010), (0.25 * length - 0.007, 0, height + 0.0135)]
    put(form, "straw", tube(straw, 0.0018, 6, up=(0, 1, 0)))
    form.grasp = Grasp(width, height / 2, yaw=np.pi / 2)
    return form


def _spray_bottle(recipe: Recipe) -> Form:
    radius = recipe.length(0.0155, 0.0185)
    form = Form(
        {
            "body": prints.spot(
                textures.solid(recipe.paint, recipe.rng, 48, 64), 0.75, 0.30, 0.14, 0.2, prints.other(recipe.paint)
            ),
            "head": plain(PALE if recipe.color != "white" else rgb("light blue"), recipe.rng),
            "trigger": plain(shade(recipe.paint, 0.6), recipe.rng),
        }
    )
    put(
        form,
        "body",
        turned(
            [(0.95 * radius, 0), (radius, 0.003), (radius, 0.032), (0.40 * radius, 0.038)], closed=(True, False), crease_deg=40
        ),
    )
    put(form, "head", turned([(0.48 * radius, 0.038), (0.48 * radius, 0.042)], 10))
    put(
        form,
        "head",
        frustum((0.020, 0.011), (0.024, 0.010), 0.011, (0.003, 0)).at(x=0.003, z=0.042),
        box(0.006, 0.006, 0.006).at(x=0.0205, z=0.046),
    )
    put(form, "trigger", frustum((0.004, 0.007), (0.004, 0.007), 0.010, (-0.003, 0)).at(x=0.014, z=0.032))
    form.grasp, form.centred = Grasp(2 * radius, 0.018, yaw=np.pi / 2), False
    return form


_ON, _IN = (Relation.ON,), (Relation.IN,)
_POT = ("gray", "red", "black", "blue", "orange", "teal", "white")
_WARE = ("white", "red", "blue", "light blue", "teal", "green", "yellow", "pink", "purple", "black", "brown", "beige")
FAMILIES = (
    Family(("teapot", "tea pot", "kettle"), _WARE, ("ceramic", "metal"), _teapot, 0.085, graspable=True),
    Family(("saucer", "small plate", "side plate"), COLORS, ("ceramic", "plastic"), _saucer, 0.126, relations=_ON, room=0.065),
    Family(("pot", "cooking pot", "stew pot", "casserole"), _POT, ("metal",), _pot, 0.21, relations=_IN, room=0.11),
    Family(("lid", "pot lid", "jar lid"), _POT, ("metal", "plastic"), _lid, 0.048, graspable=True),
    Family(
        ("colander", "strainer", "sieve"),
        ("gray", "white", "red", "blue", "green", "yellow", "teal"),
        ("metal", "plastic"),
        _colander,
        0.21,
        relations=_IN,
        room=0.13,
    ),
    Family(
        ("pepper grinder", "pepper mill", "grinder", "salt mill"),
        ("brown", "beige", "black"),
        ("wood",),
        _pepper_grinder,
        0.036,
        graspable=True,
    ),
    Family(
        ("cake stand", "pedestal"),
        ("white", "pink", "light blue", "teal", "beige", "black", "green"),
        ("ceramic", "glass"),
        _cake_stand,
        0.134,
        relations=_ON,
        room=0.11,
    ),
    Family(
        ("cookie tin", "biscuit tin", "round tin"),
        ("red", "blue", "green", "purple", "teal", "yellow", "white"),
        ("metal",),
        _cookie_tin,
        0.13,
        relations=_ON,
        room=0.085,
    ),
    Family(("rolling pin",), ("beige", "brown"), ("wood",), _rolling_pin, 0.128, graspable=True, speaks_color=False),
    Family(
        ("milk carton", "milk box", "milk"),
        ("white", "blue", "light blue", "red", "green", "pink"),
        ("paper",),
        _milk_carton,
        0.040,
        graspable=True,
    ),
    Family(
        ("juice box", "drink box", "juice"),
        ("orange", "red", "green", "lime", "purple", "yellow", "pink", "white"),
        ("paper",),
        _juice_box,
        0.042,
        graspable=True,
    ),
    Family(
        ("spray bottle", "spray", "cleaner"),
        ("blue", "light blue", "green", "red", "pink", "orange", "white", "purple"),
        ("plastic",),
        _spray_bottle,
        0.050,
        graspable=True,
    ),
)
