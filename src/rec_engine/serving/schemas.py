"""What goes over the wire."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticSerializationError

MAX_EXCLUDED = 1_000
MAX_CATEGORIES = 100
MAX_RECENT_ITEMS = 200

MAX_ID_LENGTH = 256


def _checked_id(value: object) -> object:
    """Return an id as it is; one sentence for everything that is none, instead of one for each type it might be."""
    is_integer = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if is_integer or (isinstance(value, str) and 1 <= len(value) <= MAX_ID_LENGTH):
        return value
    raise ValueError(f"an id is a 64-bit integer or a text of 1 to {MAX_ID_LENGTH} characters")


Id = Annotated[int | str, BeforeValidator(_checked_id)]
"""A user's or item's id as the data has it: an integer or a text; 123 and "123" name the same."""


class Wire(BaseModel):
    """Base of every request and answer: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class RecommendRequest(Wire):
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

    @model_validator(mode="after")
    def _is_unicode(self) -> Self:
        """Refuse text that is no Unicode (half of a surrogate pair): it could neither be answered nor stored."""
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("a text in the request is not valid Unicode") from error
        return self


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
