"""Pictures of one call: the cut and its upper bound over time, or a descent past its saddles.

Needs the ``plot`` extra (matplotlib). Figures are made without pyplot, so that no window opens, no
backend is chosen for the caller and nothing is kept alive behind his back.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from derand_fast.results import CutResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from derand_fast.optimize.result import SOSPResult

__all__ = ["check_plot_path", "plot_history", "plot_optimization"]

_Rows = list[tuple[float, float, float | None]]

_CUT_COLOR = "tab:blue"
_BOUND_COLOR = "tab:red"
_SDP_COLOR = "tab:purple"
_ROUNDING_COLOR = "tab:green"
_VALUE_COLOR = "tab:blue"
_GRADIENT_COLOR = "tab:orange"
_CURVATURE_COLOR = "tab:purple"
_WEIGHT_COLOR = "tab:green"
_TARGET_COLOR = "tab:red"
# Steps that leave a saddle.
_ESCAPES = ("negative curvature", "perturbation")
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
    figure_type = _import_figure()
    if path is not None:
        check_plot_path(path)
    figure = figure_type(figsize=(8.0, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    rows = _rows_to_the_end(result)
    _draw_staircases(axes, rows)
    _draw_levels(axes, result)
    _annotate_gap(axes, result)
    _dress_axes(axes, result, rows)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    if path is not None:
        figure.savefig(path, format=_suffix(path))
    return figure


def plot_optimization(result: SOSPResult, path: str | os.PathLike[str] | None = None) -> Figure:
    """Plot a descent: value, gradient norm, curvature and, if there is a block W, its norm.

    One panel each over the steps. Steps along negative curvature and perturbations are marked by
    vertical lines; red dashed lines are the targets of gradient and curvature, and the bounds on
    ||W||. Curvature is known where Lanczos ran; its certified lower bound stands at the last point.

    Parameters
    ----------
    result : SOSPResult
        What `pgd`, `hessian_descent` or `newton_cg` returned; `certify` leaves no history.
    path : str or os.PathLike, optional
        Save the figure there too, in the format that the suffix names.

    Returns
    -------
    matplotlib.figure.Figure
        Lines have the gids ``"fun"``, ``"gradient"``, ``"curvature"``, ``"weights"``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the history is empty, or the suffix of path names no format that matplotlib can write.
    OSError
        If path cannot be written.

    Notes
    -----
    O(rows of the history) time and memory.

    Examples
    --------
    >>> import numpy as np
    >>> from derand_fast.optimize import newton_cg
    >>> class Quartic:
    ...     n_params = 1
    ...     def value_and_grad(self, x):
    ...         return float(x[0]**4 / 4 - x[0]**2 / 2), x**3 - x
    ...     def hvp(self, x, v):
    ...         return (3.0 * x**2 - 1.0) * v
    >>> figure = plot_optimization(newton_cg(Quartic(), np.zeros(1), rho=1e-6))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['f', '||grad f||', 'lambda_min']
    """
    figure_type = _import_figure()
    if path is not None:
        check_plot_path(path)
    if not result.history:
        raise ValueError("the result has no history to plot; a descent has, certify has not")
    has_weights = result.W_norm is not None
    panels = 4 if has_weights else 3
    figure = figure_type(figsize=(8.0, 2.0 * panels), dpi=150, layout="constrained")
    all_axes = figure.subplots(panels, 1, sharex=True)
    _draw_value(all_axes[0], result)
    _draw_gradient(all_axes[1], result)
    _draw_curvature(all_axes[2], result)
    if has_weights:
        _draw_weights(all_axes[3], result)
    for axes in all_axes:
        _mark_escapes(axes, result)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", frameon=False, fontsize="small")
    all_axes[-1].set_xlabel("Step (dotted: along negative curvature, or a perturbation)")
    _title_optimization(all_axes[0], result)
    if path is not None:
        figure.savefig(path, format=_suffix(path))
    return figure


def check_plot_path(path: str | os.PathLike[str]) -> None:
    """Check that a figure can be saved under this name, before the long work.

    Parameters
    ----------
    path : str or os.PathLike
        Where the figure is to go; not touched.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the suffix names no format that matplotlib can write.
    """
    formats = _import_figure()().canvas.get_supported_filetypes()
    if _suffix(path) not in formats:
        known = ", ".join(f".{name}" for name in sorted(formats))
        raise ValueError(
            f"cannot plot to {os.fsdecode(path)!r}: the suffix decides the format and must be one "
            f"of {known}"
        )


def _import_figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "derand-fast[plot]"') from error
    return Figure


def _suffix(path: str | os.PathLike[str]) -> str:
    """Suffix in lower case, without its dot."""
    return os.path.splitext(os.fsdecode(path))[1].lower().removeprefix(".")


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _rows_to_the_end(result: CutResult) -> _Rows:
    """History with the returned values as its last row, at the end of the call."""
    end = max([result.seconds["total"], *(row.seconds for row in result.history)])
    return [*result.history, (end, result.cut_value, result.upper_bound)]


def _draw_staircases(axes: Axes, rows: _Rows) -> None:
    # The cut is drawn thinner and on top, so that both show where they meet.
    cut = [(seconds, value) for seconds, value, _ in rows if _is_finite(value)]
    _draw_steps(axes, cut, color=_CUT_COLOR, lw=1.8, zorder=3, label="best cut", gid="cut")
    bound = [(row[0], row[2]) for row in rows if _is_finite(row[2])]
    if not bound:
        return
    _draw_steps(axes, bound, color=_BOUND_COLOR, lw=2.6, label="upper bound", gid="bound")
    both = [row for row in rows if _is_finite(row[1]) and _is_finite(row[2])]
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
    if _is_finite(result.upper_bound):
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
    if not _is_finite(result.upper_bound) or span == 0.0:
        return None
    reached = [value for row in rows for value in row[1:]]
    values = levels + [value for value in reached if value is not None and math.isfinite(value)]
    low = max(min(values), min(levels) - 0.5 * span)
    high = min(max(values), max(levels) + 0.5 * span)
    return low - 0.1 * span, high + 0.1 * span


def _title_optimization(axes: Axes, result: SOSPResult) -> None:
    verdict = "certified" if result.certified else "not certified"
    axes.set_title(f"f = {result.fun:.8g}, {verdict}", loc="left", fontweight="bold", pad=22)
    axes.text(
        0.0,
        1.05,
        f"{result.method}, seed {result.seed}: {result.nit:,} steps, {result.n_escapes:,} escapes, "
        f"{result.n_gradient_equivalents:,} gradient equivalents in {result.seconds:.3g} s",
        transform=axes.transAxes,
        color="0.35",
    )


def _draw_value(axes: Axes, result: SOSPResult) -> None:
    _draw_column(axes, result, "fun", color=_VALUE_COLOR, gid="fun")
    axes.set_ylabel("f")


def _draw_gradient(axes: Axes, result: SOSPResult) -> None:
    _draw_column(axes, result, "grad_norm", color=_GRADIENT_COLOR, gid="gradient")
    _draw_target(axes, result.rho, f"rho = {result.rho:.3g}")
    # An exact saddle has gradient 0, which a plain logarithmic axis cannot show.
    axes.set_yscale("symlog", linthresh=_next_power(result.rho))
    axes.set_ylim(0.0, 3.0 * max(result.rho, *(row.grad_norm for row in result.history)))
    axes.set_ylabel("||grad f||")


def _draw_curvature(axes: Axes, result: SOSPResult) -> None:
    known = [row for row in result.history if _is_finite(row.lambda_min)]
    axes.plot(
        [row.iteration for row in known],
        [row.lambda_min for row in known],
        color=_CURVATURE_COLOR,
        marker="o",
        ms=4,
        ls="none",
        gid="curvature",
        label="smallest Ritz value",
    )
    if _is_finite(result.lambda_min_lower):
        axes.plot(
            [result.history[-1].iteration],
            [result.lambda_min_lower],
            color=_TARGET_COLOR,
            marker="^",
            ms=5,
            ls="none",
            label=f"certified at least {result.lambda_min_lower:.3g}",
        )
    _draw_target(axes, -result.curvature_tol, f"target {-result.curvature_tol:.3g}")
    axes.set_yscale("symlog", linthresh=_next_power(result.curvature_tol))
    axes.margins(y=0.15)
    axes.set_ylabel("lambda_min")


def _draw_weights(axes: Axes, result: SOSPResult) -> None:
    _draw_column(axes, result, "W_norm", color=_WEIGHT_COLOR, gid="weights")
    bounds = (
        (result.collapse_bound, "bound by its own gradient", "--"),
        (result.collapse_bound_apriori, "bound at any certified point", ":"),
    )
    for value, meaning, dashes in bounds:
        if value is not None and value > 0.0:
            axes.axhline(
                value, color=_TARGET_COLOR, ls=dashes, lw=1.2, label=f"{meaning} ({value:.3g})"
            )
    if any(row.W_norm > 0.0 for row in result.history):
        axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("||W||")


def _draw_column(axes: Axes, result: SOSPResult, name: str, **style: Any) -> None:
    steps = [row.iteration for row in result.history]
    values = [getattr(row, name) for row in result.history]
    axes.plot(steps, values, lw=1.6, marker="o", markevery=[0, -1], ms=3, **style)


def _next_power(value: float) -> float:
    """Smallest power of ten that is not below the value: the ticks then keep apart."""
    return 10.0 ** math.ceil(math.log10(value))


def _draw_target(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=_TARGET_COLOR, ls="--", lw=1.2, label=label)


def _mark_escapes(axes: Axes, result: SOSPResult) -> None:
    # A row belongs to the point its step led to; the saddle is one step before.
    steps = [row.iteration - 1 for row in result.history if row.step in _ESCAPES]
    for step in steps:
        axes.axvline(step, color="0.4", ls=":", lw=1.0, zorder=0, gid="escape")
