"""Small things of kitchen, bath and desk that a gripper can pick up."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.mesh.hulls import turned_piece, wall_pieces
from scenegen.mesh.surfaces import box_corners, hexahedron, lathe, rounded_rectangle, slab, sweep, sweep_rings
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Cavity, Relation

COLORS = tuple(PALETTE)
_SEGMENTS = 14


def _turned(form: Form, rings: list[tuple[float, float]], panel: str, closed: tuple[bool, bool] = (True, True)) -> None:
    """A convex turned part; `closed` says whether bottom and top are seen."""
    profile = [(0.0, rings[0][1])] * closed[0] + rings + [(0.0, rings[-1][1])] * closed[1]
    form.add(lathe(profile, _SEGMENTS), [turned_piece(rings, _SEGMENTS)], panel)


def _can(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.018, 0.0225), recipe.length(0.045, 0.066)
    form = Form(
        {
            "body": textures.label(recipe.paint, textures.contrast(recipe.paint), recipe.rng),
            "lid": textures.solid(rgb("gray") * 1.4, recipe.rng, 24, 24),
        }
    )
    _turned(form, [(0.9 * radius, 0), (radius, 0.003), (radius, height - 0.003)], "body", (True, False))
    _turned(form, [(radius, height - 0.003), (0.9 * radius, height)], "lid", (False, True))
    form.grasp = Grasp(2 * radius, height / 2, symmetric=True)
    return form


def _jar(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.018, 0.0225), recipe.length(0.042, 0.062)
    neck = 0.76 * height
    form = Form(
        {
            "body": textures.label(recipe.paint, rgb("beige"), recipe.rng),
            "lid": textures.stripes(0.7 * recipe.paint, recipe.paint, recipe.rng, 6, 24, 24),
        }
    )
    _turned(form, [(0.92 * radius, 0), (radius, 0.004), (radius, neck - 0.004), (0.85 * radius, neck)], "body")
    _turned(form, [(0.9 * radius, neck), (0.9 * radius, height)], "lid", (False, True))
    form.grasp = Grasp(2 * radius, 0.45 * height, symmetric=True)
    return form


def _bottle(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.016, 0.020), recipe.length(0.062, 0.070)
    neck = 0.42 * radius
    form = Form(
        {
            "body": textures.label(recipe.paint, textures.contrast(recipe.paint), recipe.rng),
            "cap": textures.solid(textures.contrast(recipe.paint), recipe.rng, 24, 24),
        }
    )
    _turned(form, [(0.94 * radius, 0), (radius, 0.003), (radius, 0.63 * height), (neck, 0.78 * height)], "body", (True, False))
    _turned(form, [(1.15 * neck, 0.78 * height), (1.15 * neck, height)], "cap")
    form.grasp = Grasp(2 * radius, 0.35 * height, symmetric=True)
    return form


def _shaker(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.017, 0.021), recipe.length(0.052, 0.068)
    image = textures.wood if recipe.material == "wood" else textures.solid
    form = Form(
        {
            "body": image(recipe.paint, recipe.rng),
            "cap": textures.speckle(rgb("gray") * 1.3, rgb("black"), recipe.rng, 0.03, 24, 48),
        }
    )
    _turned(form, [(radius, 0), (0.8 * radius, 0.72 * height)], "body", (True, False))
    _turned(form, [(0.86 * radius, 0.72 * height), (0.86 * radius, 0.9 * height), (0.5 * radius, height)], "cap")
    form.grasp = Grasp(2 * radius * 0.88, 0.45 * height, symmetric=True)
    return form


def _mug(recipe: Recipe) -> Form:
    radius, height, wall = recipe.length(0.019, 0.023), recipe.length(0.042, 0.056), 0.003
    floor, inner = 0.004, radius - wall
    segments = 12
    pattern = recipe.rng.integers(3)
    outside = [
        textures.solid(recipe.paint, recipe.rng),
        textures.speckle(recipe.paint, textures.contrast(recipe.paint), recipe.rng, 0.03),
        textures.stripes(recipe.paint, textures.contrast(recipe.paint), recipe.rng, 2),
    ][pattern]
    form = Form({"body": outside, "inside": textures.solid(0.55 * recipe.paint + 0.35, recipe.rng, 24, 24)})
    form.add(lathe([(0, 0), (radius, 0), (radius, height)], segments), [turned_piece([(inner, 0), (inner, floor)], segments)])
    section = [(inner, 0), (radius, 0), (radius, height), (inner, height)]
    form.add(
        lathe([(radius, height), (inner, height), (inner, floor), (0, floor)], segments), wall_pieces(section, segments), "inside"
    )
    depth, thick = 0.013, 0.006
    for size, x, z in (
        ((depth, thick, thick), radius + depth / 2, 0.72 * height),
        ((depth, thick, thick), radius + depth / 2, 0.2 * height),
        ((thick, thick, 0.52 * height + thick), radius + depth + thick / 2, 0.2 * height),
    ):
        bar = box_corners(size, (x, 0, z))
        form.add(hexahedron(bar, ("bottom", "top", "front", "right", "back")), [bar])
    form.grasp = Grasp(2 * radius, 0.55 * height, yaw=np.pi / 2)
    form.cavity = Cavity(radius_m=inner, depth_m=height - floor)
    form.centred = False
    return form


def _carton(recipe: Recipe) -> Form:
    width, length, height = recipe.length(0.030, 0.042), recipe.length(0.048, 0.066), recipe.length(0.035, 0.060)
    form = Form({"body": textures.label(recipe.paint, textures.contrast(recipe.paint), recipe.rng)})
    corners = box_corners((length, width, height))
    form.add(hexahedron(corners), [corners])
    form.grasp = Grasp(width, height / 2, yaw=np.pi / 2)
    form.goal_point = (0.0, 0.0, height)
    return form


def _sponge(recipe: Recipe) -> Form:
    length, width, height = recipe.length(0.060, 0.080), recipe.length(0.034, 0.046), recipe.length(0.020, 0.030)
    scour = rgb("green") if recipe.color != "green" else rgb("yellow")
    form = Form(
        {
            "body": textures.speckle(recipe.paint, 0.7 * recipe.paint, recipe.rng, 0.08, 48, 64),
            "scour": textures.fabric(0.8 * scour, recipe.rng)[:16],
        }
    )
    outline = rounded_rectangle(length, width, 0.006)
    seam = 0.28 * height
    for (low, high), panel in (((0.0, seam), "scour"), ((seam, height), "body")):
        lid, rest = slab(outline, low, high)
        hull = np.concatenate([np.c_[outline, np.full(len(outline), z)] for z in (low, high)])
        form.add(rest, [hull], panel)
        if panel == "body":
            form.add(lid, (), panel)
    form.grasp = Grasp(width, height / 2, yaw=np.pi / 2)
    return form


def _bar(
    recipe: Recipe,
    length: float,
    stations: list[tuple[float, float]],
    panels: dict[str, textures.Image],
    cuts: list[tuple[str, int, int]],
) -> Form:
    """A lying rod along x: stations (x as a fraction of the length, radius) in runs, each run its own panel and convex piece."""
    form = Form(panels)
    base = max(radius for _, radius in stations) * np.cos(np.pi / 8)
    for panel, first, last in cuts:
        part = stations[first:last]
        centres = np.array([[(x - 0.5) * length, 0, base] for x, _ in part])
        rings = sweep_rings(centres, [radius for _, radius in part], 8)
        form.add(sweep(rings), [rings.reshape(-1, 3)], panel)
    return form


def _marker(recipe: Recipe) -> Form:
    radius, length = recipe.length(0.0085, 0.0105), recipe.length(0.100, 0.130)
    stripe = rgb("white") if recipe.color != "white" else rgb("gray")
    panels = {
        "body": textures.stripes(recipe.paint, stripe, recipe.rng, 1, 32, 32),
        "cap": textures.solid(0.9 * recipe.paint, recipe.rng, 32, 32),
    }
    stations = [(0.0, radius), (0.62, radius), (0.62, radius), (0.96, radius), (1.0, 0.75 * radius)]
    form = _bar(recipe, length, stations, panels, [("body", 0, 2), ("cap", 2, 5)])
    form.grasp = Grasp(2 * radius * np.cos(np.pi / 8), radius, yaw=np.pi / 2)
    return form


def _glue_stick(recipe: Recipe) -> Form:
    radius, length = recipe.length(0.010, 0.013), recipe.length(0.075, 0.095)
    panels = {
        "body": textures.label(recipe.paint, textures.contrast(recipe.paint), recipe.rng),
        "cap": textures.solid(textures.contrast(recipe.paint), recipe.rng, 24, 24),
    }
    form = _bar(
        recipe, length, [(0.0, radius), (0.7, radius), (0.7, radius), (1.0, radius)], panels, [("body", 0, 2), ("cap", 2, 4)]
    )
    form.grasp = Grasp(2 * radius * np.cos(np.pi / 8), radius, yaw=np.pi / 2)
    return form


FAMILIES = (
    Family(("can", "soda can", "tin can"), COLORS, ("metal",), _can, 0.045, graspable=True),
    Family(("jar", "jam jar"), COLORS, ("glass",), _jar, 0.045, graspable=True),
    Family(("bottle", "sauce bottle"), COLORS, ("plastic", "glass"), _bottle, 0.040, graspable=True),
    Family(
        ("shaker", "salt shaker", "pepper shaker", "pepper grinder"),
        ("white", "black", "brown", "red", "blue", "teal", "beige"),
        ("ceramic", "wood", "plastic"),
        _shaker,
        0.042,
        graspable=True,
    ),
    Family(("mug", "cup", "tea cup", "teacup", "coffee mug"), COLORS, ("ceramic", "plastic"), _mug, 0.065, graspable=True),
    Family(
        ("carton", "box", "small box"), COLORS, ("paper",), _carton, 0.066, graspable=True, relations=(Relation.ON,), room=0.050
    ),
    Family(
        ("sponge", "kitchen sponge"),
        ("yellow", "pink", "light blue", "orange", "lime", "green"),
        ("foam",),
        _sponge,
        0.080,
        graspable=True,
    ),
    Family(("marker", "pen", "felt pen", "crayon"), COLORS, ("plastic",), _marker, 0.130, graspable=True),
    Family(("glue stick", "glue"), COLORS, ("plastic",), _glue_stick, 0.095, graspable=True),
)
