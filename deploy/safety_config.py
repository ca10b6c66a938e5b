"""Every limit of the real arm in one typed place. `deploy.safety` keeps those of motion, `deploy.watch` those of the arm's state,
the servos' registers and the camera the rest.

The defaults come from what is public of the Bridge and Horizon set-ups (bridge_data_robot, MIT; interbotix_xs_driver of
HorizonRoboticsInternal, BSD-3), from the percentiles of the Bridge data, and from the servos' manuals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

from genvla.errors import UserError

Range = tuple[float, float]
Box = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class StepLimits:
    """How far one action moves the target, and how far the target runs ahead of the hand.

    Args:
        translation: most along each axis, metres.
        rotation: most about each axis, radians.
        scale: factor on every action's motion; 0.3 is good for a first run.
        leash: most from the measured to the target position, metres; beyond it the target goes back to where the hand is.
        leash_angle: the same of the orientation, radians.
        bad_actions: so many in a row that are not finite or not seven numbers stop the arm.
        failures: so many in a row that lead nowhere allowed, or that the kinematics cannot reach, stop the arm.
        miss: a target pose missed by more than this is a failure, metres; one radian counts as 0.15 m.
    """

    translation: float = 0.05
    rotation: float = 0.25
    scale: float = 1.0
    leash: float = 0.08
    leash_angle: float = 0.35
    bad_actions: int = 2
    failures: int = 3
    miss: float = 0.02


@dataclass(frozen=True)
class Workspace:
    """Where the hand (ee_gripper_link) may be, in the base frame.

    Args:
        x: metres.
        y: metres.
        z: metres over the table.
        table_height: of the table over the base's underside, metres.
        fingertips: least height of the fingertips over the table, metres.
        lean: most roll and pitch away from pointing straight down, radians.
        base_radius: nothing of the hand comes nearer to the waist's axis, metres.
        keep_out: boxes (x, y, z of one corner, then of the other) no part of the arm enters, metres. The default is the post of
            the Bridge set-up's camera.
    """

    x: Range = (0.10, 0.45)
    y: Range = (-0.15, 0.25)
    z: Range = (0.005, 0.25)
    table_height: float = 0.0
    fingertips: float = 0.002
    lean: float = 0.6
    base_radius: float = 0.10
    keep_out: tuple[Box, ...] = ((-0.05, -0.21, 0.0, 0.05, -0.11, 0.45),)


@dataclass(frozen=True)
class JointLimits:
    """Of the six arm joints and the gripper's motor.

    Args:
        margin: kept from the ends of the joints' ranges, radians.
        step: most from the measured to the commanded angle, radians.
        rate: the same per second of the command's duration, radians.
        profile_speed: commands are given so much time that no joint is meant to move faster, rad/s.
        speed_trip: measured speed of an arm joint that stops the arm, rad/s.
        gripper_speed_trip: the same of the gripper's motor, rad/s.
        current_trip: current of each arm joint's motors that stops the arm when it lasts, A.
        current_seconds: how long.
        stall_current: a motor that draws this much, A,
        stall_speed: while its joint moves slower than this, rad/s,
        stall_seconds: for so long, pushes against something: the target goes back to where the hand is.
        goal_current: limit set in the motors that have one, A.
    """

    margin: float = math.radians(2)
    step: float = 0.5
    rate: float = 2.5
    profile_speed: float = 1.5
    speed_trip: float = 2.0
    gripper_speed_trip: float = 10.0
    current_trip: tuple[float, float, float, float, float, float] = (1.36, 1.70, 1.02, 1.02, 1.02, 1.19)
    current_seconds: float = 0.2
    stall_current: float = 1.0
    stall_speed: float = 0.02
    stall_seconds: float = 0.5
    goal_current: float = 2.15


@dataclass(frozen=True)
class GripperLimits:
    """A servo that squeezes for long overheats and switches itself off, and the object falls.

    Args:
        relax_after: from this closing command in a row on, the motor is told to go only a little further than it is.
        relax: how much further, radians.
        floor: never further closed than this angle of the motor, radians.
        load: fraction of the motor's most,
        load_seconds: that for so long makes the gripper open a little.
        pwm: limit set in the motor, of 885.
    """

    relax_after: int = 3
    relax: float = 0.1
    floor: float = -0.4
    load: float = 0.8
    load_seconds: float = 2.0
    pwm: int = 350


@dataclass(frozen=True)
class Watchdogs:
    """What happens when something falls silent or runs hot.

    Args:
        hold: seconds without an action until the arm holds.
        park: seconds without an action until it parks.
        bus: seconds without a packet until the servos hold by themselves.
        read_errors: more lost readings in a row than this stop the arm.
        temperature_warn: of a motor, Celsius.
        temperature_stop: of a motor, Celsius.
        voltage: of the supply, V; outside for a second stops the arm.
        rate: how often the arm is watched, Hz.
    """

    hold: float = 0.5
    park: float = 2.0
    bus: float = 0.5
    read_errors: int = 6
    temperature_warn: float = 65.0
    temperature_stop: float = 70.0
    voltage: Range = (11.0, 13.0)
    rate: float = 50.0


@dataclass(frozen=True)
class FrameLimits:
    """How old a camera's picture may be.

    Args:
        warn: seconds.
        hold: seconds from which the arm holds.
        abort: seconds from which the run ends and the arm parks.
        repeats: so many identical pictures in a row count as a frozen camera.
        dark: mean brightness, of 255, under which a picture shows nothing.
    """

    warn: float = 0.1
    hold: float = 0.2
    abort: float = 1.0
    repeats: int = 15
    dark: float = 5.0


@dataclass(frozen=True)
class Homing:
    """How the arm gets up and lies down.

    Args:
        start_tolerance: most from the sleep pose, each joint, for the arm to start from it, radians.
        speed: of the fastest joint, rad/s.
        park_seconds: at least, from the neutral pose to sleep.
        park_tolerance: most from the sleep pose, each joint, for the motors to let go, radians.
        first_run_scale: StepLimits.scale of an arm that has not been calibrated yet.
    """

    start_tolerance: float = 0.3
    speed: float = 0.5
    park_seconds: float = 3.0
    park_tolerance: float = 0.1
    first_run_scale: float = 0.3


@dataclass(frozen=True)
class SafetyConfig:
    """All limits.

    Args:
        step: of one action.
        workspace: of the hand.
        joints: of the joints.
        gripper: of the gripper.
        watchdogs: of time, bus and motors.
        frames: of the camera's pictures.
        homing: of getting up and lying down.
        recording_seconds: how much the black box keeps.
    """

    step: StepLimits = field(default_factory=StepLimits)
    workspace: Workspace = field(default_factory=Workspace)
    joints: JointLimits = field(default_factory=JointLimits)
    gripper: GripperLimits = field(default_factory=GripperLimits)
    watchdogs: Watchdogs = field(default_factory=Watchdogs)
    frames: FrameLimits = field(default_factory=FrameLimits)
    homing: Homing = field(default_factory=Homing)
    recording_seconds: float = 120.0

    def __post_init__(self) -> None:
        for group in fields(self):
            value = getattr(self, group.name)
            for name, one in {f.name: getattr(value, f.name) for f in fields(value)}.items() if group.name in _GROUPS else ():
                _check(f"safety.{group.name}.{name}", one, name in _SIGNED)
        _check("safety.recording_seconds", self.recording_seconds, False)
        order = (
            ("watchdogs", "hold", "park"),
            ("watchdogs", "temperature_warn", "temperature_stop"),
            ("frames", "hold", "abort"),
        )
        for group_name, first, second in order:
            low, high = (getattr(getattr(self, group_name), name) for name in (first, second))
            if low > high:
                raise UserError(f"safety.{group_name}.{first}: {low:g} found, at most {second} = {high:g} wanted")

    def in_generated_scenes(self, table_height: float = 0.0) -> SafetyConfig:
        """For the simulated arm: the wider table that generated scenes are laid out on, no camera post, joints that go to
        their very ends as quick as they like, since the simulated drives have no profile and no gears, and targets out of reach,
        which the simulator replaces by what can be reached."""
        workspace = replace(self.workspace, x=(0.10, 0.50), y=(-0.30, 0.30), z=(0.005, 0.40), keep_out=())
        joints = replace(self.joints, margin=1e-9, speed_trip=1e3, step=2 * math.pi, rate=1e3)
        step = replace(self.step, miss=1e3)
        return replace(self, step=step, workspace=replace(workspace, table_height=table_height), joints=joints)


_GROUPS = {"step", "workspace", "joints", "gripper", "watchdogs", "frames", "homing"}
_SIGNED = {"table_height", "floor"}
"""Single numbers that may be zero or less."""


def _check(name: str, value: float | tuple, signed: bool) -> None:
    """UserError unless a number is finite and positive, a range goes upwards, a box has six sides."""
    if not isinstance(value, tuple):
        if not math.isfinite(value) or (value <= 0 and not signed):
            raise UserError(f"{name}: {value} found, a number{'' if signed else ' over 0'} wanted")
        return
    if value and isinstance(value[0], tuple):
        for box in value:
            if len(box) != 6 or not all(map(math.isfinite, box)) or any(a >= b for a, b in zip(box[:3], box[3:], strict=True)):
                raise UserError(f"{name}: {box} found, x, y, z of the lower corner and then of the upper one wanted")
    elif not all(map(math.isfinite, value)) or (len(value) == 2 and value[0] >= value[1]):
        raise UserError(f"{name}: {value} found, {'a lower and a higher number' if len(value) == 2 else 'numbers'} wanted")


SAFETY = SafetyConfig()
