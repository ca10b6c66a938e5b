r"""The layers' figures in docs/benchmarks/policy.md: genvla's linear layer on a CPU, beside torch's own.

python benchmarks/linear.py
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from pages import FOLDER, write_pages
from torch import nn

from genvla.policy.linear import Linear
from genvla.policy.measuring import OtherWork, counted, machine, write_json

SHAPES = ((32, 80, 96, 192), (210, 80, 96, 192), (210, 80, 192, 96), (210, 5, 128, 512), (16, 276, 512, 2048))
"""Samples, tokens, features before and after: of the shipped policy's VLM for a group of environments and for a micro-batch, of
its action expert, and of a larger VLM."""
ROUNDS, CALLS = 15, 20


def measure_layers() -> None:
    """Times both in turns, forward alone and with gradients, and writes docs/benchmarks/raw/linear.json and the page."""
    other_work, rows = OtherWork(), []
    for samples, tokens, before, after in SHAPES:
        x = torch.randn(samples, tokens, before, requires_grad=True)
        gradient = torch.randn(samples, tokens, after)
        layers = {"torch.nn": nn.Linear(before, after), "ours": Linear(before, after)}
        calls = CALLS if x.numel() * after < 1 << 30 else 2
        seconds: dict[str, list[float]] = {f"{name} {way}": [] for name in layers for way in ("forward", "forward and backward")}
        for number in counted(ROUNDS + 1, f"{samples} x {tokens} x {before} to {after}"):
            for name, layer in layers.items():
                with torch.no_grad():
                    start = perf_counter()
                    for _ in range(calls):
                        layer(x)
                    forward = perf_counter() - start
                start = perf_counter()
                for _ in range(calls):
                    layer(x).backward(gradient)
                both = perf_counter() - start
                if number:  # the first round is not counted
                    seconds[f"{name} forward"].append(forward / calls)
                    seconds[f"{name} forward and backward"].append(both / calls)
        rows.append({"samples": samples, "tokens": tokens, "before": before, "after": after, "seconds": seconds})
        told = ", ".join(f"{name} {1e3 * median(times):.2f} ms" for name, times in seconds.items())
        print(f"{samples} x {tokens} tokens, {before} to {after}: {told}")
    result = {"machine": machine(torch.device("cpu")), "rows": rows, "other_work": other_work.cores()}
    write_json(FOLDER / "raw" / "linear.json", result)
    write_pages(FOLDER)


if __name__ == "__main__":
    measure_layers()
