"""Which type of column the cells of a table or a first value make."""

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from rec_engine.errors import DataError
from rec_engine.retrieval.attribute_column import Column, TypedColumn
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.number_columns import Booleans, Moments, Numbers
from rec_engine.retrieval.predicates import Range
from rec_engine.retrieval.text_columns import ItemIds, Lists, Texts

TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)


class Untyped(Column):
    """An attribute of which no item has had a value: nothing satisfies a comparison with it, whatever its type.

    Args:
        name: of the attribute.
        capacity: slots for items.
    """

    holds = "nothing yet"

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(name)
        self._capacity = capacity

    def given(self) -> Eligible:
        """Return no item."""
        return Eligible.of_codes(np.empty(0, dtype=np.int32), self._capacity)

    def any_of(self, values: Sequence[object]) -> Eligible:  # noqa: ARG002 - the answer is the same for all values
        """Return no item."""
        return self.given()

    def all_of(self, values: Sequence[object]) -> Eligible:  # noqa: ARG002 - as above
        """Return no item."""
        return self.given()

    def in_range(self, bounds: Range) -> Eligible:  # noqa: ARG002 - as above
        """Return no item."""
        return self.given()

    def accepting(self, value: object) -> TypedColumn:
        """Return a column of the value's type."""
        return _column_for(self.name, value, self._capacity).accepting(value)

    def clear(self, code: int) -> None:
        """Do nothing: there is no value to take."""


def column_of(cells: pl.Series, capacity: int) -> Column | None:
    """Return the column of (n_items,) cells with empty slots behind them.

    It is None where no predicate could read it: lists of anything but text, structs, durations, times of day, and
    integers of more than 64 bits.
    """
    if cells.name == "item_id":
        return ItemIds(cells if cells.dtype.is_integer() else cells.cast(pl.String), capacity)
    if isinstance(cells.dtype, pl.List) and cells.dtype.inner in TEXT_TYPES:
        return Lists(cells.cast(pl.List(pl.String)), capacity)
    if cells.dtype in TEXT_TYPES:
        # Of text that is null throughout nobody knows that it is text: it is how tables have what they have not.
        is_empty = cells.null_count() == len(cells)
        return Untyped(cells.name, capacity) if is_empty else Texts(cells.cast(pl.String), capacity)
    return Untyped(cells.name, capacity) if cells.dtype == pl.Null else _number_column(cells, capacity)


def _number_column(cells: pl.Series, capacity: int) -> Column | None:
    if cells.dtype == pl.Boolean:
        return Booleans.of(cells.cast(pl.Int8), capacity)
    if cells.dtype in (pl.Date, pl.Datetime):
        moments = cells.cast(pl.Datetime("us")) if cells.dtype == pl.Date else cells
        return Moments.of(moments.dt.epoch("us"), capacity)
    if cells.dtype.is_integer():
        integers = cells.cast(pl.Int64, strict=False)
        return Numbers.of(integers, capacity) if integers.null_count() == cells.null_count() else None
    if cells.dtype.is_float() or cells.dtype.is_decimal():
        numbers = cells.cast(pl.Float64)
        return Numbers.of(numbers.set(~numbers.is_finite(), None), capacity)
    return None


def _column_for(name: str, value: object, capacity: int) -> TypedColumn:
    """Return a column without values, of the type of this one."""
    if isinstance(value, str):
        return Texts(pl.Series(name, [], dtype=pl.String), capacity)
    if isinstance(value, list | tuple):
        return Lists(pl.Series(name, [], dtype=pl.List(pl.String)), capacity)
    if isinstance(value, bool):
        return Booleans.of(pl.Series(name, [], dtype=pl.Int8), capacity)
    if isinstance(value, int | float):
        return Numbers.of(pl.Series(name, [], dtype=pl.Int64 if isinstance(value, int) else pl.Float64), capacity)
    if isinstance(value, date):
        return Moments.of(pl.Series(name, [], dtype=pl.Int64), capacity)
    raise DataError(
        f"the attribute {name!r} would be a {type(value).__name__}, which no filter reads",
        hint="give a number, a text, true or false, a date or a list of texts",
    )
