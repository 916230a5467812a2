"""The files of a SQLite database: whether the path still holds what is written, and what its write-ahead log keeps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sql

from rec_engine.errors import StoreError

PATIENCE_MS = 100
"""How long emptying the write-ahead log waits for others who read it; writers wait as long."""
_WAL = "write-ahead log"
FileId = tuple[int, int] | None
"""Device and inode; None where there is no file."""


class SqliteFiles:
    """What the connections of one store have open. SQLite itself goes on writing to files that were removed."""

    def __init__(self) -> None:
        self._path = ""
        self._database: FileId = None
        self._watch: Any = None

    def opened(self, connection: Any, info: dict[Any, Any]) -> None:  # noqa: ANN401 - the driver's own connection
        """Remember which files a new connection of the driver has open.

        Args:
            connection: that has read, so that all its files are open.
            info: what SQLAlchemy keeps beside the connection.

        Raises:
            StoreError: if they are not those of the connections before it.
        """
        self._path = connection.execute("PRAGMA database_list").fetchone()[2]
        self._database = self._database or _file_id(self._path)
        info[_WAL] = _file_id(f"{self._path}-wal")
        self.check()

    def rows(self, engine: sql.Engine, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Return what one connection reads without SQLAlchemy, which costs ten times a small query.

        Raises:
            StoreError: if the path does not hold the database any more.
        """
        self.check()
        if self._watch is None:
            self._watch = engine.raw_connection()
        found: list[Any] = self._watch.driver_connection.cursor().execute(statement, values).fetchall()
        return found

    def close(self) -> None:
        """Give back the connection that watches."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def check(self) -> None:
        """Find out whether the path still names the database that is open.

        Raises:
            StoreError: if it does not.
        """
        if self._path and _file_id(self._path) != self._database:
            raise self._gone(self._path)

    @contextmanager
    def kept(self, connection: sql.Connection) -> Iterator[None]:
        """Let a transaction be begun and committed where the path holds it.

        Raises:
            StoreError: if it does not; before the transaction has begun, or else after it was committed.
        """
        wal = connection.info[_WAL]
        self._check_all(wal)
        yield
        self._check_all(wal)

    def empty_log(self, engine: sql.Engine) -> bool:
        """Return whether nothing is left in the write-ahead log, where deleted rows would otherwise stay for a while.

        Another reader can be in the way, as long as he reads.
        """
        with engine.connect() as connection:
            (usual_ms,) = connection.exec_driver_sql("PRAGMA busy_timeout").one()
            connection.exec_driver_sql(f"PRAGMA busy_timeout={PATIENCE_MS}")
            try:
                is_busy, *_ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={usual_ms}")
        return not is_busy

    def _check_all(self, wal: FileId) -> None:
        self.check()
        if self._path and _file_id(f"{self._path}-wal") != wal:
            raise self._gone(f"{self._path}-wal")

    @staticmethod
    def _gone(path: str) -> StoreError:
        return StoreError(
            f"{path} was removed or replaced while it is in use, and what is written now would be lost",
            hint="put the file back where it was, or restart the service",
        )


def _file_id(path: str) -> FileId:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
