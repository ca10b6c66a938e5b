"""Evaluations before, during and after training, on the scenes trained on and on those held out.

Their episodes end at the first success, as those of training do; `genvla evaluate` also tells whether it lasts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from genvla.errors import UserError
from genvla.evaluation.episodes import Film, episode_specs
from genvla.evaluation.evaluate import evaluate_specs
from genvla.evaluation.progress import progress_bar
from genvla.evaluation.provenance import scene_set_digest, versions
from genvla.evaluation.ranks import all_gather, shard
from genvla.evaluation.results import EvaluationResult, Protocol, write_atomically
from genvla.evaluation.tables import percent
from genvla.evaluation.videos import clips_of, write_strip, write_video
from genvla.policy.flow_policy import FlowPolicy
from genvla.sim.config import SimConfig
from genvla.types import EpisodeRecord


@dataclass(frozen=True)
class EvaluationConfig:
    """How training is judged.

    Args:
        episodes: episodes for each group of scenes, before and after training; 0 for none.
        episodes_during: the same for each evaluation in between.
        videos: episodes to film after training, of each group of scenes.
        seed: of the evaluation's episodes; the same for all, so that before and after meet the same.
    """

    episodes: int = 128
    episodes_during: int = 64
    videos: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("episodes", "episodes_during", "videos"):
            if getattr(self, name) < 0:
                raise UserError(f"evaluation.{name}: {getattr(self, name)} found, 0 or more wanted")


class Validator:
    """Evaluates a policy on groups of scenes, always on the same episodes.

    Args:
        env: environments over the scene set.
        scenes: folder of the scene set.
        sim: what the environments simulate.
        groups: scene ids by name, "train" and "heldout".
        config: how many episodes.
        folder: where complete results are written, as `<when>_<group>.json`.
        console: where progress shows.
        check: called after every episode of a thorough evaluation; breaks it off, in all processes, by raising an exception.
        split_seed: what drew the groups from the scene set; None where it divides them itself.
        rank: number of this process among world_size; the first writes and shows.
        world_size: processes that share the episodes. They call every method together.
    """

    def __init__(
        self,
        env: Any,
        scenes: Path,
        sim: SimConfig,
        groups: Mapping[str, list[str]],
        config: EvaluationConfig,
        folder: Path,
        console: Console,
        check: Callable[[], None] = lambda: None,
        split_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.env = env
        self.groups = {name: ids for name, ids in groups.items() if ids}
        self.config = config
        self.folder = Path(folder)
        self.console = console if rank == 0 else Console(quiet=True)
        self.check = check
        self.split_seed = split_seed
        self.rank, self.world_size = rank, world_size
        self._digest = scene_set_digest(scenes)
        self._sim = json.loads(json.dumps(asdict(sim)))

    def thorough(self, policy: Callable[[], FlowPolicy], when: str, film: Film | None = None) -> dict[str, EvaluationResult]:
        """Evaluates on every group; what was evaluated and written before is read instead, so a resumed run does not repeat it.
        Every process gets all results.

        policy: gives the policy, where it is needed.
        film: filled with the pictures of `config.videos` episodes of each group.
        """
        results = {}
        for name in self.groups if self.config.episodes else ():
            path = self.folder / f"{when}_{name}.json"
            watch = self._to_film(name, film)
            known = EvaluationResult.from_json(path) if self.rank == 0 and path.exists() and not watch else None
            if self.world_size > 1:
                known = all_gather(known)[0]
            if known is not None:
                results[name] = known
                continue
            results[name] = self._run(policy(), name, self.config.episodes, f"{when}, {name} scenes", watch)
            if self.rank == 0:
                results[name].to_json(path)
        return results

    def quick(self, policy: FlowPolicy) -> tuple[dict[str, Any], float]:
        """A smaller evaluation. Returns metrics to log and the score: success on the last group."""
        results = {name: self._run(policy, name, self.config.episodes_during, None) for name in self.groups}
        score = list(results.values())[-1].overall.success_once.value
        return evaluation_metrics(results), score

    def _to_film(self, name: str, film: Film | None) -> Film | None:
        if film is None or not self.config.videos:
            return None
        specs = episode_specs(self.groups[name], self.config.seed, total=self.config.episodes)
        watched: Film = {spec: [] for spec in specs[: self.config.videos]}
        film.update(watched)  # the same lists
        return watched

    def _run(
        self, policy: FlowPolicy, name: str, episodes: int, title: str | None, watch: Film | None = None
    ) -> EvaluationResult:
        specs = episode_specs(self.groups[name], self.config.seed, total=episodes)
        protocol = Protocol(
            split=name,
            split_seed=self.split_seed,
            seed=self.config.seed,
            scene_set_digest=self._digest,
            sim=self._sim,
            versions=versions(),
        )
        run = partial(evaluate_specs, policy, self.env, specs, protocol, rank=self.rank, world_size=self.world_size)
        if title is None:
            return run(terminate_on_success=True)
        self.console.print(f"evaluating {title}: {len(specs)} episodes")
        with progress_bar(len(shard(specs, self.rank, self.world_size)), self.console) as advance:

            def progress(record: EpisodeRecord) -> None:
                advance(record.success_once)
                self.check()

            return run(terminate_on_success=True, progress=progress, watch=watch)


def evaluation_metrics(results: Mapping[str, EvaluationResult]) -> dict[str, Any]:
    """What to log of evaluations, by group."""
    return {"evaluation": {name: result.metrics() for name, result in results.items()}} if results else {}


def comparison_table(before: Mapping[str, EvaluationResult], after: Mapping[str, EvaluationResult]) -> Table:
    """Success and mean seconds to it before and after training, by group of scenes; fits into 80 columns."""
    table = Table(title="before and after training, with 95 % Wilson intervals", box=box.SIMPLE)
    for column in ("scenes", "episodes", "success before", "success after", "seconds"):
        table.add_column(column, justify="left" if column == "scenes" else "right", no_wrap=True)
    for name, result in after.items():
        old, new = before[name].overall, result.overall
        seconds = " to ".join("-" if isnan(time.value) else f"{time.value:.1f}" for time in (old.seconds, new.seconds))
        table.add_row(name, str(new.episodes), percent(old.success_once), percent(new.success_once), seconds)
    return table


def write_comparison(
    before: Mapping[str, EvaluationResult], after: Mapping[str, EvaluationResult], path: Path, **more: Any
) -> None:
    """The table's numbers as JSON, and whatever else is to stand beside them."""
    data = {
        **more,
        "scenes": {
            name: {"before": before[name].metrics(), "after": result.metrics(), "seed": result.protocol.seed}
            for name, result in after.items()
        },
    }
    write_atomically(path, json.dumps(data, indent=2) + "\n")


def write_film(results: Iterable[EvaluationResult], film: Film, folder: Path) -> bool:
    """The filmed episodes as a video and as a strip of pictures, episodes.mp4 and episodes.png. False when there are none."""
    clips = [clip for result in results for clip in clips_of(result, film)]
    if clips:
        write_video(clips, folder / "episodes.mp4")
        write_strip(clips, folder / "episodes.png")
    return bool(clips)
