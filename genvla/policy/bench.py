"""How long a decision takes: `genvla bench policy`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from genvla.errors import UserError
from genvla.policy.checkpoints import load_policy
from genvla.policy.flops import forward_flops
from genvla.policy.flow_policy import FlowPolicy
from genvla.policy.measuring import (
    OtherWork,
    Rows,
    counted,
    device_of,
    machine,
    print_table,
    synchronise,
    whole_numbers,
    write_json,
)
from genvla.policy.pi0 import Pi0
from genvla.policy.pi0_config import Pi0Config
from genvla.policy.synthetic import fresh_policy, preset, random_chain, random_inputs
from genvla.policy.transformers_pi0 import as_transformers, from_transformers, transformers_pi0, with_openpi_conventions

PAPER = {10: (267.0, 172.0), 4: (153.0, 107.0), 2: (120.0, 86.0), 1: (98.0, 73.0)}
"""Milliseconds per chunk on an RTX 4090, eager and compiled (arXiv 2603.18532, table of inference latency over K)."""

REFERENCE_STEPS = 10
WARM_UP = 2
"""Rounds that are not counted."""

Timed = dict[str, Callable[[], object]]


def bench_policy(
    model: str = "mid",
    checkpoint: Path | None = None,
    steps: str = "10,4,2,1",
    batch: int = 1,
    cameras: int = 1,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: Literal["default", "reduce-overhead"] | None = None,
    threads: int | None = None,
    rounds: int = 20,
    reference: bool = False,
    output: Path | None = None,
) -> dict[str, Any]:
    """Times decisions of a policy for several numbers of integration steps, in turns within one run.

    A decision is what a robot waits for between the processor and the actions' physical units: image, text and proprioception
    through the model, K steps, no injected noise. Prints 50th and 95th percentile, the prefix's share, and the paper's figures.

    Args:
        model: tiny, mid, open_pi_zero or openpi, with random weights.
        checkpoint: folder of a policy to time instead.
        steps: the K's.
        batch: observations decided on at once.
        cameras: pictures per observation.
        device: auto, cpu or cuda.
        dtype: of the weights.
        compile: time the compiled policy too, compiled in this mode of torch.compile.
        threads: of arithmetic on the CPU; null for torch's choice.
        rounds: how often each is timed, after two that are not counted.
        reference: compare with transformers' own pi0 of the same sizes, weights, inputs and noise, in openpi's conventions: ten
            steps, the prefix cached and neither compiled, in turns within the same run.
        output: JSON file for all times.
    """
    numbers, target = whole_numbers("steps", steps), device_of(device)
    for name, number in (("batch", batch), ("cameras", cameras), ("rounds", rounds)):
        if number < 1:
            raise UserError(f"{name}: found {number}, want at least 1")
    if threads is not None:
        whole_numbers("threads", str(threads))
        torch.set_num_threads(threads)
    shape = preset(model)
    policy = (fresh_policy(shape, target) if checkpoint is None else load_policy(checkpoint).to(target)).eval()
    policy.requires_grad_(False).to(getattr(torch, dtype))
    timed = decisions(policy, numbers, batch, cameras, target, compile)
    if reference:
        pair, difference = reference_pair(policy.model_config, batch, cameras, target, getattr(torch, dtype))
        timed |= pair
    other_work = OtherWork()
    times = in_turns(timed, rounds, target)
    result = {
        "model": model if checkpoint is None else str(checkpoint),
        "parameters": sum(parameter.numel() for parameter in policy.pi0.parameters()),
        "gflops": {part: value / 1e9 for part, value in forward_flops(policy.model_config, cameras).items()},
        "steps": numbers,
        "batch": batch,
        "cameras": cameras,
        "dtype": dtype,
        "compile": compile,
        "machine": machine(target),
        "other_work": other_work.cores(),
        "milliseconds": times,
        "summary": {name: summary(values) for name, values in times.items()},
    }
    if reference:
        result["reference"] = {**speed_ratio(times), "largest_difference_of_actions": difference}
    report(result)
    write_json(output, result)
    return result


def decisions(policy: FlowPolicy, steps: list[int], batch: int, cameras: int, device: torch.device, compile: str | None) -> Timed:
    """A decision for each K, and the prefix alone; eager and, with `compile`, compiled."""
    model = policy.model_config
    inputs, noise = random_inputs(model, batch, cameras, device), random_chain(model, batch, 1, device)[:, 0]

    def decide(k: int) -> object:
        policy.integration_steps = k
        return policy.act(inputs, noise=noise, deterministic=True)

    if compile is not None:
        policy.pi0.compile_functions(mode=compile)
    timed: Timed = {}
    for kind in kinds(compile):
        timed |= {f"K={k} {kind}": partial(staged, kind, compile, decide, k) for k in steps}
        timed[f"prefix {kind}"] = partial(staged, kind, compile, policy.pi0.encode, inputs)
    return timed


def kinds(compile: str | None) -> tuple[str, ...]:
    """What is timed of each."""
    return ("eager", "compiled") if compile else ("eager",)


def staged(kind: str, compile: str | None, function: Callable[..., object], *arguments: object) -> object:
    """Calls a function, past what was compiled for it if it is to be eager."""
    with torch.compiler.set_stance("force_eager") if compile and kind == "eager" else nullcontext():
        return function(*arguments)


def reference_pair(model: Pi0Config, batch: int, cameras: int, device: torch.device, dtype: torch.dtype) -> tuple[Timed, float]:
    """Ten integration steps in our pi0 and in transformers', which share their weights, and how far apart their actions are."""
    config = with_openpi_conventions(model)
    with torch.random.fork_rng(), torch.device(device):
        theirs: Any = transformers_pi0(config, "sdpa")
    with torch.device("meta"):
        mine = Pi0(config)
    theirs.requires_grad_(False).to(dtype)
    mine.load_state_dict(from_transformers(theirs), assign=True)
    mine.eval().requires_grad_(False)
    inputs, noise = random_inputs(config, batch, cameras, device), random_chain(config, batch, 1, device)[:, 0]
    arguments = as_transformers(inputs, config) | {"noise": noise}
    arguments |= {name: arguments[name].to(dtype) for name in ("pixel_values", "state", "noise")}

    def here() -> torch.Tensor:
        return mine.integrate(noise, mine.encode(inputs, features=False), REFERENCE_STEPS)

    def there() -> torch.Tensor:
        return theirs.sample_actions(**arguments, num_steps=REFERENCE_STEPS)

    with torch.inference_mode():
        difference = (here() - there()).abs().max().item()
    return {"ours": here, "transformers": there}, difference


@torch.inference_mode()
def in_turns(timed: Timed, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each: all in every round, in the opposite order in the next, so that a machine's moods meet all alike."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for number in counted(rounds + WARM_UP, "rounds"):
        for name, function in list(timed.items())[:: -1 if number % 2 else 1]:
            synchronise(device)
            start = perf_counter()
            function()
            synchronise(device)
            if number >= WARM_UP:
                times[name].append(1e3 * (perf_counter() - start))
    return times


def summary(times: list[float]) -> dict[str, float]:
    """50th and 95th percentile, and the least."""
    return {"p50": float(np.percentile(times, 50)), "p95": float(np.percentile(times, 95)), "min": min(times)}


def speed_ratio(times: dict[str, list[float]]) -> dict[str, Any]:
    """How many times faster than transformers: ratio of the medians, and quartiles of the rounds' own ratios."""
    mine, theirs = np.array(times["ours"]), np.array(times["transformers"])
    quartiles = [float(value) for value in np.percentile(theirs / mine, (25, 50, 75))]
    return {"of_medians": float(np.median(theirs) / np.median(mine)), "quartiles_of_rounds": quartiles}


def decision_rows(result: dict[str, Any], kind: str) -> Rows:
    """Times by number of steps, with the paper's beside; kind: eager or compiled."""
    found, steps, place = result["summary"], result["steps"], ("eager", "compiled").index(kind)
    most, prefix = max(steps), found[f"prefix {kind}"]["p50"]
    slowest = found[f"K={most} {kind}"]["p50"]
    rows = [["K", "p50 ms", "p95 ms", "prefix", f"K={most} / K", "paper, ms", "paper, K=10 / K"]]
    for k in steps:
        middle, end = found[f"K={k} {kind}"]["p50"], found[f"K={k} {kind}"]["p95"]
        paper = [f"{PAPER[k][place]:.0f}", f"{PAPER[10][place] / PAPER[k][place]:.2f}"] if k in PAPER else ["", ""]
        own = [f"{middle:.1f}", f"{end:.1f}", f"{100 * prefix / middle:.0f} %", f"{slowest / middle:.2f}"]
        rows.append([str(k), *own, *paper])
    return rows


def reference_rows(result: dict[str, Any]) -> Rows:
    """Ours beside transformers'."""
    ratio, rows = result["reference"], [["pi0, K=10", "p50 ms", "p95 ms", "speed", "quartiles of the rounds"]]
    low, _, high = ratio["quartiles_of_rounds"]
    for name, speed in (("transformers", ["1", ""]), ("ours", [f"{ratio['of_medians']:.2f}", f"{low:.2f} to {high:.2f}"])):
        times = result["summary"][name]
        rows.append([name, f"{times['p50']:.1f}", f"{times['p95']:.1f}", *speed])
    return rows


def report(result: dict[str, Any]) -> None:
    """Prints the tables."""
    for kind in kinds(result["compile"]):
        title = f"{result['model']}, {result['dtype']}, batch {result['batch']}, {kind}; processor left out"
        print_table(decision_rows(result, kind), title)
    Console().print("the paper's: RTX 4090, 3.2 B parameters", soft_wrap=True)
    if "reference" in result:
        print_table(reference_rows(result), "against transformers' own pi0, equal sizes and weights, eager")
