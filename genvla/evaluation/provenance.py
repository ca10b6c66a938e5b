"""Where a result comes from: digests of the files that went in, and the versions of the packages that ran."""

from __future__ import annotations

from hashlib import file_digest, sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("genvla", "torch", "mani_skill", "sapien", "numpy")


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder: of the relative names and digests of all files in it, in the order of their names.

    Hidden files are left out: they are what file browsers and interrupted writers leave behind.
    """
    path = Path(path)
    if path.is_file():
        return _of_file(path)
    whole = sha256()
    for file in sorted(path.rglob("*"), key=lambda file: file.relative_to(path).as_posix()):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            whole.update(f"{relative.as_posix()}\0{_of_file(file)}\n".encode())
    return whole.hexdigest()


def scene_set_digest(scenes: Path) -> str:
    """SHA-256 of a scene set's content, the same when its recipe is built again; of `simpler` that of ManiSkill's assets; empty
    where there is no such folder, since the scenes come from elsewhere then.

    Raises:
        scenegen's UserError: what lies in the folder is no scene set.
    """
    from genvla.sim import simpler
    from scenegen.loader import load_scene_set

    if simpler.is_simpler(scenes):
        return digest(simpler.assets_folder())
    return load_scene_set(scenes).digest() if Path(scenes).exists() else ""


def versions() -> dict[str, str]:
    """Versions of the packages that decide what an episode looks like; those that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
