"""A search looks no wider than it has to."""

from hypothesis import given
from hypothesis import strategies as st

from rec_engine.retrieval.breadth import FINENESS, narrowest_breadth


@given(st.integers(1, 20), st.integers(0, 5_000), st.integers(1, 6_000))
def test_the_least_breadth_that_is_enough_is_found_within_its_fineness(narrowest: int, more: int, needed: int) -> None:
    widest, asked = narrowest + more, list[int]()

    def recall_at(breadth: int) -> float:
        asked.append(breadth)
        return 1.0 if breadth >= needed else 0.5

    breadth, recall = narrowest_breadth(recall_at, 0.99, narrowest, widest)
    least = max(narrowest, needed)
    if needed > widest:
        assert (breadth, recall) == (widest, 0.5)
    else:
        assert recall == 1.0
        assert least <= breadth <= least + max(1, breadth // FINENESS)
    assert narrowest <= min(asked)
    assert max(asked) <= widest
