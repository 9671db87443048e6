"""Arguments that the three methods and `certify` share, checked before any work."""

from __future__ import annotations

import importlib.util
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from derand_fast.checks import whole_number

__all__ = ["Options", "check_choice", "check_options", "needed", "positive"]


@dataclass(frozen=True, slots=True)
class Options:
    """Checked arguments; ``curvature_tol`` is always set."""

    rho: float
    curvature_tol: float
    hess_lipschitz: float | None
    grad_lipschitz: float | None
    delta: float
    seed: int
    max_iter: int
    time_limit: float | None
    callback: Callable[..., object] | None
    progress: bool


def check_options(
    *,
    rho: float | None,
    hess_lipschitz: float | None,
    grad_lipschitz: float | None,
    curvature_tol: float | None,
    delta: float,
    seed: int,
    max_iter: int = 1,
    time_limit: float | None = None,
    callback: Callable[..., object] | None = None,
    progress: bool = False,
) -> Options:
    """Check every argument and fill in the curvature target.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, its value and the rule.
    ImportError
        If progress is asked for without tqdm.
    """
    if rho is None:
        raise TypeError("rho must be given: the norm that the gradient is to reach")
    rho = positive("rho", rho)
    curvature = None if hess_lipschitz is None else positive("hess_lipschitz", hess_lipschitz)
    if curvature_tol is not None:
        target = positive("curvature_tol", curvature_tol)
    else:
        target = math.sqrt(rho if curvature is None else curvature * rho)
    if not 0.0 < _real("delta", delta) < 1.0:
        raise ValueError(f"delta must be in (0, 1), got {delta}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, not {callback!r}")
    if progress and importlib.util.find_spec("tqdm") is None:
        raise ImportError('progress=True needs tqdm: pip install "derand-fast[progress]"')
    return Options(
        rho=rho,
        curvature_tol=target,
        hess_lipschitz=curvature,
        grad_lipschitz=None
        if grad_lipschitz is None
        else positive("grad_lipschitz", grad_lipschitz),
        delta=float(delta),
        seed=whole_number("seed", seed, 0),
        max_iter=whole_number("max_iter", max_iter, 0),
        time_limit=None if time_limit is None else positive("time_limit", time_limit),
        callback=callback,
        progress=bool(progress),
    )


def positive(name: str, value: Any) -> float:
    """Check a positive finite number."""
    number = _real(name, value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check a word."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, not {value!r}")
    return float(value)


def needed(options: Options, *names: str) -> tuple[float, ...]:
    """Return constants that a theory mode cannot do without."""
    values = []
    for name in names:
        value = getattr(options, name)
        if value is None:
            raise ValueError(f'parameters="theory" needs {name}')
        values.append(value)
    return tuple(values)
