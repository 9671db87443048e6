"""Search for good cuts: annealed replicas, recombined, on an exactly reduced graph.

Vertices with up to three neighbours are eliminated first. Then sixteen replicas at a time are
annealed by Metropolis sweeps, first from random signs. Their cuts are recombined in two ways:

- Where two cuts differ, the vertices fall into parts that no edge joins. Merging takes over every
  part that does not make the current cut worse, from all replicas.
- Vertices that all replicas place alike become one. This smaller graph is annealed in its turn.

Reheats follow: all replicas start from the current cut, each at its own temperature, and are
recombined again. The temperatures move to where the gains come from, reheats become longer when
nothing is gained, and when that does not help either the search starts afresh and merges what it
finds with the best so far.

Searchers run side by side. How many there are is part of the plan, not of the machine: with a plan
in sweeps the result is the same for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget, Pace
from derand_fast.clusters import Clusters
from derand_fast.incumbent import Incumbent
from derand_fast.kernels.maxcut import (
    cut_value,
    flip_gains,
    merge_cuts,
    one_flip_ascent,
    spanning_forest_cut,
)
from derand_fast.kernels.replicas import (
    REPLICAS,
    anneal_replicas,
    copy_from_replica,
    copy_to_replicas,
    exponential_table,
)
from derand_fast.reduction import Reduction
from derand_fast.relaxation import ScaledGraph

__all__ = ["PLANNED_SEARCHERS", "AnnealedSearch", "LocalSearch"]

SignArray = NDArray[np.int8]
FloatArray = NDArray[np.float64]

# Searchers of a plan in sweeps, whatever the number of threads.
PLANNED_SEARCHERS = 2
# Temperatures are in units of the root mean square of ||w_i||, the size of a vertex's field.
_FIRST_TEMPERATURE = 0.6
_LAST_TEMPERATURE = 0.05
_REHEAT_TEMPERATURE = 0.3
_REHEAT_RANGE = (0.08, 0.5)
# Replicas reheat from exp(-0.5) to exp(0.5) times the temperature that has paid so far.
_SPREAD = np.exp(np.linspace(-0.5, 0.5, REPLICAS))
_LEARNING_RATE = 0.5
# The part of all sweeps that the first anneal takes, and its limit.
_FIRST_PART = 0.2
_MAX_FIRST_SWEEPS = 20_000
_REHEAT_SWEEPS = 400
_MAX_REHEAT_SWEEPS = 4000
_LENGTHENING = 1.5
# Last sweeps at temperature 0.
_QUENCH_SWEEPS = 3
# Depth of clusters of clusters, after a first anneal and after a reheat. Each graph of them must
# be smaller than its parent by this factor: then all of them together cost no more than it.
_FIRST_LEVELS = 4
_REHEAT_LEVELS = 1
_CLUSTER_PART = 0.5
# Contracting takes less than so many seconds a stored edge.
_CONTRACT_SECONDS = 5e-7
# Reheats of full length without improvement before the search starts from random signs again.
_PATIENCE = 6
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
    """One anneal of sixteen replicas, and how often what they agree on is contracted."""

    start: SignArray | None
    temperatures: FloatArray
    sweeps: int
    levels: int = 0


class _Searcher:
    """A chain of anneals of sixteen replicas, with its own random numbers and memory."""

    def __init__(self, graph: ScaledGraph, generator: np.random.Generator, budget: Budget) -> None:
        n = graph.n_vertices
        self._graph = graph
        self._generator = generator
        self._budget = budget
        self._table = exponential_table()
        self._state = generator.integers(1, 2**63, size=1, dtype=np.uint64)
        self._spins = np.empty(REPLICAS * n, np.float32)
        self._merging = Merging(graph)
        self._unit = math.sqrt(float(np.square(graph.weights).sum()) / max(n, 1))
        self._first_replica = 0
        self.replicas = np.empty((REPLICAS, n), np.int8)
        self.signs = np.empty(n, np.int8)
        self.gains = np.zeros(REPLICAS)
        self.sweeps_done = 0
        self.pace = Pace()
        self.seconds_to_merge = 0.0

    def anneal(self, task: _Task) -> None:
        """Anneal and merge; ``signs`` is then no worse than the start and than any replica."""
        if task.start is None:
            random = self._generator.integers(0, 2, size=self._spins.size, dtype=np.int8)
            np.subtract(1, 2 * random, out=self._spins, casting="unsafe")
        else:
            copy_to_replicas(task.start, self._spins)
        self._sweep(task)
        begin = perf_counter()
        self._merge(task.start)
        self.seconds_to_merge = perf_counter() - begin
        if task.levels > 0:
            self._anneal_clusters(task)

    def _sweep(self, task: _Task) -> None:
        graph, budget = self._graph, self._budget
        quench = min(_QUENCH_SWEEPS, task.sweeps)
        hot = task.sweeps - quench
        temperatures = (self._unit * task.temperatures).astype(np.float32)
        end = np.float32(self._unit * _LAST_TEMPERATURE)
        cooling = ((temperatures - end) / np.float32(max(hot - 1, 1))).astype(np.float32)
        done = 0
        while done < task.sweeps and not budget.expired:
            if done == hot:
                temperatures[:] = 0.0
            count = self.pace.units((hot if done < hot else task.sweeps) - done)
            with self.pace.measure(count):
                anneal_replicas(
                    graph.indptr,
                    graph.indices,
                    graph.weights32,
                    self._spins,
                    temperatures,
                    cooling,
                    count,
                    self._table,
                    self._state,
                )
            done += count
            self.sweeps_done += count

    def _merge(self, start: SignArray | None) -> None:
        for k in range(REPLICAS):
            copy_from_replica(self._spins, k, self.replicas[k])
        if start is None:
            values = [self._merging.value(signs) for signs in self.replicas]
            start = self.replicas[int(np.argmax(values))]
        self.signs[:] = start
        # By turns, so that no temperature is always the first to be merged.
        self._first_replica += 5
        for turn in range(REPLICAS):
            k = (self._first_replica + turn) % REPLICAS
            self.gains[k] = self._merging.merge(self.signs, self.replicas[k])

    def _anneal_clusters(self, task: _Task) -> None:
        """Contract what the replicas agree on, anneal that, and merge what comes of it."""
        graph, budget = self._graph, self._budget
        if budget.remaining() < _CONTRACT_SECONDS * graph.indices.size or budget.expired:
            return
        clusters = Clusters.of(graph, self.replicas)
        if not 1 < clusters.graph.n_vertices <= _CLUSTER_PART * graph.n_vertices:
            return
        child = _Searcher(clusters.graph, self._generator, budget)
        child.anneal(
            _Task(None, np.full(REPLICAS, _FIRST_TEMPERATURE), task.sweeps, task.levels - 1)
        )
        self._merging.merge(self.signs, clusters.lift(child.signs))


class Merging:
    """Merging of cuts, with its scratch memory."""

    def __init__(self, graph: ScaledGraph) -> None:
        self._graph = graph
        self._queue = np.empty(graph.n_vertices, np.int32)
        self._visited = np.empty(graph.n_vertices, np.bool_)

    def merge(self, signs: SignArray, other: SignArray) -> float:
        """Take over what does not make ``signs`` worse; return the gain in scaled units."""
        graph = self._graph
        gain = merge_cuts(
            graph.indptr,
            graph.indices,
            graph.weights,
            signs,
            other,
            self._queue,
            self._visited,
        )
        return float(gain)

    def value(self, signs: SignArray) -> float:
        """Return the value of a cut in scaled units."""
        graph = self._graph
        return float(cut_value(graph.indptr, graph.indices, graph.weights, signs))


class _Heat:
    """The temperatures of reheats, which follow the gains."""

    def __init__(self) -> None:
        self._center = _REHEAT_TEMPERATURE

    def temperatures(self) -> FloatArray:
        """Return one for each replica."""
        return self._center * _SPREAD

    def learn(self, gains: FloatArray) -> None:
        """Move towards the replicas that gained."""
        total = float(gains.sum())
        if total > _GAIN_THRESHOLD:
            step = float(gains @ np.log(_SPREAD)) / total
            low, high = _REHEAT_RANGE
            self._center = min(high, max(low, self._center * math.exp(_LEARNING_RATE * step)))


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
        A cut that the search starts from.
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
        initial: SignArray | None,
        budget: Budget,
        incumbent: Incumbent,
    ) -> None:
        self._reduction = Reduction.of(graph)
        core = self._reduction.core
        count = n_threads if sweeps is None else min(PLANNED_SEARCHERS, sweeps)
        self._searchers = [
            _Searcher(core, np.random.default_rng(child), budget) for child in seeds.spawn(count)
        ]
        self._n_threads = min(n_threads, count)
        self._sweeps = self._left = sweeps
        self._budget = budget
        self._incumbent = incumbent
        self._local_search = LocalSearch(graph)
        self._merging = Merging(core)
        self._heat = _Heat()
        self._current = np.empty(core.n_vertices, np.int8)
        self._elite = self._reduction.restrict(incumbent.signs)
        self._initial = None if initial is None else self._reduction.restrict(initial)
        self._seconds_to_lift = 0.0

    @property
    def is_exact(self) -> bool:
        """Whether every vertex was eliminated: the cut is a best one but for rounding."""
        return self._reduction.core.indices.size == 0

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
        if self.is_exact:
            self._offer(self._reduction.lift(np.ones(self._current.size, np.int8)))
            return
        if self._left is None:
            # Two sweeps tell how many fit; the first may have to wait for the compiler.
            self._anneal_all(pool, self._fresh_task(2))
        length = _REHEAT_SWEEPS
        stale = 0
        fresh, elite_is_new = True, False
        while not self._budget.expired:
            first_sweeps = self._first_sweeps()
            most = min(_MAX_REHEAT_SWEEPS, first_sweeps)
            length = min(length, most)
            sweeps = self._affordable(first_sweeps if fresh else length)
            if sweeps == 0:
                return
            self._anneal_all(pool, self._fresh_task(sweeps) if fresh else self._reheat(sweeps))
            improved = self._merge_all(fresh=fresh)
            elite_is_new |= self._merge_into_elite() if improved else False
            if improved:
                fresh, stale = False, 0
                self._initial = None
                continue
            stale += length >= most
            length = min(most, math.ceil(_LENGTHENING * length))
            if stale >= _PATIENCE:
                stale, length = 0, _REHEAT_SWEEPS
                fresh = not (elite_is_new and self._adopt_elite())
                elite_is_new = False

    def _first_sweeps(self) -> int:
        """Length of an anneal from random signs: a part of all sweeps, within limits."""
        if self._sweeps is not None:
            all_sweeps = self._sweeps / len(self._searchers)
        else:
            left = self._budget.remaining() / self._seconds_per_sweep()
            all_sweeps = self._searchers[0].sweeps_done + left
        return max(1, min(int(_FIRST_PART * all_sweeps), _MAX_FIRST_SWEEPS))

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
        """Seconds to merge and to lift after the last sweep."""
        merging = max(searcher.seconds_to_merge for searcher in self._searchers)
        return 1.5 * (merging + self._seconds_to_lift)

    def _fresh_task(self, sweeps: int) -> _Task:
        if self._initial is not None:
            return _Task(self._initial, self._heat.temperatures(), sweeps, _FIRST_LEVELS)
        return _Task(None, np.full(REPLICAS, _FIRST_TEMPERATURE), sweeps, _FIRST_LEVELS)

    def _reheat(self, sweeps: int) -> _Task:
        return _Task(self._current.copy(), self._heat.temperatures(), sweeps, _REHEAT_LEVELS)

    def _anneal_all(self, pool: ThreadPoolExecutor, task: _Task) -> None:
        """Run the task once in each searcher; meanwhile keep the watchers informed."""
        futures = [pool.submit(searcher.anneal, task) for searcher in self._searchers]
        while wait(futures, timeout=_REPORT_SECONDS).not_done:
            self._report()
        for future in futures:
            future.result()
        self._report()

    def _report(self) -> None:
        self._incumbent.sweeps = sum(searcher.sweeps_done for searcher in self._searchers)
        self._incumbent.report("search")

    def _merge_all(self, *, fresh: bool) -> bool:
        """Merge the searchers' cuts; returns whether the current cut is new or better."""
        if fresh:
            self._current[:] = self._searchers[0].signs
        gain = sum(
            self._merging.merge(self._current, searcher.signs) for searcher in self._searchers
        )
        if not fresh:
            self._heat.learn(np.sum([searcher.gains for searcher in self._searchers], axis=0))
        self._offer_replicas()
        return fresh or gain > _GAIN_THRESHOLD

    def _merge_into_elite(self) -> bool:
        """Merge the current cut into the best one; returns whether that is better now."""
        improved = self._merging.merge(self._elite, self._current) > _GAIN_THRESHOLD
        if improved:
            self._offer(self._reduction.lift(self._elite))
        return improved

    def _adopt_elite(self) -> bool:
        """Go on from the best cut; False if the current one is as good."""
        value = self._merging.value
        if value(self._elite) <= value(self._current) + _GAIN_THRESHOLD:
            return False
        self._current[:] = self._elite
        return True

    def _offer(self, signs: SignArray) -> None:
        begin = perf_counter()
        self._incumbent.offer(signs, self._local_search.improve(signs))
        self._seconds_to_lift = perf_counter() - begin

    def _offer_replicas(self) -> None:
        """Offer all replicas where several cuts are wanted."""
        if not self._incumbent.wants_others:
            return
        for searcher in self._searchers:
            for replica in searcher.replicas:
                if self._budget.expired:
                    return
                signs = self._reduction.lift(replica)
                self._incumbent.offer_other(signs, self._local_search.value(signs))
