"""Things that start on or in other things: each stack is let go once in physics and moves through the bank as one unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenegen.layout.carriers import OVERHANG, Carrier, carrier, outline, reach_beyond
from scenegen.layout.errors import LayoutError
from scenegen.layout.physics import Bench, Motion
from scenegen.layout.sampler import Footprint, separation, transform
from scenegen.layout.turns import planar, rotated, turned
from scenegen.schema import AssetRecord

Array = NDArray[np.float64]

MAX_LEAN_DEG = 15.0
"""What lies in a bowl may lean this far from how it stands on a table."""

MAX_SHIFT, MAX_TILT_DEG = 0.01, 5.0
"""How far what stands on the table may give way while things are put on it."""

SECONDS = 2.0
DROP = 0.0005
_TRIES, _DRAWS = 8, 512
_NEAR = 0.005
_SLACK = 0.003
"""How much nearer siblings may come to one another while they settle."""


@dataclass(frozen=True)
class Part:
    """An object of a unit: its number, its pose [7], outline [m, 2], lowest and highest point, all in the frame of the unit;
    `mouth`: middle and radius of its cavity; `below`: the numbers of what carries it."""

    index: int
    pose: Array
    outline: Array
    bottom: float
    top: float
    mouth: tuple[Array, float] | None
    below: frozenset[int]


@dataclass(frozen=True)
class Unit:
    """Objects that move together; the first stands on the table at the origin of the unit and carries the others."""

    parts: tuple[Part, ...]

    @cached_property
    def footprint(self) -> Footprint:
        whole = outline(np.concatenate([part.outline for part in self.parts]))
        assert whole is not None
        return Footprint(whole, max(part.top for part in self.parts))

    @cached_property
    def inner_radius(self) -> float:
        """Of the largest circle around the origin that the footprint covers [m]; -inf when it does not cover the origin."""
        inside = -float(reach_beyond(self.footprint.outline, np.zeros((1, 1, 2)))[0])
        return inside if inside > 0 else -np.inf

    @cached_property
    def centres(self) -> Array:
        """Where its objects stand [n, 2]."""
        return np.array([part.pose[:2] for part in self.parts])


@dataclass(frozen=True)
class Things:
    """Objects to be stacked: hulls are the points [m, 3] of each, rest [n, 7] how each stands alone on the table, parents what
    each that is not on the table is on or in."""

    folder: Path
    assets: Sequence[AssetRecord]
    hulls: Sequence[Array]
    rest: Array
    parents: Mapping[int, int]

    def part(self, index: int, pose: Array) -> Part:
        points = rotated(pose[3:], self.hulls[index]) + pose[:3]
        flat = outline(points[:, :2])
        assert flat is not None
        asset, mouth, below, above = self.assets[index], None, set(), index
        if asset.cavity is not None and asset.goal_point is not None:
            mouth = ((rotated(pose[3:], np.array([asset.goal_point]))[0] + pose[:3])[:2], asset.cavity.radius_m)
        while above in self.parents:
            above = self.parents[above]
            below.add(above)
        return Part(index, pose, flat, float(points[:, 2].min()), float(points[:, 2].max()), mouth, frozenset(below))

    def flat(self, index: int) -> Array:
        """Its outline as it stands on the table."""
        return self.part(index, self.rest[index]).outline

    def where(self, index: int) -> str:
        return f"{'in' if self.assets[index].cavity else 'on'} the {self.name(index)}"

    def name(self, index: int) -> str:
        return self.assets[index].category


def stack(things: Things, friction: tuple[float, float], clearance: float, rng: np.random.Generator) -> list[Unit]:
    """A unit for each object on the table, in their order. What shares a carrier is `clearance` apart. Raises LayoutError for a
    thing that does not fit or does not stay where it is put."""
    return [_unit(things, i, friction, clearance, rng) for i in range(len(things.assets)) if i not in things.parents]


def _unit(things: Things, root: int, friction: tuple[float, float], clearance: float, rng: np.random.Generator) -> Unit:
    members = [root]
    for member in members:
        members += sorted(child for child, parent in things.parents.items() if parent == member)
    if len(members) == 1:
        return Unit((things.part(root, things.rest[root]),))
    bench = Bench(things.folder, [things.assets[i] for i in members], _TRIES, friction)
    places = {i: _carrier(things, i) for i in dict.fromkeys(things.parents[child] for child in members[1:])}
    starts = np.stack([_start(things, members, places, clearance, rng) for _ in range(_TRIES)])
    faults = []
    for motion in bench.run(starts, SECONDS):
        poses = motion.final - np.array([*motion.final[0, :2], 0, 0, 0, 0, 0])
        parts = tuple(things.part(i, pose) for i, pose in zip(members, np.round(poses, 6), strict=True))
        fault = _fault(things, parts, motion, clearance)
        if fault is None:
            return Unit(parts)
        faults.append(fault)
    raise LayoutError(*faults[-1])


def _start(
    things: Things, members: Sequence[int], places: Mapping[int, Carrier], clearance: float, rng: np.random.Generator
) -> Array:
    """Poses [n, 7] from which to let the members go, each a little above what carries it."""
    xy, z, yaw = np.zeros((len(members), 2)), np.zeros(len(members)), np.zeros(len(members))
    for rank, child in enumerate(members[1:], start=1):
        base = members.index(things.parents[child])
        place = places[members[base]]
        siblings = [k for k in range(1, rank) if things.parents[members[k]] == members[base]]
        # In the frame of the carrier, to which the siblings are turned back.
        back = planar(-yaw[base])
        taken = [transform(things.flat(members[k]), (xy[[k]] - xy[base]) @ back.T, yaw[[k]] - yaw[base])[0] for k in siblings]
        spot, turn, height = _spot(things, child, members[base], place, taken, clearance, rng)
        xy[rank], yaw[rank] = xy[base] + back.T @ spot, yaw[base] + turn
        z[rank] = z[base] + things.rest[members[base], 2] + height + DROP
    rest = things.rest[list(members)]
    return np.concatenate([xy, (z + rest[:, 2] + DROP)[:, None], turned(yaw[None], rest[:, 3:])[0]], axis=1)


def _carrier(things: Things, base: int) -> Carrier:
    place = carrier(things.folder, things.assets[base])
    if place is None:
        child = next(child for child, parent in things.parents.items() if parent == base)
        raise LayoutError(f"nothing stands on the {things.name(base)}", child)
    return place


def _spot(
    things: Things, child: int, base: int, place: Carrier, taken: Sequence[Array], clearance: float, rng: np.random.Generator
) -> tuple[Array, float, float]:
    """Position and yaw in the frame of the carrier, and the height: where it stands clear of walls and siblings, anywhere if
    there is room, else near the middle. What is too long for the flat part is let go above the rim, and physics decides."""
    flat, low, high = things.flat(child), place.flat.min(axis=0), place.flat.max(axis=0)
    near = (low + high) / 2 + rng.uniform(-_NEAR, _NEAR, (_DRAWS, 2))
    xy, yaw = np.concatenate([rng.uniform(low, high, (_DRAWS, 2)), near]), rng.uniform(0, 2 * np.pi, 2 * _DRAWS)
    good, height = np.flatnonzero(place.fits(flat, xy, yaw)), place.height
    if len(good) == 0 and place.walls and not taken:
        over = reach_beyond(things.flat(base), transform(flat, near, yaw[_DRAWS:]))
        good, height = _DRAWS + np.flatnonzero(over <= 0), place.rim
    for other in taken:
        shapes = transform(flat, xy[good], yaw[good])
        good = good[separation(shapes, np.broadcast_to(other, (len(good), *other.shape))) >= clearance + _SLACK]
    if len(good) == 0:
        with_what = f" beside {len(taken)} more" if taken else ""
        raise LayoutError(f"the {things.name(child)} does not fit {things.where(base)}{with_what}", child)
    return xy[good[0]], float(yaw[good[0]]), height


def _fault(things: Things, parts: Sequence[Part], motion: Motion, clearance: float) -> tuple[str, int] | None:
    """What is wrong with a stack that has settled, and with which object."""
    if motion.drift_m[0] > MAX_SHIFT or motion.tilt_deg[0] > MAX_TILT_DEG:
        return f"the {things.name(parts[0].index)} gives way under what is on it", parts[1].index
    rank = {part.index: k for k, part in enumerate(parts)}
    for k, part in enumerate(parts[1:], start=1):
        base = parts[rank[things.parents[part.index]]]
        words = f"the {things.name(part.index)} does not stay {things.where(base.index)}"
        if frozenset({k, rank[base.index]}) not in motion.resting or frozenset({k, -1}) in motion.resting:
            return words, part.index
        if motion.tilt_deg[k] > MAX_LEAN_DEG:
            return f"{words}: it leans {motion.tilt_deg[k]:.0f} deg", part.index
        if reach_beyond(base.outline, part.outline[None])[0] > OVERHANG:
            return f"{words}: it reaches over the border", part.index
        for other in parts[1:k]:
            same = things.parents[other.index] == base.index
            if same and separation(part.outline[None], other.outline[None])[0] < clearance:
                return f"the {things.name(part.index)} slides against the {things.name(other.index)}", part.index
    return None
