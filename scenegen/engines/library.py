"""Made objects, kept for other scenes: a store in which an object lies under a digest of its content, an index of it for
searching, and the engine that takes from it.

    objects/ab/<id>/{asset.json, asset.urdf, mesh/...}    the truth; `ab` are the first two digits
    index.sqlite                                          made anew from the objects when missing or broken

The id of an object is `content_id` of its files: the same whatever its node was called, so that an object that comes back with a
scene that took it from here is known again, and that any asset of any scene can be traced to the library.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from pydantic import ValidationError

from scenegen.engines.base import EngineError
from scenegen.engines.library_index import Index, Row
from scenegen.engines.writing import asset_files, files_digest, place, result_folder
from scenegen.errors import UserError
from scenegen.files import locked
from scenegen.loader import Scene
from scenegen.mesh.writers import MATERIAL_FILE, TEXTURE_FILE, urdf
from scenegen.palette import PALETTE, plainly_different
from scenegen.schema import AssetFiles, AssetRecord, Model, NodeSpec, Role
from scenegen.seeds import derive_seed

NEUTRAL = "asset"
"""The name that a stored object has."""

FILES = AssetFiles(
    urdf=f"{NEUTRAL}.urdf",
    visual=f"mesh/{NEUTRAL}.obj",
    collision=f"mesh/{NEUTRAL}_collision.obj",
    material=f"mesh/{MATERIAL_FILE}",
    texture=f"mesh/{TEXTURE_FILE}",
)
FROM_LIBRARY = "+library."


class StoredAsset(Model):
    """The content of `asset.json`: the record of an object as its maker gave it, but for the names of its files; the node it was
    made for; the licence it is under, if known."""

    record: AssetRecord
    spec: NodeSpec
    license: str = ""


@dataclass(frozen=True)
class Verification:
    """What is wrong with a library: objects whose content is not what their id says, with why; ids in the index without an
    object; objects that are not in the index; remains of writers that died."""

    objects: int
    damaged: dict[str, str]
    dangling: list[str]
    unindexed: list[str]
    leftovers: list[str]

    @property
    def ok(self) -> bool:
        return not (self.damaged or self.dangling or self.unindexed or self.leftovers)


def content_id(files: Sequence[bytes]) -> str:
    """SHA-256 of an asset's files (urdf, visual, collision, material, texture) without what they are called: of the URDF only
    mass, inertia and friction count, of the visual all but its `o` line."""
    description, visual, *others = files
    physics = [line.strip() for line in description.splitlines() if line.strip().startswith((b"<mass", b"<inertia ", b"<gazebo"))]
    shape = [line for line in visual.splitlines() if not line.startswith(b"o ")]
    parts = [b"\n".join(physics), b"\n".join(shape), *others]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


class Library:
    """A library in a folder, made when it is not there. Any number of processes may read and add at the same time. An instance
    holds nothing open."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.objects = self.root / "objects"
        self.objects.mkdir(parents=True, exist_ok=True)
        self.index = Index(self.root / "index.sqlite", self._rows)

    def add(self, folder: Path, record: AssetRecord, spec: NodeSpec, license: str = "") -> str:
        """Keep an asset whose files lie below `folder`, and give its id; nothing changes when it is there. Raises UserError when
        the files are not those that the record describes."""
        names = list(record.files.model_dump().values())
        files = [_read(folder, name) for name in names]
        if files_digest(dict(zip(names, files, strict=True))) != record.asset_id:
            raise UserError(f"{folder / record.files.urdf}: asset_id: the files have changed since they were described")
        library_id = content_id(files)
        version = record.engine_version.split(FROM_LIBRARY)[0]
        stored = StoredAsset(
            record=record.model_copy(update={"files": FILES, "engine_version": version}), spec=spec, license=license
        )
        contents = dict(zip(FILES.model_dump().values(), _renamed(files, record, spec, NEUTRAL), strict=True))
        with self._lock():
            if not self._folder(library_id).is_dir():
                contents["asset.json"] = (stored.model_dump_json(indent=1) + "\n").encode()
                place(self._folder(library_id), contents)
            self.index.insert(_row(library_id, self.get(library_id)))
        return library_id

    def add_scene(self, scene: Scene, license: str = "") -> list[str]:
        """Keep all assets of a scene."""
        graph = scene.bundle.graph
        return [self.add(scene.folder, entry.asset, graph.node(entry.id), license) for entry in scene.bundle.objects]

    def get(self, library_id: str) -> StoredAsset:
        """Raises UserError when there is no such object or its description is damaged."""
        file = self._folder(library_id) / "asset.json"
        if not file.is_file():
            raise UserError(f"{self.root}: holds no object {library_id}")
        try:
            return StoredAsset.model_validate(json.loads(file.read_bytes()))
        except (ValidationError, ValueError) as error:
            raise UserError(f"{file}: not a description of an asset: {str(error).splitlines()[0]}") from None

    def search(
        self,
        text: str = "",
        *,
        category: str | None = None,
        color: str | None = None,
        material: str | None = None,
        size: str | None = None,
        limit: int | None = 20,
    ) -> list[Row]:
        """Objects in whose category, name, description, colour and material all words of `text` begin some word, the best match
        first; by id when no text is given."""
        fields = {"category": category, "color": color, "material": material, "size": size}
        return self.index.search(text, {name: value for name, value in fields.items() if value is not None}, limit)

    def put(self, library_id: str, spec: NodeSpec, folder: Path) -> AssetRecord:
        """Write an object as the asset of a node below `folder`. Its files read as if made for that node; those that name no node
        are hard links where possible. The record keeps the engine that made it and appends the library's id to its version."""
        record, source = self.get(library_id).record, self._folder(library_id)
        files = [_read(source, name) for name in FILES.model_dump().values()]
        if content_id(files) != library_id:
            raise EngineError(f"{source}: damaged: its content is not what its id says")
        names = asset_files(spec.id)
        base = Path(result_folder(spec.id))
        relative = [Path(name).relative_to(base).as_posix() for name in names.model_dump().values()]
        contents = dict(zip(relative, _renamed(files, record, spec, spec.id), strict=True))
        shared = {here: source / there for here, there in list(zip(relative, FILES.model_dump().values(), strict=True))[2:]}
        place(folder / base, {name: contents[name] for name in relative[:2]}, shared)
        self.index.use(library_id)
        version = f"{record.engine_version}{FROM_LIBRARY}{library_id[:16]}"
        return record.model_copy(update={"asset_id": files_digest(contents), "files": names, "engine_version": version})

    def verify(self) -> Verification:
        """Read every object and compare."""
        ids, damaged = sorted(self._ids()), {}
        for library_id in ids:
            try:
                self.get(library_id)
                files = [_read(self._folder(library_id), name) for name in FILES.model_dump().values()]
                if content_id(files) != library_id:
                    damaged[library_id] = "its content is not what its id says"
            except UserError as error:
                damaged[library_id] = str(error)
        indexed = {row.id for row in self.index.search("", {}, None)}
        leftovers = sorted(path.relative_to(self.root).as_posix() for path in self.objects.glob("*/.*"))
        return Verification(len(ids), damaged, sorted(indexed - set(ids)), sorted(set(ids) - indexed - set(damaged)), leftovers)

    def rebuild(self) -> None:
        """Make the index anew from the objects and clear remains of writers that died."""
        with self._lock():
            for path in self.objects.glob("*/.*"):
                shutil.rmtree(path, ignore_errors=True)
            self.index.rebuild()

    def remove(self, library_id: str) -> None:
        """Scenes keep their copies."""
        folder = self._folder(library_id)
        with self._lock():
            if not folder.is_dir():
                raise UserError(f"{self.root}: holds no object {library_id}")
            doomed = folder.with_name(f".{folder.name}.removed")
            folder.rename(doomed)
            shutil.rmtree(doomed)
            self.index.delete(library_id)

    def prune(self) -> list[str]:
        """Remove the objects that no scene has taken since the index was last made anew, and name them."""
        unused = [row.id for row in self.index.search("", {}, None) if row.times_used == 0]
        for library_id in unused:
            self.remove(library_id)
        return unused

    def stats(self) -> dict[str, int | dict[str, int]]:
        """Objects, their bytes, how often they were taken, and how many there are by category, colour and engine."""
        rows = self.index.search("", {}, None)
        size = sum(path.stat().st_size for path in self.objects.rglob("*") if path.is_file())
        counts: dict[str, dict[str, int]] = {"category": {}, "color": {}, "engine": {}}
        for row in rows:
            for field, count in counts.items():
                value = str(getattr(row, field))
                count[value] = count.get(value, 0) + 1
        return {"objects": len(rows), "bytes": size, "times_used": sum(row.times_used for row in rows)} | counts

    def _folder(self, library_id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", library_id):
            raise UserError(f"{self.root}: id: found {library_id!r}; wanted 64 hexadecimal digits")
        return self.objects / library_id[:2] / library_id

    def _ids(self) -> list[str]:
        return [path.name for path in self.objects.glob("[0-9a-f][0-9a-f]/*") if re.fullmatch(r"[0-9a-f]{64}", path.name)]

    def _rows(self) -> Iterator[Row]:
        """All objects that can be read, for the index."""
        for library_id in sorted(self._ids()):
            try:
                yield _row(library_id, self.get(library_id))
            except UserError:
                continue  # `verify` names it

    def _lock(self) -> AbstractContextManager[None]:
        """One writer at a time."""
        return locked(self.root / ".lock")


class LibraryEngine:
    """Takes objects from a library. `exact`: of the node's category, and of its colour, material and size where it names them.
    `similar`: of its category and not plainly of another colour; those that fit exactly first.

    What is taken depends on the seed and on what the library holds. No object is taken twice for one scene: those that lie below
    `folder` already are passed over, so that the nodes of a scene are to be made one after the other.
    """

    name = "library"
    version = "1"

    def __init__(self, library: Library | Path, reuse: Literal["exact", "similar"] = "exact") -> None:
        if reuse not in ("exact", "similar"):
            raise UserError(f"reuse: found {reuse!r}; wanted exact or similar")
        self.library = library if isinstance(library, Library) else Library(library)
        self.reuse = reuse

    def supports(self, spec: NodeSpec) -> float:
        misses = [self._misses(row, spec) for row in self._fitting(spec)]
        return 0.0 if not misses else 1.0 if min(misses) == 0 else 0.8

    def generate(self, spec: NodeSpec, seed: int, attempt: int, folder: Path, feedback: Sequence[str] = ()) -> AssetRecord:
        """See `AssetEngine`."""
        rows = self._fitting(spec)
        taken = _ids_below(folder, spec.id)
        free = [row for row in rows if row.id not in taken]
        if attempt >= len(free):
            found = f"{len(rows)} that fit, {len(rows) - len(free)} of them in this scene"
            raise EngineError(f"node {spec.id}: the library holds {found}; wanted another for attempt {attempt}")
        free.sort(key=lambda row: (self._misses(row, spec), derive_seed(seed, spec.id, row.id)))
        try:
            return self.library.put(free[attempt].id, spec, folder)
        except UserError as error:
            raise EngineError(str(error)) from None

    def _fitting(self, spec: NodeSpec) -> list[Row]:
        rows = self.library.search(category=spec.category, limit=None)
        rows = [row for row in rows if _serves(row, spec)]
        if self.reuse == "exact":
            return [row for row in rows if self._misses(row, spec) == 0]
        return [row for row in rows if spec.color is None or not _differ(row.color, spec.color)]

    @staticmethod
    def _misses(row: Row, spec: NodeSpec) -> int:
        """How much of what the node names is otherwise; colour counts most."""
        wanted = ((4, spec.color, row.color), (2, spec.material, row.material), (1, spec.size, row.size))
        return sum(weight for weight, asked, has in wanted if asked is not None and asked != has)


def _serves(row: Row, spec: NodeSpec) -> bool:
    """Whether an object can play the node's part."""
    return (
        (row.graspable or not spec.graspable)
        and (row.container or not spec.container)
        and (row.carries or spec.role is not Role.DESTINATION)
    )


def _differ(a: str, b: str) -> bool:
    return a != b if a not in PALETTE or b not in PALETTE else plainly_different(a, b)


def _ids_below(folder: Path, node_id: str) -> set[str]:
    """The library's ids of the assets that the other nodes of a scene have."""
    ids = set()
    for result in (folder / "asset3d").glob("*/result"):
        slug = result.parent.name
        paths = [folder / name for name in asset_files(slug).model_dump().values()]
        if slug != node_id and all(path.is_file() for path in paths):
            ids.add(content_id([path.read_bytes() for path in paths]))
    return ids


def _read(folder: Path, name: str) -> bytes:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{folder}: {name}: lies outside the folder")
    if not path.is_file():
        raise UserError(f"{folder}: {name}: does not exist")
    return path.read_bytes()


def _renamed(files: Sequence[bytes], record: AssetRecord, spec: NodeSpec, name: str) -> list[bytes]:
    """The files of an asset as they are for a node of that name."""
    lines = [b"o " + name.encode() if line.startswith(b"o ") else line for line in files[1].split(b"\n")]
    description = urdf(name, record.physics, escape(spec.category), escape(spec.description)).encode()
    return [description, b"\n".join(lines), *files[2:]]


def _row(library_id: str, stored: StoredAsset) -> Row:
    record, spec = stored.record, stored.spec
    return Row(
        id=library_id,
        category=record.category,
        name=spec.name,
        description=spec.description,
        color=record.color,
        material=record.material,
        size=spec.size or "",
        engine=record.engine,
        license=stored.license,
        longest_m=max(record.extents_m),
        graspable=record.graspable,
        container=record.cavity is not None,
        carries=record.goal_point is not None,
    )
