"""Gaussian expectations of any function: sums over quadrature nodes, block by block.

For z_q = W x_q + b, nodes x_q in R^d and weights w_q of a ``quadrature.NodeSet``, W (h, d), b (h,),
and a function g(z, theta) given by its own kernels, the drivers here add up

    value        sum_q w_q g
    gradient     sum_q w_q (grad_z g x_q^T, grad_z g, grad_theta g)
    product      the same, with the Hessian of g times (dW x_q + db, dtheta) for its gradient
    curvature    sum_q w_q Hess_z g   (h, h)

without ever holding more than one node's derivatives. The gradient in W comes from the nodes, not
from Stein's identity grad_W = H_bb W, which therefore stays an independent check.

Blocks
------
Nodes are taken in blocks of a size fixed by the rule, and each driver fills one row of sums for
each block it is asked for. The rows are then added in order by ``add_rows``. So the result has the
same bits whoever computed which block; drivers release the GIL, and Python threads may share the
blocks. (A prange driver would do the same, but it takes seconds to compile, for each g again in
each process: kernels that close over a function cannot be kept on disk.)

Each driver also runs without compilation, for a g in plain Python: the source is the same, only
``compiled=False``.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from derand_fast.kernels._jit import kernel

FloatArray = npt.NDArray[np.float64]
DigitArray = npt.NDArray[np.int64]

# Columns of a row of the value driver: sum w g, sum |w g|, then sum w g of each lower rule.
VALUE_COLUMNS = 2
EPSILON = float(np.finfo(np.float64).eps)


@kernel(fastmath=False)
def first_digits(q: int, base: int, digits: DigitArray) -> None:
    """Write node number q of a tensor grid as its axis numbers, the last running fastest."""
    for k in range(digits.size - 1, -1, -1):
        digits[k] = q % base
        q //= base


@kernel(fastmath=False, inline=True)
def next_node(
    q: int,
    tensor: bool,
    nodes: FloatArray,
    weights: FloatArray,
    digits: DigitArray,
    x: FloatArray,
) -> float:
    """Write node q to ``x``, return its weight; on a tensor grid, move ``digits`` on to q + 1."""
    if not tensor:
        for k in range(x.size):
            x[k] = nodes[q, k]
        return weights[q]
    weight = 1.0
    for k in range(x.size):
        x[k] = nodes[digits[k], 0]
        weight *= weights[digits[k]]
    k = x.size - 1
    while k >= 0:
        digits[k] += 1
        if digits[k] < weights.size:
            break
        digits[k] = 0
        k -= 1
    return weight


@kernel(fastmath=True)
def affine(by_column: bool, M: FloatArray, x: FloatArray, b: FloatArray, z: FloatArray) -> None:
    """Write W x + b to ``z``, for M = W^T if ``by_column``, else W.

    The inner loop runs along the rows of M, so those should be the longer side. Compiled once: its
    sums are reordered alike in every driver.
    """
    h, d = z.size, x.size
    if by_column:
        for i in range(h):
            z[i] = b[i]
        for k in range(d):
            for i in range(h):
                z[i] += M[k, i] * x[k]
        return
    for i in range(h):
        total = 0.0
        for k in range(d):
            total += M[i, k] * x[k]
        z[i] = total + b[i]


@kernel(fastmath="contract", inline=True)
def add_derivatives(
    by_column: bool,
    weight: float,
    x: FloatArray,
    along_z: FloatArray,
    along_theta: FloatArray,
    row: FloatArray,
) -> None:
    """Add weight (along_z x^T, along_z, along_theta), one part after the other, to ``row``.

    The first part is laid out like M in ``affine``.
    """
    h, d = along_z.size, x.size
    if by_column:
        for k in range(d):
            factor = weight * x[k]
            for i in range(h):
                row[k * h + i] += factor * along_z[i]
    else:
        for i in range(h):
            factor = weight * along_z[i]
            for k in range(d):
                row[i * d + k] += factor * x[k]
    for i in range(h):
        row[h * d + i] += weight * along_z[i]
    for t in range(along_theta.size):
        row[h * d + h + t] += weight * along_theta[t]


@kernel(fastmath=False)
def add_rows(rows: FloatArray, total: FloatArray) -> None:
    """``total`` += each row of ``rows``, in order."""
    for r in range(rows.shape[0]):
        for k in range(total.size):
            total[k] += rows[r, k]


@kernel(fastmath=False)
def difference_step(
    z: FloatArray, theta: FloatArray, direction_z: FloatArray, direction_theta: FloatArray
) -> float:
    """Step t of a fourth-order central difference along a direction; 0 for a zero direction.

    The largest move of an entry is (eps S)^(1/5), S = max(1, |z|, |theta|): for a g whose scale is
    1 that balances the formula's error, of order move^4, and that of rounding, eps S / move.
    """
    size, scale = 0.0, 1.0
    for i in range(z.size):
        size = max(size, abs(direction_z[i]))
        scale = max(scale, abs(z[i]))
    for i in range(theta.size):
        size = max(size, abs(direction_theta[i]))
        scale = max(scale, abs(theta[i]))
    return (EPSILON * scale) ** 0.2 / size if size > 0.0 else 0.0


def _plain(**_options: Any) -> Callable[..., Any]:
    """Take the place of ``kernel`` where nothing is to be compiled."""
    return lambda function: function


@functools.cache
def hessian_product_by_differences(
    gradient: Callable[..., None], *, compiled: bool = True
) -> Callable[..., None]:
    """Hessian products of g from its gradient: fourth-order central differences.

    Parameters
    ----------
    gradient : function
        ``gradient(z, theta, out_z, out_theta)``; an njit function when ``compiled``.
    compiled : bool, optional
        Whether to compile.

    Returns
    -------
    function
        ``hessian_product(z, theta, direction_z, direction_theta, out_z, out_theta)``, overwriting
        both outputs: four gradients each. The relative error is about eps^(4/5) = 3e-13 times
        1 + (fifth derivative of g), for z of size 1; see ``difference_step``.
    """
    decorate = kernel if compiled else _plain

    @decorate(fastmath=False, cache=False)
    def hessian_product(
        z: FloatArray,
        theta: FloatArray,
        direction_z: FloatArray,
        direction_theta: FloatArray,
        out_z: FloatArray,
        out_theta: FloatArray,
    ) -> None:
        h, n_theta = z.size, theta.size
        out_z[:] = 0.0
        out_theta[:] = 0.0
        step = difference_step(z, theta, direction_z, direction_theta)
        if step == 0.0:
            return
        shifted_z, shifted_theta = np.empty(h), np.empty(n_theta)
        slope_z, slope_theta = np.empty(h), np.empty(n_theta)
        for turn in range(4):
            # Far points last: +1, -1, +2, -2 steps with coefficients 8, -8, -1, 1 over 12.
            shift = step if turn < 2 else 2.0 * step
            factor = 8.0 if turn < 2 else -1.0
            if turn % 2 == 1:
                shift, factor = -shift, -factor
            factor /= 12.0 * step
            for i in range(h):
                shifted_z[i] = z[i] + shift * direction_z[i]
                slope_z[i] = 0.0
            for t in range(n_theta):
                shifted_theta[t] = theta[t] + shift * direction_theta[t]
                slope_theta[t] = 0.0
            gradient(shifted_z, shifted_theta, slope_z, slope_theta)
            for i in range(h):
                out_z[i] += factor * slope_z[i]
            for t in range(n_theta):
                out_theta[t] += factor * slope_theta[t]

    return hessian_product


@functools.cache
def value_then_gradient(
    value: Callable[..., float], gradient: Callable[..., Any], *, compiled: bool = True
) -> Callable[..., float]:
    """One function that writes the gradient of g and returns g, from one for each.

    Not compiled, a ``gradient`` that returns g itself saves the call of ``value``; a compiled one
    needs no such wrapper.
    """
    decorate = kernel if compiled else _plain

    @decorate(fastmath=False, cache=False)
    def compiled_pair(
        z: FloatArray, theta: FloatArray, out_z: FloatArray, out_theta: FloatArray
    ) -> float:
        gradient(z, theta, out_z, out_theta)
        return value(z, theta)

    def plain_pair(
        z: FloatArray, theta: FloatArray, out_z: FloatArray, out_theta: FloatArray
    ) -> float:
        returned = gradient(z, theta, out_z, out_theta)
        return value(z, theta) if returned is None else returned

    return compiled_pair if compiled else plain_pair


# ------------------------------------------------------------------------------------------------
# Drivers. All take
#
#     part = (first, last, block, count): the range of blocks, nodes in a block, nodes in all
#     rule = (tensor, nodes, weights): of the NodeSet
#     point = (by_column, M, b, theta): M is W^T (d, h) if by_column, else W (h, d)
#
# and overwrite ``rows``, one for each block. Arrays are float64, C-contiguous; only ``rows`` need
# be writeable. Scratch is O(h + d + n_theta). What a factory makes is compiled on first use in each
# process, or not at all with ``compiled=False``, which takes any Python functions.
# ------------------------------------------------------------------------------------------------


@functools.cache
def value_driver(value: Callable[..., float], *, compiled: bool = True) -> Callable[..., None]:
    """Driver that adds up g, given ``value(z, theta) -> float``.

    ``value_blocks(*part, *rule, lower, *point, rows)``, rows (last - first, 2 + n_lower): the sums
    of w g, of |w g|, and of w g for each row of ``lower`` (n_lower, count). A node costs a call and
    h d multiply-adds.
    """
    decorate = kernel if compiled else _plain

    @decorate(fastmath=False, cache=False)
    def value_blocks(
        first: int,
        last: int,
        block: int,
        count: int,
        tensor: bool,
        nodes: FloatArray,
        weights: FloatArray,
        lower: FloatArray,
        by_column: bool,
        M: FloatArray,
        b: FloatArray,
        theta: FloatArray,
        rows: FloatArray,
    ) -> None:
        x, z = np.empty(M.size // b.size), np.empty(b.size)
        digits = np.empty(x.size, np.int64)
        for turn in range(first, last):
            row = rows[turn - first]
            row[:] = 0.0
            first_digits(turn * block, weights.size, digits)
            total = size = 0.0
            for q in range(turn * block, min((turn + 1) * block, count)):
                weight = next_node(q, tensor, nodes, weights, digits, x)
                affine(by_column, M, x, b, z)
                g = value(z, theta)
                total += weight * g
                size += abs(weight * g)
                for k in range(lower.shape[0]):
                    row[VALUE_COLUMNS + k] += lower[k, q] * g
            row[0] = total
            row[1] = size

    return value_blocks


@functools.cache
def gradient_driver(
    value_and_gradient: Callable[..., float], *, compiled: bool = True
) -> Callable[..., None]:
    """Driver that adds up g and its gradient.

    ``gradient_blocks(*part, *rule, *point, rows)``, rows (last - first, 1 + h d + h + n_theta): the
    value, and the derivatives in M, b and theta. ``value_and_gradient(z, theta, out_z, out_theta)``
    returns g; its outputs arrive as zeros. A node costs a call and 2 h d multiply-adds.
    """
    decorate = kernel if compiled else _plain

    @decorate(fastmath=False, cache=False)
    def gradient_blocks(
        first: int,
        last: int,
        block: int,
        count: int,
        tensor: bool,
        nodes: FloatArray,
        weights: FloatArray,
        by_column: bool,
        M: FloatArray,
        b: FloatArray,
        theta: FloatArray,
        rows: FloatArray,
    ) -> None:
        x, z = np.empty(M.size // b.size), np.empty(b.size)
        along_z, along_theta = np.empty(b.size), np.empty(theta.size)
        digits = np.empty(x.size, np.int64)
        for turn in range(first, last):
            row = rows[turn - first, 1:]
            row[:] = 0.0
            total = 0.0
            first_digits(turn * block, weights.size, digits)
            for q in range(turn * block, min((turn + 1) * block, count)):
                weight = next_node(q, tensor, nodes, weights, digits, x)
                affine(by_column, M, x, b, z)
                along_z[:] = 0.0
                along_theta[:] = 0.0
                total += weight * value_and_gradient(z, theta, along_z, along_theta)
                add_derivatives(by_column, weight, x, along_z, along_theta, row)
            rows[turn - first, 0] = total

    return gradient_blocks


@functools.cache
def product_drivers(
    hessian_product: Callable[..., None], *, compiled: bool = True
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Drivers that add up Hessian products of g, and its Hessian in z.

    ``product_blocks(*part, *rule, *point, dM, db, dtheta, rows)``, rows (last - first, h d + h +
    n_theta): products in M, b and theta, for a call and 3 h d multiply-adds a node.
    ``curvature_blocks(*part, *rule, *point, rows)``, rows (last - first, h^2): Hess_z g row by row,
    for h calls with unit vectors a node. The function is ``hessian_product(z, theta, direction_z,
    direction_theta, out_z, out_theta)``; its outputs arrive as zeros.
    """
    decorate = kernel if compiled else _plain

    @decorate(fastmath=False, cache=False)
    def product_blocks(
        first: int,
        last: int,
        block: int,
        count: int,
        tensor: bool,
        nodes: FloatArray,
        weights: FloatArray,
        by_column: bool,
        M: FloatArray,
        b: FloatArray,
        theta: FloatArray,
        direction_M: FloatArray,
        direction_b: FloatArray,
        direction_theta: FloatArray,
        rows: FloatArray,
    ) -> None:
        x, z, direction_z = np.empty(M.size // b.size), np.empty(b.size), np.empty(b.size)
        along_z, along_theta = np.empty(b.size), np.empty(theta.size)
        digits = np.empty(x.size, np.int64)
        for turn in range(first, last):
            row = rows[turn - first]
            row[:] = 0.0
            first_digits(turn * block, weights.size, digits)
            for q in range(turn * block, min((turn + 1) * block, count)):
                weight = next_node(q, tensor, nodes, weights, digits, x)
                affine(by_column, M, x, b, z)
                affine(by_column, direction_M, x, direction_b, direction_z)
                along_z[:] = 0.0
                along_theta[:] = 0.0
                hessian_product(z, theta, direction_z, direction_theta, along_z, along_theta)
                add_derivatives(by_column, weight, x, along_z, along_theta, row)

    @decorate(fastmath=False, cache=False)
    def curvature_blocks(
        first: int,
        last: int,
        block: int,
        count: int,
        tensor: bool,
        nodes: FloatArray,
        weights: FloatArray,
        by_column: bool,
        M: FloatArray,
        b: FloatArray,
        theta: FloatArray,
        rows: FloatArray,
    ) -> None:
        h = b.size
        x, z, unit = np.empty(M.size // b.size), np.empty(h), np.zeros(h)
        along_z, along_theta = np.empty(h), np.empty(theta.size)
        still = np.zeros(theta.size)
        digits = np.empty(x.size, np.int64)
        for turn in range(first, last):
            row = rows[turn - first]
            row[:] = 0.0
            first_digits(turn * block, weights.size, digits)
            for q in range(turn * block, min((turn + 1) * block, count)):
                weight = next_node(q, tensor, nodes, weights, digits, x)
                affine(by_column, M, x, b, z)
                for i in range(h):
                    unit[i] = 1.0
                    along_z[:] = 0.0
                    along_theta[:] = 0.0
                    hessian_product(z, theta, unit, still, along_z, along_theta)
                    unit[i] = 0.0
                    for j in range(h):
                        row[i * h + j] += weight * along_z[j]

    return product_blocks, curvature_blocks
