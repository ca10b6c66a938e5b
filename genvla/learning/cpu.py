"""What a training process makes of the CPU: its threads, and the memory that tensors come from."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def physical_cores() -> int:
    """Cores this process may use; two hyper-threads of a core count once where that can be told."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        import psutil
    except ImportError:
        return allowed
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def keep_to_share_of_cores(part: int, parts: int) -> None:
    """Has this thread, and the processes that it starts, use but the part-th of `parts` equal shares of this process's cores.

    Two trainings on the same cores, each with threads for all of them, slow each other down (sixfold where one had the lower
    priority): threads wait for one another by turning round and round. Where cores cannot be chosen (macOS), nothing is done.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        share = cores[part * len(cores) // parts : (part + 1) * len(cores) // parts]
        os.sched_setaffinity(0, share or {cores[part % len(cores)]})


def keep_freed_memory() -> None:
    """Has the C library keep what tensors free for the next ones; other libraries than glibc are left as they are.

    By default it returns large blocks to the kernel, which then fills every update's pages with zeros again: 6 to 9 % of the time
    of an update of the shipped policy on a CPU.
    """
    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(m_trim_threshold, 2**30)
        mallopt(m_mmap_threshold, 2**30) or mallopt(m_mmap_threshold, 2**25)  # the most that older ones take


@contextmanager
def threads_beside(busy: int) -> Iterator[None]:
    """Arithmetic on no more threads than `busy` other processes leave cores for, but on one: threads of one product wait for each
    other, and one that has to share its core with a simulator holds up all."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, physical_cores() - busy)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
