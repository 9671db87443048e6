"""The machine, the software and the kernels' cache, as they are written beside every result."""

import datetime
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from machine import describe

THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
# Modules that something of the harness needs beyond what the package requires, and who ships them.
EXTRAS = {
    "pytest": "pytest",
    "pytest_benchmark": "pytest-benchmark",
    "dwave.samplers": "dwave-samplers",
    "dimod": "dimod",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
    "mpmath": "mpmath",
    "matplotlib": "matplotlib",
    "jax": "jax",
    "torch": "torch",
}
PACKAGES = ("derand-fast", "numba", "llvmlite", "numpy", "scipy", "networkx", *EXTRAS.values())


def environment() -> dict[str, Any]:
    """Return what does not change during a run."""
    return {
        "line": describe(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: version_of(name) for name in PACKAGES},
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def version_of(package: str) -> str | None:
    """Return a version; None where the package is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def threads(variables: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """Return the settings that limit threads of Numba and BLAS."""
    return {name: variables.get(name) for name in THREAD_VARIABLES}


def absent(modules: tuple[str, ...]) -> list[str]:
    """Return the packages that are not there."""
    return [EXTRAS[name] for name in modules if not _is_there(name)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it is absent
        return False


def load() -> float | None:
    """Return the load of the last minute, where the system tells it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cache_state() -> dict[str, Any]:
    """Return the folders of compiled kernels and how many files are in them: 0 is a cold cache."""
    from derand_fast.kernels._cache import cache_folders

    folders = cache_folders()
    count = sum(1 for folder in folders.read for _ in folder.glob("*.nbc"))
    return {"folders": [str(folder) for folder in folders.read], "files": count}
