"""Kernels and small solves of the maximum cut, each beside a rival.

Run with ``pytest bench/test_bench_maxcut.py --benchmark-only --benchmark-group-by=group``. Every
row warms up first, so compiling is not timed; kernels are serial. ``extra_info`` holds nanoseconds
per stored edge, products, or the cut reached.
"""

import math

import networkx as nx
import numba
import numpy as np
import pytest
import scipy.sparse

from derand_fast import max_cut
from derand_fast.bounds import ChebyshevCertificate, DualMatrix
from derand_fast.budget import Budget
from derand_fast.generators import random_graph, torus_grid
from derand_fast.kernels.lanczos import leftmost_eigenpair
from derand_fast.kernels.maxcut import anneal_rows, cut_value, flip_gains
from derand_fast.kernels.replicas import REPLICAS, anneal_replicas, exponential_table
from derand_fast.reduction import Reduction
from derand_fast.relaxation import Relaxation, ScaledGraph

# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("Chebyshev, eight vectors", "max_cut, 200 sweeps, with bound")
GRAPHS = {
    "random 800/19176": random_graph(800, 19176, seed=1),
    "random 5000/12500": random_graph(5000, 12500, seed=1),
    "sign torus 100x100": torus_grid(100, 100, seed=1, weights="signs"),
}


@pytest.fixture(params=GRAPHS)
def graph(request):
    """One scaled graph of each kind."""
    return ScaledGraph.of(GRAPHS[request.param])


@numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp", "afn"})
def anneal_rows_in_plain_loops(indptr, indices, weights, rows, smoothing, count):
    """Do what `anneal_rows` does, in loops over the eight columns."""
    n = len(indptr) - 1
    gradient = np.empty(8, np.float32)
    for _ in range(count):
        c_squared = np.float32((1.0 - smoothing) ** 2)
        for i in range(n):
            gradient[:] = 0
            for e in range(indptr[i], indptr[i + 1]):
                j = indices[e]
                r = np.float32(0)
                for k in range(8):
                    r += rows[8 * i + k] * rows[8 * j + k]
                complement = max(np.float32(1) - c_squared * r * r, np.float32(1e-12))
                factor = -weights[e] / np.sqrt(complement)
                for k in range(8):
                    gradient[k] += factor * rows[8 * j + k]
            square = np.float32(0)
            for k in range(8):
                square += gradient[k] * gradient[k]
            if square > np.float32(1e-30):
                scale = np.float32(1) / np.sqrt(square)
                for k in range(8):
                    rows[8 * i + k] = gradient[k] * scale


def unit_rows(n):
    """Random unit rows of eight numbers."""
    rows = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).reshape(-1)


@pytest.mark.benchmark(group="annealing, 20 sweeps")
@pytest.mark.parametrize("kind", ["ours", "plain numba loops"])
def test_annealing_sweeps(benchmark, graph, kind):
    rows = unit_rows(graph.n_vertices)

    def ours():
        anneal_rows(graph.indptr, graph.indices, graph.weights32, rows, 0.3, 1.0, 20)

    def plain():
        anneal_rows_in_plain_loops(
            graph.indptr, graph.indices, graph.weights32, rows, np.float32(0.3), 20
        )

    work = ours if kind == "ours" else plain
    work()
    benchmark(work)
    if benchmark.stats is not None:
        nanoseconds = benchmark.stats.stats.min / (20 * graph.indices.size) * 1e9
        benchmark.extra_info["ns_per_edge"] = round(nanoseconds, 2)
    # Rows stay unit vectors, to float32 rounding.
    assert np.abs(np.linalg.norm(rows.reshape(-1, 8), axis=1) - 1).max() < 1e-5


@numba.njit(nogil=True, error_model="numpy")
def anneal_one_replica(indptr, indices, weights, signs, fields, temperature, count, table, state):
    """One replica with its fields kept: only accepted flips touch the neighbours."""
    random = state[0]
    for _ in range(count):
        for i in range(len(signs)):
            gain = signs[i] * fields[i]
            if gain <= np.float32(-9.0) * temperature:
                continue
            random ^= random << np.uint64(13)
            random ^= random >> np.uint64(7)
            random ^= random << np.uint64(17)
            if gain > -temperature * table[np.int64(random & np.uint64(4095))]:
                signs[i] = -signs[i]
                for e in range(indptr[i], indptr[i + 1]):
                    fields[indices[e]] += np.float32(2.0) * weights[e] * signs[i]
    state[0] = random


@pytest.mark.benchmark(group="simulated annealing, 20 sweeps of 16 replicas")
@pytest.mark.parametrize("kind", ["ours", "one by one", "dwave-samplers"])
def test_annealing_replicas(benchmark, graph, kind):
    n = graph.n_vertices
    rng = np.random.default_rng(0)
    signs = rng.choice([-1, 1], REPLICAS * n).astype(np.float32)
    temperature = np.float32(0.2 * math.sqrt(graph.weights @ graph.weights / n))
    table, state = exponential_table(), np.array([12345], np.uint64)
    temperatures = np.full(REPLICAS, temperature, np.float32)
    cooling = np.zeros(REPLICAS, np.float32)
    arrays = (graph.indptr, graph.indices, graph.weights32)

    def ours():
        anneal_replicas(*arrays, signs, temperatures, cooling, 20, table, state)

    own = signs[:n].copy()
    matrix = scipy.sparse.csr_array((graph.weights, graph.indices, graph.indptr), shape=(n, n))
    fields = (matrix @ own).astype(np.float32)

    def one_by_one():
        anneal_one_replica(*arrays, own, fields, temperature, 20 * REPLICAS, table, state)

    work = {"ours": ours, "one by one": one_by_one}.get(kind)
    if work is None:
        dimod = pytest.importorskip("dimod")
        sampler = pytest.importorskip("dwave.samplers").SimulatedAnnealingSampler()
        coupling = scipy.sparse.triu(matrix).tocoo()
        model = dimod.BinaryQuadraticModel.from_numpy_vectors(
            np.zeros(n), (coupling.row, coupling.col, coupling.data), 0.0, dimod.SPIN
        )

        def work():
            sampler.sample(
                model,
                num_reads=1,
                num_sweeps=20 * REPLICAS,
                beta_schedule_type="custom",
                # Its energies are twice our cut values.
                beta_schedule=np.full(20 * REPLICAS, 0.5 / temperature),
                seed=1,
            )

    work()
    benchmark(work)
    if benchmark.stats is not None:
        nanoseconds = benchmark.stats.stats.min / (20 * REPLICAS * n) * 1e9
        benchmark.extra_info["ns_per_spin_update"] = round(nanoseconds, 2)
    # Fields that are kept stay those of the signs: whole numbers, no rounding.
    assert (fields == matrix @ own).all()
    assert (np.abs(signs) == 1).all()


@pytest.mark.benchmark(group="elimination of low degrees")
@pytest.mark.parametrize("n_edges", [10_000, 25_000])
def test_reduction(benchmark, n_edges):
    graph = ScaledGraph.of(random_graph(10_000, n_edges, seed=1))
    Reduction.of(graph)
    reduction = benchmark(lambda: Reduction.of(graph))
    benchmark.extra_info["vertices_left"] = reduction.core.n_vertices
    degrees = np.diff(reduction.core.indptr)
    assert degrees.min() >= 4


@pytest.mark.benchmark(group="cut value")
@pytest.mark.parametrize("kind", ["ours", "numpy"])
def test_cut_value(benchmark, graph, kind):
    signs = np.where(np.random.default_rng(0).random(graph.n_vertices) < 0.5, 1, -1).astype(np.int8)
    degrees = np.diff(graph.indptr)
    tails = np.repeat(np.arange(graph.n_vertices), degrees)
    expected = 0.5 * graph.weights[signs[tails] != signs[graph.indices]].sum()

    def ours():
        return cut_value(graph.indptr, graph.indices, graph.weights, signs)

    def numpy_way():
        return 0.5 * graph.weights[signs[tails] != signs[graph.indices]].sum()

    work = ours if kind == "ours" else numpy_way
    work()
    # Weights are whole numbers here, so the sums are exact.
    assert benchmark(work) == expected


@pytest.mark.benchmark(group="gains of all flips")
@pytest.mark.parametrize("kind", ["ours", "scipy.sparse"])
def test_flip_gains(benchmark, graph, kind):
    n = graph.n_vertices
    signs = np.where(np.random.default_rng(0).random(n) < 0.5, 1, -1).astype(np.int8)
    matrix = scipy.sparse.csr_array((graph.weights, graph.indices, graph.indptr), shape=(n, n))
    gains = np.empty(n)

    def ours():
        flip_gains(graph.indptr, graph.indices, graph.weights, signs, gains)

    def scipy_way():
        gains[:] = signs * (matrix @ signs.astype(np.float64))

    work = ours if kind == "ours" else scipy_way
    work()
    benchmark(work)
    assert np.array_equal(gains, signs * (matrix @ signs.astype(np.float64)))


@pytest.mark.benchmark(group="certificate of the smallest eigenvalue at 1e-9")
@pytest.mark.parametrize("kind", ["Chebyshev, eight vectors", "Lanczos, re-orthogonalised"])
def test_certificate(benchmark, graph, kind):
    relaxation = Relaxation(graph, 64, np.random.default_rng(0))
    relaxation.advance(400, Budget(None))
    _, dual = relaxation.dual()
    matrix = DualMatrix.of(graph, dual)
    n = graph.n_vertices
    pattern = (matrix.values, graph.indices, graph.indptr)
    scaled = scipy.sparse.csr_array(pattern, shape=(n, n)) + scipy.sparse.eye_array(n)
    eps = 1e-3

    def chebyshev():
        certificate = ChebyshevCertificate(graph, matrix, np.random.default_rng(1), 1e-9)
        while certificate.shift() > eps and certificate.steps < 3000:
            certificate.advance(20, Budget(None))
        return certificate.steps, certificate.shift()

    def lanczos():
        result = leftmost_eigenpair(scaled.tocsr(), eps=eps, delta=1e-9, seed=1)
        return result.n_products, -result.lambda_min_lower

    work = chebyshev if kind.startswith("Chebyshev") else lanczos
    work()
    steps, shift = benchmark(work)
    benchmark.extra_info["products"] = steps
    assert shift <= eps


@pytest.mark.benchmark(group="small graph, 100 vertices, 300 edges")
@pytest.mark.parametrize("kind", ["max_cut, 200 sweeps, with bound", "networkx one_exchange"])
def test_small_graph(benchmark, kind):
    graph = random_graph(100, 300, seed=1)
    network = nx.from_scipy_sparse_array(graph.to_scipy())

    def ours():
        return max_cut(graph, sweeps=200, n_threads=1).cut_value

    def one_exchange():
        return nx.approximation.one_exchange(network, weight="weight", seed=1)[0]

    work = ours if kind.startswith("max_cut") else one_exchange
    work()
    cut = benchmark.pedantic(work, rounds=5)
    benchmark.extra_info["cut"] = cut
    # A locally optimal cut holds at least half of the edges.
    assert cut >= math.ceil(0.5 * 300)
