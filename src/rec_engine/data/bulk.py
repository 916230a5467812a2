"""Many events into the log at once, in transactions so short that a service which uses it is held up by none."""

import time
from contextlib import AbstractContextManager, closing, nullcontext
from types import TracebackType
from typing import Any, Self

import polars as pl
import sqlalchemy as sql
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

from rec_engine.data.database import SQLITE, mark_rows, name_of, named, open_engines, take_positions
from rec_engine.data.events import ERASED, EventStore, user_hash

SMALLEST, LARGEST = 5_000, 80_000
"""Events of one transaction: the fewer, the less others who write wait; the more, the less they cost."""
PAUSE_SECONDS = 0.005
_SQLITE_CACHE_KIB = 256 * 1024
_POSTGRES_TIMEOUT = "60s"
_COLUMNS = ("event_id", "user_id", "item_id", "event", "timestamp", "value", "request_id", "context")
_ERASED_SINCE = sql.select(mark_rows.c.position, mark_rows.c.user_hash).where(
    mark_rows.c.kind == ERASED, mark_rows.c.position > sql.bindparam("after")
)


class BulkWriter:
    """Writes events of which the log may know some already; to be entered, so that it ends in order.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`; the log is made if there is none.

    Attributes:
        n_new: events that the log did not know.
        n_known: events whose ids it knew; they are as they were.
        n_erased: events of users who asked to be forgotten, which are not taken.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        EventStore(url).close()
        self._engine, reader, self._files = open_engines(url)
        if reader is not self._engine:
            reader.dispose()
        self._is_sqlite = self._engine.dialect.name == SQLITE
        self.name = name_of(self._engine.url)
        self.n_new = self.n_known = self.n_erased = 0
        self._erased: set[str] = set()
        self._erased_until = 0
        self._chunk = SMALLEST
        self._left_at = -1
        with named(self.name):
            self._connection = self._engine.connect()
            self._prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()
        self._engine.dispose()

    def write(self, events: pl.DataFrame) -> None:
        """Write the rows of `log_rows`, a chunk at a time; whoever reads the log finds each chunk whole or not at all.

        Raises:
            StoreError: if the database fails; what earlier chunks held stays written.
        """
        n_written = 0
        while n_written < len(events):
            chunk = events.slice(n_written, self._chunk)
            n_written += len(chunk)
            with named(self.name), self._kept(), self._connection.begin():
                before = take_positions(self._connection, len(chunk))
                kept = self._without_erased(chunk)
                n_new = self._insert(kept, before + 1) if len(kept) else 0
            self.n_new += n_new
            self.n_known += len(kept) - n_new
            self.n_erased += len(chunk) - len(kept)
            self._take_turns(before, before + len(chunk))

    def _kept(self) -> AbstractContextManager[None]:
        """Hold that what is written within is where the path says, as `database.transaction` does."""
        return self._files.kept(self._connection) if self._files else nullcontext()

    def _prepare(self) -> None:
        with self._connection.begin():
            if self._is_sqlite:
                self._connection.exec_driver_sql(f"PRAGMA cache_size=-{_SQLITE_CACHE_KIB}")
                return
            self._connection.exec_driver_sql(f"SET statement_timeout = '{_POSTGRES_TIMEOUT}'")
            columns = ", ".join(("position", *_COLUMNS))
            self._connection.exec_driver_sql(
                f"CREATE TEMPORARY TABLE incoming ON COMMIT DELETE ROWS AS SELECT {columns} FROM events WITH NO DATA"  # noqa: S608
            )

    def _take_turns(self, before: int, after: int) -> None:
        """Write more at once as long as nobody else writes; as soon as somebody does, little, and let others go first.

        Args:
            before: position at which the log was found.
            after: position at which it was left.
        """
        is_alone = before == self._left_at
        self._left_at = after
        self._chunk = min(2 * self._chunk, LARGEST) if is_alone else SMALLEST
        if not is_alone:
            time.sleep(PAUSE_SECONDS)

    def _without_erased(self, chunk: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose users have not asked to be forgotten by now: an old file must not bring them back."""
        for position, hashed in self._connection.execute(_ERASED_SINCE, {"after": self._erased_until}).all():
            self._erased.add(hashed)
            self._erased_until = max(self._erased_until, position)
        if not self._erased:
            return chunk
        users = chunk["user_id"].unique()
        gone = [user for user in users.to_list() if user_hash(user) in self._erased]
        return chunk.filter(~pl.col("user_id").is_in(gone))

    def _insert(self, chunk: pl.DataFrame, first: int) -> int:
        """Return how many of the rows are new; their positions begin with `first`.

        Users come one after the other, each with his rows in order: so the index of users is gone through once.
        """
        rows = chunk.sort("user_id", maintain_order=True)
        rows = rows.select(pl.int_range(first, first + len(chunk)).alias("position"), *_COLUMNS)
        columns = [name for name in rows.columns if rows[name].null_count() < len(rows)]
        rows = rows.select(columns)  # nothing is sent of columns that hold nothing
        with closing(self._connection.connection.cursor()) as cursor:
            try:
                (_insert_many if self._is_sqlite else _copy)(cursor, rows)
            except self._engine.dialect.loaded_dbapi.Error as error:
                raise DBAPIError("bulk insert", None, error) from error
            return cursor.rowcount


def _insert_many(cursor: DBAPICursor, rows: pl.DataFrame) -> None:
    names, places = ", ".join(rows.columns), ", ".join("?" * rows.width)
    statement = f"INSERT INTO events ({names}) VALUES ({places}) ON CONFLICT (event_id) DO NOTHING"  # noqa: S608
    # The driver takes any iterable; a list of tuples would only be made to be thrown away.
    cursor.executemany(statement, zip(*(column.to_list() for column in rows), strict=True))  # type: ignore[arg-type]


def _copy(cursor: Any, rows: pl.DataFrame) -> None:  # noqa: ANN401 - psycopg's own cursor
    names = ", ".join(rows.columns)
    with cursor.copy(f"COPY incoming ({names}) FROM STDIN (FORMAT csv)") as copy:
        copy.write(rows.write_csv(include_header=False))
    moved = f"INSERT INTO events ({names}) SELECT {names} FROM incoming ORDER BY position"  # noqa: S608
    cursor.execute(f"{moved} ON CONFLICT (event_id) DO NOTHING")
