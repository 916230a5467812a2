"""What was used last is kept, and no more of it than fits."""

from hypothesis import given
from hypothesis import strategies as st

from rec_engine.retrieval.recent import Recent


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=40))
def test_what_was_used_last_is_what_is_kept(size: int, uses: list[tuple[int, bool]]) -> None:
    kept: Recent[int, str] = Recent(size)
    order: list[int] = []
    for key, is_set in uses:
        if is_set:
            kept.set(key, str(key))
        assert kept.get(key) == (str(key) if is_set or key in order else None)
        order = [*(other for other in order if other != key), key] if is_set or key in order else order
        order = order[-size:]
    assert [key for key in range(7) if kept.get(key) is not None] == sorted(order)
    kept.clear()
    assert len(kept) == 0
