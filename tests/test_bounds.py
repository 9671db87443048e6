"""Upper bounds: the scaled matrix, the random certificate, the factorisation, the public bound."""

import dataclasses
import itertools
import math
from fractions import Fraction

import naive
import numpy as np
import pytest
import scipy.special

from derand_fast import bounds, max_cut
from derand_fast.bounds import BandFactorisation, ChebyshevCertificate, DualMatrix, trivial_bound
from derand_fast.budget import Budget
from derand_fast.generators import random_graph, torus_grid
from derand_fast.graphs import CSRGraph, as_graph
from derand_fast.kernels.chebyshev import chebyshev_start, chebyshev_steps
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank

UNIT = 2.0**-53
NO_LIMIT = math.inf


def path(n, weight=1.0):
    return as_graph((n, [(i, i + 1) for i in range(n - 1)], [weight] * (n - 1)))


def star(n):
    return as_graph((n, [(0, i) for i in range(1, n)], None))


def disjoint(*graphs):
    """Put graphs side by side."""
    edges, weights, n = [], [], 0
    for graph in graphs:
        tails, heads, values = graph.edges()
        edges += [(i + n, j + n) for i, j in zip(tails.tolist(), heads.tolist(), strict=True)]
        weights += values.tolist()
        n += graph.n_vertices
    return as_graph((n, edges, weights))


def gaussian(n, density, seed):
    """Random graph with normal weights; the last vertex is isolated."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < density, 1)
    upper[:, -1] = False
    upper[0, 1] = True
    pairs = np.argwhere(upper)
    return as_graph((n, pairs, rng.normal(size=len(pairs))))


def dual_of(graph, sweeps, seed=0):
    """Dual variables after some sweeps of the relaxation."""
    relaxation = Relaxation(graph, default_rank(graph.n_vertices), np.random.default_rng(seed))
    relaxation.advance(sweeps, Budget(None))
    return relaxation.dual()[1]


def problem(csr, sweeps=20, seed=0):
    """A scaled graph, and S from its dual variables."""
    graph = ScaledGraph.of(csr)
    return graph, DualMatrix.of(graph, dual_of(graph, sweeps, seed))


def adjacency(graph):
    return naive.adjacency_from_csr(graph.indptr, graph.indices, graph.weights)


def scaled(graph, matrix):
    """S as a full array, from its definition I + Diag(y)^(-1/2) A Diag(y)^(-1/2)."""
    d = np.where(matrix.dual > 0, 1 / np.sqrt(np.where(matrix.dual > 0, matrix.dual, 1)), 0)
    return np.eye(graph.n_vertices) + d[:, None] * adjacency(graph) * d


def dense_error(S):
    """What eigvalsh may be wrong by: a few n units of the norm (backward stability)."""
    return 20 * len(S) * UNIT * np.abs(S).sum(axis=0).max()


def certificate_of(graph, matrix, steps, seed=0, delta=1e-9):
    certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(seed), delta)
    certificate.advance(steps, Budget(None))
    return certificate


# --- Chebyshev kernels ----------------------------------------------------------------------------


@pytest.mark.parametrize("csr", [gaussian(23, 0.3, 1), torus_grid(4, 5, seed=0), star(9)])
def test_chebyshev_kernels_match_the_polynomial(csr):
    """z_k = T_k(2 S / top - 1) X from scipy's polynomial of the dense matrix, k = 0 to 30."""
    graph, matrix = problem(csr, sweeps=2)
    n, S = graph.n_vertices, scaled(graph, matrix)
    X = np.random.default_rng(0).normal(size=(n, LANES))
    values, vectors = np.linalg.eigh(S)
    t = 2 * values / matrix.top - 1
    arrays = graph.indptr, graph.indices, matrix.values, matrix.top

    def exact(degree):
        # eval_chebyt of an integer order runs the recurrence, on both sides of -1.
        return (vectors * scipy.special.eval_chebyt(degree, t)) @ (vectors.T @ X)

    previous, current = X.copy(), np.full((n, LANES), np.nan)
    chebyshev_start(*arrays, previous.reshape(-1), current.reshape(-1))
    # Some dozen roundings a step, each carried on by at most k T_k.
    size = np.linalg.norm(X) * np.abs(scipy.special.eval_chebyt(30, t)).max()
    tolerance = 31**2 * 100 * UNIT * size
    assert np.abs(previous - X).max() == 0
    assert np.abs(current - exact(1)).max() <= tolerance
    degree = 1
    for count in (2, 8, 20):
        squares = np.full((count, 1, LANES), np.nan)
        chebyshev_steps(*arrays, previous.reshape(-1), current.reshape(-1), 0, squares)
        degree += count
        assert np.abs(current - exact(degree)).max() <= tolerance
        assert np.abs(previous - exact(degree - 1)).max() <= tolerance
        for step in range(count):
            z = exact(degree - count + 1 + step)
            norms = np.linalg.norm(z, axis=0)
            assert np.abs(np.sqrt(squares[step, 0]) - norms).max() <= n * tolerance


# --- the scaled matrix ----------------------------------------------------------------------------

SCALED_CASES = {
    "gaussian": (gaussian(30, 0.3, 3), 5),
    "first_sweep": (gaussian(30, 0.3, 4), 1),
    "dense": (gaussian(25, 1.0, 5), 50),
    "signs": (torus_grid(5, 6, seed=1, weights="signs"), 50),
    "star": (star(40), 20),
    "path": (path(30, -2.5), 20),
    "edge": (path(2, 3.0), 3),
}


@pytest.mark.parametrize("name", SCALED_CASES)
def test_dual_matrix_holds_what_it_says(name):
    """Entries and duals agree to a few roundings; top is an upper bound, and a good one."""
    graph, matrix = problem(*SCALED_CASES[name])
    rows = np.repeat(np.arange(graph.n_vertices), np.diff(graph.indptr))
    N = graph.weights / np.sqrt(matrix.dual[rows] * matrix.dual[graph.indices])
    # Two roundings of the entry, one each of d_i and d_j as seen through y, three of this check.
    assert np.all(np.abs(matrix.values - N) <= 7 * UNIT * np.abs(N))
    assert matrix.max_degree == np.diff(graph.indptr).max()
    S = scaled(graph, matrix)
    eigenvalues = np.linalg.eigvalsh(S)
    assert matrix.top >= eigenvalues[-1] - dense_error(S)
    radius = np.linalg.eigvalsh(np.abs(S) - np.eye(graph.n_vertices))[-1]
    assert matrix.top >= 1 + radius - dense_error(S)
    # The vector of ones is the first of the iteration: never worse than the largest row sum ...
    row_sums = np.bincount(rows, weights=np.abs(matrix.values))
    assert matrix.top <= 1 + row_sums.max() * (1 + 1e-12)
    # ... and twelve steps come close, whatever the graph.
    assert matrix.top <= 1 + 1.15 * radius


def test_dual_matrix_keeps_good_duals():
    """Good y survive as they are but for a few roundings; the isolated vertex has none."""
    graph = ScaledGraph.of(gaussian(30, 0.3, 6))
    dual = dual_of(graph, 30)
    matrix = DualMatrix.of(graph, dual)
    total = np.abs(adjacency(graph)).sum(axis=1)
    assert np.all(dual[:-1] > 1e-4 * total[:-1])
    # Division, square root and two more: four roundings of 1/2 to 1 each, with some to spare.
    assert np.all(np.abs(matrix.dual - dual) <= 6 * UNIT * dual)
    assert dual[-1] == 0
    assert matrix.dual[-1] == 0


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-9])
def test_small_duals_are_raised(size):
    """At least 1e-4 of the vertex's |weight|; 0 stays for isolated vertices; S stays bounded."""
    graph = ScaledGraph.of(gaussian(20, 0.4, 7))
    total = np.abs(adjacency(graph)).sum(axis=1)
    matrix = DualMatrix.of(graph, np.full(20, size))
    connected = total > 0
    np.testing.assert_allclose(matrix.dual[connected], 1e-4 * total[connected], rtol=10 * UNIT)
    assert np.all(matrix.dual[~connected] == 0)
    # With y_i = t sum_j |w_ij| the matrix |N| is similar to a stochastic one over t = 1e-4; the
    # iteration comes within a percent.
    assert (1 + 1e4) * (1 - 1e-12) <= matrix.top <= 1.01e4
    S = scaled(graph, matrix)
    certificate = certificate_of(graph, matrix, 60)
    assert certificate.shift() >= -np.linalg.eigvalsh(S)[0] - dense_error(S)


@pytest.mark.parametrize("weight", [1e-290, 1e-310, 5e-324])
def test_vanishing_weights_give_finite_bounds(weight):
    """Next to a weight of 1 even the smallest double neither overflows nor spoils the bound."""
    csr = as_graph((5, [(0, 1), (1, 2), (2, 3), (0, 4)], [1.0, weight, weight, -weight]))
    graph = ScaledGraph.of(csr)
    matrix = DualMatrix.of(graph, np.zeros(5))
    assert np.all(matrix.dual > 0)
    assert np.all(np.isfinite(matrix.values))
    shift = certificate_of(graph, matrix, 200).shift()
    assert math.isfinite(shift)
    assert matrix.upper_bound(graph, shift) >= naive.largest_cut(*_arrays(csr))
    for bound in (True, "proof"):
        assert max_cut(csr, sweeps=20, bound=bound).upper_bound == pytest.approx(1.0, rel=1e-15)


def _arrays(csr: CSRGraph):
    return csr.indptr, csr.indices, csr.weights


def _exact_bound(csr, matrix, graph, shift):
    """W / 2 + (1 + shift) sum y / 4 in rational numbers, y at the top of its two roundings."""
    _, _, weights = csr.edges()
    total = sum((Fraction(w) for w in weights.tolist()), Fraction(0))
    dual = sum((Fraction(y) for y in matrix.dual.tolist()), Fraction(0)) * Fraction(graph.scale)
    dual *= 1 + Fraction(2, 2**53)
    return total / 2 + (1 + Fraction(shift)) * dual / 4, abs(total) + (1 + Fraction(shift)) * dual


@pytest.mark.parametrize("shift", [0.0, 1e-9, 0.3, 1e4])
@pytest.mark.parametrize("name", SCALED_CASES)
def test_upper_bound_is_rounded_up(name, shift):
    """Never below the exact formula, and above it by some roundings at most."""
    csr, sweeps = SCALED_CASES[name]
    for factor in (1.0, 1e-3, 7e290):
        tails, heads, weights = csr.edges()
        big = as_graph((csr.n_vertices, np.column_stack((tails, heads)), weights * factor))
        graph, matrix = problem(big, sweeps)
        exact, size = _exact_bound(big, matrix, graph, shift)
        bound = Fraction(matrix.upper_bound(graph, shift))
        assert exact <= bound <= exact + Fraction(12, 2**53) * size


def test_bound_from_the_exact_shift_holds_and_is_the_eigenvalue_bound():
    """With eps = -lambda_min(S) the formula bounds every cut, and is not far above."""
    for seed in range(20):
        csr = gaussian(12, 0.5, 40 + seed)
        graph, matrix = problem(csr, sweeps=1 + seed, seed=seed)
        S = scaled(graph, matrix)
        shift = max(0.0, -np.linalg.eigvalsh(S)[0] + dense_error(S))
        bound = matrix.upper_bound(graph, shift)
        best = naive.largest_cut(*_arrays(csr))
        assert bound >= best
        # One sweep is enough for this much.
        assert bound <= trivial_bound(graph) * 2.5
        # The statement behind it, at the matrix itself.
        y = (1 + shift) * matrix.dual
        assert np.linalg.eigvalsh(adjacency(graph) + np.diag(y))[0] >= -dense_error(S)


def test_scaling_the_weights_by_a_power_of_two_scales_the_bound():
    """All in between is the same, bit by bit, from near underflow to near overflow."""
    csr = gaussian(25, 0.3, 9)
    tails, heads, weights = csr.edges()
    results = []
    for exponent in (0, -700, 40, 900):
        moved = as_graph((25, np.column_stack((tails, heads)), np.ldexp(weights, exponent)))
        graph, matrix = problem(moved, 10)
        shift = certificate_of(graph, matrix, 40).shift()
        bound = math.ldexp(matrix.upper_bound(graph, shift), -exponent)
        results.append((shift, bound, matrix.top, math.ldexp(trivial_bound(graph), -exponent)))
    assert results == [results[0]] * 4


def test_trivial_bound_is_the_correctly_rounded_sum_of_positive_weights():
    weights = [0.1] * 10 + [1e16, -5.0, 1.0]
    csr = as_graph((14, [(i, i + 1) for i in range(13)], weights))
    exact = sum((Fraction(w) for w in weights if w > 0), Fraction(0))
    assert trivial_bound(ScaledGraph.of(csr)) == float(exact)


# --- the random certificate -----------------------------------------------------------------------


def _random_problem(seed):
    """Graphs of five kinds with duals of four kinds, from tight to far too small."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 45))
    csr = [
        lambda: gaussian(n, rng.uniform(0.05, 1.0), seed),
        lambda: random_graph(n, int(rng.integers(1, n * (n - 1) // 2 + 1)), seed=seed),
        lambda: torus_grid(int(rng.integers(2, 7)), int(rng.integers(3, 7)), seed=seed),
        lambda: star(n),
        lambda: disjoint(path(n), gaussian(n, 0.3, seed), path(3)),
    ][seed % 5]()
    graph = ScaledGraph.of(csr)
    dual = dual_of(graph, int(rng.integers(1, 60)), seed)
    kind = int(rng.integers(4))
    if kind == 1:
        dual = dual * rng.uniform(0.2, 2.0, graph.n_vertices)
    elif kind == 2:
        dual = np.full(graph.n_vertices, rng.uniform(0.1, 3.0))
    elif kind == 3:
        dual = np.where(rng.random(graph.n_vertices) < 0.1, 0.0, dual)
    return graph, DualMatrix.of(graph, dual), rng


def test_no_false_certificate_among_hundreds():
    """At delta = 1e-9 no shift may be too small, at any look, and none may be idle.

    ||z_k|| <= T_k(mu) ||X|| with mu of the true eigenvalue; so the certified angle exceeds the
    true one by log(2 ||x|| / q) / k at most (T_k(cosh a) lies between exp(k a) / 2 and exp(k a)).
    """
    delta = 1e-9
    q = scipy.special.ndtri(0.5 + 0.5 * delta ** (1 / 8))
    looks = 0
    for seed in range(300):
        graph, matrix, rng = _random_problem(seed)
        S = scaled(graph, matrix)
        smallest = np.linalg.eigvalsh(S)[0]
        certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(seed), delta)
        X = np.random.default_rng(seed).standard_normal((graph.n_vertices, LANES))
        angle = math.acosh(1 + 2 * max(0.0, -smallest) / matrix.top)
        excess = math.log(2 * np.linalg.norm(X, axis=0).max() / q)
        for _ in range(3):
            certificate.advance(2 * int(rng.integers(1, 40)), Budget(None))
            shift = certificate.shift()
            assert shift >= 0
            assert shift >= -smallest - dense_error(S)
            reach = angle + excess / certificate.steps
            # The rounding terms take up to 1e-6 of q here; dense_error for ``smallest``.
            largest = 0.5 * matrix.top * (math.cosh(reach * (1 + 1e-6)) - 1)
            # Larger angles than 4 are not looked at (fewer than ten steps); nor can vectors that
            # overflow certify.
            if reach <= 4.0 and not certificate.exhausted:
                looks += 1
                assert shift <= largest + dense_error(S) + 1e-12
    assert looks >= 750


@pytest.mark.parametrize("delta", [0.3, 0.02])
def test_failure_probability_is_what_is_claimed(delta):
    """At a large delta failures can be counted: about delta of the runs, all looks together.

    After many steps only the component along u is left, and the certificate fails exactly where
    all eight are below q. So the failures are binomial with probability delta, almost.
    """
    graph, matrix = problem(random_graph(30, 80, seed=3), sweeps=3)
    smallest, second = np.linalg.eigvalsh(scaled(graph, matrix))[:2]
    assert smallest < -0.01
    assert second > 0.3 * smallest
    runs, wrong, wrong_at_the_end = 400, 0, 0
    for seed in range(runs):
        certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(seed), delta)
        failed = False
        for steps in (10, 30, 60, 120, 200):
            certificate.advance(steps, Budget(None))
            failed_now = certificate.shift() < -smallest
            failed |= failed_now
        wrong += failed
        wrong_at_the_end += failed_now
    spread = math.sqrt(runs * delta * (1 - delta))
    # Four standard deviations up: one chance in 30,000, and the seeds are fixed.
    assert wrong <= runs * delta + 4 * spread
    # Two and a half down: the certificate wastes next to nothing, and the test can tell.
    assert wrong_at_the_end >= runs * delta - 2.5 * spread


@pytest.mark.parametrize("sweeps", [1, 5, 50, 500])
def test_shift_tightens_and_growth_tells_where_to(sweeps):
    """From 30 to 800 steps: falling, above the truth, near it at the end; growth finds it too."""
    graph, matrix = problem(random_graph(60, 200, seed=1), sweeps)
    truth = max(0.0, -np.linalg.eigvalsh(scaled(graph, matrix))[0])
    certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(3), 1e-9)
    assert certificate.growth(40) == 0.0  # before the window is full
    assert certificate.steps == 1
    shifts = []
    for steps in (30, 70, 100, 200):
        certificate.advance(steps, Budget(None))
        shifts.append(certificate.shift())
    assert certificate.steps == 401
    # The last norm wobbles where nothing grows; 5 % covers that.
    assert all(new <= 1.05 * old for old, new in itertools.pairwise(shifts))
    # The angle is out by log(2 ||X|| / q) / 400 = 0.013 at most: 1e-4 top / 4 + relative terms.
    assert truth <= shifts[-1] <= 1.15 * truth + 7e-4
    # Where the vector has grown by a factor of 100 and more the rate is that of u alone.
    assert certificate.growth(40) == pytest.approx(truth, rel=1e-3, abs=1e-5)


def test_certificate_matches_its_formula_in_many_digits():
    """The twin: dense z_k, mpmath inequality; true at the shift, false a little below it."""
    for seed, sweeps in [(1, 1), (2, 10), (3, 300)]:
        graph, matrix = problem(gaussian(18, 0.4, seed), sweeps)
        steps, delta, S = 31, 1e-9, scaled(graph, matrix)
        certificate = certificate_of(graph, matrix, steps - 1, seed, delta)
        assert certificate.steps == steps
        X = np.random.default_rng(seed).standard_normal((18, LANES))
        z = [naive.chebyshev_of_matrix(j, S, matrix.top, X) for j in range(steps + 1)]
        norms = [float(np.linalg.norm(columns, axis=0).max()) for columns in z]
        # Error of a step: 8 gamma_(d + 8) of the largest norm so far.
        error = 8 * (matrix.max_degree + 8) * UNIT
        shift = certificate.shift()
        arguments = norms, matrix.top, delta, error
        assert naive.chebyshev_contradiction(shift * (1 + 1e-9), *arguments)
        assert not naive.chebyshev_contradiction(shift * (1 - 1e-9), *arguments)


def test_rounding_errors_are_part_of_the_certificate():
    """A row of 1e11 neighbours would round much worse; the same vectors then certify less.

    With error term e = 8 * 1e11 u = 9e-5 of the norms the inequality changes visibly; with 1e14
    neighbours nothing can be certified.
    """
    graph, matrix = problem(random_graph(60, 200, seed=1), 5)
    X = np.random.default_rng(0).standard_normal((60, LANES))
    S = scaled(graph, matrix)
    z = [naive.chebyshev_of_matrix(j, S, matrix.top, X) for j in range(102)]
    norms = [float(np.linalg.norm(columns, axis=0).max()) for columns in z]
    shifts = []
    for degree in (matrix.max_degree, 10**11, 10**12, 10**14):
        rounder = dataclasses.replace(matrix, max_degree=degree)
        certificate = certificate_of(graph, rounder, 100)
        shifts.append(certificate.shift())
        gamma = (degree + 8) * UNIT / (1 - (degree + 8) * UNIT)
        arguments = norms, matrix.top, 1e-9, 8 * gamma
        if math.isfinite(shifts[-1]):
            assert naive.chebyshev_contradiction(shifts[-1] * (1 + 1e-6), *arguments)
            assert not naive.chebyshev_contradiction(shifts[-1] * (1 - 1e-6), *arguments)
    assert shifts[0] < 0.99 * shifts[1] < 0.98 * shifts[2]
    assert shifts[2] < shifts[3]


def test_certificate_gives_up_on_overflow_and_stops_in_time():
    """Vectors past the largest double certify nothing; an expired budget stops the steps."""
    graph, matrix = problem(random_graph(40, 150, seed=2), 1)
    certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(0), 1e-9)
    stopped = Budget(None)
    stopped.stop("test")
    certificate.advance(10, stopped)
    assert certificate.steps == 1
    while not certificate.exhausted:
        certificate.advance(20, Budget(None))
    # Twenty steps beyond 1e120 the squares of the norms are still finite.
    assert math.isfinite(certificate.shift())
    with np.errstate(all="ignore"):
        certificate.advance(2000, Budget(None))
        assert certificate.shift() == math.inf
    # NaN in the dual variables does not certify either.
    broken = dataclasses.replace(matrix, values=matrix.values * np.nan)
    assert certificate_of(graph, broken, 10).shift() == math.inf


def test_certificate_is_reproducible_and_independent_of_the_pieces():
    """Thirty steps at once or in pieces: the same bits."""
    graph, matrix = problem(gaussian(30, 0.2, 2), 10)
    at_once = certificate_of(graph, matrix, 30, seed=4)
    in_pieces = ChebyshevCertificate(graph, matrix, np.random.default_rng(4), 1e-9)
    for steps in (2, 18, 10):
        in_pieces.advance(steps, Budget(None))
    assert at_once.steps == in_pieces.steps
    assert at_once.shift() == in_pieces.shift()
    assert certificate_of(graph, matrix, 30, seed=5).shift() != at_once.shift()


# --- factorisation --------------------------------------------------------------------------------

BANDS = {
    "edge": path(2, -1.0),
    "path": path(600),
    "small": gaussian(20, 0.4, 1),
    "dense": gaussian(60, 1.0, 2),
    "two_panels": random_graph(300, 900, seed=3),
    "three_panels": random_graph(560, 1500, seed=4, weights="signs"),
    "narrow_torus": torus_grid(100, 6, seed=5, weights="gaussian"),
    "wide_torus": torus_grid(24, 24, seed=6),
    "disconnected": disjoint(path(200), torus_grid(8, 30, seed=7), gaussian(150, 0.1, 8), path(5)),
    "multiple_of_a_panel": torus_grid(16, 32, seed=8, weights="signs"),
}


@pytest.mark.parametrize("name", BANDS)
def test_factorisation_succeeds_exactly_where_it_should(name):
    """On both sides of the boundary (1 + eps) y, eps = -lambda_min(S), at a relative 1e-8."""
    graph, matrix = problem(BANDS[name], sweeps=8)
    factorisation = BandFactorisation(graph)
    n = graph.n_vertices
    S = scaled(graph, matrix)
    shift = -np.linalg.eigvalsh(S)[0]
    y = np.where(matrix.dual > 0, matrix.dual, 1.0)
    for change, positive in [(1e-8, True), (-1e-8, False)]:
        outcome = factorisation.succeeds((1 + shift) * (1 + change) * y, Budget(None), NO_LIMIT)
        assert outcome is positive
    # One hopeless vertex is enough, wherever it stands in the order.
    assert factorisation.succeeds(3.0 * (1 + shift) * y, Budget(None), NO_LIMIT) is True
    for vertex in {0, n // 2, n - 1}:
        worse = 3.0 * (1 + shift) * y
        worse[vertex] = -1e-3
        assert factorisation.succeeds(worse, Budget(None), NO_LIMIT) is False


@pytest.mark.parametrize("name", BANDS)
def test_factors_are_those_of_the_ordered_matrix(name, monkeypatch):
    """The panels are A + Diag(h) in a band order, and the blocks of its Cholesky factor follow."""
    graph, matrix = problem(BANDS[name], sweeps=8)
    n = graph.n_vertices
    factorisation = BandFactorisation(graph)
    order = factorisation._order
    assert sorted(order.tolist()) == list(range(n))
    h = 4 * np.where(matrix.dual > 0, matrix.dual, 1.0) * np.linspace(1, 1.5, n)
    H = (adjacency(graph) + np.diag(h))[np.ix_(order, order)]
    rows, columns = np.nonzero(H)
    assert factorisation.bandwidth == np.abs(rows - columns).max()
    rebuilt = np.zeros((n, n))
    for start in range(0, n, 256):
        panel = factorisation._panel(start, h[order])
        rebuilt[start : start + len(panel), start : start + panel.shape[1]] = panel
    np.testing.assert_array_equal(rebuilt, np.tril(H))
    factors = []

    def recording(block, **options):
        factor, info = scipy.linalg.lapack.dpotrf(block, **options)
        factors.append(factor)
        return factor, info

    monkeypatch.setattr(bounds, "dpotrf", recording)
    assert factorisation.succeeds(h, Budget(None), NO_LIMIT) is True
    L = np.linalg.cholesky(H)
    sizes = [len(factor) for factor in factors]
    assert sum(sizes) == n
    start = 0
    for factor in factors:
        block = L[start : start + len(factor), start : start + len(factor)]
        # The condition number of H is below some hundred; a few n units of its root.
        assert np.abs(np.tril(factor) - block).max() <= 100 * n * UNIT * np.abs(L).max()
        start += len(factor)


def test_bandwidths_are_on_both_sides_of_a_panel():
    """The cases above include bands narrower and wider than a panel of 256, and a full one."""
    widths = {name: BandFactorisation(ScaledGraph.of(BANDS[name])).bandwidth for name in BANDS}
    assert widths["path"] == 1
    assert widths["narrow_torus"] <= 24
    assert widths["wide_torus"] < 256
    assert widths["three_panels"] > 256
    # Complete but for the isolated vertex.
    assert widths["dense"] == 58


def test_factorisation_of_one_vertex():
    """No edges: positive definite if the number is positive."""
    empty = np.zeros(0)
    graph = ScaledGraph(np.zeros(2, np.int32), empty.astype(np.int32), empty, empty, 1.0, 0.0, 0.0)
    factorisation = BandFactorisation(graph)
    assert factorisation.bandwidth == 0
    for value, positive in [(1e-300, True), (0.0, False), (-1.0, False)]:
        outcome = factorisation.succeeds(np.array([value]), Budget(None), NO_LIMIT)
        assert outcome is positive


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_proves_nothing(bad):
    """OpenBLAS calls a NaN pivot a success; the proof must not."""
    graph, matrix = problem(BANDS["small"])
    diagonal = 10 * np.where(matrix.dual > 0, matrix.dual, 1.0)
    diagonal[3] = bad
    assert BandFactorisation(graph).succeeds(diagonal, Budget(None), NO_LIMIT) is False


def test_inflation_covers_the_backward_error():
    """Higham's term: (2 b + 1) gamma_k, k = 2 (b + 256) + 20; far above the error that occurs."""
    for name in ("path", "three_panels", "dense"):
        graph, matrix = problem(BANDS[name])
        factorisation = BandFactorisation(graph)
        b = factorisation.bandwidth
        plain = (2 * b + 1) * (2 * (b + 256) + 20) * UNIT
        # gamma_k and 1 - g make it larger, by a relative k u each.
        assert plain < factorisation.inflation() < plain * (1 + 1e-11)
        order = factorisation._order
        y = np.where(matrix.dual > 0, matrix.dual, 1.0)
        h = 3 * y
        L = np.linalg.cholesky((adjacency(graph) + np.diag(h))[np.ix_(order, order)])
        E = L @ L.T - (adjacency(graph) + np.diag(h))[np.ix_(order, order)]
        relative = E / np.sqrt(np.outer(h[order], h[order]))
        assert np.linalg.norm(relative, 2) <= factorisation.inflation()


def test_memory_limit_is_checked_before_any_work():
    """8 n min(b + 256, n) bytes; the message names the size, the rule and the way out."""
    graph = ScaledGraph.of(BANDS["wide_torus"])
    b = BandFactorisation(graph).bandwidth
    needed = 8 * 576 * min(b + 256, 576)
    assert BandFactorisation(graph, memory_limit=needed).bandwidth == b
    message = rf"factor of 576 vertices at bandwidth {b}, more than .* GiB allowed; use bound=True"
    with pytest.raises(ValueError, match=message):
        BandFactorisation(graph, memory_limit=needed - 1)


def test_factorisation_stops_in_time():
    """Past the moment, or when told to stop, there is no answer, rather than a wrong one."""
    graph, matrix = problem(BANDS["three_panels"])
    factorisation = BandFactorisation(graph)
    diagonal = 10 * np.where(matrix.dual > 0, matrix.dual, 1.0)
    assert factorisation.succeeds(diagonal, Budget(None), until=-1.0) is None
    stopped = Budget(None)
    stopped.stop("test")
    assert factorisation.succeeds(diagonal, stopped, NO_LIMIT) is None


# --- the public bound -----------------------------------------------------------------------------


def _small_graphs():
    for seed in range(24):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(2, 15))
        kind = seed % 4
        if kind == 0:
            yield gaussian(n, rng.uniform(0.2, 1.0), seed)
        elif kind == 1:
            m = int(rng.integers(1, n * (n - 1) // 2 + 1))
            yield random_graph(n, m, seed=seed)
        elif kind == 2:
            m = int(rng.integers(1, n * (n - 1) // 2 + 1))
            yield random_graph(n, m, seed=seed, weights="signs")
        else:
            graph = gaussian(n, 0.7, seed)
            tails, heads, weights = graph.edges()
            yield as_graph((n, np.column_stack((tails, heads)), -np.abs(weights)))


@pytest.mark.parametrize("bound", [True, "proof"])
def test_public_bound_is_never_below_the_optimum(bound):
    """Against all partitions of small graphs; and the bound is not far above."""
    gaps = []
    for csr in _small_graphs():
        result = max_cut(csr, sweeps=60, bound=bound, n_threads=1)
        best = naive.largest_cut(*_arrays(csr))
        size = np.abs(csr.weights).sum()
        # The brute force sums some dozen terms in floating point.
        rounding = 0.0 if csr.integral else 100 * UNIT * size
        assert result.upper_bound >= best - rounding
        assert result.cut_value <= best + rounding
        assert result.cut_value == pytest.approx(naive.cut_value(*_arrays(csr), result.partition))
        gaps.append((result.upper_bound - best) / size)
        if bound == "proof":
            assert result.bound_certificate.startswith("proven")
    # Triangles are the worst of small graphs: 9/8 of the optimum; the mean is far lower.
    assert max(gaps) <= 0.07
    assert np.mean(gaps) <= 0.02


@pytest.mark.parametrize("bound", [True, "proof"])
def test_public_bound_of_frustrated_graphs(bound):
    """Odd rings, whose relaxation is known: n cos^2(pi / (2 n)), just above the optimum n - 1."""
    for n in (3, 5, 7, 9):
        ring = [(i, (i + 1) % n) for i in range(n)]
        weights = [0.75] * n
        result = max_cut((n, ring, weights), sweeps=60, bound=bound, n_threads=1)
        relaxation = 0.75 * n * math.cos(math.pi / (2 * n)) ** 2
        assert result.cut_value == 0.75 * (n - 1)
        # The solver stops within 5e-4 of the relaxation.
        assert relaxation * (1 - 1e-9) <= result.upper_bound <= relaxation * (1 + 6e-4)
