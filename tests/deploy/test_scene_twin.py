"""A deployment on the simulated robot against the evaluation of the same episodes, and trials there that are killed half way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from deploy.cli import main
from deploy.control import START
from deploy.episodes import run_on_twin
from deploy.overlay import GREEN, simulated_picture
from deploy.policy import LocalPolicy
from deploy.run import on_twin
from deploy.runner import RunSettings
from deploy.safety_config import SafetyConfig, StepLimits
from deploy.scene_twin import SceneTwin
from deploy.trial_log import TrialKey, TrialLog
from genvla.evaluation.episodes import episode_specs, run_episodes
from genvla.evaluation.evaluate import policy_act
from genvla.evaluation.results import EvaluationResult
from genvla.policy.checkpoints import load_policy
from genvla.policy.flow_policy import FlowPolicy
from genvla.robots.wx250s import FINGER_CLOSED, FINGER_OPEN
from genvla.sim import SimConfig, make_vector_env, scenes_of
from genvla.sim.config import load_sim
from genvla.types import EpisodeRecord, EpisodeSpec, Observation
from tests.sim.conftest import scenes  # noqa: F401

CHECKPOINT = Path(__file__).parents[2] / "checkpoints" / "cpu"
ROTATION = 0.4
"""The shipped policy turns the wrist by up to 0.35 rad a step, more than the safety layer allows by default; where that changes
nothing, records are equal to an evaluation's."""
SAFETY = on_twin(replace(SafetyConfig(), step=StepLimits(rotation=ROTATION)), SimConfig())


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    return load_policy(CHECKPOINT).eval()


@pytest.fixture(scope="module")
def short() -> SimConfig:
    """The policy's own set-up, with shorter episodes."""
    sim = load_sim(CHECKPOINT)
    assert sim is not None
    return replace(sim, max_chunks=5)


@pytest.fixture(scope="module")
def specs(scenes: Path) -> list[EpisodeSpec]:  # noqa: F811
    return episode_specs(scenes_of(scenes, "train"), 0, per_scene=2)


@pytest.fixture(scope="module")
def evaluated(scenes: Path, policy: FlowPolicy, short: SimConfig, specs: list[EpisodeSpec]) -> list[EpisodeRecord]:  # noqa: F811
    with make_vector_env(scenes, short, 1, 0) as env:
        return run_episodes(policy_act(policy), env, specs)


def test_the_records_are_those_of_an_evaluation_to_the_last_step(
    scenes: Path,  # noqa: F811
    policy: FlowPolicy,
    short: SimConfig,
    specs: list[EpisodeSpec],
    evaluated: list[EpisodeRecord],
) -> None:
    twin = SceneTwin(scenes, short)
    for spec, record in zip(specs, evaluated, strict=True):
        episode = run_on_twin(twin, spec, LocalPolicy(policy), SAFETY, RunSettings())
        assert (episode.report.changes, episode.report.holds) == ({}, [])
        assert episode.record == record
    # The last bits agree too: joint angles after the last episode, and those of a twin that ran it alone.
    qpos = twin.env.qpos().tobytes()
    twin.dispose()
    alone = SceneTwin(scenes, short)
    run_on_twin(alone, specs[-1], LocalPolicy(policy), SAFETY, RunSettings())
    assert alone.env.qpos().tobytes() == qpos
    alone.dispose()


def test_a_hold_keeps_the_grip(scenes: Path, short: SimConfig, specs: list[EpisodeSpec]) -> None:  # noqa: F811
    twin = SceneTwin(scenes, short)
    twin.begin(specs[0])
    joints = twin.read().joint_positions
    for _ in range(4):
        twin.command(joints, 0.4, 0.2)
    target = FINGER_CLOSED + 0.4 * (FINGER_OPEN - FINGER_CLOSED)
    twin.env.agent.articulation.set_qpos(np.append(joints, [target + 0.004] * 2).astype(np.float32))  # as if an object held it
    twin.hold()
    drives = [joint.drive_target[0] for joint in twin.env.agent.articulation.get_active_joints()]
    assert drives[6:] == pytest.approx([target, target])  # it goes on squeezing
    np.testing.assert_allclose(drives[:6], joints, atol=1e-3)
    twin.begin(specs[0])
    twin.hold()
    assert twin.read().gripper > 0.95
    twin.dispose()


def test_targets_may_press_on_a_simulated_table_but_not_run_away() -> None:
    sim = replace(SimConfig(), randomization=replace(SimConfig().randomization, robot_height=0.03))
    lifted = on_twin(SafetyConfig(), sim)
    assert lifted.workspace.table_height == pytest.approx(-0.11) and lifted.step.leash == SafetyConfig().step.leash
    chosen = replace(SafetyConfig(), workspace=replace(SafetyConfig().workspace, table_height=0.001))
    assert on_twin(chosen, sim).workspace == chosen.workspace


def test_a_server_that_dies_ends_the_run_and_counts_for_nothing(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    policy: FlowPolicy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("websockets")
    from genvla.serving.command import metadata_of
    from genvla.serving.server import PolicyServer

    asked = 0

    def act(observation: Observation, noise: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked > 8:
            raise RuntimeError("out of memory")
        return policy_act(policy)(observation, noise)

    metadata = metadata_of(policy, CHECKPOINT)
    metadata["sim"]["max_chunks"] = 5
    with PolicyServer(act, (4, 7), metadata).running() as port:
        words = ["run", "--policy", f"ws://127.0.0.1:{port}", "--scenes", str(scenes), "--split", "train", "--episodes", "4"]
        assert main([*words, "--output", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert "deploy: error: no decision, the run is over: the server says: error: the policy failed" in err.splitlines()[-1]
    assert json.loads((tmp_path / "run.json").read_text())["runs"] == 2
    assert not (tmp_path / "results.json").exists()


def test_a_narrow_safety_layer_changes_actions_and_says_so(
    scenes: Path,  # noqa: F811
    policy: FlowPolicy,
    short: SimConfig,
    specs: list[EpisodeSpec],
) -> None:
    narrow = replace(SAFETY, step=replace(SAFETY.step, translation=0.005))
    twin = SceneTwin(scenes, short)
    report = run_on_twin(twin, specs[0], LocalPolicy(policy), narrow, RunSettings()).report
    twin.dispose()
    assert report.changes["step"] > 0 and report.discarded > 0


def test_run_through_the_server_gives_the_same_results_file(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    policy: FlowPolicy,
    evaluated: list[EpisodeRecord],
) -> None:
    pytest.importorskip("websockets")
    from genvla.serving.command import metadata_of
    from genvla.serving.server import PolicyServer

    metadata = metadata_of(policy, CHECKPOINT)
    metadata["sim"]["max_chunks"] = 5
    with PolicyServer(policy_act(policy), (4, 7), metadata).running() as port:
        words = ["run", "--policy", f"ws://127.0.0.1:{port}", "--scenes", str(scenes), "--split", "train", "--episodes", "4"]
        assert main([*words, "--safety.step.rotation", str(ROTATION), "--output", str(tmp_path)]) == 0
    result = EvaluationResult.from_json(tmp_path / "results.json")
    assert list(result.records) == evaluated
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["actions_changed"] == {} and summary["steps"] == 4 * 5 * 4


def test_real_time_passes_while_the_policy_thinks(
    scenes: Path,  # noqa: F811
    short: SimConfig,
    specs: list[EpisodeSpec],
) -> None:
    twin = SceneTwin(scenes, replace(short, sim_hz=50), real_time=True)
    twin.begin(specs[0])
    before = twin.read()
    time.sleep(0.3)
    frame, after = twin.look(), twin.read()
    assert after.time - before.time >= 0.3 and frame.time <= after.time
    assert twin.slot.steps == int((after.time - twin._began) * 5 + 1e-9)
    twin.dispose()


SIM = CHECKPOINT.parents[1] / "configs" / "sim_cpu.yaml"
TRIALS = ["--layouts", "2", "--split", "all", "--max_scenes", "2", "--sim", str(SIM), "--sim.max_chunks", "3"]


def trials(scenes: Path, output: Path) -> list[str]:  # noqa: F811
    policies = json.dumps({"pretrained": str(CHECKPOINT), "rl": str(CHECKPOINT)})
    return ["trials", "--policies", policies, "--scenes", str(scenes), "--output", str(output), *TRIALS]


@pytest.mark.slow
def test_trials_killed_half_way_end_as_those_left_alone(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(trials(scenes, tmp_path / "whole")) == 0
    shown = capsys.readouterr().out
    assert "8 of 8 trials" in shown and "SR, success" in shown and "paper, RL" in shown

    log = tmp_path / "killed" / "trials.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "deploy.cli", *trials(scenes, log.parent)], env={**os.environ})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None and (not log.exists() or log.read_text().count("\n") < 4):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(TrialLog.read(log).counted)
    assert 3 <= made < 8
    assert main(trials(scenes, log.parent)) == 0
    assert f"{made} of 8 trials are made" in capsys.readouterr().out

    def outcome(path: Path) -> dict[TrialKey, tuple]:
        return {key: (t.success, t.tags, t.seconds) for key, t in TrialLog.read(path).counted.items()}

    assert outcome(log) == outcome(tmp_path / "whole" / "trials.jsonl")
    assert (log.parent / "trials.md").read_text() == (tmp_path / "whole" / "trials.md").read_text()


def test_trials_then_a_redo_then_a_report(
    scenes: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = [*trials(scenes, tmp_path), "--layouts", "1", "--max_scenes", "1"]
    assert main(short) == 0
    log = TrialLog.read(tmp_path / "trials.jsonl")
    pretrained, rl = (log.counted[TrialKey(log.plan.scenes[0], 0, name)] for name in ("pretrained", "rl"))
    assert (pretrained.success, pretrained.tags, pretrained.seconds) == (rl.success, rl.tags, rl.seconds)  # the same policy
    assert main([*short, "--redo", json.dumps([str(rl.key)])]) == 0
    again = TrialLog.read(tmp_path / "trials.jsonl")
    assert again.counted[rl.key] == replace(rl, attempt=2, run=again.counted[rl.key].run)
    capsys.readouterr()
    assert main(["trials", "--policies", "{}", "--output", str(tmp_path), "--only_report", "true"]) == 0
    assert "2 of 2 trials, 1 more void or redone" in capsys.readouterr().out
    assert main([*trials(scenes, tmp_path), "--layouts", "3"]) == 2
    assert "layouts: 1 found, 3 asked for" in capsys.readouterr().err


def test_the_overlay_of_a_camera_that_stands_right(scenes: Path, tmp_path: Path, short: SimConfig) -> None:  # noqa: F811
    joints = START + [0.3, 0.0, 0.0, 0.0, 0.0, 0.0]
    right, wrong = (simulated_picture(scenes, short, pose, 160, 120) for pose in (START, joints))
    film = cv2.VideoWriter(str(tmp_path / "live.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    for _ in range(100):
        film.write(cv2.cvtColor(right, cv2.COLOR_RGB2BGR))
    film.release()
    words = ["calibrate", "camera", "--scenes", str(scenes), "--checkpoint", str(CHECKPOINT)]
    words += ["--camera.source", str(tmp_path / "live.avi"), "--output", str(tmp_path / "out.png")]
    assert main(words) == 0
    live, simulated, laid = np.split(cv2.cvtColor(cv2.imread(str(tmp_path / "out.png")), cv2.COLOR_BGR2RGB), 3, axis=1)
    np.testing.assert_array_equal(simulated, right)
    off = [np.abs(live.astype(int) - picture).mean() for picture in (right, wrong)]
    assert off[0] < 0.7 * off[1]  # the film's compression leaves something
    green = (laid == GREEN).all(axis=2)
    assert 0.01 < green.mean() < 0.4


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--checkpoint", str(CHECKPOINT)], "scenes: nothing found"),
        (["run"], "policy: nothing found"),
        (["run", "--checkpoint", "one", "--policy", "two"], "policy: a checkpoint too found"),
        (["run", "--policy", str(CHECKPOINT), "--driver", "dynamixel"], "instruction: nothing found"),
        (["run", "--policy", "nowhere", "--scenes", "nowhere"], "nowhere"),
        (["run", "--policy", str(CHECKPOINT), "--scenes", "x", "--exec_horizon", "0"], "exec_horizon"),
        (["trials", "--policies", "{}", "--scenes", "x"], "policies"),
        (["trials", "--policies", json.dumps({"a": str(CHECKPOINT)}), "--driver", "bridge"], "tasks"),
    ],
)
def test_bad_words_are_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


@pytest.mark.slow
def test_five_hertz_for_a_thousand_steps_in_real_time(
    scenes: Path,  # noqa: F811
    policy: FlowPolicy,
    short: SimConfig,
    specs: list[EpisodeSpec],
) -> None:
    """Needs a machine that does nothing else.

    In episodes of 20 s, as the paper's: a policy that goes on long after its task is done wanders until the arm is parked.
    """
    twin = SceneTwin(scenes, replace(short, max_chunks=25), real_time=True)
    steps = missed = 0
    for spec in cycle(specs):
        twin.begin(spec)
        report = run_on_twin(twin, spec, LocalPolicy(policy), SAFETY, RunSettings()).report
        print(json.dumps(report.deadlines.summary(), indent=2))
        steps, missed = steps + report.steps, missed + report.deadlines.missed
        assert report.steps >= 20
        if steps >= 1000:
            break
    twin.dispose()
    assert missed == 0
