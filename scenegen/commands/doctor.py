"""`scenegen doctor`: what a build may need, and the cure for what is missing."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from scenegen.options import AssetOptions

DISK_GB = 2.0


def doctor(
    output: Path = Path("."),
    assets: AssetOptions = AssetOptions(),  # noqa: B008  (frozen)
) -> int:
    """Say what is there and what is missing: pictures, language model, EmbodiedGen, disk.

    Args:
        output: Where sets would be written.
        assets: Where objects would come from.
    """
    lines = [_disk(output), _pictures(), _llm(), _package("coacd", "imports of concave meshes", "assets"), _embodiedgen(assets)]
    for name, found, cure, _ in lines:
        print(f"{'missing' if cure else 'ok':<8}{name:<14}{found}{f': {cure}' if cure else ''}")
    return 2 if any(cure and required for _, _, cure, required in lines) else 0


Line = tuple[str, str, str, bool]
"""Name, what was found, the cure when it is not enough, whether a build needs it."""


def _disk(output: Path) -> Line:
    place = output.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    return "disk", f"{free:.1f} GB free at {output}", "" if free >= DISK_GB else f"make room for {DISK_GB:g} GB", True


def _pictures() -> Line:
    from scenegen.preview import Photographer

    try:
        Photographer()
    except RuntimeError as error:
        return "vulkan", str(error).splitlines()[0], "`genvla doctor --fix` installs a driver; needed for pictures only", False
    return "vulkan", "renders", "", False


def _llm() -> Line:
    if find_spec("openai") is None:
        return "llm", "no openai package", "pip install 'genvla[llm]'; needed for --designer llm and --judge only", False
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        return "llm", "a key or a server is set", "", False
    return (
        "llm",
        "no key",
        "set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of yours; for --designer llm and --judge only",
        False,
    )


def _package(name: str, purpose: str, extra: str) -> Line:
    if find_spec(name) is None:
        return name, "not installed", f"pip install 'genvla[{extra}]'; needed for {purpose} only", False
    return name, "installed", "", False


def _embodiedgen(assets: AssetOptions) -> Line:
    program = assets.embodiedgen_command.split()[0]
    found = shutil.which(program)
    cure = "" if found else "install EmbodiedGen in an environment of its own, and give --assets.embodiedgen_command"
    return "embodiedgen", found or f"no {program}", cure, "embodiedgen" in assets.engines
