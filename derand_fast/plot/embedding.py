"""The picture of an embedding: what it does to distances, beside maps that know less."""

from __future__ import annotations

import math
import os
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.plot.figures import new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from derand_fast.embedding import JLEmbedding

__all__ = ["plot_embedding"]

FloatArray = NDArray[np.float64]

_OWN_COLOR = "tab:blue"
_BASELINE_COLORS = {"Gaussian": "0.45", "PCA": "tab:orange"}
_BOUND_COLOR = "tab:red"
_SIGMA_COLOR = "tab:green"
_BINS = 120
# Bins still differ in float64, and rounding errors of exact maps fall into one.
_LEAST_WIDTH = 1e-9


def plot_embedding(
    embedding: JLEmbedding, X: Any, path: str | os.PathLike[str] | None = None
) -> Figure:
    """Plot what an embedding does to the distances between rows, and how it was found.

    Left: histograms of the ratios ||A (x_i - x_j)||^2 / ||x_i - x_j||^2, beside those of a random
    Gaussian map and of principal components of the same dimension, each of these at its best scale;
    vertical lines at 1 +- the exact largest distortion. Right: the distortion over the work done,
    its proven lower bound, and the noise sigma where the history has it.

    Parameters
    ----------
    embedding : JLEmbedding
        Fitted.
    X : (n, d) array or scipy.sparse matrix
        The rows it was fitted to.
    path : str or os.PathLike, optional
        Save the figure there too, in the format that the suffix names.

    Returns
    -------
    matplotlib.figure.Figure
        With two Axes, three with sigma. The histograms have the gids ``"embedding"``,
        ``"Gaussian"``, ``"PCA"``, lines ``"extreme"``, ``"distortion"``, ``"bound"``, ``"sigma"``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the suffix of path names no format that matplotlib can write.
    OSError
        If path cannot be written.

    Notes
    -----
    Histograms are of all pairs up to two million, else of half a million pairs drawn with seed 0;
    the lines at 1 +- distortion and the scales are exact for all pairs in any case. Cost: that of
    `derand_fast.embedding_baselines.Baselines`.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.embedding import JLEmbedding
    >>> X = np.random.default_rng(0).random((20, 10))
    >>> figure = plot_embedding(JLEmbedding(n_components=5, max_iter=50).fit(X), X)
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['Pairs in a bin', 'Largest distortion over all pairs']
    """
    figure = new_figure(11.0, 5.2, path)
    pairs, search = figure.subplots(1, 2)
    _draw_ratios(pairs, embedding, X)
    _draw_search(search, embedding)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    for axes in (pairs, search):
        axes.spines["right"].set_visible(False)
        axes.grid(alpha=0.25)
    _title(pairs, embedding, X)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)
    return figure


def _draw_ratios(axes: Axes, embedding: JLEmbedding, X: Any) -> None:
    from derand_fast.embedding_baselines import Baselines

    baselines = Baselines(X, embedding.n_components_, pairs=embedding.pairs)
    own, others = baselines.sampled_ratios(embedding.components_)
    distortions = baselines.distortions()
    # Common bins: heights can be compared. At the best scale no ratio is beyond [0, 2].
    edges = _edges([own, *others.values()], embedding.max_distortion_)
    for name, ratios in others.items():
        label = f"{name} map, distortion {distortions[name]:.3g}"
        style: dict[str, Any] = {"color": _BASELINE_COLORS[name], "label": label, "gid": name}
        axes.hist(ratios, edges, histtype="step", lw=1.6, **style)
    label = f"this map, distortion {embedding.max_distortion_:.3g}"
    axes.hist(
        own,
        edges,
        histtype="stepfilled",
        color=_OWN_COLOR,
        alpha=0.55,
        label=label,
        gid="embedding",
    )
    for sign in (-1.0, 1.0):
        axes.axvline(
            1.0 + sign * embedding.max_distortion_,
            color=_OWN_COLOR,
            ls="--",
            lw=1.2,
            label="its exact extremes" if sign > 0.0 else None,
            gid="extreme",
        )
    if len(own):
        axes.set_yscale("log")
    meaning = r"$\|A x\|^2 / \|x\|^2$ of a row $x$"
    if _subject(embedding) == "pair":
        meaning = r"$\|A(x - y)\|^2 / \|x - y\|^2$ of a pair of rows $x$, $y$"
    axes.set_xlabel(meaning)
    axes.set_ylabel(f"{_subject(embedding).capitalize()}s in a bin")


def _subject(embedding: JLEmbedding) -> str:
    """Whose lengths count."""
    return "row" if isinstance(embedding.pairs, str) and embedding.pairs == "norms" else "pair"


def _edges(samples: list[FloatArray], distortion: float) -> list[float]:
    """Bins from the lowest to the highest ratio, with edges at 1 +- distortion."""
    values = np.concatenate(samples)
    low, high = values.min(initial=1.0), values.max(initial=1.0)
    width = max((high - low) / _BINS, _LEAST_WIDTH)
    # A hair wider than 2 distortion, so that rounding puts no extreme pair outside its line.
    own = 2.0 * distortion * (1.0 + 1e-6)
    if own > width:
        width = own / round(own / width)
    else:  # all of this map's pairs in one bin
        own = width
    first = math.floor((low - 1.0 + own / 2.0) / width)
    last = math.ceil((high - 1.0 + own / 2.0) / width)
    edges = 1.0 - own / 2.0 + width * np.arange(first, max(last, first + 1) + 1)
    return [float(edge) for edge in edges]


def _draw_search(axes: Axes, embedding: JLEmbedding) -> None:
    from matplotlib.ticker import MaxNLocator

    stages: list[tuple[int, Any]] = list(enumerate(embedding.history_, 1))
    for number, (k, group) in enumerate(groupby(stages, lambda stage: stage[1].n_components)):
        points = [(stage, row.distortion) for stage, row in group]
        axes.plot(
            *zip(*points, strict=True),
            color=_OWN_COLOR,
            lw=1.6,
            marker="o",
            ms=3.5,
            label=None if number else "best map met with k dimensions",
            gid="distortion",
        )
        axes.annotate(
            *(f"k = {k}", points[0], (0, 6)),
            textcoords="offset points",
            ha="left",
            color="0.35",
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
        )
    levels = (
        (embedding.max_distortion_, "exact, of the map returned", "--", _OWN_COLOR, "exact"),
        (embedding.lower_bound_, "no map of this dimension has less", ":", _BOUND_COLOR, "bound"),
    )
    for value, meaning, dashes, color, gid in levels:
        if value > 0.0:
            label = f"{meaning} ({value:.3g})"
            axes.axhline(value, color=color, ls=dashes, lw=1.3, label=label, gid=gid)
    if embedding.max_distortion_ > 0.0:
        axes.set_yscale("log")
    sigmas = [(stage, row.sigma) for stage, row in stages if row.sigma is not None]
    if sigmas:
        _draw_sigma(axes.twinx(), sigmas)
    if stages:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        axes.set_xticks([])
        axes.text(0.5, 0.6, "no search was needed", ha="center", transform=axes.transAxes)
    axes.margins(y=0.1)
    axes.set_xlabel("Stage of the search")
    axes.set_ylabel(f"Largest distortion over all {_subject(embedding)}s")


def _draw_sigma(axes: Axes, sigmas: list[tuple[int, float]]) -> None:
    style: dict[str, Any] = {"color": _SIGMA_COLOR, "lw": 1.6, "ls": "-."}
    axes.plot(*zip(*sigmas, strict=True), label="sigma of the random map", gid="sigma", **style)
    # It falls by a constant factor or faster, to far below rounding.
    if min(sigma for _, sigma in sigmas) > 0.0:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0.0)
    axes.set_ylabel("Standard deviation sigma", color=_SIGMA_COLOR)


def _title(axes: Axes, embedding: JLEmbedding, X: Any) -> None:
    n, d = X.shape
    axes.set_title(
        f"{d:,} to {embedding.n_components_:,} dimensions, largest distortion "
        f"{embedding.max_distortion_:.4g}",
        loc="left",
        fontweight="bold",
        pad=22,
    )
    # Out of the layout: the words may reach over the right panel.
    axes.text(
        0.0,
        1.02,
        f"{n:,} rows, {embedding.certificate_.n_pairs:,} {_subject(embedding)}s checked; passes "
        f"over them in the search: {embedding.n_iter_:,}",
        transform=axes.transAxes,
        color="0.35",
        in_layout=False,
    )
