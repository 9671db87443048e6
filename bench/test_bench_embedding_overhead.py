"""What compiled callers pay: a Lanczos step by kind of operator, C kernels beside Numba's.

Run with ``pytest bench/test_bench_embedding_overhead.py --benchmark-only``.

- A Lanczos step on a diagonal operator of 64 numbers, whose products cost some 10 ns, so that the
  rows differ by the road to the operator: C pointer (compiled by cc), Numba cfunc, Python callable,
  scipy LinearOperator. Comparator: scipy's eigsh (ARPACK) with the same LinearOperator.
  ``extra_info`` has nanoseconds per product.
- The road alone: 10^4 products of one number, called by address from a compiled loop, or in Python.
- Local search, row ascent and Gauss-Hermite sums: the C functions of ``derand_fast.callables``
  beside the Numba kernels.
"""

import ctypes
import os
import shutil
import subprocess

import numba
import numpy as np
import pytest
from numba import types
from scipy.integrate import quad
from scipy.sparse.linalg import LinearOperator, eigsh

from derand_fast.callables import address, low_level_callable
from derand_fast.generators import random_graph
from derand_fast.kernels import maxcut
from derand_fast.kernels.activations import ACTIVATIONS, activation_at
from derand_fast.kernels.lanczos import COperator, leftmost_eigenpair
from derand_fast.kernels.quadrature import gauss_hermite

# Which of the values that are compared are ours, for `harness.cases`.
OURS = ("c pointer", "numba cfunc", "c")
N = 64
PRODUCTS = 40
CALLS = 10_000
DIAGONAL = np.linspace(-1.0, 1.0, N) ** 3
PRODUCT = types.int32(
    types.CPointer(types.float64), types.CPointer(types.float64), types.intp, types.voidptr
)
SOURCE = """
#include <stddef.h>
int diagonal_product(const double *x, double *y, ptrdiff_t n, void *context) {
    const double *diagonal = context;
    for (ptrdiff_t i = 0; i < n; i++) y[i] = diagonal[i] * x[i];
    return 1;
}
"""


@numba.cfunc(PRODUCT)
def diagonal_cfunc(x, y, n, context):
    """Multiply by the diagonal that the context points to."""
    diagonal = numba.carray(context, (n,), np.float64)
    for i in range(n):
        y[i] = diagonal[i] * x[i]
    return 1


@pytest.fixture(scope="module")
def c_function(tmp_path_factory):
    """Address of the same product in C, and what keeps it alive."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("c")
    (folder / "product.c").write_text(SOURCE)
    command = [*compiler, "-O3", "-shared", "-fPIC", "product.c", "-o", "product.so"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "product.so"))
    return ctypes.cast(library.diagonal_product, ctypes.c_void_p).value, library


def multiply(x):
    """The product in numpy."""
    return DIAGONAL * x.ravel()


def per_unit(benchmark, count):
    """Put nanoseconds per product or entry beside the time (none under --benchmark-disable)."""
    if benchmark.stats is not None:
        benchmark.extra_info["ns each"] = round(benchmark.stats["min"] / count * 1e9, 1)


# --- a step of Lanczos ----------------------------------------------------------------------------


@pytest.mark.benchmark(group=f"lanczos, {PRODUCTS} steps, n = {N}")
@pytest.mark.parametrize("kind", ["c pointer", "numba cfunc", "python callable", "LinearOperator"])
def test_lanczos_step(benchmark, kind, request):
    if kind == "c pointer":
        pointer, library = request.getfixturevalue("c_function")
        operator = COperator(pointer, N, DIAGONAL.ctypes.data, library)
    elif kind == "numba cfunc":
        operator = COperator(diagonal_cfunc.address, N, DIAGONAL.ctypes.data)
    elif kind == "python callable":
        operator = multiply
    else:
        operator = LinearOperator((N, N), matvec=multiply, dtype=np.float64)
    options = {"n": N, "tol": 0.0, "max_products": PRODUCTS, "seed": 0}
    result = leftmost_eigenpair(operator, **options)
    assert result.n_products == PRODUCTS
    benchmark(leftmost_eigenpair, operator, **options)
    per_unit(benchmark, PRODUCTS)


@pytest.mark.benchmark(group=f"lanczos, {PRODUCTS} steps, n = {N}")
def test_lanczos_step_eigsh(benchmark):
    """ARPACK with a basis of as many vectors and no restart; it makes one product more."""
    count = [0]

    def product(x):
        count[0] += 1
        return multiply(x)

    operator = LinearOperator((N, N), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(N)

    def run():
        count[0] = 0
        return eigsh(operator, k=1, which="SA", ncv=PRODUCTS, tol=1e-3, v0=start)

    run()
    benchmark(run)
    benchmark.extra_info["products"] = count[0]
    per_unit(benchmark, count[0])


# --- the road to the operator ---------------------------------------------------------------------


@pytest.mark.benchmark(group=f"{CALLS} products of one number")
@pytest.mark.parametrize("kind", ["c pointer", "numba cfunc", "python callable"])
def test_call(benchmark, kind, request):
    """A compiled loop calls by address; Python's row has the callback of Lanczos around it."""
    x, y = np.ones(N), np.zeros(N)
    if kind == "python callable":
        # In Lanczos: a copy of x, the call, a check and a copy of what it returns.
        def loop():
            for _ in range(CALLS):
                y[:] = multiply(x.copy())

    else:
        pointer = diagonal_cfunc.address
        if kind == "c pointer":
            pointer, _library = request.getfixturevalue("c_function")
        loop = compiled_loop(pointer, x, y)
    loop()
    np.testing.assert_array_equal(y[0], DIAGONAL[0])
    benchmark(loop)
    per_unit(benchmark, CALLS)


def compiled_loop(pointer, x, y):
    """Return a function that makes CALLS calls of an address from machine code."""
    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_void_p
    )(pointer)

    @numba.njit
    def loop(x, y, context):
        done = 0
        for _ in range(CALLS):
            done += prototype(x, y, 1, context)
        return done

    places = x.ctypes.data, y.ctypes.data, DIAGONAL.ctypes.data
    return lambda: loop(*places)


# --- C kernels beside Numba's ---------------------------------------------------------------------

GRAPHS = {
    "G(800, 19176)": random_graph(800, 19_176, seed=1),
    "G(10000, 20000)": random_graph(10_000, 20_000, seed=1),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)
BOTH = pytest.mark.parametrize("road", ["c", "numba"])
SIZE, POINTER, DOUBLE = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_double


def bound(name, kinds, *arguments):
    """Return a call of a C function with everything converted; it must succeed."""
    function = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(address(name))
    values = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]

    def run():
        assert function(*values) == 1

    return run


@EVERY_GRAPH
@BOTH
def test_local_search(benchmark, name, road):
    """Gains, ascent from random signs, and the value."""
    benchmark.group = f"local search, {name}"
    graph = GRAPHS[name]
    arrays, n = (graph.indptr, graph.indices, graph.weights), graph.n_vertices
    start = np.random.default_rng(0).choice(np.array([-1, 1], np.int8), n)
    signs, gains, value = start.copy(), np.empty(n), np.zeros(1)
    head = SIZE, POINTER, POINTER, POINTER, POINTER
    steps = (
        bound("cut_flip_gains", (*head, POINTER), n, *arrays, signs, gains),
        bound(
            *("cut_one_flip_ascent", (*head, POINTER, DOUBLE, SIZE, POINTER)),
            *(n, *arrays, signs, gains, 1e-9, 10**9, None),
        ),
        bound("cut_value", (*head, POINTER), n, *arrays, signs, value),
    )

    def c():
        signs[:] = start
        for step in steps:
            step()

    def numba_kernels():
        signs[:] = start
        maxcut.flip_gains(*arrays, signs, gains)
        maxcut.one_flip_ascent(*arrays, signs, gains, 1e-9)
        value[0] = maxcut.cut_value(*arrays, signs)

    run = c if road == "c" else numba_kernels
    run()
    benchmark(run)
    benchmark.extra_info["cut"] = value[0]


@EVERY_GRAPH
@BOTH
@pytest.mark.parametrize("p", [8, 40, 143])
def test_mixing_sweep(benchmark, name, road, p):
    benchmark.group = f"mixing sweep, rank {p}, {name}"
    graph = GRAPHS[name]
    n, arrays = graph.n_vertices, (graph.indptr, graph.indices, graph.weights.astype(np.float32))
    rows = np.random.default_rng(0).normal(size=(n, p)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kinds = SIZE, POINTER, POINTER, POINTER, SIZE, POINTER, SIZE, POINTER, POINTER
    workspace = np.empty(p, np.float32)
    c = bound("cut_mixing_sweeps", kinds, n, *arrays, p, rows, 1, workspace, None)
    run = c if road == "c" else lambda: maxcut.mixing_sweeps(*arrays, rows, 1)
    run()
    benchmark(run)
    per_unit(benchmark, graph.indices.size)


@EVERY_GRAPH
@BOTH
def test_anneal_sweep(benchmark, name, road):
    benchmark.group = f"annealing sweep, {name}"
    graph = GRAPHS[name]
    n, arrays = graph.n_vertices, (graph.indptr, graph.indices, graph.weights.astype(np.float32))
    rows = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kinds = SIZE, POINTER, POINTER, POINTER, POINTER, POINTER, DOUBLE, SIZE
    smoothing = np.array([0.3])
    c = bound("cut_anneal_rows", kinds, n, *arrays, rows, smoothing, 1.0, 1)
    flat = rows.reshape(-1)
    run = c if road == "c" else lambda: maxcut.anneal_rows(*arrays, flat, 0.3, 1.0, 1)
    run()
    benchmark(run)
    per_unit(benchmark, graph.indices.size)


@numba.njit
def numba_mean(code, iota, mu, sigma, nodes, weights):
    """The sum with the activation compiled into it."""
    total = 0.0
    for q in range(nodes.size):
        total += weights[q] * activation_at(code, iota, mu + sigma * nodes[q])[0]
    return total


@pytest.mark.benchmark(group="E[smooth ReLU], 1024 nodes")
@pytest.mark.parametrize("road", ["c", "numba", "quad"])
def test_gauss_hermite_mean(benchmark, road):
    nodes, weights = gauss_hermite(1024)
    mean = np.zeros(1)
    kinds = POINTER, POINTER, DOUBLE, DOUBLE, SIZE, POINTER, POINTER, POINTER
    function = address("smooth_relu")
    c = bound("gauss_hermite_mean", kinds, function, None, 0.3, 0.7, 1024, nodes, weights, mean)
    code = ACTIVATIONS["smooth_relu"]
    integrand = low_level_callable("smooth_relu")
    run = {
        "c": c,
        "numba": lambda: numba_mean(code, 2.0, 0.3, 0.7, nodes, weights),
        "quad": lambda: quad(integrand, -8.0, 8.0, epsabs=1e-13, limit=200),
    }[road]
    run()
    benchmark(run)
    if road != "quad":
        per_unit(benchmark, 1024)
