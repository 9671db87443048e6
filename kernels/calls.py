"""Calls by address: kernels that are compiled once, however many others call them.

Numba compiles a callee again into every caller. Where a callee is large and its call rare, that is
only time lost. Such a callee becomes a C function by `c_function`; callers get its ``address``, an
integer, at run time and use `call_at`. Their own code can then be kept on disk, and serves any
callee, also a user's. `pointer` gives parts of arrays without the cost of slices, which is not one
of time in a loop but of code: reference counts, shapes and strides for each.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from derand_fast.kernels._jit import c_function

__all__ = ["c_function", "call_at", "pointer"]


@intrinsic
def call_at(typingctx: Any, address: Any, arguments: Any) -> Any:
    """call_at(address, (x, y, ...)): call a C function that returns nothing.

    The arguments are numbers and pointers.
    """
    kinds = types.Tuple([types.unliteral(kind) for kind in arguments])

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = cgutils.unpack_tuple(builder, args[1])
        passed = [
            context.get_value_as_argument(builder, kind, value)
            for kind, value in zip(signature.args[1], values, strict=True)
        ]
        function_type = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
        function = builder.inttoptr(args[0], function_type.as_pointer())
        builder.call(function, passed)
        return context.get_dummy_value()

    return types.void(types.int64, kinds), generate


@intrinsic
def pointer(typingctx: Any, array: Any, offset: Any) -> Any:
    """pointer(array, offset): the address of an element of a flat array, or a pointer moved on."""
    is_array = isinstance(array, types.Array)
    result = types.CPointer(array.dtype) if is_array else array

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        base, offset = args
        if is_array:
            base = context.make_array(signature.args[0])(context, builder, base).data
        return builder.gep(base, [offset])

    return result(array, types.int64), generate
