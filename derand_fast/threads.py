"""Threads: how many, and work shared out among them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

from derand_fast.checks import whole_number

__all__ = ["map_ranges", "one_blas_thread", "thread_count"]

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
    ended. The first part is run in the calling thread: left to wait, it made work of some
    milliseconds up to twice as slow. Starting another thread costs about 0.1 ms.
    """
    parts = max(1, min(n_threads, count))
    if parts == 1:
        return [work(0, count)]
    cuts = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts - 1) as pool:
        others = [pool.submit(work, *ends) for ends in pairwise(cuts[1:])]
        first = work(0, cuts[1])
    return [first, *(other.result() for other in others)]


class _BlasLimit:
    """One limit of the process's BLAS for all who want it, lifted when the last is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limits: Any = None

    def take(self) -> None:
        """Set BLAS to one thread, or count one more who wants it so."""
        with self._lock:
            if self._users == 0:
                from threadpoolctl import threadpool_limits

                self._limits = threadpool_limits(limits=1, user_api="blas")
                _leave_blas_to_others()
            self._users += 1

    def release(self) -> None:
        """Restore the number when nobody wants the limit any more."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limits.restore_original_limits()
                _leave_blas_to_others()


def _leave_blas_to_others() -> None:
    # threadpoolctl 3.8 passes over settings by threads other than the first, which may
    # not be the one that restores.
    import threadpoolctl

    controller = getattr(threadpoolctl, "OpenBLASController", None)
    leave = getattr(controller, "clear_controlling_thread", None)
    if leave is not None:
        leave()


_blas_limit = _BlasLimit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread, on which its results do not depend; needs threadpoolctl.

    The number belongs to the process. Where blocks in several Python threads overlap, each setting
    and restoring it by itself would lift the limit under the others, and leave it behind at last.
    """
    _blas_limit.take()
    try:
        yield
    finally:
        _blas_limit.release()
