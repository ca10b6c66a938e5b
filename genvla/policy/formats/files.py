"""Weights files, opened without running code from them and without reading what is not used: tensors are mapped from the file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from genvla.errors import UserError

INDEX = "model.safetensors.index.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
Device = Literal["cpu", "meta"]
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Names of precisions in a safetensors file; of other kinds of numbers no weights are made."""


def find_weights(path: Path) -> Path:
    """The weights file that a path means: itself, or in a folder model.safetensors, its index, or the only weights file."""
    if not path.is_dir():
        return path
    for name in ("model.safetensors", INDEX):
        if (path / name).is_file():
            return path / name
    found = sorted(
        file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith(("adapter_", "policy_"))
    )
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:3]) or "none"
        raise UserError(
            f"{path}: found {len(found)} weights files ({names}), want model.safetensors or {INDEX}, or a single file"
        )
    return found[0]


def read_tensors(path: Path, device: Device = "cpu") -> dict[str, Tensor]:
    """Name to tensor of a .safetensors file, of the shards of an index, or of a torch file (its `model` entry, if it has one).

    device: meta for names, shapes and precisions without the numbers, which are then not read.

    Raises:
        UserError: the file is missing, damaged, or holds anything that would have to be executed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, want a checkpoint: a policy folder, .safetensors, or .pt")
    if path.name.endswith(".index.json"):
        return _read_shards(path, device)
    return _read_safetensors(path, device) if path.suffix == ".safetensors" else _read_torch(path, device)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError if there is none."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: found no JSON ({error})") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: found a {type(document).__name__}, want an object")
    return document


def _read_safetensors(path: Path, device: Device) -> dict[str, Tensor]:
    try:
        return load_file(path) if device == "cpu" else _read_header(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error


def _read_header(path: Path) -> dict[str, Tensor]:
    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_slice(name)
            kind = _FLOATS.get(tensor.get_dtype(), torch.uint8)
            tensors[name] = torch.empty(tensor.get_shape(), dtype=kind, device="meta")
    return tensors


def _read_shards(path: Path, device: Device) -> dict[str, Tensor]:
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise UserError(f"{path}: weight_map: want the name of a file beside it for every tensor")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not (path.parent / name).is_file():
            raise UserError(f"{path.parent / name}: no such file, but {path.name} names it")
        tensors |= _read_safetensors(path.parent / name, device)
    lacking = [key for key in places if key not in tensors]
    if lacking:
        raise UserError(f"{path}: found no {', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''} in the files it names")
    return tensors


def _read_torch(path: Path, device: Device) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location=device, mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: found objects other than tensors, which loading would have to execute; not loaded") from error
    except Exception as error:  # a damaged archive surfaces as RuntimeError, EOFError, KeyError, ValueError, OSError ...
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path}: cannot be read as a torch checkpoint ({reason})") from error
    model = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(model, dict) or not model or not all(isinstance(value, Tensor) for value in model.values()):
        raise UserError(f"{path}: found no tensors, want a state dict under the key model")
    return {str(name): tensor for name, tensor in model.items()}
