"""Environments over worker processes. Pictures and actions pass through shared memory; pipes carry only words.

Every worker holds a share of each group of slots, so that none is without work while a policy decides for one group. A worker
that dies or falls silent is replaced, and the episodes it was running are void.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing as mp
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from genvla.sim.vector import Outcome, VectorEnv, added_up, parts_of
from genvla.types import EpisodeRecord, EpisodeSpec
from scenegen.loader import UserError as SceneError

WORKER_TIMEOUT = 300.0
"""Seconds after which a silent worker counts as hung. A reset may build scenes."""

START_TIMEOUT = 900.0
"""The same until a worker's first reset is done: on a crowded machine or file system its imports alone take minutes, and the
first picture compiles shaders."""

MAX_RESTARTS = 20
"""Worker deaths after which the run gives up: something is wrong with the machine or the scenes, not with one episode."""

logger = logging.getLogger(__name__)


class ProcessVectorEnv(VectorEnv):
    """Environments over worker processes."""

    def __init__(
        self,
        scenes: Path,
        sim: SimConfig,
        num_envs: int,
        workers: int,
        groups: int = 1,
        render_device: str = "auto",
        timeout: float = WORKER_TIMEOUT,
    ) -> None:
        from genvla.sim.host import observation_arrays

        super().__init__(num_envs, sim.max_chunks, groups)
        self._timeout = timeout
        specification = observation_arrays(num_envs, sim.image_size)
        self._memory = SharedMemory(create=True, size=sum(_bytes(*entry) for entry in specification.values()))
        self._views = _views(self._memory, num_envs, sim.image_size)
        in_group = [[range(s.start + p.start, s.start + p.stop) for p in parts_of(len(s), workers)] for s in self.groups]
        self._shares = [list(share) for share in zip(*in_group, strict=True)]
        """The slots of each worker, by group."""
        self._fresh = True
        self._watched: list[int] = []
        self._recording = False
        self._lost: set[int] = set()
        """Slots whose episode ended with their worker, until the next `receive` of their group says so."""
        self._void: set[tuple[int, int]] = set()
        """Workers and groups whose answer is not to be waited for."""
        self._start: Callable[[int], _Worker] = lambda w: _Worker(
            (self._memory.name, scenes, sim, num_envs, self._shares[w], render_device)
        )
        self._workers = [self._start(w) for w in range(workers)]
        atexit.register(self.close)  # multiprocessing would send SIGTERM, which they do not hear, and wait
        try:
            _, dead = self._answers(range(workers), START_TIMEOUT)
            if dead:
                raise RuntimeError(f"a simulator process {self._workers[dead[0]].fate} before it was up")
        except BaseException:
            self.close()
            raise

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return self._views

    def _reset(self, specs: Sequence[EpisodeSpec | None]) -> list[str]:
        orders = {w: self._order_to_reset(w, specs.__getitem__) for w in range(len(self._workers))}
        replies, dead = self._ask(orders, START_TIMEOUT if self._fresh else None)
        self._fresh = False
        texts = {slot: text for w, reply in replies.items() for slot, text in self._by_slot(w, reply)}
        texts |= self._replace(dead, specs.__getitem__)
        self._lost.clear()
        self._void.clear()
        return [texts[slot] for slot in range(self.num_envs)]

    def _send(self, group: int, following: Sequence[EpisodeSpec | None]) -> None:
        first = self.groups[group].start
        for w, worker in enumerate(self._workers):
            share = self._shares[w][group]
            if (w, group) not in self._void:
                worker.send(("step", (group, following[share.start - first : share.stop - first])))

    def _receive(self, group: int) -> Outcome:
        waiting = [w for w in range(len(self._workers)) if (w, group) not in self._void]
        replies, dead = self._answers(waiting)
        episodes: list[tuple[int, EpisodeRecord]] = []
        began: dict[int, str] = {}
        for w, (finished, started) in replies.items():
            first = self._shares[w][group].start
            episodes += [(first + index, record) for index, record in finished]
            began |= {first + index: text for index, text in started.items()}
        # An episode of this group that ended in a live worker keeps its following one; those of dead workers begin theirs.
        began |= self._replace(dead, self._following)
        self._void -= {(w, group) for w in range(len(self._workers))}
        lost = sorted(self._lost & set(self.groups[group]))
        self._lost -= set(lost)
        return episodes, began, lost

    def watch(self, slots: Sequence[int]) -> None:
        self._watched = list(slots)
        self._ask({w: self._order_to_watch(w) for w in range(len(self._workers))})

    def take_frames(self) -> dict[int, list[np.ndarray]]:
        return self._of_active_slots("take_frames")

    def record(self, on: bool) -> None:
        self._recording = on
        self._ask({w: ("record", on) for w in range(len(self._workers))})

    def take_moments(self) -> dict[int, list[Moment]]:
        return self._of_active_slots("take_moments")

    def _of_active_slots(self, question: str) -> dict[int, Any]:
        """What the workers answer for the slots that were active, each by its own numbers, by those of all."""
        replies, _ = self._ask({w: (question, None) for w in range(len(self._workers))})
        return {
            share.start + index: answer
            for w, reply in replies.items()
            for share, answers in zip(self._shares[w], reply, strict=True)
            for index, answer in answers.items()
        }

    def demonstrate(self, specs: Sequence[EpisodeSpec], noise: float = 0.0) -> Iterator[Demonstration]:
        shares = {w: list(specs[w :: len(self._workers)]) for w in range(len(self._workers))}
        for w, share in shares.items():
            self._workers[w].send(("demonstrate", (share, noise)))
        working = set(shares)
        try:
            while working:
                for w in self._ready(working):
                    reply = self._workers[w].receive(self._timeout)
                    if reply is None:
                        working.remove(w)
                    else:
                        yield reply[1]
        finally:  # whoever stops listening early must not leave answers for the next question
            for w in working:
                while self._workers[w].receive(self._timeout) is not None:
                    pass

    def _ready(self, working: set[int]) -> list[int]:
        ready = wait([self._workers[w].connection for w in working], self._timeout)
        if not ready:
            raise RuntimeError(f"no demonstration for {self._timeout:g} s: a simulator process hangs")
        return [w for w in working if self._workers[w].connection in ready]

    def read_timings(self) -> dict[str, float]:
        replies, _ = self._ask({w: ("read_timings", None) for w in range(len(self._workers))})
        return added_up(list(replies.values()))

    def close(self) -> None:
        atexit.unregister(self.close)
        for worker in self._workers:
            worker.send(("stop", None))
        for worker in self._workers:
            worker.stop()
        self._views = {}
        with suppress(FileNotFoundError):
            self._memory.close()
            self._memory.unlink()

    def _abandon(self) -> None:
        while self._sent:
            group, _ = self._sent.popleft()
            self._answers([w for w in range(len(self._workers)) if (w, group) not in self._void])

    # ---- words with the workers

    def _order_to_reset(self, w: int, spec: Callable[[int], EpisodeSpec | None]) -> tuple[str, Any]:
        return "reset", ([[spec(slot) for slot in share] for share in self._shares[w]], self._terminate)

    def _order_to_watch(self, w: int) -> tuple[str, Any]:
        return "watch", [[slot - share.start for slot in self._watched if slot in share] for share in self._shares[w]]

    def _by_slot(self, w: int, texts: Sequence[Sequence[str]]) -> Iterator[tuple[int, str]]:
        for share, group_texts in zip(self._shares[w], texts, strict=True):
            yield from zip(share, group_texts, strict=True)

    def _ask(self, messages: Mapping[int, tuple[str, Any]], timeout: float | None = None) -> tuple[dict[int, Any], list[int]]:
        """Sends to each worker and waits for all; returns the replies, and the workers that died or hang."""
        if self._sent:
            raise RuntimeError("a step is under way: receive() comes first")
        for w, message in messages.items():
            self._workers[w].send(message)
        return self._answers(messages, timeout)

    def _answers(self, workers: Iterable[int], timeout: float | None = None) -> tuple[dict[int, Any], list[int]]:
        replies, dead = {}, []
        deadline = time.monotonic() + (timeout or self._timeout)
        for w in workers:
            try:
                replies[w] = self._workers[w].receive(max(0.0, deadline - time.monotonic()))
            except _WorkerDied:
                dead.append(w)
        return replies, dead

    def _replace(self, dead: Sequence[int], spec: Callable[[int], EpisodeSpec | None]) -> dict[int, str]:
        """Puts new workers in place of dead ones and begins in each of their slots, of whichever group, the episode that `spec`
        names. Returns the instructions by slot."""
        texts: dict[int, str] = {}
        while dead:
            self.restarts += len(dead)
            if self.restarts > MAX_RESTARTS:
                raise RuntimeError(f"simulator processes died {self.restarts} times; the last {self._workers[dead[-1]].fate}")
            for w in dead:
                slots = [slot for share in self._shares[w] for slot in share if self._instructions[slot]]
                logger.warning("simulator process %d %s; %d episodes dropped, process replaced", w, self._bury(w), len(slots))
                self._lost.update(slots)
                self._void.update((w, group) for group in range(len(self.groups)))
                self._workers[w] = self._start(w)
            _, again = self._answers(dead, START_TIMEOUT)
            alive = [w for w in dead if w not in again]
            for w in alive:
                self._workers[w].send(self._order_to_watch(w))
                self._workers[w].send(("record", self._recording))
                self._workers[w].send(self._order_to_reset(w, spec))
            for _ in ("watch", "record", "reset"):
                replies, gone = self._answers([w for w in alive if w not in again], START_TIMEOUT)
                again += gone
            texts |= {slot: text for w, reply in replies.items() for slot, text in self._by_slot(w, reply)}
            dead = again
        return texts

    def _bury(self, w: int) -> str:
        """Ends a worker that died or hangs, and says which it was."""
        fate = self._workers[w].fate
        self._workers[w].kill()
        return fate


class _WorkerDied(Exception):
    """The process is gone or silent."""


class _Worker:
    """A worker process, seen from outside. Its first answer is the word that it is up."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *arguments), daemon=True)
        with single_threaded(), _deaf():
            self._process.start()
        theirs.close()

    def send(self, message: tuple[str, Any]) -> None:
        with suppress(OSError):  # its death shows when its answer is awaited
            self.connection.send(message)

    def receive(self, timeout: float) -> Any:
        """The answer. Raises what the worker's code raised, or _WorkerDied."""
        try:
            if not self.connection.poll(timeout):
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
    def fate(self) -> str:
        """What became of it, in words."""
        self._process.join(0.5)  # its pipe closes a moment before it is gone
        code = self._process.exitcode
        if code is None:
            return "fell silent"
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        self._process.kill()  # SIGKILL ends a stopped process too
        self._process.join()
        self.connection.close()

    def stop(self) -> None:
        """Waits a moment for a worker that was told to stop."""
        self._process.join(2.0)
        self.kill()


@contextmanager
def single_threaded() -> Iterator[None]:
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


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside hear no signals: a cluster sends them to every process of a job, and the parent decides what they
    mean."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    connection: Connection,
    memory_name: str,
    scenes: Path,
    sim: SimConfig,
    num_envs: int,
    shares: Sequence[range],
    render_device: str,
) -> None:
    """The worker process: answers each message with ("ok", result), ("user_error", line) or ("error", traceback)."""
    torch.set_num_threads(1)
    try:
        from genvla.sim.host import Host

        memory = SharedMemory(memory_name)
        views = _views(memory, num_envs, sim.image_size)
        hosts = [
            Host(scenes, sim, {name: view[share.start : share.stop] for name, view in views.items()}, render_device)
            for share in shares
        ]
        connection.send(("ok", None))
        while True:
            command, argument = connection.recv()
            if command == "stop":
                return
            connection.send(("ok", _answer(hosts, connection, command, argument)))
    except (EOFError, BrokenPipeError):
        return  # the parent is gone
    except (UserError, SceneError) as error:
        connection.send(("user_error", str(error)))
    except Exception:
        connection.send(("error", traceback.format_exc()))


def _answer(hosts: Sequence[Any], connection: Connection, command: str, argument: Any) -> Any:
    if command == "reset":
        specs, terminate = argument
        return [host.reset(part, terminate) for host, part in zip(hosts, specs, strict=True)]
    if command == "step":
        group, following = argument
        return hosts[group].step(following)
    if command == "watch":
        return [host.watch(part) for host, part in zip(hosts, argument, strict=True)]
    if command == "take_frames":
        return [host.take_frames() for host in hosts]
    if command == "record":
        return [host.record(argument) for host in hosts]
    if command == "take_moments":
        return [host.take_moments() for host in hosts]
    if command == "demonstrate":
        specs, noise = argument
        for place, host in enumerate(hosts):
            for pair in host.demonstrate(specs[place :: len(hosts)], noise):
                connection.send(("ok", pair))
        return None
    return added_up([host.take_timings() for host in hosts])


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
