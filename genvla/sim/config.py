"""Everything about the simulated set-up that an experiment may choose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from genvla.errors import UserError
from genvla.types import CHUNK_SIZE, CONTROL_HZ


@dataclass(frozen=True)
class Camera:
    """A static camera, placed in the robot's base frame.

    The defaults are the Bridge set-up's over-the-shoulder camera (ManiSkill).

    Args:
        position: x, y, z in metres.
        look_at: the point in the picture's centre, in metres.
        horizontal_fov: degrees.
        vertical_fov: degrees. The picture is squeezed to a square, as the policy was trained to see it, so the two angles differ.
    """

    position: tuple[float, float, float] = (0.0, -0.16, 0.36)
    look_at: tuple[float, float, float] = (0.3318, 0.0235, 0.0)
    horizontal_fov: float = 54.33
    vertical_fov: float = 42.1

    def intrinsics(self, size: int) -> np.ndarray:
        """The 3x3 pinhole matrix of a square picture of `size` pixels."""
        focal = [size / 2 / np.tan(np.radians(angle) / 2) for angle in (self.horizontal_fov, self.vertical_fov)]
        return np.array([[focal[0], 0, size / 2], [0, focal[1], size / 2], [0, 0, 1]])


@dataclass(frozen=True)
class Gains:
    """Joint drives: torque = stiffness * (target - q) - damping * qdot, limited.

    Defaults are those that SIMPLER identified on Bridge data.

    Args:
        stiffness: of the six arm joints, N m / rad.
        damping: of the six arm joints, N m s / rad.
        force_limit: of the six arm joints, N m.
        gripper_stiffness: of each finger, N / m.
        gripper_damping: of each finger, N s / m.
        gripper_force_limit: of each finger, N.
    """

    stiffness: tuple[float, ...] = (1169.79, 730.0, 808.46, 1229.13, 1272.28, 1056.33)
    damping: tuple[float, ...] = (330.0, 180.0, 152.12, 309.62, 201.05, 269.51)
    force_limit: tuple[float, ...] = (200.0, 200.0, 100.0, 100.0, 100.0, 100.0)
    gripper_stiffness: float = 1000.0
    gripper_damping: float = 200.0
    gripper_force_limit: float = 60.0

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping", "force_limit"):
            if len(getattr(self, name)) != 6:
                raise UserError(f"sim.gains.{name}: {len(getattr(self, name))} values found, 6 wanted, one for each arm joint")


@dataclass(frozen=True)
class DomainRandomization:
    """What changes from episode to episode, drawn uniformly.

    The defaults are those of arXiv 2603.18532; where it gives no range, the choice is ours: robot height, light brightness.

    Args:
        object_xy: objects stand within this distance of their scene's nominal place, per axis, metres. The settled placements
            come from the scene files; a smaller value here uses only the nearer ones.
        robot_joints: added to each arm joint's start position, radians.
        robot_height: added to the height of the robot's base over the table, metres.
        camera_position: added to each coordinate of the camera, metres.
        ambient_light: lower and upper bound of each RGB component.
        directional_light: lower and upper bound of the brightness of the directional light.
    """

    object_xy: float = 0.15
    robot_joints: float = 0.1
    robot_height: float = 0.02
    camera_position: float = 0.05
    ambient_light: tuple[float, float] = (0.0, 0.6)
    directional_light: tuple[float, float] = (0.5, 1.5)


@dataclass(frozen=True)
class SimConfig:
    """The simulated set-up.

    Args:
        image_size: height and width of the policy's picture, pixels.
        camera: where the camera stands.
        sim_hz: physics steps per second; a multiple of the control rate of 5 Hz.
        solver_iterations: PhysX's position iterations per physics step; most of the time that physics takes.
        gains: the joint drives.
        pad_friction: friction coefficient of the finger pads.
        max_chunks: decisions per episode before it is truncated.
        shader: "minimal" is the fastest; "default" adds reflections and shadows.
        shadows: whether the directional light casts shadows; only with the default shader.
        randomization: what changes from episode to episode.
        prefer_meshes: use the official robot meshes where they are installed, instead of the shipped primitive geometry.
    """

    image_size: int = 224
    camera: Camera = field(default_factory=Camera)
    sim_hz: int = 500
    solver_iterations: int = 15
    gains: Gains = field(default_factory=Gains)
    pad_friction: float = 1.0
    max_chunks: int = 25
    shader: Literal["minimal", "default"] = "minimal"
    shadows: bool = False
    randomization: DomainRandomization = field(default_factory=DomainRandomization)
    prefer_meshes: bool = False

    def __post_init__(self) -> None:
        if self.sim_hz % CONTROL_HZ:
            raise UserError(f"sim.sim_hz: {self.sim_hz} found, a multiple of the control rate {CONTROL_HZ:g} Hz wanted")
        for name in ("image_size", "max_chunks", "solver_iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"sim.{name}: {getattr(self, name)} found, at least 1 wanted")

    @property
    def substeps(self) -> int:
        """Physics steps per control step."""
        return int(self.sim_hz // CONTROL_HZ)

    @property
    def max_steps(self) -> int:
        """Control steps per episode."""
        return self.max_chunks * CHUNK_SIZE


SIM_FILE = "sim.json"
"""Beside a policy's weights: the set-up that it was trained in, so that it is judged in the same."""


def save_sim(sim: SimConfig, folder: Path) -> None:
    """Writes the set-up into a policy's folder."""
    temporary = folder / f".{SIM_FILE}"
    temporary.write_text(json.dumps(asdict(sim), indent=2) + "\n")
    temporary.replace(folder / SIM_FILE)


def load_sim(folder: Path) -> SimConfig | None:
    """The set-up kept in a policy's folder; None when there is none. UserError when it does not fit this version's fields."""
    path = folder / SIM_FILE
    if not path.is_file():
        return None
    try:
        return TypeAdapter(SimConfig).validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}") from None


def unlike_training(sim: SimConfig, folder: Path) -> str | None:
    """A line that tells where a set-up differs from the one kept in a policy's folder; None if it does not, or none is kept."""
    trained = load_sim(folder)
    if trained is None or trained == sim:
        return None
    return f"set-up: unlike that of {folder}: {'; '.join(_changes(asdict(sim), asdict(trained)))}"


def _changes(now: dict[str, Any], then: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in now.items():
        if isinstance(value, dict):
            yield from _changes(value, then[name], f"{prefix}{name}.")
        elif value != then[name]:
            yield f"{prefix}{name} {value} instead of {then[name]}"
