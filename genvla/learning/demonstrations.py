"""Demonstrations of the scripted expert as training data: collected once, kept on disk, held in memory as stacked tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from lightning import LightningDataModule
from rich.console import Console
from torch import Tensor

from genvla.errors import UserError
from genvla.evaluation.progress import progress_bar
from genvla.evaluation.provenance import scene_set_digest
from genvla.learning.augmentation import Augmentation
from genvla.learning.datamodule import select
from genvla.learning.files import atomic_path
from genvla.learning.imitation import ImitationModule, Samples
from genvla.learning.rollouts import map_tensors
from genvla.policy.processor import Processor, Statistics
from genvla.seeding import derive_seed, generator
from genvla.sim.config import SimConfig
from genvla.sim.expert import Demonstration
from genvla.types import CHUNK_SIZE, EpisodeSpec, Observation

FORMAT = 2
"""Part of the cache's key: goes up when what the arrays mean changes."""


@dataclass(frozen=True)
class DemonstrationSet:
    """m moments of successful demonstrations, one after the other, in physical units. tried: how many demonstrations were
    started.

    privileged: None where nobody knew it. episode: which demonstration a moment is of. task: which of `instructions` it was
    given.
    """

    images: UInt8[np.ndarray, "m n h w 3"]
    proprio: Float[np.ndarray, "m 7"]
    privileged: Float[np.ndarray, "m p"] | None
    actions: Float[np.ndarray, "m 7"]
    episode: Int[np.ndarray, " m"]
    task: Int[np.ndarray, " m"]
    instructions: list[str]
    tried: int

    @classmethod
    def gather(cls, demonstrations: Iterable[Demonstration]) -> DemonstrationSet:
        """Keeps the successful ones, in the order of their seeds: workers finish in any order.

        Raises:
            UserError: none succeeded.
        """
        tried, kept = 0, []
        for demonstration in demonstrations:
            tried += 1
            if demonstration.record.success_once and len(demonstration.actions):
                kept.append(demonstration)
        if not kept:
            raise UserError(f"data.demonstrations: none of {tried} demonstrations succeeded, want at least one")
        kept.sort(key=lambda demonstration: (demonstration.record.scene_id, demonstration.record.seed))
        instructions = sorted({demonstration.record.instruction for demonstration in kept})
        lengths = [len(demonstration.actions) for demonstration in kept]

        def join(name: str) -> np.ndarray:
            return np.concatenate([getattr(demonstration, name) for demonstration in kept])

        return cls(
            join("images"),
            join("proprio").astype(np.float32),
            join("privileged").astype(np.float32),
            join("actions").astype(np.float32),
            np.repeat(np.arange(len(kept)), lengths),
            np.repeat([instructions.index(demonstration.record.instruction) for demonstration in kept], lengths),
            instructions,
            tried,
        )

    @property
    def successes(self) -> int:
        return int(self.episode[-1]) + 1

    def chunks(self) -> Float[np.ndarray, "m c 7"]:
        """The actions from each moment on; where the demonstration ends, its last action is repeated."""
        ends = np.flatnonzero(np.diff(self.episode, append=-1))
        last = ends[self.episode]
        index = np.arange(len(self.episode))[:, None] + np.arange(CHUNK_SIZE)
        return self.actions[np.minimum(index, last[:, None])]

    def samples(self, processor: Processor, batch: int = 512) -> Samples:
        """Everything as the policy reads it, stacked."""
        inputs = []
        for start in range(0, len(self.actions), batch):
            rows = slice(start, start + batch)
            observation = Observation(
                images=torch.from_numpy(self.images[rows]),
                instructions=[self.instructions[task] for task in self.task[rows]],
                proprio=torch.from_numpy(self.proprio[rows]),
                privileged=None if self.privileged is None else torch.from_numpy(self.privileged[rows]),
            )
            inputs.append(processor(observation))
        there = [name for name, value in vars(inputs[0]).items() if value is not None]
        stacked: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in inputs]) for name in there}
        actions = processor.normalise_actions(torch.from_numpy(self.chunks()))
        return Samples(type(inputs[0])(**stacked), actions)

    def save(self, path: Path) -> None:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            arrays = {name: value for name, value in vars(self).items() if name not in ("instructions", "tried")}
            np.savez(file, **arrays, instructions=np.array(self.instructions), tried=np.array(self.tried))

    @classmethod
    def load(cls, path: Path) -> DemonstrationSet:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        arrays["instructions"] = arrays["instructions"].tolist()
        arrays["tried"] = int(arrays["tried"])
        return cls(**arrays)


class DemonstrationDataModule(LightningDataModule):
    """Has the scripted expert demonstrate in the training scenes, and hands out shuffled moments of it.

    An iteration is `updates` minibatches. They continue through epoch after epoch over all moments, each in a new order.

    Args:
        scenes: folder of a scene set.
        split: which of its scenes to demonstrate in.
        demonstrations: how many to try, going round the scenes; only the successful ones are kept.
        noise: what disturbs the expert's actions, as a fraction of a full step; the sample holds the action it meant.
        sim: the simulated set-up.
        num_envs: environments that run side by side.
        workers: processes that simulate; 0 for this one.
        cache: folder where demonstrations are kept for the next run with the same settings; null to keep none.
        lerobot: folder of a dataset in lerobot's format to learn from instead, as `genvla export-dataset` or lerobot writes them;
            scenes, sim and workers then serve the evaluation alone.
        minibatch_size: moments per optimizer step.
        updates: minibatches per iteration.
        augmentation: random changes of the pictures.
        seed: of episodes, noise and the order of minibatches.
    """

    def __init__(
        self,
        scenes: Path,
        split: Literal["train", "heldout", "all"] = "train",
        demonstrations: int = 1200,
        noise: float = 0.1,
        sim: SimConfig = SimConfig(),  # noqa: B008  (frozen)
        num_envs: int = 32,
        workers: int = 2,
        cache: Path | None = Path("runs/demonstrations"),
        lerobot: Path | None = None,
        minibatch_size: int = 256,
        updates: int = 100,
        augmentation: Augmentation = Augmentation(),  # noqa: B008  (frozen)
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("demonstrations", demonstrations), ("minibatch_size", minibatch_size), ("updates", updates)):
            if number < 1:
                raise UserError(f"data.{name}: {number} found, at least 1 wanted")
        if lerobot is not None:
            from genvla.learning.lerobot.reader import check_dataset

            check_dataset(lerobot)  # before a run has begun
        self.scenes = Path(scenes)
        self.split = split
        self.demonstrations = demonstrations
        self.noise = noise
        self.sim = sim
        self.num_envs = num_envs
        self.workers = workers
        self.cache = cache
        self.lerobot = lerobot
        self.minibatch_size = minibatch_size
        self.updates = updates
        self.augmentation = augmentation
        self.seed = seed
        self.rank, self.world_size = 0, 1
        self.device = torch.device("cpu")
        self.env: Any = None
        self._set: DemonstrationSet | None = None
        self._samples: Samples | None = None
        self._iteration = 0
        self._order: tuple[int, Tensor] | None = None

    def distribute(self, device: torch.device, rank: int, world_size: int, all_sum: Callable[[Tensor], Tensor]) -> None:
        """Where this process stands among those that train together. Every process holds all the moments and takes its share."""
        self.device, self.rank, self.world_size = device, rank, world_size

    def scene_ids(self) -> list[str]:
        """The scenes demonstrated in."""
        from genvla.sim import scenes_of

        found = scenes_of(self.scenes, self.split)
        if not found:
            raise UserError(f"{self.scenes}: no scene in split {self.split}, want at least one")
        return found

    def heldout_ids(self) -> list[str]:
        """The scenes of the set that nobody demonstrates in."""
        from genvla.sim import scenes_of

        return scenes_of(self.scenes, "heldout")

    def setup(self, stage: str = "fit") -> None:
        """Starts the environments. A second call does nothing."""
        if self.env is None:
            self.env = self.make_env()

    def make_env(self) -> Any:
        """The environments of this process."""
        from genvla.sim import make_vector_env

        return make_vector_env(self.scenes, self.sim, self.num_envs, self.workers)

    def teardown(self, stage: str = "fit") -> None:
        """Stops the environments."""
        if self.env is not None:
            self.env.close()
            self.env = None

    def prepare(self) -> DemonstrationSet:
        """The demonstrations, from a dataset, the cache or the expert. `setup` comes first where there is no cache."""
        if self._set is None and self.lerobot is not None:
            from genvla.learning.lerobot.reader import read_dataset

            self._set = read_dataset(self.lerobot)
        if self._set is None:
            path = None if self.cache is None else Path(self.cache) / f"{self._key()}.npz"
            if path is not None and path.exists():
                self._set = DemonstrationSet.load(path)
            else:
                self.setup()
                self._set = DemonstrationSet.gather(self._demonstrate())
                if path is not None and self.rank == 0:
                    self._set.save(path)
        return self._set

    def _demonstrate(self) -> Iterator[Demonstration]:
        specs = self.specs()
        with progress_bar(len(specs), Console(), "demonstrations") as advance:
            for demonstration in self.env.demonstrate(specs, self.noise):
                advance(demonstration.record.success_once)
                yield demonstration

    def specs(self) -> list[EpisodeSpec]:
        """The episodes to demonstrate, scene by scene, so that an environment is used again before it is let go."""
        scenes = self.scene_ids()
        count = self.demonstrations
        order = sorted(range(count), key=lambda k: k % len(scenes))
        return [EpisodeSpec(scenes[k % len(scenes)], derive_seed(self.seed, "demonstration", k)) for k in order]

    def statistics(self) -> Statistics:
        """Normalisation that fits the demonstrations."""
        demonstrations = self.prepare()
        return Statistics.fit(demonstrations.actions, demonstrations.proprio)

    def collect(self, module: ImitationModule, iteration: int) -> dict[str, Any]:
        """Makes the samples the first time. Returns how many demonstrations there are."""
        demonstrations = self.prepare()
        if self._samples is None:
            samples = demonstrations.samples(module.policy.processor)
            self._samples = map_tensors(lambda tensor: tensor.to(self.device), samples)
        self._iteration = iteration
        counts = {"tried": demonstrations.tried, "successes": demonstrations.successes, "moments": len(demonstrations.actions)}
        return {"demonstrations": counts}

    def train_dataloader(self) -> Iterator[Samples]:
        """The minibatches of the last `collect`'s iteration."""
        assert self._samples is not None, "collect() comes first"
        first = self._iteration * self.updates
        for update in range(first, first + self.updates):
            rows = select(self._samples, self._index(update))
            draw = generator(self.device, self.seed, "augmentation", update, self.rank)
            yield Samples(self.augmentation(rows.inputs, draw), rows.actions)

    def _index(self, update: int) -> Int[Tensor, " b"]:
        """The moments of an update: the stream of shuffled epochs, cut into minibatches, every process taking its share of
        each."""
        assert self._samples is not None
        wanted = self.minibatch_size
        start = (update * self.world_size + self.rank) * wanted
        picked = []
        while wanted > 0:
            epoch, offset = divmod(start, len(self._samples))
            part = self._shuffled(epoch)[offset : offset + wanted]
            picked.append(part)
            start, wanted = start + len(part), wanted - len(part)
        return torch.cat(picked)

    def _shuffled(self, epoch: int) -> Int[Tensor, " m"]:
        """All moments in the order of an epoch; the last one asked for is kept."""
        assert self._samples is not None
        if self._order is None or self._order[0] != epoch:
            draw = generator("cpu", self.seed, "moments", epoch)
            self._order = epoch, torch.randperm(len(self._samples), generator=draw)
        return self._order[1]

    def _key(self) -> str:
        """A digest of everything that the demonstrations follow from."""
        settings = {
            "format": FORMAT,
            "scenes": scene_set_digest(self.scenes),
            "specs": [(spec.scene_id, spec.seed) for spec in self.specs()],
            "noise": self.noise,
            "sim": asdict(self.sim),
        }
        return sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
