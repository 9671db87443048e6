"""Cuts through networkx: the backend ``derand_fast`` beside networkx itself, same results.

    python bench/networkx_table.py exchange  # one_exchange, n = 100 to 10,000
    python bench/networkx_table.py others    # randomized_partitioning and cut_size
    python bench/networkx_table.py tiny      # from how many vertices the backend pays

Each prints a Markdown table; every row compares the results. networkx runs where that takes less
than ``--limit`` seconds; elsewhere (~) its time is estimated: moves made, times n, times one cut of
half the final side. Seconds are those of the thread, the least of several runs.
"""

import argparse
import random
import time

import networkx as nx
from machine import describe

from derand_fast.networkx_backend import convert_from_nx

NAME = "derand_fast"


def graph_of(n, m, kind):
    """Random graph with edge weights of a kind, and the attribute that holds them."""
    graph = nx.gnm_random_graph(n, m, seed=1)
    r = random.Random(1)
    if kind == "ones":
        return graph, None
    for *_, data in graph.edges(data=True):
        data["weight"] = {"integers": r.randint(-3, 3), "floats": r.random()}[kind]
    return graph, "weight"


def least_seconds(work, repeats, limit=2.0):
    """Least thread seconds of some runs, fewer if they are long, and the answer."""
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        begin = time.thread_time()
        answer = work()
        seconds = time.thread_time() - begin
        best, spent = min(best, seconds), spent + seconds
        if spent > limit:
            break
    return best, answer


def seconds_by_networkx(graph, weight, side, moves, limit):
    """Seconds of networkx's one exchange, whether they are measured, and its answer."""
    half = set(list(side)[::2])
    once, _ = least_seconds(lambda: nx.cut_size(graph, half, weight=weight, backend="networkx"), 5)
    estimate = once * len(graph) * (moves + 1)
    if estimate > limit:
        return estimate, False, None
    seconds, answer = least_seconds(
        lambda: nx.approximation.one_exchange(graph, seed=1, weight=weight, backend="networkx"), 3
    )
    return seconds, True, answer


def exchange(arguments):
    """Print one_exchange with and without the conversion of the graph."""
    print(
        "| n | m | weights | networkx s | backend ms, conversion included | without | "
        "times faster | without conversion | same result |"
    )
    print("|---:|---:|---|---:|---:|---:|---:|---:|---|")
    for n in arguments.sizes:
        for kind in ("ones", "integers", "floats"):
            graph, weight = graph_of(n, arguments.density * n, kind)
            converted = convert_from_nx(graph, edge_attrs={weight: 1} if weight else {})

            def through(graph, weight=weight):
                return nx.approximation.one_exchange(graph, seed=1, weight=weight, backend=NAME)

            with nx.config(cache_converted_graphs=False):
                through(graph)
                whole, found = least_seconds(lambda g=graph, f=through: f(g), 20)
                alone, _ = least_seconds(lambda g=converted, f=through: f(g), 20)
            side = found[1][0]
            # From the empty cut no vertex can move fewer times than once.
            networkx, measured, answer = seconds_by_networkx(
                graph, weight, side, len(side), arguments.limit
            )
            same = "-"
            if measured:
                same = "yes" if repr(found) == repr(answer) else "NO"
            print(
                f"| {n} | {graph.number_of_edges()} | {kind} | {'' if measured else '~'}"
                f"{networkx:.3g} | {1e3 * whole:.2f} | {1e3 * alone:.2f} "
                f"| {networkx / whole:.3g} | {networkx / alone:.3g} | {same} |",
                flush=True,
            )


def others(arguments):
    """Print the functions that cost networkx no more than a conversion."""
    print("| function | n | m | weights | networkx us | converted us | conversion included us |")
    print("|---|---:|---:|---|---:|---:|---:|")
    for n in arguments.sizes:
        for kind in ("ones", "floats"):
            graph, weight = graph_of(n, arguments.density * n, kind)
            converted = convert_from_nx(graph, edge_attrs={weight: 1} if weight else {})
            half = set(range(n // 2))
            calls = {
                "randomized_partitioning": lambda g, backend, w=weight: (
                    nx.approximation.randomized_partitioning(g, seed=1, weight=w, backend=backend)
                ),
                "cut_size": lambda g, backend, w=weight, s=half: nx.cut_size(
                    g, s, weight=w, backend=backend
                ),
            }
            for name, call in calls.items():
                with nx.config(cache_converted_graphs=False):
                    times, answers = zip(
                        *(
                            least_seconds(lambda c=call, g=g, b=b: c(g, b), 30)
                            for g, b in ((graph, "networkx"), (converted, NAME), (graph, NAME))
                        ),
                        strict=True,
                    )
                assert answers[0] == answers[1] == answers[2]
                cells = " | ".join(f"{1e6 * seconds:.0f}" for seconds in times)
                print(f"| {name} | {n} | {arguments.density * n} | {kind} | {cells} |", flush=True)


def tiny(_arguments):
    """Print tiny graphs: complete ones, and cycles."""
    print("| graph | n | networkx us | backend us, conversion included |")
    print("|---|---:|---:|---:|")
    for build in (nx.cycle_graph, nx.complete_graph):
        for n in (2, 3, 4, 5, 6, 8, 10):
            graph = build(n)
            times = []
            with nx.config(cache_converted_graphs=False):
                for backend in ("networkx", NAME):
                    seconds, _ = least_seconds(
                        lambda g=graph, b=backend: nx.approximation.one_exchange(
                            g, seed=1, backend=b
                        ),
                        100,
                    )
                    times.append(f"{1e6 * seconds:.0f}")
            print(f"| {build.__name__} | {n} | {' | '.join(times)} |", flush=True)


def main():
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("exchange", "others", "tiny"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 200, 500, 1000, 2000, 10000])
    parser.add_argument("--density", type=int, default=3, help="edges for each vertex")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one networkx call")
    arguments = parser.parse_args()
    print(f"{describe()}, networkx {nx.__version__}\n")
    {"exchange": exchange, "others": others, "tiny": tiny}[arguments.table](arguments)


if __name__ == "__main__":
    main()
