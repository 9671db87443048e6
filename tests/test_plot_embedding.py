"""The picture of an embedding must show its ratios, its extremes and its search."""

import doctest
from collections import namedtuple
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from derand_fast.distortion_search import HistoryRow
from derand_fast.plot import embedding as module
from derand_fast.plot import plot_embedding

POINTS = np.random.default_rng(2).standard_normal((11, 4)) @ np.diag([3.0, 2.0, 1.0, 0.5])
HISTORY = [
    HistoryRow(0.1, 3, 40, 4.0, 0.75, "PCA"),
    HistoryRow(0.2, 3, 60, 6.0, 0.5, "PCA"),
    HistoryRow(0.1, 2, 50, 4.0, 0.875, "PCA"),
]


def make_embedding(pairs="all", **changes):
    """The first two coordinates, halved; extremes by a slow twin."""
    A = 0.5 * np.eye(2, 4)
    first, second = np.triu_indices(len(POINTS), 1)
    differences = POINTS if isinstance(pairs, str) and pairs == "norms" else None
    if differences is None:
        differences = POINTS[first] - POINTS[second]
    ratios = np.array([np.sum((A @ x) ** 2) / np.sum(x**2) for x in differences])
    fields = {
        "components_": A,
        "n_components_": 2,
        "pairs": pairs,
        "max_distortion_": np.abs(ratios - 1.0).max(),
        "lower_bound_": 0.125,
        "certificate_": SimpleNamespace(n_pairs=len(ratios)),
        "history_": HISTORY,
        "n_iter_": 1500,
        "ratios": ratios,
    }
    return SimpleNamespace(**(fields | changes))


def lines_of(axes, gid):
    return [line for line in axes.get_lines() if line.get_gid() == gid]


def outline_of(axes, gid):
    """Corners of a histogram, in order."""
    return next(patch for patch in axes.patches if patch.get_gid() == gid).get_xy()


def counts_between(axes, gid, low, high):
    """Pairs in the bins of a histogram that lie within [low, high]."""
    total = 0.0
    for (x0, y0), (x1, y1) in pairwise(outline_of(axes, gid)):
        if y0 == y1 and x1 > x0 and low <= x0 and x1 <= high:
            total += y0
    return total


@pytest.mark.parametrize("pairs", ["all", "norms"])
def test_histograms_hold_all_that_counts(pairs):
    embedding = make_embedding(pairs)
    axes = plot_embedding(embedding, POINTS).axes[0]
    n = len(embedding.ratios)
    for gid in ("embedding", "Gaussian", "PCA"):
        assert counts_between(axes, gid, -1.0, 3.0) == n, gid
    # Bins end where the extremes are.
    distortion = embedding.max_distortion_
    hair = 1e-5 * distortion
    assert counts_between(axes, "embedding", 1.0 - distortion - hair, 1.0 + distortion + hair) == n
    extremes = [line.get_xdata()[0] for line in lines_of(axes, "extreme")]
    assert extremes == [1.0 - distortion, 1.0 + distortion]


def test_bins_count_what_lies_in_them():
    embedding = make_embedding()
    axes = plot_embedding(embedding, POINTS).axes[0]
    middle = float(np.median(outline_of(axes, "embedding")[:, 0]))
    for low, high in ((-1.0, middle), (middle, 3.0)):
        expected = np.sum((embedding.ratios > low) & (embedding.ratios < high))
        assert counts_between(axes, "embedding", low, high) == expected


@pytest.mark.parametrize("distortion", [0.0, 1e-15, 5e-10, 1e-3, 0.4, 0.5, 1.0, 4.0])
def test_edges_cover_the_samples(distortion):
    own = np.array([1.0 - min(distortion, 1.0), 1.0 + distortion])
    other = np.array([0.01, 0.7, 1.9])
    for samples in ([own], [own, other], [own, np.empty(0)], [np.empty(0)]):
        edges = module._edges(samples, distortion)
        assert 2 <= len(edges) <= 400
        assert (np.diff(edges) > 0.0).all()
        values = np.concatenate(samples)
        assert ((edges[0] <= values) & (values <= edges[-1])).all()


def test_search_is_that_of_the_history():
    axes = plot_embedding(make_embedding(), POINTS).axes[1]
    first, second = lines_of(axes, "distortion")
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 2], [0.75, 0.5])
    assert (list(second.get_xdata()), list(second.get_ydata())) == ([3], [0.875])
    assert [text.get_text() for text in axes.texts] == ["k = 3", "k = 2"]
    assert lines_of(axes, "bound")[0].get_ydata()[0] == 0.125
    assert lines_of(axes, "exact")[0].get_ydata()[0] == make_embedding().max_distortion_


def test_sigma_where_there_is_one():
    row = namedtuple("Row", "n_components distortion sigma")
    history = [row(2, 0.75, 0.5), row(2, 0.5, 0.0)]
    figure = plot_embedding(make_embedding(history_=history), POINTS)
    (sigma,) = lines_of(figure.axes[2], "sigma")
    assert (list(sigma.get_xdata()), list(sigma.get_ydata())) == ([1, 2], [0.5, 0.0])
    assert "sigma" in figure.axes[2].get_ylabel()
    assert figure.axes[2].get_yscale() == "linear"
    # Where nothing is 0, powers of ten.
    rows = [row(2, 0.5, 1e-3), row(2, 0.25, 1e-60)]
    figure = plot_embedding(make_embedding(history_=rows), POINTS)
    assert figure.axes[2].get_yscale() == "log"
    assert len(plot_embedding(make_embedding(), POINTS).axes) == 2


def test_no_search_and_no_pair(tmp_path):
    exact = make_embedding(history_=[], max_distortion_=0.0, lower_bound_=0.0, n_iter_=1)
    figure = plot_embedding(exact, np.ones((11, 4)), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert "no search was needed" in [text.get_text() for text in figure.axes[1].texts]


def test_words():
    figure = plot_embedding(make_embedding(), POINTS)
    pairs, search = figure.axes
    distortion = make_embedding().max_distortion_
    assert pairs.get_title(loc="left") == f"4 to 2 dimensions, largest distortion {distortion:.4g}"
    assert pairs.texts[0].get_text() == (
        "11 rows, 55 pairs checked; passes over them in the search: 1,500"
    )
    assert search.get_ylabel() == "Largest distortion over all pairs"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"this map, distortion {distortion:.3g}" in legend
    assert any(text.startswith("Gaussian map, distortion 0.") for text in legend)
    assert "no map of this dimension has less (0.125)" in legend
    norms = plot_embedding(make_embedding("norms", lower_bound_=0.0), POINTS)
    assert norms.axes[0].get_ylabel() == "Rows in a bin"
    assert norms.axes[0].get_xlabel() == r"$\|A x\|^2 / \|x\|^2$ of a row $x$"
    assert norms.axes[1].get_ylabel() == "Largest distortion over all rows"
    assert not lines_of(norms.axes[1], "bound")


def test_sparse_data_and_listed_pairs(tmp_path):
    listed = np.array([[0, 1], [4, 9]])
    figure = plot_embedding(
        make_embedding(listed), scipy.sparse.csr_array(POINTS), tmp_path / "a.svg"
    )
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert counts_between(figure.axes[0], "PCA", -1.0, 3.0) == 2


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"a\.foo': the suffix decides the format"):
        plot_embedding(make_embedding(), POINTS, tmp_path / "a.foo")


def test_docstring_examples():
    pytest.importorskip("sklearn")
    outcome = doctest.testmod(module)
    assert (outcome.failed, outcome.attempted > 0) == (0, True)
