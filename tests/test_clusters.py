"""Clusters of vertices that all cuts place alike, against the definition."""

import itertools

import naive
import networkx as nx
import numpy as np
import pytest

from derand_fast.clusters import Clusters
from derand_fast.generators import random_graph, torus_grid
from derand_fast.relaxation import ScaledGraph

GRAPHS = {
    "torus": torus_grid(4, 5, seed=1, weights="signs"),
    "random": random_graph(18, 40, seed=2, weights="signs"),
    "gaussian": torus_grid(4, 4, seed=3, weights="gaussian"),
    "two parts": random_graph(16, 14, seed=4),
}


def value(graph, signs):
    return naive.cut_value(graph.indptr, graph.indices, graph.weights, signs)


def similar_cuts(graph, count, seed):
    """Cuts that differ from one in a few vertices, some of them turned round."""
    rng = np.random.default_rng(seed)
    base = rng.choice([-1, 1], graph.n_vertices).astype(np.int8)
    cuts = np.array([base] * count)
    for row in cuts:
        moved = rng.choice(graph.n_vertices, 3, replace=False)
        row[moved] *= -1
        row *= rng.choice([-1, 1])
    return cuts


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("count", [2, 5, 16])
def test_clusters_against_the_definition(name, count):
    graph = ScaledGraph.of(GRAPHS[name])
    cuts = similar_cuts(graph, count, seed=count)
    clusters = Clusters.of(graph, cuts)
    # The same bonds by a plain loop, and networkx for the components.
    bonds = nx.Graph()
    bonds.add_nodes_from(range(graph.n_vertices))
    for i, j, _ in naive.edges_of(graph.indptr, graph.indices, graph.weights):
        if len({int(cut[i]) * int(cut[j]) for cut in cuts}) == 1:
            bonds.add_edge(i, j)
    parts = {frozenset(part) for part in nx.connected_components(bonds)}
    labels = clusters.cluster.tolist()
    mine = {
        frozenset(v for v in range(graph.n_vertices) if labels[v] == label) for label in set(labels)
    }
    assert mine == parts
    assert clusters.graph.n_vertices == len(parts)


@pytest.mark.parametrize("name", GRAPHS)
def test_values_agree_up_to_one_constant(name):
    graph = ScaledGraph.of(GRAPHS[name])
    clusters = Clusters.of(graph, similar_cuts(graph, 4, seed=1))
    small = clusters.graph
    count = min(small.n_vertices, 9)
    rng = np.random.default_rng(0)
    differences = []
    for signs in itertools.product((1, -1), repeat=count):
        cut = np.array([*signs, *rng.choice([-1, 1], small.n_vertices - count)], np.int8)
        lifted = clusters.lift(cut)
        assert lifted.dtype == np.int8
        differences.append(value(graph, lifted) - value(small, cut))
    # Sums of some tens of weights below 2.
    assert np.ptp(differences) < 1e-12


@pytest.mark.parametrize("name", GRAPHS)
def test_the_cuts_are_cuts_of_the_clusters(name):
    graph = ScaledGraph.of(GRAPHS[name])
    cuts = similar_cuts(graph, 6, seed=2)
    clusters = Clusters.of(graph, cuts)
    for cut in cuts:
        turned = np.zeros(clusters.graph.n_vertices, np.int8)
        turned[clusters.cluster] = cut * clusters.gauge
        assert (clusters.lift(turned) == cut).all()


def test_arrays_are_like_those_of_any_graph():
    graph = ScaledGraph.of(GRAPHS["torus"])
    small = Clusters.of(graph, similar_cuts(graph, 3, seed=0)).graph
    for name in ("indptr", "indices", "weights", "weights32"):
        one, other = getattr(graph, name), getattr(small, name)
        assert (one.dtype, one.flags.writeable) == (other.dtype, other.flags.writeable)
    assert (small.weights != 0.0).all()


def test_equal_cuts_leave_one_vertex_for_each_component():
    graph = ScaledGraph.of(GRAPHS["two parts"])
    one = np.random.default_rng(0).choice([-1, 1], 16).astype(np.int8)
    clusters = Clusters.of(graph, np.array([one, -one, one]))
    network = nx.from_scipy_sparse_array(GRAPHS["two parts"].to_scipy())
    assert clusters.graph.n_vertices == nx.number_connected_components(network)
    assert clusters.graph.indices.size == 0
