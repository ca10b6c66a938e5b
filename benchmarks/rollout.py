r"""The figure in docs/benchmarks/rollout.md: what the ManiSkill environment leaves of a bare SAPIEN loop's speed.

scenegen build --catalog basic --count 64 --heldout 14 --xy_range 0.06 --poses 128 --min_distractors 0 --distractors 1 \
    --output scenes/cpu
python benchmarks/rollout.py
"""

from __future__ import annotations

from pathlib import Path

from genvla.cli import main

if __name__ == "__main__":
    configs = Path(__file__).parents[1] / "configs"
    raise SystemExit(main(["bench", "rollout", "--scenes", "scenes/cpu", "--sim", str(configs / "sim_cpu.yaml")]))
