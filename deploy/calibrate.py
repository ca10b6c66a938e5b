"""`deploy calibrate gravity`: how far each joint sinks under its load, measured by standing still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deploy.arm import GuardedArm
from deploy.control import PERIOD, START, hand_pose
from deploy.gravity import GravityCompensation, fit
from deploy.opening import ARM, ArmConfig, open_arm
from deploy.safety_config import SAFETY, SafetyConfig
from genvla.errors import UserError
from genvla.robots.wx250s import ARM_JOINTS

POSTURES = np.array(
    [
        START,
        [0.0, -0.50, 0.60, 0.0, 1.30, 0.0],
        [0.4, 0.20, -0.20, 0.0, 1.20, 0.3],
        [-0.4, 0.40, -0.30, 0.0, 0.60, -0.3],
        [0.0, -0.90, 0.90, 0.8, 1.00, 0.0],
        [0.2, 0.10, -0.10, -0.8, 0.80, 0.5],
        [0.0, -0.20, 0.10, 0.0, 0.30, 0.0],
    ]
)
"""Spread over the table, so that gravity pulls hard and softly, and on the forearm's roll too."""
NUDGE = np.array([0.0, 0.12, 0.12, 0.12, 0.12, 0.0])
"""Each posture is reached from both sides: friction then counts once for and once against gravity."""
READINGS = 5
SETTLE_STEPS = 6


def gravity(
    arm: ArmConfig = ARM,
    safety: SafetyConfig = SAFETY,
    output: Path | None = None,
) -> int:
    """Measure how far the joints sink under the arm's weight, and write what compensates for it.

    The arm visits seven postures over an empty table, each from both sides, and stands still there: about three minutes. Then it
    measures what is left at the start pose, and parks.

    Args:
        arm: which arm.
        safety: the limits.
        output: the file to write; the arm's own when not given.
    """
    config = replace(arm, weight=True)
    if config.dry_run or config.driver == "bridge":
        raise UserError(
            "calibrate gravity: a dry run or the bridge driver found, the servos or the twin wanted: no others can show it"
        )
    console = Console()
    with open_arm(replace(config, gravity=Path("none")), safety) as guarded:
        nominal = GravityCompensation.from_data_sheet(factor=1.0)
        found, strongest, before, after = measure(guarded, nominal)
    path = output or config.gravity
    found.save(path)
    console.print(_table(found, nominal, strongest))
    console.print(f"Hand at the start pose: {before * 1000:.1f} mm too low without compensation, {after * 1000:.1f} mm with it.")
    console.print(f"Written to {path}.")
    return 0


def measure(arm: GuardedArm, nominal: GravityCompensation) -> tuple[GravityCompensation, Float[np.ndarray, " 6"], float, float]:
    """Compensation, the greatest torque per joint it rests on [N m], the hand's sag at the start pose before and after [m]."""
    arm.compensate(GravityCompensation((0.0,) * 6))
    stood, sags = [], []
    visits = [(posture, sign) for posture in POSTURES for sign in (-1, 1)]
    for posture, sign in track(visits, "standing still"):
        arm.move_to(posture + sign * NUDGE)
        measured = _stand(arm, posture)
        stood.append(measured)
        sags.append(posture - measured)
    found, strongest = fit(np.array(stood), np.array(sags), nominal)
    before = _sag(_stand(arm, START))
    arm.compensate(found)
    return found, strongest, before, _sag(_stand(arm, START))


def _stand(arm: GuardedArm, posture: Float[np.ndarray, " 6"]) -> Float[np.ndarray, " 6"]:
    """Joint angles when the arm has come to rest."""
    arm.move_to(posture)
    for _ in range(SETTLE_STEPS):
        arm.stay(posture)
    readings = []
    for _ in range(READINGS):
        arm.wait(PERIOD / READINGS)
        readings.append(arm.observe().joint_positions)
    return np.mean(readings, axis=0)


def _sag(joints: Float[np.ndarray, " 6"]) -> float:
    return float(hand_pose(START)[0][2] - hand_pose(joints)[0][2])


def _table(found: GravityCompensation, nominal: GravityCompensation, strongest: Float[np.ndarray, " 6"]) -> Table:
    table = Table(title="Gravity compensation")
    for heading in ("joint", "most torque, N m", "gives way, mrad / (N m)", "of the data sheet", "scatter, N m"):
        table.add_column(heading, justify="left" if heading == "joint" else "right")
    for row in zip(ARM_JOINTS, strongest, found.compliance, nominal.compliance, found.friction, strict=True):
        name, torque, value, expected, friction = row
        measured = np.isfinite(friction)
        ratio = f"{value / expected:.0%}" if measured else "not measurable"
        table.add_row(name, f"{torque:.2f}", f"{value * 1000:.1f}", ratio, f"{friction:.2f}" if measured else "")
    return table
