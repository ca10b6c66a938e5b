"""How fast experience is collected, and what of it the policy, the processes and the number of scenes cost.

Every row compares two ways of doing the same work, in turns within one run, so that a machine that is slow for a while is slow
for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from genvla.errors import UserError
from genvla.learning.assignment import SceneAssignment
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import RolloutCollector
from genvla.policy.checkpoints import load_policy
from genvla.sim import SimConfig, VectorEnv, make_vector_env, scenes_of
from genvla.sim.workers import single_threaded
from genvla.types import ACTION_DIM, CHUNK_SIZE, EpisodeSpec

Row = Literal["policy", "workers", "scenes", "gymnasium"]
ROWS: tuple[Row, ...] = ("policy", "workers", "scenes", "gymnasium")


def bench_collection(
    scenes: Path,
    checkpoint: Path,
    sim: SimConfig = SimConfig(),  # noqa: B008  (frozen)
    num_envs: int = 32,
    workers: int = 2,
    groups: int | None = None,
    chunks: int = 24,
    rounds: int = 5,
    many: int = 100,
    rows: Sequence[Row] = ROWS,
    accelerator: str = "auto",
) -> dict[str, float]:
    """Times the collection of experience: with a policy and without, over processes, over scenes, and beside gymnasium.

    Prints environment steps per second of either way, and the median of their ratio over the rounds. "policy": collection with
    the policy over the same workers without one. "workers": two workers over one, without a policy. "scenes": an iteration with
    `many` scenes over one with a single scene, once every scene has been built. "gymnasium": 2 x workers of our environments,
    over our workers and over gymnasium's AsyncVectorEnv, which gives each a process; both make one picture of 224 x 224 a chunk.

    Args:
        scenes: folder of a scene set, for "scenes" with `many` scenes.
        checkpoint: folder of the policy.
        sim: the simulated set-up; "gymnasium" makes its pictures 224 x 224.
        num_envs: environments side by side.
        workers: processes that simulate.
        groups: groups of environments that take turns; null for two beside a GPU, else one.
        chunks: decisions per environment and round.
        rounds: how often the two ways are timed, one after the other.
        many: scenes of "scenes".
        rows: what to compare.
        accelerator: what the policy computes on: auto, cpu or cuda.
    """
    device = torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    groups = groups or (2 if device.type == "cuda" else 1)
    console, result = Console(), {}
    table = Table(box=box.SIMPLE)
    for column in ("", "env steps/s", "beside", "env steps/s", "ratio"):
        table.add_column(column, justify="right" if column in ("env steps/s", "ratio") else "left")
    for row in rows:
        with ExitStack() as stack:
            if row == "policy":
                ways = _policy_ways(stack, scenes, sim, num_envs, workers, groups, chunks, checkpoint, device)
            elif row == "workers":
                ways = {f"{count} workers": _idle(_env(stack, scenes, sim, num_envs, count), scenes, chunks) for count in (2, 1)}
            elif row == "scenes":
                ways = _scene_ways(stack, scenes, sim, num_envs, workers, chunks, many)
            else:
                ways = _gymnasium_ways(stack, scenes, replace(sim, image_size=224), 2 * workers, chunks)
            (first, ours), (second, theirs) = _in_turns(ways, rounds)
        envs = 2 * workers if row == "gymnasium" else num_envs
        steps = envs * chunks * CHUNK_SIZE
        ratio = float(np.median(np.array(theirs) / np.array(ours)))
        speeds = [steps / float(np.median(seconds)) for seconds in (ours, theirs)]
        table.add_row(first, f"{speeds[0]:.0f}", second, f"{speeds[1]:.0f}", f"{ratio:.2f}")
        result |= {f"{row}_steps_per_s": speeds[0], f"{row}_other_steps_per_s": speeds[1], f"{row}_ratio": ratio}
    console.print(table)
    return result


def _in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> list[tuple[str, list[float]]]:
    """Seconds of each way in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = perf_counter()
            way()
            if number:
                seconds[name].append(perf_counter() - start)
    return list(seconds.items())


def _env(stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, workers: int, groups: int = 1) -> VectorEnv:
    return stack.enter_context(make_vector_env(scenes, sim, num_envs, workers, groups))


def _hold(num_envs: int) -> torch.Tensor:
    actions = torch.zeros(num_envs, CHUNK_SIZE, ACTION_DIM)
    actions[..., -1] = 1.0
    return actions


def _counted(scenes: Path, count: int) -> list[str]:
    found = scenes_of(scenes, "all")
    if len(found) < count:
        raise UserError(f"{scenes}: {len(found)} scenes found, {count} wanted for this benchmark")
    return found[:count]


def _schedules(ids: Sequence[str], slots: int) -> Iterator[Callable[[int, int], EpisodeSpec]]:
    """The schedule of one iteration after another, as training makes them."""
    assignment, iteration = SceneAssignment(ids, slots), 0
    while True:
        planned, number = assignment.scenes(iteration), iteration
        yield lambda slot, k, planned=planned, number=number: EpisodeSpec(planned[slot], 1000 * number + 100 * k + slot)
        iteration += 1


def _idle(env: VectorEnv, scenes: Path, chunks: int, count: int = 1) -> Callable[[], None]:
    """An iteration without a policy: resets, then chunks in which the arm holds still."""
    schedules, actions = _schedules(_counted(scenes, count), env.num_envs), _hold(env.num_envs)

    def run() -> None:
        env.reset(next(schedules))
        for group, slots in enumerate(env.groups):
            env.send(actions[slots.start : slots.stop], group)
        for t in range(chunks):
            for group, slots in enumerate(env.groups):
                env.receive(group)
                if t + 1 < chunks:
                    env.send(actions[slots.start : slots.stop], group)

    return run


def _policy_ways(
    stack: ExitStack,
    scenes: Path,
    sim: SimConfig,
    num_envs: int,
    workers: int,
    groups: int,
    chunks: int,
    checkpoint: Path,
    device: torch.device,
) -> dict[str, Callable[[], Any]]:
    env = _env(stack, scenes, sim, num_envs, workers, groups)
    module = PPOFlowModule(load_policy(checkpoint)).to(device)
    collector = RolloutCollector(env, SceneAssignment(_counted(scenes, 1), num_envs), chunks, 0, device)
    iterations = iter(range(10**6))
    return {
        f"{workers} workers, {device.type} policy": lambda: collector.collect(module, next(iterations)),
        "no policy": _idle(env, scenes, chunks),
    }


def _scene_ways(
    stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, workers: int, chunks: int, many: int
) -> dict[str, Callable[[], Any]]:
    ways = {}
    for count in (many, 1):
        env = _env(stack, scenes, sim, num_envs, workers)
        ways[f"{count} scene{'s' if count > 1 else ''}"] = _idle(env, scenes, chunks, count)
        schedules = _schedules(_counted(scenes, count), num_envs)
        for _ in range(2 * count if count > num_envs else 1):  # until every worker has built what it will run
            env.reset(next(schedules))
    return ways


class ChunkEnv(gym.Env[np.ndarray, np.ndarray]):
    """One of our environments as gymnasium knows them: a step is a chunk, an observation the picture after it."""

    def __init__(self, scenes: Path, sim: SimConfig, scene_id: str) -> None:
        torch.set_num_threads(1)
        self._env = make_vector_env(scenes, sim, 1, 0)
        self._scene_id = scene_id
        size = sim.image_size
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (CHUNK_SIZE, ACTION_DIM), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        observation = self._env.reset(lambda slot, k: EpisodeSpec(self._scene_id, (seed or 0) + 100 * k))
        return observation.images[0, 0].numpy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        transition = self._env.step(torch.from_numpy(action)[None])
        return transition.observation.images[0, 0].numpy(), float(transition.reward[0]), False, False, {}

    def close(self) -> None:
        self._env.close()


def _gymnasium_ways(stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, chunks: int) -> dict[str, Callable[[], Any]]:
    (scene_id,) = _counted(scenes, 1)
    workers = max(1, num_envs // 2)
    env = _env(stack, scenes, sim, num_envs, workers)
    with single_threaded():
        theirs = gym.vector.AsyncVectorEnv([partial(ChunkEnv, scenes, sim, scene_id)] * num_envs, context="spawn")
    stack.callback(theirs.close)
    actions = _hold(num_envs).numpy()

    def run() -> None:
        theirs.reset(seed=0)
        for _ in range(chunks):
            theirs.step(actions)

    return {f"{workers} workers, 224 px": _idle(env, scenes, chunks), "AsyncVectorEnv": run}
