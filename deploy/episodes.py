"""Episodes of the simulated robot: the same runner and safety layer as on the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.arm import GuardedArm
from deploy.policy import Policy
from deploy.recorder import Recorder
from deploy.runner import Runner, RunReport, RunSettings
from deploy.safety_config import SafetyConfig
from deploy.scene_twin import SceneTwin
from genvla.evaluation.episodes import initial_noise
from genvla.types import EpisodeRecord, EpisodeSpec


@dataclass(frozen=True)
class TwinEpisode:
    """An episode as an evaluation records it, and how the run went."""

    record: EpisodeRecord
    report: RunReport


def run_on_twin(
    twin: SceneTwin,
    spec: EpisodeSpec,
    policy: Policy,
    safety: SafetyConfig,
    settings: RunSettings,
    *,
    terminate_on_success: bool = False,
    on_begin: Callable[[], None] | None = None,
    on_step: Callable[[RunReport], None] | None = None,
    recorder: Recorder | None = None,
) -> TwinEpisode:
    """Runs one episode from its beginning to success, time limit or parking; the policy's noise is that of an evaluation."""
    instruction = twin.begin(spec)
    if on_begin is not None:
        on_begin()
    arm = GuardedArm(twin, safety, clock=twin.clock, recorder=recorder, homing=False)
    last = twin.record(0)

    def stepped(report: RunReport) -> None:
        nonlocal last
        last = twin.record(report.decisions)  # kept, because parking moves the arm as well
        if on_step is not None:
            on_step(report)

    try:
        arm.connect()
        runner = Runner(arm, twin.camera, policy, twin.clock, safety, settings, stepped)
        report = runner.run(
            instruction, lambda decision: initial_noise(spec, decision).numpy(), lambda: twin.over(terminate_on_success)
        )
    finally:
        arm.close()
    return TwinEpisode(last if report.outcome == "parked" else twin.record(report.decisions), report)
