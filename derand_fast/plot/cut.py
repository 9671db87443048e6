"""The picture of a cut: it and its upper bound over time."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from derand_fast.plot.figures import is_finite, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from derand_fast.results import CutResult

__all__ = ["plot_history"]

_Rows = list[tuple[float, float, float | None]]

_CUT_COLOR = "tab:blue"
_BOUND_COLOR = "tab:red"
_SDP_COLOR = "tab:purple"
_ROUNDING_COLOR = "tab:green"
# Least height of the value axis, relative to the values: below it, only rounding errors differ.
_LEAST_SPAN = 0.02


def plot_history(result: CutResult, path: str | os.PathLike[str] | None = None) -> Figure:
    """Plot the best cut and the best upper bound over time.

    Both are staircases, as `CutResult.history` has them, drawn to the end of the call; the gap
    between them is shaded and its last value written at the right end. The upper bound begins where
    there is one; the frame cuts off first guesses far from the final values. Horizontal lines show
    the relaxation's value and, dotted, what random hyperplane rounding expects, where the result
    has them.

    Parameters
    ----------
    result : CutResult
        What `max_cut` returned.
    path : str or os.PathLike, optional
        Save the figure there too, in the format that the suffix names.

    Returns
    -------
    matplotlib.figure.Figure
        With one Axes. Each line has its meaning as label; the staircases have the gids ``"cut"``
        and ``"bound"``.

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
    O(rows of the history) time and memory.

    Examples
    --------
    >>> from derand_fast.maxcut import max_cut
    >>> result = max_cut((3, [(0, 1), (1, 2), (0, 2)], None), seed=0)
    >>> figure = plot_history(result)
    >>> figure.axes[0].get_ylabel()
    'Cut value (sum of edge weights)'
    """
    figure = new_figure(8.0, 5.0, path)
    axes = figure.add_subplot()
    rows = _rows_to_the_end(result)
    _draw_staircases(axes, rows)
    _draw_levels(axes, result)
    _annotate_gap(axes, result)
    _dress_axes(axes, result, rows)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)
    return figure


def _rows_to_the_end(result: CutResult) -> _Rows:
    """History with the returned values as its last row, at the end of the call."""
    end = max([result.seconds["total"], *(row.seconds for row in result.history)])
    return [*result.history, (end, result.cut_value, result.upper_bound)]


def _draw_staircases(axes: Axes, rows: _Rows) -> None:
    # The cut is drawn thinner and on top, so that both show where they meet.
    cut = [(seconds, value) for seconds, value, _ in rows if is_finite(value)]
    _draw_steps(axes, cut, color=_CUT_COLOR, lw=1.8, zorder=3, label="best cut", gid="cut")
    bound = [(row[0], row[2]) for row in rows if is_finite(row[2])]
    if not bound:
        return
    _draw_steps(axes, bound, color=_BOUND_COLOR, lw=2.6, label="upper bound", gid="bound")
    both = [row for row in rows if is_finite(row[1]) and is_finite(row[2])]
    seconds, low, high = zip(*both, strict=True)
    axes.fill_between(seconds, low, high, step="post", color=_BOUND_COLOR, alpha=0.08, lw=0)


def _draw_steps(axes: Axes, points: list[tuple[float, Any]], **style: Any) -> None:
    """Draw a staircase with a dot where it begins."""
    seconds, values = zip(*points, strict=True)
    axes.step(seconds, values, where="post", marker="o", markevery=[0], ms=4, **style)


def _draw_levels(axes: Axes, result: CutResult) -> None:
    levels = (
        (result.sdp_value, "SDP relaxation at the vectors found", _SDP_COLOR, "-."),
        (result.expected_cut, "random rounding, expected cut", _ROUNDING_COLOR, ":"),
    )
    for value, meaning, color, dashes in levels:
        if value is not None and math.isfinite(value):
            label = f"{meaning} ({value:,.8g})"
            axes.axhline(value, color=color, ls=dashes, lw=1.4, label=label)


def _annotate_gap(axes: Axes, result: CutResult) -> None:
    """Write the final gap at the right end, outside the data."""
    gap, bound = result.gap, result.upper_bound
    if gap is None or bound is None or not math.isfinite(gap):
        return
    axes.annotate(
        f"gap\n{100.0 * gap:.3g}%",
        xy=(1.015, (result.cut_value + bound) / 2),
        xycoords=("axes fraction", "data"),
        va="center",
        ha="left",
        color=_BOUND_COLOR,
        annotation_clip=False,
    )


def _dress_axes(axes: Axes, result: CutResult, rows: _Rows) -> None:
    axes.set_xlabel("Time since the call began (s)")
    axes.set_ylabel("Cut value (sum of edge weights)")
    bound = "no upper bound"
    if is_finite(result.upper_bound):
        bound = f"upper bound {result.upper_bound:,.8g}"
    axes.set_title(f"Cut {result.cut_value:,.12g}, {bound}", loc="left", fontweight="bold", pad=22)
    axes.text(
        0.0,
        1.02,
        f"{result.method}, seed {result.seed}: {result.sweeps:,} sweeps in "
        f"{result.seconds['total']:.3g} s",
        transform=axes.transAxes,
        color="0.35",
    )
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    window = _value_window(result, rows)
    if window is not None:
        axes.set_ylim(*window)
    axes.set_xlim(0.0, rows[-1][0] or 1.0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _value_window(result: CutResult, rows: _Rows) -> tuple[float, float] | None:
    """Limits of the value axis: around the final values, whatever far-off first guesses there were.

    A first bound such as the sum of the weights would otherwise squeeze all else into one line.
    None leaves the limits to matplotlib.
    """
    final = (result.cut_value, result.upper_bound, result.sdp_value, result.expected_cut)
    levels = [value for value in final if value is not None and math.isfinite(value)]
    span = max(max(levels) - min(levels), _LEAST_SPAN * max(map(abs, levels)))
    if not is_finite(result.upper_bound) or span == 0.0:
        return None
    reached = [value for row in rows for value in row[1:]]
    values = levels + [value for value in reached if value is not None and math.isfinite(value)]
    low = max(min(values), min(levels) - 0.5 * span)
    high = min(max(values), max(levels) + 0.5 * span)
    return low - 0.1 * span, high + 0.1 * span
