"""The revision of the log's tables: made at the latest one, refused at another, migrated when somebody says so.

Alembic is loaded only to migrate: a service that starts asks for one row.
"""

import uuid
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

import rec_engine.data.experiment_tables  # noqa: F401 - its tables are the log's too
from rec_engine.data.database import (
    SQLITE,
    event_rows,
    identity_row,
    name_of,
    opened,
    position_row,
    require_file,
    tables,
    transaction,
)
from rec_engine.errors import StoreError

REVISIONS = ("0001", "0002")
"""Of the schema, oldest first; `migrations/versions` has how each comes from the one before."""
HEAD = REVISIONS[-1]
REVISION_TABLE = "log_revision"
_MIGRATIONS = Path(__file__).with_name("migrations")
_START_LOCK = 7305
_START_TIMEOUT, _LOCK_TIMEOUT = "60s", "10s"
_revision_row = sql.Table(
    REVISION_TABLE,
    sql.MetaData(),
    sql.Column("version_num", sql.String(32), nullable=False),
    sql.PrimaryKeyConstraint("version_num", name=f"{REVISION_TABLE}_pkc"),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """What a store was and is.

    Attributes:
        store: its name, without a password.
        before: revision that it had; None where there was no log.
        after: revision that it has now.
    """

    store: str
    before: str | None
    after: str


def prepare(engine: sql.Engine) -> str:
    """Return the id of the log, after making it where there is none.

    Raises:
        StoreError: if its tables are of another revision than this release works with, or none of ours.
    """
    try:
        with engine.begin() as connection:
            lock_start(connection)
            found = revision_of(connection)
            if found is None:
                _make(connection)
            elif found != HEAD:
                raise _of_other_revision(name_of(engine.url), found)
            return str(connection.execute(identity_row.select()).scalar_one())
    except (StoreError, SQLAlchemyError):
        engine.dispose()
        raise


def revision_of(connection: sql.Connection) -> str | None:
    """Return the revision of a log's tables: the first one where none is noted, None where there is no log."""
    there = sql.inspect(connection)
    noted = None
    if there.has_table(REVISION_TABLE):
        noted = connection.execute(sql.select(_revision_row.c.version_num)).scalar()
    if noted is None and there.has_table(event_rows.name):
        return REVISIONS[0]
    return noted


def migrate(url: str) -> Migration:
    """Bring a store to the revision of this release, in one transaction; one that is not there is made.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the store is newer than this release, its tables are none of ours, or the database fails.
    """
    with opened(url) as (store, writer, _, files), transaction(writer, files) as connection:
        lock_start(connection)
        before = revision_of(connection)
        if before is None:
            _make(connection)
        elif before not in REVISIONS:
            raise _of_other_revision(store, before)
        elif before != HEAD:
            upgrade(connection, HEAD)
            _begin(connection)
    return Migration(store, before, HEAD)


def standing(url: str) -> tuple[str, str | None]:
    """Return the name of a store without its password, and its revision; nothing is changed.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if it names a file that is not there.
        StoreError: if the database cannot be reached.
    """
    require_file(url)
    with opened(url) as (store, _, reader, _), reader.connect() as connection:
        return store, revision_of(connection)


def upgrade(connection: sql.Connection, revision: str) -> None:
    """Bring the tables to a revision, within the connection's transaction.

    Raises:
        StoreError: if the tables are none of ours.
    """
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name != SQLITE:  # to change a table takes as long as it takes, but others do not wait for it
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, revision)


def lock_start(connection: sql.Connection) -> None:
    """Let others who start or migrate wait until the transaction ends, at most a minute."""
    if connection.dialect.name != SQLITE:  # several workers start at once; CREATE TABLE IF NOT EXISTS alone races
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_START_TIMEOUT}'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_START_LOCK})")
        connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")


def _make(connection: sql.Connection) -> None:
    """Make the tables as the latest revision has them: that they are the same is held by a test.

    Raises:
        StoreError: if there are tables of these names that are none of ours.
    """
    if set(sql.inspect(connection).get_table_names()).isdisjoint(tables.tables):
        tables.create_all(connection)
        _revision_row.create(connection)
        connection.execute(sql.insert(_revision_row).values(version_num=HEAD))
    else:
        upgrade(connection, HEAD)  # which looks at what is there
    _begin(connection)


def _begin(connection: sql.Connection) -> None:
    """Give a log a position and an identity where it has none."""
    if connection.execute(position_row.select()).first() is None:
        connection.execute(position_row.insert().values(value=0))
    if connection.execute(identity_row.select()).first() is None:
        connection.execute(identity_row.insert().values(value=uuid.uuid4().hex))


def _of_other_revision(store: str, found: str) -> StoreError:
    if found in REVISIONS:
        return StoreError(
            f"the event store {store} has the tables of an earlier release (revision {found}, wanted {HEAD})",
            hint=f"rec-engine store migrate --store {store} brings it up to date; rec-engine store backup before it",
        )
    return StoreError(
        f"the event store {store} has the tables of a later release (revision {found}, this one knows {HEAD})",
        hint="use that release, or a store of its own for this one",
    )
