"""Filters are read exactly as they are written, and what cannot be read is refused in one sentence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from rec_engine.retrieval.predicates import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_TEXT_LENGTH,
    MAX_VALUES,
    PREDICATE,
    And,
    AnyOf,
    IsNull,
    Not,
    Predicate,
    Range,
)

PRICE = {"attribute": "price", "at_least": 5, "below": 20.5}


class Request(BaseModel):
    """What a service might take."""

    filter: Predicate | None = None


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text("abc_ é", min_size=1, max_size=8)
integers = st.integers(-(2**63), 2**63 - 1)
numbers = integers | st.floats(allow_nan=False, allow_infinity=False)
values = st.booleans() | numbers | texts
BOUNDS = ("at_least", "above", "at_most", "below")

ranges = st.tuples(names, st.dictionaries(st.sampled_from(BOUNDS), numbers | texts, min_size=1)).map(
    lambda parts: {"attribute": parts[0], **parts[1]}
)
lists = st.tuples(
    names, st.sampled_from(["any_of", "all_of", "none_of"]), st.lists(values, min_size=1, max_size=4)
).map(lambda parts: {"attribute": parts[0], parts[1]: parts[2]})
singles = st.fixed_dictionaries({"attribute": names, "equals": values})
nulls = st.fixed_dictionaries({"attribute": names, "is_null": st.booleans()})


def combined(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"and": some}), st.fixed_dictionaries({"or": some}), st.fixed_dictionaries({"not": parts})
    )


# Some would nest deeper than is allowed.
predicates = st.recursive(ranges | lists | singles | nulls, combined, max_leaves=8).filter(
    lambda predicate: depth_of(predicate) <= MAX_DEPTH
)


def depth_of(predicate: dict[str, Any]) -> int:
    parts = [*predicate.get("and", []), *predicate.get("or", []), *([predicate["not"]] if "not" in predicate else [])]
    return 1 + max(map(depth_of, parts), default=0)


def complaint(value: object) -> str:
    with pytest.raises(ValidationError) as raised:
        Request.model_validate({"filter": value})
    errors = raised.value.errors()
    assert len(errors) == 1
    assert errors[0]["loc"] == ("filter",)
    return str(errors[0]["msg"]).removeprefix("Value error, ")


@given(predicates)
def test_what_is_read_is_written_back_as_it_was(predicate: dict[str, Any]) -> None:
    read = PREDICATE.validate_python(predicate)
    assert json.dumps(PREDICATE.dump_python(read, mode="json"), sort_keys=True) == json.dumps(predicate, sort_keys=True)
    assert PREDICATE.validate_json(PREDICATE.dump_json(read)) == read
    assert PREDICATE.validate_json(json.dumps(predicate)) == read
    assert hash(PREDICATE.validate_python(predicate)) == hash(read)


def test_each_form_becomes_its_own_type() -> None:
    read = PREDICATE.validate_python(
        {
            "and": [
                PRICE,
                {"not": {"attribute": "brand", "is_null": True}},
                {"attribute": "year", "any_of": [1, 1.0, True]},
            ]
        }
    )
    assert isinstance(read, And)
    within, negated, chosen = read.parts
    assert within == Range(attribute="price", at_least=5, below=20.5)
    assert isinstance(negated, Not)
    assert negated.part == IsNull(attribute="brand", is_null=True)
    assert isinstance(chosen, AnyOf)
    assert [type(value) for value in chosen.any_of] == [int, float, bool]


def test_no_filter_is_no_filter() -> None:
    assert Request.model_validate({"filter": None}).filter is None
    assert Request().filter is None


def test_predicates_cannot_be_changed() -> None:
    price = Range.model_validate(PRICE)
    with pytest.raises(ValidationError, match="frozen"):
        price.attribute = "cost"


VALUE = f"a value is true, false, a finite number of 64 bits or a text of at most {MAX_TEXT_LENGTH} characters"
BOUND = "a bound is a finite number of 64 bits or a date or time in ISO 8601"
KEYS = "at_least, above, at_most, below, equals, any_of, all_of, none_of, is_null, and, or, not"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, 'a filter is an object such as {"attribute": "brand", "equals": "acme"}'),
        ({}, f"give one of {KEYS}"),
        ({"attribute": "price"}, f"give one of {KEYS}"),
        ({"attribute": "price", "atleast": 3}, "a filter has no field 'atleast'; did you mean at_least?"),
        ({"attribute": "price", "??": 3}, f"a filter has no field '??'; there are attribute, {KEYS}"),
        ({"equals": 3}, "equals needs an attribute"),
        ({"attribute": "price", "not": PRICE}, "not has no attribute"),
        (
            {"attribute": 3, "equals": 3},
            f"attribute: an attribute's name is a text of 1 to {MAX_TEXT_LENGTH} characters",
        ),
        (
            {"attribute": "price", "below": 3, "equals": 3},
            "below and equals are two conditions; put each into a list under and",
        ),
        ({"attribute": "price", "equals": None}, f"equals: {VALUE}"),
        ({"attribute": "price", "equals": 2**63}, f"equals: {VALUE}"),
        ({"attribute": "brand", "equals": "x" * (MAX_TEXT_LENGTH + 1)}, f"equals: {VALUE}"),
        ({"attribute": "brand", "equals": "\ud800"}, f"equals: {VALUE}"),
        ({"attribute": "price", "below": None}, f"below: {BOUND}"),
        ({"attribute": "price", "below": float("inf")}, f"below: {BOUND}"),
        ({"attribute": "price", "below": float("nan")}, f"below: {BOUND}"),
        ({"attribute": "price", "below": True}, f"below: {BOUND}"),
        ({"attribute": "price", "is_null": 1}, "is_null: Input should be a valid boolean"),
        ({"attribute": "brand", "any_of": []}, "any_of: give a list of at least one value"),
        ({"attribute": "brand", "any_of": "acme"}, "any_of: give a list of at least one value"),
        ({"and": []}, "and: give a list of at least one filter"),
        ({"or": PRICE}, "or: give a list of at least one filter"),
        ({"and": [PRICE, {"not": {"or": [PRICE, {"attribute": "brand", "any_of": ["x", ["y"]]}]}}]}, f"@: {VALUE}"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_says_where(value: object, message: str) -> None:
    assert complaint(value) == message.replace("@", "and[1].not.or[1].any_of[1]")


def test_filters_are_nested_eight_deep_and_no_deeper() -> None:
    nested: dict[str, Any] = PRICE
    for _ in range(MAX_DEPTH - 1):
        nested = {"not": nested}
    assert isinstance(PREDICATE.validate_python(nested), Not)
    where = ".".join(["not"] * MAX_DEPTH)
    assert complaint({"not": nested}) == f"{where}: filters are nested at most 8 deep"


def test_depth_is_bounded_before_it_costs_anything() -> None:
    nested: dict[str, Any] = PRICE
    for _ in range(100_000):
        nested = {"and": [nested]}
    assert "at most 8 deep" in complaint(nested)


def test_conditions_are_counted_over_the_whole_filter() -> None:
    halves = [{"or": [PRICE] * (MAX_CONDITIONS // 2 - 2)}, {"or": [PRICE] * (MAX_CONDITIONS // 2 - 1)}]
    assert isinstance(PREDICATE.validate_python({"and": halves}), And)
    message = f"and[2]: a filter has at most {MAX_CONDITIONS} conditions, and this is one more"
    assert complaint({"and": [*halves, PRICE]}) == message


def test_values_are_counted_over_the_whole_filter() -> None:
    half = {"attribute": "year", "any_of": list(range(MAX_VALUES // 2))}
    assert isinstance(PREDICATE.validate_python({"and": [half, half]}), And)
    one_more = {"attribute": "year", "none_of": [1]}
    message = f"and[2]: a filter names at most {MAX_VALUES:,} values, and with these it has more"
    assert complaint({"and": [half, half, one_more]}) == message


def test_schema_names_every_form() -> None:
    schema = Request.model_json_schema()
    assert set(schema["$defs"]) == {"Range", "Equals", "AnyOf", "AllOf", "NoneOf", "IsNull", "And", "Or", "Not"}
    assert set(schema["$defs"]["Not"]["properties"]) == {"not"}
