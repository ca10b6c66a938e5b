"""What the benchmarks share: the machine in words, its clock and its arithmetic, tables and raw numbers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil
import torch
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from genvla.errors import UserError

Rows = list[list[str]]
"""Of a table; the first is its head."""

PEAK_TFLOPS = {
    "RTX 4090": 165.2,
    "RTX 6000 Ada": 364.2,
    "L40": 181.0,
    "A100": 312.0,
    "H100": 989.4,
    "H200": 989.4,
}
"""Dense bf16 with fp32 accumulation, from the makers' data sheets; H100 and H200 as SXM modules."""


def machine(device: torch.device) -> dict[str, Any]:
    """What a measurement is made on, in words."""
    model = "unknown"
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else platform.machine()
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
    }


class OtherWork:
    """What other programs compute while this process and its children measure. Load averages cannot tell: they count both."""

    def __init__(self) -> None:
        self._start, self._seconds = perf_counter(), self._others()

    def cores(self) -> float:
        """How many cores others kept busy since this object was made, on average."""
        return max(0.0, (self._others() - self._seconds) / (perf_counter() - self._start))

    @staticmethod
    def _others() -> float:
        """CPU seconds of all programs since the machine started, less our own."""
        everything = psutil.cpu_times()
        busy = sum(everything) - everything.idle - getattr(everything, "iowait", 0.0)
        busy -= getattr(everything, "guest", 0.0) + getattr(everything, "guest_nice", 0.0)  # counted in user and nice already
        ours = 0.0
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                ours += sum(process.cpu_times()[:4])  # user, system, and those of children that have ended
        return busy - ours


def device_of(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device: {name!r} cannot be used here ({str(error).splitlines()[0]}), want auto, cpu or cuda") from error
    return device


def synchronise(device: torch.device) -> None:
    """Waits until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Operations per second of a device, and where the figure is from: the table above for bf16, or a large matrix product, timed
    here."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        known = next((gpu for gpu in sorted(PEAK_TFLOPS, key=len, reverse=True) if gpu in name), None)
        if known is not None:
            return PEAK_TFLOPS[known] * 1e12, f"{known}, data sheet"
    size, seconds = 8192 if device.type == "cuda" else 1536, []
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    for _ in range(6):
        synchronise(device)
        start = perf_counter()
        matrix @ matrix
        synchronise(device)
        seconds.append(perf_counter() - start)
    return 2 * size**3 / min(seconds[1:]), f"measured, {size} x {size} product in {str(dtype).removeprefix('torch.')}"


def counted(rounds: int, title: str) -> Iterator[int]:
    """0, 1 ... rounds - 1 with a progress bar on a terminal, which moves between rounds alone."""
    console = Console(stderr=True)
    with Progress(console=console, auto_refresh=False, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=rounds)
        for number in range(rounds):
            progress.refresh()
            yield number
            progress.advance(task)


def whole_numbers(name: str, text: str) -> list[int]:
    """ "10,4,2" as numbers of at least 1.

    Raises:
        UserError: it is something else.
    """
    try:
        numbers = [int(word) for word in str(text).split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"{name}: found {text!r}, want whole numbers of at least 1, as in 10,4,2,1")
    return numbers


def print_table(rows: Rows, title: str) -> None:
    """On the terminal; the first column is words, the others are numbers."""
    table = Table(box=box.SIMPLE, title=title)
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=place == 0)
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)


def write_json(path: Path | None, document: Any) -> None:
    """Writes raw numbers to a file, if one is given; whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    if path is None:
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"output: {path} cannot be written ({error.strerror})") from error
