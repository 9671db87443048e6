"""Dense matrix products on the calling thread, for use inside other kernels.

``multiply(a, b, out, accumulate, workspace)`` computes out (+)= a @ b; pass ``a.T`` or ``b.T`` for
transposed factors, which costs nothing extra. It runs without the GIL and starts no threads, so any
number of Python threads may call it at once, where a BLAS would follow its own thread count.

Arrays
------
``a`` (m, k), ``b`` (k, n) and ``out`` (m, n) are float64, or all float32. In ``out`` and in each
factor, or its transpose, neighbours in a row are neighbours in memory; rows may lie any distance
apart. So C-contiguous arrays serve, their blocks ``buffer[i:j, p:q]``, and for factors the
transposes of both. ``out`` must not overlap a factor. With ``accumulate`` the product is added to
``out``, else ``out`` is overwritten, former NaN included. Sizes may be zero. ``workspace`` is flat
and contiguous, of the same type and at least ``workspace_size(n, k)`` elements; a size for the
largest n and k serves all products. Its contents never matter. Example, in Python or in a kernel::

    workspace = np.empty(workspace_size(out.shape[1], a.shape[1]))
    multiply(a, b, out, False, workspace)           # out = a @ b
    multiply(a.T, b[:9], out[:, :5], True, workspace)  # blocks and transposes, in place

``multiply_at`` is the same for kernels that hold addresses, not arrays.

Bits
----
Terms of an entry are added in order, DEPTH_BLOCK of them at a time, starting from zero; then these
sums are added, in order, to zero or the former entry. So an entry depends on its row of a, its
column of b and its former value alone: not on its position, the other sizes, strides, alignment or
threads. Bits are the same on all processors with fused multiply-add; without it they may differ.
Errors obey the usual bound |error| <= (k + 1) u (|out| + |a| |b|) to first order in u = eps / 2.

Method
------
Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", ACM Transactions on
Mathematical Software 34(3), 2008, with the factors' roles exchanged because rows are contiguous
here. A block of b is packed into panels, one tile wide, that stay in the second-level cache; each
TILE_ROWS rows of a are packed into a panel for the first. The innermost loop keeps a tile of
``out`` in vector registers. Packing costs (m + n) k moves, plus m k for each COLUMN_BLOCK columns
after the first.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from derand_fast.kernels._jit import kernel

FloatArray = npt.NDArray[np.float64] | npt.NDArray[np.float32]


class _Tile(NamedTuple):
    """The part of ``out`` held in registers. Rows and columns must be multiples of four."""

    rows: int
    vectors: int
    vector_bytes: int


def _tile_of_target() -> _Tile:
    """Choose the tile for the registers of the processor Numba compiles for.

    Few rows waste little where sizes are small; sixteen or twelve sums hide the latency of the
    arithmetic, and more are no faster here.
    """
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    if "+avx512f" in features.split(","):
        return _Tile(rows=8, vectors=2, vector_bytes=64)
    if "+avx" in features.split(","):
        return _Tile(rows=4, vectors=3, vector_bytes=32)
    return _Tile(rows=4, vectors=2, vector_bytes=16)


TILE_ROWS, VECTORS, VECTOR_BYTES = _tile_of_target()
WIDEST_TILE = VECTORS * VECTOR_BYTES // 4
# A panel of a (TILE_ROWS * DEPTH_BLOCK) should fit the first-level cache, a block of b
# (DEPTH_BLOCK * COLUMN_BLOCK) the second. COLUMN_BLOCK is a multiple of every tile's width.
DEPTH_BLOCK = 256
COLUMN_BLOCK = 384


# ------------------------------------------------------------------------------------------------
# Intrinsics. Pointers are typed addresses, so that one compiled core serves every kind of array.
# ------------------------------------------------------------------------------------------------


@intrinsic
def _address(typingctx: Any, array: Any) -> Any:
    """_address(array): the address of the first element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def _tile_columns(typingctx: Any, pointer: Any) -> Any:
    """_tile_columns(pointer): the columns of a tile of the pointer's type, a constant."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.IntType(64)(VECTORS * _lanes(signature.args[0].dtype))

    return types.int64(pointer), generate


def _lanes(dtype: Any) -> int:
    return VECTOR_BYTES * 8 // dtype.bitwidth


@intrinsic
def _multiply_tile(
    typingctx: Any,
    depth: Any,
    a_panel: Any,
    a_offset: Any,
    b_panel: Any,
    b_offset: Any,
    out: Any,
    out_offset: Any,
    out_stride: Any,
    rows: Any,
    columns: Any,
    accumulate: Any,
) -> Any:
    """_multiply_tile(...): one tile, out[r, c] (+)= sum over p of a_panel[p, r] * b_panel[p, c].

    Panels are packed, ``depth`` rows of TILE_ROWS and of ``_tile_columns`` elements; ``rows`` and
    ``columns`` tell how much of the tile is part of ``out``.
    """
    arguments = (
        *(types.int64, a_panel, types.int64, b_panel, types.int64),
        *(out, types.int64, types.int64, types.int64, types.int64, types.boolean),
    )

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(_tile_function(builder.module, out.dtype, args), args)
        return context.get_dummy_value()

    return types.void(*arguments), generate


def _tile_function(module: Any, dtype: Any, args: Any) -> Any:
    """Return the function of the tile, never inlined: copies in unswitched loops cost JIT time."""
    name = f"derand_fast_multiply_tile_{dtype}"
    if name in module.globals:
        return module.globals[name]
    signature = ir.FunctionType(ir.VoidType(), [argument.type for argument in args])
    function = ir.Function(module, signature, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block())
    depth, a_panel, a_offset, b_panel, b_offset, *target, rows, columns, add = function.args
    panels = builder.gep(a_panel, [a_offset]), builder.gep(b_panel, [b_offset])
    lanes = _lanes(dtype)
    narrow = builder.icmp_signed("<=", columns, columns.type(lanes))
    whole = builder.and_(
        builder.icmp_signed(">=", rows, rows.type(TILE_ROWS)),
        builder.icmp_signed(">=", columns, columns.type(VECTORS * lanes)),
    )
    with builder.if_else(narrow) as (one_vector, all_vectors):
        with one_vector:
            sums = _sum_over_depth(builder, lanes, 1, depth, *panels)
            _store_part_of_tile(builder, sums, target, add, rows, columns)
        with all_vectors:
            sums = _sum_over_depth(builder, lanes, VECTORS, depth, *panels)
            with builder.if_else(whole) as (inside, on_edge):
                with inside:
                    _store_tile(builder, sums, target, add)
                with on_edge:
                    _store_part_of_tile(builder, sums, target, add, rows, columns)
    builder.ret_void()
    return function


def _sum_over_depth(
    builder: Any, lanes: int, vectors: int, depth: Any, a_panel: Any, b_panel: Any
) -> Any:
    """Emit the innermost loop; return the sums, TILE_ROWS lists of the first vectors."""
    vector = ir.VectorType(a_panel.type.pointee, lanes)
    index = depth.type
    before = builder.block
    loop = builder.append_basic_block("depth")
    step = builder.append_basic_block("depth.step")
    after = builder.append_basic_block("depth.end")
    builder.branch(loop)

    builder.position_at_end(loop)
    counter = builder.phi(index)
    counter.add_incoming(index(0), before)
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(TILE_ROWS)]
    for row in sums:
        for value in row:
            value.add_incoming(ir.Constant(vector, [0.0] * lanes), before)
    builder.cbranch(builder.icmp_signed("<", counter, depth), step, after)

    builder.position_at_end(step)
    b_row = builder.gep(b_panel, [builder.mul(counter, index(VECTORS * lanes))])
    b_values = [
        _load(builder, _vector_at(builder, b_row, vector, index(lanes * v))) for v in range(vectors)
    ]
    a_row = builder.gep(a_panel, [builder.mul(counter, index(TILE_ROWS))])
    for r, row in enumerate(sums):
        factor = _broadcast(builder, builder.load(builder.gep(a_row, [index(r)])), vector)
        for value, b_value in zip(row, b_values, strict=True):
            term = builder.fmul(factor, b_value, flags=("contract",))
            value.add_incoming(builder.fadd(value, term, flags=("contract",)), step)
    counter.add_incoming(builder.add(counter, index(1)), step)
    builder.branch(loop)

    builder.position_at_end(after)
    return sums


def _load(builder: Any, place: Any) -> Any:
    """Load a vector that is aligned as its elements are."""
    return builder.load(place, align=_item_bytes(place.type.pointee))


def _store(builder: Any, value: Any, place: Any) -> None:
    builder.store(value, place, align=_item_bytes(value.type))


def _item_bytes(vector: Any) -> int:
    return 4 if isinstance(vector.element, ir.FloatType) else 8


def _load_at_most(builder: Any, place: Any, count: Any) -> Any:
    """Load the first ``count`` lanes, the others zero and their memory untouched."""
    vector = place.type.pointee
    whole = builder.icmp_signed(">=", count, count.type(vector.count))
    with builder.if_else(whole) as (all_lanes, some_lanes):
        with all_lanes:
            full = _load(builder, place)
            full_block = builder.block
        with some_lanes:
            mask = _mask_below(builder, count, 0, vector.count)
            part = _masked_load(builder, place, mask, ir.Constant(vector, [0.0] * vector.count))
            part_block = builder.block
    value = builder.phi(vector)
    value.add_incoming(full, full_block)
    value.add_incoming(part, part_block)
    return value


def _masked_load(builder: Any, place: Any, mask: Any, otherwise: Any) -> Any:
    vector = place.type.pointee
    return _call_masked(
        builder, "load", vector, [place, ir.IntType(32)(_item_bytes(vector)), mask, otherwise]
    )


def _masked_store(builder: Any, value: Any, place: Any, mask: Any) -> None:
    alignment = ir.IntType(32)(_item_bytes(value.type))
    _call_masked(builder, "store", ir.VoidType(), [value, place, alignment, mask])


def _call_masked(builder: Any, action: str, result: Any, arguments: list[Any]) -> Any:
    vector = arguments[0].type if action == "store" else result
    name = f"llvm.masked.{action}.v{vector.count}f{8 * _item_bytes(vector)}.p0"
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _vector_at(builder: Any, pointer: Any, vector: Any, offset: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def _broadcast(builder: Any, scalar: Any, vector: Any) -> Any:
    """Copy one number into all lanes."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, undefined, lanes)


def _store_tile(builder: Any, sums: Any, target: Any, add: Any) -> None:
    """Emit the store of a whole tile."""
    out, offset, stride = target
    vector = sums[0][0].type

    def places() -> Any:
        for r, row in enumerate(sums):
            start = builder.add(offset, builder.mul(stride, stride.type(r)))
            for v, value in enumerate(row):
                at = builder.add(start, start.type(v * vector.count))
                yield value, _vector_at(builder, out, vector, at)

    with builder.if_else(add) as (adding, overwriting):
        with adding:
            for value, place in places():
                total = builder.fadd(_load(builder, place), value)
                _store(builder, total, place)
        with overwriting:
            for value, place in places():
                _store(builder, value, place)


def _store_part_of_tile(
    builder: Any, sums: Any, target: Any, add: Any, rows: Any, columns: Any
) -> None:
    """Emit the store of the first rows and columns of a tile, lanes beyond them masked."""
    out, offset, stride = target
    vector = sums[0][0].type
    lanes = vector.count
    masks = [_mask_below(builder, columns, v * lanes, lanes) for v in range(len(sums[0]))]
    added = _broadcast(builder, add, masks[0].type)
    # Where nothing is added: -0.0 is the number that leaves every sum as it is.
    nothing = ir.Constant(vector, [-0.0] * vector.count)
    for r, row in enumerate(sums):
        with builder.if_then(builder.icmp_signed(">", rows, rows.type(r))):
            start = builder.add(offset, builder.mul(stride, stride.type(r)))
            for v, (value, mask) in enumerate(zip(row, masks, strict=True)):
                at = builder.add(start, start.type(v * lanes))
                place = _vector_at(builder, out, vector, at)
                former = _masked_load(builder, place, builder.and_(mask, added), nothing)
                _masked_store(builder, builder.fadd(former, value), place, mask)


def _mask_below(builder: Any, bound: Any, first: int, count: int) -> Any:
    """Lanes first, first + 1, ... that lie below the bound."""
    integers = ir.VectorType(bound.type, count)
    lanes = ir.Constant(integers, [bound.type(first + lane) for lane in range(count)])
    return builder.icmp_signed("<", lanes, _broadcast(builder, bound, integers))


# ------------------------------------------------------------------------------------------------
# Packing
# ------------------------------------------------------------------------------------------------


@intrinsic
def _copy_four(typingctx: Any, source: Any, offset: Any, lines: Any, panel: Any, start: Any) -> Any:
    """_copy_four(...): panel[start + r] = source[offset + r] if r < lines else 0, for r < 4."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, offset, lines, panel, start = args
        vector = ir.VectorType(panel.type.pointee, 4)
        four = _load_at_most(builder, _vector_at(builder, source, vector, offset), lines)
        _store(builder, four, _vector_at(builder, panel, vector, start))
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, panel, types.int64), generate


@intrinsic
def _transpose_four(
    typingctx: Any,
    source: Any,
    offset: Any,
    line_stride: Any,
    lines: Any,
    depth: Any,
    panel: Any,
    start: Any,
    width: Any,
) -> Any:
    """_transpose_four(...): panel[start + p * width + r] = source[offset + r * line_stride + p].

    For p and r < 4; zero for p >= depth; the last line again for r >= lines, which may be zero or
    less where earlier lines exist.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, offset, line_stride, lines, depth, panel, start, width = args
        vector = ir.VectorType(panel.type.pointee, 4)
        last = builder.sub(lines, lines.type(1))
        rows = []
        for r in range(4):
            line = builder.select(builder.icmp_signed("<", last, last.type(r)), last, last.type(r))
            at = builder.add(offset, builder.mul(line, line_stride))
            rows.append(_load_at_most(builder, _vector_at(builder, source, vector, at), depth))
        # Two rounds of interleaving the first half of the rows with the second transpose.
        for _ in range(2):
            rows = [
                _shuffle(builder, rows[r], rows[r + 2], lanes)
                for r in range(2)
                for lanes in ((0, 4, 1, 5), (2, 6, 3, 7))
            ]
        for p, row in enumerate(rows):
            at = builder.add(start, builder.mul(width, width.type(p)))
            _store(builder, row, _vector_at(builder, panel, vector, at))
        return context.get_dummy_value()

    sizes = (types.int64,) * 4
    return types.void(source, *sizes, panel, types.int64, types.int64), generate


def _shuffle(builder: Any, first: Any, second: Any, lanes: tuple[int, ...]) -> Any:
    chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
    return builder.shuffle_vector(first, second, chosen)


@kernel(fastmath=False)
def _pack(
    source: Any,
    offset: int,
    line_stride: int,
    depth_stride: int,
    lines: int,
    depth: int,
    panel: Any,
    start: int,
    width: int,
) -> None:
    """panel[p, r] = source[r, p]; what stands at r >= lines and p >= depth never counts.

    One stride is 1. ``width`` is a multiple of 4, and the panel has room for the next multiple of
    four rows after ``depth``.
    """
    if line_stride == 1:
        for p in range(depth):
            source_row, panel_row = offset + p * depth_stride, start + p * width
            for r in range(0, width, 4):
                _copy_four(source, source_row + r, lines - r, panel, panel_row + r)
        return
    for r in range(0, width, 4):
        line = offset + r * line_stride
        for p in range(0, depth, 4):
            place = start + p * width + r
            _transpose_four(
                source, line + p, line_stride, lines - r, depth - p, panel, place, width
            )


# ------------------------------------------------------------------------------------------------
# The product
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False, inner=True)
def multiply_at(
    rows: int,
    columns: int,
    depth: int,
    a: Any,
    a_row: int,
    a_column: int,
    b: Any,
    b_row: int,
    b_column: int,
    out: Any,
    out_row: int,
    accumulate: bool,
    workspace: Any,
) -> None:
    """Compute out (+)= a @ b from addresses and strides in elements; see `multiply`."""
    tile_columns = _tile_columns(out)
    # Not a literal, which would be a type of its own and compile _pack a second time.
    tile_rows = np.int64(TILE_ROWS)
    for left in range(0, columns, COLUMN_BLOCK):
        right = min(left + COLUMN_BLOCK, columns)
        # A product of depth zero still writes its zeros.
        for first in range(0, max(depth, 1), DEPTH_BLOCK):
            terms = min(DEPTH_BLOCK, depth - first)
            add = accumulate or first > 0
            panel_rows = -(-terms // 4) * 4
            b_panels = panel_rows * tile_rows
            for j in range(left, right, tile_columns):
                source = first * b_row + j * b_column
                panel = b_panels + panel_rows * (j - left)
                _pack(b, source, b_column, b_row, right - j, terms, workspace, panel, tile_columns)
            for i in range(0, rows, TILE_ROWS):
                source = i * a_row + first * a_column
                panel = b_panels * 0
                _pack(a, source, a_row, a_column, rows - i, terms, workspace, panel, tile_rows)
                for j in range(left, right, tile_columns):
                    _multiply_tile(
                        *(terms, workspace, 0, workspace, b_panels + panel_rows * (j - left)),
                        *(out, i * out_row + j, out_row, rows - i, right - j, add),
                    )


@kernel(fastmath=False)
def workspace_size(columns: int, depth: int) -> int:
    """Elements of workspace for an out of so many columns and a sum of so many terms."""
    widths = -(-min(columns, COLUMN_BLOCK) // WIDEST_TILE) * WIDEST_TILE
    return (TILE_ROWS + widths) * min(-(-depth // 4) * 4, DEPTH_BLOCK)


@kernel(fastmath=False, insert=True)
def multiply(
    a: FloatArray, b: FloatArray, out: FloatArray, accumulate: bool, workspace: FloatArray
) -> None:
    """Compute out (+)= a @ b for a (m, k), b (k, n), out (m, n); 2 m n k flops."""
    itemsize = out.itemsize
    multiply_at(
        *(out.shape[0], out.shape[1], a.shape[1]),
        *(_address(a), a.strides[0] // itemsize, a.strides[1] // itemsize),
        *(_address(b), b.strides[0] // itemsize, b.strides[1] // itemsize),
        *(_address(out), out.strides[0] // itemsize, accumulate, _address(workspace)),
    )
