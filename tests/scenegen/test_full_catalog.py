"""What FULL has more than BASIC: which things, that they stand, that they show their colour, and that BASIC stays as it was."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from scenegen.designer.rules import _ALIKE, fits, parse_task
from scenegen.engines.procedural.catalog import BASIC, FULL
from scenegen.engines.procedural.contexts import table
from scenegen.engines.procedural.engine import ProceduralEngine, make, shape
from scenegen.engines.procedural.form import Form, Recipe
from scenegen.engines.procedural.rooms import room
from scenegen.layout.physics import Bench
from scenegen.mesh.surfaces import Surface
from scenegen.mesh.writers import collision_obj, visual_obj
from scenegen.palette import PALETTE, lab, rgb
from scenegen.schema import AssetRecord, NodeSpec, Relation, Role
from scenegen.seeds import generator

NEW = [name for name in FULL.families if name not in BASIC.families]

ROWS = {
    1: "mug, tea cup",
    2: "teapot",
    3: "bowl, fruit bowl",
    4: "plate, saucer",
    5: "tray",
    6: "cutting board",
    7: "pan, pot, lid",
    8: "bottle, sauce bottle",
    9: "can, jar",
    10: "box, carton, tissue box",
    11: "book, notebook, magazine",
    12: "pen, marker, pencil, crayon",
    13: "spoon, fork",
    14: "knife",
    15: "spatula, ladle, whisk",
    16: "screwdriver",
    17: "hammer, wrench, pliers",
    18: "tape roll, donut, ring",
    19: "sponge, eraser, soap",
    20: "block, brick, lego, dice, rubik's cube",
    21: "arch, bridge block, cylinder, cone, pyramid",
    22: "ball, tennis ball",
    23: "apple, orange, tomato, peach, lemon",
    24: "banana, cucumber, carrot, eggplant, chili pepper",
    25: "broccoli, mushroom, strawberry, garlic",
    26: "bread, toast, croissant, egg, cheese wedge",
    27: "basket, bin, bucket, crate",
    28: "colander, strainer",
    29: "pepper grinder, salt shaker, candle, chess pawn",
    30: "chessboard, mousepad, coaster, napkin",
    31: "phone, remote, calculator, computer mouse, keyboard",
    32: "stapler, tape dispenser, glue stick, flashlight",
    33: "toy car, toy train, figurine",
    34: "vase, flower pot, pen holder, cookie tin",
    35: "clock, picture frame, lamp",
    36: "scissors, glasses, key",
}
"""The words of the list of things that the catalogue is to cover, by row."""


def forms(category: str, count: int = 3) -> list[tuple[Form, str]]:
    family, made = FULL.families[category], []
    for seed in range(count):
        rng = generator(seed, category)
        color = str(rng.choice(family.colors))
        made.append((make(family, Recipe(rng, color, str(rng.choice(family.materials)))), color))
    return made


def asset(folder: Path, category: str, seed: int) -> AssetRecord:
    slug = category.replace(" ", "_").replace("'", "")
    spec = NodeSpec(id=slug, name=category, role=Role.DISTRACTOR, category=category, description=category)
    return ProceduralEngine().generate(spec, seed, 0, folder)


def drawn(rng: np.random.Generator) -> bytes:
    """What the generator gives next: the same only when as many numbers were drawn."""
    return str(rng.integers(2**40)).encode()


def test_basic_is_byte_for_byte_what_a_policy_was_trained_on():
    digest = sha256()
    for category, family in BASIC.families.items():
        words = (family.nouns, family.colors, family.materials, family.span, family.graspable, family.relations, family.room)
        digest.update(repr((*words, family.speaks_color)).encode())
        for seed in range(3):
            rng = generator(seed, category)
            surface, hulls, image = shape(
                make(family, Recipe(rng, str(rng.choice(family.colors)), str(rng.choice(family.materials))))
            )
            digest.update((visual_obj(surface, category) + collision_obj(hulls)).encode())
            digest.update(np.round(image * 255).astype(np.uint8).tobytes() + drawn(rng))
    for key, style in BASIC.tables.items():
        for seed in range(3):
            rng = generator(seed, key)
            surface, image, boxes = table(style, 0.8, rng)
            digest.update(f"{key} {style.name} {style.color} {style.friction} {style.shininess}".encode())
            digest.update(visual_obj(surface, key).encode() + np.round(image * 255).astype(np.uint8).tobytes())
            digest.update(repr(boxes).encode() + drawn(rng))
    for key, wall in BASIC.rooms.items():
        for seed in range(3):
            rng = generator(seed, key)
            surface, image = room(wall, rng)
            digest.update(key.encode() + visual_obj(surface, key).encode() + np.round(image * 255).astype(np.uint8).tobytes())
            digest.update(drawn(rng))
    assert digest.hexdigest() == "f7fbf063f664c16ff969abfcbaf9335b75c8bf2dddce8bb413c5bb4bfc71c03a"


def test_no_two_basic_categories_became_alike():
    basic = list(BASIC.families)
    pairs = [(a, b) for i, a in enumerate(basic) for b in basic[i + 1 :] if any({a, b} <= group for group in _ALIKE)]
    assert len(pairs) == 36 + 1 + 10 + 6 + 1 + 10 + 6  # those of the seven groups that were there


def test_full_begins_with_basic():
    for part in ("families", "tables", "rooms"):
        first, all_ = list(getattr(BASIC, part).items()), list(getattr(FULL, part).items())
        assert all_[: len(first)] == first
    assert len(NEW) >= 60
    assert len(FULL.tables) >= len(BASIC.tables) + 7 and len(FULL.rooms) >= len(BASIC.rooms) + 4


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_list_is_there(row):
    for word in ROWS[row].split(", "):
        assert word in FULL.nouns, word


def test_words_are_plain_and_mean_one_thing():
    for family in FULL.families.values():
        assert all(noun == noun.lower().strip() and noun.replace("'", "").replace(" ", "").isalpha() for noun in family.nouns)
        assert FULL.nouns[family.category] is family
    claimed: dict[str, str] = {}
    for family in FULL.families.values():
        for noun in family.nouns:
            if noun not in FULL.families:
                assert claimed.setdefault(noun, family.category) == family.category, noun
    assert {category for group in _ALIKE for category in group} <= set(FULL.families)


@pytest.mark.parametrize(
    "sentence",
    [
        "put the teapot on the notebook",
        "put the lego in the bucket",
        "put the pawn on the chessboard",
        "put the apple in the fruit basket",
        "put the mouse on the mousepad",
        "put the grinder on the tray",
        "put the knife on the board",
        "put the banana in the colander",
        "put the block on the arch",
        "put the red stacking cup on the blue stacking cup",
        "put the screwdriver in the basket",
    ],
)
def test_tasks_people_show(sentence):
    assert parse_task(sentence, FULL)


@pytest.mark.parametrize("category", NEW)
def test_named_colour_is_what_is_seen(category):
    """Of what is not underside, most is nearer to the named colour than to any other of the palette."""
    names = list(PALETTE)
    palette = np.stack([lab(rgb(name)) for name in names])
    for form, color in forms(category):
        surface, _, image = shape(form)
        apart = np.linalg.norm(lab(seen(surface, image))[:, None] - palette, axis=2)
        assert (apart.argmin(axis=1) == names.index(color)).mean() >= 0.5, color
        assert names[int(np.median(apart, axis=0).argmin())] == color


def seen(surface: Surface, image: np.ndarray) -> np.ndarray:
    """Colours [n, 3] at random places of the surface, each as likely as its area, undersides left out."""
    rng = np.random.default_rng(0)
    a, b, c = (surface.vertices[surface.faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    area = np.linalg.norm(normals, axis=1)
    area *= normals[:, 2] > -0.7 * area
    faces = surface.faces[rng.choice(len(area), 1500, p=area / area.sum())]
    uv = np.einsum("nk,nkc->nc", rng.dirichlet([1, 1, 1], len(faces)), surface.uvs[faces])
    height, width = image.shape[:2]
    return image[((1 - uv[:, 1]) * height).astype(int).clip(0, height - 1), (uv[:, 0] * width).astype(int).clip(0, width - 1)]


@pytest.mark.parametrize("category", [name for name in NEW if FULL.families[name].graspable])
def test_grasp_is_as_wide_as_the_thing_is_there(category):
    """Rays of the fingers' way over the area of the pads first meet the hulls as far apart as the family says."""
    for form, _ in forms(category, 2):
        grasp = form.grasp
        _, hulls, _ = shape(form)
        for yaw in (0.0, 0.5, 1.0, 2.2) if grasp.symmetric else (grasp.yaw,):
            across = np.array([np.cos(yaw), np.sin(yaw), 0.0])
            along = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
            starts = [
                t * along + [0, 0, grasp.height + dz]
                for t in np.linspace(-0.011, 0.011, 12)
                for dz in (-0.005, -0.0025, 0.0, 0.0025, 0.005)
            ]
            low, high = reach(hulls, np.array(starts), across)
            assert high - low == pytest.approx(grasp.width, abs=0.004)


def reach(hulls, starts: np.ndarray, direction: np.ndarray) -> tuple[float, float]:
    """The first and the last point along `direction` at which lines through `starts` [n, 3] are inside a hull."""
    first, last = np.inf, -np.inf
    for hull in hulls:
        a, b, c = (hull.vertices[hull.faces[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        slope, height = normals @ direction, np.einsum("fc,nfc->nf", normals, starts[:, None] - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -height / slope
        enter = np.where(slope < -1e-12, t, -np.inf).max(axis=1)
        leave = np.where(slope > 1e-12, t, np.inf).min(axis=1)
        hit = (enter < leave) & ~((np.abs(slope) <= 1e-12) & (height > 0)).any(axis=1)
        first, last = min(first, enter[hit].min(initial=np.inf)), max(last, leave[hit].max(initial=-np.inf))
    return float(first), float(last)


def test_clutter_does_not_hide_the_scene():
    for family in FULL.families.values():
        if family.graspable or family.relations:
            continue
        for form, _ in forms(family.category):
            size = np.ptp(np.concatenate(form.hulls), axis=0)
            assert size[:2].max() <= 0.14 and size[2] <= 0.12
            assert size[:2].max() <= family.span + 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_what_is_new_stands_where_it_is_put(seed, tmp_path):
    """All at once, a metre from each other, on a smooth table and from a millimetre above it."""
    records = [asset(tmp_path, category, seed) for category in NEW]
    poses = np.zeros((1, len(NEW), 7))
    poses[..., 0], poses[..., 1] = np.arange(len(NEW)) % 12 * 0.3 - 1.6, np.arange(len(NEW)) // 12 * 0.3 - 1.6
    poses[..., 2], poses[..., 3] = 0.001, 1
    bench = Bench(tmp_path, records, 1, (0.3, 0.25))
    (motion,) = bench.run(poses, 1.5)
    fallen = [name for name, drift, tilt in zip(NEW, motion.drift_m, motion.tilt_deg, strict=True) if drift > 0.004 or tilt > 2]
    assert fallen == []


def carried(place: str, folder: Path, seed: int, targets: list[str]) -> list[str]:
    """The targets that do not stay with the place when let go above its goal point."""
    destination = asset(folder, place, seed)
    yaws, lost = np.pi / 4 * np.arange(4), []
    for category in targets:
        record = asset(folder / "target", category, seed) if category == place else asset(folder, category, seed)
        poses = np.zeros((4, 2, 7))
        poses[:, 0, 3] = 1
        poses[:, 1, 3], poses[:, 1, 6] = np.cos(yaws / 2), np.sin(yaws / 2)
        poses[:, 1, :3] = destination.goal_point
        poses[:, 1, 2] += 0.01 + (destination.cavity.depth_m if destination.cavity else 0.0)
        bench = Bench(folder, [destination, record], 4, (0.55, 0.48))
        if not all({0, 1} in motion.resting and {1, -1} not in motion.resting for motion in bench.run(poses, 1.2)):
            lost.append(category)
    return lost


def fitting(place: str) -> list[str]:
    family = FULL.families[place]
    return [target.category for target in FULL.graspable if fits(target, family) and target is not family]


NEW_PLACES = [name for name in NEW if FULL.families[name].relations]


@pytest.mark.parametrize("place", NEW_PLACES)
def test_new_places_carry_the_longest_things_that_fit(place, tmp_path):
    longest = sorted(fitting(place), key=lambda name: FULL.families[name].span)[-3:]
    assert longest and carried(place, tmp_path, 0, longest) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", [family.category for family in FULL.places])
def test_every_place_carries_all_that_fits(place, tmp_path):
    targets = fitting(place) if place in NEW_PLACES else [name for name in fitting(place) if name in NEW]
    assert carried(place, tmp_path, 1, targets) == []


@pytest.mark.parametrize("place", [name for name in NEW_PLACES if Relation.IN in FULL.families[name].relations])
def test_cavities_are_open(place):
    """A cylinder of the cavity's radius above its floor is free."""
    angles = 2 * np.pi * np.arange(24) / 24
    for form, _ in forms(place):
        _, hulls, _ = shape(form)
        low, depth = form.goal_point[2], form.cavity.depth_m
        ring = np.c_[np.cos(angles), np.sin(angles)] * form.cavity.radius_m * 0.97
        points = np.concatenate([np.c_[f * ring, np.full(24, low + h * depth)] for f in (0.3, 1.0) for h in (0.02, 0.5, 0.98)])
        for hull in hulls:
            a, b, c = (hull.vertices[hull.faces[:, i]] for i in range(3))
            outside = np.einsum("fc,nfc->nf", np.cross(b - a, c - a), points[:, None] - a).max(axis=1) > 0
            assert outside.all()
