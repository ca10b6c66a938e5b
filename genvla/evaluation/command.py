"""`genvla evaluate`: a checkpoint on a scene set, to a table, a results file and a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genvla.errors import UserError
from genvla.sim.config import SimConfig, load_sim, unlike_training

if TYPE_CHECKING:
    from lightning import Fabric
    from rich.console import Console

    from genvla.evaluation.episodes import Environments, Film
    from genvla.evaluation.journal import Journal
    from genvla.evaluation.results import EvaluationResult, Protocol
    from genvla.evaluation.videos import Clip
    from genvla.policy.flow_policy import FlowPolicy
    from genvla.types import EpisodeRecord, EpisodeSpec


def evaluate_command(
    checkpoint: Path,
    scenes: Path,
    split: str | None = None,
    split_seed: int | None = None,
    episodes: int = 200,
    output: Path = Path("evaluation"),
    seed: int = 0,
    num_envs: int = 32,
    workers: int = 2,
    sim: SimConfig | None = None,
    videos: int = 8,
    integration_steps: int | None = None,
    terminate_on_success: bool = False,
    device: str = "auto",
    devices: int = 1,
    num_nodes: int = 1,
) -> EvaluationResult:
    """Evaluate a policy on the scenes of a scene set, and write tables, the episodes' records and a contact sheet.

    The same command gives the same numbers: every episode has its own seed, which its scene, its number and --seed decide. Where
    it was interrupted it goes on when it is given again, and ends with the same files.

    Args:
        checkpoint: Folder of the policy, as training or import wrote it.
        scenes: Folder of the scene set, as scenegen wrote it; or `simpler`, for ManiSkill's digital twins of Bridge scenes.
        split: Scenes to evaluate on: heldout (never trained on), train, or all; by default heldout. Of simpler: tabletop, the
            paper's three tasks, or all; by default tabletop.
        split_seed: The data.split_seed of a run, to have its training half and its held-out half; null for the set's own split.
        episodes: Number of episodes in all, spread evenly over the scenes.
        output: Folder for results.json, results.md, episodes.mp4 and episodes.png.
        seed: Seed of the evaluation; another seed draws other episodes.
        num_envs: Environments that run side by side, in each process.
        workers: Simulator processes that share them; 0 simulates in this process.
        sim: The simulated set-up. By default that of the policy's training, kept beside its weights; for a policy that has none,
            the standard one with pictures of the size it reads; for simpler the tasks' own. Where any of it is given, give
            image_size too.
        videos: Number of episodes to show, half of them successes and half failures; they are run again for it. 0 for none.
        integration_steps: Steps in which the flow is integrated; by default those of the checkpoint.
        terminate_on_success: End a successful episode at once, which is faster; otherwise it runs to the time limit, and success
            at its end is reported beside success at any time.
        device: Where the policy runs: auto takes a GPU if there is one; otherwise a torch device such as cpu or cuda:1.
        devices: Processes that share the episodes, each on a GPU of its own where there are some; on each machine.
        num_nodes: Machines that share them.

    Raises:
        UserError: something given does not exist or cannot be used.
    """
    _check(episodes=(episodes, 1), num_envs=(num_envs, 1), workers=(workers, 0), videos=(videos, 0))
    _check(devices=(devices, 1), num_nodes=(num_nodes, 1))
    if integration_steps is not None:
        _check(integration_steps=(integration_steps, 1))
    from rich.console import Console

    from genvla.evaluation.episodes import episode_specs
    from genvla.evaluation.evaluate import as_run
    from genvla.evaluation.journal import Journal
    from genvla.evaluation.provenance import digest, scene_set_digest, versions
    from genvla.evaluation.results import Protocol
    from genvla.evaluation.tables import terminal_table
    from genvla.policy.checkpoints import load_policy
    from genvla.sim import make_vector_env, simpler, split_scenes

    twins = simpler.is_simpler(scenes)
    split = split or ("tabletop" if twins else "heldout")
    if twins:
        simpler.require_assets()
    fabric = _launched(device, devices, num_nodes) if devices * num_nodes > 1 else None
    rank, world_size = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    policy = load_policy(checkpoint).to(fabric.device if fabric else find_device(device))
    if integration_steps is not None:
        policy.integration_steps = integration_steps
    scene_ids, image_size = split_scenes(scenes, split, split_seed), policy.config.processor.image_size
    specs = episode_specs(scene_ids, seed, total=episodes)
    if twins:
        specs = simpler.cover_configurations(specs)
        sim = sim or simpler.default_sim(scene_ids, image_size)
    sim = sim or load_sim(checkpoint) or replace(SimConfig(), image_size=image_size)
    protocol = Protocol(
        split=split,
        split_seed=split_seed,
        seed=seed,
        scene_set_digest=scene_set_digest(scenes),
        checkpoint_digest=digest(checkpoint),
        sim=json.loads(json.dumps(asdict(sim))),
        versions=versions(),
    )
    console = Console(quiet=rank > 0)
    if told := unlike_training(sim, checkpoint):
        console.print(told, soft_wrap=True)
    with make_vector_env(scenes, sim, min(num_envs, -(-len(specs) // world_size)), workers) as env:
        journal = Journal(output, as_run(protocol, policy, env, terminate_on_success), rank)
        with closing(journal):
            result = _evaluate(policy, env, specs, protocol, terminate_on_success, journal, (rank, world_size), console)
        if rank == 0:
            _write(result, _film(policy, env, result, videos, console), output)
            journal.remove()
    if fabric is not None:
        fabric.barrier()
    console.print(terminal_table(result))
    console.print(f"written to {output}", soft_wrap=True)
    return result


def _evaluate(
    policy: FlowPolicy,
    env: Environments,
    specs: Sequence[EpisodeSpec],
    protocol: Protocol,
    terminate_on_success: bool,
    journal: Journal,
    place: tuple[int, int],
    console: Console,
) -> EvaluationResult:
    """Runs what the journal does not have yet, and keeps it there."""
    from genvla.evaluation.evaluate import evaluate_specs
    from genvla.evaluation.progress import progress_bar
    from genvla.evaluation.ranks import shard

    own = shard(specs, *place)
    done = {spec: journal.records[spec] for spec in own if spec in journal.records}
    if done:
        console.print(f"going on: {len(done)} of {len(own)} episodes were finished before")
    with progress_bar(len(own), console) as advance:

        def progress(record: EpisodeRecord) -> None:
            journal.add(record)
            advance(record.success_once)

        for record in done.values():
            advance(record.success_once)
        return evaluate_specs(
            policy,
            env,
            specs,
            protocol,
            terminate_on_success=terminate_on_success,
            progress=progress,
            done=done,
            rank=place[0],
            world_size=place[1],
        )


def _film(policy: FlowPolicy, env: Environments, result: EvaluationResult, count: int, console: Console) -> list[Clip]:
    """Some successes and failures, run again with a camera: that they come out as before also shows that episodes repeat."""
    from genvla.evaluation.evaluate import evaluate_specs
    from genvla.evaluation.videos import clips_of, worth_filming

    specs = worth_filming(result.records, count)
    if not specs:
        return []
    film: Film = {spec: [] for spec in specs}
    again = evaluate_specs(
        policy, env, specs, result.protocol, terminate_on_success=result.protocol.terminate_on_success, watch=film
    )
    before = {record.spec: record for record in result.records}
    if others := sum(record != before[record.spec] for record in again.records):
        console.print(f"warning: {others} of the {len(specs)} filmed episodes did not repeat; arithmetic varies on this machine")
    return clips_of(again, film)


def _write(result: EvaluationResult, clips: list[Clip], output: Path) -> None:
    from genvla.evaluation.results import write_atomically
    from genvla.evaluation.tables import markdown_table
    from genvla.evaluation.videos import by_outcome, write_strip, write_video

    if clips:
        write_video(by_outcome(clips, result), output / "episodes.mp4")
        write_strip(by_outcome(clips, result), output / "episodes.png")
    write_atomically(output / "results.md", markdown_table(result))
    result.to_json(output / "results.json")  # last: where it is, all is, which `genvla sweep` goes by


def _launched(device: str, devices: int, num_nodes: int) -> Fabric:
    """As many processes as asked for; under torchrun or Slurm those that are there."""
    from genvla.learning.cpu import physical_cores
    from genvla.learning.runs import HardwareConfig

    return HardwareConfig(device, devices, num_nodes, threads=max(1, physical_cores() // devices)).fabric()


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
