"""Whether a store can be used: reached, of which revision, written to, and by whose clock. Nothing of it changes."""

import time
from dataclasses import dataclass

import sqlalchemy as sql

from rec_engine.data.database import SQLITE, opened, position_row, require_file
from rec_engine.data.experiment_tables import PRUNED, turn_rows
from rec_engine.data.schema import HEAD, revision_of


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """What was found.

    Attributes:
        store: its name, without a password.
        revision: of its tables; None where there is no log.
        position: how far the log has got; None where its tables are of another revision than this release's.
        clock_skew_seconds: by how much the database's clock is ahead of this machine's; 0 for a file.
        was_pruned: whether old events were ever removed from it.
    """

    store: str
    revision: str | None
    position: int | None
    clock_skew_seconds: float
    was_pruned: bool = False


def examine_store(url: str) -> StoreHealth:
    """Return how a store is, after a write that was taken back.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if it names a file that is not there.
        StoreError: if the database cannot be reached or written to.
    """
    require_file(url)
    with opened(url) as (store, writer, _, _), writer.connect() as connection:
        skew = 0.0
        if connection.dialect.name != SQLITE:
            before = time.time()
            there = connection.exec_driver_sql("SELECT EXTRACT(EPOCH FROM clock_timestamp())").scalar_one()
            skew = float(there) - (before + time.time()) / 2
        revision = revision_of(connection)
        position, was_pruned = None, False
        if revision == HEAD:
            kept = sql.update(position_row).values(value=position_row.c.value).returning(position_row.c.value)
            position = int(connection.execute(kept).scalar_one())
            pruned = sql.select(turn_rows.c.until).where(turn_rows.c.work == PRUNED)
            was_pruned = connection.execute(pruned).first() is not None
        connection.rollback()
    return StoreHealth(store, revision, position, skew, was_pruned)
