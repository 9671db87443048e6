# cython: boundscheck=False, wraparound=False, cdivision=True
"""Lanczos from another Cython module: the ground state of H = -Laplacian + V on a square grid.

H is never stored. The whole run is without the GIL; the core allocates nothing, so the caller
brings the memory and random start vectors when asked for them.
"""

import numpy as np

from libc.stdlib cimport free, realloc

from derand_fast.kernels.lanczos cimport (
    LANCZOS_CONVERGED,
    LANCZOS_EXACT,
    LANCZOS_NEED_SPACE,
    LANCZOS_NEED_START,
    LANCZOS_RUNNING,
    LanczosState,
    lanczos_accept_start,
    lanczos_basis_size,
    lanczos_bind,
    lanczos_finish,
    lanczos_initialise,
    lanczos_run,
    lanczos_scratch_size,
    lanczos_start_row,
)


cdef struct Grid:
    Py_ssize_t side
    const double* potential  # (side * side,)


cdef int multiply(const double* x, double* y, Py_ssize_t n, void* context) noexcept nogil:
    """y = H x with the five-point Laplacian and zeros outside the grid; 1 is success."""
    cdef const Grid* grid = <const Grid*> context
    cdef Py_ssize_t side = grid.side, i, j, k
    cdef double total
    for i in range(side):
        for j in range(side):
            k = i * side + j
            total = (4.0 + grid.potential[k]) * x[k]
            if i > 0:
                total -= x[k - side]
            if i < side - 1:
                total -= x[k + side]
            if j > 0:
                total -= x[k - 1]
            if j < side - 1:
                total -= x[k + 1]
            y[k] = total
    return 1


def ground_state(const double[:, ::1] potential, double tol=1e-10, seed=0):
    """Return (energy, state, products) for a potential on a square grid."""
    cdef Py_ssize_t side = potential.shape[0], n = side * side, capacity = 16
    cdef Grid grid
    cdef LanczosState state
    cdef double* basis = NULL
    cdef double* scratch = NULL
    cdef double[::1] vector = np.empty(n), start
    cdef int code = LANCZOS_NEED_SPACE
    if potential.shape[1] != side or side == 0:
        raise ValueError(f"potential must be square, got {side} x {potential.shape[1]}")
    generator = np.random.default_rng(seed)
    grid.side, grid.potential = side, &potential[0, 0]
    lanczos_initialise(&state, n, n, 1e-9, tol, True)
    try:
        while True:
            if code == LANCZOS_NEED_SPACE:
                capacity = min(capacity + capacity // 2, n + 1)
                basis = <double*> realloc(basis, 8 * lanczos_basis_size(n, capacity))
                scratch = <double*> realloc(scratch, 8 * lanczos_scratch_size(capacity))
                if basis == NULL or scratch == NULL:
                    raise MemoryError(f"no memory for {capacity} vectors of length {n}")
                lanczos_bind(&state, basis, scratch, capacity)
            elif code == LANCZOS_NEED_START:
                start = generator.standard_normal(n)
                lanczos_start_row(&state)[:n] = &start[0]
                lanczos_accept_start(&state)
            elif code != LANCZOS_RUNNING:
                break
            with nogil:
                code = lanczos_run(&state, multiply, &grid, 1000)
        lanczos_finish(&state, &vector[0])
    finally:
        free(basis)
        free(scratch)
    if code not in (LANCZOS_CONVERGED, LANCZOS_EXACT):
        raise RuntimeError(f"Lanczos stopped with code {code}")
    return state.ritz_value, np.asarray(vector), state.products
