"""The checkpoints of a run: a policy that anything can load, and beside it what a resume needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from lightning import Fabric

from genvla.errors import UserError
from genvla.learning.files import atomic_path
from genvla.policy.checkpoints import save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.sim.config import SimConfig, save_sim

TRAINING_STATE = "training_state.ckpt"


class Checkpoints:
    """`iteration_000010/` and so on in a folder, with `last` and `best` pointing to two of them.

    Each holds a policy, the set-up it was trained in and the training state, and appears whole or not at all. All but the last
    `keep` and the best are removed.
    """

    def __init__(self, folder: Path, keep: int, sim: SimConfig | None = None) -> None:
        self.folder = Path(folder)
        self.keep = keep
        self.sim = sim

    @property
    def last(self) -> Path | None:
        """The newest checkpoint, if there is one."""
        return self._target("last")

    @property
    def best(self) -> Path | None:
        """The checkpoint that scored best, if any was scored."""
        return self._target("best")

    def save(self, fabric: Fabric, iteration: int, policy: FlowPolicy, state: dict[str, Any], *, is_best: bool = False) -> Path:
        """Writes the checkpoint of a finished iteration; every process calls it, the first one writes."""
        path = self.folder / f"iteration_{iteration:06d}"
        if not fabric.is_global_zero:
            fabric.save(path / TRAINING_STATE, state)  # takes part, writes nothing
            return path
        with atomic_path(path) as temporary:
            save_policy(policy, temporary)
            if self.sim is not None:
                save_sim(self.sim, temporary)
            fabric.save(temporary / TRAINING_STATE, state)
        self._point("last", path)
        if is_best:
            self._point("best", path)
        self._prune()
        return path

    def load(self, fabric: Fabric, path: Path, state: dict[str, Any]) -> dict[str, Any]:
        """Restores the objects in `state` from a checkpoint and returns the rest of what was saved.

        Raises:
            UserError: the training state is missing or does not fit.
        """
        file = path / TRAINING_STATE
        try:
            return fabric.load(file, state, weights_only=True)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"{file}: cannot be resumed from ({reason}), want the training state of this configuration"
            ) from error

    def _target(self, name: str) -> Path | None:
        link = self.folder / name
        return self.folder / os.readlink(link) if link.is_symlink() and link.exists() else None

    def _point(self, name: str, path: Path) -> None:
        with atomic_path(self.folder / name) as temporary:
            temporary.symlink_to(path.name)

    def _prune(self) -> None:
        everything = sorted(self.folder.glob("iteration_*"))
        kept = {*everything[-self.keep :], self.last, self.best}
        for path in everything:
            if path not in kept:
                shutil.rmtree(path)
