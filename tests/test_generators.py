"""The generators must hit their sizes exactly, repeat under one seed and be uniform."""

import doctest
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derand_fast import generators
from derand_fast.generators import demo_graph, planar_union, random_graph, torus_grid


def arrays(graph):
    return graph.indptr.tolist(), graph.indices.tolist(), graph.weights.tolist()


def to_networkx(graph):
    return nx.from_scipy_sparse_array(graph.to_scipy())


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: random_graph(30, 60, seed=seed),
        lambda seed: random_graph(30, 400, seed=seed, weights="signs"),
        lambda seed: torus_grid(4, 5, seed=seed, weights="signs"),
        lambda seed: torus_grid(4, 5, seed=seed, weights="gaussian"),
        lambda seed: planar_union(30, seed=seed),
    ],
)
def test_seeds(make):
    assert arrays(make(7)) == arrays(make(7))
    assert arrays(make(7)) != arrays(make(8))
    assert make(7).labels is None


@settings(deadline=None)
@given(st.data(), st.integers(0, 12), st.sampled_from(["unit", "signs"]))
def test_random_graph_size(data, n, weights):
    m = data.draw(st.integers(0, n * (n - 1) // 2))
    graph = random_graph(n, m, seed=data.draw(st.integers(0, 5)), weights=weights)
    assert (graph.n_vertices, graph.n_edges) == (n, m)
    assert set(np.abs(graph.weights)) <= {1.0}
    assert graph.integral


@pytest.mark.parametrize("n", range(8))
def test_complete_graph(n):
    graph = random_graph(n, n * (n - 1) // 2, seed=0)
    assert np.array_equal(graph.to_scipy().toarray(), np.ones((n, n)) - np.eye(n))


@pytest.mark.parametrize("n", range(1, 10))
def test_pairs_are_a_bijection(n):
    keys = np.arange(n * (n - 1) // 2)
    pairs = [tuple(sorted(pair)) for pair in generators._decode_pairs(keys, n).tolist()]
    assert sorted(pairs) == list(combinations(range(n), 2))


@pytest.mark.parametrize("size", [2, 4])
def test_samples_are_uniform(size):
    # 6 pairs of 4 vertices: each of the 15 subsets should come about 200 times.
    counts = dict.fromkeys(combinations(range(6), size), 0)
    rng = np.random.default_rng(5)
    for _ in range(3000):
        counts[tuple(generators._sample_distinct(rng, 6, size).tolist())] += 1
    # Chi-square with 14 degrees of freedom: 36.1 is exceeded with probability 0.001.
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 36.1


def test_signs_are_fair():
    graph = random_graph(2000, 20000, seed=3, weights="signs")
    assert set(graph.weights.tolist()) == {-1.0, 1.0}
    assert abs(graph.total_weight) < 4 * np.sqrt(20000)


def test_large_sparse_graph():
    graph = random_graph(200_000, 300_000, seed=1)
    assert graph.n_edges == 300_000
    assert np.diff(graph.indptr).max() < 30


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (3, 4), (5, 3)])
def test_torus_equals_networkx(rows, cols):
    graph = torus_grid(rows, cols, seed=0)
    expected = nx.grid_2d_graph(rows, cols, periodic=True)
    nodes = [(r, c) for r in range(rows) for c in range(cols)]
    assert np.array_equal(graph.to_scipy().toarray(), nx.to_numpy_array(expected, nodelist=nodes))


def test_thin_tori():
    assert arrays(torus_grid(1, 1, seed=0)) == ([0, 0], [], [])
    assert torus_grid(1, 2, seed=0).edges()[2].tolist() == [2.0]
    assert torus_grid(2, 2, seed=0).edges()[2].tolist() == [2.0] * 4
    assert nx.is_isomorphic(to_networkx(torus_grid(1, 5, seed=0)), nx.cycle_graph(5))
    assert torus_grid(5, 2, seed=0).total_weight == 20
    assert set(torus_grid(2, 40, seed=1, weights="signs").weights.tolist()) == {-2, -1, 1, 2}


def test_torus_weights():
    assert set(torus_grid(6, 7, seed=2, weights="signs").weights.tolist()) == {-1.0, 1.0}
    gaussian = torus_grid(60, 60, seed=2, weights="gaussian").edges()[2]
    assert gaussian.size == 7200
    assert abs(gaussian.mean()) < 0.05
    assert abs(gaussian.std() - 1) < 0.05


@pytest.mark.parametrize("n", range(3))
def test_tiny_planar_unions_are_complete(n):
    assert planar_union(n, seed=0).n_edges == n * (n - 1) // 2


@pytest.mark.parametrize("n", [3, 4, 5, 50, 400])
def test_planar_union(n):
    graph = planar_union(n, seed=1)
    assert graph.n_vertices == n
    assert set(graph.weights.tolist()) == {1.0}
    assert 2 * n - 3 <= graph.n_edges <= 6 * n - 12
    assert nx.is_connected(to_networkx(graph))


def test_demo_graph():
    graph = demo_graph()
    assert (graph.n_vertices, graph.n_edges, graph.total_weight) == (800, 19176, 19176)
    assert arrays(graph) == arrays(demo_graph())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: random_graph(-1, 0, seed=0), ValueError, r"n must be in 0..\d+, got -1"),
        (lambda: random_graph(2**31, 0, seed=0), ValueError, r"n must be in 0..2147483647"),
        (lambda: random_graph(4, 7, seed=0), ValueError, r"m must be in 0..6, got 7"),
        (lambda: random_graph(4, -1, seed=0), ValueError, r"m must be in 0..6, got -1"),
        (lambda: random_graph(4.0, 1, seed=0), TypeError, r"n must be an integer, not 4.0"),
        (lambda: random_graph(4, 1, seed=-1), ValueError, r"seed must be at least 0, got -1"),
        (lambda: random_graph(4, 1, seed=None), TypeError, r"seed must be an integer, not None"),
        (
            lambda: random_graph(4, 1, seed=0, weights="gaussian"),
            ValueError,
            r"weights must be one of unit, signs; got 'gaussian'",
        ),
        (lambda: torus_grid(0, 3, seed=0), ValueError, r"rows must be in 1..\d+, got 0"),
        (lambda: torus_grid(3, 0, seed=0), ValueError, r"cols must be in 1..\d+, got 0"),
        (lambda: torus_grid(2**20, 2**20, seed=0), ValueError, r"cols must be in 1..2047"),
        (lambda: torus_grid(3, 3, seed=0, weights=1), ValueError, r"unit, signs, gaussian; got 1"),
        (lambda: planar_union(-3, seed=0), ValueError, r"n must be in 0..\d+, got -3"),
        (lambda: planar_union("3", seed=0), TypeError, r"n must be an integer, not '3'"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_docstring_examples():
    assert doctest.testmod(generators).failed == 0
