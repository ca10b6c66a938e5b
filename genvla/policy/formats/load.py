"""A policy from another project's checkpoint: its tensors under our names, its conventions, its statistics, fresh heads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.flow_policy import FlowPolicy, FlowPolicyConfig
from genvla.policy.formats.files import find_weights, read_json, read_tensors
from genvla.policy.formats.names import (
    EXPERT,
    PROPRIO,
    ForeignFormat,
    ours,
    part_filter,
    recognise,
    theirs,
    with_alias,
    without_wrappers,
)
from genvla.policy.formats.shapes import infer_config, misfits
from genvla.policy.formats.statistics import find_statistics
from genvla.policy.gemma import MixtureConfig
from genvla.policy.heads import HeadsConfig, NoiseHead, ValueHead
from genvla.policy.pi0 import Pi0
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import BRIDGE_STATISTICS, ProcessorConfig, Statistics
from genvla.policy.siglip import SiglipConfig
from genvla.policy.tokenizer import PaligemmaTokenizer
from genvla.types import ACTION_DIM, CHUNK_SIZE, PROPRIO_DIM

EULER_STEPS = 10
"""Integration steps of the released models."""
PROMPT_TOKENS = {"open-pi-zero": 20, "paligemma": 20, "lerobot": 48}


def load_foreign(path: Path, *, dtype: torch.dtype | None = None, seed: int = 0) -> FlowPolicy:
    """The policy of an open-pi-zero, openpi, lerobot or PaliGemma checkpoint, on the CPU.

    dtype: precision of pi0; None for that of the file. A file that mixes precisions is held in the widest of them, so that
    nothing is rounded; norms and the layers that compute in fp32 anyway keep theirs. seed: of what the file lacks, that is the
    noise and value heads, which are fp32, and for PaliGemma the action expert.

    Raises:
        UserError: the checkpoint is damaged, of another model, or a tensor is missing, unexpected or of another shape.
    """
    file = find_weights(path)
    policy, weights = _understand(file, read_tensors(file))
    _assign(policy, _own_memory(weights, dtype, file), seed)
    folder = file.parent
    if any((folder / name).is_file() for name in PaligemmaTokenizer.FILES):
        policy.processor.load_tokenizer(folder)
    return policy


def inspect_foreign(path: Path) -> FlowPolicy:
    """The same policy on the meta device: everything is checked that names and shapes can tell, and no weights are read.

    Raises:
        UserError: as load_foreign.
    """
    file = find_weights(path)
    policy, weights = _understand(file, read_tensors(file, "meta"))
    with torch.device("meta"):
        _assign(policy, _own_memory(weights, None, file), seed=0)
    return policy


def _understand(file: Path, tensors: dict[str, Tensor]) -> tuple[FlowPolicy, dict[str, Tensor]]:
    """A policy on the meta device that these tensors fit, which are all there, and the tensors by our names."""
    tensors = _merge_lora(_unwrapped(tensors, file), file)
    kind = recognise(tensors)
    if kind is None or kind == "pi0.5":
        found = "pi0.5" if kind else f"tensors of another model: {_count(list(tensors))}"
        raise UserError(
            f"{file}: found {found}; want a checkpoint of open-pi-zero, openpi's or lerobot's pi0, or PaliGemma, "
            "or for our own its folder with config.json"
        )
    weights, origin = _under_our_names(tensors, kind, file)
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        config = _config(infer_config(shapes, kind, _horizon(file.parent, kind)), kind)
        numbers = {name: tensor for name, tensor in tensors.items() if not tensor.is_meta}
        statistics = find_statistics(file.parent, kind, numbers)
    except UserError as error:
        raise error if str(file.parent) in str(error) else UserError(f"{file}: {error}") from error
    with torch.device("meta"):
        policy = FlowPolicy.from_config(replace(config, statistics=statistics or _default_statistics(kind)))
    held = part_filter(kind)
    wanted = {name: tuple(value.shape) for name, value in policy.pi0.state_dict().items() if held(name)}
    if any(name.startswith(PROPRIO) for name in weights):
        wanted = with_alias(wanted)
    if problems := misfits(shapes, wanted, {name: theirs(name, kind) for name in wanted} | origin):
        raise UserError(f"{file}: found names of {kind}, but the weights do not fit: {problems}")
    _drop_alias(weights, file)
    return policy, weights


def _unwrapped(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    unwrapped = {without_wrappers(name): tensor for name, tensor in tensors.items()}
    if len(unwrapped) < len(tensors):
        raise UserError(f"{file}: found {len(tensors) - len(unwrapped)} tensors twice, with and without _orig_mod. or module.")
    return unwrapped


def _under_our_names(tensors: dict[str, Tensor], kind: ForeignFormat, file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by our names, and what the file calls each. Two names for one of ours must hold the same numbers."""
    weights: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unequal = []
    for name, tensor in tensors.items():
        name_here = ours(name, kind)
        if name_here is None:
            continue
        if name_here not in weights:
            weights[name_here], origin[name_here] = tensor, name
        elif not _same(weights[name_here], tensor):
            unequal.append(f"{name} and {origin[name_here]}")
    if unequal:
        raise UserError(f"{file}: want equal tensors under two names for the same, found {_count(unequal)} different")
    return weights, origin


def _drop_alias(weights: dict[str, Tensor], file: Path) -> None:
    """open-pi-zero keeps the expert under two names, for proprioception and for actions: one set of weights, trained as one."""
    alias = [name for name in weights if name.startswith(PROPRIO)]
    unequal = [name for name in alias if not _same(weights.pop(name), weights[EXPERT + name.removeprefix(PROPRIO)])]
    if unequal:
        raise UserError(f"{file}: want proprio equal to action in joint_model.mixtures, found {_count(unequal)} different")


def _same(a: Tensor, b: Tensor) -> bool:
    shared = a.data_ptr() == b.data_ptr() and a.dtype == b.dtype and a.shape == b.shape and a.stride() == b.stride()
    return shared or (a.dtype == b.dtype and torch.equal(a, b))


def _count(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"


def _merge_lora(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """open-pi-zero's adapters added to their layers: weight + lora_B @ lora_A, of scale 1, in fp32."""
    for name in [name for name in tensors if name.endswith(".lora_A")]:
        layer = name.removesuffix(".lora_A")
        down, up, weight = tensors.get(name), tensors.get(f"{layer}.lora_B"), tensors.get(f"{layer}.weight")
        if down is None or up is None or weight is None or not _composable(up, down, weight):
            raise UserError(f"{file}: {layer}: want lora_A [r, in], lora_B [out, r] and weight [out, in] of fitting shapes")
        tensors[f"{layer}.weight"] = (weight.float() + up.float() @ down.float()).to(weight.dtype)
        del tensors[name], tensors[f"{layer}.lora_B"]
    return tensors


def _composable(up: Tensor, down: Tensor, weight: Tensor) -> bool:
    return up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0] and weight.shape == (up.shape[0], down.shape[1])


def _horizon(folder: Path, kind: ForeignFormat) -> int | None:
    """lerobot's config.json tells it; nothing else in a checkpoint does."""
    path = folder / "config.json"
    if kind != "lerobot" or not path.is_file():
        return None
    horizon = read_json(path).get("chunk_size")
    if horizon is not None and (type(horizon) is not int or horizon < 1):
        raise UserError(f"{path}: chunk_size: found {json.dumps(horizon)}, want a positive integer")
    return horizon


def _config(model: Pi0Config, kind: ForeignFormat) -> FlowPolicyConfig:
    spare = model.action_dim - ACTION_DIM, model.proprio_dim - PROPRIO_DIM
    if min(spare) < 0 or (kind != "lerobot" and any(spare)):
        more = "at least " if kind == "lerobot" else ""
        raise UserError(
            f"found {model.action_dim} entries of an action and {model.proprio_dim} of proprioception, "
            f"want {more}{ACTION_DIM} and {PROPRIO_DIM}"
        )
    processor = ProcessorConfig(
        image_size=model.vision.image_size,
        tokenizer="paligemma",
        vocab_size=model.vocab_size,
        max_tokens=PROMPT_TOKENS[kind],
        clean_prompt=kind == "lerobot",
        resize="letterbox" if kind == "lerobot" else "squash",
        action_dim=model.action_dim,
        proprio_dim=model.proprio_dim,
        executed=CHUNK_SIZE if model.horizon > CHUNK_SIZE else None,
    )
    return FlowPolicyConfig(model, HeadsConfig(grounding=False), processor, integration_steps=EULER_STEPS)


def _default_statistics(kind: ForeignFormat) -> Statistics:
    return replace(BRIDGE_STATISTICS, normalisation="quantiles") if kind == "lerobot" else BRIDGE_STATISTICS


def _own_memory(weights: dict[str, Tensor], dtype: torch.dtype | None, file: Path) -> dict[str, Tensor]:
    """The tensors read from the file, each in memory of its own, as far as needed in another precision."""
    other = [f"{name} {tensor.dtype}" for name, tensor in weights.items() if not tensor.is_floating_point()]
    if other:
        raise UserError(f"{file}: want floating point, found {_count(other)} of other kinds")
    widest = dtype or widest_dtype(tensor for name, tensor in weights.items() if not _free(name))
    result = {}
    for name in list(weights):
        tensor = weights.pop(name)
        to = dtype or (tensor.dtype if _free(name) else widest)
        result[name] = tensor.to(dtype=to, copy=True).contiguous()
    return result


def _free(name: str) -> bool:
    """Whether the model computes with this parameter in fp32, in whatever precision it is held: RMS norms, the outer layers."""
    outer = ("proprio_encoder.", "action_encoder.linear_1.", "action_decoder.")
    return name.startswith(outer) or (name.startswith("joint_model.") and name.endswith("norm.weight"))


def widest_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """The precision that holds all of them without rounding."""
    return reduce(torch.promote_types, {tensor.dtype for tensor in tensors})


def _assign(policy: FlowPolicy, weights: dict[str, Tensor], seed: int) -> None:
    """Gives a policy on the meta device these weights of pi0, and the rest fresh from the seed."""
    config = policy.config
    with torch.random.fork_rng(devices=[]):  # modules initialise themselves from the global generator, which stays as it was
        torch.manual_seed(seed)
        features = config.model.joint.vlm.width + config.model.joint.action.width
        policy.noise_head = NoiseHead(config.heads, features, config.model.horizon, config.model.action_dim)
        policy.value_head = ValueHead(config.heads, features)
        lacking = [name for name in policy.pi0.state_dict() if name not in weights]
        if lacking:
            fresh, dtype = _expert(config.model).state_dict(), weights["embed_tokens.weight"].dtype
            weights |= {name: fresh[name].to(dtype) for name in lacking}
    policy.pi0.load_state_dict(weights, assign=True)


def _expert(model: Pi0Config) -> Pi0:
    """A fresh pi0 with the same action expert and next to nothing else."""
    vision = SiglipConfig(8, 8, 4, 0, 1, 4, stem="patch", stem_channels=(), coordinate_channels=False)
    joint = replace(model.joint, vlm=MixtureConfig(2, 2, final_norm=False))
    return Pi0(replace(model, vision=vision, joint=joint, vocab_size=1))
