"""The smoothed cut against slow twins, finite differences and closed forms."""

import itertools
import math

import naive
import numpy as np
import pytest

from derand_fast.kernels import smoothed_cut as cut
from derand_fast.kernels._jit import kernel
from derand_fast.kernels.quadrature import gauss_hermite

TAU, LAM = 0.7, 0.3
# Unit roundoff times a few dozen operations, relative to the largest entry of the result.
ROUNDING = 2e-14


class Problem:
    """One graph with a point and a direction, and plain wrappers that allocate for the kernels."""

    parts = 1

    def __init__(self, graph, W, b, tau=TAU, lam=LAM, seed=0):
        self.graph, self.W, self.b, self.tau, self.lam = graph, W, b, tau, lam
        rng = np.random.default_rng(seed)
        self.direction = rng.normal(size=W.shape), rng.normal(size=b.shape)

    def at(self, t):
        """The problem a step t along the direction."""
        direction_W, direction_b = self.direction
        W, b = self.W + t * direction_W, self.b + t * direction_b
        return Problem(self.graph, W, b, self.tau, self.lam)

    @property
    def arguments(self):
        return *self.graph, self.W, self.b, self.tau, self.lam

    def _empty(self, *shape):
        return np.full(shape, np.nan)

    def _prepared(self):
        vertex = self._empty(self.b.size, cut.VERTEX_COLUMNS)
        self.share(cut.prepare_vertices, self.W, self.b, self.tau, vertex)
        return vertex

    def share(self, rows, *arguments):
        """Call a kernel on ranges of rows, the last one first."""
        n = self.b.size
        ends = [n * part // self.parts for part in range(self.parts + 1)]
        for first, last in reversed(list(itertools.pairwise(ends))):
            rows(first, last, *arguments)

    def value(self):
        values = self._empty(self.b.size)
        arguments = *self.graph, self.W, self.tau, self.lam
        self.share(cut.value_rows, *arguments, self._prepared(), values)
        return cut.sum_in_blocks(values)

    def gradient(self):
        """(gradient_W, gradient_b, offdiagonal, diagonal)."""
        n, p = self.W.shape
        nnz = self.graph[1].size
        results = self._empty(n, p), self._empty(n), self._empty(nnz), self._empty(n)
        arguments = *self.graph, self.W, self.tau, self.lam
        self.share(cut.gradient_rows, *arguments, self._prepared(), *results)
        return results

    def hessian_bb(self):
        *_, offdiagonal, diagonal = self.gradient()
        return naive.dense_from_csr(*self.graph[:2], offdiagonal, diagonal)

    def product(self, direction=None):
        """(product_W, product_b)."""
        n, p = self.W.shape
        results = self._empty(n, p), self._empty(n)
        direction_W, direction_b = direction or self.direction
        vertex, rates = self._prepared(), self._empty(n, cut.RATE_COLUMNS)
        self.share(cut.prepare_rates, self.W, direction_W, direction_b, vertex, rates)
        arguments = *self.graph, self.W, self.tau, self.lam, direction_W
        self.share(cut.product_rows, *arguments, vertex, rates, *results)
        return results

    def hyperplane(self, rows=None):
        n = self.b.size
        rows = self.W if rows is None else rows
        return cut.expected_hyperplane_cut(*self.graph, rows, self._empty(n), self._empty(n))


def random_graph(n, degree, rng):
    """About n * degree edges, weights of either sign; the last vertex is isolated."""
    pairs = {(min(i, j), max(i, j)) for i, j in rng.integers(0, n - 1, (n * degree, 2)) if i != j}
    return naive.csr_from_edges(n, [(int(i), int(j), rng.normal()) for i, j in sorted(pairs)])


def random_problem(n=7, p=3, seed=0, tau=TAU):
    rng = np.random.default_rng(seed)
    return Problem(random_graph(n, 2, rng), rng.normal(size=(n, p)), rng.normal(size=n), tau)


def parallel_rows(tau, wobble, seed=1):
    """Rows along one line, both ways, and b so that h is the same up to sign: the hard case."""
    rng = np.random.default_rng(seed)
    problem = random_problem(seed=seed, tau=tau)
    sides = rng.choice([-1.0, 1.0], size=7)
    W = np.outer(sides * rng.uniform(0.5, 2.0, 7), rng.normal(size=3))
    b = 0.3 * sides * np.sqrt(np.sum(W * W, axis=1) + tau * tau)
    return Problem(problem.graph, W + wobble * rng.normal(size=W.shape), b, tau)


def _as_float(matrix):
    return np.array([[float(x) for x in row] for row in matrix])


def _close(actual, expected, tolerance):
    """Largest error against the largest entry."""
    scale = np.max(np.abs(expected), initial=0.0)
    assert np.all(np.isfinite(actual))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(scale, 1e-300))


# --- against the slow twins ---------------------------------------------------------------------


def zero_row():
    problem = random_problem()
    problem.W[2] = 0.0
    return problem


def all_rows_zero():
    problem = random_problem()
    return Problem(problem.graph, 0.0 * problem.W, problem.b)


def one_column():
    return random_problem(p=1, seed=4)


@pytest.mark.parametrize("make", [random_problem, zero_row, all_rows_zero, one_column])
def test_value_against_conditional_quadrature(make):
    problem = make()
    expected = naive.smoothed_cut_value(*problem.arguments)
    # One part in 1e15 of each Psi, weights of size 1, a dozen edges; quad adds as much.
    assert problem.value() == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("make", [random_problem, zero_row, all_rows_zero, one_column])
def test_derivatives_against_exact_twin(make):
    problem = make()
    gradient_W, gradient_b, _, _ = problem.gradient()
    exact_W, exact_b, exact_H = naive.smoothed_cut_gradient_exact(*problem.arguments)
    _close(gradient_W, _as_float(exact_W), ROUNDING)
    _close(gradient_b, _as_float([exact_b])[0], ROUNDING)
    _close(problem.hessian_bb(), _as_float(exact_H), ROUNDING)
    exact = naive.smoothed_cut_hessian_product_exact(*problem.arguments, *problem.direction)
    for actual, expected in zip(problem.product(), exact, strict=True):
        _close(actual, expected, ROUNDING)


@pytest.mark.parametrize("tau", [1e-1, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("wobble", [0.0, 1e-4])
def test_nearly_parallel_rows(tau, wobble):
    """1 - r^2 down to 1e-14 with h - k of the same order: finite, and right where it can be.

    h - k has a rounding error of 1e-16 before it is divided by sqrt(1 - r^2) >= tau: so every
    result may be off by 1e-16 / tau of the scale of H (about w / (tau sqrt A)), times a margin.
    """
    problem = parallel_rows(tau, wobble)
    gradient_W, gradient_b, _, _ = problem.gradient()
    exact_W, exact_b, exact_H = naive.smoothed_cut_gradient_exact(*problem.arguments)
    tolerance = ROUNDING + 1e-15 / tau
    H = problem.hessian_bb()
    _close(H, _as_float(exact_H), tolerance)
    # The two gradients are differences of entries of that scale; here A and w are of order 1.
    scale = max(1.0, np.abs(H).max())
    assert np.abs(gradient_W - _as_float(exact_W)).max() <= ROUNDING * scale
    assert np.abs(gradient_b - _as_float([exact_b])[0]).max() <= tolerance
    exact = naive.smoothed_cut_hessian_product_exact(*problem.arguments, *problem.direction)
    for actual, expected in zip(problem.product(), exact, strict=True):
        _close(actual, expected, tolerance)


@pytest.mark.parametrize("tau", [1e-2, 1e-12, 1e-60])
def test_identical_rows_stay_finite(tau):
    """Equal and opposite rows: for tiny tau only tau itself tells 1 - r^2 from 0."""
    problem = random_problem(tau=tau)
    sides = np.where(np.arange(7) % 2 == 0, 1.0, -1.0)
    W = np.outer(sides, [0.6, -1.3, 0.2])
    for b in (np.zeros(7), sides, problem.b):
        same = Problem(problem.graph, W, b, tau)
        assert math.isfinite(same.value())
        for result in same.gradient():
            assert np.all(np.isfinite(result))
        for result in same.product(direction=(problem.direction[0] * tau, problem.direction[1])):
            assert np.all(np.isfinite(result))
    # At b = 0 the density is 1 / (2 pi sqrt(1 - r^2)), 1 - r^2 = tau^2 (2 a + tau^2) / A^2.
    a = float(W[0] @ W[0])
    expected = problem.graph[2] / (math.pi * tau * math.sqrt(2 * a + tau * tau))
    offdiagonal = Problem(problem.graph, W, np.zeros(7), tau).gradient()[2]
    np.testing.assert_allclose(offdiagonal, expected, rtol=1e-14)


# --- finite differences and identities ----------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_finite_differences(seed):
    """Value -> gradient -> product; at step 1e-3 truncation and rounding are about 1e-11."""
    problem = random_problem(n=9, p=4, seed=seed)
    direction_W, direction_b = problem.direction
    gradient_W, gradient_b, _, _ = problem.gradient()
    slope = np.sum(gradient_W * direction_W) + gradient_b @ direction_b
    difference = naive.central_difference(lambda t: problem.at(t).value(), 1e-3)
    assert slope == pytest.approx(difference, rel=1e-9)
    for part, actual in enumerate(problem.product()):
        expected = naive.central_difference(
            lambda t, part=part: problem.at(t).gradient()[part], 1e-3
        )
        _close(actual, expected, 1e-9)


def test_stein_identity_against_differences_in_w():
    """grad_W = (H_bb + 2 lam I) W, the left side from values alone, entry by entry."""
    problem = random_problem()
    expected = (problem.hessian_bb() + 2 * LAM * np.eye(7)) @ problem.W
    zero = np.zeros(7)
    for index in np.ndindex(problem.W.shape):
        unit = np.zeros_like(problem.W)
        unit[index] = 1.0
        problem.direction = unit, zero
        difference = naive.central_difference(lambda t: problem.at(t).value(), 1e-3)
        # Rounding 1e-15 / step, truncation step^4.
        assert difference == pytest.approx(expected[index], abs=1e-10)
    _close(problem.gradient()[0], expected, ROUNDING)


def test_hessian_bb_against_differences_in_b():
    problem = random_problem()
    H = problem.hessian_bb()
    for j in range(7):
        problem.direction = np.zeros_like(problem.W), np.eye(7)[j]
        column = naive.central_difference(lambda t: problem.at(t).gradient()[1], 1e-3)
        _close(H[:, j], column, 1e-9)


@pytest.mark.parametrize("tau", [0.7, 1e-2])
@pytest.mark.parametrize("seed", [0, 1])
def test_hessian_product_is_symmetric_and_linear(tau, seed):
    problem = random_problem(n=12, p=4, seed=seed, tau=tau)
    rng = np.random.default_rng(seed)
    other = rng.normal(size=(12, 4)), rng.normal(size=12)
    first, second = problem.product(), problem.product(direction=other)
    left = np.sum(first[0] * other[0]) + first[1] @ other[1]
    right = np.sum(second[0] * problem.direction[0]) + second[1] @ problem.direction[1]
    size = np.linalg.norm(first[0]) * np.linalg.norm(other[0])
    assert abs(left - right) <= ROUNDING * size
    mixed = tuple(2 * u - 3 * v for u, v in zip(problem.direction, other, strict=True))
    for actual, u, v in zip(problem.product(direction=mixed), first, second, strict=True):
        _close(actual, 2 * u - 3 * v, ROUNDING)


@pytest.mark.parametrize("make", [random_problem, lambda: parallel_rows(1e-5, 1e-9)])
def test_hessian_bb_is_exactly_symmetric(make):
    H = make().hessian_bb()
    assert np.array_equal(H, H.T)


def test_shifted_product():
    problem = random_problem()
    *_, offdiagonal, diagonal = problem.gradient()
    X = np.random.default_rng(5).normal(size=(7, 4))
    out = np.full((7, 4), np.nan)
    indptr, indices, _ = problem.graph
    cut.shifted_hessian_bb_product(indptr, indices, offdiagonal, diagonal, 0.9, X, out)
    _close(out, (problem.hessian_bb() + 0.9 * np.eye(7)) @ X, ROUNDING)


# --- limits -------------------------------------------------------------------------------------


def test_arcsine_law_and_hyperplane_cut():
    """B = 0, unit rows, tau -> 0: the smoothed rounding is hyperplane rounding."""
    problem = random_problem(n=10, p=4, seed=3)
    W = problem.W / np.linalg.norm(problem.W, axis=1)[:, None]
    total = problem.graph[2].sum() / 2
    sharp = Problem(problem.graph, W, np.zeros(10), tau=1e-9, lam=0.0)
    arcsine = sum(
        w * 2 / math.pi * math.asin(float(W[i] @ W[j]))
        for i, j, w in naive.edges_of(*problem.graph)
    )
    assert sharp.value() == pytest.approx(arcsine / 2, abs=ROUNDING)
    assert sharp.hyperplane() == pytest.approx(total / 2 - sharp.value(), abs=ROUNDING)
    # The error in r at finite tau is 2 tau^2 (cosines shrink by 1 + tau^2).
    blurred = Problem(problem.graph, W, np.zeros(10), tau=1e-4, lam=0.0)
    assert blurred.value() == pytest.approx(arcsine / 2, abs=1e-6)


def test_without_randomness_the_value_is_the_cut():
    """W = 0 and b far from 0: signs are certain, and total/2 minus the value is the cut."""
    problem = random_problem()
    side = np.sign(problem.b)
    certain = Problem(problem.graph, 0.0 * problem.W, 40.0 * side)
    weight = sum(w for *_, w in naive.edges_of(*problem.graph))
    cut_weight = sum(w for i, j, w in naive.edges_of(*problem.graph) if side[i] != side[j])
    assert weight / 2 - certain.value() == pytest.approx(cut_weight, abs=ROUNDING)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hyperplane_cut(dtype):
    problem = random_problem(n=8, p=5, seed=6)
    rows = problem.W.astype(dtype)
    rows[1] = rows[0]
    rows[2] = -3 * rows[0]
    rows[3] = rows[4] = 0
    expected = naive.expected_hyperplane_cut(*problem.graph, rows)
    # acos of a cosine rounded near 1 costs the twin up to sqrt(2 eps) = 2e-8 on parallel rows.
    assert problem.hyperplane(rows=rows) == pytest.approx(expected, abs=5e-8)


def test_hyperplane_cut_of_special_rows():
    graph = naive.csr_from_edges(2, [(0, 1, 3.0)])
    rows = np.array([[1.0, 2.0, -0.3]])
    for other, expected in ((1.0, 0.0), (-7.0, 3.0), (0.0, 1.5)):
        problem = Problem(graph, np.vstack([rows, other * rows]), np.zeros(2))
        # Without acos the angle of parallel rows is good to one rounding of the entries.
        assert problem.hyperplane() == pytest.approx(expected, abs=1e-15)
    assert Problem(graph, np.zeros((2, 3)), np.zeros(2)).hyperplane() == 0.0


# --- contracts ----------------------------------------------------------------------------------


def _everything(problem):
    return [problem.value(), *problem.gradient(), *problem.product()]


@pytest.mark.parametrize("p", [1, 5, 40])
def test_rows_in_any_parts_give_the_same_bits(p):
    rng = np.random.default_rng(7)
    graph = random_graph(400, 4, rng)
    W = rng.normal(size=(400, p))
    W[::3] = W[0] + 1e-3 * W[::3]
    problem = Problem(graph, W, 0.5 * rng.normal(size=400), tau=0.1)
    whole = _everything(problem)
    for problem.parts in (2, 7, 400):
        for mine, theirs in zip(whole, _everything(problem), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_graphs_without_edges(n):
    """No vertex, one vertex, isolated vertices: only the penalty is left."""
    graph = naive.csr_from_edges(n, [])
    rng = np.random.default_rng(8)
    problem = Problem(graph, rng.normal(size=(n, 2)), rng.normal(size=n))
    gradient_W, gradient_b, offdiagonal, diagonal = problem.gradient()
    assert problem.value() == pytest.approx(LAM * np.sum(problem.W**2), rel=1e-15)
    assert np.array_equal(gradient_W, 2 * LAM * problem.W)
    assert not gradient_b.any()
    assert offdiagonal.size == 0
    assert not diagonal.any()
    product_W, product_b = problem.product()
    np.testing.assert_allclose(product_W, 2 * LAM * problem.direction[0], rtol=1e-15)
    assert not product_b.any()
    assert problem.hyperplane() == 0.0


def test_no_columns():
    """P = 0: nothing random is left, and the same formulas hold."""
    problem = random_problem()
    bare = Problem(problem.graph, np.empty((7, 0)), problem.b)
    zero = Problem(problem.graph, np.zeros((7, 3)), problem.b)
    assert bare.value() == zero.value()
    assert np.array_equal(bare.hessian_bb(), zero.hessian_bb())


def test_read_only_inputs_are_left_alone():
    problem = random_problem()
    writable = *problem.gradient(), *problem.product()
    for array in (*problem.graph, problem.W, problem.b, *problem.direction):
        array.flags.writeable = False
    frozen = *problem.gradient(), *problem.product()
    for mine, theirs in zip(writable, frozen, strict=True):
        assert np.array_equal(mine, theirs)


def test_nan_in_the_point_reaches_the_results():
    problem = random_problem()
    problem.b[0] = np.nan
    assert math.isnan(problem.value())
    assert np.isnan(problem.gradient()[1][0])
    assert np.isnan(problem.product()[1][0])


@kernel(fastmath=False, cache=False)
def _value_from_njit(indptr, indices, weights, W, b, tau, lam):
    vertex, values = np.empty((b.size, cut.VERTEX_COLUMNS)), np.empty(b.size)
    cut.prepare_vertices(0, b.size, W, b, tau, vertex)
    cut.value_rows(0, b.size, indptr, indices, weights, W, tau, lam, vertex, values)
    return cut.sum_in_blocks(values)


def test_callable_from_njit():
    problem = random_problem()
    assert _value_from_njit(*problem.arguments) == problem.value()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 1000])
def test_sum_in_blocks(size):
    values = np.random.default_rng(9).normal(size=size)
    expected = math.fsum(values)
    assert cut.sum_in_blocks(values) == pytest.approx(expected, abs=1e-16 * (size + 1) * 4)


# --- Gauss-Hermite for any smooth sign ----------------------------------------------------------


class Quadrature(Problem):
    """The same wrappers over the Gauss-Hermite kernels; gentle rows, so that 40 nodes suffice."""

    smooth_sign = staticmethod(cut.erf_sign)
    nodes = 40

    def at(self, t):
        moved = type(self)(self.graph, *super().at(t).arguments[3:])
        moved.smooth_sign, moved.nodes = self.smooth_sign, self.nodes
        return moved

    def _rule(self):
        return gauss_hermite(self.nodes)

    def value(self):
        return cut.gauss_hermite_cut(self.smooth_sign).value(*self.arguments, *self._rule())

    def gradient(self):
        n, p = self.W.shape
        nnz = self.graph[1].size
        results = self._empty(n, p), self._empty(n), self._empty(nnz), self._empty(n)
        cut.gauss_hermite_cut(self.smooth_sign).gradient(*self.arguments, *self._rule(), *results)
        return results

    def product(self, direction=None):
        results = self._empty(*self.W.shape), self._empty(self.b.size)
        cut.gauss_hermite_cut(self.smooth_sign).hessian_product(
            *self.arguments, *self._rule(), *(direction or self.direction), *results
        )
        return results


def gentle(smooth_sign=cut.erf_sign):
    """A smooth case (||W_i|| / tau about 0.5) with a zero row, two equal rows and opposite rows."""
    problem = random_problem(seed=10, tau=1.3)
    W = 0.4 * problem.W
    W[1] = 0.0
    W[3], W[4] = W[2], -W[2]
    quadrature = Quadrature(problem.graph, W, problem.b, 1.3)
    quadrature.smooth_sign = smooth_sign
    return quadrature


def test_smooth_signs_and_their_derivatives():
    for smooth_sign, limit in ((cut.erf_sign, 9.0), (cut.tanh_sign, 30.0)):
        for u in (*np.linspace(-3, 3, 25), 0.0):
            for order in range(3):
                difference = naive.central_difference(
                    lambda t, u=u, order=order, s=smooth_sign: s(u + t)[order], 1e-3
                )
                assert smooth_sign(float(u))[order + 1] == pytest.approx(difference, abs=1e-9)
        assert smooth_sign(limit)[0] == 1.0
        assert smooth_sign(-limit)[0] == -1.0
    for u in np.linspace(-20, 20, 81):
        # sech^2 in full relative accuracy, where 1 - tanh^2 would be 0.
        assert cut.tanh_sign(float(u))[1] == pytest.approx(1 / math.cosh(u) ** 2, rel=2e-15)


def test_gauss_hermite_agrees_with_the_closed_form_on_erf():
    quadrature = gentle()
    closed = Problem(*[quadrature.graph, quadrature.W, quadrature.b, quadrature.tau])
    # 40 nodes on entire functions this smooth: rounding of 1,600 terms is left.
    assert quadrature.value() == pytest.approx(closed.value(), abs=ROUNDING)
    for actual, expected in zip(quadrature.gradient(), closed.gradient(), strict=True):
        _close(actual, expected, 10 * ROUNDING)
    for actual, expected in zip(quadrature.product(), closed.product(), strict=True):
        _close(actual, expected, 100 * ROUNDING)


def test_gauss_hermite_on_tanh():
    """Finite differences, symmetry, Stein. tanh has poles at i pi/2: 60 nodes leave about 1e-10."""
    quadrature = gentle(cut.tanh_sign)
    quadrature.nodes = 60
    direction_W, direction_b = quadrature.direction
    gradient_W, gradient_b, _, _ = quadrature.gradient()
    slope = np.sum(gradient_W * direction_W) + gradient_b @ direction_b
    difference = naive.central_difference(lambda t: quadrature.at(t).value(), 1e-3)
    assert slope == pytest.approx(difference, rel=1e-8)
    product = quadrature.product()
    for part, actual in enumerate(product):
        expected = naive.central_difference(
            lambda t, part=part: quadrature.at(t).gradient()[part], 1e-3
        )
        _close(actual, expected, 1e-8)
    H = quadrature.hessian_bb()
    assert np.array_equal(H, H.T)
    _close(gradient_W, (H + 2 * LAM * np.eye(7)) @ quadrature.W, ROUNDING)


def test_gauss_hermite_kernels_are_kept():
    assert cut.gauss_hermite_cut(cut.tanh_sign) is cut.gauss_hermite_cut(cut.tanh_sign)
