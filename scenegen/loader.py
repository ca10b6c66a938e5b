"""Read scenes for a simulator: checked, with absolute paths. Needs numpy and pydantic only."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from scenegen.errors import UserError
from scenegen.manifest import scene_digest
from scenegen.schema import MANIFEST_FILE, SCENE_FILE, AssetRecord, ManifestLine, Role, SceneBundle

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class SceneObject:
    """A movable object: its entry in scene.json with the files found. See `AssetRecord` for grasp, goal and physics."""

    id: str
    role: Role
    name: str
    visual: Path
    collision: Path
    asset: AssetRecord


@dataclass(frozen=True)
class Scene:
    """One scene. poses [k, n, 7] are world x, y, z, qw, qx, qy, qz of the n objects in k start placements; offsets [k, n,
    2] are their planar distances [m] from nominal."""

    bundle: SceneBundle
    folder: Path
    objects: tuple[SceneObject, ...]
    table_visual: Path
    room_visual: Path
    poses: NDArray[np.float32]
    offsets: NDArray[np.float32]

    @property
    def id(self) -> str:
        return self.bundle.scene_id

    @property
    def instruction(self) -> str:
        return self.bundle.instruction

    @property
    def target_index(self) -> int:
        return self._index(self.bundle.graph.goal.subject)

    @property
    def destination_index(self) -> int:
        return self._index(self.bundle.graph.goal.object)

    def _index(self, object_id: str) -> int:
        return next(i for i, entry in enumerate(self.objects) if entry.id == object_id)


@dataclass(frozen=True)
class SceneSet:
    """The scenes of a folder, in the order of the manifest. Scenes are read when asked for."""

    folder: Path
    lines: tuple[ManifestLine, ...]

    def __len__(self) -> int:
        return len(self.lines)

    def ids(self, split: str = "all") -> list[str]:
        """Scene ids of split "train", "heldout" or "all"."""
        if split not in ("train", "heldout", "all"):
            raise UserError(f"split: found {split!r}; wanted train, heldout or all")
        return [line.id for line in self.lines if split in ("all", line.split)]

    def digest(self) -> str:
        """SHA-256 over the scenes as they lie there, with ids and splits in the manifest's order.

        The build's log, reports and preview pictures are no part of it: the same recipe built again has the same digest.
        """
        whole = sha256()
        for line in self.lines:
            whole.update(f"{line.id}\0{line.split}\0{scene_digest(self.folder / line.path)}\n".encode())
        return whole.hexdigest()

    def load(self, scene_id: str) -> Scene:
        for line in self.lines:
            if line.id == scene_id:
                return load_scene(self.folder / line.path)
        raise UserError(f"{self.folder / MANIFEST_FILE}: no scene {scene_id!r} among {len(self.lines)}")

    def __iter__(self) -> Iterator[Scene]:
        return (load_scene(self.folder / line.path) for line in self.lines)


def load_scene_set(directory: str | Path) -> SceneSet:
    """Read `scene_set.jsonl` in `directory`. Raises UserError when it is missing, malformed or names scenes that are not
    there."""
    folder = Path(directory).absolute()
    manifest = folder / MANIFEST_FILE
    if not manifest.is_file():
        raise UserError(f"{manifest}: not found; wanted a folder written by `scenegen build`")
    lines = []
    for number, text in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        line = _parse(ManifestLine, text, f"{manifest}:{number}")
        if not (folder / line.path / SCENE_FILE).is_file():
            raise UserError(f"{manifest}:{number}: path: {line.path}/{SCENE_FILE} does not exist")
        lines.append(line)
    if not lines:
        raise UserError(f"{manifest}: holds no scene; wanted at least one")
    if len({line.id for line in lines}) != len(lines):
        raise UserError(f"{manifest}: id: the same scene is listed twice")
    return SceneSet(folder, tuple(lines))


def load_scene(path: str | Path) -> Scene:
    """Read one scene from its folder or its scene.json. Raises UserError naming file and field when anything is missing
    or wrong."""
    file = Path(path).absolute()
    file = file / SCENE_FILE if file.is_dir() else file
    if not file.is_file():
        raise UserError(f"{file}: not found; wanted a scene folder with a {SCENE_FILE}")
    bundle = _parse(SceneBundle, file.read_text(encoding="utf-8"), str(file))
    folder = file.parent

    def found(relative: str, field: str) -> Path:
        if not (folder / relative).is_file():
            raise UserError(f"{file}: {field}: {relative} does not exist")
        return folder / relative

    objects = []
    for i, entry in enumerate(bundle.objects):
        files = {key: found(value, f"objects.{i}.asset.files.{key}") for key, value in entry.asset.files.model_dump().items()}
        objects.append(SceneObject(entry.id, entry.role, entry.name, files["visual"], files["collision"], entry.asset))
    found(bundle.context.texture, "context.texture")
    found(bundle.background.texture, "background.texture")
    poses, offsets = _read_bank(found(bundle.layout.poses_file, "layout.poses_file"), bundle.layout.count, len(objects))
    if bundle.context.collision is not None:
        found(bundle.context.collision, "context.collision")
    table = found(bundle.context.visual, "context.visual")
    return Scene(bundle, folder, tuple(objects), table, found(bundle.background.visual, "background.visual"), poses, offsets)


def _read_bank(file: Path, count: int, n_objects: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    arrays = []
    try:
        with np.load(file, allow_pickle=False) as archive:
            for key, width in (("poses", 7), ("offsets", 2)):
                if key not in archive:
                    raise UserError(f"{file}: {key}: missing; found {sorted(archive)}")
                arrays.append(archive[key])
                wanted = (count, n_objects, width)
                if arrays[-1].shape != wanted or arrays[-1].dtype != np.float32:
                    raise UserError(f"{file}: {key}: found {arrays[-1].dtype} {arrays[-1].shape}; wanted float32 {wanted}")
                if not np.isfinite(arrays[-1]).all():
                    raise UserError(f"{file}: {key}: holds values that are not finite")
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: not a readable npz file: {error}") from None
    return arrays[0], arrays[1]


def _parse(model: type[M], text: str, where: str) -> M:
    try:
        return model.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON: {error.msg} at line {error.lineno}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole)"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        found = "" if first["type"] == "missing" or isinstance(first["input"], dict) else f"; found {first['input']!r:.80}"
        raise UserError(f"{where}: {field}: {first['msg']}{found}{more}") from None
