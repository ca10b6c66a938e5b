"""Many environments behind one batched interface, in this process or over worker processes.

A slot is one environment's place in the batch. What runs in it is decided by a schedule, `schedule(slot, k)` being the slot's
k-th episode, so that training, evaluation and a resumed run all say what they want by name and nothing about an environment's
past needs to be saved.
"""

from __future__ import annotations

import abc
import multiprocessing as mp
import os
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genvla.errors import UserError
from genvla.sim.config import SimConfig
from genvla.sim.expert import Demonstration, Moment
from genvla.types import ActionChunk, EpisodeRecord, EpisodeSpec, Observation, Transition
from scenegen.loader import UserError as SceneError

Schedule = Callable[[int, int], EpisodeSpec | None]
"""(slot, k) -> the slot's k-th episode; None lets the slot idle from then on."""

WORKER_TIMEOUT = 300.0
"""Seconds after which a silent worker counts as hung. The first picture compiles shaders, which takes seconds."""

MAX_RESTARTS = 20
"""Worker deaths after which the run gives up: something is wrong with the machine or the scenes, not with one episode."""


class VectorEnv(abc.ABC):
    """The batched interface of n environments; every tensor lies on the CPU.

    Attributes: num_envs; max_chunks, the episode limit; active [n], which slots run an episode; restarts, how often a worker was
    replaced.
    """

    def __init__(self, num_envs: int, max_chunks: int) -> None:
        self.num_envs = num_envs
        self.max_chunks = max_chunks
        self.restarts = 0
        self._schedule: Schedule = lambda slot, k: None
        self._terminate = True
        self._next = [0] * num_envs
        self._instructions = [""] * num_envs

    @property
    def active(self) -> np.ndarray:
        return np.array([bool(text) for text in self._instructions])

    def reset(self, schedule: Schedule, *, terminate_on_success: bool = True) -> Observation:
        """Starts every slot's first episode. With terminate_on_success False, episodes run to the limit, as evaluation wants."""
        self._schedule, self._terminate = schedule, terminate_on_success
        self._next = [1] * self.num_envs
        self._instructions = self._reset([schedule(slot, 0) for slot in range(self.num_envs)])
        return self._observation("")

    def step(self, actions: ActionChunk) -> Transition:
        """Runs one chunk [n, c, 7] in every slot; finished slots begin their next episode at once."""
        arrays = self._arrays
        arrays["actions"][:] = actions.numpy()
        valid = self.active
        following = [
            self._schedule(slot, k) if active else None for slot, (k, active) in enumerate(zip(self._next, valid, strict=True))
        ]
        episodes, began, lost = self._step(following)
        for slot, text in began.items():
            self._instructions[slot] = text
            self._next[slot] += 1
        valid[lost] = False
        terminated, truncated = (torch.from_numpy(arrays[name] & valid) for name in ("terminated", "truncated"))
        return Transition(
            observation=self._observation(""),
            reward=terminated.float(),
            terminated=terminated,
            truncated=truncated,
            valid=torch.from_numpy(valid),
            final_observation=self._observation("final_") if truncated.any() else None,
            episodes=sorted(episodes, key=lambda pair: pair[0]),
        )

    def _observation(self, prefix: str) -> Observation:
        names = ("images", "proprio", "privileged")
        images, proprio, privileged = (torch.from_numpy(self._arrays[prefix + name].copy()) for name in names)
        return Observation(images=images, instructions=list(self._instructions), proprio=proprio, privileged=privileged)

    @property
    @abc.abstractmethod
    def _arrays(self) -> dict[str, np.ndarray]:
        """As host.observation_arrays describes them, over all slots."""

    @abc.abstractmethod
    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]: ...

    @abc.abstractmethod
    def _step(self, following: Sequence[EpisodeSpec | None]) -> tuple[list[tuple[int, EpisodeRecord]], dict[int, str], list[int]]:
        """Finished episodes by slot, instructions of slots that began one (empty: it idles), slots whose step was lost."""

    @abc.abstractmethod
    def watch(self, slots: Sequence[int]) -> None:
        """From now on `take_frames` gives pictures of these slots."""

    @abc.abstractmethod
    def take_frames(self) -> dict[int, list[np.ndarray]]:
        """Human-view pictures, uint8 [h, w, 3], at each control step of the last `step`, by watched slot that was active."""

    @abc.abstractmethod
    def record(self, on: bool) -> None:
        """From now on `take_moments` gives what was observed, or no longer."""

    @abc.abstractmethod
    def take_moments(self) -> dict[int, list[Moment]]:
        """What was observed before each control step of the last `step`, by slot that was active."""

    @abc.abstractmethod
    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        """The scripted expert's episodes, in the order they finish. It takes the slots over: `reset` before the next `step`."""

    @abc.abstractmethod
    def read_timings(self) -> dict[str, float]:
        """Seconds of work by phase, summed over workers, since last read."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_vector_env(scenes: Path, sim: SimConfig, num_envs: int, workers: int) -> VectorEnv:
    """num_envs environments over `workers` processes; in this process when workers is 0."""
    if num_envs < 1:
        raise UserError(f"num_envs: {num_envs} found, at least 1 wanted")
    if workers == 0:
        return LocalVectorEnv(scenes, sim, num_envs)
    return ProcessVectorEnv(scenes, sim, num_envs, min(workers, num_envs))


class LocalVectorEnv(VectorEnv):
    """All environments in this process: for debugging, tests and a single environment."""

    def __init__(self, scenes: Path, sim: SimConfig, num_envs: int) -> None:
        from genvla.sim.host import Host, observation_arrays

        super().__init__(num_envs, sim.max_chunks)
        specification = observation_arrays(num_envs, sim.image_size)
        self._storage = {name: np.zeros(shape, dtype) for name, (shape, dtype) in specification.items()}
        self._host = Host(scenes, sim, self._storage)

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self._storage

    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]:
        return self._host.reset(specs, self._terminate)

    def _step(self, following: Sequence[EpisodeSpec | None]) -> tuple[list[tuple[int, EpisodeRecord]], dict[int, str], list[int]]:
        return *self._host.step(following), []

    def watch(self, slots: Sequence[int]) -> None:
        self._host.watch(slots)

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return self._host.take_frames()

    def record(self, on: bool) -> None:
        self._host.record(on)

    def take_moments(self) -> dict[int, list[Moment]]:
        return self._host.take_moments()

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        return (demonstration for _, demonstration in self._host.demonstrate(specs, noise))

    def read_timings(self) -> dict[str, float]:
        timings = dict(self._host.timings)
        self._host.timings.clear()
        return timings

    def close(self) -> None:
        self._host.close()


class ProcessVectorEnv(VectorEnv):
    """Environments over worker processes. Pictures and actions pass through shared memory; pipes carry only words."""

    def __init__(self, scenes: Path, sim: SimConfig, num_envs: int, workers: int) -> None:
        from genvla.sim.host import observation_arrays

        super().__init__(num_envs, sim.max_chunks)
        self._scenes, self._sim = scenes, sim
        specification = observation_arrays(num_envs, sim.image_size)
        self._memory = SharedMemory(create=True, size=sum(_bytes(*entry) for entry in specification.values()))
        self._views = _views(self._memory, num_envs, sim.image_size)
        bounds = [num_envs * index // workers for index in range(workers + 1)]
        self._ranges = [range(first, last) for first, last in zip(bounds, bounds[1:], strict=False)]
        self._watched: list[int] = []
        self._recording = False
        self._workers = [_Worker(self._memory.name, scenes, sim, num_envs, slots) for slots in self._ranges]
        try:
            for worker in self._workers:
                worker.receive()  # the word that it is up, or the reason why not
        except BaseException:
            self.close()
            raise

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self._views

    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]:
        messages = {w: ("reset", ([specs[slot] for slot in slots], self._terminate)) for w, slots in enumerate(self._ranges)}
        replies, dead = self._ask(messages)
        while dead:
            more, dead = self._ask({w: messages[w] for w in self._restart(dead)})
            replies |= more
        return [text for w in range(len(self._workers)) for text in replies[w]]

    def _step(self, following: Sequence[EpisodeSpec | None]) -> tuple[list[tuple[int, EpisodeRecord]], dict[int, str], list[int]]:
        replies, dead = self._ask({w: ("step", [following[slot] for slot in slots]) for w, slots in enumerate(self._ranges)})
        episodes: list[tuple[int, EpisodeRecord]] = []
        began: dict[int, str] = {}
        lost: list[int] = []
        for w, (finished, started) in replies.items():
            first = self._ranges[w].start
            episodes += [(first + index, record) for index, record in finished]
            began |= {first + index: text for index, text in started.items()}
        while dead:
            for w in dead:
                lost += self._ranges[w]
            restarted = self._restart(dead)
            texts, dead = self._ask({w: ("reset", ([following[s] for s in self._ranges[w]], self._terminate)) for w in restarted})
            for w, instructions in texts.items():
                began |= dict(zip(self._ranges[w], instructions, strict=True))
        return episodes, began, sorted(set(lost))

    def watch(self, slots: Sequence[int]) -> None:
        self._watched = list(slots)
        self._ask({w: ("watch", [slot - r.start for slot in slots if slot in r]) for w, r in enumerate(self._ranges)})

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return self._by_slot("take_frames")

    def record(self, on: bool) -> None:
        self._recording = on
        self._ask({w: ("record", on) for w in range(len(self._workers))})

    def take_moments(self) -> dict[int, list[Moment]]:
        return self._by_slot("take_moments")

    def _by_slot(self, question: str) -> dict[int, Any]:
        """What the workers answer, each by its own slots, by those of all."""
        replies, _ = self._ask({w: (question, None) for w in range(len(self._workers))})
        return {self._ranges[w].start + index: answer for w, reply in replies.items() for index, answer in reply.items()}

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        shares = {w: list(specs[w :: len(self._workers)]) for w in range(len(self._workers))}
        for w, share in shares.items():
            self._workers[w].send(("demonstrate", (share, noise)))
        working = set(shares)
        try:
            while working:
                for w in self._ready(working):
                    reply = self._workers[w].receive()
                    if reply is None:
                        working.remove(w)
                    else:
                        yield reply[1]
        finally:  # whoever stops listening early must not leave answers for the next question
            for w in working:
                while self._workers[w].receive() is not None:
                    pass

    def _ready(self, working: set[int]) -> list[int]:
        ready = wait([self._workers[w].connection for w in working], WORKER_TIMEOUT)
        if not ready:
            raise RuntimeError(f"no demonstration for {WORKER_TIMEOUT:g} s: a simulator process hangs")
        return [w for w in working if self._workers[w].connection in ready]

    def read_timings(self) -> dict[str, float]:
        replies, _ = self._ask({w: ("read_timings", None) for w in range(len(self._workers))})
        total: dict[str, float] = defaultdict(float)
        for reply in replies.values():
            for name, seconds in reply.items():
                total[name] += seconds
        return dict(total)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._views = {}
        with suppress(FileNotFoundError):
            self._memory.close()
            self._memory.unlink()

    def _ask(self, messages: Mapping[int, tuple[str, Any]]) -> tuple[dict[int, Any], list[int]]:
        """Sends to each worker and waits for all; returns the replies, and the workers that died or hang."""
        replies, dead = {}, []
        for w, message in messages.items():
            with suppress(BrokenPipeError):  # its death shows when its answer is awaited
                self._workers[w].send(message)
        for w in messages:
            try:
                replies[w] = self._workers[w].receive()
            except _WorkerDied:
                dead.append(w)
        return replies, dead

    def _restart(self, dead: Sequence[int]) -> list[int]:
        self.restarts += len(dead)
        if self.restarts > MAX_RESTARTS:
            raise RuntimeError(
                f"simulator processes died {self.restarts} times; the last with exit code {self._workers[dead[-1]].exit_code}"
            )
        for w in dead:
            self._workers[w].stop()
            self._workers[w] = _Worker(self._memory.name, self._scenes, self._sim, self.num_envs, self._ranges[w])
        for w in dead:
            self._workers[w].receive()
        if self._watched:
            self.watch(self._watched)
        if self._recording:
            self.record(True)
        return list(dead)


class _WorkerDied(Exception):
    """The process is gone or silent."""


class _Worker:
    """A worker process, seen from outside."""

    def __init__(self, memory: str, scenes: Path, sim: SimConfig, num_envs: int, slots: range) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, memory, scenes, sim, num_envs, slots), daemon=True)
        with _single_threaded():
            self._process.start()
        theirs.close()

    def send(self, message: tuple[str, Any]) -> None:
        self.connection.send(message)

    def receive(self) -> Any:
        """The answer. Raises what the worker's code raised, or _WorkerDied."""
        try:
            if not self.connection.poll(WORKER_TIMEOUT):
                raise _WorkerDied
            kind, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise _WorkerDied from None
        if kind == "user_error":
            raise UserError(value)
        if kind == "error":
            raise RuntimeError(f"in a simulator process:\n{value}")
        return value

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def stop(self) -> None:
        with suppress(BrokenPipeError, OSError):
            self.send(("stop", None))
        self._process.join(2.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.connection.close()


@contextmanager
def _single_threaded() -> Iterator[None]:
    """For processes started inside: one thread for arithmetic, none of its own for software rendering.

    That is enough, as there is a process for each core.
    """
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection, memory_name: str, scenes: Path, sim: SimConfig, num_envs: int, slots: range) -> None:
    """The worker process: answers each message with ("ok", result), ("user_error", line) or ("error", traceback)."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    torch.set_num_threads(1)
    host = None
    try:
        from genvla.sim.host import Host

        memory = SharedMemory(memory_name)
        views = _views(memory, num_envs, sim.image_size)
        host = Host(scenes, sim, {name: view[slots.start : slots.stop] for name, view in views.items()})
        connection.send(("ok", None))
        while True:
            command, argument = connection.recv()
            if command == "stop":
                return
            connection.send(("ok", _answer(host, connection, command, argument)))
    except EOFError:
        return  # the parent is gone
    except (UserError, SceneError) as error:
        connection.send(("user_error", str(error)))
    except Exception:
        connection.send(("error", traceback.format_exc()))


def _answer(host: Any, connection: Connection, command: str, argument: Any) -> Any:
    if command == "reset":
        return host.reset(*argument)
    if command == "step":
        return host.step(argument)
    if command == "watch":
        return host.watch(argument)
    if command == "take_frames":
        return host.take_frames()
    if command == "record":
        return host.record(argument)
    if command == "take_moments":
        return host.take_moments()
    if command == "demonstrate":
        for pair in host.demonstrate(*argument):
            connection.send(("ok", pair))
        return None
    timings = dict(host.timings)
    host.timings.clear()
    return timings


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64


def _views(memory: SharedMemory, num_envs: int, image_size: int) -> dict[str, np.ndarray]:
    """The arrays of all slots, laid one after the other into shared memory."""
    from genvla.sim.host import observation_arrays

    views, offset = {}, 0
    for name, (shape, dtype) in observation_arrays(num_envs, image_size).items():
        views[name] = np.ndarray(shape, dtype, buffer=memory.buf, offset=offset)
        offset += _bytes(shape, dtype)
    return views
