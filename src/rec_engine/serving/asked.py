"""What a request asked besides its user, as the log keeps it: with it the request can be answered again."""

import json

from pydantic import ValidationError

from rec_engine.errors import DataError
from rec_engine.serving.schemas import Context, RecommendRequest

_HEEDED = frozenset({"filter_categories", "exclude_items", "filter", "use_reranking"})
"""Fields that decide which items may be drawn, and how they are scored; recent items of the context do, too."""


def asked_of(request: RecommendRequest) -> str | None:
    """Return JSON of the fields that an answer from another model would have to heed; None for a plain request.

    How many items were wanted is seen from the answer, and diversity has no part in one that is drawn.
    """
    recent = request.context.recent_items
    if not (request.exclude_items or request.filter_categories or request.filter or recent) and request.use_reranking:
        return None
    # Nothing else of the context: it may say anything, and changes no answer.
    request = request.model_copy(update={"context": Context(recent_items=recent)})
    heeded = _HEEDED | {"context"} if recent else _HEEDED
    return request.model_dump_json(include=set(heeded), exclude_defaults=True)


def request_of(user_id: str, asked: str | None) -> RecommendRequest:
    """Return the request of a user that was kept so.

    Raises:
        DataError: if a later release has kept it, with fields that this one does not know.
    """
    fields = json.loads(asked) if asked else {}
    try:
        return RecommendRequest.model_validate({"user_id": user_id, **fields})
    except ValidationError as error:
        raise DataError(f"what was asked cannot be asked again: {error.errors()[0]['msg']}") from None
