"""What a user may say about where objects come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenegen.engines.base import AssetEngine
from scenegen.engines.chain import ChainEngine
from scenegen.errors import UserError

EngineName = Literal["procedural", "library", "embodiedgen", "embodiedgen-files"]


@dataclass(frozen=True)
class AssetOptions:
    """Where objects come from.

    Args:
        engines: Who makes them; where one cannot, the next is asked.
        library: Folder of the library of made objects, for the engine library.
        reuse: What the library may give for an object: one of the same kind, colour and material, or one that only looks alike.
        embodiedgen_command: EmbodiedGen's text-to-3D program with what comes before its arguments, such as
            "conda run -n embodiedgen text3d-cli".
        embodiedgen_output: Folder in which it writes and in which finished objects are found again.
        embodiedgen_timeout: Longest time for a batch of objects [s].
        embodiedgen_files: Folder of existing EmbodiedGen assets, for the engine embodiedgen-files.
    """

    engines: tuple[EngineName, ...] = ("procedural",)
    library: Path | None = None
    reuse: Literal["exact", "similar"] = "exact"
    embodiedgen_command: str = "text3d-cli"
    embodiedgen_output: Path = Path("embodiedgen")
    embodiedgen_timeout: float = 3600.0
    embodiedgen_files: Path | None = None

    @property
    def free(self) -> bool:
        """Whether things can be made that are in no catalogue."""
        return any(name.startswith("embodiedgen") for name in self.engines)

    def describe(self) -> str:
        """Names and versions of the engines, and what decides what they make."""
        engine = self.engine()
        return f"{engine.version} reuse={self.reuse}" if "library" in self.engines else engine.version

    def engine(self) -> ChainEngine:
        """Raises UserError for an engine that lacks its folder."""
        return ChainEngine([self._engine(name) for name in self.engines])

    def _engine(self, name: EngineName) -> AssetEngine:
        if name == "procedural":
            from scenegen.engines.procedural.engine import ProceduralEngine

            return ProceduralEngine()
        if name == "library":
            from scenegen.engines.library import LibraryEngine

            return LibraryEngine(_folder("library", self.library), self.reuse)
        from scenegen.engines.embodiedgen import EmbodiedGenEngine, EmbodiedGenFiles

        if name == "embodiedgen":
            return EmbodiedGenEngine(self.embodiedgen_output, self.embodiedgen_command, self.embodiedgen_timeout)
        return EmbodiedGenFiles(_folder("embodiedgen_files", self.embodiedgen_files))


def _folder(field: str, path: Path | None) -> Path:
    if path is None or not path.is_dir():
        raise UserError(f"assets.{field}: found {path}; wanted an existing folder")
    return path
