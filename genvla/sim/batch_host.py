"""The slots of a vector environment as the sub-scenes of one batch that a GPU simulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from genvla.errors import UserError
from genvla.sim.config import SimConfig
from genvla.sim.host import Host, Simulated, Slot
from genvla.sim.scene_batch import SceneBatch, SubScene
from genvla.types import EpisodeSpec
from scenegen.loader import Scene


class BatchHost(Host):
    """A host whose slots are simulated together.

    A sub-scene keeps its scene until an episode wants another one. Then the batch is built anew, and what runs in the others goes
    on from where it stood: choose schedules that change scenes seldom, or all at once.

    arrays, render_device: as Host's; a GPU simulates what it renders. device: "cpu" makes batches of one, for tests.

    Raises:
        UserError: the scenes are ManiSkill's own tasks, or nothing here simulates on a GPU.
    """

    def __init__(
        self, scenes: Path, sim: SimConfig, arrays: dict[str, np.ndarray], render_device: str = "auto", device: str | None = None
    ) -> None:
        super().__init__(scenes, sim, arrays, render_device)
        if self._scene_set is None:
            raise UserError(f"physics: gpu found, cpu wanted for the scenes {scenes}")
        self._device = device or (render_device if render_device.startswith("cuda") else "cuda")
        count = len(self._slots)
        self._groups = [range(index, index + 1) for index in range(count)] if device == "cpu" else [range(count)]
        self._batches: list[SceneBatch | None] = [None for _ in self._groups]
        self._layouts: dict[str, Scene] = {}

    def _begin_all(self, specs: Mapping[int, EpisodeSpec | None]) -> None:
        for number, slots in enumerate(self._groups):
            wanted = {index: specs[index].scene_id for index in slots if specs.get(index)}  # type: ignore[union-attr]
            if wanted and self._scenes_of(number) != (scenes := self._scenes_of(number) | wanted):
                self._build(number, scenes, [index for index in slots if index not in specs])
        super()._begin_all(specs)

    def _scenes_of(self, number: int) -> dict[int, str]:
        """Scene ids of a batch by slot."""
        batch = self._batches[number]
        return {} if batch is None else dict(zip(self._groups[number], (each.id for each in batch.layouts), strict=True))

    def _build(self, number: int, scenes: Mapping[int, str], running: Sequence[int]) -> None:
        """A batch of these scenes, by slot; a slot without one gets any. The episodes of running slots go on in it."""
        slots, old = self._groups[number], self._batches[number]
        kept = {} if old is None else {index: old.snapshot(index - slots.start) for index in running if self._slots[index].env}
        if old is not None:
            old.close()
        spare = next(iter(scenes.values()))
        layouts = [self._layout(scenes.get(index, spare)) for index in slots]
        try:
            batch = SceneBatch(layouts, self._sim, self._device, **self._rendering)
        except (RuntimeError, OSError) as error:
            if self._device == "cpu":
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"physics: gpu found, which fails here ({reason}); cpu wanted") from error
        self._batches[number] = batch
        for index, snapshot in kept.items():
            batch.restore(index - slots.start, snapshot)
            self._slots[index].env = SubScene(batch, index - slots.start)

    def _layout(self, scene_id: str) -> Scene:
        if scene_id not in self._layouts:
            assert self._scene_set is not None
            self._layouts[scene_id] = self._scene_set.load(scene_id)
        return self._layouts[scene_id]

    def _put_away(self, slot: Slot) -> None:
        """A sub-scene stays where it is."""

    def _take_env(self, index: int, scene_id: str) -> Simulated:
        for slots, batch in zip(self._groups, self._batches, strict=True):
            if index in slots and batch is not None:
                return SubScene(batch, index - slots.start)
        raise RuntimeError(f"slot {index} has no batch")

    def _simulate(self, active: Sequence[int], targets: np.ndarray) -> None:
        for slots, batch in zip(self._groups, self._batches, strict=True):
            if batch is not None and any(index in slots for index in active):
                batch.advance_all(targets[slots.start : slots.stop])

    def close(self) -> None:
        """Frees the batches."""
        for batch in self._batches:
            if batch is not None:
                batch.close()
        self._batches = [None for _ in self._groups]
        self._slots = []
