"""What an update costs: `genvla bench update`, and with --estimate what it would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from rich.console import Console

from genvla.errors import UserError
from genvla.learning.checkpoints import Checkpoints
from genvla.learning.loop import Loop, TrainingConfig
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import Decisions
from genvla.learning.runs import HardwareConfig
from genvla.policy.finetuning import VARIANTS, Finetuning, apply_finetuning
from genvla.policy.flops import update_flops
from genvla.policy.measuring import (
    OtherWork,
    Rows,
    counted,
    machine,
    peak_flops,
    print_table,
    synchronise,
    whole_numbers,
    write_json,
)
from genvla.policy.memory import CONTEXT, GIB, MARGIN, Precision, gpu_memory, plan_update
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.synthetic import fresh_policy, preset, random_inputs
from genvla.seeding import generator

SHOWN_GPUS = ("RTX 4090", "RTX 6000 Ada", "H100 80GB")
ESTIMATE_NOTE = f"{CONTEXT:g} GiB is allowed for CUDA, and {100 * MARGIN:.0f} % of a GPU's memory is left free."


def bench_update(
    model: str = "mid",
    variants: str = "full_expert",
    micro_batch: str = "8",
    checkpointing: bool = False,
    device: str = "auto",
    precision: Precision = "32-true",
    threads: int | None = None,
    rounds: int = 5,
    estimate: bool = False,
    gpu: str | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Times updates of PPOFlow on made-up decisions in several fine-tuning variants, or estimates their memory.

    An update is one optimizer step of one micro-batch, as `fit` makes it: loss, gradients, clipping, AdamW, at K = 1. Prints
    samples per second, peak memory, and the share of the device's arithmetic that goes into what must be computed.

    Args:
        model: tiny, mid, open_pi_zero or openpi, with random weights.
        variants: names in configs/variants, or everything.
        micro_batch: samples at once; several, as in 4,8, are tried one after the other.
        checkpointing: keep only the inputs of layers for the way back.
        device: auto, cpu or cuda.
        precision: of the arithmetic. With bf16-mixed frozen weights are bfloat16 and trained ones float32.
        threads: of arithmetic on the CPU; null for one per physical core.
        rounds: updates of each, after one that is not counted.
        estimate: run nothing, and tell the memory by part and the largest micro-batch that fits.
        gpu: estimate for this GPU, or one of so much memory, as in "24 GiB"; null for some that are common.
        output: JSON file for all numbers.
    """
    shape, sizes = preset(model), whole_numbers("micro_batch", micro_batch)
    names = variants.split(",")
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"variants: found {name!r}, want some of {', '.join(VARIANTS)}")
    whole_numbers("rounds", str(rounds))
    if estimate:
        wanted = {name: gpu_memory(name) for name in ([gpu] if gpu is not None else SHOWN_GPUS)}
        result = estimate_update(model, shape, names, sizes, precision, wanted)
    else:
        accelerator = {"cuda": "gpu"}.get(device, device)
        hardware = HardwareConfig(accelerator, precision=precision, threads=threads, activation_checkpointing=checkpointing)
        result = time_updates(model, shape, names, sizes, hardware, rounds)
    write_json(output, result)
    return result


def finetuning_for(variant: str, precision: Precision) -> Finetuning:
    """A variant, its weights in the types that go with a precision."""
    mixed = precision == "bf16-mixed"
    types: dict[str, Any] = {"frozen_dtype": "bfloat16", "trainable_dtype": "float32"} if mixed else {}
    return replace(VARIANTS[variant], **types)


def time_updates(
    name: str, model: Pi0Config, variants: list[str], sizes: list[int], hardware: HardwareConfig, rounds: int
) -> dict[str, Any]:
    """Runs every variant with every micro-batch. One is there at a time: on a GPU two might not fit."""
    device, precision = hardware.fabric().device, hardware.precision
    other_work = OtherWork()
    peak, source = peak_flops(device, torch.float32 if precision == "32-true" else torch.bfloat16)
    result: dict[str, Any] = {
        "model": name,
        "precision": precision,
        "checkpointing": hardware.activation_checkpointing,
        "machine": machine(device),
        "peak_tflops": peak / 1e12,
        "peak_from": source,
        "memory": "allocated on the GPU" if device.type == "cuda" else "growth of the process, rough",
        "updates": [],
    }
    for variant in variants:
        finetuning = finetuning_for(variant, precision)
        flops = update_flops(model, finetuning)
        for size in sizes:
            seconds, memory = run_updates(model, finetuning, hardware, size, rounds, variant)
            middle = median(seconds)
            result["updates"].append(
                {
                    "variant": variant,
                    "micro_batch": size,
                    "seconds": seconds,
                    "samples_per_s": size / middle,
                    "peak_memory_gib": None if memory is None else memory / GIB,
                    "gflops_per_sample": flops / 1e9,
                    "utilisation": flops * size / middle / peak,
                }
            )
    result["other_work"] = other_work.cores()
    title = f"{name}, {precision}, {'with' if hardware.activation_checkpointing else 'without'} activation checkpointing"
    print_table(update_rows(result), title)
    Console().print(update_note(result), soft_wrap=True)
    return result


def run_updates(
    model: Pi0Config, finetuning: Finetuning, hardware: HardwareConfig, size: int, rounds: int, title: str = "updates"
) -> tuple[list[float], int | None]:
    """Seconds of updates, and the most memory taken, in bytes, the policy's own included."""
    fabric = hardware.fabric()
    start = reset_peak(fabric.device)
    policy = fresh_policy(model, fabric.device if fabric.device.type == "cuda" else "cpu").train()
    apply_finetuning(policy, finetuning)
    hardware.prepare(policy)
    with tempfile.TemporaryDirectory() as folder:
        data, module = MadeUpDecisions(size), PPOFlowModule(policy)
        loop = Loop(fabric, module, data, TrainingConfig(iterations=1), Checkpoints(Path(folder), keep=1))
        with loop.autocast():
            data.collect(module)
        seconds = []
        for _ in counted(rounds + 1, f"{title}, micro-batch {size}"):
            synchronise(fabric.device)
            began = perf_counter()
            loop.update()
            synchronise(fabric.device)
            seconds.append(perf_counter() - began)
    return seconds[1:], peak_since(start, fabric.device)


class MadeUpDecisions:
    """One minibatch of decisions on random observations; what the training loop asks for data."""

    decisions: Decisions

    def __init__(self, size: int) -> None:
        self.size = size

    @torch.no_grad()
    def collect(self, module: PPOFlowModule, iteration: int = 0) -> dict[str, Any]:
        """Lets the policy decide `size` times; half of it turns out well."""
        size, device = self.size, next(module.policy.parameters()).device
        inputs = module.keep_frozen(random_inputs(module.policy.model_config, size, device=device))
        output = module.act(inputs, generator("cpu", 0, "made-up decisions"))
        draw = torch.linspace(-1, 1, size, device=device)
        self.decisions = Decisions(inputs, output.chain, output.log_prob, draw, draw.abs())
        return {}

    def train_dataloader(self) -> Iterator[Decisions]:
        yield self.decisions

    def state_dict(self) -> dict[str, Any]:
        """Nothing: what is made up is made up alike the next time."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def reset_peak(device: torch.device) -> int | None:
    """Starts to look for the most memory taken. Returns what is taken now, where that can be told."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak of the resident set starts anew
    except OSError:
        return None
    return _resident("VmRSS")


def peak_since(start: int | None, device: torch.device) -> int | None:
    """The most memory taken since, less what was taken then."""
    if start is None:
        return None
    return (torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")) - start


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def estimate_update(
    name: str, model: Pi0Config, variants: list[str], sizes: list[int], precision: Precision, gpus: dict[str, float]
) -> dict[str, Any]:
    """Plans of every variant, with and without activation checkpointing."""
    result: dict[str, Any] = {"model": name, "precision": precision, "gpus_gib": gpus, "plans": []}
    for variant in variants:
        for frugal in (False, True):
            plan = plan_update(model, finetuning_for(variant, precision), precision, checkpointing=frugal)
            entry = {
                "variant": variant,
                "checkpointing": frugal,
                **asdict(plan),
                "total_gib": {str(size): plan.total(size) / GIB for size in sizes},
                "largest_micro_batch": {gpu: plan.largest_micro_batch(gib) for gpu, gib in gpus.items()},
            }
            result["plans"].append(entry)
            title = f"{name}, {variant}, {precision}, {'with' if frugal else 'without'} activation checkpointing"
            print_table(plan_rows(entry, gpus), title)
    Console().print(f"{ESTIMATE_NOTE} Time is not estimated: measure it with `genvla bench update` on the GPU.", soft_wrap=True)
    return result


def plan_rows(plan: dict[str, Any], gpus: dict[str, float]) -> Rows:
    """A plan by part."""
    parts = [(f"weights, {kind}", size) for kind, size in sorted(plan["weights"].items())]
    parts += [("gradients", plan["gradients"]), ("AdamW's moments", plan["adam"]), ("casts, gradients under way", plan["fixed"])]
    parts += [("kept for the way back, per sample", plan["saved"]), ("working memory, per sample", plan["working"])]
    parts += [("frozen cache, per decision (not in the sum)", plan["frozen_cache"])]
    parts += [(f"all, micro-batch {size}, with CUDA", gib * GIB) for size, gib in plan["total_gib"].items()]
    rows = [["part", "GiB"], *([name, f"{size / GIB:.{2 if size >= GIB / 10 else 4}f}" if size else "0"] for name, size in parts)]
    for gpu, gib in gpus.items():
        name = gpu if gpu.endswith("GiB") else f"{gpu} ({gib:g} GiB)"
        rows.append([f"largest micro-batch, {name}", str(plan["largest_micro_batch"][gpu])])
    return rows


def update_rows(result: dict[str, Any]) -> Rows:
    """What was measured, by variant and micro-batch."""
    rows = [["variant", "micro-batch", "samples/s", "peak GiB", "GFLOP per sample", "utilisation"]]
    for row in result["updates"]:
        memory = "" if row["peak_memory_gib"] is None else f"{row['peak_memory_gib']:.2f}"
        figures = [f"{row['samples_per_s']:.2f}", memory, f"{row['gflops_per_sample']:.1f}", f"{100 * row['utilisation']:.0f} %"]
        rows.append([row["variant"], str(row["micro_batch"]), *figures])
    return rows


def update_note(result: dict[str, Any]) -> str:
    """How the figures are meant."""
    return f"memory: {result['memory']}; utilisation of {result['peak_tflops']:.3g} TFLOP/s ({result['peak_from']})"
