from __future__ import annotations

from pathlib import Path

import pytest

from genvla.sim.bench import bench_rollout
from genvla.sim.config import SimConfig


def test_both_loops_run_and_are_compared(scenes: Path, sim: SimConfig, capsys: pytest.CaptureFixture[str]) -> None:
    result = bench_rollout(scenes, sim, num_envs=2, chunks=2, rounds=3)
    assert min(result.values()) > 0
    printed = capsys.readouterr().out
    assert all(f"{result[side]:.0f} env steps/s" in printed for side in ("bare_steps_per_s", "env_steps_per_s"))
