"""The compiled search finds what sorting finds, and not many more."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.search_kernels import near_items
from rec_engine.retrieval.filters import Eligible

DIM, N_CELLS = 8, 4


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n_rows=st.integers(1, 3_000),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    k=st.integers(1, 40),
    breadth=st.integers(1, N_CELLS),
    size=st.sampled_from([1, 100, 2**15 - 1]),
)
def test_the_best_eligible_items_of_the_nearest_cells_are_found_and_few_others(
    seed: int, n_rows: int, share: float, k: int, breadth: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(-127, 128, (n_rows, DIM)).astype(np.int8)
    centroids = rng.integers(-127, 128, (N_CELLS, DIM)).astype(np.int8)
    query = rng.integers(-size, size + 1, DIM).astype(np.int16)
    starts = np.sort([0, *rng.integers(0, n_rows + 1, N_CELLS - 1), n_rows]).astype(np.int64)
    items, n = rng.permutation(n_rows).astype(np.int32), 2 * k
    eligible = Eligible.of_mask(rng.random(n_rows) < share)
    arrays = rows.reshape(-1), centroids.reshape(-1), starts, items
    found = near_items(arrays, query, breadth, k, n, eligible.bits)

    scores = rows.astype(np.int64) @ query.astype(np.int64)
    by_cell = centroids.astype(np.int64) @ query.astype(np.int64)
    is_near = np.repeat(by_cell >= np.sort(by_cell)[-breadth], np.diff(starts)) & eligible.keeps(items)
    near = items[is_near]
    assert len(set(found.tolist())) == len(found)
    assert set(found.tolist()) <= set(near.tolist())
    assert len(found) >= min(k, len(near))
    in_order = np.sort(scores[is_near])[::-1]
    if len(found) < len(near):
        least = in_order[min(k, len(near)) - 1]
        assert set(near[scores[is_near] > least].tolist()) <= set(found.tolist())
    if len(near) > n:
        n_ties = int((scores[is_near] == in_order[n - 1]).sum())
        assert len(found) <= n + n_ties + len(near) // 50
