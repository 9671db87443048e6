"""What all pictures share: figures without pyplot, and the format that a file name asks for."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["check_plot_path", "is_finite", "new_figure", "save"]


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
    formats = _figure_type()().canvas.get_supported_filetypes()
    if _suffix(path) not in formats:
        known = ", ".join(f".{name}" for name in sorted(formats))
        raise ValueError(
            f"cannot plot to {os.fsdecode(path)!r}: the suffix decides the format and must be one "
            f"of {known}"
        )


def new_figure(width: float, height: float, path: str | os.PathLike[str] | None = None) -> Figure:
    """Return an empty figure of this size in inches, after a check of where it is to go."""
    figure_type = _figure_type()
    if path is not None:
        check_plot_path(path)
    return figure_type(figsize=(width, height), dpi=150, layout="constrained")


def save(figure: Figure, path: str | os.PathLike[str] | None) -> None:
    """Save the figure, if there is a path, in the format that its suffix names."""
    if path is not None:
        figure.savefig(path, format=_suffix(path))


def is_finite(value: float | None) -> bool:
    """Say whether there is a number that can be drawn."""
    return value is not None and math.isfinite(value)


def _figure_type() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "derand-fast[plot]"') from error
    return Figure


def _suffix(path: str | os.PathLike[str]) -> str:
    """Suffix in lower case, without its dot."""
    return os.path.splitext(os.fsdecode(path))[1].lower().removeprefix(".")
