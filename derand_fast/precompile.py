"""Compile kernels ahead of their first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from derand_fast.kernels._cache import Recorder, Specialisation, cache_folders

__all__ = ["SOLVERS", "WarmupReport", "warmup"]


@dataclass(frozen=True)
class WarmupReport:
    """What `warmup` has done.

    Attributes
    ----------
    kernels : tuple of Specialisation
        Kernels in the order in which they were ready, with their own seconds: ``kernel``,
        ``signature``, ``seconds``, ``loaded`` (from disk; else compiled), ``kept`` (there is a file
        of it) and ``size`` of that file in bytes. None that was ready before the call.
    folder : str or None
        Where files are written; None if nowhere, so that what is compiled is lost with the process.
    seconds : float
        In all, imports and the small problems that were solved included.
    solvers : tuple of str
        As asked for.
    skipped : dict
        Solvers that lack a library, and which.
    """

    kernels: tuple[Specialisation, ...]
    folder: str | None
    seconds: float
    solvers: tuple[str, ...]
    skipped: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether the next process need compile none of these kernels."""
        return all(kernel.kept for kernel in self.kernels)


def warmup(solvers: Sequence[str] | None = None) -> WarmupReport:
    """Compile the kernels of the solvers and keep them on disk, by solving small problems.

    The first call of a solver in a process takes seconds if its kernels are compiled, and a
    fraction of one if they are loaded. Use this where that matters: when an image is built, before
    workers are started, at the start of a service. Kernels that are ready already cost nothing.

    Parameters
    ----------
    solvers : sequence of str, optional
        Names in `SOLVERS`: "max-cut", "descent", "expectation", "structure", "jl-embedding",
        "jl-objective". By default all whose libraries are installed.

    Returns
    -------
    WarmupReport

    Raises
    ------
    TypeError, ValueError
        If there is no solver of a name.
    ImportError
        If a solver that was asked for lacks its library.

    Notes
    -----
    A minute of one core and 9 MB of disk if nothing is there. Files lie in the folder that
    the environment variable NUMBA_CACHE_DIR names; else in ``__pycache__`` beside the kernels or,
    where that cannot be written, in the user's cache folder. They serve the processor, the
    Python and the Numba that made them. Kernels that include a user's own function (of a
    `GaussianExpectation`, a loss or a teacher) are compiled in every process.

    Examples
    --------
    >>> from derand_fast.precompile import warmup
    >>> report = warmup(["max-cut"])
    >>> report.solvers
    ('max-cut',)
    """
    names = _checked_names(solvers)
    start = perf_counter()
    skipped = {name: library for name in names if (library := _lacking(name)) is not None}
    if solvers is not None and skipped:
        name, library = next(iter(skipped.items()))
        raise ImportError(f"{name} needs {library}")
    with Recorder() as recorder:
        for name in names:
            if name not in skipped:
                SOLVERS[name]()
    folder = cache_folders().write
    return WarmupReport(
        tuple(recorder.found),
        None if folder is None else str(folder),
        perf_counter() - start,
        names,
        skipped,
    )


def _checked_names(solvers: Sequence[str] | None) -> tuple[str, ...]:
    if solvers is None:
        return tuple(SOLVERS)
    if isinstance(solvers, str):
        raise TypeError(f"solvers must be a sequence of names, got the string {solvers!r}")
    for name in solvers:
        if name not in SOLVERS:
            raise ValueError(f"solvers must be among {', '.join(SOLVERS)}; got {name!r}")
    return tuple(dict.fromkeys(solvers))


def _lacking(name: str) -> str | None:
    """Return the library that a solver lacks."""
    if name == "jl-embedding":
        for library in ("sklearn", "threadpoolctl"):
            if importlib.util.find_spec(library) is None:
                return library
    return None


# --------------------------------------------------------------------------------------------------
# Small problems that use every kernel of a solver, in all the types that its calls can have
# --------------------------------------------------------------------------------------------------


def _warm_max_cut() -> None:
    from derand_fast.generators import random_graph
    from derand_fast.maxcut import max_cut

    graph = random_graph(24, 70, seed=0)
    max_cut(graph, sweeps=60, n_threads=1, n_solutions=2)
    max_cut(graph, sweeps=60, n_threads=1, bound="proof")
    max_cut(graph, sweeps=60, n_threads=1, bound="tight")


def _warm_descent() -> None:
    from derand_fast.generators import random_graph
    from derand_fast.objectives import MaxCutObjective

    objective = MaxCutObjective(random_graph(24, 70, seed=0), 2, tau=0.5, lam=0.1, n_threads=1)
    x = np.linspace(-1.0, 1.0, objective.n_params)
    objective.value(x)
    objective.value_and_grad(x)
    objective.hvp(x, x)
    objective.bias_hessian(x)


def _warm_expectation() -> None:
    import numba

    from derand_fast.objectives import GaussianExpectation, GaussianFunction

    @numba.njit
    def value(z: Any, theta: Any) -> float:
        return z[0] * z[0]

    @numba.njit
    def gradient(z: Any, theta: Any, out_z: Any, out_theta: Any) -> None:
        out_z[0] = 2.0 * z[0]

    objective = GaussianExpectation(GaussianFunction(value, gradient), (1, 1), lam=0.1, level=2)
    x = np.ones(2)
    objective.value(x)
    objective.value_and_grad(x)
    objective.hvp(x, x)


def _warm_structure() -> None:
    from derand_fast.structure import discover_structure

    several: tuple[dict[str, Any], ...] = (
        {"teacher": "tanh", "rule": "mehler"},
        {"teacher": "product", "n_indices": 2, "rule": "mehler"},
        {"teacher": "tanh", "rule": "tensor", "depth": 3, "train": "all", "loss": "logistic"},
    )
    for options in several:
        discover_structure(**options, d=3, hidden=4, lam=0.1, rho=1e-3, max_iter=3, n_threads=1)


def _warm_embedding() -> None:
    from derand_fast.embedding import JLEmbedding

    X = np.random.default_rng(0).standard_normal((24, 10))
    for pairs in ("all", "norms"):
        JLEmbedding(4, pairs=pairs, max_iter=30, n_jobs=1).fit(X)


def _warm_jl_objective() -> None:
    from derand_fast.objectives import JLObjective

    X = np.random.default_rng(0).standard_normal((8, 5))
    rows = np.arange(4)
    several: tuple[dict[str, Any], ...] = (
        {"loss": "tail"},
        {"loss": "moment4"},
        {"loss": "tail", "pairs": "norms"},
        {"loss": "moment4", "pairs": (rows, rows + 4)},
        {"loss": "moment4", "sigma": "rows"},
    )
    for options in several:
        objective = JLObjective(X, 3, eps=0.5, lam=0.1, n_threads=1, **options)
        x = objective.gaussian_start()
        objective.value(x)
        objective.value_and_grad(x)
        objective.hvp(x, x)


SOLVERS: dict[str, Callable[[], None]] = {
    "max-cut": _warm_max_cut,
    "descent": _warm_descent,
    "expectation": _warm_expectation,
    "structure": _warm_structure,
    "jl-embedding": _warm_embedding,
    "jl-objective": _warm_jl_objective,
}
