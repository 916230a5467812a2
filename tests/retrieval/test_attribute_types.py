"""Every type of attribute is compared in its own way, and what does not fit it is refused."""

import math
import random
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.errors import DataError, NotFoundError
from rec_engine.retrieval.item_attributes import ItemAttributes
from rec_engine.retrieval.predicates import PREDICATE


def ask(attributes: ItemAttributes, predicate: dict[str, Any]) -> list[int]:
    codes: list[int] = attributes.matching(PREDICATE.validate_python(predicate)).item_codes().tolist()
    return codes


PROTOTYPES = {
    "signed": pl.Series([-1, None, 3], dtype=pl.Int8),
    "unsigned": pl.Series([1, None, 2**40], dtype=pl.UInt64),
    "decimal": pl.Series(["0.10", None, "19.99"]).cast(pl.Decimal(10, 2)),
    "single": pl.Series([0.5, math.nan, math.inf], dtype=pl.Float32),
    "large": pl.Series([2.0**53, None, 2.0**53 + 2]),
    "day": pl.Series([date(2024, 5, 1), None, date(1969, 7, 20)]),
    "local": pl.Series([datetime(2024, 5, 1, 12), None, datetime(1969, 7, 20)], dtype=pl.Datetime("ms")),
    "zoned": pl.Series([datetime(2024, 5, 1, 12), None, None]).dt.replace_time_zone("America/New_York"),
    "fine": pl.Series([1_500, None, 2_000]).cast(pl.Datetime("ns")),
    "kind": pl.Series(["x", None, "y"], dtype=pl.Categorical),
    "size": pl.Series(["S", None, "L"], dtype=pl.Enum(["S", "L"])),
    "sizes": pl.Series([["S"], None, ["S", "L"]], dtype=pl.List(pl.Enum(["S", "L"]))),
    "unknown": pl.Series([None, None, None]),
}


@pytest.mark.parametrize(
    ("predicate", "codes"),
    [
        ({"attribute": "item_id", "any_of": ["7", 9]}, [0, 2]),
        ({"attribute": "item_id", "equals": "07"}, []),
        ({"attribute": "signed", "below": -0.5}, [0]),
        ({"attribute": "unsigned", "at_least": 2**40}, [2]),
        ({"attribute": "decimal", "any_of": [19.99, 0.1]}, [0, 2]),
        ({"attribute": "single", "equals": 0.5}, [0]),
        ({"attribute": "single", "is_null": True}, [1, 2]),
        ({"attribute": "large", "at_least": 2**53 + 1}, [2]),
        ({"attribute": "large", "below": 2**53 + 1}, [0]),
        ({"attribute": "large", "any_of": [2**53 + 1, 2**53 + 3]}, []),
        ({"attribute": "day", "at_most": "2024-04-30T23:59:59Z"}, [2]),
        ({"attribute": "day", "equals": "2024-05-01T02:00+02:00"}, [0]),
        ({"attribute": "local", "any_of": ["2024-05-01T14:00+02:00", "1969-07-20"]}, [0, 2]),
        ({"attribute": "zoned", "equals": "2024-05-01T16:00"}, [0]),
        ({"attribute": "fine", "at_most": "1970-01-01T00:00:00.000001"}, [0]),
        ({"attribute": "kind", "equals": "y"}, [2]),
        ({"attribute": "size", "none_of": ["S"]}, [1, 2]),
        ({"attribute": "sizes", "all_of": ["L", "S"]}, [2]),
        ({"attribute": "unknown", "at_least": 3}, []),
        ({"attribute": "unknown", "all_of": ["x"]}, []),
        ({"attribute": "unknown", "none_of": ["x"]}, [0, 1, 2]),
    ],
)
def test_every_type_of_column_is_compared_in_its_own_way(predicate: dict[str, Any], codes: list[int]) -> None:
    frame = pl.DataFrame({"item_id": [7, 8, 9], **PROTOTYPES})
    assert ask(ItemAttributes.of(frame, 5), predicate) == codes


ITEMS = pl.DataFrame(
    {
        "item_id": [1, 2],
        "title": ["one", "two"],
        "categories": [["Drama"], []],
        "price": [1, 2**60 + 1],
        "brand": ["acme", None],
        "on_sale": [True, False],
        "released": [date(2024, 5, 1), None],
        "made": [{"in": "Leeds"}, None],
        "sizes": [[1, 2], None],
        "vast": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
    }
)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        (
            {"attribute": "price", "any_of": [1, "cheap"]},
            "the attribute 'price' holds numbers, and 'cheap' is not a number of 64 bits",
        ),
        (
            {"attribute": "price", "equals": True},
            "the attribute 'price' holds numbers, and True is not a number of 64 bits",
        ),
        ({"attribute": "brand", "none_of": [5]}, "the attribute 'brand' holds text, and 5 is not a text"),
        (
            {"attribute": "brand", "below": "b"},
            "below 'b' does not fit the attribute 'brand', which holds text",
        ),
        (
            {"attribute": "on_sale", "equals": 1},
            "the attribute 'on_sale' holds true or false, and 1 is not true or false",
        ),
        (
            {"attribute": "on_sale", "at_least": 0},
            "at_least 0 does not fit the attribute 'on_sale', which holds true or false",
        ),
        (
            {"attribute": "released", "above": "yesterday"},
            "the attribute 'released' holds dates or times, and 'yesterday' is not a date or time in ISO 8601",
        ),
        (
            {"attribute": "released", "above": 2024},
            "the attribute 'released' holds dates or times, and 2024 is not a date or time in ISO 8601",
        ),
        (
            {"attribute": "categories", "equals": "Drama"},
            "equals 'Drama' does not fit the attribute 'categories', which holds lists of text",
        ),
        (
            {"attribute": "categories", "any_of": [3]},
            "the attribute 'categories' holds lists of text, and 3 is not a text",
        ),
        (
            {"attribute": "item_id", "all_of": [3]},
            "all_of 3 does not fit the attribute 'item_id', which holds ids of items",
        ),
        (
            {"attribute": "item_id", "equals": 1.0},
            "the attribute 'item_id' holds ids of items, and 1.0 is not an integer or a text",
        ),
    ],
)
def test_a_comparison_that_does_not_fit_says_attribute_type_and_value(comparison: dict[str, Any], message: str) -> None:
    attributes = ItemAttributes.of(ITEMS, 2)
    with pytest.raises(DataError) as raised:
        ask(attributes, {"or": [{"attribute": "price", "equals": 1}, {"not": comparison}]})
    assert str(raised.value) == message
    assert raised.value.hint


@pytest.mark.parametrize("name", ["title", "made", "sizes", "vast", "cost"])
def test_what_is_no_attribute_is_not_found(name: str) -> None:
    with pytest.raises(NotFoundError, match=f"there is no attribute '{name}' to filter by"):
        ask(ItemAttributes.of(ITEMS, 2), {"attribute": name, "is_null": True})


def test_unknown_attribute_names_the_nearest() -> None:
    attributes = ItemAttributes.of(ITEMS, 2)
    with pytest.raises(NotFoundError) as raised:
        ask(attributes, {"attribute": "Prize", "below": 3})
    assert raised.value.hint == "did you mean price"
    with pytest.raises(NotFoundError) as raised:
        ask(attributes, {"attribute": "zzz", "below": 3})
    assert raised.value.hint == "there are brand, categories, item_id, on_sale, price, released"


def test_a_column_without_values_takes_the_type_of_the_first() -> None:
    frame = pl.DataFrame({"item_id": [1], "price": [None]}, schema={"item_id": pl.Int64, "price": pl.String})
    attributes = ItemAttributes.of(frame, 2)
    attributes.put(1, {"item_id": 2, "price": 4.5})
    assert ask(attributes, {"attribute": "price", "below": 5}) == [1]
    with pytest.raises(DataError, match="'5' is not a number"):
        attributes.put(1, {"item_id": 2, "price": "5"})


def test_integers_become_float64_with_the_first_fraction() -> None:
    attributes = ItemAttributes.of(pl.DataFrame({"item_id": [1, 2], "price": [5, 2**53]}), 3)
    attributes.put(2, {"price": 5.0})
    assert ask(attributes, {"attribute": "price", "equals": 5}) == [0, 2]
    attributes.put(2, {"price": 4.99})
    assert ask(attributes, {"attribute": "price", "below": 5}) == [2]
    assert ask(attributes, {"attribute": "price", "equals": 2**53}) == [1]
    with pytest.raises(DataError, match="cannot hold 9007199254740993 exactly"):
        attributes.put(0, {"price": 2**53 + 1})


VALUES = st.sampled_from(
    [3, 0.5, 1.0, 2**53 + 1, 2**60, 2**63 - 1, -(2**63), 1e300, True, "x", ["x"], "2024-05-01", None]
)


@given(
    items=st.lists(st.dictionaries(st.sampled_from(["new", "unknown", "price", "other"]), VALUES), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_whether_items_fit_together_does_not_depend_on_their_order(
    items: list[dict[str, object]], order: random.Random
) -> None:
    frame = pl.DataFrame({"item_id": [0], "price": [1.5], "unknown": pl.Series([None], dtype=pl.String)})
    empty = ItemAttributes.of(frame, 6)
    do_fit = accepts(partial(empty.check, items))
    for _ in range(4):
        order.shuffle(items)
        assert accepts(partial(ItemAttributes.of(frame, 6).check, items)) is do_fit
        attributes = ItemAttributes.of(frame, 6)
        assert all(accepts(partial(attributes.put, 1 + slot, item)) for slot, item in enumerate(items)) is do_fit


def accepts(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except DataError:
        return False
    return True


def test_an_attribute_whose_values_all_went_may_have_another_type() -> None:
    attributes = ItemAttributes.of(ITEMS, 4)
    attributes.put(2, {"colour": "red"})
    with pytest.raises(DataError):
        attributes.put(3, {"colour": 3})
    attributes.clear(2)
    attributes.put(3, {"colour": 3})
    assert ask(attributes, {"attribute": "colour", "above": 2}) == [3]
    attributes.clear(0)
    attributes.clear(1)
    with pytest.raises(DataError):
        attributes.put(3, {"brand": 3})


def test_attributes_without_values_leave_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.retrieval.item_attributes.MAX_ATTRIBUTES", 3)
    attributes = ItemAttributes.of(pl.DataFrame({"item_id": [1]}), 2)
    attributes.put(1, {"a": 1})
    with pytest.raises(DataError, match="at most 3 attributes"):
        attributes.check([{"b": 1}])
    attributes.clear(1)
    attributes.put(1, {"b": 1})


def test_what_fits_is_told_from_what_does_not() -> None:
    values = {"price": "cheap", "brand": "acme", "title": "Tea", "colour": 3, "on_sale": None}
    assert ItemAttributes.of(ITEMS, 3).fitting(values) == {name: values[name] for name in values if name != "price"}


def test_checking_an_item_that_could_be_put_changes_nothing() -> None:
    attributes = ItemAttributes.of(ITEMS, 3)
    attributes.check([{"item_id": 3, "colour": "red", "on_sale": True}])
    assert ask(attributes, {"attribute": "on_sale", "equals": True}) == [0]
    with pytest.raises(NotFoundError):
        ask(attributes, {"attribute": "colour", "is_null": True})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"price": "cheap"}, "the attribute 'price' holds numbers, and 'cheap' is not a number of 64 bits"),
        ({"price": 0.5}, "the attribute 'price' cannot hold 0.5 exactly beside its other numbers"),
        ({"price": 2**63}, "the attribute 'price' holds numbers, and 9223372036854775808 is not a number of 64 bits"),
        ({"brand": 5}, "the attribute 'brand' holds text, and 5 is not a text"),
        ({"brand": "\ud800"}, r"the attribute 'brand' holds text, and '\ud800' is not a text"),
        (
            {"released": "soon"},
            "the attribute 'released' holds dates or times, and 'soon' is not a date or time in ISO 8601",
        ),
        ({"categories": "Drama"}, "the attribute 'categories' holds lists of text, and 'Drama' is not a text"),
        ({"categories": ["War", 3]}, "the attribute 'categories' holds lists of text, and 3 is not a text"),
        ({"item_id": True}, "the attribute 'item_id' holds ids of items, and True is not an integer or a text"),
        ({"new": {"a": 1}}, "the attribute 'new' would be a dict, which no filter reads"),
        ({"new": [1, 2]}, "the attribute 'new' holds lists of text, and 1 is not a text"),
    ],
)
def test_a_value_of_a_wrong_type_changes_nothing(values: dict[str, object], message: str) -> None:
    attributes = ItemAttributes.of(ITEMS, 3)
    item = {"on_sale": False, "colour": "red", **values}
    for attempt in (
        partial(attributes.check, [item]),
        partial(attributes.put, 0, item),
        partial(attributes.put, 2, item),
    ):
        with pytest.raises(DataError) as raised:
            attempt()
        assert str(raised.value) == message
    assert ask(attributes, {"attribute": "on_sale", "equals": False}) == [1]
    assert ask(attributes, {"attribute": "on_sale", "is_null": False}) == [0, 1]
    assert ask(attributes, {"attribute": "categories", "any_of": ["Drama"]}) == [0]
    with pytest.raises(NotFoundError):
        ask(attributes, {"attribute": "colour", "is_null": True})
