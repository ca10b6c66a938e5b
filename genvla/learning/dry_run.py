"""`genvla fit --dry-run`: what a run would do and take. Files are looked at by name and shape; nothing is simulated, trained or
written, and no accelerator is needed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from genvla.errors import UserError
from genvla.learning.datamodule import RolloutDataModule
from genvla.learning.loop import TrainingConfig
from genvla.learning.module import PPOFlowModule
from genvla.learning.runs import HardwareConfig
from genvla.learning.validation import EvaluationConfig
from genvla.policy.checkpoints import inspect_policy
from genvla.policy.finetuning import Finetuning, apply_finetuning, count_parameters
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.heads import HeadsConfig
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.processor import ProcessorConfig
from genvla.policy.tokenizer import PaligemmaTokenizer
from genvla.types import CHUNK_SIZE, CONTROL_HZ, PRIVILEGED_NAMES

GIB = 2**30
Rows = list[tuple[str, str]]


@dataclass
class Plan:
    """Lines to print, by what they are about, and what the run lacks, each with how to get it."""

    rows: Rows
    missing: list[str]

    def add(self, name: str, *lines: str) -> None:
        self.rows += [(name if number == 0 else "", line) for number, line in enumerate(lines)]


def plan_run(
    checkpoint: Path,
    data: RolloutDataModule,
    module: Callable[[FlowPolicy], PPOFlowModule],
    finetuning: Finetuning,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    hardware: HardwareConfig,
    integration_steps: int | None,
    console: Console,
) -> None:
    """Prints the plan of a run. The arguments are those of `genvla.learning.fit.fit`.

    Raises:
        UserError: files are missing or wrong, all of them in one line, once the plan is printed; or the settings contradict one
            another.
    """
    plan = Plan([], [])
    policy = _policy(checkpoint, plan)
    if integration_steps is not None:
        policy.integration_steps = integration_steps
    apply_finetuning(policy, finetuning)
    learner = module(policy)
    learner.configure_optimizers()  # it knows whether anything trains
    counts = count_parameters(policy)
    trains = ", ".join(f"{part} {_count(count['trainable'])}" for part, count in counts.items() if count["trainable"])
    plan.add("trains", f"{_count(sum(count['trainable'] for count in counts.values()))}: {trains}")
    _scenes(data, plan)
    _arithmetic(policy, data, learner, training, hardware, plan)
    _duration(data, training, evaluation, hardware, plan)
    _static_memory(policy, data, hardware, plan)
    console.print(_table(plan.rows))

    activations = Plan([], plan.missing)
    _update_memory(policy, finetuning, data, training, hardware, activations)
    console.print(_table(activations.rows))
    if plan.missing:
        raise UserError(f"missing: {'; '.join(plan.missing)}")
    console.print("all that the run needs is here")


def _policy(checkpoint: Path, plan: Plan) -> FlowPolicy:
    """The policy on the meta device; where there is none yet, one of open-pi-zero's shapes."""
    if not Path(checkpoint).exists():
        plan.add("checkpoint", f"{checkpoint}: not there; planned with the shapes of open-pi-zero's Bridge checkpoints")
        plan.missing.append(f"{checkpoint}, the checkpoint to start from (docs/checkpoints.md says where to get one)")
        return _open_pi_zero()
    policy = inspect_policy(checkpoint)
    tokenizer = policy.config.processor.tokenizer
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    if tokenizer == "paligemma" and not any((folder / name).is_file() for name in PaligemmaTokenizer.FILES):
        plan.missing.append(
            f"{folder / 'tokenizer.json'}: hf download google/paligemma-3b-pt-224 tokenizer.json --local-dir {folder}"
        )
    kinds = sorted({str(parameter.dtype).removeprefix("torch.") for parameter in policy.pi0.parameters()})
    total = sum(parameter.numel() for parameter in policy.parameters())
    plan.add("checkpoint", f"{checkpoint}: {_count(total)} parameters in {' and '.join(kinds)}, names and shapes fit")
    return policy


def _open_pi_zero() -> FlowPolicy:
    """What loading an open-pi-zero checkpoint makes, without its weights."""
    model = Pi0Config.open_pi_zero()
    processor = ProcessorConfig(image_size=model.vision.image_size, tokenizer="paligemma", vocab_size=model.vocab_size)
    with torch.device("meta"):
        policy = FlowPolicy(model, HeadsConfig(grounding=False), processor)
    policy.pi0.to(torch.bfloat16)
    return policy


def _scenes(data: RolloutDataModule, plan: Plan) -> None:
    try:
        scenes, heldout = data.scene_ids(), data.heldout_ids()
        data.check_scenes()
    except ValueError as error:  # scenegen has a UserError of its own
        if type(error).__name__ != "UserError":
            raise
        line = " ".join(str(error).split())
        plan.add("scenes", line)
        plan.missing.append(line)
    else:
        plan.add("scenes", f"{data.scenes}: {len(scenes)} to train in, {len(heldout)} held out; all files are there")


def _arithmetic(
    policy: FlowPolicy,
    data: RolloutDataModule,
    module: PPOFlowModule,
    training: TrainingConfig,
    hardware: HardwareConfig,
    plan: Plan,
) -> None:
    ranks = hardware.devices * hardware.num_nodes
    here = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "no GPU"
    plan.add(
        "devices",
        f"{ranks}: {hardware.devices} on each of {hardware.num_nodes} machines; strategy {hardware.strategy}, "
        f"precision {hardware.precision} (on this machine: {here})",
    )
    simulated = "together on its GPU" if data.physics == "gpu" else f"by {data.workers} processes each"
    plan.add("environments", f"{data.num_envs * ranks:,}: {data.num_envs} per rank, simulated {simulated}")
    decisions = data.steps * data.num_envs
    plan.add(
        "decisions",
        f"{decisions * ranks:,} per iteration: {data.steps} in each environment, {decisions:,} per rank; "
        f"{decisions * ranks * CHUNK_SIZE:,} control steps",
    )
    size, read = data.sim.image_size, policy.config.processor.image_size
    resized = "" if size == read else f", resized to {read}"
    plan.add(
        "episode",
        f"at most {data.sim.max_chunks} decisions, {data.sim.max_chunks * CHUNK_SIZE / CONTROL_HZ:g} s; "
        f"pictures {size} x {size}{resized}",
    )
    minibatches = max(1, round(decisions / data.minibatch_size))
    rows = math.ceil(decisions / minibatches)
    parts = math.ceil(rows / (training.micro_batch_size or rows))
    plan.add(
        "update",
        f"{data.epochs} epochs of {minibatches} minibatches of {rows * ranks:,}: {rows} per rank, "
        f"in {parts} micro-batches of {math.ceil(rows / parts)}",
    )
    heads = policy.heads_config
    plan.add(
        "policy",
        f"K = {policy.integration_steps}, log sigma in [{heads.log_sigma_min:g}, {heads.log_sigma_max:g}], "
        f"clip {module.clip:g}, s {module.ratio_power:g}, gamma {module.gamma:g}, lambda {module.gae_lambda:g}",
    )
    plan.add(
        "learning rates",
        f"policy {module.policy_lr:g}, heads {module.head_lr:g}, critic {module.critic_lr:g}, {module.lr_schedule}; "
        f"gradients clipped to {module.max_grad_norm:g}",
    )


def _duration(
    data: RolloutDataModule, training: TrainingConfig, evaluation: EvaluationConfig, hardware: HardwareConfig, plan: Plan
) -> None:
    ranks = hardware.devices * hardware.num_nodes
    steps = data.steps * data.num_envs * ranks * CHUNK_SIZE
    limits = []
    if training.iterations is not None:
        limits.append(f"{training.iterations:,} iterations, {training.iterations * steps / 1e6:.1f} million control steps")
    if training.max_seconds is not None:
        limits.append(f"{training.max_seconds / 3600:.1f} hours")
    during = f"{evaluation.episodes_during} every {training.evaluate_every} iterations" if training.evaluate_every else "none"
    plan.add("length", f"{' or '.join(limits)}; a checkpoint every {training.checkpoint_every} iterations")
    plan.add("evaluation", f"{evaluation.episodes} episodes before and after for each group of scenes, in between {during}")


def _static_memory(policy: FlowPolicy, data: RolloutDataModule, hardware: HardwareConfig, plan: Plan) -> None:
    """What lies in memory whatever the batch."""
    sizes: dict[str, int] = {}
    for parameter in policy.parameters():
        kind = str(parameter.dtype).removeprefix("torch.")
        sizes[kind] = sizes.get(kind, 0) + parameter.nbytes
    trained = sum(parameter.nbytes for parameter in policy.parameters() if parameter.requires_grad)
    weights = " + ".join(f"{_gib(size)} {kind}" for kind, size in sorted(sizes.items()))
    total = sum(sizes.values()) + 3 * trained
    ranks = hardware.devices * hardware.num_nodes
    split = f", split over {ranks} ranks: {_gib(total / ranks)}" if hardware.strategy == "fsdp2" else ""
    plan.add("memory", f"of a rank: weights {weights}, gradients {_gib(trained)}, Adam {_gib(2 * trained)}: {_gib(total)}{split}")
    row = data.sim.image_size**2 * 3 + 4 * (len(PRIVILEGED_NAMES) + policy.config.processor.max_tokens * 2)
    plan.add("", f"an iteration's observations {_gib(row * data.steps * data.num_envs)}")


def _update_memory(
    policy: FlowPolicy,
    finetuning: Finetuning,
    data: RolloutDataModule,
    training: TrainingConfig,
    hardware: HardwareConfig,
    plan: Plan,
) -> None:
    """The peak of an update, where it can be counted, and which GPUs have as much."""
    try:
        from genvla.policy.memory import GPU_GIB, MemoryPlan, plan_update
    except ImportError:
        plan.add("update", "activations are not counted in this version; they come on top")
        return

    def of_depth(vision: int, joint: int) -> MemoryPlan:
        model = policy.model_config
        model = replace(
            model,
            vision=replace(model.vision, layers=vision),
            joint=replace(model.joint, layers=joint, feature_layer=min(model.joint.feature_layer, joint)),
        )
        return plan_update(
            model,
            finetuning,
            hardware.precision,
            checkpointing=hardware.activation_checkpointing,
            steps=policy.integration_steps,
        )

    full = (policy.model_config.vision.layers, policy.model_config.joint.layers)
    activations = extrapolate(lambda *depth: _activations(of_depth(*depth)), full)
    trained = sum(parameter.nbytes for parameter in policy.parameters() if parameter.requires_grad)
    weights = {"all": sum(parameter.nbytes for parameter in policy.parameters())}
    fixed, saved, working = activations
    counted = MemoryPlan(
        weights=weights,
        gradients=trained,
        adam=2 * trained,
        fixed=round(fixed),
        saved=saved,
        working=working,
        frozen_cache=0,
        trainable=trained,
    )
    decisions = data.steps * data.num_envs
    rows = math.ceil(decisions / max(1, round(decisions / data.minibatch_size)))
    micro = min(rows, training.micro_batch_size or rows)
    plan.add(
        "peak",
        f"{_gib(counted.total(micro))} of a GPU in an update with micro-batches of {micro}: "
        f"{(saved + working) / 2**20:.0f} MiB a decision; estimated",
    )
    largest = {name: counted.largest_micro_batch(gib) for name, gib in GPU_GIB.items()}
    plan.add("", "largest micro-batch: " + ", ".join(f"{name} {size or 'none'}" for name, size in largest.items()))
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0).total_memory / GIB
        if counted.largest_micro_batch(there) < micro:
            plan.missing.append(
                f"memory: a GPU here has {there:.1f} GiB, micro-batches of {micro} need {_gib(counted.total(micro))} "
                f"(training.micro_batch_size {counted.largest_micro_batch(there)} would fit)"
            )


def extrapolate(
    measure: Callable[[int, int], tuple[float, ...]], depth: tuple[int, int], shallow: tuple[int, int] = (1, 2)
) -> tuple[float, ...]:
    """What `measure` would give for a model of this many vision and joint layers, from three shallow ones.

    Layers of a kind are alike, so each adds as much as the one before. A model that is no deeper than the shallow ones is
    measured itself: counting the memory of a full-size one takes minutes.
    """
    if depth[0] <= shallow[0] + 1 and depth[1] <= shallow[1] + 1:
        return measure(*depth)
    shallow = (min(shallow[0], depth[0]), min(shallow[1], depth[1]))
    base = measure(*shallow)
    result = list(base)
    for kind in range(2):
        more = depth[kind] - shallow[kind]
        if more > 0:
            deeper = measure(shallow[0] + (kind == 0), shallow[1] + (kind == 1))
            result = [value + more * (high - low) for value, high, low in zip(result, deeper, base, strict=True)]
    return tuple(result)


def _activations(counted: object) -> tuple[float, ...]:
    return tuple(float(getattr(counted, name)) for name in ("fixed", "saved", "working"))


def _table(rows: Rows) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _count(number: int) -> str:
    """1.25 million, 3.24 billion."""
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.2f} million"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"
