"""pi0 (arXiv 2410.24164): encode an observation once, then ask for velocities of the action flow.

Flow time tau runs from 0 (noise) to 1 (actions). The tiny preset and the 3 B parameter models are this one class. Under bf16
weights, flow time, noisy actions, proprioception, velocities and rotary angles stay fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from genvla.errors import UserError
from genvla.policy.gemma import Context, JointTransformer, Prefix, RmsNorm
from genvla.policy.linear import Linear
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import PolicyInputs
from genvla.policy.siglip import Siglip


class Projector(nn.Module):
    """From the vision tower's width to the VLM's."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = Linear(before, after)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        return self.linear(x)


class Float32Linear(nn.Linear):
    """A linear layer that computes in fp32, whatever its weights are kept in and whatever autocast says.

    For the few numbers that enter and leave the model, actions and proprioception: bf16 keeps three digits of them.
    """

    def forward(self, x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float(), self.bias.float())


class ActionEncoder(nn.Module):
    """Noisy actions and flow time to tokens: linear_3(silu(linear_2([time, linear_1(action)])))."""

    def __init__(self, action_dim: int, width: int, *, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        self.linear_1 = Float32Linear(action_dim, width)
        self.linear_2 = Linear(2 * width, width)
        self.linear_3 = Linear(width, width)

    def forward(self, actions: Float[Tensor, "b c a"], time: Float[Tensor, "b f"]) -> Float[Tensor, "b c f"]:
        """time: its embedding. Both in fp32; the tokens are in the weights' precision."""
        embedded = self.linear_1(actions)
        time = time[:, None].expand_as(embedded)
        both = torch.cat((time, embedded) if self.time_first else (embedded, time), dim=-1)
        return self.linear_3(F.silu(self.linear_2(both.to(self.linear_2.weight.dtype))))


def sinusoid(time: Float[Tensor, " b"], width: int, max_period: float) -> Float[Tensor, "b width"]:
    """[sin, cos] of time * max_period^(-i / (width/2 - 1)), in fp32 (open-pi-zero: no factor of 2 pi)."""
    steps = torch.linspace(0, 1, width // 2, device=time.device, dtype=torch.float32)
    angles = time.float()[:, None] * max_period**-steps
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def openpi_sinusoid(
    time: Float[Tensor, " b"], width: int, min_period: float = 4e-3, max_period: float = 4.0
) -> Float[Tensor, "b width"]:
    """[sin, cos] of 2 pi time / period, periods geometric from min_period to max_period (openpi), in fp64, rounded to fp32."""
    steps = torch.linspace(0, 1, width // 2, device=time.device, dtype=torch.float64)
    angles = 2 * math.pi * time.double()[:, None] / (min_period * (max_period / min_period) ** steps)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def cpu_options() -> dict[str, Any]:
    """For torch.compile on a CPU: what several others read is computed once and stored, however small.

    By default every reader computes it anew if it is an expression of some fifty operations or less, for each query the cosines
    of its position too. GPUs have an option of their own; torch before 2.13 has none for CPUs alone.
    """
    option = "realize_cpu_opcount_threshold"
    return {option: 1} if option in torch._inductor.list_options() else {}


def drop_absent_cameras(inputs: PolicyInputs) -> PolicyInputs:
    """Without the cameras that no sample of the batch has. With several cameras, waits for the device to know which."""
    if inputs.image_mask.shape[1] == 1 or inputs.image_mask.is_meta:
        return inputs
    present = [i for i, there in enumerate(inputs.image_mask.any(0).tolist()) if there]
    if len(present) == inputs.image_mask.shape[1]:
        return inputs
    return replace(inputs, images=inputs.images[:, present], image_mask=inputs.image_mask[:, present])


class Pi0(nn.Module):
    """Vision tower, VLM and action expert. Parameters are named as in open-pi-zero, less `proprio.*`, an alias of `action.*`."""

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        vlm, expert = config.joint.vlm.width, config.joint.action.width
        self.embed_tokens = nn.Embedding(config.vocab_size, vlm)
        self.vision_tower = Siglip(config.vision)
        self.multi_modal_projector = Projector(config.vision.width, vlm)
        self.joint_model = JointTransformer(config.joint)
        self.proprio_encoder = Float32Linear(config.proprio_dim, expert)
        self.action_encoder = ActionEncoder(config.action_dim, expert, time_first=config.time_first)
        self.action_decoder = Float32Linear(expert, config.action_dim)
        self._compiled: dict[str, Callable[..., Any]] = {}
        self._compiled_sizes: frozenset[int] | None = None
        self._cuda_graphs = False
        initialise(self)

    def compile_functions(self, *, mode: str | None = None, sizes: Collection[int] | None = None, **options: Any) -> None:
        """Compile what `encode` and `velocity` compute, with static shapes; mode and options are those of torch.compile.

        sizes: the batch sizes to compile for; others are computed eagerly. None: any. Each shape is compiled once: keep batch
        sizes, text lengths and the set of present cameras few. Which cameras are dropped is decided before the compiled part,
        from the batch's mask, so a batch that lacks another camera is another shape; torch stops compiling after 8
        (torch._dynamo.config.recompile_limit) and then computes eagerly.

        With mode="reduce-overhead" (CUDA graphs) a prefix lives until the next `encode`, whose graph writes to the same memory:
        clone what is to be kept longer.
        """
        self._cuda_graphs = mode in ("reduce-overhead", "max-autotune")
        self._compiled_sizes = None if sizes is None else frozenset(sizes)
        if mode in (None, "default") and not options:
            mode, options = None, {"options": cpu_options()}
        # Functions of the class, not bound to this object, so that a copy of the model computes with its own weights.
        for function in (Pi0.prefix, Pi0._encode, Pi0._velocity):
            self._compiled[function.__name__] = torch.compile(function, dynamic=False, mode=mode, **options)

    @property
    def compiled(self) -> bool:
        """Whether functions were compiled, for shapes that had better stay as they are."""
        return bool(self._compiled)

    @property
    def compiled_sizes(self) -> frozenset[int]:
        """The batch sizes that functions were compiled for, if they were for some in particular."""
        return self._compiled_sizes or frozenset()

    def _run(self, function: Callable[..., Any], rows: int, *tensors: Any, **options: Any) -> Any:
        """A function of this class, compiled if it is for this many rows."""
        if self._compiled_sizes is None or rows in self._compiled_sizes:
            function = self._compiled.get(function.__name__, function)
        return function(self, *tensors, **options)

    def encode(self, inputs: PolicyInputs, *, features: bool = True) -> Prefix:
        """The prefix that `velocity` reads; with hidden states for the heads unless features is False.

        Cameras that no sample has are dropped, not computed; one that a single sample lacks is masked, to the same effect. What
        `inputs.frozen` holds is taken from there.
        """
        if self._cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()
        images, frozen = inputs.images, inputs.frozen
        if frozen is None:
            inputs = drop_absent_cameras(inputs)
            images = inputs.images
        else:
            frozen = frozen.to(inputs.proprio.device)
            if (context := frozen.context) is not None:
                return self._run(Pi0.prefix, len(inputs), context, inputs.proprio, features=features)
            images = images if frozen.vision is None else frozen.vision
        tensors = (images, inputs.image_mask, inputs.tokens, inputs.token_mask, inputs.proprio)
        return self._run(Pi0._encode, len(inputs), *tensors, features=features)

    def velocity(self, actions: Float[Tensor, "b c a"], tau: Float[Tensor, " b"], prefix: Prefix) -> Float[Tensor, "b c a"]:
        """Flow velocity of noisy actions at time tau, in fp32."""
        return self._run(Pi0._velocity, len(actions), actions, tau, prefix)

    def vision_tokens(self, images: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b nt d"]:
        """The vision tower's tokens of all cameras."""
        b, n, h, w, _ = images.shape
        size = self.config.vision.image_size
        if (h, w) != (size, size):
            raise UserError(f"images: found {h} x {w} pixels, want {size} x {size}")
        dtype = self.vision_tower.vision_model.embeddings.position_embedding.weight.dtype
        pixels = images.reshape(b * n, h, w, 3).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = self.vision_tower(pixels.to(dtype))
        return tokens.reshape(b, n * tokens.shape[1], tokens.shape[2])

    def image_tokens(self, images: UInt8[Tensor, "b n h w 3"]) -> Float[Tensor, "b nt e"]:
        """What the VLM reads of the images: vision tower and projector."""
        return self.project(self.vision_tokens(images))

    def project(self, vision: Float[Tensor, "b nt d"]) -> Float[Tensor, "b nt e"]:
        """The vision tower's tokens as the VLM reads them."""
        return self.multi_modal_projector(vision.to(self.multi_modal_projector.linear.weight.dtype))

    def context(
        self,
        image_tokens: Float[Tensor, "b nt e"],
        image_mask: Bool[Tensor, "b n"],
        tokens: Int[Tensor, "b l"],
        token_mask: Bool[Tensor, "b l"],
        *,
        features: bool,
    ) -> Context:
        """What image and text come to in the VLM; neither proprioception nor actions enter it."""
        text = self.embed_tokens(tokens) * self.embed_tokens.embedding_dim**0.5
        mask = torch.cat((image_mask.repeat_interleave(self.config.vision.tokens, dim=1), token_mask), dim=1)
        together = torch.cat((image_tokens.to(text.dtype), text), dim=1)  # a projector that trains may be wider than a frozen VLM
        return self.joint_model.context(together, mask, features=features)

    def prefix(self, context: Context, proprio: Float[Tensor, "b p"], *, features: bool) -> Prefix:
        """The context with proprioception after it."""
        token = self.proprio_encoder(proprio)[:, None] * self.config.suffix_scale
        return self.joint_model.prefix(
            context,
            token.to(self.action_encoder.linear_2.weight.dtype),
            continue_positions=self.config.positions == "continue",
            features=features,
        )

    def _encode(
        self, images: Tensor, image_mask: Tensor, tokens: Tensor, token_mask: Tensor, proprio: Tensor, *, features: bool
    ) -> Prefix:
        """images: pixels, or the vision tower's tokens."""
        image_tokens = self.project(images) if images.is_floating_point() else self.image_tokens(images)
        context = self.context(image_tokens, image_mask, tokens, token_mask, features=features)
        return self.prefix(context, proprio, features=features)

    def _velocity(self, actions: Tensor, tau: Tensor, prefix: Prefix) -> Tensor:
        config, forward = self.config, self.config.time_direction == "forward"
        width, time = config.joint.action.width, tau if forward else 1 - tau.double()
        if config.time_embedding == "openpi":
            embedded = openpi_sinusoid(time, width, config.time_min_period, config.time_max_period)
        else:
            embedded = sinusoid(time, width, config.time_max_period)
        tokens = self.action_encoder(actions, embedded) * config.suffix_scale
        velocity = self.action_decoder(self.joint_model.actions(tokens, prefix))
        return velocity if forward else -velocity

    def flow_loss(self, actions: Float[Tensor, "b c a"], prefix: Prefix, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean squared error of the velocity at tau = 0.999 (1 - z), z ~ Beta(1.5, 1), towards a1 - (1 - sigma) a0."""
        shape, device = (len(actions),), generator.device
        uniform = torch.rand(shape, generator=generator, device=device, dtype=torch.float32).to(actions.device)
        tau = 0.999 * (1 - uniform ** (1 / 1.5))  # Beta(1.5, 1) by inversion of its distribution function z^1.5
        return self.flow_loss_at(actions, gaussian(actions, generator), tau, prefix)

    def flow_loss_at(
        self, actions: Float[Tensor, "b c a"], noise: Float[Tensor, "b c a"], tau: Float[Tensor, " b"], prefix: Prefix
    ) -> Float[Tensor, ""]:
        """The same for given noise a0 and times."""
        noisy, target = flow_pair(noise, actions, tau, self.config.sigma_min)
        return F.mse_loss(self.velocity(noisy, tau, prefix), target)

    def integrate(self, noise: Float[Tensor, "b c a"], prefix: Prefix, steps: int) -> Float[Tensor, "b c a"]:
        """Euler steps from noise at tau = 0 to actions at tau = 1; not clipped."""
        actions = noise
        for step in range(steps):
            tau = actions.new_full((len(actions),), step / steps)
            actions = actions + self.velocity(actions, tau, prefix) / steps
        return actions


def flow_pair(
    noise: Float[Tensor, "b c a"], actions: Float[Tensor, "b c a"], tau: Float[Tensor, " b"], sigma_min: float
) -> tuple[Float[Tensor, "b c a"], Float[Tensor, "b c a"]]:
    """The point (1 - (1 - sigma) tau) a0 + tau a1 on the straight path, and the velocity a1 - (1 - sigma) a0 there."""
    tau = tau[:, None, None]
    noisy = (1 - (1 - sigma_min) * tau) * noise + tau * actions
    return noisy, actions - (1 - sigma_min) * noise


def gaussian(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal fp32 noise of like's shape on like's device, whichever device the generator is on."""
    if generator is None:  # torch's global generator would make the run depend on everything before
        raise ValueError("a generator is needed to draw noise")
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=torch.float32).to(like.device)


def initialise(model: Pi0) -> None:
    """Normal weights with variance 1 / fan-in, zero biases, text of variance 1 at the start of the residual stream.

    What a layer adds to the stream starts ten times smaller, and image positions start as sines of their coordinates: with both,
    a small model learns to look within hundreds of steps.
    """
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            adds = name.endswith(("o_proj", "down_proj", "out_proj", "out_conv", "fc2"))
            nn.init.normal_(part.weight, std=(0.1 if adds else 1.0) * part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, RmsNorm):
            nn.init.zeros_(part.weight)
    nn.init.normal_(model.embed_tokens.weight, std=model.embed_tokens.embedding_dim**-0.5)
    positions = model.vision_tower.vision_model.embeddings.position_embedding.weight
    with torch.no_grad():
        positions.copy_(coordinate_sines(math.isqrt(len(positions)), positions.shape[1]))


def coordinate_sines(side: int, width: int) -> Float[Tensor, "t width"]:
    """Sine and cosine of x and of y in [-1, 1], from a quarter of a period to four periods, for the tokens of a square grid."""
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    frequencies = math.pi / 2 * 2 ** torch.linspace(0, 4, width // 4)
    angles = torch.cat((x.reshape(-1, 1) * frequencies, y.reshape(-1, 1) * frequencies), dim=1)
    return torch.cat((angles.sin(), angles.cos()), dim=1)
