"""PPOFlow (arXiv 2603.18532): proximal policy optimisation of a flow policy through the likelihood of its integration chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from genvla.learning.losses import (
    approximate_kl,
    clip_fraction,
    clipped_policy_loss,
    gaussian_entropy,
    powered_ratio,
    value_loss,
)
from genvla.learning.policy_module import PolicyModule, Schedule
from genvla.learning.rollouts import Decisions
from genvla.policy.flow_policy import FlowPolicy
from genvla.types import Observation

if TYPE_CHECKING:
    from genvla.policy.flow_policy import Evaluation, PolicyOutput
    from genvla.policy.processor import PolicyInputs


class PPOFlowModule(PolicyModule):
    """The actor and the critic of PPOFlow, and their loss.

    Args:
        policy: what is trained.
        clip: the powered ratio is clipped to 1 +- clip.
        ratio_power: the power s that draws the ratio of a whole chain back towards 1.
        gamma: discount per decision (chunk), not per control step.
        gae_lambda: lambda of generalised advantage estimation, per decision.
        value_coefficient: weight of the value loss.
        entropy_coefficient: weight of the noise head's entropy per dimension.
        grounding_weight: weight of the grounding loss, which a small policy learnt to look by, on what is collected. Above 0 it
            needs a policy with a grounding head and an environment that gives the simulator's state.
        target_kl: when the KL divergence from the collecting policy exceeds this many nats per decision, the rest of the
            iteration's updates is the critic's alone. Null: never.
        critic_warmup_iterations: at first only the value head learns, for so many iterations.
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
        clip: float = 0.2,
        ratio_power: float = 0.2,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        value_coefficient: float = 0.5,
        entropy_coefficient: float = 0.0,
        grounding_weight: float = 0.0,
        target_kl: float | None = None,
        critic_warmup_iterations: int = 0,
        policy_lr: float = 2e-5,
        head_lr: float = 1e-4,
        critic_lr: float | None = None,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        max_grad_norm: float = 0.5,
        lr_schedule: Schedule = "constant",
        lr_warmup_iterations: int = 0,
    ) -> None:
        super().__init__(
            policy,
            policy_lr=policy_lr,
            head_lr=head_lr,
            critic_lr=critic_lr,
            weight_decay=weight_decay,
            betas=betas,
            max_grad_norm=max_grad_norm,
            lr_schedule=lr_schedule,
            lr_warmup_iterations=lr_warmup_iterations,
        )
        self.clip = clip
        self.ratio_power = ratio_power
        self.gamma = gamma
        self.gae_lambda = gae_lambda
        self.value_coefficient = value_coefficient
        self.entropy_coefficient = entropy_coefficient
        self.grounding_weight = grounding_weight
        self.target_kl = target_kl
        self.critic_warmup_iterations = critic_warmup_iterations
        self.critic_alone = False

    def start_iteration(self, iteration: int, iterations: int | None, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Sets the learning rates, and who learns."""
        self.critic_alone = iteration < self.critic_warmup_iterations
        return super().start_iteration(iteration, iterations, optimizer)

    def process(self, observation: Observation) -> PolicyInputs:
        """What the policy reads of an observation."""
        return self.policy.processor(observation)

    def keep_frozen(self, inputs: PolicyInputs) -> PolicyInputs:
        """The inputs with what of their encoding the training does not change."""
        return self.policy.keep_frozen(inputs)

    def act(self, inputs: PolicyInputs, noise_generator: torch.Generator) -> PolicyOutput:
        """Decides, with exploration noise."""
        return self.policy.act(inputs, generator=noise_generator)

    def value(self, inputs: PolicyInputs) -> Float[Tensor, " b"]:
        """What the critic expects from here on."""
        head = self.policy.value_head
        if head.privileged:  # it needs no look at the images, which would cost most of the time
            return head(inputs.proprio, inputs.privileged)
        return head(self.policy.pi0.encode(inputs).features, inputs.privileged)

    def evaluate_actions(self, inputs: PolicyInputs, chain: Float[Tensor, "b k c 7"]) -> Evaluation:
        """How likely the policy now is to take a decision, and the value of where it was taken."""
        return self.policy.evaluate_actions(inputs, chain)

    def training_step(self, batch: Decisions, batch_idx: int = 0) -> dict[str, Tensor]:
        """Loss and metrics of a minibatch, as {"loss": ..., metric: ...}."""
        if self.critic_alone:
            critic_loss = value_loss(self.value(batch.inputs), batch.returns)
            return {"loss": self.value_coefficient * critic_loss, "value_loss": critic_loss.detach()}
        loss, metrics = self.ppo_loss(batch)
        return {"loss": loss, **metrics}

    def ppo_loss(self, batch: Decisions) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The clipped objective on the powered ratio, the critic's error, the entropy and grounding; metrics are detached."""
        grounding: dict[str, Tensor] = {}
        if self.grounding_weight > 0:
            now, error, distance = self.policy.evaluate_and_ground(batch.inputs, batch.chain)
            grounding = {"grounding_loss": error, "position_error_m": distance}
        else:
            now = self.evaluate_actions(batch.inputs, batch.chain)
        ratio = powered_ratio(now.log_prob, batch.log_prob, self.ratio_power)
        policy_loss = clipped_policy_loss(ratio, batch.advantage, self.clip)
        critic_loss = value_loss(now.value, batch.returns)
        entropy = gaussian_entropy(now.log_sigma)

        loss = policy_loss + self.value_coefficient * critic_loss - self.entropy_coefficient * entropy
        if grounding:
            loss = loss + self.grounding_weight * grounding["grounding_loss"]
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": critic_loss,
            "entropy": entropy,
            "approx_kl": approximate_kl(now.log_prob, batch.log_prob),
            "clip_fraction": clip_fraction(ratio, self.clip),
            "ratio_mean": ratio.mean(),
            "ratio_std": ratio.std(correction=0),
            "ratio_min": ratio.min(),
            "ratio_max": ratio.max(),
            "log_ratio_rms": (now.log_prob - batch.log_prob).square().mean().sqrt(),
            "sigma_mean": now.log_sigma.exp().mean(),
            **grounding,
        }
        return loss, {name: value.detach() for name, value in metrics.items()}

    def enough(self, metrics: dict[str, float]) -> bool:
        """Whether the policy has moved so far from the one that collected that it should learn no more from this iteration; then
        the critic alone goes on."""
        enough = self.target_kl is not None and metrics.get("approx_kl", 0.0) > self.target_kl
        self.critic_alone |= enough
        return enough
