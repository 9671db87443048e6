"""The networkx backend gives what networkx gives: values, types, sets, orders, random numbers."""

import importlib.metadata
import logging
import os
import random
import re
import subprocess
import sys
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest

from derand_fast import networkx_backend, networkx_cuts
from derand_fast.kernels.one_exchange import boundary_entries, shuffle
from derand_fast.networkx_backend import can_run, convert_from_nx, convert_to_nx, should_run

# Edge weights of one kind each: from exact sums over sums that rounding decides to what only Python
# can add, or nobody.
WEIGHTS = {
    "ones": None,
    "integers": lambda r: r.randrange(-3, 4),
    "floats": lambda r: r.random() - 0.4,
    "tenths": lambda r: r.randrange(-10, 10) / 10,
    "halves": lambda r: r.randrange(-10, 10) / 2,
    "mixed": lambda r: r.choice([1, 2.5, True, 0.1, 3]),
    "float64": lambda r: np.float64(r.randrange(10) / 10),
    "float32": lambda r: np.float32(r.random()),
    "int8": lambda r: np.int8(r.randrange(5)),
    "int64": lambda r: np.int64(r.randrange(-5, 5)),
    "beyond 2^53": lambda r: r.randrange(10**17),
    "beyond float64": lambda r: r.randrange(10**400),
    "fractions": lambda r: Fraction(r.randrange(-5, 6), 7),
    "NaN": lambda r: r.choice([float("nan"), 1.0, 2.0]),
    "infinite": lambda r: r.choice([float("inf"), 1.0, 2.0]),
    "overflow": lambda r: r.choice([1e308, -1e308, 1.0]),
    "text": lambda r: r.choice([1, "a"]),
}


def some_graph(seed, kind, most_nodes=14):
    """Random graph, seldom with a loop, with labels of several kinds, some weights absent."""
    r = random.Random(seed)
    n = r.randrange(most_nodes)
    graph = nx.gnp_random_graph(n, r.random(), seed=seed)
    if seed % 3 == 0 and n > 2:
        graph.add_edge(1, 1)
    if seed % 2:
        order = r.sample(sorted(graph), n)
        labels = {node: f"v{k}" if k % 2 else (k, "x") for k, node in enumerate(order)}
        graph = nx.relabel_nodes(graph, labels)
    if WEIGHTS[kind] is not None:
        for *_, data in graph.edges(data=True):
            if r.random() < 0.95:
                data["weight"] = WEIGHTS[kind](r)
    return graph


def some_generator(seed):
    """One of the three kinds of generators that networkx takes."""
    kinds = (random.Random, np.random.RandomState, np.random.default_rng)
    return kinds[seed % 3](seed)


def state_of(generator):
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return repr(generator.get_state())
    return generator.bit_generator.state


def exactly(answer):
    """Everything that a caller can see of an answer, orders of sets and types included."""
    if isinstance(answer, Exception):
        return type(answer), str(answer)
    value, (side, rest) = answer
    return type(value), repr(value), [repr(v) for v in side], [repr(v) for v in rest]


def answer_or_error(function, *arguments):
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        return error


def ours(name, graph, *arguments, weight=None):
    """Call a function of the backend as networkx does after conversion."""
    converted = convert_from_nx(graph, edge_attrs={} if weight is None else {weight: 1})
    return getattr(networkx_backend, name)(converted, *arguments, weight)


# --------------------------------------------------------------------------------------------------
# The same results
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WEIGHTS)
def test_one_exchange_is_that_of_networkx(kind):
    weight = None if kind == "ones" else "weight"
    for seed in range(24):
        graph = some_graph(seed, kind)
        initial = None
        if seed % 4 < 2:
            initial = [*list(graph)[::2], "not in the graph"]
        generators = some_generator(seed), some_generator(seed)
        expected = answer_or_error(
            nx.approximation.one_exchange.orig_func,
            graph,
            initial,
            nx.utils.create_py_random_state(generators[0]),
            weight,
        )
        found = answer_or_error(
            lambda *arguments: ours("one_exchange", *arguments, weight=weight),
            graph,
            initial,
            nx.utils.create_py_random_state(generators[1]),
        )
        assert exactly(found) == exactly(expected), seed
        if not isinstance(expected, Exception):
            assert state_of(generators[0]) == state_of(generators[1]), seed


@pytest.mark.parametrize("kind", ["ones", "tenths"])
def test_one_exchange_on_a_graph_of_a_hundred_vertices(kind):
    graph = nx.gnm_random_graph(100, 200, seed=3)
    r = random.Random(2)
    for *_, data in graph.edges(data=True):
        data["weight"] = 1 if kind == "ones" else r.randrange(10) / 10
    expected = nx.approximation.one_exchange(graph, seed=5, weight="weight", backend="networkx")
    found = ours("one_exchange", graph, None, random.Random(5), weight="weight")
    assert exactly(found) == exactly(expected)


def one_exchange_by_gains(graph, generator):
    """Twin of networkx's function for integer weights that updates gains."""
    side = set()
    gains = {v: sum(graph[v][u]["weight"] for u in graph[v]) for v in graph}
    while True:
        nodes = list(graph)
        generator.shuffle(nodes)
        best = max(nodes, key=gains.__getitem__)
        if gains[best] <= 0:
            return side
        side ^= {best}
        gains[best] = -gains[best]
        for u in graph[best]:
            same = (u in side) == (best in side)
            gains[u] += 2 * graph[best][u]["weight"] * (1 if same else -1)


@pytest.mark.parametrize("step", [4_000_000, 1])
def test_one_exchange_on_a_graph_of_a_thousand_vertices(step, monkeypatch):
    # A step of 1: the compiled loop returns to Python after each move.
    monkeypatch.setattr(networkx_cuts, "_STEP", step)
    graph = nx.gnm_random_graph(1000, 3000, seed=1)
    r = random.Random(1)
    for *_, data in graph.edges(data=True):
        data["weight"] = r.choice([-1, 1, 2])
    generators = random.Random(7), random.Random(7)
    expected = one_exchange_by_gains(graph, generators[0])
    value, (side, rest) = ours("one_exchange", graph, None, generators[1], weight="weight")
    assert side == expected
    assert rest == set(graph) - expected
    assert value == nx.cut_size(graph, expected, weight="weight")
    assert generators[0].getstate() == generators[1].getstate()


def test_one_exchange_without_the_compiled_shuffle(monkeypatch):
    graph = nx.gnm_random_graph(60, 150, seed=1)
    expected = ours("one_exchange", graph, None, random.Random(4))
    monkeypatch.setattr(networkx_cuts, "_kernel_shuffles_like_python", lambda: False)
    assert exactly(ours("one_exchange", graph, None, random.Random(4))) == exactly(expected)


def test_a_subclass_of_random_is_asked_itself():
    class Reversing(random.Random):
        def shuffle(self, x):
            x.reverse()

    graph = nx.cycle_graph(7)
    expected = nx.approximation.one_exchange.orig_func(graph, None, Reversing(), None)
    assert exactly(ours("one_exchange", graph, None, Reversing())) == exactly(expected)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_randomized_partitioning_is_that_of_networkx(kind):
    weight = None if kind == "ones" else "weight"
    for seed in range(12):
        graph = some_graph(seed, kind)
        p = (0.5, 1, 0, Fraction(1, 3))[seed % 4]
        generators = some_generator(seed), some_generator(seed)
        expected = answer_or_error(
            nx.approximation.randomized_partitioning.orig_func,
            graph,
            nx.utils.create_py_random_state(generators[0]),
            p,
            weight,
        )
        found = answer_or_error(
            lambda *arguments: ours("randomized_partitioning", *arguments, weight=weight),
            graph,
            nx.utils.create_py_random_state(generators[1]),
            p,
        )
        assert exactly(found) == exactly(expected), seed
        assert state_of(generators[0]) == state_of(generators[1]), seed


@pytest.mark.parametrize("kind", WEIGHTS)
def test_cut_size_is_that_of_networkx(kind):
    weight = None if kind == "ones" else "weight"
    for seed in range(16):
        graph = some_graph(seed, kind)
        nodes = list(graph)
        source = [*nodes[::2], "not in the graph", ["cannot be hashed"]]
        for target in (None, nodes[1::2], [*nodes[::3], "nor this"], []):
            expected = answer_or_error(nx.cut_size.orig_func, graph, source, target, weight)
            found = answer_or_error(
                lambda *arguments: ours("cut_size", *arguments, weight=weight),
                graph,
                source,
                target,
            )
            # repr tells NaN, infinity, -0.0, text of errors, and the last bit.
            assert (type(found), repr(found)) == (type(expected), repr(expected)), seed


def test_cut_size_takes_an_iterator_and_refuses_targets_that_cannot_be_hashed():
    graph = nx.path_graph(5)
    assert ours("cut_size", graph, iter([1, 2]), None) == 2
    with pytest.raises(TypeError, match="unhashable"):
        ours("cut_size", graph, [1], [[2]])


# --------------------------------------------------------------------------------------------------
# Kernels and bounds
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [True, False])
def test_shuffle_is_that_of_python(wanted):
    for n in (1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 100, 1000):
        python, generator = random.Random(n), random.Random(n)
        twister = networkx_cuts._Twister(generator)
        order = np.full(n, -1, dtype=np.int32)
        for _ in range(3):
            expected = list(range(n))
            python.shuffle(expected)
            shuffle(twister.words, twister.numbers, twister.place, order, wanted)
            assert order.tolist() == (expected if wanted else [-1] * n)
        twister.give_back()
        assert generator.getstate() == python.getstate()


def test_boundary_entries_are_listed_once_from_the_first_row():
    # Triangle 0-1-2 with a loop at 0.
    indptr = np.array([0, 3, 5, 7])
    indices = np.array([1, 2, 0, 0, 2, 0, 1], dtype=np.int32)
    rows = np.array([2, 0], dtype=np.int32)
    rank = np.array([1, 2, 0], dtype=np.int32)
    everything = np.ones(3, dtype=np.bool_)
    entries = np.empty(7, dtype=np.int64)
    count = boundary_entries(indptr, indices, rows, rank, everything, entries)
    assert entries[:count].tolist() == [5, 6, 0, 2]


@pytest.mark.parametrize("scale", [1.0, 2.0**-1074, 2.0**-30, 2.0**960])
def test_exact_sums_are_recognised(scale):
    values = [scale * w for w in (1.0, 3.0, -5.0, 0.0, 1024.0)]
    assert networkx_cuts._rounding({float}, np.array(values)) == 0.0
    if scale >= 1.0:
        spoilt = [*values, values[-1] * 2.0**60]
        assert networkx_cuts._rounding({float}, np.array(spoilt)) > 0.0


def test_rounding_bound_holds():
    r = random.Random(0)
    for kind in (float, np.float32):
        weights = [kind(r.random() - 0.5) for _ in range(300)]
        bound = networkx_cuts._rounding({kind}, np.array(weights, dtype=np.float64))
        exact = float(sum(Fraction(float(w)) for w in weights))
        errors = []
        for _ in range(50):
            r.shuffle(weights)
            errors.append(abs(float(sum(weights)) - exact))
        # Not above, and not meaningless: the worst case of 300 roundings is rare.
        assert 0.0 < max(errors) <= bound < 1e5 * max(errors)


# --------------------------------------------------------------------------------------------------
# Conversion
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("everything", [True, False])
def test_conversion_and_back(everything):
    graph = nx.Graph([("a", "b", {"weight": 2, "cost": 3}), ("b", "b"), ("b", (1, 2))])
    graph.add_node("alone")
    converted = convert_from_nx(
        graph, edge_attrs={"weight": 1}, preserve_edge_attrs=everything, graph_name="G"
    )
    assert repr(converted) == "ConvertedGraph(4 nodes, 3 edges)"
    assert len(converted) == 4
    assert not converted.is_directed()
    assert not converted.is_multigraph()
    back = convert_to_nx(converted)
    assert list(back) == list(graph)
    assert set(back.edges) == set(graph.edges)
    data = {"weight": 2, "cost": 3} if everything else {"weight": 2}
    assert back.edges["a", "b"] == data
    assert convert_to_nx(7, name="cut_size") == 7
    # A copy: it does not see what happens to the graph.
    graph.edges["a", "b"]["weight"] = 5
    assert networkx_backend.cut_size(converted, {"a"}, weight="weight") == 2


def test_conversion_without_attributes_and_of_other_graphs():
    converted = convert_from_nx(nx.path_graph(3))
    assert convert_to_nx(converted).edges[0, 1] == {}
    with pytest.raises(ValueError, match="without the edge attribute 'cost'"):
        networkx_backend.cut_size(converted, {0}, weight="cost")
    for kind in (nx.DiGraph, nx.MultiGraph):
        with pytest.raises(NotImplementedError, match=kind.__name__):
            convert_from_nx(kind([(0, 1)]))


def test_views_convert():
    graph = nx.complete_graph(8).subgraph([1, 3, 5, 6])
    expected = nx.approximation.one_exchange.orig_func(graph, None, random.Random(1), None)
    assert exactly(ours("one_exchange", graph, None, random.Random(1))) == exactly(expected)


# --------------------------------------------------------------------------------------------------
# Through networkx
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def configuration():
    """Settings of networkx, put back after the test; no warnings that a cache is used."""
    with nx.config(warnings_to_ignore={"cache"}):
        yield nx.config


def test_entry_points():
    for group in ("networkx.backends", "networkx.backend_info"):
        names = {entry.name for entry in importlib.metadata.entry_points(group=group)}
        assert "derand_fast" in names, f"install this package again: {group} is missing"
    assert "derand_fast" in nx.approximation.one_exchange.__doc__
    for name in networkx_backend.backend_info()["functions"]:
        assert callable(getattr(networkx_backend, name))


@pytest.mark.parametrize("seed", [3, random.Random(3), np.random.default_rng(3)])
def test_dispatch(configuration, seed):
    graph = nx.gnm_random_graph(30, 60, seed=1)
    twin = seed if isinstance(seed, int) else nx.utils.create_py_random_state(3)
    if isinstance(seed, np.random.Generator):
        twin = np.random.default_rng(3)
    for function in (nx.approximation.one_exchange, nx.approximation.randomized_partitioning):
        found = function(graph, seed=seed, backend="derand_fast")
        assert exactly(found) == exactly(function(graph, seed=twin, backend="networkx"))


def test_conversions_are_cached(configuration, monkeypatch):
    conversions = []
    convert = networkx_cuts.ConvertedGraph.of

    def counted(*arguments):
        conversions.append(arguments)
        return convert(*arguments)

    monkeypatch.setattr(networkx_cuts.ConvertedGraph, "of", counted)
    graph = nx.gnm_random_graph(60, 100, seed=1)
    graph.add_edge(0, 1, weight=5)

    def cut(weight):
        return nx.cut_size(graph, {0, 2, 4}, weight=weight, backend="derand_fast")

    plain, weighted = cut(None), cut("weight")
    assert len(conversions) == 2
    # The graph with weights serves without them, too.
    assert (cut(None), cut("weight")) == (plain, weighted)
    assert len(conversions) == 2
    graph.add_edge(0, 1, weight=7)
    assert cut("weight") == weighted + 2
    assert len(conversions) == 3


def test_priority_chooses_by_should_run(configuration, caplog):
    graph, tiny = nx.gnm_random_graph(60, 100, seed=1), nx.path_graph(3)
    with nx.config(backend_priority=["derand_fast"]), caplog.at_level(logging.DEBUG, "networkx"):

        def used(function, *arguments, **keywords):
            caplog.clear()
            function(*arguments, **keywords)
            name = function.__name__
            return any(
                f"Using backend 'derand_fast' for call to '{name}'" in record.getMessage()
                for record in caplog.records
            )

        assert not used(nx.cut_size, graph, {0, 1})
        assert not used(nx.approximation.randomized_partitioning, graph, seed=1)
        assert used(nx.approximation.one_exchange, graph, seed=1)
        # Now the converted graph is kept, without weights.
        assert used(nx.cut_size, graph, {0, 1})
        assert used(nx.approximation.randomized_partitioning, graph, seed=1)
        assert not used(nx.cut_size, graph, {0, 1}, weight="weight")
        assert not used(nx.approximation.one_exchange, tiny, seed=1)
        assert not used(nx.cut_size, nx.DiGraph(graph), {0, 1}, {2, 3})


def test_can_run_and_should_run_say_why():
    graph = nx.path_graph(100)
    assert can_run("one_exchange", (graph, None, None, "weight"), {}) is True
    assert can_run("cut_size", (convert_from_nx(graph), {1}), {}) is True
    assert "directed" in can_run("cut_size", (nx.DiGraph(graph), {1}), {})
    assert "multigraphs" in can_run("cut_size", (), {"G": nx.MultiGraph(graph), "S": {1}})
    assert "not True" in can_run("cut_size", (graph, {1}), {"weight": True})
    assert "name of an edge attribute" in can_run("cut_size", (graph, {1}, None, len), {})
    assert should_run("one_exchange", (graph,), {}) is True
    assert "below 5" in should_run("one_exchange", (nx.path_graph(4),), {})
    assert "conversion" in should_run("cut_size", (graph, {1}), {})
    assert should_run("cut_size", (convert_from_nx(graph), {1}), {}) is True


def test_refusals_through_networkx(configuration):
    for kind in (nx.DiGraph, nx.MultiGraph):
        graph = kind([(0, 1), (1, 2)])
        for function in (nx.approximation.one_exchange, nx.approximation.randomized_partitioning):
            with pytest.raises(nx.NetworkXNotImplemented):
                function(graph, backend="derand_fast")
        with pytest.raises(NotImplementedError, match="derand_fast"):
            nx.cut_size(graph, {0}, backend="derand_fast")


def test_networkx_own_tests_pass_with_the_backend(tmp_path):
    command = [sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--verbosity=2"]
    command += ["--pyargs", "networkx.algorithms.approximation.tests.test_maxcut"]

    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **environment},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in ({}, {"NETWORKX_TEST_BACKEND": "derand_fast"})
    ]
    counts = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        counts.append(output.splitlines()[-1].strip("= ").rpartition(" in ")[0])
    # Only passes: a call that the backend refused would count as an expected failure.
    assert counts[0] == counts[1]
    assert re.fullmatch(r"\d+ passed", counts[0]), counts


def test_networkx_loads_the_description_only():
    code = (
        "import sys, derand_fast.networkx_backend as b; b.backend_info();"
        "print({'numba', 'numpy', 'scipy', 'networkx'} & set(sys.modules) or 'none')"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert answer.stdout.strip() == "none"
