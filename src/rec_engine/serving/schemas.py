"""What goes over the wire."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticSerializationError

from rec_engine.retrieval.predicates import Predicate

MAX_EXCLUDED = 1_000
MAX_CATEGORIES = 100
MAX_RECENT_ITEMS = 200

MAX_ID_LENGTH = 256
MAX_EVENTS = 1_000
MAX_ATTRIBUTES = 100
MAX_TITLE = 1_000
MAX_DESCRIPTION = 20_000
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


def _shown_before(value: object) -> object:
    """Return the ids that a cursor stands for."""
    try:
        found = json.loads(base64.urlsafe_b64decode(str(value)))
        return [_checked_id(item_id) for item_id in found][:MAX_EXCLUDED]
    except (ValueError, TypeError):
        raise ValueError("a cursor is the next_cursor of an earlier answer") from None


def cursor_after(item_ids: Sequence[int | str]) -> str:
    """Return the cursor of an answer that comes after these items."""
    return base64.urlsafe_b64encode(json.dumps(list(item_ids), separators=(",", ":")).encode()).decode()


Id = Annotated[int | str, BeforeValidator(_checked_id)]
"""A user's or item's id as the data has it: an integer or a text; 123 and "123" name the same."""
Cursor = Annotated[list[Id], BeforeValidator(_shown_before, json_schema_input_type=str)]
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
    filter: Predicate | None = None
    """Only items of which it is true, such as {"attribute": "price", "below": 20}; see the guide to filters."""
    use_reranking: bool = True
    """Whether the LightGBM ranker orders the candidates (when the model has one)."""
    explain: bool = False
    """Whether each item says why it is here: sources, history, what the ranker made of it."""
    diversity: float | None = Field(default=None, ge=0, le=1)
    """How much likeness to the items above counts against an item; without it the service's `diversity`."""
    cursor: Cursor | None = None
    """`next_cursor` of an earlier answer: goes on after it and repeats no item."""
    context: "Context" = Field(default_factory=lambda: Context())
    """What the request says of itself."""


class Context(BaseModel):
    """What the request says of itself; keys other than `recent_items` do not change the answer yet."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    recent_items: list[Id] = Field(default=[], max_length=MAX_RECENT_ITEMS)
    """The latest items the user met, oldest first, after what the model's data holds of him."""


class Contribution(Wire):
    """What one feature adds to the log-odds of a click."""

    feature: str
    value: float | None
    contribution: float


class SourceRank(Wire):
    """How one source saw an item."""

    source: str
    score: float | None
    rank: int | None
    """From 1; null where the source did not offer it."""


class Why(Wire):
    """Why an item is here."""

    sources: list[SourceRank]
    """Those that offered it first."""
    drawn_by: list["ItemName"]
    """Items of the user's history that speak most for it."""
    log_odds: float | None
    """Of a click; null when the answer was not re-ranked."""
    base: float | None
    """Part of the log-odds that is the same for every item; base and contributions add up to them."""
    contributions: list[Contribution]
    """The strongest first, the last one sums up all others."""


class ItemName(Wire):
    """An item, named."""

    item_id: Id
    title: str | None


class WhyNotRequest(Asked):
    """What `GET /debug/why-not` takes: a request for recommendations, and the item that is missed in its answer."""

    user_id: Id
    item_id: Id
    num_recommendations: int | None = Field(default=None, ge=1, le=100)
    filter_categories: list[str] = Field(default=[], max_length=MAX_CATEGORIES)
    exclude_items: list[Id] = Field(default=[], max_length=MAX_EXCLUDED)
    use_reranking: bool = True

    def request(self) -> RecommendRequest:
        """Return the request whose answer is asked about."""
        return RecommendRequest.model_validate(self.model_dump(exclude={"item_id"}))


class WhyNotResponse(Wire):
    """What `GET /debug/why-not` answers."""

    user_id: Id
    item_id: Id
    step: str
    """That dropped it: catalogue, categories, filter, history, exclude_items, recall, rank or arrange; or shown."""
    detail: str
    place: int | None
    """From 1 in the order of scores; null where it was no candidate."""
    score: float | None
    needed: float | None
    """Score of the last item that is shown."""
    sources: list[SourceRank]


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
    why: Why | None = None
    """With `explain` only."""


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
    next_cursor: str | None = None
    """To ask for the items after these; null when there are no more."""


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
