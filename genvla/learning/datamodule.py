"""Rollouts as training data: collected anew in every iteration, shuffled into minibatches in every epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor

from genvla.errors import UserError
from genvla.learning.assignment import SceneAssignment
from genvla.learning.cpu import threads_beside
from genvla.learning.frozen_cache import FrozenCache
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import Decisions, Interrupted, Rollout, RolloutCollector, map_tensors
from genvla.seeding import generator
from genvla.sim.config import SimConfig
from genvla.sim.vector import parts_of
from genvla.types import CHUNK_SIZE, EpisodeRecord


class Minibatches:
    """Every row once per epoch, in an order drawn anew for each, in `per_epoch` minibatches of equal size (give or take a
    row)."""

    def __init__(self, rows: Any, per_epoch: int, epochs: int, *seed: int | str) -> None:
        self.rows = rows
        self.per_epoch = per_epoch
        self.epochs = epochs
        self.seed = seed

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __iter__(self) -> Iterator[Any]:
        total = len(self.rows)
        for epoch in range(self.epochs):
            order = torch.randperm(total, generator=generator("cpu", *self.seed, "epoch", epoch))
            for index in order.tensor_split(self.per_epoch):
                yield select(self.rows, index)


def select(rows: Any, index: Tensor) -> Any:
    """The rows of the given numbers."""
    return map_tensors(lambda tensor: tensor.index_select(0, index.to(tensor.device)), rows)


class RolloutDataModule(LightningDataModule):
    """Collects rollouts in simulated scenes and hands them out as minibatches.

    Args:
        scenes: folder of a scene set.
        split: which of its scenes to train on.
        num_scenes: only the first so many of them; null for all.
        split_seed: decides which half of the set's training scenes is "train" and which "heldout", and their order; null for the
            set's own split.
        only: only these of them, by id or by the beginning of one, such as s0004; null for all.
        sim: the simulated set-up.
        scene_weights: by scene id, how often to visit a scene beside the others, which weigh 1; null for all alike.
        curriculum: visit scenes more often in which the policy succeeds about half the time.
        num_envs: environments that run side by side, in each process that trains. With more scenes than environments the scenes
            take turns, else each environment keeps to one.
        physics: cpu, an engine for each environment, in the workers; gpu, ManiSkill's batch of them all, in this process and on
            the policy's GPU.
        workers: processes that simulate; 0 for this one.
        groups: groups of environments that take turns, so that one simulates while the policy decides for another; null for two,
            or one without worker processes. It changes what is collected.
        render_device: where pictures are rendered: auto (a GPU where there is one), cpu, cuda, cuda:1 and so on. Physics runs on
            the CPU.
        worker_timeout: seconds after which a simulator process that gives no answer is replaced.
        steps: decisions per environment in each iteration.
        minibatch_size: decisions per optimizer step, about.
        epochs: how often an iteration's decisions are gone through.
        frozen_cache: where the part of the policy's look at an observation that frozen weights compute is kept for the epochs, so
            that it is computed once: device, cpu or off. Of use in fine-tuning variants that freeze the vision tower or all of
            the VLM.
        frozen_cache_gib: the most that may take, in 2^30 bytes per process. Where it would take more, nothing is kept.
        recompute_log_probs: compute the log-probabilities of the collected decisions once more as the update computes them.
            Needed where the two differ: under reduced precision, with compiled or merged weights.
        seed: of episodes, exploration and the order of minibatches.
    """

    def __init__(
        self,
        scenes: Path,
        split: Literal["train", "heldout", "all"] = "train",
        num_scenes: int | None = None,
        only: list[str] | None = None,
        sim: SimConfig = SimConfig(),  # noqa: B008  (frozen)
        scene_weights: dict[str, float] | None = None,
        curriculum: bool = False,
        num_envs: int = 64,
        physics: Literal["cpu", "gpu"] = "cpu",
        workers: int = 2,
        groups: int | None = None,
        render_device: str = "auto",
        worker_timeout: float = 300.0,
        steps: int = 48,
        minibatch_size: int = 768,
        epochs: int = 2,
        frozen_cache: Literal["device", "cpu", "off"] = "device",
        frozen_cache_gib: float = 8.0,
        recompute_log_probs: bool = False,
        split_seed: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("num_envs", num_envs), ("steps", steps), ("minibatch_size", minibatch_size), ("epochs", epochs)):
            if number < 1:
                raise UserError(f"data.{name}: {number} found, at least 1 wanted")
        if groups is not None and not 1 <= groups <= num_envs:
            raise UserError(f"data.groups: {groups} found, between 1 and data.num_envs ({num_envs}) wanted")
        if not worker_timeout > 0:
            raise UserError(f"data.worker_timeout: {worker_timeout} found, more than 0 seconds wanted")
        self.scenes = Path(scenes)
        self.split = split
        self.num_scenes = num_scenes
        self.split_seed = split_seed
        self.only = only
        self.sim = sim
        self.scene_weights = scene_weights
        self.curriculum = curriculum
        self.num_envs = num_envs
        self.physics = physics
        self.workers = 0 if physics == "gpu" else workers
        self.groups = groups
        self.render_device = render_device
        self.worker_timeout = worker_timeout
        self.steps = steps
        self.minibatch_size = minibatch_size
        self.epochs = epochs
        self.frozen_cache = FrozenCache(frozen_cache, frozen_cache_gib)
        self.recompute_log_probs = recompute_log_probs
        self.micro_batch_size: int | None = None
        self.seed = seed
        self.rank, self.world_size = 0, 1
        self.device = torch.device("cpu")
        self.all_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
        self.interrupted: Callable[[], bool] = lambda: False
        self.env: Any = None
        self._iteration = 0
        self._decisions: Decisions | None = None

    def distribute(self, device: torch.device, rank: int, world_size: int, all_sum: Callable[[Tensor], Tensor]) -> None:
        """Where this process stands among those that train together, and how they add up a tensor. Before `setup`.

        Raises:
            UserError: physics are to run on a GPU, and the policy runs on none.
        """
        if self.physics == "gpu" and device.type != "cuda":
            raise UserError(f"data.physics: gpu found with the policy on the {device.type}, cpu wanted, or a GPU for both")
        self.device, self.rank, self.world_size, self.all_sum = device, rank, world_size, all_sum

    def scene_ids(self) -> list[str]:
        """The scenes trained on.

        Raises:
            UserError: there are fewer than num_scenes, or none or several for an entry of `only`.
        """
        from genvla.sim import split_scenes

        found = split_scenes(self.scenes, self.split, self.split_seed)
        if self.only is not None:
            matches = [[scene for scene in found if scene.startswith(beginning)] for beginning in self.only]
            for beginning, match in zip(self.only, matches, strict=True):
                if len(match) != 1:
                    raise UserError(
                        f"data.only: {len(match)} scenes of split {self.split} in {self.scenes} begin with {beginning!r}, "
                        "want one"
                    )
            found = [match[0] for match in matches]
        wanted = len(found) if self.num_scenes is None else self.num_scenes
        if not 1 <= wanted <= len(found):
            raise UserError(f"{self.scenes}: {len(found)} scenes in split {self.split}, data.num_scenes wants {wanted}")
        return found[:wanted]

    def check_scenes(self) -> None:
        """Reads all scenes that a run trains on or is judged in.

        Raises:
            UserError: a file of one is missing or wrong.
        """
        from genvla.sim import check_scenes

        check_scenes(self.scenes, [*self.scene_ids(), *self.heldout_ids()])

    def heldout_ids(self) -> list[str]:
        """The scenes that nobody trains on: of the set, or of its split by `split_seed`."""
        from genvla.sim import split_scenes

        return split_scenes(self.scenes, "heldout", self.split_seed)

    def setup(self, stage: str = "fit") -> None:
        """Starts the environments. A second call does nothing."""
        if self.env is not None:
            return
        ids = self.scene_ids()
        slots = self.num_envs * self.world_size
        self.assignment = SceneAssignment(ids, slots, self.scene_weights, self.curriculum)
        self.env = self.make_env()
        first = self.rank * self.num_envs
        self._collector = RolloutCollector(
            self.env, self.assignment, self.steps, self.seed, self.device, first, self.frozen_cache, lambda: self.interrupted()
        )

    def make_env(self) -> Any:
        """The environments of this process. Each process renders on the GPU that it computes on."""
        from genvla.sim import make_vector_env

        device = self.render_device
        if device == "auto" and self.device.type == "cuda":
            device = str(self.device)
        groups = self._group_count()
        timeout, physics = self.worker_timeout, self.physics
        return make_vector_env(self.scenes, self.sim, self.num_envs, self.workers, groups, device, timeout, physics)

    def _group_count(self) -> int:
        return self.groups or (2 if self.workers > 0 and self.num_envs > 1 else 1)

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: what the assignment of scenes remembers."""
        return {"assignment": self.assignment.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken. After `setup`."""
        self.assignment.load_state_dict(state_dict.get("assignment", {}))

    def teardown(self, stage: str = "fit") -> None:
        """Stops the environments."""
        if self.env is not None:
            self.env.close()
            self.env = None

    def collect(self, module: PPOFlowModule, iteration: int) -> dict[str, Any]:
        """Collects the rollouts of an iteration, for `train_dataloader` to hand out. Returns what to log about them.

        Raises:
            Interrupted: one of the processes was told to stop.
        """
        rollout = self._collect_together(module, iteration)
        self._decisions, metrics = rollout.buffer.decisions(module.gamma, module.gae_lambda, self.all_sum)
        self._iteration = iteration
        if self.recompute_log_probs:
            self._recompute_log_probs(module, self._decisions)
        sums = self._sums_by_scene(rollout.episodes)
        self.assignment.conclude({scene: (int(row[0]), int(row[1])) for scene, row in sums.items()})
        decided = self.steps * self.num_envs
        timings = self.env.read_timings()
        lost = {name: self.all_sum(metrics[name]) for name in ("dropped_decisions", "dropped_episodes")}
        return {
            "rollout": {**metrics, **lost, **episode_metrics(sums), "frozen_cache_gib": rollout.buffer.frozen_bytes / 2**30},
            "seconds": rollout.seconds,
            "workers": {f"{phase}_seconds": value for phase, value in timings.items()},
            "env_steps": decided * CHUNK_SIZE * self.world_size,
            "decisions": len(self._decisions),
            "worker_restarts": self.env.restarts,
        }

    def _collect_together(self, module: PPOFlowModule, iteration: int) -> Rollout:
        """The rollout of this process, if no process was interrupted."""
        simulating = self.workers * self.world_size if self.device.type == "cpu" else 0
        try:
            with threads_beside(simulating):
                rollout = self._collector.collect(module, iteration)
        except Interrupted:
            rollout = None
        broken_off = torch.tensor(float(rollout is None), device=self.device)
        if self.all_sum(broken_off).item() > 0 or rollout is None:
            raise Interrupted
        return rollout

    def _sums_by_scene(self, episodes: Sequence[EpisodeRecord]) -> dict[str, list[float]]:
        """Of every scene with a finished episode, over all processes: episodes, successes, grasps, chunks."""
        numbers = {scene: number for number, scene in enumerate(self.assignment.scene_ids)}
        sums = torch.zeros(len(numbers), 4, dtype=torch.float64)
        for record in episodes:
            row = [1.0, record.success_once, record.grasped_once, record.chunks]
            sums[numbers[record.scene_id]] += torch.tensor(row, dtype=torch.float64)
        sums = self.all_sum(sums.to(self.device)).cpu()
        return {scene: sums[number].tolist() for scene, number in numbers.items() if sums[number, 0] > 0}

    def batch_sizes(self) -> set[int]:
        """Rows of the batches that go through the policy at once: when deciding, and in updates of which no decision was lost."""
        decisions = self.steps * self.num_envs
        minibatch = math.ceil(decisions / self._per_epoch(decisions))
        parts = math.ceil(minibatch / (self.micro_batch_size or minibatch))
        groups = parts_of(self.num_envs, self._group_count())
        return {*(len(slots) for slots in groups), math.ceil(minibatch / parts)}

    def _per_epoch(self, decisions: float) -> int:
        """Minibatches that so many decisions make."""
        return max(1, round(decisions / self.minibatch_size))

    @torch.no_grad()
    def _recompute_log_probs(self, module: PPOFlowModule, decisions: Decisions) -> None:
        parts = []
        for index in torch.arange(len(decisions)).split(self.micro_batch_size or self.minibatch_size):
            rows = select(decisions, index)
            parts.append(module.evaluate_actions(rows.inputs, rows.chain).log_prob)
        decisions.log_prob = torch.cat(parts)

    def train_dataloader(self) -> Minibatches:
        """The minibatches of the last `collect`, for all epochs.

        There are as many in every process, the nearest number to decisions / minibatch_size: a small remainder would make one
        very noisy step.
        """
        assert self._decisions is not None, "collect() comes first"
        mean = self.all_sum(torch.tensor(float(len(self._decisions)), device=self.device)).item() / self.world_size
        return Minibatches(
            self._decisions, self._per_epoch(mean), self.epochs, self.seed, "minibatches", self._iteration, self.rank
        )


def episode_metrics(sums: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Success over all finished episodes and in each scene; nothing when none has finished.

    sums: by scene: episodes, successes, grasps, chunks.
    """
    if not sums:
        return {"episodes": 0}
    episodes, successes, grasps, chunks = (sum(column) for column in zip(*sums.values(), strict=True))
    return {
        "episodes": int(episodes),
        "success": successes / episodes,
        "grasped": grasps / episodes,
        "chunks": chunks / episodes,
        "scene_success": {scene: row[1] / row[0] for scene, row in sorted(sums.items())},
    }
