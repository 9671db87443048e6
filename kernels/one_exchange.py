"""Local search for cuts that moves the best vertex first, with Python's own random tie-breaks.

The kernels repeat, bit by bit, what CPython's `random.Random.shuffle` does with the Mersenne
Twister, so that a search gives the result of the same search in pure Python, seed for seed.

Graphs are CSR arrays as in `derand_fast.kernels.maxcut`, but rows keep any order, and a vertex may
meet itself if the weight of that entry is 0.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from derand_fast.kernels._jit import kernel
from derand_fast.kernels.maxcut import flip_gains

IndexArray = NDArray[Any]
FloatArray = NDArray[np.float64]
SignArray = NDArray[np.int8]
WordArray = NDArray[np.uint32]

# How `best_exchanges` ended.
OPTIMUM = 0
UNFINISHED = 1
UNDECIDED = 2

# Words of the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998) and its constants.
WORDS = 624
_MIDDLE = 397
_UPPER = np.uint32(0x80000000)
_LOWER = np.uint32(0x7FFFFFFF)
_MATRIX = np.uint32(0x9908B0DF)
_MASK_B = np.uint32(0x9D2C5680)
_MASK_C = np.uint32(0xEFC60000)
_ONE = np.uint32(1)
_WORD_BITS = 32


@kernel(fastmath=False, inline=True)
def _twist(words: WordArray, k: int, following: int, distant: int) -> None:
    mixed = (words[k] & _UPPER) | (words[following] & _LOWER)
    words[k] = words[distant] ^ (mixed >> _ONE) ^ ((mixed & _ONE) * _MATRIX)


@kernel(fastmath=False)
def temper(words: WordArray, numbers: WordArray) -> None:
    """Write the 624 numbers that a state of the Mersenne Twister stands for."""
    for k in range(WORDS):
        y = words[k]
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & _MASK_B
        y ^= (y << np.uint32(15)) & _MASK_C
        numbers[k] = y ^ (y >> np.uint32(18))


@kernel(fastmath=False)
def _refill(words: WordArray, numbers: WordArray) -> None:
    for k in range(WORDS - _MIDDLE):
        _twist(words, k, k + 1, k + _MIDDLE)
    for k in range(WORDS - _MIDDLE, WORDS - 1):
        _twist(words, k, k + 1, k + _MIDDLE - WORDS)
    _twist(words, WORDS - 1, 0, _MIDDLE - 1)
    temper(words, numbers)


@kernel(fastmath=False)
def shuffle(
    words: WordArray, numbers: WordArray, place: IndexArray, order: IndexArray, wanted: bool
) -> None:
    """Write range(n) in random order, as ``random.Random.shuffle`` does from the same state.

    From the last place to the second, each is exchanged with a random one not after it; a random
    place among k takes the leading bits of one number, and of the next while it is too large.

    words, numbers (624,): state and what `temper` made of it, updated; place (1,): the number to
    take next, as in ``random.Random.getstate``; order (n,) int32 is written. If the order is not
    ``wanted`` only the numbers are taken. Cost about 1.4 numbers a vertex.
    """
    n = len(order)
    if wanted:
        for i in range(n):
            order[i] = i
    taken = place[0]
    power = 1
    shift = np.uint32(_WORD_BITS)
    while power <= n:
        power *= 2
        shift -= _ONE
    i = n - 1
    while i > 0:
        least = power // 2 - 1
        if i < least:
            power //= 2
            shift += _ONE
        elif taken == WORDS:
            _refill(words, numbers)
            taken = 0
        elif wanted:
            # Without a branch on what is drawn, which no processor could predict: a number too
            # large exchanges place i with itself.
            while taken < WORDS and i >= least:
                drawn = np.int64(numbers[taken] >> shift)
                taken += 1
                other = drawn if drawn <= i else i
                order[i], order[other] = order[other], order[i]
                i -= int(drawn <= i)
        else:
            while taken < WORDS and i >= least:
                i -= int(np.int64(numbers[taken] >> shift) <= i)
                taken += 1
    place[0] = taken


@kernel(fastmath=False)
def best_exchanges(
    indptr: IndexArray,
    indices: IndexArray,
    weights: FloatArray,
    signs: SignArray,
    gains: FloatArray,
    tolerance: float,
    words: WordArray,
    numbers: WordArray,
    place: IndexArray,
    order: IndexArray,
    shuffled: bool,
    moves: IndexArray,
) -> tuple[int, int]:
    """Move the vertex of largest gain, ties broken by a fresh random order, while the cut grows.

    The gain of vertex i is sum_j w_ij s_i s_j. Two gains, or a gain and 0, that differ by at most
    ``tolerance`` are left to the caller to compare: 0 where sums are exact.

    signs (n,) int8 is updated, gains (n,) and moves are written: at most len(moves) vertices are
    moved. words, numbers, place, order: see `shuffle`. With ``shuffled`` the caller has written
    ``order``, and there is room for one move only. Returns how it ended, and the moves made:
    OPTIMUM, no move improves; UNFINISHED, ``moves`` is full; UNDECIDED, the caller decides among
    the largest gains, by ``order``. A move costs O(n + degree).
    """
    flip_gains(indptr, indices, weights, signs, gains)
    n = len(signs)
    for count in range(len(moves)):
        best = gains[0]
        for i in range(1, n):
            best = max(best, gains[i])
        ties = 0
        vertex = 0
        for i in range(n):
            if gains[i] >= best - tolerance:
                ties += 1
                vertex = i
        undecided = tolerance > 0.0 and best >= -tolerance and (ties > 1 or best <= tolerance)
        if not shuffled:
            shuffle(words, numbers, place, order, ties > 1 or undecided)
        if undecided:
            return UNDECIDED, count
        if best <= 0.0:
            return OPTIMUM, count
        if ties > 1:
            k = 0
            while gains[order[k]] != best:
                k += 1
            vertex = order[k]
        signs[vertex] = -signs[vertex]
        gains[vertex] = -gains[vertex]
        for e in range(indptr[vertex], indptr[vertex + 1]):
            j = indices[e]
            gains[j] += 2.0 * weights[e] * signs[vertex] * signs[j]
        moves[count] = vertex
    return UNFINISHED, len(moves)


@kernel(fastmath=False)
def boundary_entries(
    indptr: IndexArray,
    indices: IndexArray,
    rows: IndexArray,
    rank: IndexArray,
    target: NDArray[np.bool_],
    entries: IndexArray,
) -> int:
    """List the stored entries (i, j) of ``rows`` with j in the target, or i in it and j in rows.

    rows (k,): vertices in the order wanted; rank (n,): their places in it, k for other vertices;
    target (n,) bool. An edge between two rows is listed once, from the row that comes first.
    entries is written, room for all entries of these rows. Returns how many there are.
    """
    outside = len(rows)
    count = 0
    for place in range(outside):
        i = rows[place]
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if rank[j] >= place and (target[j] or (target[i] and rank[j] < outside)):
                entries[count] = e
                count += 1
    return count
