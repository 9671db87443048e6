"""Simulated annealing of sixteen cuts at once: one replica in each lane of a vector register.

Sixteen replicas of a vertex lie side by side as float32 signs, so one update reads whole rows and
has no branch: 0.4 to 3 ns a replica and vertex, where one replica at a time takes 20 to 60 because
the processor cannot foresee which flips are accepted. Where weights are whole numbers (times a
power of two) whose sizes at a vertex add up to no more than 2^24, all sums are exact.

Rows are flat: replica k of vertex i is ``spins[16 i + k]``.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel

IndexArray = NDArray[Any]
RowArray = NDArray[np.float32]
SignArray = NDArray[np.int8]
StateArray = NDArray[np.uint64]

REPLICAS = 16
_TABLE_BITS = 12
# A 64-bit random number holds five places of the table.
_PLACES = 5
_WIDTH = np.uint64(REPLICAS)
_MASK = np.uint64(2**_TABLE_BITS - 1)
_BITS = np.uint64(_TABLE_BITS)
_FUSED = ("contract",)
_VECTOR = ir.VectorType(ir.FloatType(), REPLICAS)
_ZERO = ir.Constant(_VECTOR, [0.0] * REPLICAS)


def exponential_table() -> RowArray:
    """Return 4096 quantiles of the unit exponential law in random order, the first 16 once more.

    Sixteen consecutive numbers from a random place serve the replicas of one vertex. The largest is
    log(8192) = 9.0, so no flip that loses more than nine temperatures is accepted.
    """
    size = 2**_TABLE_BITS
    order = np.random.default_rng(0).permutation(size)
    quantiles = (-np.log((order + 0.5) / size)).astype(np.float32)
    table = np.concatenate([quantiles, quantiles[:REPLICAS]])
    table.flags.writeable = False
    return table


def _load(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    """Return sixteen array elements and their address."""
    data = context.make_array(array_type)(context, builder, array).data
    address = builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())
    return builder.load(address, align=4), address


def _broadcast(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), REPLICAS), [0] * REPLICAS)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, lanes)


def _register(builder: Any, name: Any) -> Any:
    return builder.bitcast(name, _VECTOR.as_pointer())


@intrinsic
def _new_field(typingctx: Any) -> Any:
    """_new_field(): reserve a register for sixteen float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(cgutils.alloca_once(builder, _VECTOR), cgutils.voidptr_t)

    return types.voidptr(), generate


@intrinsic
def _clear(typingctx: Any, field: Any) -> Any:
    """_clear(field): field = 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(_ZERO, _register(builder, args[0]))
        return context.get_dummy_value()

    return types.void(field), generate


@intrinsic
def _add_scaled(typingctx: Any, field: Any, weight: Any, spins: Any, offset: Any) -> Any:
    """_add_scaled(field, weight, spins, offset): field += weight * spins[offset : offset + 16]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slot = _register(builder, args[0])
        spins_row, _ = _load(context, builder, signature.args[2], args[2], args[3])
        term = builder.fmul(_broadcast(builder, args[1]), spins_row, flags=_FUSED)
        builder.store(builder.fadd(builder.load(slot), term, flags=_FUSED), slot)
        return context.get_dummy_value()

    return types.void(field, types.float32, spins, types.uint64), generate


@intrinsic
def _flip_some(
    typingctx: Any,
    field: Any,
    spins: Any,
    offset: Any,
    temperatures: Any,
    table: Any,
    place: Any,
) -> Any:
    """Flip signs at offset whose gain sign * field exceeds -temperature * table[place : ...]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, spins_type, _, temperature_type, table_type, _ = signature.args
        start = ir.Constant(ir.IntType(64), 0)
        signs, address = _load(context, builder, spins_type, args[1], args[2])
        heat, _ = _load(context, builder, temperature_type, args[3], start)
        quantiles, _ = _load(context, builder, table_type, args[4], args[5])
        gain = builder.fmul(signs, builder.load(_register(builder, args[0])), flags=_FUSED)
        allowed = builder.fmul(heat, quantiles, flags=_FUSED)
        margin = builder.fadd(gain, allowed, flags=_FUSED)
        accepted = builder.fcmp_ordered(">", margin, _ZERO)
        flipped = builder.select(accepted, builder.fneg(signs), signs)
        builder.store(flipped, address, align=4)
        return context.get_dummy_value()

    signature = types.void(field, spins, types.uint64, temperatures, table, types.uint64)
    return signature, generate


@kernel(fastmath=False)
def anneal_replicas(
    indptr: IndexArray,
    indices: IndexArray,
    weights: RowArray,
    spins: RowArray,
    temperatures: RowArray,
    cooling: RowArray,
    count: int,
    table: RowArray,
    state: StateArray,
) -> None:
    """Do Metropolis sweeps of sixteen cuts while their temperatures fall.

    In each replica vertex i is flipped, which adds g = s_i sum_j w_ij s_j to the cut, with
    probability min(1, exp(g / T)), found as g > -T E with E from the table of exponential
    quantiles. After a sweep ``cooling`` is subtracted from ``temperatures``, but none falls below
    0, where only g > 0 is accepted and no cut gets worse, up to the rounding of g. A sweep visits
    even vertices, then odd.

    Parameters: weights (2 m,) float32; spins (16 n,) float32, +1 or -1, updated in place;
    temperatures and cooling (16,) float32, the former updated; table from `exponential_table`;
    state (1,) uint64, not 0, of a 64-bit xorshift generator, updated. Cost 64 m flops a sweep.

    Source: Kirkpatrick, Gelatt and Vecchi, Science 220 (1983); Marsaglia, "Xorshift RNGs", 2003.
    """
    n = len(indptr) - 1
    field = _new_field()
    random = state[0]
    for _ in range(count):
        places = np.uint64(0)
        left = 0
        # On grids vertex i + 1 would wait for vertex i, its neighbour.
        for parity in range(2):
            for i in range(parity, n, 2):
                _clear(field)
                for e in range(np.uint64(indptr[i]), np.uint64(indptr[i + 1])):
                    _add_scaled(field, weights[e], spins, np.uint64(indices[e]) * _WIDTH)
                if left == 0:
                    random ^= random << np.uint64(13)
                    random ^= random >> np.uint64(7)
                    random ^= random << np.uint64(17)
                    places = random
                    left = _PLACES
                left -= 1
                own = np.uint64(i) * _WIDTH
                _flip_some(field, spins, own, temperatures, table, places & _MASK)
                places >>= _BITS
        for k in range(REPLICAS):
            temperatures[k] = max(temperatures[k] - cooling[k], np.float32(0.0))
    state[0] = random


@kernel(fastmath=False)
def copy_to_replicas(signs: SignArray, spins: RowArray) -> None:
    """Write one cut (n,) int8 into all sixteen replicas."""
    for i in range(len(signs)):
        sign = np.float32(signs[i])
        for k in range(REPLICAS):
            spins[REPLICAS * i + k] = sign


@kernel(fastmath=False)
def copy_from_replica(spins: RowArray, replica: int, signs: SignArray) -> None:
    """Write one replica as a cut (n,) int8."""
    for i in range(len(signs)):
        signs[i] = 1 if spins[REPLICAS * i + replica] > 0 else -1
