"""Likeness of ranked lists: 1 of equal ones, 0 of those with nothing in common, and high places count more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.evaluation.overlap import overlap, rank_biased_overlap

lists = st.lists(st.integers(0, 8), max_size=8, unique=True)


@given(one=lists, other=lists, persistence=st.floats(0.1, 0.95))
def test_likeness_lies_between_0_and_1_and_is_the_same_from_both_sides(
    one: list[int], other: list[int], persistence: float
) -> None:
    assert 0 <= overlap(one, other) == overlap(other, one) <= 1
    found = rank_biased_overlap(one, other, persistence)
    assert -1e-9 <= found == rank_biased_overlap(other, one, persistence) <= 1 + 1e-9
    assert rank_biased_overlap(one, one, persistence) == pytest.approx(1)
    assert rank_biased_overlap(one, [item + 9 for item in one], persistence) == pytest.approx(float(not one))


@given(items=st.lists(st.integers(), min_size=4, max_size=8, unique=True))
def test_a_change_at_the_top_weighs_more_than_one_below(items: list[int]) -> None:
    at_the_top = [items[1], items[0], *items[2:]]
    below = [*items[:-2], items[-1], items[-2]]
    assert rank_biased_overlap(items, at_the_top) < rank_biased_overlap(items, below) < 1
    assert overlap(items, at_the_top) == 1


def test_a_list_worked_out_by_hand() -> None:
    # Agreements 0/1, 2/2, 2/3; p = 1/2: 2/3 / 8 + 1 * (0 + 1/4 + 2/3 / 8)
    assert rank_biased_overlap("abc", "bad", 0.5) == pytest.approx(2 / 24 + 1 / 4 + 2 / 24)
    assert overlap("abc", "bad") == pytest.approx(2 / 3)
    assert overlap("abcd", "ab") == 0.5
