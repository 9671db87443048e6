"""The picture of a descent past its saddles."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from derand_fast.plot.figures import is_finite, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from derand_fast.optimize.result import SOSPResult

__all__ = ["plot_optimization"]

_VALUE_COLOR = "tab:blue"
_GRADIENT_COLOR = "tab:orange"
_CURVATURE_COLOR = "tab:purple"
_WEIGHT_COLOR = "tab:green"
_TARGET_COLOR = "tab:red"
# Steps that leave a saddle.
_ESCAPES = ("negative curvature", "perturbation")


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
    if not result.history:
        raise ValueError("the result has no history to plot; a descent has, certify has not")
    has_weights = result.W_norm is not None
    panels = 4 if has_weights else 3
    figure = new_figure(8.0, 2.0 * panels, path)
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
    save(figure, path)
    return figure


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
    known = [row for row in result.history if is_finite(row.lambda_min)]
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
    if is_finite(result.lambda_min_lower):
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
