"""transformers' own pi0, of openpi's conventions, in the shape of ours: what ours is compared with in numbers and in speed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genvla.errors import UserError
from genvla.policy.formats.names import ours
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import PolicyInputs

if TYPE_CHECKING:
    from transformers import PI0ForConditionalGeneration


def with_openpi_conventions(model: Pi0Config) -> Pi0Config:
    """The same sizes in the conventions that transformers' pi0 has.

    Raises:
        UserError: the vision tower is not SigLIP's.
    """
    if model.vision.stem != "patch" or model.vision.coordinate_channels:
        raise UserError(
            "reference: transformers' pi0 has no vision tower like this model's, want one of SigLIP's layout, as in mid"
        )
    joint = replace(model.joint, softcap=None, feature_layer=model.joint.layers, attention="sdpa")
    joint = replace(joint, vlm=replace(joint.vlm, final_norm=True), action=replace(joint.action, final_norm=True))
    sizes = ("vocab_size", "action_dim", "proprio_dim", "horizon")
    kept: dict[str, Any] = {name: getattr(model, name) for name in sizes}
    return replace(Pi0Config.openpi(), vision=replace(model.vision, attention="sdpa"), joint=joint, **kept)


def transformers_pi0(config: Pi0Config, attention: str = "eager") -> PI0ForConditionalGeneration:
    """transformers' pi0 of the same shape; the id just above the vocabulary stands for an image token. Random weights, from
    torch's global generator.

    Raises:
        UserError: transformers is not installed, or too old.
    """
    try:
        from transformers import PI0Config, PI0ForConditionalGeneration
    except ImportError as error:
        raise UserError("transformers: not found or without pi0, want transformers>=5.23 (the dev extra)") from error
    vision, joint = config.vision, config.joint
    heads = {"num_attention_heads": joint.heads, "num_key_value_heads": joint.kv_heads, "head_dim": joint.head_dim}

    def gemma(width: int, mlp: int) -> dict[str, object]:
        return {
            "model_type": "gemma",
            "hidden_size": width,
            "intermediate_size": mlp,
            "num_hidden_layers": joint.layers,
            "vocab_size": config.vocab_size,
            **heads,
        }

    shape = PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": gemma(joint.vlm.width, joint.vlm.mlp),
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp,
                "num_hidden_layers": vision.layers,
                "num_attention_heads": vision.heads,
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "vision_use_head": False,
            },
            "projection_dim": joint.vlm.width,
            "image_token_id": config.vocab_size,
        },
        dit_config=gemma(joint.action.width, joint.action.mlp),
        chunk_size=config.horizon,
        max_state_dim=config.proprio_dim,
        max_action_dim=config.action_dim,
    )
    shape._attn_implementation = attention
    return PI0ForConditionalGeneration(shape).eval()


def from_transformers(model: PI0ForConditionalGeneration) -> dict[str, Tensor]:
    """Its weights under our names; the expert's text embedding, which nothing reads, is left out."""
    named = {ours(name, "lerobot"): value for name, value in model.state_dict().items()}
    return {name: value for name, value in named.items() if name is not None}


def as_transformers(inputs: PolicyInputs, config: Pi0Config) -> dict[str, Tensor]:
    """Its arguments: image tokens of the cameras that are there, then the text, padded on the right to the longest sample."""
    rows = []
    for cameras, tokens, mask in zip(inputs.image_mask, inputs.tokens, inputs.token_mask, strict=True):
        images = torch.full((int(cameras.sum()) * config.vision.tokens,), config.vocab_size, device=tokens.device)
        rows.append(torch.cat((images, tokens[mask])))
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
    lengths = torch.tensor([len(row) for row in rows], device=ids.device)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long(),
        "pixel_values": inputs.images.permute(0, 1, 4, 2, 3).float() / 127.5 - 1,
        "pixel_attention_mask": inputs.image_mask,
        "state": inputs.proprio,
    }
