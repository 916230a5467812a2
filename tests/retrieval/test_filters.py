"""Sets of items are sets, whatever their width."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rec_engine.errors import NotFoundError
from rec_engine.retrieval import filters
from rec_engine.retrieval.categories import category_mask, category_masks, category_names
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.item_attributes import ItemAttributes

N_ITEMS = 43
codes = st.lists(st.integers(0, N_ITEMS - 1), max_size=60)
widths = st.booleans()


def as_set(items: Eligible) -> set[int]:
    every = np.arange(items.n_items, dtype=np.int32)
    members = set(every[items.keeps(every)].tolist())
    assert sorted(members) == items.item_codes().tolist()
    assert len(members) == items.count()
    assert not np.unpackbits(items.bits, bitorder="little")[items.n_items :].any()
    return members


def make(members: list[int], *, is_wide: bool) -> Eligible:
    narrow = Eligible.of_codes(np.array(members, dtype=np.int32), N_ITEMS)
    return Eligible(narrow.bits, N_ITEMS) if is_wide else narrow


@given(codes, codes, codes, widths, widths)
def test_algebra_is_that_of_python_sets(
    a: list[int], b: list[int], gone: list[int], a_wide: bool, b_wide: bool
) -> None:  # noqa: FBT001
    left, right = make(a, is_wide=a_wide), make(b, is_wide=b_wide)
    inputs: list[NDArray[Any]] = [
        left.bits,
        left.item_codes(),
        right.bits,
        right.item_codes(),
        np.array(gone, dtype=np.int32),
    ]
    before = [array.copy() for array in inputs]
    assert as_set(left) == set(a)
    assert as_set(left.union(right)) == set(a) | set(b)
    assert as_set(left.intersection(right)) == set(a) & set(b)
    assert as_set(left.without(inputs[-1])) == set(a) - set(gone)
    assert all(np.array_equal(array, old) for array, old in zip(inputs, before, strict=True))


def test_everything_is_everything() -> None:
    assert as_set(Eligible.everything(N_ITEMS)) == set(range(N_ITEMS))


def test_only_narrow_sets_carry_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "NARROW", 10)
    assert Eligible.everything(11).codes is None
    assert Eligible.everything(10).codes is not None
    united = Eligible.of_codes(np.arange(8, dtype=np.int32), 20).union(
        Eligible.of_codes(np.arange(8, 16, dtype=np.int32), 20)
    )
    assert united.codes is None
    assert as_set(united) == set(range(16))


def with_categories(categories: pl.Series) -> ItemAttributes:
    items = pl.DataFrame({"item_id": range(len(categories)), "categories": categories})
    return ItemAttributes.of(items, len(categories))


CATEGORIES = with_categories(pl.Series([["Drama", "War"], ["Comedy"], None, [], ["drama film", "War"]]))


def test_categories_are_united_and_case_does_not_matter() -> None:
    assert as_set(CATEGORIES.any_category(["war"])) == {0, 4}
    assert as_set(CATEGORIES.any_category(["Comedy", " DRAMA "])) == {0, 1}


def test_spellings_that_differ_in_case_are_one_category() -> None:
    spelled = with_categories(pl.Series([["Drama"], ["DRAMA"], ["War"], ["drama", "Drama"]]))
    for name in ("Drama", "DRAMA", "drama"):
        assert as_set(spelled.any_category([name])) == {0, 1, 3}


def test_items_of_no_category_are_none() -> None:
    assert as_set(CATEGORIES.any_category([])) == set()


def test_unknown_category_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="'Comdy'") as error:
        CATEGORIES.any_category(["War", "Comdy"])
    assert "Comedy" in error.value.hint


def test_catalogue_without_categories_says_so() -> None:
    with pytest.raises(NotFoundError) as error:
        with_categories(pl.Series([[], []], dtype=pl.List(pl.String))).any_category(["x"])
    assert error.value.hint == "no item has a category"


@given(codes, codes, st.integers(0, 30), widths)
def test_sets_grow_and_know_their_size(a: list[int], more: list[int], room: int, is_wide: bool) -> None:  # noqa: FBT001
    items = make(a, is_wide=is_wide).widened(N_ITEMS + room)
    assert as_set(items) == set(a)
    assert as_set(items.including(np.array(more, dtype=np.int32))) == set(a) | set(more)
    assert as_set(items.counted().without(np.array(more, dtype=np.int32))) == set(a) - set(more)
    assert np.flatnonzero(items.mask()).tolist() == sorted(set(a))


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from([*"abcde", None]), max_size=4)), max_size=12))
def test_masks_have_a_bit_for_each_category(rows: list[list[str | None] | None]) -> None:
    categories = pl.Series(rows, dtype=pl.List(pl.String))
    names = category_names(categories)
    masks = category_masks(categories, names, len(rows) + 1)
    members = [set(row or []) - {None} for row in rows]
    assert [{names[bit] for bit in range(len(names)) if mask >> bit & 1} for mask in masks.tolist()] == [
        *members,
        set(),
    ]
    assert [category_mask(row or [], names) for row in rows] == masks[:-1].tolist()  # type: ignore[arg-type]
