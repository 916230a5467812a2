"""What people look at: what is in the catalogue, what came in, and which versions there are."""

from typing import Literal

from pydantic import Field, JsonValue

from rec_engine.serving.wire import Asked, Id, Wire
from rec_engine.utils.config import ScopeName


class Access(Wire):
    """What `GET /access` answers."""

    needs_key: bool
    """Whether the service has keys; without any everybody who reaches it may do everything."""
    scopes: list[ScopeName]
    """What the request's key allows, or what everybody may do."""


class FoundItem(Wire):
    """An item of the catalogue, as a list shows it."""

    item_id: Id
    title: str | None
    categories: list[str]
    n_users: int
    """Who met it, as far as the model and its statistics know."""


class ItemsFound(Wire):
    """What `GET /items` answers."""

    n_found: int
    items: list[FoundItem]
    """Those that most users met first."""


class ItemDetails(Wire):
    """What `GET /items/{item_id}` answers."""

    item_id: Id
    title: str | None
    description: str | None
    categories: list[str]
    attributes: dict[str, JsonValue]
    """Those that have a value."""
    is_visible: bool
    """Whether it may be shown to anybody."""
    n_users: int
    """Who met it, as far as the model and its statistics know."""


class CategoryList(Wire):
    """What `GET /categories` answers."""

    categories: list[str]
    """Of the items that the model was trained with, by name; at most 1,000."""


class LoggedEvent(Wire):
    """An event of the log."""

    position: int
    """In the log; a later event has a higher one."""
    event_id: str
    user_id: str
    item_id: str
    title: str | None
    """Of the item; null where it has none, or nobody knows the item."""
    action: str
    """One of those of `POST /feedback`, or what a later release knows beside them."""
    value: float | None
    timestamp: int
    """Unix seconds at which it happened, which may be long before it was logged."""
    request_id: str | None
    """Of the answer that it reacts to."""


class EventList(Wire):
    """What `GET /events` answers."""

    position: int
    """How far the log has got: `after` of the next question."""
    events: list[LoggedEvent]
    """The latest in the log first."""


class LoggedAnswer(Wire):
    """An answer that showed items to a user."""

    request_id: str
    user_id: str
    timestamp: int
    """Unix seconds."""
    model_version: str
    n_items: int
    """That it showed."""
    position: int | None
    """At which it showed the item that was asked for, from 1; null where none was asked for."""


class AnswerList(Wire):
    """What `GET /impressions` answers."""

    answers: list[LoggedAnswer]
    """The latest first."""


class UserList(Wire):
    """What `GET /users` answers."""

    users: list[Id]
    """Ids of users that the model was trained with, in the order of the ids."""


class GateVerdict(Wire):
    """What the gate found of a version beside the current one."""

    passes: bool
    sentence: str
    """Why, or why not, with the figures."""


class ModelVersion(Wire):
    """A version of the model."""

    version: str
    created_at: str | None
    """ISO 8601; null where its manifest cannot be read."""
    dataset: str | None
    metrics: dict[str, float]
    """Of the held-out test part."""
    size_bytes: int
    is_current: bool
    has_report: bool
    """Whether training left a report of it."""
    damage: str | None
    """What is wrong with it; null for a version of which no file is missing."""
    gate: GateVerdict | None
    """Null where the gate has not compared it with the current one."""


class Promoted(Wire):
    """A promotion or rollback that took effect."""

    at: str
    action: Literal["promotion", "rollback"]
    version: str
    replaced: str | None
    reason: str


class ModelVersions(Wire):
    """What `GET /models` answers."""

    current: str | None
    """The promoted version."""
    rollback_to: str | None
    """What a rollback would return to; null where there is nothing."""
    versions: list[ModelVersion]
    """The newest first."""
    history: list[Promoted]
    """The latest first."""


class _Reasoned(Asked):
    reason: str = Field(default="", max_length=1_000, pattern=r"^[^\x00]*$")
    """Why, for the record."""


class Promotion(_Reasoned):
    """What promotion takes."""

    force: bool = False
    """Promote it although the gate keeps it out or has not compared it; its files are verified all the same."""


class Rollback(_Reasoned):
    """What rollback takes."""

    leaving: str | None = None
    """The version that is to be left: 409 where another one is current by now, as after a try whose answer was lost.
    Without it the current one is left, whichever it is."""


class Changed(Wire):
    """What promotion and rollback answer once the change is on disk; running servers follow within seconds."""

    current: str
