"""What stands about in a living room, too large to be picked up."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import prints, textures
from scenegen.engines.procedural.form import Family, Form, Recipe
from scenegen.engines.procedural.parts import (
    OPEN_BELOW,
    box,
    disc,
    frustum,
    lid,
    prism,
    put,
    tube,
    turned,
)
from scenegen.engines.procedural.prints import DARK, LEAF, METAL, PALE, plain, shade
from scenegen.palette import rgb

_PETALS = ("red", "yellow", "pink", "purple", "white", "orange")


def _picture_frame(recipe: Recipe) -> Form:
    wide, high = recipe.length(0.075, 0.100), recipe.length(0.085, 0.110)
    picture = np.zeros((64, 64, 3)) + recipe.paint
    border = 11
    field = (slice(border, 64 - border),) * 2
    sky = np.linspace(0, 1, 64 - 2 * border)[:, None, None]
    picture[field] = (1 - sky) * np.array([0.50, 0.72, 0.92]) + sky * np.array([0.86, 0.92, 0.96])
    prints.spot(picture, 0.62, 0.34, 0.06, 0.06, (1.0, 0.88, 0.40))
    for x, y, r, green in ((0.34, 0.80, 0.22, 0.45), (0.66, 0.86, 0.24, 0.55)):
        hill = prints.spot(np.zeros((64, 64, 1)), x, y, r, r, 1.0)[..., 0] > 0
        hill[:border] = hill[64 - border :] = hill[:, :border] = hill[:, 64 - border :] = False
        picture[hill] = (0.28, green, 0.24)
    form = Form({"picture": picture, "frame": prints.coat(recipe, 32, 32)})
    outline = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]) * (wide, high)
    lean = np.pi / 2 - 0.22
    for part, panel in ((prism(outline, 0.009, top=False), "frame"), (lid(outline, 0.009), "picture")):
        put(form, panel, part.about_x(lean).at(z=high / 2 * np.sin(lean)))
    tall, foot = 0.6 * high, 0.032
    back = (tall / np.sin(lean) - high / 2) * np.cos(lean)
    put(form, "frame", frustum((0.020, 0.006), (0.012, 0.006), tall, (0, back + 0.002 - foot)).at(0, foot, 0))
    low = min(hull[:, 2].min() for hull in form.hulls)
    form.surfaces = [(surface.moved((0, 0, -low)), panel) for surface, panel in form.surfaces]
    form.hulls = [hull - (0, 0, low) for hull in form.hulls]
    return form


def _lamp(recipe: Recipe) -> Form:
    foot, shade_low, high = recipe.length(0.026, 0.032), recipe.length(0.040, 0.048), recipe.length(0.098, 0.112)
    cloth = prints.upright_stripes(recipe.paint, shade(recipe.paint, 0.90), recipe.rng, 14, 0.3)
    form = Form(
        {"shade": cloth, "stand": plain(np.array([0.55, 0.40, 0.26]), recipe.rng), "light": plain((1.0, 0.95, 0.78), recipe.rng)}
    )
    drop = 0.045
    put(
        form,
        "stand",
        turned([(foot, 0), (foot, 0.004), (0.35 * foot, 0.010)], 14),
        turned([(0.006, 0.010), (0.0045, high - drop)], 8, (False, False)),
    )
    put(form, "shade", turned([(shade_low, high - drop), (0.58 * shade_low, high)], 16, (True, False)))
    put(form, "light", lid(disc(0.58 * shade_low, 16), high))
    return form


def _flower(form: Form, place: tuple[float, float], low: float, high: float, size: float, panel: str) -> None:
    """A stem that leans outwards, five petals and a yellow heart."""
    x, y = place
    put(form, "leaf", tube([(0.3 * x, 0.3 * y, low), (x, y, high)], 0.0012, 4, up=(0.3, 1, 0)))
    put(form, panel, turned([(0.35 * size, 0), (size, 0.30 * size)], 7).at(x, y, high))
    put(
        form,
        "heart",
        frustum((0.7 * size, 0.7 * size), (0.4 * size, 0.4 * size), 0.25 * size, faces=OPEN_BELOW).at(x, y, high + 0.30 * size),
    )


def _vase(recipe: Recipe) -> Form:
    radius, high = recipe.length(0.022, 0.027), recipe.length(0.058, 0.068)
    body = textures.solid(recipe.paint, recipe.rng, 48, 64)
    prints.rectangle(body, 0, 0.62, 1, 0.66, prints.other(recipe.paint))
    prints.rectangle(body, 0, 0.72, 1, 0.75, prints.other(recipe.paint))
    petals = [name for name in _PETALS if name != recipe.color]
    petal = rgb(petals[int(recipe.rng.integers(len(petals)))])
    form = Form(
        {
            "body": body,
            "petal": plain(petal, recipe.rng),
            "leaf": plain(LEAF, recipe.rng),
            "heart": plain(rgb("yellow") if petal[2] > 0.3 else DARK, recipe.rng),
        }
    )
    put(
        form,
        "body",
        turned(
            [(0.66 * radius, 0), (radius, 0.35 * high), (0.94 * radius, 0.52 * high), (0.48 * radius, 0.82 * high)],
            12,
            crease_deg=60,
        ),
    )
    put(form, "body", turned([(0.48 * radius, 0.82 * high), (0.62 * radius, high)], 12, (False, True)))
    turn = float(recipe.rng.uniform(0, 2 * np.pi))
    for i, top in enumerate((0.100, 0.108, 0.094)):
        angle = turn + 2 * np.pi * i / 3
        _flower(form, (0.016 * np.cos(angle), 0.016 * np.sin(angle)), high - 0.001, top, 0.0105, "petal")
    return form


def _potted_plant(recipe: Recipe) -> Form:
    radius, high = recipe.length(0.023, 0.028), recipe.length(0.036, 0.042)
    clay = [np.array([0.80, 0.42, 0.22]), PALE, rgb("gray"), rgb("light blue")][int(recipe.rng.integers(4))]
    leaf_green = recipe.paint * (1.0, 1.05, 0.8)
    form = Form(
        {
            "pot": plain(clay, recipe.rng, 32),
            "soil": plain((0.26, 0.18, 0.12), recipe.rng, 16, 32, 0.2),
            "leaf": textures.speckle(leaf_green, 0.8 * leaf_green, recipe.rng, 0.2, 16, 32),
        }
    )
    put(
        form,
        "pot",
        turned([(0.72 * radius, 0), (0.92 * radius, high - 0.012)], 14, (True, False)),
        turned([(1.06 * radius, high - 0.012), (1.08 * radius, high)], 14, (True, False)),
    )
    put(form, "soil", lid(disc(1.08 * radius, 14), high))
    turn = float(recipe.rng.uniform(0, 2 * np.pi))
    for count, out, up, phase in ((5, 0.026, 0.036, 0.0), (4, 0.014, 0.056, 0.6)):
        for i in range(count):
            path = [(0.004, 0, 0), (0.6 * out, 0, 0.62 * up), (out, 0, up)]
            leaf = tube(path, [[0.003, 0.0015], [0.0100, 0.0015], [0.0015, 0.001]], 4)
            put(form, "leaf", leaf.about_z(turn + phase + 2 * np.pi * i / count).at(z=high))
    return form


def _tissue_box(recipe: Recipe) -> Form:
    length, width, high = recipe.length(0.090, 0.110), recipe.length(0.050, 0.058), recipe.length(0.034, 0.042)
    sides = textures.solid(recipe.paint, recipe.rng, 48, 64)
    for x, y in prints.lattice(6, 3, 0, 0.05, 1, 0.95):
        prints.spot(
            sides, x, y, 0.045, 0.06, shade(recipe.paint, 1.35) if recipe.color not in ("white", "beige") else rgb("light blue")
        )
    top = prints.spot(textures.solid(recipe.paint, recipe.rng, 32, 64), 0.5, 0.5, 0.30, 0.24, shade(recipe.paint, 0.5))
    form = Form({"side": sides, "top": top, "tissue": plain((0.97, 0.97, 0.97), recipe.rng)})
    put(form, "side", box(length, width, high, ("bottom", "front", "right", "back", "left")))
    put(form, "top", box(length, width, high, ("top",)).bare())
    for turn, shift in ((0.25, -0.006), (-0.5, 0.006)):
        put(
            form,
            "tissue",
            frustum((0.030, 0.006), (0.018, 0.002), 0.024, (shift, 0.4 * shift), OPEN_BELOW).about_z(turn).at(z=high),
        )
    return form


def _glasses(recipe: Recipe) -> Form:
    """Sunglasses with their arms folded out, standing on them."""
    form = Form({"frame": plain(recipe.paint, recipe.rng, 32), "lens": np.zeros((32, 48, 3)) + recipe.paint})
    dark = (0.20, 0.24, 0.28) if recipe.color not in ("black", "gray") else (0.42, 0.50, 0.58)
    prints.spot(form.textures["lens"], 0.5, 0.5, 0.39, 0.38, dark)
    wide, high = recipe.length(0.036, 0.042), recipe.length(0.028, 0.032)
    outline = np.array(
        [(-0.44, -0.42), (-0.2, -0.5), (0.2, -0.5), (0.44, -0.42), (0.5, 0.2), (0.44, 0.5), (-0.44, 0.5), (-0.5, 0.2)]
    ) * (wide, high)
    reach = wide / 2 + 0.004
    for side in (-1, 1):
        place = {"x": side * reach, "y": 0.0, "z": high / 2}
        put(form, "frame", prism(outline, 0.005, top=False).about_x(np.pi / 2).at(**place))
        put(form, "lens", lid(outline, 0.005).about_x(np.pi / 2).at(**place))
        hinge = side * (reach + wide / 2 - 0.003)
        put(
            form,
            "frame",
            tube([(hinge, 0, 0.74 * high), (hinge, 0.048, 0.62 * high), (hinge, 0.066, 0.0020)], 0.0020, 6, up=(1, 0, 0)),
        )
    put(form, "frame", box(0.012, 0.004, 0.004).at(0, -0.0025, 0.66 * high))
    return form


def _soap_dispenser(recipe: Recipe) -> Form:
    radius, high = recipe.length(0.021, 0.026), recipe.length(0.060, 0.072)
    form = Form(
        {
            "body": prints.spot(
                textures.solid(recipe.paint, recipe.rng, 48, 64), 0.75, 0.45, 0.10, 0.16, prints.other(recipe.paint)
            ),
            "pump": plain(METAL, recipe.rng),
        }
    )
    put(
        form,
        "body",
        turned([(0.95 * radius, 0), (radius, 0.004), (radius, high - 0.006), (0.55 * radius, high)], 14, crease_deg=40),
    )
    put(
        form,
        "pump",
        turned([(0.42 * radius, 0), (0.42 * radius, 0.008)], 10, (False, True)).at(z=high),
        turned([(0.0035, 0), (0.0035, 0.012)], 8, (False, False)).at(z=high + 0.008),
    )
    put(form, "pump", box(0.026, 0.009, 0.006).at(0.008, 0, high + 0.020))
    return form


def _book_stack(recipe: Recipe) -> Form:
    form = Form(
        {
            "cover": textures.solid(recipe.paint, recipe.rng, 32, 48),
            "pages": textures.stripes(rgb("white"), rgb("gray") * 1.4, recipe.rng, 3, 16, 16),
            "second": plain(shade(recipe.paint, 0.72 if recipe.color != "black" else 1.15), recipe.rng),
        }
    )
    prints.rectangle(form.textures["cover"], 0.25, 0.24, 0.75, 0.42, prints.other(recipe.paint))
    z = 0.0
    for panel, turn, size in (("cover", 0.0, (0.112, 0.082)), ("second", 0.18, (0.100, 0.074)), ("cover", -0.10, (0.098, 0.070))):
        length, width = size
        put(form, panel, box(length, width, 0.003).about_z(turn).at(z=z), box(length, width, 0.003).about_z(turn).at(z=z + 0.015))
        put(
            form,
            "pages",
            box(0.96 * length, 0.94 * width, 0.012, ("front", "right", "back", "left")).about_z(turn).at(z=z + 0.003),
        )
        put(
            form,
            panel,
            box(length, 0.003, 0.012, ("front", "right", "left")).at(0, -width / 2 + 0.0015, 0).about_z(turn).at(z=z + 0.003),
        )
        z += 0.018
    return form


_CERAMICS = (
    "white",
    "blue",
    "light blue",
    "red",
    "green",
    "teal",
    "purple",
    "pink",
    "yellow",
    "orange",
    "black",
    "beige",
    "brown",
)
FAMILIES = (
    Family(
        ("picture frame", "photo frame", "picture", "photo"),
        ("brown", "black", "white", "beige", "red", "blue", "teal"),
        ("wood", "plastic"),
        _picture_frame,
        0.102,
    ),
    Family(
        ("lamp", "table lamp", "desk lamp"),
        ("white", "beige", "red", "blue", "teal", "yellow", "pink", "green", "orange"),
        ("fabric",),
        _lamp,
        0.098,
    ),
    Family(("vase", "flower vase", "vase of flowers"), _CERAMICS, ("ceramic", "glass"), _vase, 0.058),
    Family(("potted plant", "plant", "house plant"), ("green",), ("ceramic",), _potted_plant, 0.075, speaks_color=False),
    Family(
        ("tissue box", "box of tissues", "tissues"),
        ("light blue", "blue", "pink", "green", "purple", "teal", "white", "beige", "yellow"),
        ("paper",),
        _tissue_box,
        0.112,
    ),
    Family(
        ("glasses", "sunglasses", "pair of glasses"),
        ("black", "red", "blue", "brown", "yellow", "pink", "green", "white"),
        ("plastic",),
        _glasses,
        0.096,
    ),
    Family(("soap dispenser", "hand soap"), _CERAMICS, ("ceramic", "plastic"), _soap_dispenser, 0.056),
    Family(
        ("stack of books", "books", "book stack"),
        ("red", "blue", "green", "teal", "purple", "orange", "brown", "black"),
        ("paper",),
        _book_stack,
        0.118,
    ),
)
