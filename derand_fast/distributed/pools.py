"""One way to have calls made elsewhere: by Dask, an executor, joblib, or here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, as_completed
from typing import Any, NamedTuple

from derand_fast.distributed.dask_tools import (
    call_packed,
    checked_client,
    is_client,
    large_messages,
    packed,
)

__all__ = ["Pool", "as_pool"]

Job = Callable[[], Any]
Outcome = tuple[int, Any]
Outcomes = Generator[Outcome, None, None]


class Pool(NamedTuple):
    """``run(jobs)`` yields (number, result) as jobs end; ``width`` of them run at once."""

    run: Callable[[Sequence[Job]], Outcomes]
    width: int


def as_pool(client: Any) -> Pool:
    """Return the pool that a caller means.

    Parameters
    ----------
    client : distributed.Client, concurrent.futures.Executor, joblib.Parallel, "joblib" or None
        "joblib" is what ``joblib.parallel_config`` says at the time; None runs the jobs here, one
        after the other. Jobs are pickled, except for threads.

    Raises
    ------
    TypeError
        For anything else.
    ImportError
        For "joblib" without joblib.
    """
    if client is None:
        return Pool(_run_here, 1)
    if is_client(client):
        checked_client(client)
        threads = sum(client.nthreads().values())
        return Pool(lambda jobs: _run_on_dask(client, jobs), max(threads, 1))
    if isinstance(client, Executor):
        width = getattr(client, "_max_workers", 1)
        return Pool(lambda jobs: _run_by_executor(client, jobs), width)
    if client == "joblib" or _is_joblib(client):
        return _joblib_pool(client)
    raise TypeError(
        "client must be a distributed.Client, a concurrent.futures.Executor, a joblib.Parallel, "
        f'"joblib" or None; got {client!r}'
    )


def _run_here(jobs: Sequence[Job]) -> Outcomes:
    for number, job in enumerate(jobs):
        yield number, job()


def _run_on_dask(client: Any, jobs: Sequence[Job]) -> Outcomes:
    from distributed import as_completed as as_done

    with large_messages():
        numbers = {
            client.submit(call_packed, packed(job), pure=False): number
            for number, job in enumerate(jobs)
        }
    try:
        for future in as_done(list(numbers)):
            yield numbers[future], future.result()
    finally:
        client.cancel(list(numbers))


def _run_by_executor(executor: Executor, jobs: Sequence[Job]) -> Outcomes:
    numbers = {executor.submit(job): number for number, job in enumerate(jobs)}
    try:
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    finally:
        for future in numbers:
            future.cancel()


def _is_joblib(candidate: Any) -> bool:
    module = sys.modules.get("joblib")
    return module is not None and isinstance(candidate, module.Parallel)


def _joblib_pool(client: Any) -> Pool:
    try:
        import joblib
    except ImportError as error:
        raise ImportError(
            'client="joblib" needs joblib: pip install "derand-fast[distributed]"'
        ) from error
    if client == "joblib":
        client = joblib.Parallel(return_as="generator_unordered")

    def run(jobs: Sequence[Job]) -> Outcomes:
        # Each says its number: the results come in any order.
        yield from client(joblib.delayed(_numbered)(*call) for call in enumerate(jobs))

    return Pool(run, joblib.effective_n_jobs(client.n_jobs))


def _numbered(number: int, job: Job) -> Outcome:
    return number, job()
