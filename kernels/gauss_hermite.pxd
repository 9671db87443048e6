"""C interface of Gauss-Hermite sums: cimport it from another Cython module.

    E[g(mu + sigma x)] ~ sum_q w_q g(mu + sigma x_q),               x ~ N(0, 1)
    E[g(W x + b)] ~ sum over (q_1, ..., q_d) of w_q1 ... w_qd g(W (x_q1, ..., x_qd) + b),
                                                                    x ~ N(0, I_d)

with nodes x_q and weights w_q for the standard normal (probabilists' convention, weights that sum
to 1), such as gauss_hermite_rule writes them. Exact for polynomials of degree 2 count - 1, in the
tensor form in each coordinate of x.

Every function is ``noexcept nogil``, re-entrant and thread-safe if g is: it takes no lock,
allocates nothing and writes to what the caller passes without ``const``. Sizes are Py_ssize_t.

Status codes
------------
1 (GAUSS_HERMITE_SUCCESS): done. 0 (GAUSS_HERMITE_FAILED): g reported failure, or the rule's
eigenvalues did not converge; outputs are then not to be used. -k: argument number k (from 1)
breaks the rule beside it below, and nothing was written. A non-finite value of g goes into the
sum like any other.
"""

cdef enum GaussHermiteCode:
    GAUSS_HERMITE_FAILED = 0
    GAUSS_HERMITE_SUCCESS = 1

# g of one number: the type that scipy.integrate.quad takes as a LowLevelCallable, too.
ctypedef double (*gauss_hermite_function)(double z, void* context) noexcept nogil

# g of h numbers: writes n_values values, all of them; returns 1 for success and 0 for failure.
ctypedef int (*gauss_hermite_vector_function)(
    const double* z, Py_ssize_t h, double* values, Py_ssize_t n_values, void* context
) noexcept nogil

# Doubles of workspace that gauss_hermite_rule needs.
cdef Py_ssize_t gauss_hermite_rule_workspace(Py_ssize_t count) noexcept nogil

# The rule for N(0, 1): nodes ascending and exactly symmetric about 0, weights that sum to 1.
# Nodes are good to a few units in the last place of the largest, weights to about count units.
# O(count^2) flops.
cdef int gauss_hermite_rule(
    Py_ssize_t count,              # 1 to 2^20
    double* nodes,                 # (count,), written
    double* weights,               # (count,), written
    double* workspace,             # (gauss_hermite_rule_workspace(count),)
) noexcept nogil

# mean[0] = sum_q weights[q] g(mu + sigma nodes[q]), added up in order.
cdef int gauss_hermite_mean(
    gauss_hermite_function g,
    void* context,                 # handed to g
    double mu,
    double sigma,
    Py_ssize_t count,              # at least 1
    const double* nodes,           # (count,)
    const double* weights,         # (count,)
    double* mean,
) noexcept nogil

# Doubles of workspace that gauss_hermite_tensor_mean needs: 2 d h + d n_values + n_values + h + d.
cdef Py_ssize_t gauss_hermite_tensor_workspace(
    Py_ssize_t d, Py_ssize_t h, Py_ssize_t n_values
) noexcept nogil

# means[k] = the tensor sum of value k of g: count^d calls, and 2 (h + n_values) flops beside each.
# The last coordinate of x runs fastest; sums are nested, one axis inside the other.
cdef int gauss_hermite_tensor_mean(
    gauss_hermite_vector_function g,
    void* context,                 # handed to g
    Py_ssize_t d,                  # at least 1
    Py_ssize_t h,                  # at least 1
    const double* W,               # (h, d)
    const double* b,               # (h,)
    Py_ssize_t count,              # at least 1
    const double* nodes,           # (count,)
    const double* weights,         # (count,)
    Py_ssize_t n_values,           # at least 1
    double* workspace,             # (gauss_hermite_tensor_workspace(d, h, n_values),)
    double* means,                 # (n_values,), written
) noexcept nogil
