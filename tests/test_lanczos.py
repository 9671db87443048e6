"""Randomized Lanczos: eigenpairs, certificates, operators, contracts."""

import doctest
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types
from scipy.sparse.linalg import LinearOperator

from derand_fast.kernels import lanczos
from derand_fast.kernels.lanczos import COperator, leftmost_eigenpair

UNIT = 2.0**-52
PRODUCT = types.int32(
    types.CPointer(types.float64), types.CPointer(types.float64), types.intp, types.voidptr
)


def symmetric(spectrum, seed=0):
    """Return a dense matrix with the given eigenvalues and random eigenvectors."""
    spectrum = np.asarray(spectrum, dtype=float)
    random = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(random.standard_normal((len(spectrum), len(spectrum))))
    matrix = (vectors * spectrum) @ vectors.T
    return (matrix + matrix.T) / 2


def path_laplacian(n):
    """Return the CSR Laplacian of a path; its eigenvalues are 2 - 2 cos(pi j / n)."""
    diagonal = np.full(n, 2.0)
    diagonal[[0, -1]] -= 1.0
    off_diagonal = np.full(n - 1, -1.0)
    return scipy.sparse.csr_array(
        scipy.sparse.diags([off_diagonal, diagonal, off_diagonal], [-1, 0, 1])
    )


def dense_tolerance(matrix):
    """Error of both eigenvalue solvers: a few n units of the norm (backward stability)."""
    return 20 * len(matrix) * UNIT * max(np.abs(matrix).sum(axis=0).max(), 1e-300)


OPERATORS = {
    "random": symmetric(np.random.default_rng(1).standard_normal(80), 1),
    "clustered": symmetric(np.r_[-1.0 + 1e-9 * np.arange(20), np.linspace(0, 5, 80)], 2),
    "geometric": symmetric(np.r_[-(10.0 ** -np.arange(12.0)), 10.0 ** -np.arange(12.0)], 3),
    "indefinite": symmetric(np.linspace(-3, 2, 60), 4),
    "two_values": symmetric(np.r_[-np.ones(40), 2 * np.ones(40)], 5),
    "diagonal": np.diag(np.arange(30.0) - 7),
    "zero": np.zeros((40, 40)),
    "identity": np.eye(40),
    "minus_identity": -3 * np.eye(40),
    "one": np.array([[-2.5]]),
    "two": np.array([[1.0, 2.0], [2.0, -1.0]]),
    "rank_one": -np.outer(np.arange(50.0), np.arange(50.0)),
    "rank_one_positive": np.ones((50, 50)),
    "path": path_laplacian(60).toarray(),
    "tiny_scale": 1e-200 * symmetric(np.linspace(-1, 1, 30), 6),
    "huge_scale": 1e200 * symmetric(np.linspace(-1, 1, 30), 7),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_dense_solver(name, seed):
    """Without levels the pair converges to the leftmost one, whatever the spectrum."""
    matrix = OPERATORS[name]
    values = np.linalg.eigvalsh(matrix)
    norm = max(np.abs(values).max(), 1e-300)
    result = leftmost_eigenpair(matrix, tol=1e-10, seed=seed)
    tolerance = dense_tolerance(matrix)
    assert result.status in ("converged", "exact")
    # A residual r leaves an eigenvalue within r; 1e-10 is the residual asked for (twice the norm
    # at most, the scale being a Gershgorin bound). Its being the leftmost one is the random start.
    assert abs(result.ritz_value - values[0]) <= 2e-10 * norm + tolerance
    assert result.lambda_min_lower <= values[0] + tolerance
    assert values[0] - tolerance <= result.ritz_value <= result.ritz_value_max
    assert result.ritz_value_max <= values[-1] + tolerance
    assert result.vector.dtype == np.float64
    # One rounding per component when dividing by the norm.
    assert abs(np.linalg.norm(result.vector) - 1) <= 4 * UNIT
    actual = np.linalg.norm(
        (matrix / norm) @ result.vector - result.ritz_value / norm * result.vector
    )
    assert abs(actual - result.residual / norm) <= tolerance / norm
    assert actual <= 2e-10 + tolerance / norm


@pytest.mark.parametrize("name", OPERATORS)
def test_certificate_holds_and_is_reached(name):
    """With room to spare below lambda_min the certificate comes, and never claims too much."""
    matrix = OPERATORS[name]
    values = np.linalg.eigvalsh(matrix)
    norm = max(np.abs(values).max(), 1e-300)
    eps = max(0.0, 0.05 * norm - values[0])
    result = leftmost_eigenpair(matrix, eps=eps)
    assert result.status == "certified"
    assert -eps <= result.lambda_min_lower <= values[0] + dense_tolerance(matrix)


def test_no_false_certificate_on_thousand_matrices():
    """The level lies just above lambda_min, so that every certificate would be false.

    With delta = 1e-6 a thousand runs all stay true with probability 0.999; seeds are fixed.
    """
    random = np.random.default_rng(20)
    for trial in range(1000):
        n = int(random.integers(2, 60))
        kind = trial % 4
        if kind == 0:
            spectrum = random.standard_normal(n)
        elif kind == 1:  # one isolated negative value under a bulk
            spectrum = np.r_[-(10.0 ** -random.uniform(0, 8)), random.uniform(0, 1, n - 1)]
        elif kind == 2:  # clusters
            spectrum = np.round(random.standard_normal(n)) + 1e-10 * random.standard_normal(n)
        else:  # a dense left edge, the hard case for Lanczos
            spectrum = -1 + np.linspace(0, 1, n) ** 2 * random.uniform(0.1, 100)
        matrix = symmetric(spectrum, trial)
        smallest = np.linalg.eigvalsh(matrix)[0]
        eps = max(0.0, -smallest * (1 - 1e-3) - 1e-6)
        result = leftmost_eigenpair(
            matrix,
            # Every third run has no level and goes on to convergence.
            eps=None if trial % 3 == 0 else eps,
            max_products=None if trial % 2 else int(random.integers(1, n + 1)),
            delta=1e-6,
            seed=trial,
        )
        # eigvalsh itself is only good to a few n units of the norm.
        assert result.lambda_min_lower <= smallest + dense_tolerance(matrix)
        assert result.ritz_value >= smallest - dense_tolerance(matrix)
        if smallest < -eps - dense_tolerance(matrix):
            assert result.status != "certified"


def test_bound_holds_at_every_step_with_large_delta():
    """At delta = 0.2 the event is common enough to count: at most 20 % of runs, all k together."""
    matrix = np.diag(np.linspace(0, 1, 40))
    runs, wrong = 150, 0
    for seed in range(runs):
        wrong += any(
            leftmost_eigenpair(
                matrix, delta=0.2, seed=seed, tol=0.0, max_products=k
            ).lambda_min_lower
            > 0.0
            for k in range(1, 25)
        )
    # Expected at most 0.2 * 15/16 * 150 = 28 with standard deviation 5; three and a half of these
    # on top. Some do fail: the bound is not idle, and this test can tell.
    assert 1 <= wrong <= 45


@settings(max_examples=60, deadline=None)
@given(
    spectrum=st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=12),
    eps=st.floats(0, 1e3),
    seed=st.integers(0, 2**31),
)
def test_statements_agree_with_the_spectrum(spectrum, eps, seed):
    """Each status means what it says, for any small spectrum and level."""
    matrix = symmetric(spectrum, seed)
    smallest = np.linalg.eigvalsh(matrix)[0]
    result = leftmost_eigenpair(matrix, eps=eps, seed=seed)
    tolerance = dense_tolerance(matrix)
    assert result.lambda_min_lower <= smallest + tolerance
    if result.status == "certified":
        assert smallest >= -eps - tolerance
    elif result.status == "negative_curvature":
        assert smallest < -eps + tolerance
    else:
        assert abs(smallest + eps) <= tolerance + 2 * result.safety + result.residual


@pytest.mark.parametrize("seed", range(5))
def test_negative_curvature_takes_few_products(seed):
    """A saddle under a wide positive bulk is found in a handful of products."""
    spectrum = np.r_[-1.0, np.linspace(0, 10, 399)]
    matrix = symmetric(spectrum, seed)
    result = leftmost_eigenpair(matrix, threshold=-0.25, eps=1.0, seed=seed)
    assert result.status == "negative_curvature"
    assert result.vector @ matrix @ result.vector < -0.25
    # Lanczos at rate exp(-2 k sqrt(1/11)) from a start of overlap 1/20; about 10 in practice.
    assert result.n_products <= 15


def test_certificate_needs_no_more_than_the_a_priori_count():
    """The worst-case count of the module text bounds every run, here near its hard spectrum."""
    n, delta, eps = 300, 1e-6, 1e-2
    spectrum = -eps / 2 + 0.5 * (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n))
    # 15/16 of delta goes to the first block.
    overlap = 0.9375 * delta * np.sqrt(np.pi / (2 * n))
    spread = spectrum[-1] - spectrum[0]
    count = np.ceil(np.arccosh(1 / overlap) / (2 * np.arcsinh(np.sqrt(eps / (2 * spread)))))
    for seed in range(5):
        result = leftmost_eigenpair(np.diag(spectrum), eps=eps, delta=delta, seed=seed)
        assert result.status == "certified"
        assert result.n_products <= count + 1


@pytest.mark.parametrize(
    "name", ["clustered", "geometric", "two_values", "identity", "path", "random"]
)
def test_basis_stays_semiorthogonal(name):
    """The vectors handed to the operator are the basis: each is orthogonal to those before it.

    The documented level is ||Q'q|| <= sqrt(u), and rounding for the length and the neighbours.
    """
    matrix = OPERATORS[name]
    basis = []

    def product(x):
        basis.append(x.copy())
        return matrix @ x

    leftmost_eigenpair(product, len(matrix), tol=0.0)
    assert_semiorthogonal(np.array(basis))


def assert_semiorthogonal(rows):
    """Check lengths to rounding and the loss of orthogonality of every row to sqrt(u)."""
    gram = rows @ rows.T
    # A dot product of a unit vector with itself and the division by the norm: a few units each.
    assert np.abs(np.diag(gram) - 1).max() <= 100 * UNIT
    assert row_losses(rows).max() <= np.sqrt(UNIT)


def row_losses(rows):
    """Return the norm of the products of each row with all rows before it."""
    return np.linalg.norm(np.tril(rows @ rows.T, -1), axis=1)


@pytest.fixture(params=["generic", "avx2", "avx512"])
def instruction_set(request):
    """Compute with the loops for each instruction set that the processor has."""
    level = ["generic", "avx2", "avx512"].index(request.param)
    if lanczos._use_instruction_set(level) != level:
        lanczos._use_instruction_set(2)
        pytest.skip(f"the processor or the compiler has no {request.param}")
    yield level
    lanczos._use_instruction_set(2)


def test_semiorthogonal_basis_gives_the_ritz_values_of_an_orthonormal_one(instruction_set):
    """After many converged Ritz values T is still the projection of H, to the documented error.

    3005 columns are two full blocks of the loops and one that no vector length divides.
    """
    seed = instruction_set
    random = np.random.default_rng(seed)
    # Isolated values at both ends converge early, which is what costs orthogonality.
    diagonal = np.r_[-3.0, -2.0, random.uniform(0, 1, 3001), 2.0, 5.0]
    basis = []

    def product(x):
        basis.append(x.copy())
        return diagonal * x

    result = leftmost_eigenpair(product, len(diagonal), tol=0.0, max_products=200, seed=seed)
    rows = np.array(basis)
    assert len(rows) == 200
    assert_semiorthogonal(rows)
    orthonormal = np.linalg.qr(rows.T)[0]
    ritz = np.linalg.eigvalsh(orthonormal.T @ (diagonal[:, None] * orthonormal))
    assert abs(result.ritz_value - ritz[0]) <= result.safety
    assert abs(result.ritz_value_max - ritz[-1]) <= result.safety
    # The model allows 8 u (sqrt(n) + k) + 4 u in units of the scale, which is at most twice ||H||
    # plus rounding.
    assert result.safety <= (8 * (np.sqrt(len(diagonal)) + 200) + 5) * UNIT * 10
    assert result.lambda_min_lower <= -3.0 + 1e-12


def test_ritz_vector_of_a_semiorthogonal_basis():
    """The residual is the reported one up to the level of orthogonality, the Ritz value exact.

    Hundreds of products and a dozen re-orthogonalisations at a tolerance far below that level.
    """
    diagonal = np.random.default_rng(1).chisquare(3, 5000)
    result = leftmost_eigenpair(lambda x: diagonal * x, 5000, tol=1e-13)
    assert result.n_products > 200
    actual = np.linalg.norm(diagonal * result.vector - result.ritz_value * result.vector)
    assert abs(actual - result.residual) <= np.sqrt(UNIT) * diagonal.max()
    rayleigh = result.vector @ (diagonal * result.vector)
    assert abs(rayleigh - result.ritz_value) <= result.safety
    assert abs(result.ritz_value - diagonal.min()) <= result.safety


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65])
def test_every_length_with_every_instruction_set(n, instruction_set):
    """Dense rows and vectors of any length give the known spectrum and agree to rounding."""
    largest = 2 - 2 * np.cos(np.pi * (n - 1) / n)
    laplacian = np.zeros((1, 1)) if n == 1 else path_laplacian(n).toarray()
    # The leftmost pair of this one is the rightmost of the path: no eigenvalue is near zero.
    result = leftmost_eigenpair(-laplacian, tol=1e-12)
    # A residual r costs r^2 / gap at most; the rest is rounding of a matrix of norm four.
    assert abs(result.ritz_value + largest) <= 4 * n * UNIT + 1e-15
    lanczos._use_instruction_set(0)
    generic = leftmost_eigenpair(-laplacian, tol=1e-12)
    assert abs(generic.ritz_value - result.ritz_value) <= 4 * n * UNIT


def test_noise_in_the_products_is_measured_and_charged():
    """Products worse than rounding cost orthogonality faster: the run notices, and stays safe."""
    random = np.random.default_rng(5)
    matrix = symmetric(random.standard_normal(300), 14)
    basis = []

    def product(x):
        basis.append(x.copy())
        return matrix @ x + 1e-9 * random.standard_normal(300)

    result = leftmost_eigenpair(product, 300, tol=0.0, max_products=250)
    loss = row_losses(np.array(basis)).max()
    # The estimate follows a noise that it was not told of, within a factor of ten.
    assert loss <= 10 * np.sqrt(UNIT)
    # Noise of norm 1e-9 sqrt(300) in a column, sqrt(250) columns.
    assert abs(result.ritz_value - np.linalg.eigvalsh(matrix)[0]) <= 1e-9 * 300


def test_noise_that_starts_late_is_charged():
    """The first vectors promise accuracy that later products break: `safety` holds the damage."""
    random = np.random.default_rng(16)
    diagonal = np.r_[-3.0, -2.0, random.uniform(0, 1, 2000), 2.0, 5.0]
    basis = []

    def product(x):
        basis.append(x.copy())
        return diagonal * x + (len(basis) > 20) * 1e-9 * random.standard_normal(len(x))

    result = leftmost_eigenpair(product, len(diagonal), tol=0.0, max_products=80)
    loss = row_losses(np.array(basis)).max()
    # The noise makes it worse than the documented level; the largest eigenvalue is 5.
    assert loss > 2 * np.sqrt(UNIT)
    # Measured against the basis after re-orthogonalisation, the losses are the same but for w^2.
    assert result.safety >= 4 * 0.99 * loss**2 * 5


def test_reorthogonalisation_leaves_two_clean_vectors(instruction_set):
    """After a loss the two-term recurrence starts again from two vectors, both good to rounding."""
    random = np.random.default_rng(17)
    diagonal = np.r_[-3.0, -2.0, random.uniform(0, 1, 3001), 2.0, 5.0]
    basis = []

    def product(x):
        basis.append(x.copy())
        return diagonal * x

    leftmost_eigenpair(product, len(diagonal), tol=0.0, max_products=200)
    loss = row_losses(np.array(basis))
    treated = np.flatnonzero((loss[:-1] > 1e-12) & (loss[1:] < 1e-2 * loss[:-1])) + 1
    # The isolated values multiply a loss by 10 or so in each step: from u to sqrt(u) in a few.
    assert 200 / 40 <= len(treated) <= 200 / 4
    # Rounding of the product over beta: u ||H|| / beta = 5 u / (1/4), the bulk being [0, 1].
    assert max(loss[first : first + 2].max() for first in treated) <= 20 * UNIT


def test_large_identity_is_settled_at_once():
    """Breakdowns end the run: no march to n steps."""
    n = 100_000
    plain = leftmost_eigenpair(lambda x: x, n)
    assert (plain.status, plain.n_products) == ("converged", 2)
    certified = leftmost_eigenpair(lambda x: x, n, eps=0.0)
    assert (certified.status, certified.n_products) == ("certified", 1)
    zero = leftmost_eigenpair(np.zeros_like, n, eps=0.0)
    assert (zero.status, zero.n_products, zero.lambda_min_lower) == ("certified", 1, 0.0)


def test_restart_finds_what_a_bad_start_hides():
    """A start without a component of the leftmost eigenvector breaks down; the restart sees it."""
    matrix = np.diag(np.arange(200.0) - 5)
    start = np.zeros(200)
    start[50:53] = 1.0
    result = leftmost_eigenpair(matrix, start=start)
    assert abs(result.ritz_value + 5) <= 1e-8 * 200
    assert result.lambda_min_lower == -np.inf


def test_given_start_certifies_only_with_a_full_basis():
    """No probability statement without a random start; n steps need none."""
    matrix = symmetric(np.linspace(1, 2, 30), 8)
    partial = leftmost_eigenpair(matrix, eps=0.5, start=np.ones(30), max_products=20)
    assert partial.status in ("not_converged", "converged")
    assert partial.lambda_min_lower == -np.inf
    full = leftmost_eigenpair(matrix, eps=0.5, start=np.ones(30), tol=0.0)
    assert full.status == "certified"
    assert full.n_products == 30
    assert full.lambda_min_lower >= -0.5


def test_limits_are_named():
    """max_products and max_memory stop the run with the best pair so far."""
    matrix = symmetric(np.linspace(1, 2, 50), 9)
    few = leftmost_eigenpair(matrix, max_products=3)
    assert (few.status, few.n_products) == ("not_converged", 3)
    assert "max_products" in few.message
    small = leftmost_eigenpair(matrix, max_memory=5 * 50 * 8)
    assert (small.status, small.n_products) == ("not_converged", 4)
    assert "max_memory" in small.message
    for result in (few, small):
        rayleigh = result.vector @ matrix @ result.vector
        # One product and one dot product of length 50.
        assert abs(rayleigh - result.ritz_value) <= 100 * UNIT


def test_more_memory_than_the_first_workspace():
    """Growing the workspace changes nothing: rows and coefficients before it are kept."""
    n, products = 40_000, 150
    assert products > (24 << 20) // (8 * n)
    laplacian = path_laplacian(n)
    result = leftmost_eigenpair(laplacian, tol=0.0, max_products=products)
    assert result.n_products == products
    # The vector needs every row and the Ritz value every coefficient.
    assert abs(result.vector @ (laplacian @ result.vector) - result.ritz_value) <= result.safety
    # Kuczynski and Wozniakowski: (l_n - l_1) tanh^2(arcosh(1/c) / (2 k - 1)) with l_n - l_1 <= 4.
    overlap = 1e-9 * np.sqrt(np.pi / (2 * n))
    bound = 4 * np.tanh(np.arccosh(1 / overlap) / (2 * products - 1)) ** 2
    assert -result.safety <= result.ritz_value <= bound


# --- operators ------------------------------------------------------------------------------------


@numba.cfunc(PRODUCT)
def path_product(x, y, n, context):
    """Multiply by the path Laplacian, in the order of operations of the CSR product."""
    for i in range(n):
        total = 0.0
        if i > 0:
            total += -1.0 * x[i - 1]
        total += (1.0 if i in (0, n - 1) else 2.0) * x[i]
        if i < n - 1:
            total += -1.0 * x[i + 1]
        y[i] = total
    return 1


@numba.cfunc(PRODUCT)
def failing_product(x, y, n, context):
    """Report failure at once."""
    return 0


@numba.cfunc(PRODUCT)
def diagonal_product(x, y, n, context):
    """Multiply by the diagonal whose address is the context."""
    diagonal = numba.carray(context, (n,), np.float64)
    for i in range(n):
        y[i] = diagonal[i] * x[i]
    return 1


def test_context_reaches_the_c_operator():
    """The context address is handed through; COperator keeps the array behind it alive."""
    diagonal = np.linspace(-2, 7, 50)
    operator = COperator(
        diagonal_product.address, 50, diagonal.ctypes.data, owner=(diagonal_product, diagonal)
    )
    result = leftmost_eigenpair(operator, tol=1e-12)
    # A residual of 1e-12 times a scale of at most 18.
    assert abs(result.ritz_value + 2) <= 2e-11


def test_numba_cfunc_gives_the_bits_of_the_same_python_product():
    """Core and start are the same, so equal products give equal results, bit for bit.

    Numba without fastmath does the operations of the loop in the written order, as the CSR kernel
    does (all products are by 1 or 2, so contraction to fused multiply-adds changes nothing), and as
    the Python function here does.
    """
    n = 300
    laplacian = path_laplacian(n)

    def product(x):
        y = np.empty(n)
        for i in range(n):
            total = 0.0
            for j in range(max(0, i - 1), min(n, i + 2)):
                total += laplacian_rows[i, j] * x[j]
            y[i] = total
        return y

    laplacian_rows = laplacian.toarray()
    options = {"eps": 1e-1, "seed": 5}
    pointer = leftmost_eigenpair(COperator(path_product.address, n, owner=path_product), **options)
    pair = leftmost_eigenpair((path_product.address, 0), n, **options)
    python = leftmost_eigenpair(product, n, **options)
    sparse = leftmost_eigenpair(laplacian, **options)
    assert pointer.status == "certified"
    for other in (pair, python, sparse):
        assert_same_bits(pointer, other)


def assert_same_bits(first, second):
    """Compare every field exactly."""
    assert first.vector.tobytes() == second.vector.tobytes()
    assert first._replace(vector=None) == second._replace(vector=None)


def test_failing_c_operator_raises():
    """A C operator that returns 0 becomes a RuntimeError that names the product."""
    with pytest.raises(RuntimeError, match="failure in product 1"):
        leftmost_eigenpair(COperator(failing_product.address, 5))


def test_all_kinds_of_operators_agree():
    """Array, sparse formats, LinearOperator and callable give the same pair."""
    matrix = symmetric(np.linspace(-1, 4, 70), 10)
    expected = leftmost_eigenpair(matrix, tol=1e-12)
    frozen = matrix.copy()
    frozen.setflags(write=False)
    spread = np.zeros((140, 140))
    spread[::2, ::2] = matrix
    long_indices = scipy.sparse.csr_array(matrix)
    long_indices.indices = long_indices.indices.astype(np.int64)
    long_indices.indptr = long_indices.indptr.astype(np.int64)
    kinds = [
        frozen,
        np.asfortranarray(matrix),
        spread[::2, ::2],
        scipy.sparse.csr_matrix(matrix),
        scipy.sparse.csc_array(matrix),
        scipy.sparse.coo_array(matrix),
        long_indices,
        LinearOperator((70, 70), matvec=lambda x: matrix @ x, dtype=np.float64),
        lambda x: matrix @ x,
    ]
    for kind in kinds:
        result = leftmost_eigenpair(kind, 70, tol=1e-12)
        # Sums in another order: rounding of the product, 70 terms.
        assert abs(result.ritz_value - expected.ritz_value) <= 70 * UNIT * 4
        # The gap is 5/69 and the residuals 1e-12 * 8.
        assert abs(abs(result.vector @ expected.vector) - 1) <= 1e-10


def test_sparse_asymmetry_is_found_wherever_it_is():
    """The check of CSR entries against their partners agrees with the transpose."""
    random = np.random.default_rng(18)
    refused = 0
    for trial in range(600):
        n = int(random.integers(1, 9))
        dense = random.standard_normal((n, n)) * (random.random((n, n)) < random.random())
        if trial % 3:
            dense += dense.T
        row, column = random.integers(0, n, 2)
        if trial % 2:
            dense[row, column] = random.choice([0.0, 1.0])
        sparse = scipy.sparse.csr_array(dense)
        if trial % 5 == 0:
            sparse.data[:1] = 0.0  # stored all the same, with or without a partner
            dense = sparse.toarray()
        if np.array_equal(dense, dense.T):
            leftmost_eigenpair(sparse)
        else:
            refused += 1
            with pytest.raises(ValueError, match="symmetric"):
                leftmost_eigenpair(sparse)
    assert 100 <= refused <= 500


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_sparse_rows_of_every_length(index_type):
    """Rows of 0 to 30 entries, with an explicit zero whose partner is not stored."""
    random = np.random.default_rng(15)
    dense = np.zeros((31, 31))
    for i in range(31):
        dense[i, :i] = dense[:i, i] = random.standard_normal(i) * (random.random(i) < i / 31)
    dense[4] = dense[:, 4] = 0.0
    rows, columns = dense.nonzero()
    matrix = scipy.sparse.csr_array(
        (np.r_[dense[rows, columns], 0.0], (np.r_[rows, 2], np.r_[columns, 30])), shape=(31, 31)
    )
    matrix.indices = matrix.indices.astype(index_type)
    matrix.indptr = matrix.indptr.astype(index_type)
    lengths = np.diff(matrix.indptr)
    assert lengths.min() == 0
    assert set(lengths % 4) == {0, 1, 2, 3}
    result = leftmost_eigenpair(matrix, tol=1e-12)
    expected = np.linalg.eigvalsh(dense)[0]
    # The residual 1e-12 is squared over the gap; 31 terms of rounding at the norm.
    assert abs(result.ritz_value - expected) <= dense_tolerance(dense)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, bool])
def test_other_real_types_are_converted(dtype):
    """Any real dtype is computed in float64."""
    random = np.random.default_rng(11)
    matrix = random.integers(0, 2, (40, 40))
    matrix = np.triu(matrix) + np.triu(matrix, 1).T
    expected = leftmost_eigenpair(matrix.astype(float))
    assert_same_bits(leftmost_eigenpair(matrix.astype(dtype)), expected)
    sparse = leftmost_eigenpair(scipy.sparse.csr_array(matrix.astype(dtype)))
    # CSR and dense rows are summed in different orders.
    assert abs(sparse.ritz_value - expected.ritz_value) <= 1e-12


def test_integer_products_of_a_callable_are_converted():
    """A callable may return any real dtype and a strided array."""

    def product(x):
        return np.repeat(np.sign(x).astype(np.int64) * 0, 2)[::2]

    assert leftmost_eigenpair(product, 9).ritz_value == 0.0


def test_inputs_are_left_alone():
    """Neither the matrix nor the start is written to, and the callable may write to its copy."""
    matrix = symmetric(np.linspace(-1, 1, 20), 12)
    before = matrix.copy()
    start = np.arange(20)
    leftmost_eigenpair(matrix, start=start)
    assert np.array_equal(matrix, before)
    assert np.array_equal(start, np.arange(20))

    def careless(x):
        y = matrix @ x
        x[:] = np.nan
        return y

    assert_same_bits(leftmost_eigenpair(careless, 20), leftmost_eigenpair(lambda x: matrix @ x, 20))


def test_sparse_duplicates_are_summed_without_touching_the_input():
    """A CSR matrix with duplicate entries is symmetric after summing, and stays as it was."""
    matrix = scipy.sparse.csr_array(
        (np.array([1.0, 1.0, 2.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2)
    )
    assert leftmost_eigenpair(matrix).ritz_value == pytest.approx(-2.0, abs=1e-14)
    assert matrix.nnz == 3


def test_seed_decides_the_bits():
    """Same seed, same bits; a Generator in the same state as well; another seed differs."""
    matrix = symmetric(np.linspace(-1, 1, 50), 13)
    first = leftmost_eigenpair(matrix, seed=3)
    assert_same_bits(first, leftmost_eigenpair(matrix, seed=3))
    assert_same_bits(first, leftmost_eigenpair(matrix, seed=np.random.default_rng(3)))
    assert first.vector.tobytes() != leftmost_eigenpair(matrix, seed=4).vector.tobytes()


def test_threads_do_not_change_the_bits():
    """BLAS threads, and Python threads beside each other, leave every bit as it is."""
    script = """
import hashlib, numpy, scipy.sparse
from derand_fast.kernels.lanczos import leftmost_eigenpair
diagonal = scipy.sparse.diags(numpy.linspace(-1, 1, 20_001), format="csr")
result = leftmost_eigenpair(diagonal, eps=1.05, seed=1)
print(result.status, hashlib.sha256(result.vector.tobytes()).hexdigest(), result.lambda_min_lower)
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-P", "-c", script],
            env=os.environ | {"OPENBLAS_NUM_THREADS": count, "OMP_NUM_THREADS": count},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for count in ("1", "2")
    ]
    assert outputs[0].startswith("certified")
    assert outputs[0] == outputs[1]
    operator = COperator(path_product.address, 2000, owner=path_product)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: leftmost_eigenpair(operator, eps=0.02), range(4)))
    for result in results[1:]:
        assert_same_bits(result, results[0])


def test_signals_reach_a_run_of_a_c_operator():
    """Python's signal handlers run between rounds of products, so Ctrl-C works without the GIL."""

    def interrupt(number, frame):
        raise KeyboardInterrupt("from the handler")

    operator = COperator(path_product.address, 100_000, owner=path_product)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt, match="from the handler"):
            leftmost_eigenpair(operator, tol=0.0, max_products=1500)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["random", "indefinite", "path", "clustered"])
def test_needs_no_more_products_than_eigsh(name):
    """At the accuracy eigsh reaches with its default basis, ours needs no more products."""
    matrix = scipy.linalg.block_diag(OPERATORS[name], 3 * np.eye(5))
    smallest = np.linalg.eigvalsh(matrix)[0]
    calls = []

    def product(x):
        calls.append(1)
        return matrix @ x

    linear = LinearOperator(matrix.shape, matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(matrix))
    value = scipy.sparse.linalg.eigsh(linear, k=1, which="SA", tol=1e-3, v0=start)[0][0]
    ours = leftmost_eigenpair(matrix, max_products=len(calls), tol=0.0)
    # The full Krylov space of as many products holds every restarted one of the same start; the
    # starts differ here, which a factor of two covers.
    assert ours.ritz_value - smallest <= 2 * abs(value - smallest) + dense_tolerance(matrix)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, StopIteration])
def test_exceptions_of_the_callable_come_out_unchanged(error):
    """The very object raised in the operator is the one the caller sees."""
    raised = error("from the operator")
    calls = []

    def product(x):
        calls.append(1)
        if len(calls) == 3:
            raise raised
        return np.arange(10.0) * x

    with pytest.raises(error) as caught:
        leftmost_eigenpair(product, 10)
    assert caught.value is raised
    assert len(calls) == 3


def test_non_finite_product_is_named():
    """The message says which product went wrong."""
    calls = []

    def product(x):
        calls.append(1)
        y = np.arange(10.0) * x
        if len(calls) == 4:
            y[3] = np.nan
        return y

    with pytest.raises(ValueError, match="product 4 with the operator is not finite"):
        leftmost_eigenpair(product, 10)


ONES = np.ones((3, 3))


@pytest.mark.parametrize(
    ("operator", "arguments", "error", "message"),
    [
        (np.ones((2, 3)), {}, ValueError, r"square.*\(2, 3\)"),
        (np.ones(3), {}, ValueError, "square"),
        (np.ones((0, 0)), {}, ValueError, "n >= 1"),
        (np.array([[0.0, 1.0], [2.0, 0.0]]), {}, ValueError, r"entry \(0, 1\) is 1.0.*2.0"),
        (scipy.sparse.csr_array([[0.0, 1.0], [2.0, 0.0]]), {}, ValueError, r"entry \(0, 1\)"),
        (scipy.sparse.csr_array((2, 3)), {}, ValueError, "square"),
        (np.array([[np.nan]]), {}, ValueError, "finite"),
        (scipy.sparse.csr_array([[np.inf]]), {}, ValueError, "finite"),
        (ONES * 1j, {}, TypeError, "complex128"),
        (ONES.astype(object), {}, TypeError, "object"),
        (scipy.sparse.csr_array(ONES * 1j), {}, TypeError, "complex128"),
        (LinearOperator((3, 3), matvec=lambda x: x, dtype=complex), {}, TypeError, "complex128"),
        (LinearOperator((2, 3), matvec=lambda x: x[:2], dtype=float), {}, ValueError, "square"),
        (lambda x: x * 1j, {"n": 3}, TypeError, "complex128"),
        (lambda x: x[:2], {"n": 3}, ValueError, r"\(3,\), got \(2,\)"),
        (lambda x: 1.0, {"n": 3}, ValueError, r"\(3,\), got \(\)"),
        (lambda x: x, {}, ValueError, "n must be given"),
        ((1, 0), {}, ValueError, "n must be given"),
        ((0, 0), {"n": 3}, ValueError, "address"),
        ((1, 0, 0), {"n": 3}, ValueError, "3 items"),
        (lambda x: x, {"n": 0}, ValueError, "n must be at least 1, got 0"),
        (lambda x: x, {"n": 2.0}, TypeError, "float"),
        (ONES, {"n": 4}, ValueError, "dimension 3.*got 4"),
        ("matrix", {"n": 4}, TypeError, "str"),
        (ONES, {"delta": 0.0}, ValueError, r"delta must be in \(0, 1\), got 0.0"),
        (ONES, {"delta": 1.0}, ValueError, "delta"),
        (ONES, {"delta": float("nan")}, ValueError, "delta"),
        (ONES, {"eps": -1e-3}, ValueError, "eps.*-0.001"),
        (ONES, {"eps": float("nan")}, ValueError, "eps"),
        (ONES, {"threshold": float("inf")}, ValueError, "threshold"),
        (ONES, {"threshold": -1.0, "eps": 0.5}, ValueError, "threshold must be at least -eps"),
        (ONES, {"tol": -1.0}, ValueError, "tol"),
        (ONES, {"max_products": 0}, ValueError, "max_products must be at least 1, got 0"),
        (ONES, {"max_memory": 40}, ValueError, "max_memory.*48 bytes"),
        (ONES, {"start": np.ones(2)}, ValueError, r"start must have shape \(3,\)"),
        (ONES, {"start": np.zeros(3)}, ValueError, "start"),
        (ONES, {"start": np.full(3, np.nan)}, ValueError, "start"),
        (ONES, {"start": np.ones(3) * 1j}, TypeError, "start"),
    ],
)
def test_bad_input_is_named(operator, arguments, error, message):
    """Each wrong input gets an error with the value and the rule."""
    with pytest.raises(error, match=message):
        leftmost_eigenpair(operator, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((0, 3), ValueError), ((1, 0), ValueError), ((1, 3, -1), ValueError), ((1.5, 3), TypeError)],
)
def test_bad_c_operator_is_rejected(arguments, error):
    """COperator checks its numbers."""
    with pytest.raises(error):
        COperator(*arguments)


def test_docstring_examples_run():
    """The examples in the docstrings are true."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner()
    for name in lanczos.__all__:
        for example in finder.find(getattr(lanczos, name), name, globs=vars(lanczos).copy()):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


CALLER = """
from libc.stdlib cimport free, malloc
from derand_fast.kernels.lanczos cimport *

cdef int negate_last(const double* x, double* y, Py_ssize_t n, void* context) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = x[i] * (-1.0 if i == n - 1 else <double> i)
    return 1

def smallest(double[::1] start):
    cdef Py_ssize_t n = start.shape[0], i
    cdef LanczosState state
    cdef double* memory = <double*> malloc(
        8 * (lanczos_basis_size(n, n + 1) + lanczos_scratch_size(n + 1) + n)
    )
    cdef double* scratch = memory + lanczos_basis_size(n, n + 1)
    cdef int code
    with nogil:
        lanczos_initialise(&state, n, n, 1e-6, 1e-8, False)
        lanczos_bind(&state, memory, scratch, n + 1)
        code = LANCZOS_NEED_START
        while code == LANCZOS_NEED_START:
            for i in range(n):
                lanczos_start_row(&state)[i] = start[i]
            lanczos_accept_start(&state)
            code = lanczos_run(&state, negate_last, NULL, 1 << 30)
        lanczos_finish(&state, scratch + lanczos_scratch_size(n + 1))
    free(memory)
    return code == LANCZOS_EXACT, state.ritz_value
"""

BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
setup(
    name="caller",
    script_args=["build_ext", "--inplace", "-q"],
    ext_modules=cythonize(
        [Extension("caller", ["caller.pyx"], extra_compile_args=["-O0"])],
        include_path=["pxd"], language_level=3, quiet=True,
    ),
)
"""


def test_other_cython_modules_can_cimport_the_core(tmp_path):
    """Build a small extension against the shipped .pxd and run the core in it without the GIL."""
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    # An editable install hides the package folder from Cython, so the declarations are staged.
    stage = tmp_path / "pxd" / "derand_fast" / "kernels"
    stage.mkdir(parents=True)
    for folder in (stage, stage.parent):
        (folder / "__init__.pxd").touch()
    declarations = Path(lanczos.__file__).with_name("lanczos.pxd")
    if not declarations.exists():
        pytest.skip("the .pxd does not lie beside the extension module")
    shutil.copy(declarations, stage)
    (tmp_path / "caller.pyx").write_text(textwrap.dedent(CALLER))
    (tmp_path / "build.py").write_text(BUILD)
    built = subprocess.run(
        [sys.executable, "build.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    script = "import numpy, caller; print(*caller.smallest(numpy.arange(1.0, 9.0)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    exact, value = done.stdout.split()
    assert exact == "True"
    # Eight eigenvalues of size 8 at most.
    assert abs(float(value) + 1.0) <= 64 * UNIT
