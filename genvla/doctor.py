"""`genvla doctor`: what an installation has, what it lacks, and the cure for each.

Imports nothing heavy before it is checked, so that it runs (also as `python -m genvla.doctor`) where nothing else does.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from genvla import vulkan

MEMORY_GB = 2.0
DISK_GB = 2.0

Mark = Literal["ok", "missing", "old"]

_STYLES = {"ok": "green", "missing": "red", "old": "yellow"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. What is not required may be missing without making the installation unfit."""

    name: str
    mark: Mark
    found: str
    cure: str = ""
    required: bool = True


def doctor(fix: bool = False) -> int:
    """Prints one line for each thing checked, with the cure where one is needed.

    Args:
        fix: install a Vulkan driver where there is none, as root or with a sudo that asks for no password.

    Returns:
        0 when everything required is there, else 2.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    unfit = False
    for check in checks(fix):
        finding = check()
        unfit |= finding.required and finding.mark != "ok"
        line = Text.assemble((f"{finding.mark:<8}", _STYLES[finding.mark]), f"{finding.name:<16}", finding.found)
        if finding.cure:
            line.append(f"{'' if finding.required else ' (optional)'}: {finding.cure}", "bold" if finding.required else "dim")
        console.print(line)
    return 2 if unfit else 0


def checks(fix: bool = False) -> list[Callable[[], Finding]]:
    """All checks, the quick ones first."""
    return [
        python,
        torch,
        lambda: package("Lightning", "lightning", "2.5"),
        lambda: package("ManiSkill", "mani_skill", "3.0.1"),
        lambda: package("SAPIEN", "sapien", "3.0.3"),
        lambda: package("MLflow", "mlflow", "3.7"),
        lambda: package("OpenAI client", "openai", "1.60", "pip install 'genvla[llm]', for scene design by a language model"),
        ffmpeg,
        robot,
        lambda: asset("robot meshes", "robots/widowx/wx250s.urdf", "widowx250s", "the official WidowX meshes, in place of boxes"),
        lambda: asset("Bridge scenes", "tasks/bridge_v2_real2sim_dataset", "bridge_v2_real2sim", "ManiSkill's Bridge tasks"),
        memory,
        disk,
        lambda: graphics(fix),
    ]


def python() -> Finding:
    """Python 3.11 or later."""
    return Finding("Python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")


def torch() -> Finding:
    """PyTorch and the device it would compute on."""
    finding = package("PyTorch", "torch", "2.6")
    if finding.mark != "ok":
        return finding
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "PyTorch", "missing", f"{finding.found}, cannot be imported: {error}", "pip install --force-reinstall torch"
        )
    if torch.cuda.is_available():
        return Finding("PyTorch", "ok", f"{torch.__version__}, {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    found = f"{torch.__version__}, CPU, {torch.get_num_threads()} threads"
    if vulkan.has_nvidia_gpu():
        return Finding(
            "PyTorch", "old", f"{found}, though there is an NVIDIA GPU", "install the CUDA build of torch", required=False
        )
    return Finding("PyTorch", "ok", found)


def package(name: str, distribution: str, minimum: str, extra: str = "") -> Finding:
    """An installed package of at least the minimum version; optional when `extra` says how it is got and what for."""
    required = not extra
    try:
        found = version(distribution)
    except PackageNotFoundError:
        return Finding(name, "missing", "not installed", extra or f"pip install '{distribution}>={minimum}'", required)
    if _release(found) < _release(minimum):
        return Finding(name, "old", found, f"pip install '{distribution}>={minimum}'", required)
    return Finding(name, "ok", found, required=required)


def ffmpeg() -> Finding:
    """The encoder of the videos, which comes with imageio-ffmpeg."""
    try:
        import imageio_ffmpeg

        return Finding("ffmpeg", "ok", imageio_ffmpeg.get_ffmpeg_version())
    except (ImportError, RuntimeError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "missing", str(error), "pip install imageio-ffmpeg")


def robot() -> Finding:
    """The robot description that ships with the package."""
    try:
        from genvla.robots.wx250s import urdf_path

        joints = len(ElementTree.parse(urdf_path()).findall("joint"))
    except (ImportError, OSError, ElementTree.ParseError) as error:
        return Finding("WidowX 250S", "missing", f"{error}", "reinstall genvla: the URDF is package data")
    return Finding("WidowX 250S", "ok", f"{urdf_path().name}, {joints} joints")


def asset(name: str, path: str, download: str, purpose: str) -> Finding:
    """Something ManiSkill can download, below its asset directory ($MS_ASSET_DIR)."""
    folder = Path(os.environ.get("MS_ASSET_DIR", Path.home() / ".maniskill")) / "data"
    if (folder / path).exists():
        return Finding(name, "ok", path, required=False)
    cure = f"python -m mani_skill.utils.download_asset {download}, for {purpose}"
    return Finding(name, "missing", "not downloaded", cure, required=False)


def memory() -> Finding:
    """Free memory, of the container where that has a limit."""
    try:
        import psutil
    except ImportError:
        return Finding("memory", "missing", "psutil is not installed", "pip install psutil")
    free = min(psutil.virtual_memory().available, _container_memory()) / 1e9
    return _amount("memory", free, MEMORY_GB, "close other programs, or train with fewer environments")


def disk() -> Finding:
    """Free disk where the command is run, as runs and scenes are written there."""
    return _amount("disk", shutil.disk_usage(Path.cwd()).free / 1e9, DISK_GB, "free some space")


def graphics(fix: bool = False) -> Finding:
    """A Vulkan device that renders; with `fix`, and none found, a driver is installed first."""
    device = vulkan.probe()
    nvidia = vulkan.has_nvidia_gpu()
    script = vulkan.install_script(nvidia=nvidia)
    if isinstance(device, str) and fix and script is not None:
        print("        Vulkan          installing a driver, this takes a minute", flush=True)
        failure = vulkan.install(script)
        device = f"{device}; the installation failed: {failure}" if failure else vulkan.probe()
    if isinstance(device, vulkan.Device):
        slow = ", software rendering though there is an NVIDIA GPU" if nvidia and device.software else ""
        return Finding("Vulkan", "ok", f"{device.name}, {device.driver}{slow}")
    mesa = vulkan.mesa_version()
    old = not nvidia and mesa is not None and _release(mesa) < _release(vulkan.MESA_MINIMUM)
    found = f"Mesa {mesa}: {device}" if old else device
    cure = vulkan.by_hand(script) if script else f"install Mesa's Vulkan drivers, version {vulkan.MESA_MINIMUM} or later"
    if nvidia:
        cure += "; NVIDIA's driver must come with its Vulkan part (in containers, NVIDIA_DRIVER_CAPABILITIES=all)"
    return Finding("Vulkan", "old" if old else "missing", found, cure)


def _amount(name: str, free_gb: float, wanted_gb: float, cure: str) -> Finding:
    if free_gb < wanted_gb:
        return Finding(name, "missing", f"{free_gb:.1f} GB free, {wanted_gb:.0f} GB wanted", cure)
    return Finding(name, "ok", f"{free_gb:.1f} GB free")


def _container_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that the cgroup (version 2) still allows; infinite without a limit."""
    try:
        return float((cgroup / "memory.max").read_text()) - float((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")


def _release(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "2.13.0+cpu" is (2, 13, 0), and 25.0.7-2~bpo12 is (25, 0, 7)."""
    numbers = []
    for part in text.split("."):
        digits = "".join(character for character in part.split("-")[0].split("+")[0] if character.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m genvla.doctor", description=doctor.__doc__)
    parser.add_argument("--fix", action="store_true", help="install a Vulkan driver where there is none")
    raise SystemExit(doctor(parser.parse_args().fix))
