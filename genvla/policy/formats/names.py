"""Names of parameters: from each project's to ours and back.

Ours are open-pi-zero's. Sources of the other names: openpi's and lerobot's PI0Pytorch, lerobot before mid-2025, transformers'
PaliGemmaForConditionalGeneration and PI0ForConditionalGeneration, of versions 4 and 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

T = TypeVar("T")
ForeignFormat = Literal["open-pi-zero", "lerobot", "paligemma"]

VLM, EXPERT, PROPRIO = (f"joint_model.mixtures.{name}." for name in ("vlm", "action", "proprio"))

_WRAPPER = re.compile(r"(^|(?<=\.))(_orig_mod|module)\.")
_PREFIX = r"^(?:model\.)?(?:paligemma_with_expert\.paligemma\.|vlm\.)?(?:model\.)?"
_EXPERT_PREFIX = r"^(?:model\.)?(?:paligemma_with_expert\.gemma_expert\.model|dit)\."
_OUTER = r"^(?:model\.)?(?:embed_action_time\.)?"
_RULES = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (_PREFIX + r"vision_tower\.(?:vision_model\.)?", "vision_tower.vision_model."),
        (_PREFIX + r"multi_modal_projector\.", "multi_modal_projector."),
        (_PREFIX + r"language_model\.(?:model\.)?embed_tokens\.", "embed_tokens."),
        (_PREFIX + r"(?:language_model\.)?lm_head\.", "embed_tokens."),  # tied: files keep one of the two, or both
        (_PREFIX + r"language_model\.(?:model\.)?(?=layers\.|norm\.)", VLM),
        (_EXPERT_PREFIX + r"(?=layers\.|norm\.)", EXPERT),
        (_OUTER + r"state_proj\.", "proprio_encoder."),
        (_OUTER + r"action_in_proj\.", "action_encoder.linear_1."),
        (_OUTER + r"action_time_mlp_in\.", "action_encoder.linear_2."),
        (_OUTER + r"action_time_mlp_out\.", "action_encoder.linear_3."),
        (_OUTER + r"action_out_proj\.", "action_decoder."),
    )
)
_MARKS: dict[ForeignFormat, re.Pattern[str]] = {  # what only that project has
    "open-pi-zero": re.compile(r"joint_model\.mixtures\."),
    "lerobot": re.compile(r"(model\.)?(paligemma_with_expert|vlm|dit)\."),
    "paligemma": re.compile(r"(model\.)?language_model\."),
}
_UNUSED = re.compile(
    r"gemma_expert\.(lm_head|model\.embed_tokens)\.weight$|(^|\.)dit\.embed_tokens\.weight$"  # the expert has no text
    r"|\.(position_ids|inv_freq)$"  # buffers of older versions
    r"|^(normalize_inputs|normalize_targets|unnormalize_outputs)\."  # statistics
)
_LEROBOT = (  # from ours, in lerobot's present layout; the embedding under the name that published files keep of the two
    ("vision_tower.", "paligemma_with_expert.paligemma.model.vision_tower."),
    ("multi_modal_projector.", "paligemma_with_expert.paligemma.model.multi_modal_projector."),
    ("embed_tokens.", "paligemma_with_expert.paligemma.lm_head."),
    (VLM, "paligemma_with_expert.paligemma.model.language_model."),
    (EXPERT, "paligemma_with_expert.gemma_expert.model."),
    ("proprio_encoder.", "state_proj."),
    ("action_encoder.linear_1.", "action_in_proj."),
    ("action_encoder.linear_2.", "action_time_mlp_in."),
    ("action_encoder.linear_3.", "action_time_mlp_out."),
    ("action_decoder.", "action_out_proj."),
)
_PALIGEMMA = (
    ("embed_tokens.", "language_model.model.embed_tokens."),
    (VLM, "language_model.model."),
)


def without_wrappers(name: str) -> str:
    """A name without what torch.compile and DistributedDataParallel put before or into it."""
    return _WRAPPER.sub("", name)


def recognise(names: Iterable[str]) -> ForeignFormat | Literal["pi0.5"] | None:
    """Whose names most of these are; None if hardly any is known."""
    names = list(names)
    counts: dict[ForeignFormat, int] = {
        kind: sum(pattern.match(name) is not None for name in names) for kind, pattern in _MARKS.items()
    }
    kind = max(counts, key=lambda kind: counts[kind])
    if counts[kind] < len(names) / 8:
        return None
    return "pi0.5" if kind == "lerobot" and any("norm.dense." in name for name in names) else kind


def ours(name: str, kind: ForeignFormat) -> str | None:
    """Our name of a file's tensor; None for one that pi0 never reads. A name that is nobody's stays as it is."""
    if kind == "open-pi-zero":
        return name
    if _UNUSED.search(name) or (kind == "paligemma" and re.fullmatch(_PREFIX + r"language_model\.(model\.)?norm\.weight", name)):
        return None  # open-pi-zero's layout, in which PaliGemma is put to use, has no norm after the VLM
    for pattern, replacement in _RULES:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def theirs(name: str, kind: ForeignFormat) -> str:
    """The name that a file of this format has for one of ours."""
    table = {"open-pi-zero": (), "lerobot": _LEROBOT, "paligemma": _PALIGEMMA}[kind]
    for prefix, replacement in table:
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return name


def with_alias(values: dict[str, T]) -> dict[str, T]:
    """Also under the names that open-pi-zero's files have for the action expert as the network of proprioception."""
    return values | {PROPRIO + name.removeprefix(EXPERT): value for name, value in values.items() if name.startswith(EXPERT)}


def part_filter(kind: ForeignFormat) -> Callable[[str], bool]:
    """Whether files of this format hold the parameter of this name (ours)."""
    vlm = ("embed_tokens.", "vision_tower.", "multi_modal_projector.", VLM)
    return lambda name: kind != "paligemma" or name.startswith(vlm)
