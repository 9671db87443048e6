"""The search by itself: what an anneal promises, how heat is learned, what is offered."""

import math

import naive
import numpy as np
import pytest

from derand_fast import max_cut
from derand_fast.annealing import AnnealedSearch, Merging, _Heat, _Searcher, _Task
from derand_fast.budget import Budget
from derand_fast.contraction import Contraction
from derand_fast.generators import random_graph, torus_grid
from derand_fast.incumbent import DiversePool, Incumbent
from derand_fast.kernels.replicas import REPLICAS
from derand_fast.relaxation import ScaledGraph

GRAPHS = {
    "torus": torus_grid(12, 12, seed=1, weights="signs"),
    "dense": random_graph(60, 900, seed=2),
    "gaussian": torus_grid(9, 9, seed=3, weights="gaussian"),
}


def value(graph, signs):
    return naive.cut_value(graph.indptr, graph.indices, graph.weights, signs)


def searcher_of(graph, seed=0):
    return _Searcher(ScaledGraph.of(graph), np.random.default_rng(seed), Budget(None))


def incumbent_of(graph, pool=None, target=None):
    signs = np.ones(graph.n_vertices, np.int8)
    return Incumbent(
        signs,
        0.0,
        None,
        contraction=Contraction.of(graph),
        budget=Budget(None),
        callback=None,
        progress=None,
        target=target,
        pool=pool,
    )


# Sums of some hundred weights of scale one.
ROUNDING = 1e-9


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("heat", [0.05, 0.3, 2.0])
def test_a_reheat_is_no_worse_than_its_start_and_its_replicas(name, heat):
    graph = GRAPHS[name]
    searcher = searcher_of(graph)
    searcher.anneal(_Task(None, np.full(REPLICAS, 0.6), 40))
    for _ in range(4):
        start = searcher.signs.copy()
        searcher.anneal(_Task(start, np.full(REPLICAS, heat), 20))
        best = max(value(graph, signs) for signs in searcher.replicas)
        assert value(graph, searcher.signs) >= max(best, value(graph, start)) - ROUNDING
        scale = ScaledGraph.of(graph).scale
        gained = value(graph, searcher.signs) - value(graph, start)
        assert scale * searcher.gains.sum() == pytest.approx(gained, abs=ROUNDING)
    assert searcher.sweeps_done == 120


@pytest.mark.parametrize("name", GRAPHS)
def test_a_first_anneal_is_no_worse_than_its_replicas(name):
    graph = GRAPHS[name]
    searcher = searcher_of(graph)
    searcher.anneal(_Task(None, np.full(REPLICAS, 0.6), 60))
    values = [value(graph, signs) for signs in searcher.replicas]
    assert value(graph, searcher.signs) >= max(values) - ROUNDING
    # They start from random signs of their own.
    assert len({signs.tobytes() for signs in searcher.replicas}) > 2


def test_annealing_beats_quenching():
    """Three sweeps are all at temperature 0 and end in local optima; a slow anneal ends higher."""
    graph = torus_grid(40, 40, seed=1, weights="signs")
    means = []
    for sweeps in (3, 300):
        searcher = searcher_of(graph)
        searcher.anneal(_Task(None, np.full(REPLICAS, 0.6), sweeps))
        means.append(np.mean([value(graph, signs) for signs in searcher.replicas]))
    assert means[1] > 1.2 * means[0]


def test_anneal_of_an_expired_budget_still_merges():
    graph = GRAPHS["torus"]
    budget = Budget(None)
    searcher = _Searcher(ScaledGraph.of(graph), np.random.default_rng(0), budget)
    start = np.random.default_rng(1).choice([-1, 1], graph.n_vertices).astype(np.int8)
    budget.stop("enough")
    searcher.anneal(_Task(start, np.full(REPLICAS, 0.6), 100))
    assert searcher.sweeps_done == 0
    assert (searcher.signs == start).all()


def test_merging_twice_gains_nothing():
    graph = ScaledGraph.of(GRAPHS["torus"])
    merging = Merging(graph)
    rng = np.random.default_rng(0)
    one, other = (rng.choice([-1, 1], graph.n_vertices).astype(np.int8) for _ in range(2))
    before = merging.value(one)
    gain = merging.merge(one, other)
    assert gain > 0.0
    assert merging.value(one) == before + gain
    assert merging.merge(one, other) == 0.0


def test_heat_moves_to_where_the_gains_are():
    gains = np.zeros(REPLICAS)
    heat = _Heat()
    first = heat.temperatures()
    assert (np.diff(first) > 0).all()
    heat.learn(gains)
    assert (heat.temperatures() == first).all()
    gains[-1] = 3.0
    heat.learn(gains)
    warmer = heat.temperatures()
    assert (warmer > first).all()
    gains[:] = 0.0
    gains[0] = 1.0
    heat.learn(gains)
    # The spread is even in logarithms: one step up and one down.
    assert heat.temperatures() == pytest.approx(first, rel=1e-12)
    for _ in range(100):
        heat.learn(gains)
    lowest = heat.temperatures()
    assert 0.0 < lowest[0] < first[0]
    heat.learn(gains)
    assert (heat.temperatures() == lowest).all()


def test_only_worse_cuts_are_kept_beside_the_best():
    graph = torus_grid(4, 5, seed=1, weights="signs")
    pool = DiversePool(3, 1, anchor=0, symmetric=True)
    incumbent = incumbent_of(graph, pool)
    assert incumbent.wants_others
    signs = np.ones(20, np.int8)
    signs[3] = -1
    incumbent.offer_other(signs, 5.0)
    assert incumbent.value == 0.0
    assert len(pool.cuts()) == 1
    incumbent.offer_other(signs, -1.0)
    assert len(pool.cuts()) == 2
    assert incumbent.value == 0.0
    assert not incumbent_of(graph).wants_others


@pytest.mark.parametrize("sweeps", [1, 5, 64, 3000])
def test_plan_is_kept(sweeps):
    graph = GRAPHS["gaussian"]
    incumbent = incumbent_of(graph)
    search = AnnealedSearch(
        ScaledGraph.of(graph),
        np.random.SeedSequence(1),
        sweeps=sweeps,
        n_threads=1,
        initial=None,
        budget=Budget(None),
        incumbent=incumbent,
    )
    search.run()
    assert sweeps - 1 <= incumbent.sweeps <= sweeps
    assert value(graph, incumbent.signs) == pytest.approx(incumbent.value, rel=1e-12)


def test_restarts_keep_the_best():
    """A small graph and many sweeps: dozens of fresh starts, and no step back."""
    graph = torus_grid(8, 8, seed=5, weights="gaussian")
    values = []
    result = max_cut(
        graph,
        sweeps=400_000,
        bound=False,
        n_threads=1,
        callback=lambda state: values.append(state.cut_value),
    )
    assert values == sorted(values)
    assert result.cut_value >= values[-1] - ROUNDING


def test_long_torus_by_transfer_matrix():
    """A 3 x 60 torus with random signs against its exact optimum."""
    rows, columns = 3, 60
    graph = torus_grid(rows, columns, seed=2, weights="signs")
    best = max_cut(graph, sweeps=3000, bound=False, n_threads=1).cut_value
    assert best == strip_optimum(graph, rows, columns)


def strip_optimum(graph, rows, columns):
    """Best cut of a torus of few rows: the first column's state, then column by column."""
    tails, heads, weights = (array.tolist() for array in graph.edges())
    inside = [[] for _ in range(columns)]
    between = [[] for _ in range(columns)]
    for i, j, w in zip(tails, heads, weights, strict=True):
        (a, c), (b, d) = divmod(i, columns), divmod(j, columns)
        if c == d:
            inside[c].append((a, b, w))
        elif (c + 1) % columns == d:
            between[c].append((a, b, w))
        else:
            assert (d + 1) % columns == c
            between[d].append((b, a, w))
    states = [tuple(1 if code >> r & 1 else -1 for r in range(rows)) for code in range(2**rows)]

    def cut(edges, one, other):
        return sum(w for a, b, w in edges if one[a] != other[b])

    optimum = -math.inf
    for first in states:
        best = {first: cut(inside[0], first, first)}
        for c in range(1, columns):
            best = {
                s: cut(inside[c], s, s)
                + max(v + cut(between[c - 1], t, s) for t, v in best.items())
                for s in states
            }
        closed = max(v + cut(between[-1], t, first) for t, v in best.items())
        optimum = max(optimum, closed)
    return optimum


@pytest.mark.parametrize(
    "graph",
    [random_graph(900, 1800, seed=1), torus_grid(30, 30, seed=2, weights="signs")],
    ids=["eliminated", "clustered"],
)
def test_same_bits_for_any_number_of_threads(graph):
    """With vertices eliminated and with clusters of clusters, at a pace that never is the same."""
    runs = [max_cut(graph, sweeps=1500, bound=False, n_threads=k, seed=3) for k in (1, 2, 3)]
    first = runs[0]
    for run in runs[1:]:
        assert (run.partition == first.partition).all()
        assert run.sweeps == first.sweeps
        assert [row[1:] for row in run.history] == [row[1:] for row in first.history]
