r"""Upper bounds tighter than the relaxation's: odd-cycle inequalities and their multipliers.

Along any closed walk a cut is crossed an even number of times. So if an odd number of the walk's
steps are marked "odd", the cut cannot contain exactly these; with x_e = 1 where edge e is cut,

    sum_{odd steps} (1 - x_e) + sum_{other steps} x_e >= 1:

the odd-cycle inequalities of Barahona and Mahjoub (a walk may use an edge twice; both sides are
integers, so nothing changes). Written sigma_C . x <= r_C, with sigma_C,e = (odd steps) - (other
steps) along e and r_C = (number of odd steps) - 1, any multipliers y_C >= 0 give for every cut

    w . x  <=  sum_C y_C r_C  +  w' . x,        w' = w - sum_C y_C sigma_C,

so that an upper bound on the cuts of the graph with weights w' is one on those of w: the sum of its
positive weights, which linear programming makes the smallest over all y; or its semidefinite
relaxation, certified like any other. Nothing has to be solved well for this to hold: floating-point
solvers propose y, and `Lagrangian` computes the bound that follows from it, roundings included.

On planar graphs the linear programme is exact; on grids with +1 and -1 on a torus, where the
semidefinite bound is 10 % off, it mostly is.

References: Barahona and Mahjoub, "On the cut polytope", Math. Programming 36 (1986). Barahona,
Juenger and Reinelt, "Experiments in quadratic 0-1 programming", Math. Programming 44 (1989).
Fischer, Gruber, Rendl and Sotirov, "Computational experience with a bundle approach for
semidefinite cutting plane relaxations of Max-Cut and Equipartition", Math. Programming 105 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from derand_fast.bounds import FAILURE_PROBABILITY, ChebyshevCertificate, DualMatrix
from derand_fast.budget import Budget
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.kernels.odd_cycles import shortest_odd_walks
from derand_fast.kernels.row_ascent import PANEL, mixing_rows
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank, padded_unit_rows

__all__ = ["Lagrangian", "OddWalks", "TightBound", "tight_bound"]

FloatArray = NDArray[np.float64]

_UNIT_ROUNDOFF = 2.0**-53
# A walk counts as violated if it is this much shorter than 1.
_VIOLATION = 1e-4
# Each step costs a toll in the search for short walks, so that among equals those with few steps
# win: with none a first round on a grid finds walks of 30 steps, and 40 rounds lead nowhere. The
# toll falls when walks run out or the bound stops falling.
_FIRST_TOLL = 0.1
_LAST_TOLL = 1e-4
_TOLL_RATIO = 0.25
_TOLLED_STEPS = 4.0
_STALL = 2e-5
_MAX_ROUNDS = 200
# Linear programmes are degenerate: the bound may rest for some rounds before it falls again.
_PATIENCE = 24
# Rows of the linear programme that are this far from tight are dropped.
_SLACK = 0.2
_WALK_ENTRIES = 1 << 24
# Edges a vertex up to which the linear programme is the tighter.
_PROGRAMME_DEGREE = 3.5
# Subgradient steps: how many, and sweeps, factor of over-relaxation and toll in each.
_STEPS = 300
_STEP_SWEEPS = 5
_STEP_OVER = 1.7
_STEP_TOLL = 0.1
_SEPARATE_EVERY = 8
_MOMENTUM = 0.7
# Polyak's target is this part below the best value; halved when steps stop helping.
_FIRST_LEVEL = 0.01
_LEVEL_PATIENCE = 12
_LAST_LEVEL = 2e-5
# A walk is dropped after so many steps with multiplier 0.
_IDLE_STEPS = 16
_FINAL_SWEEPS = 200
# Of limited time the ascent takes this part, the last sweeps and the certificate what is left.
_ASCENT_SHARE = 0.6
_CERTIFICATE_STEP = 20
_MAX_CERTIFICATE_STEPS = 3000
# The certificate ends when its bound is within this of the relaxation's value.
_CERTIFICATE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Edges:
    """The edges of a graph, each once, and which of them each stored entry is."""

    graph: CSRGraph
    tails: NDArray[np.int32]
    edge_of: NDArray[np.int32]
    weights: FloatArray

    @classmethod
    def of(cls, graph: CSRGraph) -> Edges:
        """Number the edges by rows: tail below head. O(m log m)."""
        tails = np.repeat(np.arange(graph.n_vertices, dtype=np.int32), np.diff(graph.indptr))
        low = np.minimum(tails, graph.indices).astype(np.int64)
        keys = low * graph.n_vertices + np.maximum(tails, graph.indices)
        upper = tails < graph.indices
        edge_of = np.searchsorted(keys[upper], keys).astype(np.int32)
        places = np.minimum(edge_of, max(int(upper.sum()) - 1, 0))
        if keys.size and not np.array_equal(keys[upper][places], keys):
            raise ValueError("rows of the graph must be sorted and symmetric; use as_graph")
        return cls(graph, tails, edge_of, graph.weights[upper])


@dataclass(frozen=True, slots=True)
class OddWalks:
    """Closed walks with marked steps, an odd number in each: the inequalities sigma x <= r.

    Attributes
    ----------
    sigma : (k, m) sparse array
        For each walk and edge the number of marked steps less that of the others.
    right_sides : (k,) float64 array
        The number of marked steps less 1.
    """

    sigma: scipy.sparse.csr_array[np.float64]
    right_sides: FloatArray

    @classmethod
    def none(cls, n_edges: int) -> OddWalks:
        """No walks yet."""
        return cls(scipy.sparse.csr_array((0, n_edges)), np.zeros(0))

    @classmethod
    def of(cls, edges: list[NDArray[np.int32]], odd: list[NDArray[np.bool_]], m: int) -> OddWalks:
        """Make inequalities of walks: edge numbers, and marks, step by step."""
        indptr = np.concatenate(([0], np.cumsum([len(walk) for walk in edges], dtype=np.int64)))
        marks = np.concatenate([np.zeros(0, np.bool_), *odd])
        steps = np.concatenate([np.zeros(0, np.int32), *edges])
        sigma = scipy.sparse.csr_array(
            (np.where(marks, 1.0, -1.0), steps, indptr), shape=(len(edges), m)
        )
        sigma.sum_duplicates()
        return cls(sigma, np.array([marks.sum() - 1.0 for marks in odd]))

    def __len__(self) -> int:
        """Return the number of walks."""
        return int(self.right_sides.size)

    def joined(self, others: OddWalks) -> OddWalks:
        """Return these walks and then others."""
        sigma = scipy.sparse.csr_array(scipy.sparse.vstack([self.sigma, others.sigma], "csr"))
        return OddWalks(sigma, np.concatenate((self.right_sides, others.right_sides)))

    def kept(self, which: NDArray[np.bool_]) -> OddWalks:
        """Return the walks of a mask."""
        return OddWalks(self.sigma[which], self.right_sides[which])

    def slack(self, point: FloatArray) -> FloatArray:
        """Return r - sigma x."""
        return self.right_sides - np.asarray(self.sigma @ point)


@dataclass(frozen=True, slots=True)
class Lagrangian:
    """Weights w' and a constant with w . x <= constant + w' . x for every cut x.

    In floating point each w'_e is off by at most gamma_(k + 2) (|w_e| + sum |y_C sigma_C,e|), with
    k the number of walks along e. The constant includes the sum of these errors, and its own.

    Attributes
    ----------
    weights : (m,) float64 array
    constant : float
    """

    weights: FloatArray
    constant: float

    @classmethod
    def of(cls, weights: FloatArray, walks: OddWalks, multipliers: FloatArray) -> Lagrangian:
        """Compute w' and the constant; negative multipliers count as 0."""
        y = np.maximum(multipliers, 0.0)
        if not np.isfinite(y).all():
            y = np.zeros_like(y)
        columns = scipy.sparse.csc_array(walks.sigma)
        magnitudes = np.abs(weights) + np.asarray(abs(columns).T @ y)
        walks_along = np.diff(columns.indptr).max(initial=0)
        # gamma_k <= 2 k u, as k u < 1 / 2.
        error = 2.0 * (float(walks_along) + 4.0) * _UNIT_ROUNDOFF
        terms = y * walks.right_sides
        constant = math.fsum(terms.tolist())
        slack = error * math.fsum(magnitudes.tolist()) + 4.0 * _UNIT_ROUNDOFF * constant
        return cls(weights - np.asarray(columns.T @ y), constant + 2.0 * slack)

    def trivial_bound(self) -> float:
        """Return the constant and the positive parts of w', rounded up."""
        positive = math.fsum(np.maximum(self.weights, 0.0).tolist())
        bound = self.constant + positive
        return bound + 4.0 * _UNIT_ROUNDOFF * (abs(self.constant) + positive)

    def bound(self, bound: float) -> float:
        """Return an upper bound for w from one for w', rounded up."""
        return bound + self.constant + 2.0 * _UNIT_ROUNDOFF * (abs(bound) + abs(self.constant))


@dataclass(frozen=True, slots=True)
class TightBound:
    """An upper bound on the maximum cut, and how it came about.

    Attributes
    ----------
    upper_bound : float
    certificate : str
        What is proven.
    lagrangian : Lagrangian
        The multipliers' weights: any bound on their cuts gives one on the graph's. Like the
        multipliers in units of ``scale``.
    walks : OddWalks
    multipliers : (k,) float64 array
    scale : float
        A power of two.
    """

    upper_bound: float
    certificate: str
    lagrangian: Lagrangian
    walks: OddWalks
    multipliers: FloatArray
    scale: float = 1.0


def tight_bound(
    graph: CSRGraph,
    *,
    target: float = -math.inf,
    seed: int | np.random.SeedSequence = 0,
    delta: float = FAILURE_PROBABILITY,
    budget: Budget | None = None,
    until: float = math.inf,
    on_round: Callable[[TightBound], object] | None = None,
) -> TightBound:
    """Bound the maximum cut by odd-cycle inequalities: by a linear programme, or by the relaxation.

    Up to 3.5 edges a vertex (grids, chains, trees with few extra edges) the linear programme is the
    tighter of the two and the multipliers are its dual solution: a proof. Denser graphs take
    multipliers of the semidefinite relaxation, found by subgradient steps between sweeps.

    Parameters
    ----------
    graph : CSRGraph
    target : float
        The value of a cut: the search ends when the bound, rounded down to an integer if the
        weights are integral, is no more than that.
    seed : int or numpy.random.SeedSequence
    delta : float
        Failure probability of the relaxation's certificate.
    budget : Budget, optional
    until : float
        Moment of ``budget`` at which to end, with the best bound so far.
    on_round : callable, optional
        Called after each round with the best bound proven so far.

    Returns
    -------
    TightBound
        At worst the sum of the positive weights.

    Notes
    -----
    Both look for short walks by n truncated runs of Dijkstra's algorithm a round: milliseconds to
    seconds. A linear programme takes HiGHS 20 ms at 1,600 edges of a torus, about a second at
    15,000; a subgradient step is five sweeps of the relaxation. Memory O(n + m + steps of the
    walks).

    Examples
    --------
    The ring of five: the relaxation's bound is 4.52, the largest cut 4.

    >>> ring = as_graph((5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0)], None))
    >>> round(tight_bound(ring).upper_bound, 6)
    4.0
    """
    budget = Budget(None) if budget is None else budget
    if graph.n_edges == 0:
        return _proven(np.zeros(0), OddWalks.none(0), np.zeros(0))
    scale = ScaledGraph.of(graph).scale
    scaled = CSRGraph(graph.indptr, graph.indices, graph.weights / scale)

    def reached(bound: float) -> bool:
        bound *= scale
        return (math.floor(bound) if graph.integral else bound) <= target

    def in_units(bound: TightBound) -> TightBound:
        return replace(bound, upper_bound=bound.upper_bound * scale, scale=scale)

    def report(bound: TightBound) -> None:
        if on_round is not None:
            on_round(in_units(bound))

    programme = _Programme(scaled)
    best = programme.best
    if graph.n_edges <= _PROGRAMME_DEGREE * graph.n_vertices:
        best = _by_linear_programme(programme, reached, budget, until, report)
    elif not budget.past(until):
        clock = _Clock(budget, until)
        relaxed = _by_relaxation(scaled, reached, seed, delta, clock, lambda: report(best))
        best = min(best, relaxed, key=lambda bound: bound.upper_bound)
    return in_units(best)


def _by_linear_programme(
    programme: _Programme,
    reached: Callable[[float], bool],
    budget: Budget,
    until: float,
    report: Callable[[TightBound], None],
) -> TightBound:
    toll = _FIRST_TOLL
    stalled = 0
    for _ in range(_MAX_ROUNDS):
        before = programme.best.upper_bound
        if reached(before) or budget.past(until):
            break
        found = programme.separate(toll)
        if found and not programme.solve(budget, until):
            break
        report(programme.best)
        fell = before - programme.best.upper_bound > _STALL * abs(before)
        stalled = 0 if fell else stalled + 1
        if stalled >= _PATIENCE or (toll <= _LAST_TOLL and not found):
            break
        if not (found and fell):
            # From the lowest toll back to the first: other walks at another point.
            toll = toll * _TOLL_RATIO if toll > _LAST_TOLL else _FIRST_TOLL
    return programme.best


class _Programme:
    """The linear programme over the inequalities found so far."""

    def __init__(self, graph: CSRGraph) -> None:
        self.edges = Edges.of(graph)
        weights = self.edges.weights
        self._walks = OddWalks.none(weights.size)
        self.best = _proven(weights, self._walks, np.zeros(0))
        # Without inequalities the best point has every positive edge.
        self._point = (weights > 0.0).astype(np.float64)

    def separate(self, toll: float) -> bool:
        """Add violated inequalities, the shortest through each vertex; returns if there are any."""
        found = _violated_walks(self.edges, self._point, toll)
        self._walks = self._walks.joined(found)
        return len(found) > 0

    def solve(self, budget: Budget, until: float) -> bool:
        """Solve the programme, keep the bound if it is better; False if the solver gave up."""
        from scipy.optimize import linprog  # slow to import, and only tight bounds need it

        walks, weights = self._walks, self.edges.weights
        seconds = min(until - budget.elapsed(), budget.remaining())
        solution: Any = linprog(  # type: ignore[call-overload]  # the stubs know no sparse A_ub
            -weights,
            A_ub=walks.sigma,
            b_ub=walks.right_sides,
            bounds=(0.0, 1.0),
            method="highs-ipm",
            options={"time_limit": max(seconds, 0.01)} if math.isfinite(seconds) else {},
        )
        if solution.x is None or solution.ineqlin.marginals is None:
            return False
        multipliers = np.maximum(-np.asarray(solution.ineqlin.marginals), 0.0)
        proven = _proven(weights, walks, multipliers)
        if proven.upper_bound < self.best.upper_bound:
            self.best = proven
        self._point = np.clip(solution.x, 0.0, 1.0)
        self._walks = walks.kept((walks.slack(self._point) < _SLACK) | (multipliers > 0.0))
        return True


def _proven(weights: FloatArray, walks: OddWalks, multipliers: FloatArray) -> TightBound:
    lagrangian = Lagrangian.of(weights, walks, multipliers)
    certificate = f"proven: multipliers of {np.count_nonzero(multipliers)} odd-cycle inequalities"
    return TightBound(lagrangian.trivial_bound(), certificate, lagrangian, walks, multipliers)


def _violated_walks(edges: Edges, point: FloatArray, toll: float) -> OddWalks:
    """Return the distinct violated inequalities among the shortest through each vertex."""
    graph = edges.graph
    n, m = graph.n_vertices, edges.weights.size
    nodes = 2 * n
    scratch = [np.empty(nodes, np.int64) for _ in range(4)]
    distance = np.full(nodes, np.inf)
    sources = np.arange(n, dtype=np.int32)
    ends = np.zeros(n, np.int64)
    steps = np.empty(min(_WALK_ENTRIES, 200 * n), np.int32)
    odd = np.empty(steps.size, np.bool_)
    done = shortest_odd_walks(
        graph.indptr,
        graph.indices,
        edges.tails,
        edges.edge_of,
        point,
        toll,
        sources,
        1.0 - _VIOLATION + _TOLLED_STEPS * toll,
        distance,
        *scratch,
        ends,
        steps,
        odd,
    )
    starts = np.concatenate(([0], ends[: max(done - 1, 0)]))
    distinct: dict[tuple[bytes, bytes], tuple[NDArray[np.int32], NDArray[np.bool_]]] = {}
    for start, end in zip(starts.tolist(), ends[:done].tolist(), strict=False):
        order = start + np.argsort(steps[start:end], kind="stable")
        walk, marks = steps[order], odd[order]
        length = np.where(marks, 1.0 - point[walk], point[walk]).sum()
        if end > start and length < 1.0 - _VIOLATION:
            distinct.setdefault((walk.tobytes(), marks.tobytes()), (walk, marks))
    walks = list(distinct.values())
    return OddWalks.of([walk for walk, _ in walks], [marks for _, marks in walks], m)


class _Ascent:
    """Subgradient descent of the relaxation's value over the multipliers.

    The value f(y) = sum_C y_C r_C + SDP(w'(y)) is convex, with subgradient r - sigma x at the
    optimal rows' x_ij = (1 - v_i . v_j) / 2. Rows follow y by a few sweeps, so that steps are
    inexact; the bound is certified for the y that seemed best.
    """

    def __init__(
        self, scaled: CSRGraph, generator: np.random.Generator, expired: Callable[[], bool]
    ) -> None:
        self._expired = expired
        self._edges = Edges.of(scaled)
        self._tails, self._heads, self._weights = scaled.edges()
        n = scaled.n_vertices
        self._rows = padded_unit_rows(n, default_rank(n), generator)
        self._decreases = np.empty(n)
        self._walks = OddWalks.none(self._weights.size)
        self._multipliers = np.zeros(0)
        self._direction = np.zeros(0)
        self._idle = np.zeros(0, np.int64)
        self._level = _FIRST_LEVEL
        self._stalled = 0
        self._sweep(self._weights, _FINAL_SWEEPS // 4)
        self._value = self._semidefinite_value(self._weights)
        self.best = self._value
        self.best_walks, self.best_multipliers = self._walks, self._multipliers

    @property
    def converged(self) -> bool:
        """Whether steps have become too small to matter."""
        return self._level < _LAST_LEVEL

    def step(self, number: int) -> None:
        """Take one step; every eighth looks for new inequalities first."""
        point = np.clip(0.5 - 0.5 * self._cosines(), 0.0, 1.0)
        if number % _SEPARATE_EVERY == 0:
            self._renew(point)
        if len(self._walks) == 0:
            self._level = 0.0
            return
        y = self._multipliers
        violation = -self._walks.slack(point)
        violation[(y <= 0.0) & (violation < 0.0)] = 0.0
        self._direction = violation + _MOMENTUM * self._direction
        # Sums that do not depend on the threads of a BLAS.
        slope = float((self._direction * violation).sum())
        excess = self._value - (1.0 - self._level) * self.best
        if slope > 0.0:
            y = np.maximum(0.0, y + min(1.0, excess / slope) * self._direction)
        self._multipliers = y
        self._idle = np.where(y > 0.0, 0, self._idle + 1)
        weights = self._weights - np.asarray(self._walks.sigma.T @ y)
        self._sweep(weights, _STEP_SWEEPS)
        self._value = self._semidefinite_value(weights) + float((y * self._walks.right_sides).sum())
        self._judge()

    def _judge(self) -> None:
        if self._value < (1.0 - 1e-4 * self._level) * self.best:
            self.best = self._value
            self.best_walks, self.best_multipliers = self._walks, self._multipliers
            self._stalled = 0
            return
        self._stalled += 1
        if self._stalled >= _LEVEL_PATIENCE:
            self._level *= 0.5
            self._stalled = 0

    def _renew(self, point: FloatArray) -> None:
        """Drop walks that have been idle, add violated ones."""
        kept = self._idle < _IDLE_STEPS
        found = _violated_walks(self._edges, point, _STEP_TOLL)
        walks = self._walks.kept(kept)
        found = found.kept(~_contained(found, walks))
        self._walks = walks.joined(found)
        new = np.zeros(len(found))
        self._multipliers = np.concatenate((self._multipliers[kept], new))
        self._direction = np.concatenate((self._direction[kept], new))
        self._idle = np.concatenate((self._idle[kept], new.astype(np.int64)))

    def _sweep(self, weights: FloatArray, count: int) -> None:
        graph = self._edges.graph
        stored = weights[self._edges.edge_of].astype(np.float32)
        stored.flags.writeable = False  # like a graph's: one compilation
        n, columns = self._rows.shape
        for _ in range(count):
            if self._expired():
                return
            mixing_rows(
                graph.indptr,
                graph.indices,
                stored,
                self._rows.reshape(-1),
                columns // PANEL,
                _STEP_OVER,
                0,
                n,
                self._decreases,
            )

    def _cosines(self) -> FloatArray:
        products = np.einsum("ij,ij->i", self._rows[self._tails], self._rows[self._heads])
        return products.astype(np.float64)

    def _semidefinite_value(self, weights: FloatArray) -> float:
        return 0.5 * float((weights * (1.0 - self._cosines())).sum())


def _contained(walks: OddWalks, others: OddWalks) -> NDArray[np.bool_]:
    """Return which walks are among others."""
    known = set(_keys(others))
    return np.array([key in known for key in _keys(walks)], dtype=np.bool_)


def _keys(walks: OddWalks) -> list[tuple[bytes, bytes]]:
    ends = walks.sigma.indptr.tolist()
    edges, marks = walks.sigma.indices, walks.sigma.data
    return [
        (edges[start:end].tobytes(), marks[start:end].tobytes()) for start, end in pairwise(ends)
    ]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Until when the two parts of the work on the relaxation may go on."""

    budget: Budget
    until: float
    begin: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", self.budget.elapsed())

    def ascent_over(self) -> bool:
        """Whether the multipliers have had their share of the time."""
        if math.isinf(self.until):
            return self.budget.expired
        return self.budget.past(self.begin + _ASCENT_SHARE * (self.until - self.begin))

    def over(self) -> bool:
        """Whether all the time is spent."""
        return self.budget.past(self.until)


def _by_relaxation(
    scaled: CSRGraph,
    reached: Callable[[float], bool],
    seed: int | np.random.SeedSequence,
    delta: float,
    clock: _Clock,
    report: Callable[[], None],
) -> TightBound:
    """Descend over the multipliers, then certify the relaxation at the best of them."""
    sequence = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    row_seed, final_seed, certificate_seed = sequence.spawn(3)
    ascent = _Ascent(scaled, np.random.default_rng(row_seed), clock.ascent_over)
    for number in range(_STEPS):
        if ascent.converged or reached(ascent.best) or clock.ascent_over():
            break
        ascent.step(number)
        report()
    tails, heads, weights = scaled.edges()
    walks, multipliers = ascent.best_walks, ascent.best_multipliers
    lagrangian = Lagrangian.of(weights, walks, multipliers)
    pairs = np.column_stack((tails, heads))
    modified = as_graph((scaled.n_vertices, pairs, lagrangian.weights))
    certificate_generator = np.random.default_rng(certificate_seed)
    certified = _certified(modified, final_seed, certificate_generator, delta, clock, report)
    bound = min(lagrangian.trivial_bound(), lagrangian.bound(certified))
    certificate = (
        f"holds with probability at least 1 - {delta:g} over the certificate's random start "
        f"vectors, with multipliers of {np.count_nonzero(multipliers)} odd-cycle inequalities"
    )
    return TightBound(bound, certificate, lagrangian, walks, multipliers)


def _certified(
    graph: CSRGraph,
    seed: np.random.SeedSequence,
    generator: np.random.Generator,
    delta: float,
    clock: _Clock,
    report: Callable[[], None],
) -> float:
    """Return the relaxation's bound, certified; infinite if the time did not suffice."""
    if graph.n_edges == 0:
        return 0.0
    scaled = ScaledGraph.of(graph)
    rank = default_rank(graph.n_vertices)
    relaxation = Relaxation(scaled, rank, np.random.default_rng(seed))
    relaxation.advance(_FINAL_SWEEPS, clock.budget, clock.until)
    value, dual = relaxation.dual()
    matrix = DualMatrix.of(scaled, dual)
    certificate = ChebyshevCertificate(scaled, matrix, generator, delta)
    bound = math.inf
    goal = value + _CERTIFICATE_TOLERANCE * abs(value)
    while certificate.steps < _MAX_CERTIFICATE_STEPS and not certificate.exhausted:
        if bound <= goal or clock.over():
            break
        certificate.advance(_CERTIFICATE_STEP, clock.budget)
        report()
        shift = certificate.shift()
        bound = matrix.upper_bound(scaled, shift) if math.isfinite(shift) else math.inf
    return bound
