"""From codes to what goes over the wire: items with titles, sources and reasons."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from rec_engine.data.dataset import IntArray
from rec_engine.retrieval.budget import Budget
from rec_engine.retrieval.catalogue import Catalogue
from rec_engine.serving.explain import (
    ItemRule,
    SourceView,
    WhyNot,
    contributions,
    drawn_by,
    rules_about,
    source_views,
    strongest,
)
from rec_engine.serving.inference import PINNED, Query, RecommendationInference, Trace
from rec_engine.serving.rule_schemas import RuleEffect
from rec_engine.serving.schemas import (
    Contribution,
    ItemMetadata,
    ItemName,
    RecommendedItem,
    RecommendRequest,
    SourceRank,
    Why,
    WhyNotResponse,
)

POPULAR = "popular with many users"
EXPLANATIONS = {"popularity": POPULAR, "recent popularity": POPULAR, PINNED: "chosen by the shop"}
"""What is said of an item by whatever offered it where that does not go by the user's history."""
HISTORY_ITEMS = 200
CONTRIBUTIONS = 10


def recommended_items(inference: RecommendationInference, query: Query, trace: Trace) -> list[RecommendedItem]:
    """Return the items of a slate with what offered them and which item of the history is nearest."""
    codes = trace.item_codes
    cosines = trace.candidates.score_of("tower")[trace.slate.places].tolist()
    reasons = _because(inference, query, codes)
    items = []
    columns = codes.tolist(), trace.slate_scores.tolist(), cosines, trace.best_sources, reasons
    for code, score, cosine, source, reason in zip(*columns, strict=True):
        metadata = ItemMetadata(
            source=source,
            retrieval_score=None if math.isnan(cosine) else cosine,
            ranking_score=None if trace.ranking_scores is None else score,
        )
        explanation = EXPLANATIONS.get(source, reason)
        items.append(recommended_item(inference.catalogue, code, score, explanation, metadata))
    return items


def with_reasons(
    items: list[RecommendedItem], inference: RecommendationInference, query: Query, trace: Trace, budget: Budget
) -> list[RecommendedItem]:
    """Return the same items with everything that speaks for each of them, as far as the budget allows."""
    places = trace.slate.places.astype(np.int32)
    added = budget.spend("contributions", partial(contributions, inference, trace, places)) or []
    explained = []
    for row, (item, place) in enumerate(zip(items, places.tolist(), strict=True)):
        code = int(trace.candidates.item_codes[place])
        history = [inference.catalogue.view(other) for other in drawn_by(inference, query, code).tolist()]
        parts = strongest(added[row], CONTRIBUTIONS) if added else []
        why = Why(
            sources=_ranks(source_views(trace, place)),
            drawn_by=[ItemName(item_id=other.item_id, title=other.title) for other in history],
            log_odds=added[row].log_odds if added else None,
            base=added[row].base if added else None,
            contributions=[
                Contribution(feature=name, value=None if np.isnan(value) else value, contribution=part)
                for name, value, part in parts
            ],
            rules=_effects(rules_about(query.directives, code)),
        )
        explained.append(replace(item, why=why))
    return explained


def recommended_item(
    catalogue: Catalogue, code: int, score: float, explanation: str, metadata: ItemMetadata
) -> RecommendedItem:
    """Return one item as answers show it."""
    view = catalogue.view(code)
    return RecommendedItem(
        item_id=view.item_id,
        title=view.title,
        score=score,
        categories=list(view.categories),
        explanation=explanation,
        metadata=metadata,
    )


def why_not_response(request: RecommendRequest, item_id: int | str, found: WhyNot) -> WhyNotResponse:
    """Return why an item is not in the answer to a request."""
    return WhyNotResponse(
        user_id=request.user_id,
        item_id=item_id,
        step=found.step,
        detail=found.detail,
        place=found.place,
        score=found.score,
        needed=found.needed,
        sources=_ranks(found.sources),
        rules=_effects(found.rules),
    )


def _because(inference: RecommendationInference, query: Query, codes: IntArray) -> list[str]:
    """Return which item of the history is nearest to each of these, in words; nothing where there is no history."""
    liked = query.state.liked[-HISTORY_ITEMS:]
    if not len(liked):
        return [""] * len(codes)
    vectors = inference.items.vectors
    nearest = liked[(vectors[liked] @ vectors[codes].T).argmax(axis=0)].tolist()
    name_by_code = {code: inference.catalogue.name(code) for code in set(nearest)}
    return [f"because of {name_by_code[code]}" for code in nearest]


def _effects(rules: tuple[ItemRule, ...]) -> list[RuleEffect]:
    return [
        RuleEffect(rule_id=each.rule_id, action=each.action, position=each.position, log_odds=each.log_odds)
        for each in rules
    ]


def _ranks(views: tuple[SourceView, ...]) -> list[SourceRank]:
    return [SourceRank(source=view.name, score=view.score, rank=view.rank) for view in views]
