"""The checkpoints of a run: a policy that anything can load, and beside it what a resume needs."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning import Fabric
from safetensors import SafetensorError

from genvla.errors import UserError
from genvla.learning.files import atomic_path
from genvla.learning.sharding import split_like
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
        """Writes the checkpoint of a finished iteration; every process calls it, the first one writes.

        state: plain, whole values; what is split over processes has been put together.

        Raises:
            UserError: it cannot be written, as on a full disk; the checkpoints before it are as they were.
        """
        path = self.folder / f"iteration_{iteration:06d}"
        if fabric.is_global_zero:
            try:
                self._write(path, policy, state, is_best)
            except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
                last = self.last
                good = "there is none yet" if last is None else f"the last good one is {last}"
                raise UserError(
                    f"{path}: the checkpoint cannot be written ({first_line(error)}), want room and permission; {good}"
                ) from error
        fabric.barrier()
        return path

    def _write(self, path: Path, policy: FlowPolicy, state: dict[str, Any], is_best: bool) -> None:
        self._clear_up()
        with atomic_path(path) as temporary:
            save_policy(policy, temporary)
            if self.sim is not None:
                save_sim(self.sim, temporary)
            torch.save(state, temporary / TRAINING_STATE)
        self._point("last", path)
        if is_best:
            self._point("best", path)
        self._prune()

    def load(self, path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Restores an optimizer from a checkpoint and returns the rest of what was saved.

        Raises:
            UserError: the training state is missing or does not fit.
        """
        file = path / TRAINING_STATE
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            optimizer.load_state_dict(split_like(optimizer, state.pop("optimizer")))
        except (OSError, KeyError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{file}: cannot be resumed from ({first_line(error)}), want the training state of this configuration"
            ) from error
        return state

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

    def _clear_up(self) -> None:
        """Removes what a process that was killed while saving has left half-written."""
        for path in self.folder.glob(".iteration_*"):
            shutil.rmtree(path, ignore_errors=True)


def first_line(error: BaseException) -> str:
    """What an error says, cut to a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
