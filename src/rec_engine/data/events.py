"""The one durable log: what users did, what changed in the catalogue, who asked to be forgotten.

Every write transaction takes its positions from one row that it locks, so positions grow in the order of commits on
SQLite and PostgreSQL alike, and whoever has read up to a position has missed nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError

from rec_engine.data.database import (
    event_rows,
    impression_rows,
    item_rows,
    mark_rows,
    name_of,
    named,
    open_engines,
    position_row,
    take_positions,
    transaction,
)
from rec_engine.data.dataset import ExternalId
from rec_engine.data.event_queries import (
    EVENTS_OF_USER,
    EVENTS_SINCE,
    ITEMS_SINCE,
    LATEST,
    LATEST_ITEM,
    MARKS_SINCE,
    MET_SINCE,
    POSITION,
    SHOWN_TO_USER,
    Question,
)
from rec_engine.data.experiment_tables import forget_shown
from rec_engine.data.rules import CHANGED, STANDING_RULES, RuleChange, StoredRules, write_rule
from rec_engine.data.schema import prepare
from rec_engine.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a user did.

    Attributes:
        event_id: the same id twice is the same event.
        user_id: as text.
        item_id: as text.
        event: one of EVENTS.
        timestamp: Unix seconds at which it happened; it may arrive late and out of order.
        value: such as the stars of a rating.
        request_id: of the answer that it reacts to.
        context: JSON, whatever the client said of it.
        position: in the log; 0 before it is written.
    """

    event_id: str
    user_id: str
    item_id: str
    event: str
    timestamp: int
    value: float | None = None
    request_id: str | None = None
    context: str | None = None
    position: int = 0


@dataclass(frozen=True, slots=True)
class ItemChange:
    """What an item is from now on; the latest change of an item stands.

    Attributes:
        item_id: as text.
        status: VISIBLE, HIDDEN or DELETED.
        attributes: JSON object of title, description, categories and further attributes.
        position: in the log; 0 before it is written.
    """

    item_id: str
    status: str
    attributes: str
    position: int = 0

    @property
    def values(self) -> dict[str, object]:
        """What `attributes` says."""
        found: dict[str, object] = json.loads(self.attributes)
        return found


@dataclass(frozen=True, slots=True)
class Erasure:
    """A user who is forgotten: what the log held of him before this position is gone.

    Attributes:
        user_id: as text.
        user_hash: what remains, so that a model trained before the erasure does not bring him back.
    """

    user_id: str
    user_hash: str


@dataclass(frozen=True, slots=True)
class Touch:
    """A user whose cached answers are to be made anew.

    Attributes:
        user_hash: of the user.
    """

    user_hash: str


@dataclass(frozen=True, slots=True)
class Impression:
    """What one answer showed.

    Attributes:
        request_id: of the answer.
        user_id: as text.
        timestamp: Unix seconds.
        model_version: that made it.
        shown: JSON list, best place first.
        known: how far its answer knew the log; it is not written for a user who was erased since.
    """

    request_id: str
    user_id: str
    timestamp: int
    model_version: str
    shown: str
    known: int


_Kind = TypeVar("_Kind")
NEWS_AT_ONCE = 5_000
Row = Sequence[Any]
Placed = Sequence[tuple[int, _Kind]]
Change = Event | ItemChange | RuleChange | Erasure | Touch | Impression
ERASED, TOUCHED = "erased", "touched"
VISIBLE, HIDDEN, DELETED = "visible", "hidden", "deleted"
"""What an item may be; hidden ones are known, and shown to nobody."""


@dataclass(frozen=True, slots=True)
class News:
    """What was written after one position, up to and with another, in the order of positions.

    Attributes:
        position: up to which this reads; the next news begin after it.
        events: as far as they were not erased since.
        items: the latest change of each item that has changed since, whatever its position: they fit together.
        erased: position by hash of the users who were forgotten.
        touched: position by hash of the users whose cached answers no longer stand.
        rules: all of them, as they are now; None where none has changed.
    """

    position: int
    events: tuple[Event, ...]
    items: tuple[ItemChange, ...]
    erased: dict[str, int]
    touched: dict[str, int]
    rules: StoredRules | None = None


class EventStore:
    """The log in one database.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`.

    Attributes:
        log_id: of this log and no other, as long as it lives.
        holds_erased: whether SQLite's write-ahead log may still hold what was erased; `forget` empties it.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be reached, or its tables are of another revision.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._writer, self._reader, self._files = open_engines(url)
        self.holds_erased = self._files is not None  # whoever erased before may have been killed before he got there
        insert = sqlite_insert(event_rows) if self._files else postgresql_insert(event_rows)
        self._insert_events = insert.on_conflict_do_nothing(index_elements=["event_id"])
        self.name = name_of(self._writer.url)
        with named(self.name):
            self.log_id = prepare(self._writer)

    def write(self, changes: Sequence[Change], *, items_as_of: int | None = None) -> None:
        """Write changes in this order, all or none; when it returns they are on disk.

        Args:
            changes: to be written.
            items_as_of: position up to which the writer knew the items, where what he writes was checked beside them.

        Raises:
            ConflictError: if an item has changed since; nothing is written then.
            StoreError: if the database fails; nothing is written then.
        """
        impressions = [change for change in changes if isinstance(change, Impression)]
        numbered = [change for change in changes if not isinstance(change, Impression)]
        with named(self.name), transaction(self._writer, self._files) as connection:
            if numbered:
                first = take_positions(connection, len(numbered)) + 1
                if items_as_of is not None and connection.execute(LATEST_ITEM).scalar_one() > items_as_of:
                    raise ConflictError("the items have changed meanwhile", hint="send it again")
                placed = list(enumerate(numbered, start=first))
                self._write_events(connection, _of(Event, placed))
                self._write_items(connection, _of(ItemChange, placed))
                self._write_erasures(connection, _of(Erasure, placed))
                for at, touch in _of(Touch, placed):
                    self._mark(connection, touch.user_hash, TOUCHED, at)
                for at, rule in _of(RuleChange, placed):
                    write_rule(connection, rule)
                    self._mark(connection, "", CHANGED, at)
            self._write_impressions(connection, impressions)
        if self._files and any(isinstance(change, Erasure) for change in changes):
            self.holds_erased = True
            self.forget()

    def forget(self) -> None:
        """Try to empty the write-ahead log of what was erased; `holds_erased` says whether it is to be tried again.

        Raises:
            StoreError: if the database fails.
        """
        if self._files and self.holds_erased:
            with named(self.name):
                self.holds_erased = not self._files.empty_log(self._reader)

    def go_on_from(self, position: int) -> None:
        """Give no position up to this one again: something has known a longer log than this is by now.

        Raises:
            StoreError: if the database fails.
        """
        is_before = position_row.c.value < position
        with named(self.name), transaction(self._writer, self._files) as connection:
            connection.execute(sql.update(position_row).where(is_before).values(value=position))

    def position(self) -> int:
        """Return how far the log has got."""
        return int(self.read(POSITION)[0][0])

    def latest(self) -> int:
        """Return how far the log has got; for one reader, in microseconds on SQLite.

        Raises:
            StoreError: if the database fails.
        """
        return int(self._asked(LATEST, {})[0][0])

    def news_without_events(self, after: int) -> News:
        """Return what was written after a position but for events, of which a bulk load may have written millions."""
        bounds = {"after": after, "until": self.position()}
        return self._news(bounds["until"], (), self.read(ITEMS_SINCE, bounds), self.read(MARKS_SINCE, bounds))

    def news(self, after: int) -> News:
        """Return what was written after a position, at most the next NEWS_AT_ONCE positions of it."""
        until = min(self.position(), after + NEWS_AT_ONCE)
        if until == after:
            return News(after, (), (), {}, {})
        bounds = {"after": after, "until": until}
        return self._news(until, *(self.read(since, bounds) for since in (EVENTS_SINCE, ITEMS_SINCE, MARKS_SINCE)))

    def met_after(self, position: int) -> tuple[int, Sequence[Row]]:
        """Return up to which position this reads; and user, item, type, value, time of the events until there."""
        until = min(self.position(), position + NEWS_AT_ONCE)
        return until, self.read(MET_SINCE, {"after": position, "until": until})

    def standing(self) -> News:
        """Return what stands of the catalogue, the rules and the erasures at this moment, without any event."""
        return self.news_without_events(0)

    def events_of(self, user_id: str, after: int = 0) -> list[Event]:
        """Return a user's events after a position, in the order of writing; of none in microseconds on SQLite."""
        rows = self._asked(EVENTS_OF_USER, {"user_id": user_id, "after": after})
        return [event_of_row(row) for row in rows]

    def shown_to(self, user_id: str, since: int, until: int, n: int) -> Sequence[Row]:
        """Return timestamp and `shown` of a user's latest n answers between two moments (Unix seconds), last first."""
        asked = {"user_id": user_id, "since": since, "until": until, "n": n, "offset": 0}
        return self._asked(SHOWN_TO_USER, asked)

    def count(self, kind: type[Event] | type[Impression] | type[ItemChange]) -> int:
        """Return how many of a kind the log holds."""
        table = {Event: event_rows, Impression: impression_rows, ItemChange: item_rows}[kind]
        return int(self.read(sql.select(sql.func.count()).select_from(table))[0][0])

    def close(self) -> None:
        """Give back all connections."""
        if self._files:
            self._files.close()
        self._writer.dispose()
        self._reader.dispose()

    def _write_events(self, connection: sql.Connection, placed: Placed[Event]) -> None:
        rows = [_fields(event) | {"position": at} for at, event in placed]
        if rows:
            connection.execute(self._insert_events, rows)

    def _write_items(self, connection: sql.Connection, placed: Placed[ItemChange]) -> None:
        if not placed:
            return
        latest = {change.item_id: (at, change) for at, change in placed}
        gone = sql.delete(item_rows).where(item_rows.c.item_id == sql.bindparam("key"))
        connection.execute(gone, [{"key": item_id} for item_id in latest])
        rows = [_fields(change) | {"position": at} for at, change in latest.values()]
        connection.execute(sql.insert(item_rows), rows)

    def _write_impressions(self, connection: sql.Connection, impressions: Sequence[Impression]) -> None:
        if not impressions:
            return
        hash_by_user = {shown.user_id: user_hash(shown.user_id) for shown in impressions}
        is_erased = (mark_rows.c.kind == ERASED) & mark_rows.c.user_hash.in_(hash_by_user.values())
        found = connection.execute(sql.select(mark_rows.c.user_hash, mark_rows.c.position).where(is_erased))
        erased = {row[0]: row[1] for row in found}
        kept = [shown for shown in impressions if erased.get(hash_by_user[shown.user_id], 0) <= shown.known]
        if kept:
            rows = [{name: value for name, value in _fields(shown).items() if name != "known"} for shown in kept]
            connection.execute(sql.insert(impression_rows), rows)

    def _write_erasures(self, connection: sql.Connection, placed: Placed[Erasure]) -> None:
        for at, erasure in placed:
            is_his = (event_rows.c.user_id == erasure.user_id) & (event_rows.c.position < at)
            connection.execute(sql.delete(event_rows).where(is_his))
            forget_shown(connection, erasure.user_id)
            self._mark(connection, erasure.user_hash, ERASED, at)

    @staticmethod
    def _mark(connection: sql.Connection, user_hash: str, kind: str, position: int) -> None:
        is_it = (mark_rows.c.user_hash == user_hash) & (mark_rows.c.kind == kind)
        connection.execute(sql.delete(mark_rows).where(is_it))
        connection.execute(sql.insert(mark_rows).values(user_hash=user_hash, kind=kind, position=position))

    def _news(self, until: int, events: Sequence[Row], items: Sequence[Row], marks: Sequence[Row]) -> News:
        has_rules = any(kind == CHANGED for *_, kind in marks)
        return News(
            position=until,
            events=tuple(map(event_of_row, events)),
            items=tuple(ItemChange(item, status, about, at) for at, item, status, about in items),
            erased={user_hash: at for at, user_hash, kind in marks if kind == ERASED},
            touched={user_hash: at for at, user_hash, kind in marks if kind == TOUCHED},
            rules=StoredRules.of(self.read(STANDING_RULES)) if has_rules else None,
        )

    def read(self, statement: sql.Select[Any], values: Mapping[str, object] | None = None) -> Sequence[Row]:
        """Return all rows of a question; a connection that the database dropped since its last use is replaced once."""
        with named(self.name):
            try:
                return self._rows(statement, values)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return self._rows(statement, values)

    def _asked(self, question: Question, values: dict[str, object]) -> Sequence[Row]:
        if not self._files:
            return self.read(question.statement, values)
        with named(self.name):
            return self._files.rows(self._reader, question.on_sqlite, tuple(values.values()))

    def _rows(self, statement: sql.Select[Any], values: Mapping[str, object] | None) -> Sequence[Row]:
        with self._reader.connect() as connection:
            cursor = connection.execute(statement, values or {}).cursor
            # What the driver has read: a row object of SQLAlchemy around each costs more than to read it.
            return list(cursor.fetchall()) if cursor else []


def user_hash(user_id: ExternalId) -> str:
    """Return what stands for an erased user, so that his id need not be kept."""
    return hashlib.sha256(f"rec-engine user {user_id}".encode()).hexdigest()


def _fields(change: Change) -> dict[str, object]:
    return {name: getattr(change, name) for name in change.__slots__}


def _of(kind: type[_Kind], placed: Sequence[tuple[int, Change]]) -> list[tuple[int, _Kind]]:
    return [(at, change) for at, change in placed if isinstance(change, kind)]


def event_of_row(row: Row) -> Event:
    """Return the event of a row with EVENT_COLUMNS."""
    position, event_id, user_id, item_id, event, timestamp, value, request_id, context = row
    return Event(event_id, user_id, item_id, event, timestamp, value, request_id, context, position)
