"""The one place that decides how kernels are compiled."""

from collections.abc import Callable
from typing import Any, Literal

import numba

# Contraction and reassociation let LLVM vectorise sums; NaN and infinity keep their meaning,
# so finite-ness checks still work (plain fastmath=True would delete them).
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


def kernel(
    *,
    fastmath: bool | Literal["contract"],
    parallel: bool = False,
    inline: bool = False,
    cache: bool = True,
) -> Callable[..., Any]:
    """Decorate one kernel: lazy compilation, GIL released, disk cache where a cache can be kept.

    ``fastmath`` has no default: each kernel states whether its sums may be reordered (``True``),
    must be kept as written (``False``), or as written but with fused multiply-add (``"contract"``).
    The flags stick to the kernel's own instructions, also after LLVM inlines it into a caller.
    ``inline`` asks LLVM, not Numba, to inline (``alwaysinline`` costs no typing time).
    ``cache=False`` is for kernels that close over another function: their cache key changes with
    each process, so a cache would only fill the disk.
    """
    flags: set[str] | bool = set(FASTMATH) if fastmath is True else False
    if fastmath == "contract":
        flags = {"contract"}
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "parallel": parallel,
        "fastmath": flags,
    }
    if inline:
        options["forceinline"] = True

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=cache, **options)(function)
        except RuntimeError:
            # Neither the package folder nor the user's cache folder can be written.
            return numba.njit(cache=False, **options)(function)

    return decorate
