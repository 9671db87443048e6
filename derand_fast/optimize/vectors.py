"""Sums whose bits do not depend on the number of threads.

A dot product of the BLAS library may split a long vector among threads, and another split rounds
differently; after a few hundred steps of a non-convex descent the last bit decides which minimum is
reached. NumPy adds in pairs, in an order that only the length fixes, in one thread. Elementwise
work (a x + y) has no order to choose.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vector", "dot", "norm", "random_unit"]

Vector = NDArray[np.float64]


def dot(a: Vector, b: Vector) -> float:
    """Return a'b by pairwise summation: O(n) flops, one temporary of length n.

    Overflow gives infinity or NaN without a warning: callers look at the number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.add.reduce(a * b))


def norm(a: Vector) -> float:
    """Return ||a||, rescaled where the squares of the entries would leave the range."""
    total = dot(a, a)
    if 1e-280 < total < 1e280:
        return math.sqrt(total)
    largest = float(np.abs(a).max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(dot(a / largest, a / largest))


def random_unit(n: int, generator: np.random.Generator) -> Vector:
    """Return a vector uniform on the unit sphere of R^n."""
    vector: Vector = generator.standard_normal(n)
    return vector / norm(vector)
