"""From requests to answers: ids to codes, traces to items with titles and reasons."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from pydantic.main import IncEx

from rec_engine.data.dataset import ExternalId, IntArray
from rec_engine.data.live import LiveUser
from rec_engine.data.state import UserState
from rec_engine.errors import NotFoundError
from rec_engine.retrieval.candidates import most
from rec_engine.serving.cache import Cache
from rec_engine.serving.inference import Query, Trace
from rec_engine.serving.live import LiveModel
from rec_engine.serving.schemas import (
    AnswerMetadata,
    ItemMetadata,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
    TrendingResponse,
)
from rec_engine.utils.config import ServingConfig

SECONDS_BY_UNIT = {"h": 3_600, "d": 86_400}
VOLATILE: Mapping[str, IncEx | bool] = {"request_id": True, "metadata": {"latency_ms", "cached"}}
"""What two answers from the same entry of the cache differ in."""
IMPERSONAL = ("popularity", "recent popularity")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it leaves.

    Attributes:
        body: JSON of a RecommendResponse.
        shown: JSON list of [item id, score], best first, for the log.
    """

    body: bytes
    shown: bytes


class Answerer:
    """Answers requests from one model.

    Args:
        live: the model and what happened since.
        config: of the service.
        cache: of whole answers.
        clock: Unix seconds; the time of a request is part of what recommendations go by.
    """

    def __init__(
        self, live: LiveModel, config: ServingConfig, cache: Cache, clock: Callable[[], float] = time.time
    ) -> None:
        self.live = live
        self.bundle = live.bundle
        self.config = config
        self.cache = cache
        self.clock = clock
        self.inference = live.inference
        self.titles: list[str | None] = self.bundle.items["title"].to_list()
        self.categories: list[list[str] | None] = self.bundle.items["categories"].to_list()
        self._settings = config.recommendations.model_dump_json()

    def recommend(self, request: RecommendRequest, request_id: str) -> Answer:
        """Return the answer to a request: always min(wanted, eligible) items.

        Nothing else runs in this process between the look into the cache and the entry that is made there, so one
        answer is never computed twice side by side.

        Raises:
            NotFoundError: if a category does not exist.
        """
        started = time.perf_counter()
        user = self.live.user(request.user_id)
        key = self._cache_key(request, user.version)
        stored = None if self.live.is_behind else self.cache.get(key)
        if stored is None:
            answer = self._compute(request, user)
            shown = msgspec.json.encode([[item.item_id, item.score] for item in answer.recommendations])
            body = answer.model_dump_json(exclude=VOLATILE).encode()
            if not answer.metadata.degraded:
                self.cache.set(key, shown + b"\n" + body, self.config.redis.cache_ttl)
        else:
            shown, _, body = stored.partition(b"\n")
        is_cached = b"true" if stored is not None else b"false"
        volatile = b',"latency_ms":%.3f,"cached":%s}}' % (_milliseconds_since(started), is_cached)
        return Answer(b'{"request_id":"%s",' % request_id.encode() + body[1:-2] + volatile, shown)

    def similar_items(self, item_id: ExternalId, n_items: int, request_id: str) -> SimilarItemsResponse:
        """Return the items whose vectors are nearest to an item's, without itself.

        Raises:
            NotFoundError: if there is no such item.
        """
        started = time.perf_counter()
        code = self.bundle.item_ids.code(item_id)
        if code < 0:
            raise NotFoundError(f"there is no item {item_id!r}", hint="ids are those of the data it was trained on")
        others = self.inference.everything.without(np.array([code], dtype=np.int32))
        scores, codes = self.bundle.index.search(self.bundle.index.vectors[[code]], n_items, others)
        explanation = f"similar to {self.titles[code] or item_id}"
        found = [
            self._item(
                item, score, explanation, ItemMetadata(source="similar", retrieval_score=score, ranking_score=None)
            )
            for item, score in zip(codes[0].tolist(), scores[0].tolist(), strict=True)
            if item >= 0
        ]
        metadata = self._metadata(n_candidates=others.count(), user_known=False, reranked=False)
        metadata = metadata.model_copy(update={"latency_ms": _milliseconds_since(started)})
        return SimilarItemsResponse(item_id=item_id, request_id=request_id, similar_items=found, metadata=metadata)

    def trending(self, n_items: int, category: str | None, time_window: str, request_id: str) -> TrendingResponse:
        """Return what was met most in the hours or days before now, by everybody together.

        Raises:
            NotFoundError: if the category does not exist.
        """
        started = time.perf_counter()
        eligible = self.inference.allowed([category] if category else [])
        seconds = int(time_window[:-1]) * SECONDS_BY_UNIT[time_window[-1]]
        counts = self.inference.items.timeline.counts_within(int(self.clock()), seconds)
        codes = most(counts, eligible, n_items)
        items = [
            self._item(
                code,
                float(counts[code]),
                f"met {int(counts[code]):,} times within {time_window}",
                ItemMetadata(source="trending", retrieval_score=None, ranking_score=None),
            )
            for code in codes.tolist()
        ]
        metadata = self._metadata(n_candidates=len(codes), user_known=False, reranked=False)
        metadata = metadata.model_copy(update={"latency_ms": _milliseconds_since(started)})
        return TrendingResponse(request_id=request_id, time_window=time_window, items=items, metadata=metadata)

    def _compute(self, request: RecommendRequest, user: LiveUser) -> RecommendResponse:
        state = user.at(int(self.clock())).then(self._known_codes(request.context.recent_items))
        query = Query(
            state=state,
            k=request.num_recommendations or self.config.recommendations.default_k,
            categories=request.filter_categories,
            exclude=self._known_codes(request.exclude_items),
            use_reranking=request.use_reranking,
        )
        trace = self.inference.recommend(query)
        metadata = self._metadata(
            n_candidates=len(trace.candidates.item_codes),
            user_known=len(state.liked) > 0,
            reranked=trace.ranking_scores is not None,
        )
        degraded = [*trace.degraded, *(["events"] if self.live.is_behind else [])]
        if request.use_reranking and self.bundle.ranker is None and self.bundle.config.ctr.model_type != "none":
            degraded.append("ranker")
        metadata = metadata.model_copy(update={"degraded": degraded})
        items = self._items(trace, state)
        return RecommendResponse(user_id=request.user_id, request_id="", recommendations=items, metadata=metadata)

    def _known_codes(self, item_ids: list[ExternalId]) -> IntArray:
        codes = self.bundle.item_ids.codes(item_ids)
        return codes[codes >= 0]

    def _items(self, trace: Trace, state: UserState) -> list[RecommendedItem]:
        cosine = trace.candidates.score_of("tower")
        reranked = trace.ranking_scores is not None
        items = []
        for place in trace.slate.tolist():
            code, source = int(trace.candidates.item_codes[place]), trace.best_source(place)
            is_personal = source not in IMPERSONAL
            metadata = ItemMetadata(
                source=source,
                retrieval_score=float(cosine[place]) if np.isfinite(cosine[place]) else None,
                ranking_score=float(trace.scores[place]) if reranked else None,
            )
            explanation = self._because(code, state) if is_personal else "popular with many users"
            items.append(self._item(code, float(trace.scores[place]), explanation, metadata))
        return items

    def _because(self, code: int, state: UserState) -> str:
        """Return which item of the history is nearest to this one."""
        liked = state.liked[-self.bundle.config.model.max_history_len :]
        vectors = self.bundle.index.vectors
        nearest = int(liked[np.argmax(vectors[liked] @ vectors[code])])
        return f"because of {self.titles[nearest] or self.bundle.item_ids[nearest]}"

    def _item(self, code: int, score: float, explanation: str, metadata: ItemMetadata) -> RecommendedItem:
        return RecommendedItem(
            item_id=self.bundle.item_ids[code],
            title=self.titles[code],
            score=score,
            categories=self.categories[code] or [],
            explanation=explanation,
            metadata=metadata,
        )

    def _metadata(self, *, n_candidates: int, user_known: bool, reranked: bool) -> AnswerMetadata:
        return AnswerMetadata(
            latency_ms=0.0,
            cached=False,
            model_version=self.bundle.version,
            num_candidates=n_candidates,
            reranked=reranked,
            experiment=None,
            user_known=user_known,
            degraded=[],
        )

    def _cache_key(self, request: RecommendRequest, user_version: int) -> str:
        """Return a hash of everything that an answer depends on: request, user, catalogue, model and settings."""
        versions = f"{self.bundle.version}\n{user_version}\n{self.live.catalogue_version}"
        whole = f"{versions}\n{self._settings}\n{request.model_dump_json()}"
        return hashlib.sha256(whole.encode()).hexdigest()


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
