"""`deploy doctor`: the software and the devices that a real WidowX 250S needs, as this machine sees them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROBOT_PACKAGES = {
    "dynamixel_sdk": ("dynamixel-sdk", "speaks to the servos"),
    "serial": ("pyserial", "opens the serial port"),
    "zmq": ("pyzmq", "speaks to a bridge_data_robot server"),
    "lz4": ("lz4", "packs the messages of a bridge_data_robot server"),
    "cv2": ("opencv-python", "reads the cameras"),
    "pinocchio": ("pin", "compensates gravity"),
}
"""Import name to distribution and purpose; all are in the extra "robot" or come with genvla."""

GRAVITY = Path("calibration/gravity.json")

FTDI_VENDOR = "0403"
U2D2_PRODUCT = "6014"
"""The FT232H of ROBOTIS' U2D2 adapter, and of others: the id alone does not prove that a robot is behind it."""


@dataclass(frozen=True)
class SerialPort:
    """A serial port on USB; `usb_id` is "vendor:product"."""

    device: str
    usb_id: str
    product: str

    @property
    def is_u2d2(self) -> bool:
        return self.usb_id == f"{FTDI_VENDOR}:{U2D2_PRODUCT}"


def doctor() -> int:
    """Lists the robot packages, serial ports and cameras with what to install or do; always exits with 0."""
    for module, (distribution, purpose) in ROBOT_PACKAGES.items():
        if find_spec(module) is None:
            _line("missing", module, f"pip install {distribution}, or all of 'genvla[robot]': {purpose}")
        else:
            _line("ok", module, _version(distribution))
    ports = serial_ports()
    for port in ports:
        mark = "ok" if port.is_u2d2 else "other"
        _line(mark, port.device, f"{port.usb_id} {port.product}" + (" (U2D2)" if port.is_u2d2 else ""))
        if port.is_u2d2 and not os.access(port.device, os.R_OK | os.W_OK):
            _line("missing", port.device, "no permission: sudo usermod -aG dialout $USER, then log in again")
        if port.is_u2d2 and (latency := latency_ms(port.device)) is not None and latency > 1:
            _line("missing", port.device, f"latency {latency} ms: echo 1 | sudo tee {LATENCY.format(Path(port.device).name)}")
    if not any(port.is_u2d2 for port in ports):
        _line("missing", "U2D2", "no FTDI FT232H on USB: plug the robot in and switch its power on")
    if GRAVITY.is_file():
        _line("ok", "calibration", str(GRAVITY))
    else:
        _line("missing", "calibration", f"no {GRAVITY}: the arm moves slowly until `deploy calibrate gravity` has run")
    found = cameras()
    for device, name in found:
        _line("ok", device, name)
    if not found:
        _line("missing", "camera", "no /dev/video*: plug a USB camera in")
    return 0


def serial_ports(sys_class: Path = Path("/sys/class/tty")) -> list[SerialPort]:
    """The serial ports of USB adapters, from what the kernel shows under /sys/class/tty."""
    ports = []
    for entry in sorted(sys_class.glob("tty[UA]*")):
        for folder in [(entry / "device").resolve(), *(entry / "device").resolve().parents]:
            if (folder / "idVendor").is_file():
                usb_id = f"{_read(folder / 'idVendor')}:{_read(folder / 'idProduct')}"
                ports.append(SerialPort(f"/dev/{entry.name}", usb_id, _read(folder / "product")))
                break
    return ports


LATENCY = "/sys/bus/usb-serial/devices/{}/latency_timer"


def latency_ms(device: str, pattern: str = LATENCY) -> int | None:
    """How long the adapter gathers bytes before it hands them over; None for a port that does not say."""
    text = _read(Path(pattern.format(Path(device).name)))
    return int(text) if text.isdigit() else None


def cameras(sys_class: Path = Path("/sys/class/video4linux")) -> list[tuple[str, str]]:
    """Device and name of each video device."""
    return [(f"/dev/{entry.name}", _read(entry / "name")) for entry in sorted(sys_class.glob("video*"))]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "version unknown"


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _line(mark: str, name: str, text: str) -> None:
    print(f"{mark:<8}{name:<16}{text}".rstrip())
