"""`genvla evaluate`: a checkpoint on a scene set, to a table, a results file and a video."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genvla.errors import UserError
from genvla.sim.config import SimConfig, load_sim

if TYPE_CHECKING:
    from genvla.evaluation.episodes import Film
    from genvla.evaluation.results import EvaluationResult


def evaluate_command(
    checkpoint: Path,
    scenes: Path,
    split: str = "heldout",
    episodes: int = 200,
    output: Path = Path("evaluation"),
    seed: int = 0,
    num_envs: int = 32,
    workers: int = 2,
    sim: SimConfig | None = None,
    videos: int = 4,
    integration_steps: int | None = None,
    terminate_on_success: bool = False,
    device: str = "auto",
) -> EvaluationResult:
    """Evaluate a policy on the scenes of a scene set, and write tables, the episodes' records and a video.

    The same command gives the same numbers: every episode has its own seed, which its scene, its number and --seed decide.

    Args:
        checkpoint: Folder of the policy, as training or import wrote it.
        scenes: Folder of the scene set, as scenegen wrote it.
        split: Scenes to evaluate on: heldout (never trained on), train, or all.
        episodes: Number of episodes in all, spread evenly over the scenes.
        output: Folder for results.json, results.md, episodes.mp4 and episodes.png.
        seed: Seed of the evaluation; another seed draws other episodes.
        num_envs: Environments that run side by side.
        workers: Simulator processes that share them; 0 simulates in this process.
        sim: The simulated set-up. By default that of the policy's training, kept beside its weights; for a policy that has none,
            the standard one with pictures of the size it reads. Where any of it is given, give image_size too.
        videos: Number of episodes to film; 0 writes no video.
        integration_steps: Steps in which the flow is integrated; by default those of the checkpoint.
        terminate_on_success: End a successful episode at once, which is faster; otherwise it runs to the time limit, and success
            at its end is reported beside success at any time.
        device: Where the policy runs: auto takes a GPU if there is one; otherwise a torch device such as cpu or cuda:1.

    Raises:
        UserError: something given does not exist or cannot be used.
    """
    _check(episodes=(episodes, 1), num_envs=(num_envs, 1), workers=(workers, 0), videos=(videos, 0))
    if integration_steps is not None:
        _check(integration_steps=(integration_steps, 1))
    from rich.console import Console

    from genvla.evaluation.episodes import episode_specs, spread_over_scenes
    from genvla.evaluation.evaluate import evaluate_specs
    from genvla.evaluation.progress import progress_bar
    from genvla.evaluation.provenance import digest, versions
    from genvla.evaluation.results import Protocol
    from genvla.evaluation.tables import terminal_table
    from genvla.policy.checkpoints import load_policy
    from genvla.sim import make_vector_env, scenes_of

    policy = load_policy(checkpoint).to(find_device(device))
    if integration_steps is not None:
        policy.integration_steps = integration_steps
    specs = episode_specs(scenes_of(scenes, split), seed, total=episodes)
    sim = sim or load_sim(checkpoint) or replace(SimConfig(), image_size=policy.config.processor.image_size)
    protocol = Protocol(
        split=split,
        seed=seed,
        scene_set_digest=digest(scenes),
        checkpoint_digest=digest(checkpoint),
        sim=json.loads(json.dumps(asdict(sim))),
        versions=versions(),
    )
    film: Film = {spec: [] for spec in spread_over_scenes(specs, videos)}
    console = Console()
    env = make_vector_env(scenes, sim, num_envs=min(num_envs, len(specs)), workers=workers)
    try:
        with progress_bar(len(specs), console) as advance:
            result = evaluate_specs(
                policy,
                env,
                specs,
                protocol,
                terminate_on_success=terminate_on_success,
                progress=lambda record: advance(record.success_once),
                watch=film,
            )
    finally:
        env.close()
    _write(result, film, output)
    console.print(terminal_table(result))
    console.print(f"written to {output}")
    return result


def _write(result: EvaluationResult, film: Film, output: Path) -> None:
    from genvla.evaluation.results import write_atomically
    from genvla.evaluation.tables import markdown_table
    from genvla.evaluation.videos import clips_of, write_strip, write_video

    result.to_json(output / "results.json")
    write_atomically(output / "results.md", markdown_table(result))
    if clips := clips_of(result, film):
        write_video(clips, output / "episodes.mp4")
        write_strip(clips, output / "episodes.png")


def _check(**values: tuple[int, int]) -> None:
    for name, (found, least) in values.items():
        if found < least:
            raise UserError(f"{name}: {found} found, at least {least} wanted")


def find_device(name: str) -> str:
    """The torch device that a `--device` means; UserError when it cannot be used."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return str(torch.empty(0, device=name).device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device: {name!r} cannot be used ({str(error).splitlines()[0]}), want auto, cpu or cuda") from error
