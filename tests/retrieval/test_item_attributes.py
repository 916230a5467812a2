"""Filters find exactly the items that plain Python finds, whatever has happened to the catalogue before."""

import math
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_categories import CategoryIndex

from rec_engine.errors import DataError, NotFoundError
from rec_engine.retrieval import filters, item_attributes, term_index
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.item_attributes import ItemAttributes
from rec_engine.retrieval.predicates import PREDICATE

Item = Mapping[str, Any]
"""What an item has; nothing else of it is kept."""

Compare = Callable[[Any, Any], Any]

SPARE = 3
BOUNDS: dict[str, Compare] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}
SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "tags": pl.List(pl.String),
    "brand": pl.String,
    "price": pl.Float64,
    "stock": pl.Int64,
    "on_sale": pl.Boolean,
    "released": pl.Datetime("us", "UTC"),
    "label": pl.String,
}
FRACTIONS = (-1.5, -0.0, 0, 0.1, 2, 2.5, 2.0**53, 1e300)
INTEGERS = (-(2**63), -3, 0, 1, 2, 2**53, 2**53 + 1, 2**63 - 1)
MOMENTS = ("1969-12-31T23:59:59.999999", "2024-05-01", "2024-05-01T02:00:00+02:00", "2024-05-01T00:00:00.000001Z")
NAMES = ("Drama", "DRAMA", "drama film", "War", "Straße", "STRASSE", "é", "😀")
BRANDS = ("acme", "Acme", "", "ｆｕｌｌ", "😀")
IDS = ("1", "2", "a", "17", "-5")


def either(values: Sequence[object]) -> st.SearchStrategy[object]:
    return st.none() | st.sampled_from(values)


items = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from(IDS),
        "title": st.just("words"),
        "categories": st.lists(st.sampled_from(NAMES), max_size=3, unique=True),
        "tags": st.none() | st.lists(st.none() | st.sampled_from(BRANDS), max_size=3),
        "brand": either(BRANDS),
        "price": either(FRACTIONS).map(lambda number: None if number is None else float(str(number))),
        "stock": either(INTEGERS),
        "on_sale": either([True, False]),
        "released": either(MOMENTS).map(lambda text: None if text is None else moment(str(text))),
        "label": st.none(),
    }
)
changed = items.flatmap(
    lambda item: st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in item.items()})
)
steps = st.lists(st.tuples(st.integers(0, 10**6), st.none() | changed), max_size=6)


def of_scalar(name: str, values: Sequence[object]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(st.sampled_from(values), min_size=1, max_size=4)
    return st.one_of(
        st.fixed_dictionaries({"attribute": st.just(name), "equals": st.sampled_from(values)}),
        st.fixed_dictionaries({"attribute": st.just(name), "any_of": some}),
        st.fixed_dictionaries({"attribute": st.just(name), "none_of": some}),
    )


def of_list(name: str, values: Sequence[object]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(st.sampled_from(values), min_size=1, max_size=4)
    return st.sampled_from(["any_of", "all_of", "none_of"]).flatmap(
        lambda comparison: st.fixed_dictionaries({"attribute": st.just(name), comparison: some})
    )


def of_range(name: str, values: Sequence[object]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(list(BOUNDS)), st.sampled_from(values), min_size=1).map(
        lambda given: {"attribute": name, **given}
    )


comparisons = st.one_of(
    of_scalar("item_id", (*IDS, 1, 2, 17, -5, 3)),
    of_scalar("brand", (*BRANDS, "ACME", "unheard of")),
    of_scalar("label", ("x", 3, True)),
    of_scalar("on_sale", (True, False)),
    *(of(name, (*FRACTIONS, *INTEGERS, 0.5)) for name in ("price", "stock") for of in (of_scalar, of_range)),
    *(of("released", (*MOMENTS, "2024-04-30T23:00-01:00", "2024-05-02")) for of in (of_scalar, of_range)),
    of_list("categories", (*NAMES, " war\t", "drama", "unheard of")),
    of_list("tags", (*BRANDS, " acme", "unheard of")),
    st.fixed_dictionaries({"attribute": st.sampled_from(sorted({*SCHEMA} - {"title", "description"}))}).flatmap(
        lambda named: st.fixed_dictionaries({"is_null": st.booleans()}).map(lambda question: named | question)
    ),
)
predicates = st.recursive(
    comparisons,
    lambda parts: st.one_of(
        st.fixed_dictionaries({"and": st.lists(parts, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(parts, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": parts}),
    ),
    max_leaves=4,
)


def moment(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def is_true(predicate: Mapping[str, Any], item: Item) -> bool:
    """Return what a predicate says of one item, from its JSON and from nothing of ours."""
    if "and" in predicate:
        return all(is_true(part, item) for part in predicate["and"])
    if "or" in predicate:
        return any(is_true(part, item) for part in predicate["or"])
    if "not" in predicate:
        return not is_true(predicate["not"], item)
    return is_comparison_true(predicate, item)


def is_comparison_true(predicate: Mapping[str, Any], item: Item) -> bool:
    name = predicate["attribute"]
    had = item.get(name)
    held = [comparable(name, one) for one in (had if isinstance(had, list) else [had]) if one is not None]
    (comparison, asked), *further = [(key, value) for key, value in predicate.items() if key != "attribute"]
    if comparison in BOUNDS:
        bounds = [(comparison, asked), *further]
        return bool(held) and all(BOUNDS[key](held[0], comparable(name, bound)) for key, bound in bounds)
    if comparison == "is_null":
        return bool(asked) != bool(held)
    is_held = [comparable(name, value) in held for value in (asked if isinstance(asked, list) else [asked])]
    return all(is_held) if comparison == "all_of" else any(is_held) != (comparison == "none_of")


def comparable(name: str, value: object) -> object:
    if name == "item_id":
        return str(value)
    if isinstance(value, str) and name == "categories":
        return value.strip().casefold()
    return moment(value) if isinstance(value, str) and name == "released" else value


def codes_of(found: Eligible) -> list[int]:
    every = np.arange(found.n_items, dtype=np.int32)
    codes = every[found.keeps(every)].tolist()
    assert codes == found.item_codes().tolist()
    assert len(codes) == found.count()
    assert found.codes is None or len(found.codes) <= filters.NARROW
    assert not np.unpackbits(found.bits, bitorder="little")[found.n_items :].any()
    return [int(code) for code in codes]


def ask(attributes: ItemAttributes, predicate: Mapping[str, Any]) -> list[int]:
    return codes_of(attributes.matching(PREDICATE.validate_python(predicate)))


def catalogue(rows: Sequence[Item]) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series([row.get(name) for row in rows], dtype=SCHEMA[name]) for name in SCHEMA})


def expected(predicate: Mapping[str, Any], slots: Sequence[Item | None]) -> list[int]:
    return [code for code, item in enumerate(slots) if item is not None and is_true(predicate, item)]


def assert_same_categories(attributes: ItemAttributes, slots: Sequence[Item | None], names: Sequence[str]) -> None:
    lists = [None if item is None else item.get("categories") for item in slots]
    reference = CategoryIndex(pl.Series(lists, dtype=pl.List(pl.String)))
    assert answer(attributes.any_category, names) == answer(reference.any_of, names)


def answer(find: Callable[[Sequence[str]], Eligible], names: Sequence[str]) -> list[int] | tuple[str, str]:
    try:
        return codes_of(find(names))
    except NotFoundError as error:
        return str(error), error.hint


@settings(max_examples=120, deadline=None)
@given(
    st.lists(items, max_size=12),
    steps,
    st.lists(predicates, min_size=1, max_size=4),
    st.lists(st.sampled_from([*NAMES, " war\t", "drame"]), max_size=3),
    st.booleans(),
)
def test_filters_find_what_plain_python_finds_before_and_after_every_change(
    rows: list[Item],
    changes: list[tuple[int, Item | None]],
    asked: list[dict[str, Any]],
    names: list[str],
    is_tiny: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_tiny:  # every set is wide, and everything that is kept is soon pushed out
            for module in (filters, item_attributes, term_index):
                patch.setattr(module, "NARROW", 2)
            patch.setattr(term_index, "FEW_TERMS", 1)
            patch.setattr(term_index, "KEPT_TERMS", 2)
        attributes = ItemAttributes.of(catalogue(rows), len(rows) + SPARE)
        slots: list[Item | None] = [*rows, *[None] * SPARE]
        for place, change in [(0, slots[0]), *changes]:
            code = place % len(slots)
            slots[code] = change
            if change is None:
                attributes.clear(code)
            else:
                attributes.put(code, change)
            for predicate in asked:
                assert ask(attributes, predicate) == expected(predicate, slots)
            assert_same_categories(attributes, slots, names)


def test_a_catalogue_is_found_as_it_came() -> None:
    rows: list[Item] = [
        {"item_id": "a", "price": 1.0, "categories": ["War", "Drama"]},
        {"item_id": "b", "price": None, "categories": []},
        {"item_id": "c", "price": 3.0, "categories": ["WAR"], "tags": ["x", "x", None]},
    ]
    attributes = ItemAttributes.of(catalogue(rows), 9)
    assert ask(attributes, {"attribute": "price", "above": 1}) == [2]
    assert ask(attributes, {"not": {"attribute": "price", "above": 1}}) == [0, 1]
    assert ask(attributes, {"attribute": "price", "none_of": [1]}) == [1, 2]
    assert ask(attributes, {"attribute": "categories", "any_of": ["war "]}) == [0, 2]
    assert ask(attributes, {"attribute": "categories", "all_of": ["drama", "war"]}) == [0]
    assert ask(attributes, {"attribute": "categories", "is_null": True}) == [1]
    assert ask(attributes, {"attribute": "tags", "any_of": ["x"]}) == [2]
    assert codes_of(attributes.any_category(["drama"])) == [0]


SMALL = pl.DataFrame(
    {
        "item_id": [1, 2],
        "title": ["one", "two"],
        "categories": [["Drama"], []],
        "price": [1, 2],
        "brand": ["acme", None],
        "on_sale": [True, False],
        "made": [{"in": "Leeds"}, None],
    }
)


def test_a_table_of_ids_alone_has_ids_and_no_categories() -> None:
    attributes = ItemAttributes.of(pl.DataFrame({"item_id": [5, 6]}), 3)
    assert ask(attributes, {"attribute": "item_id", "none_of": [5]}) == [1]
    assert ask(attributes, {"attribute": "categories", "is_null": True}) == [0, 1]
    with pytest.raises(NotFoundError) as raised:
        attributes.any_category(["Drama"])
    assert raised.value.hint == "no item has a category"


def test_an_item_that_arrives_brings_its_own_attributes() -> None:
    attributes = ItemAttributes.of(SMALL, 4)
    attributes.put(
        3,
        {
            "item_id": "new",
            "title": "three",
            "made": {"in": "York"},
            "colour": "red",
            "weight": 1.5,
            "pages": 100,
            "is_new": True,
            "tags": ["x", None],
            "seen": datetime(2024, 5, 1),
            "empty": None,
            "gap": math.nan,
            "none": [],
        },
    )
    for predicate in (
        {"attribute": "item_id", "equals": "new"},
        {"attribute": "colour", "equals": "red"},
        {"attribute": "weight", "above": 1},
        {"attribute": "pages", "any_of": [100, 200]},
        {"attribute": "is_new", "equals": True},
        {"attribute": "tags", "all_of": ["x"]},
        {"attribute": "seen", "at_most": "2024-05-01T00:00Z"},
    ):
        assert ask(attributes, predicate) == [3]
    assert ask(attributes, {"attribute": "colour", "is_null": True}) == [0, 1]
    for name in ("empty", "none", "gap"):
        with pytest.raises(NotFoundError):
            ask(attributes, {"attribute": name, "is_null": True})


@pytest.mark.parametrize("code", [-1, 2])
def test_there_are_no_slots_beyond_the_capacity(code: int) -> None:
    attributes = ItemAttributes.of(SMALL, 2)
    with pytest.raises(DataError, match=f"there is no slot {code} among 2"):
        attributes.put(code, {"price": 1})
    with pytest.raises(DataError, match=f"there is no slot {code} among 2"):
        attributes.clear(code)


def test_a_catalogue_larger_than_the_capacity_is_refused() -> None:
    with pytest.raises(DataError, match="2 items do not fit into 1 slots"):
        ItemAttributes.of(SMALL, 1)


def test_attributes_do_not_become_more_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_attributes, "MAX_ATTRIBUTES", 6)
    attributes = ItemAttributes.of(SMALL, 3)
    attributes.put(0, {"sixth": 1})
    with pytest.raises(DataError, match="at most 6 attributes"):
        attributes.put(1, {"seventh": 1, "brand": "other"})
    assert ask(attributes, {"attribute": "brand", "equals": "other"}) == []
    attributes.put(1, {"sixth": 2, "brand": "other"})
    assert ask(attributes, {"attribute": "sixth", "at_least": 1}) == [0, 1]


def test_an_answer_is_kept_until_an_item_changes() -> None:
    attributes = ItemAttributes.of(SMALL, 3)
    predicate = PREDICATE.validate_python({"attribute": "brand", "is_null": True})
    first = attributes.matching(predicate)
    assert attributes.matching(PREDICATE.validate_json(predicate.model_dump_json())) is first
    attributes.put(2, {"price": 7})
    assert codes_of(attributes.matching(predicate)) == [1, 2]
    attributes.clear(1)
    assert codes_of(attributes.matching(predicate)) == [2]
    assert codes_of(first) == [1]


def test_no_more_answers_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_attributes, "KEPT_ANSWERS", 2)
    attributes = ItemAttributes.of(SMALL, 2)
    asked = [PREDICATE.validate_python({"attribute": "price", "equals": number}) for number in range(3)]
    first, second = attributes.matching(asked[0]), attributes.matching(asked[1])
    assert attributes.matching(asked[0]) is first
    attributes.matching(asked[2])
    assert attributes.matching(asked[0]) is first
    assert attributes.matching(asked[1]) is not second


def test_the_answer_for_true_is_not_the_one_for_1() -> None:
    attributes = ItemAttributes.of(SMALL, 2)
    assert ask(attributes, {"attribute": "on_sale", "equals": True}) == [0]
    with pytest.raises(DataError):
        ask(attributes, {"attribute": "on_sale", "equals": 1})


def test_narrow_answers_carry_their_codes_even_as_complements() -> None:
    n_items = filters.NARROW + 10
    attributes = ItemAttributes.of(pl.DataFrame({"item_id": np.arange(n_items), "n": np.arange(n_items)}), n_items)
    rest = attributes.matching(PREDICATE.validate_python({"not": {"attribute": "n", "at_least": 7}}))
    assert rest.codes is not None
    assert rest.codes.tolist() == list(range(7))
    assert attributes.matching(PREDICATE.validate_python({"attribute": "n", "at_least": 7})).codes is None


def test_whoever_asks_sees_an_item_before_or_after_a_change_and_never_between() -> None:
    attributes = ItemAttributes.of(pl.DataFrame({"item_id": [1], "a": [0], "b": ["0"]}), 20_000)
    torn = PREDICATE.validate_python(
        {"or": [{"and": [{"attribute": "a", "equals": n}, {"attribute": "b", "none_of": [str(n)]}]} for n in (0, 1)]}
    )
    is_over = threading.Event()
    seen: list[int] = []

    def watch() -> None:
        while not is_over.is_set():
            seen.append(attributes.matching(torn).count())

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for turn in range(1_000):
        attributes.put(0, {"item_id": 1, "a": turn % 2, "b": str(turn % 2)})
    is_over.set()
    for watcher in watchers:
        watcher.join()
    assert len(seen) > 10
    assert set(seen) == {0}
