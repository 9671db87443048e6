"""JLEmbedding: scikit-learn's contract, exactness of what it reports, and bad input."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")


from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from derand_fast.embedding import JLEmbedding


@parametrize_with_checks([JLEmbedding()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def rows(n=60, d=90, seed=0):
    return np.random.default_rng(seed).random((n, d))


def ratios_by_loop(X, A, pairs=None):
    """R of each pair of rows, from their differences."""
    i, j = np.triu_indices(len(X), 1) if pairs is None else np.transpose(pairs)
    differences = np.asarray(X, dtype=np.float64)[i] - np.asarray(X, dtype=np.float64)[j]
    lengths = np.sum(differences**2, axis=1)
    images = differences @ np.asarray(A, dtype=np.float64).T
    return np.sum(images[lengths > 0] ** 2, axis=1) / lengths[lengths > 0]


def quick(k="auto", **options):
    return JLEmbedding(k, **{"max_iter": 60, **options})


# --- what is reported is exact ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(60, 90), (90, 20)])
def test_distortion_is_the_exact_maximum_for_the_returned_map(shape, dtype):
    X = rows(*shape).astype(dtype)
    embedding = quick(8).fit(X)
    ratios = ratios_by_loop(X, embedding.components_)
    assert embedding.components_.dtype == dtype
    # Both sides round 100 terms.
    assert embedding.max_distortion_ == pytest.approx(np.abs(ratios - 1).max(), rel=1e-12)
    certificate = embedding.certificate_
    assert certificate.lowest_ratio == pytest.approx(ratios.min(), rel=1e-12)
    assert certificate.highest_ratio == pytest.approx(ratios.max(), rel=1e-12)
    worst = ratios_by_loop(X, embedding.components_, [embedding.worst_pair_])[0]
    assert abs(worst - 1) == pytest.approx(embedding.max_distortion_, rel=1e-12)
    assert certificate.n_pairs == shape[0] * (shape[0] - 1) // 2
    assert embedding.lower_bound_ < embedding.max_distortion_
    # The best scale: both extremes are equally far from 1 (to the rounding of float32 entries).
    centre = 0.5 * (ratios.min() + ratios.max())
    assert centre == pytest.approx(1.0, abs=1e-9 if dtype == np.float64 else 1e-6)


def test_contraction_never_lengthens():
    X = rows()
    embedding = quick(8, scale="contraction").fit(X)
    assert ratios_by_loop(X, embedding.components_).max() == pytest.approx(1.0, abs=1e-12)
    assert embedding.certificate_.highest_ratio == pytest.approx(1.0, abs=1e-12)


def test_better_than_random_and_principal_components():
    X = rows()
    found = quick(10, max_iter=300).fit(X).max_distortion_
    vectors = np.linalg.svd(X - X.mean(axis=0))[2][:10]
    gaussian = np.random.default_rng(1).standard_normal((10, 90))
    for A in (vectors, gaussian):
        ratios = ratios_by_loop(X, A)
        rival = (ratios.max() - ratios.min()) / (ratios.max() + ratios.min())
        assert found < 0.6 * rival


@pytest.mark.parametrize("k", [7, 8, 12])
def test_from_the_rank_on_the_map_is_exact(k):
    """Rows in a space of dimension 7."""
    X = rows(30, 7) @ np.linalg.qr(np.random.default_rng(2).random((12, 7)))[0].T
    embedding = quick(k).fit(X)
    assert embedding.n_components_ == k == len(embedding.components_)
    assert embedding.max_distortion_ < 1e-12
    assert not embedding.components_[7:].any()
    assert embedding.lower_bound_ == 0.0


def test_norms():
    """The setting of the paper: rows of length 1, nearly parallel; here they themselves count."""
    X = rows(50, 200)
    X /= np.linalg.norm(X, axis=1)[:, None]
    embedding = quick(15, pairs="norms", max_iter=3000).fit(X)
    ratios = np.sum(embedding.transform(X) ** 2, axis=1)
    assert embedding.max_distortion_ == pytest.approx(np.abs(ratios - 1).max(), abs=1e-14)
    assert embedding.max_distortion_ < 1e-3
    first, second = embedding.worst_pair_
    assert first == second
    assert embedding.certificate_.n_pairs == 50


@pytest.mark.parametrize("as_tuple", [True, False])
def test_listed_pairs(as_tuple):
    X = rows(40, 30)
    i, j = np.arange(0, 39), np.arange(1, 40)
    pairs = (i, j) if as_tuple else np.stack([i, j], axis=1)
    embedding = quick(3, pairs=pairs, max_iter=400).fit(X)
    ratios = ratios_by_loop(X, embedding.components_, np.stack([i, j], axis=1))
    assert embedding.max_distortion_ == pytest.approx(np.abs(ratios - 1).max(), rel=1e-12)
    # 39 lengths, 90 unknowns: nearly exact, though all 780 distances in 3 dimensions cannot be.
    assert embedding.max_distortion_ < 0.05
    assert embedding.distortion(X) > 0.3


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("shape", [(40, 120), (120, 25)])
def test_sparse_rows_give_what_dense_rows_give(container, shape):
    matrix = scipy.sparse.random_array(shape, density=0.2, rng=np.random.default_rng(3))
    sparse, dense = container(matrix), matrix.toarray()
    embedding = quick(10).fit(sparse)
    ratios = ratios_by_loop(dense, embedding.components_)
    assert embedding.max_distortion_ == pytest.approx(np.abs(ratios - 1).max(), rel=1e-11)
    images = embedding.transform(sparse)
    assert isinstance(images, np.ndarray)
    np.testing.assert_allclose(images, embedding.transform(dense), atol=1e-13)
    # Another route to the same coordinates: another local minimum at worst.
    assert embedding.max_distortion_ == pytest.approx(quick(10).fit(dense).max_distortion_, rel=0.1)


def test_wide_sparse_rows_are_never_made_dense():
    """2 * 10^8 columns: a dense row alone would take 1.6 GB."""
    generator = np.random.default_rng(4)
    columns = generator.integers(0, 10**6, (30, 20))
    matrix = scipy.sparse.coo_array(
        (generator.random(600), (np.repeat(np.arange(30), 20), columns.ravel())), (30, 10**6)
    ).tocsr()
    embedding = quick(5, max_iter=20).fit(matrix)
    assert embedding.components_.shape == (5, 10**6)
    assert 0.0 < embedding.max_distortion_ < 1.0


def test_smallest_dimension_for_eps():
    X = rows(40, 60)
    embedding = quick(eps=0.4, max_iter=300).fit(X)
    assert embedding.max_distortion_ <= 0.4
    assert embedding.n_components_ < 20
    assert quick(embedding.n_components_ - 2, max_iter=300).fit(X).max_distortion_ > 0.4
    names = embedding.get_feature_names_out()
    assert names[0] == "jlembedding0"
    assert len(names) == embedding.n_components_


def test_distortion_of_new_rows():
    X = rows(80, 30)
    embedding = quick(10).fit(X[:50])
    new, old = X[50:], X[:50]
    assert embedding.distortion(old) == pytest.approx(embedding.max_distortion_, rel=1e-12)
    expected = np.abs(ratios_by_loop(new, embedding.components_) - 1).max()
    assert embedding.distortion(new) == pytest.approx(expected, rel=1e-12)
    expected = np.abs(ratios_by_loop(X, embedding.components_) - 1).max()
    assert embedding.distortion(new, old) == pytest.approx(expected, rel=1e-12)
    assert embedding.distortion(scipy.sparse.csr_array(new), old) == pytest.approx(expected)
    assert embedding.distortion(new[[0, 0]]) == 0.0
    with pytest.raises(ValueError, match="two rows"):
        embedding.distortion(new[:1])


# --- transformer --------------------------------------------------------------------------------


def test_same_bits_for_any_number_of_threads():
    X = rows(150, 40)
    fitted = [quick(9, n_jobs=n_jobs).fit(X) for n_jobs in (None, 2, -1)]
    for other in fitted[1:]:
        assert np.array_equal(fitted[0].components_, other.components_)
        assert fitted[0].max_distortion_ == other.max_distortion_


def test_random_state_settles_everything():
    X = rows()
    mine, same = (quick(5, random_state=7).fit(X).components_ for _ in range(2))
    assert np.array_equal(mine, same)
    state = quick(5, random_state=np.random.RandomState(7)).fit(X).components_
    assert np.array_equal(mine, state)


def test_inverse_transform():
    X = rows(30, 50)
    for keep in (True, False):
        embedding = quick(6, compute_inverse_components=keep).fit(X)
        assert hasattr(embedding, "inverse_components_") == keep
        back = embedding.inverse_transform(embedding.transform(X))
        assert back.shape == X.shape
        # What is left out is orthogonal to the map's rows.
        np.testing.assert_allclose(
            embedding.transform(back), embedding.transform(X), atol=1e-10 * np.abs(X).max()
        )
    with pytest.raises(ValueError, match="5 columns"):
        embedding.inverse_transform(np.ones((2, 5)))


def test_clone_pickle_pipeline_grid_search():
    X = rows(60, 20)
    y = (X[:, 0] > 0.5).astype(int)
    embedding = quick(5).fit(X)
    assert not hasattr(clone(embedding), "components_")
    again = pickle.loads(pickle.dumps(embedding))
    assert np.array_equal(again.transform(X), embedding.transform(X))
    assert again.certificate_ == embedding.certificate_
    pipeline = make_pipeline(quick(5, max_iter=5), LogisticRegression())
    search = GridSearchCV(pipeline, {"jlembedding__n_components": [2, 5]}, cv=2).fit(X, y)
    assert search.best_params_["jlembedding__n_components"] in (2, 5)
    pipeline.set_output(transform="default").fit(X, y)


def test_verbose_prints_one_line_for_each_stage(capsys):
    embedding = quick(5, verbose=True).fit(rows())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(embedding.history_) > 3
    assert lines[0].startswith("[JLEmbedding]")
    for line, row in zip(lines, embedding.history_, strict=True):
        assert line.endswith(f"distortion {row.distortion:.6f}  from {row.start}")
    assert not embedding.interrupted_
    assert embedding.stationary_point_ is None


# --- the road of the theory ---------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_annealing_ends_without_noise_and_with_a_certificate(pairs):
    """The bound of sigma, and distortions that fall from order to order."""
    X = rows(25, 40)
    embedding = quick(8, method="objective", pairs=pairs, max_iter=2000).fit(X)
    point = embedding.stationary_point_
    assert point.certified
    assert point.W_norm <= point.collapse_bound <= point.collapse_bound_apriori
    history = embedding.history_
    assert [row.sharpness for row in history[:2]] == [2.0, 4.0]
    assert history[-1].sigma <= point.collapse_bound / np.sqrt(8 * 25)
    assert all(row.start == "sigma" for row in history)
    assert min(row.distortion for row in history) == pytest.approx(embedding.max_distortion_)
    if pairs == "norms":  # 25 lengths, 200 unknowns
        assert embedding.max_distortion_ < 1e-3
    else:
        # Moments up to order 32 of 300 pairs: 300^(1/32) = 1.2 times the smallest maximum at most.
        assert embedding.max_distortion_ < 1.2 * quick(8, max_iter=800).fit(X).max_distortion_


def test_annealing_has_the_same_bits_for_any_number_of_threads():
    X = rows(25, 40)
    maps = [
        quick(5, method="objective", max_iter=60, n_jobs=n_jobs).fit(X).components_
        for n_jobs in (1, 2)
    ]
    assert np.array_equal(*maps)
    assert quick(5, method="objective", time_limit=0.0).fit(X).max_distortion_ < 1.0


# --- interrupted --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["search", "objective"])
def test_an_interrupted_fit_returns_the_best_so_far(method, monkeypatch):
    """At the end of the second stage; what is reported is exact as ever."""
    X = rows(25, 40)
    rows_seen = []

    def interrupt(row):
        rows_seen.append(row)
        if len(rows_seen) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("derand_fast.embedding._print_stage", interrupt)
    embedding = quick(8, method=method, verbose=True, max_iter=600).fit(X)
    assert embedding.interrupted_
    assert len(embedding.history_) == 2
    ratios = ratios_by_loop(X, embedding.components_)
    assert embedding.max_distortion_ == pytest.approx(np.abs(ratios - 1).max(), rel=1e-12)
    assert embedding.max_distortion_ == pytest.approx(rows_seen[-1].distortion, rel=1e-9)


def test_an_interrupted_auto_returns_a_dimension_that_reaches_eps(monkeypatch):
    X = rows(40, 60)
    stages = []

    def interrupt(row):
        stages.append(row.n_components)
        if len(set(stages)) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("derand_fast.embedding._print_stage", interrupt)
    embedding = quick(eps=0.4, max_iter=300, verbose=True).fit(X)
    assert embedding.interrupted_
    assert len(set(stages)) == 3
    assert embedding.max_distortion_ <= 0.4
    assert embedding.n_components_ >= quick(eps=0.4, max_iter=300).fit(X).n_components_


# --- bad and awkward input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "n_components must be at least 1, got 0"),
        ({"n_components": 91}, ValueError, "n_components=91 .* n_features=90"),
        ({"n_components": "all"}, ValueError, "'all'"),
        ({"n_components": 2.5}, TypeError, "n_components must be an integer"),
        ({"eps": 0.0}, ValueError, "eps must be strictly between 0 and 1"),
        ({"eps": 1.0}, ValueError, "eps must be strictly between 0 and 1"),
        ({"eps": -0.1}, ValueError, "eps"),
        ({"eps": "0.1"}, TypeError, "eps"),
        ({"method": "magic"}, ValueError, "'magic'"),
        ({"scale": "big"}, ValueError, "'big'"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"time_limit": -1.0}, ValueError, "time_limit"),
        ({"time_limit": float("nan")}, ValueError, "time_limit"),
        ({"n_jobs": 0}, ValueError, "n_jobs"),
        ({"pairs": "some"}, ValueError, "'some'"),
        ({"pairs": np.zeros((3, 3), dtype=int)}, ValueError, r"\(3, 3\)"),
        ({"pairs": np.zeros((3, 2))}, ValueError, "float64"),
        ({"pairs": np.array([[0, 60]])}, ValueError, "from 0 to 59"),
        ({"pairs": np.array([[-1, 0]])}, ValueError, "from 0 to 59"),
        ({"pairs": np.empty((0, 2), dtype=int)}, ValueError, "at least one pair"),
    ],
)
def test_bad_parameters(options, error, message):
    with pytest.raises(error, match=message):
        quick(
            **{"k": 3, **{("k" if n == "n_components" else n): v for n, v in options.items()}}
        ).fit(rows())


def test_bad_rows():
    X = rows()
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        quick(3).fit(X)
    with pytest.raises(ValueError, match="1 sample"):
        quick(3).fit(rows(1, 5))
    with pytest.raises(NotFittedError):
        quick(3).transform(rows())


def test_equal_rows_are_left_out():
    X = rows(20, 30)
    doubled = np.concatenate([X, X[:5], X[:2]])
    embedding = quick(6).fit(doubled)
    assert embedding.certificate_.n_equal_pairs == 2 * 3 + 3 * 1
    assert embedding.certificate_.n_pairs == 27 * 26 // 2 - 9
    assert np.array_equal(embedding.components_, quick(6).fit(X).components_)
    norms = quick(6, pairs="norms").fit(np.concatenate([X, np.zeros((2, 30))]))
    assert norms.certificate_.n_equal_pairs == 2
    assert norms.certificate_.n_pairs == 20


def test_constant_rows_and_columns():
    embedding = quick(2).fit(np.ones((5, 4)))
    assert embedding.max_distortion_ == 0.0
    assert embedding.certificate_.n_equal_pairs == 10
    assert np.array_equal(embedding.components_, np.eye(2, 4))
    assert quick().fit(np.ones((5, 4))).n_components_ == 1
    X = rows(30, 12)
    X[:, 3] = 7.0
    assert quick(4).fit(X).max_distortion_ < 1.0


def test_two_rows():
    embedding = quick(1).fit(np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]]))
    assert embedding.max_distortion_ < 1e-15
    assert np.abs(embedding.components_) == pytest.approx(np.array([[1, 2, 2]]) / 3)


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_scale_of_the_rows_does_not_matter(factor):
    X = rows(30, 20)
    # A power of two changes no bit.
    power = 2.0 ** round(np.log2(factor))
    mine, theirs = quick(5).fit(X), quick(5).fit(power * X)
    assert np.array_equal(mine.components_, theirs.components_)
    assert mine.max_distortion_ == theirs.max_distortion_


def test_rows_far_from_the_origin():
    """1e6 away, ten digits of the differences are left, and only differences count."""
    X = rows(40, 20)
    assert quick(6).fit(X + 1e6).max_distortion_ == pytest.approx(
        quick(6).fit(X).max_distortion_, rel=0.1
    )


def test_no_time_still_gives_a_map_no_worse_than_principal_components():
    X = rows(60, 90)
    embedding = quick(10, time_limit=0.0).fit(X)
    vectors = np.linalg.svd(X - X.mean(axis=0))[2][:10]
    ratios = ratios_by_loop(X, vectors)
    rival = (ratios.max() - ratios.min()) / (ratios.max() + ratios.min())
    assert embedding.max_distortion_ <= rival * (1 + 1e-9)
    # Out of time, "auto" falls back to the rank, where no search is needed.
    assert quick(time_limit=0.0).fit(X).n_components_ == 59


def test_the_package_loads_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import derand_fast\n"
        "try:\n    import derand_fast.embedding\n"
        "except ImportError as error:\n    assert 'derand-fast[embedding]' in str(error), error\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120)
