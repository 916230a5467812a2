"""What goes over the wire."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticSerializationError

MAX_EXCLUDED = 1_000
MAX_CATEGORIES = 100
MAX_RECENT_ITEMS = 200

MAX_ID_LENGTH = 256
MAX_EVENTS = 1_000
MAX_SECONDS = 10**11
MAX_MILLISECONDS = 7 * 10**12


def _checked_id(value: object) -> object:
    """Return an id as it is; one sentence for everything that is none, instead of one for each type it might be."""
    is_integer = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if is_integer or (isinstance(value, str) and 1 <= len(value) <= MAX_ID_LENGTH and "\0" not in value):
        return value
    raise ValueError(f"an id is a 64-bit integer or a text of 1 to {MAX_ID_LENGTH} characters")


def _unix_seconds(value: object) -> object:
    """Return Unix seconds of seconds, milliseconds or ISO 8601 text."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is neither seconds, milliseconds nor ISO 8601") from None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_MILLISECONDS:
        raise ValueError("a time is given in Unix seconds, milliseconds or ISO 8601")
    return int(value if value < MAX_SECONDS else value / 1000)


Id = Annotated[int | str, BeforeValidator(_checked_id)]
"""A user's or item's id as the data has it: an integer or a text; 123 and "123" name the same."""
Timestamp = Annotated[int, BeforeValidator(_unix_seconds, json_schema_input_type=float | str)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
Action = Literal["view", "click", "like", "dislike", "share", "add_to_cart", "purchase", "rating"]


class Wire(BaseModel):
    """Base of every request and answer: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Asked(Wire):
    """Base of what clients send."""

    @model_validator(mode="after")
    def _is_unicode(self) -> Self:
        """Refuse text that is no Unicode (half of a surrogate pair): it could neither be answered nor stored."""
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("a text in the request is not valid Unicode") from error
        return self


class RecommendRequest(Asked):
    """What `POST /recommend` takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user_id": 123, "num_recommendations": 10, "filter_categories": ["Action", "Comedy"]}]
        }
    )

    user_id: Id
    """Whom to recommend to; an unknown user is answered from his recent items or from popularity."""
    num_recommendations: int | None = Field(default=None, ge=1, le=100)
    """Items wanted; without it the service's `default_k`."""
    filter_categories: list[str] = Field(default=[], max_length=MAX_CATEGORIES)
    """Only items of at least one of these categories; all items when empty."""
    exclude_items: list[Id] = Field(default=[], max_length=MAX_EXCLUDED)
    """Items that must not be shown; unknown ids exclude nothing."""
    use_reranking: bool = True
    """Whether the LightGBM ranker orders the candidates (when the model has one)."""
    context: "Context" = Field(default_factory=lambda: Context())
    """What the request says of itself."""


class Context(BaseModel):
    """What the request says of itself; keys other than `recent_items` do not change the answer yet."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    recent_items: list[Id] = Field(default=[], max_length=MAX_RECENT_ITEMS)
    """The latest items the user met, oldest first, after what the model's data holds of him."""


class ItemMetadata(Wire):
    """How an item came into the answer."""

    source: str
    """What offered it; the first where there are several."""
    retrieval_score: float | None
    """Cosine of user and item vector; null where only popularity offered the item."""
    ranking_score: float | None
    """Click probability; null when the answer was not re-ranked."""


class RecommendedItem(Wire):
    """One item of an answer."""

    item_id: Id
    title: str | None
    score: float
    """What the order goes by: the ranking score, or else the retrieval score."""
    categories: list[str]
    explanation: str
    """Why it is here, in words."""
    metadata: ItemMetadata


class AnswerMetadata(Wire):
    """How an answer was made."""

    latency_ms: float
    cached: bool
    model_version: str
    num_candidates: int
    reranked: bool
    experiment: str | None
    """Always null as long as there are no experiments."""
    user_known: bool
    """Whether the model has a history of this user; without one the answer comes from popularity."""
    degraded: list[str]
    """Parts that the answer had to do without."""


class RecommendResponse(Wire):
    """What `POST /recommend` answers: always min(wanted, eligible) items."""

    user_id: Id
    request_id: str
    recommendations: list[RecommendedItem]
    metadata: AnswerMetadata


class SimilarItemsResponse(Wire):
    """What `GET /similar-items/{item_id}` answers."""

    item_id: Id
    request_id: str
    similar_items: list[RecommendedItem]
    metadata: AnswerMetadata


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
    value: float | None = Field(default=None, allow_inf_nan=False)
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


class TrendingResponse(Wire):
    """What `GET /trending` answers."""

    request_id: str
    time_window: str
    items: list["RecommendedItem"]
    metadata: "AnswerMetadata"


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


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    hint: str = ""
    request_id: str
