"""Folders such as `genvla fit` leaves behind, with episodes drawn from a given chance of success."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genvla.evaluation.episodes import episode_specs
from genvla.evaluation.results import EvaluationResult, Protocol
from genvla.types import EpisodeRecord

SCENES = [f"s{i:04d}_put_it" for i in range(6)]


def evaluation(
    chance: float, seed: int = 0, scenes: list[str] = SCENES, episodes: int = 60, split: str = "heldout", **protocol: Any
) -> EvaluationResult:
    """The same luck for the same episode: a larger chance succeeds where the smaller did, and `seed` gives other luck."""
    records = []
    for spec in episode_specs(scenes, 0, total=episodes):
        success = bool(np.random.default_rng((spec.seed, seed)).random() < chance)
        records.append(EpisodeRecord(spec.scene_id, spec.seed, success, success, success, 10 if success else 28, 7, "put it"))
    fields = {"scene_set_digest": "a" * 64, "sim": {"max_chunks": 7}, "versions": {"torch": "2"}, **protocol}
    return EvaluationResult(tuple(records), Protocol(split, 0, **fields))


def write_run(
    folder: Path, chance: float, seed: int = 0, settings: dict[str, Any] | None = None, iterations: int = 12, **options: Any
) -> Path:
    """A run whose success goes from 0.3 to `chance`; `options` are those of `evaluation`."""
    folder.mkdir(parents=True)
    for when, share in (("before", 0.3), (f"iteration_{iterations:06d}", chance)):
        evaluation(share, seed, **options).to_json(folder / "evaluation" / f"{when}_heldout.json")
        train = {**options, "scenes": [f"t{seed}_{i}" for i in range(2)], "split": "train"}
        evaluation(share, seed, **train).to_json(folder / "evaluation" / f"{when}_train.json")
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"seed": seed, "module": {"class_path": "M", "init_args": {"clip": 0.2}}, **(settings or {})})
    )
    rows = []
    for step in range(iterations):
        share = 0.3 + (chance - 0.3) * step / (iterations - 1)
        rows.append({"step": step, "env_steps": 1000 * step, "wall_seconds": 30.0 * step, "rollout/success": share})
        rows[-1] |= {"speed/simulate_seconds": 1.0, "speed/update_seconds": (2.0 + seed) * (100 if step == 0 else 1)}
        if step % 4 == 3:
            rows[-1]["evaluation/heldout/success_once"] = share
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.json").write_text("{}")
    return folder
