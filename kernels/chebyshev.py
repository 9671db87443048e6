"""Chebyshev recurrence of a scaled graph matrix on eight vectors at once.

The matrix is S = I + N with N = Diag(d) A Diag(d), given as the entries of N on the graph's CSR
pattern. With t(s) = 2 s / top - 1 the recurrence z_{k+1} = 2 t(S) z_k - z_{k-1} computes
z_k = T_k(t(S)) z_0, which stays bounded on the spectrum inside [0, top] and grows exponentially
along eigenvectors of S below 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.row_ascent import AHEAD, prefetch
from derand_fast.kernels.simd import (
    LANES,
    add_products,
    add_scaled_row,
    new_row,
    scale_row,
    store_scaled_row,
)

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]

# Vertices whose squared norms are summed together, whatever the number of threads.
BLOCK = 1 << 14

_LANES = np.uint64(LANES)


@kernel(fastmath="contract")
def chebyshev_steps(
    indptr: IndexArray,
    indices: IndexArray,
    values: FloatArray,
    top: float,
    previous: FloatArray,
    current: FloatArray,
    first_block: int,
    squares: FloatArray,
) -> None:
    """Advance blocks of ``BLOCK`` vertices by ``len(squares)`` steps, in place.

    Parameters: values (2 m,) float64, the entries of N; top > 0; previous and current (8 n,)
    float64 hold z_{k-1} and z_k; after step 1, 3, ... previous holds the newest, after step 2, 4,
    ... current. squares (s, blocks, 8) receives the squared norms of the eight columns of each new
    z, over the vertices of each block from first_block on. More than one step at a time is right
    only if the blocks are all there are. Each new entry is one sum of degree + 2 products, in CSR
    order. Cost (4 m + 6 n) * 8 flops a step over all blocks.
    """
    n = len(indptr) - 1
    diagonal = 4.0 / top - 2.0
    factor = 4.0 / top
    total = new_row(current)
    norms = new_row(current)
    last = np.uint64(len(indices) - 1)
    for step in range(squares.shape[0]):
        new, old = (previous, current) if step % 2 == 0 else (current, previous)
        for block in range(squares.shape[1]):
            flat = squares[step, block]
            scale_row(norms, 0.0, old, np.uint64(0))
            start = (first_block + block) * BLOCK
            for i in range(start, min(start + BLOCK, n)):
                offset = np.uint64(i) * _LANES
                scale_row(total, diagonal, old, offset)
                for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                    prefetch(old, np.uint64(indices[min(e + AHEAD, last)]) * _LANES)
                    add_scaled_row(total, factor * values[e], old, np.uint64(indices[e]) * _LANES)
                add_scaled_row(total, -1.0, new, offset)
                store_scaled_row(total, 1.0, new, offset)
                add_products(norms, total, total, new)
            store_scaled_row(norms, 1.0, flat, np.uint64(0))


@kernel(fastmath="contract")
def chebyshev_start(
    indptr: IndexArray,
    indices: IndexArray,
    values: FloatArray,
    top: float,
    start: FloatArray,
    first: FloatArray,
) -> None:
    """Write z_1 = t(S) z_0. start and first (8 n,) float64, values the entries of N."""
    n = len(indptr) - 1
    total = new_row(start)
    for i in range(n):
        offset = np.uint64(i) * _LANES
        scale_row(total, 2.0 / top - 1.0, start, offset)
        for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
            add_scaled_row(total, 2.0 / top * values[e], start, np.uint64(indices[e]) * _LANES)
        store_scaled_row(total, 1.0, first, offset)
