"""Blocks, balls and pieces of games."""

from __future__ import annotations

import numpy as np

from scenegen.engines.procedural import textures
from scenegen.engines.procedural.form import Family, Form, Grasp, Recipe
from scenegen.mesh.hulls import turned_piece
from scenegen.mesh.surfaces import box_corners, hexahedron, lathe
from scenegen.palette import PALETTE, rgb
from scenegen.schema import Relation

BRIGHT = ("red", "orange", "yellow", "green", "teal", "blue", "light blue", "purple", "pink", "white", "black")


def sphere_profile(radius: float, bands: int = 5, squash: float = 1.0) -> list[tuple[float, float]]:
    """A ball with its poles cut flat, so that it rests where it is put."""
    angles = np.linspace(-np.pi / 2 * 0.86, np.pi / 2 * 0.86, bands + 1)
    rows = [(radius * np.cos(a), radius * squash * (np.sin(a) - np.sin(angles[0]))) for a in angles]
    return [(0.0, 0.0), *rows, (0.0, rows[-1][1])]


def _block(recipe: Recipe) -> Form:
    side = recipe.length(0.026, 0.038)
    size = np.array([side, side, side * recipe.rng.uniform(0.9, 1.1)])
    skin = textures.wood if recipe.material == "wood" else textures.solid
    form = Form({"body": skin(recipe.paint, recipe.rng)})
    form.add(hexahedron(box_corners(size)), [box_corners(size)])
    form.grasp = Grasp(side, size[2] / 2)
    form.goal_point = (0.0, 0.0, float(size[2]))
    return form


def _brick(recipe: Recipe) -> Form:
    width, length, height = recipe.length(0.024, 0.034), recipe.length(0.050, 0.066), recipe.length(0.024, 0.034)
    form = Form({"body": textures.solid(recipe.paint, recipe.rng)})
    corners = box_corners((length, width, height))
    form.add(hexahedron(corners), [corners])
    for x in (-0.25, 0.25):
        stud = box_corners((0.4 * width, 0.4 * width, 0.005), (x * length, 0, height))
        form.add(hexahedron(stud, ("top", "front", "right", "back", "left")), [stud])
    form.grasp = Grasp(width, height / 2, yaw=np.pi / 2)
    return form


def _ball(recipe: Recipe) -> Form:
    profile = sphere_profile(recipe.length(0.016, 0.022))
    pattern = recipe.rng.integers(3)
    if pattern == 0:
        image = textures.solid(recipe.paint, recipe.rng)
    else:
        image = textures.stripes(recipe.paint, textures.contrast(recipe.paint), recipe.rng, count=int(pattern))
    form = Form({"body": image})
    form.add(lathe(profile, 10, crease_deg=60), [turned_piece(profile[1:-1], 10)])
    form.grasp = Grasp(2 * max(r for r, _ in profile), profile[-1][1] / 2, symmetric=True)
    return form


def _puzzle_cube(recipe: Recipe) -> Form:
    side = recipe.length(0.038, 0.046)
    stickers = [rgb(name) for name in ("red", "orange", "yellow", "green", "blue", "white")]
    face = np.zeros((48, 48, 3)) + rgb("black")
    for row in range(3):
        for column in range(3):
            face[row * 16 + 1 : row * 16 + 15, column * 16 + 1 : column * 16 + 15] = stickers[recipe.rng.integers(6)]
    form = Form({"body": face})
    corners = box_corners((side, side, side))
    form.add(hexahedron(corners), [corners])
    form.grasp = Grasp(side, side / 2)
    return form


def _pawn(recipe: Recipe) -> Form:
    radius, height = recipe.length(0.014, 0.018), recipe.length(0.052, 0.066)
    head = 0.62 * radius
    foot = [(radius, 0.0), (radius, 0.16 * height)]
    body = [(0.80 * radius, 0.16 * height), (0.45 * radius, 0.66 * height)]
    crown = [(0.45 * radius, 0.66 * height), (head, 0.76 * height), (head, 0.88 * height), (0.4 * head, height)]
    skin = textures.wood if recipe.material == "wood" else textures.solid
    form = Form({"body": skin(recipe.paint, recipe.rng)})
    form.add(
        lathe([(0, 0), *foot, *body, *crown[1:], (0, height)], 12, crease_deg=50),
        [turned_piece(part, 12) for part in (foot, body, crown)],
    )
    form.grasp = Grasp(2 * head, 0.80 * height, symmetric=True)
    return form


FAMILIES = (
    Family(
        ("block", "cube", "toy block"),
        BRIGHT,
        ("wood", "plastic"),
        _block,
        0.038,
        graspable=True,
        relations=(Relation.ON,),
        room=0.040,
    ),
    Family(("brick", "toy brick", "lego brick", "lego"), BRIGHT, ("plastic",), _brick, 0.066, graspable=True),
    Family(("ball", "toy ball"), BRIGHT, ("rubber", "plastic"), _ball, 0.044, graspable=True),
    Family(
        ("puzzle cube", "rubik's cube", "rubiks cube", "magic cube"),
        ("black",),
        ("plastic",),
        _puzzle_cube,
        0.046,
        graspable=True,
        speaks_color=False,
    ),
    Family(
        ("pawn", "chess pawn", "chess piece"),
        tuple(c for c in PALETTE if c in ("white", "black", "brown", "beige", "red")),
        ("wood", "plastic"),
        _pawn,
        0.036,
        graspable=True,
    ),
)
