"""Bits do not depend on where arrays lie in memory.

LLVM guards a vectorised loop that reads some arrays and writes others by a question at run time: do
they overlap? It asks cautiously: an output that begins shortly behind an input counts as
overlapping, and the loop then goes one by one. That must not show in the results.
"""

import ast
import itertools
from pathlib import Path

import numba
import numpy as np
import pytest

from derand_fast import kernels
from derand_fast.generators import random_graph
from derand_fast.kernels import expectation, jl, network, row_ascent
from derand_fast.kernels import smoothed_cut as cut
from derand_fast.kernels.calls import pointer
from derand_fast.kernels.maxcut import mixing_sweeps, sdp_dual
from derand_fast.kernels.quadrature import gauss_hermite
from derand_fast.kernels.row_ascent import dual_rows, mixing_rows

SOURCES = sorted(Path(kernels.__file__).parent.glob("*.py"))
# Numbers between the end of one array and the start of the next.
GAPS = (0, 1, 5, 12, 27)


def bytes_of(arguments, result):
    return [a.tobytes() for a in arguments if isinstance(a, np.ndarray)], repr(result)


def copies(arguments, pair=(), gap=0):
    """Copies of the arrays, far from each other but for a pair of which the second follows."""
    placed = list(arguments)
    for position, array in enumerate(arguments):
        if isinstance(array, np.ndarray):
            alone = np.empty(array.nbytes + 16384, np.uint8)[8192:][: array.nbytes]
            placed[position] = alone.view(array.dtype).reshape(array.shape)
    if pair:
        first, second = (arguments[position] for position in pair)
        start = (-(-first.nbytes // second.itemsize) + gap) * second.itemsize
        both = np.empty(start + second.nbytes, np.uint8)
        placed[pair[0]] = both[: first.nbytes].view(first.dtype).reshape(first.shape)
        placed[pair[1]] = both[start:].view(second.dtype).reshape(second.shape)
    for old, new in zip(arguments, placed, strict=True):
        if isinstance(old, np.ndarray):
            new[...] = old
    return placed


def assert_place_does_not_matter(kernel, *arguments):
    """Each array in turn shortly behind each other one, against all of them far apart."""
    apart = copies(arguments)
    expected = bytes_of(apart, kernel(*apart))
    arrays = [i for i, argument in enumerate(arguments) if isinstance(argument, np.ndarray)]
    for pair in itertools.permutations(arrays, 2):
        for gap in GAPS:
            close = copies(arguments, pair, gap)
            assert bytes_of(close, kernel(*close)) == expected, (pair, gap)


# --- loops that sum, beside stores ---------------------------------------------------------------


@numba.njit
def pair_differences(Y, i, j, out):
    return jl._pair_differences(Y, i, j, out)


@numba.njit
def gradient_terms(t, inverse, rows, coefficients):
    return jl._gradient_terms(5, t, inverse, rows, coefficients)


@numba.njit
def product_coefficients(t, dt, inverse, rows, coefficients, changes):
    jl._product_coefficients(5, t, dt, 0.3, inverse, rows, coefficients, changes)


@numba.njit
def blend(gradient, row):
    row_ascent._blend(np.float32(-1.3), gradient, np.float32(-0.7), row)


@pytest.mark.parametrize("k", [4, 6, 7, 50])
def test_pair_differences(k):
    """The last row with all others: each sum has some chance only of another last bit."""
    Y = np.random.default_rng(k).normal(size=(30, k))
    for i in range(29):
        assert_place_does_not_matter(pair_differences, Y, i, 29, np.empty(k))


def test_sums_over_pairs():
    rng = np.random.default_rng(0)
    t, inverse = rng.uniform(0.5, 2.0, (2, 21))
    rows = rng.normal(size=(jl.ROWS, 21))
    assert_place_does_not_matter(gradient_terms, t, inverse, rows, np.empty(21))
    changes = np.empty(21), np.empty(21)
    dt = rng.normal(size=21)
    assert_place_does_not_matter(product_coefficients, t, dt, inverse, rows, *changes)


def test_rows_of_the_semidefinite_program():
    rng = np.random.default_rng(0)
    gradient, row = rng.normal(size=(2, 48)).astype(np.float32)
    assert_place_does_not_matter(blend, gradient, row)

    graph = random_graph(12, 30, seed=1, weights="signs")
    arrays = graph.indptr, graph.indices, graph.weights.astype(np.float32)
    rows = rng.normal(size=(12, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert_place_does_not_matter(mixing_sweeps, *arrays, rows, 2)
    flat, decreases = rows.ravel(), np.empty(12)
    assert_place_does_not_matter(mixing_rows, *arrays, flat, 1, 1.4, 0, 12, decreases)

    weights, dual, norms = graph.weights, np.empty(12), np.ones(12)
    outputs = dual, np.empty(12)
    csr = graph.indptr, graph.indices, weights
    assert_place_does_not_matter(sdp_dual, *csr, rows, norms, dual)
    assert_place_does_not_matter(dual_rows, *csr, flat, 16, norms, 0, 12, *outputs)


# --- loops with sums of two products, of which either could be fused ------------------------------


@numba.njit
def lower_products(back, back_tangent, slope, turn):
    inputs = pointer(back, 0), pointer(back_tangent, 0)
    network._lower_products(back.size, *inputs, pointer(slope, 0), pointer(turn, 0))


@numba.njit
def last_products(c, c_tangent, w, w_direction, slope, turn):
    factors = pointer(c, 0), pointer(c_tangent, 0), pointer(w, 0), pointer(w_direction, 0)
    network._last_products(c.size, w.size, *factors, pointer(slope, 0), pointer(turn, 0))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_network_entries(dtype):
    rng = np.random.default_rng(0)
    assert_place_does_not_matter(lower_products, *rng.normal(size=(4, 37)).astype(dtype))
    of_nodes, of_units = rng.normal(size=(2, 3)).astype(dtype), rng.normal(size=(2, 21))
    entries = rng.normal(size=(2, 63)).astype(dtype)
    assert_place_does_not_matter(last_products, *of_nodes, *of_units.astype(dtype), *entries)


def test_hessian_products_of_the_smoothed_cut():
    rng = np.random.default_rng(0)
    graph, n, p = random_graph(6, 9, seed=1, weights="signs"), 6, 13
    point = graph.indptr, graph.indices, graph.weights, rng.normal(size=(n, p)), rng.normal(size=n)
    direction, out = (rng.normal(size=(n, p)), rng.normal(size=n)), (np.empty((n, p)), np.empty(n))
    scratch = np.zeros((n, cut.VERTEX_COLUMNS)), np.zeros((n, cut.RATE_COLUMNS))
    exact = cut.smoothed_cut_hessian_product_serial
    assert_place_does_not_matter(exact, *point, 0.5, 0.1, *direction, *scratch, *out)
    by_rule = cut.gauss_hermite_cut(cut.erf_sign).hessian_product
    assert_place_does_not_matter(by_rule, *point, 0.5, 0.1, *gauss_hermite(4), *direction, *out)


@pytest.mark.parametrize("by_column", [False, True])
def test_affine(by_column):
    rng = np.random.default_rng(0)
    h, d = 19, 23
    M = rng.normal(size=(d, h) if by_column else (h, d))
    arrays = rng.normal(size=d), rng.normal(size=h), np.empty(h)
    assert_place_does_not_matter(expectation.affine, by_column, M, *arrays)


# --- the rule, in the sources ---------------------------------------------------------------------


def reordered_kernels(tree):
    """Functions compiled with leave to add up in any order."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                for keyword in getattr(decorator, "keywords", ()):
                    if keyword.arg == "fastmath" and ast.unparse(keyword.value) == "True":
                        yield node


def sums_and_stores(loop):
    """Whether it adds to a variable, and whether it writes to an array."""
    changes = [node for node in ast.walk(loop) if isinstance(node, ast.AugAssign)]
    writes = [node for node in ast.walk(loop) if isinstance(node, ast.Assign)]
    targets = [node.target for node in changes] + [t for node in writes for t in node.targets]
    sums = any(isinstance(node.target, ast.Name) for node in changes)
    calls = [ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    stores = any(isinstance(target, ast.Subscript) for target in targets)
    return sums, stores or "store_scaled_row" in calls


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_sum_beside_a_store(path):
    """See FASTMATH in _jit: a sum may be vectorised only where nothing can seem to overlap."""
    for function in reordered_kernels(ast.parse(path.read_text("utf-8"))):
        for loop in ast.walk(function):
            innermost = isinstance(loop, ast.For) and not any(
                isinstance(node, ast.For) for child in loop.body for node in ast.walk(child)
            )
            if innermost:
                assert sums_and_stores(loop) != (True, True), (function.name, loop.lineno)


def test_the_rule_finds_such_loops():
    source = """
@kernel(fastmath=True)
def both(a, out):
    total = 0.0
    for i in range(a.size):
        total += a[i]
        out[i] = a[i]
"""
    (function,) = reordered_kernels(ast.parse(source))
    assert sums_and_stores(function.body[1]) == (True, True)
    assert sum(1 for p in SOURCES for _ in reordered_kernels(ast.parse(p.read_text("utf-8")))) > 10
