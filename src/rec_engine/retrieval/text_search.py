"""Finding by words: a column of texts is read through, which takes a tenth of a second for a million of them.

Each further word reads only what the ones before it have left.
"""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, IntArray

MAX_WORDS = 8
"""Of a query; what comes after them is passed over."""


def begins_a_word(texts: pl.Series | Sequence[str | None], query: str) -> BoolArray:
    """Return (n,) bool: whether each word of the query is how some word of the text begins, upper or lower case."""
    column = texts if isinstance(texts, pl.Series) else pl.Series(texts, dtype=pl.String)
    column = column.cast(pl.String)
    has_all, places = np.zeros(len(column), dtype=np.bool_), np.arange(len(column))
    for word in sorted(query.split()[:MAX_WORDS], key=len, reverse=True):  # long ones leave little for the others
        has_word = column.str.contains(rf"(?i)(^|\W){re.escape(word)}").fill_null(value=False)
        column, places = column.filter(has_word), places[has_word.to_numpy()]
    has_all[places] = True
    return has_all


def begins_with(ids: pl.Series, prefix: str, n: int) -> IntArray:
    """Return the (<= n,) int32 places of the first ids, written as texts, that begin so."""
    if not prefix:
        return np.arange(min(n, len(ids)), dtype=np.int32)
    return ids.cast(pl.String).str.starts_with(prefix).arg_true().head(n).to_numpy().astype(np.int32)
