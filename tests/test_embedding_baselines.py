"""The maps an embedding is compared with: their distortions, against slow twins."""

import doctest

import numpy as np
import pytest
import scipy.sparse

from derand_fast import embedding_baselines
from derand_fast.embedding_baselines import Baselines

POINTS = np.random.default_rng(3).standard_normal((14, 6)) @ np.diag([5.0, 3.0, 2.0, 1.0, 0.5, 0.2])
EVERY_PAIR = np.stack(np.triu_indices(14, 1), axis=1)


def ratios_of(differences, A):
    """Slow twin: ||A x||^2 / ||x||^2 of each difference that is not 0."""
    return np.array([np.sum((A @ x) ** 2) / np.sum(x**2) for x in differences if x.any()])


def best_scale(ratios):
    return (ratios.max() - ratios.min()) / (ratios.max() + ratios.min())


def differences_of(X, pairs):
    """What counts, one row each."""
    if isinstance(pairs, str):
        return X if pairs == "norms" else X[EVERY_PAIR[:, 0]] - X[EVERY_PAIR[:, 1]]
    first, second = pairs if isinstance(pairs, tuple) else np.asarray(pairs).T
    return X[first] - X[second]


CASES = {
    "all": "all",
    "norms": "norms",
    "array": np.array([[0, 3], [3, 7], [13, 1], [2, 2]]),
    "two arrays": (np.array([0, 5, 5]), np.array([1, 4, 9])),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("sparse", [False, True])
def test_principal_components(case, k, sparse):
    pairs = CASES[case]
    X = POINTS.copy()
    X[5] = 0.0  # counts among pairs, not among norms
    centre = 0.0 if case == "norms" else X.mean(axis=0)
    A = np.linalg.svd(X - centre)[2][:k]
    expected = best_scale(ratios_of(differences_of(X, pairs), A))
    given = scipy.sparse.csr_array(X) if sparse else X
    found = Baselines(given, k, pairs=pairs).distortions()["PCA"]
    # Ratios from norms and products lose some digits; Gram matrices of sparse rows half of them.
    assert found == pytest.approx(expected, abs=1e-6 if sparse else 1e-10)


@pytest.mark.parametrize("case", CASES)
def test_ratios_and_distortions_tell_the_same(case):
    baselines = Baselines(POINTS, 3, pairs=CASES[case], seed=4)
    A = np.random.default_rng(0).standard_normal((3, 6))
    own, others = baselines.sampled_ratios(A)
    expected = ratios_of(differences_of(POINTS, CASES[case]), A)
    np.testing.assert_allclose(own, expected, rtol=1e-10)
    for name, distortion in baselines.distortions().items():
        # At the best scale both extremes are equally far from 1.
        assert others[name].max() == pytest.approx(1.0 + distortion, rel=1e-9)
        assert others[name].min() == pytest.approx(1.0 - distortion, abs=1e-9)
        assert len(others[name]) == len(own)


def test_gaussian_map_is_one():
    # Of 400 dimensions: the ratios of a Gaussian map gather round 1 with variance 2 / 400.
    own, others = Baselines(POINTS, 400, seed=0).sampled_ratios(np.eye(6))
    np.testing.assert_allclose(own, 1.0, rtol=1e-12)
    assert 0.02 < others["Gaussian"].std() < 0.14
    assert others["Gaussian"].mean() == pytest.approx(1.0, abs=0.2)
    np.testing.assert_allclose(others["PCA"], 1.0, rtol=1e-9)


def test_seed_and_threads():
    first, again, other = (
        Baselines(POINTS, 2, seed=seed, n_threads=n).distortions()
        for seed, n in ((1, 1), (1, 2), (2, 1))
    )
    assert first == again
    assert first["Gaussian"] != other["Gaussian"]
    assert first["PCA"] == other["PCA"]


def test_equal_rows_do_not_count():
    twice = np.concatenate([POINTS, POINTS[:3]])
    assert Baselines(twice, 2).distortions() == Baselines(POINTS, 2).distortions()
    own, _ = Baselines(twice, 2).sampled_ratios(np.eye(2, 6))
    assert len(own) == len(EVERY_PAIR)


@pytest.mark.parametrize("pairs", ["all", "norms", np.array([[0, 1]])])
def test_nothing_counts(pairs):
    X = np.zeros((4, 3)) if isinstance(pairs, str) else np.ones((4, 3))
    baselines = Baselines(X, 2, pairs=pairs)
    assert baselines.distortions() == {"Gaussian": 0.0, "PCA": 0.0}
    own, others = baselines.sampled_ratios(np.eye(2, 3))
    assert own.size == others["PCA"].size == others["Gaussian"].size == 0


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_more_pairs_than_can_be_shown(monkeypatch, pairs):
    monkeypatch.setattr(embedding_baselines, "_MOST_PAIRS", 10)
    monkeypatch.setattr(embedding_baselines, "_DRAWN_PAIRS", 8)
    A = np.random.default_rng(0).standard_normal((2, 6))
    baselines = Baselines(POINTS, 2, pairs=pairs, seed=5)
    own, others = baselines.sampled_ratios(A)
    again, _ = baselines.sampled_ratios(A)
    every = ratios_of(differences_of(POINTS, pairs), A)
    assert len(own) == len(others["PCA"]) == 8
    np.testing.assert_array_equal(own, again)
    # Each drawn ratio is that of some pair of different rows.
    assert (np.abs(own[:, None] / every - 1.0).min(axis=1) < 1e-10).all()


def test_docstring_examples():
    outcome = doctest.testmod(embedding_baselines)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
