"""What SQLite finds, as arrays: a million rows without a Python object for each of their values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.dataset import LongArray
from rec_engine.data.sqlite_kernels import ROW, read_rows, read_values, sum_by_user
from rec_engine.data.sqlite_library import SqliteLibrary

AT_ONCE = 10_000
"""Rows, or users, that become arrays at once."""
TEXT_BYTES = 64 * AT_ONCE
"""Of their ids; where they take more, fewer of them become arrays at once."""


@dataclass(frozen=True, slots=True)
class UserSums:
    """Sums over the rows of some users.

    Attributes:
        user_ids: (n_users,) String, of those of whom there is anything, in the order of the rows.
        counts: (n_users, 2, n_kinds + 1) float64, how many rows came before and since the user's moment, by kind.
        sums: likewise, of their values; the last kind is all others.
    """

    user_ids: pl.Series
    counts: NDArray[np.float64]
    sums: NDArray[np.float64]


def rows_of(
    library: SqliteLibrary, path: str, statement: str, values: Sequence[object], n_integers: int
) -> Iterator[tuple[pl.Series, pl.Series, LongArray]]:
    """Yield two texts (String) and (n, n_integers) int64 of the rows that a statement finds.

    Args:
        library: SQLite's.
        path: of a database that exists.
        statement: finds rows of two texts and then integers.
        values: integers and texts for its question marks.
        n_integers: how many of a row.

    Raises:
        sqlite3.OperationalError: if the database or the statement cannot be used.
    """
    texts = np.empty(TEXT_BYTES, dtype=np.uint8)
    with library.statement(path, statement, values) as address:
        code = 0
        while code in (0, ROW):
            numbers = np.empty((AT_ONCE, n_integers), dtype=np.int64)
            n_rows, n_bytes, code = read_rows(address, library.functions, code, texts, numbers)
            found = _texts(texts[:n_bytes])
            texts = _with_room(texts, n_rows)
            yield found.gather_every(2), found.gather_every(2, 1), numbers[:n_rows]
        library.check_done(address, code)


def sums_by_user(
    library: SqliteLibrary, path: str, statement: str, values: Sequence[object], kinds: Sequence[str]
) -> Iterator[UserSums]:
    """Yield counts and sums of what a statement finds; threads that do so at once do not wait for each other.

    Args:
        library: SQLite's.
        path: of a database that exists.
        statement: finds user id, kind, value, moment of the row and moment of the user, all rows of a user together.
        values: integers and texts for its question marks.
        kinds: that are to be told apart.

    Raises:
        sqlite3.OperationalError: if the database or the statement cannot be used.
    """
    names = [kind.encode() for kind in kinds]
    ends = np.array([*accumulate(map(len, names))], dtype=np.int64)
    known, ids = (np.frombuffer(b"".join(names), dtype=np.uint8), ends), np.empty(TEXT_BYTES, dtype=np.uint8)
    with library.statement(path, statement, values) as address:
        code = 0
        while code in (0, ROW):
            sums = np.zeros((AT_ONCE, 2, len(names) + 1, 2))
            n_users, n_bytes, code = sum_by_user(address, library.functions, code, known, ids, sums)
            yield UserSums(_texts(ids[:n_bytes]), sums[:n_users, :, :, 0], sums[:n_users, :, :, 1])
            ids = _with_room(ids, n_users)
        library.check_done(address, code)


def values_by_user(
    library: SqliteLibrary, path: str, statement: str, values: Sequence[object]
) -> Iterator[tuple[pl.Series, NDArray[np.float64]]]:
    """Yield user ids (String) and (n,) float64 values of the rows that a statement finds.

    Args:
        library: SQLite's.
        path: of a database that exists.
        statement: finds user id and value, all rows of a user together.
        values: integers and texts for its question marks.

    Raises:
        sqlite3.OperationalError: if the database or the statement cannot be used.
    """
    ids = np.empty(TEXT_BYTES, dtype=np.uint8)
    with library.statement(path, statement, values) as address:
        code = 0
        while code in (0, ROW):
            places, numbers = np.empty(AT_ONCE, dtype=np.int32), np.empty(AT_ONCE)
            n_rows, n_bytes, code = read_values(address, library.functions, code, ids, places, numbers)
            yield _texts(ids[:n_bytes]).gather(places[:n_rows]), numbers[:n_rows]
            ids = _with_room(ids, n_rows)
        library.check_done(address, code)


def _with_room(texts: NDArray[np.uint8], n_read: int) -> NDArray[np.uint8]:
    """Return where texts may go next: there has to be room for one row at least."""
    return texts if n_read else np.empty(2 * len(texts), dtype=np.uint8)


def _texts(texts: NDArray[np.uint8]) -> pl.Series:
    """Return texts of which each has a zero after it."""
    joined = pl.Series([texts[:-1].tobytes().decode()] if len(texts) else [], dtype=pl.String)
    return joined.str.split("\0").explode(empty_as_null=False)
