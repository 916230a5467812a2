"""What one server process answers from: the model, the log and the cache."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId
from rec_engine.data.events import (
    DELETED,
    Change,
    Erasure,
    EventStore,
    Impression,
    ItemChange,
    Touch,
    user_hash,
)
from rec_engine.data.group_commit import GroupCommit
from rec_engine.data.rules import RuleChange
from rec_engine.errors import ConflictError, NotFoundError, RecEngineError, StoreError
from rec_engine.serving.answers import Answerer
from rec_engine.serving.arm_models import ArmModels
from rec_engine.serving.cache import Cache
from rec_engine.serving.changes import change_of, event_of, values_of
from rec_engine.serving.comparisons import Timed, figures
from rec_engine.serving.dry_run import dry_run
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.serving.log_retention import LogRetention
from rec_engine.serving.opening import open_served
from rec_engine.serving.rule_schemas import DryRunRequest, DryRunResponse, Rule, RuleList, RuleView
from rec_engine.serving.schemas import RecommendRequest, SimilarItemsResponse, TrendingResponse, WhyNotResponse
from rec_engine.serving.served_experiments import ServedExperiments
from rec_engine.serving.shadow import Job, ShadowMode
from rec_engine.serving.state_schemas import (
    Erased,
    FeedbackEvent,
    FeedbackResponse,
    HistoryEntry,
    Item,
    ItemsAccepted,
    ShadowStatus,
    UserProfile,
)
from rec_engine.serving.swap import ModelWatch
from rec_engine.serving.telemetry import Telemetry
from rec_engine.serving.tracing import with_spans
from rec_engine.serving.treatments import Treatment
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import get_logger

PROFILE_ITEMS = 20
PROFILE_CATEGORIES = 10
REMAINS = (
    "a hash of the id, by which the model forgets what it was trained with; that part of its files goes with the next "
    "training"
)

REMAINS_WHILE_READ = (
    "; and, as long as another process reads them, pages of the event store's write-ahead log, which is emptied as "
    "soon as it lets go"
)
REMAINS_UNTIL_VACUUM = "; and deleted rows in PostgreSQL's own files, until it vacuums them"
MAX_CONFLICTS = 20
"""Times that items are checked again because others wrote items meanwhile."""

logger = get_logger(__name__)


class Engine:
    """Answers what the routes ask. Everything but writing happens in the caller's thread.

    Args:
        bundle: the model to begin with.
        config: of the service.
        cache: of whole answers.
        store: the log.
        telemetry: counts what is done.
        model_dir: the registry whose promoted version is served from now on; without it the bundle stays.
        clock: Unix seconds.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        config: ServingConfig,
        cache: Cache,
        store: EventStore,
        telemetry: Telemetry,
        *,
        model_dir: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.cache = cache
        self.store = store
        self.telemetry = telemetry
        self.clock = clock
        self.model_dir = model_dir
        self.writer = GroupCommit(store)
        self._items_lock = asyncio.Lock()
        self.live = LiveModel(bundle, config.recommendations, store)
        self.statistics = LiveStatistics(self.live, store)
        self.statistics.start()
        self.experiments = ServedExperiments(store.url, config.recommendations, clock, model_dir)
        wanted = self.experiments.model_versions
        self.arm_models = ArmModels(model_dir, config, store.url, wanted, clock) if model_dir else None
        self.answerer = self._answerer(self.live)
        telemetry.serves(bundle.version, bundle.manifest.created_at.timestamp())
        self.watch = ModelWatch(model_dir, bundle.version, self._prepare) if model_dir else None
        self.shadow = ShadowMode(model_dir, config, store.url) if model_dir else None
        self.retention = LogRetention(store.url, config.store, clock)
        self.retention.start()

    @property
    def bundle(self) -> ModelBundle:
        """The model that is served."""
        return self.live.bundle

    def close(self) -> None:
        """Write what is still to be written, first of all: the rest may take longer than whoever ends this waits."""
        with ExitStack() as closing:
            closing.callback(self.telemetry.close)
            closing.callback(self.tell_how_it_stands)
            closing.callback(self.store.close)
            closing.callback(self.retention.close)
            if self.watch:
                closing.callback(self.watch.close)
            if self.shadow:
                closing.callback(self.shadow.close)
            if self.arm_models:
                closing.callback(self.arm_models.close)
            closing.callback(self.statistics.close)
            closing.callback(self.experiments.close)
            closing.callback(self.writer.close)

    def tell_how_it_stands(self) -> None:
        """Let telemetry know how much is waiting and what is kept."""
        n_users = self.live.histories.n_kept
        self.telemetry.stands(n_waiting=self.writer.n_waiting, n_dropped=self.writer.n_dropped, n_users=n_users)
        self.telemetry.cache_stands(self.cache.levels)
        self.telemetry.counted(self.retention.take())
        self.telemetry.counted(self.experiments.treatments.take())
        if self.shadow:
            self.telemetry.counted(self.shadow.comparisons.take())

    def recommend(self, request: RecommendRequest, request_id: str) -> bytes:
        """Return the JSON of an answer; what it showed goes to the log a moment later."""
        lap = with_spans(self.telemetry.stop_watch(), request_id)
        shadow = self.shadow if self.shadow and self.shadow.wants(request_id) else None
        now, started = self.clock(), time.thread_time() if shadow else 0.0  # to ask it can cost half an answer
        self.catch_up()
        treatment = self.treatment(request.user_id)
        answer = self.answerer.recommend(request, request_id, lap, treatment)
        is_the_models = not treatment.rivals and answer.model_version == self.live.bundle.version
        if shadow and not treatment.key and not answer.is_cached:  # it knows of no arms
            shadow.offer(Job(request, request_id, now, Timed(answer, time.thread_time() - started)))
        self.telemetry.answered(answer.n_items, is_cached=answer.is_cached, degraded=answer.degraded)
        if drift := answer.drift:
            ranked = (drift.n_ranked, drift.ranked_scores) if is_the_models else (0, 0.0)
            self.telemetry.computed(*ranked, is_user_known=drift.is_user_known)
        # His exposure first: what he is shown belongs to the time after it, to the second.
        self.experiments.treatments.met(request.user_id, treatment)
        self.writer.note(
            Impression(
                request_id=request_id,
                user_id=str(request.user_id),
                timestamp=int(self.clock()),
                model_version=answer.model_version,
                shown=answer.shown.decode(),
                known=self.live.position,
            )
        )
        lap("record")
        return answer.body

    async def prepare_to_explain(self) -> None:
        """Return once answers can say what speaks for their items: what that takes is loaded beside other requests."""
        ranker = self.bundle.ranker
        if ranker is not None and not ranker.can_explain:
            with suppress(RecEngineError):  # whoever explains is told
                await asyncio.to_thread(lambda: ranker.booster)

    def similar_items(self, item_id: ExternalId, n_items: int, request_id: str) -> SimilarItemsResponse:
        """Return the items that are nearest to an item."""
        self.catch_up()
        return self.answerer.similar_items(item_id, n_items, request_id)

    def trending(self, n_items: int, category: str | None, time_window: str, request_id: str) -> TrendingResponse:
        """Return what was met most of late."""
        self.catch_up()
        return self.answerer.trending(n_items, category, time_window, request_id)

    async def record(self, events: Sequence[FeedbackEvent]) -> FeedbackResponse:
        """Return once these events are on disk.

        Raises:
            StoreError: if they are not.
        """
        now = self.clock()
        changes = [event_of(event, int(now)) for event in events]
        await self._write(changes)
        self.telemetry.acknowledged(len(changes))
        if self.shadow:
            self.shadow.heard(events)
        self.catch_up()
        code = self.live.catalogue.code
        return FeedbackResponse(
            event_ids=[change.event_id for change in changes],
            n_unknown_items=sum(code(event.item_id) < 0 for event in events),
        )

    def why_not(self, request: RecommendRequest, item_id: ExternalId, request_id: str) -> WhyNotResponse:
        """Return what keeps an item out of the answer to a request."""
        self.catch_up()
        return self.answerer.why_not(request, item_id, self.treatment(request.user_id), request_id)

    def shadow_status(self) -> ShadowStatus:
        """Return which version is tried beside the served one, and what came of it."""
        shadow = self.shadow
        if shadow is None or (asked := shadow.asked) is None:
            return ShadowStatus(version=None, share=None, is_tried=False, failure=None, figures=None)
        self.telemetry.counted(shadow.comparisons.take())
        return ShadowStatus(
            version=asked.version,
            share=asked.share,
            is_tried=shadow.version == asked.version,
            failure=shadow.failure,
            figures=figures(self.telemetry.totals("shadow_", asked.version)),
        )

    async def put_items(self, items: Sequence[Item]) -> ItemsAccepted:
        """Return once these items are on disk; the next answer of every worker knows them.

        What is acknowledged fits together: it was checked beside all items that were there when it was written.

        Raises:
            DataError: if a value is of another type than its attribute, or there is no room for so many new items.
            StoreError: if they could not be written.
        """
        values_by_id = {str(item.item_id): values_of(item) for item in items}
        changes = [change_of(item) for item in items]
        async with self._items_lock:  # of several at once in this process only one would be written
            for _ in range(MAX_CONFLICTS):
                self.catch_up()
                catalogue = self.live.catalogue
                catalogue.check(values_by_id)
                n_new = sum(catalogue.code(item_id) < 0 for item_id in values_by_id)
                with suppress(ConflictError):  # another worker was faster: check again, beside what it wrote
                    await self._write(changes, items_as_of=self.live.position)
                    return ItemsAccepted(n_new=n_new, n_changed=len(items) - n_new)
        raise StoreError("items change too fast to check others beside them", hint="send it again")

    async def delete_item(self, item_id: ExternalId) -> None:
        """Return once an item is shown to nobody any more.

        Raises:
            NotFoundError: if there is no such item.
        """
        self.catch_up()
        if self.live.catalogue.code(item_id) < 0:
            raise NotFoundError(f"there is no item {item_id!r}", hint="add it with POST /items")
        await self._write([ItemChange(str(item_id), DELETED, "{}")])

    def rules(self) -> RuleList:
        """Return all rules of the shop and how they stand now."""
        self.catch_up()
        book, now = self.live.rules, int(self.clock())
        return RuleList(rules=[book.view(rule_id, now) for rule_id in book.rules])

    async def put_rule(self, rule_id: str, rule: Rule) -> RuleView:
        """Return once a rule is on disk; the next answer of every worker follows it.

        Raises:
            NotFoundError: if it names an attribute that there is not.
            DataError: if it does not fit the attributes' types, or there are too many rules.
            StoreError: if it could not be written.
        """
        self.catch_up()
        book = self.live.rules.changed({rule_id: rule})
        await self._write([RuleChange(rule_id, rule.model_dump_json())])
        return book.view(rule_id, int(self.clock()))

    async def delete_rule(self, rule_id: str) -> None:
        """Return once a rule is followed by nobody any more.

        Raises:
            NotFoundError: if there is no such rule.
        """
        self.catch_up()
        if rule_id not in self.live.rules.rules and rule_id not in self.live.rules.unreadable:
            raise NotFoundError(f"there is no rule {rule_id!r}", hint="GET /rules lists them")
        await self._write([RuleChange(rule_id, None)])

    async def dry_run(self, asked: DryRunRequest) -> DryRunResponse:
        """Return what rules would change; nothing is written."""
        self.catch_up()
        return await dry_run(self.answerer, asked)

    def profile(self, user_id: ExternalId) -> UserProfile:
        """Return what is known of a user."""
        self.catch_up()
        user = self.live.user(user_id)
        bundle, view = self.bundle, self.live.catalogue.view
        liked = user.item_codes[user.weights > 0].tolist()
        counted = Counter(category for code in liked for category in view(code).categories)
        total = max(1, counted.total())
        known = {} if user.user_code < 0 else bundle.users.row(user.user_code, named=True)
        latest = slice(None, -PROFILE_ITEMS - 1, -1)
        rows = zip(
            user.item_codes[latest].tolist(),
            user.weights[latest].tolist(),
            user.timestamps[latest].tolist(),
            strict=True,
        )
        return UserProfile(
            user_id=user_id,
            is_known=user.user_code >= 0,
            version=user.version,
            n_interactions=len(user.item_codes),
            last_seen=int(user.timestamps[-1]) if len(user.timestamps) else None,
            favourite_categories={name: n / total for name, n in counted.most_common(PROFILE_CATEGORIES)},
            recent=[
                HistoryEntry(item_id=view(code).item_id, title=view(code).title, weight=weight, timestamp=at)
                for code, weight, at in rows
            ],
            attributes={name: value for name, value in known.items() if name != "user_id" and value is not None},
        )

    async def erase(self, user_id: ExternalId) -> Erased:
        """Return once nothing of a user is left in the log, and no answer knows him any more."""
        await self._write([Erasure(str(user_id), user_hash(user_id))])
        is_vacuumed = not self.store.url.startswith("sqlite")
        while_read = REMAINS_WHILE_READ if self.store.holds_erased else ""
        return Erased(user_id=user_id, remains=REMAINS + (REMAINS_UNTIL_VACUUM if is_vacuumed else while_read))

    async def invalidate(self, user_id: ExternalId) -> None:
        """Return once no answer that was made before can reach this user."""
        await self._write([Touch(user_hash(user_id))])

    def attributes(self, user_id: ExternalId) -> dict[str, object]:
        """Return what the model's data say of a user; nothing of one whom it does not know."""
        code = self.bundle.user_ids.code(user_id)
        return {} if code < 0 else self.bundle.users.row(code, named=True)

    def treatment(self, user_id: ExternalId) -> Treatment:
        """Return what experiments change for a user; that he has met it is not noted."""
        return self.experiments.treatments.of(user_id, lambda: self.attributes(user_id))

    def catch_up(self) -> None:
        """Let a new model take over, and follow the log to its end."""
        if self.watch and (ready := self.watch.take()):
            self.statistics.close()
            self.live = ready
            self.statistics = LiveStatistics(ready, self.store)
            self.statistics.start()
            self.answerer = self._answerer(ready)
            self.telemetry.serves(ready.bundle.version, ready.bundle.manifest.created_at.timestamp())
            logger.info("%s answers from now on", ready.bundle.version)
        self.live.catch_up()

    def _answerer(self, live: LiveModel) -> Answerer:
        others = self.arm_models.find if self.arm_models else lambda _: None
        return Answerer(live, self.config, self.cache, self.clock, others)

    def _prepare(self, directory: Path) -> LiveModel:
        return LiveModel(open_served(directory, self.config), self.config.recommendations, self.store)

    async def _write(self, changes: Sequence[Change], *, items_as_of: int | None = None) -> None:
        # Shielded: a request that is given up must not take back what other requests' changes are written with.
        await asyncio.shield(asyncio.wrap_future(self.writer.submit(changes, items_as_of=items_as_of)))
