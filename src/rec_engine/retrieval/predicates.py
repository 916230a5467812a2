"""Questions about an item's attributes, as a request writes them.

    {"attribute": "price", "at_least": 5, "below": 20}           a range: at_least, above, at_most, below
    {"attribute": "brand", "equals": "acme"}                     a number, a text, true or false
    {"attribute": "categories", "any_of": ["Comedy", "Drama"]}   any_of, none_of; all_of where there are several
    {"attribute": "price", "is_null": true}
    {"and": [..]}, {"or": [..]}, {"not": {..}}

A null satisfies no comparison, and a list with nothing in it is a null. `not` is the plain complement, and `none_of` is
the complement of `any_of`: both are true of an item whose attribute is null. There is no third truth value.

Text is compared as it is, categories without white space around them and regardless of case. Dates and times are
written in ISO 8601 and are in UTC where they name no zone. `item_id` has equals, any_of and none_of.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

MAX_DEPTH = 8
MAX_CONDITIONS = 100
MAX_VALUES = 1_000
MAX_TEXT_LENGTH = 256


def is_unicode(text: str) -> bool:
    """Return whether the text has no half of a surrogate pair: no item's text has one, and none could be stored."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _checked_name(name: object) -> object:
    if isinstance(name, str) and 1 <= len(name) <= MAX_TEXT_LENGTH and is_unicode(name):
        return name
    raise ValueError(f"an attribute's name is a text of 1 to {MAX_TEXT_LENGTH} characters")


def _checked_value(value: object) -> object:
    """Return a value as it is; one sentence for everything that is none, instead of one for each type it might be."""
    if isinstance(value, bool) or _is_bound(value):
        return value
    raise ValueError(
        f"a value is true, false, a finite number of 64 bits or a text of at most {MAX_TEXT_LENGTH} characters"
    )


def _checked_bound(value: object) -> object:
    if not isinstance(value, bool) and _is_bound(value):
        return value
    raise ValueError("a bound is a finite number of 64 bits or a date or time in ISO 8601")


def _checked_values(values: object) -> object:
    if isinstance(values, list | tuple) and values:
        return values
    raise ValueError("give a list of at least one value")


def _is_left_out(bound: object) -> bool:
    return bound is None


def _is_bound(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT_LENGTH and is_unicode(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63


Name = Annotated[str, BeforeValidator(_checked_name)]
Value = Annotated[bool | int | float | str, BeforeValidator(_checked_value)]
Bound = Annotated[int | float | str | None, BeforeValidator(_checked_bound)]
"""None where it is left out; a bound that is given is no null."""
Values = Annotated[tuple[Value, ...], BeforeValidator(_checked_values)]


class Condition(BaseModel):
    """Base of all that can be true of an item."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, serialize_by_alias=True, allow_inf_nan=False
    )

    keys: ClassVar[tuple[str, ...]]
    """The fields of which one or more say that it is this condition."""


class Range(Condition):
    """An amount or a moment within these bounds; at least one is given, and all that are given hold."""

    keys = ("at_least", "above", "at_most", "below")

    attribute: Name
    at_least: Bound = Field(default=None, exclude_if=_is_left_out)
    above: Bound = Field(default=None, exclude_if=_is_left_out)
    at_most: Bound = Field(default=None, exclude_if=_is_left_out)
    below: Bound = Field(default=None, exclude_if=_is_left_out)


class Equals(Condition):
    """This value and no other."""

    keys = ("equals",)

    attribute: Name
    equals: Value


class AnyOf(Condition):
    """One of these values, or a list that has at least one of them."""

    keys = ("any_of",)

    attribute: Name
    any_of: Values


class AllOf(Condition):
    """A list that has every one of these values."""

    keys = ("all_of",)

    attribute: Name
    all_of: Values


class NoneOf(Condition):
    """None of these values: the complement of `AnyOf`, so a null will do."""

    keys = ("none_of",)

    attribute: Name
    none_of: Values


class IsNull(Condition):
    """No value, or an empty list; with false: any value."""

    keys = ("is_null",)

    attribute: Name
    is_null: bool = Field(strict=True)


class And(Condition):
    """Every one of these."""

    keys = ("and",)

    parts: tuple["Predicate", ...] = Field(alias="and")


class Or(Condition):
    """At least one of these."""

    keys = ("or",)

    parts: tuple["Predicate", ...] = Field(alias="or")


class Not(Condition):
    """All items that do not satisfy this."""

    keys = ("not",)

    part: "Predicate" = Field(alias="not")


@dataclass(slots=True)
class _Reader:
    """Reads one predicate from outside in, and stops where it grows too large."""

    n_conditions: int = 0
    n_values: int = 0

    def read(self, value: object, where: str, depth: int) -> Condition:
        """Return the condition that stands at this place.

        Raises:
            ValueError: if it is none; the message says where and why.
        """
        if isinstance(value, Condition):
            return value
        if not isinstance(value, dict):
            raise _refusal(where, 'a filter is an object such as {"attribute": "brand", "equals": "acme"}')
        self._count(value, where, depth)
        kind = _kind(value, where)
        fields = dict(value)
        if kind is Not:
            fields["not"] = self.read(value["not"], _within(where, "not"), depth + 1)
        if kind in (And, Or):
            fields[kind.keys[0]] = self._parts(value[kind.keys[0]], _within(where, kind.keys[0]), depth)
        try:
            return kind.model_validate(fields)
        except ValidationError as error:
            raise _located(error, where) from None

    def _parts(self, values: object, where: str, depth: int) -> tuple[Condition, ...]:
        if not isinstance(values, list | tuple) or not values:
            raise _refusal(where, "give a list of at least one filter")
        return tuple(self.read(value, f"{where}[{place}]", depth + 1) for place, value in enumerate(values))

    def _count(self, value: Mapping[str, object], where: str, depth: int) -> None:
        self.n_conditions += 1
        for key in ("any_of", "all_of", "none_of"):
            values = value.get(key)
            self.n_values += len(values) if isinstance(values, list | tuple) else 0
        if depth > MAX_DEPTH:
            raise _refusal(where, f"filters are nested at most {MAX_DEPTH} deep")
        if self.n_conditions > MAX_CONDITIONS:
            raise _refusal(where, f"a filter has at most {MAX_CONDITIONS} conditions, and this is one more")
        if self.n_values > MAX_VALUES:
            raise _refusal(where, f"a filter names at most {MAX_VALUES:,} values, and with these it has more")


def _kind(value: Mapping[str, object], where: str) -> type[Condition]:
    """Return which condition these fields make."""
    if unknown := [str(key)[:MAX_TEXT_LENGTH] for key in value if key != "attribute" and key not in KIND_BY_KEY]:
        near = difflib.get_close_matches(unknown[0], ["attribute", *KIND_BY_KEY], n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are attribute, {', '.join(KIND_BY_KEY)}"
        raise _refusal(where, f"a filter has no field {unknown[0]!r}; {advice}")
    given = [key for key in value if key in KIND_BY_KEY]
    if not given:
        raise _refusal(where, f"give one of {', '.join(KIND_BY_KEY)}")
    kind = KIND_BY_KEY[given[0]]
    if others := [key for key in given if KIND_BY_KEY[key] is not kind]:
        raise _refusal(where, f"{given[0]} and {others[0]} are two conditions; put each into a list under and")
    if ("attribute" in value) != ("attribute" in kind.model_fields):
        raise _refusal(where, f"{given[0]} {'has no' if 'attribute' in value else 'needs an'} attribute")
    return kind


def _located(error: ValidationError, where: str) -> ValueError:
    """Return the first thing that is wrong with the fields of a condition as one sentence."""
    first = error.errors(include_url=False, include_context=False)[0]
    name, *places = first["loc"]
    field = f"{name}{f'[{places[0]}]' if places and isinstance(places[0], int) else ''}"
    return _refusal(_within(where, field), str(first["msg"]).removeprefix("Value error, "))


def _within(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def _refusal(where: str, message: str) -> ValueError:
    return ValueError(f"{where}: {message}" if where else message)


def _read(value: object) -> Condition:
    return _Reader().read(value, where="", depth=1)


Comparison = Range | Equals | AnyOf | AllOf | NoneOf | IsNull
"""What may be asked of one attribute."""

Predicate = Annotated[Comparison | And | Or | Not, BeforeValidator(_read)]
"""What a request's `filter` field holds."""

KIND_BY_KEY: dict[str, type[Condition]] = {
    key: kind for kind in (Range, Equals, AnyOf, AllOf, NoneOf, IsNull, And, Or, Not) for key in kind.keys
}
"""The field that tells a condition from the others."""

for _kind_with_parts in (And, Or, Not):
    _kind_with_parts.model_rebuild()

PREDICATE: TypeAdapter[Predicate] = TypeAdapter(Predicate)
"""Reads a predicate from Python objects or JSON, and writes it."""
