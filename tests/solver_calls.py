"""One small call of each solver, for tests in other threads and processes: results as plain bytes.

Functions of no argument in a module of their own, so that a process started by any method finds
them.
"""

import functools
import random

import networkx as nx
import numba
import numpy as np

from derand_fast import (
    GaussianExpectation,
    discover_structure,
    max_cut,
    networkx_backend,
    newton_cg,
)
from derand_fast.generators import random_graph
from derand_fast.objectives import MaxCutObjective


def cut():
    """Annealing and the certified bound, in two threads."""
    result = max_cut(random_graph(60, 150, seed=1), sweeps=200, n_threads=2, seed=3)
    return result.partition.tobytes(), result.cut_value, result.upper_bound


def descended_cut():
    """A second-order stationary point of the smoothed cut."""
    result = max_cut(random_graph(40, 90, seed=2), method="newton-cg", n_threads=2, seed=3)
    return result.partition.tobytes(), result.cut_value, result.upper_bound


def structure():
    """A network that learns from a teacher."""
    result = discover_structure("tanh", d=2, hidden=6, lam=1e-2, rho=1e-4, seed=1, n_threads=2)
    return result.certificate.x.tobytes(), result.collapse


def embedding():
    """A linear map of small distortion."""
    from derand_fast import JLEmbedding

    rows = np.random.default_rng(0).standard_normal((30, 20))
    fitted = JLEmbedding(4, max_iter=60, n_jobs=2, random_state=0).fit(rows)
    return fitted.components_.tobytes(), fitted.max_distortion_


@numba.njit
def _value(z, theta):
    return (z[0] ** 2 - 1.0) ** 2 + z[0] * z[1] + z[1] ** 2


@numba.njit
def _gradient(z, theta, out_z, out_theta):
    out_z[0] = 4.0 * z[0] * (z[0] ** 2 - 1.0) + z[1]
    out_z[1] = z[0] + 2.0 * z[1]


@functools.cache
def _expectation():
    # One objective for all calls: its compiled loops belong to it, and threads share it.
    return GaussianExpectation((_value, _gradient), (2, 3), lam=0.1, level=8, n_threads=2)


def expectation():
    """E[g(W x + b)] of a compiled g, minimised."""
    start = np.linspace(0.5, 1.0, _expectation().n_params)
    result = newton_cg(_expectation(), start, rho=1e-4)
    return result.x.tobytes(), result.lambda_min_lower


@functools.cache
def _smoothed():
    graph = random_graph(2000, 12_000, seed=1)
    return MaxCutObjective(graph, 4, tau=0.5, lam=0.1, n_threads=2)


def smoothed_cut():
    """Value, gradient and a Hessian product, large enough for two threads."""
    point = np.random.default_rng(1).standard_normal(_smoothed().n_params)
    value, gradient = _smoothed().value_and_grad(point)
    return value, gradient.tobytes(), _smoothed().hvp(point, gradient).tobytes()


def exchange():
    """Local search as networkx does it."""
    graph = networkx_backend.convert_from_nx(nx.gnm_random_graph(300, 900, seed=1))
    value, (side, _) = networkx_backend.one_exchange(graph, seed=random.Random(2))
    return value, tuple(side)


ALL = (cut, descended_cut, structure, embedding, expectation, smoothed_cut, exchange)
# What a new process can do without compiling for itself.
QUICK = (cut, smoothed_cut, exchange)


def quick_results():
    """Results of the quick ones, by name."""
    return {call.__name__: call() for call in QUICK}


def send_quick_results(connection):
    """Send the quick results to the process at the other end."""
    connection.send(quick_results())
    connection.close()
