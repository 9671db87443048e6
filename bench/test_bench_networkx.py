"""Cuts through networkx and the kernels behind them, each beside what they replace.

Run with ``pytest bench/test_bench_networkx.py --benchmark-only --benchmark-group-by=group``.
"""

import random

import networkx as nx
import numpy as np
import pytest

from derand_fast import networkx_backend
from derand_fast.kernels.one_exchange import shuffle
from derand_fast.networkx_cuts import _Twister

# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("kernel", "kernel, numbers only")
GRAPH = nx.gnm_random_graph(60, 150, seed=1)


@pytest.mark.benchmark(group="shuffle, 10,000 places")
@pytest.mark.parametrize("kind", ["kernel", "kernel, numbers only", "random.shuffle", "numpy"])
def test_shuffle(benchmark, kind):
    n = 10_000
    generator = random.Random(1)
    twister = _Twister(generator)
    order = np.empty(n, dtype=np.int32)
    listed = list(range(n))
    numpy_generator = np.random.default_rng(1)
    work = {
        "kernel": lambda: shuffle(twister.words, twister.numbers, twister.place, order, True),
        "kernel, numbers only": lambda: shuffle(
            twister.words, twister.numbers, twister.place, order, False
        ),
        "random.shuffle": lambda: generator.shuffle(listed),
        "numpy": lambda: numpy_generator.permutation(n),
    }[kind]
    work()
    benchmark(work)
    assert sorted(listed) == list(range(n))


@pytest.mark.benchmark(group="one exchange, 60 vertices, 150 edges")
@pytest.mark.parametrize("kind", ["ours", "ours, converted before", "networkx"])
def test_one_exchange(benchmark, kind):
    converted = networkx_backend.convert_from_nx(GRAPH)

    def ours():
        graph = networkx_backend.convert_from_nx(GRAPH)
        return networkx_backend.one_exchange(graph, seed=random.Random(1))

    def ours_converted():
        return networkx_backend.one_exchange(converted, seed=random.Random(1))

    def theirs():
        return nx.approximation.one_exchange(GRAPH, seed=random.Random(1), backend="networkx")

    work = {"ours": ours, "ours, converted before": ours_converted, "networkx": theirs}[kind]
    work()
    assert benchmark(work) == theirs()


@pytest.mark.benchmark(group="conversion, 10,000 vertices, 30,000 weighted edges")
@pytest.mark.parametrize("kind", ["ours", "networkx.to_scipy_sparse_array"])
def test_conversion(benchmark, kind):
    graph = nx.gnm_random_graph(10_000, 30_000, seed=1)
    nx.set_edge_attributes(graph, 2, "weight")

    def ours():
        return networkx_backend.convert_from_nx(graph, edge_attrs={"weight": 1}).indices.size

    def theirs():
        return nx.to_scipy_sparse_array(graph).nnz

    work = ours if kind == "ours" else theirs
    work()
    assert benchmark(work) == 60_000
