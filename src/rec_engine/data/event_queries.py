"""What the log is asked, in SQL."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from rec_engine.data.database import event_rows, impression_rows, item_rows, mark_rows, position_row


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked on the request path.

    Attributes:
        statement: for SQLAlchemy.
        on_sqlite: the same as SQLite's driver takes it, which costs a tenth; its values come in the order in which the
            statement names them.
    """

    statement: sql.Select[Any]
    on_sqlite: str

    @classmethod
    def of(cls, statement: sql.Select[Any]) -> "Question":
        """Return it in both forms."""
        return cls(statement, str(statement.compile(dialect=sqlite_dialect())))


POSITION = sql.select(position_row.c.value)
LATEST = Question.of(POSITION)
EVENT_COLUMNS = (
    event_rows.c.position, event_rows.c.event_id, event_rows.c.user_id, event_rows.c.item_id,
    event_rows.c.event, event_rows.c.timestamp, event_rows.c.value, event_rows.c.request_id, event_rows.c.context,
)  # fmt: skip
EVENTS_OF_USER = Question.of(
    sql.select(*EVENT_COLUMNS)
    .where(event_rows.c.user_id == sql.bindparam("user_id"), event_rows.c.position > sql.bindparam("after"))
    .order_by("position")
)
EVENTS_SINCE = (
    sql.select(*EVENT_COLUMNS)
    .where(event_rows.c.position > sql.bindparam("after"), event_rows.c.position <= sql.bindparam("until"))
    .order_by("position")
)
MET_SINCE = (
    sql.select(
        event_rows.c.user_id, event_rows.c.item_id, event_rows.c.event, event_rows.c.value, event_rows.c.timestamp
    )
    .where(event_rows.c.position > sql.bindparam("after"), event_rows.c.position <= sql.bindparam("until"))
    .order_by(event_rows.c.position)
)
ITEMS_SINCE = (  # to the end: without the changes that made room for them, earlier ones may not fit together
    sql.select(item_rows.c.position, item_rows.c.item_id, item_rows.c.status, item_rows.c.attributes)
    .where(item_rows.c.position > sql.bindparam("after"))
    .order_by("position")
)
LATEST_ITEM = sql.select(sql.func.coalesce(sql.func.max(item_rows.c.position), 0))
MARKS_SINCE = (
    sql.select(mark_rows.c.position, mark_rows.c.user_hash, mark_rows.c.kind)
    .where(mark_rows.c.position > sql.bindparam("after"), mark_rows.c.position <= sql.bindparam("until"))
    .order_by("position")
)
LATEST_EVENTS = (
    sql.select(*EVENT_COLUMNS)
    .where(event_rows.c.position > sql.bindparam("after"), event_rows.c.position <= sql.bindparam("until"))
    .order_by(event_rows.c.position.desc())
    .limit(sql.bindparam("n"))
)
LATEST_SHOWN = (
    sql.select(
        impression_rows.c.request_id, impression_rows.c.user_id, impression_rows.c.timestamp,
        impression_rows.c.model_version, impression_rows.c.shown,
    )
    .order_by(impression_rows.c.place.desc())
    .limit(sql.bindparam("n"))
)  # fmt: skip
LATEST_PLACE = sql.select(sql.func.coalesce(sql.func.max(impression_rows.c.place), 0))
SHOWN_AFTER = (
    sql.select(impression_rows.c.place, impression_rows.c.user_id, impression_rows.c.timestamp, impression_rows.c.shown)
    .where(impression_rows.c.place > sql.bindparam("after"))
    .order_by(impression_rows.c.place)
    .limit(sql.bindparam("n"))
)
SHOWN_TO_USER = Question.of(
    sql.select(impression_rows.c.timestamp, impression_rows.c.shown)
    .where(impression_rows.c.user_id == sql.bindparam("user_id"), impression_rows.c.timestamp > sql.bindparam("since"))
    .where(impression_rows.c.timestamp <= sql.bindparam("until"))
    .order_by(impression_rows.c.place.desc())
    .limit(sql.bindparam("n"))
    .offset(sql.bindparam("offset"))  # SQLite has no limit without one
)
ITEM = sql.select(item_rows.c.status, item_rows.c.attributes, item_rows.c.position).where(
    item_rows.c.item_id == sql.bindparam("item_id")
)


def events_of_item(statement: sql.Select[Any]) -> sql.Select[Any]:
    """Return the question, of one item's events only."""
    return statement.where(event_rows.c.item_id == sql.bindparam("item_id"))


def events_of_user(statement: sql.Select[Any]) -> sql.Select[Any]:
    """Return the question, of one user's events only."""
    return statement.where(event_rows.c.user_id == sql.bindparam("user_id"))


def shown_to_user(statement: sql.Select[Any]) -> sql.Select[Any]:
    """Return the question, of what one user was shown only."""
    return statement.where(impression_rows.c.user_id == sql.bindparam("user_id"))
