"""Derandomized structure discovery: deterministic solutions as good as the random ones."""

from derand_fast.incumbent import SearchState
from derand_fast.maxcut import max_cut
from derand_fast.results import CutResult, HistoryRow

__all__ = ["CutResult", "HistoryRow", "SearchState", "max_cut"]
__version__ = "0.1.0"
