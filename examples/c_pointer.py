"""A C function as the operator of Lanczos, through ctypes: no Python within a run.

path_operator.c is compiled with the C compiler ``cc`` (or $CC) into a temporary folder.
"""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from derand_fast.kernels.lanczos import COperator, leftmost_eigenpair

SOURCE = Path(__file__).with_name("path_operator.c")


class PathContext(ctypes.Structure):
    """What the C function's context points to."""

    _fields_ = (("diagonal", ctypes.c_void_p), ("off_diagonal", ctypes.c_void_p))


def load_library() -> ctypes.CDLL:
    """Compile the C source and load it; the file may go as soon as it is loaded."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder, "path_operator.so")
        compiler = os.environ.get("CC", "cc").split()
        command = [*compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(library))


def path_operator(diagonal: np.ndarray, off_diagonal: np.ndarray) -> COperator:
    """Return H as a C operator that keeps alive all that its pointers point to."""
    library = load_library()
    context = PathContext(diagonal.ctypes.data, off_diagonal.ctypes.data)
    return COperator(
        ctypes.cast(library.path_product, ctypes.c_void_p).value,
        len(diagonal),
        ctypes.addressof(context),
        (library, context, diagonal, off_diagonal),
    )


def main() -> None:
    """Find the leftmost eigenvalue of a random tridiagonal matrix, and compare with LAPACK."""
    random = np.random.default_rng(0)
    diagonal, off_diagonal = random.standard_normal(5000), random.standard_normal(4999)
    found = leftmost_eigenpair(path_operator(diagonal, off_diagonal))
    exact = eigvalsh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(0, 0))[0]
    print(f"leftmost {found.ritz_value:.12f}, LAPACK {exact:.12f}, {found.n_products} products")
    print(f"certified with probability 1 - {found.delta:g}: at least {found.lambda_min_lower:.6f}")
    if not (abs(found.ritz_value - exact) < 1e-8 and found.lambda_min_lower <= exact):
        sys.exit("the eigenvalue is wrong")


if __name__ == "__main__":
    main()
