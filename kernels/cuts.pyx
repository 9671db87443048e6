# distutils: extra_compile_args = -O3 -fopenmp-simd -fno-math-errno
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Local search and row ascent for maximum cut, for callers in C and Cython.

There is nothing here for Python: its callers use ``derand_fast.kernels.maxcut``, which computes the
same. The interface, its status codes and formulas are in cuts.pxd.
"""

from libc.stdint cimport int8_t, int32_t

__all__: list[str] = []

# Rows of eight floats, one register where there is AVX. GCC and Clang on x86-64 compile the sweeps
# for three instruction sets, and the best that the processor has is taken at import. `wide` says
# that a row fits a register: elsewhere gradients stay in memory, which is then the faster way.
cdef extern from *:
    """
    #include <math.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #if defined(__GNUC__)
        #define CUT_BODY static inline __attribute__((always_inline))
        typedef float cut_row __attribute__((vector_size(32), aligned(4), may_alias));
        typedef int32_t cut_lanes __attribute__((vector_size(32)));
        #if defined(__clang__)
            #define CUT_SHUFFLE(x, a, b, c, d, e, f, g, h) \
                __builtin_shufflevector(x, x, a, b, c, d, e, f, g, h)
        #else
            #define CUT_SHUFFLE(x, a, b, c, d, e, f, g, h) \
                __builtin_shuffle(x, (cut_lanes){a, b, c, d, e, f, g, h})
        #endif
        /* The sum over lanes of *x, in every lane. */
        #define CUT_SUM(x) {                                 \
            *(x) += CUT_SHUFFLE(*(x), 4, 5, 6, 7, 0, 1, 2, 3); \
            *(x) += CUT_SHUFFLE(*(x), 2, 3, 0, 1, 6, 7, 4, 5); \
            *(x) += CUT_SHUFFLE(*(x), 1, 0, 3, 2, 5, 4, 7, 6); \
        }
    #else
        #define CUT_BODY static inline
    #endif

    /* One sweep over the vertices first, first + 2, ... */
    CUT_BODY void cut_anneal_half_body(int wide, ptrdiff_t n, const int32_t *indptr,
                                       const int32_t *indices, const float *weights, float *rows,
                                       float c_squared, ptrdiff_t first) {
        (void) wide;
        for (ptrdiff_t i = first; i < n; i += 2) {
    #if defined(__GNUC__)
            cut_row *place = (cut_row *) (rows + 8 * i);
            const cut_row own = *place;
            cut_row gradient = {0};
            for (int32_t e = indptr[i]; e < indptr[i + 1]; e++) {
                const cut_row v = *(const cut_row *) (rows + 8 * (ptrdiff_t) indices[e]);
                cut_row products = own * v;
                CUT_SUM(&products)
                const float r = products[0];
                float complement = 1.0f - c_squared * r * r;
                /* At least 1e-8 by the schedule; rounding of r may push it below 0. */
                complement = complement > 1e-12f ? complement : 1e-12f;
                gradient -= v * (weights[e] / sqrtf(complement));
            }
            cut_row squares = gradient * gradient;
            CUT_SUM(&squares)
            /* Below this the direction is rounding noise; the row stays. */
            if (squares[0] > 1e-30f) *place = gradient * (1.0f / sqrtf(squares[0]));
    #else
            float gradient[8] = {0.0f};
            float *own = rows + 8 * i, square = 0.0f;
            for (int32_t e = indptr[i]; e < indptr[i + 1]; e++) {
                const float *v = rows + 8 * (ptrdiff_t) indices[e];
                float r = 0.0f, complement, factor;
                for (int k = 0; k < 8; k++) r += own[k] * v[k];
                complement = 1.0f - c_squared * r * r;
                complement = complement > 1e-12f ? complement : 1e-12f;
                factor = weights[e] / sqrtf(complement);
                for (int k = 0; k < 8; k++) gradient[k] -= factor * v[k];
            }
            for (int k = 0; k < 8; k++) square += gradient[k] * gradient[k];
            if (square > 1e-30f)
                for (int k = 0; k < 8; k++) own[k] = gradient[k] / sqrtf(square);
    #endif
        }
    }

    #if defined(__GNUC__)
        /* 8 count columns of the gradient, held in registers over the neighbours. */
        #define CUT_COLUMNS(count, start) {                                                       \
            cut_row total[count] = {{0}};                                                         \
            for (int32_t e = begin; e < end; e++) {                                               \
                const cut_row *v =                                                                \
                    (const cut_row *) (rows + p * (ptrdiff_t) indices[e] + (start));              \
                for (int r = 0; r < count; r++) total[r] += v[r] * weights[e];                    \
            }                                                                                     \
            for (int r = 0; r < count; r++) ((cut_row *) (gradient + (start)))[r] = total[r];     \
        }
    #endif

    /* gradient = sum over entries begin to end - 1 of w_ij v_j. */
    CUT_BODY void cut_row_gradient(int wide, int32_t begin, int32_t end, const int32_t *indices,
                                   const float *weights, ptrdiff_t p, const float *rows,
                                   float *gradient) {
    #if defined(__GNUC__)
        if (wide && p >= 8) {
            ptrdiff_t k = 0;
            for (; k + 32 <= p; k += 32) CUT_COLUMNS(4, k)
            if (k + 16 <= p) { CUT_COLUMNS(2, k) k += 16; }
            if (k + 8 <= p) { CUT_COLUMNS(1, k) k += 8; }
            /* The last columns, some of them once more. */
            if (k < p) CUT_COLUMNS(1, p - 8)
            return;
        }
    #endif
        for (ptrdiff_t k = 0; k < p; k++) gradient[k] = 0.0f;
        for (int32_t e = begin; e < end; e++) {
            const float *v = rows + p * (ptrdiff_t) indices[e];
            const float weight = weights[e];
            #pragma omp simd
            for (ptrdiff_t k = 0; k < p; k++) gradient[k] += weight * v[k];
        }
    }

    /* x . y */
    CUT_BODY float cut_dot(int wide, const float *x, const float *y, ptrdiff_t p) {
        float product = 0.0f;
    #if defined(__GNUC__)
        if (wide) {
            cut_row total = {0};
            ptrdiff_t k = 0;
            for (; k + 8 <= p; k += 8)
                total += *(const cut_row *) (x + k) * *(const cut_row *) (y + k);
            CUT_SUM(&total)
            product = total[0];
            for (; k < p; k++) product += x[k] * y[k];
            return product;
        }
    #endif
        #pragma omp simd reduction(+:product)
        for (ptrdiff_t k = 0; k < p; k++) product += x[k] * y[k];
        return product;
    }

    /* x = factor y */
    CUT_BODY void cut_scale(int wide, float factor, const float *y, ptrdiff_t p, float *x) {
        ptrdiff_t k = 0;
    #if defined(__GNUC__)
        if (wide)
            for (; k + 8 <= p; k += 8) *(cut_row *) (x + k) = *(const cut_row *) (y + k) * factor;
    #endif
        for (; k < p; k++) x[k] = y[k] * factor;
    }

    /* One sweep of the mixing method; returns the decrease of the sum. */
    CUT_BODY double cut_mixing_sweep_body(int wide, ptrdiff_t n, const int32_t *indptr,
                                          const int32_t *indices, const float *weights,
                                          ptrdiff_t p, float *rows, float *gradient) {
        double decrease = 0.0;
        for (ptrdiff_t i = 0; i < n; i++) {
            float *own = rows + p * i, norm;
            cut_row_gradient(wide, indptr[i], indptr[i + 1], indices, weights, p, rows, gradient);
            norm = sqrtf(cut_dot(wide, gradient, gradient, p));
            /* Below this the direction is rounding noise; the row stays. */
            if (!(norm > 1e-15f)) continue;
            decrease += (double) cut_dot(wide, gradient, own, p) + (double) norm;
            cut_scale(wide, -1.0f / norm, gradient, p, own);
        }
        return decrease;
    }

    /* Instruction set in use: 0 what the compiler was told, 1 AVX2 and FMA, 2 AVX-512. */
    static int cut_level = 0;

    #if defined(__GNUC__) && defined(__x86_64__)
        #define CUT_VERSIONS(type, name, parameters, ...)                             \
            __attribute__((target("avx2,fma"))) static type name##_avx2 parameters {  \
                return name##_body(1, __VA_ARGS__);                                   \
            }                                                                         \
            __attribute__((target("avx512f,avx512vl,avx2,fma")))                      \
            static type name##_avx512 parameters {                                    \
                return name##_body(1, __VA_ARGS__);                                   \
            }                                                                         \
            static type name parameters {                                             \
                if (cut_level == 2) return name##_avx512(__VA_ARGS__);                \
                if (cut_level == 1) return name##_avx2(__VA_ARGS__);                  \
                return name##_body(0, __VA_ARGS__);                                   \
            }
        static int cut_best_level(void) {
            __builtin_cpu_init();
            if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") ? 2 : 1;
        }
    #else
        #define CUT_VERSIONS(type, name, parameters, ...) \
            static type name parameters { return name##_body(0, __VA_ARGS__); }
        static int cut_best_level(void) { return 0; }
    #endif

    CUT_VERSIONS(void, cut_anneal_half,
                 (ptrdiff_t n, const int32_t *indptr, const int32_t *indices,
                  const float *weights, float *rows, float c_squared, ptrdiff_t first),
                 n, indptr, indices, weights, rows, c_squared, first)
    CUT_VERSIONS(double, cut_mixing_sweep,
                 (ptrdiff_t n, const int32_t *indptr, const int32_t *indices,
                  const float *weights, ptrdiff_t p, float *rows, float *gradient),
                 n, indptr, indices, weights, p, rows, gradient)
    """
    int cut_level
    int cut_best_level() noexcept nogil
    void cut_anneal_half(
        Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const float* weights,
        float* rows, float c_squared, Py_ssize_t first,
    ) noexcept nogil
    double cut_mixing_sweep(
        Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const float* weights,
        Py_ssize_t p, float* rows, float* gradient,
    ) noexcept nogil


def _use_instruction_set(level):
    """Use the sweeps of one level from now on, or the best below it; return its level. For tests."""
    global cut_level
    cut_level = min(level, cut_best_level())
    return cut_level


_use_instruction_set(2)


cdef int _wrong_graph(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const void* weights
) noexcept nogil:
    """Return the number of the first graph argument that breaks its rule, or 0."""
    if n < 0:
        return 1
    if indptr == NULL:
        return 2 if n > 0 else 0
    if indptr[n] > 0:
        if indices == NULL:
            return 3
        if weights == NULL:
            return 4
    return 0


# --- local search ---------------------------------------------------------------------------------

cdef int cut_flip_gains(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const double* weights,
    const int8_t* signs, double* gains,
) noexcept nogil:
    """gains[i] = sum_j w_ij s_i s_j."""
    cdef int wrong = _wrong_graph(n, indptr, indices, weights)
    cdef Py_ssize_t i
    cdef int32_t e
    cdef double total
    if wrong:
        return -wrong
    if n > 0 and signs == NULL:
        return -5
    if n > 0 and gains == NULL:
        return -6
    for i in range(n):
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            total += weights[e] * signs[indices[e]]
        gains[i] = total * signs[i]
    return CUT_SUCCESS


cdef int cut_one_flip_ascent(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const double* weights,
    int8_t* signs, double* gains, double threshold, Py_ssize_t flip_limit, Py_ssize_t* flips,
) noexcept nogil:
    """Flip while a gain exceeds the threshold: the gain changes sign, neighbours' by 2 w s_i s_j."""
    cdef int wrong = _wrong_graph(n, indptr, indices, weights)
    cdef int code = CUT_SUCCESS
    cdef Py_ssize_t i, made = 0
    cdef int32_t e
    cdef double twice
    cdef bint improved = True
    if wrong:
        return -wrong
    if n > 0 and signs == NULL:
        return -5
    if n > 0 and gains == NULL:
        return -6
    if not threshold >= 0.0:
        return -7
    if flip_limit < 0:
        return -8
    while improved and code == CUT_SUCCESS:
        improved = False
        for i in range(n):
            if not gains[i] > threshold:
                continue
            if made == flip_limit:
                code = CUT_NOT_CONVERGED
                break
            improved = True
            made += 1
            signs[i] = -signs[i]
            gains[i] = -gains[i]
            twice = 2.0 * signs[i]
            for e in range(indptr[i], indptr[i + 1]):
                gains[indices[e]] += twice * weights[e] * signs[indices[e]]
    if flips != NULL:
        flips[0] = made
    return code


cdef int cut_value(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const double* weights,
    const int8_t* signs, double* value,
) noexcept nogil:
    """value = sum over edges i < j with s_i != s_j of w_ij, row by row."""
    cdef int wrong = _wrong_graph(n, indptr, indices, weights)
    cdef Py_ssize_t i
    cdef int32_t e
    cdef double total = 0.0, row
    if wrong:
        return -wrong
    if n > 0 and signs == NULL:
        return -5
    if value == NULL:
        return -6
    for i in range(n):
        row = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            if indices[e] > i and signs[indices[e]] != signs[i]:
                row += weights[e]
        total += row
    value[0] = total
    return CUT_SUCCESS


# --- rows -----------------------------------------------------------------------------------------

cdef Py_ssize_t cut_mixing_workspace(Py_ssize_t p) noexcept nogil:
    """Return p: one gradient."""
    return p


cdef int cut_mixing_sweeps(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const float* weights,
    Py_ssize_t p, float* rows, Py_ssize_t sweeps, float* workspace, double* decrease,
) noexcept nogil:
    """v_i <- -g_i / ||g_i||."""
    cdef int wrong = _wrong_graph(n, indptr, indices, weights)
    cdef Py_ssize_t sweep
    cdef double last = 0.0
    if wrong:
        return -wrong
    if p < 1:
        return -5
    if n > 0 and rows == NULL:
        return -6
    if sweeps < 0:
        return -7
    if workspace == NULL:
        return -8
    for sweep in range(sweeps):
        last = cut_mixing_sweep(n, indptr, indices, weights, p, rows, workspace)
    if decrease != NULL:
        decrease[0] = last
    return CUT_SUCCESS


cdef int cut_anneal_rows(
    Py_ssize_t n, const int32_t* indptr, const int32_t* indices, const float* weights,
    float* rows, double* smoothing, double ratio, Py_ssize_t sweeps,
) noexcept nogil:
    """v_i <- normalise( -sum_j w_ij v_j / sqrt(1 - (c v_i . v_j)^2) )."""
    cdef int wrong = _wrong_graph(n, indptr, indices, weights)
    cdef Py_ssize_t sweep
    cdef float c
    if wrong:
        return -wrong
    if n > 0 and rows == NULL:
        return -5
    if smoothing == NULL or not 0.0 < smoothing[0] <= 1.0:
        return -6
    if not 0.0 < ratio <= 1.0:
        return -7
    if sweeps < 0:
        return -8
    for sweep in range(sweeps):
        c = <float> (1.0 - smoothing[0])
        # On paths and grids vertex i + 1 would wait for vertex i.
        cut_anneal_half(n, indptr, indices, weights, rows, c * c, 0)
        cut_anneal_half(n, indptr, indices, weights, rows, c * c, 1)
        smoothing[0] *= ratio
    return CUT_SUCCESS


cdef int cut_round_rows(
    Py_ssize_t n, Py_ssize_t p, const float* rows, const float* normal, int8_t* signs
) noexcept nogil:
    """signs[i] = 1 where v_i . normal >= 0, else -1."""
    cdef Py_ssize_t i, k
    cdef float product
    if n < 0:
        return -1
    if p < 1:
        return -2
    if n > 0 and rows == NULL:
        return -3
    if normal == NULL:
        return -4
    if n > 0 and signs == NULL:
        return -5
    for i in range(n):
        product = normal[0] * rows[i * p]
        for k in range(1, p):
            product += normal[k] * rows[i * p + k]
        signs[i] = 1 if product >= 0.0 else -1
    return CUT_SUCCESS
