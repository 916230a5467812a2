"""Which items have a text: exact inverted lists that follow every change."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import reduce

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, IntArray, LongArray
from rec_engine.retrieval.filters import NARROW, Eligible
from rec_engine.retrieval.recent import Recent

KEPT_TERMS = 128
"""Terms whose items are kept as a set, which is an eighth of a byte for each item of the catalogue."""
FEW_TERMS = 8
"""So many terms are worth a kept set each; the narrow ones among more are collected in one pass."""


class TermIndex:
    """The terms of each item, and the items of each term.

    The table it was made of stays as it is, grouped by term; what was put since lies beside it and counts instead.

    Args:
        rows: (n_items,) String or List(String), the terms of each item in code order; nulls and repetitions in a list
            count for nothing.
        capacity: slots for items, at least n_items; those without a row have no terms.
    """

    def __init__(self, rows: pl.Series, capacity: int) -> None:
        self._rows = rows
        self._nothing = Eligible.of_codes(np.empty(0, dtype=np.int32), capacity)
        self._terms, self._starts, self._codes = _grouped(rows)
        self._has_term: BoolArray = np.zeros(capacity, dtype=np.bool_)
        self._has_term[self._codes] = True
        self._row_changes: dict[int, tuple[str, ...]] = {}
        self._changes: dict[str, IntArray] = {}
        self._kept: Recent[str, Eligible] = Recent(KEPT_TERMS)

    def terms(self) -> list[str]:
        """Return the terms of the table that the index was made of, ascending."""
        return self._terms.to_list()

    def row(self, code: int) -> tuple[str, ...]:
        """Return the distinct terms of an item."""
        if code in self._row_changes or code >= len(self._rows):
            return self._row_changes.get(code, ())
        row = self._rows[code]
        terms = row.to_list() if isinstance(row, pl.Series) else [row]
        return tuple(dict.fromkeys(term for term in terms if term is not None))

    def with_terms(self) -> Eligible:
        """Return the items that have any."""
        return Eligible.of_mask(self._has_term)

    def has_items(self, term: str) -> bool:
        """Return whether some item has this term."""
        return len(self._codes_of(term)) > 0

    def any_of(self, terms: Sequence[str]) -> Eligible:
        """Return the items that have at least one of these terms; terms that no item has add nothing."""
        if len(terms) <= FEW_TERMS:
            return reduce(Eligible.union, map(self._members, terms)) if terms else self._nothing
        codes = self._codes_of_each(terms)
        few = [narrow for narrow in codes if len(narrow) <= NARROW]
        united = Eligible.of_codes(np.concatenate([self._codes[:0], *few]), self._nothing.n_items)
        wide = [self._members(term) for term, many in zip(terms, codes, strict=True) if len(many) > NARROW]
        return reduce(Eligible.union, wide, united)

    def put(self, code: int, terms: Collection[str]) -> None:
        """Give an item these terms and no others."""
        old, new = set(self.row(code)), set(terms)
        for term in old ^ new:
            self._change(term, code)
        self._row_changes[code] = tuple(new)
        self._has_term[code] = bool(new)

    def _change(self, term: str, code: int) -> None:
        """Add the item to those of the term, or take it from them where it is one."""
        codes = self._codes_of(term)
        place = int(np.searchsorted(codes, code))
        is_gone = place < len(codes) and codes[place] == code
        changed = np.delete(codes, place) if is_gone else np.insert(codes, place, code)
        self._changes[term] = changed.astype(np.int32)
        if len(changed) == len(self._codes_in_table(term, bisect_left(self._terms, term))) == 0:
            del self._changes[term]
        if (kept := self._kept.get(term)) is not None:
            self._kept.set(term, kept.without(np.array([code])) if is_gone else _with(kept, code))

    def _members(self, term: str) -> Eligible:
        members = self._kept.get(term)
        if members is None:
            members = Eligible.of_codes(self._codes_of(term), self._nothing.n_items)
            self._kept.set(term, members)
        return members

    def _codes_of(self, term: str) -> IntArray:
        """Return the ascending int32 codes of the term's items."""
        changed = self._changes.get(term)
        return self._codes_in_table(term, bisect_left(self._terms, term)) if changed is None else changed

    def _codes_of_each(self, terms: Sequence[str]) -> list[IntArray]:
        """Return the same of many terms, looked up at once."""
        places = self._terms.search_sorted(pl.Series(terms, dtype=pl.String), side="left").to_list()
        in_table = (self._codes_in_table(term, place) for term, place in zip(terms, places, strict=True))
        return [self._changes.get(term, codes) for term, codes in zip(terms, in_table, strict=True)]

    def _codes_in_table(self, term: str, place: int) -> IntArray:
        is_known = place < len(self._terms) and self._terms[place] == term
        return self._codes[self._starts[place] : self._starts[place + is_known]]


def _grouped(rows: pl.Series) -> tuple[pl.Series, LongArray, IntArray]:
    """Return the terms ascending, where the items of each start, and the items, ascending within each term."""
    pairs = pl.DataFrame({"code": np.arange(len(rows), dtype=np.int32), "term": rows})
    if rows.dtype == pl.List:
        pairs = pairs.with_columns(pl.col("term").list.unique()).explode("term")
    grouped = pairs.drop_nulls().group_by("term").agg("code").sort("term")
    counts = grouped["code"].list.len().to_numpy()
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return grouped["term"], starts, grouped["code"].explode().to_numpy()


def _with(items: Eligible, code: int) -> Eligible:
    """Return the set and one item that is not in it."""
    bits = items.bits.copy()
    bits[code >> 3] |= 1 << (code & 7)
    if items.codes is None or len(items.codes) == NARROW:
        return Eligible(bits, items.n_items)
    codes = np.insert(items.codes, np.searchsorted(items.codes, code), code)
    return Eligible(bits, items.n_items, codes.astype(np.int32))
