"""No command leaves the safety layer outside any limit; sane actions pass to the last bit; what is refused holds, then stops."""

from __future__ import annotations

import math
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.control import NEUTRAL, SLEEP, START, hand_pose
from deploy.drivers import ArmFault, ArmState
from deploy.safety import SafetyLayer
from deploy.safety_config import FrameLimits, JointLimits, SafetyConfig, StepLimits, Watchdogs, Workspace
from genvla.errors import UserError
from genvla.robots.control import TargetPoseControl
from tests.deploy import truth

OPEN = np.full(2, 0.037)
STILL = np.zeros(6)
CHANGES = ("workspace", "step", "lean", "leash", "joint step")


def state(joints: np.ndarray, fingers: np.ndarray = OPEN) -> ArmState:
    return ArmState(0.0, np.asarray(joints), STILL, fingers)


def adversarial(rng: np.random.Generator) -> object:
    """Sane steps, wild ones, huge ones, and things that are no actions."""
    kind = rng.integers(12)
    if kind < 4:
        return (rng.normal(size=7) * [0.02, 0.02, 0.02, 0.05, 0.05, 0.1, 1]).astype(np.float32)
    if kind < 6:  # the same way again and again
        return np.sign(np.sin(np.arange(7) * rng.integers(1, 9))) * [0.05, 0.05, 0.05, 0.25, 0.25, 0.25, 1]
    if kind < 9:
        return rng.uniform(-1, 1, 7) * 10.0 ** rng.integers(-3, 3)
    if kind == 9:
        return rng.uniform(-1, 1, 7) * 10.0 ** rng.integers(3, 300)
    if kind == 10:
        action = rng.normal(size=7)
        action[rng.integers(7)] = rng.choice([math.nan, math.inf, -math.inf])
        return action
    things = (np.zeros(6), np.zeros((1, 7)), None, "stop", [0.0] * 8, {"a": 1}, np.array([1j] * 7), [[0], [1, 2]], 10**400)
    return things[rng.integers(len(things))]


def attack(steps: int, seed: int) -> Counter[str]:
    """An arm that lags, is pushed about and read with noise, under adversarial actions; asserts that no limit is broken."""
    rng = np.random.default_rng(seed)
    layer, counts = SafetyLayer(SafetyConfig()), Counter[str]()
    joints = START.copy()
    layer.resync(state(joints))
    commands, measured = [], []
    for _ in range(steps):
        seen = joints + rng.normal(size=6) * 1e-3 * rng.integers(3)
        verdict = layer.step(adversarial(rng), state(seen))
        counts[verdict.kind] += 1
        counts.update(verdict.changes)
        if verdict.kind == "move":
            assert verdict.gripper in (0.0, 1.0) and 0.2 <= verdict.duration < 1.0
            assert np.abs(verdict.joints - seen).max() <= 1.5 * 0.75 * verdict.duration + 1e-9  # a trapezoid's peak speed
            commands.append(verdict.joints)
            measured.append(seen)
            joints = joints + (verdict.joints - joints) * rng.uniform(0.3, 1.0)
        elif verdict.kind == "stop":
            if rng.random() < 0.3:
                joints = START.copy()
            layer.resync(state(joints))
        if rng.random() < 0.01:  # somebody pushes
            joints = joints + rng.normal(size=6) * 0.2
    assert not truth.broken(np.array(commands), np.array(measured))
    return counts


def test_no_command_breaks_a_limit() -> None:
    counts = attack(2500, seed=0)
    assert counts["move"] > 1000 and counts["stop"] > 10  # it neither refuses everything nor nothing
    assert min(counts[name] for name in CHANGES) > 10


@pytest.mark.slow
def test_no_command_of_a_million_breaks_a_limit() -> None:
    """Some eight minutes of computing, shared by the processors there are."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, torch.set_num_threads, (1,)) as pool:
        counts = sum(pool.map(attack, [20_000] * 50, range(1000, 1050)), Counter[str]())
    print(dict(counts))
    assert counts["move"] + counts["hold"] + counts["stop"] == 1_000_000
    assert counts["move"] > 400_000 and min(counts[name] for name in CHANGES) > 1000


def test_the_truth_of_these_tests_sees_broken_limits() -> None:
    assert set(truth.broken(np.array([SLEEP]), np.array([START]))) >= {"step", "lean"}
    assert set(truth.broken(np.zeros((1, 6)), np.zeros((1, 6)))) >= {"x", "z", "lean"}
    assert not truth.broken(START[None], START[None])
    behind = np.array([[1.36, -1.77, 0.87, -1.23, 1.38, 0.16]])
    assert set(truth.broken(behind, behind)) >= {"post"}


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_sane_actions_pass_to_the_last_bit(seed: int) -> None:
    """Whatever the simulator's control does with them is what the arm is told."""
    rng = np.random.default_rng(seed)
    layer, simulator = SafetyLayer(SafetyConfig()), TargetPoseControl(1)
    simulator.reset([0], torch.from_numpy(START[None]))
    layer.resync(state(START))
    joints = START
    for _ in range(8):
        action = (rng.uniform(-1, 1, 7) * [0.01, 0.01, 0.01, 0.03, 0.03, 0.05, 1]).astype(np.float32)
        told = simulator.joint_targets(torch.from_numpy(action[None]))[0].numpy()
        verdict = layer.step(action, state(joints))
        assert (verdict.kind, verdict.changes) == ("move", ())
        assert (verdict.joints.astype(np.float32) == told[:6]).all()
        assert verdict.gripper == float(action[6] > 0.5)
        joints = joints + 0.6 * (verdict.joints - joints)


@pytest.mark.parametrize("bad", [np.full(7, np.nan), np.zeros(6), None, "go", np.array([1e39] * 7)])
def test_a_bad_action_holds_and_the_second_stops(bad: object) -> None:
    layer = SafetyLayer(SafetyConfig())
    layer.resync(state(START))
    first, second = layer.step(bad, state(START)), layer.step(bad, state(START))
    assert (first.kind, second.kind) == ("hold", "stop")
    assert "7 finite numbers wanted" in second.reason and "\n" not in second.reason
    layer.resync(state(START))
    assert [layer.step(a, state(START)).kind for a in (bad, np.zeros(7), bad)] == ["hold", "move", "hold"]


def test_a_state_that_is_not_finite_holds_then_stops() -> None:
    layer = SafetyLayer(SafetyConfig())
    layer.resync(state(START))
    assert [layer.step(np.zeros(7), state(START * np.nan)).kind for _ in range(2)] == ["hold", "stop"]


def test_a_target_does_not_run_ahead_of_an_arm_that_is_held_back() -> None:
    layer = SafetyLayer(SafetyConfig())
    layer.resync(state(START))
    push = np.array([0, 0, -0.03, 0, 0, 0, 1.0])
    heights, changes = [], []
    for _ in range(20):
        verdict = layer.step(push, state(START))  # the joints never move
        heights.append(hand_pose(verdict.joints)[0][2])
        changes += verdict.changes
    assert hand_pose(START)[0][2] - min(heights) < 0.08 + 0.03 + 0.002
    assert changes.count("leash") >= 5


def test_steps_are_scaled_for_a_first_run() -> None:
    layer = SafetyLayer(SafetyConfig(step=StepLimits(scale=0.3)))
    layer.resync(state(START))
    verdict = layer.step(np.array([0, 0.04, 0, 0, 0, 0, 1.0]), state(START))
    np.testing.assert_allclose(hand_pose(verdict.joints)[0] - hand_pose(START)[0], [0, 0.012, 0], atol=2e-4)


def test_big_steps_get_the_time_that_servos_need_for_them() -> None:
    layer = SafetyLayer(SafetyConfig())
    layer.resync(state(START))
    verdict = layer.step(np.array([0, 0.05, 0, 0, 0, 0.25, 1.0]), state(START + [0, 0, 0, 0, 0, 0.2]))
    change = np.abs(verdict.joints - START - [0, 0, 0, 0, 0, 0.2]).max()
    assert change / (0.75 * verdict.duration) <= 1.5 + 1e-9  # a trapezoid of 1.25 T with ramps of 0.5 T
    assert layer.step(np.zeros(7), state(verdict.joints)).duration == 0.2


def test_out_of_the_workspace_by_more_than_a_step_stops_after_three() -> None:
    layer = SafetyLayer(SafetyConfig())
    layer.resync(state(np.zeros(6)))  # stretched out, 0.36 m high
    kinds = [layer.step(np.zeros(7), state(np.zeros(6))) for _ in range(3)]
    assert [verdict.kind for verdict in kinds] == ["hold", "hold", "stop"]
    assert "outside of the workspace" in kinds[-1].reason


def test_ways_home_are_free_and_slow() -> None:
    layer = SafetyLayer(SafetyConfig())
    for start, goal in ((SLEEP, NEUTRAL), (NEUTRAL, START), (START, NEUTRAL), (NEUTRAL, SLEEP)):
        way = np.concatenate([start[None], layer.way(start, goal)])
        assert np.abs(np.diff(way, axis=0)).max() <= 0.5 * 0.2 + 1e-9
        np.testing.assert_allclose(way[-1], goal, atol=1e-9)
        assert truth.hand(way)[:, 2, 3].min() > 0.05
    assert len(layer.way(NEUTRAL, SLEEP, seconds=3.0)) >= 15
    with pytest.raises(ArmFault, match="no free way"):
        layer.way(START, np.array([0.0, 0.9, 0.6, 0.0, 0.3, 0.0]))  # through the table


@pytest.mark.parametrize(
    "build",
    [
        lambda: SafetyConfig(step=StepLimits(translation=math.nan)),
        lambda: SafetyConfig(step=StepLimits(leash=-1)),
        lambda: SafetyConfig(workspace=Workspace(x=(0.4, 0.1))),
        lambda: SafetyConfig(workspace=Workspace(keep_out=((0, 0, 0, 0, 1, 1),))),
        lambda: SafetyConfig(joints=JointLimits(speed_trip=0)),
        lambda: SafetyConfig(watchdogs=Watchdogs(hold=3.0)),
        lambda: SafetyConfig(frames=FrameLimits(hold=2.0)),
    ],
)
def test_senseless_limits_are_refused(build: object) -> None:
    with pytest.raises(UserError, match=r"safety\.\w+\.\w+: .* wanted"):
        build()  # type: ignore[operator]
