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
TRAINING = ["--num_envs", "100", "--chunks", "42"]  # what configs/ppoflow_cpu_n100.yaml collects in an iteration
POLICY = [*COMMON, *TRAINING, "--rows", "policy,inference", "--rounds", "3"]
RUNS = {
    "collection_policy": [*POLICY, "--workers", "1"],
    "collection_shared": POLICY,
    "collection_bf16": [*POLICY, "--precision", "bf16-mixed", "--compile", "default"],
    "collection_workers": [*COMMON, "--rows", "workers"],
    "collection_scenes": [*COMMON, "--rows", "scenes"],
    "collection_gymnasium": [*COMMON, "--rows", "gymnasium", "--chunks", "49", "--rounds", "7"],
}

if __name__ == "__main__":
    raise SystemExit(measure("collection", RUNS))
