"""From requests to answers: ids to codes, traces to items with titles and reasons."""

import hashlib
import time
from collections.abc import Callable

import numpy as np

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import ExternalId, IntArray
from rec_engine.data.state import UserState, state_of
from rec_engine.errors import NotFoundError
from rec_engine.serving.cache import Cache
from rec_engine.serving.inference import Query, RecommendationInference, Trace
from rec_engine.serving.schemas import (
    AnswerMetadata,
    ItemMetadata,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
)
from rec_engine.utils.config import ServingConfig

IMPERSONAL = ("popularity", "recent popularity")


class Answerer:
    """Answers requests from one bundle.

    Args:
        bundle: the model.
        config: of the service.
        cache: of whole answers.
        clock: Unix seconds; the time of a request is part of what recommendations go by.
    """

    def __init__(
        self, bundle: ModelBundle, config: ServingConfig, cache: Cache, clock: Callable[[], float] = time.time
    ) -> None:
        self.bundle = bundle
        self.config = config
        self.cache = cache
        self.clock = clock
        self.inference = RecommendationInference.of(bundle, config.recommendations)
        self.titles: list[str | None] = bundle.items["title"].to_list()
        self.categories: list[list[str] | None] = bundle.items["categories"].to_list()

    def recommend(self, request: RecommendRequest, request_id: str) -> RecommendResponse:
        """Return the answer to a request: always min(wanted, eligible) items.

        Raises:
            NotFoundError: if a category does not exist.
        """
        started = time.perf_counter()
        key = self._cache_key(request)
        if (stored := self.cache.get(key)) is not None:
            answer = RecommendResponse.model_validate_json(stored)
        else:
            answer = self._compute(request)
            self.cache.set(key, answer.model_dump_json().encode(), self.config.redis.cache_ttl)
        made = {"latency_ms": _milliseconds_since(started), "cached": stored is not None}
        metadata = answer.metadata.model_copy(update=made)
        return answer.model_copy(update={"request_id": request_id, "metadata": metadata})

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

    def _compute(self, request: RecommendRequest) -> RecommendResponse:
        state = self._state(request)
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
        if request.use_reranking and self.bundle.ranker is None:
            metadata = metadata.model_copy(update={"degraded": ["ranker"]})
        items = self._items(trace, state)
        return RecommendResponse(user_id=request.user_id, request_id="", recommendations=items, metadata=metadata)

    def _state(self, request: RecommendRequest) -> UserState:
        """Return what is known of the user, with the items that the request says he met last."""
        state = state_of(self.bundle.history, self.bundle.user_ids.code(request.user_id), int(self.clock()))
        return state.then(self._known_codes(request.context.recent_items))

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

    def _cache_key(self, request: RecommendRequest) -> str:
        """Return a hash of everything that an answer depends on: the whole request, the model and the settings."""
        settings = self.config.recommendations.model_dump_json()
        whole = f"{self.bundle.version}\n{settings}\n{request.model_dump_json()}"
        return hashlib.sha256(whole.encode()).hexdigest()


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
