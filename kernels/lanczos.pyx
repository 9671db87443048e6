# distutils: extra_compile_args = -O3 -fopenmp-simd
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Randomized Lanczos for the leftmost eigenpair, with an a-posteriori certificate.

The certificate
---------------
Let H be symmetric with smallest eigenvalue l_1 and unit eigenvector z. Lanczos from the unit
vector q_0 gives orthonormal q_0, ..., q_k and the tridiagonal T_k (alpha_j, beta_j) with
q_j = p_j(H) q_0, where p_j is the polynomial of degree j of the recurrence

    p_0 = 1,   beta_j p_{j+1}(x) = (alpha_j - x) p_j(x) - beta_{j-1} p_{j-1}(x)   (up to sign).

Then z'q_j = p_j(l_1) z'q_0, and Bessel's inequality sum_j (z'q_j)^2 <= 1 reads

    (z'q_0)^2 K_k(l_1) <= 1,      K_k(x) = p_0(x)^2 + ... + p_k(x)^2.                       (1)

K_k falls strictly on (-inf, theta_1], theta_1 the smallest eigenvalue of T_k: there the pivots
d_j of T_k - x are positive and fall, and |p_{j+1}| = |p_j| d_j / beta_j. If q_0 is uniform on the
sphere of R^n, the density of one coordinate gives P(|z'q_0| < c) <= c sqrt(2 n / pi) (with
Gamma(n/2) <= Gamma((n-1)/2) sqrt((n-1)/2); n = 2 directly). So with c = delta sqrt(pi / (2 n)),

    l_1 >= x   for every x <= theta_1 with K_k(x) >= 1 / c^2                                 (2)

except on ONE event, {|z'q_0| < c}, of probability at most delta. That event names neither k nor
x: (2) holds for all k together, so looking after every product costs nothing and any stopping
rule is allowed. No bound on the norm and no statement on the other end of the spectrum is used.

How soon it comes, for certain: K_k(x) is the largest value of r(x)^2 over polynomials r
of degree k with ||r(H) q_0|| <= 1; the Chebyshev polynomial of [l_1, l_n] shows, with certainty,
that the bound x of (2) satisfies l_1 - x <= (l_n - l_1) sinh^2(arcosh(1/c) / (2 k)). For
l_1 >= -eps/2 the certificate "l_1 >= -eps" therefore comes after at most
arcosh(1/c) / (2 arsinh(sqrt(eps / (2 (l_n - l_1))))) products, about
ln(1.6 sqrt(n) / delta) sqrt((l_n - l_1) / (2 eps)): the count of Kuczynski and Wozniakowski (1992),
here as a worst case only. (The same argument with the polynomial T_{2k-1}(w)/w,
w^2 = (y - e)/(1 - e), gives their theorem for all k at once:
theta_1 - l_1 <= (l_n - l_1) tanh^2(arcosh(1/c) / (2 k - 1)) outside the same event.)

After a breakdown (beta_k at rounding level) Lanczos goes on from a fresh random vector orthogonal
to the basis. Block i, in a complement of dimension n_i, gives a p-value g_i(x) =
min(1, sqrt(2 n_i / pi) / sqrt(K^(i)(x))), with a factor sqrt(2) for i > 1; under l_1 < x they bound
independent uniform variables from above, so P(product <= t) <= t sum_{j<m} ln(1/t)^j / j! for m
blocks (Fisher's method). Block one alone may spend 15/16 delta, m >= 2 blocks delta / 2^(m+3); the
sum is delta.

Rounding
--------
The statement above is proven in exact arithmetic. In floating point it is used with a model, not a
proof: the computed T is the exact one for H + E and the same q_0,

    ||E|| <= (8 u (sqrt(n) + k) + 4 w^2) scale + 2 sum(beta taken for zero),   u = 2.2e-16,

where scale is the Gershgorin bound of the norm of T and w >= max_j ||Q_j'q_{j+1}||, the loss of
orthogonality, Q_j = [q_0 .. q_j]. The basis is kept semiorthogonal, w about sqrt(u) at most, which
is as good as orthogonal (Simon 1984). For let Q = N R (Gram-Schmidt, so that n_0 = q_0), and let
the steps satisfy H Q_k = Q_{k+1} C + F: F holds the rounding errors; C is the tridiagonal
recurrence plus, in the columns next to a re-orthogonalisation, coefficients of size w scale above
the diagonal. (Two successive vectors q_k and q_{k+1} are treated together, after the product
H q_k. With q_k = r + Q_{k-1} c the basis goes on with r: column k - 1 gets beta_{k-1} c, and column
k gets alpha_k c - C_{k-1} c, because H r = H q_k - H Q_{k-1} c. On and below the diagonal nothing
changes but by multiples of the last entry of c, a product of neighbours, at rounding level.)
Then N_k'H N_k = R C R^-1 + N_k'F R^-1, where R C R^-1 is upper Hessenberg and its subdiagonal is
beta_j r_{j+1,j+1} / r_jj = beta_j (1 + O(w^2)). The left-hand side is symmetric, so all above the
first superdiagonal is of the size of F, whatever the coefficients were. The diagonal differs
from alpha_j by beta_j q_j'q_{j+1} - beta_{j-1} q_{j-1}'q_j, and neighbours are orthogonal to
rounding: |beta_j q_j'q_{j+1}| is about u ||H||. Hence H N_k - N_k T - beta_k n_{k+1} e_k' is of the
size of F plus w^2 scale, and an E of three times its norm exists (F is k columns of independent
rounding errors, each about u sqrt(n) ||H|| at most). N is orthonormal exactly, so Bessel's
inequality (1) needs no correction: it is applied to N, not to Q.

When to re-orthogonalise is estimated by Simon's recurrence for q_j'q_{k+1}. The estimate need not
be believed: w^2 in the bound is u or the largest measured value, whichever is larger. Measured is
the worst vector that entered a product before each re-orthogonalisation, the newest vector before
a certificate is given and at the end; and vector 8, which calibrates the estimate for products less
accurate than u. The bound on ||E||, `safety`, is subtracted from every bound before it is reported
or compared. beta_k is never taken smaller than u sqrt(n) scale in (1).
"""

import operator as _operator
from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import LinearOperator

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, M_PI, fabs, fmax, fmin, frexp, isfinite, ldexp, log, sqrt
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset
from scipy.linalg.cython_lapack cimport dstebz, dstein

__all__ = ["COperator", "LanczosResult", "leftmost_eigenpair"]

# Dense loops. A column block of 1,024 doubles, of two vectors at most, stays in the first cache
# while the rows of the basis stream past it four at a time. With GCC and Clang on x86-64 every loop
# is compiled for three instruction sets, and the best that the processor has is taken at import.
# Subtractions go backwards: they find in the caches what a projection has read last. No thread is
# started and no BLAS is called, so the order of all sums, and with it the bits, cannot depend on a
# number of threads; processors with other vector lengths differ by rounding.
cdef extern from *:
    """
    #include <stddef.h>
    #define LANCZOS_COLUMNS 1024
    #if defined(__GNUC__)
        #define LANCZOS_BODY static inline __attribute__((always_inline))
    #else
        #define LANCZOS_BODY static inline
    #endif

    /* a . b */
    LANCZOS_BODY double lanczos_dot_body(const double *a, const double *b, ptrdiff_t n) {
        double total = 0.0;
        for (ptrdiff_t start = 0; start < n; start += LANCZOS_COLUMNS) {
            ptrdiff_t stop = start + LANCZOS_COLUMNS < n ? start + LANCZOS_COLUMNS : n;
            double part = 0.0;
            #pragma omp simd reduction(+:part)
            for (ptrdiff_t i = start; i < stop; i++) part += a[i] * b[i];
            total += part;
        }
        return total;
    }

    /* c[r] = row_r . w for `rows` rows of length n. */
    LANCZOS_BODY void lanczos_project_body(const double *basis, ptrdiff_t n, ptrdiff_t rows,
                                           const double *w, double *c) {
        for (ptrdiff_t r = 0; r < rows; r++) c[r] = 0.0;
        for (ptrdiff_t start = 0; start < n; start += LANCZOS_COLUMNS) {
            ptrdiff_t width = n - start < LANCZOS_COLUMNS ? n - start : LANCZOS_COLUMNS;
            const double *v = w + start;
            ptrdiff_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const double *q0 = basis + r * n + start, *q1 = q0 + n, *q2 = q1 + n, *q3 = q2 + n;
                double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
                #pragma omp simd reduction(+:s0,s1,s2,s3)
                for (ptrdiff_t i = 0; i < width; i++) {
                    s0 += q0[i] * v[i]; s1 += q1[i] * v[i];
                    s2 += q2[i] * v[i]; s3 += q3[i] * v[i];
                }
                c[r] += s0; c[r + 1] += s1; c[r + 2] += s2; c[r + 3] += s3;
            }
            for (; r < rows; r++) c[r] += lanczos_dot_body(basis + r * n + start, v, width);
        }
    }

    /* c[r] = row_r . v and d[r] = row_r . w: one pass for two vectors. */
    LANCZOS_BODY void lanczos_project_pair_body(const double *basis, ptrdiff_t n, ptrdiff_t rows,
                                                const double *v, const double *w,
                                                double *c, double *d) {
        for (ptrdiff_t r = 0; r < rows; r++) c[r] = d[r] = 0.0;
        for (ptrdiff_t start = 0; start < n; start += LANCZOS_COLUMNS) {
            ptrdiff_t width = n - start < LANCZOS_COLUMNS ? n - start : LANCZOS_COLUMNS;
            const double *x = v + start, *y = w + start;
            ptrdiff_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const double *q0 = basis + r * n + start, *q1 = q0 + n, *q2 = q1 + n, *q3 = q2 + n;
                double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0;
                double t0 = 0.0, t1 = 0.0, t2 = 0.0, t3 = 0.0;
                #pragma omp simd reduction(+:s0,s1,s2,s3,t0,t1,t2,t3)
                for (ptrdiff_t i = 0; i < width; i++) {
                    s0 += q0[i] * x[i]; s1 += q1[i] * x[i];
                    s2 += q2[i] * x[i]; s3 += q3[i] * x[i];
                    t0 += q0[i] * y[i]; t1 += q1[i] * y[i];
                    t2 += q2[i] * y[i]; t3 += q3[i] * y[i];
                }
                c[r] += s0; c[r + 1] += s1; c[r + 2] += s2; c[r + 3] += s3;
                d[r] += t0; d[r + 1] += t1; d[r + 2] += t2; d[r + 3] += t3;
            }
            for (; r < rows; r++) {
                c[r] += lanczos_dot_body(basis + r * n + start, x, width);
                d[r] += lanczos_dot_body(basis + r * n + start, y, width);
            }
        }
    }

    /* w -= sum_r c[r] row_r; returns the new sum of squares of w. */
    LANCZOS_BODY double lanczos_subtract_body(const double *basis, ptrdiff_t n, ptrdiff_t rows,
                                              const double *c, double *w) {
        double total = 0.0;
        for (ptrdiff_t start = (n - 1) / LANCZOS_COLUMNS * LANCZOS_COLUMNS; start >= 0;
             start -= LANCZOS_COLUMNS) {
            ptrdiff_t width = n - start < LANCZOS_COLUMNS ? n - start : LANCZOS_COLUMNS;
            double *x = w + start;
            ptrdiff_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const double *q0 = basis + r * n + start, *q1 = q0 + n, *q2 = q1 + n, *q3 = q2 + n;
                const double c0 = c[r], c1 = c[r + 1], c2 = c[r + 2], c3 = c[r + 3];
                #pragma omp simd
                for (ptrdiff_t i = 0; i < width; i++)
                    x[i] -= (c0 * q0[i] + c1 * q1[i]) + (c2 * q2[i] + c3 * q3[i]);
            }
            for (; r < rows; r++) {
                const double *q0 = basis + r * n + start;
                const double c0 = c[r];
                #pragma omp simd
                for (ptrdiff_t i = 0; i < width; i++) x[i] -= c0 * q0[i];
            }
            total += lanczos_dot_body(x, x, width);
        }
        return total;
    }

    /* v -= sum_r c[r] row_r and w -= sum_r d[r] row_r: one pass for two vectors. */
    LANCZOS_BODY void lanczos_subtract_pair_body(const double *basis, ptrdiff_t n, ptrdiff_t rows,
                                                 const double *c, const double *d,
                                                 double *v, double *w) {
        for (ptrdiff_t start = (n - 1) / LANCZOS_COLUMNS * LANCZOS_COLUMNS; start >= 0;
             start -= LANCZOS_COLUMNS) {
            ptrdiff_t width = n - start < LANCZOS_COLUMNS ? n - start : LANCZOS_COLUMNS;
            double *x = v + start, *y = w + start;
            ptrdiff_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const double *q0 = basis + r * n + start, *q1 = q0 + n, *q2 = q1 + n, *q3 = q2 + n;
                const double c0 = c[r], c1 = c[r + 1], c2 = c[r + 2], c3 = c[r + 3];
                const double d0 = d[r], d1 = d[r + 1], d2 = d[r + 2], d3 = d[r + 3];
                #pragma omp simd
                for (ptrdiff_t i = 0; i < width; i++) {
                    x[i] -= (c0 * q0[i] + c1 * q1[i]) + (c2 * q2[i] + c3 * q3[i]);
                    y[i] -= (d0 * q0[i] + d1 * q1[i]) + (d2 * q2[i] + d3 * q3[i]);
                }
            }
            for (; r < rows; r++) {
                const double *q0 = basis + r * n + start;
                const double c0 = c[r], d0 = d[r];
                #pragma omp simd
                for (ptrdiff_t i = 0; i < width; i++) {
                    x[i] -= c0 * q0[i];
                    y[i] -= d0 * q0[i];
                }
            }
        }
    }

    /* w -= b p; returns q . w. */
    LANCZOS_BODY double lanczos_recur_body(const double *p, const double *q, ptrdiff_t n, double b,
                                           double *w) {
        double total = 0.0;
        for (ptrdiff_t start = 0; start < n; start += LANCZOS_COLUMNS) {
            ptrdiff_t stop = start + LANCZOS_COLUMNS < n ? start + LANCZOS_COLUMNS : n;
            double part = 0.0;
            #pragma omp simd reduction(+:part)
            for (ptrdiff_t i = start; i < stop; i++) {
                w[i] -= b * p[i];
                part += w[i] * q[i];
            }
            total += part;
        }
        return total;
    }

    LANCZOS_BODY void lanczos_scale_body(double *w, ptrdiff_t n, double factor) {
        #pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++) w[i] *= factor;
    }

    /* Instruction set in use: 0 what the compiler was told, 1 AVX2 and FMA, 2 AVX-512. */
    static int lanczos_level = 0;

    #if defined(__GNUC__) && defined(__x86_64__)
        #define LANCZOS_AVX2 __attribute__((target("avx2,fma")))
        #define LANCZOS_AVX512 __attribute__((target("avx512f,avx2,fma")))
        #define LANCZOS_VERSIONS(type, name, parameters, arguments)     \
            LANCZOS_AVX2 static type name##_avx2 parameters {           \
                return name##_body arguments;                           \
            }                                                           \
            LANCZOS_AVX512 static type name##_avx512 parameters {       \
                return name##_body arguments;                           \
            }                                                           \
            static type name parameters {                               \
                if (lanczos_level == 2) return name##_avx512 arguments; \
                if (lanczos_level == 1) return name##_avx2 arguments;   \
                return name##_body arguments;                           \
            }
        static int lanczos_best_level(void) {
            __builtin_cpu_init();
            if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
            return __builtin_cpu_supports("avx512f") ? 2 : 1;
        }
    #else
        #define LANCZOS_VERSIONS(type, name, parameters, arguments) \
            static type name parameters { return name##_body arguments; }
        static int lanczos_best_level(void) { return 0; }
    #endif

    LANCZOS_VERSIONS(double, lanczos_dot,
                     (const double *a, const double *b, ptrdiff_t n), (a, b, n))
    LANCZOS_VERSIONS(void, lanczos_project,
                     (const double *basis, ptrdiff_t n, ptrdiff_t rows, const double *w,
                      double *c),
                     (basis, n, rows, w, c))
    LANCZOS_VERSIONS(void, lanczos_project_pair,
                     (const double *basis, ptrdiff_t n, ptrdiff_t rows, const double *v,
                      const double *w, double *c, double *d),
                     (basis, n, rows, v, w, c, d))
    LANCZOS_VERSIONS(double, lanczos_subtract,
                     (const double *basis, ptrdiff_t n, ptrdiff_t rows, const double *c,
                      double *w),
                     (basis, n, rows, c, w))
    LANCZOS_VERSIONS(void, lanczos_subtract_pair,
                     (const double *basis, ptrdiff_t n, ptrdiff_t rows, const double *c,
                      const double *d, double *v, double *w),
                     (basis, n, rows, c, d, v, w))
    LANCZOS_VERSIONS(double, lanczos_recur,
                     (const double *p, const double *q, ptrdiff_t n, double b, double *w),
                     (p, q, n, b, w))
    LANCZOS_VERSIONS(void, lanczos_scale, (double *w, ptrdiff_t n, double factor), (w, n, factor))
    """
    int lanczos_level
    int lanczos_best_level() noexcept nogil
    double lanczos_dot(const double* a, const double* b, Py_ssize_t n) noexcept nogil
    void lanczos_project(
        const double* basis, Py_ssize_t n, Py_ssize_t rows, const double* w, double* c
    ) noexcept nogil
    void lanczos_project_pair(
        const double* basis, Py_ssize_t n, Py_ssize_t rows, const double* v, const double* w,
        double* c, double* d,
    ) noexcept nogil
    double lanczos_subtract(
        const double* basis, Py_ssize_t n, Py_ssize_t rows, const double* c, double* w
    ) noexcept nogil
    void lanczos_subtract_pair(
        const double* basis, Py_ssize_t n, Py_ssize_t rows, const double* c, const double* d,
        double* v, double* w,
    ) noexcept nogil
    double lanczos_recur(
        const double* p, const double* q, Py_ssize_t n, double b, double* w
    ) noexcept nogil
    void lanczos_scale(double* w, Py_ssize_t n, double factor) noexcept nogil


def _use_instruction_set(level):
    """Use the loops of one level from now on, or the best below it; return its level. For tests."""
    global lanczos_level
    lanczos_level = min(level, lanczos_best_level())
    return lanczos_level


_use_instruction_set(2)

cdef double UNIT = 2.220446049250313e-16
# A pass that keeps 0.7 of the norm left at most 1/0.7 times the rounding of one pass in the basis.
cdef double KEPT_NORM = 0.7
# Row measured against the estimate: early, so cheap, and before anything is lost.
cdef Py_ssize_t CALIBRATION_ROW = 8
# log K above which a bound is certain for every delta that a double can hold.
cdef double LOG_CERTAIN = 1600.0


# --- small pieces ---------------------------------------------------------------------------------

cdef double _norm(const double* w, Py_ssize_t n, double sum_of_squares) noexcept nogil:
    """Return sqrt(sum_of_squares), or a rescaled norm of w where the squares left the range."""
    cdef double largest = 0.0, total = 0.0, ratio
    cdef Py_ssize_t i
    if 1e-280 < sum_of_squares < 1e280:
        return sqrt(sum_of_squares)
    for i in range(n):
        if not isfinite(w[i]):
            return INFINITY
        largest = fmax(largest, fabs(w[i]))
    if largest == 0.0:
        return 0.0
    for i in range(n):
        ratio = w[i] / largest
        total += ratio * ratio
    return largest * sqrt(total)


cdef void _divide(double* w, Py_ssize_t n, double norm) noexcept nogil:
    """Divide by the norm; the reciprocal of a subnormal norm would overflow."""
    cdef Py_ssize_t i
    if norm > 1e-290:
        lanczos_scale(w, n, 1.0 / norm)
    else:
        for i in range(n):
            w[i] /= norm


cdef double _orthogonalise(
    LanczosState* state, Py_ssize_t rows, double* w, double norm, double* last_coefficient
) noexcept nogil:
    """Take the first `rows` basis rows out of w, again while the norm falls; return the norm."""
    cdef double before
    cdef int sweep
    if rows == 0:
        return norm
    # One pass is enough unless the vector lost most of its norm ("twice is enough"); four bound
    # the work when w is nothing but rounding.
    for sweep in range(4):
        before = norm
        lanczos_project(state.basis, state.n, rows, w, state.scratch)
        last_coefficient[0] += state.scratch[rows - 1]
        norm = _norm(w, state.n, lanczos_subtract(
            state.basis, state.n, rows, state.scratch, w
        ))
        if not norm < KEPT_NORM * before:
            break
    return norm


cdef double _rounding_sample(LanczosState* state) noexcept nogil:
    """Return +-noise with the sign of a linear congruential generator: one rounding error."""
    state.generator = state.generator * 6364136223846793005u + 1442695040888963407u
    return state.noise if state.generator >> 63 else -state.noise


cdef bint _estimate_orthogonality(
    LanczosState* state, double alpha, double beta
) noexcept nogil:
    """Estimate q_j'q_{k+1} for all j <= k from the last two rows; True if it is at risk."""
    cdef Py_ssize_t k = state.steps, j
    cdef double* now = state.omega + (k & 1) * state.capacity
    # Holds the estimates for q_{k-1}, and the new ones afterwards.
    cdef double* other = state.omega + (1 - (k & 1)) * state.capacity
    cdef double total = 0.0, value
    if not beta > 0.0:
        return True
    now[k] = 1.0
    for j in range(k):
        value = (
            state.beta[j] * now[j + 1] + (state.alpha[j] - alpha) * now[j]
            - state.beta[k - 1] * (other[j] if j < k - 1 else 1.0)
        )
        if j:
            value += state.beta[j - 1] * now[j - 1]
        other[j] = (value + state.scale * _rounding_sample(state)) / beta
        total += other[j] * other[j]
    other[k] = state.scale * _rounding_sample(state) / beta
    return not total + other[k] * other[k] <= UNIT


cdef void _note_loss(LanczosState* state, const double* coefficients) noexcept nogil:
    """Let `loss_squared` and `noise` know the newest row's products with all rows before it."""
    cdef Py_ssize_t k = state.steps
    cdef double* estimate = state.omega + (k & 1) * state.capacity
    cdef double found = lanczos_dot(coefficients, coefficients, k), expected
    if state.measured == k:
        return
    state.measured = k
    state.loss_squared = fmax(state.loss_squared, found)
    # Products less accurate than assumed: expect the same from now on.
    expected = lanczos_dot(estimate, estimate, k)
    if state.blocks == 1 and found > 4.0 * expected:
        state.noise *= 2.0 * sqrt(found / expected)


cdef void _measure_orthogonality(LanczosState* state) noexcept nogil:
    """Measure the newest row against all before it."""
    cdef Py_ssize_t k = state.steps
    if state.have_start and state.measured != k:
        lanczos_project(state.basis, state.n, k, state.basis + k * state.n, state.scratch)
        _note_loss(state, state.scratch)


cdef double _orthogonalise_pair(
    LanczosState* state, double* w, double norm, double* last_coefficient
) noexcept nogil:
    """Take all rows before both out of the newest row and of w; return the norm of w.

    The recurrence has two terms: both have to be clean to stay so for a while. The newest row has
    had its product already; see the top of the file for why it may change all the same.
    """
    cdef Py_ssize_t n = state.n, k = state.steps
    cdef double* row = state.basis + k * n
    cdef double* of_row = state.scratch
    cdef double* of_w = state.scratch + state.capacity
    cdef double coefficient, left
    lanczos_project_pair(state.basis, n, k, row, w, of_row, of_w)
    # The product of w and the row as it will be.
    coefficient = lanczos_dot(row, w, n) - lanczos_dot(of_row, of_w, k)
    _note_loss(state, of_row)
    lanczos_subtract_pair(state.basis, n, k, of_row, of_w, row, w)
    left = _norm(w, n, lanczos_subtract(row, n, 1, &coefficient, w))
    last_coefficient[0] += coefficient
    return left if left >= KEPT_NORM * norm else _orthogonalise(
        state, k + 1, w, left, last_coefficient
    )


cdef bint _has_ritz_value_below(
    const double* alpha, const double* beta, Py_ssize_t size, double x
) noexcept nogil:
    """Tell whether T - x has a negative pivot, i.e. T an eigenvalue below x (Sylvester)."""
    cdef double pivot = alpha[0] - x
    cdef Py_ssize_t j
    for j in range(1, size):
        if pivot < 0.0:
            return True
        if pivot == 0.0:
            pivot = 1e-300
        pivot = alpha[j] - x - beta[j - 1] * (beta[j - 1] / pivot)
    return pivot < 0.0


cdef double _log_kernel(
    const double* alpha, const double* beta, Py_ssize_t size, double last_beta, double x
) noexcept nogil:
    """Return log K(x) of formula (1) with `last_beta` as the last beta; -1 if x >= theta_1."""
    cdef double pivot = alpha[0] - x, value = 1.0, total = 1.0, logarithm = 0.0
    cdef double off_diagonal, ratio
    cdef bint certain = False
    cdef Py_ssize_t j
    for j in range(size):
        if not pivot > 0.0:
            return -1.0
        off_diagonal = beta[j] if j < size - 1 else last_beta
        if off_diagonal == 0.0 or pivot > 1e150 * off_diagonal:
            # Only the sign of the other pivots matters now.
            certain = True
        elif not certain:
            ratio = pivot / off_diagonal
            value *= ratio
            total += value * value
            if total > 1e100:
                value *= 1e-50
                total *= 1e-100
                logarithm += 230.25850929940458
                if value > 1e100:
                    certain = True
        if j < size - 1:
            pivot = alpha[j + 1] - x - off_diagonal * (off_diagonal / pivot)
    return LOG_CERTAIN if certain else fmin(LOG_CERTAIN, logarithm + log(total))


cdef Py_ssize_t _block_end(LanczosState* state, int block) noexcept nogil:
    return state.block_start[block + 1] if block < state.blocks - 1 else state.steps


cdef double _block_last_beta(LanczosState* state, int block) noexcept nogil:
    if block < state.blocks - 1 or not state.have_start:
        return state.block_beta[block]
    return state.beta[state.steps - 1]


cdef double _log_block_failure(LanczosState* state, int block, double x) noexcept nogil:
    """Return the log of the p-value g(x) of one block; 1 (no probability) if x is not below T."""
    cdef Py_ssize_t start = state.block_start[block]
    cdef double last_beta = fmax(
        _block_last_beta(state, block), UNIT * sqrt(<double> state.n) * state.scale
    )
    cdef double log_kernel = _log_kernel(
        state.alpha + start, state.beta + start, _block_end(state, block) - start, last_beta, x
    )
    if log_kernel < 0.0:
        return 1.0
    cdef double factor = (4.0 if block else 2.0) * <double> (state.n - start) / M_PI
    return fmin(0.0, 0.5 * (log(factor) - log_kernel))


cdef int _active_blocks(LanczosState* state) noexcept nogil:
    """Return the number of blocks with at least one product."""
    if state.blocks and state.block_start[state.blocks - 1] == state.steps:
        return state.blocks - 1
    return state.blocks


cdef bint _is_certified(LanczosState* state, double x) noexcept nogil:
    """Tell whether lambda_min >= x is certified by all blocks together (before rounding)."""
    cdef int blocks = _active_blocks(state), block
    cdef double logarithm = 0.0, part, series = 1.0, term = 1.0, allowed
    if not state.uniform_start or blocks == 0:
        return False
    for block in range(blocks):
        part = _log_block_failure(state, block, x)
        if part > 0.0:
            return False
        logarithm += part
    for block in range(1, blocks):
        term *= -logarithm / block
        series += term
    if blocks == 1:
        allowed = log(state.delta * 0.9375)
    else:
        allowed = log(state.delta) - (blocks + 3) * 0.6931471805599453
    return logarithm + log(series) <= allowed


cdef double _certified_bound(LanczosState* state, double ritz_value) noexcept nogil:
    """Return the largest certified x <= ritz_value, to 2^-12 of its distance, rounded down."""
    cdef double width = UNIT * state.scale, low, high, middle
    cdef int attempt
    if not state.uniform_start:
        return -INFINITY
    if state.scale == 0.0:
        # The zero operator: every product so far was exactly zero.
        return ritz_value
    high = ritz_value
    low = ritz_value - width
    for attempt in range(600):
        if _is_certified(state, low):
            break
        high = low
        width *= 4.0
        low = ritz_value - width
    else:
        return -INFINITY
    for attempt in range(12):
        middle = 0.5 * (low + high)
        if _is_certified(state, middle):
            low = middle
        else:
            high = middle
    return low


cdef double _rounding(LanczosState* state) noexcept nogil:
    """Return the documented rounding model; see the top of the file."""
    return (
        8.0 * UNIT * (sqrt(<double> state.n) + state.steps) * state.scale
        + 4.0 * state.loss_squared * state.scale + 2.0 * state.coupling
    )


cdef double _ritz_pair(
    LanczosState* state, Py_ssize_t start, Py_ssize_t stop, bint leftmost, double* weights
) noexcept nogil:
    """Return one end of the spectrum of a block of T; the eigenvector too if weights is given."""
    cdef int size = <int> (stop - start), wanted = 1 if leftmost else <int> (stop - start)
    cdef int found = 0, splits = 0, info = 0, failed = 0, exponent = 0, i
    cdef double zero = 0.0, low = 0.0, high = 0.0, norm, unit = 1.0
    cdef double* values = state.scratch + state.capacity
    cdef double* work = values + state.capacity
    cdef int* integers = <int*> (work + 5 * state.capacity)
    cdef int* blocks = integers + 3 * state.capacity
    cdef int* ends = blocks + state.capacity
    cdef double* alpha = state.scratch + 11 * state.capacity
    cdef double* beta = alpha + state.capacity
    cdef char by_index = b"I", by_block = b"B"
    if size == 1:
        if weights != NULL:
            weights[0] = 1.0
        return state.alpha[start]
    # LAPACK squares the off-diagonals, so T goes in at a norm near one; the factor is exact.
    if state.scale > 0.0:
        frexp(state.scale, &exponent)
        unit = ldexp(1.0, exponent)
    for i in range(size):
        alpha[i] = state.alpha[start + i] / unit
        beta[i] = state.beta[start + i] / unit
    dstebz(&by_index, &by_block, &size, &low, &high, &wanted, &wanted, &zero, alpha, beta,
           &found, &splits, values, blocks, ends, work, integers, &info)
    if found < 1:
        # Cannot happen for finite T. A Rayleigh quotient is a Ritz-like value on either side.
        values[0] = alpha[0]
        found = 1
        if weights != NULL:
            memset(weights, 0, size * sizeof(double))
            weights[0] = 1.0
        return values[0] * unit
    low = values[0] * unit
    if weights != NULL:
        found = 1
        dstein(&size, alpha, beta, &found, values, blocks, ends, weights, &size, work, integers,
               &failed, &info)
        norm = sqrt(lanczos_dot(weights, weights, size))
        for i in range(size):
            weights[i] /= norm
    return low


# --- exported core --------------------------------------------------------------------------------

cdef Py_ssize_t lanczos_basis_size(Py_ssize_t n, Py_ssize_t capacity) noexcept nogil:
    """Return the doubles of the basis: `capacity` rows; k products need k + 1 rows."""
    return n * capacity


cdef Py_ssize_t lanczos_scratch_size(Py_ssize_t capacity) noexcept nogil:
    """Return the doubles of all the rest: alpha, beta, estimates, LAPACK workspaces."""
    return 17 * capacity + 8


cdef void lanczos_initialise(
    LanczosState* state, Py_ssize_t n, Py_ssize_t max_products, double delta, double tol,
    bint uniform_start,
) noexcept nogil:
    """Set a fresh state: no threshold, no target."""
    memset(state, 0, sizeof(LanczosState))
    state.n = n
    state.max_products = max_products
    state.delta = delta
    state.tol = tol
    state.uniform_start = uniform_start
    state.threshold = -INFINITY
    state.target = INFINITY
    state.best_lower = -INFINITY
    # Most losses are 10 to 700 times smaller than the estimates with this. After products with
    # large dense matrices they were up to 12 times larger: about sqrt(u), measured and charged.
    state.noise = 4.0 * UNIT
    state.loss_squared = UNIT
    state.lambda_min_lower = -INFINITY


cdef void lanczos_bind(
    LanczosState* state, double* basis, double* scratch, Py_ssize_t capacity
) noexcept nogil:
    """Attach memory; on growth the leading part must hold what the old buffers held."""
    cdef int part
    # The parts lie one capacity behind each other, so they move when it grows, the last one first.
    for part in range(3, 0, -1):
        memmove(
            scratch + part * capacity, scratch + part * state.capacity,
            state.capacity * sizeof(double),
        )
    state.basis = basis
    state.capacity = capacity
    state.alpha = scratch
    state.beta = scratch + capacity
    state.omega = scratch + 2 * capacity
    state.scratch = scratch + 4 * capacity


cdef double* lanczos_start_row(LanczosState* state) noexcept nogil:
    """Return where the caller writes the next start vector."""
    return state.basis + state.steps * state.n


cdef bint lanczos_accept_start(LanczosState* state) noexcept nogil:
    """Orthogonalise and normalise the start row; False if nothing of it is left."""
    cdef double* row = lanczos_start_row(state)
    cdef double ignored = 0.0
    cdef double norm = _norm(row, state.n, lanczos_dot(row, row, state.n))
    if not norm > 0.0 or not isfinite(norm):
        return False
    _divide(row, state.n, norm)
    norm = _orthogonalise(state, state.steps, row, 1.0, &ignored)
    if not norm > 1e-6 and state.steps:
        return False
    _divide(row, state.n, norm)
    state.block_start[state.blocks] = state.steps
    state.blocks += 1
    state.have_start = True
    state.next_check = state.products + 3
    state.last_residual = 0.0
    return True


cdef int _step(LanczosState* state, lanczos_product product, void* context) noexcept nogil:
    """Do one product and extend basis and T; LANCZOS_RUNNING or an error code."""
    cdef Py_ssize_t n = state.n, k = state.steps
    cdef bint first = k == state.block_start[state.blocks - 1]
    cdef double* row = state.basis + k * n
    cdef double* w = row + n
    cdef double previous = 0.0 if first else state.beta[k - 1]
    cdef double alpha, beta
    cdef bint lost
    cdef Py_ssize_t j
    if product(row, w, n, context) != 1:
        return LANCZOS_OPERATOR_FAILED
    state.products += 1
    # With alpha taken after beta_{k-1} q_{k-1} is gone, w is orthogonal to q_k up to rounding.
    alpha = lanczos_dot(row, w, n) if first else lanczos_recur(row - n, row, n, previous, w)
    if not isfinite(alpha):
        return LANCZOS_NON_FINITE
    beta = _norm(w, n, lanczos_subtract(row, n, 1, &alpha, w))
    if not isfinite(beta):
        return LANCZOS_NON_FINITE
    state.scale = fmax(state.scale, fabs(alpha) + beta + previous)
    lost = _estimate_orthogonality(state, alpha, beta)
    if k == CALIBRATION_ROW:
        _measure_orthogonality(state)
    if state.blocks > 1:
        beta = _orthogonalise(state, k + 1, w, beta, &alpha)
    elif lost:
        beta = _orthogonalise_pair(state, w, beta, &alpha)
        for j in range(k):
            state.omega[(k & 1) * state.capacity + j] = _rounding_sample(state)
        for j in range(k + 1):
            state.omega[(1 - (k & 1)) * state.capacity + j] = _rounding_sample(state)
    state.alpha[k] = alpha
    state.beta[k] = beta
    state.steps = k + 1
    return LANCZOS_RUNNING


cdef bint _close_block_if_exhausted(LanczosState* state) noexcept nogil:
    """Detect a breakdown, record the finished block, and ask for a new start."""
    cdef int block = state.blocks - 1
    cdef Py_ssize_t last = state.steps - 1
    # A small beta always calls for passes over the basis until its norm stays; what is left at this
    # level is the rounding of the product, whose direction means nothing.
    if state.steps < state.n and state.beta[last] > (
        4.0 * UNIT * (sqrt(<double> state.n) + 8.0) * state.scale
    ):
        _divide(state.basis + state.steps * state.n, state.n, state.beta[last])
        return False
    state.block_beta[block] = state.beta[last] if state.steps < state.n else 0.0
    state.beta[last] = 0.0
    state.coupling += state.block_beta[block]
    state.block_ritz[block] = _ritz_pair(
        state, state.block_start[block], state.steps, True, NULL
    )
    state.have_start = False
    return True


cdef double _smallest_finished(LanczosState* state, int blocks) noexcept nogil:
    cdef double smallest = INFINITY
    cdef int block
    for block in range(blocks):
        smallest = fmin(smallest, state.block_ritz[block])
    return smallest


cdef int _decide_at_check(LanczosState* state, bint exhausted) noexcept nogil:
    """Stop where more products cannot help: the Ritz pair has converged."""
    cdef int block = state.blocks - 1
    cdef Py_ssize_t start = state.block_start[block], size = state.steps - start
    cdef double* weights = state.scratch + 10 * state.capacity
    cdef double theta, smallest, residual = 0.0, safety = _rounding(state)
    cdef double accuracy = state.tol * state.scale
    cdef bint finished
    cdef double needed = size / 8
    if exhausted and state.blocks == LANCZOS_MAX_BLOCKS:
        return LANCZOS_CONVERGED
    if exhausted:
        theta = state.block_ritz[block]
    else:
        theta = _ritz_pair(state, start, state.steps, True, weights)
        residual = state.beta[state.steps - 1] * fabs(weights[size - 1])
        if accuracy < residual < state.last_residual:
            # Not further than three quarters of the way that the last rate of decrease predicts.
            needed = fmin(needed, 0.75 * (state.products - state.last_check) * (
                log(residual / accuracy) / log(state.last_residual / residual)
            ))
        state.last_residual = residual
        state.last_check = state.products
    state.next_check = state.products + 1 + <Py_ssize_t> needed
    smallest = fmin(theta, _smallest_finished(state, block))
    if state.uniform_start and isfinite(state.target):
        # The smallest eigenvalue sits on the target: no number of products settles the question.
        if not exhausted and residual <= safety and smallest - 2.0 * safety < state.target:
            return LANCZOS_CONVERGED
        return LANCZOS_RUNNING
    finished = exhausted or residual <= accuracy
    if not finished and block:
        # A check block need not converge; it must only exclude a smaller eigenvalue.
        finished = _log_block_failure(state, block, smallest - accuracy) <= log(state.delta)
    # A first block that broke down is followed by one check block.
    if finished and (block or not exhausted):
        return LANCZOS_CONVERGED
    return LANCZOS_RUNNING


cdef int _decide(LanczosState* state) noexcept nogil:
    """Return a final code, or LANCZOS_RUNNING. O(steps) work at most steps."""
    cdef Py_ssize_t start = state.block_start[state.blocks - 1]
    cdef Py_ssize_t size = state.steps - start
    cdef bint exhausted = _close_block_if_exhausted(state)
    cdef double safety = _rounding(state), smallest
    if isfinite(state.threshold) and _has_ritz_value_below(
        state.alpha + start, state.beta + start, size, state.threshold - safety
    ):
        return LANCZOS_NEGATIVE_CURVATURE
    if state.steps == state.n:
        smallest = _smallest_finished(state, state.blocks)
        return LANCZOS_CERTIFIED if smallest - safety >= state.target else LANCZOS_EXACT
    if isfinite(state.target) and _is_certified(state, state.target + safety):
        _measure_orthogonality(state)
        if _is_certified(state, state.target + _rounding(state)):
            return LANCZOS_CERTIFIED
    if exhausted and state.uniform_start:
        # What the blocks so far prove stays proven; later blocks are charged to another share of
        # delta.
        smallest = _smallest_finished(state, state.blocks)
        state.best_lower = fmax(state.best_lower, _certified_bound(state, smallest))
        if fmin(state.best_lower, smallest) - safety >= state.target:
            return LANCZOS_CERTIFIED
    if exhausted or state.products >= state.next_check:
        return _decide_at_check(state, exhausted)
    return LANCZOS_RUNNING


cdef int lanczos_run(
    LanczosState* state, lanczos_product product, void* context, Py_ssize_t step_limit
) noexcept nogil:
    """Run until a decision, a need of the caller, or `step_limit` products; return the code."""
    cdef Py_ssize_t done = 0
    cdef int code
    while True:
        if state.products >= state.max_products:
            return LANCZOS_NOT_CONVERGED
        if not state.have_start:
            return LANCZOS_NEED_START
        if state.steps + 2 > state.capacity:
            return LANCZOS_NEED_SPACE
        if done == step_limit:
            return LANCZOS_RUNNING
        done += 1
        code = _step(state, product, context)
        if code == LANCZOS_RUNNING:
            code = _decide(state)
        if code != LANCZOS_RUNNING:
            return code


cdef void lanczos_finish(LanczosState* state, double* vector) noexcept nogil:
    """Write the unit Ritz vector (length n) and fill the result fields; needs one product."""
    cdef int blocks = _active_blocks(state), block, best = 0
    cdef Py_ssize_t start, stop, i
    cdef double theta, norm
    cdef double* weights = state.scratch + 10 * state.capacity
    _measure_orthogonality(state)
    state.ritz_value = INFINITY
    state.ritz_value_max = -INFINITY
    for block in range(blocks):
        start, stop = state.block_start[block], _block_end(state, block)
        theta = _ritz_pair(state, start, stop, True, NULL)
        if theta < state.ritz_value:
            state.ritz_value = theta
            best = block
        state.ritz_value_max = fmax(
            state.ritz_value_max, _ritz_pair(state, start, stop, False, NULL)
        )
    start, stop = state.block_start[best], _block_end(state, best)
    _ritz_pair(state, start, stop, True, weights)
    state.residual = _block_last_beta(state, best) * fabs(weights[stop - start - 1])
    state.safety = _rounding(state)
    if state.steps == state.n:
        state.lambda_min_lower = state.ritz_value - state.safety
    elif state.uniform_start:
        state.lambda_min_lower = fmin(state.ritz_value, fmax(
            state.best_lower, _certified_bound(state, state.ritz_value)
        )) - state.safety
        # The search above rounds down; a level that is certified is reported as such.
        if isfinite(state.target) and _is_certified(state, state.target + state.safety):
            state.lambda_min_lower = fmax(state.lambda_min_lower, state.target)
    for i in range(stop - start):
        weights[i] = -weights[i]
    memset(vector, 0, state.n * sizeof(double))
    norm = _norm(vector, state.n, lanczos_subtract(
        state.basis + start * state.n, state.n, stop - start, weights, vector
    ))
    _divide(vector, state.n, norm)


# --- products -------------------------------------------------------------------------------------

cdef struct DenseContext:
    const double* data


cdef struct SparseContext:
    const double* data
    const void* indices
    const void* offsets


ctypedef fused index_type:
    int
    long long


cdef int _dense_product(
    const double* x, double* y, Py_ssize_t n, void* context
) noexcept nogil:
    lanczos_project((<DenseContext*> context).data, n, n, x, y)
    return 1


cdef inline void _sparse_rows(
    const double* data, const index_type* indices, const index_type* offsets,
    const double* x, double* y, Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t row
    cdef index_type entry = offsets[0], stop
    cdef double total
    for row in range(n):
        total = 0.0
        stop = offsets[row + 1]
        # By fours for the branch predictor; the order of the sum is that of the entries.
        while stop - entry >= 4:
            total = (
                total + data[entry] * x[indices[entry]]
                + data[entry + 1] * x[indices[entry + 1]]
                + data[entry + 2] * x[indices[entry + 2]]
                + data[entry + 3] * x[indices[entry + 3]]
            )
            entry += 4
        while entry < stop:
            total += data[entry] * x[indices[entry]]
            entry += 1
        y[row] = total


cdef int _sparse_product_int(
    const double* x, double* y, Py_ssize_t n, void* context
) noexcept nogil:
    cdef SparseContext* matrix = <SparseContext*> context
    _sparse_rows(matrix.data, <const int*> matrix.indices, <const int*> matrix.offsets, x, y, n)
    return 1


cdef int _sparse_product_long(
    const double* x, double* y, Py_ssize_t n, void* context
) noexcept nogil:
    cdef SparseContext* matrix = <SparseContext*> context
    _sparse_rows(
        matrix.data, <const long long*> matrix.indices, <const long long*> matrix.offsets, x, y, n
    )
    return 1


cdef int _python_product(
    const double* x, double* y, Py_ssize_t n, void* context
) noexcept with gil:
    """Call the Python function; keep its exception for the shim, which raises it again."""
    adapter = <_Adapter> context
    try:
        adapter.call(x, y)
    except BaseException as error:
        adapter.error = error
        return 0
    return 1


cdef class _Adapter:
    """One operator as a C function and a context, and whatever must stay alive meanwhile."""

    cdef lanczos_product product
    cdef void* context
    cdef Py_ssize_t n
    cdef object function
    cdef object error
    cdef object owner
    cdef DenseContext dense
    cdef SparseContext sparse

    cdef void set_dense(self, const double[:, ::1] matrix):
        self.owner = matrix
        self.n = matrix.shape[0]
        self.dense.data = &matrix[0, 0]
        self.product = _dense_product
        self.context = &self.dense

    cdef void set_sparse(self, object matrix):
        cdef const double[::1] data = matrix.data
        cdef const int[::1] short_offsets
        cdef const long long[::1] long_offsets
        indices, offsets = matrix.indices, matrix.indptr
        if offsets.dtype != np.intc or indices.dtype != np.intc:
            indices = np.ascontiguousarray(indices, dtype=np.longlong)
            offsets = np.ascontiguousarray(offsets, dtype=np.longlong)
        self.owner = (matrix, indices, offsets)
        self.n = matrix.shape[0]
        # An empty matrix has no first entry to point at; its rows are never read either.
        self.sparse.data = &data[0] if data.shape[0] else NULL
        self.sparse.indices = <const void*> <uintptr_t> indices.ctypes.data
        self.sparse.offsets = <const void*> <uintptr_t> offsets.ctypes.data
        self.product = (
            _sparse_product_int if offsets.dtype == np.intc else _sparse_product_long
        )
        self.context = &self.sparse

    cdef void set_pointer(self, uintptr_t address, uintptr_t context, object owner):
        self.owner = owner
        self.product = <lanczos_product> address
        self.context = <void*> context

    cdef void set_function(self, object function):
        self.function = function
        self.product = _python_product
        self.context = <void*> self

    cdef call(self, const double* x, double* y):
        # The function gets its own copy: a view of the basis could outlive it or be written to.
        cdef double[::1] vector = np.empty(self.n)
        cdef const double[::1] values
        memcpy(&vector[0], x, self.n * sizeof(double))
        result = np.asarray(self.function(vector.base))
        if result.dtype.kind not in "biuf":
            raise TypeError(
                f"the operator must return real numbers, got dtype {result.dtype}"
            )
        if result.shape != (self.n,):
            raise ValueError(
                f"the operator must return shape ({self.n},), got {result.shape}"
            )
        values = np.ascontiguousarray(result, dtype=np.float64)
        memcpy(y, &values[0], self.n * sizeof(double))


class COperator:
    """A symmetric operator given as a C function pointer.

    The function is ``int f(const double *x, double *y, Py_ssize_t n, void *context)``: it writes
    y = H x, reads nothing beyond ``context``, and returns 1, or 0 for failure. It is called without
    the GIL. A Numba cfunc, or a ``noexcept nogil`` function of another Cython module, will do.

    Parameters
    ----------
    address : int
        Address of the function, not 0.
    n : int
        Dimension, at least 1.
    context : int
        Address handed to the function as its last argument; 0 is a null pointer.
    owner : object
        Whatever must stay alive while the operator does: the cfunc, the arrays behind ``context``.

    Raises
    ------
    ValueError
        If ``address`` is 0, ``context`` negative or ``n`` less than 1.
    TypeError
        If a number is not an integer.

    Examples
    --------
    >>> import numba
    >>> from numba import types
    >>> signature = types.int32(
    ...     types.CPointer(types.float64), types.CPointer(types.float64), types.intp, types.voidptr
    ... )
    >>> @numba.cfunc(signature)
    ... def diagonal(x, y, n, context):
    ...     for i in range(n):
    ...         y[i] = (i - 2.0) * x[i]
    ...     return 1
    >>> operator = COperator(diagonal.address, 10, owner=diagonal)
    >>> round(leftmost_eigenpair(operator).ritz_value, 6)
    -2.0
    """

    __slots__ = ("address", "context", "n", "owner")

    def __init__(self, address, n, context=0, owner=None):
        self.address = _operator.index(address)
        self.n = _operator.index(n)
        self.context = _operator.index(context)
        self.owner = owner
        if self.address <= 0:
            raise ValueError(f"address must be that of a function, got {self.address}")
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        if self.context < 0:
            raise ValueError(f"context must be an address or 0, got {self.context}")


class LanczosResult(NamedTuple):
    """What :func:`leftmost_eigenpair` returns.

    Attributes
    ----------
    ritz_value : float
        Smallest Ritz value; at least lambda_min up to rounding.
    vector : numpy.ndarray
        Unit Ritz vector v, float64, shape (n,): v'Hv = ritz_value up to rounding.
    residual : float
        beta_k |s_k|: ||Hv - ritz_value v|| up to the loss of orthogonality, about 1.5e-8 times the
        norm of H at most (no extra product is spent). The Ritz value is good to rounding all the
        same.
    n_products : int
        Products with the operator.
    lambda_min_lower : float
        lambda_min >= lambda_min_lower with probability at least 1 - delta; -inf: nothing is known.
    ritz_value_max : float
        Largest Ritz value; at most lambda_max up to rounding.
    safety : float
        Allowance for rounding and breakdowns that lambda_min_lower already contains.
    status : str
        "negative_curvature", "certified", "exact", "converged" or "not_converged".
    delta : float
        Failure probability that was asked for.
    message : str
        The status in words.
    """

    ritz_value: float
    vector: np.ndarray
    residual: float
    n_products: int
    lambda_min_lower: float
    ritz_value_max: float
    safety: float
    status: str
    delta: float
    message: str


# --- checks ---------------------------------------------------------------------------------------

def _asymmetry_error(i, j, here, there):
    return ValueError(
        f"the operator must be symmetric: entry ({i}, {j}) is {here!r}, ({j}, {i}) is {there!r}"
    )


def _symmetry_tolerance(n, largest):
    """Rounding of a product such as J'J: sqrt(n) independent errors of one unit each."""
    return 8.0 * 2.220446049250313e-16 * n**0.5 * largest


def _check_kind(dtype):
    if dtype.kind not in "biuf":
        raise TypeError(f"the operator must hold real numbers, got dtype {dtype}")


def _check_square(shape):
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
        raise ValueError(f"the operator must be square with n >= 1, got shape {tuple(shape)}")


def _check_finite(values):
    if not np.isfinite(values).all():
        raise ValueError("the operator must hold finite numbers, got a NaN or an infinity")


def _checked_dense(operator):
    array = np.asarray(operator)
    _check_kind(array.dtype)
    _check_square(array.shape)
    matrix = np.ascontiguousarray(array, dtype=np.float64)
    _check_finite(matrix)
    tolerance = _symmetry_tolerance(len(matrix), max(matrix.max(), -matrix.min()))
    for first in range(0, len(matrix), 256):
        difference = np.abs(matrix[first:first + 256] - matrix[:, first:first + 256].T)
        if difference.max() > tolerance:
            i, j = map(int, np.unravel_index(difference.argmax(), difference.shape))
            i += first
            raise _asymmetry_error(i, j, float(matrix[i, j]), float(matrix[j, i]))
    return matrix


def _has_all_partners(
    const double[::1] data, const index_type[::1] indices, const index_type[::1] offsets,
    index_type[::1] next_below, double tolerance,
):
    """Tell whether each entry above the diagonal of a canonical CSR matrix has its equal below.

    Rows are sorted and come in order, so the partners in one row are asked for in the order in
    which they lie: `next_below`, at first the offsets, walks over them. No transpose is made.
    """
    cdef index_type row, column, entry, partner
    for row in range(<index_type> (offsets.shape[0] - 1)):
        entry = next_below[row]
        if entry < offsets[row + 1] and indices[entry] < row:
            return False
        if entry < offsets[row + 1] and indices[entry] == row:
            entry += 1
        for entry in range(entry, offsets[row + 1]):
            column = indices[entry]
            partner = next_below[column]
            if partner >= offsets[column + 1] or indices[partner] != row:
                return False
            if fabs(data[partner] - data[entry]) > tolerance:
                return False
            next_below[column] = partner + 1
    return True


def _checked_sparse(operator):
    _check_kind(operator.dtype)
    _check_square(operator.shape)
    matrix = scipy.sparse.csr_array(operator, dtype=np.float64)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    _check_finite(matrix.data)
    data, indices, offsets = matrix.data, matrix.indices, matrix.indptr
    largest = max(data.max(initial=0.0), -data.min(initial=0.0))
    tolerance = _symmetry_tolerance(matrix.shape[0], largest)
    if _has_all_partners(data, indices, offsets, offsets.copy(), tolerance):
        return matrix
    # Not symmetric, or an explicit zero without a partner.
    difference = abs(matrix - matrix.T).tocoo()
    if difference.nnz and difference.data.max() > tolerance:
        worst = difference.data.argmax()
        i, j = int(difference.row[worst]), int(difference.col[worst])
        raise _asymmetry_error(i, j, float(matrix[i, j]), float(matrix[j, i]))
    return matrix


def _checked_n(known, n):
    """Return the dimension from the operator and the argument, whichever is there."""
    if n is not None:
        n = _operator.index(n)
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if known is not None and known != n:
            raise ValueError(f"n must equal the dimension {known} of the operator, got {n}")
        return n
    if known is None:
        raise ValueError("n must be given for a callable or a (address, context) tuple, got None")
    return known


cdef _Adapter _adapt(object operator, object n):
    """Turn any accepted operator into a C function and a context."""
    cdef _Adapter adapter = _Adapter()
    known = None
    if isinstance(operator, tuple):
        if len(operator) != 2:
            raise ValueError(
                f"a pointer operator must be (address, context), got {len(operator)} items"
            )
        operator = COperator(operator[0], _checked_n(None, n), operator[1])
    if isinstance(operator, COperator):
        known = operator.n
        adapter.set_pointer(operator.address, operator.context, operator)
    elif scipy.sparse.issparse(operator):
        _check_square(operator.shape)
        _checked_n(operator.shape[0], n)
        adapter.set_sparse(_checked_sparse(operator))
        known = adapter.n
    elif isinstance(operator, LinearOperator):
        _check_square(operator.shape)
        # dtype None is legal and means "unknown"; the products are checked anyway.
        if operator.dtype is not None:
            _check_kind(np.dtype(operator.dtype))
        known = operator.shape[0]
        adapter.set_function(operator.matvec)
    elif hasattr(operator, "__array__"):
        adapter.set_dense(_checked_dense(operator))
        known = adapter.n
    elif callable(operator):
        adapter.set_function(operator)
    else:
        raise TypeError(
            "operator must be an array, a sparse matrix, a LinearOperator, a COperator, an"
            f" (address, context) tuple or a callable, got {type(operator).__name__}"
        )
    adapter.n = _checked_n(known, n)
    return adapter


def _checked_start(start, n):
    array = np.asarray(start)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"start must hold real numbers, got dtype {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"start must have shape ({n},), got {array.shape}")
    vector = np.ascontiguousarray(array, dtype=np.float64)
    if not np.isfinite(vector).all() or not vector.any():
        raise ValueError("start must be finite and not zero")
    return vector


def _checked_levels(threshold, eps):
    """Return (threshold, target): the level to go below and the level to certify."""
    if eps is not None:
        eps = float(eps)
        if not 0.0 <= eps < np.inf:
            raise ValueError(f"eps must be finite and at least 0, got {eps}")
    if threshold is not None:
        threshold = float(threshold)
        if not np.isfinite(threshold):
            raise ValueError(f"threshold must be finite, got {threshold}")
    if threshold is None and eps is None:
        return -np.inf, np.inf
    if eps is None:
        return threshold, threshold
    if threshold is None:
        return -eps, -eps
    if threshold < -eps:
        raise ValueError(f"threshold must be at least -eps = {-eps}, got {threshold}")
    return threshold, -eps


# --- driver ---------------------------------------------------------------------------------------

cdef class _Run:
    """Own the memory of one run and serve what the core asks for."""

    cdef LanczosState state
    cdef double* basis
    cdef double* scratch
    cdef Py_ssize_t row_limit
    cdef object random
    cdef object start

    def __dealloc__(self):
        free(self.basis)
        free(self.scratch)

    cdef bint grow(self) except -1:
        """Enlarge the buffers by half; False at the memory limit."""
        cdef Py_ssize_t old = self.state.capacity, n = self.state.n, capacity
        cdef void* moved
        # Rows that are never used cost nothing, and growing costs a copy. The C library keeps a
        # freed block of this size, so that the next run need not clear its pages again.
        cdef Py_ssize_t cheap = (24 << 20) // (8 * n)
        capacity = min(max(16, cheap, old + old // 2), n + 1, self.row_limit)
        if capacity <= old:
            return False
        # realloc moves pages, not bytes, on large blocks; nothing is touched before it is used.
        moved = realloc(self.basis, lanczos_basis_size(n, capacity) * sizeof(double))
        if moved == NULL:
            raise MemoryError(f"no memory for {capacity} basis vectors of length {n}")
        self.basis = <double*> moved
        moved = realloc(self.scratch, lanczos_scratch_size(capacity) * sizeof(double))
        if moved == NULL:
            raise MemoryError(f"no memory for the workspace of {capacity} steps")
        self.scratch = <double*> moved
        lanczos_bind(&self.state, self.basis, self.scratch, capacity)
        return True

    cdef int provide_start(self) except -1:
        """Write the caller's start, or a random one, and hand it to the core."""
        for _ in range(100):
            row = np.asarray(<double[:self.state.n]> lanczos_start_row(&self.state))
            if self.start is not None and self.state.blocks == 0:
                row[:] = self.start
            else:
                self.random.standard_normal(out=row)
            if lanczos_accept_start(&self.state):
                return 0
        raise RuntimeError("no start vector outside the span of the basis was found")

    cdef int run(self, _Adapter adapter) except -1:
        """Drive the core to a final code."""
        cdef int code = LANCZOS_RUNNING
        while True:
            # Between rounds of 32 products Ctrl-C gets its turn, also with C operators.
            with nogil:
                code = lanczos_run(&self.state, adapter.product, adapter.context, 32)
            if code == LANCZOS_RUNNING:
                PyErr_CheckSignals()
            elif code == LANCZOS_NEED_START:
                self.provide_start()
            elif code == LANCZOS_NEED_SPACE:
                if not self.grow():
                    return code
            elif code == LANCZOS_OPERATOR_FAILED:
                if adapter.error is not None:
                    error, adapter.error = adapter.error, None
                    raise error
                raise RuntimeError(
                    f"the C operator reported failure in product {self.state.products + 1}"
                )
            elif code == LANCZOS_NON_FINITE:
                raise ValueError(
                    f"product {self.state.products} with the operator is not finite"
                )
            else:
                return code


cdef dict _STATUS = {
    LANCZOS_NEGATIVE_CURVATURE: (
        "negative_curvature", "the Ritz value is below the threshold"
    ),
    LANCZOS_CERTIFIED: ("certified", "lambda_min_lower has reached the level asked for"),
    LANCZOS_EXACT: ("exact", "the basis is complete: the Ritz values are the eigenvalues"),
    LANCZOS_CONVERGED: ("converged", "the Ritz pair has converged; more products change nothing"),
    LANCZOS_NOT_CONVERGED: ("not_converged", "max_products is used up"),
    LANCZOS_NEED_SPACE: ("not_converged", "max_memory is used up"),
}


def leftmost_eigenpair(
    operator, n=None, *, threshold=None, eps=None, delta=1e-9, tol=1e-8, seed=0, start=None,
    max_products=None, max_memory=1 << 31,
):
    """Find the leftmost eigenpair of a symmetric operator, or decide whether it is negative.

    Minimises v'Hv over unit vectors v in the Krylov space of a random start (Lanczos with partial
    re-orthogonalisation), and stops at the first of:

    - a Ritz value below ``threshold`` ("negative_curvature"; the vector proves it);
    - lambda_min >= -eps certified with failure probability at most ``delta`` ("certified");
    - n basis vectors ("exact");
    - convergence ("converged"): without ``threshold`` and ``eps``, a residual of at most
      ``tol`` times the norm of H; with them, only where lambda_min equals the level to rounding,
      or where a given ``start`` rules certificates out;
    - ``max_products`` or ``max_memory`` ("not_converged").

    With ``eps`` alone the threshold is -eps; with ``threshold`` alone it is also the level to
    certify.

    Parameters
    ----------
    operator : array, sparse matrix, LinearOperator, callable, COperator or tuple
        Symmetric H of shape (n, n). Arrays and sparse matrices may be of any real dtype, read-only
        and in any memory order; they are checked for symmetry and used as float64 without the GIL.
        A callable maps a float64 vector of shape (n,), its own copy, to H x. A tuple is
        (address, context address) of a C function, see :class:`COperator`. Only the caller can
        know whether a callable or a C function is symmetric.
    n : int, optional
        Dimension; needed for a callable and for a tuple.
    threshold : float, optional
        Stop at a Ritz value below it (by more than rounding).
    eps : float, optional
        Stop once lambda_min >= -eps is certified. At least 0; needs threshold >= -eps.
    delta : float
        Failure probability, in (0, 1), of all that one call claims, over the random start.
    tol : float
        Relative residual for plain convergence, at least 0.
    seed : int, numpy.random.Generator, numpy.random.SeedSequence or None
        Source of the random vectors. The same seed gives the same bits for any number of threads.
    start : array, optional
        Start vector of shape (n,). There is then no probability statement: ``lambda_min_lower`` is
        -inf and nothing is certified unless the basis reaches n vectors.
    max_products : int, optional
        Limit on products, at least 1; the default is n.
    max_memory : int
        Limit in bytes on the basis of 8 n (k + 1) bytes after k products; at least two vectors.

    Returns
    -------
    LanczosResult
        See there. ``lambda_min_lower`` is always given for a random start.

    Raises
    ------
    TypeError
        If the operator or its products are not real, or the operator is of no known kind.
    ValueError
        If a shape, a number or the symmetry is wrong, or a product is not finite (the message says
        which product).
    RuntimeError
        If a C operator reports failure.
    MemoryError
        If the basis cannot be allocated.

    Notes
    -----
    Cost: k products, 9 n flops beside each, and now and then (every 20 products or so) two passes
    over the basis of 8 n k flops together, since the basis is kept orthogonal only to the level
    sqrt(2.2e-16) that the Ritz values need to be good to rounding.
    Exceptions of a Python operator, KeyboardInterrupt among them, come out unchanged.

    What is certified: outside one event of probability delta, the bound holds for all k together,
    so the looks after every product are free. The proof needs no bound on ||H|| and is at the top
    of the source file; it also shows that at worst the certificate comes after about the a-priori
    count of [1]_, usually much sooner. The proof is for exact arithmetic; ``safety`` is a
    documented allowance for rounding, not a proof.

    References
    ----------
    .. [1] J. Kuczynski and H. Wozniakowski, "Estimating the largest eigenvalue by the power and
       Lanczos algorithms with a random start", SIAM J. Matrix Anal. Appl. 13 (1992), 1094-1122.

    Examples
    --------
    >>> import numpy as np
    >>> H = np.diag(np.linspace(-1.0, 9.0, 500))
    >>> found = leftmost_eigenpair(H, threshold=-0.5)
    >>> found.status, bool(found.vector @ H @ found.vector < -0.5), found.n_products < 30
    ('negative_curvature', True, True)
    >>> certified = leftmost_eigenpair(H, eps=1.1)
    >>> certified.status, -1.1 <= certified.lambda_min_lower <= -1.0
    ('certified', True)
    """
    cdef _Adapter adapter
    cdef _Run run
    cdef double[::1] view
    cdef int code
    delta, tol = float(delta), float(tol)
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta must be in (0, 1), got {delta}")
    if not 0.0 <= tol < np.inf:
        raise ValueError(f"tol must be finite and at least 0, got {tol}")
    if max_products is not None:
        max_products = _operator.index(max_products)
        if max_products < 1:
            raise ValueError(f"max_products must be at least 1, got {max_products}")
    levels = _checked_levels(threshold, eps)
    adapter = _adapt(operator, n)
    size = adapter.n
    max_memory = _operator.index(max_memory)
    if max_memory < 16 * size:
        raise ValueError(
            f"max_memory must hold two vectors, {16 * size} bytes, got {max_memory}"
        )

    run = _Run()
    run.start = None if start is None else _checked_start(start, size)
    run.random = np.random.default_rng(seed)
    run.row_limit = min(max_memory // (8 * size), size + 1)
    lanczos_initialise(
        &run.state, size, size if max_products is None else max_products, delta, tol, start is None
    )
    run.state.threshold, run.state.target = levels
    run.grow()
    code = run.run(adapter)
    vector = np.empty(size)
    view = vector
    lanczos_finish(&run.state, &view[0])
    status, message = _STATUS[code]
    return LanczosResult(
        ritz_value=run.state.ritz_value,
        vector=vector,
        residual=run.state.residual,
        n_products=run.state.products,
        lambda_min_lower=run.state.lambda_min_lower,
        ritz_value_max=run.state.ritz_value_max,
        safety=run.state.safety,
        status=status,
        delta=delta,
        message=message,
    )
