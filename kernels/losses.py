"""Losses of one output and a target, as C functions over a block of nodes.

A loss stage gets ``count`` outputs o_q and, for each, ``per_node`` targets and weights, and writes

    sums[0] = sum_q sum_m w_qm loss(o_q, y_qm),
    slopes[q] = sum_m w_qm loss'(o_q, y_qm),  sums[1 + q] = sum_m w_qm loss''(o_q, y_qm).

Built-in losses share one stage; a user's functions get one of their own. Both have the same
signature and are called by address, so nothing else is compiled anew for a new loss.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from numba import types

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.activations import ACTIVATIONS, activation_at
from derand_fast.kernels.calls import c_function

LOSSES = {"squared": 0, "logistic": 1, "pseudo_huber": 2}
_SMOOTH_RELU = ACTIVATIONS["smooth_relu"]


class Loss(NamedTuple):
    """Address of a stage, and for the built-in one the code out of LOSSES and delta."""

    address: int
    code: int
    delta: float


@kernel(fastmath=False)
def loss_terms(loss: int, delta: float, output: float, target: float) -> tuple[float, float, float]:
    """Loss and its first two derivatives in the output; LOSSES names the codes."""
    if loss == 0:
        residual = output - target
        return residual * residual, 2.0 * residual, 2.0
    if loss == 1:
        value, slope, curvature, _, _ = activation_at(_SMOOTH_RELU, 1.0, -target * output)
        return value, -target * slope, target * target * curvature
    residual = output - target
    scaled = residual / delta
    root = math.hypot(1.0, scaled)
    # delta^2 (root - 1) without the cancellation.
    value = residual * delta * (scaled / (root + 1.0))
    return value, residual / root, 1.0 / (root * root * root)


_DOUBLES = types.CPointer(types.float64)
_LOSS_SIGNATURE = types.void(
    *(types.int64, types.float64, types.int64, types.int64),
    *(_DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES, _DOUBLES),
)


def _builtin_stage(
    code: int,
    delta: float,
    count: int,
    per_node: int,
    outputs: Any,
    targets: Any,
    weights: Any,
    sums: Any,
    slopes: Any,
) -> None:
    """Stage of the built-in losses."""
    total = 0.0
    for q in range(count):
        slope = 0.0
        curvature = 0.0
        for m in range(q * per_node, (q + 1) * per_node):
            terms = loss_terms(code, delta, outputs[q], targets[m])
            total += weights[m] * terms[0]
            slope += weights[m] * terms[1]
            curvature += weights[m] * terms[2]
        slopes[q] = slope
        sums[1 + q] = curvature
    sums[0] = total


@functools.cache
def builtin_loss_stage() -> Any:
    """Return the C function for all of LOSSES."""
    return c_function(_LOSS_SIGNATURE, _builtin_stage)


def user_loss_stage(
    value: Callable[..., float], first: Callable[..., float], second: Callable[..., float]
) -> Any:
    """Return a C function like that of the built-in losses, from functions of (output, target)."""

    def stage(
        code: int,
        delta: float,
        count: int,
        per_node: int,
        outputs: Any,
        targets: Any,
        weights: Any,
        sums: Any,
        slopes: Any,
    ) -> None:
        total = 0.0
        for q in range(count):
            slope = 0.0
            curvature = 0.0
            for m in range(q * per_node, (q + 1) * per_node):
                total += weights[m] * value(outputs[q], targets[m])
                slope += weights[m] * first(outputs[q], targets[m])
                curvature += weights[m] * second(outputs[q], targets[m])
            slopes[q] = slope
            sums[1 + q] = curvature
        sums[0] = total

    return c_function(_LOSS_SIGNATURE, stage, cache=False)
