"""What changes the state of the service: feedback, items and users; and what the service says of itself."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from rec_engine.data.columns import MAX_VALUE
from rec_engine.serving.wire import (
    MAX_ATTRIBUTES,
    MAX_CATEGORIES,
    MAX_DESCRIPTION,
    MAX_EVENTS,
    MAX_TITLE,
    Action,
    Asked,
    Id,
    Name,
    Timestamp,
    Wire,
)


class Item(Asked):
    """An item as it is from now on; what is left out is unknown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"item_id": "sku-1", "title": "Green tea", "categories": ["Tea"], "attributes": {"price": 4.5}}
            ]
        }
    )

    item_id: Id
    title: str | None = Field(default=None, max_length=MAX_TITLE)
    description: str | None = Field(default=None, max_length=MAX_DESCRIPTION)
    categories: list[Name] = Field(default=[], max_length=MAX_CATEGORIES)
    attributes: dict[Name, bool | int | float | str | list[str] | None] = Field(default={}, max_length=MAX_ATTRIBUTES)
    hidden: bool = False
    """Known, and shown to nobody."""

    @model_validator(mode="after")
    def _is_unambiguous(self) -> Self:
        if taken := {"item_id", "title", "description", "categories"} & self.attributes.keys():
            raise ValueError(f"attributes: {', '.join(sorted(taken))} have fields of their own")
        return self


class ItemBatch(Asked):
    """What `POST /items` takes."""

    items: list[Item] = Field(min_length=1, max_length=MAX_EVENTS)
    """All are taken, or none."""


class ItemsAccepted(Wire):
    """What `POST /items` answers once the items are on disk."""

    n_new: int
    n_changed: int


class FeedbackEvent(Asked):
    """What `POST /feedback` takes."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": 123, "item_id": 456, "action": "click", "event_id": "6f9c-1"}]}
    )

    user_id: Id
    """Who did it."""
    item_id: Id
    """What it was done to; an item that nobody knows yet counts from the moment at which it is added."""
    action: Action
    """What was done."""
    value: float | None = Field(default=None, ge=-MAX_VALUE, le=MAX_VALUE, allow_inf_nan=False)
    """Such as the stars of a rating."""
    timestamp: Timestamp | None = None
    """When: Unix seconds, milliseconds or ISO 8601; now without it. Late events find their place."""
    event_id: Name | None = None
    """The same id twice is the same event, so that a client may send again what was not acknowledged."""
    request_id: Name | None = None
    """Of the answer that it reacts to."""
    context: dict[str, JsonValue] = {}
    """Whatever else is to be kept with it."""


class FeedbackBatch(Asked):
    """What `POST /feedback/batch` takes."""

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_EVENTS)
    """All are written, or none."""


class FeedbackResponse(Wire):
    """What feedback is answered with once it is on disk."""

    event_ids: list[str]
    """In the order of the events; made here where the client gave none."""
    n_unknown_items: int
    """Events of items that nobody knows yet."""


class HistoryEntry(Wire):
    """One thing that a user did."""

    item_id: Id
    title: str | None
    weight: float
    timestamp: int


class UserProfile(Wire):
    """What `GET /user/{user_id}/profile` answers."""

    user_id: Id
    is_known: bool
    """Whether the model was trained with him."""
    version: int
    """Grows with every event; part of every cache key."""
    n_interactions: int
    last_seen: int | None
    """Unix seconds."""
    favourite_categories: dict[str, float]
    """Share of what he liked, the largest first."""
    recent: list[HistoryEntry]
    """The latest things he did, newest first."""
    attributes: dict[str, JsonValue]


class Erased(Wire):
    """What `DELETE /user/{user_id}` answers."""

    user_id: Id
    remains: str
    """What of him is still on disk, and how it goes."""


class Health(Wire):
    """What `GET /health` answers."""

    status: Literal["alive"]


class Ready(Wire):
    """What `GET /ready` answers."""

    status: Literal["ready"]
    model_version: str


class ModelStatus(Wire):
    """What `GET /model/status` answers."""

    version: str
    created_at: str
    dataset: str
    dataset_fingerprint: str
    n_users: int
    n_items: int
    n_interactions: int
    index_type: str
    index_recall: float
    has_ranker: bool
    metrics: dict[str, float]
    """Of the held-out test part, as measured when the model was made."""
    failure: str | None
    """Why the promoted version is not served; null while it is. It is tried again, at most a minute later."""
    n_items_left_out: int
    """Changes of items for which this server process has no room, a restart makes some; or that it could not apply."""


class ShadowFigures(Wire):
    """What a version did beside the served one, over all workers since the server started."""

    n_compared: int
    """Requests that both answered."""
    n_dropped: int
    """That it was too slow for."""
    n_failed: int
    """That it could not answer."""
    overlap: float | None
    """Share of items that both showed, on average; null where nothing was compared."""
    rank_biased_overlap: float | None
    """Likeness of the orders, persistence 0.9, on average."""
    cpu_seconds: dict[Literal["served", "shadow"], float | None]
    """Of an answer, on average."""
    degraded_share: dict[Literal["served", "shadow"], float | None]
    n_clicks: int
    """Items of compared answers that users chose, as far as feedback named the answer's `request_id`."""
    clicks_found: float | None
    """Share of them that the shadow would have shown too."""
    click_reciprocal_rank: dict[Literal["served", "shadow"], float | None]
    """Mean of 1 / rank of these items, 0 where the model would not have shown it."""


class ShadowStatus(Wire):
    """What `GET /models/shadow` answers."""

    version: str | None
    """That is tried, or to be tried; null for none."""
    share: float | None
    """Of the requests that are computed."""
    is_tried: bool
    """Whether this worker has it ready."""
    failure: str | None
    """Why it is not tried, or did not answer, as this worker saw it last."""
    figures: ShadowFigures | None


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    request_id: str
