"""`deploy run`: a policy on the simulated or the real arm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deploy.camera import CameraConfig, open_camera
from deploy.drivers import ArmFault
from deploy.episodes import run_on_twin
from deploy.keys import operator_keys
from deploy.opening import ARM, ArmConfig, careful, make_driver
from deploy.runner import Runner, RunReport, RunSettings
from deploy.safety_config import SAFETY, SafetyConfig
from deploy.sources import PATIENT, TIMEOUT, PolicySource, opened_policy
from genvla.errors import UserError
from genvla.sim.config import SimConfig
from genvla.types import CHUNK_SIZE, EpisodeSpec

if TYPE_CHECKING:
    from rich.console import Console

    from genvla.evaluation.episodes import Film

CAMERA = CameraConfig()


def run(
    checkpoint: Path | None = None,
    policy: str | None = None,
    driver: Literal["twin", "dynamixel", "bridge"] | None = None,
    scenes: Path | None = None,
    split: str = "heldout",
    episodes: int = 20,
    seed: int = 0,
    sim: SimConfig | None = None,
    real_time: bool = False,
    terminate_on_success: bool = False,
    videos: int = 0,
    instruction: str | None = None,
    seconds: float = 20.0,
    camera: CameraConfig = CAMERA,
    arm: ArmConfig = ARM,
    token_file: Path | None = None,
    safety: SafetyConfig = SAFETY,
    dead_man: bool = False,
    exec_horizon: int = CHUNK_SIZE,
    prefetch: bool = False,
    output: Path = Path("deployment"),
    device: str = "auto",
) -> None:
    """Run a policy on the arm: the simulated one in the scenes of a set, or the real one on an instruction.

    Args:
        checkpoint: Folder of the policy.
        policy: Address of its server (ws://HOST:PORT), or its folder, instead.
        driver: Short for --arm.driver. twin is the simulated arm in its scenes; dynamixel the real one over its USB adapter;
            bridge the real one behind a bridge_data_robot server.
        scenes: Folder of the scene set; of the twin.
        split: Scenes to run in: heldout (never trained on), train, or all; of the twin.
        episodes: Number of episodes in all, those of `genvla evaluate` with the same seed; of the twin.
        seed: Seed of the episodes, and of the policy's noise on the real arm.
        sim: The simulated set-up. By default that of the policy's training.
        real_time: Let the twin's time pass while the policy thinks, as the real arm's does.
        terminate_on_success: End a successful episode of the twin at once.
        videos: Number of the twin's episodes to film.
        instruction: What to do; of the real arm.
        seconds: Time limit; of the real arm.
        camera: Where the pictures come from; of the real arm.
        arm: How the real arm is reached.
        token_file: File with the policy server's secret.
        safety: Every limit of the arm. On the twin those of generated scenes count, unless a workspace is given.
        dead_man: Move only while the space bar is held, or a pedal that types it; of the real arm. Without it any key holds the
            arm, and Enter lets it go on.
        exec_horizon: Actions of a chunk that are executed before the next decision.
        prefetch: Decide on the next chunk while the last action of this one is being executed.
        output: Folder for run.json, and on the twin results.json and results.md as of `genvla evaluate`.
        device: Where a policy from a folder runs: auto, cpu, cuda, cuda:1.

    Raises:
        UserError: something given does not exist or cannot be used.
        ArmFault: the real arm could not go on.
    """
    from rich.console import Console

    if (checkpoint is None) == (policy is None):
        raise UserError(f"policy: {'nothing' if policy is None else 'a checkpoint too'} found, --checkpoint or --policy wanted")
    policy = str(checkpoint) if policy is None else policy
    settings, console = RunSettings(exec_horizon, prefetch), Console()
    arm = arm if driver is None else replace(arm, driver=driver)
    simulated = arm.driver == "twin" and not arm.dry_run
    if simulated and scenes is None:
        raise UserError("scenes: nothing found, the folder of a scene set wanted with the twin")
    if not simulated and not instruction:
        raise UserError(f"instruction: nothing found, what to do wanted with {arm.driver}")
    for name, value in (("episodes", episodes), ("seconds", seconds)):
        if value <= 0:
            raise UserError(f"{name}: {value} found, more than 0 wanted")
    timeout = PATIENT if simulated and not real_time else TIMEOUT
    with opened_policy(policy, timeout=timeout, token_file=token_file, device=device, seed=seed) as source:
        if simulated:
            assert scenes is not None
            twin_episodes = _TwinEpisodes(scenes, split, episodes, seed, sim or source.sim, real_time, terminate_on_success)
            twin_episodes.run(source, on_twin(safety, sim or source.sim), settings, videos, output, console)
        else:
            assert instruction is not None
            with operator_keys(dead_man) as halted:
                limits = careful(arm, safety)
                _run_real(arm, source, limits, settings, camera, instruction, seconds, output, console, halted)


def on_twin(safety: SafetyConfig, sim: SimConfig) -> SafetyConfig:
    """The limits for generated scenes; a workspace that somebody chose stays, and the real arm's other limits with it.

    Nothing there can break, and an evaluation limits neither the joints' haste nor how hard the hand presses on the table: pads
    that close on something flat aim a few millimetres under its surface. So that a run earns an evaluation's numbers, the floor
    lies under the table by the leash, which is as far as a target gets under a hand that the table holds up, and lower still by
    what each episode may draw as the base's height over it.
    """
    if safety.workspace != SAFETY.workspace:
        return replace(safety, joints=replace(safety.joints, speed_trip=1e3))  # simulated drives are quicker off the mark
    return safety.in_generated_scenes(table_height=-sim.randomization.robot_height - safety.step.leash)


class _TwinEpisodes:
    """The episodes of an evaluation, run as a deployment."""

    def __init__(
        self, scenes: Path, split: str, episodes: int, seed: int, sim: SimConfig, real_time: bool, terminate_on_success: bool
    ) -> None:
        from deploy.scene_twin import SceneTwin
        from genvla.evaluation.episodes import episode_specs
        from genvla.sim import scenes_of

        self._specs = episode_specs(scenes_of(scenes, split), seed, total=episodes)
        self._scenes, self._split, self._seed, self._terminate = scenes, split, seed, terminate_on_success
        self._twin = SceneTwin(scenes, sim, real_time)

    def run(
        self, source: PolicySource, safety: SafetyConfig, settings: RunSettings, videos: int, output: Path, console: Console
    ) -> None:
        from genvla.evaluation.episodes import spread_over_scenes
        from genvla.evaluation.progress import progress_bar

        twin = self._twin
        film: Film = {spec: [] for spec in spread_over_scenes(self._specs, videos)}
        done: dict[EpisodeSpec, Any] = {}
        reports: list[RunReport] = []
        try:
            with progress_bar(len(self._specs), console) as advance:
                for spec in sorted(self._specs, key=lambda spec: spec.scene_id):  # a scene is built once
                    twin.film = film.get(spec)
                    episode = run_on_twin(twin, spec, source.policy, safety, settings, terminate_on_success=self._terminate)
                    done[spec] = episode.record
                    reports.append(episode.report)
                    if episode.report.fault and (episode.report.outcome == "parked" or not twin.real_time):
                        # A server that fails says nothing about the policy's skill, and no time passed that it could be late in.
                        raise ArmFault(f"no decision, the run is over: {episode.report.fault}")
                    advance(episode.record.success_once)
        except ArmFault:
            _write_reports(reports, settings, twin.real_time, output, console)
            raise
        finally:
            twin.dispose()
        self._write([done[spec] for spec in self._specs], source, film, output, console)
        _write_reports(reports, settings, twin.real_time, output, console)

    def _write(self, records: list[Any], source: PolicySource, film: Film, output: Path, console: Console) -> None:
        from genvla.evaluation.provenance import digest, versions
        from genvla.evaluation.results import EvaluationResult, Protocol, write_atomically
        from genvla.evaluation.tables import markdown_table, terminal_table
        from genvla.evaluation.videos import clips_of, write_strip, write_video

        protocol = Protocol(
            split=self._split,
            seed=self._seed,
            integration_steps=source.integration_steps,
            max_chunks=self._twin.sim.max_chunks,
            num_envs=1,
            terminate_on_success=self._terminate,
            scene_set_digest=digest(self._scenes),
            checkpoint_digest=source.digest,
            sim=json.loads(json.dumps(asdict(self._twin.sim))),
            versions=versions(),
        )
        result = EvaluationResult(tuple(records), protocol)
        result.to_json(output / "results.json")
        write_atomically(output / "results.md", markdown_table(result))
        if clips := clips_of(result, film):
            write_video(clips, output / "episodes.mp4")
            write_strip(clips, output / "episodes.png")
        console.print(terminal_table(result))


def _run_real(
    arm_config: ArmConfig,
    source: PolicySource,
    safety: SafetyConfig,
    settings: RunSettings,
    camera_config: CameraConfig,
    instruction: str,
    seconds: float,
    output: Path,
    console: Console,
    halted: Callable[[], str],
) -> None:
    """One run on the real arm, which parks in the end whatever happens."""
    from deploy.arm import GuardedArm
    from deploy.recorder import Recorder

    driver, clock = make_driver(arm_config, safety)
    camera = open_camera(camera_config)
    recorder = Recorder(arm_config.black_box, safety.recording_seconds)
    try:
        with GuardedArm(driver, safety, clock=clock, recorder=recorder) as arm, console.status("starting") as status:
            until = clock.now() + seconds

            def show(report: RunReport) -> None:
                status.update(status_line(report, until - clock.now()))

            runner = Runner(arm, camera, source.policy, clock, safety, settings, show, halted)
            report = runner.run(instruction, lambda decision: None, lambda: clock.now() >= until)
    finally:
        camera.close()
    _write_reports([report], settings, True, output, console)
    if report.outcome == "parked":
        raise ArmFault(f"parked: {report.reason}")


def status_line(report: RunReport, left: float) -> str:
    """How a run goes, in one line."""
    times = report.deadlines
    latest = "  ".join(f"{stage} {1000 * seconds[-1]:.0f} ms" for stage, seconds in times.seconds.items() if seconds)
    held = f"  held: {report.holds[-1]}" if report.holds else ""
    return f"{max(left, 0):4.1f} s left  step {report.steps}  {latest}  late {times.missed}{held}"


def _write_reports(reports: list[RunReport], settings: RunSettings, real_time: bool, output: Path, console: Console) -> None:
    """Latencies, and all that safety and runner changed of what the policy wanted: to the terminal and to run.json."""
    from deploy.deadlines import Deadlines
    from genvla.evaluation.results import write_atomically

    times, changes = Deadlines(), RunReport()
    for report in reports:
        times.add(report.deadlines)
        for name, count in report.changes.items():
            changes.changes[name] = changes.changes.get(name, 0) + count
    steps = sum(report.steps for report in reports)
    halted = sum(report.halted for report in reports)
    parked = [report.reason for report in reports if report.outcome == "parked"]
    holds = [reason for report in reports for reason in report.holds]
    summary = {
        "settings": {**asdict(settings), "real_time": real_time},
        "runs": len(reports),
        "steps": steps,
        "decisions": sum(report.decisions for report in reports),
        "latency": times.summary(),
        "actions_changed": changes.changes,
        "actions_discarded": sum(report.discarded for report in reports),
        "holds": holds,
        "halted_steps": halted,
        "parked": parked,
        "max_frame_age_s": max(report.max_frame_age for report in reports),
        "old_frames": sum(report.old_frames for report in reports),
    }
    write_atomically(output / "run.json", json.dumps(summary, indent=2) + "\n")
    console.print(times.table(real_time))
    changed = ", ".join(f"{name} {count}" for name, count in changes.changes.items()) or "none"
    console.print(f"of {steps} actions safety changed: {changed}; held {len(holds)} times, parked {len(parked)} times")
    if halted:
        console.print(f"held by the operator for {halted} control steps")
    for reason in dict.fromkeys([*parked, *holds]):
        console.print(f"  {reason}", markup=False)
    console.print(f"written to {output}")
