"""The low-rank relaxation: scaling, values, dual variables, rounding."""

import itertools
import math

import naive
import numpy as np
import pytest

from derand_fast.budget import Budget
from derand_fast.generators import random_graph, torus_grid
from derand_fast.graphs import as_graph
from derand_fast.relaxation import DEFAULT_MAX_RANK, Relaxation, ScaledGraph, default_rank

UNIT = 2.0**-53
UNIT32 = 2.0**-24


def gaussian(n, density, seed):
    """Random graph with normal weights; the last vertex is isolated."""
    rng = np.random.default_rng(seed)
    pairs = [(0, 1)] + [
        pair for pair in itertools.combinations(range(n - 1), 2) if rng.random() < density
    ]
    pairs = sorted(set(pairs))
    return as_graph((n, pairs, rng.normal(size=len(pairs))))


def arrays_of(csr):
    return csr.indptr, csr.indices, csr.weights


def relaxation_of(csr, rank=None, seed=0, sweeps=0):
    graph = ScaledGraph.of(csr)
    rank = rank or default_rank(csr.n_vertices)
    relaxation = Relaxation(graph, rank, np.random.default_rng(seed))
    if sweeps:
        relaxation.advance(sweeps, Budget(None))
    return graph, relaxation


def units(relaxation):
    rows = relaxation.rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- scaled graph ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 2.0, 1.999, 3e-308, 5e-324, 1e307, -0.3, -4.0])
def test_scaled_weights_are_exact_and_near_one(size):
    """Weight = scale * scaled weight, without rounding; the largest lies in [1, 2)."""
    csr = as_graph((4, [(0, 1), (1, 2), (2, 3)], [size, size / 2, -size / 4]))
    graph = ScaledGraph.of(csr)
    assert math.frexp(graph.scale)[0] == 0.5
    np.testing.assert_array_equal(graph.weights * graph.scale, csr.weights)
    assert 1 <= np.abs(graph.weights).max() < 2
    np.testing.assert_array_equal(graph.weights32, graph.weights.astype(np.float32))
    assert graph.total_weight == math.fsum(w for *_, w in naive.edges_of(*arrays_of(csr)))
    assert graph.n_vertices == 4
    for array in (graph.indptr, graph.indices, graph.weights, graph.weights32):
        assert not array.flags.writeable
        assert array.flags.c_contiguous


def test_total_weight_is_the_correctly_rounded_sum():
    """Cancellation that a plain sum would lose."""
    weights = [1e16, 1.0, -1e16, 0.5, 2.0**-40]
    csr = as_graph((6, [(i, i + 1) for i in range(5)], weights))
    assert ScaledGraph.of(csr).total_weight == 1.5 + 2.0**-40


@pytest.mark.parametrize(
    ("n", "rank"),
    [(1, 3), (2, 3), (8, 5), (9, 6), (800, 41), (1984, 64), (2048, 64), (10**5, 64), (10**6, 128)],
)
def test_default_rank_is_that_of_barvinok_and_pataki(n, rank):
    """ceil(sqrt(2 n)) + 1, capped."""
    assert default_rank(n) == rank
    assert rank <= DEFAULT_MAX_RANK or n > 10**5


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 1e-300, 3e200])
@pytest.mark.parametrize("sweeps", [0, 1, 40])
def test_value_dual_and_expected_cut_match_definitions(factor, sweeps):
    """Sums over the edges of the dense definitions, in the caller's units."""
    base = gaussian(24, 0.4, 1)
    tails, heads, weights = base.edges()
    csr = as_graph((24, np.column_stack((tails, heads)), weights * factor))
    graph, relaxation = relaxation_of(csr, sweeps=sweeps)
    assert relaxation.sweeps == sweeps
    value, dual = relaxation.dual()
    rows = units(relaxation)
    size = np.abs(csr.weights).sum()
    total = math.fsum(w for *_, w in naive.edges_of(*arrays_of(csr)))
    expected = total / 2 - naive.row_products(*arrays_of(csr), rows) / 2
    # Some hundred float64 roundings of parts of the sum of |w|.
    assert abs(value - expected) <= 200 * UNIT * size
    A = naive.adjacency_from_csr(*arrays_of(csr)) / factor
    gradient_norms = np.linalg.norm(A @ rows, axis=1)
    assert np.abs(dual * graph.scale / factor - gradient_norms).max() <= 200 * UNIT * size / factor
    cut = naive.expected_hyperplane_cut(*arrays_of(csr), rows)
    # arccos in the twin loses half of the digits where rows are parallel.
    assert abs(relaxation.expected_cut() - cut) <= 1e-7 * size


@pytest.mark.parametrize("seed", range(3))
def test_sweeps_raise_the_value_towards_a_tight_dual(seed):
    """Primal rises, never passes the dual, and meets it: the solution is proven optimal."""
    csr = random_graph(40, 150, seed=seed, weights="signs")
    graph, relaxation = relaxation_of(csr, seed=seed)
    A = naive.adjacency_from_csr(graph.indptr, graph.indices, graph.weights)
    values, gain = [relaxation.dual()[0]], math.inf
    for sweeps in (1, 1, 8, 40, 400, 1000):
        gain = relaxation.advance(sweeps, Budget(None))
        value, dual = relaxation.dual()
        values.append(value)
        # Shifting y until A + Diag(y) is semidefinite gives a bound on every value.
        lift = max(0.0, -np.linalg.eigvalsh(A + np.diag(dual))[0])
        bound = graph.total_weight / 2 + graph.scale * (dual.sum() + 40 * lift) / 4
        assert value <= bound * (1 + 1e-12)
    # Float32 rows: each product is good to some units; 150 edges.
    assert all(new >= old - 150 * 20 * UNIT32 for old, new in itertools.pairwise(values))
    assert bound - value <= 1e-3 * bound
    assert abs(gain) <= 1e-5
    best_cut_below = relaxation.expected_cut()
    assert 0 < best_cut_below <= value


def test_gain_is_relative_to_the_total_magnitude():
    """The gain of the last sweep alone, over the sum of |w|, the same for scaled weights."""
    csr = gaussian(30, 0.3, 5)
    total = np.abs(csr.weights).sum() / 2
    tails, heads, weights = csr.edges()
    large = as_graph((30, np.column_stack((tails, heads)), np.ldexp(weights, 300)))
    _, relaxation = relaxation_of(csr, sweeps=3)
    # The value is a half of the sum of products, hence the factor of two.
    before = relaxation.dual()[0]
    gain = relaxation.advance(1, Budget(None))
    rise = 2 * (relaxation.dual()[0] - before) / total
    assert gain == pytest.approx(rise, abs=100 * UNIT32)
    assert gain > 1e-4
    _, scaled = relaxation_of(large, sweeps=3)
    assert scaled.advance(1, Budget(None)) == gain


def test_known_optimum_of_odd_rings():
    """Value n cos^2(pi / (2 n)) for the ring of n: rows at angles pi (n - 1) / n."""
    for n in (3, 5, 9):
        ring = as_graph((n, [(i, (i + 1) % n) for i in range(n)], None))
        _, relaxation = relaxation_of(ring, sweeps=3000)
        value, dual = relaxation.dual()
        # Float32 rows: quadratic in their error at the optimum; the stopping error dominates.
        assert value == pytest.approx(n * math.cos(math.pi / (2 * n)) ** 2, rel=1e-6)
        np.testing.assert_allclose(dual, 2 * math.cos(math.pi / n), rtol=1e-4)
        # Hyperplane rounding: each edge is cut with probability 1 - 1 / n.
        assert relaxation.expected_cut() == pytest.approx(n - 1, rel=1e-4)


def test_bipartite_graphs_are_solved_exactly():
    """All weights are cut, and the expected cut is the whole."""
    _, relaxation = relaxation_of(torus_grid(6, 8, seed=0), sweeps=2000)
    value, _ = relaxation.dual()
    assert value == pytest.approx(96, rel=1e-6)
    # Angles enter linearly: the root of what is left of the value.
    assert relaxation.expected_cut() == pytest.approx(96, rel=2e-3)


# --- rounding and the clock -----------------------------------------------------------------------


def test_rounding_averages_to_the_expected_cut():
    """Mean of 4000 roundings against the closed form, four standard errors."""
    csr = gaussian(20, 0.4, 6)
    _, relaxation = relaxation_of(csr, sweeps=5)
    generator = np.random.default_rng(1)
    tails, heads, weights = csr.edges()
    values = np.empty(4000)
    signs = np.zeros(20, np.int8)
    for k in range(4000):
        relaxation.round(generator, signs)
        values[k] = weights[signs[tails] != signs[heads]].sum()
    assert set(signs.tolist()) == {-1, 1}
    error = 4 * values.std() / math.sqrt(len(values))
    assert abs(values.mean() - relaxation.expected_cut()) <= error


def test_rows_are_reproducible_and_of_unit_length():
    """The seed decides, and pieces of any size give the same bits."""
    csr = gaussian(30, 0.3, 7)
    _, first = relaxation_of(csr, seed=3, sweeps=12)
    _, second = relaxation_of(csr, seed=3)
    for sweeps in (5, 1, 6):
        second.advance(sweeps, Budget(None))
    _, other = relaxation_of(csr, seed=4, sweeps=12)
    np.testing.assert_array_equal(first.rows, second.rows)
    assert not np.array_equal(first.rows, other.rows)
    # Normalised in float32: a unit for each of a few operations.
    lengths = np.linalg.norm(first.rows.astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() <= 10 * UNIT32


def test_a_row_drawn_as_zero_becomes_a_unit_row():
    """One float32 normal in 2**23 is 0; at rank 1 it must not turn into NaN."""

    class Zeros:
        def standard_normal(self, shape, dtype):
            draws = np.full(shape, -2.0, dtype)
            draws[::3] = 0
            return draws

    csr = gaussian(10, 0.5, 8)
    relaxation = Relaxation(ScaledGraph.of(csr), 1, Zeros())
    expected = np.where(np.arange(10) % 3 == 0, 1.0, -1.0)
    np.testing.assert_array_equal(relaxation.rows[:, 0], expected)
    relaxation.advance(3, Budget(None))
    assert np.isfinite(relaxation.dual()[0])


def test_an_expired_budget_stops_the_sweeps():
    """No sweep, and an infinite gain, which no rule mistakes for convergence."""
    _, relaxation = relaxation_of(gaussian(10, 0.5, 9))
    rows = relaxation.rows.copy()
    stopped = Budget(None)
    stopped.stop("test")
    assert relaxation.advance(5, stopped) == math.inf
    assert relaxation.advance(5, Budget(None), until=-1.0) == math.inf
    assert relaxation.sweeps == 0
    np.testing.assert_array_equal(relaxation.rows, rows)
