"""Gravity compensation by goal offset: a position servo that must hold a weight stands where its spring carries it, below its
goal; so the goal is set that much higher.

    goal = q + c tau(q),   tau(q) = RNEA(q, 0, 0),   c = 1 / stiffness, per joint

Gravity torque by Pinocchio. It needs no current control, which the wrist and gripper servos lack, and when the host dies the arm
stands still. c comes from the servo's data sheet or, better, from `deploy calibrate`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from deploy.drivers.registers import joint_stiffness
from genvla.errors import UserError
from genvla.robots.wx250s import ARM_JOINTS, FINGER_OPEN, urdf_path

MAX_OFFSET = 0.12
"""Most that a goal is moved, radians."""
MAX_COMPLIANCE = 0.5
"""rad / (N m); five times that of the softest joint: more is a mistake of measuring."""
FORMAT = "genvla-gravity-1"


def gravity_torque(joints: Float[np.ndarray, " 6"]) -> Float[np.ndarray, " 6"]:
    """What the arm joints must give to hold the arm still [N m], its base upright, its gripper open and empty."""
    pinocchio, model, data = _model()
    q = np.append(np.asarray(joints, float), [FINGER_OPEN] * 2)
    return np.array(pinocchio.computeGeneralizedGravity(model, data, q)[:6])


@lru_cache(maxsize=1)
def _model() -> tuple[Any, Any, Any]:
    try:
        import pinocchio
    except ImportError:
        raise UserError("gravity compensation: pinocchio not found, want it installed: pip install 'genvla[robot]'") from None
    model = pinocchio.buildModelFromUrdf(str(urdf_path()))
    return pinocchio, model, model.createData()


@dataclass(frozen=True)
class GravityCompensation:
    """How far each joint gives way under a torque, rad / (N m), and the friction left in the measurement, N m (nan: unknown)."""

    compliance: tuple[float, ...]
    friction: tuple[float, ...] = (math.nan,) * 6

    def __post_init__(self) -> None:
        for joint, value in zip(ARM_JOINTS, self.compliance, strict=True):
            if not 0 <= value <= MAX_COMPLIANCE:
                raise UserError(f"gravity: compliance of {joint}: {value} found, 0 to {MAX_COMPLIANCE} rad / (N m) wanted")

    @classmethod
    def from_data_sheet(cls, factor: float = 0.7) -> GravityCompensation:
        """Of the servos' nominal stiffness, before calibration. The factor errs on the side of sinking."""
        return cls(tuple(factor / stiffness for stiffness in joint_stiffness()))

    @classmethod
    def load(cls, path: Path) -> GravityCompensation:
        """Of a file that `deploy calibrate` wrote. UserError when it is none."""
        try:
            content = json.loads(Path(path).read_text())
            if content["format"] != FORMAT:
                raise UserError(f"{path}: format: {content['format']!r} found, {FORMAT!r} wanted")
            values = [[float("nan" if x is None else x) for x in content[name]] for name in ("compliance", "friction")]
            if [len(row) for row in values] != [6, 6]:
                raise UserError(
                    f"{path}: {len(values[0])} and {len(values[1])} values found, 6 each wanted, one for each arm joint"
                )
            return cls(tuple(values[0]), tuple(values[1]))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from None
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
            raise UserError(f"{path}: {type(error).__name__} {error} found, a file of `deploy calibrate` wanted") from None

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        plain = [[None if math.isnan(x) else round(x, 6) for x in row] for row in (self.compliance, self.friction)]
        content = {"format": FORMAT, "joints": ARM_JOINTS, "compliance": plain[0], "friction": plain[1]}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        temporary.replace(path)

    def offsets(self, joints: Float[np.ndarray, " 6"]) -> Float[np.ndarray, " 6"]:
        """What to add to the goals of these joint angles [rad]."""
        return np.clip(np.array(self.compliance) * gravity_torque(joints), -MAX_OFFSET, MAX_OFFSET)


def fit(
    postures: Float[np.ndarray, "n 6"], sags: Float[np.ndarray, "n 6"], known: GravityCompensation | None = None
) -> tuple[GravityCompensation, Float[np.ndarray, " 6"]]:
    """Compliance and friction from standing still: sag = goal - measured = c tau(measured) + noise, least squares per joint.

    A joint on which gravity hardly pulls in any posture keeps what is `known` of it (the data sheet's). Also returns the greatest
    torque of each joint that it was measured with [N m].
    """
    torques = np.array([gravity_torque(joints) for joints in postures])
    strongest = np.abs(torques).max(axis=0)
    nominal = (known or GravityCompensation.from_data_sheet(factor=1.0)).compliance
    compliance, friction = [], []
    for joint in range(6):
        torque, sag = torques[:, joint], sags[:, joint]
        if strongest[joint] < MEASURABLE:
            compliance.append(nominal[joint])
            friction.append(math.nan)
            continue
        value = float(np.clip(torque @ sag / (torque @ torque), 0.0, MAX_COMPLIANCE))
        compliance.append(value)
        friction.append(float(np.sqrt(np.mean((sag - value * torque) ** 2))) / max(value, 1e-6))
    return GravityCompensation(tuple(compliance), tuple(friction)), strongest


MEASURABLE = 0.05
"""N m under which friction hides a joint's weight."""
