"""How fast experience is collected, and what of it the policy, the processes and the number of scenes cost.

Every row compares two ways of doing the same work, in turns within one run, so that a machine that is slow for a while is slow
for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from math import gcd
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

from genvla.errors import UserError
from genvla.learning.assignment import SceneAssignment
from genvla.learning.cpu import keep_freed_memory, threads_beside
from genvla.learning.module import PPOFlowModule
from genvla.learning.rollouts import RolloutCollector
from genvla.policy.checkpoints import load_policy
from genvla.policy.flow_policy import FlowPolicy, PolicyOutput
from genvla.policy.measuring import OtherWork, Rows, counted, device_of, machine, print_table, whole_numbers, write_json
from genvla.policy.processor import PolicyInputs
from genvla.sim import SimConfig, VectorEnv, make_vector_env, scenes_of
from genvla.sim.vector import Schedule
from genvla.sim.workers import single_threaded
from genvla.types import ACTION_DIM, CHUNK_SIZE, EpisodeSpec

WANTED = {"policy": 0.8, "inference": 0.8, "workers": 1.8, "scenes": 0.95, "gymnasium": 1.3}
"""Rows, and what their ratio should be at least."""

SCENE_ENVS = 20
"""Environments of "scenes": few, since every scene is built for all of them."""

Way = tuple[Callable[[], object], Callable[[], object]]
"""How a work is done: what gets it ready, which is not timed, and the work."""


def bench_collection(
    scenes: Path,
    checkpoint: Path,
    sim: SimConfig = SimConfig(),  # noqa: B008  (frozen)
    num_envs: int = 64,
    workers: int = 2,
    groups: int = 2,
    chunks: int = 24,
    rounds: int = 5,
    many: int = 100,
    rows: str = ",".join(WANTED),
    device: str = "auto",
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    compile: Literal["default", "reduce-overhead"] | None = None,
    threads: int | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Times the collection of experience: with a policy and without, over processes, over scenes, and beside gymnasium.

    Prints environment steps per second of either way, and their ratio: the median over the rounds, of "scenes", where each round
    is another scene, that of the sums. "policy": collection beside the same workers while the arm holds still. "inference":
    collection beside the same workers given the same chunks once more, which have the same to simulate. "workers": two workers
    beside one, without a policy. "scenes": what an iteration collects, with the policy, in `many` scenes that take turns in 20
    environments, once all have been built, beside each of them alone in as many. "gymnasium": 4 x workers of our environments,
    over our workers and over gymnasium's AsyncVectorEnv, which gives each a process; both make one picture of 224 x 224 a chunk.

    Args:
        scenes: folder of a scene set, for "scenes" with `many` scenes.
        checkpoint: folder of the policy.
        sim: the simulated set-up; "gymnasium" makes its pictures 224 x 224.
        num_envs: environments side by side.
        workers: processes that simulate.
        groups: groups of environments that take turns.
        chunks: decisions per environment and round.
        rounds: how often the two ways are timed, one after the other, after one round that is not counted.
        many: scenes of "scenes".
        rows: what to compare, as in policy,workers.
        device: what the policy computes on: auto, cpu or cuda.
        precision: of the policy's arithmetic, as hardware.precision of fit.
        compile: compile the policy in this mode of torch.compile, as hardware.compile of fit.
        threads: of the policy's arithmetic on the CPU; null for torch's choice.
        output: JSON file for all times.
    """
    names = rows.split(",")
    for name in names:
        if name not in WANTED:
            raise UserError(f"rows: {name!r} found, some of {','.join(WANTED)} wanted")
    counts = {"workers": workers, "groups": groups, "chunks": chunks, "rounds": rounds, "many": many, "threads": threads}
    for option, number in counts.items():
        if number is not None:
            whole_numbers(option, str(number))
    target = device_of(device)
    keep_freed_memory()  # as training does
    if threads is not None:
        torch.set_num_threads(threads)
    other_work = OtherWork()
    simulating = workers if threads is None and target.type == "cpu" else 0
    result: dict[str, Any] = {
        "envs": num_envs,
        "workers": workers,
        "groups": groups,
        "chunks": chunks,
        "precision": precision,
        "compile": compile,
        "machine": machine(target),
        "rows": [],
    }
    for name in names:
        with ExitStack() as stack:
            envs, played, turns = num_envs, chunks, rounds
            if name in ("policy", "inference", "scenes"):
                stack.enter_context(threads_beside(simulating))
                stack.enter_context(torch.autocast(target.type, torch.bfloat16, enabled=precision == "bf16-mixed"))
                policy = load_policy(checkpoint)
                if compile is not None:
                    policy.pi0.compile_functions(mode=compile)
                module = _Remembering(policy).to(target)
            if name in ("policy", "inference"):
                env = _env(stack, scenes, sim, num_envs, workers, groups)
                ways = _policy_ways(env, _counted(scenes, 1), chunks, module, target, still=name == "policy")
            elif name == "workers":
                ways = _worker_ways(stack, scenes, sim, num_envs, chunks)
            elif name == "scenes":
                envs, played, turns = SCENE_ENVS, sim.max_chunks, many
                ids = _counted(scenes, many)
                several, single = (_env(stack, scenes, sim, SCENE_ENVS, workers, groups) for _ in range(2))
                ways = _scene_ways(several, single, ids, sim.max_chunks, module, target)
            else:
                envs = 4 * workers
                ways = _gymnasium_ways(stack, scenes, replace(sim, image_size=224), envs, chunks)
            seconds = _in_turns(ways, turns, name)
        result["rows"].append(_compared(name, envs * played * CHUNK_SIZE, seconds))
    result["other_work"] = other_work.cores()
    print_table(collection_rows(result), "Collection, median of the rounds")
    write_json(output, result)
    return result


def collection_rows(result: dict[str, Any]) -> Rows:
    """Of a table: either way with its speed, and how the two compare."""
    lines = [["", "steps/s", "beside", "steps/s", "ratio", "wanted"]]
    for row in result["rows"]:
        (ours, fast), (theirs, slow) = row["env_steps_per_s"].items()
        lines.append([ours, f"{fast:,.0f}", theirs, f"{slow:,.0f}", f"{row['ratio']:.2f}", f"{row['wanted']:g}"])
    return lines


def _compared(name: str, steps: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ours, theirs = seconds.values()
    return {
        "row": name,
        "seconds": seconds,
        "env_steps_per_s": {way: steps / median(times) for way, times in seconds.items()},
        # Of all scenes together, where each round is another one.
        "ratio": sum(theirs) / sum(ours) if name == "scenes" else median(s / f for f, s in zip(ours, theirs, strict=True)),
        "wanted": WANTED[name],
    }


def _in_turns(ways: dict[str, Way], rounds: int, title: str) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in counted(rounds + 1, title):
        for name, (prepare, run) in ways.items():
            prepare()
            start = perf_counter()
            run()
            if number:
                seconds[name].append(perf_counter() - start)
    return seconds


def _ready() -> None:
    """For ways that need no preparation."""


def _env(stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, workers: int, groups: int = 1) -> VectorEnv:
    return stack.enter_context(make_vector_env(scenes, sim, num_envs, workers, groups))


def _hold(num_envs: int) -> torch.Tensor:
    actions = torch.zeros(num_envs, CHUNK_SIZE, ACTION_DIM)
    actions[..., -1] = 1.0
    return actions


def _counted(scenes: Path, wanted: int) -> list[str]:
    found = scenes_of(scenes, "all")
    if len(found) < wanted:
        raise UserError(f"{scenes}: {len(found)} scenes found, {wanted} wanted for this benchmark")
    return found[:wanted]


def _schedules(ids: Sequence[str], slots: int) -> Iterator[Callable[[int, int], EpisodeSpec]]:
    """The schedule of one iteration after another, as training makes them."""
    assignment, iteration = SceneAssignment(ids, slots), 0
    while True:
        yield partial(_episode, assignment.scenes(iteration), iteration)
        iteration += 1


def _episode(planned: Sequence[str], iteration: int, slot: int, k: int) -> EpisodeSpec:
    return EpisodeSpec(planned[slot], 1000 * iteration + 100 * k + slot)


def _play(env: VectorEnv, schedule: Schedule, chunks: int, chunk: Callable[[range], torch.Tensor]) -> None:
    """Resets, then chunks, of which the groups of slots ask for their next ones in turns."""
    env.reset(schedule)
    for t in range(chunks + 1):
        for group, slots in enumerate(env.groups):
            if t > 0:
                env.receive(group)
            if t < chunks:
                env.send(chunk(slots), group)


def _idle(env: VectorEnv, ids: Sequence[str], chunks: int) -> Callable[[], None]:
    """An iteration without a policy, in which the arm holds still."""
    schedules, actions = _schedules(ids, env.num_envs), _hold(env.num_envs)
    return lambda: _play(env, next(schedules), chunks, lambda slots: actions[slots.start : slots.stop])


class _Remembering(PPOFlowModule):
    """Keeps what it decided."""

    def __init__(self, policy: FlowPolicy) -> None:
        super().__init__(policy)
        self.decided: list[torch.Tensor] = []

    def act(self, inputs: PolicyInputs, noise_generator: torch.Generator) -> PolicyOutput:
        output = super().act(inputs, noise_generator)
        self.decided.append(output.actions.cpu())
        return output


def _policy_ways(
    env: VectorEnv, ids: Sequence[str], chunks: int, module: _Remembering, device: torch.device, *, still: bool
) -> dict[str, Way]:
    """Collection beside an arm that holds still, or else beside the same chunks once more."""
    collector = RolloutCollector(env, SceneAssignment(ids, env.num_envs), chunks, 0, device)
    iteration = -1

    def begin() -> None:
        nonlocal iteration
        iteration += 1
        module.decided.clear()

    def again() -> None:
        decided = iter(module.decided)
        _play(env, partial(collector.episode, iteration), chunks, lambda slots: next(decided))

    beside = ("the arm holds still", _idle(env, ids, chunks)) if still else ("the same chunks", again)
    return {"policy": (begin, lambda: collector.collect(module, iteration)), beside[0]: (_ready, beside[1])}


def _worker_ways(stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, chunks: int) -> dict[str, Way]:
    envs = {f"{number} worker{'s' * (number > 1)}": _env(stack, scenes, sim, num_envs, number) for number in (2, 1)}
    return {name: (_ready, _idle(env, _counted(scenes, 1), chunks)) for name, env in envs.items()}


def _scene_ways(
    several: VectorEnv, single: VectorEnv, ids: Sequence[str], chunks: int, module: _Remembering, device: torch.device
) -> dict[str, Way]:
    """What an iteration collects. Scenes differ in what they cost, so each is run alone once, by as many environments as the
    others take turns in."""
    turns = RolloutCollector(several, SceneAssignment(ids, SCENE_ENVS), chunks, 0, device)
    built = len(ids) // gcd(len(ids), SCENE_ENVS)
    for iteration in range(built):  # until every worker has built what it will run
        several.reset(partial(turns.episode, iteration))
    iterations, singles = count(built), iter([*ids, ids[0]])
    alone = turns

    def build() -> None:
        nonlocal alone
        alone = RolloutCollector(single, SceneAssignment([next(singles)], SCENE_ENVS), chunks, 0, device)
        alone.collect(module, 0)
        module.decided.clear()

    return {
        f"{len(ids)} scenes": (_ready, lambda: turns.collect(module, next(iterations))),
        "1 scene": (build, lambda: alone.collect(module, 1)),
    }


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


def _gymnasium_ways(stack: ExitStack, scenes: Path, sim: SimConfig, num_envs: int, chunks: int) -> dict[str, Way]:
    (scene_id,) = _counted(scenes, 1)
    workers = num_envs // 4
    env = _env(stack, scenes, sim, num_envs, workers)
    with single_threaded():
        theirs = gym.vector.AsyncVectorEnv([partial(ChunkEnv, scenes, sim, scene_id)] * num_envs, context="spawn")
    stack.callback(theirs.close)
    actions = _hold(num_envs).numpy()

    def run() -> None:
        theirs.reset(seed=0)
        for _ in range(chunks):
            theirs.step(actions)

    return {f"{workers} workers, 224 px": (_ready, _idle(env, [scene_id], chunks)), "AsyncVectorEnv": (_ready, run)}
