"""Sixteen annealed replicas against a slow twin, exact distributions and local optimality."""

import itertools
import math

import naive
import numpy as np
import pytest

from derand_fast.generators import random_graph, torus_grid
from derand_fast.kernels.replicas import (
    REPLICAS,
    anneal_replicas,
    copy_from_replica,
    copy_to_replicas,
    exponential_table,
)

TABLE = exponential_table()
GRAPHS = {
    "random": random_graph(30, 90, seed=1),
    "signs": random_graph(25, 60, seed=2, weights="signs"),
    "gaussian": torus_grid(5, 6, seed=3, weights="gaussian"),
    "isolated": random_graph(40, 12, seed=4),
}


def arrays_of(graph):
    return graph.indptr, graph.indices, graph.weights.astype(np.float32)


def random_spins(n, seed=0):
    signs = np.random.default_rng(seed).choice([-1, 1], REPLICAS * n)
    return signs.astype(np.float32)


def cuts_of(graph, spins):
    rows = spins.reshape(-1, REPLICAS)
    arrays = (graph.indptr, graph.indices, graph.weights)
    return np.array([naive.cut_value(*arrays, rows[:, k]) for k in range(REPLICAS)])


def anneal(graph, spins, temperatures, cooling, count, state=12345):
    temperatures = np.broadcast_to(temperatures, REPLICAS).astype(np.float32)
    cooling = np.broadcast_to(cooling, REPLICAS).astype(np.float32)
    memory = np.array([state], np.uint64)
    anneal_replicas(*arrays_of(graph), spins, temperatures, cooling, count, TABLE, memory)
    return temperatures, int(memory[0])


def slow_anneal(graph, spins, temperatures, cooling, count, state):
    """One number at a time: the rule as the docstring states it."""
    indptr, indices, weights = arrays_of(graph)
    n = graph.n_vertices
    rows = spins.reshape(n, REPLICAS)
    mask = 2**64 - 1
    for _ in range(count):
        places, left = 0, 0
        for i in [*range(0, n, 2), *range(1, n, 2)]:
            if left == 0:
                state ^= (state << 13) & mask
                state ^= state >> 7
                state ^= (state << 17) & mask
                places, left = state, 5
            left -= 1
            place = places & 4095
            places >>= 12
            for k in range(REPLICAS):
                edges = range(indptr[i], indptr[i + 1])
                field = sum(float(weights[e]) * float(rows[indices[e], k]) for e in edges)
                margin = float(rows[i, k]) * field + float(temperatures[k]) * float(
                    TABLE[place + k]
                )
                if margin > 0.0:
                    rows[i, k] = -rows[i, k]
        temperatures = np.maximum(temperatures - cooling, np.float32(0.0))
    return temperatures, state


@pytest.mark.parametrize("name", GRAPHS)
def test_sweeps_against_the_slow_twin(name):
    graph = GRAPHS[name]
    spins = random_spins(graph.n_vertices)
    twin = spins.copy()
    temperatures = np.linspace(0.3, 2.0, REPLICAS).astype(np.float32)
    cooling = np.linspace(0.01, 0.3, REPLICAS).astype(np.float32)
    end, state = anneal(graph, spins, temperatures, cooling, 8)
    twin_end, twin_state = slow_anneal(graph, twin, temperatures, cooling, 8, 12345)
    # A margin within float32 rounding of 0 might fall either way; none of these does.
    assert (spins == twin).all()
    assert (end == twin_end).all()
    assert state == twin_state


def test_steps_do_not_depend_on_where_calls_end():
    graph = GRAPHS["random"]
    whole, parts = random_spins(30), random_spins(30)
    end, state = anneal(graph, whole, 2.0, 0.05, 12)
    temperatures, middle = anneal(graph, parts, 2.0, 0.05, 5)
    assert middle != state
    temperatures, last = anneal(graph, parts, temperatures, 0.05, 7, state=middle)
    assert (whole == parts).all()
    assert (end == temperatures).all()
    assert last == state


@pytest.mark.parametrize("name", GRAPHS)
def test_temperature_zero_never_lowers_a_cut_and_ends_in_local_optima(name):
    graph = GRAPHS[name]
    spins = random_spins(graph.n_vertices, seed=5)
    # float32 sums of a few weights: this far below 0 a gain may be counted as positive.
    rounding = 1e-5
    values = cuts_of(graph, spins)
    for _ in range(30):
        anneal(graph, spins, 0.0, 0.0, 1)
        after = cuts_of(graph, spins)
        assert (after >= values - rounding).all()
        values = after
    for k in range(REPLICAS):
        signs = spins.reshape(-1, REPLICAS)[:, k]
        gains = naive.flip_gains(graph.indptr, graph.indices, graph.weights, signs)
        assert max(gains) <= rounding


def test_temperatures_fall_to_zero_and_no_further():
    graph = GRAPHS["random"]
    end, _ = anneal(graph, random_spins(30), 1.0, np.linspace(0.0, 0.3, REPLICAS), 4)
    # Four float32 subtractions.
    assert end == pytest.approx(np.maximum(1.0 - 4 * np.linspace(0.0, 0.3, REPLICAS), 0), abs=1e-6)
    assert end[0] == 1.0
    assert (end >= 0.0).all()


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_stationary_law_is_boltzmann(temperature):
    """Mean cut over many sweeps at one temperature against the sum over all cuts."""
    graph = random_graph(6, 10, seed=7, weights="signs")
    arrays = (graph.indptr, graph.indices, graph.weights)
    values = np.array(
        [naive.cut_value(*arrays, np.array(s)) for s in itertools.product((1, -1), repeat=6)]
    )
    weights = np.exp((values - values.max()) / temperature)
    exact = float(weights @ values / weights.sum())
    spread = math.sqrt(float(weights @ (values - exact) ** 2 / weights.sum()))
    spins = random_spins(6)
    state, means = 12345, []
    anneal(graph, spins, temperature, 0.0, 100)
    for _ in range(3000):
        _, state = anneal(graph, spins, temperature, 0.0, 1, state=state)
        means.append(cuts_of_signs(graph, spins).mean())
    # 48,000 values; neighbouring sweeps are alike, so allow for a tenth as many: five deviations.
    # The table ends at nine temperatures: less than 2e-4 of the flips.
    assert np.mean(means) == pytest.approx(exact, abs=5 * spread / math.sqrt(4800) + 2e-3)


def cuts_of_signs(graph, spins):
    rows = spins.reshape(-1, REPLICAS)
    tails, heads, weights = graph.edges()
    return weights @ (rows[tails] != rows[heads])


def test_table_has_the_quantiles_of_the_exponential_law():
    body = np.sort(TABLE[:4096].astype(float))
    expected = -np.log((np.arange(4096, 0, -1) - 0.5) / 4096)
    # float32 rounding.
    assert body == pytest.approx(expected, rel=1e-6)
    assert (TABLE[4096:] == TABLE[:REPLICAS]).all()
    assert not TABLE.flags.writeable


def test_copies_there_and_back():
    signs = np.random.default_rng(0).choice([-1, 1], 21).astype(np.int8)
    spins = np.zeros(21 * REPLICAS, np.float32)
    copy_to_replicas(signs, spins)
    assert (spins.reshape(21, REPLICAS) == signs[:, None]).all()
    rows = random_spins(21)
    back = np.zeros(21, np.int8)
    for k in range(REPLICAS):
        copy_from_replica(rows, k, back)
        assert (back == rows.reshape(21, REPLICAS)[:, k]).all()
