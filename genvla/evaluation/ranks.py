"""An evaluation divided over processes, each with environments of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from genvla.evaluation.episodes import Act, Environments, run_episodes
from genvla.types import EpisodeRecord, EpisodeSpec

Gather = Callable[[list[EpisodeRecord]], list[list[EpisodeRecord]]]
"""Gives every process the lists of all processes."""


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
    **options: Any,
) -> list[EpisodeRecord]:
    """`run_episodes` by several processes together; each returns all records, in the order of specs.

    As an episode's course follows from its spec alone, the records are those of a single process with as many slots.

    Args:
        act: the policy, on this process's device.
        env: the environments of this process.
        specs: all episodes, the same in every process.
        rank: number of this process among world_size.
        world_size: processes.
        gather: by default torch.distributed's, of its default group.
        options: see `run_episodes`; `progress` is called with this process's records.
    """
    own = run_episodes(act, env, shard(specs, rank, world_size), **options)
    if world_size == 1:
        return own
    records = {record.spec: record for part in (gather or _all_gather)(own) for record in part}
    return [records[spec] for spec in specs]


def _all_gather(records: list[EpisodeRecord]) -> list[list[EpisodeRecord]]:
    from torch import distributed

    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, records)
    return parts
