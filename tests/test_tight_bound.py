"""Odd-cycle bounds: inequalities, shortest walks, multipliers, bounds that are never false."""

import itertools
import math
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

from derand_fast import max_cut
from derand_fast.budget import Budget
from derand_fast.generators import planar_union, random_graph, torus_grid
from derand_fast.graphs import as_graph
from derand_fast.kernels.odd_cycles import shortest_odd_walks
from derand_fast.tight_bound import Edges, Lagrangian, OddWalks, _violated_walks, tight_bound

GRAPHS = {
    "random": random_graph(9, 18, seed=1, weights="signs"),
    "complete": random_graph(7, 21, seed=0),
    "torus": torus_grid(3, 4, seed=2, weights="gaussian"),
    "planar": planar_union(8, seed=1),
    "tree": as_graph((6, [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)], [1.0, -2, 3, 0.1, 5])),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def all_cuts(graph):
    """Edge vectors of all cuts, one row each."""
    tails, heads, _ = graph.edges()
    signs = np.array(list(itertools.product((1, -1), repeat=graph.n_vertices - 1)))
    signs = np.column_stack((np.ones(len(signs), int), signs))
    return (signs[:, tails] != signs[:, heads]).astype(np.float64)


def largest_cut(graph):
    return (all_cuts(graph) @ graph.edges()[2]).max()


def walks_of(graph, point, toll=0.0):
    """The shortest odd walk through each vertex, straight from the kernel."""
    edges, n = Edges.of(graph), graph.n_vertices
    ends, steps = np.zeros(n, np.int64), np.empty(100 * n, np.int32)
    odd = np.empty(steps.size, np.bool_)
    done = shortest_odd_walks(
        *(graph.indptr, graph.indices, edges.tails, edges.edge_of, point, toll),
        *(np.arange(n, dtype=np.int32), 1e9, np.full(2 * n, np.inf)),
        *(np.empty(2 * n, np.int64) for _ in range(4)),
        *(ends, steps, odd),
    )
    assert done == n
    starts = [0, *ends[:-1].tolist()]
    return [(steps[a:b], odd[a:b]) for a, b in zip(starts, ends.tolist(), strict=True)]


@EVERY_GRAPH
@pytest.mark.parametrize("toll", [0.0, 0.3])
def test_walks_are_closed_odd_and_shortest(name, toll):
    """Against Floyd and Warshall's algorithm on two copies of the graph."""
    graph = GRAPHS[name]
    tails, heads, _ = graph.edges()
    n, point = graph.n_vertices, np.random.default_rng(3).random(tails.size)
    doubled = nx.Graph()
    for u, v, x in zip(tails.tolist(), heads.tolist(), point.tolist(), strict=True):
        for copy in (0, n):
            doubled.add_edge(u + copy, v + copy, weight=x + toll)
            doubled.add_edge(u + copy, v + n - copy, weight=1 - x + toll)
    distance = nx.floyd_warshall(doubled)
    for source, (steps, odd) in enumerate(walks_of(graph, point, toll)):
        assert odd.sum() % 2 == 1
        length = np.where(odd, 1 - point[steps], point[steps]).sum() + toll * len(steps)
        assert length == pytest.approx(distance[source][source + n], abs=1e-12)
        place = source
        for step in steps.tolist():
            ends = [int(tails[step]), int(heads[step])]
            ends.remove(place)  # ValueError if the walk is broken
            place = ends[0]
        assert place == source


@EVERY_GRAPH
def test_every_cut_satisfies_the_inequalities(name):
    """Enumeration of the cuts; and the walks found are violated by the point."""
    graph = GRAPHS[name]
    edges = Edges.of(graph)
    point = np.random.default_rng(1).random(edges.weights.size).round()
    walks = _violated_walks(edges, point, 0.05)
    assert np.all(walks.slack(point) < 0)
    assert len(set(map(bytes, walks.sigma.toarray()))) == len(walks)
    # A tree has no closed walk but those that go to and fro: never violated.
    assert (len(walks) == 0) == (name == "tree")
    for cut in all_cuts(graph):
        assert np.all(walks.slack(cut) >= 0)


def test_edges_are_numbered_as_stored():
    """Both stored entries of an edge carry its number."""
    graph = GRAPHS["random"]
    edges = Edges.of(graph)
    np.testing.assert_array_equal(edges.weights[edges.edge_of], graph.weights)
    tails, heads, _ = graph.edges()
    ends = np.sort(np.column_stack((edges.tails, graph.indices)), axis=1)
    np.testing.assert_array_equal(ends, np.column_stack((tails, heads))[edges.edge_of])


@EVERY_GRAPH
@pytest.mark.parametrize("size", [1e-9, 0.3, 1e9])
def test_any_multipliers_give_a_bound_in_exact_arithmetic(name, size):
    """For every cut w . x <= constant + w' . x, in fractions, multipliers of any quality."""
    graph = GRAPHS[name]
    edges, generator = Edges.of(graph), np.random.default_rng(5)
    cuts = all_cuts(graph)
    found = walks_of(graph, np.full(edges.weights.size, 0.7))
    steps, odd = [walk for walk, _ in found], [marks for _, marks in found]
    walks = OddWalks.of(steps, odd, edges.weights.size)
    multipliers = size * generator.standard_normal(len(walks))  # the negative ones count as 0
    lagrangian = Lagrangian.of(edges.weights, walks, multipliers)
    gain = [
        Fraction(float(w)) - Fraction(float(v))
        for w, v in zip(edges.weights, lagrangian.weights, strict=True)
    ]
    for cut in cuts:
        assert sum(g for g, x in zip(gain, cut, strict=True) if x) <= Fraction(lagrangian.constant)
    best = largest_cut(graph)
    assert best <= lagrangian.trivial_bound()
    modified = (cuts @ lagrangian.weights).max()
    # The maximum itself is a sum of at most 21 rounded terms.
    assert best <= lagrangian.bound(modified) + 1e-13 * np.abs(lagrangian.weights).sum()


@EVERY_GRAPH
@pytest.mark.parametrize("factor", [1.0, 2.0**-300, 1e200])
def test_bound_is_never_below_the_largest_cut(name, factor):
    """By enumeration, for weights of any size; both ways to a bound occur among the graphs."""
    graph = GRAPHS[name]
    tails, heads, weights = graph.edges()
    scaled = as_graph((graph.n_vertices, np.column_stack((tails, heads)), weights * factor))
    best = largest_cut(scaled)
    result = tight_bound(scaled)
    assert best <= result.upper_bound * (1 + 1e-15)
    assert result.upper_bound <= scaled.weights[scaled.weights > 0].sum() / 2 * (1 + 1e-12)
    assert "odd-cycle inequalities" in result.certificate


@pytest.mark.parametrize("seed", range(4))
def test_planar_graphs_are_solved_exactly(seed):
    """A grid with signs, and a triangulation: the inequalities describe all cuts (Barahona)."""
    grid = nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 4))
    if seed % 2:
        grid = nx.triangular_lattice_graph(3, 5)
        grid = nx.convert_node_labels_to_integers(grid)
    pairs = np.array(grid.edges())
    weights = np.random.default_rng(seed).choice([-1.0, 1.0], len(pairs))
    graph = as_graph((grid.number_of_nodes(), pairs, weights))
    result = tight_bound(graph)
    assert result.certificate.startswith("proven")
    # HiGHS solves to 1e-7; the objective has some 20 terms.
    assert result.upper_bound == pytest.approx(largest_cut(graph), abs=1e-5)


@pytest.mark.parametrize("n", [5, 9, 31])
def test_odd_rings(n):
    """All edges but one can be cut; the semidefinite bound is n cos^2(pi / 2 n)."""
    ring = as_graph((n, [(i, (i + 1) % n) for i in range(n)], None))
    result = tight_bound(ring)
    assert result.upper_bound == pytest.approx(n - 1, abs=1e-6)
    assert result.upper_bound >= n - 1
    assert result.upper_bound < n * math.cos(math.pi / (2 * n)) ** 2


def test_relaxation_with_inequalities_beats_the_relaxation_alone():
    """The union of two triangulations: well below the plain value, never below a known cut."""
    graph = planar_union(60, seed=4)
    assert graph.n_edges > 3.5 * graph.n_vertices
    plain = max_cut(graph, effort="quick", n_threads=1)
    result = tight_bound(graph, seed=1)
    assert result.certificate.startswith("holds with probability at least 1 - 1e-09")
    assert plain.cut_value <= result.upper_bound
    assert plain.sdp_value is not None
    gap = plain.sdp_value - plain.cut_value
    assert result.upper_bound <= plain.sdp_value - 0.3 * gap
    again = tight_bound(graph, seed=1)
    assert again.upper_bound == result.upper_bound
    np.testing.assert_array_equal(again.multipliers, result.multipliers)


def test_torus_with_signs_is_bounded_well_below_the_relaxation():
    """The class on which the semidefinite bound is 10 % off."""
    graph = torus_grid(10, 10, seed=1, weights="signs")
    plain = max_cut(graph, effort="quick", n_threads=1)
    result = tight_bound(graph)
    assert plain.cut_value <= result.upper_bound
    assert plain.sdp_value is not None
    assert result.upper_bound - plain.cut_value <= 0.3 * (plain.sdp_value - plain.cut_value)


def test_a_target_and_an_expired_budget_end_it():
    """Reached at once, or no time at all: the sum of the positive weights."""
    graph = torus_grid(6, 6, seed=1, weights="signs")
    trivial = graph.weights[graph.weights > 0].sum() / 2
    stopped = Budget(None)
    stopped.stop("test")
    for result in (tight_bound(graph, target=trivial), tight_bound(graph, budget=stopped)):
        assert result.upper_bound == pytest.approx(trivial, rel=1e-12)
        assert result.upper_bound >= trivial
        assert result.multipliers.size == 0
    dense = random_graph(20, 190, seed=0)
    assert tight_bound(dense, budget=stopped).upper_bound == pytest.approx(190, rel=1e-12)


GRID = torus_grid(10, 10, seed=1, weights="signs")
UNION = planar_union(60, seed=4)


@pytest.mark.parametrize("graph", [GRID, UNION], ids=["programme", "relaxation"])
def test_rounds_are_reported_with_bounds_that_hold(graph):
    rounds = []
    result = tight_bound(graph, on_round=rounds.append)
    assert len(rounds) > 2
    bounds = [found.upper_bound for found in rounds]
    assert bounds == sorted(bounds, reverse=True)
    assert result.upper_bound <= bounds[-1]
    for found in rounds:
        # The multipliers prove it: of any cut, such as that of the even vertices.
        tails, heads, weights = graph.edges()
        cut = (tails % 2 != heads % 2).astype(float)
        lagrangian = found.lagrangian
        proven = lagrangian.constant + (np.maximum(lagrangian.weights, 0.0)).sum()
        assert found.upper_bound == pytest.approx(proven * found.scale, rel=1e-12)
        assert weights @ cut <= found.upper_bound


@pytest.mark.parametrize(
    ("graph", "until"), [(GRID, 12.0), (UNION, 200.0)], ids=["programme", "relaxation"]
)
def test_rounds_end_at_the_moment_that_is_given(graph, until):
    """Each look at the clock counts as a second: no wait, and the same on any machine."""

    class Ticks(Budget):
        ticks = 0

        def elapsed(self):
            self.ticks += 1
            return float(self.ticks)

    without_end = []
    tight_bound(graph, on_round=without_end.append)
    budget, rounds = Ticks(None), []
    result = tight_bound(graph, budget=budget, until=until, on_round=rounds.append)
    assert 0 < len(rounds) < len(without_end)
    assert budget.ticks <= until + 10.0
    assert max_cut(graph, sweeps=100, bound=False).cut_value <= result.upper_bound


@pytest.mark.parametrize("graph", [GRID, UNION], ids=["programme", "relaxation"])
def test_callbacks_see_the_rounds_and_an_interrupt_keeps_the_best_bound(graph):
    phases = []

    def interrupt(state):
        phases.append((state.phase, state.upper_bound))
        if [phase for phase, _ in phases].count("tight") == 3:
            raise KeyboardInterrupt

    result = max_cut(graph, sweeps=100, n_threads=1, bound="tight", callback=interrupt)
    assert result.message == "interrupted"
    tight = [bound for phase, bound in phases if phase == "tight"]
    assert len(tight) == 3
    assert result.upper_bound == tight[-1]
    assert result.cut_value <= result.upper_bound
    if graph is GRID:
        assert result.bound_certificate.startswith("proven: multipliers")


def test_no_edges():
    """Nothing to cut."""
    assert tight_bound(as_graph((3, [], None))).upper_bound == 0.0
