"""The maximum-cut kernels against slow twins, brute force and finite differences."""

import itertools
import math

import naive
import numba
import numpy as np
import pytest

from derand_fast.kernels.maxcut import (
    anneal_rows,
    cut_value,
    flip_gains,
    merge_cuts,
    mixing_sweeps,
    one_flip_ascent,
    round_to_signs,
    sdp_dual,
    spanning_forest_cut,
)
from derand_fast.kernels.simd import LANES

UNIT = 2.0**-53
UNIT32 = 2.0**-24


class Graph:
    """Read-only CSR arrays, as the solver passes them, and their float32 weights."""

    def __init__(self, n, edges):
        self.arrays = naive.csr_from_edges(n, edges)
        self.n = n
        self.weights32 = self.arrays[2].astype(np.float32)
        for array in (*self.arrays, self.weights32):
            array.flags.writeable = False
        # The twins see the weights that the float32 kernels see.
        self.rounded = (*self.arrays[:2], self.weights32.astype(np.float64))

    @property
    def single(self):
        return *self.arrays[:2], self.weights32


def random_graph(n=20, density=0.3, seed=0, integral=False):
    """Weights of either sign; the last vertex is isolated."""
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in itertools.combinations(range(n - 1), 2) if rng.random() < density]
    weights = rng.integers(-3, 4, len(pairs)) if integral else rng.normal(size=len(pairs))
    return Graph(n, [(i, j, float(w)) for (i, j), w in zip(pairs, weights, strict=True) if w])


GRAPHS = {
    "random": random_graph(),
    "dense": random_graph(15, 1.0, 1),
    "sparse": random_graph(25, 0.06, 2),
    "signs": Graph(12, [(i, (i + s) % 12, (-1.0) ** i) for i in range(12) for s in (1, 3)]),
    "star": Graph(9, [(0, i, -0.5 * i) for i in range(1, 9)]),
    "path": Graph(7, [(i, i + 1, 1.0) for i in range(6)]),
    "edge": Graph(2, [(0, 1, 0.75)]),
    "edgeless": Graph(3, []),
    "one": Graph(1, []),
    "none": Graph(0, []),
}
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def unit_rows(n, p, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, p))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_signs(n, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), n)


def wide(rows):
    return rows.astype(np.float64)


# --- rows of the relaxation -----------------------------------------------------------------------


@EVERY_GRAPH
@pytest.mark.parametrize("p", [1, 3, 11])
def test_mixing_sweep_matches_twin(name, p):
    """One sweep, row by row; rows without neighbours stay."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n, p)
    expected = wide(rows)
    before = naive.row_products(*graph.rounded, expected)
    naive.mixing_sweep(*graph.rounded, expected)
    decrease = mixing_sweeps(*graph.single, rows, 1)
    # Each row comes from float32 sums of at most 14 rows; cancellation in a sum, and 25 rows that
    # each pass their error on, cost a factor of up to some hundred.
    assert np.abs(rows - expected).max(initial=0) <= 500 * UNIT32
    after = naive.row_products(*graph.rounded, expected)
    assert decrease == pytest.approx(before - after, abs=1e-4 * max(1.0, abs(before)))
    isolated = np.diff(graph.arrays[0]) == 0
    np.testing.assert_array_equal(rows[isolated], unit_rows(graph.n, p)[isolated])


@pytest.mark.parametrize("name", ["random", "dense", "sparse", "signs", "star"])
def test_mixing_sweeps_never_increase_the_objective(name):
    """The reported decrease is that of the last sweep, not negative, and tends to 0."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n, 8, 3)
    size = float(np.abs(graph.rounded[2]).sum()) / 2
    value = naive.row_products(*graph.rounded, wide(rows))
    for count in [1, 1, 1, 2, 5, 10]:
        again = rows.copy()
        mixing_sweeps(*graph.single, again, count - 1)
        second_last = naive.row_products(*graph.rounded, wide(again))
        decrease = mixing_sweeps(*graph.single, rows, count)
        now = naive.row_products(*graph.rounded, wide(rows))
        # Norms of rows are good to a few units; so then is every product of the sum.
        rounding = 20 * UNIT32 * size
        assert now <= value + rounding
        assert decrease == pytest.approx(second_last - now, abs=rounding)
        assert decrease >= -rounding
        value = now
    mixing_sweeps(*graph.single, rows, 2000)
    # At the limit each row is minus the direction of its gradient; 500 units as above.
    again = wide(rows)
    naive.mixing_sweep(*graph.rounded, again)
    assert np.abs(rows - again).max() <= 500 * UNIT32
    assert np.abs(np.linalg.norm(wide(rows), axis=1) - 1).max() <= 10 * UNIT32


def test_mixing_sweep_keeps_rows_with_vanishing_gradient():
    """Two neighbours that cancel exactly give no direction, and no NaN."""
    graph = Graph(3, [(0, 1, 1.0), (0, 2, 1.0)])
    rows = np.array([[0.6, 0.8], [1.0, 0.0], [-1.0, 0.0]], np.float32)
    decrease = mixing_sweeps(*graph.single, rows, 1)
    np.testing.assert_array_equal(rows[0], np.array([0.6, 0.8], np.float32))
    # Rows 1 and 2 both turn to -v_0: from products 0.6 and -0.6 to -1 and -1.
    assert decrease == pytest.approx(2.0, abs=8 * UNIT32)


@EVERY_GRAPH
@pytest.mark.parametrize("p", [1, 5])
def test_sdp_dual_matches_twin(name, p):
    """Dual variables and value in float64, for rows of any length, zero rows included."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n, p, 1)
    rows *= np.linspace(0.5, 2, graph.n, dtype=np.float32)[:, None]
    rows[3:4] = 0
    lengths = np.linalg.norm(wide(rows), axis=1)
    units = wide(rows) / np.where(lengths > 0, lengths, 1)[:, None]
    A = naive.adjacency_from_csr(*graph.arrays)
    scratch, dual = np.full(graph.n, np.nan), np.full(graph.n, np.nan)
    product = sdp_dual(*graph.arrays, rows, scratch, dual)
    sizes = np.abs(A).sum(axis=1)
    # A few dozen float64 roundings relative to the sum of |w|.
    assert np.all(np.abs(dual - np.linalg.norm(A @ units, axis=1)) <= 50 * UNIT * sizes)
    assert abs(product - np.sum(A * (units @ units.T))) <= 50 * UNIT * sizes.sum()


# --- annealing ------------------------------------------------------------------------------------


@EVERY_GRAPH
def test_anneal_sweep_matches_twin(name):
    """One sweep at each of three smoothings, even vertices before odd ones."""
    graph = GRAPHS[name]
    for smoothing in (0.9, 0.3, 0.1):
        rows = unit_rows(graph.n, LANES, 4)
        expected = wide(rows)
        naive.anneal_sweep(*graph.rounded, expected, smoothing)
        after = anneal_rows(*graph.single, rows.reshape(-1), smoothing, 0.5, 1)
        assert after == smoothing * 0.5
        # 1 - (c r)^2 is at least 0.19, so an error of r is at most tripled in the factor of a
        # term; after that the reasoning of the mixing sweep holds: 500 units, times three.
        assert np.abs(rows - expected).max(initial=0) <= 1500 * UNIT32


def test_anneal_visits_even_vertices_first():
    """On a path, vertex 2 must not have seen a new vertex 1, and 1 must have seen 0 and 2."""
    graph = Graph(4, [(0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)])
    rows = unit_rows(4, LANES, 6)
    start = wide(rows)
    anneal_rows(*graph.single, rows.reshape(-1), 0.5, 1.0, 1)

    def towards(*neighbours_of_i, i):
        g = -sum(v / math.sqrt(1 - (0.5 * (start[i] @ v)) ** 2) for v in neighbours_of_i)
        return g / np.linalg.norm(g)

    zero, two = towards(start[1], i=0), towards(start[1], start[3], i=2)
    one, three = towards(zero, two, i=1), towards(two, i=3)
    # Sums of two terms: a few roundings, some cancellation.
    assert np.abs(rows - np.array([zero, one, two, three])).max() <= 30 * UNIT32


@pytest.mark.parametrize("name", ["random", "signs", "edgeless", "one"])
def test_annealing_in_pieces_is_bit_equal(name):
    """Ten sweeps at once, or four and then six: the caller may look at the clock between."""
    graph = GRAPHS[name]
    at_once, in_pieces = unit_rows(graph.n, LANES, 7), unit_rows(graph.n, LANES, 7)
    ratio = 0.7
    left = anneal_rows(*graph.single, at_once.reshape(-1), 0.3, ratio, 10)
    half_way = anneal_rows(*graph.single, in_pieces.reshape(-1), 0.3, ratio, 4)
    assert anneal_rows(*graph.single, in_pieces.reshape(-1), half_way, ratio, 6) == left
    np.testing.assert_array_equal(at_once, in_pieces)
    assert left == pytest.approx(0.3 * ratio**10, rel=10 * UNIT)


@pytest.mark.parametrize("smoothing", [0.5, 0.05])
def test_anneal_direction_is_the_gradient_of_the_smoothed_cut(smoothing):
    """The row that a sweep writes first is the gradient in that row, by finite differences."""
    graph = GRAPHS["dense"]
    rows = unit_rows(graph.n, LANES, 8)
    start = wide(rows)
    c = 1 - smoothing
    gradient = np.empty(LANES)
    for k in range(LANES):

        def value(t, k=k):
            moved = start.copy()
            moved[0, k] += t
            return naive.smoothed_expected_cut(*graph.rounded, moved, c)

        gradient[k] = naive.central_difference(value, 1e-3)
    anneal_rows(*graph.single, rows.reshape(-1), smoothing, 1.0, 1)
    # The differences are good to step^4 = 1e-12 times fifth derivatives of some 1e3; the kernel's
    # float32 decides.
    expected = gradient / np.linalg.norm(gradient)
    assert np.abs(rows[0] - expected).max() <= 100 * UNIT32


@pytest.mark.parametrize("name", ["dense", "random", "signs"])
def test_anneal_rests_at_stationary_points(name):
    """At constant smoothing rows settle where each gradient is parallel to its row, pointing up."""
    graph = GRAPHS[name]
    rows = unit_rows(graph.n, LANES, 9)
    start = naive.smoothed_expected_cut(*graph.rounded, wide(rows), 0.7)
    anneal_rows(*graph.single, rows.reshape(-1), 0.3, 1.0, 3000)
    settled = wide(rows)
    assert naive.smoothed_expected_cut(*graph.rounded, settled, 0.7) > start
    for i in np.flatnonzero(np.diff(graph.arrays[0])):

        def value(direction, t, i=i):
            moved = settled.copy()
            moved[i] += t * direction
            return naive.smoothed_expected_cut(*graph.rounded, moved, 0.7)

        slopes = [
            naive.central_difference(lambda t, d=d, f=value: f(d, t), 1e-3) for d in np.eye(LANES)
        ]
        gradient = np.array(slopes)
        along = gradient @ settled[i]
        assert along > 0
        # Settled in float32: some hundred units of the gradient.
        assert np.linalg.norm(gradient - along * settled[i]) <= 1000 * UNIT32 * along


@pytest.mark.parametrize("name", ["random", "dense", "sparse", "signs", "star", "path", "edge"])
def test_annealed_rows_make_a_good_cut(name):
    """Without smoothing, rounding the annealed rows beats rounding the relaxation, mostly a cut."""
    graph = GRAPHS[name]
    relaxed, annealed = unit_rows(graph.n, LANES, 10), unit_rows(graph.n, LANES, 10)
    mixing_sweeps(*graph.single, relaxed, 500)
    anneal_rows(*graph.single, annealed.reshape(-1), 0.3, (1e-4 / 0.3) ** (1 / 999), 1000)
    expected = naive.expected_hyperplane_cut(*graph.arrays, annealed)
    # At smoothing 1e-4 an angle of the order of its root is left: 1 % of the weights in the mean.
    left = 0.01 * np.abs(graph.arrays[2]).sum() / 2
    assert expected >= naive.expected_hyperplane_cut(*graph.arrays, relaxed) - left
    products = [wide(annealed)[i] @ wide(annealed)[j] for i, j, _ in naive.edges_of(*graph.arrays)]
    # Ties leave rows between the two ends of the line: half of the edges of "signs", fewer
    # elsewhere.
    assert np.quantile(np.abs(products), 0.6) >= 0.99
    signs = np.empty(graph.n, np.int8)
    values = []
    for seed in range(8):
        round_to_signs(annealed, unit_rows(1, LANES, seed)[0], signs)
        values.append(naive.cut_value(*graph.arrays, signs))
    assert max(values) >= expected - left


def test_annealing_survives_coincident_rows():
    """Equal and opposite rows at vanishing smoothing: 1 - (c r)^2 is kept above 0."""
    graph = Graph(4, [(0, 1, 1.0), (1, 2, -1.0), (2, 3, 1.0)])
    rows = np.zeros((4, LANES), np.float32)
    rows[:, 0] = [1, 1, -1, 1]
    anneal_rows(*graph.single, rows.reshape(-1), 0.0, 1.0, 5)
    assert np.all(np.abs(np.linalg.norm(rows, axis=1) - 1) <= 8 * UNIT32)
    assert np.all(np.abs(rows[:, 0]) == 1)


# --- signs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "p"), [(0, 3), (1, 1), (40, 1), (40, 8), (40, 13)])
def test_round_to_signs_matches_twin(dtype, n, p):
    """Signs of the products; a product of exactly 0 counts as +1."""
    rng = np.random.default_rng(n + p)
    rows, normal = rng.normal(size=(n, p)).astype(dtype), rng.normal(size=p).astype(dtype)
    rows[: n // 4] = 0
    signs = np.zeros(n, np.int8)
    round_to_signs(rows, normal, signs)
    expected = np.where(wide(rows) @ wide(normal) >= 0, 1, -1)
    np.testing.assert_array_equal(signs, expected)


@EVERY_GRAPH
def test_cut_value_and_gains_match_twins(name):
    """Cut and gains by definition, for several cuts."""
    graph = GRAPHS[name]
    size = np.abs(graph.arrays[2]).sum()
    for seed in range(3):
        signs = random_signs(graph.n, seed)
        signs.flags.writeable = seed == 0
        # At most some hundred roundings of sums below the sum of |w|.
        rounding = 100 * UNIT * size
        value = cut_value(*graph.arrays, signs)
        assert abs(value - naive.cut_value(*graph.arrays, signs)) <= rounding
        assert abs(value - cut_value(*graph.arrays, -signs)) == 0
        gains = np.full(graph.n, np.nan)
        flip_gains(*graph.arrays, signs, gains)
        expected = naive.flip_gains(*graph.arrays, signs)
        assert np.abs(gains - expected).max(initial=0) <= rounding


@EVERY_GRAPH
def test_one_flip_ascent_ends_locally_optimal(name):
    """No single flip gains any more; gains, flips and value agree."""
    graph = GRAPHS[name]
    size = np.abs(graph.arrays[2]).sum()
    rounding = 100 * UNIT * size
    for seed in range(3):
        signs = random_signs(graph.n, seed)
        start = signs.copy()
        gains = np.empty(graph.n)
        flip_gains(*graph.arrays, signs, gains)
        flips = one_flip_ascent(*graph.arrays, signs, gains, 1e-9)
        assert set(signs.tolist()) <= {-1, 1}
        true_gains = naive.flip_gains(*graph.arrays, signs)
        assert true_gains.max(initial=0) <= 1e-9 + rounding
        # The gains are kept up to date with one rounding a flip.
        assert np.abs(gains - true_gains).max(initial=0) <= rounding * (1 + flips)
        rise = cut_value(*graph.arrays, signs) - cut_value(*graph.arrays, start)
        assert rise >= flips * 1e-9 - rounding
        assert (flips == 0) == np.array_equal(signs, start)
        assert flips >= np.count_nonzero(signs != start)
        assert one_flip_ascent(*graph.arrays, signs, gains, 1e-9) == 0


def test_one_flip_ascent_leaves_gains_at_the_threshold():
    """A gain must exceed the threshold, not reach it."""
    graph = Graph(2, [(0, 1, 0.5)])
    for threshold, flips in [(0.5, 0), (0.49, 1)]:
        signs, gains = np.ones(2, np.int8), np.full(2, 0.5)
        assert one_flip_ascent(*graph.arrays, signs, gains, threshold) == flips
        assert signs[0] * signs[1] == (1 if flips == 0 else -1)
        np.testing.assert_array_equal(gains, [0.5, 0.5] if flips == 0 else [-0.5, -0.5])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["unrelated", "near", "nearly_opposite"])
def test_merge_takes_the_best_of_each_component(seed, kind):
    """Brute force over the components; never below either cut; the gain is the rise."""
    graph = random_graph(22, 0.08, 100 + seed, integral=True)
    signs = random_signs(graph.n, seed)
    other = random_signs(graph.n, 50 + seed)
    if kind != "unrelated":
        flipped = np.random.default_rng(seed).random(graph.n) < 0.3
        other = np.where(flipped, -signs, signs).astype(np.int8)
    if kind == "nearly_opposite":
        other = -other
    before, rival = (naive.cut_value(*graph.arrays, cut) for cut in (signs, other))
    best = naive.best_merge(*graph.arrays, signs, other)
    kept = other.copy()
    other.flags.writeable = False
    queue, visited = np.full(graph.n, -1, np.int32), np.ones(graph.n, np.bool_)
    gain = merge_cuts(*graph.arrays, signs, other, queue, visited)
    merged = naive.cut_value(*graph.arrays, signs)
    # Integral weights: all of it is exact.
    assert merged == best
    assert merged == before + gain
    assert merged >= max(before, rival)
    np.testing.assert_array_equal(other, kept)


@EVERY_GRAPH
def test_merge_with_itself_or_its_opposite_changes_nothing(name):
    graph = GRAPHS[name]
    for factor in (1, -1):
        signs = random_signs(graph.n)
        other = (factor * signs).astype(np.int8)
        other.flags.writeable = False
        start = signs.copy()
        scratch = np.empty(graph.n, np.int32), np.empty(graph.n, np.bool_)
        assert merge_cuts(*graph.arrays, signs, other, *scratch) == 0
        np.testing.assert_array_equal(signs, start)


def test_merge_takes_over_parts_of_equal_value():
    """A part that changes nothing is taken over: the search moves along plateaus."""
    graph = Graph(5, [(0, 1, 1.0), (1, 2, 1.0)])
    signs = np.array([1, -1, -1, 1, 1], np.int8)
    other = np.array([1, 1, -1, 1, 1], np.int8)
    other.flags.writeable = False
    scratch = np.empty(5, np.int32), np.empty(5, np.bool_)
    assert merge_cuts(*graph.arrays, signs, other, *scratch) == 0
    np.testing.assert_array_equal(signs, other)


# --- calling conventions --------------------------------------------------------------------------


@numba.njit
def _whole_search(indptr, indices, weights, weights32, rows, normal, signs, other, floats, scratch):
    """Each kernel once, from compiled code."""
    queue, visited = scratch
    decrease = mixing_sweeps(indptr, indices, weights32, rows, 2)
    product = sdp_dual(indptr, indices, weights, rows, floats[0], floats[1])
    left = anneal_rows(indptr, indices, weights32, rows.reshape(-1), 0.3, 0.9, 3)
    round_to_signs(rows, normal, signs)
    flip_gains(indptr, indices, weights, signs, floats[0])
    flips = one_flip_ascent(indptr, indices, weights, signs, floats[0], 1e-9)
    gain = merge_cuts(indptr, indices, weights, signs, other, queue, visited)
    return decrease, product, left, flips, gain, cut_value(indptr, indices, weights, signs)


@pytest.mark.parametrize("pointer", [np.int32, np.int64])
def test_kernels_can_be_called_from_compiled_code(pointer):
    """The same results as from Python, with row pointers of either width."""
    graph = GRAPHS["random"]
    indptr, indices, weights = graph.arrays
    results = []
    for function in (_whole_search, _whole_search.py_func):
        rows, signs = unit_rows(graph.n, LANES, 2), np.empty(graph.n, np.int8)
        normal = unit_rows(1, LANES, 3)[0]
        floats = np.empty((2, graph.n))
        scratch = np.empty(graph.n, np.int32), np.empty(graph.n, np.bool_)
        wide_indptr = indptr.astype(pointer)
        wide_indptr.flags.writeable = False
        other = random_signs(graph.n)
        other.flags.writeable = False
        values = function(
            *(wide_indptr, indices, weights, graph.weights32, rows, normal),
            *(signs, other, floats, scratch),
        )
        results.append((values, rows, signs, floats.copy()))
    (values, *arrays), (values_from_python, *arrays_from_python) = results
    # Inlining may order the float32 sums of a decrease anew; the rest is the same code.
    assert values == pytest.approx(values_from_python, rel=1e-5, abs=1e-5)
    np.testing.assert_array_equal(arrays[1], arrays_from_python[1])
    for array, expected in zip(arrays, arrays_from_python, strict=True):
        np.testing.assert_allclose(array, expected, rtol=0, atol=500 * UNIT32)


# --- spanning forests -----------------------------------------------------------------------------


def forest_signs(graph):
    signs = np.empty(graph.n, np.int8)
    spanning_forest_cut(*graph.arrays, signs, np.empty(graph.n, np.int32))
    return signs


@EVERY_GRAPH
def test_spanning_forest_matches_twin(name):
    graph = GRAPHS[name]
    assert np.array_equal(forest_signs(graph), naive.spanning_forest_cut(*graph.arrays))


@pytest.mark.parametrize("seed", range(5))
def test_spanning_forest_satisfies_all_edges_of_a_balanced_graph(seed):
    """Weights that a hidden cut satisfies all: positive across, negative within."""
    rng = np.random.default_rng(seed)
    hidden = random_signs(40, seed)
    pairs = [pair for pair in itertools.combinations(range(40), 2) if rng.random() < 0.08]
    edges = [(i, j, float(-hidden[i] * hidden[j] * rng.uniform(0.5, 2.0))) for i, j in pairs]
    graph = Graph(40, edges)
    signs = forest_signs(graph)
    for i, j, weight in edges:
        assert (signs[i] != signs[j]) == (weight > 0)
