"""Bits do not depend on where arrays lie in memory, nor on what was compiled or loaded before.

LLVM guards a vectorised loop that reads some arrays and writes others by a question at run time: do
they overlap? It asks cautiously: an output that begins shortly behind an input counts as
overlapping, and the loop then goes one by one. That must not show in the results.
"""

import ast
import functools
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest

from derand_fast import kernels
from derand_fast.generators import random_graph
from derand_fast.kernels import expectation, jl, network
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
    cut.prepare_vertices(0, n, *point[3:], 0.5, scratch[0])
    cut.prepare_rates(0, n, point[3], *direction, *scratch)
    graph_and_W = 0, n, *point[:4], 0.5, 0.1
    assert_place_does_not_matter(cut.product_rows, *graph_and_W, direction[0], *scratch, *out)
    by_rule = cut.gauss_hermite_cut(cut.erf_sign).hessian_product
    assert_place_does_not_matter(by_rule, *point, 0.5, 0.1, *gauss_hermite(4), *direction, *out)


@pytest.mark.parametrize("by_column", [False, True])
def test_affine(by_column):
    rng = np.random.default_rng(0)
    h, d = 19, 23
    M = rng.normal(size=(d, h) if by_column else (h, d))
    arrays = rng.normal(size=d), rng.normal(size=h), np.empty(h)
    assert_place_does_not_matter(expectation.affine, by_column, M, *arrays)


# --- the rules, in the sources --------------------------------------------------------------------


class Kernel(NamedTuple):
    """A kernel as it is written: the options of its decorator, its body, what it calls by name."""

    path: Path
    options: dict[str, str]
    body: ast.FunctionDef
    calls: set[str]

    @property
    def is_reordered(self):
        """Whether it may add up in any order."""
        return self.options["fastmath"] == "True"

    @property
    def is_inlined(self):
        return "inline" in self.options or "insert" in self.options


def kernels_in(path, source):
    """Every function with our decorator."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "kernel":
                    options = {k.arg: ast.unparse(k.value) for k in decorator.keywords}
                    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
                    names = {f.id for f in calls if isinstance(f, ast.Name)}
                    yield Kernel(path, options, node, names)


@functools.cache
def every_kernel():
    return [k for path in SOURCES for k in kernels_in(path, path.read_text("utf-8"))]


def sums_and_stores(loop):
    """Whether it adds to a variable, and whether it writes to an array."""
    changes = [node for node in ast.walk(loop) if isinstance(node, ast.AugAssign)]
    writes = [node for node in ast.walk(loop) if isinstance(node, ast.Assign)]
    targets = [node.target for node in changes] + [t for node in writes for t in node.targets]
    sums = any(isinstance(node.target, ast.Name) for node in changes)
    calls = [ast.unparse(node.func) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    stores = any(isinstance(target, ast.Subscript) for target in targets)
    return sums, stores or "store_scaled_row" in calls


def innermost_loops(body):
    for loop in ast.walk(body):
        if isinstance(loop, ast.For):
            inner = (node for child in loop.body for node in ast.walk(child))
            if not any(isinstance(node, ast.For) for node in inner):
                yield loop


def test_no_sum_beside_a_store():
    """A sum may be vectorised only where nothing can seem to overlap: see ``kernel``."""
    reordered = [k for k in every_kernel() if k.is_reordered]
    assert len(reordered) > 10
    for kernel in reordered:
        for loop in innermost_loops(kernel.body):
            assert sums_and_stores(loop) != (True, True), (kernel.body.name, loop.lineno)


def test_the_rule_finds_such_loops():
    source = """
@kernel(fastmath=True)
def both(a, out):
    total = 0.0
    for i in range(a.size):
        total += a[i]
        out[i] = a[i]
"""
    (kernel,) = kernels_in(Path("a.py"), source)
    assert kernel.is_reordered
    assert [sums_and_stores(loop) for loop in innermost_loops(kernel.body)] == [(True, True)]


def test_what_kernels_share_is_inlined_or_exact():
    """A kernel with leave to round in several ways must not be one symbol of several machine codes.

    Else the first that is loaded serves all: one code in the process that compiles, another in
    those that load from disk. Callers that are never kept on disk find the callee's own.
    """
    by_name = {}
    for kernel in every_kernel():
        by_name.setdefault(kernel.body.name, []).append(kernel)

    def is_exact(kernel):
        inlined = [k for name in kernel.calls for k in by_name.get(name, ()) if k.is_inlined]
        return kernel.options["fastmath"] == "False" and all(map(is_exact, inlined))

    shared = 0
    for caller in every_kernel():
        for name in caller.calls if "cache" not in caller.options else ():
            for callee in by_name.get(name, ()):
                shared += not callee.is_inlined
                assert callee.is_inlined or is_exact(callee), (caller.body.name, name)
    assert shared > 10


# --- compiled here or loaded from disk ------------------------------------------------------------

TABLE = """
import numpy as np
from derand_fast.kernels import jl
table = np.empty((40, jl.DEGREE + 1, 8))
jl.fill_table(7, 0.05, 0.6, 1.4, 0.77, -0.77, 0.1, table)
print(table.tobytes().hex())
"""


def test_compiled_and_loaded_kernels_agree(tmp_path):
    """Of 5,120 coefficients 171 differed in the last bits."""
    settings = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    tables = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-P", "-c", TABLE],
            env=settings,
            capture_output=True,
            text=True,
            check=True,
        )
        tables.append(np.frombuffer(bytes.fromhex(run.stdout)))
        assert list(tmp_path.rglob("jl.fill_table*")), "compiled, and kept"
    assert np.count_nonzero(tables[0]) > 1000
    np.testing.assert_array_equal(*tables)
