r"""Writes the tables of docs/benchmarks/policy.md, update.md and collection.md anew from the raw numbers beside them.

python benchmarks/pages.py
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from genvla.cli import main
from genvla.learning.bench_collection import collection_rows
from genvla.learning.bench_update import ESTIMATE_NOTE, plan_rows, update_note, update_rows
from genvla.policy.bench import decision_rows, kinds, reference_rows
from genvla.policy.measuring import Rows

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
PAGES = ("policy", "update", "collection")
Runs = dict[str, list[str]]


def measure(benchmark: str, runs: Runs) -> int:
    """Runs `genvla bench` into docs/benchmarks/raw/NAME.json, and writes the pages.

    The command line may name some of the runs, and add options to the command's own.
    """
    names = [word for word in sys.argv[1:] if word in runs]
    options = [word for word in sys.argv[1:] if word not in runs]
    for name in names or runs:
        code = main(["bench", benchmark, *runs[name], "--output", str(FOLDER / "raw" / f"{name}.json"), *options])
        if code:
            return code
    write_pages(FOLDER)
    return 0


def write_pages(folder: Path) -> None:
    """Puts table KIND of raw/NAME.json, if that was measured, between each `<!-- NAME: KIND -->` and the next `<!-- end -->`."""
    for page in (folder / f"{name}.md" for name in PAGES):
        text = page.read_text()
        parts = re.compile(r"(<!-- (\w+): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
        page.write_text(parts.sub(lambda found: filled(found, folder / "raw"), text))


def filled(found: re.Match[str], raw: Path) -> str:
    path = raw / f"{found[2]}.json"
    text = TABLES[found[3]](json.loads(path.read_text())) if path.exists() else "*Not measured yet.*\n"
    return f"{found[1]}\n{text}\n{found[4]}"


def markdown(rows: Rows) -> str:
    """A table; its first column is words, the others are numbers."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine(result: dict[str, Any]) -> str:
    """What a run was made on, and whether it had it to itself."""
    found = result["machine"]
    where = found["gpu"] or f"{found['cpu']}, {found['threads']} of {found['cores']} cores"
    others = result.get("other_work")
    if others is None:  # measured before that was: load averages, which count the benchmark itself
        loads = [load[0] for load in (found["load_average"], result["load_average_after"]) if load is not None]
        busy = max(loads, default=0) > found["threads"] + 0.5 and found["gpu"] is None
        meanwhile = f"load average before and after {' and '.join(f'{load:g}' for load in loads)}"
    else:
        busy = others > 0.1 * found["cores"] and found["gpu"] is None
        meanwhile = f"other programs took {others:.2f} cores meanwhile"
    text = f"{where}; torch {found['torch']}; {meanwhile}.\n"
    if busy:
        text += "\n**The machine was busy with other work: times are too long, ratios within the run are what to read.**\n"
    return text


def decisions(result: dict[str, Any]) -> str:
    parts = [machine(result)]
    for kind in kinds(result["compile"]):
        rounds = len(result["milliseconds"][f"prefix {kind}"])
        parts.append(f"{result['model']} ({result['parameters'] / 1e6:.0f} M parameters), {kind}, {rounds} rounds:\n")
        parts.append(markdown(decision_rows(result, kind)))
    return "\n".join(parts)


def reference(result: dict[str, Any]) -> str:
    largest = result["reference"]["largest_difference_of_actions"]
    return f"{markdown(reference_rows(result))}\nThe actions of the two differ by at most {largest:.0e}.\n"


def updates(result: dict[str, Any]) -> str:
    rounds = len(result["updates"][0]["seconds"])
    what = f"{result['model']}, {result['precision']}, {rounds} rounds; {update_note(result)}."
    return f"{machine(result)}\n{what}\n\n{markdown(update_rows(result))}"


def parts(result: dict[str, Any]) -> str:
    """The paper's variant by part, without and with checkpointing."""
    plain, frugal = (plan_rows(plan, {}) for plan in result["plans"] if plan["variant"] == "full_expert")
    rows = [["full_expert, GiB", "all kept", "with checkpointing"]]
    rows += [[name, first, second] for (name, first), (_, second) in zip(plain[1:], frugal[1:], strict=True)]
    return markdown(rows)


def micro_batches(result: dict[str, Any]) -> str:
    """The largest that fit, without and with checkpointing."""
    gpus = result["gpus_gib"]
    rows = [["largest micro-batch, all kept / with checkpointing", *(f"{gpu} ({gib:g} GiB)" for gpu, gib in gpus.items())]]
    plans = result["plans"]
    for plain, frugal in zip(plans[::2], plans[1::2], strict=True):
        fits = [f"{plain['largest_micro_batch'][gpu]} / {frugal['largest_micro_batch'][gpu]}" for gpu in gpus]
        rows.append([plain["variant"], *fits])
    return f"{markdown(rows)}\n{ESTIMATE_NOTE}\n"


def compared(result: dict[str, Any]) -> str:
    rounds = len(next(iter(result["rows"][0]["seconds"].values())))
    rows = {row["row"] for row in result["rows"]}
    policy = f", the policy in {result['precision']}{', compiled' if result['compile'] else ''}"
    note = f"{rounds} rounds{policy if rows & {'policy', 'inference', 'scenes'} else ''}. "
    note += "Speeds are their medians, the ratio is of the sums." if "scenes" in rows else "Speeds and ratios are their medians."
    return f"{machine(result)}\n{markdown(collection_rows(result))}\n{note}\n"


def layers(result: dict[str, Any]) -> str:
    """torch's layer and ours, the median over the rounds of either way's time and of their ratio."""
    rows = [["samples x tokens, features", "forward, ms", "ours", "ratio", "with gradients, ms", "ours", "ratio"]]
    for row in result["rows"]:
        cells = [f"{row['samples']} x {row['tokens']}, {row['before']} to {row['after']}"]
        for way in ("forward", "forward and backward"):
            theirs, ours = (row["seconds"][f"{name} {way}"] for name in ("torch.nn", "ours"))
            ratio = median(slow / fast for slow, fast in zip(theirs, ours, strict=True))
            cells += [f"{1e3 * median(theirs):.2f}", f"{1e3 * median(ours):.2f}", f"{ratio:.2f}"]
        rows.append(cells)
    rounds = len(result["rows"][0]["seconds"]["ours forward"])
    return f"{machine(result)}\n{markdown(rows)}\n{rounds} rounds. Times and ratios are their medians.\n"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "decisions": decisions,
    "reference": reference,
    "updates": updates,
    "parts": parts,
    "micro_batches": micro_batches,
    "compared": compared,
    "layers": layers,
}

if __name__ == "__main__":
    write_pages(FOLDER)
