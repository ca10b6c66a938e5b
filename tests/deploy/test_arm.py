"""The guarded arm on the simulated one: it moves as the simulator does, nothing goes past it to the driver, and it parks."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deploy.arm import GuardedArm
from deploy.calibrate import POSTURES
from deploy.control import (
    NEUTRAL,
    SLEEP,
    START,
    angle_between,
    from_lean,
    from_rpy,
    hand_pose,
    lean,
    outline,
    straight,
    to_rpy,
    turn_between,
)
from deploy.drivers import ArmFault, ArmState, ReadError
from deploy.drivers.registers import joint_stiffness
from deploy.drivers.twin import TwinDriver
from deploy.gravity import GravityCompensation, fit
from deploy.opening import ArmConfig, open_arm
from deploy.recorder import Recorder
from deploy.safety_config import SafetyConfig
from deploy.watch import GripperGuard, StateWatch
from genvla.robots import kinematics, wx250s
from genvla.robots.rotations import euler_to_matrix, matrix_to_euler, matrix_to_rotvec
from genvla.sim.config import Gains, SimConfig
from tests.deploy import truth
from tests.sim.conftest import scenes, sim  # noqa: F401

QUICK = SimConfig(sim_hz=100)
SERVOS = Gains(stiffness=joint_stiffness(), damping=tuple(0.25 * k for k in joint_stiffness()))


def twin_arm(twin: TwinDriver, **options: object) -> GuardedArm:
    return GuardedArm(twin, clock=twin.clock, **options)  # type: ignore[arg-type]


def test_it_gets_up_obeys_and_lies_down() -> None:
    twin = TwinDriver(QUICK)
    with twin_arm(twin) as arm:
        np.testing.assert_allclose(arm.observe().joint_positions, START, atol=0.05)
        proprio = arm.proprioception()
        qpos = torch.from_numpy(arm.observe().qpos[None])
        assert proprio.dtype == np.float32
        np.testing.assert_array_equal(proprio, kinematics.proprioception(qpos)[0].numpy())
        for _ in range(6):
            assert not arm.execute(np.array([0, 0.02, 0, 0, 0, 0, 0], np.float32)).changed
        after = arm.proprioception()
        assert 0.06 < after[1] - proprio[1] < 0.125 and after[6] < 0.2
    np.testing.assert_allclose(twin.read().joint_positions, SLEEP, atol=0.1)


@pytest.mark.slow
def test_the_twin_moves_as_the_simulator_does(scenes: Path, sim: SimConfig) -> None:  # noqa: F811
    """The same actions, in free air, in the simulator's environment and through all of this."""
    from genvla.robots.control import TargetPoseControl
    from genvla.sim.scene_env import SceneEnv

    env = SceneEnv(scenes=scenes, sim=sim, obs_mode="none")
    env.begin(3)
    twin = TwinDriver(sim, start="start")
    with twin_arm(twin, safety=SafetyConfig().in_generated_scenes(), homing=False) as arm:
        twin._put(env.qpos().astype(np.float64))
        arm.resync()
        control = TargetPoseControl(1)
        control.reset([0], torch.from_numpy(env.qpos()[None, :6]))
        rng = np.random.default_rng(0)
        for _ in range(10):
            action = (rng.uniform(-1, 1, 7) * [0.01, 0.02, 0.01, 0.05, 0.05, 0.1, 1] + [0, 0, 0.01, 0, 0, 0, 0]).astype(
                np.float32
            )
            env.drive(control.joint_targets(torch.from_numpy(action[None]))[0].numpy())
            env.advance()
            assert not arm.execute(action).changed
            np.testing.assert_allclose(arm.observe().qpos, env.qpos(), atol=1e-5)
    env.close()


def test_compensation_takes_the_sag_of_an_arm_as_soft_as_the_real_one() -> None:
    nominal = GravityCompensation(tuple(1 / k for k in SERVOS.stiffness))
    before, after = (sag(SERVOS, compensation) for compensation in (None, nominal))
    assert before > 0.015 and abs(after) < 0.1 * before


def test_compensation_measured_on_the_simulated_arm_takes_its_sag() -> None:
    """PhysX's stiff drives give way more than their stiffness says, so that it takes a measurement."""
    twin = TwinDriver(SimConfig(sim_hz=250), start="start", gravity=True)
    with twin_arm(twin, homing=False) as arm:
        stood = []
        for posture in POSTURES[:3]:
            arm.move_to(posture)
            for _ in range(5):
                arm.stay(posture)
            stood.append(arm.observe().joint_positions)
    found, _ = fit(np.array(stood), POSTURES[:3] - np.array(stood))
    before, after = (sag(Gains(), compensation) for compensation in (None, found))
    assert before > 0.0007 and abs(after) < 0.1 * before


def sag(gains: Gains, compensation: GravityCompensation | None) -> float:
    """How much too low [m] the hand of a heavy twin stands at the start pose."""
    twin = TwinDriver(SimConfig(sim_hz=250, gains=gains), start="start", gravity=True, compensation=compensation)
    with twin_arm(twin, homing=False) as arm:
        for _ in range(8):
            arm.stay(START)
        return float(hand_pose(START)[0][2] - hand_pose(arm.observe().joint_positions)[0][2])


def test_kinematics_equal_the_urdf() -> None:
    import pinocchio

    model = pinocchio.buildModelFromUrdf(str(wx250s.urdf_path()))
    data = model.createData()
    frame = model.getFrameId(wx250s.EE_LINK)
    rng = np.random.default_rng(0)
    for joints in rng.uniform(truth.LOWER, truth.UPPER, (20, 6)):
        pinocchio.framesForwardKinematics(model, data, np.append(joints, [0.02, 0.02]))
        position, rotation = hand_pose(joints)
        np.testing.assert_allclose(position, data.oMf[frame].translation, atol=1e-9)
        np.testing.assert_allclose(rotation, data.oMf[frame].rotation, atol=1e-9)
        points = outline(joints)
        for place, joint in enumerate(("elbow", "forearm_roll", "wrist_angle")):
            np.testing.assert_allclose(points[place], data.oMi[model.getJointId(joint)].translation, atol=1e-9)
        np.testing.assert_allclose(points[3], position, atol=1e-9)
        np.testing.assert_allclose(truth.hand(joints[None])[0, :3, 3], position, atol=1e-9)


def test_ways_keep_speed_and_time() -> None:
    way = np.concatenate([NEUTRAL[None], straight(NEUTRAL, SLEEP, 0.5)])
    assert np.abs(np.diff(way, axis=0)).max() <= 0.1 + 1e-12
    assert len(straight(NEUTRAL, NEUTRAL, 0.5)) == 1 and len(straight(NEUTRAL, NEUTRAL, 0.5, 3.0)) == 15


@given(st.integers(0, 2**32 - 1))
def test_rotations_are_those_of_the_simulator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = rng.uniform([-np.pi, -1.5, -np.pi], [np.pi, 1.5, np.pi])
    if seed % 5 == 0:
        angles[1:] = np.pi / 2, 0.0  # where roll and yaw are one
    rotation, other = from_rpy(angles), from_rpy(rng.normal(size=3))
    np.testing.assert_allclose(rotation, euler_to_matrix(torch.from_numpy(angles)).numpy(), atol=1e-12)
    np.testing.assert_allclose(to_rpy(rotation), matrix_to_euler(torch.from_numpy(rotation)).numpy(), atol=1e-9)
    np.testing.assert_allclose(from_lean(lean(rotation)), rotation, atol=1e-9)
    np.testing.assert_allclose(from_rpy(turn_between(rotation, other)) @ rotation, other, atol=1e-9)
    turn = float(matrix_to_rotvec(torch.from_numpy(other @ rotation.T)).norm())
    assert angle_between(rotation, other) == pytest.approx(turn, abs=1e-6)


def test_two_bad_actions_stop_and_park(tmp_path: Path) -> None:
    twin = TwinDriver(QUICK)
    with pytest.raises(ArmFault, match="7 finite numbers wanted"), twin_arm(twin, recorder=Recorder(tmp_path)) as arm:
        assert arm.execute(np.full(7, np.nan)).kind == "held"
        arm.execute(np.zeros(3))
    np.testing.assert_allclose(twin.read().joint_positions, SLEEP, atol=0.1)
    rows = [json.loads(line) for line in (tmp_path / "black-box-0001.jsonl").read_text().splitlines()]
    assert rows[0]["kind"] == "flush" and "finite" in rows[0]["reason"]
    assert {"state", "command", "action", "hold", "event"} <= {row["kind"] for row in rows}


def test_an_exception_parks_and_is_not_hidden() -> None:
    twin = TwinDriver(QUICK)
    with pytest.raises(ZeroDivisionError), twin_arm(twin):
        _ = 1 / 0
    np.testing.assert_allclose(twin.read().joint_positions, SLEEP, atol=0.1)


def test_nothing_gets_to_the_driver_but_through_the_arm() -> None:
    twin = TwinDriver(QUICK, start="start")
    arm = twin_arm(twin, homing=False)
    assert not any(value is twin for name, value in vars(arm).items() if not name.startswith("_GuardedArm__"))
    with pytest.raises(ArmFault, match="not connected"):
        arm.execute(np.zeros(7))
    for path in Path("deploy").glob("*.py"):  # who may know a driver of a real arm
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        real = modules & {"deploy.drivers.dynamixel", "deploy.drivers.servo_bus", "deploy.drivers.bridge"}
        assert not real or path.name in ("opening.py", "commands.py", "doctor.py"), path


# ---- watching


def reading(time: float = 0.0, **what: object) -> ArmState:
    return ArmState(time, START, np.zeros(6), np.full(2, 0.037), **what)  # type: ignore[arg-type]


def nine(place: int, value: float, rest: float) -> np.ndarray:
    return np.array([value if i == place else rest for i in range(9)])


def test_what_stops_the_arm() -> None:
    def stop(*states: ArmState) -> str:
        watch = StateWatch(SafetyConfig())
        return [watch.look(state) for state in states][-1].stop

    assert stop(reading(temperatures=nine(4, 70.0, 30.0))) == "elbow_shadow: 70 C, under 70 C wanted"
    assert not stop(reading(temperatures=nine(4, 69.0, 30.0)))
    assert stop(ArmState(0, START, np.eye(6)[3] * -2.1, np.full(2, 0.037))).startswith("forearm_roll: 2.1 rad/s")
    assert stop(reading(gripper_velocity=11.0)).startswith("gripper: 11.0 rad/s")
    assert stop(reading(faults=("motor 3: overload",))) == "motor 3: overload"
    high = {"currents": nine(1, -1.8, 0.1)}
    assert not stop(reading(0.0, **high)) and not stop(reading(0.0, **high), reading(0.1, **high))
    assert stop(reading(0.0, **high), reading(0.1, **high), reading(0.2, **high)).startswith("shoulder: 1.80 A")
    assert not stop(reading(0.0, **high), reading(0.1), reading(0.2, **high))
    low = {"voltages": nine(0, 10.0, 12.0)}
    assert stop(reading(0.0, **low), reading(0.6, **low), reading(1.0, **low)).startswith("waist: 10.0 V")
    assert not stop(reading())  # what a driver cannot know stops nothing


def test_stall_and_squeeze_and_heat() -> None:
    watch = StateWatch(SafetyConfig())
    pushing = {"currents": nine(3, 1.01, 0.0)}
    assert [watch.look(reading(t, **pushing)).stalled for t in (0.0, 0.3, 0.5)] == [False, False, True]
    assert [watch.look(reading(t, gripper_load=-0.9)).open_a_little for t in (1.0, 2.0, 3.0)] == [False, False, True]
    assert watch.look(reading(temperatures=nine(8, 66.0, 30.0))).warnings == ("gripper: 66 C",)


def test_a_simulated_gripper_is_left_alone_and_a_real_one_relaxes() -> None:
    simulated, real = GripperGuard(SafetyConfig()), GripperGuard(SafetyConfig())
    held = {"gripper_load": -0.4}
    state = ArmState(0, START, np.zeros(6), np.full(2, 0.026))
    loaded = ArmState(0, START, np.zeros(6), np.full(2, 0.026), **held)  # type: ignore[arg-type]
    assert [simulated.command(0.0, state) for _ in range(5)] == [0.0] * 5
    given = [real.command(0.0, loaded) for _ in range(5)]
    assert given[:2] == [0.0, 0.0] and 0.3 < given[2] < (0.026 - 0.015) / 0.022 and given[2:] == [given[2]] * 3
    real.give_way()
    assert real.command(0.0, loaded) > given[2] and real.command(1.0, loaded) == 1.0
    assert real.command(0.0, loaded) == 0.0


class Forgetful(TwinDriver):
    """Loses readings."""

    lost = 0

    def read(self) -> ArmState:
        if self.lost:
            self.lost -= 1
            raise ReadError("nothing came")
        return super().read()


def test_six_lost_readings_are_borne_and_the_seventh_stops() -> None:
    twin = Forgetful(QUICK, start="start")
    with pytest.raises(ArmFault, match="7 readings in a row got lost"), twin_arm(twin, homing=False) as arm:
        twin.lost = 6
        arm.observe()
        twin.lost = 7
        arm.observe()


# ---- the rest


def test_black_box_forgets_the_oldest_and_numbers_its_files(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "box", seconds=1.0)
    for i in range(1000):
        recorder.state(reading(float(i), faults=("x",)))
    first, second = recorder.flush("why"), recorder.flush("again")
    assert (
        first is not None and second is not None and (first.name, second.name) == ("black-box-0001.jsonl", "black-box-0002.jsonl")
    )
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    assert rows[0] == {"kind": "flush", "reason": "why", "rows": 64} and len(rows) == 65
    assert rows[-1]["time"] == 999.0 and rows[-1]["temperatures"] == [None] * 9
    assert Recorder().flush("nowhere") is None


def test_a_dry_run_prints_and_opens_nothing(capsys: pytest.CaptureFixture) -> None:
    arm = open_arm(ArmConfig(driver="dynamixel", port="/dev/none", dry_run=True))
    arm._clock.sleep = lambda seconds: None  # type: ignore[method-assign]
    with arm:
        arm.execute(np.array([0, 0.01, 0, 0, 0, 0, 1.0]))
    out = capsys.readouterr().out
    assert "nothing moves" in out and "joints [" in out and out.rstrip().endswith("motors off")


def test_servos_nobody_has_calibrated_move_with_care(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = ArmConfig(driver="dynamixel", gravity=tmp_path / "gravity.json")
    assert open_arm(config).safety.step.scale == 0.3
    assert "30%" in capsys.readouterr().err
    GravityCompensation.from_data_sheet().save(config.gravity)
    assert open_arm(config).safety.step.scale == 1.0
