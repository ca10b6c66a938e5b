"""`genvla expert`: the scripted expert on a scene set, which tells whether its tasks can be done at all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from genvla.errors import UserError
from genvla.evaluation.results import EvaluationResult
from genvla.sim.config import SimConfig


def expert_command(
    scenes: Path,
    split: str = "all",
    resets: int = 5,
    output: Path = Path("expert"),
    seed: int = 0,
    num_envs: int = 16,
    workers: int = 2,
    sim: SimConfig = SimConfig(),  # noqa: B008  (frozen)
) -> EvaluationResult:
    """Let the scripted expert, which knows true poses, try every scene of a set: what it never solves may be impossible.

    Args:
        scenes: Folder of the scene set, as scenegen wrote it.
        split: Scenes to try: train, heldout or all.
        resets: Episodes in each scene, every one with its own start placement and randomisation.
        output: Folder for results.json and results.md.
        seed: Seed of the episodes.
        num_envs: Environments that run side by side.
        workers: Simulator processes that share them; 0 simulates in this process.
        sim: The simulated set-up, with its domain randomisation.

    Raises:
        UserError: something given does not exist or cannot be used.
    """
    for name, found, least in (("resets", resets, 1), ("num_envs", num_envs, 1), ("workers", workers, 0)):
        if found < least:
            raise UserError(f"{name}: {found} found, at least {least} wanted")
    from rich.console import Console

    from genvla.evaluation.episodes import episode_specs
    from genvla.evaluation.progress import progress_bar
    from genvla.evaluation.provenance import scene_set_digest, versions
    from genvla.evaluation.results import Protocol, write_atomically
    from genvla.evaluation.tables import markdown_table, percent
    from genvla.sim import make_vector_env, scenes_of

    console = Console()
    ids = scenes_of(scenes, split)
    specs = sorted(episode_specs(ids, seed, per_scene=resets), key=lambda spec: ids.index(spec.scene_id))
    records = {}
    with (
        make_vector_env(scenes, sim, min(num_envs, len(specs)), workers) as env,
        progress_bar(len(specs), console) as advance,
    ):
        for demonstration in env.demonstrate(specs):
            records[demonstration.record.spec] = demonstration.record
            advance(demonstration.record.success_once)
    protocol = Protocol(
        split=split,
        seed=seed,
        max_chunks=sim.max_chunks,
        num_envs=num_envs,
        terminate_on_success=True,
        scene_set_digest=scene_set_digest(scenes),
        sim=json.loads(json.dumps(asdict(sim))),
        versions=versions(),
    )
    result = EvaluationResult(tuple(records[spec] for spec in specs), protocol)
    result.to_json(output / "results.json")
    write_atomically(output / "results.md", markdown_table(result))
    unsolved = [scene for scene, summary in result.per_scene.items() if not summary.success_once.value]
    for scene in unsolved:
        console.print(f"never solved: {scene} ({result.instructions[scene]})", soft_wrap=True)
    console.print(
        f"the expert solved {len(ids) - len(unsolved)} of {len(ids)} scenes in at least one of {resets} episodes, and "
        f"{percent(result.overall.success_once)} of all episodes; written to {output}",
        soft_wrap=True,
    )
    return result
