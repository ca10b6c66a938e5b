"""The Vulkan device that SAPIEN renders with: is there one, and the one command that gives this machine one.

Without an NVIDIA GPU that is Mesa's software driver, lavapipe. SAPIEN fails on the versions before Mesa 25,
so Debian 12 takes it from its backports.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 300.0
"""Far more than the ten seconds that compiling the shaders takes on two cores: the machine may be busy."""

MESA_MINIMUM = "25.0"
"""The first version of Mesa whose software driver SAPIEN 3.0.3 was seen to work with."""

_PROBE = """
import json
import cv2  # which ManiSkill needs, and which needs the system's libGL
import sapien

scene = sapien.Scene()
scene.set_ambient_light([1.0, 1.0, 1.0])
scene.add_ground(0.0)
camera = scene.add_camera("camera", 8, 8, 1.0, 0.01, 10.0)
camera.set_entity_pose(sapien.Pose([0.0, 0.0, 1.0], [0.70710678, 0.0, 0.70710678, 0.0]))
scene.update_render()
camera.take_picture()
picture = camera.get_picture("Color")
print("\\n" + json.dumps({"name": scene.render_system.device.name, "brightness": float(picture[..., :3].mean())}))
"""

_LIBRARIES = ("libvulkan1", "libx11-6", "libxext6", "libegl1", "libgl1", "libglib2.0-0")
_DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BACKPORTS_FILE = "genvla-backports.sources"


@dataclass(frozen=True)
class Device:
    """A Vulkan device that has rendered a picture."""

    name: str
    driver: str

    @property
    def software(self) -> bool:
        return "llvmpipe" in self.name


@dataclass(frozen=True)
class AptSource:
    """One repository of apt's sources, as far as another suite of the same repository needs it."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str | None


def probe(timeout: float = PROBE_SECONDS) -> Device | str:
    """Renders 8x8 pixels with SAPIEN, in a process of its own since a bad driver may crash it.

    Returns the device, or the reason why there is none.
    """
    try:
        result = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"rendering 8x8 pixels took longer than {timeout:g} s"
    if result.returncode < 0:
        return f"rendering crashed with signal {-result.returncode}"
    if result.returncode > 0:
        return (result.stderr.strip().splitlines() or ["rendering failed"])[-1]
    answer = json.loads(result.stdout.strip().splitlines()[-1])
    if not answer["brightness"] > 0.0:
        return f"{answer['name']} renders black pictures"
    return Device(answer["name"], _driver_version(answer["name"]))


def has_nvidia_gpu() -> bool:
    """Whether the NVIDIA driver answers and lists a GPU."""
    return "GPU" in _output(["nvidia-smi", "-L"])


def mesa_version() -> str | None:
    """Version of Debian's or Ubuntu's package of Mesa's Vulkan drivers; None where it is not installed."""
    return _output(["dpkg-query", "-W", "-f", "${Version}", "mesa-vulkan-drivers"]) or None


def install_script(etc: Path = Path("/etc"), nvidia: bool = False) -> str | None:
    """The shell script that gives this system a Vulkan device, to be run as root; None where apt is not the package manager.

    With an NVIDIA GPU it installs the loader and the libraries NVIDIA's own driver needs, and no Mesa.
    """
    if not (etc / "apt").is_dir():
        return None
    packages = " ".join(_LIBRARIES if nvidia else ("mesa-vulkan-drivers", *_LIBRARIES))
    release = _os_release(etc / "os-release")
    install = "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
    if nvidia or (release.get("ID"), release.get("VERSION_ID")) != ("debian", "12"):
        return f"apt-get update && {install} {packages}"
    steps = [f"apt-get update && {install} -t bookworm-backports {packages}"]
    sources = apt_sources(etc / "apt")
    if not any("bookworm-backports" in source.suites for source in sources):
        lines = _backports_lines(sources)
        quoted = " ".join(shlex.quote(line) for line in lines)
        steps.insert(0, f"printf '%s\\n' {quoted} > {etc / 'apt' / 'sources.list.d' / _BACKPORTS_FILE}")
    return " && ".join(steps)


def install(script: str) -> str:
    """Runs the script as root, or with sudo where that asks for no password. Returns why it failed, "" when it did not."""
    if os.geteuid() == 0:
        command = ["sh", "-c", script]
    elif shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        command = ["sudo", "-n", "sh", "-c", script]
    else:
        return "needs root, or a sudo that asks for no password"
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if result.returncode == 0 else (result.stderr.strip().splitlines() or ["no reason given"])[-1]


def by_hand(script: str) -> str:
    """The one command for someone who has root's password."""
    return f"sudo sh -c {shlex.quote(script)}"


def apt_sources(apt: Path) -> list[AptSource]:
    """The enabled binary repositories in sources.list and sources.list.d, in both of apt's formats."""
    sources = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            sources += _one_line_sources(path.read_text())
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        sources += _deb822_sources(path.read_text())
    return sources


def _one_line_sources(text: str) -> list[AptSource]:
    sources = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)", line)
        if match:
            options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
            sources.append(AptSource(match["uri"], (match["suite"],), options.get("signed-by")))
    return sources


def _deb822_sources(text: str) -> list[AptSource]:
    sources = []
    visible = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", visible):
        # A line that begins with a space goes on with the field above it, as an embedded key does.
        pairs = re.findall(r"^([\w-]+):((?:.*)(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)
        fields = {name.lower(): value.strip() for name, value in pairs}
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false", "0"):
            suites = tuple(fields.get("suites", "").split())
            sources += [AptSource(uri, suites, fields.get("signed-by")) for uri in fields.get("uris", "").split()]
    return sources


def _backports_lines(sources: list[AptSource]) -> list[str]:
    """A deb822 entry for bookworm-backports at the mirror that this machine has bookworm from."""
    default = AptSource("http://deb.debian.org/debian", ("bookworm",), _DEBIAN_KEYRING)
    main = next((source for source in sources if "bookworm" in source.suites), default)
    lines = ["Types: deb", f"URIs: {main.uri}", "Suites: bookworm-backports", "Components: main"]
    if main.signed_by:
        lines += f"Signed-By: {main.signed_by}".splitlines()
    return lines


def _os_release(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = [line.split("=", 1) for line in path.read_text().splitlines() if "=" in line]
    return {key: value.strip("\"'") for key, value in pairs}


def _driver_version(device: str) -> str:
    if "nvidia" in device.lower():
        lines = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]).splitlines()
        return f"NVIDIA {lines[0]}" if lines else "NVIDIA"
    version = mesa_version()
    return f"Mesa {version}" if version else "driver unknown"


def _output(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
