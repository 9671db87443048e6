"""Annealed derandomization: search for good cuts from smoothed rounding made sharp.

One anneal takes a unit row of eight numbers for each vertex and ascends the expected cut of
smoothed rounding while the smoothing falls; the rows collapse to one line, which is a cut. Anneals
from random rows come first. Then come reheats: rows near the current cut, a milder smoothing, and
what improves is merged into the current cut part by part.

Searchers run side by side. How many there are is part of the plan, not of the machine: with a plan
in sweeps the result is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget, Pace
from derand_fast.incumbent import Incumbent
from derand_fast.kernels.maxcut import (
    anneal_rows,
    cut_value,
    flip_gains,
    merge_cuts,
    one_flip_ascent,
    round_to_signs,
    spanning_forest_cut,
)
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import ScaledGraph

__all__ = ["PLANNED_SEARCHERS", "AnnealedSearch", "LocalSearch"]

# Searchers of a plan in sweeps, whatever the number of threads.
PLANNED_SEARCHERS = 2
# Schedule, chosen on the G-set over four seeds at equal seconds: first anneals of 4,000 sweeps beat
# 2,000 by up to 0.06 % on sparse graphs and tie elsewhere; reheats of 400 sweeps tie with 800 on
# grids and beat them by 0.06 % on dense random graphs.
_FIRST_SWEEPS = 4000
_REHEAT_SWEEPS = 400
_REHEAT_PART = 5
_FIRST_SMOOTHING = 0.3
_FIRST_END = 1e-4
_REHEAT_SMOOTHINGS = (0.2, 0.1, 0.05, 0.02)
_REHEAT_END = 1e-3
_REHEAT_NOISE = 0.5
# Rounds of reheats without improvement before the search starts from random rows again.
_PATIENCE = 24
_HYPERPLANES = 4
# Gains of scaled weights (largest in [1, 2)) below this are rounding.
_GAIN_THRESHOLD = 1e-9
_REPORT_SECONDS = 0.05


class LocalSearch:
    """One-flip ascent with its scratch memory."""

    def __init__(self, graph: ScaledGraph) -> None:
        self._graph = graph
        self._gains = np.empty(graph.n_vertices)

    def improve(self, signs: NDArray[np.int8]) -> float:
        """Make a cut locally optimal in place; return its value in the caller's units."""
        graph = self._graph
        flip_gains(graph.indptr, graph.indices, graph.weights, signs, self._gains)
        one_flip_ascent(
            graph.indptr, graph.indices, graph.weights, signs, self._gains, _GAIN_THRESHOLD
        )
        return self.value(signs)

    def from_spanning_forest(self, signs: NDArray[np.int8]) -> float:
        """Write a locally optimal cut that starts from a spanning forest's; return its value."""
        graph = self._graph
        queue = np.empty(graph.n_vertices, np.int32)
        spanning_forest_cut(graph.indptr, graph.indices, graph.weights, signs, queue)
        return self.improve(signs)

    def neighbours(
        self, signs: NDArray[np.int8], count: int
    ) -> Iterator[tuple[NDArray[np.int8], float]]:
        """Yield the best cuts that differ in one vertex, and their values, best first."""
        graph = self._graph
        flip_gains(graph.indptr, graph.indices, graph.weights, signs, self._gains)
        value = self.value(signs)
        best = np.argsort(-self._gains, kind="stable")[:count]
        for vertex, gain in zip(best.tolist(), self._gains[best].tolist(), strict=True):
            neighbour = signs.copy()
            neighbour[vertex] = -neighbour[vertex]
            yield neighbour, value + graph.scale * gain

    def value(self, signs: NDArray[np.int8]) -> float:
        """Return the value of a cut in the caller's units."""
        graph = self._graph
        return graph.scale * float(cut_value(graph.indptr, graph.indices, graph.weights, signs))


@dataclass(frozen=True, slots=True)
class _Task:
    """One anneal: from a cut (or from random rows), at a smoothing, for so many sweeps."""

    start: NDArray[np.int8] | None
    smoothing: float
    end: float
    sweeps: int


class _Searcher:
    """One chain of anneals with its own random numbers and memory."""

    def __init__(self, graph: ScaledGraph, generator: np.random.Generator, budget: Budget) -> None:
        n = graph.n_vertices
        self._graph = graph
        self._generator = generator
        self._budget = budget
        self._local_search = LocalSearch(graph)
        self._rows = np.empty((n, LANES), np.float32)
        self._candidate = np.empty(n, np.int8)
        self.signs = np.empty(n, np.int8)
        self.value = -np.inf
        self.sweeps_done = 0
        self.pace = Pace()
        self.seconds_to_round = 0.0

    def anneal(self, task: _Task) -> None:
        """Anneal and round; the result is in ``signs`` and ``value``."""
        self._set_rows(task.start)
        self._sweep(task)
        begin = perf_counter()
        self.value = -np.inf
        for _ in range(_HYPERPLANES):
            self._round()
            if self._budget.expired:
                break
        self.seconds_to_round = perf_counter() - begin

    def _set_rows(self, start: NDArray[np.int8] | None) -> None:
        rows = self._rows
        self._generator.standard_normal(out=rows, dtype=np.float32)
        if start is not None:
            rows *= np.float32(_REHEAT_NOISE / LANES**0.5)
            rows[:, 0] += start
        rows /= np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]

    def _sweep(self, task: _Task) -> None:
        graph = self._graph
        smoothing = task.smoothing
        ratio = (task.end / task.smoothing) ** (1.0 / max(task.sweeps - 1, 1))
        left = task.sweeps
        while left > 0 and not self._budget.expired:
            count = self.pace.units(left)
            with self.pace.measure(count):
                smoothing = anneal_rows(
                    graph.indptr,
                    graph.indices,
                    graph.weights32,
                    self._rows.reshape(-1),
                    smoothing,
                    ratio,
                    count,
                )
            left -= count
            self.sweeps_done += count

    def _round(self) -> None:
        normal = self._generator.standard_normal(LANES, dtype=np.float32)
        round_to_signs(self._rows, normal, self._candidate)
        value = self._local_search.improve(self._candidate)
        if value > self.value:
            self.value = value
            self.signs, self._candidate = self._candidate, self.signs


class AnnealedSearch:
    """Rounds of anneals by several searchers that share their current cut.

    Parameters
    ----------
    graph : ScaledGraph
    seeds : numpy.random.SeedSequence
        Each searcher gets a child.
    sweeps : int or None
        Sweeps of the whole plan; None goes on until the budget has expired.
    n_threads : int
    initial : (n,) int8 array or None
        A cut that the first searcher starts from.
    budget, incumbent
        When to stop, and where the best cut goes.
    """

    def __init__(
        self,
        graph: ScaledGraph,
        seeds: np.random.SeedSequence,
        *,
        sweeps: int | None,
        n_threads: int,
        initial: NDArray[np.int8] | None,
        budget: Budget,
        incumbent: Incumbent,
    ) -> None:
        count = n_threads if sweeps is None else min(PLANNED_SEARCHERS, sweeps)
        self._searchers = [
            _Searcher(graph, np.random.default_rng(child), budget) for child in seeds.spawn(count)
        ]
        self._graph = graph
        self._n_threads = min(n_threads, count)
        self._left = sweeps
        self._budget = budget
        self._incumbent = incumbent
        self._local_search = LocalSearch(graph)
        self._current = np.empty(graph.n_vertices, np.int8)
        self._current_value = -np.inf
        self._initial = initial
        self._queue = np.empty(graph.n_vertices, np.int32)
        self._visited = np.empty(graph.n_vertices, np.bool_)

    def run(self) -> None:
        """Search until the plan is done or the budget has expired."""
        with ThreadPoolExecutor(self._n_threads) as pool:
            try:
                self._run_rounds(pool)
            except BaseException:
                # The searchers run in other threads: without a word they would go on.
                self._budget.stop("interrupted")
                raise

    def _run_rounds(self, pool: ThreadPoolExecutor) -> None:
        smoothings = cycle(_REHEAT_SMOOTHINGS)
        first_sweeps = self._first_sweeps(pool)
        reheat_sweeps = min(first_sweeps // _REHEAT_PART, _REHEAT_SWEEPS)
        stale_rounds = _PATIENCE
        while not self._budget.expired:
            fresh = stale_rounds >= _PATIENCE
            sweeps = self._affordable(first_sweeps if fresh else reheat_sweeps)
            if sweeps == 0:
                return
            tasks = self._fresh_tasks(sweeps) if fresh else self._reheats(sweeps, smoothings)
            self._anneal_all(pool, tasks)
            improved = self._adopt_best() if fresh else self._merge_all()
            stale_rounds = 0 if improved else stale_rounds + 1

    def _first_sweeps(self, pool: ThreadPoolExecutor) -> int:
        """Length of an anneal from random rows: half of what there is, within limits."""
        if self._left is not None:
            half = self._left // (2 * len(self._searchers))
        else:
            # Two sweeps tell how many fit; the first may have to wait for the compiler.
            self._anneal_all(pool, [_Task(None, _FIRST_SMOOTHING, _FIRST_END, 2)])
            half = int(0.5 * self._budget.remaining() / self._seconds_per_sweep())
        return max(_REHEAT_PART, min(half, _FIRST_SWEEPS))

    def _affordable(self, sweeps: int) -> int:
        """Cut the length of a round to what the plan or the clock still allows."""
        if self._left is None:
            self._budget.reserve(self._finishing_seconds())
            left = int(self._budget.remaining() / self._seconds_per_sweep())
            return max(0, min(sweeps, left))
        sweeps = min(sweeps, self._left // len(self._searchers))
        self._left -= sweeps * len(self._searchers)
        return sweeps

    def _seconds_per_sweep(self) -> float:
        return max(1e-9, *(searcher.pace.seconds_per_unit for searcher in self._searchers))

    def _finishing_seconds(self) -> float:
        """Seconds to round and merge after the last sweep."""
        return 1.5 * max(searcher.seconds_to_round for searcher in self._searchers)

    def _fresh_tasks(self, sweeps: int) -> list[_Task]:
        tasks = [_Task(None, _FIRST_SMOOTHING, _FIRST_END, sweeps) for _ in self._searchers]
        if self._initial is not None:
            tasks[0] = _Task(self._initial, _REHEAT_SMOOTHINGS[0], _REHEAT_END, sweeps)
            self._initial = None
        return tasks

    def _reheats(self, sweeps: int, smoothings: Iterator[float]) -> list[_Task]:
        return [
            _Task(self._current, next(smoothings), _REHEAT_END, sweeps) for _ in self._searchers
        ]

    def _anneal_all(self, pool: ThreadPoolExecutor, tasks: list[_Task]) -> None:
        """Run one task per searcher; meanwhile keep the watchers informed."""
        futures = [
            pool.submit(searcher.anneal, task)
            for searcher, task in zip(self._searchers, tasks, strict=False)
        ]
        while wait(futures, timeout=_REPORT_SECONDS).not_done:
            self._report()
        for future, searcher in zip(futures, self._searchers, strict=False):
            future.result()
            self._incumbent.offer(searcher.signs, searcher.value)
        self._report()

    def _report(self) -> None:
        self._incumbent.sweeps = sum(searcher.sweeps_done for searcher in self._searchers)
        self._incumbent.report("search")

    def _adopt_best(self) -> bool:
        """Start over from the best of the new cuts."""
        best = max(self._searchers, key=lambda searcher: searcher.value)
        self._current[:] = best.signs
        self._current_value = best.value
        return True

    def _merge_all(self) -> bool:
        """Merge the new cuts into the current one; returns whether it improved."""
        graph = self._graph
        for searcher in self._searchers:
            merge_cuts(
                graph.indptr,
                graph.indices,
                graph.weights,
                self._current,
                searcher.signs,
                self._queue,
                self._visited,
            )
        value = self._local_search.improve(self._current)
        improved = value > self._current_value
        self._current_value = value
        self._incumbent.offer(self._current, value)
        return improved
