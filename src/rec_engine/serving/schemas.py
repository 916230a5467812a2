"""What recommendations are asked with and answered by."""

from dataclasses import dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from rec_engine.retrieval.predicates import Predicate
from rec_engine.serving.rule_schemas import RuleEffect, RuleId
from rec_engine.serving.wire import MAX_CATEGORIES, MAX_EXCLUDED, MAX_RECENT_ITEMS, Asked, Cursor, Id, Wire

ANSWERED = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""What every answer has ten of is no pydantic model: its fields are ours, so nobody checks them on each request."""


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

    @cached_property
    def canonical(self) -> str:
        """JSON of every field, defaults included: two requests that differ in it may be answered differently.

        123 and "123" are the same user.
        """
        return self.model_copy(update={"user_id": str(self.user_id)}).model_dump_json()


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
    rules: list[RuleEffect] = []
    """What rules ask of it; its score and its log-odds are without them."""
    arm: str | None = None
    """Of the interleaving whose pick it is, with the experiment's name; null where it is no arm's."""


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
    request_id: str = Field(default="", max_length=200)
    """Of the answer, where two arms of an interleaving fill it by turns: it says who began."""

    def request(self) -> RecommendRequest:
        """Return the request whose answer is asked about."""
        return RecommendRequest.model_validate(self.model_dump(exclude={"item_id", "request_id"}))


class WhyNotResponse(Wire):
    """What `GET /debug/why-not` answers."""

    user_id: Id
    item_id: Id
    step: str
    """That dropped it: catalogue, categories, filter, rules, history, exclude_items, recall, rank or arrange; or shown.
    """
    detail: str
    place: int | None
    """From 1 in the order of scores, in which boosted and buried items are where rules put them; null where it was no
    candidate."""
    score: float | None
    """In that order."""
    needed: float | None
    """Score of the last item that is shown and not pinned."""
    sources: list[SourceRank]
    rules: list[RuleEffect]
    """What rules ask of it."""


@dataclass(slots=True)
class ItemMetadata:
    """How an item came into the answer."""

    __pydantic_config__ = ANSWERED

    source: str
    """What offered it; the first where there are several; `pinned` where only a rule brought it in."""
    retrieval_score: float | None
    """Cosine of user and item vector; null where only popularity offered the item."""
    ranking_score: float | None
    """Click probability; null when the answer was not re-ranked."""


@dataclass(slots=True)
class RecommendedItem:
    """One item of an answer."""

    __pydantic_config__ = ANSWERED

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


@dataclass(slots=True)
class AnswerMetadata:
    """How an answer was made."""

    __pydantic_config__ = ANSWERED

    latency_ms: float
    cached: bool
    model_version: str
    num_candidates: int
    reranked: bool
    experiment: str | None
    """`experiment/arm` of each experiment that the user is in, joined by blanks; null where he is in none. Of an
    interleaving the arm is `interleaved`."""
    user_known: bool
    """Whether the model has a history of this user; without one the answer comes from popularity."""
    degraded: list[str]
    """Parts that the answer had to do without: `events`, `ranker`, `model_version` (of an arm), or the name of a
    source."""
    rules: list[RuleId]
    """Rules of the shop that hold for the request, whether or not they changed anything."""
    next_cursor: str | None = None
    """To ask for the items after these; null when there are no more."""


@dataclass(slots=True)
class RecommendResponse:
    """What `POST /recommend` answers: always min(wanted, eligible) items."""

    __pydantic_config__ = ANSWERED

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


class TrendingResponse(Wire):
    """What `GET /trending` answers."""

    request_id: str
    time_window: str
    items: list["RecommendedItem"]
    metadata: "AnswerMetadata"
