"""Events and impressions that are too old, out of a log that is in use: in transactions that hold up nobody."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sql

from rec_engine.data.database import event_rows, impression_rows, opened, require_file, transaction
from rec_engine.data.experiment_tables import PRUNED, PRUNED_IMPRESSIONS, turn_rows

STRETCH = 4_000
"""Rows that one transaction looks at: those who write wait as long as it takes."""
Kind = Literal["events", "impressions"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KEYS: "dict[Kind, sql.Column[int]]" = {"events": event_rows.c.position, "impressions": impression_rows.c.place}
_MARKS: dict[Kind, str] = {"events": PRUNED, "impressions": PRUNED_IMPRESSIONS}


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


def prune(
    url: str, before: int, kinds: Sequence[Kind] = KINDS, *, is_over: Callable[[], bool] = lambda: False
) -> Pruned:
    """Remove what happened before a moment; an interruption leaves the rest for the next time.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        before: Unix seconds.
        kinds: what of it.
        is_over: asked between two transactions, whether to leave the rest.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if it names a file that is not there.
        StoreError: if the database fails.
    """
    require_file(url)
    removed: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    with opened(url) as (store, writer, reader, files):
        for kind in kinds:
            with transaction(writer, files) as connection:
                _note(connection, _MARKS[kind], before)  # first: what is removed by half cannot be measured either
            for is_old in _stretches(reader, _KEYS[kind], before):
                if is_over():
                    return Pruned(store, **removed)
                if not _count(reader, _KEYS[kind], is_old):
                    continue  # without a transaction that others would wait for
                started = time.monotonic()
                with transaction(writer, files) as connection:
                    removed[kind] += connection.execute(sql.delete(_KEYS[kind].table).where(is_old)).rowcount
                time.sleep(time.monotonic() - started)  # whoever has waited gets his turn
    return Pruned(store, **removed)


def count_older(url: str, before: int) -> Pruned:
    """Return what `prune` would remove; arguments and errors as there."""
    require_file(url)
    with opened(url) as (store, _, reader, _):
        counted = {
            kind: sum(_count(reader, key, is_old) for is_old in _stretches(reader, key, before))
            for kind, key in _KEYS.items()
        }
    return Pruned(store, **counted)


def _stretches(reader: sql.Engine, key: "sql.Column[int]", before: int) -> "Iterator[sql.ColumnElement[Any]]":
    """Yield what is true of old rows, stretch by stretch."""
    with reader.connect() as connection:
        first, last = connection.execute(sql.select(sql.func.min(key), sql.func.max(key))).one()
    if first is not None:
        for start in range(first, last + 1, STRETCH):
            yield sql.and_(key.between(start, min(start + STRETCH - 1, last)), key.table.c.timestamp < before)


def _count(reader: sql.Engine, key: "sql.Column[int]", is_old: "sql.ColumnElement[Any]") -> int:
    with reader.connect() as connection:
        counted = sql.select(sql.func.count()).select_from(key.table).where(is_old)
        return int(connection.execute(counted).scalar_one())


def _note(connection: sql.Connection, mark: str, before: int) -> None:
    """Note until when rows of a kind are gone, so that nothing is measured by what is left of them."""
    noted = connection.execute(sql.select(turn_rows.c.until).where(turn_rows.c.work == mark)).scalar()
    if noted is None:
        connection.execute(sql.insert(turn_rows).values(work=mark, until=before))
    elif noted < before:
        connection.execute(sql.update(turn_rows).where(turn_rows.c.work == mark).values(until=before))
