"""Which items share a value of an attribute, kept up as items come and change."""

import numpy as np
import polars as pl

from rec_engine.data.dataset import IntArray


class Labels:
    """A number for each value of one attribute; of a list its first member is the value.

    Args:
        cells: (n_items,) the attribute in code order; None where the table has no such column.
        capacity: slots for items.

    Attributes:
        by_item: (capacity,) int32, equal for items of one value; -1 for none.
    """

    def __init__(self, cells: pl.Series | None, capacity: int) -> None:
        self.by_item: IntArray = np.full(capacity, -1, dtype=np.int32)
        self._n_labels = 0
        self._new: dict[str, int] = {}
        self._known = pl.Series([], dtype=pl.String)
        if cells is not None:
            values = _texts(cells.list.first() if cells.dtype == pl.List else cells)
            self._known = values.drop_nulls().unique().sort()
            self._n_labels = len(self._known)
            given = values.is_not_null().to_numpy()
            self.by_item[: len(values)][given] = self._known.search_sorted(values.drop_nulls()).to_numpy()

    def put(self, code: int, value: object) -> None:
        """Give an item another value, or none."""
        first = next(iter(value), None) if isinstance(value, list | tuple) else value
        self.by_item[code] = -1 if first is None else self._label(_texts(pl.Series([first]))[0])

    def _label(self, text: str) -> int:
        place = int(self._known.search_sorted(text))
        if place < len(self._known) and self._known[place] == text:
            return place
        if text not in self._new:
            self._new[text] = self._n_labels
            self._n_labels += 1
        return self._new[text]


def _texts(values: pl.Series) -> pl.Series:
    """Return what values are called; 3 and 3.0 are one."""
    return (values.cast(pl.Float64) if values.dtype.is_numeric() else values).cast(pl.String)
