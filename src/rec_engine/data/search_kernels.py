"""The loops of a search as machine code: scores of many vectors, and the best of many scores."""

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.kernels import compiled, compiled_sums


@compiled_sums
def products(base: FloatArray, more: FloatArray, items: IntArray, vector: FloatArray) -> FloatArray:
    """Return (n,) float32: the inner products of some rows of a matrix in two parts with a vector.

    Args:
        base: (n_base, dim), the first rows.
        more: (n_more, dim), those behind them.
        items: (n,) row numbers.
        vector: (dim,).
    """
    found = np.empty(len(items), dtype=np.float32)
    for place in range(len(items)):
        item = items[place]
        row = base[item] if item < len(base) else more[item - len(base)]
        total = np.float32(0)
        for dimension in range(len(vector)):
            total += row[dimension] * vector[dimension]
        found[place] = total
    return found


@compiled
def cell_scores(
    rows: NDArray[np.int8], starts: LongArray, items: IntArray, cells: LongArray, query: NDArray[np.int16]
) -> tuple[IntArray, IntArray]:
    """Return the inner product of a query with each row of some cells, and the items of the rows, both int32.

    Args:
        rows: (n * dim,), one row after the other.
        starts: (n_cells + 1,), the first row of each cell.
        items: (n,) of the rows.
        cells: (breadth,) to look at.
        query: (dim,).
    """
    dim, n_found = len(query), 0
    for cell in cells:
        n_found += starts[cell + 1] - starts[cell]
    scores, found, done = np.empty(n_found, dtype=np.int32), np.empty(n_found, dtype=np.int32), 0
    for cell in cells:
        first, n = starts[cell], starts[cell + 1] - starts[cell]
        of_cell = rows[dim * first : dim * (first + n)]
        for row in range(n):
            total = np.int32(0)
            for dimension in range(dim):
                total += np.int32(of_cell[dim * row + dimension]) * np.int32(query[dimension])
            scores[done + row] = total
        found[done : done + n] = items[first : first + n]
        done += n
    return scores, found


@compiled
def best_of(
    items: IntArray, scores: FloatArray, bits: NDArray[np.uint8], k: int, above: float
) -> tuple[IntArray, FloatArray]:
    """Return the at most k of some items (n,) with the highest scores (n,), best first, equal ones by code; and those.

    Args:
        items: distinct.
        scores: of the items.
        bits: which items may be returned, item c is bit c & 7 of byte c >> 3.
        k: at least 1.
        above: only items whose scores are above this.
    """
    best_items, best_scores = np.empty(k, dtype=np.int32), np.empty(k, dtype=np.float32)
    n = 0
    for place in range(len(items)):
        item, score = items[place], scores[place]
        if not score > above or (n == k and not _precedes(score, item, best_scores[0], best_items[0])):
            continue
        if not (bits[item >> 3] >> np.uint8(item & 7)) & 1:
            continue
        if n < k:
            best_items[n], best_scores[n] = item, score
            n += 1
            if n == k:
                _heap(best_items, best_scores, n)
        else:
            best_items[0], best_scores[0] = item, score
            _sink(best_items, best_scores, 0, n)
    if n < k:
        _heap(best_items, best_scores, n)
    for last in range(n - 1, 0, -1):
        _swap(best_items, best_scores, 0, last)
        _sink(best_items, best_scores, 0, last)
    return best_items[:n], best_scores[:n]


@compiled
def first_of(items: IntArray, bits: NDArray[np.uint8], k: int) -> IntArray:
    """Return the first k of some items (n,) that may be returned, or as many as there are.

    Args:
        items: in the order in which they are wanted.
        bits: which items may be returned, as in `best_of`.
        k: at least 1.
    """
    found, n = np.empty(min(k, len(items)), dtype=np.int32), 0
    for item in items:
        if n == len(found):
            break
        if (bits[item >> 3] >> np.uint8(item & 7)) & 1:
            found[n] = item
            n += 1
    return found[:n]


@compiled
def _precedes(score: float, item: int, other_score: float, other_item: int) -> bool:
    return score > other_score or (score == other_score and item < other_item)


@compiled
def _swap(items: IntArray, scores: FloatArray, one: int, other: int) -> None:
    items[one], items[other] = items[other], items[one]
    scores[one], scores[other] = scores[other], scores[one]


@compiled
def _heap(items: IntArray, scores: FloatArray, n: int) -> None:
    """Bring the first n into the order of a heap: none precedes those below it, so the first is the worst of all."""
    for parent in range(n // 2 - 1, -1, -1):
        _sink(items, scores, parent, n)


@compiled
def _sink(items: IntArray, scores: FloatArray, parent: int, n: int) -> None:
    """Let one sink in a heap of n until none that is worse lies below it."""
    while 2 * parent + 1 < n:
        child = 2 * parent + 1
        if child + 1 < n and _precedes(scores[child], items[child], scores[child + 1], items[child + 1]):
            child += 1
        if not _precedes(scores[parent], items[parent], scores[child], items[child]):
            return
        _swap(items, scores, parent, child)
        parent = child
