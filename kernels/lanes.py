"""Arithmetic on whole vector registers, written as ordinary Python expressions.

`Lanes` holds an LLVM value, a float32 or float64 vector or a single number, and emits one
instruction per operator. A formula written once thus becomes the vector loop, its tail and the
scalar function, all with the same bits. Instructions are kept as written: no fast-math flag is set
but in ``sum_of_lanes``, and a product is fused with a sum only where ``fma`` says so.

Explicit vectors of 64 bytes are compiled to 512-bit registers wherever the processor has them, also
where LLVM's own vectoriser would prefer 256 bits, and are split up everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

REGISTER_BYTES = 64
_TREE = ("reassoc", "nsz")
_FLOAT_BITS = {"float": 32, "double": 64}


def float_bits(float_type: Any) -> int:
    """Return 32 or 64."""
    return _FLOAT_BITS[str(float_type)]


def lane_count(float_type: Any) -> int:
    """Return how many numbers make one vector: 8 float64 or 16 float32."""
    return 8 * REGISTER_BYTES // float_bits(float_type)


class Lanes:
    """A vector of floats (or one float) that is being computed."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = value

    @property
    def bits(self) -> int:
        """Return the width of one number: 32 or 64."""
        return float_bits(self._element)

    @property
    def _element(self) -> Any:
        kind = self.value.type
        return kind.element if isinstance(kind, ir.VectorType) else kind

    def constant(self, number: float) -> Lanes:
        """Return the number in all lanes, rounded to this type."""
        kind = self.value.type
        if isinstance(kind, ir.VectorType):
            return Lanes(self.builder, ir.Constant(kind, [number] * kind.count))
        return Lanes(self.builder, ir.Constant(kind, number))

    def broadcast(self, number: Any) -> Lanes:
        """Return a number known only at run time in all lanes, rounded to this type."""
        builder, kind = self.builder, self.value.type
        if number.type != self._element:
            number = builder.fptrunc(number, self._element)
        if not isinstance(kind, ir.VectorType):
            return Lanes(builder, number)
        undefined = ir.Constant(kind, ir.Undefined)
        first = builder.insert_element(undefined, number, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
        return Lanes(builder, builder.shuffle_vector(first, undefined, zeros))

    def _lift(self, other: Lanes | float) -> Any:
        return other.value if isinstance(other, Lanes) else self.constant(other).value

    def _call(self, name: str, *others: Lanes | float) -> Lanes:
        kind = self.value.type
        suffix = f"f{self.bits}"
        if isinstance(kind, ir.VectorType):
            suffix = f"v{kind.count}{suffix}"
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        module = self.builder.module
        function = cgutils.get_or_insert_function(module, signature, f"llvm.{name}.{suffix}")
        arguments = [self.value, *(self._lift(other) for other in others)]
        return Lanes(self.builder, self.builder.call(function, arguments))

    def __add__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fadd(self.value, self._lift(other)))

    def __radd__(self, other: float) -> Lanes:
        return self + other

    def __sub__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fsub(self.value, self._lift(other)))

    def __rsub__(self, other: float) -> Lanes:
        return self.constant(other) - self

    def __mul__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fmul(self.value, self._lift(other)))

    def __rmul__(self, other: float) -> Lanes:
        return self * other

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return Lanes(self.builder, self.builder.fdiv(self.value, self._lift(other)))

    def __rtruediv__(self, other: float) -> Lanes:
        return self.constant(other) / self

    def __neg__(self) -> Lanes:
        return Lanes(self.builder, self.builder.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self._call("fabs")

    def fma(self, factor: Lanes | float, term: Lanes | float) -> Lanes:
        """Return self * factor + term, rounded once where the processor can."""
        return self._call("fmuladd", factor, term)

    def with_sign_of(self, other: Lanes) -> Lanes:
        """Return the size of self with the sign of ``other``."""
        return self._call("copysign", other)

    def polynomial(self, coefficients: Sequence[float]) -> Lanes:
        """Return sum_k coefficients[k] self^k by Horner's rule."""
        result = self.constant(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            result = result.fma(self, coefficient)
        return result

    def where(self, comparison: str, bound: Lanes | float, yes: Lanes, no: Lanes) -> Lanes:
        """Return ``yes`` in lanes where self <comparison> bound, else (also for NaN) ``no``."""
        mask = self.builder.fcmp_ordered(comparison, self.value, self._lift(bound))
        return Lanes(self.builder, self.builder.select(mask, yes.value, no.value))

    def sum_of_lanes(self) -> Lanes:
        """Return the sum of all lanes as one number, halves added to halves."""
        kind = self.value.type
        signature = ir.FunctionType(kind.element, [kind.element, kind])
        name = f"llvm.vector.reduce.fadd.v{kind.count}f{self.bits}"
        reduce = cgutils.get_or_insert_function(self.builder.module, signature, name)
        zero = ir.Constant(kind.element, 0.0)
        return Lanes(self.builder, self.builder.call(reduce, [zero, self.value], fastmath=_TREE))

    def low_bits_as_power_of_two(self, mantissa_bits: int) -> Lanes:
        """Return the float whose exponent field is the lowest bits of self's mantissa."""
        builder, kind = self.builder, self.value.type
        whole: Any = ir.IntType(self.bits)
        shift: Any = ir.Constant(whole, mantissa_bits)
        if isinstance(kind, ir.VectorType):
            whole = ir.VectorType(whole, kind.count)
            shift = ir.Constant(whole, [mantissa_bits] * kind.count)
        shifted = builder.shl(builder.bitcast(self.value, whole), shift)
        return Lanes(builder, builder.bitcast(shifted, kind))


def vector_at(builder: Any, base: Any, offset: Any, vector: Any) -> Any:
    """Return the address of the vector that starts at element ``offset``."""
    return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())


def first_lanes(builder: Any, count: Any, lanes: int) -> Any:
    """Return the mask of lanes 0 to count - 1."""
    vector = ir.VectorType(count.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), count, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    bound = builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)
    return builder.icmp_signed("<", ir.Constant(vector, list(range(lanes))), bound)


def load(builder: Any, address: Any, mask: Any = None) -> Any:
    """Load a vector at any alignment; lanes outside the mask are 0 and not read."""
    vector = address.type.pointee
    item_bytes = float_bits(vector.element) // 8
    if mask is None:
        return builder.load(address, align=item_bytes)
    name = f"llvm.masked.load.v{vector.count}f{8 * item_bytes}.p0"
    kinds = [address.type, ir.IntType(32), mask.type, vector]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, kinds), name)
    zeros = ir.Constant(vector, [0.0] * vector.count)
    return builder.call(function, [address, ir.IntType(32)(item_bytes), mask, zeros])


def store(builder: Any, value: Any, address: Any, mask: Any = None) -> None:
    """Store a vector at any alignment; lanes outside the mask are not written."""
    vector = value.type
    item_bytes = float_bits(vector.element) // 8
    if mask is None:
        builder.store(value, address, align=item_bytes)
        return
    name = f"llvm.masked.store.v{vector.count}f{8 * item_bytes}.p0"
    kinds = [vector, address.type, ir.IntType(32), mask.type]
    signature = ir.FunctionType(ir.VoidType(), kinds)
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, [value, address, ir.IntType(32)(item_bytes), mask])
