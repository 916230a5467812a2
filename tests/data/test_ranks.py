import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.ranks import value_at

PROPERTY = settings(max_examples=100, deadline=None)  # a busy machine is no failure


@PROPERTY
@given(
    st.lists(st.integers(-(2**40), 2**40) | st.integers(0, 9), min_size=1, max_size=60),
    st.floats(0, 1),
    st.sampled_from([2, 3, 2**16]),
)
def test_it_is_what_sorting_finds(numbers: list[int], share: float, n_bins: int) -> None:
    values = np.array(numbers, dtype=np.int64)
    place = int((len(values) - 1) * share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rec_engine.data.ranks.BINS", n_bins)
        patch.setattr("rec_engine.data.scratch.BLOCK_ROWS", 7)
        found = value_at(values, place)
    assert found == np.sort(values)[place] == np.quantile(values, share, method="lower")
