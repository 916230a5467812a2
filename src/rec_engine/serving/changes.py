"""From what clients send to what the log keeps."""

import json
import uuid

from rec_engine.data.event_table import FUTURE_SECONDS
from rec_engine.data.events import HIDDEN, VISIBLE, Event, ItemChange
from rec_engine.serving.state_schemas import FeedbackEvent, Item


def event_of(asked: FeedbackEvent, now: int) -> Event:
    """Return an event for the log, at `now` (Unix seconds) where the client gave no time."""
    return Event(
        event_id=asked.event_id or str(uuid.uuid4()),
        user_id=str(asked.user_id),
        item_id=str(asked.item_id),
        event=asked.action,
        # A clock that is wrong by more than a day would make its user's latest items the latest for ever.
        timestamp=min(now if asked.timestamp is None else asked.timestamp, now + FUTURE_SECONDS),
        value=asked.value,
        request_id=asked.request_id,
        context=json.dumps(asked.context) if asked.context else None,
    )


def values_of(item: Item) -> dict[str, object]:
    """Return title, description, categories and attributes of an item."""
    about = item.model_dump(include={"title", "description", "categories"})
    return {**about, **item.attributes}


def change_of(item: Item) -> ItemChange:
    """Return what an item is from now on, for the log."""
    return ItemChange(str(item.item_id), HIDDEN if item.hidden else VISIBLE, json.dumps(values_of(item)))
