"""Threads: how many, and work shared out among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from derand_fast.checks import whole_number

__all__ = ["map_ranges", "thread_count"]

Result = TypeVar("Result")


def thread_count(n_threads: int | None) -> int:
    """Return the number of threads asked for, by default all cores this process may use."""
    if n_threads is not None:
        return whole_number("n_threads", n_threads, 1)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ranges(work: Callable[[int, int], Result], count: int, n_threads: int) -> list[Result]:
    """Call ``work(start, stop)`` on contiguous parts of range(count), each in a thread of its own.

    For kernels that release the GIL. ``work`` must write to places of its own for each index, so
    that the bits do not depend on where the parts end. An exception comes out after all parts have
    ended. Starting the threads costs about 0.1 ms; one part is run in the calling thread.
    """
    parts = max(1, min(n_threads, count))
    if parts == 1:
        return [work(0, count)]
    cuts = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        return list(pool.map(work, cuts[:-1], cuts[1:]))
