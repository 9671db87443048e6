"""Risk of a feed-forward network over weighted nodes: value, gradient, Hessian products, H_bb.

    z_1 = W_1 x + b_1,  a_l = act(z_l),  z_{l+1} = W_{l+1} a_l + b_{l+1},  o = w_L . a_{L-1} + b_L
    f = sum_q sum_m w_qm loss(o(x_q), y_qm)

With c_q = sum_m w_qm loss'(o_q, y_qm), D_l = act'(z_l), and for a direction (dots) c' = d c,
U_l = act''(z_l) z'_l, nodes in rows and all products of matrices over the nodes of a block:

    E_{L-1} = c w_L^T o D_{L-1},  E_{l-1} = (E_l W_l) o D_{l-1},  grad W_l = E_l^T A_{l-1}
    E'_{L-1} = (c' w_L^T + c w'_L^T) o D_{L-1} + c w_L^T o U_{L-1}
    E'_{l-1} = (E'_l W_l + E_l W'_l) o D_{l-1} + (E_l W_l) o U_{l-1}
    product in W_l = E'_l^T A_{l-1} + E_l^T A'_{l-1},  A'_l = D_l o z'_l

Blocks and strands
------------------
Nodes are taken in blocks that fit the second-level cache; nothing larger than a block times the
width is held. Consecutive blocks form strands. Each strand has its own row of sums, and the caller
adds the rows in order, so the bits depend on the number of strands, not on who computed which.

Layout
------
All arrays are flat. A point is (W_1^T with b_1 as its last row, W_2, b_2, ..., w_L, b_L), like a
direction and a strand's sums; ``inputs`` has rows (x, 1). Parts that are not active (``active`` is
True or False for W_1, b_1, W_2, ...) must be zero in a direction and are not touched in sums.
A hidden layer has two or four buffers of a block's rows: a and D, then U and a' for products. They
are in turn overwritten: z by a, act'' by U, z' by a', D by E, U by E'.
"""

import functools
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.activations import apply_activation
from derand_fast.kernels.calls import c_function, call_at, pointer
from derand_fast.kernels.lanes import Lanes, first_lanes, lane_count, load, store, vector_at
from derand_fast.kernels.losses import Loss
from derand_fast.kernels.matmul import VECTOR_BYTES, multiply_at

Floats = npt.NDArray[Any]
DoubleArray = npt.NDArray[np.float64]
WholeArray = npt.NDArray[np.int64]
FlagArray = npt.NDArray[np.bool_]


class Shape(NamedTuple):
    """Form of a network and of a pass over its nodes."""

    # (d, h_1, ..., h_{L-1}, 1)
    widths: WholeArray
    # Where W_l starts in a point, at l = 1, ..., L; its bias follows.
    weights_at: WholeArray
    # [l, slot]: where a buffer of hidden layer l starts; at l = L, two spare ones of any width.
    buffers_at: WholeArray
    # Of W_1, b_1, W_2, ...: whether derivatives are wanted.
    active: FlagArray
    # The lowest layer with an active part; L + 1 if there is none.
    lowest: int
    # 0: values; 1: and gradient; 2: Hessian times direction.
    order: int
    # Whether slopes and curvatures of the loss already belong to the point.
    known: bool
    # Whether products of matrices that depend on the point alone are kept for all nodes
    # (KEEP_NONE), written (KEEP_WRITE) or there from an earlier pass (KEEP_READ).
    keep: int
    # [l, VALUE]: where z_l of all nodes is kept, l > 1; [l, SLOPE]: E_{l+1} W_{l+1}, l < L - 1.
    kept_at: WholeArray
    # Activation, see ``activations``.
    code: int
    iota: float
    # Nodes in a block.
    block: int


class Nodes(NamedTuple):
    """Rows (x, 1) of the nodes, and ``per_node`` targets and weights for each."""

    inputs: Floats
    targets: DoubleArray
    weights: DoubleArray
    per_node: int
    n_nodes: int


class Tools(NamedTuple):
    """Addresses of what the pass calls; see `tools`."""

    activate: int
    multiply: int
    add_outer: int
    add_outputs: int


class Scratch(NamedTuple):
    """Memory of one thread; contents never matter."""

    # Those of ``Shape.buffers_at``, and PADDING elements that may be read but never count.
    buffers: Floats
    # For ``matmul``.
    packing: Floats
    # block + 1: what a loss stage returns.
    sums: DoubleArray
    # block: derivatives of the outputs along the direction.
    tangents: DoubleArray
    # 2 block: c and c'.
    coefficients: Floats
    # What is kept; shared by all threads.
    kept: Floats


# Buffers of a hidden layer; two serve for gradients. Not literals, of which each would be a type
# of its own and compile its callees again.
VALUE, SLOPE, TURN, TANGENT = np.int64(0), np.int64(1), np.int64(2), np.int64(3)
SLOTS = (2, 2, 4)
KEEP_NONE, KEEP_WRITE, KEEP_READ = 0, 1, 2
PADDING = VECTOR_BYTES // 4
# Rows of sums held in registers at once: 16 registers of 32 bytes or 32 of 64 must suffice.
_TILE_ROWS = 12 if VECTOR_BYTES == 64 else 8


# ------------------------------------------------------------------------------------------------
# Sums that stay in registers
# ------------------------------------------------------------------------------------------------


@intrinsic
def _dot(typingctx: Any, x: Any, y: Any, count: Any) -> Any:
    """_dot(x, y, count): sum of x[j] y[j] over j < count, from pointers.

    In four vectors of sums; explicit, so that every caller gets the same bits.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, count = args
        element = context.get_value_type(signature.args[0].dtype)
        vector = ir.VectorType(element, lane_count(element))
        sums = [cgutils.alloca_once(builder, vector) for _ in range(4)]
        for place in sums:
            builder.store(ir.Constant(vector, [0.0] * vector.count), place)

        def add(place: Any, start: Any, mask: Any = None) -> None:
            left = Lanes(builder, load(builder, vector_at(builder, x, start, vector), mask))
            right = load(builder, vector_at(builder, y, start, vector), mask)
            total = left.fma(Lanes(builder, right), Lanes(builder, builder.load(place)))
            builder.store(total.value, place)

        unrolled = builder.and_(count, count.type(-4 * vector.count))
        whole = builder.and_(count, count.type(-vector.count))
        four, one = count.type(4 * vector.count), count.type(vector.count)
        with cgutils.for_range_slice(builder, count.type(0), unrolled, four) as (start, _):
            for k, place in enumerate(sums):
                add(place, builder.add(start, count.type(k * vector.count)))
        with cgutils.for_range_slice(builder, unrolled, whole, one) as (start, _):
            add(sums[0], start)
        with builder.if_then(builder.icmp_signed("<", whole, count)):
            rest = builder.sub(count, whole)
            add(sums[1], whole, first_lanes(builder, rest, vector.count))
        first, second, third, fourth = (Lanes(builder, builder.load(place)) for place in sums)
        return ((first + second) + (third + fourth)).sum_of_lanes().value

    return x.dtype(x, y, types.int64), generate


@intrinsic
def _add_outer_tile(
    typingctx: Any,
    factors: Any,
    f_start: Any,
    f_stride: Any,
    rows: Any,
    e: Any,
    e_start: Any,
    e_stride: Any,
    columns: Any,
    count: Any,
    sums: Any,
    s_start: Any,
    s_stride: Any,
) -> Any:
    """_add_outer_tile(...): sums[r, j] += sum over q < count of factors[q, r] e[q, j].

    For r < rows <= _TILE_ROWS and j < columns, of which one vector's width counts. Arrays are
    pointers, with the place of the first element and the distance of rows. A whole vector of e is
    read in each row.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factors, f_start, f_stride, rows, e, e_start, e_stride, columns, count, *target = args
        element = context.get_value_type(signature.args[4].dtype)
        lanes = VECTOR_BYTES * 8 // signature.args[4].dtype.bitwidth
        vector = ir.VectorType(element, lanes)
        f = builder.gep(factors, [f_start])
        e = builder.gep(e, [e_start])
        s, stride = builder.gep(target[0], target[1:2]), target[2]
        mask = first_lanes(builder, columns, lanes)
        end = builder.append_basic_block("outer.end")
        switch = builder.switch(rows, end)
        for height in range(1, _TILE_ROWS + 1):
            block = builder.append_basic_block(f"outer.{height}")
            switch.add_case(rows.type(height), block)
            builder.position_at_end(block)
            totals = _sum_outer(builder, vector, height, f, f_stride, e, e_stride, count)
            for r, total in enumerate(totals):
                at = vector_at(builder, s, builder.mul(stride, stride.type(r)), vector)
                store(builder, builder.fadd(load(builder, at, mask), total), at, mask)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    w = types.int64
    return types.void(factors, w, w, w, e, w, w, w, w, sums, w, w), generate


def _sum_outer(
    builder: Any,
    vector: Any,
    height: int,
    f: Any,
    f_stride: Any,
    e: Any,
    e_stride: Any,
    count: Any,
) -> list[Any]:
    """Emit the loop over nodes; return ``height`` vectors of sums."""
    index = count.type
    before = builder.block
    loop = builder.append_basic_block("nodes")
    body = builder.append_basic_block("nodes.body")
    after = builder.append_basic_block("nodes.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    q = builder.phi(index)
    q.add_incoming(index(0), before)
    totals = [builder.phi(vector) for _ in range(height)]
    for total in totals:
        total.add_incoming(ir.Constant(vector, [0.0] * vector.count), before)
    builder.cbranch(builder.icmp_signed("<", q, count), body, after)
    builder.position_at_end(body)
    place = vector_at(builder, e, builder.mul(q, e_stride), vector)
    row = Lanes(builder, load(builder, place))
    factors = builder.gep(f, [builder.mul(q, f_stride)])
    for r, total in enumerate(totals):
        factor = row.broadcast(builder.load(builder.gep(factors, [index(r)])))
        total.add_incoming(row.fma(factor, Lanes(builder, total)).value, builder.block)
    q.add_incoming(builder.add(q, index(1)), builder.block)
    builder.branch(loop)
    builder.position_at_end(after)
    return totals


@intrinsic
def _columns_of_tile(typingctx: Any, pointer: Any) -> Any:
    """_columns_of_tile(pointer): the width of a tile of ``_add_outer_tile``, a constant."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.IntType(64)(VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth)

    return types.int64(pointer), generate


# ------------------------------------------------------------------------------------------------
# What the pass calls by address
# ------------------------------------------------------------------------------------------------


def _add_outer_products(
    count: int, factors: Any, f_stride: int, rows: int, e: Any, columns: int, sums: Any
) -> None:
    """sums[r, j] += sum over q < count of factors[q, r] e[q, j]: for few rows, e read in place."""
    width = _columns_of_tile(sums)
    for j in range(0, columns, width):
        for r in range(0, rows, _TILE_ROWS):
            _add_outer_tile(
                *(factors, r, f_stride, min(rows - r, _TILE_ROWS)),
                *(e, j, columns, columns - j, count),
                *(sums, r * columns + j, columns),
            )


def _multiply(
    kind: int,
    rows: int,
    columns: int,
    depth: int,
    a: Any,
    b: Any,
    out: Any,
    accumulate: bool,
    packing: Any,
) -> None:
    """Compute out (+)= a @ b, a @ b.T or a.T @ b, by kind; all C-contiguous."""
    a_strides = (1, rows) if kind == 2 else (depth, 1)
    b_strides = (1, depth) if kind == 1 else (columns, 1)
    multiply_at(
        *(rows, columns, depth, a, a_strides[0], a_strides[1], b, b_strides[0], b_strides[1]),
        *(out, columns, accumulate, packing),
    )


def _add_outputs(count: int, h: int, a: Any, w: Any, outputs: Any) -> None:
    """Add row q of a times w to outputs[q]."""
    for q in range(count):
        outputs[q] += _dot(pointer(a, q * h), w, h)


def _activate(
    code: int,
    iota: float,
    first: int,
    last: int,
    size: int,
    z: Any,
    value: Any,
    slope: Any,
    turn: Any,
) -> None:
    """Derivatives ``first`` to ``last`` <= 2 of the activation; value may be in the place of z."""
    second = numba.carray(turn, (size,))
    apply_activation(
        *(code, iota, first, last, numba.carray(z, (size,)), numba.carray(value, (size,))),
        *(numba.carray(slope, (size,)), second, second, second),
    )


@functools.cache
def tools(dtype: np.dtype[Any]) -> tuple[Tools, Any]:
    """Compile what the pass calls, for a float type: addresses, and what keeps them alive."""
    w, x = types.int64, types.CPointer(numba.from_dtype(dtype))
    doubles = types.CPointer(types.float64)
    functions = (
        c_function(types.void(w, types.float64, w, w, w, x, x, x, x), _activate),
        c_function(types.void(w, w, w, w, x, x, x, types.boolean, x), _multiply),
        c_function(types.void(w, x, w, w, x, w, x), _add_outer_products),
        c_function(types.void(w, w, x, x, doubles), _add_outputs),
    )
    return Tools(*(int(function.address) for function in functions)), functions


# ------------------------------------------------------------------------------------------------
# Pieces of a pass over one block
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def _fill_rows(count: int, h: int, row: Any, out: Any) -> None:
    """out[q, j] = row[j]."""
    for q in range(count):
        for j in range(h):
            out[q * h + j] = row[j]


@kernel(fastmath="contract", inline=True)
def _scale_entries(size: int, factor: Any, out: Any) -> None:
    """Multiply out by factor, entry by entry."""
    for j in range(size):
        out[j] *= factor[j]


@kernel(fastmath="contract", inline=True)
def _scale_rows(count: int, h: int, slopes: Any, row: Any, out: Any) -> None:
    """Multiply out[q, j] by slopes[q] row[j]."""
    for q in range(count):
        for j in range(h):
            out[q * h + j] *= slopes[q] * row[j]


@kernel(fastmath="contract", inline=True)
def _activate_tangent(size: int, slope: Any, turn: Any, tangent: Any) -> None:
    """U = a'' z' and A' = a' z'; z' arrives in ``tangent``, a'' in ``turn``."""
    for j in range(size):
        direction = tangent[j]
        turn[j] *= direction
        tangent[j] = slope[j] * direction


@kernel(fastmath="contract", inline=True)
def _last_products(
    count: int, h: int, c: Any, c_tangent: Any, w: Any, w_direction: Any, slope: Any, turn: Any
) -> None:
    """E and E' of the last hidden layer, in the places of D and U."""
    for q in range(count):
        for j in range(h):
            k = q * h + j
            weight = c[q] * w[j]
            change = c_tangent[q] * w[j] + c[q] * w_direction[j]
            turn[k] = change * slope[k] + weight * turn[k]
            slope[k] *= weight


@kernel(fastmath="contract", inline=True)
def _lower_products(size: int, back: Any, back_tangent: Any, slope: Any, turn: Any) -> None:
    """E and E' of a hidden layer from E_l W_l and its tangent, in the places of D and U."""
    for j in range(size):
        turn[j] = back_tangent[j] * slope[j] + back[j] * turn[j]
        slope[j] *= back[j]


@kernel(fastmath="contract", inline=True)
def _add_column_sums(count: int, h: int, e: Any, sums: Any) -> None:
    """Add the sum over q of e[q, j] to sums[j]."""
    for q in range(count):
        for j in range(h):
            sums[j] += e[q * h + j]


@kernel(fastmath=False)
def _forward(
    tools: Tools, shape: Shape, scratch: Scratch, x: Any, point: Any, node: int, count: int
) -> None:
    """Activations of every hidden layer, and ``order`` derivatives of them from ``lowest`` on."""
    widths, buffers, at = shape.widths, scratch.buffers, shape.buffers_at
    packing = pointer(scratch.packing, 0)
    n_layers = widths.size - 1
    for layer in range(1, n_layers):
        h, below = widths[layer], widths[layer - 1]
        W = pointer(point, shape.weights_at[layer])
        value = pointer(buffers, at[layer, VALUE])
        z = value
        if layer == 1:
            call_at(tools.multiply, (0, count, h, below + 1, x, W, z, False, packing))
        else:
            if shape.keep != KEEP_NONE:
                z = pointer(scratch.kept, shape.kept_at[layer, VALUE] + node * h)
            if shape.keep != KEEP_READ:
                a = pointer(buffers, at[layer - 1, VALUE])
                _fill_rows(count, h, pointer(W, h * below), z)
                call_at(tools.multiply, (1, count, h, below, a, W, z, True, packing))
        # With the loss known, only the last layer's derivatives need the last activations.
        is_unused = shape.known and layer == n_layers - 1 and not shape.active[2 * layer]
        last = shape.order if layer >= shape.lowest else 0
        slope, turn = pointer(buffers, at[layer, SLOPE]), pointer(buffers, at[layer, TURN])
        call_at(
            tools.activate,
            (shape.code, shape.iota, int(is_unused), last, count * h, z, value, slope, turn),
        )


@kernel(fastmath=False, inline=True)
def _forward_tangent(
    tools: Tools,
    shape: Shape,
    scratch: Scratch,
    x: Any,
    point: Any,
    direction: Any,
    count: int,
) -> None:
    """U and A' of the hidden layers from ``lowest`` on."""
    widths, buffers, at = shape.widths, scratch.buffers, shape.buffers_at
    packing = pointer(scratch.packing, 0)
    for layer in range(shape.lowest, widths.size - 1):
        h, below = widths[layer], widths[layer - 1]
        start = shape.weights_at[layer]
        W, W_direction = pointer(point, start), pointer(direction, start)
        z = pointer(buffers, at[layer, TANGENT])
        if layer == 1:
            call_at(tools.multiply, (0, count, h, below + 1, x, W_direction, z, False, packing))
        else:
            _fill_rows(count, h, pointer(W_direction, h * below), z)
            if layer > shape.lowest:
                a = pointer(buffers, at[layer - 1, TANGENT])
                call_at(tools.multiply, (1, count, h, below, a, W, z, True, packing))
            if shape.active[2 * layer - 2]:
                a = pointer(buffers, at[layer - 1, VALUE])
                call_at(tools.multiply, (1, count, h, below, a, W_direction, z, True, packing))
        slope, turn = pointer(buffers, at[layer, SLOPE]), pointer(buffers, at[layer, TURN])
        _activate_tangent(count * h, slope, turn, z)


@kernel(fastmath=False, inline=True)
def _add_layer(
    tools: Tools,
    shape: Shape,
    scratch: Scratch,
    x: Any,
    count: int,
    layer: int,
    e_slot: int,
    a_slot: int,
    sums: Any,
) -> None:
    """Add E^T A to the sums of W_layer and, unless A is a tangent, of E to those of b_layer."""
    h, below = shape.widths[layer], shape.widths[layer - 1]
    own = pointer(sums, shape.weights_at[layer])
    has_weights, has_bias = shape.active[2 * layer - 2], shape.active[2 * layer - 1]
    e = pointer(scratch.buffers, shape.buffers_at[layer, e_slot])
    if layer == 1:
        first = 0 if has_weights else below
        rows = (below + 1 if has_bias else below) - first
        own, x = pointer(own, first * h), pointer(x, first)
        call_at(tools.add_outer, (count, x, below + 1, rows, e, h, own))
        return
    if has_weights:
        a = pointer(scratch.buffers, shape.buffers_at[layer - 1, a_slot])
        packing = pointer(scratch.packing, 0)
        call_at(tools.multiply, (2, h, below, count, e, a, own, True, packing))
    if has_bias and a_slot == VALUE:
        _add_column_sums(count, h, e, pointer(own, h * below))


@kernel(fastmath=False)
def _add_last_layer(
    tools: Tools, shape: Shape, scratch: Scratch, count: int, factors: Any, a_slot: int, sums: Any
) -> None:
    """Add factors^T A to the sums of w_L and, unless A is a tangent, of the factors to b_L."""
    n_layers = shape.widths.size - 1
    h = shape.widths[n_layers - 1]
    own = pointer(sums, shape.weights_at[n_layers])
    if shape.active[2 * n_layers - 2]:
        a = pointer(scratch.buffers, shape.buffers_at[n_layers - 1, a_slot])
        call_at(tools.add_outer, (count, factors, 1, 1, a, h, own))
    if shape.active[2 * n_layers - 1] and a_slot == VALUE:
        for q in range(count):
            own[h] += factors[q]


@kernel(fastmath=False, inline=True)
def _backwards(
    tools: Tools,
    shape: Shape,
    scratch: Scratch,
    x: Any,
    point: Any,
    direction: Any,
    node: int,
    count: int,
    sums: Any,
) -> None:
    """Add a block's gradient or product, from the last layer down to ``lowest``.

    E replaces D and, for products, E' replaces U.
    """
    widths, buffers, at = shape.widths, scratch.buffers, shape.buffers_at
    packing = pointer(scratch.packing, 0)
    c = pointer(scratch.coefficients, 0)
    c_tangent = pointer(scratch.coefficients, shape.block)
    n_layers = widths.size - 1
    is_product = shape.order == 2
    main = TURN if is_product else SLOPE
    _add_last_layer(tools, shape, scratch, count, c_tangent if is_product else c, VALUE, sums)
    if is_product and shape.lowest < n_layers:
        _add_last_layer(tools, shape, scratch, count, c, TANGENT, sums)
    for layer in range(n_layers - 1, shape.lowest - 1, -1):
        h, above = widths[layer], widths[layer + 1]
        start = shape.weights_at[layer + 1]
        W, W_direction = pointer(point, start), pointer(direction, start)
        slope, turn = pointer(buffers, at[layer, SLOPE]), pointer(buffers, at[layer, TURN])
        if layer < n_layers - 1:
            e = pointer(buffers, at[layer + 1, SLOPE])
            e_tangent = pointer(buffers, at[layer + 1, TURN])
            back = pointer(buffers, at[n_layers, VALUE])
            back_tangent = pointer(buffers, at[n_layers, SLOPE])
            if shape.keep != KEEP_NONE:
                back = pointer(scratch.kept, shape.kept_at[layer, SLOPE] + node * h)
            sizes = (0, count, h, above)
            if shape.keep != KEEP_READ:
                call_at(tools.multiply, (*sizes, e, W, back, False, packing))
            if is_product:
                call_at(tools.multiply, (*sizes, e_tangent, W, back_tangent, False, packing))
                if shape.active[2 * layer]:
                    call_at(tools.multiply, (*sizes, e, W_direction, back_tangent, True, packing))
                _lower_products(count * h, back, back_tangent, slope, turn)
            else:
                _scale_entries(count * h, back, slope)
        elif is_product:
            _last_products(count, h, c, c_tangent, W, W_direction, slope, turn)
        else:
            _scale_rows(count, h, c, W, slope)
        _add_layer(tools, shape, scratch, x, count, layer, main, VALUE, sums)
        if is_product and layer > shape.lowest:
            _add_layer(tools, shape, scratch, x, count, layer, SLOPE, TANGENT, sums)


# ------------------------------------------------------------------------------------------------
# The pass
# ------------------------------------------------------------------------------------------------


@kernel(fastmath=False)
def _losses(
    tools: Tools,
    shape: Shape,
    nodes: Nodes,
    loss: Loss,
    scratch: Scratch,
    point: Any,
    node: int,
    count: int,
    outputs: Any,
    slopes: Any,
    curvatures: Any,
) -> float:
    """Outputs, slopes and curvatures of a block's nodes; returns the sum of their losses."""
    n_layers = shape.widths.size - 1
    h = shape.widths[n_layers - 1]
    w = pointer(point, shape.weights_at[n_layers])
    for q in range(count):
        outputs[q] = w[h]
    a = pointer(scratch.buffers, shape.buffers_at[n_layers - 1, VALUE])
    call_at(tools.add_outputs, (count, h, a, w, outputs))
    first = node * nodes.per_node
    y, weights = pointer(nodes.targets, first), pointer(nodes.weights, first)
    sums = pointer(scratch.sums, 0)
    call_at(
        loss.address,
        (loss.code, loss.delta, count, nodes.per_node, outputs, y, weights, sums, slopes),
    )
    for q in range(count):
        curvatures[q] = sums[1 + q]
    return sums[0]


@kernel(fastmath=False)
def _output_tangents(
    tools: Tools,
    shape: Shape,
    scratch: Scratch,
    point: Any,
    direction: Any,
    count: int,
    tangents: Any,
) -> None:
    """Derivatives of a block's outputs along the direction."""
    n_layers = shape.widths.size - 1
    h, at = shape.widths[n_layers - 1], shape.buffers_at
    start = shape.weights_at[n_layers]
    w, w_direction = pointer(point, start), pointer(direction, start)
    for q in range(count):
        tangents[q] = w_direction[h]
    if shape.lowest < n_layers:
        a = pointer(scratch.buffers, at[n_layers - 1, TANGENT])
        call_at(tools.add_outputs, (count, h, a, w, tangents))
    if shape.active[2 * n_layers - 2]:
        a = pointer(scratch.buffers, at[n_layers - 1, VALUE])
        call_at(tools.add_outputs, (count, h, a, w_direction, tangents))


@kernel(fastmath=False, inline=True)
def pass_over_strands(
    first: int,
    stop: int,
    n_strands: int,
    tools: Tools,
    shape: Shape,
    nodes: Nodes,
    loss: Loss,
    scratch: Scratch,
    point: Floats,
    direction: Floats,
    outputs: DoubleArray,
    slopes: DoubleArray,
    curvatures: DoubleArray,
    values: DoubleArray,
    strands: Floats,
) -> None:
    """Strands first to stop - 1 of a pass: values, and what ``shape.order`` asks for.

    Of each node, writes outputs[q] = o(x_q), ``slopes`` and ``curvatures`` (sums of w loss' and of
    w loss''), unless they are known. Of each strand, writes values[s], the sum of w loss (unless
    known), and adds to row s of ``strands``, which starts from zero. Products of matrices that
    depend on the point alone go to ``scratch.kept`` and come from there as ``shape.keep`` says.
    """
    n_layers, n_params = shape.widths.size - 1, point.size
    n_blocks = -(-nodes.n_nodes // shape.block)
    p, v = pointer(point, 0), pointer(direction, 0)
    c, tangents = pointer(scratch.coefficients, 0), pointer(scratch.tangents, 0)
    for strand in range(first, stop):
        sums = pointer(strands, strand * n_params)
        total = 0.0
        end = n_blocks * (strand + 1) // n_strands
        for number in range(n_blocks * strand // n_strands, end):
            node = number * shape.block
            count = min(shape.block, nodes.n_nodes - node)
            x = pointer(nodes.inputs, node * (shape.widths[0] + 1))
            _forward(tools, shape, scratch, x, p, node, count)
            if not shape.known:
                own = pointer(outputs, node), pointer(slopes, node), pointer(curvatures, node)
                total += _losses(tools, shape, nodes, loss, scratch, p, node, count, *own)
            if shape.order == 0 or shape.lowest > n_layers:
                continue
            for q in range(count):
                c[q] = slopes[node + q]
            if shape.order == 2:
                _forward_tangent(tools, shape, scratch, x, p, v, count)
                _output_tangents(tools, shape, scratch, p, v, count, tangents)
                for q in range(count):
                    c[shape.block + q] = curvatures[node + q] * tangents[q]
            _backwards(tools, shape, scratch, x, p, v, node, count, sums)
        if not shape.known:
            values[strand] = total
