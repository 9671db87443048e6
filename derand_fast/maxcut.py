"""max_cut: a deterministic cut of a weighted graph, and a bound on every cut."""

from __future__ import annotations

import functools
import importlib.util
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from derand_fast.annealing import AnnealedSearch, LocalSearch
from derand_fast.bounds import (
    FAILURE_PROBABILITY,
    BandFactorisation,
    ChebyshevCertificate,
    DualMatrix,
    trivial_bound,
)
from derand_fast.budget import Budget
from derand_fast.checks import finite_number, whole_number
from derand_fast.contraction import Contraction, exact_cut_value
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.incumbent import DiversePool, Incumbent, SearchState
from derand_fast.ising import as_problem
from derand_fast.optimize.result import SOSPResult, Status
from derand_fast.reduction import Reduction
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank
from derand_fast.results import CutResult, Solution
from derand_fast.threads import thread_count
from derand_fast.tight_bound import TightBound, tight_bound
from derand_fast.vertex_order import sweep_order

__all__ = ["max_cut"]

METHODS = ("anneal", "pgd", "hessian-descent", "newton-cg")
# Effort 1: about six seconds of one thread, but not less than 200 sweeps, nor more than 30,000.
_NORMAL_EDGE_UPDATES = 5e9
_NORMAL_SWEEPS = (200, 30_000)
EFFORTS = {"quick": 0.2, "normal": 1.0, "thorough": 10.0}
# The relaxation and its certificate may spend this part of a time limit; the proof, this part.
_RELAXATION_SHARE = 0.25
_BOUND_SHARE = 0.4
_PROOF_SHARE = 0.7
_TIGHT_SHARE = 0.6
# The relaxation is solved until the bound is within this of its value, relatively.
_BOUND_TOLERANCE = 1e-4
# On graphs with more stored entries than this, within ten times as much.
_MANY_ENTRIES = 2_000_000
_SDP_STEP = 10
# First look at the bound when a sweep gains less than this part of the total |weight|.
_SDP_GAIN = 5e-6
_MAX_SDP_SWEEPS = 4000
_CERTIFICATE_STEP = 20
_MAX_CERTIFICATE_STEPS = 3000
_GROWTH_WINDOW = 40
_PROOF_ATTEMPTS = 6
_PROMISE_ROUNDINGS = 10_000

Bound = bool | Literal["proof", "tight"]


@dataclass(frozen=True, slots=True)
class _Options:
    """Checked arguments of one call."""

    method: str
    rank: int | None
    sweeps: int | None
    effort: float | None
    target: float | None
    n_solutions: int
    min_distance: int
    seed: int
    n_threads: int
    bound: Bound
    progress: bool
    callback: Callable[[SearchState], object] | None


def max_cut(
    graph: Any,
    *,
    weight: str | None = "weight",
    method: str = "anneal",
    rank: int | None = None,
    time_limit: float | None = None,
    effort: str | float | None = None,
    sweeps: int | None = None,
    target: float | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    bound: Bound = True,
    fixed: Mapping[Any, int] | None = None,
    initial: Any = None,
    n_solutions: int = 1,
    min_distance: int = 1,
    progress: bool = False,
    callback: Callable[[SearchState], object] | None = None,
    client: Any = None,
    restarts: int = 8,
) -> CutResult:
    r"""Find a large cut of a weighted graph, and an upper bound on every cut.

    Maximises ``sum_{i<j} w_ij (1 - s_i s_j) / 2`` over signs s. Goemans-Williamson rounding of the
    relaxation max sum w_ij (1 - v_i . v_j) / 2 over unit vectors is random; here its expectation is
    a promise: the cut returned is never below it. Method "anneal" searches with annealed replicas
    that are recombined (`derand_fast.annealing`); the descents take the randomness away from the
    smoothed rounding until its vectors have collapsed. The relaxation's dual variables give the
    upper bound.

    Parameters
    ----------
    graph : networkx graph, scipy.sparse array, ndarray, tuple (n, edges, weights), path, CSRGraph
        Undirected; see `derand_fast.graphs.as_graph`. Weights may be negative. Or an energy to
        minimise, see Notes: an `IsingProblem`, or a dimod BinaryQuadraticModel.
    weight : str or None
        Edge attribute of a networkx graph; absent means 1, None means all 1.
    method : {"anneal", "newton-cg", "hessian-descent", "pgd"}
        "anneal", annealed replicas with merging of cuts, finds the best cuts. The others follow the
        smoothed objective of the paper from the relaxation's vectors, a strict saddle, down to a
        second-order stationary point, where the vectors' part W has collapsed and the signs of the
        biases are the cut; ``certificate`` says what is certified there.
    rank : int, optional
        Length of the relaxation's vectors; by default ceil(sqrt(2 n)) + 1, but 64 at the
        most, and 128 above 100,000 vertices. The
        descents project these to 8 dimensions unless a rank is given.
    time_limit : float, optional
        Seconds for the whole call, reading included. The call returns within 5 % + 50 ms of it
        (once compiled), with the best so far.
    effort : {"quick", "normal", "thorough"} or positive number, optional
        How much to search, as a number of sweeps that depends on the graph alone, so that the
        result depends on the seed only, not on time or threads. "normal", or 1, is 5e9 / (2 m)
        sweeps, at least 200 and at most 30,000: one second at 20,000 edges, six at 100,000 or more
        on one thread. "quick" is a fifth of it, "thorough" ten times as much, and a number so many
        times. The default, without a time limit, is "normal"; with one, the search fills the time.
        For method="anneal" only, as are sweeps.
    sweeps : int, optional
        Annealing sweeps of all searchers together, in place of effort; each anneals 16 replicas.
    target : float, optional
        Stop once a cut of at least this value is found. Cuts are looked at when an anneal ends.
    seed : int
        Non-negative.
    n_threads : int, optional
        Threads at work; by default all cores that this process may use. With ``time_limit`` alone
        each thread runs a searcher of its own; sweeps and effort are shared by two searchers.
    bound : bool, "proof" or "tight"
        True: solve the relaxation and certify its bound, which then holds with probability at
        least 1 - 1e-9 over the certificate's random start vectors, rounding errors included.
        "proof": the bound is shown by a factorisation, no probability left; memory
        8 n min(b + 256, n) bytes at bandwidth b, which is at least half the largest degree, that of
        merged vertices and of fields included. "tight": odd-cycle inequalities as well, which on
        grids and other sparse graphs take most of the gap that the relaxation leaves, up to a proof
        (`derand_fast.tight_bound`); a few seconds to minutes. False: skip both, all time goes into
        the cut.
    fixed : mapping from vertices to +1 or -1, optional
        Vertices, by the graph's own labels, that must be on a side. Cuts and bounds are then among
        the cuts that have them there.
    initial : (n,) array of +1 and -1, or set of vertices, optional
        A cut to start from, or the vertices of one of its sides; the result is never worse. It must
        agree with ``fixed``, perhaps with its sides exchanged.
    n_solutions : int
        How many different good cuts to return in ``solutions``, at most: the best that the search
        comes upon. It then goes on past an optimal cut, until it has so many of them. The best cut
        is as with n_solutions=1. With ``min_distance`` 1 and no time limit, missing ones are made
        by moving single vertices.
    min_distance : int
        Any two of the solutions differ in at least so many vertices. (Exchanging the sides makes no
        difference, unless a vertex is fixed, or the problem has fields.)
    progress : bool
        Show a tqdm bar (extra ``progress``).
    callback : callable, optional
        Called some 20 times a second with a `SearchState`; a true result, or StopIteration, stops
        the call, which returns the best so far. So does KeyboardInterrupt.

    client : distributed.Client, concurrent.futures.Executor, joblib.Parallel or "joblib", optional
        Where restarts of the search run and share their best cut; see
        `derand_fast.distributed.max_cut`, which this calls.
    restarts : int
        How many, with a client.

    Returns
    -------
    CutResult
        ``cut_value`` is never below ``expected_cut``, the expectation of random rounding.

    Raises
    ------
    TypeError
        Wrong kind of graph or argument.
    ValueError
        Bad weights, asymmetric matrix, broken file, an argument out of range, both effort and
        sweeps, an initial cut that contradicts fixed; or "proof" on a graph whose factor does not
        fit into half of the memory.
    ImportError
        ``progress=True`` without tqdm.

    Notes
    -----
    Method "anneal" first eliminates vertices with up to three neighbours, exactly, and searches
    what is left (`derand_fast.reduction`). Cost of a sweep of 16 replicas: 64 m flops, 1 to 2 ns a
    stored edge where the replicas fit into the cache; memory O(m + n (rank + 40)) float32. The
    relaxation costs 4 m rank flops a sweep.

    Vertices that are fixed are merged into one, with weights of the other side negated: a smaller
    graph with the same cuts but for a constant, so that the bound holds for exactly the cuts that
    are asked for (`derand_fast.contraction` has the proof). Where vertices are fixed, a cut may be
    negative, and so may its bound.

    Problems from `derand_fast.ising` (`from_ising`, `from_qubo`) are solved as cuts; the result has
    their ``energy``, ``energy_lower_bound`` and ``sample`` as well. ``fixed``, ``initial`` and
    ``target`` are then in the problem's terms: variables with spins +1, -1 or bits 0, 1; a sample;
    an energy, up to rounding, at which to stop. History, callback, progress and ``solutions`` speak
    of the cut.

    There are no balanced cuts, or others whose sides have a given size: rounding, one-vertex moves
    and merging would leave the feasible set, and the relaxation's bound would ignore it. A term
    lam (sum_i s_i)^2 in an Ising problem prefers balance, at the price of couplings between all
    pairs; a graph partitioner such as METIS keeps it.

    References
    ----------
    Tsikouras, Pantis, Mitliagkas and Tzamos, "A Derandomization Framework for Structure Discovery",
    ICLR 2026. Goemans and Williamson, J. ACM 42 (1995). Wang, Chang and Kolter, "The mixing
    method", 2017.

    Examples
    --------
    >>> import networkx as nx
    >>> from derand_fast import max_cut
    >>> result = max_cut(nx.petersen_graph())
    >>> result.cut_value, result.upper_bound
    (12.0, 12.0)
    >>> sorted(len(side) for side in result.sets)
    [4, 6]

    The three best cuts with two neighbours on one side:

    >>> result = max_cut(nx.petersen_graph(), fixed={0: +1, 1: +1}, n_solutions=3)
    >>> [solution.cut_value for solution in result.solutions]
    [12.0, 11.0, 11.0]
    >>> {0, 1} <= result.sets[0]
    True
    """
    if client is not None:
        from derand_fast.distributed import max_cut as from_restarts

        return from_restarts(
            graph,
            client=client,
            restarts=restarts,
            weight=weight,
            method=method,
            rank=rank,
            time_limit=time_limit,
            effort=effort,
            sweeps=sweeps,
            target=target,
            seed=seed,
            n_threads=1 if n_threads is None else n_threads,
            bound=bound,
            fixed=fixed,
            initial=initial,
            n_solutions=n_solutions,
            min_distance=min_distance,
            progress=progress,
            callback=callback,
        )
    options = check_options(
        method=method,
        rank=rank,
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
        csr = as_graph(graph if problem is None else problem.graph, weight=weight)
        if problem is not None:
            fixed = problem.sides({} if fixed is None else fixed)
            initial = None if initial is None else problem.partition(initial)
            if options.target is not None:
                options = replace(options, target=problem.cut_target(options.target))
        contraction = Contraction.of(csr, fixed)
        if contraction.graph.n_edges > 0:
            contraction = contraction.reordered(sweep_order(contraction.graph))
        start = None if initial is None else contraction.contract(_signs_of(initial, csr))
    if contraction.graph.n_edges > 0:
        with budget.phase("compile"):
            _compile_kernels(options.method != "anneal", options.bound)
        budget.begin_work()
        result = _Solver(contraction, options, budget, start).solve()
    else:
        result = _edgeless(contraction, options, budget)
    return result if problem is None else problem.complete(result)


@functools.cache
def _compile_kernels(descends: bool, bound: Bound) -> None:
    """Have the kernels of a call compiled, or loaded from disk, before time is shared out."""
    triangle = as_graph((3, [(0, 1), (1, 2), (0, 2)], [1.5, 1.5, 1.5]))
    method = "newton-cg" if descends else "anneal"
    options = check_options(
        method=method, sweeps=None if descends else 60, n_threads=1, bound=bound
    )
    solver = _Solver(Contraction.of(triangle), options, Budget(None), None)
    if solver.solve().message == "interrupted":
        raise KeyboardInterrupt  # meant for the caller's graph, of which there is no cut yet
    if not descends:
        reduction = Reduction.of(ScaledGraph.of(triangle), least_vertices=0)
        reduction.lift(np.ones(reduction.kept.size, np.int8))


class _Solver:
    """One call on a graph that has edges: the phases in order, and what they hand on."""

    def __init__(
        self,
        contraction: Contraction,
        options: _Options,
        budget: Budget,
        initial: NDArray[np.int8] | None,
    ) -> None:
        self._contraction = contraction
        self._whole = contraction.original
        self._csr = contraction.graph
        self._options = options
        self._budget = budget
        self._initial = initial
        with budget.phase("start"):
            self._graph = ScaledGraph.of(self._csr)
            # Building the result takes about 0.2 us a vertex and 0.1 us an edge, and for each
            # further solution a twentieth and a half of it.
            n, m, others = self._whole.n_vertices, self._whole.n_edges, options.n_solutions - 1
            budget.reserve(2e-7 * n + 1e-7 * m + others * (1e-8 * n + 5e-8 * m))
            seeds = np.random.SeedSequence(options.seed).spawn(5)
            self._search_seeds, self._tight_seed = seeds[0], seeds[4]
            self._sdp_generator, self._certificate_generator, self._rounding_generator = (
                np.random.default_rng(child) for child in seeds[1:4]
            )
            self._proof = BandFactorisation(self._graph) if options.bound == "proof" else None
            self._local_search = LocalSearch(self._graph)
            self._bound_certificate: str | None = None
            self._certificate: SOSPResult | None = None
            self._relaxation: Relaxation | None = None
            self._sdp_value: float | None = None
            self._expected_cut: float | None = None
            self._is_exact = False
            self._sweeps = self._plan()
            self._pool = self._empty_pool()
            self._incumbent = self._first_incumbent()

    def solve(self) -> CutResult:
        """Run the phases; an interrupt ends them early and keeps what is found."""
        try:
            descends = self._options.method != "anneal"
            if self._options.bound or descends:
                self._solve_relaxation()
            if self._options.bound == "tight" and not self._budget.expired:
                with self._budget.phase("tight"):
                    self._tighten()
            with self._budget.phase("search"):
                self._descend() if descends else self._search()
                self._fill_pool()
        except KeyboardInterrupt:
            self._budget.stop("interrupted")
        finally:
            if self._incumbent.progress is not None:
                self._incumbent.progress.close()
        bound = self._incumbent.upper_bound
        if self._sdp_value is None and bound is not None and self._incumbent.value >= bound:
            # No relaxation was needed: the cut itself, as vectors on a line, solves it.
            self._sdp_value = self._expected_cut = bound
        self._keep_promise()
        return self._result()

    def _plan(self) -> int | None:
        """Sweeps to do; None leaves it to the clock."""
        options = self._options
        if options.sweeps is not None or options.effort is None:
            return options.sweeps
        least, most = _NORMAL_SWEEPS
        normal = max(least, min(most, int(_NORMAL_EDGE_UPDATES / self._graph.indices.size)))
        return max(1, round(options.effort * normal))

    def _first_incumbent(self) -> Incumbent:
        """Local search from a spanning forest's cut and from the caller's; or the empty cut."""
        signs = np.empty(self._graph.n_vertices, np.int8)
        value = self._local_search.from_spanning_forest(signs)
        if self._initial is not None:
            other = self._initial.copy()
            other_value = self._local_search.improve(other)
            if other_value >= value:
                signs, value = other, other_value
        if value < 0.0:
            # A bad cut that no single flip improves; the empty one is better.
            signs[:] = 1
            value = 0.0
        bound = None
        if self._options.bound:
            bound = trivial_bound(self._graph)
            self._bound_certificate = "proven: the sum of the positive weights"
            if value >= (1.0 - 1e-12) * bound:
                # Equal but for rounding? Then it is optimal.
                value = exact_cut_value(self._csr, signs)
        return Incumbent(
            signs,
            value,
            bound,
            contraction=self._contraction,
            budget=self._budget,
            callback=self._options.callback,
            progress=self._progress_bar(),
            target=self._options.target,
            pool=self._pool,
        )

    def _empty_pool(self) -> DiversePool | None:
        options, contraction = self._options, self._contraction
        if options.n_solutions == 1:
            return None
        return DiversePool(
            options.n_solutions,
            options.min_distance,
            anchor=contraction.anchor,
            symmetric=not contraction.any_fixed,
        )

    def _progress_bar(self) -> Any | None:
        if not self._options.progress or self._options.method != "anneal":
            return None  # a descent shows its own
        from tqdm import tqdm

        if self._sweeps is None:
            return tqdm(total=self._budget.time_limit, unit="s", bar_format=_TIME_BAR)
        return tqdm(total=self._sweeps, unit="sweep")

    def _solve_relaxation(self) -> None:
        """Alternate between solving the relaxation and certifying its dual bound."""
        budget = self._budget
        rank = self._options.rank or default_rank(self._graph.n_vertices)
        with budget.phase("sdp"):
            relaxation = Relaxation(self._graph, rank, self._sdp_generator, self._options.n_threads)
        target_sweeps = _MAX_SDP_SWEEPS
        attempt = 0
        while not budget.expired:
            with budget.phase("sdp"):
                self._advance(relaxation, target_sweeps, first=attempt == 0)
                self._relaxation = relaxation
                self._sdp_value, dual = relaxation.dual()
            attempt += 1
            last = relaxation.sweeps >= _MAX_SDP_SWEEPS or budget.past(
                budget.share(_RELAXATION_SHARE)
            )
            if not self._options.bound:
                break
            with budget.phase("bound"):
                # Half of what is left each time; the first half is for the odd cycles.
                delta = FAILURE_PROBABILITY * 2.0 ** -(attempt + 1)
                done = self._certify(dual, delta, last)
            if done or last:
                break
            target_sweeps = min(_MAX_SDP_SWEEPS, 2 * relaxation.sweeps)
        if self._relaxation is not None:
            with budget.phase("sdp"):
                self._expected_cut = self._relaxation.expected_cut()
                self._round_relaxation()

    def _advance(self, relaxation: Relaxation, target_sweeps: int, *, first: bool) -> None:
        """Sweep to the target, or until sweeps gain little where that is not known yet."""
        budget = self._budget
        until = budget.share(_RELAXATION_SHARE)
        while relaxation.sweeps < target_sweeps and not budget.past(until):
            gain = relaxation.advance(_SDP_STEP, budget, until)
            self._incumbent.report("sdp")
            if first and gain < _SDP_GAIN:
                return

    def _certify(self, dual: NDArray[np.float64], delta: float, last: bool) -> bool:
        """Certify a bound from dual variables; returns whether it is within the tolerance.

        Unless this is the last attempt, gives up as soon as the vectors' growth shows that the
        tolerance is out of reach.
        """
        budget = self._budget
        matrix = DualMatrix.of(self._graph, dual)
        plain = matrix.upper_bound(self._graph, 0.0)
        slope = matrix.upper_bound(self._graph, 1.0) - plain
        assert self._sdp_value is not None
        many = self._graph.indices.size > _MANY_ENTRIES
        tolerance = (10.0 if many else 1.0) * _BOUND_TOLERANCE * abs(self._sdp_value)
        target = (self._sdp_value + tolerance - plain) / slope
        certificate = ChebyshevCertificate(
            self._graph, matrix, self._certificate_generator, delta, self._options.n_threads
        )
        shift = math.inf
        while certificate.steps < _MAX_CERTIFICATE_STEPS and not certificate.exhausted:
            certificate.advance(_CERTIFICATE_STEP, budget)
            self._incumbent.report("bound")
            shift = certificate.shift()
            growth = certificate.growth(_GROWTH_WINDOW)
            if shift <= target or growth > (0.8 * shift if last else target):
                break
            if budget.past(budget.share(_BOUND_SHARE)):
                break
        if self._proof is not None:
            if shift <= target or last:
                self._prove(matrix, shift)
        elif math.isfinite(shift) and self._incumbent.offer_bound(
            matrix.upper_bound(self._graph, shift)
        ):
            self._bound_certificate = (
                f"holds with probability at least 1 - {FAILURE_PROBABILITY:g} over the "
                "certificate's random start vectors"
            )
        return shift <= target

    def _prove(self, matrix: DualMatrix, shift: float) -> None:
        """Show the bound by factorisation, with a shift no smaller than needed."""
        assert self._proof is not None
        budget = self._budget
        until = budget.share(_PROOF_SHARE)
        if not math.isfinite(shift):
            shift = 1e-3
        for _ in range(_PROOF_ATTEMPTS):
            shift = 1.05 * shift + self._proof.inflation()
            diagonal = (1.0 + shift) * matrix.dual
            present = diagonal > 0.0
            outcome = self._proof.succeeds(np.where(present, diagonal, 1.0), budget, until)
            if outcome is None:
                return
            if outcome:
                # (1 + shift) was rounded once in each entry of the diagonal.
                proven = (1.0 + shift) * (1.0 + self._proof.inflation() + 1e-15) - 1.0
                if self._incumbent.offer_bound(matrix.upper_bound(self._graph, proven)):
                    self._bound_certificate = "proven: the shifted matrix was factorised"
                return
            shift *= 2.0

    def _tighten(self) -> None:
        """Add odd-cycle inequalities to the relaxation, or to a linear programme."""

        def offer(found: TightBound) -> None:
            if self._incumbent.offer_bound(found.upper_bound):
                self._bound_certificate = found.certificate
            self._incumbent.report("tight")

        offer(
            tight_bound(
                self._csr,
                target=self._incumbent.value,
                seed=self._tight_seed,
                delta=0.5 * FAILURE_PROBABILITY,
                budget=self._budget,
                until=self._budget.share(_TIGHT_SHARE),
                on_round=offer,
            )
        )

    def _round_relaxation(self) -> None:
        """Round the relaxation a few times: a first good cut."""
        assert self._relaxation is not None
        signs = np.empty(self._graph.n_vertices, np.int8)
        for _ in range(4):
            self._relaxation.round(self._rounding_generator, signs)
            self._incumbent.offer(signs, self._local_search.improve(signs))
            if self._budget.expired:
                return

    def _search(self) -> None:
        if self._budget.expired:
            return
        search = AnnealedSearch(
            self._graph,
            self._search_seeds,
            sweeps=self._sweeps,
            n_threads=self._options.n_threads,
            initial=self._initial,
            budget=self._budget,
            incumbent=self._incumbent,
        )
        search.run()
        self._is_exact = search.is_exact

    def _fill_pool(self) -> None:
        """Where the search left room in the pool, offer neighbours until none is good enough."""
        pool, count = self._pool, self._options.n_solutions
        if pool is None or pool.full or self._options.min_distance > 1:
            return  # of two neighbours one would be too near
        seen: set[bytes] = set()
        while fresh := [signs for signs in pool.cuts() if signs.tobytes() not in seen]:
            for signs in fresh:
                seen.add(signs.tobytes())
                for neighbour, value in self._local_search.neighbours(signs, count):
                    if self._budget.expired:
                        return
                    if not pool.offer(neighbour, value):
                        break  # the others are no better

    def _descend(self) -> None:
        """Follow the smoothed objective from the relaxation to a certified point."""
        if self._budget.expired or self._relaxation is None:
            return
        from derand_fast.descent import descend

        def offer(signs: NDArray[np.int8]) -> None:
            candidate = signs.copy()
            self._incumbent.offer(candidate, self._local_search.improve(candidate))
            self._incumbent.report("search")

        self._certificate = descend(
            self._options.method,
            self._graph,
            self._relaxation.rows,
            full_rank=self._options.rank is not None,
            seed=self._options.seed,
            n_threads=self._options.n_threads,
            budget=self._budget,
            progress=self._options.progress,
            on_step=offer,
        )
        if self._certificate.status == Status.INTERRUPTED:
            self._budget.stop("interrupted")

    def _keep_promise(self) -> None:
        """Round the relaxation until the cut is no worse than the expectation of doing so."""
        if self._relaxation is None:
            return
        if self._expected_cut is None:
            # Interrupted while the rows moved on: value them as they are.
            self._sdp_value, _ = self._relaxation.dual()
            self._expected_cut = self._relaxation.expected_cut()
        rounding = 1e-12 * 0.5 * float(np.abs(self._csr.weights).sum())
        signs = np.empty(self._graph.n_vertices, np.int8)
        for _ in range(_PROMISE_ROUNDINGS):
            if self._incumbent.value >= self._expected_cut:
                return
            if self._incumbent.value >= self._expected_cut - rounding:
                # Equal but for the rounding of the closed form.
                self._expected_cut = self._incumbent.value
                return
            self._relaxation.round(self._rounding_generator, signs)
            self._incumbent.offer(signs, self._local_search.improve(signs))
        raise RuntimeError(
            f"{_PROMISE_ROUNDINGS} roundings stayed below their expectation "
            f"{self._expected_cut}; please report this graph"
        )

    def _result(self) -> CutResult:
        incumbent, contraction, budget = self._incumbent, self._contraction, self._budget
        solutions = _solutions(self._whole, incumbent.cuts())
        value = solutions[0].cut_value
        # Values found on the way are good to rounding; none may exceed the correctly rounded one.
        history = [
            row._replace(cut_value=min(row.cut_value, value)) for row in incumbent.history[:-1]
        ]
        history.append(incumbent.history[-1]._replace(cut_value=value))
        sdp_value, expected = self._sdp_value, self._expected_cut
        return CutResult(
            cut_value=value,
            partition=solutions[0].partition,
            sets=_sides(self._whole, solutions[0].partition),
            upper_bound=history[-1].upper_bound,
            sdp_value=None if sdp_value is None else contraction.value(sdp_value),
            expected_cut=None if expected is None else min(contraction.value(expected), value),
            history=tuple(history),
            seconds={**budget.phases, "total": budget.elapsed()},
            seed=self._options.seed,
            method=self._options.method,
            message=self._message(),
            sweeps=incumbent.sweeps,
            bound_certificate=self._bound_certificate,
            certificate=self._certificate,
            solutions=solutions,
        )

    def _message(self) -> str:
        if self._budget.stop_reason is not None:
            return self._budget.stop_reason
        if self._certificate is not None:
            return self._certificate.message
        if self._incumbent.optimal:
            return self._incumbent.optimal
        if self._is_exact:
            return "every vertex was eliminated: optimal but for rounding"
        if self._sweeps is None or self._incumbent.sweeps < self._sweeps - 1:
            return "time limit reached"
        return f"all {self._incumbent.sweeps} sweeps done"


_TIME_BAR = "{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}"


def _edgeless(contraction: Contraction, options: _Options, budget: Budget) -> CutResult:
    """Return the only cut there is, or the empty one of many that are equal."""
    signs = np.ones(contraction.graph.n_vertices, np.int8)
    solutions = _solutions(contraction.original, [contraction.partition(signs)])
    value = solutions[0].cut_value
    known = value if options.bound else None
    undecided = "the graph has no edges"
    if contraction.original.n_edges > 0:
        undecided = "the fixed vertices decide every edge"
    return CutResult(
        cut_value=value,
        partition=solutions[0].partition,
        sets=_sides(contraction.original, solutions[0].partition),
        upper_bound=contraction.bound(0.0) if options.bound else None,
        sdp_value=known,
        expected_cut=known,
        history=(),
        seconds={**budget.phases, "total": budget.elapsed()},
        seed=options.seed,
        method=options.method,
        message=f"optimal: {undecided}",
        sweeps=0,
        bound_certificate="proven: the sum of the positive weights" if options.bound else None,
        solutions=solutions,
    )


def _solutions(csr: CSRGraph, cuts: list[NDArray[np.int8]]) -> tuple[Solution, ...]:
    """Value cuts exactly; best first, and else in the order given."""
    solutions = [Solution(exact_cut_value(csr, cut), _read_only(cut)) for cut in cuts]
    return tuple(sorted(solutions, key=lambda solution: -solution.cut_value))


def _sides(csr: CSRGraph, signs: NDArray[np.int8]) -> tuple[frozenset[Any], frozenset[Any]]:
    labels = range(csr.n_vertices) if csr.labels is None else csr.labels
    plus = frozenset(label for label, sign in zip(labels, signs.tolist(), strict=True) if sign > 0)
    minus = frozenset(label for label, sign in zip(labels, signs.tolist(), strict=True) if sign < 0)
    return plus, minus


def _read_only(signs: NDArray[np.int8]) -> NDArray[np.int8]:
    signs.flags.writeable = False
    return signs


def _signs_of(initial: Any, csr: CSRGraph) -> NDArray[np.int8]:
    """Turn the caller's initial cut into signs."""
    if isinstance(initial, (set, frozenset)):
        labels = range(csr.n_vertices) if csr.labels is None else csr.labels
        unknown = initial.difference(labels)
        if unknown:
            raise ValueError(f"initial holds {next(iter(unknown))!r}, which is no vertex")
        return np.array([1 if label in initial else -1 for label in labels], dtype=np.int8)
    try:
        signs = np.asarray(initial)
    except ValueError as error:  # ragged rows
        raise ValueError(f"initial must be one row of signs, not {initial!r}: {error}") from None
    if signs.dtype.kind not in "iuf":
        raise TypeError(
            f"initial must be an array of +1 and -1 or a set of vertices, not {initial!r}"
        )
    if signs.shape != (csr.n_vertices,):
        raise ValueError(
            f"initial has shape {signs.shape}; one sign for each of the {csr.n_vertices} vertices "
            "is needed"
        )
    wrong = np.flatnonzero((signs != 1) & (signs != -1))
    if wrong.size:
        raise ValueError(f"initial[{wrong[0]}] is {signs[wrong[0]]}; signs must be +1 or -1")
    return signs.astype(np.int8)


def check_options(
    *,
    method: str = "anneal",
    rank: int | None = None,
    time_limit: float | None = None,
    effort: str | float | None = None,
    sweeps: int | None = None,
    target: float | None = None,
    n_solutions: int = 1,
    min_distance: int = 1,
    seed: int = 0,
    n_threads: int | None = None,
    bound: Bound = True,
    progress: bool = False,
    callback: Callable[[SearchState], object] | None = None,
) -> _Options:
    """Check every argument before any work."""
    if not isinstance(method, str):
        raise TypeError(f"method must be a string, not {method!r}")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if isinstance(bound, np.bool_):
        bound = bool(bound)
    if not (isinstance(bound, bool) or (isinstance(bound, str) and bound in ("proof", "tight"))):
        raise ValueError(f"bound must be True, False, 'proof' or 'tight', not {bound!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    if time_limit is not None:
        _check_positive("time_limit", time_limit, "a number of seconds")
    if target is not None:
        target = finite_number("target", target, -math.inf)
    if progress and importlib.util.find_spec("tqdm") is None:
        raise ImportError('progress=True needs tqdm: pip install "derand-fast[progress]"')
    for name, plan in (("sweeps", sweeps), ("effort", effort)):
        if plan is not None and method != "anneal":
            raise ValueError(f"{name} is {plan!r}, but method {method!r} has no annealing sweeps")
    if effort is not None and sweeps is not None:
        raise ValueError(f"effort is {effort!r} and sweeps is {sweeps!r}; give one of them")
    if effort is None and sweeps is None and time_limit is None:
        effort = "normal"
    return _Options(
        method=method,
        rank=None if rank is None else whole_number("rank", rank, 1),
        sweeps=None if sweeps is None else whole_number("sweeps", sweeps, 1),
        effort=None if effort is None else _effort(effort),
        target=target,
        n_solutions=whole_number("n_solutions", n_solutions, 1),
        min_distance=whole_number("min_distance", min_distance, 1),
        seed=whole_number("seed", seed, 0),
        n_threads=thread_count(n_threads),
        bound=bound,
        progress=bool(progress),
        callback=callback,
    )


def _check_positive(name: str, number: Any, kind: str) -> None:
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"{name} must be {kind}, not {number!r}")
    if not 0.0 < float(number) < math.inf:
        raise ValueError(f"{name} is {number}; it must be positive and finite")


def _effort(effort: Any) -> float:
    """Return the multiple of normal effort."""
    if not isinstance(effort, str):
        _check_positive("effort", effort, f"one of {', '.join(EFFORTS)} or a number")
        return float(effort)
    if effort not in EFFORTS:
        raise ValueError(f"unknown effort {effort!r}; choose one of {', '.join(EFFORTS)}")
    return EFFORTS[effort]
