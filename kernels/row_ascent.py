"""Row updates over a range of vertices: the relaxation's sweeps, its dual, annealing.

Vertices of a range are updated one after another, each from the rows as they are. Where no two
vertices of the range are neighbours (``colouring.independent_runs``) their updates do not depend on
each other: the range may be cut anywhere and its parts run in threads, with the same bits.

A row of a distant neighbour costs a wait for main memory of some hundred instructions. Kernels
therefore ask for rows ``AHEAD`` stored entries before they are due: on a random graph with 10^6
vertices and 10^7 stored entries an annealing sweep takes 12 to 20 ns an entry in place of 38, and
on graphs that fit the caches no longer than without.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.simd import (
    LANES,
    add_products,
    add_scaled_row,
    clear_row,
    dot_row,
    load_row,
    new_row,
    scale_row,
    squared_norm,
    store_scaled_row,
    sum_row,
)

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]
RowArray = NDArray[np.float32]

# How many stored entries ahead of their use rows are asked for.
AHEAD = np.uint64(16)
# Columns of a panel: two registers of eight.
PANEL = 2 * LANES

_LANES = np.uint64(LANES)
_PANEL = np.uint64(PANEL)
_ONE = np.float32(1.0)
_ZERO = np.float32(0.0)
# Below this the direction of a sum of rows is rounding noise; the row then stays as it was.
_TINY_SQUARE = np.float32(1e-30)
# 1 - (c r)^2 cannot fall below 1e-8 by the schedule; rounding of r may push it there.
_SMALLEST_COMPLEMENT = np.float32(1e-12)


@intrinsic
def prefetch(typingctx: Any, array: Any, offset: Any) -> Any:
    """prefetch(array, offset): ask for the cache line that holds a flat array's element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.bitcast(builder.gep(data, [args[1]]), cgutils.voidptr_t)
        word = ir.IntType(32)
        request = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word]),
            "llvm.prefetch.p0i8",
        )
        # To read, to keep in all caches, data.
        builder.call(request, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@kernel(fastmath=True)
def mixing_rows(
    indptr: IndexArray,
    indices: IndexArray,
    weights: RowArray,
    rows: RowArray,
    panels: int,
    over: float,
    start: int,
    stop: int,
    decreases: FloatArray,
) -> None:
    """Relax rows start to stop of the low-rank semidefinite program, in place.

    With g_i = sum_j w_ij v_j each row becomes

        v_i <- normalise( -over g_i / ||g_i|| + (1 - over) v_i ).

    over = 1 is the mixing method: the exact minimiser of g_i . v_i over unit vectors. Up to 2 the
    row passes the minimiser, to a point no further from it: successive over-relaxation. The sum
    sum_{i<j} w_ij v_i . v_j never rises, for any 0 <= over <= 2.

    Parameters: weights (2 m,) float32; rows flat float32, 16 ``panels`` numbers a vertex, each row
    of unit norm. decreases (n,) receives by how much each update lowers the sum. Cost 64 panels
    flops a stored entry of the range.

    Sources: Wang, Chang and Kolter, "The mixing method", 2017; Young 1954 for over-relaxation.
    """
    width = np.uint64(panels * PANEL)
    gradient = np.empty(width, np.float32)
    low, high = new_row(rows), new_row(rows)
    squares, before, after = new_row(rows), new_row(rows), new_row(rows)
    over32 = np.float32(over)
    last = np.uint64(len(indices) - 1)
    for i in range(start, stop):
        first = np.uint64(indptr[i])
        end = np.uint64(indptr[i + 1])
        own = np.uint64(i) * width
        clear_row(squares, rows)
        for panel in range(panels):
            column = np.uint64(panel) * _PANEL
            clear_row(low, rows)
            clear_row(high, rows)
            for e in range(first, end):
                prefetch(rows, np.uint64(indices[min(e + AHEAD, last)]) * width + column)
                neighbour = np.uint64(indices[e]) * width + column
                add_scaled_row(low, weights[e], rows, neighbour)
                add_scaled_row(high, weights[e], rows, neighbour + _LANES)
            add_products(squares, low, low, rows)
            add_products(squares, high, high, rows)
            store_scaled_row(low, _ONE, gradient, column)
            store_scaled_row(high, _ONE, gradient, column + _LANES)
        decreases[i] = 0.0
        square = sum_row(squares, rows)
        if square > _TINY_SQUARE:
            toward = -over32 / np.sqrt(square)
            clear_row(squares, rows)
            clear_row(before, rows)
            for line in range(np.uint64(0), width, _LANES):
                load_row(low, gradient, line)
                load_row(high, rows, own + line)
                add_products(before, low, high, rows)
                scale_row(low, toward, gradient, line)
                add_scaled_row(low, _ONE - over32, rows, own + line)
                add_products(squares, low, low, rows)
                store_scaled_row(low, _ONE, rows, own + line)
            length = sum_row(squares, rows)
            if length > _TINY_SQUARE:
                scale = _ONE / np.sqrt(length)
                clear_row(after, rows)
                for line in range(np.uint64(0), width, _LANES):
                    load_row(low, gradient, line)
                    scale_row(high, scale, rows, own + line)
                    add_products(after, low, high, rows)
                    store_scaled_row(high, _ONE, rows, own + line)
                decreases[i] = sum_row(before, rows) - sum_row(after, rows)


@kernel(fastmath=True)
def dual_rows(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    rows: RowArray,
    columns: int,
    inverse_norms: FloatArray,
    start: int,
    stop: int,
    dual: FloatArray,
    products: FloatArray,
) -> None:
    """Write y_i = ||g_i|| and v_i . g_i for rows start to stop, g_i = sum_j w_ij v_j, in float64.

    weights (2 m,) float64; rows flat float32, ``columns`` numbers a vertex (a multiple of 8),
    brought to unit length by inverse_norms (n,). dual and products (n,) float64 are written. Cost
    4 columns flops a stored entry of the range.
    """
    width = np.uint64(columns)
    gradient = np.empty(columns, np.float64)
    last = np.uint64(len(indices) - 1)
    for i in range(start, stop):
        for k in range(columns):
            gradient[k] = 0.0
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            ahead = np.uint64(indices[min(e + AHEAD, last)]) * width
            for line in range(np.uint64(0), width, _PANEL):
                prefetch(rows, ahead + line)
            j = indices[e]
            factor = weights[e] * inverse_norms[j]
            neighbour = rows[j * columns : (j + 1) * columns]
            for k in range(columns):
                gradient[k] += factor * np.float64(neighbour[k])
        square = 0.0
        product = 0.0
        own = rows[i * columns : (i + 1) * columns]
        for k in range(columns):
            square += gradient[k] * gradient[k]
            product += gradient[k] * np.float64(own[k])
        dual[i] = np.sqrt(square)
        products[i] = product * inverse_norms[i]


@kernel(fastmath=True)
def anneal_range(
    indptr: IndexArray,
    indices: IndexArray,
    weights: RowArray,
    rows: RowArray,
    smoothing: float,
    start: int,
    stop: int,
) -> None:
    """Ascend the expected cut of smoothed rounding, rows start to stop one after another.

    With r_ij = v_i . v_j and c = 1 - smoothing, each row becomes

        v_i <- normalise( -sum_j w_ij v_j / sqrt(1 - (c r_ij)^2) ):

    one sweep of ``maxcut.anneal_rows`` over a range, in the order of the vertices.

    Parameters: weights (2 m,) float32; rows (8 n,) float32, eight numbers a vertex, updated in
    place. Cost about 35 flops a stored entry of the range.
    """
    own = new_row(rows)
    gradient = new_row(rows)
    c = np.float32(1.0 - smoothing)
    c_squared = c * c
    last = np.uint64(len(indices) - 1)
    for i in range(start, stop):
        offset = np.uint64(i) * _LANES
        load_row(own, rows, offset)
        scale_row(gradient, _ZERO, rows, offset)
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            prefetch(rows, np.uint64(indices[min(e + AHEAD, last)]) * _LANES)
            neighbour = np.uint64(indices[e]) * _LANES
            r = dot_row(own, rows, neighbour)
            complement = max(_ONE - c_squared * r * r, _SMALLEST_COMPLEMENT)
            add_scaled_row(gradient, -weights[e] / np.sqrt(complement), rows, neighbour)
        square = squared_norm(gradient, rows)
        if square > _TINY_SQUARE:
            store_scaled_row(gradient, _ONE / np.sqrt(square), rows, offset)
