"""Shards and restarts on a cluster of two local processes against the same work in one process.

    python bench/distributed_table.py shards     # bits, overhead and speed of one evaluation
    python bench/distributed_table.py restarts   # the same restarts here and on the workers

Each prints a Markdown table. Times are the smallest of interleaved repetitions, kernels compiled.
"here" has all shards in this process, on one thread.
"""

import argparse
import time

import numpy as np
from distributed import Client, LocalCluster
from machine import describe

from derand_fast.distributed import ShardedObjective, max_cut, shard
from derand_fast.generators import random_graph
from derand_fast.objectives import JLObjective, MaxCutObjective
from derand_fast.objectives.node_risk import NodeRisk


class Nothing:
    """A shard without work: what is left is the way there and back."""

    def __init__(self, n_params):
        self.n_params = n_params

    def value(self, x):
        return 0.0

    def value_and_grad(self, x):
        return 0.0, np.zeros(self.n_params)

    def hvp(self, x, v):
        return np.zeros(self.n_params)


def objectives():
    """Yield a name and an objective, small and large ones."""
    random = np.random.default_rng(0)
    for n in (1_000, 100_000):
        graph = random_graph(n, 10 * n, seed=0)
        yield f"cut, n = {n:,}, m = {10 * n:,}, rank 8", MaxCutObjective(graph, 8, tau=0.3, lam=0.1)
    for count in (2_000, 200_000):
        X = random.standard_normal((count, 20))
        shares = np.full(count, 1.0 / count)
        risk = NodeRisk((20, 64, 64, 1), "tanh", X, shares, np.tanh(X[:, 0]), n_threads=1)
        yield f"network 20-64-64-1, {count:,} nodes", risk
    yield (
        "pairs, n = 3,000, d = 50, k = 20",
        JLObjective(random.standard_normal((3000, 50)), 20, eps=0.3, lam=0.1, loss="moment4"),
    )


def fastest(calls, repetitions):
    """Return the smallest seconds of each call, interleaved."""
    best = [np.inf] * len(calls)
    for _ in range(repetitions):
        for number, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - begin)
    return best


def equal_bits(here, there, x, v):
    """Whether value, gradient and product are the same bits."""
    (f, g), (F, G) = here.value_and_grad(x), there.value_and_grad(x)
    return f == F and np.array_equal(g, G) and np.array_equal(here.hvp(x, v), there.hvp(x, v))


def shards(client, arguments):
    print("| objective | parameters | same bits | here (ms) | 2 workers (ms) | ratio |")
    print("|---|---:|---|---:|---:|---:|")
    random = np.random.default_rng(1)
    for size in (100, 10_000, 1_000_000):
        empty = [Nothing(size)] * 4
        pair = ShardedObjective(empty), ShardedObjective(empty, client=client)
        report(f"no work: overhead of {size:,} parameters", pair, random, arguments.repetitions)
    for name, whole in objectives():
        pair = shard(whole, arguments.shards), shard(whole, arguments.shards, client=client)
        report(name, pair, random, arguments.repetitions)


def report(name, pair, random, repetitions):
    """Print one row."""
    here, there = pair
    x, v = 0.1 * random.standard_normal((2, here.n_params))
    same = equal_bits(here, there, x, v)
    one, two = fastest(
        [lambda: here.value_and_grad(x), lambda: there.value_and_grad(x)], repetitions
    )
    print(
        f"| {name} | {here.n_params:,} | {'yes' if same else 'NO'} | {1e3 * one:.2f} "
        f"| {1e3 * two:.2f} | {one / two:.2f} |",
        flush=True,
    )


def restarts(client, arguments):
    print("| graph | cut | same | here (s) | 2 workers (s) | ratio |")
    print("|---|---:|---|---:|---:|---:|")
    for n in (2_000, 10_000):
        graph = random_graph(n, 10 * n, seed=0)
        results = {}

        def run(where, graph=graph, results=results):
            settings = {"restarts": 4, "effort": arguments.effort, "bound": False}
            results[where] = max_cut(graph, client=where, **settings)

        run(client)  # every worker has its kernels
        one, two = fastest([lambda: run(None), lambda: run(client)], 2)
        here, there = results[None], results[client]
        same = here.cut_value == there.cut_value and np.array_equal(here.partition, there.partition)
        print(
            f"| n = {n:,}, m = {10 * n:,} | {here.cut_value:.0f} | {'yes' if same else 'NO'} "
            f"| {one:.2f} | {two:.2f} | {one / two:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=["shards", "restarts"])
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--effort", type=float, default=0.2, help="of each restart")
    arguments = parser.parse_args()
    print(describe() + "\n")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        {"shards": shards, "restarts": restarts}[arguments.table](client, arguments)


if __name__ == "__main__":
    main()
