"""Restarts of `max_cut` that share their best cut: on a cluster, in processes or in threads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from derand_fast.budget import Budget
from derand_fast.checks import whole_number
from derand_fast.distributed.pools import Job, Pool, as_pool
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.incumbent import SearchState
from derand_fast.ising import IsingProblem, as_problem
from derand_fast.maxcut import check_options
from derand_fast.maxcut import max_cut as max_cut_here
from derand_fast.results import CutResult, HistoryRow, Solution

__all__ = ["max_cut"]

_RESTARTS = 8
# In later rounds the restarts that are behind go on from the best cut.
_ROUNDS = 3
# What is found here before anything is sent: a cut to fall back on, and a check of the arguments.
_FIRST_SWEEPS = 2
# Of a time limit, this is left for sending and collecting.
_OVERHEAD_SHARE = 0.1


def max_cut(
    graph: Any,
    *,
    client: Any = None,
    restarts: int = _RESTARTS,
    rounds: int = _ROUNDS,
    weight: str | None = "weight",
    seed: int = 0,
    bound: Any = True,
    time_limit: float | None = None,
    effort: Any = None,
    sweeps: int | None = None,
    target: float | None = None,
    n_threads: int = 1,
    n_solutions: int = 1,
    min_distance: int = 1,
    fixed: Any = None,
    initial: Any = None,
    progress: bool = False,
    callback: Any = None,
    **options: Any,
) -> CutResult:
    """Find a large cut by independent restarts of `derand_fast.max_cut` that share their best.

    All restarts search on their own for a round. In the next rounds those whose cut is no better
    than most continue from the best cut of all, the others from their own. The bound is computed
    once, beside them. Restarts are calls that depend on their arguments only: one that is lost with
    its worker is made again, and the result is the same.

    Parameters
    ----------
    graph
        As for `derand_fast.max_cut`; files are read here.
    client : distributed.Client, concurrent.futures.Executor, joblib.Parallel, "joblib" or None
        Where the restarts run. "joblib" is the backend that ``joblib.parallel_config`` has set;
        None means here, one after the other, with the same result.
    restarts, rounds : int
        At least 1. The result depends on them, and not on the number of workers.
    seed : int
        Non-negative; each restart of each round gets a child of it.
    bound
        As for `derand_fast.max_cut`.
    time_limit : float, optional
        Seconds for the whole call, about: the rounds share it, and restarts for which there is no
        worker wait for one. The clock then has a say in the result.
    effort, sweeps : optional
        Of each restart, all rounds together, as for `derand_fast.max_cut`.
    n_threads : int
        Threads of each restart. The result does not depend on it without a time limit.
    callback : callable, optional
        Called here with a `SearchState` whenever a restart ends.
    progress : bool
        Show a bar that counts restarts.
    weight, target, n_solutions, min_distance, fixed, initial, **options
        As for `derand_fast.max_cut`, whose `method` and `rank` are the other options. Without a
        target a restart ends when it cuts all positive weights.

    Returns
    -------
    CutResult
        The best cut, of the restart with the lowest number where several are as good; its history
        has a row for each restart that ended with an improvement; ``sweeps`` are those of all.

    Raises
    ------
    TypeError, ValueError, ImportError
        As `derand_fast.max_cut` does, and for a ``client`` that is none of these.

    Notes
    -----
    KeyboardInterrupt returns the best so far; restarts that already run in other processes end by
    themselves. The graph goes with every restart of every round: 12 bytes a stored edge.

    Examples
    --------
    >>> import networkx as nx
    >>> from derand_fast.distributed import max_cut
    >>> result = max_cut(nx.petersen_graph(), restarts=2, effort="quick")
    >>> result.cut_value, result.upper_bound
    (12.0, 12.0)
    """
    restarts = whole_number("restarts", restarts, 1)
    rounds = whole_number("rounds", rounds, 1)
    pool = as_pool(client)
    checked = check_options(
        **options,
        time_limit=time_limit,
        effort=effort,
        sweeps=sweeps,
        target=target,
        n_solutions=n_solutions,
        min_distance=min_distance,
        seed=seed,
        n_threads=n_threads,
        bound=bound,
        progress=progress,
        callback=callback,
    )
    budget = Budget(time_limit)
    with budget.phase("read"):
        problem = as_problem(graph)
        known: CSRGraph | IsingProblem
        known = as_graph(graph, weight=weight) if problem is None else problem
    if target is None and n_solutions == 1 and isinstance(known, CSRGraph):
        # No cut is larger: a restart that finds this one need not go on.
        target = math.fsum(known.weights[known.weights > 0.0].tolist()) / 2.0
    shared = {
        "n_threads": checked.n_threads,
        "n_solutions": checked.n_solutions,
        "min_distance": checked.min_distance,
        "fixed": fixed,
        "target": target,
    }
    search = _Restarts(known, shared, budget, pool, restarts, checked)
    return search.run(rounds, options, initial)


class _Restarts:
    """One call: its restarts, round by round, and what they have found."""

    def __init__(
        self,
        graph: CSRGraph | IsingProblem,
        shared: dict[str, Any],
        budget: Budget,
        pool: Pool,
        restarts: int,
        checked: Any,
    ) -> None:
        self._graph, self._shared, self._budget, self._pool = graph, shared, budget, pool
        self._checked = checked
        self._restarts = restarts
        # The best result of each restart, and all results in the order of their numbers.
        self._own: list[CutResult | None] = [None] * restarts
        self._all: list[CutResult] = []
        self._bound: CutResult | None = None
        self._history: list[HistoryRow] = []
        self._best_value = -math.inf
        self._best_partition: Any = None
        self._bar: Any = None

    def run(self, rounds: int, options: dict[str, Any], initial: Any) -> CutResult:
        """Make all rounds, or as many as time, target and the bound leave to be made."""
        budget = self._budget
        if self._checked.progress:
            from tqdm import tqdm

            self._bar = tqdm(total=self._restarts * rounds, unit="restart")
        with budget.phase("start"):
            first = max_cut_here(
                self._graph, **self._shared, initial=initial, sweeps=_FIRST_SWEEPS,
                seed=self._checked.seed, bound=False,
            )  # fmt: skip
        try:
            self._note(first)
            if first.message == "interrupted":
                budget.stop("interrupted")
            with budget.phase("search"):
                for number in range(rounds):
                    if budget.expired or self._is_done():
                        break
                    self._round(number, rounds, options, initial)
        except KeyboardInterrupt:
            budget.stop("interrupted")
        finally:
            if self._bar is not None:
                self._bar.close()
        return self._result(first)

    def _round(self, number: int, rounds: int, options: dict[str, Any], initial: Any) -> None:
        """Have every restart search once, from its own or the common best cut."""
        initials = [initial] * self._restarts if number == 0 else self._next_initials()
        jobs: list[Job] = []
        limit = self._seconds(number, rounds)
        for restart, start in enumerate(initials):
            seeds = np.random.SeedSequence(self._checked.seed, spawn_key=(number, restart))
            jobs.append(
                partial(
                    max_cut_here,
                    self._graph,
                    **self._shared,
                    **options,
                    **self._effort(rounds),
                    time_limit=limit,
                    initial=start,
                    seed=int(seeds.generate_state(1, np.uint64)[0]),
                    bound=False,
                )
            )
        if number == 0 and self._checked.bound:
            jobs.append(self._bound_job(limit))
        results: dict[int, CutResult] = {}
        try:
            with closing(self._pool.run(jobs)) as outcomes:
                for place, result in outcomes:
                    results[place] = result
                    if place == self._restarts:
                        self._bound = result
                    self._note(result)
                    # Where the restart ran here, it took the interrupt for its own.
                    if result.message == "interrupted":
                        self._budget.stop("interrupted")
                    if self._budget.stop_reason is not None:
                        break
        finally:
            self._keep(results)

    def _keep(self, results: dict[int, CutResult]) -> None:
        """Take in the results of a round, in the order of their numbers."""
        for place in sorted(results):
            result = results[place]
            self._all.append(result)
            if place < self._restarts:
                own = self._own[place]
                if own is None or result.cut_value > own.cut_value:
                    self._own[place] = result

    def _bound_job(self, limit: float | None) -> Job:
        """The bound alone, with hardly any search."""
        return partial(
            max_cut_here,
            self._graph,
            **self._shared,
            sweeps=_FIRST_SWEEPS,
            time_limit=limit,
            seed=self._checked.seed,
            bound=self._checked.bound,
        )

    def _effort(self, rounds: int) -> dict[str, Any]:
        """Return the part of a restart's search that belongs to one round."""
        checked = self._checked
        if checked.method != "anneal":
            return {}
        if checked.sweeps is not None:
            return {"sweeps": max(1, checked.sweeps // rounds)}
        return {} if checked.effort is None else {"effort": checked.effort / rounds}

    def _seconds(self, number: int, rounds: int) -> float | None:
        """Return the seconds of one restart in this round; no limit is None."""
        budget = self._budget
        if budget.time_limit is None:
            return None
        jobs = self._restarts + (number == 0 and bool(self._checked.bound))
        waves = math.ceil(jobs / self._pool.width)
        left = budget.remaining() - _OVERHEAD_SHARE * budget.time_limit
        return max(left / ((rounds - number) * waves), 1e-3)

    def _next_initials(self) -> list[Any]:
        """Return where the restarts go on: those behind most others from the best cut."""
        # All are there: a round that misses one was the last.
        values = np.array([own.cut_value for own in self._own if own is not None])
        order = np.argsort(-values, kind="stable")
        own = [_cut_of(result) for result in self._own if result is not None]
        for place in order[-(-self._restarts // 2) :].tolist():
            own[place] = own[int(order[0])]
        return own

    def _is_done(self) -> bool:
        """Whether more search is pointless: the bound or the target is reached."""
        if any(result.message == "target reached" for result in self._all):
            return True
        bound = None if self._bound is None else self._bound.upper_bound
        return bound is not None and self._best_value >= bound

    # -- what is known while they run --------------------------------------------------------------

    def _note(self, result: CutResult) -> None:
        """Record an improvement; tell the watchers."""
        bound = None if self._bound is None else self._bound.upper_bound
        if result.cut_value > self._best_value:
            self._best_value, self._best_partition = result.cut_value, result.partition
        row = HistoryRow(self._budget.elapsed(), self._best_value, bound)
        if not self._history or self._history[-1][1:] != row[1:]:
            self._history.append(row)
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix(cut=f"{row.cut_value:.10g}")
        if self._checked.callback is None:
            return
        state = SearchState(row.seconds, "search", result.sweeps, *row[1:], self._best_partition)
        try:
            stop = self._checked.callback(state)
        except StopIteration:
            stop = True
        if stop:
            self._budget.stop("stopped by the callback")

    # -- the result --------------------------------------------------------------------------------

    def _result(self, first: CutResult) -> CutResult:
        candidates = [own for own in self._own if own is not None]
        if self._bound is not None:
            candidates.append(self._bound)
        candidates.append(first)
        best = max(candidates, key=lambda result: result.cut_value)  # the first of equal ones
        known = self._bound
        return replace(
            best,
            upper_bound=None if known is None else known.upper_bound,
            sdp_value=None if known is None else known.sdp_value,
            expected_cut=None if known is None else known.expected_cut,
            bound_certificate=None if known is None else known.bound_certificate,
            energy_lower_bound=None if known is None else known.energy_lower_bound,
            history=tuple(self._history),
            seconds={**self._budget.phases, "total": self._budget.elapsed()},
            seed=self._checked.seed,
            method=self._checked.method,
            message=self._message(best),
            sweeps=sum(result.sweeps for result in (*self._all, first)),
            solutions=self._merged(best, [*self._all, first]),
        )

    def _message(self, best: CutResult) -> str:
        if self._budget.stop_reason is not None:
            return self._budget.stop_reason
        bound = None if self._bound is None else self._bound.upper_bound
        if bound is not None and best.cut_value >= bound:
            return "optimal: the cut reaches its upper bound"
        if self._budget.time_limit is not None:
            return "time limit reached"
        return f"best of {self._restarts} restarts"

    def _merged(self, best: CutResult, results: Iterable[CutResult]) -> tuple[Solution, ...]:
        """Return the best solutions of all, the best first, each far enough from those before."""
        graph, fixed = self._graph, self._shared["fixed"] or {}
        sides = graph.sides(fixed) if isinstance(graph, IsingProblem) else fixed
        pooled = [solution for result in results for solution in result.solutions]
        kept = [Solution(best.cut_value, best.partition)]
        for solution in sorted(pooled, key=lambda solution: -solution.cut_value):
            if len(kept) == self._checked.n_solutions:
                break
            distances = [_distance(solution, other, symmetric=not sides) for other in kept]
            if min(distances) >= self._checked.min_distance:
                kept.append(solution)
        return tuple(kept)


def _cut_of(result: CutResult) -> Any:
    """Return the cut as ``initial`` takes it: in the terms of the problem if there is one."""
    return result.partition if result.sample is None else dict(result.sample)


def _distance(one: Solution, other: Solution, *, symmetric: bool) -> int:
    """Return the number of vertices to move from one cut to the other."""
    apart = int(np.count_nonzero(one.partition != other.partition))
    return min(apart, one.partition.size - apart) if symmetric else apart
