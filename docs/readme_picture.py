"""Draw the README's picture: the same idea at work on a graph, a network and a cloud of points.

python docs/readme_picture.py [docs/_static/readme.png]
"""

import sys

import numpy as np
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.random_projection import GaussianRandomProjection

from derand_fast import JLEmbedding, discover_structure, max_cut
from derand_fast.generators import torus_grid

BLUE, ORANGE, GREY = "#2a5bd7", "#e8793a", "#8a94a6"


def draw_cut(axes):
    """Best cut and upper bound over time."""
    result = max_cut(torus_grid(100, 100, seed=1, weights="signs"), effort="quick")
    seconds, cuts, bounds = zip(*result.history, strict=True)
    end = result.seconds["total"]
    bounds = [np.nan if bound is None else bound for bound in bounds]
    axes.step(
        [*seconds, end], [*bounds, bounds[-1]], where="post", color=ORANGE, label="no cut is above"
    )
    axes.step([*seconds, end], [*cuts, cuts[-1]], where="post", color=BLUE, label="best cut")
    axes.axhline(result.expected_cut, color=GREY, ls=":", label="random rounding, expected")
    low, high = result.expected_cut, result.upper_bound
    axes.set(ylim=(low - 0.15 * (high - low), high + 0.15 * (high - low)))
    axes.set(
        title=f"a cut within {result.gap:.1%} of optimal", xlabel="seconds", ylabel="cut value"
    )


def draw_units(axes):
    """Units of a network before and after."""
    result = discover_structure("tanh", d=2, hidden=200, lam=1e-3, seed=1)
    direction = result.teacher.basis[0]
    across = np.array([-direction[1], direction[0]])
    axes.axhline(0.0, color=GREY, ls=":", label="teacher's direction")
    for network, color, label in (
        (result.initial_network, ORANGE, "units at the start"),
        (result.network, BLUE, "at a certified point"),
    ):
        weights = network.weights[0]
        axes.plot(
            weights @ direction,
            weights @ across,
            "o",
            ms=4,
            alpha=0.7,
            color=color,
            mew=0,
            label=label,
        )
    axes.set(
        title="a network finds its teacher's direction",
        xlabel="weight along it",
        ylabel="weight across it",
    )


def draw_pairs(axes):
    """Ratios of squared distances of all pairs, by three maps at their best scales."""
    X = load_digits().data[:500]
    before = pdist(X, "sqeuclidean")
    embedding = JLEmbedding(n_components=30).fit(X)
    maps = (
        ("Gaussian", GaussianRandomProjection(30, random_state=0).fit_transform(X), GREY),
        ("PCA", PCA(30).fit_transform(X), ORANGE),
        ("JLEmbedding", embedding.transform(X), BLUE),
    )
    bins = np.linspace(0.0, 2.0, 121)
    axes.set_xlim(0.1, 2.6)
    for name, Y, color in maps:
        ratios = pdist(Y, "sqeuclidean") / before
        ratios *= 2.0 / (ratios.min() + ratios.max())
        worst = ratios.max() - 1.0
        axes.hist(
            ratios, bins, histtype="step", color=color, label=f"{name}: off by {worst:.2f} at most"
        )
    axes.set(
        title="64 pixels in 30 numbers, all pairs",
        xlabel="squared distance, after / before",
        yscale="log",
    )
    axes.set_ylabel("pairs of digits")


def main():
    """Draw the three and save them."""
    figure = Figure(figsize=(13.5, 3.9), layout="constrained")
    panels = (
        (draw_cut, (0.45, 0.45)),
        (draw_units, "lower right"),
        (draw_pairs, "upper right"),
    )
    for axes, (draw, place) in zip(figure.subplots(1, 3), panels, strict=True):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=8, loc=place)
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "docs/_static/readme.png", dpi=110)


if __name__ == "__main__":
    main()
