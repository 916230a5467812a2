"""The tables of the log, and engines for SQLite and PostgreSQL that keep what they acknowledge."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rec_engine.data.sqlite_files import SqliteFiles
from rec_engine.errors import ConfigError, DataError, StoreError

SQLITE = "sqlite"
BUSY_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 3
STATEMENT_TIMEOUT_MS = 5_000
_URLS = "sqlite:///state/events.db, or postgresql://user:password@host/name"

tables = sql.MetaData()
_ROW_NUMBER = sql.BigInteger().with_variant(sql.Integer, SQLITE)  # SQLite's own row number: no index of its own
position_row = sql.Table("log_position", tables, sql.Column("value", sql.BigInteger, nullable=False))
identity_row = sql.Table("log_identity", tables, sql.Column("value", sql.Text, nullable=False))
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
rule_rows = sql.Table(
    "rules",
    tables,
    sql.Column("rule_id", sql.Text, primary_key=True),
    sql.Column("definition", sql.Text, nullable=False),
)
impression_rows = sql.Table(
    "impressions",
    tables,
    sql.Column("place", _ROW_NUMBER, primary_key=True, autoincrement=True),
    sql.Column("request_id", sql.Text, nullable=False),
    sql.Column("user_id", sql.Text, nullable=False, index=True),
    sql.Column("timestamp", sql.BigInteger, nullable=False),
    sql.Column("model_version", sql.Text, nullable=False),
    sql.Column("shown", sql.Text, nullable=False),
)


def open_engines(url: str) -> tuple[sql.Engine, sql.Engine, SqliteFiles | None]:
    """Return what writes, what reads, and the files of both where they are SQLite's.

    Raises:
        ConfigError: if the URL names no database that can be used here.
    """
    try:
        parsed = _parsed(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in (SQLITE, "postgresql"):
            raise ConfigError(f"store.url: {parsed.get_backend_name()} is not supported", hint=_URLS)
        if parsed.get_backend_name() == SQLITE:
            files = SqliteFiles()
            return _sqlite_engine(parsed, "BEGIN IMMEDIATE", files), _sqlite_engine(parsed, "", files), files
        engine = sql.create_engine(
            parsed,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
            },
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(f"store.url: {error}", hint=_URLS) from None
    return engine, engine.execution_options(isolation_level="AUTOCOMMIT"), None


@contextmanager
def opened(url: str) -> Iterator[tuple[str, sql.Engine, sql.Engine, SqliteFiles | None]]:
    """Yield a store's name without its password and what `open_engines` returns, closed again after the block.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: instead of whatever the database raises.
    """
    writer, reader, files = open_engines(url)
    name = name_of(writer.url)
    try:
        with named(name):
            yield name, writer, reader, files
    finally:
        writer.dispose()
        reader.dispose()


def name_of(url: sql.URL) -> str:
    """Return a URL for people to read: without its password, and without that of the key of its certificate."""
    secrets = {name: "***" for name in url.query if name == "sslpassword"}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


def shown(url: str) -> str:
    """Return a URL as it was given, for people to read: as `name_of` does.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return name_of(_parsed(url))
    except ArgumentError as error:
        raise ConfigError(f"store.url: {error}", hint=_URLS) from None


def require_file(url: str) -> None:
    """Refuse a file that is not there, where SQLite would make it.

    Raises:
        DataError: if there is none.
    """
    try:
        parsed = _parsed(url)
    except (ArgumentError, ConfigError):
        return  # whoever opens it says what is wrong
    if parsed.get_backend_name() == SQLITE and not (parsed.database and Path(parsed.database).is_file()):
        raise no_log(name_of(parsed))


def _parsed(url: str) -> sql.URL:
    """Return a URL whose password, wherever it was written, stands where it is hidden when the URL is shown.

    Raises:
        ArgumentError: if it is no URL.
        ConfigError: if what should be its port or host is none; either would be shown, and may be of the password.
    """
    hint = f"{_URLS}; in a password @ is written %40, : is %3A, / is %2F"
    try:
        parsed = sql.make_url(url)
    except ValueError:
        raise ConfigError("store.url: the port is not a number", hint=hint) from None
    beyond = "" if parsed.get_backend_name() == SQLITE else parsed.database or ""
    if "@" in (parsed.host or "") + beyond:
        raise ConfigError("store.url: there is more than one @ in it", hint=hint)
    password = parsed.query.get("password")
    if password is None:
        return parsed
    shown = parsed.difference_update_query(["password"])
    return shown if isinstance(password, tuple) else shown.set(password=password)


def no_log(name: str) -> DataError:
    """Return what to say of a database in which there is no log."""
    return DataError(
        f"{name}: there is no event store", hint="rec-engine serve makes one, and so does rec-engine ingest"
    )


@contextmanager
def transaction(engine: sql.Engine, files: SqliteFiles | None) -> Iterator[sql.Connection]:
    """Yield a connection whose changes are on disk, and where the path says, when the block has ended without an error.

    Raises:
        StoreError: if the path does not hold what was written.
    """
    with engine.connect() as connection, files.kept(connection) if files else nullcontext(), connection.begin():
        yield connection


def _sqlite_engine(url: sql.URL, begin: str, files: SqliteFiles) -> sql.Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sql.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False})

    @sql.event.listens_for(engine, "do_connect")
    def check(*_: object) -> None:
        files.check()  # before SQLite makes a new, empty database of what was removed

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:  # noqa: ANN401 - the driver's own connection
        connection.isolation_level = None  # this module, not the driver, says where a transaction begins
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "schema_version"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        files.opened(connection, record.info)

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


def take_positions(connection: sql.Connection, n: int) -> int:
    """Return the position before the next n, which now belong to this transaction; other writers wait for it."""
    taken = sql.update(position_row).values(value=position_row.c.value + n).returning(position_row.c.value)
    return int(connection.execute(taken).scalar_one()) - n
