"""Which scene runs in which slot of which iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from genvla.errors import UserError

MEMORY = 0.8
"""What a scene's success so far weighs beside the newest iteration's, in the curriculum."""

FLOOR = 0.1
"""A scene that always or never succeeds is worth so much to the curriculum beside one that succeeds half the time."""


class SceneAssignment:
    """Spreads n scenes over m slots, those of all processes together. It draws no lots.

    Without weights and curriculum, slot i keeps to scene i modulo n while there are slots for all. Otherwise the scenes rotate:
    slot i of iteration t runs scene t m + i modulo n, so that after any number of iterations no scene has had more than one
    visit more than another.

    With them, each scene earns a share of the m visits of every iteration in proportion to its weight, and visits are given to
    the scenes that are owed most. So over any number of iterations a scene's visits stay near its share. The curriculum's weight
    of a scene, multiplied with the user's, is 4 p (1 - p) and no less than FLOOR, with p its success so far: largest where the
    policy succeeds half the time, as there success says most.

    What it remembers changes in `conclude` alone, and is in `state_dict`: an iteration that is broken off leaves no trace.

    Args:
        scene_ids: of the n scenes.
        slots: m.
        weights: by scene id, 0 or more; scenes that are not named weigh 1. None for all alike.
        curriculum: whether success enters.
    """

    def __init__(
        self, scene_ids: Sequence[str], slots: int, weights: Mapping[str, float] | None = None, curriculum: bool = False
    ) -> None:
        self.scene_ids = list(scene_ids)
        self.slots = slots
        self.curriculum = curriculum
        self.weighted = curriculum or weights is not None
        self._given = _checked(self.scene_ids, weights or {})
        self._success = np.full(len(self.scene_ids), 0.5)
        self._owed = np.zeros(len(self.scene_ids))
        self._planned: tuple[int, list[str]] | None = None

    def scenes(self, iteration: int) -> list[str]:
        """The scene of every slot. With weights or a curriculum, iterations are asked for in turn."""
        if self._planned is None or self._planned[0] != iteration:
            numbers = np.repeat(np.arange(len(self.scene_ids)), self._visits()) if self.weighted else self._rotation(iteration)
            self._planned = iteration, [self.scene_ids[number] for number in numbers]
        return self._planned[1]

    def conclude(self, outcomes: Mapping[str, tuple[int, int]]) -> None:
        """Takes in an iteration that was run: by scene, how many episodes finished and how many of them succeeded."""
        if self.weighted:
            self._owed += self.slots * self._shares() - self._visits()
            for place, scene in enumerate(self.scene_ids):
                episodes, successes = outcomes.get(scene, (0, 0))
                if episodes:
                    self._success[place] = MEMORY * self._success[place] + (1 - MEMORY) * successes / episodes
        self._planned = None

    def state_dict(self) -> dict[str, Any]:
        """Scene ids with what is owed to each and its success so far; empty where nothing is remembered."""
        if not self.weighted:
            return {}
        return {"scene_ids": self.scene_ids, "owed": self._owed.tolist(), "success": self._success.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; scenes that were not there then begin anew."""
        places = {scene: place for place, scene in enumerate(self.scene_ids)}
        rows = zip(state.get("scene_ids", []), state.get("owed", []), state.get("success", []), strict=True)
        for scene, owed, success in rows:
            if scene in places:
                self._owed[places[scene]], self._success[places[scene]] = owed, success
        self._planned = None

    def _rotation(self, iteration: int) -> Int[np.ndarray, " m"]:
        first = iteration * self.slots if len(self.scene_ids) > self.slots else 0
        return (first + np.arange(self.slots)) % len(self.scene_ids)

    def _shares(self) -> Float[np.ndarray, " n"]:
        """Of an iteration's visits, by scene; they add up to 1."""
        worth = np.maximum(4 * self._success * (1 - self._success), FLOOR) if self.curriculum else 1.0
        weights = self._given * worth
        return weights / weights.sum()

    def _visits(self) -> Int[np.ndarray, " n"]:
        """How many slots each scene gets now: the whole visits owed to it, and the rest to those owed most of one."""
        owed = np.maximum(self._owed + self.slots * self._shares(), 0.0)
        owed *= self.slots / owed.sum()
        visits = np.floor(owed + 1e-9).astype(int)
        rest = self.slots - visits.sum()
        # Rounded, so that what is equal but for the last bits goes by the order of the scenes.
        visits[np.argsort(-np.round(owed - visits, 9), kind="stable")[:rest]] += 1
        return visits


def _checked(scene_ids: Sequence[str], weights: Mapping[str, float]) -> Float[np.ndarray, " n"]:
    unknown = sorted(set(weights) - set(scene_ids))
    if unknown:
        raise UserError(f"data.scene_weights: {unknown[0]!r} found, scenes that are trained on wanted")
    given = np.array([float(weights.get(scene, 1.0)) for scene in scene_ids])
    if not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
        raise UserError(f"data.scene_weights: {sorted(set(weights.values()))} found, numbers of 0 or more wanted, not all 0")
    return given
