"""max_cut: a deterministic cut of a weighted graph, and a bound on every cut."""

from __future__ import annotations

import functools
import importlib.util
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
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
from derand_fast.checks import whole_number
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.incumbent import Incumbent, SearchState
from derand_fast.optimize.result import SOSPResult, Status
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank
from derand_fast.results import CutResult
from derand_fast.threads import thread_count

__all__ = ["max_cut"]

METHODS = ("anneal", "pgd", "hessian-descent", "newton-cg")
# Without sweeps and time_limit: about six seconds of one thread, but not less than 200 sweeps.
_DEFAULT_EDGE_UPDATES = 1.2e9
_DEFAULT_SWEEPS = (200, 6000)
# The relaxation and its certificate may spend this part of a time limit; the proof, this part.
_RELAXATION_SHARE = 0.25
_BOUND_SHARE = 0.4
_PROOF_SHARE = 0.7
# The relaxation is solved until the bound is within this of its value, relatively.
_BOUND_TOLERANCE = 5e-4
_SDP_STEP = 10
# First look at the bound when a sweep gains less than this part of the total |weight|.
_SDP_GAIN = 5e-6
_MAX_SDP_SWEEPS = 4000
_CERTIFICATE_STEP = 20
_MAX_CERTIFICATE_STEPS = 3000
_GROWTH_WINDOW = 40
_PROOF_ATTEMPTS = 6
_PROMISE_ROUNDINGS = 10_000

Bound = bool | Literal["proof"]


@dataclass(frozen=True, slots=True)
class _Options:
    """Checked arguments of one call."""

    method: str
    rank: int | None
    sweeps: int | None
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
    sweeps: int | None = None,
    seed: int = 0,
    n_threads: int | None = None,
    bound: Bound = True,
    initial: Any = None,
    progress: bool = False,
    callback: Callable[[SearchState], object] | None = None,
) -> CutResult:
    r"""Find a large cut of a weighted graph, and an upper bound on every cut.

    Maximises ``sum_{i<j} w_ij (1 - s_i s_j) / 2`` over signs s. Goemans-Williamson rounding of the
    relaxation max sum w_ij (1 - v_i . v_j) / 2 over unit vectors is random; here its expected cut
    is ascended while its smoothing is taken away, until the vectors collapse to one line and the
    cut is deterministic. The relaxation's dual variables give the upper bound.

    Parameters
    ----------
    graph : networkx graph, scipy.sparse array, ndarray, tuple (n, edges, weights), path, CSRGraph
        Undirected; see `derand_fast.graphs.as_graph`. Weights may be negative.
    weight : str or None
        Edge attribute of a networkx graph; absent means 1, None means all 1.
    method : {"anneal", "newton-cg", "hessian-descent", "pgd"}
        "anneal", annealed derandomization with reheats, finds the best cuts. The others follow the
        smoothed objective of the paper from the relaxation's vectors, a strict saddle, down to a
        second-order stationary point, where the vectors' part W has collapsed and the signs of the
        biases are the cut; ``certificate`` says what is certified there.
    rank : int, optional
        Length of the relaxation's vectors; by default ceil(sqrt(2 n)) + 1, but 64 at the most. The
        descents project these to 8 dimensions unless a rank is given.
    time_limit : float, optional
        Seconds for the whole call, reading included. The call returns within 5 % + 50 ms of it
        (once compiled), with the best so far.
    sweeps : int, optional
        Annealing sweeps of all searches together. The result then depends on the seed only, not on
        time or threads. By default, without a time limit: 6000, or fewer on large graphs
        (1.2e9 / (2 m), at least 200). For method="anneal" only.
    seed : int
        Non-negative.
    n_threads : int, optional
        Threads at work; by default all cores that this process may use. With ``time_limit`` alone
        each thread runs a searcher of its own; a plan in sweeps has two searchers.
    bound : bool or "proof"
        True: solve the relaxation and certify its bound, which then holds with probability at
        least 1 - 1e-9 over the certificate's random start vectors, rounding errors included.
        "proof": the bound is shown by a factorisation, no probability left; memory
        8 n min(b + 256, n) bytes at bandwidth b. False: skip both, all time goes into the cut.
    initial : (n,) array of +1 and -1, or set of vertices, optional
        A cut to start from, or the vertices of one of its sides; the result is never worse.
    progress : bool
        Show a tqdm bar (extra ``progress``).
    callback : callable, optional
        Called some 20 times a second with a `SearchState`; a true result, or StopIteration, stops
        the call, which returns the best so far. So does KeyboardInterrupt.

    Returns
    -------
    CutResult
        ``cut_value`` is never below ``expected_cut``, the expectation of random rounding.

    Raises
    ------
    TypeError
        Wrong kind of graph or argument.
    ValueError
        Bad weights, asymmetric matrix, broken file, or an argument out of range; or "proof" on a
        graph whose factor does not fit into half of the memory.
    ImportError
        ``progress=True`` without tqdm.

    Notes
    -----
    Cost of an annealing sweep: about 70 m flops, 3 to 8 ns a stored edge; memory
    O(m + n (rank + 100)) float32. The relaxation costs 4 m rank flops a sweep.

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
    """
    options = _check_options(
        method, rank, sweeps, seed, n_threads, bound, progress, callback, time_limit
    )
    budget = Budget(time_limit)
    with budget.phase("read"):
        csr = as_graph(graph, weight=weight)
        start = None if initial is None else _signs_of(initial, csr)
    if csr.n_edges == 0:
        return _edgeless(csr, options, budget)
    with budget.phase("compile"):
        _compile_kernels()
    budget.begin_work()
    return _Solver(csr, options, budget, start).solve()


@functools.cache
def _compile_kernels() -> None:
    """Have every kernel compiled, or loaded from the disk cache, before time is shared out."""
    triangle = as_graph((3, [(0, 1), (1, 2), (0, 2)], [1.5, 1.5, 1.5]))
    options = _check_options("anneal", None, 60, 0, 1, True, False, None, None)
    if _Solver(triangle, options, Budget(None), None).solve().message == "interrupted":
        raise KeyboardInterrupt  # meant for the caller's graph, of which there is no cut yet


class _Solver:
    """One call on a graph that has edges: the phases in order, and what they hand on."""

    def __init__(
        self,
        csr: CSRGraph,
        options: _Options,
        budget: Budget,
        initial: NDArray[np.int8] | None,
    ) -> None:
        self._csr = csr
        self._options = options
        self._budget = budget
        self._initial = initial
        with budget.phase("start"):
            self._graph = ScaledGraph.of(csr)
            # Building the result takes about 0.2 us a vertex and 0.1 us an edge.
            budget.reserve(2e-7 * csr.n_vertices + 1e-7 * csr.n_edges)
            seeds = np.random.SeedSequence(options.seed).spawn(4)
            self._search_seeds = seeds[0]
            self._sdp_generator, self._certificate_generator, self._rounding_generator = (
                np.random.default_rng(child) for child in seeds[1:]
            )
            self._proof = BandFactorisation(self._graph) if options.bound == "proof" else None
            self._local_search = LocalSearch(self._graph)
            self._bound_certificate: str | None = None
            self._certificate: SOSPResult | None = None
            self._relaxation: Relaxation | None = None
            self._sdp_value: float | None = None
            self._expected_cut: float | None = None
            self._sweeps = self._plan()
            self._incumbent = self._first_incumbent()

    def solve(self) -> CutResult:
        """Run the phases; an interrupt ends them early and keeps what is found."""
        try:
            descends = self._options.method != "anneal"
            if self._options.bound or descends:
                self._solve_relaxation()
            with self._budget.phase("search"):
                self._descend() if descends else self._search()
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
        if self._options.sweeps is not None or self._budget.time_limit is not None:
            return self._options.sweeps
        least, most = _DEFAULT_SWEEPS
        return max(least, min(most, int(_DEFAULT_EDGE_UPDATES / self._graph.indices.size)))

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
                value = _exact_cut_value(self._csr, signs)
        incumbent = Incumbent(
            signs,
            value,
            bound,
            self._csr.integral,
            self._budget,
            self._options.callback,
            self._progress_bar(),
        )
        incumbent.offer(signs, value)
        return incumbent

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
            relaxation = Relaxation(self._graph, rank, self._sdp_generator)
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
                done = self._certify(dual, FAILURE_PROBABILITY * 2.0**-attempt, last)
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
        target = (self._sdp_value + _BOUND_TOLERANCE * abs(self._sdp_value) - plain) / slope
        certificate = ChebyshevCertificate(self._graph, matrix, self._certificate_generator, delta)
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
        AnnealedSearch(
            self._graph,
            self._search_seeds,
            sweeps=self._sweeps,
            n_threads=self._options.n_threads,
            initial=self._initial,
            budget=self._budget,
            incumbent=self._incumbent,
        ).run()

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
        incumbent = self._incumbent
        budget = self._budget
        signs = incumbent.signs * incumbent.signs[0]
        value = _exact_cut_value(self._csr, signs)
        # Values found on the way are good to rounding; none may exceed the correctly rounded one.
        history = [
            row._replace(cut_value=min(row.cut_value, value)) for row in incumbent.history[:-1]
        ]
        history.append(incumbent.history[-1]._replace(cut_value=value))
        expected = self._expected_cut
        return CutResult(
            cut_value=value,
            partition=_read_only(signs),
            sets=_sides(self._csr, signs),
            upper_bound=incumbent.upper_bound,
            sdp_value=self._sdp_value,
            expected_cut=None if expected is None else min(expected, value),
            history=tuple(history),
            seconds={**budget.phases, "total": budget.elapsed()},
            seed=self._options.seed,
            method=self._options.method,
            message=self._message(),
            sweeps=incumbent.sweeps,
            bound_certificate=self._bound_certificate,
            certificate=self._certificate,
        )

    def _message(self) -> str:
        if self._budget.stop_reason is not None:
            return self._budget.stop_reason
        if self._certificate is not None:
            return self._certificate.message
        if self._sweeps is None or self._incumbent.sweeps < self._sweeps - 1:
            return "time limit reached"
        return f"all {self._incumbent.sweeps} sweeps done"


_TIME_BAR = "{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}"


def _edgeless(csr: CSRGraph, options: _Options, budget: Budget) -> CutResult:
    """Return the empty cut, which is optimal."""
    signs = np.ones(csr.n_vertices, np.int8)
    known = 0.0 if options.bound else None
    return CutResult(
        cut_value=0.0,
        partition=_read_only(signs),
        sets=_sides(csr, signs),
        upper_bound=known,
        sdp_value=known,
        expected_cut=known,
        history=(),
        seconds={**budget.phases, "total": budget.elapsed()},
        seed=options.seed,
        method=options.method,
        message="optimal: the graph has no edges",
        sweeps=0,
        bound_certificate="proven: the sum of the positive weights" if options.bound else None,
    )


def _exact_cut_value(csr: CSRGraph, signs: NDArray[np.int8]) -> float:
    """Return the cut value, correctly rounded."""
    tails, heads, weights = csr.edges()
    return math.fsum(weights[signs[tails] != signs[heads]].tolist())


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


def _check_options(
    method: str,
    rank: int | None,
    sweeps: int | None,
    seed: int,
    n_threads: int | None,
    bound: Bound,
    progress: bool,
    callback: Callable[[SearchState], object] | None,
    time_limit: float | None,
) -> _Options:
    """Check every argument before any work."""
    if not isinstance(method, str):
        raise TypeError(f"method must be a string, not {method!r}")
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if isinstance(bound, np.bool_):
        bound = bool(bound)
    if not (isinstance(bound, bool) or (isinstance(bound, str) and bound == "proof")):
        raise ValueError(f"bound must be True, False or 'proof', not {bound!r}")
    if sweeps is not None and method != "anneal":
        raise ValueError(f"sweeps is {sweeps!r}, but method {method!r} has no annealing sweeps")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    if time_limit is not None:
        if isinstance(time_limit, bool) or not isinstance(time_limit, numbers.Real):
            raise TypeError(f"time_limit must be a number of seconds, not {time_limit!r}")
        if not 0.0 < time_limit < math.inf:
            raise ValueError(f"time_limit is {time_limit}; it must be positive and finite")
    if progress and importlib.util.find_spec("tqdm") is None:
        raise ImportError('progress=True needs tqdm: pip install "derand-fast[progress]"')
    return _Options(
        method=method,
        rank=None if rank is None else whole_number("rank", rank, 1),
        sweeps=None if sweeps is None else whole_number("sweeps", sweeps, 1),
        seed=whole_number("seed", seed, 0),
        n_threads=thread_count(n_threads),
        bound=bound,
        progress=bool(progress),
        callback=callback,
    )
