"""A copy of the log as Parquet files, all of one moment, while the service goes on writing.

The same on SQLite and PostgreSQL, so what one of them held can be restored into the other (`restoring`).
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import polars as pl
import sqlalchemy as sql
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from rec_engine.data.database import identity_row, no_log, opened, require_file, tables
from rec_engine.data.schema import revision_of
from rec_engine.errors import DataError
from rec_engine.utils.logger import get_logger

ROWS_A_FILE, BYTES_A_FILE = 100_000, 64_000_000
"""A file is full with the first of them; so much is in memory at once."""
ROWS_AT_ONCE = 1_000
MANIFEST = "manifest.json"

logger = get_logger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class BackupFile(_Frozen):
    """A Parquet file of a backup."""

    name: str
    rows: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str


class Manifest(_Frozen):
    """What a backup holds; it is written last."""

    format: Literal[1] = 1
    made_at: int
    """Unix seconds at which it began: nothing that was acknowledged before is missing."""
    revision: str
    """Of the tables."""
    log_id: str
    tables: dict[str, tuple[BackupFile, ...]]
    """Files of each table, in the order of their rows."""

    @property
    def rows(self) -> int:
        """How many there are in all tables."""
        return sum(file.rows for files in self.tables.values() for file in files)

    @property
    def bytes(self) -> int:
        """Of all files but this one."""
        return sum(file.bytes for files in self.tables.values() for file in files)


def back_up(url: str, directory: Path, *, now: int) -> Manifest:
    """Write all tables as they are at one moment into a new directory; it has its name only when it is complete.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        directory: that is made, for this user alone: it holds data of others.
        now: Unix seconds.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if there is no log in it, or the directory is there already or being made by another process.
        StoreError: if the database fails.
    """
    require_file(url)
    if directory.exists():
        raise DataError(f"{directory} is there already", hint="each backup has a directory of its own")
    partial = directory.with_name(f".{directory.name}.partial")
    with _alone_in(partial):
        manifest = _write_tables(url, partial, now)
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _to_disk(partial / MANIFEST)
        _to_disk(partial)
        partial.rename(directory)
    _to_disk(directory.parent)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """Return what a backup says that it holds.

    Raises:
        DataError: if the directory is no complete backup.
    """
    path = directory / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(
            f"{directory} is no backup that can be used: {path}: {reason}", hint="rec-engine store backup makes one"
        ) from None


def verify_files(directory: Path, manifest: Manifest) -> None:
    """Find out whether every file of a backup is as it was written.

    Raises:
        DataError: naming the first one that is not.
    """
    for file in (file for files in manifest.tables.values() for file in files):
        path = directory / file.name
        if Path(file.name).name != file.name or not path.is_file() or sha256(path) != file.sha256:
            raise DataError(f"{path} is missing or damaged", hint="take another copy of the backup, or another backup")


def reflected(connection: sql.Connection) -> list[sql.Table]:
    """Return the log's tables as the database has them, by name: those of an earlier release have its columns."""
    metadata = sql.MetaData()
    names = sorted(set(tables.tables) & set(sql.inspect(connection).get_table_names()))
    metadata.reflect(connection, only=names, resolve_fks=False)
    return [metadata.tables[name] for name in names]


def sha256(path: Path) -> str:
    """Return the digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _snapshot(url: str) -> Iterator[tuple[str, sql.Connection]]:
    """Yield a store's name and a connection that sees it as it is at one moment, however long that takes."""
    with opened(url) as (store, writer, reader, files):
        if files:
            with reader.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                yield store, connection
                connection.exec_driver_sql("ROLLBACK")
            return
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with writer.connect().execution_options(**options) as connection, connection.begin():
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield store, connection


def _write_tables(url: str, directory: Path, now: int) -> Manifest:
    with _snapshot(url) as (store, connection):
        revision = revision_of(connection)
        if revision is None:
            raise no_log(store)
        log_id = str(connection.execute(identity_row.select()).scalar_one())
        files = {table.name: tuple(_write(connection, table, directory)) for table in reflected(connection)}
    return Manifest(made_at=now, revision=revision, log_id=log_id, tables=files)


def _write(connection: sql.Connection, table: sql.Table, directory: Path) -> Iterator[BackupFile]:
    schema = {column.name: _type(column.type) for column in table.columns}
    statement = sql.select(table).order_by(*table.primary_key.columns)
    n_rows = min(ROWS_AT_ONCE, ROWS_A_FILE)
    parts = connection.execute(statement, execution_options={"yield_per": n_rows}).partitions()
    frames = (pl.DataFrame(list(map(tuple, rows)), schema=schema, orient="row") for rows in parts)
    for place, rows in enumerate(_full(frames)):
        path = directory / f"{table.name}-{place:05d}.parquet"
        rows.write_parquet(path)
        _to_disk(path)
        yield BackupFile(name=path.name, rows=len(rows), bytes=path.stat().st_size, sha256=sha256(path))
        logger.info("%s: %d rows are written", path.name, len(rows))


def _full(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield the same rows, as many at once as a file takes."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        n_rows, n_bytes = sum(map(len, held)), sum(each.estimated_size() for each in held)
        if n_rows >= ROWS_A_FILE or n_bytes >= BYTES_A_FILE:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


@contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    """Make an empty directory that no other process writes into meanwhile.

    Raises:
        DataError: if another one does.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        partial.chmod(0o700)
        for path in partial.iterdir():  # of a backup that was interrupted
            path.unlink()
        yield
    except BlockingIOError:
        raise DataError(f"{partial} is being written by another backup", hint="wait for it to end") from None
    finally:
        os.close(descriptor)


def _type(kind: "sql.types.TypeEngine[object]") -> type[pl.DataType]:
    if isinstance(kind, sql.Float):
        return pl.Float64
    return pl.Int64 if isinstance(kind, sql.Integer) else pl.String


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
