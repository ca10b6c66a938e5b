"""Policies on disk, in our own format: a folder with model.safetensors and config.json. Loading runs no code from the folder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from genvla.errors import UserError
from genvla.policy.flow_policy import FlowPolicy, FlowPolicyConfig

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "genvla-policy", 1


def save_policy(policy: FlowPolicy, folder: Path | str) -> None:
    """Write the policy to a folder, which is replaced if it exists; complete or not at all."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / CONFIG).exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: exists and is no policy folder (no {CONFIG}), want a new or empty folder to write to")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        state = {key: value.detach().cpu().contiguous() for key, value in policy.state_dict().items()}
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        document = {"format": FORMAT, "version": VERSION, **asdict(policy.config)}
        (temporary / CONFIG).write_text(json.dumps(document, indent=2) + "\n")
        temporary.chmod(0o777 & ~_umask())  # both were made for their owner's eyes only
        (temporary / WEIGHTS).chmod(0o666 & ~_umask())
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_policy(folder: Path | str) -> FlowPolicy:
    """The policy of a folder, on the CPU, in the precision it was saved in.

    Raises:
        UserError: a file is missing, unreadable, of another version, or its contents do not fit together.
    """
    folder = Path(folder)
    config = load_config(folder)
    with torch.device("meta"):
        policy = FlowPolicy.from_config(config)
    path = folder / WEIGHTS
    wanted = {key: tuple(value.shape) for key, value in policy.state_dict().items()}
    _check_weights(path, wanted)
    # Memory of its own is aligned as it was before saving, without which results differ in the last bit.
    weights = {key: value.clone() for key, value in load_file(path).items()}
    policy.load_state_dict(weights, assign=True)
    return policy


def load_config(folder: Path | str) -> FlowPolicyConfig:
    """The config of a policy folder; UserError if it does not fit this version's classes."""
    path = Path(folder) / CONFIG
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}, want a policy folder with {CONFIG} and {WEIGHTS}") from error
    except ValueError as error:
        raise UserError(f"{path}: found no JSON ({error})") from error
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise UserError(f"{path}: format: want {FORMAT!r}")
    if (version := document.pop("version", None)) != VERSION:
        raise UserError(f"{path}: version: found {version!r}, want {VERSION}")
    try:
        return _parse(FlowPolicyConfig, document, "config")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _check_weights(path: Path, wanted: dict[str, tuple[int, ...]]) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file, want the weights of the policy") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from error
    problems = []
    for title, keys in (
        ("missing", [key for key in wanted if key not in found]),
        ("unexpected", [key for key in found if key not in wanted]),
        (
            "of another shape",
            [f"{key} (found {found[key]}, want {wanted[key]})" for key in wanted if key in found and found[key] != wanted[key]],
        ),
    ):
        if keys:
            problems.append(f"{len(keys)} {title}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}")
    if problems:
        raise UserError(f"{path}: weights do not fit {CONFIG}: {'; '.join(problems)}")


def _parse(kind: Any, value: Any, where: str) -> Any:
    """A value read from JSON as the annotated type, dataclasses and tuples included; anything else is a UserError."""
    origin = get_origin(kind)
    if is_dataclass(kind):
        return _parse_dataclass(kind, value, where)
    if origin in (Union, UnionType):
        inner = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else _parse(inner[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_parse(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Literal and value in get_args(kind):
        return value
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    wanted = " or ".join(map(repr, get_args(kind))) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise UserError(f"{where}: found {value!r}, want {wanted}")


def _parse_dataclass(kind: Any, value: Any, where: str) -> Any:
    names = {field.name: field for field in fields(kind)}
    unknown = sorted(set(value) - set(names)) if isinstance(value, dict) else value
    if not isinstance(value, dict) or unknown:
        raise UserError(f"{where}: found {unknown!r}, want {', '.join(names)}")
    required = [n for n, field in names.items() if field.default is MISSING and n not in value]
    if required:
        raise UserError(f"{where}: want {', '.join(required)}")
    hints = get_type_hints(kind)
    return kind(**{name: _parse(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _replace(folder: Path, temporary: Path) -> None:
    """Put temporary in folder's place; what was there goes only when the new one stands."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old / "policy")
    try:
        temporary.rename(folder)
    except OSError:
        (old / "policy").rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
