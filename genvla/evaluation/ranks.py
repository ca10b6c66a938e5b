"""An evaluation divided over processes, each with environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genvla.evaluation.episodes import Act, Environments, Film, run_episodes
from genvla.types import EpisodeRecord, EpisodeSpec

Gather = Callable[[Any], list[Any]]
"""Gives every process what each of them has, in the order of their numbers."""


def shard(specs: Sequence[EpisodeSpec], rank: int, world_size: int) -> list[EpisodeSpec]:
    """The episodes that a process runs: every world_size-th, so that all get their share of every scene."""
    return list(specs[rank::world_size])


def run_over_ranks(
    act: Act,
    env: Environments,
    specs: Sequence[EpisodeSpec],
    *,
    rank: int = 0,
    world_size: int = 1,
    gather: Gather | None = None,
    watch: Film | None = None,
    **options: Any,
) -> list[EpisodeRecord]:
    """`run_episodes` by several processes together; each returns all records, in the order of specs, and has all of the film.

    As an episode's course follows from its spec alone, the records are those of a single process with as many slots. What one
    process raises is raised in all, lest the others wait for it.

    Args:
        act: the policy, on this process's device.
        env: the environments of this process.
        specs: all episodes, the same in every process.
        rank: number of this process among world_size.
        world_size: processes.
        gather: by default torch.distributed's, of its default group.
        watch: the episodes to film, the same in every process; see `run_episodes`.
        options: see `run_episodes`; `progress` is called with this process's records.
    """
    if world_size == 1:
        return run_episodes(act, env, specs, watch=watch, **options)
    gather = gather or all_gather
    try:
        own = run_episodes(act, env, shard(specs, rank, world_size), watch=watch, **options)
    except Exception as error:
        gather(error)
        raise
    parts = gather(own)
    for part in parts:
        if isinstance(part, Exception):
            raise part
    if watch is not None:
        for film in gather({spec: frames for spec, frames in watch.items() if frames}):
            for spec, frames in film.items():
                watch[spec][:] = frames
    records = {record.spec: record for part in parts for record in part}
    return [records[spec] for spec in specs]


def all_gather(value: Any) -> list[Any]:
    """What every process of torch.distributed's default group has; just this one's value where there is no such group."""
    from torch import distributed

    if not distributed.is_initialized():
        return [value]
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, value)
    return parts
