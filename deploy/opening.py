"""From the command line's choice of an arm to a guarded one. The driver is made here and nobody else gets to see it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deploy.arm import GuardedArm
from deploy.drivers import Clock, Driver, WallClock
from deploy.gravity import GravityCompensation
from deploy.recorder import Recorder
from deploy.safety_config import SafetyConfig


@dataclass(frozen=True)
class ArmConfig:
    """Which arm, and how it is reached.

    Args:
        driver: the simulated arm alone; the servos; or a bridge_data_robot server.
        port: serial port of the servos.
        host: of the bridge_data_robot server.
        server_port: of the bridge_data_robot server.
        gravity: what `deploy calibrate gravity` wrote; without it the data sheet's figures count and the arm moves slowly.
        dry_run: print the targets, move nothing, open no port.
        black_box: folder for what was recorded before a fault.
        weight: whether gravity pulls on the simulated arm, as it does in the simulator not.
    """

    driver: Literal["twin", "dynamixel", "bridge"] = "twin"
    port: str = "/dev/ttyDXL"
    host: str = "localhost"
    server_port: int = 5556
    gravity: Path = Path("calibration/gravity.json")
    dry_run: bool = False
    black_box: Path = Path("black-box")
    weight: bool = False


ARM = ArmConfig()


def open_arm(config: ArmConfig, safety: SafetyConfig | None = None) -> GuardedArm:
    """The arm, not connected yet: use it in a `with` block."""
    safety = careful(config, safety or SafetyConfig())
    driver, clock = make_driver(config, safety)
    return GuardedArm(driver, safety, clock=clock, recorder=Recorder(config.black_box, safety.recording_seconds))


def make_driver(config: ArmConfig, safety: SafetyConfig) -> tuple[Driver, Clock]:
    """The driver for a GuardedArm, and its clock."""
    if config.dry_run:
        from deploy.drivers.dry import DryDriver

        return DryDriver(), WallClock()
    if config.driver == "twin":
        from deploy.drivers.twin import TwinDriver

        twin = TwinDriver(gravity=config.weight)
        return twin, twin.clock
    if config.driver == "bridge":
        from deploy.drivers.bridge import BridgeDriver

        return BridgeDriver(config.host, config.server_port), WallClock()
    from deploy.drivers.dynamixel import DynamixelDriver

    compensation = GravityCompensation.load(config.gravity) if config.gravity.is_file() else None
    return DynamixelDriver(config.port, safety, compensation), WallClock()


def careful(config: ArmConfig, safety: SafetyConfig) -> SafetyConfig:
    """Small steps for servos that nobody has calibrated."""
    if config.dry_run or config.driver != "dynamixel" or config.gravity.is_file():
        return safety
    scale = min(safety.step.scale, safety.homing.first_run_scale)
    print(
        f"arm: {config.gravity} not found: a policy's steps count {scale:.0%} until `deploy calibrate gravity` has run",
        file=sys.stderr,
    )
    return replace(safety, step=replace(safety.step, scale=scale))
