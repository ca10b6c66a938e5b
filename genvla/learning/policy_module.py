"""What imitation and reinforcement learning share: a policy, its optimizer groups, its learning-rate schedule, its gradient
norms."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor

from genvla.errors import UserError
from genvla.policy.finetuning import HEADS, part_of
from genvla.policy.flow_policy import FlowPolicy

Schedule = Literal["constant", "linear", "cosine"]


def schedule_factor(iteration: int, iterations: int | None, schedule: Schedule, warmup: int) -> float:
    """What the learning rates are multiplied with in an iteration (counted from 0): rising over `warmup` iterations, then
    constant, or falling to 0 at the end of the run in a line or half a cosine."""
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    if iterations is None:
        raise UserError(f"module.lr_schedule: {schedule} needs training.iterations, which is null")
    done = min(1.0, (iteration - warmup) / max(1, iterations - warmup))
    return 1.0 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


class PolicyModule(LightningModule):
    """A FlowPolicy in training. Subclasses add the loss, as `training_step(batch)` returning {"loss": ..., metric: ...}.

    Args:
        policy: what is trained.
        policy_lr: learning rate of everything but the heads.
        head_lr: learning rate of the heads.
        critic_lr: learning rate of the value head; null for that of the heads.
        weight_decay: AdamW's, on weight matrices only.
        betas: AdamW's.
        max_grad_norm: gradients are clipped to this global norm.
        lr_schedule: what becomes of the learning rates after the warm-up.
        lr_warmup_iterations: iterations over which they rise.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        *,
        policy_lr: float,
        head_lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        max_grad_norm: float,
        lr_schedule: Schedule,
        lr_warmup_iterations: int,
        critic_lr: float | None = None,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.policy_lr = policy_lr
        self.head_lr = head_lr
        self.critic_lr = head_lr if critic_lr is None else critic_lr
        self.weight_decay = weight_decay
        self.betas = betas
        self.max_grad_norm = max_grad_norm
        self.lr_schedule = lr_schedule
        self.lr_warmup_iterations = lr_warmup_iterations
        self.iteration = 0

    def configure_optimizers(self) -> torch.optim.AdamW:
        """AdamW over the trainable parameters, in groups named policy, heads and critic, each with and without weight decay."""
        groups: dict[tuple[str, bool], list[Tensor]] = {}
        for name, parameter in self.policy.named_parameters():
            if parameter.requires_grad:
                part = part_of(name)
                kind = "critic" if part == "value_head" else "heads" if part in HEADS else "policy"
                groups.setdefault((kind, parameter.ndim > 1), []).append(parameter)
        if not groups:
            raise UserError("module.policy: no parameter is trainable, want at least one")
        rates = {"policy": self.policy_lr, "heads": self.head_lr, "critic": self.critic_lr}
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "name": kind,
                    "lr": rates[kind],
                    "peak_lr": rates[kind],
                    "weight_decay": self.weight_decay if decays else 0.0,
                }
                for (kind, decays), parameters in groups.items()
            ],
            betas=self.betas,
        )

    def start_iteration(self, iteration: int, iterations: int | None, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Sets what depends on the number of the iteration. Returns the learning rates of the groups."""
        self.iteration = iteration
        factor = schedule_factor(iteration, iterations, self.lr_schedule, self.lr_warmup_iterations)
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]
        return {f"lr_{group['name']}": group["lr"] for group in optimizer.param_groups}

    def gradient_norms(self) -> dict[str, Tensor]:
        """The norm of the gradient of each part of the policy, before clipping."""
        squares: dict[str, list[Tensor]] = {}
        sharded = False
        for name, parameter in self.policy.named_parameters():
            gradient = parameter.grad
            if gradient is not None:
                sharded |= isinstance(gradient, DTensor)
                own = gradient.to_local() if isinstance(gradient, DTensor) else gradient
                squares.setdefault(part_of(name), []).append(own.detach().float().square().sum())
        sums = {part: torch.stack(values).sum() for part, values in sorted(squares.items())}
        if sharded and sums:  # each process has summed up its shards alone
            total: Any = self.fabric.all_reduce(torch.stack(list(sums.values())), reduce_op="sum")  # type: ignore[union-attr]
            sums = dict(zip(sums, total, strict=True))
        return {f"grad_norm_{part}": value.sqrt() for part, value in sums.items()}

    def enough(self, metrics: dict[str, float]) -> bool:
        """Whether the update about to be made should be left out, judging by its metrics. What is learnt from the rest of the
        iteration is up to the module."""
        return False
