"""Events and impressions that are too old, out of a log that is in use: in transactions that hold up nobody."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from rec_engine.data.database import event_rows, impression_rows, opened, require_file, transaction
from rec_engine.data.experiment_tables import PRUNED, turn_rows

STRETCH = 20_000
"""Rows that one transaction looks at."""
PAUSE_SECONDS = 0.01
_KEYS: "tuple[sql.Column[int], ...]" = (event_rows.c.position, impression_rows.c.place)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        store: its name, without a password.
        events: how many.
        impressions: how many answers' lists.
    """

    store: str
    events: int
    impressions: int


def prune(url: str, before: int) -> Pruned:
    """Remove what happened before a moment; an interruption leaves the rest for the next time.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        before: Unix seconds.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if it names a file that is not there.
        StoreError: if the database fails.
    """
    require_file(url)
    removed = []
    with opened(url) as (store, writer, reader, files):
        with transaction(writer, files) as connection:
            _note(connection, before)  # first: what is removed by half cannot be measured either
        for key in _KEYS:
            removed.append(0)
            for is_within in _stretches(reader, key):
                with transaction(writer, files) as connection:
                    old = sql.delete(key.table).where(is_within, key.table.c.timestamp < before)
                    removed[-1] += connection.execute(old).rowcount
                time.sleep(PAUSE_SECONDS)
    return Pruned(store, *removed)


def count_older(url: str, before: int) -> Pruned:
    """Return what `prune` would remove; arguments and errors as there."""
    require_file(url)
    counted = []
    with opened(url) as (store, _, reader, _):
        for key in _KEYS:
            counted.append(0)
            for is_within in _stretches(reader, key):
                old = sql.select(sql.func.count()).where(is_within, key.table.c.timestamp < before)
                with reader.connect() as connection:
                    counted[-1] += int(connection.execute(old.select_from(key.table)).scalar_one())
    return Pruned(store, *counted)


def _stretches(reader: sql.Engine, key: "sql.Column[int]") -> "Iterator[sql.ColumnElement[Any]]":
    with reader.connect() as connection:
        first, last = connection.execute(sql.select(sql.func.min(key), sql.func.max(key))).one()
    if first is not None:
        for start in range(first, last + 1, STRETCH):
            yield key.between(start, min(start + STRETCH - 1, last))


def _note(connection: sql.Connection, before: int) -> None:
    """Note until when events are gone, so that nothing is measured by what is left."""
    noted = connection.execute(sql.select(turn_rows.c.until).where(turn_rows.c.work == PRUNED)).scalar()
    if noted is None:
        connection.execute(sql.insert(turn_rows).values(work=PRUNED, until=before))
    elif noted < before:
        connection.execute(sql.update(turn_rows).where(turn_rows.c.work == PRUNED).values(until=before))
