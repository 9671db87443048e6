"""Time to a target cut and performance profiles, from runs of several lengths.

A target is a share of the best cut that anybody found or published. The time to it is the length
of the shortest run that reached it, for each graph and seed; runs that were too short do not count,
for nobody. A run that kept its limit to a tenth is as long as its limit, so that equals are equal.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.compared import Comparison, comparison

SHARES = (0.99, 0.995, 0.999)
Run = dict[str, str]


def times_to_targets(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return graph, seed, solver, share and the seconds; None where no run got there."""
    best = best_cuts(runs)
    found = []
    for graph in best:
        for solver in _values(runs, "solver"):
            for seed in _values(runs, "seed"):
                same = [
                    run
                    for run in runs
                    if (run["graph"], run["solver"], run["seed"]) == (graph, solver, seed)
                ]
                for share in SHARES:
                    reached = [
                        _length(run) for run in same if float(run["cut"]) >= share * best[graph]
                    ]
                    found.append(
                        {
                            "graph": graph,
                            "seed": seed,
                            "solver": solver,
                            "share": share,
                            "seconds": min(reached, default=None),
                        }
                    )
    return found


def _length(run: Run) -> float:
    seconds, limit = float(run["seconds"]), float(run["limit"])
    return limit if abs(seconds - limit) <= 0.1 * limit else seconds


def best_cuts(runs: Iterable[Run]) -> dict[str, float]:
    """Return the best cut of each graph, found or published."""
    best: dict[str, float] = {}
    for run in runs:
        known = max(float(run["cut"]), float(run["best_known"] or "-inf"))
        best[run["graph"]] = max(known, best.get(run["graph"], known))
    return best


def _values(runs: Iterable[Run], name: str) -> list[str]:
    return list(dict.fromkeys(run[name] for run in runs))


def curves(times: Sequence[dict[str, Any]], share: float) -> dict[str, list[list[float]]]:
    """Return for each solver the points (seconds, share of graphs and seeds that are solved)."""
    return {
        solver: _steps([row["seconds"] for row in rows])
        for solver, rows in _by_solver(times, share).items()
    }


def profiles(times: Sequence[dict[str, Any]], share: float) -> dict[str, list[list[float]]]:
    """Return for each solver the points (time / least time of any, share of graphs and seeds)."""
    solvers = _by_solver(times, share)
    least: dict[tuple[str, str], float] = {}
    for row in times:
        if row["share"] == share and row["seconds"] is not None:
            key = row["graph"], row["seed"]
            least[key] = min(row["seconds"], least.get(key, row["seconds"]))
    return {
        solver: _steps(
            [
                None
                if row["seconds"] is None
                else row["seconds"] / least[row["graph"], row["seed"]]
                for row in rows
            ]
        )
        for solver, rows in solvers.items()
    }


def _by_solver(times: Sequence[dict[str, Any]], share: float) -> dict[str, list[dict[str, Any]]]:
    solvers: dict[str, list[dict[str, Any]]] = {}
    for row in times:
        if row["share"] == share:
            solvers.setdefault(row["solver"], []).append(row)
    return solvers


def _steps(values: Sequence[float | None]) -> list[list[float]]:
    reached = sorted(value for value in values if value is not None)
    return [[value, (place + 1) / len(values)] for place, value in enumerate(reached)]


def of_targets(times: Sequence[dict[str, Any]]) -> Iterator[Comparison]:
    """Compare the median seconds to each target, graph by graph."""
    for graph in _values(times, "graph"):
        for share in SHARES:
            same = [row for row in times if (row["graph"], row["share"]) == (graph, share)]
            medians = {
                solver: _median([row["seconds"] for row in same if row["solver"] == solver])
                for solver in _values(same, "solver")
            }
            yield from _pairs(graph, medians, f"median seconds to {share:.1%} of the best cut")


def of_gaps(runs: Sequence[Run]) -> Iterator[Comparison]:
    """Compare the gaps of the median cuts to the best cut in per cent, for every length of run."""
    best = best_cuts(runs)
    for graph in best:
        for limit in _values(runs, "limit"):
            same = [run for run in runs if (run["graph"], run["limit"]) == (graph, limit)]
            gaps = {
                solver: _gap(best[graph], [run for run in same if run["solver"] == solver])
                for solver in _values(same, "solver")
            }
            yield from _pairs(graph, gaps, f"gap to the best cut in % after {float(limit):g} s")


def _gap(best: float, runs: Sequence[Run]) -> float:
    return 100.0 * (1.0 - statistics.median(float(run["cut"]) for run in runs) / best)


def _pairs(graph: str, values: dict[str, float | None], quantity: str) -> Iterator[Comparison]:
    """Compare ours, of which the first is the main one, with all others; not where nobody is."""
    ours = [solver for solver in values if solver.startswith("ours")]
    for name in ours:
        for rival in values:
            pair = values[name], values[rival]
            if rival not in ours and pair != (None, None):
                yield comparison(graph, (name, rival), pair, quantity, main=name == ours[0])


def _median(seconds: Sequence[float | None]) -> float | None:
    """Return the median; runs that never got there are last."""
    ranked = sorted(float("inf") if value is None else value for value in seconds)
    median = statistics.median_high(ranked)
    return None if median == float("inf") else median
