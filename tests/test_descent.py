"""max_cut by descent: the smoothed objective from a strict saddle to a certified point."""

import json
import math

import networkx as nx
import numpy as np
import pytest

from derand_fast import max_cut
from derand_fast.generators import random_graph, torus_grid
from derand_fast.objectives import MaxCutObjective, pack
from derand_fast.optimize import certify

METHODS = ["newton-cg", "hessian-descent", "pgd"]
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
GRAPHS = {
    "random": random_graph(60, 240, seed=1),
    "signs": torus_grid(8, 8, seed=2, weights="signs"),
    "weighted": torus_grid(7, 9, seed=3, weights="gaussian"),
}


@EVERY_METHOD
@pytest.mark.parametrize("name", GRAPHS)
def test_ends_certified_collapsed_and_above_the_promise(method, name):
    """From b = 0 it must escape; W collapses within its bound; the cut keeps the promise."""
    result = max_cut(GRAPHS[name], method=method, n_threads=1)
    certificate = result.certificate
    assert certificate.success
    assert certificate.certified
    # newton_cg leaves the saddle by fixing one input of the rounding, before it gets there.
    assert certificate.n_escapes >= 1 or certificate.history[1].step == "collapse"
    n = GRAPHS[name].n_vertices
    # Unit rows have norm sqrt(n) together; what is left must be within the certified bound.
    assert certificate.W_norm <= certificate.collapse_bound < 0.2 * math.sqrt(n)
    assert result.upper_bound >= result.cut_value >= result.expected_cut
    assert result.method == method
    assert result.message == certificate.message
    assert result.sweeps == 0


def test_the_start_is_a_strict_saddle():
    """Why it must escape: at b = 0 the gradient in b vanishes and the curvature is negative."""
    graph = GRAPHS["random"]
    n = graph.n_vertices
    rows = np.random.default_rng(0).standard_normal((n, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    objective = MaxCutObjective(graph, 8, tau=0.1, lam=0.03)
    x = pack(objective, W=rows, b=np.zeros(n))
    _, gradient = objective.value_and_grad(x)
    # erf is odd: the terms of the bias gradient are zero, not small.
    assert not gradient[objective.blocks["b"].slice].any()
    certificate = certify(objective, x, rho=1e6, curvature_tol=0.03)
    assert not certificate.certified
    assert certificate.lambda_min < -0.03


@EVERY_METHOD
def test_same_bits_for_any_number_of_threads(method):
    graph = GRAPHS["signs"]
    one, two = (max_cut(graph, method=method, n_threads=threads, seed=4) for threads in (1, 2))
    assert one.partition.tobytes() == two.partition.tobytes()
    assert one.certificate.x.tobytes() == two.certificate.x.tobytes()
    assert one.upper_bound == two.upper_bound


def test_given_rank_is_kept():
    result = max_cut(GRAPHS["random"], method="newton-cg", rank=3)
    n = GRAPHS["random"].n_vertices
    assert result.certificate.x.size == 4 * n


def test_without_bound():
    result = max_cut(GRAPHS["random"], method="newton-cg", bound=False)
    assert result.upper_bound is None
    assert result.certificate.certified
    assert result.cut_value >= result.expected_cut


def test_scaling_the_weights_changes_nothing_else():
    """Weights are scaled by a power of two before the descent: the same bits come out."""
    graph = GRAPHS["random"]
    tails, heads, weights = graph.edges()
    edges = np.column_stack((tails, heads))
    plain = max_cut(graph, method="newton-cg")
    scaled = max_cut((graph.n_vertices, edges, 1024.0 * weights), method="newton-cg")
    assert np.array_equal(plain.partition, scaled.partition)
    assert scaled.cut_value == 1024.0 * plain.cut_value


@EVERY_METHOD
def test_time_limit_returns_the_best_so_far(method):
    graph = random_graph(3000, 12000, seed=1)
    result = max_cut(graph, method=method, time_limit=0.4, n_threads=1)
    assert result.certificate is None or not result.certificate.success
    assert result.cut_value >= result.expected_cut


def test_callback_stops_a_descent():
    states = []
    result = max_cut(
        GRAPHS["random"],
        method="pgd",
        callback=lambda state: states.append(state) or state.phase == "search",
    )
    assert result.message == "stopped by the callback"
    assert states[-1].phase == "search"
    assert not result.certificate.certified


@EVERY_METHOD
def test_small_and_bipartite_graphs(method):
    assert max_cut(nx.empty_graph(3), method=method).cut_value == 0.0
    assert max_cut(nx.path_graph(2), method=method).cut_value == 1.0
    result = max_cut(nx.complete_bipartite_graph(4, 5), method=method)
    assert (result.cut_value, result.gap) == (20.0, 0.0)


def test_isolated_vertices_stay_harmless():
    graph = nx.disjoint_union(nx.petersen_graph(), nx.empty_graph(3))
    result = max_cut(graph, method="newton-cg")
    assert result.cut_value == 12.0
    assert len(result.partition) == 13


def test_report_and_json():
    result = max_cut(GRAPHS["random"], method="newton-cg")
    assert "certified  yes" in str(result)
    answer = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert answer["certificate"]["certified"] is True
    assert answer["certificate"]["W_norm"] == result.certificate.W_norm


@EVERY_METHOD
def test_sweeps_belong_to_annealing(method):
    with pytest.raises(ValueError, match=r"sweeps is 5, but method '.*' has no annealing sweeps"):
        max_cut(nx.petersen_graph(), method=method, sweeps=5)
