r"""The figures in docs/benchmarks/collection.md: what policy, processes and scenes cost the collection of experience.

scenegen build --config configs/scenes/cpu_w100.yaml
python benchmarks/collection.py
python benchmarks/collection.py collection_scenes --rounds 9    # one of the runs below; any option of `genvla bench collection`
"""

from __future__ import annotations

from pathlib import Path

from pages import measure

SIM = Path(__file__).parents[1] / "configs" / "sim_cpu.yaml"
COMMON = ["--scenes", "scenes/cpu_w100", "--checkpoint", "checkpoints/cpu", "--sim", str(SIM)]
POLICY = [*COMMON, "--rows", "policy,inference"]
RUNS = {
    "collection_policy": [*POLICY, "--workers", "1"],
    "collection_shared": POLICY,
    **{f"collection_{row}": [*COMMON, "--rows", row] for row in ("workers", "scenes", "gymnasium")},
}

if __name__ == "__main__":
    raise SystemExit(measure("collection", RUNS))
