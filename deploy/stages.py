"""Where trials take place: the simulated robot, judged by the simulator, and the real one, judged by its operator."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deploy.drivers import Clock, WallClock
from deploy.judge import Finding, OperatorJudge, SessionOver, TwinWitness
from deploy.runner import Runner, RunReport, RunSettings
from deploy.safety_config import SafetyConfig
from deploy.sources import PolicySource
from deploy.trial_log import TrialKey
from genvla.errors import UserError
from genvla.seeding import derive_seed
from genvla.sim.config import SimConfig
from genvla.types import CONTROL_HZ, EpisodeSpec

if TYPE_CHECKING:
    from deploy.arm import GuardedArm
    from deploy.camera import Camera
    from deploy.drivers import Driver
    from deploy.scene_twin import SceneTwin


class Stage(Protocol):
    """Where trials take place."""

    scenes: tuple[str, ...]
    setting: dict[str, Any]
    """What decides how trials go, for the log."""

    def trial(self, key: TrialKey, source: PolicySource) -> tuple[Finding, RunReport, str, float | None]:
        """Makes one trial: how it went, the run, the instruction, and the seconds to success. SessionOver to stop."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...


class TwinStage:
    """Trials of the simulated robot, judged by the simulator. Layout k of a scene is the same for every policy."""

    def __init__(
        self, folder: Path, scenes: tuple[str, ...], sim: SimConfig, seed: int, safety: SafetyConfig, settings: RunSettings
    ) -> None:
        from genvla.evaluation.provenance import digest

        self.scenes, self._seed, self._safety, self._settings = scenes, seed, safety, settings
        self._folder, self._sim = folder, sim
        self._twin: SceneTwin | None = None
        self.setting = {"scenes": digest(folder), "sim": asdict(sim), "safety": asdict(safety)}

    def __enter__(self) -> TwinStage:
        from deploy.scene_twin import SceneTwin

        self._twin = SceneTwin(self._folder, self._sim)
        return self

    def __exit__(self, *_: object) -> None:
        if self._twin is not None:
            self._twin.dispose()

    def trial(self, key: TrialKey, source: PolicySource) -> tuple[Finding, RunReport, str, float | None]:
        from deploy.episodes import run_on_twin

        assert self._twin is not None
        spec = EpisodeSpec(key.scene, derive_seed(self._seed, "trial", key.scene, key.layout))
        witness: list[TwinWitness] = []

        def begun() -> None:
            witness.append(TwinWitness(self._twin))  # type: ignore[arg-type]

        episode = run_on_twin(
            self._twin,
            spec,
            source.policy,
            self._safety,
            self._settings,
            terminate_on_success=True,
            on_begin=begun,
            on_step=lambda report: witness[0].look(),
        )
        evidence, report, record = witness[0].evidence, episode.report, episode.record
        evidence.stopped = report.cause == "arm"
        finding = evidence.finding()
        if report.fault:  # says nothing about the policy's skill
            finding = replace(finding, void=report.fault)
        return finding, report, record.instruction, record.seconds if record.success_once else None


class ArmStage:
    """Trials of the real arm, judged by the operator, who also sets the table."""

    def __init__(
        self,
        tasks: dict[str, str],
        driver: Driver,
        open_camera: Callable[[], Camera],
        seconds: float,
        safety: SafetyConfig,
        settings: RunSettings,
        black_box: Path,
        output: Path,
        ask: Callable[[str], str] = input,
        pressed: Callable[[], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.scenes = tuple(tasks)
        self.setting = {"tasks": tasks, "seconds": seconds, "safety": asdict(safety)}
        self._tasks, self._driver, self._open_camera, self._seconds = tasks, driver, open_camera, seconds
        self._clock = clock or WallClock()
        self._safety, self._settings, self._black_box, self._output = safety, settings, black_box, output
        self._ask, self._judge, self._pressed = ask, OperatorJudge(ask), pressed or enter_pressed
        self._stack = ExitStack()
        self._arm: GuardedArm | None = None

    def __enter__(self) -> ArmStage:
        from deploy.arm import GuardedArm
        from deploy.recorder import Recorder

        with ExitStack() as stack:
            self._camera = self._open_camera()
            stack.callback(self._camera.close)
            recorder = Recorder(self._black_box, self._safety.recording_seconds)
            self._arm = stack.enter_context(GuardedArm(self._driver, self._safety, clock=self._clock, recorder=recorder))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def trial(self, key: TrialKey, source: PolicySource) -> tuple[Finding, RunReport, str, float | None]:
        from deploy.control import START

        assert self._arm is not None
        instruction = self._tasks[key.scene]
        self._arm.move_to(START, 1.0)
        self._set_table(key, instruction)
        until = self._clock.now() + self._seconds
        finished: list[int] = []

        def stepped(report: RunReport) -> None:
            if not finished and self._pressed():
                finished.append(report.steps)

        runner = Runner(self._arm, self._camera, source.policy, self._clock, self._safety, self._settings, stepped)
        report = runner.run(instruction, lambda decision: None, lambda: bool(finished) or self._clock.now() >= until)
        if report.cause in ("camera", "policy"):  # the arm has parked, and the next trial will say so
            return Finding(False, False, void=report.reason), report, instruction, None
        if report.outcome == "over":
            self._arm.hold("between trials")
        finding = self._judge.finding(report.cause == "arm")
        return finding, report, instruction, (finished[0] if finished else report.steps) / CONTROL_HZ

    def _set_table(self, key: TrialKey, instruction: str) -> None:
        """Asks for the layout. Its first photograph is kept, and laid over the live picture until the table looks the same."""
        import cv2

        photo = self._output / "layouts" / f"{key.scene}-{key.layout}.png"
        photo.parent.mkdir(parents=True, exist_ok=True)
        print(f"\nscene {key.scene}, layout {key.layout}: {instruction!r}. Enter ends the trial when it is done.")
        while True:
            live = cv2.cvtColor(self._camera.read().image, cv2.COLOR_RGB2BGR)
            first = cv2.imread(str(photo)) if photo.is_file() else None
            if first is not None and first.shape == live.shape:
                overlay = photo.with_name("overlay.png")
                cv2.imwrite(str(overlay), np.hstack((first, cv2.addWeighted(first, 0.5, live, 0.5, 0))))
                print(f"set the table as in {photo}; {overlay} shows it under what the camera sees now")
            else:
                print("set the table as you like; it is photographed for the other policies")
            answer = self._ask("Enter begins, l looks again, q quits > ").strip().lower()
            if answer == "q":
                raise SessionOver
            if answer == "":
                if first is None:
                    now = cv2.cvtColor(self._camera.read().image, cv2.COLOR_RGB2BGR)
                    cv2.imwrite(str(photo), now)
                return


def enter_pressed() -> bool:
    """Whether a line waits on the terminal; takes it."""
    if not sys.stdin.isatty() or not select.select([sys.stdin], [], [], 0)[0]:
        return False
    sys.stdin.readline()
    return True


def read_tasks(path: Path) -> dict[str, str]:
    """Scene names and instructions of a YAML file; UserError when it holds something else."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:100]}), want YAML of scene: instruction"
        ) from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path}: {type(found).__name__} found, a map of scene: instruction wanted")
    bad = [name for name, text in found.items() if not isinstance(name, str) or not isinstance(text, str) or not text]
    if bad:
        raise UserError(f"{path}: {bad[0]!r}: a scene's name and its instruction wanted, both text")
    return found
