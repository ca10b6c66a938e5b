"""What every training run sets up: its folder, the machine it runs on, its record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Fabric
from lightning.fabric.strategies import ModelParallelStrategy
from torch import Tensor

from genvla.errors import UserError
from genvla.evaluation.results import write_atomically
from genvla.learning.checkpoints import Checkpoints, first_line
from genvla.learning.cpu import physical_cores
from genvla.learning.sharding import shard
from genvla.learning.tracking import Tracker, revision_tags
from genvla.policy.activation_checkpointing import checkpoint_activations
from genvla.policy.flow_policy import FlowPolicy


@dataclass(frozen=True)
class HardwareConfig:
    """What the run computes on.

    Args:
        accelerator: "auto" takes a GPU where there is one.
        devices: how many of them.
        num_nodes: machines.
        strategy: how devices share the work: a Lightning strategy's name, or "fsdp2", which splits weights, gradients and
            optimizer state over them. "auto" is "ddp" for several, and "ddp" here is "ddp_find_unused_parameters_true": some
            updates leave a part of the policy out, as in the critic's warm-up and in imitation, which Lightning's does not stand.
        precision: of the policy's arithmetic.
        threads: of arithmetic on the CPU; null takes one per physical core, shared out over the
            devices.
        compile: compile what the policy computes with torch.compile, in this mode of it; reduce-overhead uses CUDA graphs. The
            first iteration takes minutes longer. Wants data.recompute_log_probs in `fit`.
        activation_checkpointing: keep only each layer's inputs for the way back and compute the rest again: a tenth of the
            memory, a third more time in the update, the same numbers.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = "32-true"
    threads: int | None = None
    compile: Literal["default", "reduce-overhead"] | None = None
    activation_checkpointing: bool = False

    def fabric(self) -> Fabric:
        """Fabric, launched, with this process's threads set.

        Raises:
            UserError: there is no such accelerator here.
        """
        torch.set_num_threads(self.threads or max(1, physical_cores() // max(1, self.devices)))
        try:
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=self.devices,
                num_nodes=self.num_nodes,
                strategy=self._strategy(),
                precision=self.precision,
            )
            fabric.launch()
        except (ValueError, RuntimeError) as error:  # Lightning's MisconfigurationException is neither documented nor exported
            raise UserError(f"hardware: {first_line(error)}") from error
        return fabric

    def _strategy(self) -> str | ModelParallelStrategy:
        processes = self.devices * self.num_nodes
        if self.strategy in ("auto", "ddp") and processes > 1:
            return "ddp_find_unused_parameters_true"
        if self.strategy != "fsdp2":
            return self.strategy
        return ModelParallelStrategy(shard, processes, 1, save_distributed_checkpoint=False)

    def prepare(self, policy: FlowPolicy, sizes: Collection[int] | None = None) -> None:
        """Sets the policy up for activation checkpointing and compilation, the latter for batches of these sizes."""
        checkpoint_activations(policy, self.activation_checkpointing)
        if self.compile is not None:
            policy.pi0.compile_functions(mode=self.compile, sizes=sizes)


@dataclass(frozen=True)
class TrackingConfig:
    """Where the run is recorded, beside its folder.

    Args:
        experiment: name of the MLflow experiment.
        uri: of the MLflow server or store; null follows MLFLOW_TRACKING_URI or uses mlflow.db in the current folder; "none" does
            without.
    """

    experiment: str = "genvla"
    uri: str | None = None


def run_folder(fabric: Fabric, wanted: Path, resume: Path | None) -> Path:
    """The folder of the run to resume, or a new one; the same for all processes."""
    if resume is not None:
        return Path(resume)
    return Path(fabric.broadcast(str(new_run_dir(wanted)) if fabric.is_global_zero else ""))


def last_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint of a run, if it got that far."""
    return Checkpoints(Path(run_dir) / "checkpoints", keep=1).last


def new_run_dir(wanted: Path) -> Path:
    """The folder, made; with a number behind its name where there is one with something in it already.

    Raises:
        UserError: it cannot be written to.
    """
    path, number = Path(wanted), 1
    while path.is_file() or (path.is_dir() and any(path.iterdir())):
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"run_dir: {path} cannot be written to ({error.strerror}), want a folder that can") from error
    return path


def describe_run(run_dir: Path, settings: str, scenes: list[str]) -> None:
    """Writes what the run is: config.yaml, scenes.txt, revision.txt. A resumed run writes them anew."""
    write_atomically(run_dir / "config.yaml", settings)
    write_atomically(run_dir / "scenes.txt", "".join(f"{scene}\n" for scene in scenes))
    revision = revision_tags()
    write_atomically(run_dir / "revision.txt", "".join(f"{name}: {value}\n" for name, value in revision.items()))


def adder(fabric: Fabric) -> Callable[[Tensor], Tensor]:
    """Adds a tensor up over all processes."""

    def all_sum(tensor: Tensor) -> Tensor:
        return tensor if fabric.world_size == 1 else fabric.all_reduce(tensor.clone(), reduce_op="sum")  # type: ignore[return-value]

    return all_sum


@contextmanager
def tracked(fabric: Fabric, run_dir: Path, config: TrackingConfig, tags: dict[str, Any]) -> Iterator[Tracker | None]:
    """The run's record, closed with how the run ended; None on all processes but the first."""
    if not fabric.is_global_zero:
        yield None
        return
    with Tracker(run_dir, config.experiment, tracking_uri=config.uri, tags=tags) as tracker:
        yield tracker
