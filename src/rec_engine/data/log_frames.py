"""The log in columns: its tables as polars frames, read in stretches so short that they hold up nobody who writes."""

from collections.abc import Iterator, Sequence

import polars as pl
import sqlalchemy as sql
from sqlalchemy.engine.interfaces import DBAPICursor

from rec_engine.data.database import (
    event_rows,
    identity_row,
    impression_rows,
    item_rows,
    mark_rows,
    name_of,
    named,
    no_log,
    open_engines,
    position_row,
    require_file,
)
from rec_engine.data.dataset import LogMark
from rec_engine.data.events import ERASED
from rec_engine.errors import DataError, StoreError

STRETCH = 200_000
"""Row numbers that one query looks at."""
_EVENTS = pl.Schema(
    {
        "position": pl.Int64,
        "event_id": pl.String,
        "user_id": pl.String,
        "item_id": pl.String,
        "event": pl.String,
        "timestamp": pl.Int64,
        "value": pl.Float64,
        "request_id": pl.String,
    }
)
_ITEMS = pl.Schema({"position": pl.Int64, "item_id": pl.String, "status": pl.String, "attributes": pl.String})
_MARKS = pl.Schema({"user_hash": pl.String, "position": pl.Int64})
_IMPRESSIONS = pl.Schema(
    {
        "place": pl.Int64,
        "request_id": pl.String,
        "user_id": pl.String,
        "timestamp": pl.Int64,
        "model_version": pl.String,
        "shown": pl.String,
    }
)


class LogFrames:
    """Reads a log, which may be in use meanwhile.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if there is no log in it.
        StoreError: if the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        require_file(url)
        writer, self._reader = open_engines(url)[:2]
        if writer is not self._reader:
            writer.dispose()
        self.name = name_of(self._reader.url)
        with named(self.name):
            inspector = sql.inspect(self._reader)
            is_there, has_identity = (inspector.has_table(table.name) for table in (event_rows, identity_row))
        if not has_identity:
            self.close()
            raise _without_identity(self.name) if is_there else no_log(self.name)

    def close(self) -> None:
        """Give back all connections."""
        self._reader.dispose()

    def position(self) -> int:
        """Return how far the log has got."""
        return self._largest(position_row.c.value)

    def mark(self) -> LogMark:
        """Return which log this is, and how far it has got."""
        with named(self.name), self._reader.connect() as connection:
            log_id = connection.execute(sql.select(identity_row.c.value)).scalar_one()
        return LogMark(str(log_id), self.position())

    def events(self, columns: Sequence[str], *, until: int) -> Iterator[pl.DataFrame]:
        """Yield these columns of the events up to a position, in the order of positions."""
        return self._stretches(event_rows.c.position, nothing(columns).schema, until)

    def impressions(self) -> Iterator[pl.DataFrame]:
        """Yield what answers showed, what was written last first: the columns of an impression and `place`."""
        key = impression_rows.c.place
        return self._stretches(key, _IMPRESSIONS, self._largest(key), is_backwards=True)

    def items(self) -> pl.DataFrame:
        """Return the latest change of each item: position, item_id, status, attributes (JSON)."""
        return self._frame(_statement(item_rows, _ITEMS).order_by(item_rows.c.position), _ITEMS)

    def erasures(self) -> dict[str, int]:
        """Return the position of the latest erasure by the hash of its user."""
        erased = _statement(mark_rows, _MARKS).where(mark_rows.c.kind == ERASED)
        return dict(self._frame(erased, _MARKS).rows())

    def _stretches(
        self, key: "sql.Column[int]", schema: pl.Schema, last: int, *, is_backwards: bool = False
    ) -> Iterator[pl.DataFrame]:
        statement = _statement(key.table, schema).order_by(key.desc() if is_backwards else key)
        starts = range(0, last, STRETCH)
        for after in reversed(starts) if is_backwards else starts:
            within = statement.where(key > after, key <= min(after + STRETCH, last))
            yield self._frame(within, schema)

    def _largest(self, column: "sql.Column[int]") -> int:
        with named(self.name), self._reader.connect() as connection:
            return connection.execute(sql.select(sql.func.max(column))).scalar_one() or 0

    def _frame(self, statement: "sql.Select[*tuple[object, ...]]", schema: pl.Schema) -> pl.DataFrame:
        with named(self.name), self._reader.connect() as connection:
            cursor = connection.execute(statement).cursor
            rows = [] if cursor is None else _rows(cursor)
        try:
            return pl.DataFrame(rows, schema=schema, orient="row")
        except (TypeError, pl.exceptions.PolarsError) as error:  # SQLite keeps whatever it is given
            raise StoreError(
                f"{self.name}: a row is not as a service writes it ({error})", hint="restore a backup, or mend the row"
            ) from None


def nothing(columns: Sequence[str]) -> pl.DataFrame:
    """Return these columns of no event."""
    return pl.DataFrame(schema={name: _EVENTS[name] for name in columns})


def _rows(cursor: DBAPICursor) -> list[tuple[object, ...]]:
    """Return what the driver has read, without a row object of SQLAlchemy around each of millions."""
    return list(cursor.fetchall())


def _statement(table: "sql.FromClause", schema: pl.Schema) -> "sql.Select[*tuple[object, ...]]":
    return sql.select(*(table.c[name] for name in schema))


def _without_identity(name: str) -> DataError:
    return DataError(
        f"{name}: an event store of an earlier release, which had no identity yet",
        hint=f"rec-engine store migrate --store {name} gives it one",
    )
