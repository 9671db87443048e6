"""Kernels of networks and of maximum cuts inside a Numba prange: many starts, one thread each.

Every iteration descends on the risk of a small network by gradient steps, and searches a maximum
cut by annealed rows, rounding and local search. Iterations share nothing, so their results do not
depend on the number of threads.
"""

import sys

import numba
import numpy as np

from derand_fast.callables import network_plan
from derand_fast.generators import random_graph
from derand_fast.kernels.embedded_network import network_value_and_gradient, network_workspace
from derand_fast.kernels.maxcut import (
    anneal_rows,
    cut_value,
    flip_gains,
    one_flip_ascent,
    round_to_signs,
)
from derand_fast.objectives.node_risk import NodeRisk

STARTS = 8
GRADIENT_STEPS = 200
LANES = 8


@numba.njit
def descend(plan, p):
    """Take gradient steps on the risk from p, in place; return the risk."""
    workspace, gradient = network_workspace(plan), np.empty_like(p)
    for _ in range(GRADIENT_STEPS):
        network_value_and_gradient(plan, workspace, p, gradient)
        for j in range(len(p)):
            p[j] -= 0.05 * gradient[j]
    return network_value_and_gradient(plan, workspace, p, gradient)


@numba.njit
def search_cut(indptr, indices, weights, weights32, rows, signs):
    """Anneal the rows, round them to signs, flip vertices; return the cut."""
    anneal_rows(indptr, indices, weights32, rows, 0.3, 0.98, 300)
    round_to_signs(rows.reshape((-1, LANES)), rows[:LANES], signs)
    gains = np.empty(len(signs))
    flip_gains(indptr, indices, weights, signs, gains)
    one_flip_ascent(indptr, indices, weights, signs, gains, 1e-9)
    return cut_value(indptr, indices, weights, signs)


@numba.njit(parallel=True)
def search(plan, points, risks, indptr, indices, weights, weights32, rows, signs, cuts):
    """Improve every start in place; write its risk and its cut."""
    for start in numba.prange(len(points)):
        risks[start] = descend(plan, points[start])
        cuts[start] = search_cut(indptr, indices, weights, weights32, rows[start], signs[start])


def problem():
    """Return the arguments of `search`: a teacher on a grid of nodes, a graph, random starts."""
    random = np.random.default_rng(0)
    nodes = np.array([[x, y] for x in np.linspace(-2, 2, 15) for y in np.linspace(-2, 2, 15)])
    targets = np.tanh(nodes[:, 0] + 0.5 * nodes[:, 1])
    risk = NodeRisk((2, 6, 1), "tanh", nodes, np.full(len(nodes), 1 / len(nodes)), targets)
    points = 0.5 * random.standard_normal((STARTS, risk.n_params))

    graph = random_graph(300, 1500, seed=1)
    rows = random.standard_normal((STARTS, 300, LANES)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    return risk, points, graph, rows.reshape(STARTS, -1)


def main() -> None:
    """Search in parallel, then one start after the other, and compare."""
    risk, points, graph, rows = problem()
    # The plan holds addresses: the risk must live as long as it.
    plan = network_plan(risk)
    arrays = graph.indptr, graph.indices, graph.weights, graph.weights.astype(np.float32)
    signs = np.zeros((STARTS, graph.n_vertices), np.int8)
    risks, cuts = np.empty(STARTS), np.empty(STARTS)
    start_points, start_rows = points.copy(), rows.copy()
    search(plan, points, risks, *arrays, rows, signs, cuts)
    total = graph.weights.sum() / 2
    print(f"risks {risks.min():.6f} to {risks.max():.6f}")
    print(f"cuts {cuts.min():.0f} to {cuts.max():.0f} of {total:.0f}")

    alone = np.zeros(graph.n_vertices, np.int8)
    for start in range(STARTS):
        same = descend(plan, start_points[start]) == risks[start]
        same &= search_cut(*arrays, start_rows[start], alone) == cuts[start]
        if not (same and np.array_equal(alone, signs[start])):
            sys.exit(f"start {start} has another result by itself")
    if not np.isclose(risk.value(points[0]), risks[0]):
        sys.exit("the risk is wrong")
    if not (risks.max() < 0.05 and cuts.min() > 0.6 * total):
        sys.exit("the searches did not get anywhere")
    print("the same, bit for bit, one by one")


if __name__ == "__main__":
    main()
