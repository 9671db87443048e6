"""Derandomized structure discovery: deterministic solutions as good as the random ones.

Public names load on first use, so that ``import derand_fast`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from derand_fast.embedding import JLEmbedding as JLEmbedding
    from derand_fast.graphs import CSRGraph as CSRGraph
    from derand_fast.graphs import as_graph as as_graph
    from derand_fast.incumbent import SearchState as SearchState
    from derand_fast.ising import IsingProblem as IsingProblem
    from derand_fast.ising import from_dimod as from_dimod
    from derand_fast.ising import from_ising as from_ising
    from derand_fast.ising import from_qubo as from_qubo
    from derand_fast.maxcut import max_cut as max_cut
    from derand_fast.networks import Network as Network
    from derand_fast.networks import random_network as random_network
    from derand_fast.objectives import GaussianExpectation as GaussianExpectation
    from derand_fast.objectives import GaussianFunction as GaussianFunction
    from derand_fast.objectives import MaxCutObjective as MaxCutObjective
    from derand_fast.objectives import NetworkRisk as NetworkRisk
    from derand_fast.optimize import SOSPResult as SOSPResult
    from derand_fast.optimize import certify as certify
    from derand_fast.optimize import hessian_descent as hessian_descent
    from derand_fast.optimize import newton_cg as newton_cg
    from derand_fast.optimize import pgd as pgd
    from derand_fast.precompile import WarmupReport as WarmupReport
    from derand_fast.precompile import warmup as warmup
    from derand_fast.results import CutResult as CutResult
    from derand_fast.results import HistoryRow as HistoryRow
    from derand_fast.results import Solution as Solution
    from derand_fast.structure import StructureResult as StructureResult
    from derand_fast.structure import discover_structure as discover_structure
    from derand_fast.teachers import Teacher as Teacher

_HOME = {
    "CSRGraph": "graphs",
    "CutResult": "results",
    "GaussianExpectation": "objectives",
    "GaussianFunction": "objectives",
    "HistoryRow": "results",
    "IsingProblem": "ising",
    "JLEmbedding": "embedding",
    "MaxCutObjective": "objectives",
    "Network": "networks",
    "NetworkRisk": "objectives",
    "SOSPResult": "optimize",
    "SearchState": "incumbent",
    "Solution": "results",
    "StructureResult": "structure",
    "Teacher": "teachers",
    "WarmupReport": "precompile",
    "as_graph": "graphs",
    "certify": "optimize",
    "discover_structure": "structure",
    "from_dimod": "ising",
    "from_ising": "ising",
    "from_qubo": "ising",
    "hessian_descent": "optimize",
    "max_cut": "maxcut",
    "newton_cg": "optimize",
    "pgd": "optimize",
    "random_network": "networks",
    "warmup": "precompile",
}
__all__ = [
    "CSRGraph",
    "CutResult",
    "GaussianExpectation",
    "GaussianFunction",
    "HistoryRow",
    "IsingProblem",
    "JLEmbedding",
    "MaxCutObjective",
    "Network",
    "NetworkRisk",
    "SOSPResult",
    "SearchState",
    "Solution",
    "StructureResult",
    "Teacher",
    "WarmupReport",
    "as_graph",
    "certify",
    "discover_structure",
    "from_dimod",
    "from_ising",
    "from_qubo",
    "hessian_descent",
    "max_cut",
    "newton_cg",
    "pgd",
    "random_network",
    "warmup",
]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("derand-fast")
    if name not in _HOME:
        raise AttributeError(f"module 'derand_fast' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"derand_fast.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "derand_fast.kernels":
            raise
        raise ImportError(
            "derand_fast was imported from its source tree, which holds no built kernels: leave "
            "that folder (or run python -P), or install it with pip install -e ."
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
