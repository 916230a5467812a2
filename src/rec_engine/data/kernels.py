"""The few loops that numpy cannot express, as machine code."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray

DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
BIT_PLACES = np.zeros(64, dtype=np.int32)
"""Place of the one bit of a 64-bit word, by the six highest bits of its product with a de Bruijn sequence."""
for _bit in range(64):
    BIT_PLACES[((1 << _bit) * int(DE_BRUIJN) & (2**64 - 1)) >> 58] = _bit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Return the function as machine code, which is kept for the next process where there is a place to write."""
    try:
        machine_code: Function = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        machine_code = numba.njit(nogil=True)(function)
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
            while low < high:
                middle = (low + high) // 2
                if keys[middle] < wanted:
                    low = middle + 1
                else:
                    high = middle
            places[row, column] = low
    return places


@compiled
def summed_rows(  # noqa: PLR0913 - three arrays are the matrix, two are memory to work in
    indptr: IntArray | LongArray,
    indices: IntArray,
    data: FloatArray,
    items: IntArray,
    weights: FloatArray,
    sums: NDArray[np.float64],
    marks: NDArray[np.uint64],
) -> tuple[IntArray, FloatArray]:
    """Return which columns some rows of a sparse matrix have, in ascending order, and their weighted sums.

    Args:
        indptr: of the matrix in compressed rows.
        indices: as `indptr`.
        data: as `indptr`.
        items: (n,) the rows.
        weights: (n,) of the rows.
        sums: (n_columns,) zeros, and zeros again at the end.
        marks: (n_columns // 64 + 1,) zeros, and zeros again at the end; a bit for each column makes sorting needless.
    """
    n_entries = 0
    for row in range(len(items)):
        for place in range(indptr[items[row]], indptr[items[row] + 1]):
            column = indices[place]
            sums[column] += data[place] * weights[row]
            marks[column >> 6] |= np.uint64(1) << np.uint64(column & 63)
            n_entries += 1
    columns, values = np.empty(n_entries, dtype=np.int32), np.empty(n_entries, dtype=np.float32)
    n_columns = 0
    for word in range(len(marks)):
        bits = marks[word]
        while bits:
            lowest = bits & (~bits + np.uint64(1))
            column = 64 * word + BIT_PLACES[(lowest * DE_BRUIJN) >> np.uint64(58)]
            columns[n_columns], values[n_columns] = column, sums[column]
            sums[column] = 0.0
            n_columns += 1
            bits ^= lowest
        marks[word] = 0
    return columns[:n_columns], values[:n_columns]


@compiled
def entries_between(  # noqa: PLR0913 - three arrays are the matrix, one is memory to work in
    indptr: IntArray | LongArray,
    indices: IntArray,
    data: FloatArray,
    items: IntArray,
    others: IntArray,
    places: IntArray,
) -> FloatArray:
    """Return (n, n_others) float32: the entries of some rows of a sparse matrix at some columns, 0 where there is none.

    Args:
        indptr: of the matrix in compressed rows.
        indices: as `indptr`.
        data: as `indptr`.
        items: (n,) the rows.
        others: (n_others,) the columns, distinct.
        places: (n_columns,) zeros, and zeros again at the end.
    """
    found = np.zeros((len(items), len(others)), dtype=np.float32)
    for column in range(len(others)):
        places[others[column]] = column + 1
    for row in range(len(items)):
        for entry in range(indptr[items[row]], indptr[items[row] + 1]):
            column = places[indices[entry]]
            if column > 0:
                found[row, column - 1] = data[entry]
    for other in others:
        places[other] = 0
    return found
