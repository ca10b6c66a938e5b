"""Running a fixed list of episodes over many environments, so that the outcome does not depend on how many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genvla.errors import UserError
from genvla.seeding import derive_seed, generator
from genvla.types import ACTION_DIM, CHUNK_SIZE, ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition

ROUNDS = 3
"""How often the episodes that a dying worker took along are tried in all."""

Act = Callable[[Observation, Float[Tensor, "b c 7"]], ActionChunk]
"""What is evaluated: an observation and the noise A^0 that the flow starts from, to actions in physical units."""

Film = dict[EpisodeSpec, list[np.ndarray]]
"""Episodes to film, and their frames once run: uint8 [H, W, 3], one per control step."""


class Environments(Protocol):
    """The part of genvla.sim's VectorEnv that an evaluation uses.

    Slot s runs the episodes schedule(s, 0), schedule(s, 1), ... one after the other until one is None. An episode that a dying
    worker took along is not repeated: its step is not valid, and the slot goes on with the next.
    """

    num_envs: int
    max_chunks: int

    def reset(self, schedule: Callable[[int, int], EpisodeSpec | None], *, terminate_on_success: bool) -> Observation: ...

    def step(self, actions: ActionChunk) -> Transition: ...

    def watch(self, slots: Sequence[int]) -> None: ...

    def take_frames(self) -> dict[int, list[np.ndarray]]: ...


def episode_specs(
    scene_ids: Sequence[str], seed: int, *, per_scene: int | None = None, total: int | None = None
) -> list[EpisodeSpec]:
    """The episodes of an evaluation: the same scenes and seed always give the same list.

    Episode i of a scene has the same seed whatever the other scenes and numbers are, so a longer evaluation contains the
    shorter one. The list goes round the scenes: first episode 0 of each, then episode 1.

    Args:
        scene_ids: scenes to visit; repeated ids are an error.
        seed: of the whole evaluation.
        per_scene: episodes in each scene.
        total: instead, episodes in all. What does not divide goes to scenes spread evenly over the list.

    Raises:
        UserError: no scene, a repeated scene, or a number of episodes below one.
        ValueError: both or neither of per_scene and total.
    """
    if (per_scene is None) == (total is None):
        raise ValueError("give either per_scene or total")
    if not scene_ids:
        raise UserError("evaluation: there is no scene to evaluate on, want at least one")
    if len(set(scene_ids)) != len(scene_ids):
        raise UserError(f"evaluation: scene ids repeat among {list(scene_ids)}, want each once")
    wanted = total if per_scene is None else per_scene
    if wanted is None or wanted < 1:
        raise UserError(f"evaluation: {wanted} episodes, want at least one")
    scenes = len(scene_ids)
    rounds, rest = divmod(total, scenes) if total is not None else (wanted, 0)
    last_round = [scene_ids[i * scenes // rest] for i in range(rest)]
    visits = [list(scene_ids)] * rounds + [last_round]
    return [EpisodeSpec(scene, derive_seed(seed, "evaluation", scene, k)) for k, visit in enumerate(visits) for scene in visit]


def spread_over_scenes(specs: Sequence[EpisodeSpec], count: int) -> list[EpisodeSpec]:
    """`count` of the episodes, of scenes spread evenly over the list; several of a scene only where there are not enough scenes.

    Args:
        specs: in the order of `episode_specs`, going round the scenes.
        count: how many; all where there are fewer.
    """
    scenes = len({spec.scene_id for spec in specs})
    return list(specs[:count]) if count >= scenes else [specs[i * scenes // count] for i in range(count)]


def initial_noise(spec: EpisodeSpec, chunk: int) -> Float[Tensor, "c 7"]:
    """The noise A^0 ~ N(0, I) that the given chunk of an episode is integrated from; on the CPU, so alike on every machine."""
    return torch.randn(CHUNK_SIZE, ACTION_DIM, generator=generator("cpu", spec.seed, "policy", chunk))


def run_episodes(
    act: Act,
    env: Environments,
    specs: Sequence[EpisodeSpec],
    *,
    terminate_on_success: bool = False,
    progress: Callable[[EpisodeRecord], None] | None = None,
    watch: Film | None = None,
    done: Mapping[EpisodeSpec, EpisodeRecord] | None = None,
) -> list[EpisodeRecord]:
    """Runs every spec once and returns their records in the order of specs.

    What happens in an episode depends on its spec alone: the reset and the course on its seed, the policy's noise on its seed and
    the number of the chunk. Neither the slot it runs in nor what runs beside it enters, except through the rounding of
    batched matrix products, whose size is the number of slots.

    Args:
        act: the policy; called with the observation of all slots, idle ones included (their rows are ignored).
        env: the environments; whatever ran in them is abandoned.
        specs: episodes to run, no two alike.
        terminate_on_success: whether a successful episode is over with the chunk that succeeded. Otherwise it runs to the time
            limit, which takes longer and tells whether the success lasts.
        progress: called with each record when its episode ends.
        watch: the episodes to film are its keys; their frames are added to its lists.
        done: episodes that were run before; their records are taken as they are.

    Raises:
        RuntimeError: episodes were lost to dying workers ROUNDS times.
    """
    if len(set(specs)) != len(specs):
        raise ValueError("two of the episodes are the same")
    records = dict(done or {})
    for _ in range(ROUNDS):
        missing = [spec for spec in specs if spec not in records]
        if not missing:
            break
        for spec, record in _run_round(act, env, missing, terminate_on_success, {} if watch is None else watch):
            records[spec] = record
            if progress is not None:
                progress(record)
    lost = [spec for spec in specs if spec not in records]
    if lost:
        raise RuntimeError(f"{len(lost)} episodes did not finish in {ROUNDS} tries because workers died; the first is {lost[0]}")
    return [records[spec] for spec in specs]


class _Slots:
    """Which episode runs in which slot, and how far it is. Free slots take the next episode waiting."""

    def __init__(self, specs: Sequence[EpisodeSpec], num: int) -> None:
        self._waiting = deque(specs)
        self._handed_out: dict[tuple[int, int], EpisodeSpec | None] = {}
        self._episode = [0] * num
        self._chunk = [0] * num

    def schedule(self, slot: int, k: int) -> EpisodeSpec | None:
        """The k-th episode of a slot; the same however often and however early it is asked for."""
        if (slot, k) not in self._handed_out:
            self._handed_out[slot, k] = self._waiting.popleft() if self._waiting else None
        return self._handed_out[slot, k]

    def current(self) -> list[EpisodeSpec | None]:
        return [self.schedule(slot, k) for slot, k in enumerate(self._episode)]

    def noise(self) -> Float[Tensor, "b c 7"]:
        idle = torch.zeros(CHUNK_SIZE, ACTION_DIM)
        rows = zip(self.current(), self._chunk, strict=True)
        return torch.stack([idle if spec is None else initial_noise(spec, chunk) for spec, chunk in rows])

    def advance(self, over: list[bool]) -> None:
        for slot, ended in enumerate(over):
            self._chunk[slot] = 0 if ended else self._chunk[slot] + 1
            self._episode[slot] += ended


def _run_round(
    act: Act, env: Environments, specs: Sequence[EpisodeSpec], terminate_on_success: bool, film: Film
) -> Iterator[tuple[EpisodeSpec, EpisodeRecord]]:
    """Gives each spec one try; those whose worker dies yield nothing."""
    slots = _Slots(specs, env.num_envs)
    observation = env.reset(slots.schedule, terminate_on_success=terminate_on_success)
    running = slots.current()
    watched: list[int] | None = None
    while any(running):
        before, watched = watched, [slot for slot, spec in enumerate(running) if spec in film]
        if watched != before:
            env.watch(watched)
        transition = env.step(act(observation, slots.noise()))
        frames = env.take_frames() if watched else {}
        for slot in watched:
            film[running[slot]] += frames.get(slot, [])  # type: ignore[index]
        for slot, record in transition.episodes:
            spec = EpisodeSpec(record.scene_id, record.seed)
            if spec != running[slot]:
                raise RuntimeError(f"environment {slot} finished {spec} where {running[slot]} was running")
            yield spec, record
        void = [spec is not None and not valid for spec, valid in zip(running, transition.valid.tolist(), strict=True)]
        for slot in watched:
            if void[slot]:
                film[running[slot]].clear()  # type: ignore[index]
        ended = (transition.terminated | transition.truncated).tolist()
        slots.advance([spec is not None and (v or e) for spec, v, e in zip(running, void, ended, strict=True)])
        observation, running = transition.observation, slots.current()
    if watched:
        env.watch([])
