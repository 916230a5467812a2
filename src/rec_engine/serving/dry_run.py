"""What rules would change, found out before anybody meets them: each answer made with the present and the proposed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from rec_engine.data.dataset import ExternalId
from rec_engine.serving.answers import Answerer
from rec_engine.serving.rule_schemas import DryRunRequest, DryRunResponse, Moved, SlateDifference
from rec_engine.serving.rules import RuleBook
from rec_engine.serving.schemas import RecommendRequest


async def dry_run(answerer: Answerer, asked: DryRunRequest) -> DryRunResponse:
    """Return what the proposed rules would change for some users. Nothing is kept, and nothing counts as shown.

    Other requests are answered between two users.

    Raises:
        NotFoundError: if a category does not exist, or a proposed rule names an attribute that there is not.
        DataError: if a proposed rule does not fit the attributes' types, or there would be too many.
    """
    now = int(answerer.clock()) if asked.at is None else asked.at
    present = answerer.live.rules
    proposed = present.changed(asked.rules, asked.deleted)
    found = []
    for user_id in asked.user_ids:
        request = RecommendRequest(
            user_id=user_id,
            num_recommendations=asked.num_recommendations,
            filter_categories=asked.filter_categories,
        )
        before, _ = _slate(answerer, request, now, present)
        after, rule_ids = _slate(answerer, request, now, proposed)
        found.append(_difference(user_id, before, after, rule_ids))
        await asyncio.sleep(0)
    return DryRunResponse(
        n_users_changed=sum(bool(each.entering or each.leaving or each.moved) for each in found),
        n_entering=sum(len(each.entering) for each in found),
        n_leaving=sum(len(each.leaving) for each in found),
        n_moved=sum(len(each.moved) for each in found),
        users=found,
    )


def _slate(
    answerer: Answerer, request: RecommendRequest, now: int, rules: RuleBook
) -> tuple[list[ExternalId], tuple[str, ...]]:
    """Return what would be shown, best first, and the rules that hold."""
    query = answerer.query(request, answerer.live.user(request.user_id), now, seed=0, rules=rules)
    # What exploration draws would differ without any rule: both orders are by merit.
    query = replace(query, arrangement=replace(query.arrangement, exploration=0.0))
    codes = answerer.live.inference.recommend(query).item_codes.tolist()
    return [answerer.live.catalogue.view(code).item_id for code in codes], query.directives.rule_ids


def _difference(
    user_id: ExternalId, before: list[ExternalId], after: list[ExternalId], rule_ids: Sequence[str]
) -> SlateDifference:
    place_before = {item_id: place for place, item_id in enumerate(before, start=1)}
    place_after = {item_id: place for place, item_id in enumerate(after, start=1)}
    return SlateDifference(
        user_id=user_id,
        before=before,
        after=after,
        entering=[item_id for item_id in after if item_id not in place_before],
        leaving=[item_id for item_id in before if item_id not in place_after],
        moved=[
            Moved(item_id=item_id, before=place_before[item_id], after=place)
            for item_id, place in place_after.items()
            if item_id in place_before and place_before[item_id] != place
        ],
        rules=list(rule_ids),
    )
