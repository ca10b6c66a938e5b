"""Where things stand when the table is crowded, when some stand on or beside others, or when the table has a border.

Each unit has some thousand places where it may be, drawn uniformly. First each unit in turn, the largest first, takes one of
those that the units before it leave free; arrangements that end in a corner start again from others that did not. That favours
arrangements in which the last have little room. So rounds follow in which each unit moves to a place uniform over what all the
others leave it (Gibbs sampling; a unit for which no draw is free stays). They keep, and lead to, the distribution that
`sampler.sample` draws from: uniform over all arrangements that are allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from scenegen.layout.errors import LayoutError
from scenegen.layout.sampler import distance, separation, transform
from scenegen.layout.stacks import Part, Unit
from scenegen.layout.surfaces import Surface
from scenegen.layout.view import sight_lines, visible
from scenegen.schema import Workspace

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]
Planar = tuple[Array, Array]
"""Positions [..., 2] and yaws [...] of units."""

BESIDE = 0.06
"""What is beside another thing is no further [m] from it than this, outline to outline."""

GRID = 4
"""Decimals [m] of positions."""

_PLACES = 8192
_ARRANGEMENTS, _RESTARTS, _ROUNDS = 64, 4, 5
_DRAWS, _MOVES = 64, 8


@dataclass(frozen=True)
class Places:
    """Where one unit may be, the others left aside: positions [p, 2], yaws [p], and the outline of the unit there [p, m, 2]."""

    xy: Array
    yaw: Array
    shapes: Array

    def at(self, chosen: Indices) -> Planar:
        return self.xy[chosen], self.yaw[chosen]


@dataclass(frozen=True)
class Crowd:
    """What is to be arranged: units, which object is the target, which unit is beside which other, where they may stand.

    An arrangement is, for each unit, the index of one of its places."""

    units: Sequence[Unit]
    target: int
    beside: Mapping[int, int]
    workspace: Workspace
    surface: Surface | None = None

    def nominal(self, clearance: float, rng: np.random.Generator) -> Planar:
        """Positions [n, 2] and yaws [n] with room around things: those with the widest gaps of some that are drawn, `clearance`
        twice over if possible. Raises LayoutError with the object that most often finds no place."""
        places = [self._places(unit, None, np.inf, rng) for unit in range(len(self.units))]
        stuck = np.zeros(len(self.units), int)
        for gap in (2 * clearance, clearance):
            for _ in range(_RESTARTS):
                chosen, last = self._in_turn(places, gap, _ARRANGEMENTS, rng)
                if last is None:
                    best = int(np.argmax(self._room(places, chosen)))
                    return _at(places, chosen[best])
                stuck[last] += 1
        raise LayoutError("too crowded", self.units[int(np.argmax(stuck))].parts[0].index)

    def around(self, nominal: Planar, xy_range: float, clearance: float, count: int, rng: np.random.Generator) -> Planar:
        """Positions [k, n, 2] and yaws [k, n] of `count` arrangements in which every object is within xy_range of where `nominal`
        has it."""
        places = [self._places(unit, (nominal[0][unit], nominal[1][unit]), xy_range, rng) for unit in range(len(self.units))]
        chosen, last = self._in_turn(places, clearance, count, rng)
        if last is not None:
            chosen = np.zeros_like(chosen)  # the nominal arrangement
        for _ in range(_ROUNDS):
            for unit in self._order:
                others = [other for other in self._order if other != unit]
                rows, found = self._free(places, unit, others, chosen, clearance, _MOVES, rng)
                chosen[rows, unit] = found
        return _at(places, chosen)

    @cached_property
    def _order(self) -> list[int]:
        """The largest first, each followed by what is beside it."""
        order: list[int] = []
        waiting = sorted(range(len(self.units)), key=lambda i: self.units[i].footprint.radius)
        while waiting:
            unit = waiting.pop()
            order.append(unit)
            near = [other for other in waiting if self._linked(unit, other)]
            waiting = [other for other in waiting if other not in near] + near
        return order

    @cached_property
    def _target(self) -> tuple[int, Part]:
        """Its unit and itself."""
        return next((i, part) for i, unit in enumerate(self.units) for part in unit.parts if part.index == self.target)

    def _linked(self, a: int, b: int) -> bool:
        return self.beside.get(a) == b or self.beside.get(b) == a

    def _in_turn(
        self, places: Sequence[Places], clearance: float, count: int, rng: np.random.Generator
    ) -> tuple[Indices, int | None]:
        """`count` arrangements [k, n], and None; or the unit that finds no place in any of them."""
        chosen = np.zeros((count, len(self.units)), int)
        for rank, unit in enumerate(self._order):
            rows, found = self._free(places, unit, self._order[:rank], chosen, clearance, _DRAWS, rng)
            if len(rows) == 0:
                return chosen, unit
            chosen[rows, unit] = found
            lost = np.setdiff1d(np.arange(count), rows)
            chosen[lost] = chosen[rng.choice(rows, len(lost))]
        return chosen, None

    def _free(
        self,
        places: Sequence[Places],
        unit: int,
        placed: Sequence[int],
        chosen: Indices,
        clearance: float,
        draws: int,
        rng: np.random.Generator,
    ) -> tuple[Indices, Indices]:
        """Of arrangements [k, n] in which the units `placed` have their place: those in which one of `draws` places for `unit` is
        free, and the first that is."""
        drawn = rng.integers(len(places[unit].xy), size=len(chosen) * draws)
        good = np.arange(len(drawn))
        for other in placed:
            good = good[self._agree(places, unit, drawn[good], other, chosen[good // draws, other], clearance)]
        rows, first = np.unique(good // draws, return_index=True)
        return rows, drawn[good[first]]

    def _places(self, unit: int, nominal: Planar | None, xy_range: float, rng: np.random.Generator) -> Places:
        """Uniform over what is allowed to a unit; the nominal place is the first."""
        body, (first, last) = self.units[unit], np.array([self.workspace.x, self.workspace.y]).T
        low, high = first, last
        if nominal is not None:
            low, high = np.maximum(low, nominal[0] - xy_range), np.minimum(high, nominal[0] + xy_range)
        xy = np.clip(np.round(rng.uniform(low, high, (_PLACES, 2)), GRID), low, high)
        yaw = rng.uniform(0, 2 * np.pi, _PLACES)
        if len(body.parts) > 1:
            middles = transform(body.centres, xy, yaw)
            if nominal is not None:
                there = transform(body.centres, nominal[0][None], nominal[1][None])
                first, last = np.maximum(first, there - xy_range), np.minimum(last, there + xy_range)
            inside = ((middles >= first) & (middles <= last)).all(axis=(1, 2))
            xy, yaw = xy[inside], yaw[inside]
        shapes = transform(body.footprint.outline, xy, yaw)
        good: Mask = (shapes[..., 0].min(axis=1) >= self.workspace.min_x_m) & visible(shapes)
        if self.surface is not None:
            good[good] = self.surface.holds(shapes[good])
        if unit == self._target[0]:
            good[good] = self._in_sight(unit, (xy[good], yaw[good]), (xy[good], yaw[good]))
        xy, yaw = xy[good], yaw[good]
        if nominal is not None:
            xy, yaw = np.concatenate([nominal[0][None], xy]), np.append(nominal[1], yaw)
        if len(xy) == 0:
            raise LayoutError("no room on the table", body.parts[0].index)
        return Places(xy, yaw, transform(body.footprint.outline, xy, yaw))

    def _agree(self, places: Sequence[Places], a: int, at_a: Indices, b: int, at_b: Indices, clearance: float) -> Mask:
        """Whether two units get along at their places [k]: [k]."""
        linked, target = self._linked(a, b), self._target[0]
        # Circles around the outlines and circles within them decide most cases, the outlines the rest.
        middles = np.linalg.norm(places[a].xy[at_a] - places[b].xy[at_b], axis=1)
        outer = middles - self.units[a].footprint.radius - self.units[b].footprint.radius
        inner = middles - self.units[a].inner_radius - self.units[b].inner_radius
        good = outer >= clearance
        rest = np.flatnonzero((outer <= BESIDE if linked else ~good) & (inner >= clearance))
        shapes = places[a].shapes[at_a[rest]], places[b].shapes[at_b[rest]]
        if linked:
            good[:] = False
            good[rest] = (separation(*shapes) >= clearance) & (distance(*shapes) <= BESIDE)
        else:
            good[rest] = separation(*shapes) >= clearance
        if target in (a, b):
            unit, at_unit, at_target = (b, at_b, at_a) if target == a else (a, at_a, at_b)
            kept = np.flatnonzero(good)
            good[kept] = self._in_sight(unit, places[unit].at(at_unit[kept]), places[target].at(at_target[kept]))
        return good

    def _in_sight(self, unit: int, at_unit: Planar, at_target: Planar) -> Mask:
        """Whether no part of a unit at places ([k, 2], [k]) hides the middle of the target: [k]."""
        target = self._target[1]
        middle = transform(target.pose[None, :2], *at_target)[:, 0]
        height = (target.bottom + target.top) / 2
        clear = np.ones(len(middle), bool)
        for part in self.units[unit].parts:
            if part is target or part.top <= height:
                continue
            low = sight_lines(middle, height, max(part.bottom, height))[:, 1]
            high = sight_lines(middle, height, part.top)[:, 1]
            if part.index not in target.below:
                clear &= separation(np.stack([low, high], axis=1), transform(part.outline, *at_unit)) > 0
            elif part.mouth is not None:  # out of a hollow one sees over the rim
                mouth = transform(part.mouth[0][None], *at_unit)[:, 0]
                clear &= np.linalg.norm(high - mouth, axis=1) <= part.mouth[1]
        return clear

    def _room(self, places: Sequence[Places], chosen: Indices) -> Array:
        """The narrowest gap [m] in each arrangement [k, n], but for those between things that belong beside one another: [k]."""
        gaps = np.full(len(chosen), np.inf)
        for i, j in combinations(range(len(self.units)), 2):
            if not self._linked(i, j):
                gaps = np.minimum(gaps, separation(places[i].shapes[chosen[:, i]], places[j].shapes[chosen[:, j]]))
        return gaps


def _at(places: Sequence[Places], chosen: Indices) -> Planar:
    """Positions [..., n, 2] and yaws [..., n] of arrangements [..., n]."""
    each = range(len(places))
    return (
        np.stack([places[i].xy[chosen[..., i]] for i in each], axis=-2),
        np.stack([places[i].yaw[chosen[..., i]] for i in each], axis=-1),
    )
