"""Vertex order for sweeps: colour classes, reordered graphs, ranges shared among threads."""

import threading

import numpy as np
import pytest

from derand_fast import vertex_order
from derand_fast.generators import planar_union, random_graph, torus_grid
from derand_fast.graphs import as_graph
from derand_fast.kernels.colouring import greedy_colouring, independent_runs
from derand_fast.vertex_order import RangeSchedule, reorder, sweep_order

GRAPHS = {
    "random": random_graph(60, 200, seed=1, weights="signs"),
    "dense": random_graph(20, 190, seed=1),
    "torus": torus_grid(7, 9, seed=1, weights="gaussian"),
    "planar": planar_union(50, seed=2),
    "star": as_graph((30, [(7, i) for i in range(30) if i != 7], None)),
    "edgeless": as_graph((5, [], None)),
    "empty": as_graph((0, [], None)),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def dense(graph):
    return graph.to_scipy().toarray()


def naive_colours(graph, order):
    """Smallest colour that no coloured neighbour has."""
    matrix = dense(graph)
    colours = {}
    for i in order.tolist():
        taken = {colours[j] for j in np.flatnonzero(matrix[i]).tolist() if j in colours}
        colours[i] = min(set(range(graph.n_vertices + 1)) - taken)
    return colours


def naive_runs(graph):
    """First vertices of the longest runs without an edge, from the left."""
    matrix = dense(graph)
    starts = [0]
    for i in range(graph.n_vertices):
        if matrix[i, starts[-1] : i].any():
            starts.append(i)
    return starts if graph.n_vertices else []


@EVERY_GRAPH
def test_colours_match_twin(name):
    """In natural and in reversed order, and never more than max degree + 1."""
    graph = GRAPHS[name]
    n = graph.n_vertices
    degree = int(np.diff(graph.indptr).max(initial=0))
    for order in (np.arange(n, dtype=np.int32), np.arange(n, dtype=np.int32)[::-1].copy()):
        colours, last_seen = np.full(n, 99, np.int32), np.full(degree + 1, 99, np.int32)
        count = greedy_colouring(graph.indptr, graph.indices, order, last_seen, colours)
        expected = naive_colours(graph, order)
        assert colours.tolist() == [expected[i] for i in range(n)]
        assert count == len(set(expected.values()))
        assert count <= degree + 1


@EVERY_GRAPH
def test_sweep_order_gives_one_run_a_colour(name):
    """A permutation; the reordered graph has no more runs than colours; ties keep their order."""
    graph = GRAPHS[name]
    n = graph.n_vertices
    order = sweep_order(graph)
    assert sorted(order.tolist()) == list(range(n))
    natural = np.arange(n, dtype=np.int32)
    colours = naive_colours(graph, natural)
    expected = sorted(range(n), key=lambda i: (colours[i], i))
    assert order.tolist() == expected
    starts = np.full(n + 1, -1, np.int32)
    ordered = reorder(graph, order)
    count = independent_runs(ordered.indptr, ordered.indices, starts)
    assert starts[:count].tolist() == naive_runs(ordered)
    assert starts[count] == n
    assert count <= len(set(colours.values()))


@EVERY_GRAPH
def test_reorder_permutes_the_matrix(name):
    """Rows, columns and labels; neighbours stay in increasing order."""
    graph = GRAPHS[name]
    order = np.random.default_rng(0).permutation(graph.n_vertices)
    result = reorder(graph, order)
    np.testing.assert_array_equal(dense(result), dense(graph)[np.ix_(order, order)])
    assert result.labels is None
    for i in range(graph.n_vertices):
        row = result.indices[result.indptr[i] : result.indptr[i + 1]]
        assert np.all(np.diff(row) > 0)


def test_reorder_moves_labels():
    """Labels go with their vertices."""
    graph = GRAPHS["star"]
    named = type(graph)(graph.indptr, graph.indices, graph.weights, [f"v{i}" for i in range(30)])
    order = np.arange(30)[::-1]
    assert reorder(named, order).labels == tuple(f"v{29 - i}" for i in range(30))


@pytest.mark.parametrize(
    "order", [[0, 1], [0, 1, 1], [0, 1, 3], [-1, 0, 1], [[0, 1, 2]], [0.0, 1.0, 2.0]]
)
def test_reorder_refuses_what_is_no_permutation(order):
    """Wrong length, repeats, out of range, wrong shape or kind."""
    graph = as_graph((3, [(0, 1)], None))
    with pytest.raises(ValueError, match="each of the 3 vertices once"):
        reorder(graph, np.array(order))


def test_far_neighbours_are_brought_together():
    """A path numbered at random, too long for a cache, gets its neighbours back."""
    n = 5 * 2**14
    shuffled = np.random.default_rng(3).permutation(n)
    graph = as_graph((n, np.column_stack((shuffled[:-1], shuffled[1:])), None))
    ordered = reorder(graph, sweep_order(graph))
    position = np.arange(n) % ((n + 1) // 2)
    tails, heads, _ = ordered.edges()
    # Two colours, each along the path: within a colour's numbers neighbours are 0 or 1 apart,
    # except where greedy colouring of a reversed piece needs a third one.
    assert np.median(np.abs(position[tails] - position[heads])) <= 2


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
def test_ranges_cover_every_vertex_once_and_in_order(monkeypatch, n_threads):
    """Ranges one after another, whatever the threads; only independent ones are cut."""
    monkeypatch.setattr(vertex_order, "_PARALLEL_ENTRIES", 60)
    graph = reorder(GRAPHS["random"], sweep_order(GRAPHS["random"]))
    schedule = RangeSchedule(graph.indptr, graph.indices, n_threads)
    assert any(independent for *_, independent in schedule.ranges)
    assert not all(independent for *_, independent in schedule.ranges)
    ends = [0]
    for start, stop, independent in schedule.ranges:
        assert start == ends[-1]
        ends.append(stop)
        if independent:
            assert not dense(graph)[start:stop, start:stop].any()
    assert ends[-1] == graph.n_vertices
    lock, done = threading.Lock(), []

    def work(start, stop):
        with lock:
            done.append((start, stop))

    schedule.run(work)
    visited = sorted(i for start, stop in done for i in range(start, stop))
    assert visited == list(range(graph.n_vertices))
    if n_threads > 1:
        assert len(done) > len(schedule.ranges)
        # No part begins before the ranges in front of it are over.
        range_of = [np.searchsorted(ends, start, side="right") for start, _ in done]
        assert range_of == sorted(range_of)


def test_an_error_in_a_thread_comes_out(monkeypatch):
    """And not before the other parts have ended."""
    monkeypatch.setattr(vertex_order, "_PARALLEL_ENTRIES", 1)
    graph = reorder(GRAPHS["torus"], sweep_order(GRAPHS["torus"]))

    def work(start, stop):
        raise RuntimeError(f"{start}")

    with pytest.raises(RuntimeError, match="0"):
        RangeSchedule(graph.indptr, graph.indices, 2).run(work)
