"""Small models in the layouts of other projects, written down by hand from their sources, with every kind of tensor present.

Sources: open-pi-zero (allenzren/open-pi-zero, src/model/vla/pizero.py), openpi (models_pytorch/pi0_pytorch.py), lerobot
(policies/pi0/modeling_pi0.py; its layout before mid-2025 lacks the inner `model.`), PaliGemma as published
(google/paligemma-3b-pt-224).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from genvla.policy.gemma import JointConfig, MixtureConfig
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.siglip import SiglipConfig

VISION_KEYS = {
    "embeddings.patch_embedding": ("w 3 p p", "w"),
    "embeddings.position_embedding": ("t w", None),
    "encoder.layers.{v}.layer_norm1": ("w", "w"),
    "encoder.layers.{v}.layer_norm2": ("w", "w"),
    "encoder.layers.{v}.self_attn.q_proj": ("w w", "w"),
    "encoder.layers.{v}.self_attn.k_proj": ("w w", "w"),
    "encoder.layers.{v}.self_attn.v_proj": ("w w", "w"),
    "encoder.layers.{v}.self_attn.out_proj": ("w w", "w"),
    "encoder.layers.{v}.mlp.fc1": ("m w", "m"),
    "encoder.layers.{v}.mlp.fc2": ("w m", "w"),
    "post_layernorm": ("w", "w"),
}
GEMMA_KEYS = {
    "layers.{g}.self_attn.q_proj": "q w",
    "layers.{g}.self_attn.k_proj": "k w",
    "layers.{g}.self_attn.v_proj": "k w",
    "layers.{g}.self_attn.o_proj": "w q",
    "layers.{g}.mlp.gate_proj": "m w",
    "layers.{g}.mlp.up_proj": "m w",
    "layers.{g}.mlp.down_proj": "w m",
    "layers.{g}.input_layernorm": "w",
    "layers.{g}.post_attention_layernorm": "w",
    "norm": "w",
}
FULL = {
    "vision": {"w": 1152, "m": 4304, "p": 14, "t": 256, "layers": 27},
    "vlm": {"w": 2048, "m": 16384, "q": 2048, "k": 256},
    "action": {"w": 1024, "m": 4096, "q": 2048, "k": 256},
    "layers": {"n": 18},
}
SMALL = {
    "vision": {"w": 72, "m": 20, "p": 14, "t": 4, "layers": 2},
    "vlm": {"w": 32, "m": 48, "q": 16, "k": 8},
    "action": {"w": 16, "m": 24, "q": 16, "k": 8},
    "layers": {"n": 2},
}
Sizes = dict[str, dict[str, int]]
Shapes = dict[str, tuple[int, ...]]


def small_config(base: Pi0Config) -> Pi0Config:
    """What the small tensors below belong to, in the conventions of base."""
    vision = SiglipConfig(28, 14, 72, 2, 1, 20, "patch", (), False, base.vision.attention)
    joint = JointConfig(
        vlm=MixtureConfig(32, 48, final_norm=base.joint.vlm.final_norm),
        action=MixtureConfig(16, 24),
        layers=2,
        heads=2,
        kv_heads=1,
        head_dim=8,
        feature_layer=2,
        softcap=base.joint.softcap,
        attention=base.joint.attention,
    )
    return replace(base, vision=vision, joint=joint, vocab_size=300, suffix_scale=1.0 if base.suffix_scale == 1 else 4.0)


def vision_shapes(sizes: dict[str, int], prefix: str) -> Shapes:
    """Of a vision tower."""
    shapes: Shapes = {}
    for pattern, (weight, bias) in VISION_KEYS.items():
        for i in range(sizes["layers"] if "{v}" in pattern else 1):
            name = prefix + pattern.format(v=i)
            shapes[f"{name}.weight"] = _shape(weight, sizes)
            if bias is not None:
                shapes[f"{name}.bias"] = _shape(bias, sizes)
    return shapes


def gemma_shapes(sizes: dict[str, int], layers: int, prefix: str, *, norm: bool) -> Shapes:
    """Of one of the two transformers."""
    return {
        f"{prefix}{pattern.format(g=i)}.weight": _shape(shape, sizes)
        for pattern, shape in GEMMA_KEYS.items()
        if norm or pattern != "norm"
        for i in range(layers if "{g}" in pattern else 1)
    }


def outer_shapes(names: tuple[str, str, str, str, str], width: int, entries: int) -> Shapes:
    """Of the encoders and the decoder, named state, action, (time and action) in and out, decoder."""
    state, first, second, third, last = names
    shapes: Shapes = {f"{state}.weight": (width, entries), f"{state}.bias": (width,)}
    shapes |= {f"{first}.weight": (width, entries), f"{first}.bias": (width,)}
    shapes |= {f"{second}.weight": (width, 2 * width), f"{second}.bias": (width,)}
    shapes |= {f"{third}.weight": (width, width), f"{third}.bias": (width,)}
    return shapes | {f"{last}.weight": (entries, width), f"{last}.bias": (entries,)}


def open_pi_zero_shapes(sizes: Sizes, vocabulary: int) -> Shapes:
    """The names and shapes of an open-pi-zero checkpoint, 938 at full size."""
    layers, width = sizes["layers"]["n"], sizes["action"]["w"]
    shapes: Shapes = {"embed_tokens.weight": (vocabulary, sizes["vlm"]["w"])}
    shapes |= vision_shapes(sizes["vision"], "vision_tower.vision_model.")
    shapes["multi_modal_projector.linear.weight"] = (sizes["vlm"]["w"], sizes["vision"]["w"])
    shapes["multi_modal_projector.linear.bias"] = (sizes["vlm"]["w"],)
    shapes |= gemma_shapes(sizes["vlm"], layers, "joint_model.mixtures.vlm.", norm=False)
    for name in ("proprio", "action"):
        shapes |= gemma_shapes(sizes["action"], layers, f"joint_model.mixtures.{name}.", norm=True)
    names = ("proprio_encoder", "action_encoder.linear_1", "action_encoder.linear_2", "action_encoder.linear_3", "action_decoder")
    return shapes | outer_shapes(names, width, 7)


def pi0_shapes(sizes: Sizes, vocabulary: int, *, layout: str, entries: int = 32) -> Shapes:
    """The names and shapes of openpi's and lerobot's files.

    layout: "lerobot" (present), "openpi" (no `model.` before everything, both names of the embedding) or "older" (lerobot before
    mid-2025).
    """
    layers, whole = sizes["layers"]["n"], "" if layout == "openpi" else "model."
    paligemma, inner = f"{whole}paligemma_with_expert.paligemma.", "" if layout == "older" else "model."
    language = f"{paligemma}language_model.model." if layout == "older" else f"{paligemma}model.language_model."
    head = f"{paligemma}language_model.lm_head.weight" if layout == "older" else f"{paligemma}lm_head.weight"
    embedding = (vocabulary, sizes["vlm"]["w"])
    shapes: Shapes = {head: embedding}
    if layout != "lerobot":
        shapes[f"{language}embed_tokens.weight"] = embedding
    shapes |= vision_shapes(sizes["vision"], f"{paligemma}{inner}vision_tower.vision_model.")
    shapes[f"{paligemma}{inner}multi_modal_projector.linear.weight"] = (sizes["vlm"]["w"], sizes["vision"]["w"])
    shapes[f"{paligemma}{inner}multi_modal_projector.linear.bias"] = (sizes["vlm"]["w"],)
    shapes |= gemma_shapes(sizes["vlm"], layers, language, norm=True)
    shapes |= gemma_shapes(sizes["action"], layers, f"{whole}paligemma_with_expert.gemma_expert.model.", norm=True)
    shapes[f"{whole}paligemma_with_expert.gemma_expert.lm_head.weight"] = (vocabulary, sizes["action"]["w"])
    names = ("state_proj", "action_in_proj", "action_time_mlp_in", "action_time_mlp_out", "action_out_proj")
    outer = outer_shapes(names, sizes["action"]["w"], entries)
    return shapes | {whole + name: shape for name, shape in outer.items()}


def paligemma_shapes(sizes: Sizes, vocabulary: int) -> Shapes:
    """The names and shapes of PaliGemma as published."""
    shapes: Shapes = {"language_model.model.embed_tokens.weight": (vocabulary, sizes["vlm"]["w"])}
    shapes |= vision_shapes(sizes["vision"], "vision_tower.vision_model.")
    shapes["multi_modal_projector.linear.weight"] = (sizes["vlm"]["w"], sizes["vision"]["w"])
    shapes["multi_modal_projector.linear.bias"] = (sizes["vlm"]["w"],)
    return shapes | gemma_shapes(sizes["vlm"], sizes["layers"]["n"], "language_model.model.", norm=True)


def random_tensors(shapes: Shapes, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Numbers of their own in every tensor, but the same in those that stand for one."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        twin = name.replace("mixtures.action.", "mixtures.proprio.").replace("language_model.model.embed_tokens", "lm_head")
        twin = twin.replace("model.language_model.embed_tokens", "lm_head")
        if twin not in tensors:
            twin = twin.replace("paligemma.lm_head", "paligemma.language_model.lm_head")
        tensors[name] = tensors[twin] if twin in tensors else (torch.randn(shape, generator=generator) * 0.1).to(dtype)
    return tensors


def write_open_pi_zero(folder: Path, tensors: dict[str, Tensor], prefix: str = "") -> Path:
    """A .pt file with what training puts in it."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = {
        "cnt_update": 3,
        "wandb_id": None,
        "action_optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []},
    }
    torch.save({"model": {prefix + name: tensor for name, tensor in tensors.items()}, **rest}, folder / "step3.pt")
    return folder / "step3.pt"


def write_safetensors(folder: Path, tensors: dict[str, Tensor], config: dict[str, object] | None = None) -> Path:
    """model.safetensors, and config.json if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def _shape(letters: str, sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(int(letter) if letter.isdigit() else sizes[letter] for letter in letters.split())
