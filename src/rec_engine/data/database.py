"""The tables of the log, and engines for SQLite and PostgreSQL that keep what they acknowledge."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rec_engine.errors import ConfigError, StoreError

SQLITE = "sqlite"
BUSY_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 3
STATEMENT_TIMEOUT_MS = 5_000
_URLS = "sqlite:///state/events.db, or postgresql://user:password@host/name"

tables = sql.MetaData()
_ROW_NUMBER = sql.BigInteger().with_variant(sql.Integer, SQLITE)  # SQLite's own row number: no index of its own
position_row = sql.Table("log_position", tables, sql.Column("value", sql.BigInteger, nullable=False))
event_rows = sql.Table(
    "events",
    tables,
    sql.Column("position", _ROW_NUMBER, primary_key=True, autoincrement=False),
    sql.Column("event_id", sql.Text, nullable=False, unique=True),
    sql.Column("user_id", sql.Text, nullable=False),
    sql.Column("item_id", sql.Text, nullable=False),
    sql.Column("event", sql.Text, nullable=False),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("value", sql.Float),
    sql.Column("request_id", sql.Text),
    sql.Column("context", sql.Text),
    sql.Index("events_of_user", "user_id", "position"),
)
item_rows = sql.Table(
    "items",
    tables,
    sql.Column("item_id", sql.Text, primary_key=True),
    sql.Column("position", sql.BigInteger, nullable=False, index=True),
    sql.Column("status", sql.Text, nullable=False),
    sql.Column("attributes", sql.Text, nullable=False),
)
mark_rows = sql.Table(
    "marks",
    tables,
    sql.Column("user_hash", sql.Text, primary_key=True),
    sql.Column("kind", sql.Text, primary_key=True),
    sql.Column("position", sql.BigInteger, nullable=False, index=True),
)
impression_rows = sql.Table(
    "impressions",
    tables,
    sql.Column("place", _ROW_NUMBER, primary_key=True, autoincrement=True),
    sql.Column("request_id", sql.Text, nullable=False, index=True),
    sql.Column("user_id", sql.Text, nullable=False, index=True),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("model_version", sql.Text, nullable=False),
    sql.Column("shown", sql.Text, nullable=False),
)


def open_engines(url: str) -> tuple[sql.Engine, sql.Engine]:
    """Return what writes and what reads.

    Raises:
        ConfigError: if the URL names no database that can be used here.
    """
    try:
        parsed = sql.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in (SQLITE, "postgresql"):
            raise ConfigError(f"store.url: {parsed.get_backend_name()} is not supported", hint=_URLS)
        if parsed.get_backend_name() == SQLITE:
            return _sqlite_engine(parsed, "BEGIN IMMEDIATE"), _sqlite_engine(parsed, "")
        engine = sql.create_engine(
            parsed,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
            },
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(f"store.url: {error}", hint=_URLS) from None
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT")


def _sqlite_engine(url: sql.URL, begin: str) -> sql.Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sql.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401 - the driver's own connection
        connection.isolation_level = None  # this module, not the driver, says where a transaction begins
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    if begin:
        # A transaction that would become a writer only later fails when another has written meanwhile.
        @sql.event.listens_for(engine, "begin")
        def start(connection: sql.Connection) -> None:
            connection.exec_driver_sql(begin)

    return engine


@contextmanager
def named(database: str) -> Iterator[None]:
    """Turn the errors of a database of this name into ours.

    Raises:
        StoreError: instead of whatever the database raises.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise StoreError(
            f"the event store {database} fails: {cause}", hint="is the database running, the disk full?"
        ) from error
