"""The road of the theory: a random Gaussian map, descended until no randomness is left.

A = M + sigma Z starts at M = 0, sigma^2 = 1/k, a Johnson-Lindenstrauss matrix. Minimising
E sum ((||A u||^2 - 1) / eps)^p + lam ||W||^2 (`JLObjective`) over M and sigma to a second-order
stationary point makes sigma vanish, by the derandomization lemma, while the expected loss only
falls. The order p then grows, from the map found before; eps is the distortion reached so far, so
that nothing overflows. Each order ends with a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from derand_fast.distortion_search import HistoryRow, Progress, distortion_of
from derand_fast.objectives.distortion import JLObjective
from derand_fast.objectives.protocol import block_view
from derand_fast.optimize import SOSPResult, Status, newton_cg

__all__ = ["anneal"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_ORDERS = (2, 4, 8, 16, 32, 64, 128)
# ||W||^2 = r at the start: the penalty of the whole noise is this share of 1 per pair.
_PENALTY = 0.2
# Gradient target relative to lam: certified points have ||W|| <= 0.1, sigma <= 0.1 / sqrt(k r).
_GRADIENT_SHARE = 0.1
_STEPS = 1000
# newton_cg asks for a positive limit.
_LEAST_SECONDS = 1e-9
# Norms can be kept exactly; a unit below this says nothing any more.
_LEAST_EPS = 1e-6


def anneal(
    points: FloatArray,
    pairs: IndexArray | None,
    k: int,
    measure: Callable[[FloatArray], tuple[float, float]],
    *,
    n_threads: int,
    seed: int,
    progress: Progress,
    report: Callable[[HistoryRow], object],
) -> SOSPResult:
    """Return the stationary point at the last order that was reached.

    Parameters
    ----------
    points : (n, r) array
        The rows.
    pairs : (m, 2) array or None
        Pairs that count; None for all.
    k : int
        Dimension of the image.
    measure : callable
        Given M' (r, k) at the end of each order, where it is not 0; returns its lowest and highest
        ratio.
    n_threads, seed : int
        Threads; seed of the random vectors of Lanczos.
    progress : Progress
        Passes (gradients and Hessian products), looked at between orders; seconds; goal.
    report : callable
        Gets a row at the end of each order.
    """
    n, r = points.shape
    listed = "all" if pairs is None else (pairs[:, 0], pairs[:, 1])
    lam = _PENALTY * (n * (n - 1) / 2 if pairs is None else len(pairs)) / r
    eps, x = 1.0, None
    for order in _ORDERS:
        loss = f"moment{order}"
        objective = JLObjective(
            points, k, eps=eps, pairs=listed, lam=lam, loss=loss, n_threads=n_threads
        )
        remaining = progress.remaining()
        result = newton_cg(
            objective,
            objective.gaussian_start() if x is None else x,
            rho=_GRADIENT_SHARE * lam,
            curvature_tol=lam,
            seed=seed,
            max_iter=_STEPS,
            time_limit=max(remaining, _LEAST_SECONDS) if remaining < math.inf else None,
        )
        progress.passes += result.n_gradient_equivalents
        progress.interrupted = result.status == Status.INTERRUPTED
        x = result.x
        coordinates = np.ascontiguousarray(block_view(objective, x, "b").T)
        low, high = measure(coordinates) if coordinates.any() else (0.0, 1.0)
        distortion = distortion_of(low, high)
        report(
            HistoryRow(
                *(progress.elapsed(), k, progress.passes, float(order), distortion, "sigma"),
                float(objective.noise(x)[0]),
            )
        )
        if progress.interrupted or progress.share >= 1.0 or distortion <= progress.goal:
            break
        # Of M as it is: the best scale is for the caller.
        eps = max(high - 1.0, 1.0 - low, _LEAST_EPS)
    return result
