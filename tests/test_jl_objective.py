"""The distortion of a random linear map: slow twins, differences, identities, collapse."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ncx2

from derand_fast.objectives import Objective, block_view, check_objective, pack
from derand_fast.objectives.distortion import JLObjective
from derand_fast.optimize import hessian_descent, newton_cg, pgd

N, D, K, EPS, LAM = 48, 5, 3, 0.4, 0.03
# Rounding of sums over a thousand pairs and of the losses, relative to the largest entry.
ROUNDING = 1e-12
LOSSES = ("tail", "moment2", "moment4", "moment10")


def points(n=N, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def some_pairs(n=N):
    """A list with repetitions, in no order."""
    rng = np.random.default_rng(5)
    left, right = rng.integers(0, n, 3000), rng.integers(0, n, 3000)
    return left[left != right], right[left != right]


def make(pairs="all", loss="tail", sigma="scalar", X=None, **options):
    chosen = some_pairs() if pairs == "some" else pairs
    X = points() if X is None else X
    return JLObjective(X, K, eps=EPS, pairs=chosen, lam=LAM, loss=loss, sigma=sigma, **options)


def a_point(f, seed=1):
    """Ratios and noises of the order of 1, all different."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.15, 0.3, f.blocks["W"].shape)
    M = rng.normal(size=(f.k, f.d)) / math.sqrt(f.k)
    return pack(f, W=noise * math.sqrt(f.k * f.d / noise.size), b=M)


def directions(X, pairs):
    """Unit differences, one row for each pair."""
    if isinstance(pairs, str) and pairs == "norms":
        differences = X
    else:
        left, right = np.triu_indices(len(X), 1) if isinstance(pairs, str) else pairs
        differences = X[left] - X[right]
    return differences / np.linalg.norm(differences, axis=1)[:, None]


VARIANTS = [
    (pairs, loss, sigma)
    for pairs, loss, sigma in itertools.product(
        ("all", "norms", "some"), LOSSES, ("scalar", "rows")
    )
    if (loss, sigma) != ("tail", "rows")
]


# --- against slow twins -------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["all", "norms", "some"])
def test_tail_against_scipy(pairs):
    """The sum of scipy's probabilities; their count above 1,000 pairs makes ours use a table."""
    f = make(pairs)
    x = a_point(f)
    U = directions(points(), some_pairs() if pairs == "some" else pairs)
    s = float(f.noise(x)[0]) ** 2
    t = np.sum((U @ block_view(f, x, "b").T) ** 2, axis=1)
    expected = np.sum(ncx2.cdf((1 - EPS) / s, K, t / s) + ncx2.sf((1 + EPS) / s, K, t / s))
    assert f.n_pairs == len(U)
    # scipy's own error.
    assert f.violation_bound(x) == pytest.approx(expected, rel=1e-10)
    assert f.value(x) == pytest.approx(expected + LAM * x[0] ** 2, rel=1e-10)


@pytest.mark.parametrize("sigma", ["scalar", "rows"])
@pytest.mark.parametrize("pairs", ["all", "norms", "some"])
def test_moments_against_formulas(pairs, sigma):
    """Second and fourth moments from the cumulants of a sum of squares."""
    U = directions(points(), some_pairs() if pairs == "some" else pairs)
    for order in (2, 4):
        f = make(pairs, f"moment{order}", sigma)
        x = a_point(f)
        s = np.broadcast_to(f.noise(x) ** 2, K)
        t = (U @ block_view(f, x, "b").T) ** 2
        mean = np.sum(t + s, axis=1) - 1.0
        second, third, fourth = (
            2 ** (j - 1) * math.factorial(j - 1) * np.sum(s**j + j * s ** (j - 1) * t, axis=1)
            for j in (2, 3, 4)
        )
        expected = mean**2 + second
        if order == 4:
            expected = mean**4 + 6 * mean**2 * second + 4 * mean * third + 3 * second**2 + fourth
        expected = np.sum(expected) / EPS**order
        assert f.violation_bound(x) == pytest.approx(expected, rel=ROUNDING)
        weights = block_view(f, x, "W")
        assert f.value(x) == pytest.approx(expected + LAM * np.sum(weights**2), rel=ROUNDING)


def test_sampled_violations():
    """The tails add up to the expected number of violations: 4,000 maps, five standard errors."""
    f = make("all")
    x = a_point(f)
    U, M, sigma = directions(points(), "all"), block_view(f, x, "b"), float(f.noise(x)[0])
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(4000):
        A = M + sigma * rng.normal(size=M.shape)
        counts.append(np.sum(np.abs(np.sum((U @ A.T) ** 2, axis=1) - 1.0) > EPS))
    error = np.std(counts) / math.sqrt(len(counts))
    assert abs(np.mean(counts) - f.violation_bound(x)) <= 5.0 * error


def test_losses_bound_the_tail():
    """Markov: every moment is at least the tail."""
    x = a_point(make())
    tail = make(loss="tail").violation_bound(x)
    assert all(make(loss=loss).violation_bound(x) >= tail for loss in LOSSES[1:])


# --- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize(("pairs", "loss", "sigma"), VARIANTS)
def test_derivatives(pairs, loss, sigma):
    """Differences of values and of gradients; symmetry; the heat equation."""
    f = make(pairs, loss, sigma)
    x = a_point(f)
    rng = np.random.default_rng(3)
    u, v = rng.normal(size=(2, f.n_params))
    step = 1e-5
    up, down = f.value_and_grad(x + step * v), f.value_and_grad(x - step * v)
    value, gradient = f.value_and_grad(x)
    product = f.hvp(x, v)
    assert value == f.value(x)
    # Differences err by step^2 times the third derivative, and by rounding / step.
    assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient @ v, rel=2e-6)
    difference = (up[1] - down[1]) / (2 * step)
    np.testing.assert_allclose(product, difference, rtol=0, atol=1e-6 * np.abs(product).max())
    assert u @ product == pytest.approx(v @ f.hvp(x, u), rel=1e-10)

    H_bb = np.column_stack([f.bias_hessian(x) @ e for e in np.eye(K * D)])
    np.testing.assert_allclose(H_bb, H_bb.T, rtol=0, atol=ROUNDING * np.abs(H_bb).max())
    first = f.blocks["b"].slice.start
    embedded = np.r_[np.zeros(first), v[first:]]
    np.testing.assert_array_equal(H_bb @ v[first:] != 0.0, np.ones(K * D, dtype=bool))
    np.testing.assert_allclose(
        f.bias_hessian(x) @ v[first:], f.hvp(x, embedded)[first:], rtol=ROUNDING
    )
    # The identity behind the lemma: the trace over the entries that share a sigma.
    diagonal = np.diag(H_bb).reshape(K, D)
    curvature = diagonal.mean(axis=1) if sigma == "rows" else np.array([diagonal.mean()])
    np.testing.assert_allclose(f.weight_curvature(x).ravel(), curvature, rtol=1e-10)
    np.testing.assert_allclose(
        block_view(f, gradient, "W").ravel(), (curvature + 2 * LAM) * x[:first], rtol=1e-10
    )


def test_dense_hessian_of_the_second_moment():
    """The Hessian of sum ((t + k s - 1)^2 + 2 k s^2 + 4 s t) / eps^2 in M, written out."""
    f = make("norms", "moment2")
    x = a_point(f)
    U, M, s = directions(points(), "norms"), block_view(f, x, "b"), float(f.noise(x)[0]) ** 2
    expected = np.zeros((K * D, K * D))
    for u in U:
        image = M @ u
        slope = 2.0 * (image @ image + K * s - 1.0) + 4.0 * s
        gradient = 2.0 * np.outer(image, u).ravel()
        expected += 2.0 * np.outer(gradient, gradient)
        expected += slope * 2.0 * np.kron(np.eye(K), np.outer(u, u))
    expected /= EPS**2
    H_bb = np.column_stack([f.bias_hessian(x) @ e for e in np.eye(K * D)])
    np.testing.assert_allclose(H_bb, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())


# --- variants that must agree -------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_all_pairs_are_the_listed_pairs(loss):
    every = make("all", loss)
    listed = JLObjective(points(), K, eps=EPS, pairs=np.triu_indices(N, 1), lam=LAM, loss=loss)
    x = a_point(every)
    v = np.random.default_rng(0).normal(size=x.size)
    assert every.n_pairs == listed.n_pairs == N * (N - 1) // 2
    assert every.value(x) == pytest.approx(listed.value(x), rel=ROUNDING)
    for ours, theirs in (
        (every.value_and_grad(x)[1], listed.value_and_grad(x)[1]),
        (every.hvp(x, v), listed.hvp(x, v)),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=ROUNDING * np.abs(ours).max())


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130])
def test_any_number_of_rows(n):
    """Tiles of 64 rows: whole ones, parts, one alone. One row has a norm but no pair."""
    X = points(n, seed=n)
    norms = JLObjective(X, K, eps=EPS, pairs="norms", lam=LAM, loss="moment2")
    origin = np.vstack([X, np.zeros(D)])
    rows = np.arange(n), np.full(n, n)
    listed = JLObjective(origin, K, eps=EPS, pairs=rows, lam=LAM, loss="moment2")
    x = a_point(norms)
    assert norms.value(x) == pytest.approx(listed.value(x), rel=ROUNDING)
    if n == 1:
        with pytest.raises(ValueError, match="no pair has a distance"):
            JLObjective(X, K, eps=EPS, lam=LAM)
        return
    every = JLObjective(X, K, eps=EPS, lam=LAM, loss="moment2")
    t = np.sum((directions(X, "all") @ block_view(every, x, "b").T) ** 2, axis=1)
    s = float(every.noise(x)[0]) ** 2
    expected = np.sum((t + K * s - 1) ** 2 + 2 * K * s * s + 4 * s * t) / EPS**2
    assert every.violation_bound(x) == pytest.approx(expected, rel=ROUNDING)


def test_equal_sigmas_are_one_sigma():
    one, several = make("norms", "moment4"), make("norms", "moment4", "rows")
    x = a_point(one)
    y = np.r_[np.full(K, x[0] / math.sqrt(K)), x[1:]]
    np.testing.assert_allclose(several.noise(y), one.noise(x)[0], rtol=1e-15)
    assert several.value(y) == pytest.approx(one.value(x), rel=ROUNDING)
    gradient, gradients = one.value_and_grad(x)[1], several.value_and_grad(y)[1]
    assert np.sum(gradients[:K]) / math.sqrt(K) == pytest.approx(gradient[0], rel=ROUNDING)
    np.testing.assert_allclose(gradients[K:], gradient[1:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("pairs", "sigma"), [("all", "scalar"), ("some", "scalar"), ("some", "rows")]
)
def test_bits_do_not_depend_on_threads(pairs, sigma):
    """Large enough for every part to be shared out: 10^6 multiply-adds for each."""
    n, d, k = 620, 300, 6
    X = points(n, d)
    rng = np.random.default_rng(0)
    chosen = "all" if pairs == "all" else (rng.integers(0, n, 10**5), rng.integers(0, n, 10**5))
    for loss in ("moment2",) if sigma == "rows" else ("tail", "moment4"):
        results = []
        for n_threads in (1, 2, 7):
            f = JLObjective(
                X, k, eps=EPS, pairs=chosen, lam=LAM, loss=loss, sigma=sigma, n_threads=n_threads
            )
            x = a_point(f)
            value, gradient = f.value_and_grad(x)
            results.append((value, f.value(x), gradient.tobytes(), f.hvp(x, x).tobytes()))
        assert results[0] == results[1] == results[2]


# --- input --------------------------------------------------------------------------------------


def test_kinds_of_arrays():
    X = points().astype(np.float32)
    f = make(X=X)
    x = a_point(f)
    expected = make(X=X.astype(np.float64)).value(x)
    X.flags.writeable = False
    for same in (X, X[::-1][::-1], np.asfortranarray(X), X.tolist()):
        assert make(X=same).value(x) == expected
    whole = np.arange(12).reshape(4, 3) ** 2
    assert JLObjective(whole, K, eps=EPS, lam=LAM).n_pairs == 6


@pytest.mark.parametrize("scale", [2.0**-600, 1e-100, 1e200])
def test_scale_and_shift_do_not_matter(scale):
    f, scaled = make(), make(X=scale * points())
    x = a_point(f)
    assert scaled.value(x) == pytest.approx(f.value(x), rel=ROUNDING)
    # A shift of 1,000 costs three digits of the differences.
    assert make(X=points() + 1000.0).value(x) == pytest.approx(f.value(x), rel=1e-9)


def test_equal_rows_are_left_out():
    X = points()
    X[[7, 30]], X[40] = X[3], X[4]
    f = make(X=X)
    # Three equal rows are three pairs.
    assert (f.n_zero_pairs, f.n_pairs) == (4, N * (N - 1) // 2 - 4)
    left, right = np.triu_indices(N, 1)
    listed = JLObjective(X, K, eps=EPS, pairs=(left, right), lam=LAM)
    assert listed.n_zero_pairs == 4
    kept = np.linalg.norm(X[left] - X[right], axis=1) > 0
    distinct = JLObjective(X, K, eps=EPS, pairs=(left[kept], right[kept]), lam=LAM)
    assert distinct.n_zero_pairs == 0
    x = a_point(f)
    for other in (listed, distinct):
        assert other.value(x) == pytest.approx(f.value(x), rel=ROUNDING)
    X[5] = 0.0
    norms = make("norms", X=X)
    assert (norms.n_zero_pairs, norms.n_pairs) == (1, N - 1)
    several = make("norms", "moment2", "rows", X=X)
    y = a_point(several)
    keep = np.arange(N) != 5
    assert several.value(y) == make("norms", "moment2", "rows", X=X[keep]).value(y)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"X": [[1.0, math.nan]]}, ValueError, r"X\[0, 1\] is nan"),
        ({"X": [1.0, 2.0]}, ValueError, "shape"),
        ({"X": np.zeros((0, 3))}, ValueError, "shape"),
        ({"X": [[1j, 0.0]]}, TypeError, "complex"),
        ({"X": np.ones((4, 2))}, ValueError, "no pair has a distance"),
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"k": 2.0}, TypeError, "k must be an integer"),
        ({"eps": 0.0}, ValueError, "eps"),
        ({"eps": math.inf}, ValueError, "eps"),
        ({"eps": "a"}, TypeError, "eps"),
        ({"lam": -1.0}, ValueError, "lam"),
        ({"loss": "moment3"}, ValueError, "even order from 2 to 128"),
        ({"loss": "moment130"}, ValueError, "even order from 2 to 128"),
        ({"loss": "moment"}, ValueError, "even order"),
        ({"loss": 2}, TypeError, "loss must be a string"),
        ({"sigma": "columns"}, ValueError, "'scalar' or 'rows'"),
        ({"sigma": "rows"}, ValueError, "loss='tail' needs sigma='scalar'"),
        ({"pairs": "some"}, ValueError, "pairs must be"),
        ({"pairs": ([0], [1], [2])}, ValueError, "pairs must be"),
        ({"pairs": ([0, 1], [2])}, ValueError, "equally long, got 2 and 1"),
        ({"pairs": ([0], [9])}, ValueError, "rows of X, 0 to 2; got 9"),
        ({"pairs": ([-1], [1])}, ValueError, "rows of X"),
        ({"pairs": ([0.5], [1])}, TypeError, "integers"),
        ({"pairs": ([[0]], [1])}, ValueError, "vector"),
        ({"pairs": ([], [])}, ValueError, "no pair"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
)
def test_bad_arguments(changes, error, message):
    arguments = {"X": points(3, 2), "k": 2, "eps": 0.1, "lam": 0.1} | changes
    with pytest.raises(error, match=message):
        JLObjective(arguments.pop("X"), arguments.pop("k"), **arguments)


def test_bad_points():
    f = make()
    x = a_point(f)
    for method in (f.value, f.value_and_grad, f.bias_hessian, f.noise, f.violation_bound):
        with pytest.raises(ValueError, match="shape"):
            method(x[:-1])
    with pytest.raises(ValueError, match=r"v\[2\] is inf"):
        f.hvp(x, np.where(np.arange(x.size) == 2, np.inf, 0.0))


def test_protocol():
    f = make(loss="moment2", sigma="rows", pairs="norms")
    assert isinstance(f, Objective)
    assert check_objective(f) == K + K * D
    assert repr(f) == (
        f"JLObjective(48 pairs in 5 dimensions, 3, eps=0.4, lam=0.03, loss='moment2', "
        f"sigma='rows', n_threads={f.n_threads})"
    )


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_without_noise(pairs):
    """At sigma = 0 the tail counts violations, and a moment is that of a fixed matrix."""
    f = make(pairs)
    x = a_point(f)
    x[0] = 0.0
    M = block_view(f, x, "b")
    distortion = np.abs(np.sum((directions(points(), pairs) @ M.T) ** 2, axis=1) - 1.0)
    assert f.value(x) == np.sum(distortion > EPS)
    assert not f.value_and_grad(x)[1].any()
    assert f.hvp(x, np.ones(x.size))[0] == 2 * LAM
    tiny = x.copy()
    tiny[0] = 1e-9
    assert f.value(tiny) == pytest.approx(np.sum(distortion > EPS), rel=1e-15)
    f = make(pairs, "moment6")
    assert f.value(x) == pytest.approx(np.sum((distortion / EPS) ** 6), rel=ROUNDING)
    assert f.value_and_grad(x)[1][0] == 0.0


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_large_eps_has_no_lower_bound(pairs):
    """For eps >= 1 only too long images count."""
    f = JLObjective(points(), K, eps=1.5, pairs=pairs, lam=LAM)
    x = 2.0 * a_point(f)
    s = float(f.noise(x)[0]) ** 2
    t = np.sum((directions(points(), pairs) @ block_view(f, x, "b").T) ** 2, axis=1)
    expected = np.sum(ncx2.sf(2.5 / s, K, t / s))
    assert f.violation_bound(x) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_overflow_is_not_an_error(pairs):
    f = make(pairs, "moment128")
    x = 1e6 * a_point(f)
    assert f.value(x) == math.inf
    assert not np.isfinite(f.value_and_grad(x)[1]).all()
    assert not np.isfinite(f.hvp(x, x)).all()


def test_collapsed_images():
    """Images 10^-6 as far apart as they are long: their distances come from differences."""
    X = points()
    X[: N // 2] = X[0] + 1e-6 * X[: N // 2]
    f = make(X=X, loss="moment2")
    listed = make(np.triu_indices(N, 1), X=X, loss="moment2")
    x = a_point(f)
    # Centring rounds entries of size 1: differences of 1e-6 keep ten digits.
    assert f.value(x) == pytest.approx(listed.value(x), rel=1e-9)


# --- derandomization ----------------------------------------------------------------------------


def uniform_rows():
    """The setting of arXiv 2510.19382: 100 x 500, rows of length 1; 100 coordinates suffice."""
    X = np.random.default_rng(0).random((100, 500))
    X /= np.linalg.norm(X, axis=1)[:, None]
    return X @ np.linalg.qr(X.T)[0]


def test_less_noise_leads_from_the_start_to_a_saddle():
    f = make("norms", "moment2")
    x = f.gaussian_start()
    assert f.noise(x) == pytest.approx(1 / math.sqrt(K), rel=1e-15)
    # E[(q - 1)^2] = 2 / k.
    assert f.violation_bound(x) == pytest.approx(N * 2.0 / K / EPS**2, rel=ROUNDING)
    assert not f.value_and_grad(x)[1][1:].any()
    low, high = 0.0, float(x[0])
    for _ in range(100):
        x[0] = 0.5 * (low + high)
        if f.value_and_grad(x)[1][0] > 0.0:
            high = x[0]
        else:
            low = x[0]
    # There the mean of the diagonal is -2 lam, so the smallest eigenvalue is at most that.
    assert f.weight_curvature(x)[0, 0] == pytest.approx(-2 * LAM, rel=1e-6)
    H_bb = np.column_stack([f.bias_hessian(x) @ e for e in np.eye(K * D)])
    assert np.linalg.eigvalsh(H_bb)[0] < -2 * LAM


@pytest.mark.parametrize("method", [newton_cg, hessian_descent, pgd])
@pytest.mark.parametrize(
    ("loss", "sigma"), [("tail", "scalar"), ("moment2", "scalar"), ("moment4", "rows")]
)
def test_noise_collapses(method, loss, sigma):
    """From the Gaussian matrix to a certified point whose noise the lemma bounds."""
    X = points(12, 8, seed=2)
    f = JLObjective(X, 4, eps=0.5, pairs="norms", lam=0.05, loss=loss, sigma=sigma)
    start = f.gaussian_start()
    rho, curvature_tol = 1e-3, 0.05
    result = method(f, start, rho=rho, curvature_tol=curvature_tol, max_iter=10**5)
    assert result.success, result.message
    assert result.n_escapes > 0
    assert result.fun <= f.value(start)
    H_bb = np.column_stack([f.bias_hessian(result.x) @ e for e in np.eye(32)])
    smallest = np.linalg.eigvalsh(H_bb)[0]
    noise = np.linalg.norm(block_view(f, result.x, "W"))
    slope = np.linalg.norm(block_view(f, result.jac, "W"))
    assert noise == pytest.approx(result.W_norm, rel=1e-12)
    assert smallest > -2 * f.lam
    # Equality up to rounding is allowed: with one sigma and equal eigenvalues the bound is sharp.
    assert noise <= (1 + 1e-9) * slope / (2 * f.lam + smallest)
    assert noise <= rho / (2 * f.lam - curvature_tol)
    assert noise <= result.collapse_bound
    assert result.stein_residual < 1e-10
    assert noise < 0.02 * np.linalg.norm(block_view(f, start, "W"))
    # The matrix that is left is no worse than the random one we began with.
    fixed = result.x.copy()
    fixed[: fixed.size - 32] = 0.0
    assert f.violation_bound(fixed) <= f.violation_bound(start)


def test_norms_of_the_paper():
    """Its experiment ends at 0.0285 for k = 30; the exact second moment goes far below."""
    X = uniform_rows()
    f = JLObjective(X, 30, eps=1.0, pairs="norms", lam=1e-3, loss="moment2", n_threads=1)
    result = newton_cg(f, f.gaussian_start(), rho=1e-4, curvature_tol=1e-3)
    assert result.success, result.message
    ratios = np.sum((X @ block_view(f, result.x, "b").T) ** 2, axis=1) / np.sum(X * X, axis=1)
    assert np.max(np.abs(ratios - 1.0)) < 1e-4
    assert result.W_norm <= 1e-4 / (2e-3 - 1e-3)


def test_all_pairs_within_a_tolerance():
    """From the Gaussian matrix straight to a fixed one that keeps all 4,950 distances to 0.4."""
    X = uniform_rows()
    f = JLObjective(X, 30, eps=0.4, lam=1e-2, loss="tail", n_threads=1)
    result = newton_cg(f, f.gaussian_start(), rho=1e-2, curvature_tol=1e-2)
    assert result.success, result.message
    ratios = np.sum((directions(X, "all") @ block_view(f, result.x, "b").T) ** 2, axis=1)
    # A bound of the expected number of violations below 1 leaves none.
    assert f.violation_bound(result.x) < 0.5
    assert np.max(np.abs(ratios - 1.0)) <= 0.4
