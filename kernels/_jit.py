"""The one place that decides how kernels are compiled."""

from collections.abc import Callable
from typing import Any, Literal

import numba
from numba.core.ccallback import CFunc
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

from derand_fast.kernels._cache import KernelCache, is_cacheable

# Contraction and reassociation let LLVM vectorise sums; NaN and infinity keep their meaning,
# so finite-ness checks still work (plain fastmath=True would delete them).
# A loop that adds up must not store as well: LLVM then asks at run time whether the arrays overlap,
# too cautiously (256 bytes apart may count), and sums one by one if they seem to. The last bits
# would depend on where malloc put the arrays. A test looks for such loops.
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})


class _InnerKernel(CPUDispatcher):  # type: ignore[misc]  # Numba has no types
    """A kernel without the code for calls from Python, which would end the process."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self.py_func.__name__} can be called from kernels only")


def kernel(
    *,
    fastmath: bool | Literal["contract"],
    inline: bool = False,
    insert: bool = False,
    inner: bool = False,
    cache: bool = True,
) -> Callable[..., Any]:
    """Decorate one kernel: lazy compilation, GIL released, disk cache where a cache can be kept.

    ``fastmath`` has no default: each kernel states whether its sums may be reordered (``True``),
    must be kept as written (``False``), or as written but with fused multiply-add (``"contract"``).
    The flags stick to the kernel's own instructions, also after LLVM inlines it into a caller.
    ``inline`` asks LLVM, not Numba, to inline (``alwaysinline`` costs no typing time). A kernel
    that others call must be inlined unless its arithmetic is exact (``fastmath=False`` all
    through): else each caller holds a copy of its own, optimised twice, and the process runs
    whichever version it met first, so that one that compiles and one that loads from disk would
    differ. ``insert`` has Numba put the kernel's lines into its callers: for a few lines that would
    be compiled once for each layout of their arrays. ``inner``, and a name that begins with an
    underscore, is for kernels that only kernels call: the code for calls from Python and C is left
    out, a fifth of the time to compile.
    ``cache=False`` is for kernels that close over another function, which no key can tell from
    the next one. Functions of other folders are not cached either (see ``_cache``).
    """
    flags: set[str] | bool = set(FASTMATH) if fastmath is True else False
    if fastmath == "contract":
        flags = {"contract"}
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": flags,
    }
    if inline:
        options["forceinline"] = True
    if insert:
        options["inline"] = "always"

    def decorate(function: Callable[..., Any]) -> Any:
        ours = is_cacheable(function)
        unreachable = inner or (ours and function.__name__.startswith("_"))
        wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True} if unreachable else {}
        dispatcher = numba.njit(**options, **wrappers)(function)
        if unreachable:
            dispatcher.__class__ = _InnerKernel
        if cache and ours:
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
