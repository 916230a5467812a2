"""What the exposed users of an experiment did, summed up where it is stored: one row a user, not one an event."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import sqlalchemy as sql
from numpy.typing import NDArray

from rec_engine.data.database import SQLITE, event_rows, impression_rows, name_of, named, open_engines
from rec_engine.data.experiment_tables import exposure_rows, measure_rows
from rec_engine.data.sqlite_library import SqliteLibrary, sqlite_library

if TYPE_CHECKING:
    from rec_engine.data.sqlite_reading import UserSums

USERS_AT_ONCE = 50_000
"""Users of one query."""
ROWS_AT_ONCE = 2_000
"""Rows that become arrays at once: meanwhile the other thread waits, which has to take each of its rows itself."""
NAMED_AT_ONCE = 500
"""Users that one query names."""
N_THREADS = 2
_TIMEOUT = "600s"
NOW, BEFORE = "now ", "before "
"""How the names of columns begin that sum up what users did since they met the experiment, and before."""


@dataclass(frozen=True, slots=True)
class Summed:
    """A column of sums.

    Attributes:
        name: of the total.
        event: name of the measure, or type of the event, whose rows are summed.
        is_count: whether rows are counted; otherwise their values are summed.
    """

    name: str
    event: str
    is_count: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows count.

    Attributes:
        experiment_id: of the experiment.
        until: Unix seconds; what happened later does not count.
        window_seconds: how long after his first exposure a user's events count; None for as long as there are any.
        has_before: whether as much time before the first exposure is summed up too.
        recorded: sums over what was recorded for the experiment.
        logged: sums over the events of the log.
        shown: name of the total of items that the service showed; None leaves them out.
        phase: only users who met the experiment in this phase, by what they met in it; None for all.
    """

    experiment_id: str
    until: int
    window_seconds: int | None = None
    has_before: bool = True
    recorded: Sequence[Summed] = field(default=())
    logged: Sequence[Summed] = field(default=())
    shown: str | None = None
    phase: int | None = None


class ExperimentTotals:
    """Reads a log, which may be in use meanwhile.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Raises:
        ConfigError: if the URL names no database that can be used here.
    """

    def __init__(self, url: str) -> None:
        writer, self._reader = open_engines(url)[:2]
        if writer is not self._reader:
            writer.dispose()
        self._is_sqlite = self._reader.dialect.name == SQLITE
        self._path = self._reader.url.database or ""
        # What SQLAlchemy calls a file may be one in memory, or a URI.
        self._library = sqlite_library() if self._is_sqlite and Path(self._path).is_file() else None
        self.name = name_of(self._reader.url)

    def close(self) -> None:
        """Give back all connections."""
        self._reader.dispose()

    def users(self, selection: Selection) -> pl.DataFrame:
        """Return user_id, arm, phase, first (Unix seconds) and n_arms of all who met an arm, by user id.

        Of a user who met two arms at different times, the one that he met first.
        """
        its = (exposure_rows.c.experiment_id == selection.experiment_id) & (
            exposure_rows.c.timestamp <= selection.until
        )
        if selection.phase is not None:
            its &= exposure_rows.c.phase == selection.phase
        columns = (exposure_rows.c.user_id, exposure_rows.c.arm, exposure_rows.c.phase, exposure_rows.c.timestamp)
        found = self._exposures(sql.select(*columns).where(its)).sort("user_id", "first", "arm")
        if not (found["user_id"] == found["user_id"].shift()).any():
            return found.with_columns(n_arms=pl.lit(1, pl.UInt32))
        of_user = found.group_by("user_id", maintain_order=True)
        return of_user.agg(pl.col("arm", "phase", "first").first(), n_arms=pl.len())

    def totals(self, users: pl.Series, selection: Selection) -> Iterator[pl.DataFrame]:
        """Yield user_id and float64 sums of those users of whom there is anything, in any order.

        Names of sums begin with NOW or BEFORE. Beside them a frame has `n_events`, how many were counted. A user may be
        in one frame for each kind of source: what was recorded, events, what was shown.

        Args:
            users: (n_users,) String; they only say where SQLite's work is cut into pieces.
            selection: what counts.
        """
        if not len(users):
            return
        jobs = [
            (query, low, high)
            for query in self._queries(selection)
            for low, high in (
                pairwise([*users.sort().gather_every(USERS_AT_ONCE), None]) if self._is_sqlite else [("", None)]
            )
        ]
        frame = partial(self._stepped_frame, self._library) if self._library else self._frame
        with ThreadPoolExecutor(N_THREADS) as threads:
            yield from threads.map(lambda job: frame(*job), jobs)

    def spans(self, users: pl.Series, selection: Selection) -> Iterator[pl.DataFrame]:
        """Yield user_id, and float64 first_event and last_event (Unix seconds) of what `totals` counts of these users.

        As there, a user may be in one frame for each kind of source. It is asked of few users only: with it, `totals`
        would take a sixth longer.
        """
        for query in self._queries(selection, has_sums=False):
            for some in users.to_frame().iter_slices(NAMED_AT_ONCE):
                is_named = exposure_rows.c.user_id.in_(some.to_series().to_list())
                yield self._frame(replace(query, rows=query.rows.where(is_named)))

    def values(self, selection: Selection, name: str) -> Generator[pl.DataFrame]:
        """Yield user_id and float64 value, a row for each event since its user's first exposure that has a value.

        A frame is small, however many there are in all.

        Args:
            selection: what counts.
            name: of a total of the selection; it is its single values that are wanted.
        """
        its = [[each for each in columns if each.name == name] for columns in (selection.recorded, selection.logged)]
        wanted = replace(selection, has_before=False, recorded=its[0], logged=its[1], shown=None)
        for source, columns in self._sources(wanted):
            is_one = sql.and_(source.is_of(columns[0]), source.value.is_not(None))
            rows = _rows_of_users(wanted, source).with_only_columns(exposure_rows.c.user_id, source.value)
            yield from self._value_frames(rows.where(is_one).order_by(exposure_rows.c.user_id))

    def past(self, selection: Selection, since: int) -> Iterator[pl.DataFrame]:
        """Yield user_id and float64 sums (NOW) of all users of whom there is anything, met or not.

        Args:
            selection: what is summed; of `recorded`, what was recorded for any experiment.
            since: Unix seconds from which on events count, up to the selection's `until`.
        """
        for source, columns in self._sources(selection):
            at, user_id = source.table.c.timestamp, source.table.c.user_id
            sums = {f"{NOW}{each.name}": source.sum(each) for each in columns}
            statement = sql.select(user_id, *sums.values()).where(at >= since, at <= selection.until)
            yield self._rows(statement.group_by(user_id), _schema(sums))

    def _sources(self, selection: Selection) -> Iterator[tuple["_Source", Sequence[Summed]]]:
        if selection.recorded:
            yield _Source(measure_rows, measure_rows.c.value, measure_rows.c.name), selection.recorded
        if selection.logged:
            yield _Source(event_rows, event_rows.c.value, event_rows.c.event), selection.logged
        if selection.shown is not None:
            shown = impression_rows.c.shown if self._is_sqlite else sql.cast(impression_rows.c.shown, sql.JSON)
            source = _Source(impression_rows, sql.func.json_array_length(shown), None)
            yield source, [Summed(selection.shown, "")]

    def _queries(self, selection: Selection, *, has_sums: bool = True) -> Iterator["_Query"]:
        for source, columns in self._sources(selection):
            sums = _sums(selection, source, columns) if has_sums else _span(source)
            yield _Query(_rows_of_users(selection, source), sums, columns)

    def _frame(self, query: "_Query", low: str = "", high: str | None = None) -> pl.DataFrame:
        """Return the sums of the users from one up to another, that one not included."""
        return self._rows(_between(query.statement, low, high), _schema(query.sums))

    def _exposures(self, statement: "sql.Select[Any]") -> pl.DataFrame:
        schema = {"user_id": pl.String(), "arm": pl.String(), "phase": pl.Int32(), "first": pl.Int64()}
        if self._library is None:
            return self._rows(statement, schema)
        from rec_engine.data.sqlite_reading import rows_of  # and numba with it, which who only records can do without

        frames = [pl.DataFrame(schema=schema)]
        with named(self.name):
            for user_ids, arms, numbers in rows_of(self._library, self._path, *self._compiled(statement), n_integers=2):
                columns = {"user_id": user_ids, "arm": arms, "phase": numbers[:, 0], "first": numbers[:, 1]}
                frames.append(pl.DataFrame(columns, schema=schema))
        return pl.concat(frames, rechunk=True)

    def _stepped_frame(self, library: SqliteLibrary, query: "_Query", low: str, high: str | None) -> pl.DataFrame:
        """Return what `_frame` does, faster: SQLite only finds the rows.

        To add them up it would ask of each row whether it is of each of ten kinds.
        """
        from rec_engine.data.sqlite_reading import sums_by_user

        rows = _between(query.rows, low, high).order_by(exposure_rows.c.user_id)
        kinds = sorted({column.event for column in query.columns})
        frames = [pl.DataFrame(schema=_schema(query.sums))]
        with named(self.name):
            for sums in sums_by_user(library, self._path, *self._compiled(rows), kinds=kinds):
                figures = _figures(sums, kinds, query.columns)
                frames.append(pl.DataFrame({"user_id": sums.user_ids} | {name: figures[name] for name in query.sums}))
        return pl.concat(frames)

    def _value_frames(self, statement: "sql.Select[Any]") -> Generator[pl.DataFrame]:
        """Yield frames of user_id and value, of a statement that finds those by user."""
        schema = {"user_id": pl.String(), "value": pl.Float64()}
        if self._library is None:
            yield from self._streamed_frames(statement, schema)
            return
        from rec_engine.data.sqlite_reading import values_by_user

        with named(self.name):
            for user_ids, values in values_by_user(self._library, self._path, *self._compiled(statement)):
                yield pl.DataFrame({"user_id": user_ids, "value": values}, schema=schema)

    def _compiled(self, statement: "sql.Select[Any]") -> tuple[str, list[object]]:
        """Return a statement as SQLite reads it, and what stands for its question marks."""
        compiled = statement.compile(self._reader)
        return compiled.string, [compiled.params[name] for name in compiled.positiontup or ()]

    def _rows(self, statement: "sql.Select[Any]", schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=schema), *self._frames(statement, schema)], rechunk=True)

    def _frames(self, statement: "sql.Select[Any]", schema: Mapping[str, pl.DataType]) -> Generator[pl.DataFrame]:
        """Yield the rows of a statement, some at a time; PostgreSQL sends all of them at once, which is fast."""
        with named(self.name), self._reader.connect() as connection:
            self._take_time(connection)
            cursor = connection.execute(statement).cursor
            while cursor is not None and (rows := cursor.fetchmany(ROWS_AT_ONCE)):
                yield _frame_of(rows, schema)

    def _streamed_frames(
        self, statement: "sql.Select[Any]", schema: Mapping[str, pl.DataType]
    ) -> Generator[pl.DataFrame]:
        """Yield the same of rows that may be too many to hold: they stay with the server until they are asked for."""
        options = {"stream_results": True, "max_row_buffer": ROWS_AT_ONCE}
        with named(self.name), self._reader.connect() as connection:
            if not self._is_sqlite:  # a cursor that stays with the server lives in a transaction
                connection.execution_options(isolation_level="READ COMMITTED")
            self._take_time(connection)
            with closing(connection.execute(statement, execution_options=options)) as result:
                while rows := result.fetchmany(ROWS_AT_ONCE):
                    yield _frame_of(rows, schema)

    def _take_time(self, connection: sql.Connection) -> None:
        """Let the statements of a connection take longer than those of a request may."""
        if not self._is_sqlite:
            connection.exec_driver_sql(f"SET statement_timeout = '{_TIMEOUT}'")


@dataclass(frozen=True, slots=True)
class _Query:
    """Rows of users, and what is summed up over those of each.

    The sums' names are no business of the database: it is not asked to take whatever somebody calls his totals.
    """

    rows: sql.Select[Any]
    sums: "Mapping[str, sql.ColumnElement[Any]]"
    columns: Sequence[Summed]

    @property
    def statement(self) -> sql.Select[Any]:
        """One row a user: his id and the sums."""
        user_id = exposure_rows.c.user_id
        return self.rows.with_only_columns(user_id, *self.sums.values()).group_by(user_id)


@dataclass(frozen=True, slots=True)
class _Source:
    """A table of what users did, what its rows add to a sum, and of what kind they are, where there are several."""

    table: sql.Table
    value: "sql.ColumnElement[Any]"
    kind: "sql.Column[str] | None"

    def is_of(self, column: Summed) -> "sql.ColumnElement[bool]":
        """Return which rows are of a column's kind."""
        return sql.true() if self.kind is None else self.kind == column.event

    def sum(self, column: Summed, when: "sql.ColumnElement[bool] | None" = None) -> "sql.ColumnElement[Any]":
        """Return the sum over some of the rows, 0 over none."""
        summed = sql.func.count() if column.is_count else sql.func.sum(self.value)
        return sql.func.coalesce(summed.filter(self.is_of(column), sql.true() if when is None else when), 0.0)


def _rows_of_users(selection: Selection, source: _Source) -> "sql.Select[Any]":
    """Return the rows of a source that count: whose they are, of what kind, what they add, when, and since when."""
    at, met, end = source.table.c.timestamp, exposure_rows.c.timestamp, sql.literal(selection.until)
    span: sql.ColumnElement[Any] = end - met
    if (window := selection.window_seconds) is not None:
        span = sql.case((span < window, span), else_=sql.literal(window))
    first = met - span if selection.has_before else met
    # Not the column itself: from a range of its values SQLite would infer the same range of the events, and read all of
    # those for each user instead of his own.
    same_user = source.table.c.user_id == exposure_rows.c.user_id.concat("")
    kind = sql.literal("") if source.kind is None else source.kind
    rows = (
        sql.select(exposure_rows.c.user_id, kind, source.value, at, met)
        .join_from(exposure_rows, source.table, same_user)
        .where(exposure_rows.c.experiment_id == selection.experiment_id, met <= end, at >= first)
        .where(at <= (end if window is None else met + span))
    )
    if selection.phase is not None:
        rows = rows.where(exposure_rows.c.phase == selection.phase)
    if source.table is measure_rows:
        rows = rows.where(measure_rows.c.experiment_id == exposure_rows.c.experiment_id)
    return rows


def _sums(selection: Selection, source: _Source, columns: Sequence[Summed]) -> "dict[str, sql.ColumnElement[Any]]":
    at, met = source.table.c.timestamp, exposure_rows.c.timestamp
    sums = {f"{NOW}{each.name}": source.sum(each, at >= met) for each in columns}
    if selection.has_before:
        sums |= {f"{BEFORE}{each.name}": source.sum(each, at < met) for each in columns}
    return sums | {"n_events": sql.func.count()}


def _span(source: _Source) -> "dict[str, sql.ColumnElement[Any]]":
    at = source.table.c.timestamp
    return {"first_event": sql.func.min(at), "last_event": sql.func.max(at)}


def _between(statement: "sql.Select[Any]", low: str, high: str | None) -> "sql.Select[Any]":
    """Return a statement about the users from one up to another, that one not included."""
    within = statement.where(exposure_rows.c.user_id >= low) if low else statement
    return within.where(exposure_rows.c.user_id < high) if high is not None else within


def _figures(sums: "UserSums", kinds: Sequence[str], columns: Sequence[Summed]) -> dict[str, NDArray[np.float64]]:
    """Return (n_users,) float64 each, by the names of `totals`."""
    figures = {"n_events": sums.counts.sum(axis=(1, 2))}
    for column in columns:
        of_kind = (sums.counts if column.is_count else sums.sums)[:, :, kinds.index(column.event)]
        figures |= {BEFORE + column.name: of_kind[:, 0], NOW + column.name: of_kind[:, 1]}
    return figures


def _schema(sums: Iterable[str]) -> dict[str, pl.DataType]:
    return {"user_id": pl.String()} | {name: pl.Float64() for name in sums}


def _frame_of(rows: Sequence[Sequence[Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the rows as a frame; column by column, which is faster than row by row."""
    columns = zip(schema.items(), zip(*rows, strict=True), strict=True)
    return pl.DataFrame([pl.Series(name, values, dtype) for (name, dtype), values in columns])
