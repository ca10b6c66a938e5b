r"""The figures in docs/benchmarks/update.md: speed and memory of a fine-tuning update.

python benchmarks/update.py
python benchmarks/update.py update --rounds 3    # one of the runs below; any option of `genvla bench update`
"""

from __future__ import annotations

from pages import measure

from genvla.policy.finetuning import VARIANTS

MID = ["--model", "mid", "--variants", ",".join(VARIANTS), "--micro_batch", "8"]
FULL_SIZE = ["--model", "open_pi_zero", "--variants", ",".join(VARIANTS), "--micro_batch", "8", "--precision", "bf16-mixed"]
RUNS = {
    "update": MID,
    "update_checkpointing": [*MID, "--checkpointing"],
    "estimate": [*FULL_SIZE, "--estimate"],
}

if __name__ == "__main__":
    raise SystemExit(measure("update", RUNS))
