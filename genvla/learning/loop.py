"""The one training loop, on Lightning Fabric: collect, update, evaluate, save; for imitation and for reinforcement learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import torch
from lightning import Fabric
from torch import Tensor

from genvla.errors import UserError
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.datamodule import select
from genvla.learning.policy_module import PolicyModule
from genvla.learning.tracking import Tracker


class Data(Protocol):
    """What the loop learns from: RolloutDataModule or DemonstrationDataModule."""

    def collect(self, module: Any, iteration: int) -> dict[str, Any]:
        """Gets the data of an iteration ready. Returns metrics; those the loop knows are "seconds" by phase and "env_steps"."""

    def train_dataloader(self) -> Iterable[Any]:
        """The minibatches of the iteration."""


class Display(Protocol):
    """Shows how the run gets on."""

    def iteration(self, loop: Loop, metrics: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainingConfig:
    """How long to train, and what to do in between.

    Args:
        iterations: stop after so many; null for no limit.
        max_seconds: stop at the end of the iteration in which the training's wall-clock time passes this; null for no limit.
        evaluate_every: iterations between evaluations while training; 0 for none.
        checkpoint_every: iterations between checkpoints; one is always written at the end.
        keep_checkpoints: how many of the newest to keep, beside the best.
        micro_batch_size: rows of a minibatch that go through the policy at once, at most; their gradients add up to the
            minibatch's. Null for the whole minibatch. 800 rows overflow a CPU's caches and take twice as long as 100 at a time.
    """

    iterations: int | None = 100
    max_seconds: float | None = None
    evaluate_every: int = 0
    checkpoint_every: int = 10
    keep_checkpoints: int = 2
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.iterations is None and self.max_seconds is None:
            raise UserError("training: iterations and max_seconds are both null, want at least one limit")
        if self.checkpoint_every < 1 or self.keep_checkpoints < 1:
            raise UserError("training.checkpoint_every and keep_checkpoints: less than 1 found, at least 1 wanted")
        if self.micro_batch_size is not None and self.micro_batch_size < 1:
            raise UserError(f"training.micro_batch_size: {self.micro_batch_size} found, at least 1 wanted")


class TrainingDiverged(UserError):
    """A loss or a gradient is not a number any more."""


class Loop:
    """Trains a module on data until a limit is reached.

    What a resume needs is the policy, the optimizer, and this object's and the tracker's state; all randomness follows from
    seeds and the iteration's number.

    Args:
        fabric: launched.
        module: the policy and its loss; set up by this object.
        data: set up by the caller.
        config: limits and intervals.
        checkpoints: where to save.
        tracker: where to log; None on all processes but the first.
        evaluate: called with the iterations done; returns metrics to log, and the score that decides which checkpoint is best.
        display: is told of every iteration.
    """

    def __init__(
        self,
        fabric: Fabric,
        module: PolicyModule,
        data: Data,
        config: TrainingConfig,
        checkpoints: Checkpoints,
        tracker: Tracker | None = None,
        evaluate: Callable[[], tuple[dict[str, Any], float]] | None = None,
        display: Display | None = None,
    ) -> None:
        self.fabric = fabric
        self.module = module
        self.data = data
        self.config = config
        self.checkpoints = checkpoints
        self.tracker = tracker
        self.evaluate = evaluate
        self.display = display
        self.wrapped, self.optimizer = fabric.setup(module, module.configure_optimizers())
        self.iteration = 0
        self.seconds = 0.0
        self.env_steps = 0
        self.best_score: float | None = None

    def state_dict(self) -> dict[str, Any]:
        names = ("iteration", "seconds", "env_steps", "best_score")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    @property
    def finished(self) -> bool:
        limit = self.config.iterations
        done = limit is not None and self.iteration >= limit
        return done or (self.config.max_seconds is not None and self.seconds >= self.config.max_seconds)

    def run(self) -> None:
        """Iterates until a limit is reached. Does nothing when it already is.

        Raises:
            TrainingDiverged: a loss or gradient is not finite; the policy is as it was before that update.
        """
        while not self.finished:
            start = perf_counter()
            metrics = self.iterate()
            self.seconds = self.fabric.broadcast(self.seconds + perf_counter() - start)
            self.iteration += 1
            start = perf_counter()
            self._conclude(metrics)
            # One clock for all, lest one process stops and the others wait for it.
            self.seconds = self.fabric.broadcast(self.seconds + perf_counter() - start)

    def iterate(self) -> dict[str, Any]:
        """Collects and updates once. Returns what to log."""
        rates = self.module.start_iteration(self.iteration, self.config.iterations, self.optimizer)
        # The collecting calls need no gradient, so they go past the strategy, straight to this process's replica.
        with self.autocast():
            collected = self.data.collect(self.module, self.iteration)
        start = perf_counter()
        update = self.update()
        seconds = {**collected.pop("seconds", {}), "update": perf_counter() - start}
        steps = collected.pop("env_steps", 0)
        self.env_steps += steps
        speed = {f"{phase}_seconds": value for phase, value in seconds.items()}
        if steps:
            speed |= {f"{phase}_steps_per_s": steps / value for phase, value in seconds.items() if value > 0}
            speed["env_steps_per_s"] = steps / sum(seconds.values())
        return {**collected, "update": {**update, **rates}, "speed": speed}

    def update(self) -> dict[str, float]:
        """One pass over the iteration's minibatches, or less when the module has had enough. Returns the means of their
        metrics."""
        means = _Means()
        done = stopped = 0
        for batch in self.data.train_dataloader():
            self.optimizer.zero_grad(set_to_none=True)
            metrics = self._numbers(self._accumulate(batch, done))
            means.add(metrics)
            if self.module.enough(metrics):
                stopped = 1
                break
            parts = self.module.gradient_norms()
            whole = self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=self.module.max_grad_norm, error_if_nonfinite=False
            )
            assert whole is not None
            norms = self._numbers({**parts, "grad_norm": whole})
            self._check_finite(done, {"loss": metrics["loss"], **norms})
            means.add(norms)
            self.optimizer.step()
            done += 1
        return {**means.result(), "updates": float(done), "stopped_early": float(stopped)}

    def _accumulate(self, batch: Any, number: int) -> dict[str, Tensor]:
        """Adds up the gradients of a minibatch, micro-batch by micro-batch. Returns the metrics of the whole, loss included."""
        rows = len(batch)
        count = math.ceil(rows / (self.config.micro_batch_size or rows))
        shares, outputs = [], []
        for place, index in enumerate(torch.arange(rows).tensor_split(count)):
            share = len(index) / rows
            with self.fabric.no_backward_sync(self.wrapped, enabled=place < count - 1):
                with self.fabric.autocast():
                    output = self.wrapped.training_step(batch if count == 1 else select(batch, index), number)
                self.fabric.backward(output["loss"] * share)
            shares.append(share)
            outputs.append({name: value.detach() for name, value in output.items()})
        return {name: _combined(name, [output[name] for output in outputs], shares) for name in outputs[0]}

    def save(self, is_best: bool = False) -> None:
        """Writes a checkpoint of where the run stands between two iterations."""
        tracker = {} if self.tracker is None else self.tracker.state_dict()
        state = {"optimizer": self.optimizer, "loop": self.state_dict(), "tracker": tracker}
        self.checkpoints.save(self.fabric, self.iteration, self.module.policy, state, is_best=is_best)

    def resume(self) -> bool:
        """Goes on from the newest checkpoint, whose policy the module must hold already. False when there is none.

        The optimizer's moments come from the checkpoint, its settings from the configuration.
        """
        path = self.checkpoints.last
        if path is None:
            if self.tracker is not None:  # a run that ended before its first checkpoint may have logged something
                self.tracker.load_state_dict({"run_id": None, "step": None})
            return False
        settings = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        rest = self.checkpoints.load(self.fabric, path, {"optimizer": self.optimizer})
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        self.load_state_dict(rest["loop"])
        if self.tracker is not None and rest["tracker"]:
            self.tracker.load_state_dict(rest["tracker"])
        return True

    def log(self, metrics: dict[str, Any]) -> None:
        """Logs under the number of iterations done, with the environment steps and seconds spent so far."""
        if self.tracker is not None:
            self.tracker.log_metrics({"env_steps": self.env_steps, "wall_seconds": self.seconds, **metrics}, step=self.iteration)

    def _conclude(self, metrics: dict[str, Any]) -> None:
        """After an iteration: evaluate and save where it is time to, log, show."""
        config, is_best = self.config, False
        if self.evaluate and config.evaluate_every and self.iteration % config.evaluate_every == 0 and not self.finished:
            evaluation, score = self.fabric.broadcast(self.evaluate() if self.fabric.is_global_zero else ({}, 0.0))
            metrics = {**metrics, **evaluation}
            is_best = self.best_score is None or score > self.best_score
            self.best_score = score if is_best else self.best_score
        self.log(metrics)
        if is_best or self.finished or self.iteration % config.checkpoint_every == 0:
            self.save(is_best)
        if self.display is not None:
            self.display.iteration(self, metrics)

    def autocast(self) -> AbstractContextManager[Any]:
        """That of mixed precision. Of bf16-true, Fabric's would make bf16 the type of every new tensor, the simulator's too."""
        return nullcontext() if self.fabric.strategy.precision.precision.endswith("-true") else self.fabric.autocast()

    def _numbers(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Metrics as floats, the mean over all processes, in one transfer."""
        stacked = torch.stack([value.detach().float().reshape(()) for value in metrics.values()])
        if self.fabric.world_size > 1:
            stacked = self.fabric.all_reduce(stacked, reduce_op="mean")  # type: ignore[assignment]
        return dict(zip(metrics, stacked.tolist(), strict=True))

    def _check_finite(self, update: int, numbers: dict[str, float]) -> None:
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            last = self.checkpoints.last
            good = "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
            raise TrainingDiverged(
                f"iteration {self.iteration}, update {update}: {', '.join(broken)} not finite; {good}; want a smaller "
                "module.policy_lr, or for fit a module.target_kl"
            )


def _combined(name: str, values: list[Tensor], shares: list[float]) -> Tensor:
    """A metric of a minibatch from those of its micro-batches."""
    stacked = torch.stack(values)
    kind = name.rpartition("_")[2]
    if kind in ("min", "max"):
        return stacked.amin() if kind == "min" else stacked.amax()
    weights = stacked.new_tensor(shares)
    if kind in ("std", "rms"):  # the spread of the micro-batches' means, small beside it, is left out of a standard deviation
        return (weights * stacked.square()).sum().sqrt()
    return (weights * stacked).sum()


class _Means:
    """Means of metrics over updates; the extremes of those that say so in their name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value)

    def result(self) -> dict[str, float]:
        reduce: dict[str, Callable[[list[float]], float]] = {"min": min, "max": max}
        return {
            name: reduce.get(name.rpartition("_")[2], lambda values: sum(values) / len(values))(values)
            for name, values in self._values.items()
        }
