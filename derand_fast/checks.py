"""Checks of arguments that every part of the package shares."""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["finite_number", "flat_vector", "whole_number"]

FloatArray = NDArray[np.float64]


def flat_vector(name: str, vector: ArrayLike, size: int) -> FloatArray:
    """Return a writeable contiguous float64 copy of a finite real vector of ``size`` entries.

    A copy, so that kernels see one kind of array, whatever the caller holds, and compile once.
    """
    array = np.asarray(vector)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be real numbers, not {array.dtype}")
    if array.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {array.shape}")
    flat = np.array(array, dtype=np.float64)
    if not np.isfinite(flat).all():
        place = int(np.argmin(np.isfinite(flat)))
        raise ValueError(f"{name} must be finite; {name}[{place}] is {flat[place]}")
    return flat


def finite_number(name: str, number: Any, least: float, most: float = math.inf) -> float:
    """Return a finite float in [least, most]."""
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise TypeError(f"{name} must be a real number, not {number!r}")
    if not (math.isfinite(number) and least <= float(number) <= most):
        limits = [("at least", least), ("at most", most)]
        rules = [f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)]
        raise ValueError(
            f"{name} must be finite{', ' if rules else ''}{' and '.join(rules)}; got {number}"
        )
    return float(number)


def whole_number(name: str, number: Any, least: int) -> int:
    """Return an int that is at least ``least``."""
    if isinstance(number, bool):
        raise TypeError(f"{name} must be an integer, not {number!r}")
    try:
        whole = operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {number!r}") from None
    if whole < least:
        raise ValueError(f"{name} must be at least {least}, got {whole}")
    return whole
