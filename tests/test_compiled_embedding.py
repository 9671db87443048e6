"""Compiled callers: C functions by address, low-level callables, stable kernels, examples."""

import ctypes
import functools
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import naive
import numba
import numpy as np
import pytest
from numba import types
from scipy import ndimage
from scipy.integrate import quad
from scipy.special import roots_hermitenorm

from derand_fast import callables
from derand_fast.callables import (
    STABLE_KERNELS,
    address,
    c_signature,
    function_names,
    low_level_callable,
    network_plan,
)
from derand_fast.generators import random_graph
from derand_fast.kernels import cuts, matmul, maxcut, special
from derand_fast.kernels.activations import ACTIVATIONS, activation_at, apply_activation
from derand_fast.kernels.embedded_network import network_value_and_gradient, network_workspace
from derand_fast.kernels.losses import LOSSES, loss_terms
from derand_fast.kernels.matmul import multiply, workspace_size
from derand_fast.kernels.quadrature import gauss_hermite
from derand_fast.kernels.smoothed_cut import (
    RATE_COLUMNS,
    VERTEX_COLUMNS,
    gradient_rows,
    prepare_rates,
    prepare_vertices,
    product_rows,
    shifted_hessian_bb_product,
    sum_in_blocks,
    value_rows,
)
from derand_fast.objectives.node_risk import NodeRisk

UNIT = 2.0**-53
UNIT32 = 2.0**-24
LANES = 8
EXAMPLES = Path(__file__).parents[1] / "examples"

SIZE, POINTER, DOUBLE = ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_double
NUMBER = ctypes.CFUNCTYPE(DOUBLE, DOUBLE, POINTER)
VECTOR = ctypes.CFUNCTYPE(DOUBLE, ctypes.c_int, POINTER, POINTER)
WINDOW = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, SIZE, POINTER, POINTER)
LINE = ctypes.CFUNCTYPE(ctypes.c_int, POINTER, SIZE, POINTER, SIZE, POINTER)
GRAPH = SIZE, POINTER, POINTER, POINTER
ARGUMENTS = {
    "cut_flip_gains": (*GRAPH, POINTER, POINTER),
    "cut_one_flip_ascent": (*GRAPH, POINTER, POINTER, DOUBLE, SIZE, POINTER),
    "cut_value": (*GRAPH, POINTER, POINTER),
    "cut_mixing_sweeps": (*GRAPH, SIZE, POINTER, SIZE, POINTER, POINTER),
    "cut_anneal_rows": (*GRAPH, POINTER, POINTER, DOUBLE, SIZE),
    "cut_round_rows": (SIZE, SIZE, POINTER, POINTER, POINTER),
    "gauss_hermite_rule": (SIZE, POINTER, POINTER, POINTER),
    "gauss_hermite_mean": (POINTER, POINTER, DOUBLE, DOUBLE, SIZE, POINTER, POINTER, POINTER),
    "gauss_hermite_tensor_mean": (
        *(POINTER, POINTER, SIZE, SIZE, POINTER, POINTER, SIZE, POINTER, POINTER, SIZE),
        *(POINTER, POINTER),
    ),
}
LENGTHS = {
    "cut_mixing_workspace": (SIZE,),
    "gauss_hermite_rule_workspace": (SIZE,),
    "gauss_hermite_tensor_workspace": (SIZE, SIZE, SIZE),
}


def call(name, *arguments):
    """Call a C function by its address; arrays are passed as pointers."""
    result = SIZE if name in LENGTHS else ctypes.c_int
    function = ctypes.CFUNCTYPE(result, *{**ARGUMENTS, **LENGTHS}[name])(address(name))
    return function(*(a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments))


def random_edges(n, density, seed):
    """Weights of either sign; the last vertex is isolated."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(n - 1), 2) if rng.random() < density]
    return n, [
        (i, j, float(w)) for (i, j), w in zip(pairs, rng.normal(size=len(pairs)), strict=True)
    ]


GRAPHS = {
    "random": random_edges(20, 0.3, 0),
    "dense": random_edges(33, 1.0, 1),
    "star": (9, [(0, i, -0.5 * i) for i in range(1, 9)]),
    "edge": (2, [(0, 1, 0.75)]),
    "edgeless": (3, []),
    "none": (0, []),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def csr(name):
    """Return (n, indptr, indices, weights), read-only."""
    n, edges = GRAPHS[name]
    arrays = naive.csr_from_edges(n, edges)
    for array in arrays:
        array.flags.writeable = False
    return n, *arrays


def unit_rows(n, p, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, p))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_signs(n, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), n)


@pytest.fixture(params=[0, 1, 2])
def instruction_set(request):
    """Each set of loops that this processor has."""
    if cuts._use_instruction_set(request.param) != request.param:
        cuts._use_instruction_set(2)
        pytest.skip("the processor has no such instructions")
    yield
    cuts._use_instruction_set(2)


# --- local search ---------------------------------------------------------------------------------


@EVERY_GRAPH
def test_local_search_has_the_bits_of_the_kernels(name):
    n, *arrays = csr(name)
    signs, gains = random_signs(n), np.full(n, np.nan)
    assert call("cut_flip_gains", n, *arrays, signs, gains) == 1
    expected_signs, expected_gains = signs.copy(), np.empty(n)
    maxcut.flip_gains(*arrays, signs, expected_gains)
    np.testing.assert_array_equal(gains, expected_gains)

    flips, value = np.full(1, -1), np.full(1, np.nan)
    code = call("cut_one_flip_ascent", n, *arrays, signs, gains, 1e-9, 10**6, flips)
    expected = maxcut.one_flip_ascent(*arrays, expected_signs, expected_gains, 1e-9)
    assert (code, flips[0]) == (1, expected)
    np.testing.assert_array_equal(signs, expected_signs)
    np.testing.assert_array_equal(gains, expected_gains)
    assert gains.max(initial=0.0) <= 1e-9
    assert call("cut_value", n, *arrays, signs, value) == 1
    assert value[0] == maxcut.cut_value(*arrays, signs)
    assert value[0] == pytest.approx(naive.cut_value(*arrays, signs), abs=1e-12)  # 600 roundings


def test_flip_limit_stops_and_goes_on():
    n, *arrays = csr("dense")
    signs, gains, flips = random_signs(n, 3), np.empty(n), np.zeros(1, np.intp)
    call("cut_flip_gains", n, *arrays, signs, gains)
    before = naive.cut_value(*arrays, signs)
    codes = []
    while not codes or codes[-1] == 0:
        codes.append(call("cut_one_flip_ascent", n, *arrays, signs, gains, 1e-9, 2, flips))
        after = naive.cut_value(*arrays, signs)
        assert flips[0] == 2 or codes[-1] == 1
        assert after > before or flips[0] == 0
        before = after
    assert len(codes) > 2
    assert codes[-1] == 1
    assert gains.max() <= 1e-9


# --- rows -----------------------------------------------------------------------------------------


@EVERY_GRAPH
@pytest.mark.parametrize("p", [1, 7, 8, 21, 75])
def test_mixing_sweep_matches_twin(name, p, instruction_set):
    n, *arrays, weights = csr(name)
    weights32 = weights.astype(np.float32)
    rows, decrease = unit_rows(n, p), np.full(1, np.nan)
    expected, kernel_rows = rows.astype(np.float64), rows.copy()
    naive.mixing_sweep(*arrays, weights32.astype(np.float64), expected)
    workspace = np.empty(call("cut_mixing_workspace", p), np.float32)
    code = call("cut_mixing_sweeps", n, *arrays, weights32, p, rows, 1, workspace, decrease)
    assert code == 1
    # As for the Numba kernel: cancellation in float32 sums, passed on from row to row.
    assert np.abs(rows - expected).max(initial=0) <= 500 * UNIT32
    of_kernel = maxcut.mixing_sweeps(*arrays, weights32, kernel_rows, 1)
    assert decrease[0] == pytest.approx(of_kernel, abs=1e-5 * max(1.0, np.abs(weights).sum()))


@EVERY_GRAPH
def test_anneal_sweep_matches_twin(name, instruction_set):
    n, *arrays, weights = csr(name)
    weights32 = weights.astype(np.float32)
    rows, smoothing = unit_rows(n, LANES, 4), np.array([0.3])
    expected = rows.astype(np.float64)
    naive.anneal_sweep(*arrays, weights32.astype(np.float64), expected, 0.3)
    assert call("cut_anneal_rows", n, *arrays, weights32, rows, smoothing, 0.5, 1) == 1
    assert smoothing[0] == 0.15
    # The factor of a term may triple the error of r; see the test of the Numba kernel.
    assert np.abs(rows - expected).max(initial=0) <= 1500 * UNIT32


def test_rows_without_a_direction_stay(instruction_set):
    """Two neighbours that cancel exactly give no direction, and no NaN."""
    arrays = naive.csr_from_edges(3, [(0, 1, 1.0), (0, 2, 1.0)])
    weights32 = arrays[2].astype(np.float32)
    for name in ("cut_mixing_sweeps", "cut_anneal_rows"):
        rows = np.zeros((3, LANES), np.float32)
        rows[0, 0], rows[1, 1], rows[2, 1] = 1.0, 1.0, -1.0
        first = rows[0].copy()
        if name == "cut_mixing_sweeps":
            end = LANES, rows, 1, np.empty(LANES, np.float32), None
        else:
            end = rows, np.array([0.5]), 1.0, 1
        assert call(name, 3, *arrays[:2], weights32, *end) == 1
        np.testing.assert_array_equal(rows[0], first)
        assert np.isfinite(rows).all()


def test_rounding_has_the_bits_of_the_kernel():
    for n, p in ((40, 5), (1, 1), (0, 3)):
        rows, normal = unit_rows(n, p), unit_rows(1, p, 1)[0]
        signs, expected = np.zeros(n, np.int8), np.zeros(n, np.int8)
        assert call("cut_round_rows", n, p, rows, normal, signs) == 1
        # Far from 0 against the rounding of the products, whatever their order.
        assert np.abs(rows.astype(float) @ normal).min(initial=1.0) > 100 * UNIT32
        maxcut.round_to_signs(rows, normal, expected)
        np.testing.assert_array_equal(signs, expected)


def test_threads_do_not_disturb_each_other():
    """Eight annealings and searches, one after the other and in four threads: the same bits."""
    n, *arrays = csr("dense")
    weights32 = arrays[2].astype(np.float32)

    def search(seed):
        rows, signs, gains = unit_rows(n, LANES, seed), np.zeros(n, np.int8), np.empty(n)
        call("cut_anneal_rows", n, *arrays[:2], weights32, rows, np.array([0.3]), 0.99, 300)
        call("cut_round_rows", n, LANES, rows, rows[0].copy(), signs)
        call("cut_flip_gains", n, *arrays, signs, gains)
        call("cut_one_flip_ascent", n, *arrays, signs, gains, 1e-9, 10**6, None)
        return rows, signs

    one_by_one = [search(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(search, range(8)))
    for (rows, signs), (other_rows, other_signs) in zip(one_by_one, together, strict=True):
        np.testing.assert_array_equal(rows, other_rows)
        np.testing.assert_array_equal(signs, other_signs)


# --- Gauss-Hermite sums ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 10, 51, 200, 801])
def test_rule_matches_scipy(count):
    nodes, weights = np.full(count, np.nan), np.full(count, np.nan)
    workspace = np.empty(call("gauss_hermite_rule_workspace", count))
    assert call("gauss_hermite_rule", count, nodes, weights, workspace) == 1
    expected, expected_weights = roots_hermitenorm(count)
    # Both are good to some units of the largest node, 2 sqrt(count), and of the largest weight.
    np.testing.assert_allclose(nodes, expected, rtol=0, atol=100 * UNIT * math.sqrt(count))
    expected_weights /= expected_weights.sum()
    np.testing.assert_allclose(weights, expected_weights, rtol=0, atol=50 * UNIT)
    assert (np.diff(nodes) > 0).all()
    np.testing.assert_array_equal(nodes, -nodes[::-1])
    np.testing.assert_array_equal(weights, weights[::-1])
    # Rounding of a sum of positive terms.
    for power, moment in ((0, 1.0), (2, 1.0), (4, 3.0), (6, 15.0)):
        if power < 2 * count:
            assert weights @ nodes**power == pytest.approx(moment, rel=count * 8 * UNIT)


def test_mean_of_a_function_by_address():
    """E[(mu + sigma x)^2] from a C function of the package, and a Python function with context."""
    nodes, weights = gauss_hermite(12)
    mean = np.empty(1)
    quadratic = address("quadratic")
    assert call("gauss_hermite_mean", quadratic, None, 0.7, 1.5, 12, nodes, weights, mean) == 1
    assert mean[0] == pytest.approx(0.7**2 + 1.5**2, rel=50 * UNIT)

    power = ctypes.c_int(4)

    @NUMBER
    def g(z, context):
        return z ** ctypes.cast(context, ctypes.POINTER(ctypes.c_int))[0]

    function = ctypes.cast(g, POINTER).value
    context = ctypes.addressof(power)
    call("gauss_hermite_mean", function, context, -0.3, 0.5, 12, nodes, weights, mean)
    m, v = 0.3**2, 0.25
    assert mean[0] == pytest.approx(m * m + 6 * m * v + 3 * v * v, rel=100 * UNIT)

    iota = ctypes.c_double(3.0)
    relu, context = address("smooth_relu"), ctypes.addressof(iota)
    call("gauss_hermite_mean", relu, context, 0.2, 0.4, 12, nodes, weights, mean)
    twin = sum(
        w * math.log1p(math.exp(3.0 * (0.2 + 0.4 * x))) / 3.0
        for x, w in zip(nodes, weights, strict=True)
    )
    assert mean[0] == pytest.approx(twin, rel=50 * UNIT)


VECTOR_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(DOUBLE), SIZE, ctypes.POINTER(DOUBLE), SIZE, POINTER
)


def tensor_mean(g, W, b, count, n_values):
    """Return (code, means)."""
    h, d = W.shape
    nodes, weights = gauss_hermite(count)
    means = np.full(n_values, np.nan)
    workspace = np.full(call("gauss_hermite_tensor_workspace", d, h, n_values), np.nan)
    function = ctypes.cast(g, POINTER).value
    grid = count, nodes, weights
    code = call(
        *("gauss_hermite_tensor_mean", function, None, d, h, W, b, *grid, n_values),
        *(workspace, means),
    )
    return code, means


@pytest.mark.parametrize(
    ("d", "h", "count"), [(1, 1, 4), (1, 3, 5), (2, 3, 4), (3, 2, 3), (4, 1, 1)]
)
def test_tensor_mean_matches_the_sum_over_all_nodes(d, h, count):
    rng = np.random.default_rng(d + h)
    W, b = rng.normal(size=(h, d)), rng.normal(size=h)
    calls = []

    @VECTOR_FUNCTION
    def g(z, size, values, n_values, _context):
        point = [z[i] for i in range(size)]
        calls.append(point)
        values[0], values[1] = math.cos(point[0]), math.exp(0.1 * sum(point)) + n_values
        return 1

    code, means = tensor_mean(g, W, b, count, 2)
    nodes, weights = gauss_hermite(count)
    twin, points = np.zeros(2), []
    for grid in itertools.product(range(count), repeat=d):
        point = W @ nodes[list(grid)] + b
        points.append(point)
        weight = math.prod(weights[list(grid)])
        twin += weight * np.array([math.cos(point[0]), math.exp(0.1 * point.sum()) + 2])
    assert code == 1
    # d roundings in a point of size 10, and at most 27 in the sums.
    np.testing.assert_allclose(calls, points, rtol=0, atol=20 * d * UNIT * 10)
    np.testing.assert_allclose(means, twin, rtol=0, atol=400 * UNIT)


def test_tensor_mean_is_exact_for_second_moments():
    """E[z z^T] = W W^T + b b^T."""
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(3, 4)), rng.normal(size=3)

    @VECTOR_FUNCTION
    def g(z, size, values, n_values, _context):
        for k, (i, j) in enumerate(itertools.product(range(size), repeat=2)):
            values[k] = z[i] * z[j]
        return int(n_values == size * size)

    code, means = tensor_mean(g, W, b, 2, 9)
    assert code == 1
    # 16 terms of size 10.
    expected = W @ W.T + np.outer(b, b)
    np.testing.assert_allclose(means.reshape(3, 3), expected, rtol=0, atol=500 * UNIT)


def test_failure_of_the_function_is_reported_at_once():
    calls = []

    @VECTOR_FUNCTION
    def g(_z, _size, values, _n_values, _context):
        calls.append(None)
        values[0] = 1.0
        return 0 if len(calls) == 3 else 1

    code, _ = tensor_mean(g, np.eye(2), np.zeros(2), 4, 1)
    assert (code, len(calls)) == (0, 3)


# --- status codes ---------------------------------------------------------------------------------


def good_arguments(name):
    """Return arguments for which ``name`` succeeds."""
    n, *arrays = csr("random")
    weights32 = arrays[2].astype(np.float32)
    wide, single = (n, *arrays), (n, *arrays[:2], weights32)
    signs, gains, rows = random_signs(n), np.zeros(n), unit_rows(n, LANES)
    nodes, weights = gauss_hermite(3)
    ones = np.ones(64)

    @VECTOR_FUNCTION
    def g(_z, _size, values, _n_values, _context):
        values[0] = 1.0
        return 1

    return {
        "cut_flip_gains": (*wide, signs, gains),
        "cut_one_flip_ascent": (*wide, signs, gains, 0.0, 5, np.zeros(1, np.intp)),
        "cut_value": (*wide, signs, ones),
        "cut_mixing_sweeps": (*single, LANES, rows, 1, rows[0].copy(), ones),
        "cut_anneal_rows": (*single, rows, np.array([0.5]), 0.5, 1),
        "cut_round_rows": (n, LANES, rows, rows[0].copy(), signs),
        "gauss_hermite_rule": (3, ones, ones.copy(), ones.copy()),
        "gauss_hermite_mean": (address("tanh"), None, 0.0, 1.0, 3, nodes, weights, ones),
        "gauss_hermite_tensor_mean": (
            *(ctypes.cast(g, POINTER).value, g, 2, 2, ones, ones, 3, nodes, weights, 1),
            *(ones.copy(), ones.copy()),
        ),
    }[name]


# For each function, places (from 1) and values that break their rules.
BROKEN = {
    "cut_flip_gains": [(1, -1), (2, None), (3, None), (4, None), (5, None), (6, None)],
    "cut_one_flip_ascent": [
        *((1, -1), (2, None), (3, None), (4, None), (5, None), (6, None)),
        *((7, -1e-9), (7, math.nan), (8, -1)),
    ],
    "cut_value": [(1, -1), (2, None), (3, None), (4, None), (5, None), (6, None)],
    "cut_mixing_sweeps": [
        *((1, -1), (2, None), (3, None), (4, None), (5, 0), (6, None), (7, -1), (8, None)),
    ],
    "cut_anneal_rows": [
        *((1, -1), (2, None), (3, None), (4, None), (5, None), (6, None), (6, np.zeros(1))),
        *((6, np.array([1.5])), (6, np.array([math.nan])), (7, 0.0), (7, 1.1), (7, math.nan)),
        (8, -1),
    ],
    "cut_round_rows": [(1, -1), (2, 0), (3, None), (4, None), (5, None)],
    "gauss_hermite_rule": [(1, 0), (1, 2**20 + 1), (2, None), (3, None), (4, None)],
    "gauss_hermite_mean": [(1, None), (5, 0), (6, None), (7, None), (8, None)],
    "gauss_hermite_tensor_mean": [
        *((1, None), (3, 0), (4, 0), (5, None), (6, None), (7, 0), (8, None), (9, None)),
        *((10, 0), (11, None), (12, None)),
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_arguments_are_named(name):
    arguments = list(good_arguments(name))
    callback = arguments[1] if name == "gauss_hermite_tensor_mean" else None
    if callback is not None:  # kept alive here; the function gets no context
        arguments[1] = None
    assert call(name, *arguments) == 1
    for place, value in BROKEN[name]:
        changed = list(arguments)
        changed[place - 1] = value
        before = [a.copy() if isinstance(a, np.ndarray) else a for a in changed]
        assert call(name, *changed) == -place, (place, value)
        for array, copy in zip(changed, before, strict=True):
            np.testing.assert_array_equal(array, copy)


def test_empty_graphs_need_no_arrays():
    assert call("cut_flip_gains", 0, None, None, None, None, None) == 1
    assert call("cut_one_flip_ascent", 0, None, None, None, None, None, 0.0, 0, None) == 1
    value = np.full(1, np.nan)
    assert call("cut_value", 0, None, None, None, None, value) == 1
    assert value[0] == 0.0
    assert call("cut_anneal_rows", 0, None, None, None, None, np.array([0.5]), 0.5, 3) == 1


# --- declarations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["cuts", "gauss_hermite", "lanczos"])
def test_declarations_are_shipped_and_complete(module):
    """Every function of a .pxd is exported, is noexcept nogil and sees inputs as const."""
    declarations = files("derand_fast.kernels").joinpath(f"{module}.pxd")
    if not declarations.is_file():
        pytest.skip("the .pxd does not lie beside the extension module")
    text = re.sub(r"#.*", "", declarations.read_text(encoding="utf-8"))
    found = re.findall(r"^cdef (?!enum|struct)[^()]*?(\w+)\((.*?)\)([^\n]*)", text, re.M | re.S)
    exported = import_module(f"derand_fast.kernels.{module}").__pyx_capi__
    assert {name for name, _, _ in found} == set(exported)
    for name, arguments, end in found:
        assert end.strip() == "noexcept nogil", name
        if module == "cuts" and "indptr" in arguments:
            assert "const int32_t* indptr" in arguments
            assert "const int32_t* indices" in arguments


# --- scalar functions -----------------------------------------------------------------------------

# Each function once, in one form or another, and the derivatives in turn.
SCALARS = [
    ("smooth_relu", 0, "number"),
    ("smooth_relu", 1, "line"),
    ("smooth_relu_squared", 4, "window"),
    ("smooth_relu_cubed", 3, "number"),
    ("tanh", 2, "number"),
    ("erf", 1, "vector"),
    ("quadratic", 1, "line"),
    ("linear", 0, "window"),
    ("exp", 0, "number"),
    ("normal_pdf", 0, "number"),
    ("normal_cdf", 0, "number"),
    ("normal_cdf", 1, "number"),
    ("sign_mean", 0, "number"),
    ("sign_mean", 1, "number"),
    ("sign_correlation", 0, "vector"),
    ("sign_correlation", 1, "vector"),
    ("sign_correlation", 2, "window"),
    ("sign_correlation_rate", 0, "vector"),
    ("squared_loss", 1, "vector"),
    ("logistic_loss", 2, "vector"),
    ("pseudo_huber_loss", 0, "window"),
]


def call_scalar(name, derivative, form, arguments, parameter=None):
    """Call one form of a scalar function by its address."""
    pointer = address(name, derivative=derivative, form=form)
    context = None if parameter is None else ctypes.addressof(ctypes.c_double(parameter))
    holder = ctypes.c_double(math.nan if parameter is None else parameter)
    context = None if parameter is None else ctypes.addressof(holder)
    x, value = np.array(arguments, dtype=float), np.full(1, np.nan)
    if form == "number":
        return NUMBER(pointer)(x[0], context)
    if form == "vector":
        return VECTOR(pointer)(x.size, x.ctypes.data, context)
    if form == "window":
        code = WINDOW(pointer)(x.ctypes.data, x.size, value.ctypes.data, context)
    else:
        code = LINE(pointer)(x.ctypes.data, 1, value.ctypes.data, 1, context)
    assert code == 1
    return value[0]


def reference(name, derivative, arguments, parameter):
    """Value of a kernel, or a central difference of it, and the error it may have."""
    x = arguments[0]
    if name in ACTIVATIONS:
        return activation_at(ACTIVATIONS[name], parameter, x)[derivative], 0.0
    if name.endswith("_loss"):
        return loss_terms(LOSSES[name[:-5]], parameter, *arguments)[derivative], 0.0
    if name == "sign_correlation_rate":
        h, k, r = arguments

        def in_r(t):
            return special.sign_correlation(h, k, r + t)

        return naive.central_difference(in_r, 1e-3), 1e-10
    kernel = getattr(special, name)
    if derivative == 0:
        return kernel(*arguments), 0.0

    def in_first(t):
        return kernel(x + t, *arguments[1:])

    if derivative == 1:
        # Step^4 times a fifth derivative, over 30, and 1e-15 / step.
        return naive.central_difference(in_first, 1e-3), 1e-10
    second = (in_first(1e-3) - 2 * in_first(0.0) + in_first(-1e-3)) / 1e-6
    # Step^2 / 12 times a fourth derivative below 10, and 4e-15 / step^2.
    return second, 1e-5


@pytest.mark.parametrize(("name", "derivative", "form"), SCALARS)
def test_scalar_functions(name, derivative, form):
    points = [(0.4, -0.7, 0.6), (-1.3, 0.2, -0.3)]
    count = len(callables.SCALAR_FUNCTIONS[name].arguments)
    known = callables.SCALAR_FUNCTIONS[name]
    for point in points:
        arguments = point[:count]
        parameters = (None,) if known.parameter is None else (None, 3.5)
        for parameter in parameters:
            used = known.default if parameter is None else parameter
            value = call_scalar(name, derivative, form, arguments, parameter)
            if name in ACTIVATIONS and math.isnan(used):
                used = 1.0  # the kernel wants some iota
            expected, error = reference(name, derivative, arguments, used)
            assert value == pytest.approx(expected, rel=1e-14, abs=error)


def test_scalar_table_covers_every_function():
    assert {name for name, _, _ in SCALARS} == set(callables.SCALAR_FUNCTIONS)
    assert {form for _, _, form in SCALARS} == {"number", "vector", "window", "line"}


def test_wrong_lengths_are_refused():
    x, value = np.ones(3), np.full(3, np.nan)
    assert math.isnan(VECTOR(address("erf", derivative=1, form="vector"))(2, x.ctypes.data, None))
    window = WINDOW(address("sign_correlation", derivative=2, form="window"))
    assert window(x.ctypes.data, 2, value.ctypes.data, None) == 0
    line = LINE(address("quadratic", derivative=1, form="line"))
    assert line(x.ctypes.data, 3, value.ctypes.data, 2, None) == 0
    assert np.isnan(value).all()
    assert line(x.ctypes.data, 3, value.ctypes.data, 3, None) == 1
    np.testing.assert_array_equal(value, 2.0)


def test_quad_takes_the_callables():
    def relu(x, iota):
        return math.log1p(math.exp(iota * x)) / iota

    slope = low_level_callable("smooth_relu", derivative=1, form="vector", iota=4.0)
    # quad's own estimate of its error is below 1e-12 on smooth functions.
    assert quad(slope, -1.0, 2.0)[0] == pytest.approx(relu(2.0, 4.0) - relu(-1.0, 4.0), rel=1e-12)
    # The parameter is that of each callable, and the default without.
    assert quad(low_level_callable("smooth_relu"), 0.0, 1.0)[0] == pytest.approx(
        quad(lambda x: relu(x, 2.0), 0.0, 1.0)[0], rel=1e-12
    )
    edge = low_level_callable("sign_correlation", derivative=1)
    ends = [special.sign_correlation(h, 0.3, -0.4) for h in (-0.5, 1.5)]
    integral = quad(edge, -0.5, 1.5, args=(0.3, -0.4))[0]
    assert integral == pytest.approx(ends[1] - ends[0], rel=1e-12)


def test_filters_take_the_callables():
    image = np.random.default_rng(0).normal(size=(6, 7))
    line = low_level_callable("smooth_relu", derivative=1, form="line", iota=1.5)
    sigmoid = 1.0 / (1.0 + np.exp(-1.5 * image))
    # Rounding of exp and of two operations.
    result = ndimage.generic_filter1d(image, line, 1)
    np.testing.assert_allclose(result, sigmoid, rtol=0, atol=8 * UNIT)
    # Each element's correlation of signs with the two at its right, as far as they are numbers.
    inside = np.tanh(image)
    window = low_level_callable("sign_correlation", derivative=2, form="window")
    filtered = ndimage.generic_filter(inside, window, size=(1, 3), mode="nearest")
    at = (2, 3)
    h, k, r = inside[2, 2:5]
    expected = call_scalar("sign_correlation", 2, "window", (h, k, r))
    assert filtered[at] == expected
    with pytest.raises(RuntimeError):  # scipy's word for a filter that reports failure
        ndimage.generic_filter(inside, window, size=(1, 2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "relu"}, ValueError, "name must be one of .*smooth_relu.*got 'relu'"),
        ({"name": "tanh", "derivative": 5}, ValueError, "derivative of tanh must be at most 4"),
        ({"name": "tanh", "derivative": -1}, ValueError, "derivative must be at least 0, got -1"),
        ({"name": "tanh", "derivative": 0.5}, TypeError, "derivative must be an integer"),
        ({"name": "tanh", "form": "array"}, ValueError, "form must be one of .*got 'array'"),
        ({"name": "sign_correlation", "form": "number"}, ValueError, "arguments h, k, r"),
        ({"name": "squared_loss", "form": "line"}, ValueError, "'vector' or 'window'"),
    ],
)
def test_unknown_functions_are_rejected(options, error, message):
    with pytest.raises(error, match=message):
        address(**options)
    with pytest.raises(error, match=message):
        low_level_callable(**options)


def test_other_errors():
    with pytest.raises(ValueError, match="cut_value has no derivatives and no forms"):
        address("cut_value", form="number")
    with pytest.raises(ValueError, match="cut_value has no forms"):
        c_signature("cut_value", form="line")
    with pytest.raises(ValueError, match=r"name must be one of .*got 'cut'"):
        c_signature("cut")
    with pytest.raises(ValueError, match="got 'cut_value'"):
        low_level_callable("cut_value")
    with pytest.raises(TypeError, match="tanh has no parameter; got iota"):
        low_level_callable("tanh", derivative=2, iota=1.0)
    with pytest.raises(TypeError, match="smooth_relu has the parameter iota; got delta"):
        low_level_callable("smooth_relu", delta=1.0)
    with pytest.raises(ValueError, match=r"iota must be positive, got 0\.0"):
        low_level_callable("smooth_relu", iota=0.0)
    with pytest.raises(ValueError, match="iota must be finite"):
        low_level_callable("smooth_relu", iota=math.nan)


def test_names_and_signatures():
    names = function_names()
    assert list(names) == sorted(names)
    assert set(ARGUMENTS) | set(LENGTHS) == set(names) - set(callables.SCALAR_FUNCTIONS)
    assert c_signature("exp", form="line") == "int (double *, intptr_t, double *, intptr_t, void *)"
    for name in names:
        signature = c_signature(name)
        assert "__pyx" not in signature
        if name in ARGUMENTS:
            assert signature.count(",") + 1 == len(ARGUMENTS[name])


def test_nothing_is_compiled_at_import():
    code = (
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    import derand_fast.callables\n"
        "    from derand_fast.kernels.c_functions import scalar_c_function\n"
        "print(len(recorder.buffer), scalar_c_function.cache_info().currsize)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 0\n", "")


# --- kernels within njit functions ----------------------------------------------------------------

N = 12
INDPTR, INDICES, WEIGHTS = naive.csr_from_edges(*random_edges(N, 0.5, 5))
WEIGHTS32 = WEIGHTS.astype(np.float32)
ROWS = unit_rows(N, LANES, 2)
WIDE = ROWS.astype(np.float64)
BIAS = np.linspace(-1.0, 1.0, N)


# Every function calls all stable kernels of one module and sums up what they return and write.
def use_activations(seed):
    z, outputs = np.linspace(-2.0, 2.0, 11) + seed, np.zeros((5, 11))
    out = outputs[0], outputs[1], outputs[2], outputs[3], outputs[4]
    apply_activation(0, 2.0, 0, 4, z, out[0], out[1], out[2], out[3], out[4])
    return outputs.sum() + activation_at(3, 1.0, 0.5 + seed)[1]


def use_losses(seed):
    return loss_terms(2, 1.5, 0.3 + seed, -0.4)[0]


def use_matmul(seed):
    a, out = WIDE + seed, np.zeros((N, N))
    packing = np.empty(workspace_size(N, LANES))
    multiply(a, a.T.copy(), out, False, packing)
    return out.sum()


def use_maxcut(seed):
    rows, signs, other = ROWS.copy(), np.ones(N, np.int8), np.ones(N, np.int8)
    total = maxcut.mixing_sweeps(INDPTR, INDICES, WEIGHTS32, rows, 2 + seed)
    flat = rows.reshape(-1)
    total += maxcut.anneal_rows(INDPTR, INDICES, WEIGHTS32, flat, 0.3, 0.9, 5)
    dual, gains = np.empty(N), np.empty(N)
    total += maxcut.sdp_dual(INDPTR, INDICES, WEIGHTS, rows, gains, dual)
    maxcut.round_to_signs(rows, rows[seed], signs)
    queue, visited = np.empty(N, np.int32), np.empty(N, np.bool_)
    maxcut.spanning_forest_cut(INDPTR, INDICES, WEIGHTS, other, queue)
    total += maxcut.merge_cuts(INDPTR, INDICES, WEIGHTS, signs, other, queue, visited)
    maxcut.flip_gains(INDPTR, INDICES, WEIGHTS, signs, gains)
    total += maxcut.one_flip_ascent(INDPTR, INDICES, WEIGHTS, signs, gains, 1e-9)
    return total + maxcut.cut_value(INDPTR, INDICES, WEIGHTS, signs) + dual.sum() + gains.sum()


def use_smoothed_cut(seed):
    tau, lam = 0.5 + seed, 0.1
    vertex, values = np.empty((N, VERTEX_COLUMNS)), np.empty(N)
    W_gradient, b_gradient, product = np.empty((N, LANES)), np.empty(N), np.empty((N, LANES))
    offdiagonal, diagonal = np.empty(len(WEIGHTS)), np.empty(N)
    rates = np.empty((N, RATE_COLUMNS))
    prepare_vertices(0, N, WIDE, BIAS, tau, vertex)
    value_rows(0, N, INDPTR, INDICES, WEIGHTS, WIDE, tau, lam, vertex, values)
    gradient_rows(
        *(0, N, INDPTR, INDICES, WEIGHTS, WIDE, tau, lam, vertex),
        *(W_gradient, b_gradient, offdiagonal, diagonal),
    )
    shifted_hessian_bb_product(INDPTR, INDICES, offdiagonal, diagonal, 2 * lam, WIDE, product)
    total = sum_in_blocks(values) + b_gradient.sum() + np.abs(W_gradient - product).sum()
    prepare_rates(0, N, WIDE, W_gradient, b_gradient, vertex, rates)
    product_rows(
        *(0, N, INDPTR, INDICES, WEIGHTS, WIDE, tau, lam, W_gradient),
        *(vertex, rates, product, values),
    )
    return total + product.sum() + values.sum()


def use_special(seed):
    x = 0.3 + seed
    total = special.exp(x) + special.normal_cdf(x) + special.normal_pdf(x)
    return total + special.sign_correlation(x, -0.2, 0.5) + special.sign_mean(x)


USERS = [
    use_activations,
    use_losses,
    use_matmul,
    use_maxcut,
    use_smoothed_cut,
    use_special,
]
SEEDS = 4


@functools.cache
def parallel_driver():
    """A prange that calls another compiled function by address: one driver for all of them."""
    user = types.FunctionType(types.float64(types.int64))

    @numba.njit(types.void(user, types.float64[::1]), parallel=True)
    def in_parallel(user, out):
        for seed in numba.prange(out.size):
            out[seed] = user(np.int64(seed))

    return in_parallel


@pytest.mark.parametrize("user", USERS)
def test_stable_kernels_work_in_njit_functions(user):
    """Each serially, and from a prange of several threads: the same numbers as from Python."""
    compiled = numba.njit(types.float64(types.int64))(user)
    assert compiled.nopython_signatures
    expected = [user(seed) for seed in range(SEEDS)]
    serial = [compiled(seed) for seed in range(SEEDS)]
    # Sums in numpy and in compiled code may differ in their order; kernels do not.
    np.testing.assert_allclose(serial, expected, rtol=1e-12)
    together = np.zeros(SEEDS)
    parallel_driver()(compiled, together)
    np.testing.assert_array_equal(together, serial)


def test_kernels_can_be_passed_as_values():
    function = types.FunctionType(types.float64(types.float64))

    @numba.njit(types.float64(function, types.float64))
    def twice(f, x):
        return f(f(x))

    assert twice(special.exp, 0.5) == special.exp(special.exp(0.5))


def test_inner_kernels_refuse_calls_from_python():
    """They have no code for it: without the check the process would end."""
    with pytest.raises(TypeError, match="_pack can be called from kernels only"):
        matmul._pack(1)


def test_users_call_every_stable_kernel():
    text = Path(__file__).read_text(encoding="utf-8")
    called = set(re.findall(r"(\w+)\(", text[text.index("def use_activations") :]))
    for module, names in STABLE_KERNELS.items():
        for name in names:
            kernel = getattr(import_module(f"derand_fast.kernels.{module}"), name)
            assert kernel.__doc__, name
            assert not kernel.targetoptions.get("parallel"), name
            assert name in called, name


# --- networks -------------------------------------------------------------------------------------


def network_risk(widths=(3, 5, 4, 1), count=90, loss="pseudo_huber", **options):
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(count, widths[0])), rng.normal(size=(count, 2))
    weights = rng.uniform(size=(count, 2)) / count
    options = {"iota": 1.5, "delta": 0.7, **options}
    return NodeRisk(widths, "smooth_relu", X, weights, y, loss=loss, **options)


@pytest.mark.parametrize("widths", [(3, 5, 4, 1), (1, 700, 1)])
def test_network_kernel_matches_the_objective(widths):
    """In 90 nodes and in 1,500, which are several strands of several blocks."""
    risk = network_risk(widths, 1500 if widths[0] == 1 else 90)
    plan = network_plan(risk)
    workspace, gradient = network_workspace(plan), np.full(risk.n_params, np.nan)
    for seed in range(2):
        p = np.random.default_rng(seed).normal(size=risk.n_params)
        value = network_value_and_gradient(plan, workspace, p, gradient)
        expected, expected_gradient = risk.value_and_grad(p)
        # Python's sum over strands may be compensated.
        assert value == pytest.approx(expected, rel=100 * UNIT)
        np.testing.assert_array_equal(gradient, expected_gradient)


def test_network_plan_serves_threads():
    """One plan, a workspace for each thread."""
    risk = network_risk()
    plan = network_plan(risk)
    points = np.random.default_rng(3).normal(size=(16, risk.n_params))

    def evaluate(p):
        gradient = np.empty(risk.n_params)
        value = network_value_and_gradient(plan, network_workspace(plan), p, gradient)
        return value, gradient.tolist()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(evaluate, points)) == [evaluate(p) for p in points]


def test_inactive_parts_have_no_gradient():
    active = (True, True, False, False, True, False)
    risk = network_risk(active=active)
    plan, gradient = network_plan(risk), np.full(risk.n_params, np.nan)
    p = np.random.default_rng(4).normal(size=risk.n_params)
    network_value_and_gradient(plan, network_workspace(plan), p, gradient)
    np.testing.assert_array_equal(gradient, risk.value_and_grad(p)[1])
    assert np.count_nonzero(gradient) == 3 * 5 + 5 + 4


def test_network_plan_rejects_what_it_cannot_describe():
    with pytest.raises(TypeError, match="risk must be a NodeRisk, not None"):
        network_plan(None)
    with pytest.raises(ValueError, match="risk must compute in float64, not float32"):
        network_plan(network_risk(dtype=np.float32))


# --- examples -------------------------------------------------------------------------------------


@pytest.fixture
def examples(tmp_path):
    """A copy of the examples: nothing is built in the source tree."""
    if not EXAMPLES.is_dir():
        pytest.skip("the tests lie outside a source tree")
    shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("build", "*.so", "*.c~")
    )
    return tmp_path / "examples"


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def has_compiler():
    """Whether one of the usual compilers is there, or CC names one."""
    names = [os.environ.get("CC", "cc").split()[0], "gcc", "clang"]
    return any(shutil.which(name) for name in names)


def test_example_of_a_c_pointer(examples):
    if shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        pytest.skip("no C compiler")
    text = run("-P", "c_pointer.py", cwd=examples)
    leftmost, exact = map(float, re.findall(r"(?:leftmost|LAPACK) ([-\d.]+)", text))
    # 1e-8 times the norm is the residual asked for.
    assert abs(leftmost - exact) < 1e-7
    assert float(re.search(r"at least ([-\d.]+)", text)[1]) <= exact


def test_example_of_a_prange(examples):
    text = run("-P", "numba_prange.py", cwd=examples)
    assert "the same, bit for bit" in text
    assert float(re.search(r"risks ([\d.]+)", text)[1]) < 0.05
    low, high, total = map(int, re.search(r"cuts (\d+) to (\d+) of (\d+)", text).groups())
    assert total == random_graph(300, 1500, seed=1).weights.sum() / 2
    assert 0.7 * total < low <= high < total


def test_example_of_a_cython_module(examples):
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    if not has_compiler():
        pytest.skip("no C compiler")
    folder = examples / "cython_lanczos"
    run("setup.py", "-q", "build_ext", "--inplace", cwd=folder, CFLAGS="-O0")
    text = run("run.py", cwd=folder)
    energy = float(re.search(r"energy ([\d.]+)", text)[1])
    assert energy == pytest.approx(4 - 4 * math.cos(math.pi / 61), abs=1e-9)
    assert float(re.search(r"overlap .* ([\d.]+)", text)[1]) == pytest.approx(1.0, abs=1e-9)


def test_examples_are_all_run():
    """Every example is one of those above."""
    if not EXAMPLES.is_dir():
        pytest.skip("the tests lie outside a source tree")
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}
    expected = {"c_pointer.py", "path_operator.c", "numba_prange.py", "cython_lanczos"}
    assert names == {*expected, "run_all.sh"}
