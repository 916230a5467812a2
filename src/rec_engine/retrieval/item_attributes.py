"""What the items are like, kept so that a filter becomes a set of items in about a millisecond."""

import reprlib
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import assert_never

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray
from rec_engine.errors import DataError, NotFoundError
from rec_engine.retrieval.attribute_column import Column, TypedColumn, is_nothing, nearest
from rec_engine.retrieval.column_types import Untyped, column_of
from rec_engine.retrieval.filters import NARROW, Eligible
from rec_engine.retrieval.predicates import (
    AllOf,
    And,
    AnyOf,
    Comparison,
    Equals,
    IsNull,
    NoneOf,
    Not,
    Or,
    Predicate,
    Range,
)
from rec_engine.retrieval.recent import Recent
from rec_engine.retrieval.text_columns import Categories

KEPT_ANSWERS = 256
"""Predicates whose items are kept: a bit each for every item of the catalogue."""
MAX_ATTRIBUTES = 256
"""Attributes beyond which `put` adds none: each takes memory for every item of the catalogue."""
TO_READ = frozenset({"title", "description"})
"""Columns for people, not for filters."""


class ItemAttributes:
    """The attributes of all items, those that arrive later included. Threads may share it.

    A slot without an item is in no set, and a value that is no value - null, a number that is not finite, a list with
    nothing in it - is a null.

    Attributes:
        capacity: slots for items.

    Args:
        columns: each attribute's column.
        categories: the column of the item's categories, which is not among the others; None where rows have none.
        is_item: (capacity,) bool: which slots hold an item.
        unread: names of columns that are no attributes.
    """

    def __init__(
        self, columns: Sequence[Column], categories: Categories | None, is_item: BoolArray, unread: frozenset[str]
    ) -> None:
        self.capacity = len(is_item)
        named = columns if categories is None else (*columns, categories)
        self._columns: dict[str, Column] = {column.name: column for column in named}
        self._of_table = frozenset(self._columns)
        self._fixed = frozenset(name for name, column in self._columns.items() if isinstance(column, TypedColumn))
        self._categories = categories
        self._is_item = is_item
        self._unread = unread
        self._answers: Recent[str, Eligible] = Recent(KEPT_ANSWERS)
        # Whoever asks while an item changes finds it as it was or as it is, never half of each.
        self._lock = threading.Lock()

    @classmethod
    def of(cls, items: pl.DataFrame, capacity: int) -> "ItemAttributes":
        """Return the attributes of a catalogue.

        Args:
            items: one row an item, in code order: `item_id`, `title`, `description`, `categories` (List(String)) and
                typed attributes. Title and description are no attributes; neither is a column of a type that no
                predicate reads.
            capacity: slots for items; those behind the table's rows are empty.

        Raises:
            DataError: if there are more items than slots.
        """
        if capacity < items.height:
            raise DataError(f"{items.height:,} items do not fit into {capacity:,} slots", hint="raise the capacity")
        lists = items["categories"] if "categories" in items.columns else pl.Series([], dtype=pl.List(pl.String))
        columns, unread = _readable(items.drop(*TO_READ, "categories", strict=False), capacity)
        categories = Categories(lists.cast(pl.List(pl.String)).alias("categories"), capacity)
        return cls(columns, categories, np.arange(capacity) < items.height, unread | TO_READ)

    @classmethod
    def of_others(cls, rows: pl.DataFrame) -> "ItemAttributes":
        """Return the attributes of what is no catalogue, such as users: no column has a meaning of its own."""
        columns, unread = _readable(rows, rows.height)
        return cls(columns, None, np.ones(rows.height, dtype=np.bool_), unread)

    def matching(self, predicate: Predicate) -> Eligible:
        """Return the items of which the predicate is true; what was asked lately is not worked out again.

        Raises:
            NotFoundError: if there is no such attribute; the hint names those that are near.
            DataError: if a value or a comparison does not fit the attribute's type.
        """
        # Not the predicate itself: to Python, a filter for `true` and one for 1 are equal.
        key = predicate.model_dump_json()
        with self._lock:
            items = self._answers.get(key)
            if items is None:
                items = _with_codes(self._satisfying(predicate))
                self._answers.set(key, items)
            return items

    def any_category(self, names: Sequence[str]) -> Eligible:
        """Return the items of at least one of these categories; upper and lower case are the same.

        Raises:
            NotFoundError: if no item has a category; the hint names those that are near.
        """
        if self._categories is None:
            raise NotFoundError(f"there is no category {names[0]!r}", hint="there are no categories here")
        with self._lock:
            return self._categories.any_category(names)

    def put(self, code: int, values: Mapping[str, object]) -> None:
        """Set a slot to a new item, or to what has become of an old one; what `values` lacks is null from now on.

        An integer column becomes one of float64 when a fraction arrives. Titles and other columns that are no
        attributes are passed over.

        Args:
            code: the slot.
            values: attribute to value. An attribute that the table had not, or had no value of, has the type of
                whatever values there are.

        Raises:
            DataError: if there is no such slot, a value is of another type than the attribute, or there are too many
                attributes; then nothing has changed.
        """
        self._check_slot(code)
        given = self._given(values)
        with self._lock:
            accepting = self._accepting(given)
            self._columns |= accepting
            for name, column in accepting.items():
                column.put(code, given[name])
            self._clear(code, kept=accepting)
            self._is_item[code] = True

    def check(self, items: Sequence[Mapping[str, object]]) -> None:
        """Find out whether these values could be put into free slots, all of them together; nothing changes.

        Raises:
            DataError: as `put`; also if they do not fit together.
        """
        given = [self._given(values) for values in items]
        with self._lock:
            accepting: dict[str, TypedColumn] = {}
            for values in given:
                accepting |= self._accepting(values, accepting)
            for name, value in (pair for values in given for pair in values.items()):
                if accepting[name].accepting(value) is not accepting[name]:
                    raise DataError(
                        f"the attribute {name!r} cannot hold {reprlib.repr(value)} exactly beside others of this batch",
                        hint="give all of them in one type",
                    )

    def fitting(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return those of the values that `put` takes, each by itself."""
        kept = {}
        with self._lock:
            for name, value in values.items():
                with suppress(DataError):
                    self._accepting(self._given({name: value}))
                    kept[name] = value
        return kept

    def clear(self, code: int) -> None:
        """Empty a slot.

        Raises:
            DataError: if there is no such slot.
        """
        self._check_slot(code)
        with self._lock:
            self._clear(code)
            self._is_item[code] = False

    def _given(self, values: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if name not in self._unread and not is_nothing(value)}

    def _accepting(
        self, given: Mapping[str, object], others: Mapping[str, TypedColumn] | None = None
    ) -> dict[str, TypedColumn]:
        """Return the columns that take these values; `others` stand for those of the same names."""
        columns = {**self._columns, **(others or {})}
        accepting = {name: self._taking(name, columns.get(name), value) for name, value in given.items()}
        if len(columns | accepting) > max(MAX_ATTRIBUTES, len(self._columns)):
            self._drop_empty()
            if len({**self._columns, **(others or {}), **accepting}) > max(MAX_ATTRIBUTES, len(self._columns)):
                raise DataError(f"items have at most {MAX_ATTRIBUTES} attributes", hint="leave out the new ones")
        return accepting

    def _taking(self, name: str, column: Column | None, value: object) -> TypedColumn:
        """Return the column that takes a value; what type a column without values once had does not matter."""
        try:
            return (column or Untyped(name, self.capacity)).accepting(value)
        except DataError:
            if column is None or name in self._fixed or column.given().count():
                raise
            return Untyped(name, self.capacity).accepting(value)

    def _drop_empty(self) -> None:
        """Let go of attributes that came after the table and of which no item has a value any more."""
        empty = [name for name, column in self._columns.items() if not column.given().count()]
        self._columns = {
            name: column for name, column in self._columns.items() if name in self._of_table or name not in empty
        }

    def _check_slot(self, code: int) -> None:
        if not 0 <= code < self.capacity:
            raise DataError(f"there is no slot {code} among {self.capacity:,}", hint="build the model again with more")

    def _clear(self, code: int, kept: Mapping[str, Column] | None = None) -> None:
        """Take the item's values of all but these attributes, and forget what was answered."""
        for name, column in self._columns.items():
            if name not in (kept or {}):
                column.clear(code)
        self._answers.clear()

    def _satisfying(self, predicate: Predicate) -> Eligible:
        match predicate:
            case And():
                return reduce(Eligible.intersection, map(self._satisfying, predicate.parts))
            case Or():
                return reduce(Eligible.union, map(self._satisfying, predicate.parts))
            case Not():
                return self._all_but(self._satisfying(predicate.part))
            case _:
                return self._comparing(predicate, self._column(predicate.attribute))

    def _comparing(self, predicate: Comparison, column: Column) -> Eligible:
        match predicate:
            case Range():
                return column.in_range(predicate)
            case Equals():
                return column.equals(predicate.equals)
            case AnyOf():
                return column.any_of(predicate.any_of)
            case AllOf():
                return column.all_of(predicate.all_of)
            case NoneOf():
                return self._all_but(column.any_of(predicate.none_of))
            case IsNull():
                return self._all_but(column.given()) if predicate.is_null else column.given()
            case _:
                assert_never(predicate)

    def _all_but(self, items: Eligible) -> Eligible:
        return Eligible(np.packbits(self._is_item, bitorder="little") & ~items.bits, self.capacity)

    def _column(self, name: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            hint = nearest(name, sorted(self._columns), "")
            raise NotFoundError(f"there is no attribute {name!r} to filter by", hint=hint)
        return column


def _with_codes(items: Eligible) -> Eligible:
    """Return the set with its codes where it is narrow: the complement of a wide one may be."""
    if items.codes is not None or items.count() > NARROW:
        return items
    return Eligible(items.bits, items.n_items, items.item_codes())


def _readable(table: pl.DataFrame, capacity: int) -> tuple[list[Column], frozenset[str]]:
    """Return the columns that predicates read, and the names of the others."""
    columns = [column for cells in table if (column := column_of(cells, capacity)) is not None]
    return columns, frozenset(table.columns).difference(column.name for column in columns)
