from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.cli import main
from deploy.doctor import ROBOT_PACKAGES, SerialPort, cameras, serial_ports


def usb_adapter(root: Path, tty: str, vendor: str, product: str, name: str) -> None:
    """Files and links as the kernel lays them out: tty -> interface of a USB device, whose parent holds the ids."""
    device = root / "devices" / f"usb-{tty}"
    interface = device / "1-1:1.0" / tty
    interface.mkdir(parents=True)
    (device / "idVendor").write_text(f"{vendor}\n")
    (device / "idProduct").write_text(f"{product}\n")
    (device / "product").write_text(f"{name}\n")
    entry = root / "class" / "tty" / tty
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(interface)


def test_serial_ports_are_told_apart_by_usb_id(tmp_path: Path) -> None:
    usb_adapter(tmp_path, "ttyUSB0", "0403", "6014", "USB <-> Serial Converter")
    usb_adapter(tmp_path, "ttyACM0", "2341", "0043", "Arduino")
    (tmp_path / "class" / "tty" / "ttyS0").mkdir()
    ports = serial_ports(tmp_path / "class" / "tty")
    assert ports == [
        SerialPort("/dev/ttyACM0", "2341:0043", "Arduino"),
        SerialPort("/dev/ttyUSB0", "0403:6014", "USB <-> Serial Converter"),
    ]
    assert [port.is_u2d2 for port in ports] == [False, True]


def test_cameras_have_names(tmp_path: Path) -> None:
    for number, name in ((0, "C920"), (2, "RealSense")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(f"{name}\n")
    assert cameras(tmp_path) == [("/dev/video0", "C920"), ("/dev/video2", "RealSense")]
    assert cameras(tmp_path / "absent") == []


def test_doctor_reports_every_package_and_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} >= set(ROBOT_PACKAGES)
    assert all(line.split()[0] in ("ok", "missing", "other") for line in lines)


def test_extra_brings_the_packages_that_are_asked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = {Requirement(line).name for line in project["optional-dependencies"]["robot"]}
    named = {distribution for distribution, _ in ROBOT_PACKAGES.values()} - {"opencv-python"}  # which SAPIEN brings
    assert named <= extra


@pytest.mark.parametrize("args", [[], ["walk"], ["doctor", "--speed", "2"]])
def test_wrong_arguments_exit_with_two(args: list[str]) -> None:
    assert main(args) == 2
