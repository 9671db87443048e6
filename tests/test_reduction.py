"""Exact elimination of low degrees, against brute force."""

import itertools

import naive
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derand_fast import max_cut
from derand_fast.generators import random_graph
from derand_fast.graphs import as_graph
from derand_fast.reduction import LEAST_VERTICES, Reduction
from derand_fast.relaxation import ScaledGraph


def reduce(graph, least_vertices=0):
    graph = as_graph(graph)
    return graph, Reduction.of(ScaledGraph.of(graph), least_vertices)


def all_signs(count):
    return (np.array(s, np.int8) for s in itertools.product((1, -1), repeat=count))


def value(graph, signs):
    return naive.cut_value(graph.indptr, graph.indices, graph.weights, signs)


def core_value(reduction, signs):
    core = reduction.core
    return core.scale * naive.cut_value(core.indptr, core.indices, core.weights, signs)


def assert_exact(graph, reduction, tolerance):
    """Each core cut lifts to the best completion, worth the core's cut plus one constant."""
    kept, removed = reduction.kept, np.sort(reduction.removed)
    assert sorted([*kept.tolist(), *removed.tolist()]) == list(range(graph.n_vertices))
    constants = []
    for signs in all_signs(kept.size):
        lifted = reduction.lift(signs)
        assert (reduction.restrict(lifted) == signs).all()
        best = -np.inf
        for others in all_signs(removed.size):
            whole = np.empty(graph.n_vertices, np.int8)
            whole[kept], whole[removed] = signs, others
            best = max(best, value(graph, whole))
        assert abs(value(graph, lifted) - best) <= tolerance
        constants.append(best - core_value(reduction, signs))
    assert np.ptp(constants) <= tolerance


@st.composite
def graphs(draw, weights):
    n = draw(st.integers(2, 8))
    pairs = list(itertools.combinations(range(n), 2))
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    values = draw(st.lists(weights, min_size=len(edges), max_size=len(edges)))
    return as_graph((n, edges, values))


@settings(deadline=None, max_examples=60)
@given(graphs(st.integers(-5, 5).filter(bool)))
def test_integers_are_reduced_exactly(graph):
    _, reduction = reduce(graph)
    # A few halvings of small integers: no rounding at all.
    assert_exact(graph, reduction, 0.0)
    core = reduction.core
    degrees = np.diff(core.indptr)
    assert degrees.size == 0 or degrees.min() >= 4


@settings(deadline=None, max_examples=30)
@given(graphs(st.floats(0.1, 3.0) | st.floats(-3.0, -0.1)))
def test_real_weights_are_reduced_to_rounding(graph):
    _, reduction = reduce(graph)
    # Some tens of sums of numbers up to 84.
    assert_exact(graph, reduction, 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_cores_that_are_not_empty(seed):
    """Seven vertices of high degree among ten: they stay, the others go."""
    rng = np.random.default_rng(seed)
    edges = [*itertools.combinations(range(7), 2), (7, 0), (8, 1), (8, 2), (9, 3), (9, 4), (9, 5)]
    # Heavy enough that no edge among the seven vanishes.
    weights = rng.integers(1, 6, len(edges)) + 50 * (np.max(edges, axis=1) < 7)
    graph, reduction = reduce((10, edges, weights))
    assert reduction.kept.tolist() == list(range(7))
    core = reduction.core
    assert core.n_vertices == 7
    dense = core.weights @ core.weights
    assert dense > 0.0
    matrix = np.zeros((7, 7))
    matrix[np.repeat(np.arange(7), np.diff(core.indptr)), core.indices] = core.weights
    assert (matrix == matrix.T).all()
    assert (np.diag(matrix) == 0).all()
    assert (core.weights32 == core.weights.astype(np.float32)).all()
    assert_exact(graph, reduction, 0.0)


@pytest.mark.parametrize(
    ("network", "best"),
    [
        (nx.random_labeled_tree(300, seed=1), 299),
        (nx.cycle_graph(301), 300),
        (nx.complete_graph(4), 4),
        (nx.complete_bipartite_graph(3, 40), 120),
        (nx.ladder_graph(120), 358),
    ],
    ids=["tree", "odd cycle", "K4", "K3,40", "ladder"],
)
def test_graphs_that_vanish(network, best):
    graph, reduction = reduce(network)
    assert reduction.kept.size == 0
    assert value(graph, reduction.lift(np.empty(0, np.int8))) == best


def ladder_optimum(rails, rungs):
    """Best cut of a ladder by its four states a rung; rails (2, k - 1), rungs (k,)."""
    states = list(itertools.product((1, -1), repeat=2))
    best = {s: rungs[0] * (s[0] != s[1]) for s in states}
    for k in range(1, len(rungs)):
        best = {
            s: rungs[k] * (s[0] != s[1])
            + max(best[t] + sum(rails[r][k - 1] * (s[r] != t[r]) for r in range(2)) for t in states)
            for s in states
        }
    return max(best.values())


@pytest.mark.parametrize("seed", range(3))
def test_long_ladders_are_solved_by_elimination_alone(seed):
    rng = np.random.default_rng(seed)
    k = 400
    rails, rungs = rng.choice([-2, -1, 1, 3], (2, k - 1)), rng.choice([-2, -1, 1, 3], k)
    edges = [(2 * i + r, 2 * i + 2 + r) for r in range(2) for i in range(k - 1)]
    edges += [(2 * i, 2 * i + 1) for i in range(k)]
    graph = as_graph((2 * k, edges, [*rails[0], *rails[1], *rungs]))
    result = max_cut(graph, bound=False, n_threads=1, seed=seed)
    assert result.cut_value == ladder_optimum(rails.tolist(), rungs.tolist())
    assert result.message == "every vertex was eliminated: optimal but for rounding"
    assert result.sweeps == 0


def test_sparse_random_graphs_shrink_and_dense_ones_are_left_alone():
    sparse = ScaledGraph.of(random_graph(3000, 3600, seed=1))
    reduction = Reduction.of(sparse)
    assert reduction.core.n_vertices < 0.35 * sparse.n_vertices
    assert not reduction.core.weights.flags.writeable
    signs = np.random.default_rng(0).choice([-1, 1], reduction.kept.size).astype(np.int8)
    flat = np.ones_like(signs)
    difference = value(sparse, reduction.lift(signs)) - value(sparse, reduction.lift(flat))
    core = reduction.core
    # Dyadic fractions of small integers, summed without rounding.
    assert difference == value(core, signs) - value(core, flat)
    dense = ScaledGraph.of(random_graph(600, 9000, seed=1))
    assert Reduction.of(dense).core is dense
    small = ScaledGraph.of(random_graph(LEAST_VERTICES - 1, 500, seed=1))
    assert Reduction.of(small).core is small
