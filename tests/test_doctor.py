from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genvla import doctor as module
from genvla import vulkan
from genvla.doctor import Finding, doctor

REPOSITORY = Path(__file__).resolve().parents[1]


def run_doctor(tmp_path: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "genvla.doctor", *args]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "MS_ASSET_DIR": str(tmp_path / "assets"), **environment}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


def marks(output: str) -> dict[str, str]:
    return {line[8:24].strip(): line[:8].strip() for line in output.splitlines()}


def test_this_installation_is_fit(tmp_path: Path) -> None:
    (tmp_path / "assets/data/robots/widowx").mkdir(parents=True)
    (tmp_path / "assets/data/robots/widowx/wx250s.urdf").touch()
    result = run_doctor(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    found = marks(result.stdout)
    assert found["Vulkan"] == found["ManiSkill"] == found["WidowX 250S"] == found["robot meshes"] == "ok"
    assert found["Bridge scenes"] == "missing"


def test_without_a_vulkan_driver_it_is_not(tmp_path: Path) -> None:
    result = run_doctor(tmp_path, VK_ICD_FILENAMES="/dev/null", VK_DRIVER_FILES="/dev/null")
    assert result.returncode == 2
    line = next(line for line in result.stdout.splitlines() if "Vulkan" in line)
    assert line.startswith(("missing", "old"))
    assert "rendering device" in line


def test_optional_findings_do_not_make_unfit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    optional = Finding("thing", "missing", "absent", "get it", required=False)
    monkeypatch.setattr(module, "checks", lambda fix: [lambda: optional])
    assert doctor() == 0
    assert "(optional): get it" in capsys.readouterr().out
    monkeypatch.setattr(module, "checks", lambda fix: [lambda: Finding("thing", "old", "0.1", "renew it")])
    assert doctor() == 2
    assert "renew it" in capsys.readouterr().out


def test_package_versions_are_compared_as_numbers() -> None:
    assert module.package("MLflow", "mlflow", "3.7").mark == "ok"
    assert module.package("MLflow", "mlflow", "999.0").mark == "old"
    absent = module.package("x", "genvla-no-such-package", "1.0")
    assert (absent.mark, absent.required) == ("missing", True)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("25.0.7-2~bpo12+1", (25, 0, 7)), ("3.0.0b1", (3, 0)), ("22.3.6-1", (22, 3, 6))],
)
def test_release_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert module._release(text)[: len(numbers)] == numbers


def test_container_memory_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert module._container_memory(tmp_path) == 3000
    (tmp_path / "memory.max").write_text("max\n")
    assert module._container_memory(tmp_path) == float("inf")
    assert module._container_memory(tmp_path / "absent") == float("inf")


def system(tmp_path: Path, identity: str, version: str, sources: dict[str, str]) -> Path:
    """An /etc with this os-release and these apt sources."""
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "os-release").write_text(f'NAME="x"\nID={identity}\nVERSION_ID="{version}"\n')
    for name, text in sources.items():
        (tmp_path / "apt" / name).write_text(text)
    return tmp_path


DEB822 = """\
# the mirror next door
Types: deb
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/key.gpg

Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
# deb http://off.example.org/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://old.example.org/debian bookworm main
"""
EMBEDDED_KEY = """\
Types: deb
URIs: http://mirror.example.org/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
"""


@pytest.mark.parametrize(
    ("name", "text", "uri", "key"),
    [
        ("sources.list.d/debian.sources", DEB822, "http://mirror.example.org/debian", "/usr/share/keyrings/key.gpg"),
        ("sources.list", ONE_LINE, "http://old.example.org/debian", "/k.gpg"),
        ("sources.list.d/debian.sources", EMBEDDED_KEY, "http://mirror.example.org/debian", "mQINBF"),
        ("sources.list.d/none.sources", "", "http://deb.debian.org/debian", "debian-archive-keyring.gpg"),
    ],
)
def test_debian_12_takes_mesa_from_the_backports_of_its_mirror(tmp_path: Path, name: str, text: str, uri: str, key: str) -> None:
    etc = system(tmp_path, "debian", "12", {name: text})
    script = vulkan.install_script(etc)
    assert script is not None
    first, rest = script.split(" && ", 1)
    subprocess.run(["sh", "-c", first], check=True)
    assert "-t bookworm-backports mesa-vulkan-drivers" in rest
    written = vulkan.apt_sources(etc / "apt")
    [backports] = [source for source in written if "bookworm-backports" in source.suites]
    assert backports.uri == uri
    assert backports.signed_by is not None
    assert key in backports.signed_by
    assert "printf" not in (vulkan.install_script(etc) or ""), "the second time the entry is there"


@pytest.mark.parametrize(("identity", "version"), [("debian", "13"), ("ubuntu", "24.04"), ("ubuntu", "26.04")])
def test_later_systems_take_mesa_as_it_is(tmp_path: Path, identity: str, version: str) -> None:
    script = vulkan.install_script(system(tmp_path, identity, version, {})) or ""
    assert "mesa-vulkan-drivers" in script
    assert "backports" not in script


def test_an_nvidia_gpu_gets_no_mesa_and_other_systems_no_script(tmp_path: Path) -> None:
    assert vulkan.install_script(tmp_path) is None
    script = vulkan.install_script(system(tmp_path, "debian", "12", {}), nvidia=True) or ""
    assert "mesa" not in script
    assert "libvulkan1" in script


def test_disabled_and_source_entries_are_not_repositories(tmp_path: Path) -> None:
    text = (
        DEB822.replace("Types: deb\n", "Types: deb-src\n", 1) + "\nEnabled: no\nTypes: deb\nURIs: http://off\nSuites: bookworm\n"
    )
    etc = system(
        tmp_path, "debian", "12", {"sources.list.d/a.sources": text, "sources.list": "deb-src http://off bookworm main\n"}
    )
    assert [source.suites for source in vulkan.apt_sources(etc / "apt")] == [("bookworm-security",)]


def test_a_crash_or_a_hang_of_the_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulkan, "_PROBE", "import os; os.abort()")
    assert vulkan.probe() == "rendering crashed with signal 6"
    monkeypatch.setattr(vulkan, "_PROBE", "import time; time.sleep(60)")
    assert vulkan.probe(timeout=0.5) == "rendering 8x8 pixels took longer than 0.5 s"
    monkeypatch.setattr(vulkan, "_PROBE", """print('{"name": "dark", "brightness": 0.0}')""")
    assert vulkan.probe() == "dark renders black pictures"


def test_the_command_by_hand_is_the_script(tmp_path: Path) -> None:
    script = f"printf '%s\\n' 'it is' \"quoted\" > {tmp_path / 'out'}"
    command = vulkan.by_hand(script)
    assert command.startswith("sudo ")
    subprocess.run(["sh", "-c", command.removeprefix("sudo ")], check=True)
    assert (tmp_path / "out").read_text() == "it is\nquoted\n"
