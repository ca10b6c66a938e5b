"""The driver and ROBOTIS' own SDK against the simulated bus: start-up, a thousand control steps, park; and every fault ends in
hold or park, with a line that says why."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk")

from deploy.arm import GuardedArm  # noqa: E402
from deploy.calibrate import measure  # noqa: E402
from deploy.control import NEUTRAL, SLEEP, START, hand_pose  # noqa: E402
from deploy.drivers import ArmFault, registers  # noqa: E402
from deploy.drivers.dynamixel import DynamixelDriver  # noqa: E402
from deploy.drivers.servo_bus import Bus, reboot_motors, shorten_latency  # noqa: E402
from deploy.gravity import GravityCompensation, gravity_torque  # noqa: E402
from deploy.recorder import Recorder  # noqa: E402
from deploy.safety_config import SafetyConfig, Watchdogs  # noqa: E402
from genvla.errors import UserError  # noqa: E402
from tests.deploy.bus import SimulatedBus, SteppedTime, crc16  # noqa: E402

PERFECT = GravityCompensation(tuple(1 / k for k in registers.joint_stiffness()))
PATIENT, HASTY = 3.0, 0.2
"""Seconds a reply may take: the servos share a busy processor with the tests. Hasty where replies are meant to be missing."""
ALL = set(range(1, 10))


@pytest.fixture
def passing() -> SteppedTime:
    return SteppedTime()


@pytest.fixture
def bus(passing: SteppedTime) -> Iterator[SimulatedBus]:
    with SimulatedBus(passing) as bus:
        yield bus


def driver_on(bus: SimulatedBus, compensation: GravityCompensation = PERFECT, reply_timeout: float = PATIENT) -> DynamixelDriver:
    return DynamixelDriver(bus.device, compensation=compensation, clock=bus.time, reply_timeout=reply_timeout)  # type: ignore[arg-type]


def arm_on(bus: SimulatedBus, reply_timeout: float = PATIENT) -> GuardedArm:
    return GuardedArm(driver_on(bus, PERFECT, reply_timeout), clock=bus.time, monitor=False)  # type: ignore[arg-type]


def wave(step: int) -> np.ndarray:
    """A sane policy: the hand goes in circles, the gripper opens and closes."""
    angle = 2 * math.pi * step / 40
    return np.array([0, 0.012 * math.cos(angle), 0.008 * math.sin(angle), 0, 0, 0.03 * math.cos(angle), float(step % 50 < 25)])


def run(arm: GuardedArm, bus: SimulatedBus, steps: int) -> None:
    for step in range(steps):
        arm.execute(wave(step))
        bus.time.sleep(0.2)  # type: ignore[attr-defined]


def test_crc_of_the_manual() -> None:
    # ROBOTIS e-manual, protocol 2.0: the ping packet of motor 1
    assert crc16(bytes.fromhex("fffffd0001030001")) == 0x4E19


def test_crank_of_the_published_table() -> None:
    for finger, tick in ((0.015, 1802), (0.0195, 2048), (0.035, 2726), (0.037, 2875)):
        assert registers.to_tick(registers.finger_to_crank(finger)) == tick
        assert registers.crank_to_finger(registers.finger_to_crank(finger)) == pytest.approx(finger, abs=1e-12)


def test_start_up_sets_the_servos_and_the_second_time_writes_nothing(bus: SimulatedBus) -> None:
    driver = driver_on(bus)
    driver.connect()
    assert bus.torques_on == ALL and not bus.fell
    assert [servo.table[10] for servo in bus.servos.values()] == [4, 4, 5, 4, 5, 4, 5, 4, 4]
    assert [servo.table[11] for servo in bus.servos.values()] == [5] * 7 + [3, 3]
    assert [servo.table[12] for servo in bus.servos.values()] == [255, 255, 2, 255, 4] + [255] * 4
    assert all(servo.get(102, 2) == 799 for i, servo in bus.servos.items() if i < 8)  # 2.15 A
    assert bus.servos[9].get(100, 2) == 350
    assert all(servo.table[98] == 25 for servo in bus.servos.values())
    for shadow, master in ((3, 2), (5, 4)):
        assert abs(bus.servos[shadow].get(132, 4) - bus.servos[master].get(132, 4)) <= 2
    state = driver.read()
    np.testing.assert_allclose(state.joint_positions, SLEEP, atol=0.01)
    assert np.isnan(state.currents[7:]).all() and np.isfinite(state.currents[:7]).all()
    np.testing.assert_allclose((state.voltages, state.temperatures), ([12.0] * 9, [35.0] * 9))
    driver.park()
    driver.close()
    assert bus.torques_on == set()
    written = [servo.writes for servo in bus.servos.values()]
    again = driver_on(bus)
    again.connect()
    again.park()
    again.close()
    assert [servo.writes for servo in bus.servos.values()] == written


def check_a_run(bus: SimulatedBus, steps: int) -> None:
    with arm_on(bus) as arm:
        np.testing.assert_allclose(arm.observe().joint_positions, START, atol=0.03)
        run(arm, bus, steps)
        reached = hand_pose(arm.observe().joint_positions)[0]
        assert np.linalg.norm(reached - hand_pose(START)[0]) < 0.15
        assert not set(arm.counts) - {"workspace", "gripper gave way"}, arm.counts
    assert bus.torques_on == set() and not bus.fell
    bus.catch_up()
    np.testing.assert_allclose(bus.angles[:6], SLEEP, atol=0.1)
    assert bus.fastest < 2.0 and bus.fights < 0.2


def test_start_up_control_steps_and_park(bus: SimulatedBus) -> None:
    check_a_run(bus, steps=60)


@pytest.mark.slow
def test_a_thousand_control_steps(bus: SimulatedBus) -> None:
    check_a_run(bus, steps=1000)


def test_compensation_takes_the_sag(bus: SimulatedBus) -> None:
    sags = {}
    for name, compensation in (("without", GravityCompensation((0.0,) * 6)), ("with", PERFECT)):
        with GuardedArm(driver_on(bus, compensation), clock=bus.time, monitor=False) as arm:  # type: ignore[arg-type]
            for _ in range(3):
                arm.stay(START)
            sags[name] = hand_pose(START)[0][2] - hand_pose(arm.observe().joint_positions)[0][2]
    assert sags["without"] == pytest.approx(0.0207, abs=0.002)  # published for P 800, friction ignored
    assert abs(sags["with"]) < 0.1 * sags["without"]


def test_calibration_finds_the_stiffness(bus: SimulatedBus) -> None:
    bus.friction = 0.05
    bus.servos[2].put(84, 2, 800)
    with arm_on(bus) as arm:
        found, strongest, before, after = measure(arm, GravityCompensation.from_data_sheet(1.0))
    for joint, tolerance in ((1, 0.05), (2, 0.05)):
        assert found.compliance[joint] == pytest.approx(PERFECT.compliance[joint], rel=tolerance)
    assert strongest[1] > 1.5 and before > 0.018 and abs(after) < 0.1 * before


# ---- faults


def dead(bus: SimulatedBus) -> None:
    bus.silent = {4}


def unplugged(bus: SimulatedBus) -> None:
    bus.unplug()


def hot(bus: SimulatedBus) -> None:
    bus.temperatures[7] = 71


def too_hot_for_the_motor(bus: SimulatedBus) -> None:
    bus.temperatures[7] = 90


def brown_out(bus: SimulatedBus) -> None:
    bus.volts = 10.2


def jammed(bus: SimulatedBus) -> None:
    bus.stuck = {0, 1, 2, 3, 4, 5}


def failing_gear(bus: SimulatedBus) -> None:
    bus.servos[2].table[70] = 0x20


def silence(bus: SimulatedBus) -> None:
    bus.time.sleep(1.0)  # type: ignore[attr-defined]


FAULTS: dict[str, tuple[Callable[[SimulatedBus], None], str, str]] = {
    # what is done to the bus, what the line says, how it ends
    "a servo that no longer answers": (dead, "in a row got lost: .*motor 4", "hold"),
    "the adapter pulled out": (unplugged, "the bus is gone", "gone"),
    "a hot motor": (hot, "wrist_angle: 71 C", "park"),
    "a motor that cut its torque": (too_hot_for_the_motor, r"motor 7 \(wrist_angle\): overheating", "hold"),
    "low voltage": (brown_out, "waist: 10.2 V", "park"),
    "an overload": (failing_gear, r"motor 2 \(shoulder\): overload", "hold"),
    "a host that was away": (silence, "stopped by its bus watchdog", "park"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_in_hold_or_park(bus: SimulatedBus, name: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    strike, line, end = FAULTS[name]
    driver = driver_on(bus)
    arm = GuardedArm(driver, clock=bus.time, recorder=Recorder(tmp_path), monitor=False)  # type: ignore[arg-type]
    with pytest.raises(ArmFault, match=line) as caught, arm:
        run(arm, bus, 3)
        strike(bus)
        if strike is dead:
            driver._open.reply_timeout = HASTY
        run(arm, bus, 60)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("black-box-0001.jsonl"))
    if end == "park":
        assert bus.torques_on == set() and not bus.fell
        np.testing.assert_allclose(bus.angles[:6], SLEEP, atol=0.1)
    elif end == "hold":
        assert len(bus.torques_on) >= 8
        assert "could not park and holds" in capfd.readouterr().err
        if strike is dead:  # the others were told to stop where they are
            bus.catch_up()
            held = bus.servos[2].get(116, 4, True)
            assert abs(held - bus.servos[2].get(132, 4)) < 60
    driver_locks_are_free(bus)


def driver_locks_are_free(bus: SimulatedBus) -> None:
    if bus._slave is not None:
        Bus(bus.device).close()


def test_a_jammed_arm_does_not_wind_up(bus: SimulatedBus) -> None:
    with pytest.raises(ArmFault), arm_on(bus) as arm:
        run(arm, bus, 2)
        jammed(bus)
        for _ in range(25):
            arm.execute(np.array([0, 0, -0.03, 0, 0, 0, 1.0]))
            bus.time.sleep(0.2)  # type: ignore[attr-defined]
        assert arm.counts["leash"] > 3 or arm.counts["stall"] > 0
        raise ArmFault("enough")
    pulls = [abs(servo.get(126, 2, True)) * 2.69e-3 for servo in bus.servos.values() if servo.model == 1020]
    assert max(pulls) < 2.3


def test_lost_and_damaged_replies_are_asked_for_again(bus: SimulatedBus) -> None:
    with arm_on(bus, reply_timeout=HASTY) as arm:
        bus.drop, bus.corrupt = 0.01, 0.01
        run(arm, bus, 15)
        bus.drop = bus.corrupt = 0.0
        assert arm.counts["lost reading"] > 0 and not arm.counts["stop"]
    assert bus.torques_on == set()


def test_a_missing_motor_or_one_of_the_wrong_model_is_refused_before_anything_moves(bus: SimulatedBus) -> None:
    bus.silent = {6}
    with pytest.raises(ArmFault, match=r"no answer from motor 6 \(forearm_roll\): check power"):
        driver_on(bus, reply_timeout=HASTY).connect()
    bus.silent = set()
    bus.servos[8].put(0, 2, 1020)
    with pytest.raises(ArmFault, match=r"motor 8 \(wrist_rotate\): model 1020 found, 1060 \(XL430-W250\) wanted"):
        driver_on(bus).connect()
    assert bus.torques_on == set()


def test_an_arm_that_does_not_lie_in_its_sleep_pose_is_not_started(passing: SteppedTime) -> None:
    with SimulatedBus(passing, joints=tuple(NEUTRAL)) as bus:
        with pytest.raises(ArmFault, match="elbow is 1.11 rad from the sleep pose, .* run `deploy park`"), arm_on(bus):
            raise AssertionError
        assert bus.torques_on == ALL  # it is held: letting go would drop it


def test_an_error_left_in_a_motor_wants_a_reboot(bus: SimulatedBus) -> None:
    bus.servos[5].table[70] = 0x20
    with pytest.raises(ArmFault, match=r"motor 5 \(elbow_shadow\): overload: support the arm, then `deploy reboot`"):
        driver_on(bus).connect()
    reboot_motors(bus.device, ["elbow_shadow"])
    driver = driver_on(bus)
    driver.connect()
    driver.close()


def test_a_dead_host_leaves_the_arm_standing(bus: SimulatedBus, passing: SteppedTime) -> None:
    arm = arm_on(bus)
    arm.__enter__()
    run(arm, bus, 5)
    arm.close()  # as the kernel does for a process that is killed
    passing.sleep(30.0)
    bus.catch_up()
    before = bus.angles.copy()
    passing.sleep(30.0)
    bus.catch_up()
    np.testing.assert_allclose(bus.angles, before, atol=1e-6)
    assert bus.torques_on == ALL and all(servo.watchdog_tripped for servo in bus.servos.values()) and not bus.fell
    home = arm_on(bus)  # what `deploy park` does
    home.connect()
    home.park("asked for")
    home.close()
    assert bus.torques_on == set() and not bus.fell


def test_one_process_has_the_port(bus: SimulatedBus) -> None:
    first = Bus(bus.device)
    with pytest.raises(UserError, match="in use by another process"):
        Bus(bus.device)
    first.close()
    Bus(bus.device).close()


def test_a_signal_parks(bus: SimulatedBus) -> None:
    with pytest.raises(SystemExit) as caught, arm_on(bus) as arm:
        run(arm, bus, 2)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
    assert caught.value.code == 128 + signal.SIGTERM
    assert bus.torques_on == set() and not bus.fell
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_policy_that_hangs_makes_the_arm_hold_then_park() -> None:
    class Fast:
        """Twice as fast as the wall's."""

        def now(self) -> float:
            return time.monotonic() * 2

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds / 2)

    clock = Fast()
    safety = SafetyConfig(watchdogs=Watchdogs(hold=1.5, park=6.0, bus=2.5, rate=20.0))
    with SimulatedBus(clock) as bus:
        driver = DynamixelDriver(bus.device, safety, PERFECT, clock, reply_timeout=PATIENT)
        with pytest.raises(ArmFault, match="parked: no action for"), GuardedArm(driver, safety, clock=clock, monitor=True) as arm:
            arm.execute(np.array([0, 0, 0, 0, 0, 0, 1.0]))
            until = time.monotonic() + 60
            while bus.torques_on and time.monotonic() < until:
                time.sleep(0.1)
            assert bus.torques_on == set() and not bus.fell
            assert arm.counts["watchdog hold"] == 1 and arm.counts["watchdog park"] == 1
            arm.execute(np.array([0, 0, 0, 0, 0, 0, 1.0]))


def test_a_gripper_relaxes_on_what_it_holds(passing: SteppedTime) -> None:
    with SimulatedBus(passing, object_crank=0.4) as bus, arm_on(bus) as arm:
        for _ in range(2):
            arm.execute(np.array([0, 0, 0, 0, 0, 0, 0.0]))
            passing.sleep(0.2)
        squeezing = bus.servos[9].get(116, 4, True)
        for _ in range(5):
            arm.execute(np.array([0, 0, 0, 0, 0, 0, 0.0]))
            passing.sleep(0.2)
            assert bus.angles[6] < 0.81  # on its way it never opens again
        relaxed = bus.servos[9].get(116, 4, True)
        assert squeezing == registers.to_tick(registers.finger_to_crank(0.015))
        assert relaxed == pytest.approx(registers.to_tick(0.4 - 0.1), abs=8)


def test_a_hold_keeps_arm_and_grip(passing: SteppedTime) -> None:
    with SimulatedBus(passing, object_crank=0.4) as bus, arm_on(bus) as arm:
        for _ in range(5):
            arm.execute(np.array([0, 0.03, 0, 0, 0, 0, 0.0]))
            passing.sleep(0.2)
        squeeze = bus.servos[9].get(116, 4, True)
        arm.hold("asked for")
        passing.sleep(1.0 / 4)
        held = arm.observe().joint_positions
        for _ in range(4):
            passing.sleep(0.25)
            np.testing.assert_allclose(arm.observe().joint_positions, held, atol=0.02)
        assert bus.servos[9].get(116, 4, True) == squeeze and bus.angles[6] == 0.4


def test_latency_of_the_adapter_is_shortened(tmp_path: Path) -> None:
    assert shorten_latency("/dev/pts/0", tmp_path) is None
    (tmp_path / "ttyUSB3").mkdir()
    (tmp_path / "ttyUSB3" / "latency_timer").write_text("16\n")
    assert shorten_latency("/dev/ttyUSB3", tmp_path) == 1


def test_currents_show_the_weight(bus: SimulatedBus) -> None:
    with arm_on(bus) as arm:
        for _ in range(4):
            arm.stay(START)
        currents = arm.observe().currents
    torque = gravity_torque(START)
    assert currents[1] == pytest.approx(torque[1] / 2 / 1.783, abs=0.05) and currents[2] == pytest.approx(currents[1], abs=0.05)
