"""SQLite's own C functions, for machine code that steps through more rows than Python should see."""

import _sqlite3
import ctypes
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np

from rec_engine.data.database import BUSY_TIMEOUT_SECONDS
from rec_engine.data.dataset import LongArray

_READ_WRITE, _NO_MUTEX = 0x2, 0x8000  # what reads a write-ahead log has to write into the file beside it
_COPY_TEXT = ctypes.c_void_p(-1)
_OK, _DONE = 0, 101
_NAMES = ("step", "column_int64", "column_double", "column_text", "column_bytes")


class SqliteLibrary:
    """The very library that Python's sqlite3 uses.

    Not any other copy of SQLite: the locks of a file belong to the process, and what one copy closes takes the locks
    that another one holds (https://www.sqlite.org/howtocorrupt.html, 2.2.1).

    Attributes:
        functions: (5,) addresses of sqlite3_step, sqlite3_column_int64, _double, _text and _bytes.

    Raises:
        AttributeError: if Python has SQLite inside, without names for its functions; `sqlite_library` returns None.
        OSError: likewise.
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_sqlite3.__file__)  # names are looked up in what it is linked with, too
        self._library.sqlite3_errmsg.restype = ctypes.c_char_p
        self._library.sqlite3_db_handle.restype = ctypes.c_void_p
        addresses = [ctypes.cast(self._library[f"sqlite3_{name}"], ctypes.c_void_p).value for name in _NAMES]
        self.functions: LongArray = np.array(addresses, dtype=np.int64)

    @contextmanager
    def statement(self, path: str, text: str, values: Sequence[object]) -> Iterator[int]:
        """Yield the address of a statement on a connection of its own, which one thread may step through.

        Args:
            path: of a database that exists.
            text: SQL with question marks.
            values: integers and texts that stand for them.

        Raises:
            sqlite3.OperationalError: if the database or the statement cannot be used.
        """
        connection, statement = ctypes.c_void_p(), ctypes.c_void_p()
        sqlite = self._library
        try:
            flags = _READ_WRITE | _NO_MUTEX
            self._check(connection, sqlite.sqlite3_open_v2(path.encode(), ctypes.byref(connection), flags, None))
            sqlite.sqlite3_busy_timeout(connection, 1_000 * BUSY_TIMEOUT_SECONDS)
            code = sqlite.sqlite3_prepare_v2(connection, text.encode(), -1, ctypes.byref(statement), None)
            self._check(connection, code)
            for place, value in enumerate(values, start=1):
                self._check(connection, self._bind(statement, place, value))
            yield statement.value or 0
        finally:
            sqlite.sqlite3_finalize(statement)
            sqlite.sqlite3_close(connection)

    def check_done(self, statement: int, code: int) -> None:
        """Raise sqlite3.OperationalError if the last step has returned anything but that there are no more rows."""
        if code != _DONE:
            self._check(ctypes.c_void_p(self._library.sqlite3_db_handle(ctypes.c_void_p(statement))), code)

    def _check(self, connection: ctypes.c_void_p, code: int) -> None:
        if code != _OK:
            raise sqlite3.OperationalError(self._library.sqlite3_errmsg(connection).decode())

    def _bind(self, statement: ctypes.c_void_p, place: int, value: object) -> int:
        if isinstance(value, int):
            return int(self._library.sqlite3_bind_int64(statement, place, ctypes.c_int64(value)))
        given = str(value).encode()
        return int(self._library.sqlite3_bind_text(statement, place, given, len(given), _COPY_TEXT))


@lru_cache(maxsize=1)
def sqlite_library() -> SqliteLibrary | None:
    """Return the library, or None where its functions cannot be called."""
    try:
        return SqliteLibrary()
    except (AttributeError, OSError):
        return None
