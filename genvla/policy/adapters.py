"""Low-rank adapters (LoRA, arXiv 2106.09685) in a policy, by PEFT: put in, saved, loaded, merged.

They are put into the model in place: a linear layer `q_proj` becomes `q_proj.base_layer` with `q_proj.lora_A` and `q_proj.lora_B`
beside it.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genvla.errors import UserError
from genvla.policy.flow_policy import FlowPolicy
from genvla.seeding import generator

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def has_adapters(policy: FlowPolicy) -> bool:
    """Whether there are adapters in the policy."""
    return hasattr(policy.pi0, "peft_config")


def adapted_layers(policy: FlowPolicy) -> dict[str, Any]:
    """The LoRA layers of a policy by their names in pi0; empty without adapters."""
    if not has_adapters(policy):
        return {}
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in policy.pi0.named_modules() if isinstance(module, LoraLayer)}


def add_adapters(policy: FlowPolicy, config: LoraConfig) -> None:
    """Puts adapters without values into pi0, in place."""
    from peft import inject_adapter_in_model

    # On the meta device, because PEFT would draw their values from torch's global generator.
    try:
        inject_adapter_in_model(config, policy.pi0, low_cpu_mem_usage=True)
    except (ValueError, re.error) as error:
        raise UserError(f"target_modules: {' '.join(str(error).split())}") from error


def initialise_adapters(policy: FlowPolicy, seed: int) -> None:
    """A uniform in +-1 / sqrt(inputs), B zero; in the precision and on the device of their layer's weights."""
    for name, layer in adapted_layers(policy).items():
        weight = layer.weight
        shape_a, shape_b = layer.lora_A["default"].weight.shape, layer.lora_B["default"].weight.shape
        if weight.device.type == "meta":
            continue
        noise = torch.rand(shape_a, generator=generator("cpu", seed, "lora", name), dtype=torch.float32)
        first = (2 * noise - 1) * shape_a[1] ** -0.5
        _set_parameter(policy.pi0, f"{name}.lora_A.default.weight", first.to(weight))
        _set_parameter(policy.pi0, f"{name}.lora_B.default.weight", torch.zeros(shape_b).to(weight))


def merge_adapters(policy: FlowPolicy) -> None:
    """Adds every adapter to the weights of its layer, W + scale * B A, and takes it out."""
    for name, layer in adapted_layers(policy).items():
        layer.merge(safe_merge=True)
        policy.pi0.set_submodule(name, layer.get_base_layer())
    if has_adapters(policy):
        del policy.pi0.peft_config


def merged(policy: FlowPolicy) -> FlowPolicy:
    """A copy with the adapters merged into the weights; equal up to rounding, with the parameter names of a new policy."""
    copy = deepcopy(policy)
    merge_adapters(copy)
    return copy.requires_grad_(True)


def base_state(policy: FlowPolicy) -> dict[str, Tensor]:
    """The policy's state without adapters, under the names that it has without them."""
    return {name.replace(".base_layer.", "."): value for name, value in policy.state_dict().items() if not is_adapter(name)}


def save_adapters(policy: FlowPolicy, folder: Path) -> None:
    """Writes the adapters in PEFT's format, which `PeftModel.from_pretrained(policy_without_adapters.pi0, folder)` reads. Does
    nothing without any."""
    if not has_adapters(policy):
        return
    from safetensors.torch import save_file

    config: Any = policy.pi0.peft_config
    document = {**config["default"].to_dict(), "inference_mode": True}
    text = json.dumps(document, indent=2, sort_keys=True, default=sorted)  # sets are all that JSON does not know
    (folder / ADAPTER_CONFIG).write_text(text + "\n")
    state = {_peft_key(name): value.detach().cpu().contiguous() for name, value in _adapter_parameters(policy).items()}
    save_file(state, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})


def load_adapters(policy: FlowPolicy, folder: Path) -> None:
    """Puts the adapters of a folder into a policy without any. Does nothing when there are none.

    Raises:
        UserError: a file is missing, unreadable, of another kind of adapter, or does not fit the policy.
    """
    if not (folder / ADAPTER_CONFIG).exists():
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _read_config(folder / ADAPTER_CONFIG)
    try:
        add_adapters(policy, config)
    except UserError as error:
        raise UserError(f"{folder / ADAPTER_CONFIG}: {error}") from error
    path = folder / ADAPTER_WEIGHTS
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}), want the weights of {ADAPTER_CONFIG}") from error
    wanted = {_peft_key(name): value.shape for name, value in _adapter_parameters(policy).items()}
    wrong = [key for key in sorted({*wanted, *found}) if key not in found or wanted.get(key) != found[key].shape]
    if wrong:
        raise UserError(f"{path}: {len(wrong)} weights are missing, unexpected or of another shape: {', '.join(wrong[:3])}")
    for name in _adapter_parameters(policy):
        # Memory of its own is aligned as it was before saving, without which results differ in the last bit.
        _set_parameter(policy.pi0, name, found[_peft_key(name)].clone())


def is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Parameter(value))


def _adapter_parameters(policy: FlowPolicy) -> dict[str, Tensor]:
    """By their names in pi0."""
    return {name: value for name, value in policy.pi0.named_parameters() if is_adapter(name)}


def _peft_key(name: str) -> str:
    """A parameter's name in PEFT's file."""
    return "base_model.model." + name.replace(".default.", ".")


def _read_config(path: Path) -> LoraConfig:
    """The LoraConfig of a file; only what this module writes has a meaning here, and PEFT's own reading is left out, for it would
    go to a model hub where a file is missing."""
    from peft import LoraConfig

    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(document, dict) or document.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type: want 'LORA'")
    unlike = {"use_dora": False, "use_rslora": False, "lora_bias": False, "bias": "none", "lora_dropout": 0.0}
    for name, wanted in unlike.items():
        if document.get(name, wanted) != wanted:
            raise UserError(f"{path}: {name}: found {document[name]!r}, want {wanted!r}")
    if document.get("rank_pattern") or document.get("alpha_pattern"):
        raise UserError(f"{path}: rank_pattern and alpha_pattern: want none")
    rank, alpha, targets = (document.get(name) for name in ("r", "lora_alpha", "target_modules"))
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not isinstance(targets, str | list):
        raise UserError(f"{path}: found r {rank!r}, lora_alpha {alpha!r}, want a rank, a number, and target_modules")
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=targets,
        exclude_modules=document.get("exclude_modules"),
    )
