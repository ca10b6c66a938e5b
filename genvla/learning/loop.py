"""The one training loop, on Lightning Fabric: collect, update, evaluate, save; for imitation and for reinforcement learning."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn, Protocol

import torch
from lightning import Fabric
from lightning.fabric.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor

from genvla.errors import Preempted, UserError
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.datamodule import select
from genvla.learning.metrics import Means, combined, diagnosis
from genvla.learning.policy_module import PolicyModule
from genvla.learning.rollouts import Interrupted
from genvla.learning.sharding import gathered, skeleton, whole
from genvla.learning.tracking import Tracker


class Data(Protocol):
    """What the loop learns from: RolloutDataModule or DemonstrationDataModule."""

    def collect(self, module: Any, iteration: int) -> dict[str, Any]:
        """Gets the data of an iteration ready. Returns metrics; those the loop knows are "seconds" by phase and "env_steps".
        Raises Interrupted when told to stop."""

    def train_dataloader(self) -> Iterable[Any]:
        """The minibatches of the iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs of it."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


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
    """A loss or a gradient is not a number any more, or beyond any sense."""


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
        evaluate: called by all processes together; returns to all of them the same metrics to log, and the same score, which
            decides which checkpoint is best.
        display: is told of every iteration.
        stop: whether the run has been asked to end soon.
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
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.fabric = fabric
        self.module = module
        self.data = data
        self.config = config
        self.checkpoints = checkpoints
        self.tracker = tracker
        self.evaluate = evaluate
        self.display = display
        self.stop = stop
        self._whole_policy = skeleton(module.policy) if isinstance(fabric.strategy, ModelParallelStrategy) else None
        self.wrapped = fabric.setup_module(module)
        # Only now are the parameters those that the strategy trains: sharded ones are others than before.
        self.optimizer: Any = fabric.setup_optimizers(module.configure_optimizers())
        self.iteration = 0
        self.seconds = 0.0
        self.env_steps = 0
        self.best_score: float | None = None
        self._saved = 0

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
            Preempted: the run was told to stop; where it stands is saved. An iteration that is still collecting is dropped, as it
                can be collected again; one that updates is finished.
        """
        while not self.finished:
            start = perf_counter()
            try:
                metrics = self.iterate()
            except Interrupted:
                self.preempt()
            self.seconds = self.fabric.broadcast(self.seconds + perf_counter() - start)
            self.iteration += 1
            start = perf_counter()
            self._conclude(metrics)
            # One clock for all, lest one process stops and the others wait for it.
            self.seconds = self.fabric.broadcast(self.seconds + perf_counter() - start)
            if not self.finished and self.any_process(self.stop()):
                self.preempt()

    def any_process(self, flag: bool) -> bool:
        """Whether it is so in any of the processes, which all ask together."""
        if self.fabric.world_size == 1:
            return flag
        count = torch.tensor(float(flag), device=self.fabric.device)
        return bool(self.fabric.all_reduce(count, reduce_op="sum").item() > 0)  # type: ignore[union-attr]

    def preempt(self) -> NoReturn:
        """Saves where the run stands between two iterations, if that is not saved yet, and raises Preempted; SystemExit in all
        processes but the first, as a launcher takes the death of a child for an accident."""
        if self.iteration > self._saved:
            self.save()
        if not self.fabric.is_global_zero:
            raise SystemExit(0)
        raise Preempted(f"told to stop; {f'saved after iteration {self.iteration}' if self.iteration else 'nothing was begun'}")

    def iterate(self) -> dict[str, Any]:
        """Collects and updates once. Returns what to log."""
        rates = self.module.start_iteration(self.iteration, self.config.iterations, self.optimizer)
        # The collecting calls need no gradient, so they go past the strategy, straight to this process's replica.
        with self.autocast(), gathered(self.module):
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
        """One pass over the iteration's minibatches, without those that the module leaves out. Returns the means of their
        metrics."""
        means = Means()
        done = stopped = 0
        for batch in self.data.train_dataloader():
            self.optimizer.zero_grad(set_to_none=True)
            metrics = self._numbers(self._accumulate(batch, done))
            means.add(metrics)
            if self.module.enough(metrics):
                stopped = 1
                continue
            parts = self.module.gradient_norms()
            total = self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=self.module.max_grad_norm, error_if_nonfinite=False
            )
            assert total is not None
            norms = self._numbers({**parts, "grad_norm": total})
            self._check_sane(done, {**metrics, **norms})
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
        return combined(outputs, shares)

    def save(self, is_best: bool = False) -> None:
        """Writes a checkpoint of where the run stands between two iterations."""
        tracker = {} if self.tracker is None else self.tracker.state_dict()
        state = {
            "optimizer": whole(self.optimizer.state_dict()),
            "loop": self.state_dict(),
            "tracker": tracker,
            "data": self.data.state_dict(),
        }
        policy = self.module.policy
        if self._whole_policy is not None:
            self._whole_policy.load_state_dict(whole(policy.state_dict()), assign=True)
            policy = self._whole_policy
        self.checkpoints.save(self.fabric, self.iteration, policy, state, is_best=is_best)
        self._saved = self.iteration

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
        rest = self.checkpoints.load(path, self.optimizer)
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        self.load_state_dict(rest["loop"])
        self._saved = self.iteration
        self.data.load_state_dict(rest.get("data", {}))
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
            with gathered(self.module):
                evaluation, score = self.evaluate()
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
        metrics = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in metrics.items()}
        stacked = torch.stack([value.detach().float().reshape(()) for value in metrics.values()])
        if self.fabric.world_size > 1:
            stacked = self.fabric.all_reduce(stacked, reduce_op="mean")  # type: ignore[assignment]
        return dict(zip(metrics, stacked.tolist(), strict=True))

    def _check_sane(self, update: int, metrics: dict[str, float]) -> None:
        wrong = diagnosis(metrics)
        if wrong is not None:
            last = self.checkpoints.last
            good = "there is no checkpoint yet" if last is None else f"the last good checkpoint is {last}"
            raise TrainingDiverged(
                f"iteration {self.iteration}, update {update}: {wrong}; {good}; want a smaller module.policy_lr, or for fit a "
                "module.target_kl"
            )
