"""The few loops that numpy cannot express, as machine code."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray, MaskArray

DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT_PLACES = np.zeros(64, dtype=np.int32)
"""Place of the one bit of a 64-bit word, by the six highest bits of its product with a de Bruijn sequence."""
for _bit in range(64):
    BIT_PLACES[((1 << _bit) * int(DE_BRUIJN) & (2**64 - 1)) >> 58] = _bit
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: the highest bits of its product with a code are as good as random."""
EMPTY = np.int32(-1)
SIEVE_WORDS = 1_024

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return the function as machine code, which is kept for the next process where there is a place to write."""
    return _compiled(function, fastmath=False)


def compiled_sums(function: Function) -> Function:
    """Return the same of a function whose sums may be added up in any order, many at a time."""
    return _compiled(function, fastmath={"reassoc", "contract"})


def _compiled(function: Function, *, fastmath: bool | set[str]) -> Function:
    try:
        machine_code: Function = numba.njit(cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:
        machine_code = numba.njit(nogil=True, fastmath=fastmath)(function)
    return machine_code


@compiled
def places_at(keys: LongArray, starts: LongArray, items: IntArray, moments: LongArray, span: int) -> LongArray:
    """Return (n_moments, n) int64: how many keys lie before item * span + moment.

    Args:
        keys: ascending; those of item i are keys[starts[i]:starts[i + 1]], within i * span and (i + 1) * span.
        starts: (n_items + 1,).
        items: (n,) codes.
        moments: (n_moments,) within the span.
        span: of each item.
    """
    places = np.empty((len(moments), len(items)), dtype=np.int64)
    for column in range(len(items)):
        item = np.int64(items[column])
        for row in range(len(moments)):
            wanted = item * span + moments[row]
            low, high = starts[item], starts[item + 1]
            if low < high and keys[high - 1] < wanted:  # most moments are later than all that happened
                low = high
            while low < high:
                middle = (low + high) // 2
                if keys[middle] < wanted:
                    low = middle + 1
                else:
                    high = middle
            places[row, column] = low
    return places


@compiled
def pasts_at(
    keys: LongArray, starts: LongArray, items: IntArray, moments: LongArray, span: int, unit: int
) -> FloatArray:
    """Return (n_moments + 2, n) float32: how often each item's keys lie before each moment, and two times.

    These are from the item's first key to the first moment and from its last key before that, in units; nan where it
    has none.

    Args:
        keys: as in `places_at`.
        starts: as there.
        items: (n,) codes.
        moments: (n_moments,) within the span.
        span: of each item.
        unit: of the two times.
    """
    n_moments = len(moments)
    places, found = places_at(keys, starts, items, moments, span), np.empty((n_moments + 2, len(items)), np.float32)
    for column in range(len(items)):
        item = np.int64(items[column])
        for row in range(n_moments):
            found[row, column] = places[row, column] - starts[item]
        if places[0, column] > starts[item]:
            since = item * span + moments[0]
            found[n_moments, column] = (since - keys[starts[item]]) / unit
            found[n_moments + 1, column] = (since - keys[places[0, column] - 1]) / unit
        else:
            found[n_moments:, column] = np.nan
    return found


@compiled
def distinct_users(items: IntArray, starts: LongArray, n_items: int) -> FloatArray:
    """Return (n_items,) float32: how many users met each item.

    Args:
        items: (n,) codes; user u met items[starts[u]:starts[u + 1]].
        starts: (n_users + 1,).
        n_items: size of the catalogue.
    """
    counts, latest = np.zeros(n_items, dtype=np.int32), np.full(n_items, -1, dtype=np.int64)
    for user in range(len(starts) - 1):
        for place in range(starts[user], starts[user + 1]):
            item = items[place]
            counts[item] += latest[item] != user
            latest[item] = user
    return counts.astype(np.float32)


@compiled
def slot_of(keys: IntArray, key: int) -> np.int64:
    """Return the slot of a key in a hash table, or the empty one where it would go.

    Args:
        keys: (2^n,) int32, EMPTY where there is none; at least one slot is empty.
        key: not below 0.
    """
    last = len(keys) - 1
    slot = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(32)) & last
    while keys[slot] != key and keys[slot] != EMPTY:
        slot = (slot + 1) & last
    return slot


@compiled
def _slots_for(n_keys: int) -> int:
    """Return a power of two, larger by a third at least: there is always an empty slot near by."""
    n_slots = 64
    while 3 * n_slots < 4 * n_keys:
        n_slots *= 2
    return n_slots


@compiled
def numbered(items: IntArray) -> tuple[IntArray, IntArray, MaskArray]:
    """Return a hash table of distinct items (n,), and a first sieve that lets all of them through and few others.

    Returns:
        (2^b,) int32 keys; (2^b,) int32 places of the keys among the items; (SIEVE_WORDS,) uint64, where bit c & 63 of
        word c >> 6 & (SIEVE_WORDS - 1) is set for item c.
    """
    keys = np.full(_slots_for(4 * len(items)), EMPTY, dtype=np.int32)
    places, sieve = np.empty(len(keys), dtype=np.int32), np.zeros(SIEVE_WORDS, dtype=np.uint64)
    for place in range(len(items)):
        item = items[place]
        slot = slot_of(keys, item)
        keys[slot], places[slot] = item, place
        sieve[(item >> 6) & (SIEVE_WORDS - 1)] |= np.uint64(1) << np.uint64(item & 63)
    return keys, places, sieve


@compiled
def summed_rows(  # noqa: PLR0913 - three arrays are the matrix, one is memory to work in
    indptr: IntArray | LongArray,
    indices: IntArray,
    data: FloatArray,
    items: IntArray,
    weights: FloatArray,
    sums: FloatArray,
) -> tuple[IntArray, FloatArray]:
    """Return which columns some rows of a sparse matrix have, in no order, and their weighted sums, int32 and float32.

    A column whose sum was 0 on the way may come twice, the second time with 0.

    Args:
        indptr: of the matrix in compressed rows.
        indices: as `indptr`.
        data: as `indptr`.
        items: (n,) the rows.
        weights: (n,) of the rows.
        sums: (n_columns,) zeros, and zeros again at the end.
    """
    n_entries = 0
    for item in items:
        n_entries += indptr[item + 1] - indptr[item]
    columns, n_columns = np.empty(n_entries + 1, dtype=np.int32), 0
    for row in range(len(items)):
        for entry in range(indptr[items[row]], indptr[items[row] + 1]):
            column = indices[entry]
            before = sums[column]
            columns[n_columns] = column  # without a branch: nobody can predict which columns are new
            n_columns += before == 0
            sums[column] = before + data[entry] * weights[row]
    found = np.empty(n_columns, dtype=np.float32)
    for place in range(n_columns):
        found[place] = sums[columns[place]]
        sums[columns[place]] = 0
    return columns[:n_columns], found


@compiled
def values_at(items: IntArray, values: FloatArray, asked: IntArray) -> FloatArray:
    """Return (n_asked,) float32, the values of those of some items (n,) that are asked for; 0 of others.

    Args:
        items: one may come twice, the second time with 0.
        values: (n,) of the items.
        asked: (n_asked,) distinct.
    """
    keys, places, sieve = numbered(asked)
    found = np.zeros(len(asked), dtype=np.float32)
    for place in range(len(items)):
        item = items[place]
        if (sieve[(item >> 6) & (SIEVE_WORDS - 1)] >> np.uint64(item & 63)) & np.uint64(1):
            slot = slot_of(keys, item)
            if keys[slot] != EMPTY:
                found[places[slot]] += values[place]
    return found


@compiled
def places_of(keys: IntArray, places: IntArray, items: IntArray) -> IntArray:
    """Return (n,) int32, what a hash table of `numbered` holds of these items (n,); -1 where it has none."""
    found = np.full(len(items), np.int32(-1), dtype=np.int32)
    for row in range(len(items)):
        slot = slot_of(keys, items[row])
        if keys[slot] == items[row]:
            found[row] = places[slot]
    return found


@compiled
def entries_between(
    indptr: IntArray | LongArray, indices: IntArray, data: FloatArray, items: IntArray, others: IntArray
) -> FloatArray:
    """Return (n, n_others) float32: the entries of some rows of a sparse matrix at some columns, 0 where there is none.

    Args:
        indptr: of the matrix in compressed rows.
        indices: as `indptr`.
        data: as `indptr`.
        items: (n,) the rows.
        others: (n_others,) the columns, distinct.
    """
    keys, places, _ = numbered(others)
    found = np.zeros((len(items), len(others)), dtype=np.float32)
    for row in range(len(items)):
        for entry in range(indptr[items[row]], indptr[items[row] + 1]):
            slot = slot_of(keys, indices[entry])
            if keys[slot] != EMPTY:
                found[row, places[slot]] = data[entry]
    return found


@compiled
def entries_of_latest(
    indptr: IntArray | LongArray,
    indices: IntArray,
    data: FloatArray,
    items: IntArray,
    others: tuple[IntArray, IntArray, MaskArray],
    found: FloatArray,
) -> None:
    """Set (4, n_others) float32 to what some rows of a sparse matrix hold at some columns, in four figures.

    These are the entry of the first row, nan without one; that of the second row, likewise; the largest of all rows,
    at least 0; and their sum, the m-th row's with 1 / m.

    Args:
        indptr: of the matrix in compressed rows.
        indices: as `indptr`.
        data: as `indptr`.
        items: (n,) the rows.
        others: the columns, as `numbered` makes it of them.
        found: where to.
    """
    keys, places, sieve = others
    found[:] = 0
    found[len(items) : 2] = np.nan
    passed = np.empty(512, dtype=np.int64)
    for row in range(len(items)):
        weight = np.float32(1 / (row + 1))
        first, end = np.int64(indptr[items[row]]), np.int64(indptr[items[row] + 1])
        if end - first > len(passed):
            passed = np.empty(2 * (end - first), dtype=np.int64)
        # Without a branch: nobody can predict which entries pass.
        n_passed = np.int64(0)
        for entry in range(first, end):
            column = indices[entry]
            passed[n_passed] = entry
            n_passed += np.int64((sieve[(column >> 6) & (SIEVE_WORDS - 1)] >> np.uint64(column & 63)) & np.uint64(1))
        for entry in passed[:n_passed]:
            slot = slot_of(keys, indices[entry])
            if keys[slot] == EMPTY:
                continue
            place, value = places[slot], data[entry]
            if row < 2:
                found[row, place] = value
            found[2, place] = max(found[2, place], value)
            found[3, place] += weight * value


@compiled
def shared_tastes(masks: MaskArray, history: IntArray, items: IntArray) -> FloatArray:
    """Return (n,) float32: the shares that an item's categories have in a history, added up.

    Args:
        masks: (n_items,) uint64, a bit for each category that an item has.
        history: (n_history,) items, of which each counts alike and divides that among its categories.
        items: (n,) codes.
    """
    taste = np.zeros(64, dtype=np.float32)
    for item in history:
        n_categories, bits = 0, masks[item]
        while bits:
            bits &= bits - np.uint64(1)
            n_categories += 1
        bits = masks[item]
        while bits:
            taste[_lowest_bit(bits)] += np.float32(1 / n_categories)
            bits &= bits - np.uint64(1)
    taste /= np.float32(max(1, len(history)))
    shared = np.zeros(len(items), dtype=np.float32)
    for place in range(len(items)):
        bits = masks[items[place]]
        while bits:
            shared[place] += taste[_lowest_bit(bits)]
            bits &= bits - np.uint64(1)
    return shared


@compiled
def _lowest_bit(bits: np.uint64) -> np.int32:
    place: np.int32 = BIT_PLACES[((bits & (~bits + np.uint64(1))) * DE_BRUIJN) >> np.uint64(58)]
    return place


@compiled
def cleared(bits: NDArray[np.uint8], items: IntArray) -> tuple[NDArray[np.uint8], int]:
    """Return a copy of a set's bits without these items, and how many of them were in it."""
    fewer, n_gone = bits.copy(), 0
    for item in items:
        bit = np.uint8(1 << (item & 7))
        n_gone += fewer[item >> 3] & bit != 0
        fewer[item >> 3] &= ~bit
    return fewer, n_gone


@compiled
def showings_of(  # noqa: PLR0913 - what was shown, what was met, and the columns
    places: IntArray,
    looks: FloatArray,
    timestamps: LongArray,
    met: IntArray,
    met_at: LongArray,
    now: int,
    columns: FloatArray,
) -> None:
    """Set four columns (4, n_candidates) float32 to what a user was shown of the candidates.

    They are log(1 + times shown), log(1 + looks since he last met it), days since he was last shown it (nan for never),
    and log(1 + looks at all that was shown), which is the same for all.

    Args:
        places: (n,) of what was shown among the candidates, -1 for what is none of them.
        looks: (n,) how likely he looked each time.
        timestamps: (n,) Unix seconds, ascending.
        met: (n_met,) places of what he met himself, -1 for what is none of them.
        met_at: (n_met,) when.
        now: Unix seconds.
        columns: to be set.
    """
    columns[0], columns[1], columns[2] = np.float32(0), np.float32(0), np.float32(np.nan)
    all_looks = np.float32(0)
    last_met = np.full(columns.shape[1], np.int64(-(2**62)))
    for row in range(len(met)):
        if met[row] >= 0:
            last_met[met[row]] = max(last_met[met[row]], met_at[row])
    for row in range(len(places)):
        all_looks += looks[row]
        place = places[row]
        if place >= 0:
            columns[0, place] += 1
            columns[2, place] = (now - timestamps[row]) / 86_400
            if timestamps[row] > last_met[place]:
                columns[1, place] += looks[row]
    columns[0], columns[1], columns[3] = np.log1p(columns[0]), np.log1p(columns[1]), np.log1p(all_looks)
