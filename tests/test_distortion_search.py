"""The search on problems with known answers, and the proven lower bound."""

import math

import numpy as np
import pytest
import scipy.sparse

from derand_fast.distortion_search import Progress, distortion_of, search
from derand_fast.embedding_basis import distinct_rows, distortion_bound, row_space
from derand_fast.embedding_pairs import AllPairs
from derand_fast.embedding_solver import EmbeddingProblem


def distortion_by_loop(X, Y):
    """(max r - min r) / (max r + min r) over all pairs of distinct rows."""
    i, j = np.triu_indices(len(X), 1)
    ratios = np.sum((Y[i] - Y[j]) ** 2, axis=1) / np.sum((X[i] - X[j]) ** 2, axis=1)
    return (ratios.max() - ratios.min()) / (ratios.max() + ratios.min())


def bound_of(X, k):
    moved = X - X.mean(axis=0)
    spreads = np.linalg.svd(moved, compute_uv=False)
    return distortion_bound(spreads, np.sum(moved**2, axis=1), k)


def problem_of(X, n_threads=1, seed=0):
    return EmbeddingProblem(row_space(X, centred=True), None, n_threads, seed)


def test_triangle_to_a_line_reaches_the_optimum():
    """Three points at distance 1 on a line: gaps a, b, a + b; best a = b, ratios 1 : 1 : 4."""
    X = np.eye(3)
    best = problem_of(X).solve(1, 2000)
    assert best.distortion == pytest.approx(3 / 5, abs=2e-3)
    assert bound_of(X, 1) <= 3 / 5


def test_square_to_a_line_reaches_the_optimum():
    """A unit square projected to a line: the sides u, v and diagonals (u + v)^2 / 2, (u - v)^2 / 2.

    With u = cos t, v = sin t the ratios are cos^2, sin^2, (1 +- sin 2t) / 2: the four squares of
    projections on directions 45 degrees apart. Best t = 22.5 degrees: (1 +- cos 45) / 2.
    """
    X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert problem_of(X).solve(1, 2000).distortion == pytest.approx(math.cos(math.pi / 4), abs=1e-3)


def test_search_beats_its_references_and_stays_above_the_bound():
    generator = np.random.default_rng(0)
    for X in (generator.random((60, 90)), generator.standard_normal((80, 12))):
        problem = problem_of(X)
        best = problem.solve(6, 400)
        own = [problem.principal(6), problem.gaussian(6), problem.split(6, 3)]
        rivals = [distortion_by_loop(X, problem.images(start)) for start in own]
        assert best.distortion < 0.8 * min(rivals)
        assert bound_of(X, 6) < best.distortion
        measured = distortion_by_loop(X, problem.images(best.coordinates))
        assert measured == pytest.approx(best.distortion, rel=1e-9)


def test_one_pass_is_not_worse_than_the_references():
    X = np.random.default_rng(1).random((40, 30)) * np.geomspace(1, 1e-4, 30)
    problem = problem_of(X)
    best = problem.solve(10, 1)
    rival = distortion_by_loop(X, problem.images(problem.principal(10)))
    assert best.distortion <= rival * (1.0 + 1e-9)


def test_same_bits_for_any_number_of_threads_and_not_for_another_seed():
    X = np.random.default_rng(2).standard_normal((130, 40))
    results = [problem_of(X, threads).solve(8, 120).coordinates for threads in (1, 2, 3)]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_components_reproduce_the_images():
    generator = np.random.default_rng(3)
    for shape in ((50, 20), (20, 50)):
        X = generator.standard_normal(shape)
        space = row_space(X, centred=True)
        matrix = generator.standard_normal((space.rank, 4))
        moved = X - X.mean(axis=0)
        expected = space.left @ matrix
        np.testing.assert_allclose(moved @ space.components(matrix).T, expected, atol=1e-12)
        np.testing.assert_allclose(
            space.points @ space.points.T, moved @ moved.T, atol=1e-12 * 50**2
        )


@pytest.mark.parametrize("shape", [(30, 80), (80, 30)])
@pytest.mark.parametrize("centred", [True, False])
def test_sparse_rows_span_what_dense_rows_span(shape, centred):
    matrix = scipy.sparse.random_array(shape, density=0.3, rng=np.random.default_rng(4)).tocsr()
    space = row_space(matrix, centred=centred)
    dense = row_space(matrix.toarray(), centred=centred)
    assert space.rank == dense.rank
    np.testing.assert_allclose(space.spreads, dense.spreads, rtol=1e-9)
    np.testing.assert_allclose(
        space.points @ space.points.T, dense.points @ dense.points.T, atol=1e-12 * 80
    )
    map_ = np.random.default_rng(5).standard_normal((space.rank, 3))
    moved = matrix.toarray() - (matrix.toarray().mean(axis=0) if centred else 0.0)
    np.testing.assert_allclose(moved @ space.components(map_).T, space.left @ map_, atol=1e-9)


def test_spreads_far_below_the_widest_are_kept():
    """Gram matrices would lose everything below 1e-8."""
    generator = np.random.default_rng(6)
    for shape in ((40, 6), (6, 40)):
        left = np.linalg.qr(generator.standard_normal((shape[0], 5)))[0]
        right = np.linalg.qr(generator.standard_normal((shape[1], 5)))[0]
        spreads = np.array([1.0, 1e-3, 1e-6, 1e-9, 1e-10])
        found = row_space(left * spreads @ right.T, centred=False).spreads
        # Errors of singular values are 1e-16 of the widest.
        np.testing.assert_allclose(found[:5], spreads, atol=1e-14)


def test_distinct_rows():
    X = np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    for rows in (X, scipy.sparse.csr_array(X)):
        kept, equal = distinct_rows(rows)
        assert kept.tolist() == [0, 2]
        assert equal == 3 + 1


# --- lower bound --------------------------------------------------------------------------------


def test_bound_of_a_regular_simplex_is_the_closed_form():
    """On the simplex the inequality becomes an equality that can be written down.

    Eigenvalues 1/2 (n - 1 times) of G, D = 1 off the diagonal: k mu^2 + (n - 1 - k) / 4 with
    mu = ((1 - eps) (n - 1) / 2 - k / 2) / k, against eps^2 n (n - 1) / 4.
    """
    for n, k in ((10, 3), (40, 5), (100, 30)):
        eps = bound_of(np.eye(n) / math.sqrt(2.0), k)
        m = n - 1
        left = ((1 - eps) * m - k) ** 2 / k + (m - k)
        assert left == pytest.approx(eps**2 * n * m, rel=1e-6)
        assert left >= eps**2 * n * m


def test_bound_holds_for_every_map_tried():
    generator = np.random.default_rng(8)
    for scales in (np.ones(12), np.geomspace(1, 1e-2, 12)):
        X = generator.standard_normal((25, 12)) * scales
        moved = X - X.mean(axis=0)
        values = np.linalg.svd(moved, compute_uv=False)
        for k in (1, 2, 5, 11):
            bound = bound_of(X, k)
            principal = np.linalg.svd(moved)[2][:k].T
            for A in [principal, *generator.standard_normal((20, 12, k))]:
                assert bound <= distortion_by_loop(X, X @ A)
        # Frobenius norms written out.
        i, j = np.triu_indices(25, 1)
        D = np.sum((X[i] - X[j]) ** 2, axis=1)
        G = moved @ moved.T
        closed = 2 * 25 * np.sum(np.diag(G) ** 2) + 2 * np.trace(G) ** 2 + 4 * np.sum(G**2)
        assert closed == pytest.approx(2 * np.sum(D**2), rel=1e-12)
        assert np.sum(values**4) == pytest.approx(np.sum(G**2), rel=1e-12)


def test_bound_falls_with_k_and_is_zero_from_the_rank_on():
    X = np.random.default_rng(9).standard_normal((30, 8))
    bounds = [bound_of(X, k) for k in range(1, 10)]
    assert bounds[:8] == sorted(set(bounds), reverse=True)
    assert bounds[7:] == [0.0, 0.0]


# --- parts --------------------------------------------------------------------------------------


def test_progress_is_the_further_of_passes_and_time():
    progress = Progress(10)
    progress.passes = 4
    assert progress.share == 0.4
    assert progress.remaining() == math.inf
    assert Progress(10, 0.0).share >= 1.0


def test_goal_ends_the_search():
    X = np.random.default_rng(10).random((60, 90))
    problem = problem_of(X)
    assert problem.solve(20, 2000, goal=0.5).distortion <= 0.5
    assert problem.passes < 100


def test_smallest_dimension():
    """Rows in a plane with noise 1e-3 about it: two dimensions reach 0.1."""
    generator = np.random.default_rng(11)
    plane = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), axis=-1).reshape(-1, 2)
    X = np.concatenate([plane, 1e-3 * generator.standard_normal((36, 6))], axis=1)
    problem = problem_of(X)
    k, best = problem.smallest(0.1, 200, math.inf, lambda k: bound_of(X, k))
    assert k == 2
    assert best.distortion <= 0.1
    # No dimension below the rank reaches this; there the answer is exact and needs no search.
    assert problem_of(np.eye(4)).smallest(1e-6, 50, math.inf, lambda k: 0.0) == (3, None)


def test_a_search_from_a_sample_measures_all_rows(monkeypatch):
    """With the limits forced small: sample, then most rows, and figures of all of them."""
    X = np.random.default_rng(12).standard_normal((250, 10))
    direct = problem_of(X, 2).solve(5, 300)
    monkeypatch.setattr("derand_fast.embedding_solver._ROWS_AT_ONCE", 100)
    monkeypatch.setattr("derand_fast.embedding_solver._SAMPLE", 90)
    for most, worse in ((1000, 1.1), (200, 1.6)):
        monkeypatch.setattr("derand_fast.embedding_solver._MOST_ROWS", most)
        problem = problem_of(X, 2)
        best = problem.solve(5, 300)
        measured = distortion_by_loop(X, problem.images(best.coordinates))
        assert measured == pytest.approx(best.distortion, rel=1e-9)
        assert best.distortion < worse * direct.distortion
        again = problem_of(X, 1).solve(5, 300)
        assert np.array_equal(best.coordinates, again.coordinates)


def test_history_is_monotone():
    X = np.random.default_rng(13).standard_normal((50, 20))
    pairs, history = AllPairs(X, 1), []
    space = row_space(X, centred=True)
    starts = {"eye": np.eye(space.rank, 5)}
    progress = Progress(200)
    best = search(pairs, space.left, starts, progress=progress, report=history.append)
    distortions = [row.distortion for row in history]
    assert distortions == sorted(distortions, reverse=True)
    assert best.distortion == distortions[-1]
    assert all(row.n_components == 5 and row.start == "eye" for row in history)
    assert not progress.interrupted
    assert distortion_of(1.0, 3.0) == 0.5
