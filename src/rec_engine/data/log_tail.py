"""The end of the log, for people to look at: what came in last, what was shown last. Every question is bounded."""

from dataclasses import dataclass

from rec_engine.data.event_queries import (
    ITEM,
    LATEST_EVENTS,
    LATEST_SHOWN,
    events_of_item,
    events_of_user,
    shown_to_user,
)
from rec_engine.data.events import Event, EventStore, Impression, ItemChange, event_of_row
from rec_engine.data.shown_rows import placed

LOOKED_THROUGH_EVENTS = 100_000
"""Positions at the end of the log among which those of an item are looked for: no index leads from item to event."""
LOOKED_THROUGH_ANSWERS = 2_000
"""Answers, the latest ones, among which those that showed an item are looked for."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Which part of the log's end is wanted.

    Attributes:
        n: rows at most.
        after: position after which events are wanted.
        item_id: only of this item.
        user_id: only of this user.
    """

    n: int
    after: int = 0
    item_id: str | None = None
    user_id: str | None = None


def latest_events(store: EventStore, asked: Tail) -> tuple[int, list[Event]]:
    """Return how far the log has got, and the events that were written last, the latest first.

    Raises:
        StoreError: if the log cannot be read.
    """
    until = store.position()
    is_scan = asked.item_id is not None and asked.user_id is None
    after = max(asked.after, until - LOOKED_THROUGH_EVENTS) if is_scan else asked.after
    values: dict[str, object] = {"after": after, "until": until, "n": asked.n}
    statement = LATEST_EVENTS
    if asked.item_id is not None:
        statement, values = events_of_item(statement), values | {"item_id": asked.item_id}
    if asked.user_id is not None:
        statement, values = events_of_user(statement), values | {"user_id": asked.user_id}
    return until, [event_of_row(row) for row in store.read(statement, values)]


def latest_answers(store: EventStore, asked: Tail) -> list[tuple[Impression, int | None]]:
    """Return what was shown last, the latest first, and at which position the item was that is asked for.

    Raises:
        StoreError: if the log cannot be read.
    """
    n_read = asked.n if asked.item_id is None else LOOKED_THROUGH_ANSWERS
    statement = LATEST_SHOWN
    values: dict[str, object] = {"n": n_read}
    if asked.user_id is not None:
        statement, values = shown_to_user(statement), {"n": n_read, "user_id": asked.user_id}
    found: list[tuple[Impression, int | None]] = []
    for request_id, user_id, timestamp, version, shown in store.read(statement, values):
        position = None if asked.item_id is None else _position(shown, asked.item_id)
        if asked.item_id is None or position is not None:
            found.append((Impression(request_id, user_id, timestamp, version, shown, known=0), position))
    return found[: asked.n]


def item_change(store: EventStore, item_id: str) -> ItemChange | None:
    """Return what the log says of an item, None where it says nothing.

    Raises:
        StoreError: if the log cannot be read.
    """
    rows = store.read(ITEM, {"item_id": item_id})
    return ItemChange(item_id, *rows[0]) if rows else None


def _position(shown: str, item_id: str) -> int | None:
    return next((position for shown_id, position in placed(shown) if str(shown_id) == item_id), None)
