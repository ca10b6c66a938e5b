"""Imitation: flow matching on demonstrations, which gives reinforcement learning a policy that succeeds now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.errors import UserError
from genvla.learning.policy_module import PolicyModule, Schedule
from genvla.policy.flow_policy import FlowPolicy
from genvla.seeding import derive_seed

if TYPE_CHECKING:
    from genvla.policy.processor import PolicyInputs


class Samples:
    """b moments of demonstrations, and the chunk of actions (normalised) that the demonstrator meant to take from there.

    A plain class for the reason given at rollouts.Decisions.
    """

    def __init__(self, inputs: PolicyInputs, actions: Float[Tensor, "b c 7"]) -> None:
        self.inputs = inputs
        self.actions = actions

    def __len__(self) -> int:
        return len(self.actions)


class ImitationModule(PolicyModule):
    """Flow matching, and beside it the prediction of where things are, which teaches a small policy to look.

    Args:
        policy: what is trained.
        grounding_weight: weight of the grounding loss.
        sight_iterations: iterations at the beginning that train the grounding loss alone: first the eye, then the hand.
            The learning rates go through their schedule once for each.
        hand_lr_factor: of the learning rates after the sight iterations: at the full rate the hand's first hundreds of updates
            cost the eye what it had learnt last.
        policy_lr: learning rate of everything but the heads.
        head_lr: learning rate of the heads.
        weight_decay: AdamW's, on weight matrices only.
        betas: AdamW's.
        max_grad_norm: gradients are clipped to this global norm.
        lr_schedule: what becomes of the learning rates after the warm-up.
        lr_warmup_iterations: iterations over which they rise.
        seed: of the noise and the flow times.
    """

    def __init__(
        self,
        policy: FlowPolicy,
        *,
        grounding_weight: float = 1.0,
        sight_iterations: int = 0,
        hand_lr_factor: float = 1.0,
        policy_lr: float = 1e-3,
        head_lr: float = 1e-3,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        max_grad_norm: float = 1.0,
        lr_schedule: Schedule = "cosine",
        lr_warmup_iterations: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            policy,
            policy_lr=policy_lr,
            head_lr=head_lr,
            weight_decay=weight_decay,
            betas=betas,
            max_grad_norm=max_grad_norm,
            lr_schedule=lr_schedule,
            lr_warmup_iterations=lr_warmup_iterations,
        )
        if sight_iterations and policy.grounding_head is None:
            raise UserError(f"module.sight_iterations: {sight_iterations} found, 0 wanted for a policy without a grounding head")
        if not hand_lr_factor > 0:
            raise UserError(f"module.hand_lr_factor: {hand_lr_factor} found, more than 0 wanted")
        self.grounding_weight = grounding_weight
        self.sight_iterations = sight_iterations
        self.hand_lr_factor = hand_lr_factor
        self.seed = seed
        self._generator: torch.Generator | None = None

    def start_iteration(self, iteration: int, iterations: int | None, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Sets the learning rates, and begins the iteration's noise."""
        first, last = (0, self.sight_iterations) if iteration < self.sight_iterations else (self.sight_iterations, iterations)
        rank = 0 if self.fabric is None else self.fabric.global_rank
        seed = derive_seed(self.seed, "imitation", iteration, rank)
        self._generator = torch.Generator(next(self.policy.parameters()).device).manual_seed(seed)
        rates = super().start_iteration(iteration - first, None if last is None else last - first, optimizer)
        self.iteration = iteration
        if iteration < self.sight_iterations:
            return rates
        for group in optimizer.param_groups:
            group["lr"] *= self.hand_lr_factor
        return {name: self.hand_lr_factor * rate for name, rate in rates.items()}

    def training_step(self, batch: Samples, batch_idx: int = 0) -> dict[str, Tensor]:
        """Loss and metrics of a minibatch, as {"loss": ..., metric: ...}."""
        assert self._generator is not None, "start_iteration() comes first"
        if self.iteration < self.sight_iterations:
            loss, error = self.policy.grounding_loss(batch.inputs)
            return {"loss": loss, "grounding_loss": loss.detach(), "position_error_m": error}
        losses = self.policy.imitation_losses(batch.inputs, batch.actions, self._generator)
        loss = losses.flow + self.grounding_weight * losses.grounding
        return {
            "loss": loss,
            "flow_loss": losses.flow.detach(),
            "grounding_loss": losses.grounding.detach(),
            "position_error_m": losses.position_error,
        }
