"""`genvla pretrain`: a scene set in, a small policy that has watched the scripted expert out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import yaml
from rich.console import Console

from genvla.evaluation.results import EvaluationResult
from genvla.evaluation.tables import terminal_table
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.cpu import keep_freed_memory
from genvla.learning.demonstrations import DemonstrationDataModule
from genvla.learning.display import TrainingDisplay
from genvla.learning.imitation import ImitationModule
from genvla.learning.loop import Loop, TrainingConfig
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
from genvla.learning.validation import EvaluationConfig, Validator, evaluation_metrics
from genvla.policy.checkpoints import load_policy, save_policy
from genvla.policy.flow_policy import FlowPolicy, FlowPolicyConfig
from genvla.seeding import derive_seed
from genvla.sim.config import save_sim


def pretrain(
    data: DemonstrationDataModule,
    policy: FlowPolicyConfig = FlowPolicyConfig(),  # noqa: B008  (frozen)
    checkpoint: Path | None = None,
    module: Callable[[FlowPolicy], ImitationModule] = ImitationModule,
    training: TrainingConfig = TrainingConfig(),  # noqa: B008  (frozen)
    evaluation: EvaluationConfig = EvaluationConfig(),  # noqa: B008  (frozen)
    hardware: HardwareConfig = HardwareConfig(),  # noqa: B008  (frozen)
    tracking: TrackingConfig = TrackingConfig(),  # noqa: B008  (frozen)
    output: Path | None = None,
    seed: int = 0,
    run_dir: Path | None = None,
    resume: Path | None = None,
    settings: str = "{}",
) -> dict[str, EvaluationResult]:
    """Train a policy by imitation of the scripted expert, so that reinforcement learning has something to start from.

    Args:
        data: where the expert demonstrates, and how much of it is learnt per iteration.
        policy: the policy to build; its statistics are replaced by those of the demonstrations.
        checkpoint: folder of a policy to go on training instead, with its own statistics.
        module: the losses and their hyper-parameters.
        training: how long, and how often to save and evaluate.
        evaluation: how the policy is judged on held-out scenes afterwards.
        hardware: what the run computes on.
        tracking: where the run is recorded.
        output: folder for the trained policy, replaced if it is there; null leaves it among the run's checkpoints.
        seed: of everything random in the run.
        run_dir: folder of the run, by default runs/<configuration>-seed<seed>; gets a number behind its name where it is taken.
        resume: folder of a run to go on with; its own config.yaml is read, and options given beside it override that.
        settings: the whole configuration as YAML, to be kept with the run.

    Returns:
        The evaluation after training, by group of scenes.
    """
    console = Console()
    keep_freed_memory()
    fabric = hardware.fabric()
    start = (resume and last_checkpoint(resume)) or checkpoint
    learner = None if start is None else load_policy(start)
    scenes = data.scene_ids()
    folder = run_folder(fabric, run_dir or Path(f"runs/pretrain-seed{seed}"), resume)
    checkpoints = Checkpoints(folder / "checkpoints", training.keep_checkpoints, data.sim)
    if fabric.is_global_zero:
        describe_run(folder, settings, scenes)
        console.print(f"run: {folder}", soft_wrap=True)

    with StopRequest() as stop, tracked(fabric, folder, tracking, {"seed": seed, "kind": "pretrain"}) as tracker:
        data.distribute(fabric.device, fabric.global_rank, fabric.world_size, adder(fabric))
        try:
            learner = learner or new_policy(policy, data, seed)
            hardware.prepare(learner)
            data.setup()
            groups = {"heldout": data.heldout_ids()}
            validator = Validator(
                data.env,
                data.scenes,
                data.sim,
                groups,
                evaluation,
                folder / "evaluation",
                console,
                rank=fabric.global_rank,
                world_size=fabric.world_size,
            )
            quick = partial(validator.quick, learner)
            loop = Loop(fabric, module(learner), data, training, checkpoints, tracker, quick, stop=stop)
            if not loop.resume() and tracker is not None:
                tracker.log_config(yaml.safe_load(settings))
            with TrainingDisplay(console) as display:
                loop.display = display if fabric.is_global_zero else None
                loop.run()
            if fabric.is_global_zero and output is not None:
                save_policy(learner, output)
                save_sim(data.sim, output)
            with gathered(loop.module):
                after = validator.thorough(lambda: loop.module.policy, f"iteration_{loop.iteration:06d}")
            if fabric.is_global_zero:
                loop.log(evaluation_metrics(after))
                for result in after.values():
                    console.print(terminal_table(result))
                console.print(f"written to {output or folder / 'checkpoints' / 'last'}", soft_wrap=True)
            fabric.barrier()
            return after
        finally:
            data.teardown()


def new_policy(config: FlowPolicyConfig, data: DemonstrationDataModule, seed: int) -> FlowPolicy:
    """A policy with fresh weights that follow from the seed, and statistics that fit the demonstrations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return FlowPolicy.from_config(replace(config, statistics=data.statistics()))
