"""Leftmost eigenpair: ours beside scipy's eigsh, with products and error beside the time.

Run with ``pytest bench/test_bench_lanczos.py --benchmark-only``. Both sides use the same products:
a C function (Numba cfunc) for ours and the same compiled loop behind a LinearOperator for eigsh,
or the same CSR matrix. Every row warms up first. ``extra_info`` holds the products, the error of
the eigenvalue against a converged run, and the status; set OPENBLAS_NUM_THREADS and
NUMBA_NUM_THREADS to 1 for figures that can be compared.
"""

import numba
import numpy as np
import pytest
import scipy.sparse
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from scipy.sparse.linalg import LinearOperator, eigsh

from derand_fast.kernels.lanczos import COperator, leftmost_eigenpair

PRODUCT = types.int32(
    types.CPointer(types.float64), types.CPointer(types.float64), types.intp, types.voidptr
)


@intrinsic
def as_pointer(context, address):
    """Turn an integer address into a void pointer."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@numba.njit(nogil=True)
def multiply(data, indices, offsets, x, y):
    """Multiply a CSR matrix and a vector."""
    for i in range(len(y)):
        total = 0.0
        for entry in range(offsets[i], offsets[i + 1]):
            total += data[entry] * x[indices[entry]]
        y[i] = total


@numba.cfunc(PRODUCT)
def multiply_c(x, y, n, context):
    """Multiply by the CSR matrix whose three addresses and size are the context."""
    addresses = numba.carray(context, (4,), np.int64)
    entries = addresses[3]
    data = numba.carray(as_pointer(addresses[0]), (entries,), np.float64)
    indices = numba.carray(as_pointer(addresses[1]), (entries,), np.uint32)
    offsets = numba.carray(as_pointer(addresses[2]), (n + 1,), np.uint32)
    multiply(data, indices, offsets, numba.carray(x, (n,)), numba.carray(y, (n,)))
    return 1


def short_indices(matrix):
    """Return CSR with 32-bit indices."""
    matrix = scipy.sparse.csr_array(matrix)
    matrix.indices = matrix.indices.astype(np.int32)
    matrix.indptr = matrix.indptr.astype(np.int32)
    return matrix


def unsigned_arrays(matrix):
    """Return data, indices and offsets; Numba tests every signed index for being negative."""
    return matrix.data, matrix.indices.view(np.uint32), matrix.indptr.view(np.uint32)


def cut_operator(n):
    """Return A - diag(s o As) at a one-flip local cut of a random sparse graph: indefinite."""
    random = np.random.default_rng(n)
    ends = random.integers(0, n, (2, 4 * n))
    adjacency = scipy.sparse.coo_array((np.ones(4 * n), ends), shape=(n, n)).tocsr()
    adjacency = ((adjacency + adjacency.T) > 0).astype(float)
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    signs = np.where(random.random(n) < 0.5, 1.0, -1.0)
    for _ in range(200):
        gain = signs * (adjacency @ signs)
        if gain.max() <= 0:
            break
        signs[(gain > 0) & (random.random(n) < 0.3)] *= -1
    gain = signs * (adjacency @ signs)
    return short_indices(adjacency - scipy.sparse.diags(gain))


def spiked_operator(n):
    """Return a sparse positive bulk with one isolated negative eigenvalue near -2."""
    matrix = scipy.sparse.random_array(
        (n, n), density=6 / n, rng=np.random.default_rng(n), format="csr"
    )
    bulk = (matrix + matrix.T) * 0.5
    shift = float(abs(bulk).sum(axis=0).max())
    diagonal = np.full(n, shift)
    diagonal[n // 2] = -2.0
    return short_indices(bulk + scipy.sparse.diags(diagonal))


MATRICES = {"cut-20000": cut_operator(20_000), "spiked-100000": spiked_operator(100_000)}
TRUE = {name: leftmost_eigenpair(m, tol=1e-12, seed=7).ritz_value for name, m in MATRICES.items()}


@pytest.fixture(params=list(MATRICES))
def problem(request):
    """Return (name, matrix, C operator, LinearOperator with a counter)."""
    matrix = MATRICES[request.param]
    arrays = unsigned_arrays(matrix)
    context = np.array([a.ctypes.data for a in arrays] + [matrix.nnz], dtype=np.int64)
    n = matrix.shape[0]
    pointer = COperator(multiply_c.address, n, context.ctypes.data, (multiply_c, arrays, context))
    count = [0]

    def product(x):
        count[0] += 1
        y = np.empty(n)
        multiply(*arrays, x.ravel(), y)
        return y

    linear = LinearOperator((n, n), matvec=product, dtype=np.float64)
    return request.param, matrix, pointer, linear, count


def record(benchmark, name, products, value, status):
    """Write what a time alone does not say."""
    benchmark.extra_info.update(
        products=products, value=float(value), error=float(value - TRUE[name]), status=status
    )


@pytest.mark.parametrize("kind", ["pointer", "csr", "callable"])
def test_find_ours(benchmark, problem, kind):
    """Find v with v'Hv < lambda_min / 2."""
    name, matrix, pointer, linear, _ = problem
    benchmark.group = f"lanczos find {name}"
    operator = {"pointer": pointer, "csr": matrix, "callable": linear}[kind]
    result = benchmark.pedantic(
        leftmost_eigenpair,
        (operator,),
        {"threshold": TRUE[name] / 2, "eps": -TRUE[name]},
        rounds=15,
        warmup_rounds=1,
    )
    record(benchmark, name, result.n_products, result.ritz_value, result.status)
    assert result.ritz_value < TRUE[name] / 2


@pytest.mark.parametrize("tol", [0.5, 1e-1])
def test_find_eigsh(benchmark, problem, tol):
    """ARPACK cannot stop at a threshold; a loose tolerance comes nearest."""
    name, _, _, linear, count = problem
    benchmark.group = f"lanczos find {name}"
    start = np.random.default_rng(0).standard_normal(linear.shape[0])

    def run():
        count[0] = 0
        return eigsh(linear, k=1, which="SA", tol=tol, v0=start)[0][0]

    value = benchmark.pedantic(run, rounds=15, warmup_rounds=1)
    record(benchmark, name, count[0], value, f"eigsh tol={tol}")
    assert value < TRUE[name] / 2


@pytest.mark.parametrize("kind", ["pointer", "csr", "callable"])
def test_converge_ours(benchmark, problem, kind):
    """Converge the pair to a residual of 1e-6 times the norm."""
    name, matrix, pointer, linear, _ = problem
    benchmark.group = f"lanczos converge {name}"
    operator = {"pointer": pointer, "csr": matrix, "callable": linear}[kind]
    result = benchmark.pedantic(
        leftmost_eigenpair, (operator,), {"tol": 1e-6}, rounds=15, warmup_rounds=1
    )
    record(benchmark, name, result.n_products, result.ritz_value, result.status)


def test_converge_eigsh(benchmark, problem):
    """Converge eigsh to the same residual, in units of the norm."""
    name, _, _, linear, count = problem
    benchmark.group = f"lanczos converge {name}"
    start = np.random.default_rng(0).standard_normal(linear.shape[0])
    scale = leftmost_eigenpair(problem[1]).ritz_value_max

    def run():
        count[0] = 0
        # ARPACK measures the residual in units of |theta|.
        return eigsh(linear, k=1, which="SA", tol=1e-6 * scale / abs(TRUE[name]), v0=start)[0][0]

    value = benchmark.pedantic(run, rounds=15, warmup_rounds=1)
    record(benchmark, name, count[0], value, "eigsh")


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_certify_ours(benchmark, problem, share):
    """Certify lambda_min >= (1 + share) times its value; eigsh has no certificate at all."""
    name, _, pointer, _, _ = problem
    benchmark.group = f"lanczos certify {name} {share}"
    result = benchmark.pedantic(
        leftmost_eigenpair,
        (pointer,),
        {"eps": -(1 + share) * TRUE[name]},
        rounds=7,
        warmup_rounds=1,
    )
    record(benchmark, name, result.n_products, result.ritz_value, result.status)
    benchmark.extra_info["lambda_min_lower"] = result.lambda_min_lower
    assert result.status == "certified"
