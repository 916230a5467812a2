"""A typed client of the service, a method a route."""

import time
from collections.abc import Mapping, Sequence
from types import NoneType, TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import httpx2
from pydantic import JsonValue

from rec_engine.client_calls import Call, Outcome, path, pause_seconds, read
from rec_engine.errors import ConfigError
from rec_engine.experiments.assignment import Assignment
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.proposal import Proposal
from rec_engine.retrieval.predicates import Predicate
from rec_engine.serving.cache import CacheStats
from rec_engine.serving.experiment_schemas import EffectsOverTime, PlanResponse, Step
from rec_engine.serving.explore_schemas import (
    Access,
    AnswerList,
    CategoryList,
    Changed,
    EventList,
    ItemDetails,
    ItemsFound,
    ModelVersions,
    UserList,
)
from rec_engine.serving.rule_schemas import DryRunRequest, DryRunResponse, Rule, RuleList, RuleView
from rec_engine.serving.schemas import (
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
    TrendingResponse,
    WhyNotResponse,
)
from rec_engine.serving.state_schemas import (
    Erased,
    FeedbackEvent,
    FeedbackResponse,
    Health,
    Item,
    ItemsAccepted,
    ModelStatus,
    Ready,
    ShadowStatus,
    UserProfile,
)
from rec_engine.serving.wire import Action

Id = int | str
T = TypeVar("T")


class RecEngineClient:
    """The service, as seen from Python: a method a route, with the service's own types.

    Whatever the service refuses is a `ServiceError` that holds the problem it stated. A call is sent again after a lost
    connection, 429, 502, 503 or 504, as long as sending it twice does no harm: feedback gets its event id here, so that
    it counts once. Experiments are changed once or not at all.

    Args:
        base_url: where the service answers.
        api_key: sent with every call.
        timeout_seconds: to connect, to write, and between two parts of an answer.
        attempts: how often a call is sent at most.
        transport: what connects instead of the network, such as `httpx2.MockTransport` in tests.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout_seconds: float = 10.0,
        attempts: int = 3,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        if attempts < 1:
            raise ConfigError(f"attempts = {attempts}: a call is sent at least once")
        self._attempts = attempts
        shown = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._http = httpx2.Client(base_url=base_url, headers=shown, timeout=timeout_seconds, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def recommend(  # noqa: PLR0913 - the fields of the route
        self,
        user_id: Id,
        *,
        num_recommendations: int | None = None,
        filter_categories: Sequence[str] | None = None,
        exclude_items: Sequence[Id] | None = None,
        filter: Predicate | Mapping[str, object] | None = None,  # noqa: A002 - the route's name of it
        use_reranking: bool | None = None,
        explain: bool | None = None,
        diversity: float | None = None,
        cursor: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> RecommendResponse:
        """Return what to show a user; whatever is left out is as the service has it."""
        body = {
            "user_id": user_id,
            "num_recommendations": num_recommendations,
            "filter_categories": filter_categories,
            "exclude_items": exclude_items,
            "filter": filter,
            "use_reranking": use_reranking,
            "explain": explain,
            "diversity": diversity,
            "cursor": cursor,
            "context": context,
        }
        return self._send(Call("POST", "/recommend", RecommendResponse, body=body, is_repeatable=True))

    def preview(self, request: RecommendRequest) -> RecommendResponse:
        """Return what `recommend` would, and let nothing remember it; `context.recent_items` says what would be if."""
        return self._send(Call("POST", "/recommend/preview", RecommendResponse, body=request, is_repeatable=True))

    def similar_items(self, item_id: Id, num_items: int | None = None) -> SimilarItemsResponse:
        """Return the items that are nearest to an item."""
        query = {"num_items": num_items}
        return self._send(Call("GET", path("/similar-items/{}", item_id), SimilarItemsResponse, query))

    def trending(
        self, num_items: int | None = None, *, category: str | None = None, time_window: str | None = None
    ) -> TrendingResponse:
        """Return what was met most of late, within a time such as 24h or 7d."""
        query = {"num_items": num_items, "category": category, "time_window": time_window}
        return self._send(Call("GET", "/trending", TrendingResponse, query))

    def why_not(
        self,
        user_id: Id,
        item_id: Id,
        *,
        num_recommendations: int | None = None,
        filter_categories: Sequence[str] | None = None,
        exclude_items: Sequence[Id] | None = None,
        use_reranking: bool | None = None,
        request_id: str | None = None,
    ) -> WhyNotResponse:
        """Return which step keeps an item out of a user's answer, or out of that to a request, and by how much."""
        query = {
            "user_id": user_id,
            "item_id": item_id,
            "num_recommendations": num_recommendations,
            "filter_categories": filter_categories,
            "exclude_items": exclude_items,
            "use_reranking": use_reranking,
            "request_id": request_id,
        }
        return self._send(Call("GET", "/debug/why-not", WhyNotResponse, query))

    def feedback(  # noqa: PLR0913 - the fields of the route
        self,
        user_id: Id,
        item_id: Id,
        action: Action,
        *,
        value: float | None = None,
        timestamp: float | str | None = None,
        event_id: str | None = None,
        request_id: str | None = None,
        context: Mapping[str, object] | None = None,
    ) -> FeedbackResponse:
        """Keep what a user did; once this returns it is on disk.

        Args:
            user_id: who did it.
            item_id: what it was done to.
            action: what was done.
            value: such as the stars of a rating.
            timestamp: Unix seconds, milliseconds or ISO 8601; the moment of arrival without it.
            event_id: the same id twice is the same event; a new one is made where none is given.
            request_id: of the answer that it reacts to.
            context: whatever else is to be kept with it.
        """
        body = {
            "user_id": user_id,
            "item_id": item_id,
            "action": action,
            "value": value,
            "timestamp": timestamp,
            "event_id": event_id or uuid4().hex,
            "request_id": request_id,
            "context": context,
        }
        return self._send(Call("POST", "/feedback", FeedbackResponse, body=body, is_repeatable=True))

    def feedback_batch(self, events: Sequence[FeedbackEvent]) -> FeedbackResponse:
        """Keep many events at once, all or none; those without an event id are given one."""
        named = [each if each.event_id else each.model_copy(update={"event_id": uuid4().hex}) for each in events]
        body = {"events": named}
        return self._send(Call("POST", "/feedback/batch", FeedbackResponse, body=body, is_repeatable=True))

    def profile(self, user_id: Id) -> UserProfile:
        """Return what is known of a user."""
        return self._send(Call("GET", path("/user/{}/profile", user_id), UserProfile))

    def erase(self, user_id: Id) -> Erased:
        """Forget a user: his events and impressions are deleted."""
        return self._send(Call("DELETE", path("/user/{}", user_id), Erased))

    def invalidate_cache(self, user_id: Id) -> None:
        """Let every worker make this user's answers anew."""
        self._send(Call("POST", path("/user/{}/invalidate-cache", user_id), NoneType, is_repeatable=True))

    def users(self, prefix: str | None = None, *, num_users: int | None = None) -> UserList:
        """Return users of the model whose ids begin so."""
        return self._send(Call("GET", "/users", UserList, {"prefix": prefix, "num_users": num_users}))

    def events(
        self, *, after: int = 0, item_id: Id | None = None, user_id: Id | None = None, num_events: int | None = None
    ) -> EventList:
        """Return the latest events: of an item, of a user, or after a position of the log."""
        query = {"after": after, "item_id": item_id, "user_id": user_id, "num_events": num_events}
        return self._send(Call("GET", "/events", EventList, query))

    def impressions(
        self, *, item_id: Id | None = None, user_id: Id | None = None, num_answers: int | None = None
    ) -> AnswerList:
        """Return the latest answers that showed an item, or that a user got."""
        query = {"item_id": item_id, "user_id": user_id, "num_answers": num_answers}
        return self._send(Call("GET", "/impressions", AnswerList, query))

    def items(
        self, query: str = "", *, category: str | None = None, first: int = 0, num_items: int | None = None
    ) -> ItemsFound:
        """Return items whose titles have words that begin so, those that most users met first."""
        asked = {"query": query, "category": category, "first": first, "num_items": num_items}
        return self._send(Call("GET", "/items", ItemsFound, asked))

    def item(self, item_id: Id) -> ItemDetails:
        """Return what is known of an item."""
        return self._send(Call("GET", path("/items/{}", item_id), ItemDetails))

    def categories(self) -> CategoryList:
        """Return the categories of the catalogue."""
        return self._send(Call("GET", "/categories", CategoryList))

    def put_items(self, items: Sequence[Item]) -> ItemsAccepted:
        """Add items or change them, all or none; the next answer knows them."""
        return self._send(Call("POST", "/items", ItemsAccepted, body={"items": items}, is_repeatable=True))

    def delete_item(self, item_id: Id) -> None:
        """Take an item out of the catalogue."""
        self._send(Call("DELETE", path("/items/{}", item_id), NoneType))

    def rules(self) -> RuleList:
        """Return the rules of the shop, and how each of them stands."""
        return self._send(Call("GET", "/rules", RuleList))

    def put_rule(self, rule_id: str, rule: Rule) -> RuleView:
        """Add a rule or change it; the next answer of every worker follows it."""
        return self._send(Call("PUT", path("/rules/{}", rule_id), RuleView, body=rule))

    def delete_rule(self, rule_id: str) -> None:
        """Take a rule away."""
        self._send(Call("DELETE", path("/rules/{}", rule_id), NoneType))

    def dry_run(self, asked: DryRunRequest) -> DryRunResponse:
        """Return what rules would change for some users; nothing is kept."""
        return self._send(Call("POST", "/rules/dry-run", DryRunResponse, body=asked, is_repeatable=True))

    def experiments(self) -> list[Experiment]:
        """Return all experiments."""
        return self._send(Call("GET", "/experiments", list[Experiment]))

    def create_experiment(self, proposal: Proposal) -> Experiment:
        """Plan an experiment; nobody meets it before it is started."""
        return self._send(Call("POST", "/experiments", Experiment, body=proposal))

    def plan_experiment(self, proposal: Proposal, *, past_days: int | None = None) -> PlanResponse:
        """Return how many users and days an experiment would take, by what users did in as many days."""
        body = {"proposal": proposal, "past_days": past_days}
        return self._send(Call("POST", "/experiments/plan", PlanResponse, body=body, is_repeatable=True))

    def experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as it is now."""
        return self._send(Call("GET", path("/experiments/{}", experiment_id), Experiment))

    def redefine_experiment(self, experiment_id: str, proposal: Proposal) -> Experiment:
        """Plan an experiment anew; once it has begun, what it is to find stands."""
        called = path("/experiments/{}", experiment_id)
        return self._send(Call("PUT", called, Experiment, body=proposal, is_repeatable=False))

    def ramp_experiment(
        self, experiment_id: str, *, coverage: float | None = None, shares: Sequence[float] = (), reason: str = ""
    ) -> Experiment:
        """Give an experiment more users, or other shares; who met an arm stays in it."""
        body = {"coverage": coverage, "shares": shares or None, "reason": reason}
        return self._send(Call("POST", path("/experiments/{}/ramp", experiment_id), Experiment, body=body))

    def step_experiment(self, experiment_id: str, step: Step, *, reason: str | None = None) -> Experiment:
        """Start, pause, resume or stop an experiment."""
        called = path("/experiments/{}/{}", experiment_id, step)
        return self._send(Call("POST", called, Experiment, body={"reason": reason}))

    def experiment_assignment(self, experiment_id: str, user_id: Id) -> Assignment:
        """Return which arm an experiment has for a user, and why; that he has met it is not noted."""
        called = path("/experiments/{}/assignment", experiment_id)
        return self._send(Call("GET", called, Assignment, {"user_id": user_id}))

    def experiment_results(self, experiment_id: str) -> dict[str, JsonValue]:
        """Return what is known of an experiment, by its kind; `["recommendations"]["action"]` is the verdict of all."""
        return self._send(Call("GET", path("/experiments/{}/results", experiment_id), dict[str, JsonValue]))

    def experiment_effects(self, experiment_id: str) -> EffectsOverTime:
        """Return what was known of an A/B test's effects at its planned looks and at the end of each day."""
        return self._send(Call("GET", path("/experiments/{}/effects", experiment_id), EffectsOverTime))

    def experiment_report(self, experiment_id: str) -> str:
        """Return a page of HTML on an experiment; it needs nothing beside it."""
        return self._send(Call("GET", path("/experiments/{}/report", experiment_id), str))

    def health(self) -> Health:
        """Return that the process is alive."""
        return self._send(Call("GET", "/health", Health))

    def ready(self) -> Ready:
        """Return which model answers requests."""
        return self._send(Call("GET", "/ready", Ready))

    def model_status(self) -> ModelStatus:
        """Return what is known of the model that is served."""
        return self._send(Call("GET", "/model/status", ModelStatus))

    def models(self) -> ModelVersions:
        """Return the versions of the registry, and which was promoted when and why."""
        return self._send(Call("GET", "/models", ModelVersions))

    def promote(self, version: str, *, reason: str | None = None, force: bool | None = None) -> Changed:
        """Make a version the current one: one that has passed the gate beside that one, or any by force."""
        body = {"reason": reason, "force": force}
        return self._send(Call("POST", path("/models/{}/promote", version), Changed, body=body))

    def roll_back(self, *, leaving: str | None = None, reason: str | None = None) -> Changed:
        """Return from a version to the one before it; nothing is done where it is not the current one (any more)."""
        return self._send(Call("POST", "/models/rollback", Changed, body={"leaving": leaving, "reason": reason}))

    def model_report(self, version: str) -> str:
        """Return what training found out about a version, as a page of HTML."""
        return self._send(Call("GET", path("/models/{}/report", version), str))

    def model_figures(self, version: str) -> dict[str, JsonValue]:
        """Return every figure of a version's report."""
        return self._send(Call("GET", path("/models/{}/figures", version), dict[str, JsonValue]))

    def shadow(self) -> ShadowStatus:
        """Return how the version that is tried beside the served one does."""
        return self._send(Call("GET", "/models/shadow", ShadowStatus))

    def cache_stats(self) -> CacheStats:
        """Return what the cache did for the worker that answers."""
        return self._send(Call("GET", "/cache/stats", CacheStats))

    def access(self) -> Access:
        """Return what the key of this client allows."""
        return self._send(Call("GET", "/access", Access))

    def metrics(self) -> str:
        """Return all counts and times as Prometheus reads them."""
        return self._send(Call("GET", "/metrics", str))

    def stats(self) -> dict[str, JsonValue]:
        """Return the figures of `metrics` by name, with percentiles."""
        return self._send(Call("GET", "/stats", dict[str, JsonValue]))

    def _send(self, call: Call[T]) -> T:
        """Return what a call is answered with.

        Raises:
            ServiceError: if it was refused or failed as often as it may be sent.
        """
        sent, attempt = call.sent(), 1
        while True:
            try:
                outcome: Outcome = self._http.request(**sent)
            except httpx2.RequestError as error:
                outcome = error
            pause = pause_seconds(call, outcome, attempt, self._attempts)
            if pause is None:
                return read(call, outcome, attempt)
            time.sleep(pause)
            attempt += 1
