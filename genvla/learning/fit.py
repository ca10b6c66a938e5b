"""`genvla fit`: a policy and a scene set in, a better policy, its evaluation before and after, and its learning curve out."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import yaml
from lightning import Fabric
from rich.console import Console

from genvla.errors import UserError
from genvla.evaluation.episodes import Film
from genvla.evaluation.figures import plot_before_after, plot_curves
from genvla.evaluation.results import EvaluationResult, write_atomically
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.cpu import keep_freed_memory
from genvla.learning.datamodule import RolloutDataModule
from genvla.learning.display import TrainingDisplay, parameter_table
from genvla.learning.dry_run import plan_run
from genvla.learning.loop import Loop, TrainingConfig
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import Interrupted
from genvla.learning.runs import (
    HardwareConfig,
    TrackingConfig,
    adder,
    describe_run,
    last_checkpoint,
    run_folder,
    tracked,
)
from genvla.learning.sharding import gathered
from genvla.learning.stopping import StopRequest
from genvla.learning.validation import (
    EvaluationConfig,
    Validator,
    comparison_table,
    evaluation_metrics,
    write_comparison,
    write_film,
)
from genvla.policy.checkpoints import load_policy
from genvla.policy.finetuning import Finetuning, apply_finetuning, count_parameters
from genvla.policy.flow_policy import FlowPolicy
from genvla.sim.config import unlike_training
from genvla.types import PROPRIO_DIM, Observation

ARTIFACTS = (
    *("config.yaml", "parameters.json", "results.json", "scenes.txt"),
    *("curve.png", "before_after.png", "episodes.mp4", "episodes.png"),
    "evaluation",
)
"""What MLflow gets of the run's folder at the end, beside the policy; where it is there."""

# jsonargparse reads the annotations and the docstring of `fit`: they are the command's options and their help.


def fit(
    checkpoint: Path,
    data: RolloutDataModule,
    module: Callable[[FlowPolicy], PPOFlowModule] = PPOFlowModule,
    finetuning: Finetuning = Finetuning(),  # noqa: B008  (frozen)
    training: TrainingConfig = TrainingConfig(),  # noqa: B008  (frozen)
    evaluation: EvaluationConfig = EvaluationConfig(),  # noqa: B008  (frozen)
    hardware: HardwareConfig = HardwareConfig(),  # noqa: B008  (frozen)
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008  (frozen)
    integration_steps: int | None = None,
    seed: int = 0,
    run_dir: Path | None = None,
    resume: Path | None = None,
    settings: str = "{}",
    dry_run: bool = False,
) -> dict[str, EvaluationResult]:
    """Fine-tune a policy by reinforcement learning (PPOFlow) in the scenes of a scene set, and evaluate it before and after.

    Args:
        checkpoint: folder of the policy to start from.
        data: where and how much experience is collected.
        module: the algorithm and its hyper-parameters.
        finetuning: which parts of the policy train, in full or through adapters; variants lie in configs/variants.
        training: how long, and how often to save and evaluate.
        evaluation: how the policy is judged.
        hardware: what the run computes on.
        tracking: where the run is recorded.
        integration_steps: steps K in which the flow is integrated, in training and after; null for the checkpoint's.
        seed: of everything random in the run.
        run_dir: folder of the run, by default runs/<configuration>-seed<seed>; gets a number behind its name where it is taken.
        resume: folder of a run to go on with; its own config.yaml is read, and options given beside it override that.
        settings: the whole configuration as YAML, to be kept with the run.
        dry_run: only check the files and print what the run would do and take.

    Returns:
        The evaluations after training, by group of scenes.

    Raises:
        Preempted: SIGTERM or SIGUSR1 came; where the run stood is saved.
    """
    if dry_run:
        check_precision(hardware, finetuning)
        plan_run(checkpoint, data, module, finetuning, training, evaluation, hardware, integration_steps, Console())
        return {}
    with StopRequest() as stop:
        console = Console()
        keep_freed_memory()
        fabric = hardware.fabric()
        policy = load_policy((resume and last_checkpoint(resume)) or checkpoint)
        if integration_steps is not None:
            policy.integration_steps = integration_steps
        check_precision(hardware, finetuning)
        apply_finetuning(policy, finetuning, seed)
        parameters = count_parameters(policy)
        data.micro_batch_size = training.micro_batch_size
        hardware.prepare(policy, data.batch_sizes())
        scenes = data.scene_ids()
        data.check_scenes()
        data.distribute(fabric.device, fabric.global_rank, fabric.world_size, adder(fabric))
        folder = run_folder(fabric, run_dir or Path(f"runs/fit-seed{seed}"), resume)
        checkpoints = Checkpoints(folder / "checkpoints", training.keep_checkpoints, data.sim)
        if fabric.is_global_zero:
            describe_run(folder, settings, scenes)
            write_atomically(folder / "parameters.json", json.dumps(parameters, indent=2) + "\n")
            console.print(f"run: {folder}", soft_wrap=True)
            if told := unlike_training(data.sim, checkpoint):
                console.print(told, soft_wrap=True)
            console.print(parameter_table(parameters, finetuning))

        with tracked(fabric, folder, tracking, {"seed": seed, "kind": "fit"}) as tracker:
            data.interrupted = stop
            data.setup()
            try:
                groups = {"train": scenes, "heldout": data.heldout_ids()}
                validator = Validator(
                    data.env,
                    data.scenes,
                    data.sim,
                    groups,
                    evaluation,
                    folder / "evaluation",
                    console,
                    stop.check,
                    split_seed=data.split_seed,
                    rank=fabric.global_rank,
                    world_size=fabric.world_size,
                )
                quick = partial(validator.quick, policy)
                loop = Loop(fabric, module(policy), data, training, checkpoints, tracker, quick, stop=stop)
                if not loop.resume() and tracker is not None:
                    tracker.log_config({**yaml.safe_load(settings), "parameters": parameters})
                with gathered(loop.module):
                    kept = describe_cache(fabric, policy, data)
                if fabric.is_global_zero and kept:
                    console.print(kept, soft_wrap=True)

                def first() -> FlowPolicy:
                    return policy if loop.iteration == 0 else load_policy(checkpoint).to(fabric.device)

                return _train_and_judge(fabric, loop, validator, first, folder, console)
            finally:
                data.teardown()


def check_precision(hardware: HardwareConfig, finetuning: Finetuning) -> None:
    """UserError where the precision of the arithmetic would undo that of the weights."""
    if hardware.precision == "bf16-true" and "float32" in (finetuning.trainable_dtype, finetuning.frozen_dtype):
        raise UserError(
            "hardware.precision: bf16-true found, which makes all weights bfloat16, and float32 weights in finetuning; "
            "want bf16-mixed"
        )


@torch.no_grad()
def describe_cache(fabric: Fabric, policy: FlowPolicy, data: RolloutDataModule) -> str | None:
    """What is kept of the encoding of the observations, with what it takes, found by trying one; None if nothing is frozen."""
    size, device = policy.model_config.vision.image_size, fabric.device
    images = torch.zeros(1, 1, size, size, 3, dtype=torch.uint8, device=device)
    observation = Observation(images, [""], torch.zeros(1, PROPRIO_DIM, device=device))
    with fabric.autocast():
        frozen = policy.keep_frozen(policy.processor(observation)).frozen
    return None if frozen is None else data.frozen_cache.describe(frozen.nbytes, data.steps * data.num_envs)


def _train_and_judge(
    fabric: Fabric, loop: Loop, validator: Validator, first: Callable[[], FlowPolicy], folder: Path, console: Console
) -> dict[str, EvaluationResult]:
    """Before (what `first` gives), training, after. The processes share the episodes."""
    main = fabric.is_global_zero
    before = _unless_stopped(loop, lambda: validator.thorough(first, "before"))
    if loop.iteration == 0:
        loop.log(evaluation_metrics(before))
    with TrainingDisplay(console) as display:
        loop.display = display if main else None
        loop.run()
    film: Film = {}
    name = f"iteration_{loop.iteration:06d}"
    after = _unless_stopped(loop, lambda: validator.thorough(lambda: loop.module.policy, name, film))
    if main:
        loop.log(evaluation_metrics(after))
        _report(loop, before, after, film, folder, console)
    fabric.barrier()
    return after


def _unless_stopped(loop: Loop, evaluate: Callable[[], dict[str, EvaluationResult]]) -> dict[str, EvaluationResult]:
    """The evaluation by all processes; Preempted where one of them broke it off."""
    with gathered(loop.module):
        try:
            return evaluate()
        except Interrupted:
            pass
    loop.preempt()


def _report(
    loop: Loop,
    before: dict[str, EvaluationResult],
    after: dict[str, EvaluationResult],
    film: Film,
    folder: Path,
    console: Console,
) -> None:
    """Table, numbers, figures and the video, in the run's folder and in MLflow."""
    if after:
        console.print(comparison_table(before, after))
        plot_before_after({name: (before[name], after[name]) for name in after}, folder / "before_after.png")
        write_film(after.values(), film, folder)
    try:
        plot_curves({folder.name: folder}, folder / "curve.png")
    except UserError as error:  # too short a run to have a curve
        console.print(f"no curve: {error}")
    if after:  # last, as it says that the run is finished
        write_comparison(
            before,
            after,
            folder / "results.json",
            iterations=loop.iteration,
            env_steps=loop.env_steps,
            training_seconds=round(loop.seconds, 1),
        )
    if loop.tracker is not None:
        for name in ARTIFACTS:
            if (folder / name).exists():
                loop.tracker.log_artifact(folder / name, name if (folder / name).is_dir() else None)
        if loop.checkpoints.last is not None:
            loop.tracker.log_artifact(loop.checkpoints.last, "checkpoint")
    console.print(f"written to {folder}; the policy is {folder / 'checkpoints' / 'last'}", soft_wrap=True)
