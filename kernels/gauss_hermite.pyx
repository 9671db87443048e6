# distutils: extra_compile_args = -O3
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Gauss-Hermite sums of a C function, for callers in C and Cython.

There is nothing here for Python: its callers use ``derand_fast.kernels.quadrature`` and
``derand_fast.kernels.expectation``. The interface, its status codes and formulas are in
gauss_hermite.pxd.
"""

from libc.math cimport fabs, sqrt
from scipy.linalg.cython_lapack cimport dsterf

__all__: list[str] = []

# The eigenvalue routine counts in int and takes O(count^2) time.
cdef Py_ssize_t LARGEST_COUNT = 1 << 20
# Orthonormal polynomials past this size are scaled down by its inverse.
cdef double LARGE = 1e150


cdef Py_ssize_t gauss_hermite_rule_workspace(Py_ssize_t count) noexcept nogil:
    """Return count: the off-diagonal of the Jacobi matrix."""
    return count


cdef int _polish(Py_ssize_t count, double* node, double* weight) noexcept nogil:
    """Newton steps to a zero of p_n, n = count, and its weight 1 / (n p_{n-1}^2).

    Orthonormal for N(0, 1): sqrt(k + 1) p_{k+1} = x p_k - sqrt(k) p_{k-1}, p_n' = sqrt(n) p_{n-1}.
    Returns how often the polynomials were scaled down.
    """
    cdef double before, here, after
    cdef Py_ssize_t k
    cdef int step, scalings = 0
    # Quadratic convergence from the eigenvalues' rounding error: one step would do.
    for step in range(3):
        before, here, scalings = 0.0, 1.0, 0
        for k in range(count):
            after = (node[0] * here - sqrt(<double> k) * before) / sqrt(<double> (k + 1))
            before, here = here, after
            if fabs(here) > LARGE:
                before, here, scalings = before / LARGE, here / LARGE, scalings + 1
        # Here p_n stands in `here` and p_{n-1} in `before`.
        if step < 2:
            node[0] -= here / (sqrt(<double> count) * before)
    weight[0] = 1.0 / (count * before * before)
    return scalings


cdef int gauss_hermite_rule(
    Py_ssize_t count, double* nodes, double* weights, double* workspace
) noexcept nogil:
    """Eigenvalues of the Jacobi matrix, polished; the weights from the polynomials there."""
    cdef int size, info, scalings
    cdef Py_ssize_t q, k
    cdef double total = 0.0
    if not 1 <= count <= LARGEST_COUNT:
        return -1
    if nodes == NULL:
        return -2
    if weights == NULL:
        return -3
    if workspace == NULL:
        return -4
    for q in range(count):
        nodes[q] = 0.0
        workspace[q] = sqrt(<double> (q + 1))
    size = <int> count
    dsterf(&size, nodes, workspace, &info)
    if info != 0:
        return GAUSS_HERMITE_FAILED
    # The upper half, and its mirror image.
    if count % 2:
        nodes[count // 2] = 0.0
    for q in range(count // 2, count):
        scalings = _polish(count, &nodes[q], &weights[q])
        for k in range(scalings):
            weights[q] = (weights[q] / LARGE) / LARGE
    for q in range(count // 2):
        nodes[q] = -nodes[count - 1 - q]
        weights[q] = weights[count - 1 - q]
    for q in range(count):
        total += weights[q]
    for q in range(count):
        weights[q] /= total
    return GAUSS_HERMITE_SUCCESS


cdef int gauss_hermite_mean(
    gauss_hermite_function g, void* context, double mu, double sigma, Py_ssize_t count,
    const double* nodes, const double* weights, double* mean,
) noexcept nogil:
    """sum_q w_q g(mu + sigma x_q)."""
    cdef double total = 0.0
    cdef Py_ssize_t q
    if g == NULL:
        return -1
    if count < 1:
        return -5
    if nodes == NULL:
        return -6
    if weights == NULL:
        return -7
    if mean == NULL:
        return -8
    for q in range(count):
        total += weights[q] * g(mu + sigma * nodes[q], context)
    mean[0] = total
    return GAUSS_HERMITE_SUCCESS


cdef Py_ssize_t gauss_hermite_tensor_workspace(
    Py_ssize_t d, Py_ssize_t h, Py_ssize_t n_values
) noexcept nogil:
    """Columns of W, partial sums W x + b of 0 to d terms, sums of each axis, values, digits."""
    return d * h + (d + 1) * h + d * n_values + n_values + d


cdef void _clear(double* row, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        row[i] = 0.0


cdef void _add(double factor, const double* row, Py_ssize_t size, double* total) noexcept nogil:
    """total += factor row."""
    cdef Py_ssize_t i
    for i in range(size):
        total[i] += factor * row[i]


cdef void _move(
    const double* origin, double factor, const double* row, Py_ssize_t size, double* out
) noexcept nogil:
    """out = origin + factor row."""
    cdef Py_ssize_t i
    for i in range(size):
        out[i] = origin[i] + factor * row[i]


cdef int gauss_hermite_tensor_mean(
    gauss_hermite_vector_function g, void* context, Py_ssize_t d, Py_ssize_t h, const double* W,
    const double* b, Py_ssize_t count, const double* nodes, const double* weights,
    Py_ssize_t n_values, double* workspace, double* means,
) noexcept nogil:
    """Go through the grid like an odometer; row k of `partial` is b and the first k terms of W x."""
    cdef double* columns = workspace
    cdef double* partial = columns + d * h
    cdef double* sums = partial + (d + 1) * h
    cdef double* values = sums + d * n_values
    cdef double* digits = values + n_values
    cdef Py_ssize_t k, i, q
    if g == NULL:
        return -1
    if d < 1:
        return -3
    if h < 1:
        return -4
    if W == NULL:
        return -5
    if b == NULL:
        return -6
    if count < 1:
        return -7
    if nodes == NULL:
        return -8
    if weights == NULL:
        return -9
    if n_values < 1:
        return -10
    if workspace == NULL:
        return -11
    if means == NULL:
        return -12
    for k in range(d):
        digits[k] = 0.0
        for i in range(h):
            columns[k * h + i] = W[i * d + k]
    for i in range(h):
        partial[i] = b[i]
    _clear(sums, n_values)
    k = 0
    while True:
        # Down to the last axis ...
        while k < d - 1:
            q = <Py_ssize_t> digits[k]
            _move(partial + k * h, nodes[q], columns + k * h, h, partial + (k + 1) * h)
            k += 1
            digits[k] = 0.0
            _clear(sums + k * n_values, n_values)
        # ... along it ...
        for q in range(count):
            _move(partial + k * h, nodes[q], columns + k * h, h, partial + d * h)
            if g(partial + d * h, h, values, n_values, context) != 1:
                return GAUSS_HERMITE_FAILED
            _add(weights[q], values, n_values, sums + k * n_values)
        # ... and up to the first axis that is not through.
        while k > 0:
            k -= 1
            q = <Py_ssize_t> digits[k]
            _add(weights[q], sums + (k + 1) * n_values, n_values, sums + k * n_values)
            digits[k] += 1.0
            if q + 1 < count:
                break
        if k == 0 and (d == 1 or digits[0] == count):
            break
    for i in range(n_values):
        means[i] = sums[i]
    return GAUSS_HERMITE_SUCCESS
