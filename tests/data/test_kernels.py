"""The compiled loops beside what they say in plain Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.data.kernels import distinct_users, summed_rows, values_at
from rec_engine.data.search_kernels import best_of, first_of

N_ITEMS = 30
codes = st.lists(st.integers(0, N_ITEMS - 1), unique=True, max_size=N_ITEMS)


@given(codes, codes, st.integers(1, 12), st.data())
def test_the_best_are_those_of_a_sort(items: list[int], eligible: list[int], k: int, data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(-2, 3), min_size=len(items), max_size=len(items)))
    mask = np.zeros(N_ITEMS, dtype=np.bool_)
    mask[eligible] = True
    bits = np.packbits(mask, bitorder="little")
    found, found_scores = best_of(np.array(items, dtype=np.int32), np.array(scores, dtype=np.float32), bits, k, 0.0)
    pairs = sorted((-score, item) for item, score in zip(items, scores, strict=True) if score > 0 and mask[item])
    assert list(zip((-found_scores).tolist(), found.tolist(), strict=True)) == pairs[:k]
    assert first_of(np.array(items, dtype=np.int32), bits, k).tolist() == [item for item in items if mask[item]][:k]


@given(st.lists(st.lists(st.integers(0, N_ITEMS - 1), max_size=8), max_size=6))
def test_users_are_counted_once_for_each_item(histories: list[list[int]]) -> None:
    starts = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    expected = [sum(item in history for history in histories) for item in range(N_ITEMS)]
    assert distinct_users(items, starts, N_ITEMS).tolist() == expected


@given(st.data(), st.lists(st.integers(0, 4), max_size=8), codes)
def test_sums_that_vanish_on_the_way_are_not_counted_twice(
    data: st.DataObject, rows: list[int], asked: list[int]
) -> None:
    # Small whole numbers of either sign: sums are exact, and many are 0 in between.
    matrix = np.array(data.draw(st.lists(st.lists(st.integers(-1, 1), min_size=6, max_size=6), min_size=5, max_size=5)))
    indptr = np.concatenate([[0], np.cumsum((matrix != 0).sum(axis=1))]).astype(np.int32)
    indices, values = np.nonzero(matrix)[1].astype(np.int32), matrix[matrix != 0].astype(np.float32)
    memory = np.zeros(N_ITEMS, dtype=np.float32)
    chosen = np.array(rows, dtype=np.int32)
    found = summed_rows(indptr, indices, values, chosen, np.ones(len(rows), dtype=np.float32), memory)
    expected = np.zeros(N_ITEMS)
    expected[:6] = matrix[chosen].sum(axis=0)
    assert values_at(*found, np.array(asked, dtype=np.int32)).tolist() == expected[asked].tolist()
    assert not memory.any()
