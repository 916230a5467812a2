"""The rules of a shop as they go over the wire: what they say, and what they would change."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, model_validator

from rec_engine.retrieval.predicates import Predicate
from rec_engine.serving.wire import MAX_CATEGORIES, Asked, Id, Name, Timestamp, Wire

MAX_RULES = 200
MAX_RULE_ITEMS = 1_000
MAX_PINS = 100
MAX_LOG_ODDS = 20.0
"""By so much any item passes any other: a click of one in 500 million becomes an even chance."""
MAX_DRY_RUN_USERS = 50

RuleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Position = Annotated[int, Field(ge=1, le=1_000)]
RuleAction = Literal["pin", "boost", "bury", "hide"]
State = Literal["in force", "to come", "over"]


class AppliesTo(Asked):
    """For which requests a rule holds: those that all of this is true of; for all of them when it is empty."""

    categories: list[Name] = Field(default=[], max_length=MAX_CATEGORIES)
    """The request asks for at least one of these (`filter_categories`); upper and lower case are the same."""
    users: Predicate | None = None
    """True of the user's attributes, in the language of `filter`; a user who is not known has none."""


class _Rule(Asked):
    applies_to: AppliesTo = AppliesTo()
    """For which requests it holds; without it for all."""
    starts_at: Timestamp | None = None
    """From when on: Unix seconds, milliseconds or ISO 8601; without it from now on."""
    ends_at: Timestamp | None = None
    """Until when, that moment not included; without it for ever."""
    priority: int = Field(default=0, ge=-1_000, le=1_000)
    """Of two pins for one place the one of the higher priority has it, then the one whose id comes first."""

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise ValueError("ends_at lies after starts_at")
        return self


class PinRule(_Rule):
    """Items that stand at given places of the list, if they may be shown to the user at all."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "pin", "items": ["sku-1"], "positions": [1]}]})

    action: Literal["pin"]
    items: list[Id] = Field(min_length=1, max_length=MAX_PINS)
    """Each once; one that nobody knows is pinned from the moment at which it is added."""
    positions: list[Position] = Field(default=[], max_length=MAX_PINS)
    """Of each of the items, from 1, counted over all pages; 1, 2, 3, ... when it is left out."""

    @model_validator(mode="after")
    def _has_a_place_for_each(self) -> Self:
        if self.positions and len(self.positions) != len(self.items):
            raise ValueError("positions has one for each of the items, or is left out")
        if len(set(self.positions)) < len(self.positions) or len(set(map(str, self.items))) < len(self.items):
            raise ValueError("each item and each position stands once in a rule")
        return self


class _Selecting(_Rule):
    items: list[Id] = Field(default=[], max_length=MAX_RULE_ITEMS)
    """The items that it is about."""
    filter: Predicate | None = None
    """Or else: those of which this is true."""

    @model_validator(mode="after")
    def _names_its_items_in_one_way(self) -> Self:
        if bool(self.items) == (self.filter is not None):
            raise ValueError("give either items or a filter")
        return self


class ShiftRule(_Selecting):
    """Items that stand higher or lower than they would; it brings none into the answer that no source offered."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"action": "boost", "by": 1.0, "filter": {"attribute": "brand", "equals": "acme"}}]
        }
    )

    action: Literal["boost", "bury"]
    by: float = Field(gt=0, le=MAX_LOG_ODDS, allow_inf_nan=False)
    """Log-odds: e^by is what the odds of a click are multiplied (boost) or divided (bury) by for the order. Where
    nothing was re-ranked, the share of the candidates that an item stands above takes the place of its chance."""


class HideRule(_Selecting):
    """Items that are not shown."""

    action: Literal["hide"]


Rule = Annotated[PinRule | ShiftRule | HideRule, Field(discriminator="action")]
"""What `PUT /rules/{rule_id}` takes."""

RULE: TypeAdapter[Rule] = TypeAdapter(Rule)
"""Reads a rule from JSON."""


class RuleView(Wire):
    """One rule, and how it stands now."""

    rule_id: RuleId
    rule: Rule
    state: State
    problem: str | None
    """What of it cannot be followed, such as an item or an attribute that there is not; null where all of it can."""


class RuleList(Wire):
    """What `GET /rules` answers."""

    rules: list[RuleView]
    """Those of the highest priority first, then by id."""


class RuleEffect(Wire):
    """What a rule did, or wanted to do, to one item."""

    rule_id: RuleId
    action: RuleAction
    position: int | None = None
    """At which it pins the item, counted over all pages."""
    log_odds: float | None = None
    """That it adds, below 0 where it buries."""


class DryRunRequest(Asked):
    """What `POST /rules/dry-run` takes: rules that there might be, and for whom to find out what they would change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"rules": {"summer": {"action": "pin", "items": ["sku-1"]}}, "user_ids": ["ann", "bob"]}]
        }
    )

    rules: dict[RuleId, Rule] = Field(default={}, max_length=MAX_RULES)
    """Those that would be put."""
    deleted: list[RuleId] = Field(default=[], max_length=MAX_RULES)
    """Those that would be deleted; ids of no rule delete nothing."""
    user_ids: list[Id] = Field(min_length=1, max_length=MAX_DRY_RUN_USERS)
    """Whose answers are compared."""
    num_recommendations: int | None = Field(default=None, ge=1, le=100)
    """Items of an answer; without it the service's `default_k`."""
    filter_categories: list[str] = Field(default=[], max_length=MAX_CATEGORIES)
    """What the requests ask for."""
    at: Timestamp | None = None
    """The moment at which the schedules are looked at; now without it."""


class Moved(Wire):
    """An item that is in both answers, at another place."""

    item_id: Id
    before: int
    """Place from 1."""
    after: int


class SlateDifference(Wire):
    """What the proposed rules would change for one user."""

    user_id: Id
    before: list[Id]
    """The answer with the rules as they are, best first."""
    after: list[Id]
    entering: list[Id]
    leaving: list[Id]
    moved: list[Moved]
    rules: list[RuleId]
    """The rules that would hold for him."""


class DryRunResponse(Wire):
    """What `POST /rules/dry-run` answers; nothing has changed."""

    n_users_changed: int
    n_entering: int
    """Over all users."""
    n_leaving: int
    n_moved: int
    users: list[SlateDifference]
