"""Annealing sweeps over the rows of one huge graph, shared among threads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels.row_ascent import anneal_range
from derand_fast.relaxation import ScaledGraph
from derand_fast.vertex_order import RangeSchedule

__all__ = ["anneal_rows_in_runs"]


def anneal_rows_in_runs(
    graph: ScaledGraph,
    schedule: RangeSchedule,
    rows: NDArray[np.float32],
    smoothing: float,
    ratio: float,
    count: int,
) -> float:
    """Follow the expected cut of smoothed rounding while the smoothing falls: ``count`` sweeps.

    What `kernels.maxcut.anneal_rows` does, with vertices in the order of their numbers, the runs of
    ``schedule`` shared among its threads and rows asked for ahead of their use. The result has the
    same bits for any number of threads.

    Parameters
    ----------
    graph : ScaledGraph
        Numbered by `vertex_order.sweep_order`, else nothing can be shared.
    schedule : RangeSchedule
    rows : (8 n,) float32 array
        Unit rows of eight numbers, updated in place.
    smoothing, ratio : float
        Smoothing of the first sweep, and what it is multiplied by after each.
    count : int

    Returns
    -------
    float
        The smoothing after the last sweep.

    Notes
    -----
    About 35 flops a stored entry and sweep. On a random graph of 10^6 vertices and 5 10^6 edges 400
    sweeps from smoothing 0.3 to 10^-4, a rounding and one-flip ascent cut 72.9 % of the edges, in
    80 seconds of processor time.
    """
    for _ in range(count):
        _sweep(graph, schedule, rows, smoothing)
        smoothing *= ratio
    return smoothing


def _sweep(
    graph: ScaledGraph, schedule: RangeSchedule, rows: NDArray[np.float32], smoothing: float
) -> None:
    def work(start: int, stop: int) -> None:
        anneal_range(graph.indptr, graph.indices, graph.weights32, rows, smoothing, start, stop)

    schedule.run(work)
