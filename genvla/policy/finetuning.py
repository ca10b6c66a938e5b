"""Fine-tuning variants: which part of pi0 trains in full, which through low-rank adapters, which not.

Adapters are never merged while a run goes on, for in bf16 each merge rounds the weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from genvla.errors import UserError
from genvla.policy.adapters import adapted_layers, add_adapters, initialise_adapters, is_adapter, merge_adapters
from genvla.policy.flow_policy import FlowPolicy

if TYPE_CHECKING:
    from peft import LoraConfig

Mode = Literal["frozen", "lora", "full"]
Dtype = Literal["float32", "bfloat16"]

HEADS = ("noise_head", "value_head", "grounding_head")
"""Parts that start from scratch when fine-tuning begins, and so always train, with larger steps than the rest."""

GEMMA_LINEAR = r"(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
LINEAR_LAYERS = {
    "vision": r"vision_tower\.vision_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
    "projector": r"multi_modal_projector\.linear",
    "vlm": rf"joint_model\.mixtures\.vlm\.layers\.\d+\.{GEMMA_LINEAR}",
    "expert": rf"joint_model\.mixtures\.action\.layers\.\d+\.{GEMMA_LINEAR}"
    r"|proprio_encoder|action_encoder\.linear_[123]|action_decoder",
}
"""All linear layers of each part of pi0, as patterns for their whole names: what LoRA adapts."""


@dataclass(frozen=True)
class Finetuning:
    """What of a policy trains. The default is everything; the heads always do.

    frozen: nothing of the part. lora: adapters on its linear layers and nothing else. full: all its parameters.

    Args:
        vision: the vision tower. A convolutional stem has no linear layers, so that `lora` leaves nothing of it to train.
        projector: from the vision tower to the VLM.
        vlm: the VLM, with the text embedding, which trains only in `full`.
        expert: the action expert, with the encoders of proprioception and actions and the decoder.
        lora_rank: rank of the adapters.
        lora_alpha: adapters are scaled by lora_alpha / lora_rank; null for the rank, which makes the scale 1, as in open-pi-zero.
        frozen_dtype: precision in which weights that do not train are held; null for that of the checkpoint. bfloat16 halves a
            frozen VLM; use it with hardware.precision bf16-mixed.
        trainable_dtype: precision in which weights that train are held; null for that of the checkpoint. A step of 2e-5 is lost
            in the rounding of most bfloat16 weights: want float32 for a checkpoint in bfloat16.
    """

    vision: Mode = "full"
    projector: Mode = "full"
    vlm: Mode = "full"
    expert: Mode = "full"
    lora_rank: int = 32
    lora_alpha: float | None = None
    frozen_dtype: Dtype | None = None
    trainable_dtype: Dtype | None = None

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise UserError(f"finetuning.lora_rank: {self.lora_rank} found, at least 1 wanted")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < float("inf"):
            raise UserError(f"finetuning.lora_alpha: {self.lora_alpha} found, a positive number wanted")

    @property
    def parts(self) -> dict[str, Mode]:
        """How each part of pi0 trains."""
        return {"vision": self.vision, "projector": self.projector, "vlm": self.vlm, "expert": self.expert}

    @property
    def adapted(self) -> tuple[str, ...]:
        """The parts that get adapters."""
        return tuple(part for part, mode in self.parts.items() if mode == "lora")


VARIANTS = {
    "everything": Finetuning(),
    "full_expert": Finetuning("lora", "lora", "lora", "full"),
    "frozen_vlm_lora_expert": Finetuning("frozen", "frozen", "frozen", "lora"),
    "frozen_vlm_full_expert": Finetuning("frozen", "frozen", "frozen", "full"),
    "frozen_siglip_lora_gemma_lora_expert": Finetuning("frozen", "frozen", "lora", "lora"),
    "lora_vlm_lora_expert": Finetuning("lora", "lora", "lora", "lora"),
}
"""Those of configs/variants (the paper's own choice and its ablations), and everything."""


def part_of(parameter: str) -> str:
    """Which part of the policy a parameter belongs to, adapter or not: vision, projector, vlm, expert or one of the heads."""
    names = parameter.split(".")
    for part in HEADS:
        if part in names:
            return part
    if "vision_tower" in names:
        return "vision"
    if "multi_modal_projector" in names:
        return "projector"
    if any(name.startswith(("action", "proprio")) for name in names):
        return "expert"
    return "vlm"


def apply_finetuning(policy: FlowPolicy, config: Finetuning, seed: int = 0) -> None:
    """Prepares a policy for training: puts adapters in, and says by requires_grad what trains.

    Adapters that the policy has already go on training when they are those that the config asks for, and are merged into their
    layers first when they are not. New ones start as in PEFT: A uniform, from the seed; B zero, so that nothing changes yet.
    """
    wanted = _wanted_layers(policy, config)
    present = {name: (layer.r["default"], float(layer.scaling["default"])) for name, layer in adapted_layers(policy).items()}
    scale = (config.lora_alpha or config.lora_rank) / config.lora_rank
    if present != dict.fromkeys(wanted, (config.lora_rank, scale)):
        merge_adapters(policy)
        if wanted:
            add_adapters(policy, _lora_config(config, _unread(policy)))
            initialise_adapters(policy, seed)
    unread = re.compile(rf"pi0\.({_unread(policy)})\..*") if _unread(policy) else None
    for name, parameter in policy.named_parameters():
        trains = _trains(name, config) and not (unread and unread.fullmatch(name))
        parameter.requires_grad_(trains)
        dtype = config.trainable_dtype if trains else config.frozen_dtype
        if dtype is not None:
            parameter.data = parameter.data.to(getattr(torch, dtype))


def count_parameters(policy: FlowPolicy) -> dict[str, dict[str, int]]:
    """Number of parameters of each part: {"vlm": {"trainable": ..., "adapters": ..., "total": ...}, ...}; adapters count in the
    total."""
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in policy.named_parameters():
        count = counts.setdefault(part_of(name), {"trainable": 0, "adapters": 0, "total": 0})
        count["trainable"] += parameter.numel() if parameter.requires_grad else 0
        count["adapters"] += parameter.numel() if is_adapter(name) else 0
        count["total"] += parameter.numel()
    order = (*LINEAR_LAYERS, *HEADS)
    return {part: counts[part] for part in order if part in counts}


def _trains(name: str, config: Finetuning) -> bool:
    part = part_of(name)
    if part in HEADS:
        return True
    return {"full": True, "lora": is_adapter(name), "frozen": False}[config.parts[part]]


def _unread(policy: FlowPolicy) -> str:
    """Pattern of the modules of pi0 whose output has no part in any loss: what the VLM's last layer does after its keys and
    values shapes nothing but hidden states, and those only the grounding head reads with a gradient. Empty when there are
    none."""
    joint = policy.model_config.joint
    if joint.feature_layer < joint.layers or policy.grounding_head is not None:
        return ""  # the last layer is nothing but keys and values, or is looked at
    last = rf"joint_model\.mixtures\.vlm\.layers\.{joint.layers - 1}\.(self_attn\.[qo]_proj|mlp\.(gate|up|down)_proj"
    return rf"{last}|post_attention_layernorm)|joint_model\.mixtures\.vlm\.norm"


def _wanted_layers(policy: FlowPolicy, config: Finetuning) -> list[str]:
    """Names in pi0 of the layers that are to have adapters."""
    patterns = "|".join(LINEAR_LAYERS[part] for part in config.adapted)
    unread = _unread(policy)
    names = (name.removesuffix(".base_layer") for name, module in policy.pi0.named_modules() if isinstance(module, nn.Linear))
    return [name for name in names if re.fullmatch(patterns, name) and not re.fullmatch(unread, name)]


def _lora_config(config: Finetuning, unread: str) -> LoraConfig:
    """PEFT's description of the adapters. No dropout: it would make the probability ratio of PPO differ from 1 by chance."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha or config.lora_rank,  # type: ignore[arg-type]  # (PEFT divides it, nothing else)
        lora_dropout=0.0,
        bias="none",
        target_modules="|".join(LINEAR_LAYERS[part] for part in config.adapted),
        exclude_modules=unread or None,
    )
