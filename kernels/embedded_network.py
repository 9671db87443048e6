"""The risk of a network for callers that are compiled themselves: one call, one flat vector.

A `NetworkPlan` says all about a network's risk in numbers and arrays, a `NetworkWorkspace` is
memory that one call at a time may use. Both are named tuples that njit functions take as arguments
and hand on. Threads share the plan; each has its own workspace.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.losses import Loss
from derand_fast.kernels.network import (
    KEEP_NONE,
    Nodes,
    Scratch,
    Shape,
    Tools,
    pass_over_strands,
)

DoubleArray = npt.NDArray[np.float64]
WholeArray = npt.NDArray[np.int64]

# For ``Shape``. Not literals, of which each would be a type of its own and compile the pass again.
GRADIENT: Any = np.int64(1)
UNKNOWN: Any = np.bool_(False)
KEEP: Any = np.int64(KEEP_NONE)


class NetworkPlan(NamedTuple):
    """What ``derand_fast.callables.network_plan`` makes of a ``NodeRisk``.

    Flat, since a prange takes no tuples within tuples: fields of ``Tools``, ``Shape``, ``Nodes``
    and ``Loss``, see there.
    """

    activate: int
    multiply: int
    add_outer: int
    add_outputs: int
    widths: WholeArray
    weights_at: WholeArray
    buffers_at: WholeArray
    active: npt.NDArray[np.bool_]
    lowest: int
    kept_at: WholeArray
    code: int
    iota: float
    block: int
    inputs: DoubleArray
    targets: DoubleArray
    weights: DoubleArray
    per_node: int
    n_nodes: int
    loss_address: int
    loss_code: int
    delta: float
    # Rows of partial sums, so many that the sums are those of ``NodeRisk``.
    n_strands: int
    n_params: int
    # Lengths of the arrays of ``Scratch``.
    buffers_size: int
    packing_size: int


class NetworkWorkspace(NamedTuple):
    """Memory; contents never matter."""

    scratch: Scratch
    point: DoubleArray
    outputs: DoubleArray
    slopes: DoubleArray
    curvatures: DoubleArray
    values: DoubleArray
    strands: DoubleArray


@kernel(fastmath=False)
def network_workspace(plan: NetworkPlan) -> NetworkWorkspace:
    """Allocate a workspace: 8 (n_strands + 1) n_params + 24 n_nodes bytes and a block's buffers."""
    scratch = Scratch(
        np.empty(plan.buffers_size),
        np.empty(plan.packing_size),
        np.empty(plan.block + 1),
        np.empty(plan.block),
        np.empty(2 * plan.block),
        np.empty(0),
    )
    return NetworkWorkspace(
        scratch,
        np.empty(plan.n_params),
        np.empty(plan.n_nodes),
        np.empty(plan.n_nodes),
        np.empty(plan.n_nodes),
        np.empty(plan.n_strands),
        np.empty(plan.n_strands * plan.n_params),
    )


@kernel(fastmath=False)
def _gradient_shape(plan: NetworkPlan) -> Shape:
    """Shape of a pass for values and gradients that keeps nothing."""
    return Shape(
        plan.widths,
        plan.weights_at,
        plan.buffers_at,
        plan.active,
        plan.lowest,
        GRADIENT,
        UNKNOWN,
        KEEP,
        plan.kept_at,
        plan.code,
        plan.iota,
        plan.block,
    )


@kernel(fastmath=False)
def network_value_and_gradient(
    plan: NetworkPlan, workspace: NetworkWorkspace, p: DoubleArray, gradient: DoubleArray
) -> float:
    """Return f(p) and write its gradient: what ``NodeRisk.value_and_grad`` does, in one thread.

    p and gradient (n_params,) are (W_1 row by row, b_1, W_2, b_2, ..., W_L, b_L). The gradient has
    the bits of ``NodeRisk``.
    """
    d, h = plan.widths[0], plan.widths[1]
    first = d * h
    point, strands = workspace.point, workspace.strands
    # The kernels hold W_1 by columns.
    for i in range(h):
        for k in range(d):
            point[k * h + i] = p[i * d + k]
    for j in range(first, plan.n_params):
        point[j] = p[j]
    strands[:] = 0.0
    pass_over_strands(
        0,
        plan.n_strands,
        plan.n_strands,
        Tools(plan.activate, plan.multiply, plan.add_outer, plan.add_outputs),
        _gradient_shape(plan),
        Nodes(plan.inputs, plan.targets, plan.weights, plan.per_node, plan.n_nodes),
        Loss(plan.loss_address, plan.loss_code, plan.delta),
        workspace.scratch,
        point,
        point,
        workspace.outputs,
        workspace.slopes,
        workspace.curvatures,
        workspace.values,
        strands,
    )
    total = 0.0
    for strand in range(plan.n_strands):
        total += workspace.values[strand]
    # The sum over strands, in order, in the place of the first.
    for strand in range(1, plan.n_strands):
        for j in range(plan.n_params):
            strands[j] += strands[strand * plan.n_params + j]
    for i in range(h):
        for k in range(d):
            gradient[i * d + k] = strands[k * h + i]
    for j in range(first, plan.n_params):
        gradient[j] = strands[j]
    return total
