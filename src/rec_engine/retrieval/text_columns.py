"""Texts, item ids and lists of texts, by what has which text."""

from collections.abc import Collection, Sequence
from functools import reduce

import numpy as np
import polars as pl

from rec_engine.data.dataset import integer_of
from rec_engine.errors import NotFoundError
from rec_engine.retrieval.attribute_column import TypedColumn, nearest
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.predicates import is_unicode
from rec_engine.retrieval.term_index import TermIndex


class Texts(TypedColumn):
    """One text an item, compared as it is.

    Args:
        cells: (n_items,) String.
        capacity: slots for items, at least n_items.
    """

    holds, one = "text", "a text"

    def __init__(self, cells: pl.Series, capacity: int) -> None:
        super().__init__(cells.name)
        self._index = TermIndex(cells, capacity)

    def given(self) -> Eligible:
        """Return the items that have a text."""
        return self._index.with_terms()

    def any_of(self, values: Sequence[object]) -> Eligible:
        """Return the items that have one of these texts."""
        return self._index.any_of([term for value in values for term in self._spellings(self._read(value))])

    def accepting(self, value: object) -> TypedColumn:
        """Return the column itself."""
        self._terms(value)
        return self

    def put(self, code: int, value: object) -> None:
        """Give an item a text."""
        self._replace(code, self._terms(value))

    def clear(self, code: int) -> None:
        """Take an item's text."""
        self._replace(code, ())

    def _read(self, value: object) -> str:
        if isinstance(value, str) and is_unicode(value):
            return value
        raise self._mismatch(value)

    def _terms(self, value: object) -> Sequence[str]:
        return (self._read(value),)

    def _spellings(self, term: str) -> Sequence[str]:
        return (term,)

    def _replace(self, code: int, terms: Sequence[str]) -> None:
        self._index.put(code, terms)


class ItemIds(TypedColumn):
    """External ids; 123 and "123" name the same item. Looked through whole: hardly anybody filters by them.

    Args:
        cells: (n_items,) integers or String.
        capacity: slots for items, at least n_items.
    """

    holds, one = "ids of items", "an integer or a text"

    def __init__(self, cells: pl.Series, capacity: int) -> None:
        super().__init__(cells.name)
        self._cells = cells
        self._capacity = capacity
        self._changed: dict[int, str | None] = {}

    def given(self) -> Eligible:
        """Return the items that have an id."""
        return self._where(self._cells.is_not_null(), {name for name in self._changed.values() if name is not None})

    def any_of(self, values: Sequence[object]) -> Eligible:
        """Return the items that have one of these ids."""
        names = {self._read(value) for value in values}
        if self._cells.dtype == pl.String:
            return self._where(self._cells.is_in(list(names)), names)
        asked = pl.Series([number for name in names if (number := integer_of(name)) is not None], dtype=pl.Int64)
        return self._where(self._cells.cast(pl.Int64).is_in(asked.implode()), names)

    def accepting(self, value: object) -> TypedColumn:
        """Return the column itself."""
        self._read(value)
        return self

    def put(self, code: int, value: object) -> None:
        """Give an item an id."""
        self._changed[code] = self._read(value)

    def clear(self, code: int) -> None:
        """Take an item's id."""
        self._changed[code] = None

    def _where(self, is_one: pl.Series, names: Collection[str]) -> Eligible:
        """Return the items that the table has it of, or that were given one of these ids since."""
        mask = np.zeros(self._capacity, dtype=np.bool_)
        mask[: len(self._cells)] = is_one.fill_null(value=False).to_numpy()
        for code, name in self._changed.items():
            mask[code] = name in names
        return Eligible.of_mask(mask)

    def _read(self, value: object) -> str:
        name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(name, str) and is_unicode(name):
            return name
        raise self._mismatch(value)


class Lists(Texts):
    """Any number of texts an item, compared as they are."""

    holds, one = "lists of text", "a text"

    def equals(self, value: object) -> Eligible:
        """Refuse: an item has several."""
        raise self._refusal("equals", value)

    def all_of(self, values: Sequence[object]) -> Eligible:
        """Return the items that have every one of these texts."""
        return reduce(Eligible.intersection, (self.any_of((value,)) for value in values))

    def _terms(self, value: object) -> Sequence[str]:
        if isinstance(value, list | tuple):
            return [self._read(member) for member in value if member is not None]
        raise self._mismatch(value)


class Categories(Lists):
    """Lists of texts in which upper and lower case and the white space around a text do not matter."""

    def __init__(self, cells: pl.Series, capacity: int) -> None:
        super().__init__(cells, capacity)
        self._names_by_folded: dict[str, tuple[str, ...]] = {}
        for name in self._index.terms():
            self._add(name)

    def any_category(self, names: Sequence[str]) -> Eligible:
        """Return the items of at least one of these categories.

        Raises:
            NotFoundError: if no item has a category; the hint names those that are near.
        """
        for name in names:
            if _folded(name) not in self._names_by_folded:
                known = sorted(name for names in self._names_by_folded.values() for name in names)
                hint = nearest(name, known, "no item has a category")
                raise NotFoundError(f"there is no category {name!r}", hint=hint)
        return self.any_of(names)

    def _spellings(self, term: str) -> Sequence[str]:
        return self._names_by_folded.get(_folded(term), ())

    def _replace(self, code: int, terms: Sequence[str]) -> None:
        before = self._index.row(code)
        super()._replace(code, terms)
        for name in terms:
            self._add(name)
        for name in before:
            if not self._index.has_items(name):
                self._remove(name)

    def _add(self, name: str) -> None:
        folded = _folded(name)
        others = self._names_by_folded.get(folded, ())
        self._names_by_folded[folded] = others if name in others else (*others, name)

    def _remove(self, name: str) -> None:
        folded = _folded(name)
        others = tuple(other for other in self._names_by_folded[folded] if other != name)
        if others:
            self._names_by_folded[folded] = others
        else:
            del self._names_by_folded[folded]


def _folded(name: str) -> str:
    return name.strip().casefold()
