"""Policies on disk. Our own format is a folder with model.safetensors, config.json and the tokenizer's file if it has one; other
projects' checkpoints load as well (genvla.policy.formats). Loading runs no code from any file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from genvla.errors import UserError
from genvla.policy.adapters import base_state, load_adapters, save_adapters
from genvla.policy.flow_policy import FlowPolicy, FlowPolicyConfig
from genvla.policy.formats.files import read_tensors
from genvla.policy.formats.load import inspect_foreign, load_foreign
from genvla.policy.formats.shapes import misfits
from genvla.policy.tokenizer import PaligemmaTokenizer

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "genvla-policy", 1


def save_policy(policy: FlowPolicy, folder: Path | str) -> None:
    """Write the policy to a folder, which is replaced if it exists; complete or not at all."""
    with new_folder(Path(folder), CONFIG) as temporary:
        state = {key: value.detach().cpu().contiguous() for key, value in base_state(policy).items()}
        save_file(state, temporary / WEIGHTS, metadata={"format": "pt"})
        save_adapters(policy, temporary)
        document = {"format": FORMAT, "version": VERSION, **asdict(policy.config)}
        (temporary / CONFIG).write_text(json.dumps(document, indent=2) + "\n")
        policy.processor.save_tokenizer(temporary)


def load_policy(
    path: Path | str, *, dtype: torch.dtype | None = None, seed: int = 0, tokenizer: Path | str | None = None
) -> FlowPolicy:
    """The policy of our own folder or of another project's file or folder, on the CPU, in the precision it was saved in.

    Args:
        path: a folder that save_policy wrote; or a checkpoint of open-pi-zero (.pt), openpi, lerobot or PaliGemma (safetensors,
            their index, or the folder they lie in).
        dtype: another precision for pi0; the heads keep theirs.
        seed: of the parts that other projects' checkpoints lack: the noise and value heads, and for PaliGemma the action expert.
        tokenizer: PaliGemma's tokenizer file, its folder, or a repository of the model hub, if none lies beside the weights.

    Raises:
        UserError: a file is missing, unreadable, of another version, or its contents do not fit together.
    """
    path = Path(path)
    own = _own_folder(path)
    policy = load_foreign(path, dtype=dtype, seed=seed) if own is None else _load_own(own)
    if tokenizer is not None:
        policy.processor.load_tokenizer(tokenizer)
    if own is not None and dtype is not None:
        policy.pi0.to(dtype)
    return policy


def inspect_policy(path: Path | str) -> FlowPolicy:
    """The policy that load_policy would load, on the meta device and without adapters. Reads names and shapes, no weights.

    Raises:
        UserError: as load_policy.
    """
    path = Path(path)
    own = _own_folder(path)
    if own is None:
        return inspect_foreign(path)
    policy = _empty(own)
    policy.load_state_dict(read_tensors(own / WEIGHTS, "meta"), assign=True)
    return policy


def _own_folder(path: Path) -> Path | None:
    """The policy folder that is meant, None if the path is for another project's checkpoint."""
    if path.is_file():
        return path.parent if path.name == WEIGHTS and _is_ours(path.parent / CONFIG) else None
    other = path.is_dir() and (any(path.glob("*.*")) if not (path / CONFIG).is_file() else not _is_ours(path / CONFIG))
    return None if other else path


def _is_ours(config: Path) -> bool:
    """Whether a config.json is meant to be ours, broken or not: other projects' have no `format`."""
    try:
        document = json.loads(config.read_text())
    except OSError:
        return False
    except ValueError:
        return True
    return not isinstance(document, dict) or "format" in document


def _empty(folder: Path) -> FlowPolicy:
    """The policy of a folder of ours on the meta device; its weights are there and fit."""
    with torch.device("meta"):
        policy = FlowPolicy.from_config(load_config(folder))
    _check_weights(folder / WEIGHTS, {key: tuple(value.shape) for key, value in policy.state_dict().items()})
    return policy


def _load_own(folder: Path) -> FlowPolicy:
    policy = _empty(folder)
    # Memory of its own is aligned as it was before saving, without which results differ in the last bit.
    weights = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
    policy.load_state_dict(weights, assign=True)
    load_adapters(policy, folder)
    if policy.config.processor.tokenizer == "paligemma" and any((folder / name).is_file() for name in PaligemmaTokenizer.FILES):
        policy.processor.load_tokenizer(folder)
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
    if problems := misfits(found, wanted):
        raise UserError(f"{path}: weights do not fit {CONFIG}: {problems}")


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


@contextmanager
def new_folder(folder: Path, mark: str) -> Iterator[Path]:
    """A temporary folder to write to; it takes the place of `folder` when the block ends well, else is removed.

    Raises:
        UserError: the folder holds something, and not the file `mark` by which it is known to be one of this kind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not (folder / mark).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is no policy folder (no {mark}), want a new or empty folder to write to")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())  # it and the weights were made for their owner's eyes only
        for file in temporary.iterdir():
            file.chmod(0o666 & ~_umask())
        _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
