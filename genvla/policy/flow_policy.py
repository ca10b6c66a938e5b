"""FlowPolicy: pi0 with a stochastic integrator, so that it has action probabilities that PPO can raise and lower.

The chain A^0 ~ N(0, I), A^(k+1) ~ N(A^k + v(A^k, o, k/K) / K, sigma(A^k, z, k/K)) is the paper's (arXiv 2603.18532; after
ReinFlow).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genvla.errors import UserError
from genvla.policy.frozen_prefix import compute_frozen_prefix
from genvla.policy.gemma import Prefix
from genvla.policy.heads import GroundingHead, HeadsConfig, NoiseHead, ValueHead
from genvla.policy.pi0 import Pi0, Pi0Config, gaussian
from genvla.policy.processor import BRIDGE_STATISTICS, PolicyInputs, Processor, ProcessorConfig, Statistics
from genvla.types import ActionChunk, TensorFields

TINY = Pi0Config.tiny()
HEADS = HeadsConfig()
PROCESSOR = ProcessorConfig()


@dataclass(frozen=True)
class PolicyOutput(TensorFields):
    """What the policy decided for a batch of b observations."""

    chain: Float[Tensor, "b k c 7"]
    """A^0 ... A^1: noise, then each integration step's raw sample, in the model's units."""
    log_prob: Float[Tensor, " b"]
    """Log density of the whole chain, A^0 included."""
    value: Float[Tensor, " b"]
    """Expected return; NaN if the value head lacks the simulator state it reads."""
    actions: ActionChunk
    """The chain's end in physical units: clipped, gripper 0 or 1."""


@dataclass(frozen=True)
class Evaluation(TensorFields):
    """A stored chain under the present policy; differentiable."""

    log_prob: Float[Tensor, " b"]
    value: Float[Tensor, " b"]
    log_sigma: Float[Tensor, "b k c 7"]
    """Log standard deviation of each integration step."""


@dataclass(frozen=True)
class ImitationLosses:
    """Losses of one batch of demonstrations, from one pass through the trunk."""

    flow: Float[Tensor, ""]
    grounding: Float[Tensor, ""]
    """Zero without a grounding head."""
    position_error: Float[Tensor, ""]
    """Mean distance of predicted target and destination from the true ones, metres; NaN without a grounding head."""


@dataclass(frozen=True)
class FlowPolicyConfig:
    """Everything that FlowPolicy is built from; what a checkpoint's config.json holds."""

    model: Pi0Config = TINY
    heads: HeadsConfig = HEADS
    processor: ProcessorConfig = PROCESSOR
    integration_steps: int = 1
    flow_draws: int = 1
    statistics: Statistics = BRIDGE_STATISTICS


class FlowPolicy(nn.Module):
    """pi0, its heads, and the processor that ties them to the world.

    Args:
        model: shape of pi0; the tiny preset if not given.
        heads: noise, value and grounding heads.
        processor: images and text.
        integration_steps: K, the stochastic Euler steps of a decision; an attribute that may be set at any time.
        flow_draws: noise and time draws per demonstration and step of imitation; they share the prefix, which costs most.
        statistics: normalisation of actions and proprioception; from demonstrations, or BridgeData's if not given.

    Raises:
        UserError: the processor's images or vocabulary do not fit the model.
    """

    def __init__(
        self,
        model: Pi0Config = TINY,
        heads: HeadsConfig = HEADS,
        processor: ProcessorConfig = PROCESSOR,
        integration_steps: int = 1,
        flow_draws: int = 1,
        statistics: Statistics = BRIDGE_STATISTICS,
    ) -> None:
        super().__init__()
        if processor.image_size != model.vision.image_size:
            raise UserError(f"processor.image_size: found {processor.image_size}, want the model's {model.vision.image_size}")
        if processor.vocab_size > model.vocab_size:
            raise UserError(f"processor.vocab_size: found {processor.vocab_size}, want at most the model's {model.vocab_size}")
        if integration_steps < 1 or flow_draws < 1:
            raise UserError(f"integration_steps and flow_draws: found {integration_steps} and {flow_draws}, want at least 1")
        self.model_config, self.heads_config = model, heads
        self.integration_steps, self.flow_draws = integration_steps, flow_draws
        self.processor = Processor(processor, statistics)
        self.pi0 = Pi0(model)
        feature_dim = model.joint.vlm.width + model.joint.action.width
        self.noise_head = NoiseHead(heads, feature_dim, model.horizon, model.action_dim)
        self.value_head = ValueHead(heads, feature_dim)
        self.grounding_head = GroundingHead(model.joint.vlm.width, model.vision.tokens) if heads.grounding else None

    @classmethod
    def from_config(cls, config: FlowPolicyConfig) -> FlowPolicy:
        """A freshly initialised policy of this config."""
        return cls(config.model, config.heads, config.processor, config.integration_steps, config.flow_draws, config.statistics)

    @property
    def config(self) -> FlowPolicyConfig:
        """As it is now, with attributes and statistics that were set since construction."""
        return FlowPolicyConfig(
            self.model_config,
            self.heads_config,
            self.processor.config,
            self.integration_steps,
            self.flow_draws,
            self.processor.statistics,
        )

    def keep_frozen(self, inputs: PolicyInputs) -> PolicyInputs:
        """The inputs with what of their encoding no trainable parameter changes, for as long as the same parameters train."""
        frozen = compute_frozen_prefix(self.pi0, inputs, hidden=self.grounding_head is not None)
        return replace(inputs, frozen=frozen)

    @torch.no_grad()
    def act(
        self,
        inputs: PolicyInputs,
        *,
        generator: torch.Generator | None = None,
        noise: Float[Tensor, "b c 7"] | None = None,
        deterministic: bool = False,
    ) -> PolicyOutput:
        """Decide.

        generator: where randomness comes from; needed for whatever is not given. noise: A^0, drawn if not given. deterministic:
        each step takes its mean instead of a sample.
        """
        prefix = self.pi0.encode(inputs)
        features, steps = prefix.features, self.integration_steps
        state = gaussian(self._blank(inputs), generator) if noise is None else noise
        chain, log_prob = [state], log_normal(state, 0.0, 0.0)
        for k in range(steps):
            mean, log_sigma = self._step(state, k, prefix, features)
            state = mean if deterministic else mean + log_sigma.exp() * gaussian(mean, generator)
            chain.append(state)
            log_prob = log_prob + log_normal(state, mean, log_sigma)
        value = self.value_head(features, inputs.privileged)
        return PolicyOutput(torch.stack(chain, dim=1), log_prob, value, self.processor.denormalise_actions(state))

    def evaluate_actions(self, inputs: PolicyInputs, chain: Float[Tensor, "b k c 7"]) -> Evaluation:
        """Log density and value of stored chains. Each step is taken from its stored start: nothing is integrated, so gradients
        of one step do not pass through another."""
        rows = len(chain)
        index = self._filled_up(rows)
        if index is not None:
            inputs, chain = inputs[index], chain[index.to(chain.device)]
        evaluation = self._evaluate(inputs, chain, self.pi0.encode(inputs))
        return evaluation if index is None else evaluation[:rows]

    def evaluate_and_ground(
        self, inputs: PolicyInputs, chain: Float[Tensor, "b k c 7"]
    ) -> tuple[Evaluation, Float[Tensor, ""], Float[Tensor, ""]]:
        """`evaluate_actions`, and from the same look at the images `grounding_loss`.

        Raises:
            UserError: as grounding_loss does.
        """
        head, prefix = self._grounding(), self.pi0.encode(inputs)
        return self._evaluate(inputs, chain, prefix), *head.loss(prefix, inputs.privileged)

    def _evaluate(self, inputs: PolicyInputs, chain: Float[Tensor, "b k c 7"], prefix: Prefix) -> Evaluation:
        features = prefix.features
        log_prob, log_sigmas = log_normal(chain[:, 0], 0.0, 0.0), []
        for k in range(self.integration_steps):
            mean, log_sigma = self._step(chain[:, k], k, prefix, features)
            log_prob = log_prob + log_normal(chain[:, k + 1], mean, log_sigma)
            log_sigmas.append(log_sigma)
        return Evaluation(log_prob, self.value_head(features, inputs.privileged), torch.stack(log_sigmas, dim=1))

    def imitation_losses(
        self, inputs: PolicyInputs, actions: Float[Tensor, "b c 7"], generator: torch.Generator
    ) -> ImitationLosses:
        """Flow-matching loss towards normalised actions, and grounding loss if there is such a head."""
        head = self.grounding_head
        prefix = self.pi0.encode(inputs, features=head is not None)
        draws = self.flow_draws
        flow = self.pi0.flow_loss(actions.repeat_interleave(draws, dim=0), prefix.repeat(draws), generator)
        if head is None:
            return ImitationLosses(flow, flow.new_zeros(()), flow.new_full((), math.nan))
        return ImitationLosses(flow, *head.loss(prefix, inputs.privileged))

    def flow_loss(self, inputs: PolicyInputs, actions: Float[Tensor, "b c 7"], generator: torch.Generator) -> Float[Tensor, ""]:
        """The flow-matching loss alone."""
        prefix = self.pi0.encode(inputs, features=False).repeat(self.flow_draws)
        return self.pi0.flow_loss(actions.repeat_interleave(self.flow_draws, dim=0), prefix, generator)

    def grounding_loss(self, inputs: PolicyInputs) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The grounding loss alone, and the mean position error in metres.

        Raises:
            UserError: there is no grounding head, or no simulator state in inputs.
        """
        return self._grounding().loss(self.pi0.encode(inputs), inputs.privileged)

    def _grounding(self) -> GroundingHead:
        if self.grounding_head is None:
            raise UserError("heads.grounding: found false, want true for a grounding loss")
        return self.grounding_head

    @torch.no_grad()
    def integrate(self, inputs: PolicyInputs, steps: int, generator: torch.Generator) -> ActionChunk:
        """Actions of the flow without injected noise, in physical units."""
        prefix = self.pi0.encode(inputs, features=False)
        actions = self.pi0.integrate(gaussian(self._blank(inputs), generator), prefix, steps)
        return self.processor.denormalise_actions(actions)

    def _filled_up(self, rows: int) -> Int[Tensor, " more"] | None:
        """Numbers of the rows, the last one repeated, that make a batch of a size that pi0 was compiled for; None where it has
        one or none is near."""
        sizes = self.pi0.compiled_sizes
        target = min((size for size in sizes if size >= rows), default=rows)
        if target == rows or target > 1.25 * rows:
            return None
        return torch.arange(target).clamp_max(rows - 1)

    def _blank(self, inputs: PolicyInputs) -> Float[Tensor, "b c 7"]:
        shape = (len(inputs), self.model_config.horizon, self.model_config.action_dim)
        return torch.empty(shape, dtype=torch.float32, device=inputs.proprio.device)

    def _step(self, state: Tensor, k: int, prefix: Prefix, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of A^(k+1) given A^k = state, fp32."""
        steps = self.integration_steps
        tau = state.new_full((len(state),), k / steps)
        mean = state + self.pi0.velocity(state, tau, prefix) / steps
        return mean, self.noise_head(state, features, tau)


def log_normal(
    sample: Float[Tensor, "b c a"], mean: Float[Tensor, "b c a"] | float, log_sigma: Float[Tensor, "b c a"] | float
) -> Float[Tensor, " b"]:
    """Log density of a diagonal Gaussian, summed over actions and dimensions."""
    sigma = log_sigma.exp() if isinstance(log_sigma, Tensor) else math.exp(log_sigma)
    standard = (sample - mean) / sigma
    return (-0.5 * standard.square() - log_sigma - 0.5 * math.log(2 * math.pi)).sum(dim=(1, 2))
