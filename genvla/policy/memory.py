"""How much memory an update takes, found without doing it: `genvla bench update --estimate`.

The update runs on tensors without contents, so that a model of any size is counted on any machine: which tensors autograd keeps,
and how many bytes are alive at once. torch decides both as it would for real, on a CPU; a GPU's attention kernels keep as much to
within a few per cent, and its context, its libraries' work space and the gaps between its blocks are allowed for.
"""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from genvla.errors import UserError
from genvla.policy.activation_checkpointing import checkpoint_activations
from genvla.policy.finetuning import Finetuning, apply_finetuning
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.synthetic import fresh_policy, random_chain, random_inputs

Precision = Literal["32-true", "bf16-mixed", "bf16-true"]

GIB = 2**30
GPU_GIB = {
    "RTX 4090": 23.6,
    "RTX 6000 Ada": 47.4,
    "L40": 44.3,
    "A100 40GB": 39.4,
    "A100 80GB": 79.1,
    "H100 80GB": 79.1,
    "H200": 139.8,
}
"""What a process can have of a GPU's memory, in 2^30 bytes."""

CONTEXT = 1.0
"""GiB for the CUDA context and its libraries."""
MARGIN = 0.08
"""Share of a GPU's memory that is left free: gaps between blocks, and what this counts wrongly."""
PROBES = (8, 32)
"""Micro-batches that are counted; others lie on the line through them."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of an update. What grows with the micro-batch is per sample."""

    weights: dict[str, int]
    """By type."""
    gradients: int
    adam: int
    """AdamW's two moments."""
    fixed: int
    """Alive at the peak at any micro-batch: weights cast for mixed precision, gradients on their way to be added up."""
    saved: float
    """Kept by autograd for the way back, per sample."""
    working: float
    """Alive beside that at the peak, per sample: attention's logits, MLP and the gradients between layers."""
    frozen_cache: int
    """Frozen part of a decision's encoding. Not in the sums: how many are kept, and where, is data.frozen_cache's business."""
    trainable: int
    """Bytes of weights that train."""

    @property
    def static(self) -> int:
        return sum(self.weights.values()) + self.gradients + self.adam

    def total(self, micro_batch: int) -> float:
        """The peak, with the CUDA context; the optimizer's step, which needs a copy of the trained weights, is no peak beside an
        update of some samples."""
        return CONTEXT * GIB + self.static + max(self.fixed + micro_batch * (self.saved + self.working), float(self.trainable))

    def largest_micro_batch(self, gib: float) -> int:
        """The largest that leaves MARGIN of so much memory free; 0 if none does."""
        room = gib * (1 - MARGIN) * GIB - CONTEXT * GIB - self.static - self.fixed
        fits = self.total(1) <= gib * (1 - MARGIN) * GIB
        return int(room // (self.saved + self.working)) if fits else 0


def gpu_memory(name: str) -> float:
    """GiB of a GPU that is known, or of "N GiB".

    Raises:
        UserError: it is neither.
    """
    if name in GPU_GIB:
        return GPU_GIB[name]
    number, _, unit = name.strip().partition(" ")
    try:
        gib = float(number.removesuffix("GiB"))
    except ValueError:
        gib = 0.0
    if not (0 < gib < float("inf")) or unit not in ("", "GiB"):
        raise UserError(f"gpu: found {name!r}, want one of {', '.join(GPU_GIB)}, or its memory as in '24 GiB'")
    return gib


def plan_update(
    model: Pi0Config, finetuning: Finetuning, precision: Precision = "bf16-mixed", *, checkpointing: bool = False, steps: int = 1
) -> MemoryPlan:
    """The memory of an update of a model in a fine-tuning variant. steps: K."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    policy = fresh_policy(model, "meta")
    apply_finetuning(policy, finetuning)
    if precision == "bf16-true":
        policy.to(torch.bfloat16)
    policy.integration_steps = steps
    checkpoint_activations(policy, checkpointing)
    with FakeTensorMode():
        _fill_with_fakes(policy)
        with _autocast(precision):
            cached = policy.keep_frozen(random_inputs(model, 1)).frozen
        (saved, peak), (more_saved, more_peak) = (_probe(policy, model, batch, precision) for batch in PROBES)
    span = PROBES[1] - PROBES[0]
    per_sample, slope = (more_saved - saved) / span, (more_peak - peak) / span
    slope = max(slope, per_sample)  # a few samples may still have their peak on the way back, among gradients
    weights: dict[str, int] = {}
    for parameter in policy.parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        weights[kind] = weights.get(kind, 0) + parameter.nbytes
    trainable = sum(parameter.nbytes for parameter in policy.parameters() if parameter.requires_grad)
    return MemoryPlan(
        weights=weights,
        gradients=trainable,
        adam=2 * trainable,
        fixed=max(0, round(peak - PROBES[0] * slope), round(more_peak - PROBES[1] * slope)),
        saved=per_sample,
        working=slope - per_sample,
        frozen_cache=0 if cached is None else cached.nbytes,
        trainable=trainable,
    )


def saved_bytes(policy: FlowPolicy, inputs: Any, chain: Tensor) -> tuple[Tensor, int]:
    """The sum of log-probabilities and values of decisions, and the bytes that autograd keeps for its gradient, less those of
    parameters and inputs."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        evaluation = policy.evaluate_actions(inputs, chain)
        loss = evaluation.log_prob.sum() + evaluation.value.sum()
    given = (*policy.parameters(), *(value for value in tree_flatten(vars(inputs))[0] if isinstance(value, Tensor)))
    frozen = () if inputs.frozen is None else (value for value in vars(inputs.frozen).values() if value is not None)
    for tensor in (*given, *frozen, chain):
        kept.pop(tensor.untyped_storage()._cdata, None)
    return loss, sum(kept.values())


class LiveBytes(TorchDispatchMode):
    """Adds up the storage of what is computed while it is alive. peak: the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = [x.untyped_storage()._cdata for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, Tensor) and (storage := value.untyped_storage())._cdata not in known:
                self._add(storage._cdata, storage)
        return result

    def _add(self, key: int, storage: Any) -> None:
        if key in self._seen and self._seen[key]() is not None:
            return
        size = storage.nbytes()

        def gone(reference: Any) -> None:
            self.now -= size
            if self._seen.get(key) is reference:  # not yet another one's, at the same address
                del self._seen[key]

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _probe(policy: FlowPolicy, model: Pi0Config, batch: int, precision: Precision) -> tuple[int, int]:
    """Saved bytes, and the most alive beside weights and gradients, of one micro-batch of several."""
    inputs, chain = random_inputs(model, batch), random_chain(model, batch, policy.integration_steps)
    with _autocast(precision):
        inputs = policy.keep_frozen(inputs)
    for parameter in policy.parameters():
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    with LiveBytes() as live:
        with _autocast(precision):
            loss, saved = saved_bytes(policy, inputs, chain)
        loss.backward()
    return saved, live.peak


def _autocast(precision: Precision) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


def _fill_with_fakes(policy: FlowPolicy) -> None:
    """Puts tensors without contents, on a CPU that is none, in the place of those on the meta device, which knows no autocast."""
    for module in policy.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
