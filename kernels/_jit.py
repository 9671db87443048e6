"""The one place that decides how kernels are compiled."""

from collections.abc import Callable
from typing import Any, Literal

import numba
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

from derand_fast.kernels._cache import KernelCache, is_cacheable

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
    ``cache=False`` is for kernels that close over another function, which no key can tell from
    the next one. Functions of other folders are not cached either (see ``_cache``).
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
        dispatcher = numba.njit(**options)(function)
        if cache and is_cacheable(function):
            dispatcher._cache = KernelCache(function)
        return dispatcher

    return decorate


def c_function(signature: Any, function: Callable[..., Any], *, cache: bool = True) -> Any:
    """Compile ``function`` for C; keep the result alive as long as its ``address`` is in use.

    ``cache=False`` is for functions that close over another one.
    """
    compiled: Any = CFunc(function, normalize_signature(signature), {}, {"error_model": "numpy"})
    if cache and is_cacheable(function):
        compiled._cache = KernelCache(function)
    compiled.compile()
    return compiled
