r"""The figures in docs/benchmarks/policy.md: how long a decision takes, and how long in transformers' own pi0.

python benchmarks/policy.py
python benchmarks/policy.py --compile default    # compiled, too; any option of `genvla bench policy`
"""

from __future__ import annotations

from pages import measure

RUNS = {"policy": ["--model", "mid", "--reference"]}

if __name__ == "__main__":
    raise SystemExit(measure("policy", RUNS))
