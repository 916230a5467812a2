"""The loops of a search as machine code: scores of many vectors, and the best of many scores."""

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.kernels import compiled, compiled_sums

BitArray = NDArray[np.uint8]
LOWEST = np.int64(-(2**31))
"""No score is lower."""
COUNTED = 4_096
"""Steps from the lowest to the highest score that are counted."""

CellArrays = tuple[NDArray[np.int8], NDArray[np.int8], LongArray, IntArray]
"""The rows of all cells one after the other, the centroids likewise, the first row of each cell, the rows' items."""


@compiled_sums
def products(base: FloatArray, more: FloatArray, items: IntArray, vector: FloatArray) -> FloatArray:
    """Return (n,) float32: the inner products of some rows of a matrix in two parts with a vector.

    Args:
        base: (n_base, dim), the first rows.
        more: (n_more, dim), those behind them; what follows is zeros.
        items: (n,) row numbers.
        vector: (dim,).
    """
    found = np.zeros(len(items), dtype=np.float32)
    for place in range(len(items)):
        item = items[place]
        if item >= len(base) + len(more):
            continue
        row = base[item] if item < len(base) else more[item - len(base)]
        total = np.float32(0)
        for dimension in range(len(vector)):
            total += row[dimension] * vector[dimension]
        found[place] = total
    return found


@compiled
def near_items(cells: CellArrays, query: NDArray[np.int16], breadth: int, k: int, n: int, bits: BitArray) -> IntArray:
    """Return the eligible items in the nearest cells that have the highest scores, in no order: about n, int32.

    They are fewer where the cells hold fewer, and where some are not eligible, but then at least k if there are.

    Args:
        cells: the arrays.
        query: (dim,), what the bytes are multiplied by.
        breadth: cells to look at.
        k: items wanted at least.
        n: items wanted.
        bits: which items are eligible, item c is bit c & 7 of byte c >> 3.
    """
    rows, centroids, starts, items = cells
    by_cell = np.empty(len(starts) - 1, dtype=np.int32)
    _score_rows(centroids, query, by_cell)
    nearest = np.flatnonzero(by_cell >= _nth_highest(by_cell, breadth))
    n_rows, dim, done = 0, len(query), 0
    for cell in nearest:
        n_rows += starts[cell + 1] - starts[cell]
    scores, found = np.empty(n_rows, dtype=np.int32), np.empty(n_rows, dtype=np.int32)
    for cell in nearest:
        first, end = starts[cell], starts[cell + 1]
        _score_rows(rows[dim * first : dim * end], query, scores[done : done + end - first])
        found[done : done + end - first] = items[first:end]
        done += end - first
    kept = _chosen(found, scores, _nth_highest(scores, n), bits)
    if len(kept) >= k or n >= n_rows:
        return kept
    # Those that are eligible alone: beside the scores of others, counting would not tell theirs apart.
    n_eligible = 0
    for place in range(n_rows):
        if _is_in(bits, found[place]):
            found[n_eligible], scores[n_eligible] = found[place], scores[place]
            n_eligible += 1
    return _chosen(found[:n_eligible], scores[:n_eligible], _nth_highest(scores[:n_eligible], n), bits)


@compiled
def _score_rows(rows: NDArray[np.int8], query: NDArray[np.int16], scores: IntArray) -> None:
    dim = len(query)
    for row in range(len(scores)):
        total = np.int32(0)
        for dimension in range(dim):
            total += np.int32(rows[dim * row + dimension]) * np.int32(query[dimension])
        scores[row] = total


@compiled
def _nth_highest(scores: IntArray, n: int) -> np.int64:
    """Return a score that at least n reach, and few more: found by counting, which is faster than sorting."""
    if n >= len(scores):
        return LOWEST
    lowest, highest, shift = np.int64(scores.min()), np.int64(scores.max()), np.int64(0)
    while (highest - lowest) >> shift >= COUNTED:
        shift += 1
    counts = np.zeros(COUNTED, dtype=np.int32)
    for score in scores:
        counts[(score - lowest) >> shift] += 1
    n_above, step = 0, COUNTED
    while n_above < n:
        step -= 1
        n_above += counts[step]
    return np.int64(lowest + (np.int64(step) << shift))


@compiled
def _chosen(items: IntArray, scores: IntArray, least: np.int64, bits: BitArray) -> IntArray:
    """Return the eligible ones of some items (n,) whose scores are not below the least."""
    chosen, n = np.empty(len(items), dtype=np.int32), 0
    for place in range(len(items)):
        if scores[place] >= least and _is_in(bits, items[place]):
            chosen[n] = items[place]
            n += 1
    return chosen[:n]


@compiled
def _is_in(bits: BitArray, item: int) -> bool:
    return bool((bits[item >> 3] >> np.uint8(item & 7)) & 1)


@compiled
def best_of(items: IntArray, scores: FloatArray, bits: BitArray, k: int, above: float) -> tuple[IntArray, FloatArray]:
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
        if not _is_in(bits, item):
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
def first_of(items: IntArray, bits: BitArray, k: int) -> IntArray:
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
        if _is_in(bits, item):
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
