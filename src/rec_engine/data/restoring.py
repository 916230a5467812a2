"""A backup of the log back into an empty database, whichever it came from; all of it or nothing."""

from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError

from rec_engine.data.backup import Manifest, read_manifest, reflected, verify_files
from rec_engine.data.database import SQLITE, opened, transaction
from rec_engine.data.schema import HEAD, REVISIONS, lock_start, revision_of, upgrade
from rec_engine.errors import DataError

_NEEDED = {"events", "log_identity", "log_position"}
"""Tables without which the others are no log; builds before the first release lacked some of the rest."""
_OF_EVERY_LOG = {"log_identity", "log_position", "turns"}
"""Tables in which a service writes although nothing has happened yet."""


def restore(directory: Path, url: str) -> Manifest:
    """Write a backup into a database that holds no log, or an empty one, and bring its tables up to date.

    Every file is verified before, every table counted after; it is one transaction.

    Args:
        directory: that `back_up` made.
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if the backup is incomplete, damaged or of a later release, or the store holds anything.
        StoreError: if the database fails; nothing is written then.
    """
    manifest = read_manifest(directory)
    if manifest.revision not in REVISIONS:
        raise DataError(
            f"{directory} is of a later release (revision {manifest.revision}, this one knows {HEAD})",
            hint="restore it with that release",
        )
    verify_files(directory, manifest)
    with opened(url) as (store, writer, _, files), transaction(writer, files) as connection:
        lock_start(connection)
        _make_room(connection, store, manifest.revision)
        there = {table.name: table for table in reflected(connection)}
        _check_tables(directory, set(manifest.tables), set(there))
        for name in manifest.tables:
            _fill(connection, there[name], directory, manifest)
        upgrade(connection, HEAD)
    return manifest


def _make_room(connection: sql.Connection, store: str, revision: str) -> None:
    """Make the tables as the backup knows them, unless they are there and empty."""
    if connection.dialect.name != SQLITE:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    found = revision_of(connection)
    if found is None:
        upgrade(connection, revision)
        return
    there = reflected(connection)
    if connection.dialect.name != SQLITE:  # or a service could write what is deleted below
        names = ", ".join(table.name for table in there)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN EXCLUSIVE MODE")
    is_empty = all(table.name in _OF_EVERY_LOG or _count(connection, table) == 0 for table in there)
    if found != revision or not is_empty:
        raise DataError(
            f"{store} {'holds data' if not is_empty else f'has revision {found}, the backup {revision}'}: "
            "a backup is restored into a database without tables",
            hint="name a file that is not there yet, or a new database of PostgreSQL",
        )
    for table in there:
        connection.execute(sql.delete(table))


def _check_tables(directory: Path, named: set[str], there: set[str]) -> None:
    for name in sorted(named - there):
        raise DataError(f"{directory}: no release has a table {name!r}", hint="take another backup")
    for name in sorted(_NEEDED - named):
        raise DataError(f"{directory}: the table {name} is missing", hint="take another backup")


def _fill(connection: sql.Connection, table: sql.Table, directory: Path, manifest: Manifest) -> None:
    expected = 0
    for file in manifest.tables[table.name]:
        rows = _read(directory / file.name)
        if set(rows.columns) != set(table.columns.keys()):
            raise DataError(f"{directory / file.name} has other columns than the table {table.name}")
        expected += len(rows)
        try:
            (_insert if connection.dialect.name == SQLITE else _copy)(connection, table.name, rows)
        except connection.dialect.loaded_dbapi.Error as error:
            raise DBAPIError(f"restore {table.name}", None, error) from error
    counted = _count(connection, table)
    stated = sum(file.rows for file in manifest.tables[table.name])
    if not counted == expected == stated:
        raise DataError(f"{directory}: {table.name} has {counted:,} rows, {stated:,} are stated")
    for column in table.primary_key.columns:
        if (
            connection.dialect.name != SQLITE
            and column.autoincrement is not False
            and column.server_default is not None
        ):
            _go_on_counting(connection, table.name, column.name)


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: not readable as Parquet: {error}", hint="take another backup") from None


def _insert(connection: sql.Connection, table: str, rows: pl.DataFrame) -> None:
    names, places = ", ".join(rows.columns), ", ".join("?" * rows.width)
    with closing(connection.connection.cursor()) as cursor:
        statement = f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608 - names of the database's own
        cursor.executemany(statement, rows.rows())


def _copy(connection: sql.Connection, table: str, rows: pl.DataFrame) -> None:
    cursor: Any
    with closing(connection.connection.cursor()) as cursor:
        names = ", ".join(rows.columns)
        with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in rows.iter_rows():
                copy.write_row(row)


def _go_on_counting(connection: sql.Connection, table: str, column: str) -> None:
    """Let PostgreSQL give numbers after those that were restored."""
    largest = f"(SELECT COALESCE(MAX({column}), 0) + 1 FROM {table})"  # noqa: S608 - names of the database's own
    connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {largest}, false)")


def _count(connection: sql.Connection, table: sql.Table) -> int:
    return int(connection.execute(sql.select(sql.func.count()).select_from(table)).scalar_one())
