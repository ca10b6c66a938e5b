from __future__ import annotations

from pathlib import Path

import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed

from genvla.evaluation.episodes import Film, episode_specs, run_episodes
from genvla.evaluation.ranks import run_over_ranks, shard
from genvla.learning.rollouts import Interrupted
from tests.evaluation.toy import ToyEnv, toy_act

SPECS = episode_specs(["bowl", "mug", "pan"], 0, total=13)


@given(st.integers(1, 40), st.integers(1, 9))
def test_shards_hold_every_episode_once_and_are_of_equal_size(total: int, world: int) -> None:
    specs = episode_specs(["bowl", "mug"], 0, total=total)
    shards = [shard(specs, rank, world) for rank in range(world)]
    assert sorted(sum(shards, []), key=str) == sorted(specs, key=str)
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def _worker(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    env = ToyEnv(2)
    records = run_over_ranks(toy_act, env, SPECS, rank=rank, world_size=2)
    (folder / f"records{rank}").write_text(repr(records))
    (folder / f"ran{rank}").write_text(str(len(env.started)))
    film: Film = {spec: [] for spec in SPECS[:3]}
    run_over_ranks(toy_act, env, SPECS, rank=rank, world_size=2, watch=film)
    (folder / f"film{rank}").write_text(str([len(frames) for frames in film.values()]))

    def stop(record: object) -> None:
        if rank == 1:
            raise Interrupted

    try:
        run_over_ranks(toy_act, env, SPECS, rank=rank, world_size=2, progress=stop)
    except Interrupted:
        (folder / f"interrupted{rank}").touch()
    distributed.destroy_process_group()


def test_two_processes_find_and_film_what_one_does(tmp_path: Path) -> None:
    mp.spawn(_worker, (tmp_path,), nprocs=2)
    alone = repr(run_episodes(toy_act, ToyEnv(2), SPECS))
    assert (tmp_path / "records0").read_text() == (tmp_path / "records1").read_text() == alone
    assert [(tmp_path / f"ran{rank}").read_text() for rank in (0, 1)] == ["7", "6"]
    film: Film = {spec: [] for spec in SPECS[:3]}
    run_episodes(toy_act, ToyEnv(2), SPECS, watch=film)
    for rank in (0, 1):
        assert (tmp_path / f"film{rank}").read_text() == str([len(frames) for frames in film.values()])
        assert (tmp_path / f"interrupted{rank}").exists(), "what one process raises is raised in all"
