"""Vectors of eight float64, and rows of eight such vectors, as local variables of compiled code.

    v = load(array, offset)    v = spread(number)    w = fma(x, y, z)    store(array, offset, w)

A vector lives in a register for as long as LLVM finds one for it; nothing else has to be said. A
`row` of eight lets inner loops hold eight sums without eight names. The arithmetic takes float64
numbers in place of vectors and uses them in all lanes. Offsets count elements of a C-contiguous
float64 array of any number of axes; nothing else is checked. Operations are kept in the order in
which they are written, without fast-math flags; `lanes` says how wide they become.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

from derand_fast.kernels.lanes import Lanes, lane_count

LANES = lane_count(ir.DoubleType())
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
# The sum over lanes goes by halves: three additions deep instead of eight.
_BY_HALVES = ("reassoc", "nsz")


class VectorType(types.Type):
    """Numba's type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector({LANES} x float64)")


class RowType(types.Type):
    """Numba's type of eight vectors."""

    def __init__(self) -> None:
        super().__init__(name=f"Row({LANES} x {LANES} x float64)")


_vector, _row = VectorType(), RowType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@register_model(RowType)
class _RowModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(_VECTOR, LANES))


def _lanes(builder: Any, value: Any) -> Lanes:
    """Return a vector, or a number in all lanes."""
    if isinstance(value.type, ir.VectorType):
        return Lanes(builder, value)
    return Lanes(builder, ir.Constant(_VECTOR, ir.Undefined)).broadcast(value)


def _operands(*kinds: Any) -> tuple[Any, ...] | None:
    """Return the types of operands, or None where one is neither vector nor float."""
    if all(isinstance(kind, VectorType | types.Float) for kind in kinds):
        return tuple(k if isinstance(k, VectorType) else types.float64 for k in kinds)
    return None


def _check_layout(array: Any) -> None:
    if not isinstance(array, types.Array) or array.layout != "C" or array.dtype != types.float64:
        raise TypingError(f"a C-contiguous float64 array is needed, not {array}")


def _place(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """load(array, offset): the eight elements from ``offset`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=8)

    _check_layout(array)
    return _vector(array, types.uint64), generate


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, vector: Any) -> Any:
    """store(array, offset, vector): array[offset : offset + 8] = vector (or a number)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args[:2])
        builder.store(_lanes(builder, args[2]).value, place, align=8)
        return context.get_dummy_value()

    _check_layout(array)
    return types.void(array, types.uint64, *(_operands(vector) or (vector,))), generate


@intrinsic
def spread(typingctx: Any, number: Any) -> Any:
    """spread(number): the number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _lanes(builder, args[0]).value

    return _vector(types.float64), generate


@intrinsic
def add(typingctx: Any, x: Any, y: Any) -> Any:
    """add(x, y): x + y."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (_lanes(builder, arg) for arg in args)
        return (a + b).value

    operands = _operands(x, y)
    return None if operands is None else (_vector(*operands), generate)


@intrinsic
def multiply(typingctx: Any, x: Any, y: Any) -> Any:
    """multiply(x, y): x * y."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (_lanes(builder, arg) for arg in args)
        return (a * b).value

    operands = _operands(x, y)
    return None if operands is None else (_vector(*operands), generate)


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """fma(x, y, z): x * y + z, rounded once where the processor can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c = (_lanes(builder, arg) for arg in args)
        return a.fma(b, c).value

    operands = _operands(x, y, z)
    return None if operands is None else (_vector(*operands), generate)


@intrinsic
def extract(typingctx: Any, vector: Any, lane: Any) -> Any:
    """extract(vector, lane): the number in a lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.extract_element(*args)

    return types.float64(_vector, types.int64), generate


@intrinsic
def lane_sum(typingctx: Any, vector: Any) -> Any:
    """lane_sum(vector): the sum of the eight lanes, by halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), _VECTOR])
        name = f"llvm.vector.reduce.fadd.v{LANES}f64"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        # Adding to -0.0 leaves every sum as it is.
        return builder.call(function, [ir.DoubleType()(-0.0), args[0]], fastmath=_BY_HALVES)

    return types.float64(_vector), generate


# ------------------------------------------------------------------------------------------------
# Rows of eight vectors
# ------------------------------------------------------------------------------------------------


def _parts(builder: Any, row: Any) -> list[Lanes]:
    return [Lanes(builder, builder.extract_value(row, i)) for i in range(LANES)]


def _joined(builder: Any, parts: list[Lanes]) -> Any:
    row = ir.Constant(ir.ArrayType(_VECTOR, LANES), ir.Undefined)
    for i, part in enumerate(parts):
        row = builder.insert_value(row, part.value, i)
    return row


def _numbers(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> list[Any]:
    """Return eight neighbouring elements as numbers."""
    data = context.make_array(array_type)(context, builder, array).data
    start = builder.gep(data, [offset])
    return [builder.load(builder.gep(start, [offset.type(i)])) for i in range(LANES)]


@intrinsic
def load_row(typingctx: Any, array: Any, offset: Any) -> Any:
    """load_row(array, offset): eight vectors, one after the other."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = _place(context, builder, signature.args[0], *args)
        places = [builder.gep(first, [args[1].type(i)]) for i in range(LANES)]
        return _joined(builder, [Lanes(builder, builder.load(at, align=8)) for at in places])

    _check_layout(array)
    return _row(array, types.uint64), generate


@intrinsic
def store_row(typingctx: Any, array: Any, offset: Any, row: Any) -> Any:
    """store_row(array, offset, row): the reverse of `load_row`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = _place(context, builder, signature.args[0], *args[:2])
        for i, part in enumerate(_parts(builder, args[2])):
            builder.store(part.value, builder.gep(first, [args[1].type(i)]), align=8)
        return context.get_dummy_value()

    _check_layout(array)
    return types.void(array, types.uint64, _row), generate


@intrinsic
def alternate(typingctx: Any, even: Any, odd: Any) -> Any:
    """alternate(even, odd): the row (even, odd, even, ..., odd)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _joined(builder, [_lanes(builder, args[i % 2]) for i in range(LANES)])

    operands = _operands(even, odd)
    return None if operands is None else (_row(*operands), generate)


@intrinsic
def powers(typingctx: Any, start: Any, ratio: Any) -> Any:
    """powers(start, ratio): the row (start, start ratio, ..., start ratio^7)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        power, factor = (_lanes(builder, arg) for arg in args)
        parts = [power]
        for _ in range(LANES - 1):
            parts.append(parts[-1] * factor)
        return _joined(builder, parts)

    return _row(_vector, _vector), generate


@intrinsic
def last_of(typingctx: Any, row: Any) -> Any:
    """last_of(row): its eighth vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.extract_value(args[0], LANES - 1)

    return _vector(_row), generate


@intrinsic
def multiply_rows(typingctx: Any, x: Any, y: Any) -> Any:
    """multiply_rows(x, y): the products x_i * y_i."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pairs = zip(*(_parts(builder, arg) for arg in args), strict=True)
        return _joined(builder, [a * b for a, b in pairs])

    return _row(_row, _row), generate


@intrinsic
def fma_numbers(typingctx: Any, row: Any, array: Any, offset: Any, sums: Any) -> Any:
    """fma_numbers(row, array, offset, sums): the row of row_i * array[offset + i] + sums_i."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = _numbers(context, builder, signature.args[1], *args[1:3])
        parts, sums = _parts(builder, args[0]), _parts(builder, args[3])
        terms = zip(parts, numbers, sums, strict=True)
        return _joined(builder, [x.fma(_lanes(builder, y), z) for x, y, z in terms])

    _check_layout(array)
    return _row(_row, array, types.uint64, _row), generate


@intrinsic
def dot_numbers(typingctx: Any, row: Any, array: Any, offset: Any, total: Any) -> Any:
    """dot_numbers(row, array, offset, total): total + sum_i row_i * array[offset + i], in order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = _numbers(context, builder, signature.args[1], *args[1:3])
        result = _lanes(builder, args[3])
        for part, number in zip(_parts(builder, args[0]), numbers, strict=True):
            result = part.fma(_lanes(builder, number), result)
        return result.value

    _check_layout(array)
    return _vector(_row, array, types.uint64, _vector), generate
