"""A policy to a folder in the format of another project, and the command for it: `genvla export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.adapters import has_adapters, merged
from genvla.policy.checkpoints import load_policy, new_folder, save_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.formats.load import EULER_STEPS, widest_dtype
from genvla.policy.formats.names import ForeignFormat, theirs, with_alias
from genvla.policy.formats.shapes import infer_config
from genvla.policy.formats.statistics import OPEN_PI_ZERO_FILES, PREPROCESSOR, write_lerobot, write_open_pi_zero
from genvla.policy.pi0 import Pi0
from genvla.types import ACTION_DIM, PROPRIO_DIM

ExportFormat = Literal["open-pi-zero", "lerobot", "genvla"]

OPEN_PI_ZERO_WEIGHTS = "model.pt"
LEROBOT_CAMERA = "observation.images.base_0_rgb"
MARKS = {"open-pi-zero": OPEN_PI_ZERO_FILES[0], "lerobot": f"{PREPROCESSOR}.json"}
"""The file by which a folder of each format is known for one that may be replaced."""

FREE = ("joint.feature_layer", "joint.attention", "vision.attention")
"""Config fields that change no action, and so need not be those of the format."""


def export(
    checkpoint: Path,
    format: ExportFormat,
    output: Path,
    tokenizer: str | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    seed: int = 0,
) -> None:
    """Write a policy in the format of open-pi-zero or lerobot, or in ours.

    Args:
        checkpoint: what to read: a policy folder, or a checkpoint of open-pi-zero, openpi, lerobot or PaliGemma.
        format: what to write. open-pi-zero and lerobot hold pi0 and its statistics; only genvla holds the noise and value heads.
        output: folder to write to; replaced if it is an export of the same format.
        tokenizer: PaliGemma's tokenizer to put beside the weights: its file, its folder, or a repository of the model hub such as
            google/paligemma-3b-pt-224, if there is none beside the checkpoint.
        dtype: precision of pi0; that of the checkpoint if not given.
        seed: of the heads that another project's checkpoint lacks.
    """
    policy = load_policy(checkpoint, dtype=dtype and getattr(torch, dtype), seed=seed, tokenizer=tokenizer)
    export_policy(policy, output, format)
    print(f"{output}: {sum(p.numel() for p in policy.pi0.parameters()):,} parameters in the format {format}")


def export_policy(policy: FlowPolicy, folder: Path | str, format: ExportFormat) -> None:
    """Write the policy to a folder, complete or not at all. Adapters are merged, in a copy.

    open-pi-zero: model.pt with the action expert under both its names, and bridge_statistics.json. lerobot: model.safetensors,
    config.json and the two processor pipelines. What nothing reads in either is zero: the end of the last VLM layer where the
    policy does without, and lerobot's output layer of the expert.

    Raises:
        UserError: the format has no place for the policy's conventions or its normalisation, or the folder holds something else.
    """
    folder = Path(folder)
    policy = merged(policy) if has_adapters(policy) else policy
    if format == "genvla":
        save_policy(policy, folder)
        return
    _check_normalisation(policy, format)
    state = _complete_state(policy, format)
    with new_folder(folder, MARKS[format]) as temporary:
        write = _write_open_pi_zero if format == "open-pi-zero" else _write_lerobot
        write(policy, state, temporary)
        policy.processor.save_tokenizer(temporary)


def _check_normalisation(policy: FlowPolicy, format: ForeignFormat) -> None:
    found = policy.processor.statistics.normalisation
    wanted = ("bounds",) if format == "open-pi-zero" else ("mean_std", "quantiles")
    if found not in wanted:
        raise UserError(f"statistics.normalisation: found {found}, want {' or '.join(wanted)} to export to {format}")


def _complete_state(policy: FlowPolicy, format: ForeignFormat) -> dict[str, Tensor]:
    """pi0's tensors, with zeros for parameters that the format has and the policy does without.

    Raises:
        UserError: the policy's config is not what the format's conventions and the shapes say.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in policy.pi0.state_dict().items()}
    have = policy.model_config
    try:
        want = infer_config({name: tuple(value.shape) for name, value in state.items()}, format, have.horizon)
    except UserError as error:
        raise UserError(f"model: {error}, to export to {format}") from error
    have_flat, want_flat = _flat(asdict(have)), _flat(asdict(want))
    different = [name for name in want_flat if name not in FREE and have_flat[name] != want_flat[name]]
    if different:
        listed = ", ".join(f"{name} {have_flat[name]} (want {want_flat[name]})" for name in different[:3])
        more = " ..." if len(different) > 3 else ""
        raise UserError(f"model: found {len(different)} settings that {format} cannot have: {listed}{more}")
    with torch.device("meta"):
        complete = Pi0(want).state_dict()
    dtype = widest_dtype(state.values())
    return {name: state[name] if name in state else torch.zeros(value.shape, dtype=dtype) for name, value in complete.items()}


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in document.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _write_open_pi_zero(policy: FlowPolicy, state: dict[str, Tensor], folder: Path) -> None:
    torch.save({"model": with_alias(state)}, folder / OPEN_PI_ZERO_WEIGHTS)  # the two names share one stretch of the file
    write_open_pi_zero(policy.processor.statistics, folder)


def _write_lerobot(policy: FlowPolicy, state: dict[str, Tensor], folder: Path) -> None:
    model = policy.model_config
    unread = torch.zeros(model.vocab_size, model.joint.action.width, dtype=state["embed_tokens.weight"].dtype)
    tensors = {f"model.{theirs(name, 'lerobot')}": value for name, value in state.items()}
    tensors["model.paligemma_with_expert.gemma_expert.lm_head.weight"] = unread
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = _lerobot_config(policy, widest_dtype(state.values()))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    features = config["input_features"] | config["output_features"]
    write_lerobot(policy.processor.statistics, folder, features=features, max_tokens=policy.processor.config.max_tokens)


def _lerobot_config(policy: FlowPolicy, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of lerobot's PI0Config that are not at their defaults for every policy."""
    model = policy.model_config
    size = model.vision.image_size
    mode = {"mean_std": "MEAN_STD", "quantiles": "QUANTILES"}[policy.processor.statistics.normalisation]
    return {
        "type": "pi0",
        "n_obs_steps": 1,
        "input_features": {
            LEROBOT_CAMERA: {"type": "VISUAL", "shape": [3, size, size]},
            "observation.state": {"type": "STATE", "shape": [PROPRIO_DIM]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [ACTION_DIM]}},
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "dtype": "bfloat16" if dtype == torch.bfloat16 else "float32",
        "chunk_size": model.horizon,
        "n_action_steps": policy.processor.config.executed or model.horizon,
        "max_state_dim": model.proprio_dim,
        "max_action_dim": model.action_dim,
        "num_inference_steps": EULER_STEPS,
        "image_resolution": [size, size],
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
        "tokenizer_max_length": policy.processor.config.max_tokens,
    }
