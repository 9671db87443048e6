"""Cuts by descent: the smoothed objective followed to a certified second-order stationary point.

The start is W = the relaxation's vectors and b = 0: by the symmetry b -> -b a stationary point in
b, and a strict saddle. A method that escapes it ends where W has collapsed and the signs of b are
the cut.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from derand_fast.budget import Budget
from derand_fast.graphs import CSRGraph
from derand_fast.objectives import MaxCutObjective, pack
from derand_fast.optimize import SOSPResult, hessian_descent, newton_cg, pgd
from derand_fast.relaxation import ScaledGraph

__all__ = ["DESCENTS", "descend"]

DESCENTS: dict[str, Callable[..., SOSPResult]] = {
    "pgd": pgd,
    "hessian-descent": hessian_descent,
    "newton-cg": newton_cg,
}
# For weights whose largest lies in [1, 2) and unit vectors. Of tau 0.1, 0.2, 0.3 the first gave the
# best cuts on G11 and G14; lam 0.01 cuts up to two edges more than 0.03, at 1.5 times the time.
# lam exceeds half the curvature target, so W collapses.
_SMOOTHING = 0.1
_REGULARISATION = 0.03
_CURVATURE_TARGET = 0.03
_GRADIENT_TARGET = 1e-3
_LARGEST_RANK = 8
_MOST_STEPS = 50_000


def descend(
    method: str,
    graph: ScaledGraph,
    rows: NDArray[np.float32],
    *,
    full_rank: bool,
    seed: int,
    n_threads: int,
    budget: Budget,
    progress: bool,
    on_step: Callable[[NDArray[np.int8]], None],
) -> SOSPResult:
    """Follow the smoothed cut down from the relaxation's rows to a certified point.

    Parameters
    ----------
    method : {"pgd", "hessian-descent", "newton-cg"}
    graph : ScaledGraph
    rows : (n, rank) float32 array
        The relaxation's vectors; projected to eight random dimensions unless ``full_rank``.
    on_step : callable
        Gets the signs of b after each step.

    Returns
    -------
    SOSPResult
        At a limit or an interrupt, the best point so far, and not certified.
    """
    start = _start_rows(rows, full_rank, np.random.default_rng(seed))
    csr = CSRGraph(graph.indptr, graph.indices, graph.weights)
    objective = MaxCutObjective(
        csr, start.shape[1], tau=_SMOOTHING, lam=_REGULARISATION, n_threads=n_threads
    )

    def watch(x: NDArray[np.float64]) -> bool:
        on_step(objective.partition(x))
        return budget.stop_reason is not None

    return DESCENTS[method](
        objective,
        pack(objective, W=start, b=np.zeros(graph.n_vertices)),
        rho=_GRADIENT_TARGET * graph.n_vertices**0.5,
        curvature_tol=_CURVATURE_TARGET,
        seed=seed,
        max_iter=_MOST_STEPS,
        time_limit=None if budget.time_limit is None else max(budget.remaining(), 1e-3),
        callback=watch,
        progress=progress,
    )


def _start_rows(
    rows: NDArray[np.float32], full_rank: bool, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return unit rows of eight numbers at most, by a Gaussian projection where there are more."""
    start = rows.astype(np.float64)
    if not full_rank and start.shape[1] > _LARGEST_RANK:
        projection = generator.standard_normal((start.shape[1], _LARGEST_RANK))
        # einsum without BLAS: the same bits for any number of threads.
        start = np.einsum("ij,jk->ik", start, projection)
    lengths = np.sqrt(np.einsum("ij,ij->i", start, start))[:, None]
    return start / np.where(lengths > 0.0, lengths, 1.0)
