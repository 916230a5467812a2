"""Numbers, truth values and moments: one machine number an item, compared exactly."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray
from rec_engine.errors import DataError
from rec_engine.retrieval.attribute_column import TypedColumn
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.predicates import Range

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Number = int | float


class Numbers(TypedColumn):
    """Amounts: integers, or float64 as soon as there is a fraction among them.

    Args:
        name: of the attribute.
        values: (capacity,) int8, int64 or float64; anything where nothing is given.
        is_given: (capacity,) bool: which items have a value. Both arrays are the column's own.
    """

    holds, one = "numbers", "a number of 64 bits"

    def __init__(self, name: str, values: NDArray[np.int8 | np.int64 | np.float64], is_given: BoolArray) -> None:
        super().__init__(name)
        self._values = values
        self._is_given = is_given

    @classmethod
    def of(cls, cells: pl.Series, capacity: int) -> Self:
        """Return the column of (n_items,) Int8, Int64 or Float64 cells; the other slots have no value."""
        numbers = cells.fill_null(0).to_numpy()
        values = np.zeros(capacity, dtype=numbers.dtype)
        values[: len(cells)] = numbers
        is_given = np.zeros(capacity, dtype=np.bool_)
        is_given[: len(cells)] = cells.is_not_null().to_numpy()
        return cls(cells.name, values, is_given)

    def given(self) -> Eligible:
        """Return the items that have a value."""
        return Eligible.of_mask(self._is_given)

    def any_of(self, values: Sequence[object]) -> Eligible:
        """Return the items that have one of these values."""
        asked = (_exactly(self._read(value), is_integer=self._is_integer) for value in values)
        wanted = [number for number in asked if number is not None]
        if len(wanted) == 1:
            return Eligible.of_mask((self._values == wanted[0]) & self._is_given)
        column = pl.Series(self._values)
        is_wanted = column.is_in(pl.Series([wanted], dtype=pl.List(column.dtype)))
        return Eligible.of_mask(is_wanted.to_numpy() & self._is_given)

    def in_range(self, bounds: Range) -> Eligible:
        """Return the items whose value is within these bounds."""
        is_within = self._is_given.copy()
        is_integer = self._is_integer
        for bound, is_strict in ((bounds.at_least, False), (bounds.above, True)):
            if bound is not None:
                is_within &= self._values >= _lowest(self._read(bound), is_integer=is_integer, is_strict=is_strict)
        for bound, is_strict in ((bounds.at_most, False), (bounds.below, True)):
            if bound is not None:
                is_within &= self._values <= -_lowest(-self._read(bound), is_integer=is_integer, is_strict=is_strict)
        return Eligible.of_mask(is_within)

    def accepting(self, value: object) -> "Numbers":
        """Return the column itself, or in the other of int64 and float64 where all its numbers have a place there.

        So it does not matter in which order numbers come: they fit together, or they do not.
        """
        number = self._read(value)
        if _exactly(number, is_integer=self._is_integer) is not None:
            return self
        if _exactly(number, is_integer=not self._is_integer) is not None and self._is_exact_otherwise():
            other = np.float64 if self._is_integer else np.int64
            return Numbers(self.name, self._values.astype(other), self._is_given)
        raise DataError(
            f"the attribute {self.name!r} cannot hold {value!r} exactly beside its other numbers",
            hint="a number has 64 bits; integers beyond 2^53 and fractions do not fit into one attribute",
        )

    def put(self, code: int, value: object) -> None:
        """Give an item a number."""
        self._values[code] = self._read(value)
        self._is_given[code] = True

    def clear(self, code: int) -> None:
        """Take an item's number."""
        self._values[code] = 0
        self._is_given[code] = False

    @property
    def _is_integer(self) -> bool:
        return self._values.dtype.kind == "i"

    def _is_exact_otherwise(self) -> bool:
        """Return whether integers would be the same in float64, or numbers in float64 the same as integers."""
        numbers = self._values.astype(np.float64)
        is_within = (numbers >= MIN_INTEGER) & (numbers < -MIN_INTEGER)  # the largest integers round to 2^63
        integers = np.where(is_within, numbers, 0).astype(np.int64)
        return bool((is_within & (integers == self._values)).all())

    def _read(self, value: object) -> Number:
        if isinstance(value, float):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and MIN_INTEGER <= value <= MAX_INTEGER:
            return value
        raise self._mismatch(value)


class Booleans(Numbers):
    """Truth values, as the numbers 0 and 1 in int8; they have no order."""

    holds, one = "true or false", "true or false"

    def in_range(self, bounds: Range) -> Eligible:
        """Refuse: there is nothing between true and false."""
        return TypedColumn.in_range(self, bounds)

    def _read(self, value: object) -> Number:
        if isinstance(value, bool):
            return int(value)
        raise self._mismatch(value)


class Moments(Numbers):
    """Dates and times as int64 microseconds since 1970; in UTC where they name no zone."""

    holds, one = "dates or times", "a date or time in ISO 8601"

    def _read(self, value: object) -> Number:
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise self._mismatch(value) from None
        if not isinstance(value, date):
            raise self._mismatch(value)
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
        zoned = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (zoned - EPOCH) // timedelta(microseconds=1)


def _exactly(number: Number, *, is_integer: bool) -> Number | None:
    """Return the number as a column of this type would hold it, None where it would not be the same number."""
    if is_integer:
        return int(number) if number == math.floor(number) and MIN_INTEGER <= number <= MAX_INTEGER else None
    return float(number) if float(number) == number else None


def _lowest(bound: Number, *, is_integer: bool, is_strict: bool) -> Number:
    """Return the lowest number of the column's type that is at least the bound, or above it where it is strict."""
    if is_integer:
        return math.floor(bound) + 1 if is_strict else math.ceil(bound)
    near = float(bound)
    return math.nextafter(near, math.inf) if near < bound or (is_strict and near == bound) else near
