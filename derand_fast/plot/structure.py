"""The picture of discovered structure: units collapse onto the teacher's direction."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.plot.figures import is_finite, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from derand_fast.structure import StructureResult

__all__ = ["plot_structure"]

FloatArray = NDArray[np.float64]

_BEFORE_COLOR = "0.55"
_AFTER_COLOR = "tab:blue"
_TEACHER_COLOR = "tab:orange"
_OUTSIDE_COLOR = "tab:green"
_BOUND_COLOR = "tab:red"
# All lines from before to after together are as dark as so many full ones.
_LINE_SHADE = 60.0
# Up to so many points are drawn large.
_FEW_UNITS = 300


def plot_structure(result: StructureResult, path: str | os.PathLike[str] | None = None) -> Figure:
    """Plot a student's units before and after, and how its first layer turns to the teacher.

    Left: each unit of the first layer is a point; its first coordinate is its weight along the
    teacher's first direction, the second that along the leading direction outside the teacher's
    subspace at the start (the first right singular vector of W_perp there). Right: ||W_perp|| and
    ||W_par|| over the iterations, and the certified bounds on ||W_perp||.

    Parameters
    ----------
    result : StructureResult
        What `discover_structure` returned.
    path : str or os.PathLike, optional
        Save the figure there too, in the format that the suffix names.

    Returns
    -------
    matplotlib.figure.Figure
        With two Axes. Points and lines have the gids ``"before"``, ``"after"``, ``"teacher"``,
        ``"W_perp"``, ``"W_par"`` and ``"bound"``.

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
    O(h d min(h, d)) time for h units of d inputs: one singular value decomposition. The bound that
    holds at any certified point is drawn only where the lemma applies.

    Examples
    --------
    >>> from derand_fast.structure import discover_structure
    >>> result = discover_structure("tanh", d=3, hidden=4, lam=0.01, seed=1)
    >>> figure = plot_structure(result)
    >>> figure.axes[1].get_xlabel()
    'Iteration'
    """
    figure = new_figure(11.0, 5.4, path)
    units, norms = figure.subplots(1, 2)
    _draw_units(units, result)
    _draw_norms(norms, result)
    for axes in (units, norms):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    _title(units, result)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)
    return figure


def _draw_units(axes: Axes, result: StructureResult) -> None:
    from matplotlib.collections import LineCollection

    plane = _plane(result)
    before = result.initial_network.weights[0] @ plane.T
    after = result.network.weights[0] @ plane.T
    axes.axhline(
        0.0, color=_TEACHER_COLOR, lw=2.0, zorder=1, label="teacher's direction", gid="teacher"
    )
    shade = min(0.5, _LINE_SHADE / len(before))
    ways = np.stack([before, after], axis=1)
    axes.add_collection(LineCollection(list(ways), colors="0.4", alpha=shade, lw=0.8, zorder=2))
    style: dict[str, Any] = {"ls": "none", "marker": "o", "mew": 0.0}
    style["ms"] = 5.0 if len(before) <= _FEW_UNITS else 3.0
    for points, color, name, gid in (
        (before, _BEFORE_COLOR, "units at the start", "before"),
        (after, _AFTER_COLOR, "units at the end", "after"),
    ):
        axes.plot(*points.T, color=color, alpha=0.7, label=name, gid=gid, zorder=3, **style)
    axes.set_xlabel("Weight along the teacher's first direction")
    axes.set_ylabel("Weight along the leading direction\noutside the teacher's, at the start")


def _plane(result: StructureResult) -> FloatArray:
    """Two rows: the teacher's first direction, and the leading one of W_perp at the start.

    The second is 0 where W_perp is; its sign makes its largest entry positive.
    """
    basis = result.teacher.basis
    W = result.initial_network.weights[0]
    outside = W - (W @ basis.T) @ basis
    # What the projection of weights inside the subspace leaves is rounding.
    if np.linalg.norm(outside) <= 1e-12 * np.linalg.norm(W):
        return np.stack([basis[0], np.zeros_like(basis[0])])
    leading = np.linalg.svd(outside, full_matrices=False)[2][0]
    leading = leading * np.sign(leading[np.argmax(np.abs(leading))])
    return np.stack([basis[0], leading])


def _draw_norms(axes: Axes, result: StructureResult) -> None:
    steps = [row.iteration for row in result.history]
    outside = [row.W_perp_norm for row in result.history]
    inside = [row.W_par_norm for row in result.history]
    style: dict[str, Any] = {
        "lw": 1.8,
        "marker": "o",
        "markevery": [0, -1],
        "ms": 4,
        "clip_on": False,
    }
    axes.plot(steps, inside, color=_TEACHER_COLOR, label="||W_par||", gid="W_par", **style)
    axes.plot(steps, outside, color=_OUTSIDE_COLOR, label="||W_perp||", gid="W_perp", **style)
    bounds = _bounds(result)
    for value, meaning, dashes in bounds:
        axes.axhline(
            value,
            color=_BOUND_COLOR,
            ls=dashes,
            lw=1.3,
            label=f"{meaning} ({value:.3g})",
            gid="bound",
        )
    _scale_norms(axes, [*outside, *inside, *(value for value, _, _ in bounds)])
    axes.set_xlabel("Iteration")
    axes.set_ylabel("Frobenius norm of the first layer's part")


def _bounds(result: StructureResult) -> list[tuple[float, str, str]]:
    certificate = result.certificate
    apriori = certificate.collapse_bound_apriori if result.lemma_applies else None
    bounds = (
        (certificate.collapse_bound, "||W_perp|| bound by its own gradient", "--"),
        (apriori, "||W_perp|| bound at any certified point", ":"),
    )
    return [
        (float(value), meaning, dashes)
        for value, meaning, dashes in bounds
        if value is not None and is_finite(value) and value > 0.0
    ]


def _scale_norms(axes: Axes, values: list[float]) -> None:
    """Logarithmic, with a linear foot below the smallest number where there is a 0 to show."""
    positive = [value for value in values if value > 0.0]
    if not positive:
        return
    if min(values) > 0.0:
        axes.set_yscale("log")
        return
    axes.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(min(positive))))
    axes.set_ylim(0.0, 3.0 * max(positive))


def _title(axes: Axes, result: StructureResult) -> None:
    verdict = "certified" if result.certificate.certified else "not certified"
    axes.set_title(
        f"||W_perp|| {result.W_perp_norm:.3g}, from {result.W_perp_norm_initial:.3g}: {verdict}",
        loc="left",
        fontweight="bold",
        pad=22,
    )
    # Out of the layout: the words may reach over the right panel.
    axes.text(
        0.0,
        1.02,
        f"{result.teacher!r}, lam {result.lam:g}, {result.method}, seed {result.seed}, "
        f"{result.seconds:.3g} s",
        transform=axes.transAxes,
        color="0.35",
        in_layout=False,
    )
