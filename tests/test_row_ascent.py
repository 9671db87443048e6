"""Row updates over ranges: over-relaxed mixing, dual variables, annealing; ranges in any parts."""

import naive
import numpy as np
import pytest

from derand_fast import vertex_order
from derand_fast.budget import Budget
from derand_fast.generators import planar_union, random_graph, torus_grid
from derand_fast.graphs import as_graph
from derand_fast.kernels.row_ascent import PANEL, anneal_range, dual_rows, mixing_rows
from derand_fast.kernels.simd import LANES
from derand_fast.relaxation import Relaxation, ScaledGraph, default_rank
from derand_fast.vertex_order import RangeSchedule, reorder, sweep_order

UNIT = 2.0**-53
UNIT32 = 2.0**-24

GRAPHS = {
    "random": random_graph(40, 150, seed=1, weights="signs"),
    "dense": random_graph(25, 300, seed=1),
    "torus": torus_grid(5, 6, seed=1, weights="gaussian"),
    "star": as_graph((20, [(0, i) for i in range(1, 19)], None)),
    "edge": as_graph((2, [(0, 1)], [-1.5])),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def unit_rows(n, p, seed=0, width=None):
    """Random unit rows of p numbers, zeros behind them up to the width."""
    rows = np.random.default_rng(seed).normal(size=(n, p))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    padded = np.zeros((n, width or p), np.float32)
    padded[:, :p] = rows
    return padded


def mix(graph, rows, over, start=0, stop=None):
    decreases = np.full(graph.n_vertices, np.nan)
    stop = graph.n_vertices if stop is None else stop
    panels = rows.shape[1] // PANEL
    arrays = graph.indptr, graph.indices, graph.weights.astype(np.float32)
    mixing_rows(*arrays, rows.reshape(-1), panels, over, start, stop, decreases)
    return decreases


def over_relaxed(graph, rows, over):
    """Twin of one sweep, in float64, with each update's decrease."""
    A = graph.to_scipy().toarray().astype(np.float32).astype(np.float64)
    decreases = np.zeros(len(rows))
    for i in range(len(rows)):
        g = A[i] @ rows
        size = np.linalg.norm(g)
        if size > 0:
            moved = -over * g / size + (1 - over) * rows[i]
            moved /= np.linalg.norm(moved)
            decreases[i] = g @ (rows[i] - moved)
            rows[i] = moved
    return decreases


@EVERY_GRAPH
@pytest.mark.parametrize("over", [1.0, 1.3, 1.95])
@pytest.mark.parametrize("p", [2, 16, 40])
def test_mixing_matches_twin(name, over, p):
    """One sweep; columns of zeros stay so; isolated vertices stay as they are."""
    graph = GRAPHS[name]
    n = graph.n_vertices
    rows = unit_rows(n, p, 1, -(-p // PANEL) * PANEL)
    expected = rows[:, :p].astype(np.float64)
    isolated = np.diff(graph.indptr) == 0
    before = rows[isolated].copy()
    decreases = mix(graph, rows, over)
    twin = over_relaxed(graph, expected, over)
    # Float32 sums of at most 24 rows; cancellation in a sum, and up to 40 rows that each pass
    # their error on, cost a factor of up to some hundred.
    assert np.abs(rows[:, :p] - expected).max() <= 1000 * UNIT32
    assert np.abs(decreases - twin).max() <= 1000 * UNIT32 * np.abs(graph.weights).sum()
    assert not rows[:, p:].any()
    np.testing.assert_array_equal(rows[isolated], before)


@EVERY_GRAPH
def test_over_relaxation_of_one_is_the_mixing_method(name):
    """The twin of the plain method, which knows nothing of over-relaxation."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n_vertices, PANEL, 2)
    expected = rows.astype(np.float64)
    naive.mixing_sweep(graph.indptr, graph.indices, graph.weights, expected)
    mix(graph, rows, 1.0)
    assert np.abs(rows - expected).max() <= 1000 * UNIT32  # as above


@EVERY_GRAPH
@pytest.mark.parametrize("over", [0.4, 1.0, 1.6, 2.0])
def test_no_update_raises_the_sum(name, over):
    """Whatever the factor; decreases are those of sum w_ij v_i . v_j; rows stay unit rows."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n_vertices, PANEL, 3)
    arrays = graph.indptr, graph.indices, graph.weights
    size = np.abs(graph.weights).sum()
    value = naive.row_products(*arrays, rows.astype(np.float64))
    for _ in range(6):
        decreases = mix(graph, rows, over)
        now = naive.row_products(*arrays, rows.astype(np.float64))
        # Norms of rows are good to a few float32 units; so is then every product.
        assert decreases.min() >= -50 * UNIT32 * size
        assert abs(value - now - decreases.sum()) <= 100 * UNIT32 * size
        value = now
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert np.abs(lengths - 1).max() <= 10 * UNIT32


def test_a_vanishing_gradient_leaves_the_row():
    """Two neighbours that cancel give no direction, and no NaN."""
    graph = as_graph((3, [(0, 1), (0, 2)], None))
    rows = np.zeros((3, PANEL), np.float32)
    rows[:, :2] = [[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]]
    decreases = mix(graph, rows, 1.5, 0, 1)
    np.testing.assert_array_equal(rows[0, :2], np.array([0.6, 0.8], np.float32))
    assert decreases[0] == 0.0
    assert np.isnan(decreases[1:]).all()


@EVERY_GRAPH
def test_dual_matches_twin(name):
    """Norms and products in float64, for rows of any length, zero rows included."""
    graph = GRAPHS[name]
    n = graph.n_vertices
    rows = unit_rows(n, 5, 4, LANES) * np.linspace(0.5, 2, n, dtype=np.float32)[:, None]
    rows[3:4] = 0
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    inverse = np.divide(1.0, lengths, out=np.zeros(n), where=lengths > 0)
    units = rows.astype(np.float64) * inverse[:, None]
    gradient = graph.to_scipy().toarray() @ units
    dual, products = np.full(n, np.nan), np.full(n, np.nan)
    arrays = graph.indptr, graph.indices, graph.weights, rows.reshape(-1), LANES, inverse
    for start, stop in ((0, n // 2), (n // 2, n)):
        dual_rows(*arrays, start, stop, dual, products)
    # A few dozen float64 roundings relative to a vertex's sum of |w|.
    tolerance = 50 * UNIT * np.abs(graph.to_scipy().toarray()).sum(axis=1)
    assert np.all(np.abs(dual - np.linalg.norm(gradient, axis=1)) <= tolerance)
    assert np.all(np.abs(products - np.sum(gradient * units, axis=1)) <= tolerance)


@EVERY_GRAPH
@pytest.mark.parametrize("smoothing", [0.9, 0.3, 0.1])
def test_annealing_matches_twin(name, smoothing):
    """The formula, vertex after vertex in the order of their numbers."""
    graph = GRAPHS[name]
    A = graph.to_scipy().toarray()
    rows = unit_rows(graph.n_vertices, LANES, 5)
    expected = rows.astype(np.float64)
    for i in range(len(expected)):
        r = expected @ expected[i]
        g = -(A[i] / np.sqrt(1 - ((1 - smoothing) * r) ** 2)) @ expected
        if np.linalg.norm(g) > 0:
            expected[i] = g / np.linalg.norm(g)
    arrays = graph.indptr, graph.indices, graph.weights.astype(np.float32)
    anneal_range(*arrays, rows.reshape(-1), smoothing, 0, graph.n_vertices)
    # 1 - (c r)^2 is at least 0.19: an error of r is at most tripled in a term's factor.
    assert np.abs(rows - expected).max() <= 3000 * UNIT32


@pytest.mark.parametrize("name", ["random", "torus", "star"])
def test_independent_ranges_may_be_cut_anywhere(name):
    """The same bits for a range at once and in two parts, in either order."""
    graph = reorder(GRAPHS[name], sweep_order(GRAPHS[name]))
    weights = graph.weights.astype(np.float32)
    run = RangeSchedule(graph.indptr, graph.indices, 2)
    assert run.ranges == [(0, graph.n_vertices, False)]  # too small to share
    starts = np.empty(graph.n_vertices + 1, graph.indptr.dtype)
    vertex_order.independent_runs(graph.indptr, graph.indices, starts)
    stop = int(starts[1])
    whole, parts = (unit_rows(graph.n_vertices, PANEL, 6) for _ in range(2))
    mix(graph, whole, 1.5, 0, stop)
    mix(graph, parts, 1.5, stop // 3, stop)
    mix(graph, parts, 1.5, 0, stop // 3)
    np.testing.assert_array_equal(whole, parts)
    whole, parts = (unit_rows(graph.n_vertices, LANES, 6).reshape(-1) for _ in range(2))
    arrays = graph.indptr, graph.indices, weights
    anneal_range(*arrays, whole, 0.2, 0, stop)
    anneal_range(*arrays, parts, 0.2, stop // 2, stop)
    anneal_range(*arrays, parts, 0.2, 0, stop // 2)
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_relaxation_has_the_same_bits_for_any_number_of_threads(monkeypatch, n_threads):
    """Rows, value, dual variables and gain."""
    monkeypatch.setattr(vertex_order, "_PARALLEL_ENTRIES", 100)
    graph = planar_union(200, seed=1)
    graph = ScaledGraph.of(reorder(graph, sweep_order(graph)))
    outcomes = []
    for threads in (1, n_threads):
        relaxation = Relaxation(graph, 20, np.random.default_rng(0), threads)
        gain = relaxation.advance(7, Budget(None))
        outcomes.append((relaxation.rows, gain, *relaxation.dual()))
    np.testing.assert_array_equal(outcomes[0][0], outcomes[1][0])
    np.testing.assert_array_equal(outcomes[0][3], outcomes[1][3])
    assert outcomes[0][1:3] == outcomes[1][1:3]


def test_over_relaxation_needs_four_times_fewer_sweeps():
    """A grid with signs, on which the plain method is slow: 100 sweeps get further than 400."""
    csr = torus_grid(20, 30, seed=3, weights="signs")
    graph = ScaledGraph.of(csr)
    rank = default_rank(csr.n_vertices)
    relaxation = Relaxation(graph, rank, np.random.default_rng(0))
    rows = relaxation._padded.copy()
    relaxation.advance(100, Budget(None))
    for _ in range(400):
        mix(csr, rows, 1.0)
    arrays = csr.indptr, csr.indices, csr.weights
    plain = csr.total_weight / 2 - naive.row_products(*arrays, rows.astype(np.float64)) / 2
    assert relaxation.dual()[0] > plain
