"""The one place that decides how kernels are compiled."""

from collections.abc import Callable
from typing import Any

import numba

# Contraction and reassociation let LLVM vectorise sums; NaN and infinity keep their meaning,
# so finite-ness checks still work (plain fastmath=True would delete them).
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


def kernel(*, fastmath: bool, parallel: bool = False, inline: bool = False) -> Callable[..., Any]:
    """Decorate one kernel: lazy compilation, GIL released, disk cache where a cache can be kept.

    ``fastmath`` has no default: each kernel states whether its sums may be reordered.
    ``inline`` asks LLVM, not Numba, to inline (``alwaysinline`` costs no typing time).
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "parallel": parallel,
        "fastmath": set(FASTMATH) if fastmath else False,
    }
    if inline:
        options["forceinline"] = True

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither the package folder nor the user's cache folder can be written.
            return numba.njit(cache=False, **options)(function)

    return decorate
