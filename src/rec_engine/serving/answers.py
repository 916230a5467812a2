"""From requests to answers: queries for the request path, and what it found as bytes for the wire and the cache."""

import hashlib
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rec_engine.data.dataset import ExternalId
from rec_engine.data.live import LiveUser
from rec_engine.errors import NotFoundError
from rec_engine.retrieval.budget import Budget
from rec_engine.retrieval.candidates import most
from rec_engine.serving.arrange import Arrangement
from rec_engine.serving.asked import asked_of
from rec_engine.serving.cache import Cache
from rec_engine.serving.drift import Drift, drift_of
from rec_engine.serving.explain import WhyNot, in_draft, why_not
from rec_engine.serving.inference import Lap, Query, unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.pages import Page, PlacedItem, coins_of, drafted, picks_of
from rec_engine.serving.rules import RuleBook
from rec_engine.serving.schemas import (
    AnswerMetadata,
    ItemMetadata,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
    TrendingResponse,
    WhyNotResponse,
)
from rec_engine.serving.stamps import milliseconds_since, stamped, without_stamp
from rec_engine.serving.treatments import Treatment
from rec_engine.serving.views import recommended_item, recommended_items, why_not_response, with_reasons
from rec_engine.serving.wire import MAX_EXCLUDED, cursor_after
from rec_engine.utils.config import ServingConfig

SECONDS_BY_UNIT = {"h": 3_600, "d": 86_400}
OTHER_VERSION = "model_version"
"""What an answer had to do without that an arm's own version was to make."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it leaves.

    Attributes:
        body: JSON of a RecommendResponse.
        shown: JSON list for the log, as of `Page.shown`.
        n_items: that it shows.
        is_cached: whether it was made before.
        model_version: that made it; two, with a plus between, where arms that filled it have different ones.
        degraded: parts that it had to do without.
        drift: what it tells of it; None where it was made before.
    """

    body: bytes
    shown: bytes
    n_items: int
    is_cached: bool
    model_version: str
    degraded: tuple[str, ...] = ()
    drift: Drift | None = None


class Answerer:
    """Answers requests from one model.

    Args:
        live: the model and what happened since.
        config: of the service.
        cache: of whole answers.
        clock: Unix seconds; the time of a request is part of what recommendations go by.
        others: name of another version, which an arm serves, to who answers from it; None while nobody does.
    """

    def __init__(
        self,
        live: LiveModel,
        config: ServingConfig,
        cache: Cache,
        clock: Callable[[], float] = time.time,
        others: "Callable[[str], Answerer | None]" = lambda _: None,
    ) -> None:
        self._others = others
        self.live = live
        self.config = config
        self.cache = cache
        self.clock = clock
        self._settings = config.recommendations.model_dump_json()
        self._untreated = Treatment(config.recommendations)

    def recommend(
        self, request: RecommendRequest, request_id: str, lap: Lap, treatment: Treatment | None = None
    ) -> Answer:
        """Return the answer to a request: always min(wanted, eligible) items.

        Nothing else runs in this process between the look into the cache and the entry that is made there, so one
        answer is never computed twice side by side.

        Raises:
            NotFoundError: if a category or attribute does not exist.
            DataError: if the filter does not fit the attributes' types.
        """
        started = time.perf_counter()
        user, now = self.live.user(request.user_id), int(self.clock())
        treatment = treatment or self._untreated
        parts = [self._part(each) for each in treatment.rivals or (treatment,)]
        version, key = _version(parts), self._kept_as(request, user.version, now, treatment, parts)
        is_behind = any(part.answerer.live.is_behind for part in parts)
        lap("state")
        if key and not is_behind and (stored := self.cache.get(key)) is not None:
            n_items, shown, body = stored.split(b"\n", 2)
            return Answer(
                stamped(body, request.user_id, request_id, started, is_cached=True),
                shown,
                int(n_items),
                is_cached=True,
                model_version=version,
            )
        budget = Budget(started + self.config.api.deadline_ms / 1000, time.perf_counter)
        pages = [self._page(request, request_id, now, part, lap, budget) for part in parts]
        page = pages[0] if len(pages) == 1 else self._drafted(request, request_id, treatment, pages)
        answer = self._answer(request, page, version, treatment.label)
        shown = page.shown(len(request.cursor or []), asked_of(request))
        body, degraded = without_stamp(answer), tuple(answer.metadata.degraded)
        n_shown = len(answer.recommendations)
        is_behind |= any(part.answerer.live.is_behind for part in parts)
        if key and not is_behind and not budget.missing:  # what was made without a part must not stay
            self.cache.set(key, b"%d\n%s\n%s" % (n_shown, shown, body), self.config.redis.cache_ttl)
        whole = stamped(body, request.user_id, request_id, started, is_cached=False)
        return Answer(
            whole, shown, n_shown, model_version=version, is_cached=False, degraded=degraded, drift=drift_of(answer)
        )

    def without_cache(self) -> "Answerer":
        """Return who answers the same, and neither looks into the cache nor leaves anything there."""
        redis = self.config.redis.model_copy(update={"cache_ttl": 0})
        config = self.config.model_copy(update={"redis": redis})
        return Answerer(self.live, config, self.cache, self.clock, self._others)

    def why_not(
        self, request: RecommendRequest, item_id: ExternalId, treatment: Treatment | None = None, request_id: str = ""
    ) -> WhyNotResponse:
        """Return the step that keeps an item out of the answer to a request, and by how much.

        Where two arms fill the answer, it is the one that is kept of the same request, else that of the request id.

        Raises:
            NotFoundError: if there is no such item.
        """
        user, now = self.live.user(request.user_id), int(self.clock())
        treatment = treatment or self._untreated
        parts = [self._part(each) for each in treatment.rivals or (treatment,)]
        found = [self._why_not(request, now, part, item_id) for part in parts]
        if len(found) == 1:
            return why_not_response(request, item_id, found[0])
        key = self._kept_as(request, user.version, now, treatment, parts)
        if key and (stored := self.cache.get(key)) is not None:
            shown = stored.split(b"\n", 2)[1]
        else:
            pages = [self._page(request, request_id, now, part, unmeasured, Budget()) for part in parts]
            shown = self._drafted(request, request_id, treatment, pages).shown(0)
        teams = [each.label or "" for each in treatment.rivals]
        return why_not_response(request, item_id, in_draft(picks_of(shown), str(item_id), teams, found))

    def _why_not(self, request: RecommendRequest, now: int, part: "_Part", item_id: ExternalId) -> WhyNot:
        by = part.answerer
        query = by.query(request, by.live.user(request.user_id), now, seed=0, treatment=part.treatment)
        inference = by.live.inference
        return why_not(inference, query, inference.recommend(query), by.code(item_id))

    def query(  # noqa: PLR0913 - what is asked, by whom and when, and what may be other than the service has it
        self,
        request: RecommendRequest,
        user: LiveUser,
        now: int,
        *,
        seed: int,
        rules: RuleBook | None = None,
        treatment: Treatment | None = None,
    ) -> Query:
        """Return what a request asks of the request path.

        Args:
            request: what was asked.
            user: who asks.
            now: when, in Unix seconds.
            seed: of exploration.
            rules: of the shop; without it those that are there.
            treatment: what experiments change for this user.

        Raises:
            NotFoundError: if items have no such attribute as caps are set for.
        """
        treatment = treatment or self._untreated
        settings, catalogue = treatment.settings, self.live.catalogue
        rules, shown_before = rules or self.live.rules, request.cursor or []
        diversity = settings.diversity if request.diversity is None else request.diversity
        arrangement = Arrangement(
            diversity=0.0 if settings.exploration else diversity,
            caps=settings.caps,
            labels={name: catalogue.labels(name) for name in settings.caps},
            exploration=settings.exploration,
            new_item_share=settings.new_item_share,
            seed=seed,
        )
        state = user.at(now).then(catalogue.codes(request.context.recent_items))
        return Query(
            state=self.live.with_shown(state, request.user_id),
            k=request.num_recommendations or settings.default_k,
            categories=request.filter_categories,
            filter=request.filter,
            exclude=catalogue.codes([*request.exclude_items, *shown_before]),
            use_reranking=request.use_reranking and treatment.use_reranking,
            arrangement=arrangement,
            directives=rules.directives(
                rules.in_force(now) if treatment.follows_rules else (),
                request.filter_categories,
                user.user_code,
                n_before=len(shown_before),
            ),
        )

    def similar_items(self, item_id: ExternalId, n_items: int, request_id: str) -> SimilarItemsResponse:
        """Return the items whose vectors are nearest to an item's, without itself.

        Raises:
            NotFoundError: if there is no such item.
        """
        started = time.perf_counter()
        code = self.code(item_id)
        others = self.live.catalogue.visible.without(np.array([code], dtype=np.int32))
        scores, codes = self.live.index.nearest(self.live.index.rows[code], n_items, others)
        explanation = f"similar to {self.live.catalogue.view(code).title or item_id}"
        found = [
            self._item(item, score, explanation, "similar")
            for item, score in zip(codes.tolist(), scores.tolist(), strict=True)
        ]
        metadata = self._metadata(milliseconds_since(started), n_candidates=others.count())
        return SimilarItemsResponse(item_id=item_id, request_id=request_id, similar_items=found, metadata=metadata)

    def trending(self, n_items: int, category: str | None, time_window: str, request_id: str) -> TrendingResponse:
        """Return what was met most in the hours or days before now, by everybody together.

        Raises:
            NotFoundError: if the category does not exist.
        """
        started = time.perf_counter()
        eligible = self.live.inference.allowed([category] if category else [])
        seconds = int(time_window[:-1]) * SECONDS_BY_UNIT[time_window[-1]]
        counts = self.live.inference.items.timeline.counts_within(int(self.clock()), seconds)
        codes = most(counts, eligible, n_items).tolist()
        items = [
            self._item(code, float(counts[code]), f"met {int(counts[code]):,} times within {time_window}", "trending")
            for code in codes
        ]
        metadata = self._metadata(milliseconds_since(started), n_candidates=len(codes))
        return TrendingResponse(request_id=request_id, time_window=time_window, items=items, metadata=metadata)

    def _page(  # noqa: PLR0913 - what is asked, when, what experiments change, and what keeps the time
        self, request: RecommendRequest, request_id: str, now: int, part: "_Part", lap: Lap, budget: Budget
    ) -> Page:
        by, seed = part.answerer, zlib.crc32(request_id.encode())
        query = by.query(request, by.live.user(request.user_id), now, seed=seed, treatment=part.treatment)
        page = by.page(request, query, lap, budget)
        return replace(page, degraded=(*page.degraded, OTHER_VERSION)) if part.is_missing else page

    def _part(self, treatment: Treatment) -> "_Part":
        """Return who answers for an arm: the current model as well where the arm's own is not open here."""
        version = treatment.model_version
        if version is None or version == self.live.bundle.version:
            return _Part(treatment, self)
        if (other := self._others(version)) is None:
            return _Part(treatment, self, is_missing=True)
        return _Part(treatment, other)

    def _drafted(self, request: RecommendRequest, request_id: str, treatment: Treatment, pages: Sequence[Page]) -> Page:
        n = request.num_recommendations or treatment.settings.default_k
        teams = [each.label or "" for each in treatment.rivals]
        return drafted(pages, teams, n, coins_of(treatment.key, request.user_id, request_id))

    def page(self, request: RecommendRequest, query: Query, lap: Lap, budget: Budget) -> Page:
        """Return what this model answers a query with."""
        inference = self.live.inference
        trace = inference.recommend(query, lap, budget)
        items = recommended_items(inference, query, trace)
        if request.explain:
            items = with_reasons(items, inference, query, trace, budget)
        places, propensities = trace.slate.places.tolist(), trace.slate.propensities.tolist()
        return Page(
            items=tuple(
                PlacedItem(item, propensity, is_pinned=place in trace.slate.pinned)
                for item, place, propensity in zip(items, places, propensities, strict=True)
            ),
            n_eligible=trace.steps[-1][1].count(),
            n_candidates=len(trace.candidates.item_codes),
            user_known=len(query.state.liked) > 0,
            reranked=trace.ranking_scores is not None,
            degraded=(*self._missing(request), *budget.missing),
            rule_ids=query.directives.rule_ids,
        )

    def _answer(self, request: RecommendRequest, page: Page, version: str, experiment: str | None) -> RecommendResponse:
        items = [each.item for each in page.items]
        before = [*(request.cursor or []), *(item.item_id for item in items)]
        is_more = page.n_eligible > len(items) and len(before) < MAX_EXCLUDED
        metadata = self._metadata(
            n_candidates=page.n_candidates,
            user_known=page.user_known,
            reranked=page.reranked,
            degraded=page.degraded,
            rules=page.rule_ids,
            next_cursor=cursor_after(before) if is_more and items else None,
        )
        metadata.experiment, metadata.model_version = experiment, version
        return RecommendResponse(user_id=request.user_id, request_id="", recommendations=items, metadata=metadata)

    def _missing(self, request: RecommendRequest) -> list[str]:
        bundle = self.live.bundle
        is_ranker_missing = bundle.ranker is None and bundle.config.ctr.model_type != "none" and request.use_reranking
        return [*(["events"] if self.live.is_behind else []), *(["ranker"] if is_ranker_missing else [])]

    def code(self, item_id: ExternalId) -> int:
        """Return the code of an item; NotFoundError if there is none."""
        code = self.live.catalogue.code(item_id)
        if code < 0:
            raise NotFoundError(f"there is no item {item_id!r}", hint="add it with POST /items")
        return code

    def _item(self, code: int, score: float, explanation: str, source: str) -> RecommendedItem:
        retrieval_score = score if source == "similar" else None
        metadata = ItemMetadata(source=source, retrieval_score=retrieval_score, ranking_score=None)
        return recommended_item(self.live.catalogue, code, score, explanation, metadata)

    def _metadata(  # noqa: PLR0913 - one for each thing that answers differ in
        self,
        latency_ms: float = 0.0,
        *,
        n_candidates: int,
        user_known: bool = False,
        reranked: bool = False,
        degraded: Sequence[str] = (),
        rules: Sequence[str] = (),
        next_cursor: str | None = None,
    ) -> AnswerMetadata:
        return AnswerMetadata(
            latency_ms=latency_ms,
            cached=False,
            model_version=self.live.bundle.version,
            num_candidates=n_candidates,
            reranked=reranked,
            experiment=None,
            user_known=user_known,
            degraded=list(degraded),
            rules=list(rules),
            next_cursor=next_cursor,
        )

    def _kept_as(
        self, request: RecommendRequest, user_version: int, now: int, treatment: Treatment, parts: "Sequence[_Part]"
    ) -> str:
        """Return the key of an answer in the cache; nothing where it is not kept."""
        is_drawn = any(part.treatment.settings.exploration or part.is_missing for part in parts)
        if is_drawn or self.config.redis.cache_ttl <= 0:
            return ""
        key_parts = f"{_version(parts)}\n{treatment.key}"
        return self._cache_key(request, user_version, self.live.rules.in_force(now), key_parts)

    def _cache_key(self, request: RecommendRequest, user_version: int, rule_ids: Sequence[str], key_parts: str) -> str:
        """Return a hash of all that an answer depends on: request, user, catalogue, rules, model, settings and arms.

        Versions of users, items and rules are positions of one log, so its identity is part of it: services with other
        logs may share a Redis. With the rules in force in it, no answer outlives the moment at which one of them begins
        or ends.
        """
        rules = f"{self.live.rules.version} {' '.join(rule_ids)}"
        versions = f"{self.live.log_id}\n{user_version}\n{self.live.catalogue_version}\n{rules}"
        whole = f"{versions}\n{key_parts}\n{self._settings}\n{request.canonical}"
        return hashlib.sha256(whole.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Part:
    """An arm of an answer and who answers for it; whether that is not the version that it names."""

    treatment: Treatment
    answerer: Answerer
    is_missing: bool = False


def _version(parts: Sequence[_Part]) -> str:
    return "+".join(dict.fromkeys(part.answerer.live.bundle.version for part in parts))
