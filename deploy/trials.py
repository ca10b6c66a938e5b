"""`deploy trials`: policies compared on the robot by the paper's protocol: scenes x layouts x policies, judged one by one."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deploy.camera import CameraConfig, open_camera
from deploy.judge import SessionOver
from deploy.opening import ARM, ArmConfig, careful, make_driver
from deploy.run import on_twin
from deploy.runner import RunReport, RunSettings
from deploy.safety_config import SAFETY, SafetyConfig
from deploy.sources import PATIENT, TIMEOUT, PolicySource, opened_policy
from deploy.stages import ArmStage, Stage, TwinStage, read_tasks
from deploy.trial_log import Plan, Trial, TrialKey, TrialLog
from deploy.trial_metrics import TrialReport
from genvla.errors import UserError
from genvla.sim import scenes_of
from genvla.sim.config import SimConfig
from genvla.types import CHUNK_SIZE, CONTROL_HZ

if TYPE_CHECKING:
    from rich.console import Console


CAMERA = CameraConfig()
VOID_IN_A_ROW = 3
"""Void trials in a row after which a session ends: something is broken."""


def trials(
    policies: dict[str, str],
    scenes: Path | None = None,
    split: str = "heldout",
    max_scenes: int = 12,
    tasks: Path | None = None,
    layouts: int = 10,
    seed: int = 0,
    output: Path = Path("trials"),
    driver: Literal["twin", "dynamixel", "bridge"] | None = None,
    sim: SimConfig | None = None,
    seconds: float = 20.0,
    camera: CameraConfig = CAMERA,
    arm: ArmConfig = ARM,
    token_file: Path | None = None,
    safety: SafetyConfig = SAFETY,
    exec_horizon: int = CHUNK_SIZE,
    prefetch: bool = False,
    redo: list[str] | None = None,
    void: list[str] | None = None,
    only_report: bool = False,
    device: str = "auto",
) -> None:
    """Evaluate policies by the paper's protocol of trials; go on where the last session ended.

    Every policy meets the same layouts of the same scenes, in random order. Each trial is on the disk before the next begins.

    Args:
        policies: Name of each policy, and its folder or its server's address: '{pretrained: checkpoints/a, rl: ws://host:8000}'.
            The first is what the others are compared with.
        scenes: Folder of the scene set; of the twin.
        split: Scenes to choose from: heldout, train, or all; of the twin.
        max_scenes: At most so many of them; of the twin.
        tasks: YAML file of the real scenes, a name and an instruction each; of the real arm.
        layouts: Layouts of the objects in each scene.
        seed: Seed of the order, and of the twin's layouts.
        output: Folder for trials.jsonl (the log), trials.md and trials.json; a session with the same folder goes on.
        driver: Short for --arm.driver: twin, dynamixel or bridge, as of `deploy run`.
        sim: The simulated set-up. By default that of the first policy's training.
        seconds: Time limit of a trial; of the real arm.
        camera: Where the pictures come from; of the real arm.
        arm: How the real arm is reached.
        token_file: File with the policy servers' secret.
        safety: Every limit of the arm, as of `deploy run`.
        exec_horizon: Actions of a chunk that are executed before the next decision.
        prefetch: Decide on the next chunk while the last action of this one is being executed.
        redo: Trials to make again, each SCENE/LAYOUT/POLICY; the old attempts stay in the log.
        void: Trials that shall not count, likewise; they are made again.
        only_report: Make no trial: write and print the numbers of those there are.
        device: Where policies from folders run: auto, cpu, cuda, cuda:1.

    Raises:
        UserError: something given does not exist or cannot be used, or does not fit the session begun in `output`.
        ArmFault: the real arm could not go on.
    """
    from rich.console import Console

    console, settings, log_path = Console(), RunSettings(exec_horizon, prefetch), output / "trials.jsonl"
    if only_report:
        _report(TrialLog.read(log_path), output, console)
        return
    arm = arm if driver is None else replace(arm, driver=driver)
    if arm.dry_run:
        raise UserError("arm.dry_run: true found, false wanted: a trial needs an arm that moves")
    with ExitStack() as stack:
        timeout = PATIENT if arm.driver == "twin" else TIMEOUT
        sources = {
            name: stack.enter_context(opened_policy(where, timeout=timeout, token_file=token_file, device=device, seed=seed))
            for name, where in policies.items()
        }
        if not sources:
            raise UserError("policies: nothing found, at least one wanted, such as '{rl: checkpoints/rl}'")
        stage: Stage
        if arm.driver == "twin":
            if scenes is None:
                raise UserError("scenes: nothing found, the folder of a scene set wanted with the twin")
            ids = tuple(scenes_of(scenes, split)[:max_scenes])
            setup = sim or next(iter(sources.values())).sim
            stage = TwinStage(scenes, ids, setup, seed, on_twin(safety, setup), settings)
        else:
            if tasks is None:
                raise UserError("tasks: nothing found, a YAML file of the real scenes wanted, a name and an instruction each")
            limits = careful(arm, safety)
            servos, look = make_driver(arm, limits)[0], lambda: open_camera(camera)
            stage = ArmStage(read_tasks(tasks), servos, look, seconds, limits, settings, arm.black_box, output)
            stage.setting["camera"] = asdict(camera)
        setting = {
            **stage.setting,
            "driver": arm.driver,
            "run": asdict(settings),
            "policies": {n: s.digest for n, s in sources.items()},
        }
        plan = Plan(stage.scenes, layouts, tuple(sources), seed, setting)
        log = stack.enter_context(TrialLog.opened(log_path, plan))
        for reason, struck in (("redo", redo), ("void", void)):
            for text in struck or []:
                log.strike(TrialKey.parse(text), reason)
        stack.enter_context(stage)
        try:
            make_trials(log, stage, sources, console)
        except SessionOver:
            console.print(f"stopped; {len(log.pending)} trials are left, the same command goes on")
        finally:
            _report(log, output, console)


def make_trials(log: TrialLog, stage: Stage, sources: dict[str, PolicySource], console: Console) -> None:
    """Makes the trials that are still to be made.

    Raises:
        UserError: several in a row were void.
        SessionOver: the operator stopped.
    """
    from genvla.evaluation.progress import progress_bar

    pending, voids = log.pending, 0
    console.print(f"{len(log.plan.order) - len(pending)} of {len(log.plan.order)} trials are made, {len(pending)} to go")
    with progress_bar(max(len(pending), 1), console, "trials") as advance:
        while pending:
            key = pending[0]
            finding, report, instruction, finish = stage.trial(key, sources[key.policy])
            trial = Trial(
                key=key,
                attempt=log.next_attempt(key),
                success=finding.success,
                partial=finding.partial or finding.success,
                dynamics_failure=finding.dynamics_failure,
                semantic_failure=finding.semantic_failure,
                seconds=report.steps / CONTROL_HZ,
                time_to_finish_s=finish if finding.success else None,
                tags=finding.tags,
                void=finding.void,
                instruction=instruction,
                comment=finding.comment,
                run=_run_facts(report),
            )
            log.add(trial)
            voids = voids + 1 if trial.void else 0
            if voids == VOID_IN_A_ROW:
                raise UserError(
                    f"trials: {voids} void in a row, the last because of: {trial.void}; mend it and run the command again"
                )
            if not trial.void:
                advance(trial.success)
                pending = pending[1:]


def _run_facts(report: RunReport) -> dict[str, Any]:
    return {
        "decisions": report.decisions,
        "latency": report.deadlines.summary(),
        "actions_changed": report.changes,
        "actions_discarded": report.discarded,
        "holds": report.holds,
        "parked": report.reason,
        "max_frame_age_s": report.max_frame_age,
    }


def _report(log: TrialLog, output: Path, console: Console) -> None:
    from genvla.evaluation.results import write_atomically

    report = TrialReport(log.plan, log.counted, len(log.attempts))
    write_atomically(output / "trials.md", report.markdown())
    write_atomically(output / "trials.json", json.dumps(_plain(report.data()), indent=2, allow_nan=False) + "\n")
    console.print(report.table())
    for pair in report.pairs:
        console.print(pair.line(), markup=False)
    console.print(f"written to {output}")


def _plain(value: Any) -> Any:
    """JSON has no NaN: what is undefined becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
