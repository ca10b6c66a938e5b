"""From the shapes in a file to the config of the model, and how a file's tensors differ from what that model wants."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from genvla.errors import UserError
from genvla.policy.formats.names import ForeignFormat
from genvla.policy.gemma import MixtureConfig
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.siglip import SiglipConfig

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

SIGLIP_HEAD = 72
"""Features per head of SigLIP So400m, which no shape tells. Gemma's can be told, given its single key head."""

_LAYER = r"joint_model\.mixtures\.{}\.layers\.\d+\."
_VISION = r"vision_tower\.vision_model\."
_VISION_LAYER = _VISION + r"encoder\.layers\.\d+\."


def infer_config(shapes: Shapes, kind: ForeignFormat, horizon: int | None = None) -> Pi0Config:
    """The model that tensors of these shapes (under our names) belong to, with the conventions of the format.

    Each size is what most of the tensors that show it say, so that a damaged one is found to be so by `misfits`. A file of
    PaliGemma gets an action expert in open-pi-zero's proportions. horizon: the format's usual one if not given.

    Raises:
        UserError: no model of this family has such sizes.
    """
    base = Pi0Config.openpi() if kind == "lerobot" else Pi0Config.open_pi_zero()

    def size(default: int, *witnesses: tuple[str, int]) -> int:
        return _vote(shapes, default, witnesses)

    vlm, expert = base.joint.vlm, base.joint.action
    vlm = _infer_mixture(shapes, "vlm", vlm)
    if kind == "paligemma":
        scale = vlm.width / base.joint.vlm.width
        width = max(2, 2 * round(scale * expert.width / 2))
        expert = replace(expert, width=width, mlp=round(vlm.mlp * expert.mlp / base.joint.vlm.mlp))
    else:
        expert = _infer_mixture(shapes, "action", expert)
    final_norm = vlm.final_norm or "joint_model.mixtures.vlm.norm.weight" in shapes
    layer = _LAYER.format("(?:vlm|action)")
    key_rows = size(base.joint.head_dim, (layer + r"self_attn\.k_proj\.weight", 0), (layer + r"self_attn\.v_proj\.weight", 0))
    query_rows = size(
        base.joint.heads * key_rows, (layer + r"self_attn\.q_proj\.weight", 0), (layer + r"self_attn\.o_proj\.weight", 1)
    )
    if query_rows % key_rows:
        raise UserError(f"found queries of {query_rows} and keys of {key_rows} features, want one key head, as Gemma has in pi0")
    layers = _layers(shapes, r"joint_model\.mixtures\.(?:vlm|action)\.layers\.(\d+)\.")
    joint = replace(
        base.joint,
        vlm=replace(vlm, final_norm=final_norm),
        action=expert,
        layers=layers,
        heads=query_rows // key_rows,
        kv_heads=1,
        head_dim=key_rows,
        feature_layer=layers,
    )
    return replace(
        base,
        vision=_infer_vision(shapes, base),
        joint=joint,
        vocab_size=size(base.vocab_size, (r"embed_tokens\.weight", 0)),
        action_dim=size(
            base.action_dim,
            (r"action_encoder\.linear_1\.weight", 1),
            (r"action_decoder\.weight", 0),
            (r"action_decoder\.bias", 0),
        ),
        proprio_dim=size(base.proprio_dim, (r"proprio_encoder\.weight", 1)),
        horizon=horizon or base.horizon,
        suffix_scale=base.suffix_scale if kind == "lerobot" else math.sqrt(expert.width),
    )


def misfits(found: Shapes, wanted: Shapes, origin: Mapping[str, str] | None = None) -> str | None:
    """How many and which tensors are missing, unexpected or of another shape; None if all fit. origin: names to call them by."""

    def called(name: str) -> str:
        return (origin or {}).get(name, name)

    problems = []
    for title, names in (
        ("missing", [called(name) for name in wanted if name not in found]),
        ("unexpected", [called(name) for name in found if name not in wanted]),
        (
            "of another shape",
            [
                f"{called(name)} (found {found[name]}, want {wanted[name]})"
                for name in wanted
                if name in found and found[name] != wanted[name]
            ],
        ),
    ):
        if names:
            problems.append(f"{len(names)} {title}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}")
    return "; ".join(problems) or None


def _infer_mixture(shapes: Shapes, name: str, base: MixtureConfig) -> MixtureConfig:
    layer = _LAYER.format(name)
    width = _vote(
        shapes,
        base.width,
        [
            (layer + r"(?:input|post_attention)_layernorm\.weight", 0),
            (layer + r"self_attn\.[qkv]_proj\.weight", 1),
            (layer + r"mlp\.(?:gate|up)_proj\.weight", 1),
        ],
    )
    mlp = _vote(shapes, base.mlp, [(layer + r"mlp\.(?:gate|up)_proj\.weight", 0), (layer + r"mlp\.down_proj\.weight", 1)])
    return replace(base, width=width, mlp=mlp)


def _infer_vision(shapes: Shapes, base: Pi0Config) -> SiglipConfig:
    vision = base.vision
    width = _vote(
        shapes,
        vision.width,
        [
            (_VISION_LAYER + r"layer_norm[12]\.(?:weight|bias)", 0),
            (_VISION_LAYER + r"self_attn\.(?:q|k|v|out)_proj\.bias", 0),
            (_VISION + r"embeddings\.patch_embedding\.bias", 0),
            (_VISION + r"post_layernorm\.(?:weight|bias)", 0),
        ],
    )
    if width % SIGLIP_HEAD:
        raise UserError(
            f"found a vision tower of width {width}, want a multiple of {SIGLIP_HEAD}, the features of SigLIP's heads"
        )
    patch_weight = _VISION + r"embeddings\.patch_embedding\.weight"
    patch = _vote(shapes, vision.patch_size, [(patch_weight, 2), (patch_weight, 3)])
    tokens = _vote(shapes, vision.tokens, [(_VISION + r"embeddings\.position_embedding\.weight", 0)])
    return replace(
        vision,
        image_size=patch * max(math.isqrt(tokens), 1),
        patch_size=patch,
        width=width,
        layers=_layers(shapes, _VISION + r"encoder\.layers\.(\d+)\."),
        heads=width // SIGLIP_HEAD,
        mlp=_vote(
            shapes,
            vision.mlp,
            [
                (_VISION_LAYER + r"mlp\.fc1\.weight", 0),
                (_VISION_LAYER + r"mlp\.fc1\.bias", 0),
                (_VISION_LAYER + r"mlp\.fc2\.weight", 1),
            ],
        ),
    )


def _vote(shapes: Shapes, default: int, witnesses: Iterable[tuple[str, int]]) -> int:
    """The most frequent size along the given axes of the tensors whose names match; the smallest of equally frequent ones."""
    votes: Counter[int] = Counter()
    for pattern, axis in witnesses:
        for name, shape in shapes.items():
            if re.fullmatch(pattern, name) and axis < len(shape) and shape[axis]:
                votes[shape[axis]] += 1
    return min(votes, key=lambda size: (-votes[size], size), default=default)


def _layers(shapes: Shapes, pattern: str) -> int:
    """One more than the largest index; one that a single tensor has is a stray and does not count."""
    tensors = Counter(int(match[1]) for name in shapes if (match := re.match(pattern, name)))
    return 1 + max((index for index, count in tensors.items() if count > 1), default=0)
