"""Pictures of results.

Needs the ``plot`` extra (matplotlib). Figures are made without pyplot, so that no window opens, no
backend is chosen for the caller and nothing is kept alive behind his back.
"""

from derand_fast.plot.cut import plot_history
from derand_fast.plot.embedding import plot_embedding
from derand_fast.plot.figures import check_plot_path
from derand_fast.plot.optimization import plot_optimization
from derand_fast.plot.structure import plot_structure

__all__ = [
    "check_plot_path",
    "plot_embedding",
    "plot_history",
    "plot_optimization",
    "plot_structure",
]
