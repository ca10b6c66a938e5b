"""Normalisation statistics beside the weights, in each project's own files.

open-pi-zero: bridge_statistics.json, {"action" and "proprio": {"p01", "p99", ...}}. openpi: norm_stats.json, {"norm_stats":
{"state" and "actions": {"mean", "std", "q01", "q99"}}}, in assets/NAME/. lerobot: policy_preprocessor.json, whose normaliser step
names a safetensors file and says by which statistics each kind is normalised; before autumn 2025, buffers among the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from genvla.errors import UserError
from genvla.policy.formats.files import read_json, read_tensors
from genvla.policy.formats.names import ForeignFormat
from genvla.policy.processor import Statistics
from genvla.types import ACTION_DIM, PROPRIO_DIM

OPEN_PI_ZERO_FILES = ("bridge_statistics.json", "dataset_statistics.json")
OPENPI_FILE = "norm_stats.json"
OPENPI_EPSILON = 1e-6
"""openpi divides by std + 1e-6, and multiplies by it on the way back."""
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor", "policy_postprocessor"
MODES: dict[str, Literal["mean_std", "quantiles"]] = {"MEAN_STD": "mean_std", "QUANTILES": "quantiles"}
KEYS = {"mean_std": ("mean", "std"), "quantiles": ("q01", "q99")}


def find_statistics(folder: Path, kind: ForeignFormat, tensors: Mapping[str, Tensor]) -> Statistics | None:
    """The statistics that belong to the weights in a folder, None if there are none. tensors: those of the weights file.

    Raises:
        UserError: there is a file, but it is not what its name says.
    """
    if kind != "lerobot":
        path = next((folder / name for name in OPEN_PI_ZERO_FILES if (folder / name).is_file()), None)
        return None if path is None else read_open_pi_zero(path)
    if (folder / f"{PREPROCESSOR}.json").is_file():
        return _read_lerobot(folder / f"{PREPROCESSOR}.json")
    found = sorted([*folder.glob(OPENPI_FILE), *folder.glob(f"assets/**/{OPENPI_FILE}")])
    if len(found) > 1:
        raise UserError(f"{folder}: found {len(found)} {OPENPI_FILE}, want the one of the robot beside the weights")
    return read_openpi(found[0]) if found else _read_buffers(folder, tensors)


def read_open_pi_zero(path: Path) -> Statistics:
    """p01 and p99 of a statistics file of open-pi-zero."""
    document = read_json(path)
    pairs = {f"{name}_{key}": _numbers(path, document, (name, key)) for name in ("action", "proprio") for key in ("p01", "p99")}
    return _statistics(path, "bounds", pairs)


def read_openpi(path: Path) -> Statistics:
    """Mean and standard deviation of openpi's file, of our 7 entries of those it has."""
    document = read_json(path)
    document = document.get("norm_stats", document)
    pairs = {}
    for name, theirs in (("action", "actions"), ("proprio", "state")):
        pairs[f"{name}_mean"] = _numbers(path, document, (theirs, "mean"))
        pairs[f"{name}_std"] = tuple(value + OPENPI_EPSILON for value in _numbers(path, document, (theirs, "std")))
    return _statistics(path, "mean_std", pairs)


def write_open_pi_zero(statistics: Statistics, folder: Path) -> None:
    """bridge_statistics.json, with the two percentiles that open-pi-zero reads."""
    document = {name: dict(zip(("p01", "p99"), map(list, statistics.pair(name)), strict=True)) for name in ("action", "proprio")}
    (folder / OPEN_PI_ZERO_FILES[0]).write_text(json.dumps(document, indent=2) + "\n")


def write_lerobot(statistics: Statistics, folder: Path, *, features: dict[str, Any], max_tokens: int) -> None:
    """lerobot's two processor pipelines, with the statistics in safetensors beside them. features: those of its config.json.

    The numbers are written in fp64, in which they come back as they were; lerobot takes them as fp32.
    """
    mode = next(theirs for theirs, mode in MODES.items() if mode == statistics.normalisation)
    norm_map = {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}
    state = {
        f"{theirs}.{key}": torch.tensor(values, dtype=torch.float64)
        for name, theirs in (("proprio", "observation.state"), ("action", "action"))
        for key, values in zip(KEYS[statistics.normalisation], statistics.pair(name), strict=True)
    }
    tokenizer = {
        "max_length": max_tokens,
        "task_key": "task",
        "padding_side": "right",
        "padding": "max_length",
        "truncation": True,
        "tokenizer_name": "google/paligemma-3b-pt-224",
    }
    normaliser = {"eps": 1e-8, "features": features, "norm_map": norm_map}
    outputs = {name: feature for name, feature in features.items() if feature["type"] == "ACTION"}
    steps: dict[str, list[tuple[str, dict[str, Any]]]] = {
        PREPROCESSOR: [
            ("rename_observations_processor", {"rename_map": {}}),
            ("to_batch_processor", {}),
            ("pi0_new_line_processor", {}),
            ("tokenizer_processor", tokenizer),
            ("device_processor", {"device": "cpu", "float_dtype": None}),
            ("normalizer_processor", normaliser),
        ],
        POSTPROCESSOR: [
            ("unnormalizer_processor", {**normaliser, "features": outputs}),
            ("device_processor", {"device": "cpu", "float_dtype": None}),
        ],
    }
    for pipeline, entries in steps.items():
        document: dict[str, Any] = {"name": pipeline, "steps": []}
        for i, (step, config) in enumerate(entries):
            entry: dict[str, Any] = {"registry_name": step, "config": config}
            if step.endswith("normalizer_processor"):
                entry["state_file"] = f"{pipeline}_step_{i}_{step}.safetensors"
                save_file(state, folder / entry["state_file"])
            document["steps"].append(entry)
        (folder / f"{pipeline}.json").write_text(json.dumps(document, indent=2) + "\n")


def _read_lerobot(path: Path) -> Statistics | None:
    steps = read_json(path).get("steps")
    entries = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    step = next((step for step in entries if step.get("registry_name") == "normalizer_processor"), None)
    if step is None:
        raise UserError(f"{path}: found no step normalizer_processor, want the processors of a lerobot policy")
    if "state_file" not in step:
        return None  # saved before there was data: a base model
    config = step.get("config")
    norm_map = config.get("norm_map") if isinstance(config, dict) else None
    norm_map = norm_map if isinstance(norm_map, dict) else {}
    mode = norm_map.get("ACTION")
    if mode not in MODES or norm_map.get("STATE") != mode:
        raise UserError(
            f"{path}: norm_map: found {norm_map.get('STATE')} for STATE and {mode} for ACTION, "
            f"want the same for both, {' or '.join(MODES)}"
        )
    file = path.parent / Path(str(step["state_file"])).name
    tensors = read_tensors(file)
    first, second = KEYS[MODES[mode]]
    return _from_tensors(file, MODES[mode], tensors, {"action": "action", "proprio": "observation.state"}, (first, second))


def _read_buffers(folder: Path, tensors: Mapping[str, Tensor]) -> Statistics | None:
    places = {"action": "unnormalize_outputs.buffer_action", "proprio": "normalize_inputs.buffer_observation_state"}
    if not any(f"{place}.mean" in tensors for place in places.values()):
        return None
    keys = [f"{place}.{key}" for place in places.values() for key in ("mean", "std")]
    if not all(tensors[key].isfinite().all() for key in keys if key in tensors):
        return None  # lerobot fills them with infinity until there is data
    return _from_tensors(folder, "mean_std", tensors, places, ("mean", "std"))


def _from_tensors(
    path: Path,
    mode: Literal["mean_std", "quantiles"],
    tensors: Mapping[str, Tensor],
    places: dict[str, str],
    keys: tuple[str, str],
) -> Statistics:
    pairs = {}
    for name, place in places.items():
        for key, field in zip(keys, ("mean", "std") if mode == "mean_std" else ("p01", "p99"), strict=True):
            if f"{place}.{key}" not in tensors:
                raise UserError(f"{path}: found no {place}.{key}, want it for normalisation {mode}")
            pairs[f"{name}_{field}"] = tuple(tensors[f"{place}.{key}"].double().flatten().tolist())
    return _statistics(path, mode, pairs)


def _numbers(path: Path, document: Any, keys: tuple[str, str]) -> tuple[float, ...]:
    value = document
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise UserError(f"{path}: {'.'.join(keys)}: want a list of numbers")
    return tuple(float(number) for number in value)


def _statistics(path: Path, mode: Any, pairs: dict[str, tuple[float, ...]]) -> Statistics:
    if mode != "bounds":  # these may be padded like the model's entries
        pairs = {name: values[: ACTION_DIM if name.startswith("action") else PROPRIO_DIM] for name, values in pairs.items()}
    try:
        return Statistics(**pairs, normalisation=mode)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
