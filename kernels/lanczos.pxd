"""C interface of the randomized Lanczos core: cimport it from another Cython module.

Every function here is ``noexcept nogil``, takes no lock, changes no global state and allocates
nothing: the caller owns the memory. One run is

    cdef LanczosState state
    lanczos_initialise(&state, n, max_products, delta, tol, True)
    state.threshold = -1e-3; state.target = -1e-3        # optional; see the fields below
    lanczos_bind(&state, basis, scratch, capacity)       # basis: lanczos_basis_size(n, capacity)
    code = lanczos_run(&state, product, context, 1 << 30)  # scratch: lanczos_scratch_size(capacity)
    # LANCZOS_NEED_START: write a standard normal vector to lanczos_start_row(&state), then call
    #     lanczos_accept_start(&state), then lanczos_run again.
    # LANCZOS_NEED_SPACE: enlarge both buffers (realloc keeps the rows), lanczos_bind, run again.
    # LANCZOS_RUNNING: the step limit of this call is used up; run again.
    # any other code is final: lanczos_finish(&state, vector).
"""

# One product y = H x. Returns 1 for success and 0 for failure; must not touch Python objects
# unless it takes the GIL itself, and must not raise.
ctypedef int (*lanczos_product)(
    const double* x, double* y, Py_ssize_t n, void* context
) noexcept nogil

cdef enum:
    LANCZOS_MAX_BLOCKS = 6

# What lanczos_run returns. Below 10: something to do, then run again; 10 to 14: done, the state holds
# a valid answer; from 20: failed, the answer so far is that of the products before.
cdef enum LanczosCode:
    LANCZOS_RUNNING = 0              # step_limit steps are done
    LANCZOS_NEED_START = 1           # a start vector is wanted in lanczos_start_row
    LANCZOS_NEED_SPACE = 2           # the capacity is used up
    LANCZOS_NEGATIVE_CURVATURE = 10  # the Ritz value is below `threshold`
    LANCZOS_CERTIFIED = 11           # lambda_min_lower has reached `target`
    LANCZOS_EXACT = 12               # n products: the Ritz values are the eigenvalues
    LANCZOS_CONVERGED = 13           # the residual is below `tol` times `scale`
    LANCZOS_NOT_CONVERGED = 14       # max_products are used up
    LANCZOS_OPERATOR_FAILED = 20     # the product returned anything but 1
    LANCZOS_NON_FINITE = 21          # a product is not finite

cdef struct LanczosState:
    # Set by lanczos_initialise; threshold and target may be changed before the first run.
    Py_ssize_t n
    Py_ssize_t max_products
    double threshold         # stop at a Ritz value below it; -inf: never
    double target            # stop once lambda_min >= target is certified; +inf: never
    double delta             # failure probability of all claims of one run together
    double tol               # residual tolerance, relative to `scale`
    bint uniform_start       # the first start is uniform on the sphere: claims may be made
    # Memory, set by lanczos_bind.
    Py_ssize_t capacity
    double* basis            # rows of length n: q_0, q_1, ...
    double* alpha
    double* beta
    double* omega            # estimates of q_j'q_k and q_j'q_{k-1}, by turns
    double* scratch
    # Progress and results.
    Py_ssize_t steps         # rows whose product is done
    Py_ssize_t products
    Py_ssize_t last_check
    Py_ssize_t next_check
    double last_residual     # at the last check
    bint have_start
    int blocks               # Krylov blocks begun (1 + restarts after a breakdown)
    Py_ssize_t block_start[LANCZOS_MAX_BLOCKS + 1]
    double block_beta[LANCZOS_MAX_BLOCKS]
    double block_ritz[LANCZOS_MAX_BLOCKS]
    double coupling          # sum of the betas taken for zero at breakdowns
    double noise             # what one step adds to the estimates, relative to `scale`
    double loss_squared      # largest measured ||Q'q||^2 of a row q and all Q before it, or u
    Py_ssize_t measured      # row of the last measurement
    unsigned long long generator  # of the signs in the estimates
    double scale             # bound on the norm of the tridiagonal matrix
    double best_lower        # best certified bound of the finished blocks
    double ritz_value
    double ritz_value_max
    double residual
    double safety
    double lambda_min_lower

cdef Py_ssize_t lanczos_basis_size(Py_ssize_t n, Py_ssize_t capacity) noexcept nogil
cdef Py_ssize_t lanczos_scratch_size(Py_ssize_t capacity) noexcept nogil
cdef void lanczos_initialise(
    LanczosState* state, Py_ssize_t n, Py_ssize_t max_products, double delta, double tol,
    bint uniform_start,
) noexcept nogil
cdef void lanczos_bind(
    LanczosState* state, double* basis, double* scratch, Py_ssize_t capacity
) noexcept nogil
cdef double* lanczos_start_row(LanczosState* state) noexcept nogil
cdef bint lanczos_accept_start(LanczosState* state) noexcept nogil
cdef int lanczos_run(
    LanczosState* state, lanczos_product product, void* context, Py_ssize_t step_limit
) noexcept nogil
cdef void lanczos_finish(LanczosState* state, double* vector) noexcept nogil
