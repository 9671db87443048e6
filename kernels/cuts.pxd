"""C interface of local search and row ascent for maximum cut: cimport it from another Cython module.

Every function is ``noexcept nogil``, re-entrant and thread-safe: it takes no lock, allocates
nothing and writes to what the caller passes without ``const``. Sizes are Py_ssize_t.

The graph is symmetric CSR, each edge stored from both ends and no loops: ``n`` vertices,
``indptr`` (n + 1,) and ``indices`` (m2,) int32, ``weights`` (m2,), m2 = indptr[n] twice the number
of edges. Rows need not be sorted. Signs are int8, +1 or -1. Vectors of vertices are the rows of a
C-contiguous float matrix.

Status codes
------------
1 (CUT_SUCCESS): done. 0 (CUT_NOT_CONVERGED): a limit came first, and what is there is valid; call
again to go on. -k: argument number k (from 1) breaks the rule beside it below, and nothing was
written. Only sizes, scalars and null pointers are looked at, in O(1): contents are the caller's.
A pointer to an array of length 0 may be null.

Local search is

    cut_flip_gains(n, indptr, indices, weights, signs, gains)
    code = cut_one_flip_ascent(n, indptr, indices, weights, signs, gains, 1e-9, n * 1000, &flips)
    cut_value(n, indptr, indices, weights, signs, &value)
"""

from libc.stdint cimport int8_t, int32_t

cdef enum CutCode:
    CUT_NOT_CONVERGED = 0
    CUT_SUCCESS = 1

cdef enum:
    # Entries of a row in cut_anneal_rows: one vector register.
    CUT_LANES = 8

# gains[i] = sum_j w_ij s_i s_j: what flipping vertex i adds to the cut. Cost 2 m2 flops.
cdef int cut_flip_gains(
    Py_ssize_t n,                  # at least 0
    const int32_t* indptr,
    const int32_t* indices,
    const double* weights,
    const int8_t* signs,           # (n,)
    double* gains,                 # (n,), written
) noexcept nogil

# Flip vertices whose gain exceeds `threshold`, in the order of their numbers and round and round,
# until none is left (1) or flip_limit flips are made (0). The cut rises with every flip if the
# threshold is above the rounding of the gains; then the search ends in any case. A flip costs its
# degree.
cdef int cut_one_flip_ascent(
    Py_ssize_t n,                  # at least 0
    const int32_t* indptr,
    const int32_t* indices,
    const double* weights,
    int8_t* signs,                 # (n,), updated
    double* gains,                 # (n,), as cut_flip_gains wrote them; updated
    double threshold,              # at least 0
    Py_ssize_t flip_limit,         # at least 0
    Py_ssize_t* flips,             # how many were made; or null
) noexcept nogil

# value[0] = weight of the edges between the two sides, each edge once.
cdef int cut_value(
    Py_ssize_t n,                  # at least 0
    const int32_t* indptr,
    const int32_t* indices,
    const double* weights,
    const int8_t* signs,           # (n,)
    double* value,
) noexcept nogil

# Floats of workspace that cut_mixing_sweeps needs.
cdef Py_ssize_t cut_mixing_workspace(Py_ssize_t p) noexcept nogil

# Sweeps of the mixing method: v_i <- -g_i / ||g_i||, g_i = sum_j w_ij v_j, vertex by vertex; the
# exact minimiser of sum_{i<j} w_ij v_i . v_j over unit v_i. A row stays where ||g_i|| <= 1e-15.
# Cost 2 m2 p flops a sweep.
cdef int cut_mixing_sweeps(
    Py_ssize_t n,                  # at least 0
    const int32_t* indptr,
    const int32_t* indices,
    const float* weights,
    Py_ssize_t p,                  # at least 1
    float* rows,                   # (n, p), unit rows, updated
    Py_ssize_t sweeps,             # at least 0
    float* workspace,              # (cut_mixing_workspace(p),)
    double* decrease,              # of the sum in the last sweep; or null
) noexcept nogil

# Sweeps of the ascent of the expected cut of smoothed rounding, c = 1 - smoothing:
#     v_i <- normalise( -sum_j w_ij v_j / sqrt(1 - (c v_i . v_j)^2) ),
# even vertices first, then odd ones. After each sweep smoothing[0] is multiplied by `ratio`. Rows
# that start as unit rows collapse towards one line as the smoothing falls. Cost about 35 flops for
# each stored entry and sweep.
cdef int cut_anneal_rows(
    Py_ssize_t n,                  # at least 0
    const int32_t* indptr,
    const int32_t* indices,
    const float* weights,
    float* rows,                   # (n, CUT_LANES), unit rows, updated
    double* smoothing,             # in (0, 1], updated
    double ratio,                  # in (0, 1]
    Py_ssize_t sweeps,             # at least 0
) noexcept nogil

# signs[i] = 1 where v_i . normal >= 0, else -1: hyperplane rounding.
cdef int cut_round_rows(
    Py_ssize_t n,                  # at least 0
    Py_ssize_t p,                  # at least 1
    const float* rows,             # (n, p)
    const float* normal,           # (p,)
    int8_t* signs,                 # (n,), written
) noexcept nogil
