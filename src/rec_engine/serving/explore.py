"""What people ask of the service: items by their words, users by their ids, the end of the log; nothing is written."""

import asyncio
import math
from collections.abc import Mapping
from datetime import date, datetime, time

import numpy as np
import polars as pl
from pydantic import JsonValue

from rec_engine.data.dataset import ExternalId, IntArray
from rec_engine.data.log_tail import Tail, item_change, latest_answers, latest_events
from rec_engine.data.shown_rows import rows_of
from rec_engine.errors import NotFoundError
from rec_engine.retrieval.candidates import top_of
from rec_engine.retrieval.catalogue import ItemView
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.text_search import begins_a_word, begins_with
from rec_engine.serving.engine import Engine
from rec_engine.serving.explore_schemas import (
    AnswerList,
    CategoryList,
    EventList,
    FoundItem,
    ItemDetails,
    ItemsFound,
    LoggedAnswer,
    LoggedEvent,
    UserList,
)
from rec_engine.serving.inference import unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.schemas import RecommendRequest

MAX_CATEGORIES = 1_000


def preview(engine: Engine, request: RecommendRequest, request_id: str) -> bytes:
    """Return the JSON of the answer that a request would get; it is not logged, counted or kept."""
    engine.catch_up()
    answerer = engine.answerer.without_cache()
    return answerer.recommend(request, request_id, unmeasured, engine.treatment(request.user_id)).body


async def find_items(engine: Engine, query: str, category: str | None, first: int, n_items: int) -> ItemsFound:
    """Return visible items whose titles have words that begin as those of the query do; all of them without any.

    Raises:
        NotFoundError: if the category does not exist.
    """
    engine.catch_up()
    live = engine.live  # to the end: another model, with other codes, may take over meanwhile
    eligible = live.inference.allowed([category] if category else [])
    changed = dict(live.catalogue.changed)  # while this searches, others may change
    n_found, codes = await asyncio.to_thread(_best_found, live, query, eligible, changed, first + n_items)
    return ItemsFound(n_found=n_found, items=[_found(live, code) for code in codes[first:].tolist()])


async def describe_item(engine: Engine, item_id: ExternalId) -> ItemDetails:
    """Return all that is known of an item.

    Raises:
        NotFoundError: if there is none, or it was deleted.
    """
    engine.catch_up()
    live, code = engine.live, engine.answerer.code(item_id)
    catalogue = live.catalogue
    change = await asyncio.to_thread(item_change, engine.store, str(item_id))
    if change is not None and change.status == "deleted":
        raise NotFoundError(f"the item {item_id!r} was deleted", hint="add it again with POST /items")
    values = _of_training(live.bundle.items, code) if change is None else change.values
    view = catalogue.view(code)
    description = values.get("description")
    own = {"item_id", "title", "description", "categories"}
    return ItemDetails(
        item_id=view.item_id,
        title=view.title,
        description=None if description is None else str(description),
        categories=list(view.categories),
        attributes=_shown({name: value for name, value in values.items() if name not in own}),
        is_visible=bool(catalogue.visible.keeps(np.array([code], dtype=np.int32))[0]),
        n_users=int(live.knowledge.popularity[code]),
    )


def categories(engine: Engine) -> CategoryList:
    """Return the names of categories, by name."""
    return CategoryList(categories=engine.live.catalogue.category_names[:MAX_CATEGORIES])


async def find_users(engine: Engine, prefix: str, n_users: int) -> UserList:
    """Return users of the model whose ids begin so."""
    ids = engine.bundle.user_ids
    codes = await asyncio.to_thread(begins_with, ids.ids, prefix, n_users)
    return UserList(users=[ids[code] for code in codes.tolist()])


async def tail_of_log(engine: Engine, asked: Tail) -> EventList:
    """Return the latest events.

    Raises:
        StoreError: if the log cannot be read.
    """
    engine.catch_up()
    position, events = await asyncio.to_thread(latest_events, engine.store, asked)
    catalogue = engine.live.catalogue
    titles = {event.item_id: catalogue.title(event.item_id) for event in events}
    return EventList(
        position=position,
        events=[
            LoggedEvent.model_validate(
                {
                    "position": event.position,
                    "event_id": event.event_id,
                    "user_id": event.user_id,
                    "item_id": event.item_id,
                    "title": titles[event.item_id],
                    "action": event.event,
                    "value": event.value,
                    "timestamp": event.timestamp,
                    "request_id": event.request_id,
                }
            )
            for event in events
        ],
    )


async def latest_shown(engine: Engine, asked: Tail) -> AnswerList:
    """Return the latest answers that showed an item, or anything to a user.

    Raises:
        StoreError: if the log cannot be read.
    """
    found = await asyncio.to_thread(latest_answers, engine.store, asked)
    return AnswerList(
        answers=[
            LoggedAnswer(
                request_id=shown.request_id,
                user_id=shown.user_id,
                timestamp=shown.timestamp,
                model_version=shown.model_version,
                n_items=len(rows_of(shown.shown) or []),
                position=position,
            )
            for shown, position in found
        ]
    )


def _best_found(
    live: LiveModel, query: str, eligible: Eligible, changed: Mapping[int, ItemView], n: int
) -> tuple[int, IntArray]:
    """Return how many items are found, and the codes of the first n: that of this id, then those that most met."""
    codes = _matching(live, query, eligible, changed)
    scores = live.knowledge.popularity[codes]
    scores[codes == live.catalogue.code(query)] = np.inf
    return len(codes), top_of(codes, scores, n)


def _matching(live: LiveModel, query: str, eligible: Eligible, changed: Mapping[int, ItemView]) -> IntArray:
    items, mask = live.bundle.items, eligible.mask()
    if not query.strip():
        return np.flatnonzero(mask).astype(np.int32)
    has_words = np.zeros(len(mask), dtype=np.bool_)
    if "title" in items.columns:
        has_words[: items.height] = begins_a_word(items["title"], query)
    if changed:
        has_words[list(changed)] = begins_a_word([view.title for view in changed.values()], query)
    if (code := live.catalogue.code(query)) >= 0:
        has_words[code] = True
    return np.flatnonzero(mask & has_words).astype(np.int32)


def _found(live: LiveModel, code: int) -> FoundItem:
    view = live.catalogue.view(code)
    return FoundItem(
        item_id=view.item_id,
        title=view.title,
        categories=list(view.categories),
        n_users=int(live.knowledge.popularity[code]),
    )


def _of_training(items: pl.DataFrame, code: int) -> dict[str, object]:
    """Return an item's row; of one that came later, and that the log has lost since, nothing."""
    return items.row(code, named=True) if code < items.height else {}


def _shown(values: Mapping[str, object]) -> dict[str, JsonValue]:
    shown = {name: _as_json(value) for name, value in values.items()}
    return {name: value for name, value in shown.items() if value is not None and value != []}


def _as_json(value: object) -> JsonValue:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)
